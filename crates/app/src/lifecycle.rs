//! Signals, draining, and the tasks that a shutdown must not forget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linkspan_store::Store;
use tokio::signal::unix::{SignalKind, signal};
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

/// Waits until the server should stop. After SIGHUP secrets outside the database are read again.
pub(crate) async fn wait(store: &Store) -> std::io::Result<Stop> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(Stop::Asked),
            _ = interrupt.recv() => return Ok(Stop::Asked),
            () = store.stopped() => return Ok(Stop::Poisoned),
            _ = hangup.recv() => match store.reload().await {
                Ok(()) => tracing::info!("configuration and secrets were read again"),
                Err(error) => tracing::error!(%error, "configuration and secrets could not be read again"),
            },
        }
    }
}

/// Lets what is under way finish: not ready first, then no new connections, then an end. A second signal ends
/// at once.
pub(crate) async fn drain(
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
        () = again() => tracing::warn!("asked again; stopping at once"),
    }
}

async fn again() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
