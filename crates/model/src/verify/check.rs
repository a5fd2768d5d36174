//! The check itself: does a request prove itself?

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Digest as _;
use subtle::{Choice, ConstantTimeEq as _};

use super::document::{Encoding, TimestampUnit};
use super::hash::{Hash, Keyed};
use super::outcome::{Proof, VerifyError};
use super::signature::Signature;
use crate::secret::SecretBytes;
use crate::time::Timestamp;

/// Most signatures of one request that are tried: enough for every secret in a rotation, few enough that a
/// caller without a secret cannot buy much work with one request.
pub const CANDIDATES_MAX: usize = 16;

pub(super) const BEARER: &str = "Bearer ";

/// A check that is ready to run: names parsed, secrets decoded, keyed hash states computed.
///
/// Its `Debug` shows nothing of its secrets.
pub struct Verifier(pub(super) Scheme);

pub(super) enum Scheme {
    None,
    Token(TokenCheck),
    Hmac(Box<HmacCheck>),
}

pub(super) struct TokenCheck {
    pub(super) header: HeaderName,
    pub(super) prefix: Option<String>,
    pub(super) tokens: Vec<SecretBytes>,
    /// Hashes of the tokens: texts of any length compare in the same time.
    pub(super) digests: Vec<[u8; 32]>,
    /// Whether `Bearer ` may stand before the token.
    pub(super) bearer: bool,
}

pub(super) struct HmacCheck {
    pub(super) shape: HmacShape,
    /// Keyed states, one for each secret and hash that may be asked for; the first is the one that signs.
    pub(super) keyed: Vec<Keyed>,
}

/// An HMAC spec with its texts parsed.
pub(super) struct HmacShape {
    pub(super) header: HeaderName,
    pub(super) item: Option<String>,
    pub(super) pair: Option<String>,
    pub(super) field: Option<String>,
    pub(super) prefix: Option<String>,
    /// `None`: inferred from each candidate.
    pub(super) hash: Option<Hash>,
    pub(super) encoding: Encoding,
    pub(super) message: Vec<Part>,
    pub(super) stamp: Option<Stamp>,
}

/// A part of what is signed.
pub(super) enum Part {
    Literal(String),
    Body,
    Header(HeaderName),
    Timestamp,
}

pub(super) struct Stamp {
    pub(super) from: StampPlace,
    pub(super) unit: TimestampUnit,
    pub(super) tolerance: std::time::Duration,
}

pub(super) enum StampPlace {
    Header(HeaderName),
    Field(String),
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verifier").field(&self.by()).finish()
    }
}

impl Verifier {
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
                    if let Some(token) = behind(value, prefix) {
                        found |= self.is_live(token);
                    }
                }
                None => {
                    found |= self.is_live(value);
                    if let Some(token) = behind(value, BEARER).filter(|_| self.bearer) {
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
}

/// What stands behind a prefix. One that ends in a blank is the name of an authentication scheme: its case does not
/// count, and any number of blanks may follow (RFC 9110, sections 11.1 and 11.4).
fn behind<'a>(value: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    let scheme = prefix.trim_ascii_end();
    if scheme.len() == prefix.len() || scheme.contains(|c: char| c.is_ascii_whitespace()) {
        return value.strip_prefix(prefix.as_bytes());
    }
    let (word, rest) = value.split_at_checked(scheme.len())?;
    let is_scheme = word.eq_ignore_ascii_case(scheme.as_bytes()) && matches!(rest.first(), Some(b' ' | b'\t'));
    is_scheme.then(|| rest.trim_ascii_start())
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
            Some(prefix) => std::str::from_utf8(behind(text.as_bytes(), prefix)?).ok()?,
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

    pub(super) fn mac(&self, mut keyed: Keyed, headers: &HeaderMap, body: &[u8], stamp: Option<&str>) -> Signature {
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
