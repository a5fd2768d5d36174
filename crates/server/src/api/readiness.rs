//! Whether events can be stored now, for probes that ask often.
//!
//! Guarantees that asking costs the store no write while commits go on by themselves, and at most one write at a time
//! and in some seconds where they do not.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use linkspan_store::Store;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long an answer is taken for the present.
const FRESH: Duration = Duration::from_secs(5);
/// How long somebody's commit proves that there can be another: more than the usual time between two probes.
const PROVES: Duration = Duration::from_secs(15);
/// How long a failure is taken for the present.
const FAILURE: Duration = Duration::from_secs(1);
/// Longest wait for a commit.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of the store.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Known>);

type Write = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

#[derive(Default)]
struct Known {
    /// Commits by then, when it was, and what was found.
    last: Option<(u64, Instant, Result<(), String>)>,
    /// A write that was not waited for to its end: as long as it hangs, there is no other.
    under_way: Option<Write>,
}

impl Readiness {
    /// Whether something can be stored.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn ask(&self, store: &Store) -> Result<(), String> {
        // Who waits here for somebody else's answer takes it.
        let mut known = self.0.lock().await;
        let (commits, now) = (store.commit_counts().0, Instant::now());
        match &known.last {
            Some((_, at, Err(why))) if now.duration_since(*at) < FAILURE => return Err(why.clone()),
            Some((_, at, Ok(()))) if now.duration_since(*at) < FRESH => return Ok(()),
            // Of those since the last look none is older than that.
            Some((before, at, _)) if commits > *before && now.duration_since(*at) < PROVES => {
                known.last = Some((commits, now, Ok(())));
                return Ok(());
            }
            _ => {}
        }
        let outcome = known.try_commit(store).await;
        known.last = Some((store.commit_counts().0, Instant::now(), outcome.clone()));
        outcome
    }
}

impl Known {
    async fn try_commit(&mut self, store: &Store) -> Result<(), String> {
        let store = store.clone();
        let write = async move { store.heartbeat().await.map_err(|error| format!("nothing can be stored: {error}")) };
        let under_way = self.under_way.get_or_insert_with(|| Box::pin(write));
        let outcome = timeout(PATIENCE, under_way.as_mut()).await;
        if outcome.is_ok() {
            self.under_way = None;
        }
        outcome.unwrap_or_else(|_| Err("the store does not commit in time".to_owned()))
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("last", &self.last).finish_non_exhaustive()
    }
}
