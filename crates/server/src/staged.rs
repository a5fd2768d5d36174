//! A connection that cannot stall: a deadline for every stage of its life.
//!
//! The HTTP library has one timer for several stages, so the stages are kept here, below it: the first byte,
//! a whole request head, a kept-alive connection between requests, and progress of a write. While a request
//! is being handled nothing is timed here; its body has a reader with limits of its own.
//!
//! HTTP/2 sends frames also where nobody asks for anything (PING, SETTINGS and what acknowledges them), so that bytes
//! say nothing about requests. There a connection is idle as long as it has no request, whatever comes, and its end is
//! told to the client (GOAWAY; RFC 9113, section 6.8), which may have a request under way at that moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::framing;

/// The longest times of the stages.
#[derive(Debug, Clone, Copy)]
pub struct StageLimits {
    /// Until the first byte, and from the first byte to the end of a request head.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without progress of a write.
    pub write: Duration,
}

/// What the connection and its requests share.
#[derive(Debug)]
pub struct Activity {
    /// Requests that are being handled.
    requests: AtomicUsize,
    /// Requests that have begun: a short one may begin and end between two reads.
    begun: AtomicU64,
    /// Milliseconds on the listener's clock since when the connection has been idle; `BUSY` while it is not.
    idle_since: AtomicU64,
    began: Instant,
    /// `Ending` as a number; 0 as long as it goes on.
    ending: AtomicU8,
    ended: Notify,
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The server stops, or it was idle for too long: after the requests that have begun.
    Finishing = 1,
    /// Another connection needs its place: at once.
    Evicted = 2,
}

const BUSY: u64 = u64::MAX;

impl Activity {
    /// A connection that is idle from now on, on a clock that began at `began`.
    #[must_use]
    pub fn new(began: Instant) -> Arc<Self> {
        let idle_since = AtomicU64::new(millis(began.elapsed()));
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            idle_since,
            began,
            ending: AtomicU8::new(0),
            ended: Notify::new(),
        })
    }

    /// Notes that a request is being handled until the guard is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.idle_since.store(BUSY, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// Since when nothing is being handled; nothing while something is.
    #[must_use]
    pub fn idle_since(&self) -> Option<u64> {
        Some(self.idle_since.load(Ordering::Relaxed)).filter(|since| *since != BUSY)
    }

    /// Asks the connection to end. Who was asked to end at once does not go on.
    pub fn end(&self, ending: Ending) {
        self.ending.fetch_max(ending as u8, Ordering::AcqRel);
        self.ended.notify_one();
    }

    /// Whether and how the connection is to end.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        match self.ending.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Ending::Finishing),
            _ => Some(Ending::Evicted),
        }
    }

    /// Resolves when the connection is to end; for one waiter.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(BUSY - 1)
}

/// A request that is being handled, or whose response is still to be written.
#[derive(Debug)]
pub struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle_since.store(millis(self.0.began.elapsed()), Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    FirstByte,
    Head,
    Busy,
    Idle,
}

/// What a client of HTTP/2 begins with (RFC 9113, section 3.4). The HTTP library decides by the same bytes.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// So many bytes of the preface have come, and nothing else.
    Undecided(usize),
    Http1,
    Http2,
}

impl Protocol {
    /// What is known once these bytes have come too.
    fn after(self, arrived: &[u8]) -> Self {
        let Self::Undecided(seen) = self else { return self };
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let compared = expected.len().min(arrived.len());
        match arrived[..compared] == expected[..compared] {
            false => Self::Http1,
            true if compared == expected.len() => Self::Http2,
            true => Self::Undecided(seen + compared),
        }
    }
}

/// A stream with the deadlines of its stages.
#[derive(Debug)]
pub struct Staged<S> {
    stream: S,
    activity: Arc<Activity>,
    limits: StageLimits,
    stage: Stage,
    protocol: Protocol,
    /// The client of HTTP/2 was told that the connection ends.
    is_leaving: bool,
    /// What is written in place of what the HTTP library gave, and how much of it went out.
    instead: Option<(Vec<u8>, usize)>,
    /// Requests that had begun when this last looked.
    begun: u64,
    /// Of the stage; none as long as nothing has been waited for in it.
    deadline: Option<Instant>,
    write_deadline: Option<Instant>,
    /// Fires at least as often as the shortest stage lasts; whoever is polled then looks at the deadlines.
    /// Moving it for every request would cost more than looking now and then.
    timer: Pin<Box<Sleep>>,
    /// The timer knows whom to wake: the stream stays with one task, so that once is enough.
    is_armed: bool,
}

impl<S> Staged<S> {
    /// The stream `stream`, whose requests are noted in `activity`.
    pub fn new(stream: S, activity: Arc<Activity>, limits: StageLimits) -> Self {
        let deadline = Instant::now() + limits.head;
        let timer = Box::pin(tokio::time::sleep_until(deadline));
        Self {
            stream,
            activity,
            limits,
            stage: Stage::FirstByte,
            protocol: Protocol::Undecided(0),
            is_leaving: false,
            instead: None,
            begun: 0,
            deadline: Some(deadline),
            write_deadline: None,
            timer,
            is_armed: false,
        }
    }

