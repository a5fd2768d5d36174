//! How a caller proves itself: the declarative form of a document's `verify`, and the check compiled from it.
//!
//! A [`Verifier`] works on the bytes as they came over the wire, before anything parses them. Every
//! occurrence of the header and every item in it is a candidate (at most 16), every live secret is tried,
//! and the comparison is constant-time on decoded bytes; what does not decode, or has another length, is
//! skipped. Freshness is judged only after the signature, in both directions. The reasons in
//! [`VerifyError`] are for the operator: a caller sees nothing but a 401.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use subtle::{Choice, ConstantTimeEq as _};

use crate::fault::Fault;
use crate::name::Name;
use crate::secret::{SecretBytes, SecretRef};
use crate::time::Timestamp;
use crate::units::Duration;

/// How a caller proves itself: `none`, or one key that names the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Verify {
    /// Not at all; whoever knows the URL may send.
    None,
    /// By a shared token in a header.
    Token(TokenSpec),
    /// By a keyed hash over the raw body.
    Hmac(HmacSpec),
}

/// A shared token in a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// The header that holds the token.
    pub header: String,
    /// What stands before the token in the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The live tokens; any of them is accepted.
    pub secrets: Vec<SecretRef>,
}

/// A keyed hash over the raw body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacSpec {
    /// The header that holds the signature.
    pub header: String,
    /// What separates several signatures or pairs in the header: `,` for Stripe, a space for Standard Webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// What separates name and value of a pair: `=` for Stripe, `,` for Standard Webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// The name of the pairs that hold signatures: `v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What stands before the signature: `sha256=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The hash.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How the signature is written.
    #[serde(default)]
    pub encoding: Encoding,
    /// What is signed: literals and `{body}`, `{header:Name}`, `{timestamp}`. Default `{body}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where the time of signing stands; with it, stale requests are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampSpec>,
    /// How a secret's text becomes the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySpec>,
    /// The live secrets; a signature by any of them is accepted.
    pub secrets: Vec<SecretRef>,
}

/// Hash of a keyed signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names of the hashes say it")]
#[expect(non_camel_case_types, reason = "the document's own words")]
pub enum Algorithm {
    MD5,
    SHA_1,
    SHA_224,
    #[default]
    SHA_256,
    SHA_384,
    SHA_512,
    /// From a prefix that names the hash, else from the decoded length.
    INFER_FROM_HEADER,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(non_camel_case_types, reason = "the document's own words")]
pub enum Encoding {
    /// RFC 4648, section 4, padding optional.
    #[default]
    BASE64,
    /// Hexadecimal digits of either case.
    HEXA_DECIMAL,
    /// RFC 4648, section 5, padding optional.
    BASE64URL,
}

/// Where the time of signing stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimestampSpec {
    /// `header:Name`, or `field:t` for a pair of the signature header.
    pub from: String,
    /// The unit it is written in.
    #[serde(default)]
    pub unit: TimestampUnit,
    /// How far it may lie from now, in both directions. Default 5m, at most 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Duration>,
}

/// Unit of a time stamp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Seconds since the Unix epoch.
    #[default]
    S,
    /// Milliseconds since the Unix epoch.
    Ms,
    /// RFC 3339.
    Iso,
}

/// How a secret's text becomes the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// Removed from the beginning: `whsec_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip: Option<String>,
    /// How the rest is written.
    #[serde(default)]
    pub encoding: KeyEncoding,
}

/// How a key is written in a secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// Its bytes as they are.
    #[default]
    Utf8,
    /// RFC 4648, section 4.
    Base64,
    /// Hexadecimal digits.
    Hex,
}

impl Verify {
    /// The secret documents that this refers to.
    #[must_use]
    pub fn secrets(&self) -> &[SecretRef] {
        match self {
            Self::None => &[],
            Self::Token(token) => &token.secrets,
            Self::Hmac(hmac) => &hmac.secrets,
        }
    }

    /// The header whose value is a credential, when there is one: also known where the secret is missing.
    #[must_use]
    pub fn credential_header(&self) -> Option<HeaderName> {
        match self {
            Self::Token(token) => HeaderName::from_bytes(token.header.as_bytes()).ok(),
            Self::None | Self::Hmac(_) => None,
        }
    }

    /// Everything that is wrong with this on its own, paths relative to `verify`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        match self {
            Self::None => Vec::new(),
            Self::Token(spec) => spec.shape().err().unwrap_or_default(),
            Self::Hmac(spec) => spec.shape().err().unwrap_or_default(),
        }
    }
}

/// Most signatures of one request that are tried: enough for every secret in a rotation, few enough that a
/// caller without a secret cannot buy much work with one request.
pub const CANDIDATES_MAX: usize = 16;

