//! Our own accept loop: HTTP/1.1 and HTTP/2, plain or TLS, with a deadline at every stage.
//!
//! Guarantees: a connection that stalls at any stage is closed within that stage's limit; when there are too
//! many, the one that has been idle longest goes, and only if none is idle the new one; shutdown stops
//! accepting, lets requests finish, and forgets no task. Smuggling checks (conflicting lengths, obsolete line
//! folding) are left to the HTTP library.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use linkspan_model::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::staged::{Activity, Ending, RequestGuard, StageLimits, Staged};

/// How a listener treats its connections.
#[derive(Debug, Clone, Copy)]
pub struct AcceptLimits {
    /// The longest times of the stages of a connection.
    pub stages: StageLimits,
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Most open connections.
    pub connections: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            stages: StageLimits { head: limits::HEAD_TIMEOUT, idle: limits::IDLE_TIMEOUT, write: limits::BODY_TIMEOUT },
            handshake: limits::HEAD_TIMEOUT,
            connections: limits::CONNECTIONS_MAX,
        }
    }
}

/// Answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static;

    /// Answers one request from `peer`.
    fn handle(&self, request: Request<Incoming>, peer: SocketAddr)
    -> impl Future<Output = Response<Self::Body>> + Send;
}

/// A listening socket and how it treats its connections.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS, where this listener speaks it.
    pub tls: Option<TlsAcceptor>,
    /// Limits.
    pub limits: AcceptLimits,
    /// The runtimes that serve its connections, by turns; none: the one that accepts them.
    pub runtimes: Vec<Handle>,
}

/// The open connections of one listener.
#[derive(Debug)]
struct Connections {
    began: Instant,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    most: usize,
}

/// A place among the open connections, given back when dropped.
struct Place {
    connections: Arc<Connections>,
    number: u64,
    activity: Arc<Activity>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.number);
    }
}

impl Connections {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection; when there is none left, the connection that was idle longest makes
    /// room, and when none is idle there is none.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let activity = Activity::new(self.began);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.lock();
        if open.len() >= self.most {
            let oldest = open
                .iter()
                .filter_map(|(number, activity)| activity.idle_since().map(|since| (since, *number)))
                .min()?
                .1;
            if let Some(activity) = open.remove(&oldest) {
                activity.end(Ending::Evicted);
            }
        }
        open.insert(number, Arc::clone(&activity));
        drop(open);
        Some(Place { connections: Arc::clone(self), number, activity })
    }

    /// Lets every connection finish its requests and close.
    fn finish(&self) {
        self.lock().values().for_each(|activity| activity.end(Ending::Finishing));
    }
}

