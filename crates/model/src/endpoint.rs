//! Endpoints: the URLs that we serve, and what a request there must be to become an event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::place::Place;
use crate::secret::SecretRef;
use crate::units::{ByteSize, Duration};
use crate::verify::Verify;

/// The `spec` of an endpoint document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// A connector, one of whose webhooks comes here: what this endpoint does not say, the webhook does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<Name>,
    /// Which of the connector's webhooks it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// The live secrets of the webhook's verification; any of them is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRef>,
    /// What the body must parse as; left out: anything is accepted, unparsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How a caller proves itself. Required, unless a webhook says it; `none` is written out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
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
        let mut faults = Vec::new();
        match (&self.connector, &self.webhook) {
            (Some(_), None) => faults.push(Fault::new("webhook", "name the connector's webhook that comes here")),
            (None, Some(_)) => faults.push(Fault::new("connector", "name the connector whose webhook it is")),
            (None, None) if self.verify.is_none() => {
                faults.push(
                    Fault::new("verify", "say how a caller proves itself")
                        .hint("give hmac or token, or write `verify: none`"),
                );
            }
            _ => {}
        }
        let is_over_webhook = self.connector.is_some() || self.webhook.is_some();
        if !self.secrets.is_empty() && (!is_over_webhook || self.verify.is_some()) {
            let reason = "these are for a webhook's own verification; what `verify` checks with, it says itself";
            faults.push(Fault::new("secrets", reason));
        }
        faults.extend(self.verify.iter().flat_map(Verify::faults).map(|fault| fault.under("verify")));
        if self.body_max_bytes() > limits::BODY_MAX_BYTES {
            faults.push(Fault::new("limits.body", "a body limit is at most 64MiB"));
        }
        if self.dedupe_within() > limits::DEDUPE_MAX {
            faults.push(Fault::new("dedupe.within", "an event id is remembered for at most 90d"));
        }
        faults
    }
}