/// How far a time stamp may lie from now unless the document says otherwise: 5 minutes, as the libraries of
/// Stripe, Slack and Standard Webhooks have it.
pub const TOLERANCE_DEFAULT: Duration = Duration::from_secs(300);
/// How far a time stamp may lie from now at most: 1 hour. What is older is a replay.
pub const TOLERANCE_MAX: Duration = Duration::from_secs(3_600);

/// Longest decoded signature: SHA-512.
const SIGNATURE_MAX_BYTES: usize = 64;

/// A check that is ready to run: names parsed, secrets decoded, keyed hash states computed.
///
/// Its `Debug` shows nothing of its secrets.
pub struct Verifier(Scheme);

enum Scheme {
    None,
    Token(TokenCheck),
    Hmac(Box<HmacCheck>),
}

struct TokenCheck {
    header: HeaderName,
    prefix: Option<String>,
    tokens: Vec<SecretBytes>,
    /// Hashes of the tokens: texts of any length compare in the same time.
    digests: Vec<[u8; 32]>,
    /// Whether `Bearer ` may stand before the token.
    bearer: bool,
}

struct HmacCheck {
    shape: HmacShape,
    /// Keyed states, one for each secret and hash that may be asked for; the first is the one that signs.
    keyed: Vec<Keyed>,
}

/// An HMAC spec with its texts parsed.
struct HmacShape {
    header: HeaderName,
    item: Option<String>,
    pair: Option<String>,
    field: Option<String>,
    prefix: Option<String>,
    /// `None`: inferred from each candidate.
    hash: Option<Hash>,
    encoding: Encoding,
    message: Vec<Part>,
    stamp: Option<Stamp>,
}

/// A part of what is signed.
enum Part {
    Literal(String),
    Body,
    Header(HeaderName),
    Timestamp,
}

struct Stamp {
    from: StampPlace,
    unit: TimestampUnit,
    tolerance: std::time::Duration,
}

enum StampPlace {
    Header(HeaderName),
    Field(String),
}

