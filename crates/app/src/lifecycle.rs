//! Signals, draining, and the tasks that a shutdown must not forget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linkspan_server::accept::{self, Handler, Listener};
use linkspan_store::Store;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certificate::Certificate;

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

    /// Waits until the server should stop. After SIGHUP secrets outside the database are read again, and the
    /// certificate of the public listener.
    pub(crate) async fn wait(&mut self, store: &Store, certificate: Option<&Certificate>) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Asked,
                _ = self.interrupt.recv() => return Stop::Asked,
                () = store.stopped() => return Stop::Poisoned,
                _ = self.hangup.recv() => {
                    match store.reload().await {
                        Ok(()) => tracing::info!("configuration and secrets were read again"),
                        Err(error) => tracing::error!(%error, "configuration and secrets could not be read again"),
                    }
                    if let Some(certificate) = certificate {
                        certificate.read_again().await;
                    }
                }
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

/// From here on a write beyond the limit of the size of files (`ulimit -f`) fails, as one on a full disk does, in place
/// of ending the process by SIGXFSZ.
pub(crate) fn survive_file_limit() -> std::io::Result<Signal> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))
}

/// What is under way in a server.
pub(crate) struct Running {
    /// What works of itself: dispatch, jobs, syncs, upkeep.
    pub(crate) work: TaskTracker,
    /// Asks it to stop.
    pub(crate) stop_work: CancellationToken,
    /// The listeners and their connections.
    pub(crate) serving: TaskTracker,
    /// Asks them to stop.
    pub(crate) stop_serving: CancellationToken,
}

impl Running {
    pub(crate) fn new() -> Self {
        Self {
            work: TaskTracker::new(),
            stop_work: CancellationToken::new(),
            serving: TaskTracker::new(),
            stop_serving: CancellationToken::new(),
        }
    }

    /// Answers the connections of a listener.
    pub(crate) fn serve<H: Handler>(&self, listener: Listener, handler: H) {
        self.serving.spawn(accept::serve(listener, handler, self.serving.clone(), self.stop_serving.clone()));
    }

    /// Lets what is under way finish: not ready first, then no new jobs, then no new connections, then an end. Jobs
    /// come before the listeners because their steps may call endpoints of this server. A second signal ends at once.
    pub(crate) async fn drain(
        self,
        signals: &mut Signals,
        draining: &Arc<AtomicBool>,
        delay: Duration,
        longest: Duration,
    ) {
        draining.store(true, Ordering::Relaxed);
        let finish = async {
            tokio::time::sleep(delay).await;
            let end = Instant::now() + longest;
            self.stop_work.cancel();
            self.work.close();
            // Its own limit is a part of the same time.
            drop(tokio::time::timeout_at(end, self.work.wait()).await);
            self.stop_serving.cancel();
            self.serving.close();
            if tokio::time::timeout_at(end, self.serving.wait()).await.is_err() {
                tracing::warn!(tasks = self.serving.len() + self.work.len(), "not everything finished in time");
            }
        };
        tokio::select! {
            () = finish => {}
            () = signals.again() => tracing::warn!("asked again; stopping at once"),
        }
    }
}

/// How much of the time to drain jobs have; the rest is for the connections.
pub(crate) fn for_jobs(longest: Duration) -> Duration {
    longest.mul_f64(0.75)
}
