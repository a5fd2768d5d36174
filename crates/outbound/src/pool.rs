//! Connections that are kept: an HTTP/1 connection for the next request, an HTTP/2 connection for all of them.
//!
//! Guarantees that a request has an HTTP/1 connection for itself, which goes back only when the answer was read to its
//! end and nothing is left to send; and that a connection that is not used any more is closed. An HTTP/1 connection is
//! driven by the task whose request is on it, so that a request costs no way to another task and back; an HTTP/2
//! connection, which many share, has a task of its own.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Context;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor as _;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use linkspan_model::connection::HeaderCase;
use linkspan_model::limits;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::connector::{ConnectError, Connector};
use crate::progress::Progress;
use crate::stream::Stream;
use crate::wire::Upload;

/// How long an unused connection is kept: also how long an old answer of the name system can live on.
const IDLE: Duration = Duration::from_secs(30);

/// Unused connections kept for each origin.
const IDLE_PER_ORIGIN: usize = 64;

/// Longest head of an answer, in bytes; our own listeners take 32 KiB, and answers carry cookies and policies.
const HEAD_MAX_BYTES: u32 = 64 << 10;

/// The connections of one way. Cheap to clone; clones share them.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    connector: Connector,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    origins: Mutex<Origins>,
}

#[derive(Default)]
struct Origins {
    /// By host and port.
    plain: HashMap<Box<str>, Arc<Origin>>,
    tls: HashMap<Box<str>, Arc<Origin>>,
    /// Whether a task closes what is not used any more.
    is_swept: bool,
}

/// What URLs lead to, and the connections to it.
pub(crate) struct Origin {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Those that wait, the one that was used last at the end.
    idle: Vec<(Box<Http1>, Instant)>,
    http2: Option<(Http2, Instant)>,
    /// The last connection spoke HTTP/1, of which everybody needs one.
    is_http1: bool,
    /// Closed when the first connection was made, or not.
    first: Option<Arc<Semaphore>>,
}

/// Whoever makes the first connection; what waits for it goes on when this is dropped.
struct First<'a>(&'a Origin);

impl Drop for First<'_> {
    fn drop(&mut self) {
        if let Some(first) = self.0.lock().first.take() {
            first.close();
        }
    }
}

type Http2 = http2::SendRequest<Upload>;

/// An HTTP/1 connection.
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<Upload>,
    /// Nothing once the connection has ended; with it goes a request that it has not begun to write.
    driver: Option<http1::Connection<Stream, Upload>>,
}

impl Http1 {
    /// Reads and writes what can be.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Ends the connection as its protocols say, without whoever had it.
    fn close(self: Box<Self>) {
        let Self { sender, driver } = *self;
        drop(sender);
        if let Some(driver) = driver {
            background(driver);
        }
    }
}

/// A connection for one request.
pub(crate) enum Connection {
    /// Of its own.
    Http1(Box<Http1>),
    /// With others.
    Http2(Http2),
}

impl Pool {
    pub(crate) fn new(connector: Connector, case: HeaderCase) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .max_headers(limits::HEADERS_MAX)
            .max_buf_size(usize::try_from(HEAD_MAX_BYTES).unwrap_or(usize::MAX))
            // What who reads a response must do (RFC 9112, section 5.2).
            .allow_obsolete_multiline_headers_in_responses(true)
            .title_case_headers(case == HeaderCase::Title);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_MAX_BYTES)
            // A silent network would hold a shared connection until the system gives up, minutes later.
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        Self(Arc::new(Shared { connector, http1, http2, origins: Mutex::default() }))
    }

    /// What an absolute URI leads to.
    pub(crate) fn origin(&self, uri: &Uri) -> Result<Arc<Origin>, String> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err("its URL has no host".to_owned());
        };
        let mut origins = self.0.lock();
        let of_scheme = if *scheme == Scheme::HTTPS { &mut origins.tls } else { &mut origins.plain };
        if let Some(origin) = of_scheme.get(authority.as_str()) {
            return Ok(Arc::clone(origin));
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "its URL has no valid host".to_owned())?;
        let (scheme, key) = (scheme.clone(), authority.as_str().into());
        let origin = Arc::new(Origin { scheme, authority: authority.clone(), host, kept: Mutex::default() });
        of_scheme.insert(key, Arc::clone(&origin));
        if !origins.is_swept {
            origins.is_swept = true;
            background(sweep(Arc::downgrade(&self.0)));
        }
        Ok(origin)
    }

    /// Makes a connection, and whether it is a new one: where many may share one, those who come while the first is
    /// made wait for it.
    pub(crate) async fn connect(
        &self,
        origin: &Origin,
        progress: &Arc<Progress>,
    ) -> Result<(Connection, bool), NotConnected> {
        let _first = match origin.first() {
            Turn::Free => None,
            Turn::First(first) => Some(first),
            Turn::After(first) => {
                // Nobody gives permits: it ends when it is closed.
                drop(first.acquire().await);
                if let Some(shared) = origin.shared(Instant::now()) {
                    return Ok((Connection::Http2(shared), false));
                }
                None
            }
        };
        let Origin { scheme, authority, .. } = origin;
        let stream = self.0.connector.connect(scheme, authority, progress).await.map_err(NotConnected::Stream)?;
        if !stream.is_h2() {
            origin.lock().is_http1 = true;
            let (sender, driver) = self.0.http1.handshake(stream).await.map_err(NotConnected::Http)?;
            return Ok((Connection::Http1(Box::new(Http1 { sender, driver: Some(driver) })), true));
        }
        let (sender, driver) = self.0.http2.handshake(stream).await.map_err(NotConnected::Http)?;
        background(driver);
        let mut kept = origin.lock();
        kept.is_http1 = false;
        if kept.http2.as_ref().is_none_or(|(sender, _)| sender.is_closed()) {
            kept.http2 = Some((sender.clone(), Instant::now()));
        }
        drop(kept);
        Ok((Connection::Http2(sender), true))
    }
}