/// A hash that has been decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    const ALL: [Self; 6] = [Self::Sha256, Self::Sha1, Self::Sha512, Self::Sha384, Self::Sha224, Self::Md5];

    const fn bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA_1",
            Self::Sha224 => "SHA_224",
            Self::Sha256 => "SHA_256",
            Self::Sha384 => "SHA_384",
            Self::Sha512 => "SHA_512",
        }
    }

    /// The six lengths differ, so that a length names one hash.
    fn of_length(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.bytes() == bytes)
    }

    /// The hash that a prefix names: `sha256`, `SHA_256`, `hmac-sha256`.
    fn of_name(name: &str) -> Option<Self> {
        let mut plain = [0_u8; 10];
        let mut length = 0;
        for byte in name.bytes().filter(|byte| !matches!(byte, b'-' | b'_' | b' ')) {
            *plain.get_mut(length)? = byte.to_ascii_lowercase();
            length += 1;
        }
        let plain = &plain[..length];
        match plain.strip_prefix(b"hmac").unwrap_or(plain) {
            b"md5" => Some(Self::Md5),
            b"sha1" => Some(Self::Sha1),
            b"sha224" => Some(Self::Sha224),
            b"sha256" => Some(Self::Sha256),
            b"sha384" => Some(Self::Sha384),
            b"sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

impl Algorithm {
    const fn hash(self) -> Option<Hash> {
        match self {
            Self::MD5 => Some(Hash::Md5),
            Self::SHA_1 => Some(Hash::Sha1),
            Self::SHA_224 => Some(Hash::Sha224),
            Self::SHA_256 => Some(Hash::Sha256),
            Self::SHA_384 => Some(Hash::Sha384),
            Self::SHA_512 => Some(Hash::Sha512),
            Self::INFER_FROM_HEADER => None,
        }
    }
}

/// Declares the keyed states of all hashes: six times the same four matches.
macro_rules! keyed {
    ($($hash:ident: $digest:ty),*) => {
        /// A hash state that has taken its key; cloning it saves hashing the key again for every request.
        #[derive(Clone)]
        enum Keyed {
            $($hash(Hmac<$digest>),)*
        }

        impl Keyed {
            fn new(hash: Hash, key: &[u8]) -> Self {
                match hash {
                    $(Hash::$hash => {
                        Self::$hash(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
                    })*
                }
            }

            const fn hash(&self) -> Hash {
                match self {
                    $(Self::$hash(_) => Hash::$hash,)*
                }
            }

            fn update(&mut self, bytes: &[u8]) {
                match self {
                    $(Self::$hash(state) => state.update(bytes),)*
                }
            }

            fn finish(self) -> Signature {
                match self {
                    $(Self::$hash(state) => Signature::of(&state.finalize().into_bytes()),)*
                }
            }
        }
    };
}

keyed!(
    Md5: md5::Md5, Sha1: sha1::Sha1, Sha224: sha2::Sha224, Sha256: sha2::Sha256, Sha384: sha2::Sha384,
    Sha512: sha2::Sha512
);

/// A decoded signature, on the stack.
#[derive(Clone, Copy)]
struct Signature {
    bytes: [u8; SIGNATURE_MAX_BYTES],
    length: usize,
}

impl Signature {
    const EMPTY: Self = Self { bytes: [0; SIGNATURE_MAX_BYTES], length: 0 };

    /// The signature with these bytes, at most 64.
    fn of(bytes: &[u8]) -> Self {
        let mut signature = Self::EMPTY;
        signature.length = bytes.len().min(SIGNATURE_MAX_BYTES);
        signature.bytes[..signature.length].copy_from_slice(&bytes[..signature.length]);
        signature
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// How a request proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// `none`, `token` or `hmac`.
    pub by: &'static str,
    /// Whether it did; false only where no proof is asked for.
    pub ok: bool,
    /// The header whose value is a credential: what keeps the request keeps a marker in its place.
    pub credential_header: Option<HeaderName>,
}

/// Why a request did not prove itself, for the operator. The caller only ever sees a 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The header of the token or the signature, or one that is signed, is absent.
    #[error("the header {header} is missing; the sender does not sign, or signs under another name")]
    MissingHeader {
        /// The header.
        header: HeaderName,
    },
    /// The header holds nothing that could be a signature of the configured form.
    #[error(
        "the header {header} holds nothing that reads as {expected}; prefix, algorithm or encoding are likely others"
    )]
    Unreadable {
        /// The header.
        header: HeaderName,
        /// What was expected, in words.
        expected: String,
    },
    /// A well-formed signature that no live secret gives.
    #[error(
        "no live secret gives the signature in {header}; the secret is likely another, or the body was changed on its way"
    )]
    Mismatch {
        /// The header.
        header: HeaderName,
    },
    /// A token that is not one of the live ones.
    #[error("the header {header} does not hold a live token")]
    WrongToken {
        /// The header.
        header: HeaderName,
    },
    /// The time of signing is absent.
    #[error("the time stamp is missing: nothing at {place}")]
    MissingTimestamp {
        /// `header:Name` or `field:t`.
        place: String,
    },
    /// The time of signing is signed but cannot be read.
    #[error("the time stamp at {place} is not {unit}")]
    BadTimestamp {
        /// `header:Name` or `field:t`.
        place: String,
        /// The unit it should have, in words.
        unit: &'static str,
    },
    /// Signed by a live secret, but too long ago or too far ahead.
    #[error("{}", stale(*age_secs, *tolerance_secs))]
    Stale {
        /// Seconds since it was signed; negative when the time stamp lies ahead.
        age_secs: i64,
        /// Seconds that are allowed, in both directions.
        tolerance_secs: u64,
    },
}

fn stale(age_secs: i64, tolerance_secs: u64) -> String {
    if age_secs < 0 {
        let ahead = age_secs.unsigned_abs();
        format!("signed {ahead} s ahead of our clock, {tolerance_secs} s are allowed; one of the clocks is wrong")
    } else {
        format!("signed {age_secs} s ago, {tolerance_secs} s are allowed; a late repetition, or a wrong clock")
    }
}

impl VerifyError {
    /// Dotted slug, as refusals carry it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MissingHeader { .. } => "verify.missing_header",
            Self::Unreadable { .. } => "verify.unreadable_signature",
            Self::Mismatch { .. } => "verify.mismatch",
            Self::WrongToken { .. } => "verify.wrong_token",
            Self::MissingTimestamp { .. } => "verify.missing_timestamp",
            Self::BadTimestamp { .. } => "verify.bad_timestamp",
            Self::Stale { .. } => "verify.stale",
        }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verifier").field(&self.by()).finish()
    }
}

