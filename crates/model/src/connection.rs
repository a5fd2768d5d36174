//! Connections: configured ways to one outside API.

mod test_spec;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::{HeaderName, HeaderValue};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

pub use self::test_spec::{ExpectedStatus, TestSpec};

use crate::fault::{Fault, bad_header_name, quoted};
use crate::limits;
use crate::name::Name;
use crate::proxy::ProxySpec;
use crate::request::{RequestSpec, WIRE_HEADERS};
use crate::tls::TlsSpec;
use crate::traffic::{BreakerChoice, RateSpec, RetrySpec, TrafficSettings};
use crate::units::{ByteSize, Duration};

/// The `spec` of a connection document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSpec {
    /// A connector: what this connection does not say, it does, and its actions can be called through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<Name>,
    /// What the connector asks of its connections, as its `settings` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Map<String, Value>>,
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
    /// Headers that every request carries, unless it sets them itself. Secrets belong into an account.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// The request that shows whether the connection works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestSpec>,
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
    /// TLS, where it is not the ordinary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// The proxy that requests go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
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

    /// The same, with what it does not say as `base` says.
    #[must_use]
    pub(crate) fn over(self, base: &Self) -> Self {
        let is_elsewhere = self.base_url.is_some() || self.endpoint.is_some();
        let mut headers = base.headers.clone();
        headers.retain(|name, _| !self.headers.keys().any(|own| own.eq_ignore_ascii_case(name)));
        headers.extend(self.headers);
        Self {
            connector: self.connector,
            settings: self.settings,
            // Other hosts than those of the connector are not said to be its own.
            hosts: self.hosts.or_else(|| base.hosts.clone().filter(|_| !is_elsewhere)),
            base_url: self.base_url.or_else(|| base.base_url.clone().filter(|_| !is_elsewhere)),
            endpoint: self.endpoint,
            account: self.account.or_else(|| base.account.clone()),
            headers,
            test: self.test.or_else(|| base.test.clone()),
            timeout: self.timeout.or(base.timeout),
            timeouts: self.timeouts.or_else(|| base.timeouts.clone()),
            timeout_message: self.timeout_message.or_else(|| base.timeout_message.clone()),
            redirects: self.redirects.or(base.redirects),
            header_case: self.header_case.or(base.header_case),
            tls: self.tls.or_else(|| base.tls.clone()),
            proxy: self.proxy,
            limits: self.limits.or_else(|| base.limits.clone()),
            rate: self.rate.or_else(|| base.rate.clone()),
            breaker: self.breaker.or_else(|| base.breaker.clone()),
            retry: self.retry.or_else(|| base.retry.clone()),
        }
    }

    /// Puts the connection's headers on a request that does not set them itself.
    pub fn add_headers(&self, request: &mut RequestSpec) {
        for (name, value) in &self.headers {
            let read = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
            if let (Ok(name), Ok(value)) = read
                && !request.headers.iter().any(|(set, _)| *set == name)
            {
                request.headers.push((name, value));
            }
        }
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

    /// What the traffic of the connection in this row keeps to, defaults filled in.
    #[must_use]
    pub fn traffic(&self, row: i64) -> TrafficSettings {
        let concurrency = self.limits.as_ref().and_then(|limits| limits.concurrency);
        let budget = self.retry.as_ref().and_then(|retry| retry.budget);
        let mut target = DefaultHasher::new();
        (row, &self.base_url, &self.endpoint).hash(&mut target);
        let settings = TrafficSettings::new(self.rate.as_ref(), concurrency, self.breaker.as_ref(), budget);
        TrafficSettings { target: target.finish(), ..settings }
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
        if self.settings.is_some() && self.connector.is_none() {
            faults.push(Fault::new(
                "settings",
                "settings are what a connector asks for; give connector, or leave them out",
            ));
        }
        faults.extend(self.header_faults());
        // What its connector says counts too, and is not known here.
        let is_whole = self.connector.is_none();
        if is_whole && self.account.is_some() && !self.names_hosts() {
            faults.push(
                Fault::new("account", "an account needs hosts that its credentials may go to")
                    .hint("give base_url, or hosts: [api.example.com]"),
            );
        }
        faults.extend(self.hosts_faults());
        faults.extend(self.test.iter().filter(|_| is_whole).flat_map(|test| test.faults(self)));
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
        faults.extend(self.tls.iter().flat_map(TlsSpec::faults).map(|fault| fault.under("tls")));
        faults.extend(self.proxy.iter().flat_map(ProxySpec::faults).map(|fault| fault.under("proxy")));
        if is_whole && self.proxy.as_ref().is_some_and(ProxySpec::resolves) && !self.names_hosts() {
            let fault =
                Fault::new("proxy.resolve", "a proxy looks up only the names of hosts that the connection names");
            faults.push(fault.hint("give base_url, or hosts: [api.example.com]"));
        }
        faults.extend(self.rate.iter().flat_map(RateSpec::faults));
        faults.extend(self.breaker.iter().flat_map(BreakerChoice::faults));
        faults.extend(self.retry.iter().flat_map(RetrySpec::faults));
        faults
    }
}

