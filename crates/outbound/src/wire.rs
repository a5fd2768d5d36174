//! One request on the wire, and its answer.
//!
//! Guarantees that every stage ends within its time, and an answer's body within its size; that a request goes to
//! another connection only when the one that was kept gave it back unsent; and that an error says what the network
//! said, without anything of what was received.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use linkspan_model::request::Timings;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::client::SendOptions;
use crate::connector::{ConnectError, in_words};
use crate::error::{SendErrorKind, Timeout};
use crate::pool::{Connection, Http1, NotConnected, Origin, Pool};
use crate::progress::{Progress, Stage, micros};

/// Pieces in which a body is handed to its connection, so that a stalled upload is seen.
const PIECE_BYTES: usize = 64 << 10;

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) parts: response::Parts,
    pub(crate) timings: Timings,
    pub(crate) body: AnswerBody,
}

/// The body of an answer, with the connection that it comes on.
pub(crate) struct AnswerBody {
    incoming: Incoming,
    status: StatusCode,
    timings: Timings,
    /// Given back at the body's end; a body that is not read to it takes its connection along.
    http1: Option<(Box<Http1>, Arc<Origin>)>,
}

/// Sends one request and waits for the head of its answer. The URI is absolute.
pub(crate) async fn send(
    pool: &Pool,
    request: Request<Bytes>,
    options: &SendOptions,
    deadline: Instant,
) -> Result<Answer, SendErrorKind> {
    let progress = Arc::new(Progress::new(options.connect, options.tls));
    let mut request = request.map(|body| Upload::new(body, &progress));
    let origin = pool.origin(request.uri()).map_err(SendErrorKind::Invalid)?;
    loop {
        let now = Instant::now();
        let (connection, is_new, handed) = match origin.take(now) {
            Some(kept) => (kept, false, now),
            None => {
                let made = timeout_at(deadline, pool.connect(&origin, &progress)).await;
                let late = |_| SendErrorKind::Timeout(progress.timed_out_connecting(options.total));
                let made = made.map_err(late)?;
                let (made, is_new) = made.map_err(|why| unconnected(why, options, &progress))?;
                (made, is_new, Instant::now())
            }
        };
        origin.address(&mut request, &connection);
        let wait = Wait { handed, deadline, options, progress: &progress };
        let (came, http1) = match connection {
            Connection::Http1(mut http1) => {
                let sending = http1.sender.try_send_request(request);
                (wait.for_answer(sending, |cx| http1.drive(cx)).await, Some(http1))
            }
            Connection::Http2(mut sender) => (wait.for_answer(sender.try_send_request(request), |_| {}).await, None),
        };
        let mut error = match came? {
            Ok(response) => {
                let made = if is_new { progress.timings() } else { Timings::default() };
                let timings = Timings { first_byte_us: Some(micros(handed.elapsed())), ..made };
                return Ok(Answer::new(response, timings, http1.map(|http1| (http1, origin))));
            }
            Err(error) => error,
        };
        match error.take_message() {
            Some(unsent) if !is_new => {
                if http1.is_none() {
                    origin.forget_http2();
                }
                request = unsent;
            }
            // Whatever became of the request then: the server has not looked at it.
            _ if progress.refusal().is_some() => {
                return Err(SendErrorKind::Tls(progress.refusal().unwrap_or_default()));
            }
            Some(_) => return Err(SendErrorKind::NotSent),
            None => return Err(broken(error.error(), None)),
        }
    }
}

/// What an answer is waited for with.
struct Wait<'a> {
    /// When the request was handed to its connection: from then on it may have been sent.
    handed: Instant,
    deadline: Instant,
    options: &'a SendOptions,
    progress: &'a Progress,
}

type Came = Result<Response<Incoming>, TrySendError<Request<Upload>>>;

impl Wait<'_> {
    /// Waits for the head of an answer; `drive` moves the connection on.
    async fn for_answer(
        &self,
        sending: impl Future<Output = Came>,
        mut drive: impl FnMut(&mut Context<'_>),
    ) -> Result<Came, SendErrorKind> {
        let mut sending = pin!(sending);
        // Set when there is something to wait for, and again only when the wait becomes shorter, or has ended too
        // early.
        let mut timer = pin!(None::<Sleep>);
        poll_fn(|cx| {
            drive(cx);
            if let Poll::Ready(came) = sending.as_mut().poll(cx) {
                return Poll::Ready(Ok(came));
            }
            let quiet_since = self.progress.last_body_taken().map_or(self.handed, |taken| taken.max(self.handed));
            let until = self.deadline.min(quiet_since + self.options.first_byte);
            if timer.as_ref().as_pin_ref().is_none_or(|timer| timer.deadline() > until) {
                timer.set(Some(sleep_until(until)));
            }
            while timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready()) {
                if Instant::now() >= until {
                    return Poll::Ready(Err(SendErrorKind::Timeout(self.timed_out(until))));
                }
                timer.set(Some(sleep_until(until)));
            }
            Poll::Pending
        })
        .await
    }

    fn timed_out(&self, at: Instant) -> Timeout {
        let stage = if self.progress.is_body_left() { Stage::Send } else { Stage::FirstByte };
        let after = if at == self.deadline { self.options.total } else { self.options.first_byte };
        Timeout { stage, after, bytes_sent: true, status: None, timings: self.progress.timings() }
    }
}