impl Verifier {
    /// Prepares the check; `resolve` gives the value of a secret document.
    ///
    /// # Errors
    /// Every fault of the spec, else every secret that is unknown, empty or not written as `key` says;
    /// paths relative to `verify`.
    pub fn compile(verify: &Verify, mut resolve: impl FnMut(&Name) -> Option<SecretBytes>) -> Result<Self, Vec<Fault>> {
        match verify {
            Verify::None => Ok(Self(Scheme::None)),
            Verify::Token(spec) => {
                let header = spec.shape()?;
                let tokens = resolved("token", &spec.secrets, &mut resolve, |secret| Ok(secret.clone()))?;
                let has_bearer = tokens.iter().any(|token| token.expose().starts_with(BEARER.as_bytes()));
                let digests = tokens.iter().map(|token| sha2::Sha256::digest(token.expose()).into()).collect();
                Ok(Self(Scheme::Token(TokenCheck {
                    header,
                    prefix: spec.prefix.clone(),
                    bearer: spec.prefix.is_none() && !has_bearer,
                    tokens,
                    digests,
                })))
            }
            Verify::Hmac(spec) => {
                let shape = spec.shape()?;
                let key = spec.key.clone().unwrap_or_default();
                let keys = resolved("hmac", &spec.secrets, &mut resolve, |secret| key.decode(secret))?;
                let hashes = shape.hash.map_or(Hash::ALL.to_vec(), |hash| vec![hash]);
                let keyed =
                    keys.iter().flat_map(|key| hashes.iter().map(|hash| Keyed::new(*hash, key.expose()))).collect();
                Ok(Self(Scheme::Hmac(Box::new(HmacCheck { shape, keyed }))))
            }
        }
    }

    /// How callers prove themselves: `none`, `token` or `hmac`.
    #[must_use]
    pub const fn by(&self) -> &'static str {
        match self.0 {
            Scheme::None => "none",
            Scheme::Token(_) => "token",
            Scheme::Hmac(_) => "hmac",
        }
    }

    /// Checks a request; `body` is what came over the wire, before any content decoding.
    ///
    /// # Errors
    /// Why it did not prove itself.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Proof, VerifyError> {
        match &self.0 {
            Scheme::None => Ok(Proof { by: self.by(), ok: false, credential_header: None }),
            Scheme::Token(check) => {
                check.verify(headers)?;
                Ok(Proof { by: self.by(), ok: true, credential_header: Some(check.header.clone()) })
            }
            Scheme::Hmac(check) => {
                check.verify(headers, body, now)?;
                Ok(Proof { by: self.by(), ok: true, credential_header: None })
            }
        }
    }

    /// Headers with which a request with this body is accepted now: for test events and for examples.
    /// `id` stands in every signed header whose value is free, such as `webhook-id`.
    #[must_use]
    pub fn sign(&self, body: &[u8], now: Timestamp, id: &str) -> Vec<(HeaderName, HeaderValue)> {
        match &self.0 {
            Scheme::None => Vec::new(),
            Scheme::Token(check) => check.sign(),
            Scheme::Hmac(check) => check.sign(body, now, id),
        }
    }
}

const BEARER: &str = "Bearer ";

impl TokenSpec {
    fn shape(&self) -> Result<HeaderName, Vec<Fault>> {
        let mut faults = Vec::new();
        let header = header_name(&self.header).map_err(|reason| faults.push(Fault::new("header", reason)));
        faults.extend(secrets_fault(&self.secrets));
        faults.extend(empty_fault("prefix", self.prefix.as_deref()));
        match header {
            Ok(header) if faults.is_empty() => Ok(header),
            _ => Err(faults.into_iter().map(|fault| fault.under("token")).collect()),
        }
    }
}

impl TokenCheck {
    fn verify(&self, headers: &HeaderMap) -> Result<(), VerifyError> {
        let mut values = headers.get_all(&self.header).iter().peekable();
        if values.peek().is_none() {
            return Err(VerifyError::MissingHeader { header: self.header.clone() });
        }
        let mut found = Choice::from(0);
        for value in values.take(CANDIDATES_MAX) {
            let value = value.as_bytes();
            match &self.prefix {
                Some(prefix) => {
                    if let Some(token) = value.strip_prefix(prefix.as_bytes()) {
                        found |= self.is_live(token);
                    }
                }
                None => {
                    found |= self.is_live(value);
                    if let Some(token) = value.strip_prefix(BEARER.as_bytes()).filter(|_| self.bearer) {
                        found |= self.is_live(token);
                    }
                }
            }
        }
        if found.into() { Ok(()) } else { Err(VerifyError::WrongToken { header: self.header.clone() }) }
    }

    fn is_live(&self, token: &[u8]) -> Choice {
        let digest = sha2::Sha256::digest(token);
        self.digests.iter().fold(Choice::from(0), |found, live| found | live.as_slice().ct_eq(&digest))
    }

    fn sign(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut value = self.prefix.clone().unwrap_or_default().into_bytes();
        value.extend_from_slice(self.tokens.first().map(SecretBytes::expose).unwrap_or_default());
        HeaderValue::from_bytes(&value).map(|value| (self.header.clone(), value)).into_iter().collect()
    }
}

