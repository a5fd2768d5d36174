//! Connections: configured ways to one outside API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
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
    /// Hosts that whole URLs of steps may name, besides that of `base_url`: `api.example.com`, or
    /// `api.example.com:8443` for one port only. Given without a `base_url`, requests go to these hosts and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// The credentials that requests carry. They never leave the connection's hosts, so it names some: by
    /// `base_url`, `hosts` or `endpoint`.
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
    /// Limits of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ConnectionLimits>,
}

/// A host that requests may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    /// As the URL parser writes it: lower case, international names in ASCII, IPv6 in brackets.
    name: String,
    /// The only port; nothing: all of them.
    port: Option<u16>,
}

impl Host {
    fn read(text: &str) -> Option<Self> {
        let reads = |scheme: &str| Url::parse(&format!("{scheme}://{text}/")).ok();
        // What is the default port of one scheme, the parser leaves out under it and keeps under the other.
        let (https, http) = (reads("https")?, reads("http")?);
        let is_bare = !text.contains(['/', '?', '#', '@', '\\', '*']) && !text.chars().any(char::is_whitespace);
        let name = https.host_str().filter(|name| is_bare && !name.is_empty() && !text.ends_with(':'))?;
        Some(Self { name: name.to_owned(), port: https.port().or(http.port()) })
    }

    fn admits(&self, url: &Url) -> bool {
        url.host_str() == Some(self.name.as_str())
            && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
    }
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
}

impl ConnectionSpec {
    /// The base URL, when there is one and it is a base URL.
    #[must_use]
    pub fn base(&self) -> Option<Url> {
        self.base_url.as_deref().and_then(|text| Url::parse(text).ok())
    }

    /// Whether a request may go to this URL; `base` is what its paths are appended to. Without a base and without
    /// `hosts` it may go anywhere.
    #[must_use]
    pub fn admits(&self, base: Option<&Url>, url: &Url) -> bool {
        match (base, &self.hosts) {
            (None, None) => true,
            (base, hosts) => {
                base.is_some_and(|base| base.origin() == url.origin())
                    || hosts.iter().flatten().filter_map(|text| Host::read(text)).any(|host| host.admits(url))
            }
        }
    }

    /// Whether it says which hosts its requests go to.
    #[must_use]
    pub fn names_hosts(&self) -> bool {
        self.base_url.is_some() || self.endpoint.is_some() || self.hosts.is_some()
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
        if self.account.is_some() && !self.names_hosts() {
            faults.push(
                Fault::new("account", "an account needs hosts that its credentials may go to")
                    .hint("give base_url, or hosts: [api.example.com]"),
            );
        }
        faults.extend(self.hosts_faults());
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
        faults
    }
}

impl ConnectionSpec {
    fn hosts_faults(&self) -> Vec<Fault> {
        let Some(hosts) = &self.hosts else { return Vec::new() };
        if self.endpoint.is_some() {
            return vec![Fault::new("hosts", "give endpoint or hosts, not both: an endpoint is on this server")];
        }
        if hosts.is_empty() {
            return vec![Fault::new("hosts", "name at least one host, or leave hosts out")];
        }
        let wrong = hosts.iter().enumerate().filter(|(_, text)| Host::read(text).is_none());
        wrong
            .map(|(n, text)| {
                let reason = format!("`{}` is not a host, such as api.example.com", text.escape_debug());
                Fault::new(format!("hosts[{n}]"), reason)
            })
            .collect()
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> ConnectionSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn an_account_needs_hosts() {
        let faults = read(json!({"account": "a"})).faults();
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].path.as_str(), faults[0].hint.is_some()), ("account", true));
        for hosts in [json!({"base_url": "https://a.test"}), json!({"hosts": ["a.test"]}), json!({"endpoint": "e"})] {
            let mut spec = hosts.clone();
            spec["account"] = "a".into();
            assert_eq!(read(spec).faults(), [], "{hosts}");
        }
    }

    #[test]
    fn hosts_are_names_with_or_without_a_port() {
        for text in [
            "",
            "a b",
            "https://a.test",
            "a.test/x",
            "a@b.test",
            "a.test:",
            "a.test:x",
            "a.test:99999",
            "a.test#",
            "*.a.test",
        ] {
            let wrong = read(json!({"hosts": [text]})).faults();
            assert_eq!(wrong.len(), 1, "{text}");
        }
        assert_eq!(read(json!({"hosts": []})).faults()[0].path, "hosts");
        assert_eq!(read(json!({"hosts": ["a.test"], "endpoint": "e"})).faults()[0].path, "hosts");
    }

    #[test]
    fn requests_stay_with_base_and_hosts() {
        let admits = |spec: Value, url: &str| {
            let spec = read(spec);
            spec.admits(spec.base().as_ref(), &url.parse().unwrap())
        };
        for (url, by_base, by_host, by_port, by_both) in [
            ("https://a.test/x", true, false, false, true),
            ("https://a.test:443/", true, false, false, true),
            ("http://a.test/", false, false, false, false),
            ("https://a.test:8443/", false, false, false, false),
            ("https://B.test/", false, true, true, true),
            ("http://b.test/", false, true, false, true),
            ("https://b.test:8443/", false, true, false, true),
            ("https://b.test.evil.test/", false, false, false, false),
            ("https://x.b.test/", false, false, false, false),
            ("https://b.test./", false, false, false, false),
        ] {
            assert_eq!(admits(json!({"base_url": "https://a.test/api"}), url), by_base, "{url}");
            assert_eq!(admits(json!({"hosts": ["b.test"]}), url), by_host, "{url}");
            assert_eq!(admits(json!({"hosts": ["b.TEST:443"]}), url), by_port, "{url}");
            assert_eq!(admits(json!({"base_url": "https://a.test", "hosts": ["b.test"]}), url), by_both, "{url}");
            assert!(admits(json!({}), url));
        }
        assert!(admits(json!({"hosts": ["bücher.test"]}), "https://xn--bcher-kva.test/"));
        assert!(admits(json!({"hosts": ["[::1]:80"]}), "http://[::1]/"));
        assert!(admits(json!({"hosts": ["127.0.0.1"]}), "http://2130706433:8080/"));
    }
}
