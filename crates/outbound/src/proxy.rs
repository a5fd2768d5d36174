//! Proxies: how one is asked for a tunnel, and why it gives none.
//!
//! Every request goes through a tunnel, `http://` ones too: so a proxy is asked for addresses that the guard has
//! judged and sees nothing of what is sent over TLS, and its credentials never reach a target. Leaves judging to
//! `connector`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use linkspan_model::limits;
use linkspan_model::proxy::{ProxyAddress, ProxyKind, ProxySpec};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use crate::client::AGENT;
use crate::connector::in_words;
use crate::policy::Refused;
use crate::transport::ProxyLogin;

/// Longest head of a proxy's answer, in bytes.
const HEAD_BYTES: usize = 16 << 10;

/// A proxy, and who we are there.
pub(crate) struct Proxy {
    kind: ProxyKind,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether it looks names up.
    pub(crate) resolves: bool,
    login: Option<Login>,
}

struct Login {
    /// HTTP Basic (RFC 7617).
    header: HeaderValue,
    /// Of SOCKS5 (RFC 1929).
    user: String,
    password: String,
}

/// What a proxy is asked for.
pub(crate) enum Target {
    Address(SocketAddr),
    Name(String, u16),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// A connection through a proxy.
pub(crate) type Tunnel = Box<dyn Duplex>;

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Why a proxy gave no way to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyError {
    /// Where the proxy is: host and port.
    pub proxy: String,
    /// What happened.
    pub why: ProxyWhy,
}

/// What can happen at a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyWhy {
    /// The guard did not let the proxy's own address pass.
    Refused(Refused),
    /// Its name could not be looked up.
    Dns(String),
    /// No connection to it.
    Connect(String),
    /// No TLS with it.
    Tls(String),
    /// It wants credentials: none were given, or it does not take these.
    Login {
        /// The status: 407, or 401 of proxies that mean the same; of a SOCKS5 proxy none.
        status: Option<u16>,
        /// Whether the connection gives some.
        is_given: bool,
    },
    /// It answered something else than that the tunnel stands.
    Status {
        /// The status.
        status: u16,
        /// What it was asked for.
        target: String,
    },
    /// A SOCKS5 proxy does not give the tunnel; in words.
    Denied(String),
    /// What it answered cannot be read, or it broke off.
    Broken(String),
}

impl ProxyError {
    /// Whether the guard did not let the proxy's address pass.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.why, ProxyWhy::Refused(_))
    }

    /// Whether another attempt could end differently.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match &self.why {
            ProxyWhy::Dns(_) | ProxyWhy::Connect(_) | ProxyWhy::Tls(_) | ProxyWhy::Denied(_) | ProxyWhy::Broken(_) => {
                true
            }
            ProxyWhy::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            ProxyWhy::Refused(_) | ProxyWhy::Login { .. } => false,
        }
    }
}

impl ProxyWhy {
    /// Whether it speaks of the target, so that another address of it may do.
    pub(crate) fn is_of_target(&self) -> bool {
        match self {
            Self::Denied(_) => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, why } = self;
        match why {
            ProxyWhy::Refused(refused) => write!(f, "its proxy {proxy} is closed to us: {refused}"),
            ProxyWhy::Dns(reason) => write!(f, "the proxy {proxy} cannot be looked up: {reason}"),
            ProxyWhy::Connect(reason) => write!(f, "the proxy {proxy} cannot be connected to: {reason}"),
            ProxyWhy::Tls(reason) => write!(f, "TLS cannot be set up with the proxy {proxy}: {reason}"),
            ProxyWhy::Login { status, is_given } => {
                let status = status.map_or_else(String::new, |status| format!(" ({status})"));
                if *is_given {
                    write!(f, "the proxy {proxy} does not accept the user and password of `proxy`{status}")
                } else {
                    write!(f, "the proxy {proxy} wants credentials{status}; give `proxy` a user and a password")
                }
            }
            ProxyWhy::Status { status, target } => {
                let status = StatusCode::from_u16(*status).map_or_else(|_| status.to_string(), |code| code.to_string());
                write!(f, "the proxy {proxy} gives no tunnel to {target}: it answered {status}")
            }
            ProxyWhy::Denied(reason) => write!(f, "the proxy {proxy} gives no tunnel: {reason}"),
            ProxyWhy::Broken(reason) => write!(f, "the proxy {proxy} broke off: {reason}"),
        }
    }
}

impl Proxy {
    /// A proxy as a document says.
    ///
    /// # Errors
    /// Why it cannot be used, in words without the password.
    pub(crate) fn new(spec: &ProxySpec, login: Option<&ProxyLogin>) -> Result<Self, String> {
        let ProxyAddress { kind, host, port } = spec.address()?;
        let login = login.map(|login| Login::new(login, kind)).transpose()?;
        Ok(Self { kind, host, port, resolves: spec.resolves(), login })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.kind == ProxyKind::Https
    }

    pub(crate) fn error(&self, why: ProxyWhy) -> ProxyError {
        ProxyError { proxy: format!("{}:{}", self.host, self.port), why }
    }