impl HmacSpec {
    /// Parses what the spec holds as text, or says everything that is wrong with it.
    fn shape(&self) -> Result<HmacShape, Vec<Fault>> {
        let mut faults = Vec::new();
        faults.extend(secrets_fault(&self.secrets));
        for (path, text) in
            [("item", &self.item), ("pair", &self.pair), ("field", &self.field), ("prefix", &self.prefix)]
        {
            faults.extend(empty_fault(path, text.as_deref()));
        }
        if self.field.is_some() && self.pair.is_none() {
            faults.push(
                Fault::new("field", "a field is the name of a pair; say what separates name and value")
                    .hint("Stripe has `pair: \"=\"`, Standard Webhooks `pair: \",\"`"),
            );
        }
        if self.pair.is_some() && self.field.is_none() {
            faults.push(Fault::new("pair", "say in `field` what the pairs that hold signatures are called"));
        }
        if let (Some(item), Some(pair)) = (&self.item, &self.pair)
            && item == pair
        {
            faults.push(Fault::new("pair", "pairs cannot be told from items by the same separator"));
        }
        let header = header_name(&self.header).map_err(|reason| faults.push(Fault::new("header", reason))).ok();
        let message = parse_message(self.message.as_deref().unwrap_or("{body}"))
            .map_err(|reason| faults.push(Fault::new("message", reason)))
            .unwrap_or_default();
        let stamp = self.timestamp.as_ref().and_then(|spec| {
            spec.shape(self.pair.is_some() && self.item.is_some()).map_err(|found| faults.extend(found)).ok()
        });
        if !message.is_empty() && faults.is_empty() {
            faults.extend(message_fault(&message, stamp.as_ref()));
        }
        // A prefix that names the hash decides it once and for all.
        let named = self.prefix.as_deref().and_then(|prefix| Hash::of_name(prefix.trim_end_matches(['=', ':'])));
        if let (Some(hash), Some(named)) = (self.algorithm.hash(), named)
            && hash != named
        {
            faults.push(Fault::new(
                "prefix",
                format_args!("the prefix names {}, but the algorithm is {}", named.word(), hash.word()),
            ));
        }
        match header {
            Some(header) if faults.is_empty() => Ok(HmacShape {
                header,
                item: self.item.clone(),
                pair: self.pair.clone(),
                field: self.field.clone(),
                prefix: self.prefix.clone(),
                hash: self.algorithm.hash().or(named),
                encoding: self.encoding,
                message,
                stamp,
            }),
            _ => Err(faults.into_iter().map(|fault| fault.under("hmac")).collect()),
        }
    }
}

impl TimestampSpec {
    fn shape(&self, pairs: bool) -> Result<Stamp, Vec<Fault>> {
        let mut faults = Vec::new();
        let tolerance = self.tolerance.unwrap_or(TOLERANCE_DEFAULT);
        if tolerance < Duration::from_secs(1) || tolerance > TOLERANCE_MAX {
            faults.push(Fault::new("tolerance", "a tolerance is between 1s and 1h"));
        }
        let from = match self.from.split_once(':') {
            Some(("header", name)) => header_name(name).map(StampPlace::Header),
            Some(("field", _)) if !pairs => Err(
                "a field is a pair of the signature header; say in `item` and `pair` what separates pairs, and name \
                     and value"
                    .into(),
            ),
            Some(("field", name)) if !name.is_empty() => Ok(StampPlace::Field(name.to_owned())),
            _ => Err(format!("`{}` is not a place of a time stamp; write header:Name or field:t", self.from)),
        };
        match from {
            Ok(from) if faults.is_empty() => Ok(Stamp { from, unit: self.unit, tolerance: tolerance.get() }),
            Ok(_) => Err(faults),
            Err(reason) => {
                faults.push(Fault::new("from", reason));
                Err(faults)
            }
        }
        .map_err(|faults| faults.into_iter().map(|fault| fault.under("timestamp")).collect())
    }
}

/// Parses literals and `{body}`, `{timestamp}`, `{header:Name}`; `{{` and `}}` are braces.
fn parse_message(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let from = &rest[at..];
        if from.starts_with("{{") || from.starts_with("}}") {
            literal.push_str(&from[..1]);
            rest = &from[2..];
            continue;
        }
        let inner = from.strip_prefix('{').ok_or("a `}` without its `{`; write `}}` for a brace")?;
        let (inner, after) = inner.split_once('}').ok_or("a `{` without its `}`; write `{{` for a brace")?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(match inner.split_once(':') {
            None if inner == "body" => Part::Body,
            None if inner == "timestamp" => Part::Timestamp,
            Some(("header", name)) => Part::Header(header_name(name)?),
            _ => return Err(format!("`{{{inner}}}` is not known; use {{body}}, {{timestamp}} or {{header:Name}}")),
        });
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    if parts.iter().any(|part| matches!(part, Part::Body)) {
        Ok(parts)
    } else {
        Err("a message without {body} leaves the body unsigned".to_owned())
    }
}

