//! Threads that serve connections, one for each processor, each with a runtime of its own.
//!
//! A connection stays with the thread that got it: what a request touches is in that processor's caches, and nothing
//! has to be handed over. Everything else of the server runs on the runtime that all share.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use linkspan_store::Store;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The threads; they end when this is dropped.
pub(crate) struct ServingThreads {
    runtimes: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    ended: CancellationToken,
}

impl ServingThreads {
    /// Starts the threads. Until `stop` they also commit what their connections bring, as a task among `tasks`.
    pub(crate) fn start(store: &Store, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Self> {
        let ended = CancellationToken::new();
        let (mut runtimes, mut threads) = (Vec::new(), Vec::new());
        for number in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let (store, stop) = (store.clone(), stop.clone());
            let commit = async move {
                stop.run_until_cancelled(store.commit_here()).await;
            };
            tasks.spawn_on(commit, runtime.handle());
            let until = ended.clone();
            let thread = std::thread::Builder::new().name(format!("serving-{number}")).spawn(move || {
                runtime.block_on(until.cancelled());
                runtime.shutdown_timeout(Duration::from_secs(2));
            });
            threads.push(thread.context("a thread that serves connections could not be started")?);
        }
        Ok(Self { runtimes, threads, ended })
    }

    /// Where connections can be served.
    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        self.runtimes.clone()
    }
}

impl Drop for ServingThreads {
    fn drop(&mut self) {
        self.ended.cancel();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that serves connections ended in a panic");
            }
        }
    }
}
