//! From a document to a check that is ready to run, or everything that is wrong with it.

use base64::Engine as _;
use http::HeaderName;
use sha2::Digest as _;

use super::check::{BEARER, HmacCheck, HmacShape, Part, Scheme, Stamp, StampPlace, TokenCheck, Verifier};
use super::document::{
    HmacSpec, KeyEncoding, KeySpec, TOLERANCE_DEFAULT, TOLERANCE_MAX, TimestampSpec, TokenSpec, Verify,
};
use super::hash::{Hash, Keyed};
use super::signature::{STANDARD, URL_SAFE};
use crate::fault::Fault;
use crate::name::Name;
use crate::secret::{SecretBytes, SecretRef};
use crate::units::Duration;

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
}

impl TokenSpec {
    pub(super) fn shape(&self) -> Result<HeaderName, Vec<Fault>> {
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

impl HmacSpec {
    /// Parses what the spec holds as text, or says everything that is wrong with it.
    pub(super) fn shape(&self) -> Result<HmacShape, Vec<Fault>> {
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