/// A time stamp that is not signed could be renewed by anyone, one that is signed must be told where it is.
fn message_fault(message: &[Part], stamp: Option<&Stamp>) -> Option<Fault> {
    let named = message.iter().any(|part| matches!(part, Part::Timestamp));
    let Some(stamp) = stamp else {
        return named.then(|| Fault::new("message", "{timestamp} needs `timestamp`, which says where it stands"));
    };
    let signed = named
        || matches!(&stamp.from, StampPlace::Header(from)
            if message.iter().any(|part| matches!(part, Part::Header(name) if name == from)));
    (!signed).then(|| {
        Fault::new("message", "the time stamp is not part of what is signed, so anyone could renew it")
            .hint("put {timestamp} into the message, or leave `timestamp` out")
    })
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not a header name"))
}

fn empty_fault(path: &str, text: Option<&str>) -> Option<Fault> {
    (text == Some("")).then(|| Fault::new(path, "is empty; leave it out instead"))
}

fn secrets_fault(secrets: &[SecretRef]) -> Option<Fault> {
    secrets.is_empty().then(|| Fault::new("secrets", "give at least one secret"))
}

/// The values of `secrets`, each put through `decode`; an empty one would let everybody in.
fn resolved(
    scheme: &str,
    secrets: &[SecretRef],
    resolve: &mut impl FnMut(&Name) -> Option<SecretBytes>,
    decode: impl Fn(&SecretBytes) -> Result<SecretBytes, &'static str>,
) -> Result<Vec<SecretBytes>, Vec<Fault>> {
    let mut values = Vec::with_capacity(secrets.len());
    let mut faults = Vec::new();
    for (n, SecretRef { secret }) in secrets.iter().enumerate() {
        let value = resolve(secret).ok_or("has no value").and_then(|value| decode(&value));
        match value {
            Ok(value) if value.expose().is_empty() => {
                faults.push((n, format!("the secret `{secret}` is empty")));
            }
            Ok(value) => values.push(value),
            Err(reason) => faults.push((n, format!("the secret `{secret}` {reason}"))),
        }
    }
    if faults.is_empty() {
        return Ok(values);
    }
    Err(faults.into_iter().map(|(n, reason)| Fault::new(format!("{scheme}.secrets[{n}]"), reason)).collect())
}

impl KeySpec {
    fn decode(&self, secret: &SecretBytes) -> Result<SecretBytes, &'static str> {
        let text = secret.expose();
        let text = self.strip.as_ref().and_then(|strip| text.strip_prefix(strip.as_bytes())).unwrap_or(text);
        match self.encoding {
            KeyEncoding::Utf8 => Ok(SecretBytes::new(text)),
            KeyEncoding::Base64 => STANDARD
                .decode(text)
                .or_else(|_| URL_SAFE.decode(text))
                .map(SecretBytes::new)
                .map_err(|_| "is not base64, as `key` says"),
            KeyEncoding::Hex => {
                hex::decode(text).map(SecretBytes::new).map_err(|_| "is not hexadecimal, as `key` says")
            }
        }
    }
}

const PADDING_OPTIONAL: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING_OPTIONAL);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING_OPTIONAL);

impl Encoding {
    fn decode(self, text: &str) -> Option<Signature> {
        // The decoder wants room for what the text could hold at most.
        let mut bytes = [0_u8; SIGNATURE_MAX_BYTES + 8];
        let length = match self {
            Self::HEXA_DECIMAL => {
                let length = text.len() / 2;
                hex::decode_to_slice(text, bytes.get_mut(..length)?).ok()?;
                length
            }
            Self::BASE64 | Self::BASE64URL if text.contains(['-', '_']) => {
                URL_SAFE.decode_slice(text, &mut bytes).ok()?
            }
            Self::BASE64 | Self::BASE64URL => STANDARD.decode_slice(text, &mut bytes).ok()?,
        };
        (length <= SIGNATURE_MAX_BYTES).then(|| Signature::of(&bytes[..length]))
    }

    fn encode(self, signature: &[u8]) -> String {
        match self {
            Self::BASE64 => STANDARD.encode(signature),
            Self::BASE64URL => URL_SAFE.encode(signature),
            Self::HEXA_DECIMAL => hex::encode(signature),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::BASE64 => "base64",
            Self::BASE64URL => "URL-safe base64",
            Self::HEXA_DECIMAL => "hexadecimal digits",
        }
    }
}