    /// Asks for a tunnel on a connection to the proxy.
    pub(crate) async fn tunnel<S>(&self, io: S, target: &Target) -> Result<Tunnel, ProxyWhy>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self.kind {
            ProxyKind::Http | ProxyKind::Https => self.http(io, target).await,
            ProxyKind::Socks5 => self.socks5(io, target).await,
        }
    }

    /// By HTTP's CONNECT (RFC 9110, section 9.3.6).
    async fn http<S>(&self, io: S, target: &Target) -> Result<Tunnel, ProxyWhy>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broken = |error: hyper::Error| ProxyWhy::Broken(what_broke(&error));
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(limits::HEADERS_MAX)
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(broken)?;
        let mut connection = pin!(connection.without_shutdown());
        let mut answer = pin!(sender.send_request(self.connect_request(target)?));
        // The connection may say that it stands before the answer is taken from it.
        let mut stands = None;
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer.map_err(broken)?,
                ended = &mut connection, if stands.is_none() => stands = Some(ended.map_err(broken)?),
            }
        };
        match answer.status() {
            status if status.is_success() => {}
            status @ (StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED) => {
                return Err(ProxyWhy::Login { status: Some(status.as_u16()), is_given: self.login.is_some() });
            }
            status => return Err(ProxyWhy::Status { status: status.as_u16(), target: target.to_string() }),
        }
        let parts = match stands {
            Some(parts) => parts,
            None => connection.await.map_err(broken)?,
        };
        if !parts.read_buf.is_empty() {
            // Whoever calls speaks first, in TLS and in HTTP: this is not the target's.
            return Err(ProxyWhy::Broken("it sent something before it was spoken to".to_owned()));
        }
        Ok(Box::new(parts.io.into_inner()))
    }

    fn connect_request(&self, target: &Target) -> Result<Request<Empty<Bytes>>, ProxyWhy> {
        let invalid = |error: http::Error| ProxyWhy::Broken(error.to_string());
        let authority = target.to_string();
        let uri = Uri::builder().authority(authority.as_str()).build().map_err(invalid)?;
        let mut request = Request::builder().method(Method::CONNECT).uri(uri).header(HOST, authority);
        request = request.header(USER_AGENT, AGENT);
        if let Some(login) = &self.login {
            request = request.header(PROXY_AUTHORIZATION, login.header.clone());
        }
        request.body(Empty::new()).map_err(invalid)
    }

    /// By SOCKS5 (RFC 1928).
    async fn socks5<S>(&self, io: S, target: &Target) -> Result<Tunnel, ProxyWhy>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let uri = format!("http://{target}").parse::<Uri>().map_err(|error| ProxyWhy::Broken(error.to_string()))?;
        let mut socks = SocksV5::new(Uri::from_static("socks5://proxy"), Standing(Some(TokioIo::new(io))));
        if let Some(login) = &self.login {
            socks = socks.with_auth(login.user.clone(), login.password.clone());
        }
        match socks.call(uri).await {
            Ok(io) => Ok(Box::new(io.into_inner())),
            // The library says no more than a text of what went wrong; it holds nothing of the credentials.
            Err(error) => {
                let text = error.to_string();
                if text.contains(SOCKS_LOGIN_REFUSED) {
                    return Err(ProxyWhy::Login { status: None, is_given: self.login.is_some() });
                }
                Err(ProxyWhy::Denied(text.strip_prefix("SOCKS error: ").unwrap_or(&text).to_owned()))
            }
        }
    }
}

/// What the library says where a SOCKS5 proxy does not accept the login (RFC 1929); its error has no other name.
const SOCKS_LOGIN_REFUSED: &str = "credentials not accepted";

impl Login {
    fn new(login: &ProxyLogin, kind: ProxyKind) -> Result<Self, String> {
        let (user, password) = (login.user.expose(), login.password.expose());
        if kind != ProxyKind::Socks5 && user.contains(&b':') {
            return Err("the user holds a colon, which HTTP Basic cannot send (RFC 7617)".to_owned());
        }
        if [user, password].iter().any(|part| part.iter().any(u8::is_ascii_control)) {
            return Err("user or password hold a line break or another control character".to_owned());
        }
        // RFC 1929, section 2.
        if kind == ProxyKind::Socks5 && (user.len() > 255 || password.len() > 255) {
            return Err("user and password hold at most 255 bytes each (RFC 1929)".to_owned());
        }
        let pair = [user, b":", password].concat();
        let header = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
        let mut header = header.map_err(|_| "user and password cannot be sent".to_owned())?;
        header.set_sensitive(true);
        let text = |part: &[u8]| {
            String::from_utf8(part.to_vec()).map_err(|_| "user and password must be text in UTF-8".to_owned())
        };
        Ok(Self { header, user: text(user)?, password: text(password)? })
    }
}

/// What a broken conversation means. The library's own texts are not shown: they can quote what was received.
fn what_broke(error: &hyper::Error) -> String {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return in_words(io);
        }
        cause = error.source();
    }
    let words = if error.is_parse() { "what it answered is not valid HTTP" } else { "it closed the connection" };
    words.to_owned()
}

/// The connection to the proxy that stands already, for a library that wants to be told how one is made.
struct Standing<S>(Option<S>);

impl<S: Send + 'static> Service<Uri> for Standing<S> {
    type Response = S;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stands = self.0.take().ok_or_else(|| io::Error::other("the connection is taken"));
        Box::pin(std::future::ready(stands))
    }
}
