//! The address guard: which addresses we connect to.
//!
//! Guarantees that only public unicast addresses pass, plus what the operator opened, and that cloud metadata
//! services and our own operator port never pass, whatever was opened. It judges addresses only: that every
//! resolved address is asked about, and that the dialled address is the one that passed, is `connector`'s part.
//!
//! The table is our own because the standard library's `is_private` and its kin miss, on stable Rust,
//! 0.0.0.0/8, 100.64.0.0/10, 192.0.0.0/24, 192.88.99.0/24, 198.18.0.0/15 and 240.0.0.0/4.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 blocks that are not the public Internet. Source: IANA IPv4 Special-Purpose Address Registry; AS112 and
/// AMT blocks are left out because they are globally reachable.
const CLOSED_V4: &[(Ipv4Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "this host, RFC 1122"),
    (v4(10, 0, 0, 0, 8), "private, RFC 1918"),
    (v4(100, 64, 0, 0, 10), "carrier-grade NAT, RFC 6598"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private, RFC 1918"),
    (v4(192, 0, 0, 0, 24), "protocol assignments, RFC 6890"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relays, deprecated"),
    (v4(192, 168, 0, 0, 16), "private, RFC 1918"),
    (v4(198, 18, 0, 0, 15), "benchmarking, RFC 2544"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// IPv6 blocks that are not the public Internet; what is outside `2000::/3` is closed besides. Source: IANA IPv6
/// Special-Purpose Address Registry.
const CLOSED_V6: &[(Ipv6Net, &str)] = &[
    (v6(0, 0, 0, 0, 128), "unspecified"),
    (v6(0, 0, 0, 1, 128), "loopback"),
    (v6(0, 0, 0, 0, 96), "IPv4-compatible, deprecated"),
    (v6(0x0064_ff9b, 0x0001_0000, 0, 0, 48), "local translation, RFC 8215"),
    (v6(0x0100_0000, 0, 0, 0, 64), "discard-only, RFC 6666"),
    (v6(0x2001_0000, 0, 0, 0, 23), "protocol assignments and Teredo, RFC 2928"),
    (v6(0x2001_0db8, 0, 0, 0, 32), "documentation"),
    // It carries an IPv4 address, and its relays are gone (RFC 7526): closed as a whole.
    (v6(0x2002_0000, 0, 0, 0, 16), "6to4, deprecated"),
    (v6(0x3fff_0000, 0, 0, 0, 20), "documentation, RFC 9637"),
    (v6(0x5f00_0000, 0, 0, 0, 16), "segment routing, RFC 9602"),
    (v6(0xfc00_0000, 0, 0, 0, 7), "unique local, RFC 4193"),
    (v6(0xfe80_0000, 0, 0, 0, 10), "link-local"),
    (v6(0xfec0_0000, 0, 0, 0, 10), "site-local, deprecated"),
    (v6(0xff00_0000, 0, 0, 0, 8), "multicast"),
];

/// All unicast addresses of the public IPv6 Internet are in here.
const GLOBAL_V6: Ipv6Net = v6(0x2000_0000, 0, 0, 0, 3);

/// RFC 6052 translation: an IPv4 address stands in the last 32 bits, and that address is what counts.
const NAT64: Ipv6Net = v6(0x0064_ff9b, 0, 0, 0, 96);
/// RFC 8215 translation.
const NAT64_LOCAL: Ipv6Net = v6(0x0064_ff9b, 0x0001_0000, 0, 0, 48);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002_0000, 0, 0, 0, 16);
const COMPATIBLE: Ipv6Net = v6(0, 0, 0, 0, 96);

/// Where clouds hand credentials to whoever asks. Never opened.
const METADATA_V4: &[Ipv4Addr] = &[
    Ipv4Addr::new(169, 254, 169, 254), // AWS, Google Cloud, Azure, DigitalOcean, Oracle, OpenStack, Hetzner
    Ipv4Addr::new(169, 254, 170, 2),   // AWS ECS tasks
    Ipv4Addr::new(169, 254, 170, 23),  // AWS EKS pod identity
    Ipv4Addr::new(169, 254, 42, 42),   // Scaleway
    Ipv4Addr::new(169, 254, 0, 23),    // Tencent Cloud
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud, first generation
    Ipv4Addr::new(168, 63, 129, 16),   // Azure's wire server, in a public block
];

/// The same over IPv6.
const METADATA_V6: &[Ipv6Addr] = &[
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),      // AWS
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),       // AWS EKS pod identity
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),       // Google Cloud
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),        // Scaleway
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), // Oracle Cloud
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),    // OpenStack
];