/// The signatures that a request offers, and its time stamp.
struct Offer<'a> {
    candidates: [(Signature, Hash); CANDIDATES_MAX],
    count: usize,
    stamp: Option<&'a str>,
}

impl HmacCheck {
    fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), VerifyError> {
        let shape = &self.shape;
        if !headers.contains_key(&shape.header) {
            return Err(VerifyError::MissingHeader { header: shape.header.clone() });
        }
        let offer = shape.offer(headers);
        if offer.count == 0 {
            return Err(VerifyError::Unreadable { header: shape.header.clone(), expected: shape.expected() });
        }
        if let (Some(stamp), None) = (&shape.stamp, offer.stamp) {
            return Err(VerifyError::MissingTimestamp { place: stamp.from.to_string() });
        }
        if let Some(header) = shape.missing_header(headers) {
            return Err(VerifyError::MissingHeader { header: header.clone() });
        }

        let candidates = &offer.candidates[..offer.count];
        let mut found = Choice::from(0);
        for keyed in &self.keyed {
            let hash = keyed.hash();
            if !candidates.iter().any(|(_, wanted)| *wanted == hash) {
                continue;
            }
            let expected = shape.mac(keyed.clone(), headers, body, offer.stamp);
            for (candidate, _) in candidates.iter().filter(|(_, wanted)| *wanted == hash) {
                found |= candidate.as_bytes().ct_eq(expected.as_bytes());
            }
        }
        if !bool::from(found) {
            return Err(VerifyError::Mismatch { header: shape.header.clone() });
        }
        match (&shape.stamp, offer.stamp) {
            (Some(stamp), Some(text)) => stamp.check(text, now),
            _ => Ok(()),
        }
    }

    fn sign(&self, body: &[u8], now: Timestamp, id: &str) -> Vec<(HeaderName, HeaderValue)> {
        let shape = &self.shape;
        let Some(keyed) = self.keyed.first() else { return Vec::new() };
        let mut headers = HeaderMap::new();
        let stamp = shape.stamp.as_ref().map(|stamp| stamp.write(now));
        if let (Some(Stamp { from: StampPlace::Header(name), .. }), Some(text)) = (&shape.stamp, &stamp)
            && let Ok(value) = HeaderValue::from_str(text)
        {
            headers.insert(name.clone(), value);
        }
        for part in &shape.message {
            if let Part::Header(name) = part
                && !headers.contains_key(name)
                && let Ok(value) = HeaderValue::from_str(id)
            {
                headers.insert(name.clone(), value);
            }
        }
        let signature = shape.mac(keyed.clone(), &headers, body, stamp.as_deref());
        let text = shape.write(signature.as_bytes(), stamp.as_deref());
        let mut signed: Vec<_> =
            HeaderValue::from_str(&text).map(|value| (shape.header.clone(), value)).into_iter().collect();
        signed.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        signed
    }
}

