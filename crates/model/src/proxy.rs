//! Proxies: through which one requests go, and who looks names up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::account::Credential;
use crate::fault::{Fault, quoted};
use crate::name::Name;
use crate::secret::SecretRef;

/// The proxy that requests go through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxySpec {
    /// Where it is: `http://proxy.example.com:3128`; `https://` when it is itself spoken to by TLS, `socks5://` for
    /// SOCKS5 (RFC 1928).
    pub url: String,
    /// The user, where the proxy wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Credential>,
    /// The user's password; left out: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// Who looks the target's name up. Default `here`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve: Option<Resolve>,
}

/// Who looks the target's name up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Resolve {
    /// This server: the proxy is asked for an address that the address guard has judged.
    #[default]
    Here,
    /// The proxy: it is asked for the name, and where that leads is its choice.
    Proxy,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP's CONNECT (RFC 9110, section 9.3.6).
    Http,
    /// The same, inside TLS.
    Https,
    /// SOCKS5 (RFC 1928).
    Socks5,
}

impl ProxyKind {
    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            // RFC 1928, section 3.
            Self::Socks5 => 1080,
        }
    }
}

/// Where a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    /// How it is spoken to.
    pub kind: ProxyKind,
    /// Its name or address; IPv6 in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl ProxySpec {
    /// Where it is.
    ///
    /// # Errors
    /// What is wrong with its URL.
    pub fn address(&self) -> Result<ProxyAddress, String> {
        let url = Url::parse(&self.url).map_err(|error| format!("{} is not a URL: {error}", quoted(&self.url)))?;
        let kind = match url.scheme() {
            "http" => ProxyKind::Http,
            "https" => ProxyKind::Https,
            "socks5" => ProxyKind::Socks5,
            _ => return Err("a proxy's URL starts with http://, https:// or socks5://".to_owned()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL holds no credentials; give user and password".to_owned());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("a proxy's URL ends with its host and port".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("its URL has no host")?;
        let port = url.port().unwrap_or_else(|| kind.default_port());
        if port == 0 {
            return Err("port 0 cannot be called".to_owned());
        }
        // Only of schemes that it knows does the URL parser write hosts in one way.
        Ok(ProxyAddress { kind, host: host.to_ascii_lowercase(), port })
    }

    /// Whether the proxy looks names up.
    #[must_use]
    pub fn resolves(&self) -> bool {
        self.resolve.unwrap_or_default() == Resolve::Proxy
    }

    /// The secrets that it refers to, each with its path relative to it.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, &Name)> {
        let user = match &self.user {
            Some(Credential::Secret(reference)) => Some(("user", &reference.secret)),
            _ => None,
        };
        let password = self.password.as_ref().map(|reference| ("password", &reference.secret));
        user.into_iter().chain(password).collect()
    }

    /// Everything that is wrong with it, paths relative to it.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.address().err().map(|reason| Fault::new("url", reason)).into_iter().collect();
        match &self.user {
            None if self.password.is_some() => faults.push(Fault::new("user", "a password belongs to a user")),
            Some(Credential::Text(user)) if user.contains(':') => {
                faults.push(Fault::new("user", "a user name cannot hold a colon (RFC 7617)"));
            }
            Some(Credential::Text(user)) if user.chars().any(char::is_control) => {
                faults.push(Fault::new("user", "a user name cannot hold line breaks or control characters"));
            }
            _ => {}
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> ProxySpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn reads_where_a_proxy_is() {
        for (url, kind, host, port) in [
            ("http://proxy.example:3128", ProxyKind::Http, "proxy.example", 3128),
            ("http://Proxy.Example/", ProxyKind::Http, "proxy.example", 80),
            ("https://[fd00::1]", ProxyKind::Https, "[fd00::1]", 443),
            ("socks5://Proxy.Example", ProxyKind::Socks5, "proxy.example", 1080),
        ] {
            let spec = read(json!({"url": url}));
            assert_eq!(spec.faults(), [], "{url}");
            assert_eq!(spec.address().unwrap(), ProxyAddress { kind, host: host.to_owned(), port });
        }
        let whole = json!({"url": "http://p", "user": "u", "password": {"secret": "s"}, "resolve": "proxy"});
        let spec = read(whole.clone());
        assert!(spec.resolves() && spec.faults().is_empty());
        assert_eq!(spec.secrets().iter().map(|(path, _)| *path).collect::<Vec<_>>(), ["password"]);
        assert_eq!(serde_json::to_value(spec).unwrap(), whole);
    }

    #[test]
    fn refuses_what_is_no_proxy() {
        for (spec, path) in [
            (json!({"url": "proxy.example:3128"}), "url"),
            (json!({"url": "ftp://p"}), "url"),
            (json!({"url": "socks4://p"}), "url"),
            (json!({"url": "http://user:pass@p"}), "url"),
            (json!({"url": "http://p/path"}), "url"),
            (json!({"url": "http://p?x"}), "url"),
            (json!({"url": "http://p:0"}), "url"),
            (json!({"url": "http://p", "password": {"secret": "s"}}), "user"),
            (json!({"url": "http://p", "user": "a:b"}), "user"),
            (json!({"url": "http://p", "user": "a\n"}), "user"),
        ] {
            let faults = read(spec.clone()).faults();
            assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{spec}");
        }
    }
}