/// Accepts connections until `stop`, then lets the open ones finish their requests. The connections run on
/// `tasks`; whoever wants to wait for them waits there.
pub async fn serve<H: Handler>(listener: Listener, handler: H, tasks: TaskTracker, stop: CancellationToken) {
    let connections = Arc::new(Connections {
        began: Instant::now(),
        next: AtomicU64::new(0),
        open: Mutex::default(),
        most: listener.limits.connections,
    });
    let mut runtimes = listener.runtimes.iter().cycle();
    let mut failures = Recurring::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return connections.finish(),
            accepted = listener.socket.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: closing connections make room, so wait a little.
                if let Some(times) = failures.happens() {
                    tracing::warn!(%error, times, "connections could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = connections.place() else { continue };
        let connection = Connection { place, peer, limits: listener.limits, handler: handler.clone() };
        match runtimes.next() {
            None => drop(tasks.spawn(connection.run(stream, listener.tls.clone()))),
            // A socket belongs to the runtime where it is made.
            Some(runtime) => match stream.into_std() {
                Ok(stream) => drop(tasks.spawn_on(connection.take_up(stream, listener.tls.clone()), runtime)),
                Err(error) => tracing::warn!(%error, "a connection could not be handed on"),
            },
        }
    }
}

/// Something that may go on happening many times a second, and is said once in one.
#[derive(Debug, Default)]
struct Recurring {
    said: Option<Instant>,
    unsaid: u64,
}

impl Recurring {
    /// It happens: how many times since this was last given, when it is time to say so again.
    fn happens(&mut self) -> Option<u64> {
        self.unsaid += 1;
        let now = Instant::now();
        if self.said.is_some_and(|said| now.duration_since(said) < Duration::from_secs(1)) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

struct Connection<H> {
    place: Place,
    peer: SocketAddr,
    limits: AcceptLimits,
    handler: H,
}

impl<H: Handler> Connection<H> {
    /// Serves a connection on the runtime that runs this, whichever accepted it.
    async fn take_up(self, stream: std::net::TcpStream, tls: Option<TlsAcceptor>) {
        match TcpStream::from_std(stream) {
            Ok(stream) => self.run(stream, tls).await,
            Err(error) => tracing::warn!(%error, "a connection could not be taken up"),
        }
    }

    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "nodelay was refused");
        }
        match tls {
            None => self.speak(stream).await,
            Some(tls) => {
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(self.limits.handshake, tls.accept(stream)) => shaken,
                    () = self.place.activity.ended() => return,
                };
                match shaken {
                    Ok(Ok(stream)) => self.speak(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            }
        }
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { place, peer, limits, handler } = self;
        let activity = Arc::clone(&place.activity);
        let io = TokioIo::new(Staged::new(stream, Arc::clone(&activity), limits.stages));
        // Of this connection alone: what all of them share, two processors would take from each other.
        let handler = Arc::new(handler);
        let service = service_fn(move |request| {
            let busy = activity.request();
            let handler = Arc::clone(&handler);
            async move {
                let response = handler.handle(request, peer).await;
                // Until the response is written: one that goes on for minutes keeps its connection from being idle.
                Ok::<_, Infallible>(response.map(|body| Counted { body, _busy: busy }))
            }
        });
        let builder = http_builder();
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut ended = pin!(place.activity.ended());
        let (mut is_watched, mut is_finishing) = (false, false);
        poll_fn(|cx| {
            // Watched once: the task stays the same, and what woke it is seen in `ending`, which costs one load.
            if !std::mem::replace(&mut is_watched, true) {
                let _is_seen_below = ended.as_mut().poll(cx);
            }
            match place.activity.ending() {
                None => {}
                Some(Ending::Evicted) => {
                    // So that a client of HTTP/2 hears of it, if it takes bytes at once.
                    connection.as_mut().graceful_shutdown();
                    let _has_ended_anyhow = connection.as_mut().poll(cx);
                    return Poll::Ready(());
                }
                Some(Ending::Finishing) if !std::mem::replace(&mut is_finishing, true) => {
                    connection.as_mut().graceful_shutdown();
                }
                Some(Ending::Finishing) => {}
            }
            connection.as_mut().poll(cx).map(|outcome| {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a connection ended early");
                }
            })
        })
        .await;
    }
}

/// A response's body, during which its request counts as being handled.
struct Counted<B> {
    body: B,
    _busy: RequestGuard,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The HTTP library's own limits are a second line behind ours, so that what is a little too large still gets
/// an answer in our shape.
fn http_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(2 * limits::HEAD_MAX_BYTES)
        .max_headers(2 * limits::HEADERS_MAX)
        // A caller that ends its side after the request still gets the answer: the event may be stored by then.
        // Answers are flushed one by one: `pipeline_flush` holds an answer back while bytes of another request
        // have come, and so loses the 400 to whatever does not parse.
        .half_close(true)
        // Answers are short: copying one into a single buffer costs less than a vectored write.
        .writev(false);
    builder
        .http2()
        .max_header_list_size(2 * limits::HEAD_MAX_BYTES as u32)
        .max_concurrent_streams(256)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_recurs_is_said_once_a_second_with_its_count() {
        let mut recurring = Recurring::default();
        assert_eq!(recurring.happens(), Some(1));
        let mut said = Vec::new();
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(50)).await;
            said.extend(recurring.happens());
        }
        assert_eq!(said, [20; 5]);
    }
}