impl HmacShape {
    /// Reads every occurrence of the signature header, as far as 16 signatures.
    fn offer<'a>(&self, headers: &'a HeaderMap) -> Offer<'a> {
        let mut offer = Offer { candidates: [(Signature::EMPTY, Hash::Sha256); CANDIDATES_MAX], count: 0, stamp: None };
        let stamp_field = match &self.stamp {
            Some(Stamp { from: StampPlace::Header(name), .. }) => {
                offer.stamp = headers.get(name).and_then(|value| value.to_str().ok());
                None
            }
            Some(Stamp { from: StampPlace::Field(field), .. }) => Some(field.as_str()),
            None => None,
        };
        let texts = headers.get_all(&self.header).iter().filter_map(|value| value.to_str().ok());
        let items = texts.flat_map(|text| Items { rest: Some(text), separator: self.item.as_deref() });
        for item in items.map(str::trim) {
            let value = match &self.pair {
                None => item,
                // At the first separator only: base64 padding may hold it again.
                Some(pair) => match item.split_once(pair.as_str()) {
                    Some((name, value)) if Some(name.trim()) == stamp_field => {
                        offer.stamp = offer.stamp.or(Some(value.trim()));
                        continue;
                    }
                    Some((name, value)) if Some(name.trim()) == self.field.as_deref() => value.trim(),
                    _ => continue,
                },
            };
            if offer.count < CANDIDATES_MAX
                && let Some(candidate) = self.candidate(value)
            {
                offer.candidates[offer.count] = candidate;
                offer.count += 1;
            }
        }
        offer
    }

    /// Decodes one signature; `None` when it cannot be one.
    fn candidate(&self, text: &str) -> Option<(Signature, Hash)> {
        let text = match &self.prefix {
            Some(prefix) => text.strip_prefix(prefix.as_str())?,
            None => text,
        };
        if let Some(hash) = self.hash {
            let signature = self.encoding.decode(text)?;
            return (signature.length == hash.bytes()).then_some((signature, hash));
        }
        let named = text.split_once('=').and_then(|(name, rest)| Some((Hash::of_name(name)?, rest)));
        let (named, text) = named.map_or((None, text), |(hash, rest)| (Some(hash), rest));
        let signature = self.encoding.decode(text)?;
        let hash = Hash::of_length(signature.length)?;
        named.is_none_or(|named| named == hash).then_some((signature, hash))
    }

    /// A header that is signed and absent.
    fn missing_header(&self, headers: &HeaderMap) -> Option<&HeaderName> {
        self.message.iter().find_map(|part| match part {
            Part::Header(name) if !headers.contains_key(name) => Some(name),
            _ => None,
        })
    }

    fn mac(&self, mut keyed: Keyed, headers: &HeaderMap, body: &[u8], stamp: Option<&str>) -> Signature {
        for part in &self.message {
            match part {
                Part::Literal(text) => keyed.update(text.as_bytes()),
                Part::Body => keyed.update(body),
                Part::Header(name) => keyed.update(headers.get(name).map_or(b"", HeaderValue::as_bytes)),
                Part::Timestamp => keyed.update(stamp.unwrap_or_default().as_bytes()),
            }
        }
        keyed.finish()
    }

    /// The signature header's value: the other way round than `offer` reads it.
    fn write(&self, signature: &[u8], stamp: Option<&str>) -> String {
        let mut value = self.prefix.clone().unwrap_or_default();
        value.push_str(&self.encoding.encode(signature));
        let (Some(pair), Some(field)) = (&self.pair, &self.field) else { return value };
        let signed = format!("{field}{pair}{value}");
        match (&self.stamp, stamp, &self.item) {
            (Some(Stamp { from: StampPlace::Field(name), .. }), Some(stamp), Some(item)) => {
                format!("{name}{pair}{stamp}{item}{signed}")
            }
            _ => signed,
        }
    }

    fn expected(&self) -> String {
        let prefix = self.prefix.as_ref().map(|prefix| format!("`{prefix}` and ")).unwrap_or_default();
        let field = self.field.as_ref().map(|field| format!(" in a pair named `{field}`")).unwrap_or_default();
        let words = self.encoding.words();
        match self.hash {
            Some(hash) => format!("{prefix}{} bytes ({}) in {words}{field}", hash.bytes(), hash.word()),
            None => format!("{prefix}16, 20, 28, 32, 48 or 64 bytes in {words}{field}"),
        }
    }
}

impl std::fmt::Display for StampPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Field(name) => write!(f, "field:{name}"),
        }
    }
}

impl Stamp {
    fn check(&self, text: &str, now: Timestamp) -> Result<(), VerifyError> {
        let bad = |unit| VerifyError::BadTimestamp { place: self.from.to_string(), unit };
        let micros = match self.unit {
            TimestampUnit::S => text
                .parse::<i64>()
                .ok()
                .and_then(|seconds| seconds.checked_mul(1_000_000))
                .ok_or_else(|| bad("a number of seconds since 1970"))?,
            TimestampUnit::Ms => text
                .parse::<i64>()
                .ok()
                .and_then(|millis| millis.checked_mul(1_000))
                .ok_or_else(|| bad("a number of milliseconds since 1970"))?,
            TimestampUnit::Iso => text.parse::<Timestamp>().map_err(|_| bad("a time as in RFC 3339"))?.as_micros(),
        };
        let age = i128::from(now.as_micros()) - i128::from(micros);
        if age.unsigned_abs() <= self.tolerance.as_micros() {
            return Ok(());
        }
        Err(VerifyError::Stale {
            age_secs: i64::try_from(age / 1_000_000).unwrap_or(if age < 0 { i64::MIN } else { i64::MAX }),
            tolerance_secs: self.tolerance.as_secs(),
        })
    }

    fn write(&self, now: Timestamp) -> String {
        match self.unit {
            TimestampUnit::S => now.as_secs().to_string(),
            TimestampUnit::Ms => now.as_millis().to_string(),
            TimestampUnit::Iso => now.to_string(),
        }
    }
}

/// The parts of a text between separators, the whole text without one.
struct Items<'a, 's> {
    rest: Option<&'a str>,
    separator: Option<&'s str>,
}

impl<'a> Iterator for Items<'a, '_> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.take()?;
        match self.separator.and_then(|separator| text.split_once(separator)) {
            Some((item, rest)) => {
                self.rest = Some(rest);
                Some(item)
            }
            None => Some(text),
        }
    }
}

#[cfg(test)]
mod tests;