impl Answer {
    fn new(response: Response<Incoming>, timings: Timings, http1: Option<(Box<Http1>, Arc<Origin>)>) -> Self {
        let (parts, incoming) = response.into_parts();
        let status = parts.status;
        Self { parts, timings, body: AnswerBody { incoming, status, timings, http1 } }
    }
}

impl AnswerBody {
    /// Reads the whole body, up to `max` bytes and until the deadline of a request that may take `total`.
    pub(crate) async fn read(mut self, max: u64, total: Duration, deadline: Instant) -> Result<Bytes, SendErrorKind> {
        let too_large = SendErrorKind::TooLarge { status: self.status.as_u16(), max };
        if self.incoming.size_hint().lower() > max {
            return Err(too_large);
        }
        // One piece is handed on as it is; more are joined.
        let mut whole = Bytes::new();
        let mut joined = BytesMut::new();
        let mut timer = pin!(None);
        while let Some(piece) = self.piece(deadline, total, timer.as_mut()).await? {
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

    /// Leaves the body unread. A connection with none of it left serves the next request.
    pub(crate) async fn discard(mut self) {
        if self.incoming.is_end_stream() {
            poll_fn(|cx| {
                self.keep(cx);
                Poll::Ready(())
            })
            .await;
        }
    }

    /// The next piece of the body, none at its end; it is waited for `idle` long.
    pub(crate) async fn next_piece(&mut self, idle: Duration) -> Result<Option<Bytes>, SendErrorKind> {
        self.piece(Instant::now() + idle, idle, pin!(None)).await
    }

    /// The next piece, by `deadline`, which is the end of a time of this length. The timer is set when there is
    /// something to wait for.
    async fn piece(
        &mut self,
        deadline: Instant,
        length: Duration,
        mut timer: Pin<&mut Option<Sleep>>,
    ) -> Result<Option<Bytes>, SendErrorKind> {
        let frame = poll_fn(|cx| {
            let frame = self.poll_frame(cx);
            if frame.is_ready() {
                return frame.map(Ok);
            }
            if timer.is_none() {
                timer.set(Some(sleep_until(deadline)));
            }
            match timer.as_mut().as_pin_mut().map(|timer| timer.poll(cx)) {
                Some(Poll::Ready(())) => Poll::Ready(Err(self.late(length))),
                _ => Poll::Pending,
            }
        });
        match frame.await? {
            None => Ok(None),
            Some(Err(error)) => Err(broken(&error, Some(self.status.as_u16()))),
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx);
        if frame.is_pending()
            && let Some((http1, _)) = &mut self.http1
        {
            http1.drive(cx);
            frame = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        if matches!(frame, Poll::Ready(None)) {
            self.keep(cx);
        }
        frame
    }

    fn keep(&mut self, cx: &mut Context<'_>) {
        if let Some((http1, origin)) = self.http1.take() {
            origin.keep(http1, cx);
        }
    }

    fn late(&self, after: Duration) -> SendErrorKind {
        let Self { status, timings, .. } = *self;
        let status = Some(status.as_u16());
        SendErrorKind::Timeout(Timeout { stage: Stage::Body, after, bytes_sent: true, status, timings })
    }
}

/// Why there is no connection.
fn unconnected(why: NotConnected, options: &SendOptions, progress: &Progress) -> SendErrorKind {
    match why {
        NotConnected::Stream(ConnectError::Refused(refused)) => SendErrorKind::Refused(refused),
        NotConnected::Stream(ConnectError::Dns(reason)) => SendErrorKind::Dns(reason),
        NotConnected::Stream(ConnectError::Connect(reason)) => SendErrorKind::Connect(reason),
        NotConnected::Stream(ConnectError::Tls(reason)) => SendErrorKind::Tls(reason),
        NotConnected::Stream(ConnectError::Proxy(error)) => SendErrorKind::Proxy(error),
        NotConnected::Stream(ConnectError::Timeout(stage)) => {
            let after = if stage == Stage::Tls { options.tls } else { options.connect };
            SendErrorKind::Timeout(Timeout { stage, ..progress.timed_out_connecting(after) })
        }
        NotConnected::Http(error) => progress.refusal().map_or_else(|| broken(&error, None), SendErrorKind::Tls),
    }
}

/// A connection that failed after the request was handed to it. The library's texts are shown only where they quote
/// nothing of what was received.
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

/// A body that is handed over in pieces and says when.
pub(crate) struct Upload {
    left: Bytes,
    /// Nothing where there is no body.
    progress: Option<Arc<Progress>>,
}

impl Upload {
    fn new(left: Bytes, progress: &Arc<Progress>) -> Self {
        if left.is_empty() {
            return Self { left, progress: None };
        }
        progress.body_waits();
        Self { left, progress: Some(Arc::clone(progress)) }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.left.len().min(PIECE_BYTES);
        let piece = self.left.split_to(size);
        if let Some(progress) = &self.progress {
            progress.body_taken(self.left.len());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(u64::try_from(self.left.len()).unwrap_or(u64::MAX))
    }
}
