//! Connections: configured ways to one outside API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::traffic::{BreakerChoice, RateSpec, RetrySpec, TrafficSettings};
use crate::units::{ByteSize, Duration};

/// The `spec` of a connection document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSpec {
    /// What request paths are appended to. With one, requests to other origins are refused; without one,
    /// requests name whole URLs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// An endpoint of this server, in place of a base URL: requests go to its URL, whatever its key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Name>,
    /// The credentials that requests carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Name>,
    /// Longest time for a whole exchange. Default 30s, at most 120s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Longest time for each stage of an exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<StageTimeouts>,
    /// What the job says, instead of our own words, when the API does not answer in time or cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_message: Option<String>,
    /// Redirects that are followed, each re-checked like the first address. Default 0, at most 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirects: Option<u8>,
    /// How names of headers are written over HTTP/1: `lower`, the default, or `title` (`X-Api-Key`) for servers
    /// that are particular about it. HTTP/2 knows lower case only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_case: Option<HeaderCase>,
    /// Limits of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ConnectionLimits>,
    /// Most requests in a span of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,
    /// When nothing is sent because the API is down; `none` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerChoice>,
    /// When steps are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
}

/// How names of headers are written over HTTP/1; they mean the same (RFC 9110, section 5.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeaderCase {
    /// `x-api-key`.
    #[default]
    Lower,
    /// `X-Api-Key`.
    Title,
}

/// Longest times of the stages of an exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTimeouts {
    /// Until the TCP connection stands. Default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// Until the TLS handshake is done. Default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Duration>,
    /// From the request sent to the first byte of the answer. Default 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Duration>,
}

/// Limits that a connection may set for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionLimits {
    /// Longest answer. Default 10MiB, at most 64MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ByteSize>,
    /// Most requests under way at a time, at most 10000. Left out, as many as jobs run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
}

impl ConnectionSpec {
    /// The base URL, when there is one and it is a base URL.
    #[must_use]
    pub fn base(&self) -> Option<Url> {
        self.base_url.as_deref().and_then(|text| Url::parse(text).ok())
    }

    /// Longest time for a whole exchange.
    #[must_use]
    pub fn total_timeout(&self) -> std::time::Duration {
        self.timeout.map_or(limits::TOTAL_TIMEOUT, Duration::get)
    }

    /// Longest answer in bytes.
    #[must_use]
    pub fn response_max_bytes(&self) -> u64 {
        self.limits.as_ref().and_then(|limits| limits.response).map_or(limits::RESPONSE_DEFAULT_BYTES, ByteSize::get)
    }

    /// What its traffic keeps to, defaults filled in.
    #[must_use]
    pub fn traffic(&self) -> TrafficSettings {
        let concurrency = self.limits.as_ref().and_then(|limits| limits.concurrency);
        let budget = self.retry.as_ref().and_then(|retry| retry.budget);
        TrafficSettings::new(self.rate.as_ref(), concurrency, self.breaker.as_ref(), budget)
    }

    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(text) = &self.base_url {
            faults.extend(base_url_fault(text));
        }
        if self.base_url.is_some() && self.endpoint.is_some() {
            faults.push(Fault::new("endpoint", "give base_url or endpoint, not both"));
        }
        let total = self.total_timeout();
        if total.is_zero() || total > limits::TOTAL_TIMEOUT_MAX {
            faults.push(Fault::new("timeout", "a timeout is between 1ms and 120s"));
        }
        let response = self.response_max_bytes();
        if response == 0 || response > limits::RESPONSE_MAX_BYTES {
            faults.push(Fault::new("limits.response", "an answer limit is between 1B and 64MiB"));
        }
        if self.redirects.is_some_and(|redirects| redirects > limits::REDIRECTS_MAX) {
            faults.push(Fault::new("redirects", "at most 5 redirects are followed"));
        }
        let concurrency = self.limits.as_ref().and_then(|limits| limits.concurrency);
        if concurrency.is_some_and(|most| most == 0 || most > limits::CONCURRENCY_MAX) {
            faults.push(Fault::new("limits.concurrency", "between 1 and 10000 requests are under way"));
        }
        faults.extend(self.rate.iter().flat_map(RateSpec::faults));
        faults.extend(self.breaker.iter().flat_map(BreakerChoice::faults));
        faults.extend(self.retry.iter().flat_map(RetrySpec::faults));
        faults
    }
}

fn base_url_fault(text: &str) -> Option<Fault> {
    let fault = |reason: &str| Some(Fault::new("base_url", reason));
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return Some(Fault::new("base_url", format_args!("`{text}` is not a URL: {error}"))),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return fault("a base URL starts with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return fault("a base URL holds no credentials; put them into an account");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return fault("a base URL ends with its path; give query parameters in the request");
    }
    None
}
