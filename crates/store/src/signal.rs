//! A signal that something is there to do, for any number of listeners. It only wakes: what must happen follows from
//! committed rows, so a lost signal costs the time until the next poll and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Wakes everybody who listens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    given: AtomicU64,
    notify: Notify,
}

impl Signal {
    /// Wakes every listener, also one that waits later.
    pub(crate) fn give(&self) {
        self.0.given.fetch_add(1, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// A listener that hears what is given from now on.
    pub(crate) fn listen(&self) -> Listener {
        Listener { seen: self.0.given.load(Ordering::SeqCst), signal: Arc::clone(&self.0) }
    }
}

/// Somebody who waits for a signal. Listen first, then look at what is there, then wait: what comes between the look
/// and the wait ends the wait at once.
#[derive(Debug)]
pub struct Listener {
    signal: Arc<Shared>,
    seen: u64,
}

impl Listener {
    /// Waits for a signal since the last wait, at most `poll` long.
    pub async fn wait(&mut self, poll: Duration) {
        let notified = self.signal.notify.notified();
        tokio::pin!(notified);
        // From here on a signal is not missed; one given before shows in the count.
        notified.as_mut().enable();
        if self.signal.given.load(Ordering::SeqCst) == self.seen {
            // Both ways out mean the same: look again.
            drop(tokio::time::timeout(poll, notified).await);
        }
        self.seen = self.signal.given.load(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_every_listener_also_one_that_waits_later() {
        let signal = Signal::default();
        let (mut early, mut late) = (signal.listen(), signal.listen());
        let both = async {
            tokio::join!(early.wait(Duration::from_secs(3_600)), async { signal.give() });
            late.wait(Duration::from_secs(3_600)).await;
        };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        // One signal ends one wait.
        let again = tokio::time::timeout(Duration::from_millis(50), late.wait(Duration::from_secs(3_600))).await;
        assert!(again.is_err());
    }
}
