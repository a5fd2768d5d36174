//! Requests to others: sent within their limits, through the address guard, with what the history may show.
//!
//! Guarantees that an exchange ends within its time and size limits; that each redirect is judged like a first
//! request and takes no credentials to another origin; and that what is shown holds no secret of the credentials
//! in use. Leaves attempts to the
//! engine, rates and breakers to `traffic`, and rendering to the model.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    LOCATION, PROXY_AUTHORIZATION, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use linkspan_model::Timestamp;
use linkspan_model::connection::HeaderCase;
use linkspan_model::limits;
use linkspan_model::request::{ReceivedResponse, RequestSpec, SentRequest, Timings};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use url::Url;

use crate::auth::Credentials;
use crate::coding::{self, Unreadable};
use crate::connector::{ConnectError, ConnectionId, Connector, Guard, Resolver, in_words};
use crate::error::{SendError, SendErrorKind, Timeout};
use crate::policy::Policy;
use crate::progress::{PROGRESS, Progress, Stage, micros};
use crate::shown;
use crate::tls::Roots;
use crate::transport::{Pools, Transport, TransportSettings, Transports};

/// What we call ourselves, unless a request does otherwise.
pub(crate) const AGENT: &str = concat!("linkspan/", env!("CARGO_PKG_VERSION"));

/// How long an unused connection is kept: also how long an old answer of the name system can live on.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Unused connections kept for each origin.
const POOL_PER_ORIGIN: usize = 64;

/// Longest head of an answer, in bytes; our own listeners take 32 KiB, and answers carry cookies and policies.
const HEAD_MAX_BYTES: u32 = 64 << 10;

/// Pieces in which a body is handed to its connection, so that a stalled upload is seen.
const PIECE_BYTES: usize = 64 << 10;

/// Headers that say how a message is framed or routed: ours to set, never a step's.
const OURS: &[HeaderName] = &[HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, TRAILER, UPGRADE];

/// Headers that do not follow a request to another origin, besides the account's.
const PERSONAL: &[HeaderName] = &[AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

pub(crate) type Pool = Client<Connector, Upload>;

pub(crate) fn pool(connector: Connector, case: HeaderCase) -> Pool {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_PER_ORIGIN)
        .http1_max_headers(limits::HEADERS_MAX)
        .http1_max_buf_size(usize::try_from(HEAD_MAX_BYTES).unwrap_or(usize::MAX))
        .http1_title_case_headers(case == HeaderCase::Title)
        .http2_max_header_list_size(HEAD_MAX_BYTES)
        // A silent network would hold a shared connection until the system gives up, minutes later.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .build(connector)
}

/// The client for everything that documents name. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Outbound {
    pools: Pools,
    transports: Transports,
}

/// Limits of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOptions {
    /// Longest time until the TCP connection stands, looking the name up included. Default 5 s.
    pub connect: Duration,
    /// Longest time for the TLS handshake. Default 5 s.
    pub tls: Duration,
    /// Longest time from the request sent to the first byte of the answer, and between two pieces of a body that
    /// is sent. Default 15 s.
    pub first_byte: Duration,
    /// Longest time for the whole exchange, redirects included. Default 30 s.
    pub total: Duration,
    /// Longest body of the answer in bytes, as received and unpacked. Default 10 MiB.
    pub response_max_bytes: u64,
    /// Redirects that are followed, at most 5. With 0, the default, a redirect is an answer like others.
    pub redirects: u8,
    /// Where redirects may lead.
    pub redirect_scope: RedirectScope,
    /// How names of headers are written over HTTP/1.
    pub header_case: HeaderCase,
    /// The time, for credentials that sign requests; without one they do not.
    pub at: Option<Timestamp>,
    /// The way that connections are made; nothing: the ordinary one.
    pub transport: Option<Transport>,
}

/// Where redirects may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectScope {
    /// Only within the origin of the request.
    #[default]
    SameOrigin,
    /// Anywhere that the address guard lets pass, without credentials once the origin changed.
    Anywhere,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            connect: limits::CONNECT_TIMEOUT,
            tls: limits::CONNECT_TIMEOUT,
            first_byte: limits::FIRST_BYTE_TIMEOUT,
            total: limits::TOTAL_TIMEOUT,
            response_max_bytes: limits::RESPONSE_DEFAULT_BYTES,
            redirects: 0,
            redirect_scope: RedirectScope::default(),
            header_case: HeaderCase::default(),
            at: None,
            transport: None,
        }
    }
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request as sent last, redirects followed; secrets masked.
    pub sent: SentRequest,
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's headers as received.
    pub headers: HeaderMap,
    /// The answer's body, unpacked.
    pub body: Bytes,
    /// The content coding of the body, when it is one that is not undone here; `body` is then as received.
    pub undecoded: Option<String>,
    /// How long it took.
    pub timings: Timings,
    /// The answer for the history: secrets masked, body cut.
    pub received: ReceivedResponse,
}

