//! How a connection comes about: name, address guard, TCP, perhaps a proxy, TLS.
//!
//! Guarantees that every address passed the policy and that the address that passed is the one that is dialled, or
//! that a proxy is asked for, so that a name which resolves differently the next moment gains nothing. Literal
//! addresses take the same way as resolved ones. No proxy is asked but the one of a connection, whatever the
//! environment says. Leaves what is sent to `client`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::policy::{Policy, Refused};
use crate::progress::{Progress, Stage};
use crate::proxy::{Proxy, ProxyError, ProxyWhy, Target, Tunnel};
use crate::stream::Stream;
use crate::tls::{self, Roots, Tls};

/// Looks names up.
#[derive(Clone, Default)]
pub enum Resolver {
    /// The system's resolver, asked for each new connection; it is the one that caches.
    #[default]
    System,
    /// A function in its place, so that tests need no network.
    Function(Arc<LookUp>),
}

/// What stands in for the system's resolver: a name's addresses.
pub type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()),
            Self::Function(look_up) => look_up(host),
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Function(_) => "Function",
        })
    }
}

/// Which addresses a connector may dial.
#[derive(Debug, Clone)]
pub(crate) enum Guard {
    /// What the policy lets pass.
    Policy(Arc<Policy>),
    /// Any: only where the operator names the address on the command line.
    Open,
}

impl Guard {
    fn check(&self, address: SocketAddr) -> Result<(), Refused> {
        match self {
            Self::Policy(policy) => policy.check(address),
            Self::Open => Ok(()),
        }
    }
}

/// Why no connection came about. Nothing of the request was sent.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0}")]
    Refused(Refused),
    #[error("{0}")]
    Dns(String),
    #[error("{0}")]
    Connect(String),
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Proxy(ProxyError),
    /// The time for connecting, or for the TLS handshake, was over.
    #[error("timed out")]
    Timeout(Stage),
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Shared>);

struct Shared {
    guard: Guard,
    resolver: Resolver,
    tls: Tls,
    proxy: Option<Proxy>,
}

/// What a URL leads to.
#[derive(Clone, Copy)]
struct Place<'a> {
    host: &'a str,
    port: u16,
}

impl Connector {
    pub(crate) fn new(guard: Guard, resolver: Resolver, roots: Roots) -> Self {
        Self::of(guard, resolver, Tls::ordinary(roots), None)
    }

    /// Another one behind the same guard.
    pub(crate) fn beside(&self, tls: Tls, proxy: Option<Proxy>) -> Self {
        Self::of(self.0.guard.clone(), self.0.resolver.clone(), tls, proxy)
    }

    pub(crate) fn roots(&self) -> Roots {
        self.0.tls.roots()
    }

    fn of(guard: Guard, resolver: Resolver, tls: Tls, proxy: Option<Proxy>) -> Self {
        Self(Arc::new(Shared { guard, resolver, tls, proxy }))
    }

