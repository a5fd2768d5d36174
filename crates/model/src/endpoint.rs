//! Endpoints: the URLs that we serve, and what a request there must be to become an event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::limits;
use crate::units::{ByteSize, Duration};
use crate::verify::Verify;

/// The `spec` of an endpoint document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// What the body must parse as; left out: anything is accepted, unparsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How a caller proves itself. Required; `none` is written out.
    pub verify: Verify,
    /// Which requests are the same event again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<Dedupe>,
    /// Limits of this endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<EndpointLimits>,
    /// Whether requests are accepted; a disabled endpoint answers like one that does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// What a body is declared to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// RFC 8259; a body that does not parse is refused with 400 and kept among the refusals.
    Json,
    /// XML 1.0 without a document type; what does not parse is refused with 400 and kept among the refusals.
    Xml,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Bytes,
    /// A GET whose query string is the event; a body, if one comes, is kept and not read.
    Query,
}

/// Requests with an equal value at `by` within the window are answered 2xx and stored once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dedupe {
    /// Where the sender's id of an event stands.
    pub by: Place,
    /// How long an id is remembered. Default 14 days, at most 90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
}

/// Limits that an endpoint may set for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointLimits {
    /// Longest body. Default 5 MiB, at most 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<ByteSize>,
}

/// A place in a request: `header:X-Name`, `query:name`, `json:/pointer`, `form:field`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// The first value of a header, by its case-insensitive name.
    Header(String),
    /// The first value of a query parameter.
    Query(String),
    /// A scalar in a JSON body, by JSON Pointer (RFC 6901).
    Json(String),
    /// The first value of a form field.
    Form(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
            Self::Form(field) => write!(f, "form:{field}"),
        }
    }
}

/// Why a text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a place in a request; write header:X-Name, query:name, json:/pointer or form:field")]
pub struct BadPlace(String);

impl std::str::FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let bad = || BadPlace(text.chars().take(80).collect());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        if rest.is_empty() {
            return Err(bad());
        }
        match kind {
            "header" if http::HeaderName::from_bytes(rest.as_bytes()).is_ok() => Ok(Self::Header(rest.to_owned())),
            "query" => Ok(Self::Query(rest.to_owned())),
            "json" if rest.starts_with('/') => Ok(Self::Json(rest.to_owned())),
            "form" => Ok(Self::Form(rest.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl EndpointSpec {
    /// The longest body in bytes.
    #[must_use]
    pub fn body_max_bytes(&self) -> u64 {
        self.limits.as_ref().and_then(|limits| limits.body).map_or(limits::BODY_DEFAULT_BYTES, ByteSize::get)
    }

    /// Whether requests are accepted.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// How long a sender's id of an event is remembered.
    #[must_use]
    pub fn dedupe_within(&self) -> std::time::Duration {
        self.dedupe.as_ref().and_then(|dedupe| dedupe.within).map_or(limits::DEDUPE_DEFAULT, Duration::get)
    }

    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.verify.faults().into_iter().map(|fault| fault.under("verify")).collect();
        if self.body_max_bytes() > limits::BODY_MAX_BYTES {
            faults.push(Fault::new("limits.body", "a body limit is at most 64MiB"));
        }
        if self.dedupe_within() > limits::DEDUPE_MAX {
            faults.push(Fault::new("dedupe.within", "an event id is remembered for at most 90d"));
        }
        faults
    }
}
