//! Reading a body that may be too large, too slow, or never end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use linkspan_model::limits;
use tokio::time::Instant;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Longer than allowed; what was read is the beginning.
    TooLarge(Bytes),
    /// Slower than allowed.
    TooSlow(Bytes),
    /// The connection broke, or the framing is wrong.
    Broken(Bytes),
    /// Too many bytes are in flight in all requests together.
    Busy,
}

/// How long a body may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyTimes {
    pub(super) total: Duration,
    pub(super) grace: Duration,
}

impl BodyTimes {
    /// When the next piece must have come, `read` bytes after `began`.
    fn deadline(self, began: Instant, read: usize) -> Instant {
        let earned = Duration::from_millis((read as u64).saturating_mul(1_000) / limits::BODY_RATE_BYTES);
        began + self.total.min(self.grace.saturating_add(earned))
    }
}

/// Bytes of bodies in flight, over all requests.
#[derive(Debug, Default)]
pub(crate) struct Budget(AtomicUsize);

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn share(&self) -> Share<'_> {
        Share { budget: self, bytes: 0 }
    }
}

impl Share<'_> {
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.budget.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= limits::IN_FLIGHT_BYTES
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a whole body of at most `max` bytes. Nothing is cut: what is longer is refused.
pub(crate) async fn read_capped<B>(
    body: B,
    max: u64,
    times: BodyTimes,
    share: &mut Share<'_>,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut body = body;
    if body.size_hint().lower() > max {
        drain(&mut body).await;
        return Err(BodyError::TooLarge(Bytes::new()));
    }
    // From when on it is timed: what comes whole with the head needs no clock.
    let mut began = None;
    let mut read = Bytes::new();
    let mut more = BytesMut::new();
    loop {
        let so_far = read.len() + more.len();
        let is_late = |began| Instant::now() >= times.deadline(began, so_far);
        let next = match at_hand(&mut body).await {
            Poll::Ready(_) if began.is_some_and(is_late) => return Err(BodyError::TooSlow(whole(read, more))),
            Poll::Ready(next) => Ok(next),
            Poll::Pending => {
                let deadline = times.deadline(*began.get_or_insert_with(Instant::now), so_far);
                tokio::time::timeout_at(deadline, body.frame()).await
            }
        };
        let frame = match next {
            Err(_) => return Err(BodyError::TooSlow(whole(read, more))),
            Ok(None) => return Ok(whole(read, more)),
            Ok(Some(Err(_))) => return Err(BodyError::Broken(whole(read, more))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if !share.take(data.len()) {
            return Err(BodyError::Busy);
        }
        let size = so_far + data.len();
        // The common body comes in one piece and is not copied.
        if so_far == 0 {
            read = data;
        } else {
            more.extend_from_slice(&data);
        }
        if size as u64 > max {
            drain(&mut body).await;
            return Err(BodyError::TooLarge(whole(read, more)));
        }
        if body.is_end_stream() {
            return Ok(whole(read, more));
        }
        began.get_or_insert_with(Instant::now);
    }
}

/// The next frame, when it has come already. The HTTP library gives what it has read only after it was asked, so it is
/// asked twice.
async fn at_hand<B: Body + Unpin>(body: &mut B) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
    let mut has_asked = false;
    poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Pending if !std::mem::replace(&mut has_asked, true) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        next => Poll::Ready(next),
    })
    .await
}

fn whole(first: Bytes, more: BytesMut) -> Bytes {
    if more.is_empty() {
        return first;
    }
    let mut whole = BytesMut::with_capacity(first.len() + more.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&more);
    whole.freeze()
}

/// Most that is read and thrown away after a refusal: 16 MiB.
const DRAIN_BYTES: usize = 16 << 20;

/// Reads on for a moment, so that a caller that is still sending gets to read its answer instead of a reset.
async fn drain<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let reading = async {
        let mut drained = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len);
            if drained > DRAIN_BYTES {
                return;
            }
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(1), reading).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    const TIMES: BodyTimes = BodyTimes { total: Duration::from_secs(30), grace: Duration::from_secs(5) };

    fn budget() -> Budget {
        Budget::default()
    }

    fn pieces(pieces: Vec<&'static [u8]>) -> impl Body<Data = Bytes> + Unpin {
        let frames = pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(piece))));
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[tokio::test]
    async fn reads_pieces_up_to_the_limit_and_refuses_one_byte_more() {
        let budget = budget();
        let read = read_capped(pieces(vec![b"abc", b"de"]), 5, TIMES, &mut budget.share()).await;
        assert_eq!(read.unwrap(), "abcde");
        let read = read_capped(pieces(vec![b"abc", b"def"]), 5, TIMES, &mut budget.share()).await;
        assert_eq!(read.unwrap_err(), BodyError::TooLarge(Bytes::from_static(b"abcdef")));
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn refuses_a_drip() {
        let drip = StreamBody::new(futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x"))), ()))
        }));
        let began = Instant::now();
        let read = read_capped(Box::pin(drip), 1 << 20, TIMES, &mut budget().share()).await;
        assert!(matches!(read, Err(BodyError::TooSlow(_))));
        assert!(began.elapsed() < Duration::from_secs(7));
    }

    #[tokio::test]
    async fn refuses_when_too_much_is_in_flight() {
        let budget = budget();
        budget.0.store(limits::IN_FLIGHT_BYTES, Ordering::Relaxed);
        let read = read_capped(pieces(vec![b"abc"]), 5, TIMES, &mut budget.share()).await;
        assert_eq!(read.unwrap_err(), BodyError::Busy);
    }

    #[tokio::test(start_paused = true)]
    async fn asks_twice_before_it_waits() {
        // As the HTTP library does: what it has is given to who has asked before, and nobody is woken for it.
        let mut asked = 0;
        let given = StreamBody::new(futures_util::stream::poll_fn(move |_| {
            asked += 1;
            match asked {
                1 | 3 => Poll::Pending,
                2 => Poll::Ready(Some(Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"whole"))))),
                _ => Poll::Ready(None),
            }
        }));
        let began = Instant::now();
        assert_eq!(read_capped(given, 5, TIMES, &mut budget().share()).await.unwrap(), "whole");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