/// Which addresses we connect to.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    allow: Vec<Allowance>,
    never: Vec<SocketAddr>,
}

impl Policy {
    /// Public addresses and `allow`, but never `never`: our own operator listeners, which stay closed on every
    /// address of this machine.
    #[must_use]
    pub fn new(allow: Vec<Allowance>, never: Vec<SocketAddr>) -> Self {
        Self { allow, never }
    }

    /// Whether we may connect to this address.
    ///
    /// # Errors
    /// Says why not, and how an operator opens it when that is possible.
    pub fn check(&self, address: SocketAddr) -> Result<(), Refused> {
        let ip = address.ip().to_canonical();
        let port = address.port();
        let refuse = |why| Err(Refused { address: SocketAddr::new(ip, port), why });
        // Both come first: nothing an operator opens may reach them, in whatever notation.
        if is_metadata(ip) || translated(ip).any(|ip| is_metadata(ip.into())) {
            return refuse(Why::Metadata);
        }
        if self.is_own_port(ip, port) || translated(ip).any(|ip| self.is_own_port(ip.into(), port)) {
            return refuse(Why::OwnPort);
        }
        match closed(ip) {
            None => Ok(()),
            Some(_) if self.allow.iter().any(|allowance| allowance.covers(ip, port)) => Ok(()),
            Some(range) => refuse(Why::Closed(range)),
        }
    }

    fn is_own_port(&self, ip: IpAddr, port: u16) -> bool {
        self.never.iter().any(|never| never.port() == port && (never.ip().to_canonical() == ip || is_this_machine(ip)))
    }
}

/// Addresses that the operator opened: `CIDR[:port]`.
///
/// Accepted: `10.0.0.0/8`, `127.0.0.1`, `127.0.0.1:8080`, `127.0.0.1/32:8080`, `fd00::/8`, `::1`, `[::1]:8080`,
/// `[::1]/128:8080`, `[fd00::/8]:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    net: IpNet,
    port: Option<u16>,
}

impl Allowance {
    fn covers(&self, ip: IpAddr, port: u16) -> bool {
        let inside = self.net.contains(&ip) || nat64(ip).is_some_and(|inner| self.net.contains(&IpAddr::V4(inner)));
        inside && self.port.is_none_or(|only| only == port)
    }
}

impl FromStr for Allowance {
    type Err = AllowanceError;

    fn from_str(text: &str) -> Result<Self, AllowanceError> {
        let (net, port) = split_port(text).ok_or(AllowanceError::Form)?;
        let net = parse_net(&net)?;
        let port = match port {
            None => None,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(AllowanceError::Port),
                Ok(port) => Some(port),
            },
        };
        Ok(Self { net, port })
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.net, self.port) {
            (net, None) => write!(f, "{net}"),
            (IpNet::V4(net), Some(port)) => write!(f, "{net}:{port}"),
            (IpNet::V6(net), Some(port)) => write!(f, "[{net}]:{port}"),
        }
    }
}

/// Why a text is no allowance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowanceError {
    /// Not an address block at all.
    #[error("expected CIDR[:port], such as 10.0.0.0/8, 127.0.0.1:8080 or [fd00::/8]:443")]
    Form,
    /// A port outside 1 to 65535.
    #[error("a port is between 1 and 65535")]
    Port,
    /// A block whose address has bits beyond its prefix: easily a typing error that opens too much.
    #[error("the address has bits beyond its prefix; the whole block is written {0}")]
    Bits(IpNet),
}

/// An address that the guard did not let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    address: SocketAddr,
    why: Why,
}