/// A request that failed, with what the history may show of it.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Why.
    pub error: SendError,
    /// The request as it was sent, or would have been.
    pub sent: SentRequest,
}

impl Outbound {
    /// A client behind this policy, with the system's resolver and certificates.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self::with(policy, Resolver::System, Roots::system())
    }

    /// A client behind this policy.
    #[must_use]
    pub fn with(policy: Policy, resolver: Resolver, roots: Roots) -> Self {
        let connector = Connector::new(Guard::Policy(Arc::new(policy)), resolver, roots);
        Self { pools: Pools::new(&connector), transports: Transports::new(connector) }
    }

    /// Another way that connections are made than the ordinary one. Those who ask for the same share it, and with it
    /// their connections; others do not.
    ///
    /// # Errors
    /// Why it cannot be, in words that hold nothing of a secret.
    pub fn transport(&self, settings: &TransportSettings<'_>) -> Result<Transport, String> {
        self.transports.get(settings)
    }

    /// Sends a request and reads its whole answer, whatever its status.
    ///
    /// # Errors
    /// No answer came, or none within the limits; the error says whether the request may have been processed.
    pub async fn send(
        &self,
        spec: RequestSpec,
        credentials: &Credentials,
        options: &SendOptions,
    ) -> Result<Exchange, Box<Failed>> {
        let started = Instant::now();
        let deadline = started + options.total;
        let mut hop = Hop::first(spec, credentials, options.header_case);
        let pools = options.transport.as_ref().map_or(&self.pools, Transport::pools);
        let pool = pools.of(options.header_case);
        loop {
            let uri = hop.check().and_then(|()| {
                hop.sign(credentials, options.at);
                hop.url.as_str().parse::<Uri>().map_err(|error| format!("its URL: {error}"))
            });
            let mut sent = hop.shown(credentials);
            let fail = |kind, hop: &Hop, sent| {
                let error = SendError::new(kind, hop.host(credentials), hop.redirects);
                Box::new(Failed { error, sent })
            };
            let uri = match uri {
                Ok(uri) => uri,
                Err(reason) => return Err(fail(SendErrorKind::Invalid(reason), &hop, sent)),
            };
            let mut request = Request::new(());
            *request.method_mut() = hop.method.clone();
            *request.uri_mut() = uri;
            // Only a redirect needs them again.
            *request.headers_mut() =
                if options.redirects > 0 { hop.headers.clone() } else { std::mem::take(&mut hop.headers) };
            let answer = match head(pool, request, hop.body.clone(), options, deadline).await {
                Ok(answer) => answer,
                Err(kind) => return Err(fail(kind, &hop, sent)),
            };

            if answer.response.version() >= Version::HTTP_2 && hop.case == HeaderCase::Title {
                hop.case = HeaderCase::Lower;
                sent.headers.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
            }
            if options.redirects > 0 {
                let max = options.redirects.min(limits::REDIRECTS_MAX);
                match hop.redirect(&answer.response, max, options.redirect_scope, credentials) {
                    Ok(Some(next)) => {
                        hop = next;
                        continue;
                    }
                    Ok(None) => {}
                    Err(reason) => return Err(fail(SendErrorKind::Redirect(reason), &hop, sent)),
                }
            }

            let mut timings = answer.timings;
            let status = answer.response.status();
            let (parts, body) = answer.response.into_parts();
            let max = options.response_max_bytes;
            let body = match read(body, status, timings, max, options.total, deadline).await {
                Ok(body) => unpack(body, &parts.headers, status, max).await,
                Err(kind) => Err(kind),
            };
            let (body, undecoded) = match body {
                Ok(body) => body,
                Err(kind) => return Err(fail(kind, &hop, sent)),
            };
            timings.total_us = micros(started.elapsed());
            let is_packed = undecoded.is_some();
            let received = shown::response(status, &parts.headers, &body, is_packed, credentials.masker());
            return Ok(Exchange { sent, status, headers: parts.headers, body, undecoded, timings, received });
        }
    }
}

/// One request of an exchange: the first, or what a redirect made of it.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    /// Names that a step set although they are ours.
    refused: Option<HeaderName>,
    redirects: u8,
    /// How names of headers were written, as far as it is known.
    case: HeaderCase,
    /// Whether a redirect has left the origin that the credentials are for.
    has_left: bool,
}

