//! Signals, draining, and the tasks that a shutdown must not forget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linkspan_store::Store;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How the server came to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It was asked to.
    Asked,
    /// A write to the disk failed: it must start again from the log.
    Poisoned,
}

/// The signals that a server listens to, from the moment they are made.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens: from here on a signal no longer ends the process by itself.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until the server should stop. After SIGHUP secrets outside the database are read again.
    pub(crate) async fn wait(&mut self, store: &Store) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Asked,
                _ = self.interrupt.recv() => return Stop::Asked,
                () = store.stopped() => return Stop::Poisoned,
                _ = self.hangup.recv() => match store.reload().await {
                    Ok(()) => tracing::info!("configuration and secrets were read again"),
                    Err(error) => tracing::error!(%error, "configuration and secrets could not be read again"),
                },
            }
        }
    }

    /// Waits for one more request to stop.
    async fn again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lets what is under way finish: not ready first, then no new connections, then an end. A second signal ends
/// at once.
pub(crate) async fn drain(
    signals: &mut Signals,
    draining: &Arc<AtomicBool>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
    delay: Duration,
    longest: Duration,
) {
    draining.store(true, Ordering::Relaxed);
    let finish = async {
        tokio::time::sleep(delay).await;
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(longest, tasks.wait()).await.is_err() {
            tracing::warn!(tasks = tasks.len(), "not everything finished in time");
        }
    };
    tokio::select! {
        () = finish => {}
        () = signals.again() => tracing::warn!("asked again; stopping at once"),
    }
}