impl Refused {
    /// The address, IPv4 where it is a mapped one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether an operator can open it.
    #[must_use]
    pub fn can_be_opened(&self) -> bool {
        matches!(self.why, Why::Closed(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Not public; with the name of its block.
    Closed(&'static str),
    Metadata,
    OwnPort,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match self.why {
            Why::Closed(range) => {
                let net = IpNet::from(address.ip());
                let allowance = Allowance { net, port: Some(address.port()) };
                write!(
                    f,
                    "{address} is not a public address ({range}); an operator opens it with --egress-allow {allowance}"
                )
            }
            Why::Metadata => write!(f, "{address} is a cloud's metadata service, which is never opened"),
            Why::OwnPort => write!(f, "{address} is this server's own operator port, which is never opened"),
        }
    }
}

/// The name of the block that keeps this address closed; nothing for public ones. The address is canonical.
fn closed(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => CLOSED_V4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, range)| *range),
        IpAddr::V6(v6) => {
            if let Some(inner) = nat64(ip) {
                return closed(inner.into());
            }
            let listed = CLOSED_V6.iter().find(|(net, _)| net.contains(&v6)).map(|(_, range)| *range);
            listed.or((!GLOBAL_V6.contains(&v6)).then_some("not assigned"))
        }
    }
}

fn nat64(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V6(ip) if NAT64.contains(&ip) => Some(low_v4(ip)),
        _ => None,
    }
}

/// IPv4 addresses that a translator could make of an IPv6 address.
fn translated(ip: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let mut found = [None; 2];
    if let IpAddr::V6(ip) = ip {
        let bytes = ip.octets();
        if NAT64.contains(&ip) || COMPATIBLE.contains(&ip) {
            found[0] = Some(low_v4(ip));
        } else if NAT64_LOCAL.contains(&ip) {
            // RFC 6052 section 2.2 puts it round the 64th bit for a /48, and at the end for a /96 inside it.
            found = [Some(low_v4(ip)), Some(Ipv4Addr::new(bytes[6], bytes[7], bytes[9], bytes[10]))];
        } else if SIX_TO_FOUR.contains(&ip) {
            found[0] = Some(Ipv4Addr::new(bytes[2], bytes[3], bytes[4], bytes[5]));
        }
    }
    found.into_iter().flatten()
}

fn low_v4(ip: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = ip.octets();
    Ipv4Addr::new(a, b, c, d)
}

fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => METADATA_V6.contains(&ip),
    }
}

/// Whether an address is one of this machine's. Only an own address can be bound, so the attempt tells without
/// a list of interfaces; where the system lets any address be bound, all count as own, which errs on the safe
/// side.
fn is_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Splits a port off: what is left is an address or a block, without brackets.
fn split_port(text: &str) -> Option<(String, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, rest) = rest.split_once(']')?;
        let (prefix, port) = match rest.split_once(':') {
            Some((prefix, port)) => (prefix, Some(port)),
            None => (rest, None),
        };
        if !(prefix.is_empty() || prefix.starts_with('/')) {
            return None;
        }
        return Some((format!("{inside}{prefix}"), port));
    }
    // Without brackets a colon before any slash is part of an IPv6 address, unless it is the only one.
    let (address, prefix) = text.split_at(text.find('/').unwrap_or(text.len()));
    if let Some((prefix, port)) = prefix.split_once(':') {
        return Some((format!("{address}{prefix}"), Some(port)));
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') && prefix.is_empty() => Some((host.to_owned(), Some(port))),
        _ => Some((text.to_owned(), None)),
    }
}

