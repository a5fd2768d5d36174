//! Workers: take due jobs under a lease and run them.
//!
//! Guarantees: at most `CONCURRENCY` jobs run at a time, and no recipe takes all of these places; leases are renewed
//! while a job runs, and a job whose worker went away is taken again after its lease; shutdown takes no new job and
//! waits for those under way, and what it cannot wait for goes on after the restart, marked as resumed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use linkspan_model::{JobId, limits};
use linkspan_store::{Claimed, Lease, Shares, Store};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Engine, run};

/// Jobs that run at a time; of one recipe half of them.
pub(crate) const CONCURRENCY: usize = 128;
/// Jobs that are taken at a time.
const CLAIM: usize = 32;
/// Longest wait before looking for due jobs again.
const POLL: Duration = Duration::from_secs(1);

/// The leases of the jobs under way.
#[derive(Debug, Clone, Default)]
struct Leases(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    /// Each with the row of its recipe.
    by_job: Mutex<HashMap<JobId, (Lease, i64)>>,
    ended: Notify,
}

impl Leases {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, (Lease, i64)>> {
        self.0.by_job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, job: &Claimed) -> Holding {
        self.lock().insert(job.lease.job, (job.lease, job.recipe));
        Holding { leases: self.clone(), job: job.lease.job }
    }

    fn all(&self) -> Vec<Lease> {
        self.lock().values().map(|(lease, _)| *lease).collect()
    }

    /// How many places each recipe has.
    fn by_recipe(&self) -> HashMap<i64, u32> {
        let mut counts = HashMap::new();
        self.lock().values().for_each(|(_, recipe)| *counts.entry(*recipe).or_default() += 1);
        counts
    }
}

/// A lease that is renewed until this is dropped.
struct Holding {
    leases: Leases,
    job: JobId,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.job);
        self.leases.0.ended.notify_one();
    }
}

/// Takes and runs jobs until `stop`; then waits for those under way at most `drain` long.
pub async fn run(engine: Engine, stop: CancellationToken, drain: Duration) {
    let leases = Leases::default();
    let jobs = TaskTracker::new();
    let renewals = TaskTracker::new();
    let ended = CancellationToken::new();
    renewals.spawn(renew(engine.store.clone(), leases.clone(), ended.clone()));
    take(&engine, &leases, &jobs, &stop).await;
    jobs.close();
    if tokio::time::timeout(drain, jobs.wait()).await.is_err() {
        tracing::warn!(jobs = jobs.len(), "jobs are under way after the time to drain; they go on after the restart");
    }
    ended.cancel();
    renewals.close();
    renewals.wait().await;
}

async fn take(engine: &Engine, leases: &Leases, jobs: &TaskTracker, stop: &CancellationToken) {
    let places = Arc::new(Semaphore::new(CONCURRENCY));
    let mut arrivals = engine.store.job_arrivals();
    let mut shares = Shares::default();
    while !stop.is_cancelled() {
        let free = tokio::select! {
            () = stop.cancelled() => return,
            free = Arc::clone(&places).acquire_owned() => free,
        };
        drop(free);
        let free = places.available_permits();
        (shares.most, shares.free) = (narrow(free.clamp(1, CLAIM)), narrow(free));
        shares.taken = leases.by_recipe();
        let claimed = match engine.store.claim(&mut shares).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(%error, "jobs could not be taken; trying again");
                tokio::time::sleep(POLL).await;
                continue;
            }
        };
        if stop.is_cancelled() {
            give_back(engine, claimed).await;
            return;
        }
        for job in claimed {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (engine, held) = (engine.clone(), leases.hold(&job));
            jobs.spawn(async move {
                run_one(&engine, job).await;
                drop((held, place));
            });
        }
        if !shares.are_more {
            tokio::select! {
                () = stop.cancelled() => return,
                // A recipe that has its share goes on when one of its jobs has ended.
                () = leases.0.ended.notified(), if shares.is_short => {}
                () = arrivals.wait(until_next(engine, &shares)) => {}
            }
        }
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Jobs that were taken as the server was asked to stop are not begun.
async fn give_back(engine: &Engine, claimed: Vec<Claimed>) {
    for job in claimed {
        if let Err(error) = engine.store.release(job.lease).await {
            tracing::warn!(job = %job.lease.job, %error, "a job could not be given back; it goes on after the restart");
        }
    }
}

/// How long to wait for new jobs, or for the time of one that waits.
fn until_next(engine: &Engine, shares: &Shares) -> Duration {
    let next = shares.next_at.filter(|_| !shares.is_short);
    next.map_or(POLL, |at| at.since(engine.clock.now()).clamp(Duration::from_millis(5), POLL))
}

async fn run_one(engine: &Engine, job: Claimed) {
    let id = job.lease.job;
    match run::run_job(engine, job).await {
        Ok(()) => {}
        Err(linkspan_store::StoreError::Fenced) => {
            tracing::warn!(job = %id, "the lease on a job was lost; another worker has it, or it was canceled");
        }
        // The lease runs out, and the job is taken again.
        Err(error) => tracing::error!(job = %id, %error, "a job could not be recorded"),
    }
}

/// Renews every lease three times in its life.
async fn renew(store: Store, leases: Leases, ended: CancellationToken) {
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(limits::LEASE / 3) => {}
        }
        match store.renew(leases.all()).await {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => tracing::warn!(jobs = lost.len(), "leases were lost"),
            Err(error) => tracing::error!(%error, "leases could not be renewed"),
        }
        if let Err(error) = store.reclaim_expired(&leases.all()).await {
            tracing::error!(%error, "expired leases could not be given back");
        }
    }
}