    fn tick(&self) -> Duration {
        self.limits.head.min(self.limits.idle).min(self.limits.write)
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.deadline = None;
    }

    /// Until when the stage may last. Counted from when it is first waited for: what is there already needs no clock.
    fn stage_deadline(&mut self) -> Option<Instant> {
        let longest = match self.stage {
            Stage::FirstByte | Stage::Head => self.limits.head,
            // It has been told to go, and its answer to that takes no longer than a head.
            Stage::Idle if self.is_leaving => self.limits.head,
            Stage::Idle => self.limits.idle,
            Stage::Busy => return None,
        };
        Some(*self.deadline.get_or_insert_with(|| Instant::now() + longest))
    }

    /// Whether `deadline` has passed; if not, the task is woken to ask again.
    fn is_late(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        if self.is_armed && !self.timer.is_elapsed() {
            return false;
        }
        loop {
            self.is_armed = self.timer.as_mut().poll(cx).is_pending();
            if self.is_armed {
                return false;
            }
            let now = Instant::now();
            if now >= deadline {
                return true;
            }
            let next = deadline.min(now + self.tick());
            self.timer.as_mut().reset(next);
        }
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Staged<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let begun = this.activity.begun.load(Ordering::Relaxed);
        let had_request = std::mem::replace(&mut this.begun, begun) != begun;
        let next = match (this.activity.is_busy(), this.stage) {
            (true, _) => Stage::Busy,
            (false, Stage::Busy) => Stage::Idle,
            (false, _) if had_request => Stage::Idle,
            (false, stage) => stage,
        };
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let arrived = buf.filled().get(before..).unwrap_or_default();
        if !arrived.is_empty() {
            this.protocol = this.protocol.after(arrived);
        }
        let next = match (this.protocol, next) {
            (Protocol::Http2, Stage::FirstByte | Stage::Head) => Stage::Idle,
            (Protocol::Http2, next) => next,
            (_, Stage::FirstByte | Stage::Idle) if !arrived.is_empty() => Stage::Head,
            (_, next) => next,
        };
        // A head that begins where another request has just ended has a time of its own.
        if next != this.stage || (had_request && next != Stage::Busy) {
            this.enter(next);
        }
        match read {
            Poll::Pending => this.wait(cx),
            read => read,
        }
    }
}

impl<S> Staged<S> {
    /// Waits for bytes, as long as the stage may last.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_leaving && self.protocol == Protocol::Http2 && self.activity.ending().is_some() {
            // Whether it has heard is asked by a PING, which some do not answer.
            self.is_leaving = true;
            self.deadline = None;
        }
        while let Some(deadline) = self.stage_deadline() {
            if !self.is_late(deadline, cx) {
                return Poll::Pending;
            }
            if self.protocol != Protocol::Http2 || self.is_leaving {
                return Poll::Ready(Err(late("nothing came in time")));
            }
            self.is_leaving = true;
            self.enter(Stage::Idle);
            self.activity.end(Ending::Finishing);
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> Staged<S> {
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        let deadline = *self.write_deadline.get_or_insert_with(|| Instant::now() + self.limits.write);
        if self.is_late(deadline, cx) {
            Poll::Ready(Err(late("the answer was not read in time")))
        } else {
            Poll::Pending
        }
    }
}

impl<S: AsyncWrite + Unpin> Staged<S> {
    /// Writes on what stands in place of the library's own answer.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((answer, written)) = &mut self.instead {
            let left = answer.get(*written..).unwrap_or_default();
            if left.is_empty() {
                self.instead = None;
                break;
            }
            let poll = Pin::new(&mut self.stream).poll_write(cx, left);
            match ready!(poll) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(more) => *written += more,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Staged<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.protocol != Protocol::Http2
            && let Some(answer) = framing::in_our_shape(buf)
        {
            // Written with the next flush, which follows whatever the library writes.
            this.instead = Some((answer, 0));
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = match this.poll_instead(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.stream).poll_flush(cx),
            unwritten => unwritten,
        };
        this.watch_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let shut = match this.poll_instead(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.stream).poll_shutdown(cx),
            unwritten => unwritten,
        };
        this.watch_write(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_protocols_apart_by_their_first_bytes() {
        let after = |pieces: &[&[u8]]| pieces.iter().fold(Protocol::Undecided(0), |known, piece| known.after(piece));
        assert_eq!(after(&[PREFACE, b"frames"]), Protocol::Http2);
        assert_eq!(after(&[b"PRI", &PREFACE[3..], b"frames"]), Protocol::Http2);
        assert_eq!(after(&[b"PRI"]), Protocol::Undecided(3));
        assert_eq!(after(&[b"PRINT /x HTTP/1.1\r\n"]), Protocol::Http1);
        assert_eq!(after(&[b"POST / HTTP/1.1\r\n", PREFACE]), Protocol::Http1);
    }

    #[test]
    fn end_at_once_is_not_softened() {
        let activity = Activity::new(Instant::now());
        activity.end(Ending::Evicted);
        activity.end(Ending::Finishing);
        assert_eq!(activity.ending(), Some(Ending::Evicted));
    }
}