fn parse_net(text: &str) -> Result<IpNet, AllowanceError> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| AllowanceError::Form)?),
    };
    if net.trunc() != net {
        return Err(AllowanceError::Bits(net.trunc()));
    }
    // Addresses are judged in their canonical form, so a block of mapped addresses means the IPv4 block.
    let mapped = match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().map(|ip| (ip, v6.prefix_len() - 96)),
        _ => None,
    };
    match mapped {
        Some((ip, prefix)) => Ipv4Net::new(ip, prefix).map(IpNet::V4).map_err(|_| AllowanceError::Form),
        None => Ok(net),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// From the four 32-bit quarters.
const fn v6(a: u32, b: u32, c: u32, d: u32, prefix: u8) -> Ipv6Net {
    let bits = ((a as u128) << 96) | ((b as u128) << 64) | ((c as u128) << 32) | (d as u128);
    Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], never: &[&str]) -> Policy {
        Policy::new(
            allow.iter().map(|text| text.parse().unwrap()).collect(),
            never.iter().map(|text| text.parse().unwrap()).collect(),
        )
    }

    fn at(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    #[test]
    fn closes_every_block_that_is_not_public() {
        let closed = [
            "0.0.0.0",
            "0.1.2.3",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.9",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ];
        for ip in closed {
            let refused = policy(&[], &[]).check(at(ip, 80)).expect_err(ip);
            assert!(refused.can_be_opened(), "{refused}");
        }
    }

    #[test]
    fn opens_the_public_internet() {
        let open = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ];
        for ip in open {
            assert_eq!(policy(&[], &[]).check(at(ip, 80)), Ok(()), "{ip}");
        }
    }

    #[test]
    fn an_allowance_opens_its_block_on_its_port() {
        let check = |allow: &str, ip: &str, port: u16| policy(&[allow], &[]).check(at(ip, port)).is_ok();
        assert!(check("127.0.0.1/32:8080", "127.0.0.1", 8080));
        assert!(check("127.0.0.1/32:8080", "::ffff:127.0.0.1", 8080));
        assert!(!check("127.0.0.1/32:8080", "127.0.0.1", 8081));
        assert!(!check("127.0.0.1/32:8080", "127.0.0.2", 8080));
        assert!(!check("127.0.0.1/32:8080", "::1", 8080));
        assert!(check("127.0.0.1:8080", "127.0.0.1", 8080));
        assert!(check("127.0.0.1", "127.0.0.1", 1));
        assert!(check("10.0.0.0/8", "10.1.2.3", 443));
        assert!(check("10.0.0.0/8", "64:ff9b::a01:203", 443));
        assert!(check("[::1]/128:8080", "::1", 8080));
        assert!(check("[::1/128]:8080", "::1", 8080));
        assert!(check("[::1]:8080", "::1", 8080));
        assert!(!check("[::1]:8080", "::1", 8081));
        assert!(check("::1", "::1", 8081));
        assert!(check("fd00::/8", "fd12::1", 8081));
        assert!(check("fd00::/8:443", "fd12::1", 443));
        assert!(!check("fd00::/8:443", "fd12::1", 444));
        assert!(check("::ffff:10.0.0.0/104", "10.1.2.3", 443));
    }

    #[test]
    fn an_allowance_is_written_as_it_is_read() {
        for text in ["10.0.0.0/8", "127.0.0.1/32:8080", "fd00::/8", "[fd00::/8]:443"] {
            assert_eq!(text.parse::<Allowance>().unwrap().to_string(), text);
        }
        for text in
            ["", "localhost", "10.0.0.0/33", "10.0.0.0/8:", "10.0.0.0/8:0", "10.0.0.0/8:65536", "[::1", "[::1]x"]
        {
            assert!(text.parse::<Allowance>().is_err(), "{text}");
        }
        let error = "10.0.0.1/8".parse::<Allowance>().unwrap_err();
        assert_eq!(error.to_string(), "the address has bits beyond its prefix; the whole block is written 10.0.0.0/8");
    }

    #[test]
    fn metadata_is_never_opened() {
        let all = policy(&["0.0.0.0/0", "::/0"], &[]);
        let metadata = [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::",
        ];
        for ip in metadata {
            let refused = all.check(at(ip, 80)).expect_err(ip);
            assert!(!refused.can_be_opened(), "{refused}");
        }
        assert!(all.check(at("169.254.169.253", 80)).is_ok());
    }

    #[test]
    fn our_operator_port_is_never_opened_on_this_machine() {
        let all = policy(&["0.0.0.0/0", "::/0"], &["127.0.0.1:8081"]);
        for ip in ["127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert!(all.check(at(ip, 8081)).is_err(), "{ip}");
            assert!(all.check(at(ip, 8080)).is_ok(), "{ip}");
        }
        assert!(all.check(at("10.9.8.7", 8081)).is_ok(), "another machine's port is its own affair");
        let elsewhere = policy(&["10.0.0.0/8"], &["10.9.8.7:8081"]);
        assert!(elsewhere.check(at("10.9.8.7", 8081)).is_err());
    }

    #[test]
    fn a_refusal_says_how_to_open_the_address() {
        let refused = policy(&[], &[]).check(at("::ffff:127.0.0.1", 8080)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "127.0.0.1:8080 is not a public address (loopback); an operator opens it with --egress-allow \
             127.0.0.1/32:8080"
        );
        let refused = policy(&[], &[]).check(at("::1", 8080)).unwrap_err();
        assert!(refused.to_string().ends_with("--egress-allow [::1/128]:8080"), "{refused}");
        let refused = policy(&[], &[]).check(at("169.254.169.254", 80)).unwrap_err();
        assert_eq!(refused.to_string(), "169.254.169.254:80 is a cloud's metadata service, which is never opened");
    }
}