impl Hop {
    fn first(spec: RequestSpec, credentials: &Credentials, case: HeaderCase) -> Self {
        let refused = spec.headers.iter().map(|(name, _)| name).find(|name| OURS.contains(name)).cloned();
        let mut headers = HeaderMap::with_capacity(spec.headers.len() + 4);
        for (name, value) in spec.headers {
            headers.append(name, value);
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        // A part of a packed body cannot be unpacked.
        let accepted = if headers.contains_key(RANGE) { "identity" } else { coding::ACCEPTED };
        headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static(accepted));
        credentials.apply(&mut headers);
        let mut url = spec.url;
        url.set_fragment(None);
        credentials.apply_query(&mut url);
        let mut hop =
            Self { method: spec.method, url, headers, body: spec.body, refused, redirects: 0, case, has_left: false };
        hop.set_length();
        hop
    }

    fn set_length(&mut self) {
        // RFC 9110 section 8.6: methods that define a meaning for a body say so even when it is empty.
        let means_body = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        if !self.body.is_empty() || means_body {
            self.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
    }

    fn sign(&mut self, credentials: &Credentials, at: Option<Timestamp>) {
        if let (Some(at), false) = (at, self.has_left) {
            credentials.sign(&self.method, &self.url, &mut self.headers, &self.body, at);
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(name) = &self.refused {
            return Err(format!("header {name} is set when it is sent; leave it out"));
        }
        if self.method == Method::CONNECT {
            return Err("method CONNECT asks for a tunnel".to_owned());
        }
        check_url(&self.url)
    }

    /// The request that a redirect asks for; nothing when the answer is no redirect.
    fn redirect(
        &self,
        answer: &Response<Incoming>,
        max: u8,
        scope: RedirectScope,
        credentials: &Credentials,
    ) -> Result<Option<Self>, String> {
        let becomes_get = match answer.status() {
            // RFC 9110 section 15.4.4: what to look at instead.
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            // Sections 15.4.2 and 15.4.3: what every client came to do.
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return Ok(None),
        };
        let Some(location) = answer.headers().get(LOCATION) else { return Ok(None) };
        if self.redirects >= max {
            return Err(format!("{max} redirects are followed at most"));
        }
        let location = location.to_str().map_err(|_| "its Location is not a URL".to_owned())?;
        let mut url = self.url.join(location).map_err(|error| format!("its Location: {error}"))?;
        url.set_fragment(None);
        check_url(&url)?;
        if self.url.scheme() == "https" && url.scheme() == "http" {
            return Err("it leads from https to http".to_owned());
        }
        let is_same_origin = url.origin() == self.url.origin();
        if scope == RedirectScope::SameOrigin && !is_same_origin {
            return Err("it leads to another origin".to_owned());
        }

        let mut headers = self.headers.clone();
        let has_left = self.has_left || !is_same_origin;
        if !has_left {
            credentials.apply_query(&mut url);
        } else if credentials.shown_url(&url) != url.as_str() {
            return Err("it takes a credential of the account to another origin".to_owned());
        }
        if !is_same_origin {
            // Gone for good: a later redirect back does not bring them again.
            let drop: Vec<HeaderName> = headers
                .iter()
                .filter(|(name, value)| is_personal(name, value, credentials))
                .map(|(name, _)| name.clone())
                .collect();
            for name in drop {
                headers.remove(name);
            }
        }
        let mut next = Self {
            method: self.method.clone(),
            url,
            headers,
            body: self.body.clone(),
            refused: None,
            redirects: self.redirects + 1,
            case: self.case,
            has_left,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body = Bytes::new();
            let content: Vec<HeaderName> =
                next.headers.keys().filter(|name| name.as_str().starts_with("content-")).cloned().collect();
            for name in content {
                next.headers.remove(name);
            }
        }
        next.set_length();
        Ok(Some(next))
    }

    fn host(&self, credentials: &Credentials) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let host = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        credentials.masker().mask_text(&host).into_owned()
    }

    fn shown(&self, credentials: &Credentials) -> SentRequest {
        let mut sent = shown::request(&self.method, &self.url, &self.headers, &self.body, credentials);
        if self.case == HeaderCase::Title {
            for (name, _) in &mut sent.headers {
                *name = shown::title_case(name);
            }
        }
        sent
    }
}

fn is_personal(name: &HeaderName, value: &HeaderValue, credentials: &Credentials) -> bool {
    let holds_secret = || matches!(credentials.masker().mask_bytes(value.as_bytes()), std::borrow::Cow::Owned(_));
    PERSONAL.contains(name) || credentials.carries(name) || value.is_sensitive() || holds_secret()
}

fn check_url(url: &Url) -> Result<(), String> {
    let reason = if !matches!(url.scheme(), "http" | "https") {
        "a URL starts with https:// or http://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "a URL holds no credentials; put them into an account"
    } else if url.host_str().is_none_or(str::is_empty) {
        "its URL has no host"
    } else if url.port() == Some(0) {
        "port 0 cannot be called"
    } else {
        return Ok(());
    };
    Err(reason.to_owned())
}

/// An answer whose body is still to be read.
pub(crate) struct Head {
    pub(crate) response: Response<Incoming>,
    pub(crate) timings: Timings,
}

/// Sends one request and waits for the head of its answer.
pub(crate) async fn head(
    pool: &Pool,
    request: Request<()>,
    body: Bytes,
    options: &SendOptions,
    deadline: Instant,
) -> Result<Head, SendErrorKind> {
    let progress = Arc::new(Progress::new(options.connect, options.tls));
    let mut request = request.map(|()| Upload::new(body, Arc::clone(&progress)));
    let connection = capture_connection(&mut request);
    let mut answer = pin!(PROGRESS.scope(Arc::clone(&progress), pool.request(request)));
    // When the request was handed to a connection: from then on it may have been sent.
    let mut handed: Option<Instant> = None;
    // Set when there is something to wait for, and again only when the wait becomes shorter, or has ended too early.
    let mut timer = pin!(None::<Sleep>);
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = answer.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(|error| classify(&error, options, &progress)));
        }
        // Whatever hands it over wakes this task.
        if handed.is_none() && connection.connection_metadata().is_some() {
            handed = Some(Instant::now());
        }
        let quiet_since = handed.map(|handed| progress.last_body_taken().map_or(handed, |taken| taken.max(handed)));
        let until = quiet_since.map_or(deadline, |since| deadline.min(since + options.first_byte));
        if timer.as_ref().as_pin_ref().is_none_or(|timer| timer.deadline() > until) {
            timer.set(Some(sleep_until(until)));
        }
        while timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready()) {
            if Instant::now() >= until {
                let after = if until == deadline { options.total } else { options.first_byte };
                return Poll::Ready(Err(SendErrorKind::Timeout(timed_out(&progress, handed.is_some(), after))));
            }
            timer.set(Some(sleep_until(until)));
        }
        Poll::Pending
    })
    .await;
    let response = result?;
    let used = response.extensions().get::<ConnectionId>().copied();
    let mut timings = progress.timings(used);
    timings.first_byte_us = handed.map(|handed| micros(handed.elapsed()));
    Ok(Head { response, timings })
}

