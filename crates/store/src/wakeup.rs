//! A signal that something is there to do. It only wakes: what must happen follows from committed rows,
//! so a lost signal costs the time until the next poll and nothing else.

use std::time::Duration;

use tokio::sync::Notify;

/// Wakes one waiter, or the next one to wait.
#[derive(Debug, Default)]
pub struct Wakeup(Notify);

impl Wakeup {
    /// Wakes the waiter.
    pub fn notify(&self) {
        self.0.notify_one();
    }

    /// Waits for a signal, at most `poll` long.
    pub async fn wait(&self, poll: Duration) {
        // Both ways out mean the same: look again.
        drop(tokio::time::timeout(poll, self.0.notified()).await);
    }
}