impl ConnectionSpec {
    /// The secrets that it refers to, each with its path relative to `spec`.
    #[must_use]
    pub fn secrets(&self) -> Vec<(String, &Name)> {
        let proxy = self.proxy.iter().flat_map(ProxySpec::secrets);
        proxy.map(|(path, name)| (format!("proxy.{path}"), name)).collect()
    }

    fn header_faults(&self) -> Vec<Fault> {
        let fault = |(name, value): (&String, &String)| {
            let path = format!("headers.{name}");
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => Some(bad_header_name("headers", name)),
                Ok(known) if WIRE_HEADERS.contains(&known.as_str()) || known == http::header::AUTHORIZATION => {
                    Some(Fault::new(path, "this header is set when the request is sent; credentials are an account's"))
                }
                Ok(_) if HeaderValue::from_bytes(value.as_bytes()).is_err() => {
                    Some(Fault::new(path, "a header value holds no line breaks or other control characters"))
                }
                Ok(_) => None,
            }
        };
        self.headers.iter().filter_map(fault).collect()
    }

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
        Err(error) => return Some(Fault::new("base_url", format_args!("{} is not a URL: {error}", quoted(text)))),
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
    fn tls_and_proxy_are_checked_and_their_secrets_known() {
        let proxy = json!({"url": "http://p:3128", "user": "u", "password": {"secret": "s"}, "resolve": "proxy"});
        let spec = read(json!({"base_url": "https://a.test", "proxy": proxy, "tls": {"min_version": "1.3"}}));
        assert_eq!(spec.faults(), []);
        assert_eq!(spec.secrets().iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["proxy.password"]);
        for (spec, path) in [
            (json!({"proxy": proxy}), "proxy.resolve"),
            (json!({"proxy": {"url": "p"}}), "proxy.url"),
            (json!({"tls": {"authorities": "none"}}), "tls.authorities"),
        ] {
            let faults = read(spec.clone()).faults();
            assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{spec}");
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

    #[test]
    fn tests_expect_statuses_and_ranges() {
        let test =
            |expect: Value| -> TestSpec { serde_json::from_value(json!({"path": "/", "expect": expect})).unwrap() };
        for (expect, yes, no) in [
            (json!(null), vec![200, 299], vec![199, 300]),
            (json!([200]), vec![200], vec![201, 404]),
            (json!([200, "4XX"]), vec![200, 400, 499], vec![201, 500]),
            (json!(["200-204", "301"]), vec![200, 204, 301], vec![205, 300]),
        ] {
            let test = test(expect.clone());
            assert!(yes.iter().all(|status| test.expects(*status)), "{expect}");
            assert!(!no.iter().any(|status| test.expects(*status)), "{expect}");
        }
        assert_eq!(test(json!([200, "4xx"])).expected(), "200 or 4xx");
        for (expect, path) in [
            (json!([]), "test.expect"),
            (json!([99]), "test.expect[0]"),
            (json!([200, "2x"]), "test.expect[1]"),
            (json!(["éxx"]), "test.expect[0]"),
            (json!(["204-200"]), "test.expect[0]"),
            (json!([600]), "test.expect[0]"),
        ] {
            let spec = read(json!({"base_url": "https://a.test", "test": {"path": "/", "expect": expect}}));
            assert_eq!(spec.faults()[0].path, path);
        }
    }

    #[test]
    fn tests_stay_with_the_connection() {
        for (mut spec, path) in [
            (json!({"test": {"path": "../x"}}), "test.path"),
            (json!({"test": {"url": "https://b.test/"}}), "test.url"),
            (json!({"test": {"url": "ftp://a.test/"}}), "test.url"),
            (json!({"test": {}}), "test"),
            (json!({"test": {"path": "/", "url": "https://a.test/"}}), "test"),
            (json!({"test": {"path": "/", "method": "get"}}), "test.method"),
        ] {
            spec["base_url"] = "https://a.test/api".into();
            let faults = read(spec.clone()).faults();
            assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{spec}");
        }
        assert_eq!(read(json!({"hosts": ["a.test"], "test": {"path": "/"}})).faults()[0].path, "test.path");
        for spec in [
            json!({"base_url": "https://a.test/api", "test": {"path": "/users/me?x=1"}}),
            json!({"hosts": ["a.test"], "test": {"url": "https://a.test/me"}}),
            json!({"endpoint": "e", "test": {"path": "/ping", "method": "POST"}}),
        ] {
            let read = read(spec.clone());
            assert_eq!(read.faults(), [], "{spec}");
            assert_eq!(serde_json::to_value(read).unwrap(), spec);
        }
        let spec = read(json!({"base_url": "https://a.test/api", "test": {"path": "/me?x=1"}}));
        assert_eq!(
            spec.test.unwrap().target(Some(&"https://a.test/api".parse().unwrap())).unwrap().as_str(),
            "https://a.test/api/me?x=1"
        );
    }
}