fn timed_out(progress: &Progress, is_handed: bool, after: Duration) -> Timeout {
    let stage = match (is_handed, progress.is_body_left()) {
        (false, _) => progress.connecting(),
        (true, true) => Stage::Send,
        (true, false) => Stage::FirstByte,
    };
    Timeout { stage, after, bytes_sent: is_handed, status: None, timings: progress.timings(None) }
}

/// What hyper's error means. Its texts are not shown: they can quote what was received.
fn classify(error: &hyper_util::client::legacy::Error, options: &SendOptions, progress: &Progress) -> SendErrorKind {
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<ConnectError>()) {
        return match error.clone() {
            ConnectError::Refused(refused) => SendErrorKind::Refused(refused),
            ConnectError::Dns(reason) => SendErrorKind::Dns(reason),
            ConnectError::Connect(reason) => SendErrorKind::Connect(reason),
            ConnectError::Tls(reason) => SendErrorKind::Tls(reason),
            ConnectError::Proxy(error) => SendErrorKind::Proxy(error),
            ConnectError::Timeout(stage) => {
                let after = if stage == Stage::Tls { options.tls } else { options.connect };
                let timings = progress.timings(None);
                SendErrorKind::Timeout(Timeout { stage, after, bytes_sent: false, status: None, timings })
            }
        };
    }
    // Whatever became of the request then: the server has not looked at it.
    if let Some(reason) = progress.refusal() {
        return SendErrorKind::Tls(reason);
    }
    match error.source().and_then(|source| source.downcast_ref::<hyper::Error>()) {
        // hyper gave the request back: it had not begun to write it.
        Some(hyper) if hyper.is_canceled() => SendErrorKind::NotSent,
        Some(hyper) => broken(hyper, None),
        None if error.is_connect() => SendErrorKind::Connect("the connection was given up".to_owned()),
        None => SendErrorKind::Reset { status: None, reason: "the connection was given up".to_owned() },
    }
}

