//! Threads that serve connections, one for each processor, each with a runtime of its own.
//!
//! A connection stays with the thread that got it: what a request touches is in that processor's caches, and nothing
//! has to be handed over. Everything else of the server runs on the runtime that all share.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use linkspan_store::Store;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the end waits for the threads: one that hangs on the disk must not keep the process.
const END: Duration = Duration::from_secs(3);

/// The threads; they end when this is dropped.
pub(crate) struct ServingThreads {
    runtimes: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    ended: CancellationToken,
}

/// What a thread needs.
struct Thread {
    store: Store,
    tasks: TaskTracker,
    /// Ends its commits.
    stop: CancellationToken,
    /// Ends the thread.
    ended: CancellationToken,
}

impl ServingThreads {
    /// Starts the threads. Until `stop` they also commit what their connections bring, as a task among `tasks`.
    pub(crate) fn start(store: &Store, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Self> {
        const FAILED: &str = "a thread that serves connections could not be started";
        let mut started = Self { runtimes: Vec::new(), threads: Vec::new(), ended: CancellationToken::new() };
        for number in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (ready, runtime) = mpsc::channel();
            let thread =
                Thread { store: store.clone(), tasks: tasks.clone(), stop: stop.clone(), ended: started.ended.clone() };
            let named = std::thread::Builder::new().name(format!("serving-{number}"));
            started.threads.push(named.spawn(move || thread.run(&ready)).context(FAILED)?);
            started.runtimes.push(runtime.recv().context(FAILED)?.context(FAILED)?);
        }
        Ok(started)
    }

    /// Where connections can be served.
    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        self.runtimes.clone()
    }
}

impl Thread {
    fn run(self, ready: &mpsc::Sender<std::io::Result<Handle>>) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return ready.send(Err(error)).unwrap_or_default(),
        };
        runtime.block_on(async {
            let Self { store, tasks, stop, ended } = self;
            let commits = tasks.spawn(async move {
                stop.run_until_cancelled(store.commit_here()).await;
            });
            ready.send(Ok(Handle::current())).unwrap_or_default();
            ended.cancelled().await;
            // Before the runtime ends: the store must not count on this thread any more.
            commits.abort();
            drop(commits.await);
        });
        runtime.shutdown_timeout(Duration::from_secs(2));
    }
}

impl Drop for ServingThreads {
    fn drop(&mut self) {
        self.ended.cancel();
        let until = Instant::now() + END;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                tracing::warn!("a thread that serves connections did not end in time");
            } else if thread.join().is_err() {
                tracing::error!("a thread that serves connections ended in a panic");
            }
        }
    }
}
