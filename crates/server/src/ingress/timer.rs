//! A timer that is kept from request to request.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// The timer of a connection, while none of its requests has it. Setting a running timer to a later time costs next
/// to nothing; making one and taking it back costs as much as reading a request's head.
#[derive(Debug, Default)]
pub(super) struct SpareTimer(Mutex<Option<Pin<Box<Sleep>>>>);

impl SpareTimer {
    /// A timer that ends after `time`: the spare one, or one of its own where another request has that.
    pub(super) fn take(&self, time: Duration) -> Pin<Box<Sleep>> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match spare {
            Some(mut timer) => {
                timer.as_mut().reset(Instant::now() + time);
                timer
            }
            None => Box::pin(sleep(time)),
        }
    }

    /// Keeps a timer for the next request.
    pub(super) fn keep(&self, timer: Pin<Box<Sleep>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(timer);
    }
}

impl Clone for SpareTimer {
    /// Another connection begins without one.
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn gives_the_same_timer_again_with_its_whole_time() {
        let spare = SpareTimer::default();
        let began = Instant::now();
        let mut timer = spare.take(TIME);
        let first = std::ptr::from_ref(&*timer).addr();
        assert!(tokio::time::timeout(Duration::from_secs(1), timer.as_mut()).await.is_err());
        spare.keep(timer);
        let again = spare.take(TIME);
        assert_eq!(std::ptr::from_ref(&*again).addr(), first);
        again.await;
        assert_eq!(began.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn makes_another_while_the_spare_one_is_away() {
        let spare = SpareTimer::default();
        let (one, other) = (spare.take(TIME), spare.take(2 * TIME));
        spare.keep(one);
        assert!(spare.clone().0.lock().unwrap().is_none(), "another connection has none yet");
        let began = Instant::now();
        other.await;
        assert_eq!(began.elapsed(), 2 * TIME);
    }
}