/// A connection that failed after the request was handed to it.
fn broken(error: &hyper::Error, status: Option<u16>) -> SendErrorKind {
    let io = io_cause(error);
    if error.is_parse() {
        return SendErrorKind::Malformed { status, reason: error.to_string() };
    }
    match io {
        // hyper reports broken chunks so.
        Some(io) if io.kind() == io::ErrorKind::InvalidInput || io.kind() == io::ErrorKind::InvalidData => {
            SendErrorKind::Malformed { status, reason: io.to_string() }
        }
        Some(io) => SendErrorKind::Reset { status, reason: in_words(io) },
        None if error.is_incomplete_message() || error.is_closed() => {
            SendErrorKind::Reset { status, reason: "the connection was closed".to_owned() }
        }
        None => SendErrorKind::Reset { status, reason: error.to_string() },
    }
}

fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// Reads a whole body, up to `max` bytes and until the deadline.
pub(crate) async fn read(
    body: Incoming,
    status: StatusCode,
    timings: Timings,
    max: u64,
    total: Duration,
    deadline: Instant,
) -> Result<Bytes, SendErrorKind> {
    let too_large = SendErrorKind::TooLarge { status: status.as_u16(), max };
    if body.size_hint().lower() > max {
        return Err(too_large);
    }
    let mut body = pin!(body);
    // One piece is handed on as it is; more are joined.
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let piece = timeout_at(deadline, body.frame()).await.map_err(|_| body_late(status, timings, total))?;
        let Some(piece) = data(piece, status)? else { break };
        let size = whole.len().max(joined.len()) + piece.len();
        if u64::try_from(size).is_ok_and(|size| size > max) {
            return Err(too_large);
        }
        if whole.is_empty() {
            whole = piece;
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&whole);
        }
        joined.extend_from_slice(&piece);
    }
    Ok(if joined.is_empty() { whole } else { joined.freeze() })
}

/// The next piece of a body, none at its end; each is waited for `idle` long.
pub(crate) async fn next_piece(
    body: &mut Incoming,
    status: StatusCode,
    timings: Timings,
    idle: Duration,
) -> Result<Option<Bytes>, SendErrorKind> {
    let piece = timeout(idle, body.frame()).await.map_err(|_| body_late(status, timings, idle))?;
    data(piece, status)
}

fn data(
    frame: Option<Result<http_body::Frame<Bytes>, hyper::Error>>,
    status: StatusCode,
) -> Result<Option<Bytes>, SendErrorKind> {
    match frame {
        None => Ok(None),
        Some(Err(error)) => Err(broken(&error, Some(status.as_u16()))),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
    }
}

fn body_late(status: StatusCode, timings: Timings, after: Duration) -> SendErrorKind {
    let status = Some(status.as_u16());
    SendErrorKind::Timeout(Timeout { stage: Stage::Body, after, bytes_sent: true, status, timings })
}

/// Undoes the content codings of a body; what the header says, when that is nothing that can be undone.
async fn unpack(
    body: Bytes,
    headers: &HeaderMap,
    status: StatusCode,
    max: u64,
) -> Result<(Bytes, Option<String>), SendErrorKind> {
    let codings = match coding::codings(headers) {
        // An answer to HEAD, or 304, names the coding of a body that did not come.
        _ if body.is_empty() => return Ok((body, None)),
        Err(undecoded) => return Ok((body, Some(undecoded))),
        Ok(codings) if codings.is_empty() => return Ok((body, None)),
        Ok(codings) => codings,
    };
    let status = status.as_u16();
    // Not among the sockets: what a few bytes unpack to takes its time.
    let unpacked = tokio::task::spawn_blocking(move || coding::unpack(&codings, &body, max)).await;
    match unpacked {
        Ok(Ok(body)) => Ok((body.into(), None)),
        Ok(Err(Unreadable::TooLarge)) => Err(SendErrorKind::TooLarge { status, max }),
        Ok(Err(Unreadable::Broken { coding, reason })) => {
            Err(SendErrorKind::Encoding { status, coding: coding.name(), reason })
        }
        // The runtime is about to end.
        Err(error) => Err(SendErrorKind::Reset { status: Some(status), reason: error.to_string() }),
    }
}

/// A body that is handed over in pieces and says when.
pub(crate) struct Upload {
    left: Bytes,
    progress: Arc<Progress>,
}

impl Upload {
    fn new(left: Bytes, progress: Arc<Progress>) -> Self {
        progress.body_waits(left.len());
        Self { left, progress }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.left.len().min(PIECE_BYTES);
        let piece = self.left.split_to(size);
        self.progress.body_taken(self.left.len());
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(u64::try_from(self.left.len()).unwrap_or(u64::MAX))
    }
}