    /// A connection to what URLs with this scheme and authority lead to.
    pub(crate) async fn connect(
        &self,
        scheme: &Scheme,
        authority: &Authority,
        progress: &Arc<Progress>,
    ) -> Result<Stream, ConnectError> {
        let is_tls = *scheme == Scheme::HTTPS;
        let host = authority.host();
        let place = Place { host, port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }) };
        let deadline = Instant::now() + progress.connect_max();
        if let Some(proxy) = &self.0.proxy {
            let tunnel = self.tunnel(proxy, place, deadline, progress).await?;
            if !is_tls {
                return Ok(Stream::tunnel(tunnel));
            }
            let tls = self.handshake(host, tunnel, progress).await?;
            return Ok(Stream::tls_in_tunnel(tls, Arc::clone(progress)));
        }

        let addresses = self.addresses(place, deadline, progress).await?;
        progress.enter(Stage::Connect);
        let tcp = dial(&addresses, deadline).await?;
        progress.leave(Stage::Connect);
        if !is_tls {
            return Ok(Stream::plain(tcp));
        }
        let tls = self.handshake(host, tcp, progress).await?;
        Ok(Stream::tls(tls, Arc::clone(progress)))
    }

    /// The addresses that may be dialled: at least one.
    async fn addresses(
        &self,
        place: Place<'_>,
        deadline: Instant,
        progress: &Progress,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let Place { host, port } = place;
        if let Some(ip) = literal(host) {
            return self.judge(vec![ip], port);
        }
        progress.enter(Stage::Dns);
        let ips = timeout_at(deadline, self.0.resolver.resolve(host))
            .await
            .map_err(|_| ConnectError::Timeout(Stage::Dns))?
            .map_err(|error| ConnectError::Dns(in_words(&error)))?;
        progress.leave(Stage::Dns);
        self.judge(ips, port)
    }

    /// Those of the addresses that the guard lets pass: at least one.
    fn judge(&self, ips: Vec<IpAddr>, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let mut refused = None;
        let mut passed = Vec::with_capacity(ips.len());
        for ip in ips {
            let address = SocketAddr::new(ip.to_canonical(), port);
            match self.0.guard.check(address) {
                Ok(()) => passed.push(address),
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        match refused {
            Some(refusal) if passed.is_empty() => Err(ConnectError::Refused(refusal)),
            None if passed.is_empty() => Err(ConnectError::Dns("the name has no addresses".to_owned())),
            _ => Ok(passed),
        }
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        io: S,
        progress: &Progress,
    ) -> Result<TlsStream<S>, ConnectError> {
        let config = self.0.tls.target().await.map_err(ConnectError::Tls)?;
        let name = self.0.tls.name_for(host).map_err(ConnectError::Tls)?;
        progress.enter(Stage::Tls);
        let deadline = Instant::now() + progress.tls_max();
        let stream = timeout_at(deadline, secure(config, name, io))
            .await
            .map_err(|_| ConnectError::Timeout(Stage::Tls))?
            .map_err(ConnectError::Tls)?;
        progress.leave(Stage::Tls);
        Ok(stream)
    }
}

/// The way through a proxy.
impl Connector {
    /// A tunnel to the target: to an address of it that passed the guard, or to its name where the proxy looks names
    /// up.
    async fn tunnel(
        &self,
        proxy: &Proxy,
        place: Place<'_>,
        deadline: Instant,
        progress: &Progress,
    ) -> Result<Tunnel, ConnectError> {
        // Before the proxy hears of it: it must not be used to reach what is refused here.
        let targets = self.targets(proxy, place, deadline, progress).await?;
        progress.enter(Stage::Proxy);
        let tunnel = timeout_at(deadline, self.open(proxy, &targets, deadline))
            .await
            .map_err(|_| ConnectError::Timeout(Stage::Proxy))?
            .map_err(|why| ConnectError::Proxy(proxy.error(why)))?;
        progress.leave(Stage::Proxy);
        Ok(tunnel)
    }

    async fn targets(
        &self,
        proxy: &Proxy,
        place: Place<'_>,
        deadline: Instant,
        progress: &Progress,
    ) -> Result<Vec<Target>, ConnectError> {
        let Place { host, port } = place;
        if proxy.resolves && literal(host).is_none() {
            let bare = host.trim_end_matches('.');
            // RFC 6761, section 6.3: these names are addresses of the machine that looks them up.
            if bare == "localhost" || bare.ends_with(".localhost") {
                self.judge(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], port)?;
            }
            return Ok(vec![Target::Name(host.to_owned(), port)]);
        }
        Ok(self.addresses(place, deadline, progress).await?.into_iter().map(Target::Address).collect())
    }

    /// Asks the proxy for the targets in order, as long as it answers that it does not reach one.
    async fn open(&self, proxy: &Proxy, targets: &[Target], deadline: Instant) -> Result<Tunnel, ProxyWhy> {
        let addresses = self.proxy_addresses(proxy).await?;
        let mut last = ProxyWhy::Broken("there is nothing to ask for".to_owned());
        for target in targets {
            let tcp = dial(&addresses, deadline).await.map_err(|error| ProxyWhy::Connect(error.to_string()))?;
            let tunnel = if proxy.is_tls() {
                let config = self.0.tls.proxy().await.map_err(ProxyWhy::Tls)?;
                let name = tls::server_name(&proxy.host).map_err(ProxyWhy::Tls)?;
                proxy.tunnel(secure(config, name, tcp).await.map_err(ProxyWhy::Tls)?, target).await
            } else {
                proxy.tunnel(tcp, target).await
            };
            match tunnel {
                Err(why) if why.is_of_target() => last = why,
                other => return other,
            }
        }
        Err(last)
    }

    async fn proxy_addresses(&self, proxy: &Proxy) -> Result<Vec<SocketAddr>, ProxyWhy> {
        let ips = match literal(&proxy.host) {
            Some(ip) => vec![ip],
            None => {
                let ips = self.0.resolver.resolve(&proxy.host).await;
                ips.map_err(|error| ProxyWhy::Dns(in_words(&error)))?
            }
        };
        self.judge(ips, proxy.port).map_err(|error| match error {
            ConnectError::Refused(refused) => ProxyWhy::Refused(refused),
            other => ProxyWhy::Dns(other.to_string()),
        })
    }
}

/// Tries the addresses in order. Each gets its share of the time that is left, so that one that swallows
/// packets leaves some to the next.
async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError::Timeout(Stage::Connect);
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let now = Instant::now();
        let share = now + deadline.saturating_duration_since(now) / left;
        left = left.saturating_sub(1).max(1);
        last = match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Requests are written in one piece: waiting for more to send only delays them.
                if let Err(error) = tcp.set_nodelay(true) {
                    tracing::debug!(%error, "cannot switch delayed sending off");
                }
                return Ok(tcp);
            }
            Ok(Err(error)) => ConnectError::Connect(format!("{} ({address})", in_words(&error))),
            Err(_) => ConnectError::Timeout(Stage::Connect),
        };
    }
    Err(last)
}

async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    config: &Arc<ClientConfig>,
    name: ServerName<'static>,
    io: S,
) -> Result<TlsStream<S>, String> {
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    connector.connect(name, io).await.map_err(|error| tls::in_words(&error))
}

/// The address that a URL names in place of a host.
fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// An I/O error as people say it: without the system's number and the library's prefixes.
pub(crate) fn in_words(error: &io::Error) -> String {
    let words = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::ConnectionAborted => "connection aborted",
        io::ErrorKind::HostUnreachable => "host unreachable",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::AddrNotAvailable => "address not available",
        io::ErrorKind::UnexpectedEof => "the other side closed the connection",
        io::ErrorKind::BrokenPipe => "the other side closed the connection",
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
            return text.to_owned();
        }
    };
    words.to_owned()
}