/// Whether somebody who needs a connection makes one.
enum Turn<'a> {
    Free,
    First(First<'a>),
    After(Arc<Semaphore>),
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

/// Why there is no connection. Nothing of the request was sent.
pub(crate) enum NotConnected {
    Stream(ConnectError),
    /// The server did not begin to speak HTTP/2.
    Http(hyper::Error),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Origins> {
        // The state is plain values: a panic elsewhere leaves it whole.
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that all share, where there is one.
    fn shared(&self, now: Instant) -> Option<Http2> {
        let mut kept = self.lock();
        let (sender, since) = kept.http2.as_mut()?;
        if sender.is_closed() || now.duration_since(*since) >= IDLE {
            kept.http2 = None;
            return None;
        }
        *since = now;
        Some(sender.clone())
    }

    /// Whose turn it is to make a connection: only over TLS a connection may turn out to be one for all.
    fn first(&self) -> Turn<'_> {
        let mut kept = self.lock();
        if kept.is_http1 || self.scheme != Scheme::HTTPS {
            return Turn::Free;
        }
        if let Some(first) = &kept.first {
            return Turn::After(Arc::clone(first));
        }
        kept.first = Some(Arc::new(Semaphore::new(0)));
        Turn::First(First(self))
    }

    /// A connection that was kept. The server may have closed it meanwhile: it gives the request back then.
    pub(crate) fn take(&self, now: Instant) -> Option<Connection> {
        if let Some(shared) = self.shared(now) {
            return Some(Connection::Http2(shared));
        }
        let is_fresh = |since: Instant| now.duration_since(since) < IDLE;
        let mut kept = self.lock();
        // Those below it have waited longer: they are closed when it is looked next.
        kept.idle.pop_if(|(_, since)| is_fresh(*since)).map(|(http1, _)| Connection::Http1(http1))
    }

    /// Takes a connection back whose answer was read to its end.
    pub(crate) fn keep(&self, mut http1: Box<Http1>, cx: &mut Context<'_>) {
        if !http1.sender.is_ready() {
            // Its end was read, and not yet what follows from it.
            http1.drive(cx);
        }
        // Otherwise the server closes it, or has answered before all was sent.
        if http1.sender.is_ready() {
            let mut kept = self.lock();
            if kept.idle.len() < IDLE_PER_ORIGIN {
                kept.idle.push((http1, Instant::now()));
            }
        }
    }

    /// A shared connection gave a request back: it is at its end.
    pub(crate) fn forget_http2(&self) {
        self.lock().http2 = None;
    }

    /// Writes the target as the connection's protocol has it.
    pub(crate) fn address(&self, request: &mut Request<Upload>, connection: &Connection) {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        match connection {
            // RFC 9112, sections 3.2 and 3.2.1.
            Connection::Http1(_) => {
                request.headers_mut().insert(HOST, self.host.clone());
                *request.uri_mut() = Uri::from(path);
            }
            // RFC 9113, section 8.3.1. It lacks its authority only after an HTTP/1 connection gave it back.
            Connection::Http2(_) if request.uri().authority().is_none() => {
                request.headers_mut().remove(HOST);
                let mut parts = http::uri::Parts::default();
                parts.scheme = Some(self.scheme.clone());
                parts.authority = Some(self.authority.clone());
                parts.path_and_query = Some(path);
                *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
            }
            Connection::Http2(_) => {}
        }
    }

    /// Closes what has not been used for too long; whether anything is left.
    fn sweep(&self, now: Instant) -> bool {
        let is_stale = |since: Instant| now.duration_since(since) >= IDLE;
        let mut kept = self.lock();
        kept.http2.take_if(|(sender, since)| sender.is_closed() || is_stale(*since));
        let stale = kept.idle.iter().take_while(|(_, since)| is_stale(*since)).count();
        kept.idle.drain(..stale).for_each(|(http1, _)| http1.close());
        kept.http2.is_some() || !kept.idle.is_empty()
    }
}

/// Closes what is not used any more, until there is nothing left to look after.
async fn sweep(pool: Weak<Shared>) {
    loop {
        sleep(IDLE / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        let mut origins = pool.lock();
        let Origins { plain, tls, is_swept } = &mut *origins;
        for of_scheme in [&mut *plain, &mut *tls] {
            of_scheme.retain(|_, origin| origin.sweep(now) || Arc::strong_count(origin) > 1);
        }
        if plain.is_empty() && tls.is_empty() {
            *is_swept = false;
            return;
        }
    }
}

/// A task that ends with what it drives, and that a shutdown need not wait for: no request is on it that somebody still
/// waits for.
fn background<F: Future<Output: Send> + Send + 'static>(work: F) {
    TokioExecutor::new().execute(work);
}
