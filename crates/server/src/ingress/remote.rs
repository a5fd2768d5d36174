//! Who is calling, also behind proxies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use ipnet::IpNet;

/// The proxies whose word on a caller's address is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// The proxies with addresses in these ranges.
    #[must_use]
    pub fn new(ranges: Vec<IpNet>) -> Self {
        Self(ranges.into())
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(&address.to_canonical()))
    }

    /// The caller's address: the peer's, or, as far as every hop from here on is a trusted proxy, the one that
    /// `X-Forwarded-For` reports.
    #[must_use]
    pub fn caller(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let mut caller = peer.ip().to_canonical();
        if self.0.is_empty() {
            return caller;
        }
        let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = hops.flat_map(|value| value.split(',')).map(str::trim).collect();
        for hop in hops.into_iter().rev() {
            if !self.trusts(caller) {
                break;
            }
            match hop.parse::<IpAddr>() {
                Ok(address) => caller = address.to_canonical(),
                Err(_) => break,
            }
        }
        caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(trusted: &[&str], peer: &str, forwarded: &str) -> String {
        let trusted = TrustedProxies::new(trusted.iter().map(|range| range.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", forwarded.parse().unwrap());
        trusted.caller(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn believes_only_trusted_proxies() {
        assert_eq!(caller(&[], "10.0.0.1:1", "1.2.3.4"), "10.0.0.1");
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1:1", "1.2.3.4"), "1.2.3.4");
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1:1", "9.9.9.9, 1.2.3.4, 10.0.0.7"), "1.2.3.4");
        assert_eq!(caller(&["10.0.0.0/8"], "8.8.8.8:1", "1.2.3.4"), "8.8.8.8");
        assert_eq!(caller(&["10.0.0.0/8"], "10.0.0.1:1", "nonsense"), "10.0.0.1");
    }
}
