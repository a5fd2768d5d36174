//! How verification is written in a document: `spec.verify`.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::secret::SecretRef;
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
    /// The live tokens; any of them is accepted. At least one, but for a connector's webhook, whose endpoints say them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    /// The live secrets; a signature by any of them is accepted. At least one, but for a connector's webhook, whose
    /// endpoints say them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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

/// How far a time stamp may lie from now unless the document says otherwise: 5 minutes, as the libraries of
/// Stripe, Slack and Standard Webhooks have it.
pub const TOLERANCE_DEFAULT: Duration = Duration::from_secs(300);
/// How far a time stamp may lie from now at most: 1 hour. What is older is a replay.
pub const TOLERANCE_MAX: Duration = Duration::from_secs(3_600);

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
    /// The key that names the way.
    #[must_use]
    pub const fn way(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token(_) => "token",
            Self::Hmac(_) => "hmac",
        }
    }

    /// The same check with these secrets.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Vec<SecretRef>) -> Self {
        match &mut self {
            Self::None => {}
            Self::Token(token) => token.secrets = secrets,
            Self::Hmac(hmac) => hmac.secrets = secrets,
        }
        self
    }

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
