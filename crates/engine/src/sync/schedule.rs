//! The schedule of syncs: when which one runs.
//!
//! Guarantees: one run of a sync at a time, up to four syncs beside each other; runs that were missed, or cut short
//! by a restart, are made up for by one; a request is answered by a run that began after it, also when the schedule
//! is switched off. Shutdown begins no run and waits for those under way, which end after their batch.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use linkspan_model::Timestamp;
use linkspan_store::{Result, SyncState, SyncView};
use metrics::counter;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SyncRunner;

/// Syncs that run beside each other: more would only share one disk.
const PARALLEL: usize = 4;
/// Longest wait before looking again.
const POLL: Duration = Duration::from_secs(1);
/// After a failure a sync is tried again this soon, when its schedule is slower.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Runs syncs until `stop`.
pub async fn run(runner: SyncRunner, stop: CancellationToken) {
    let tracker = TaskTracker::new();
    let running = Running::default();
    let mut requests = runner.store.sync_requests();
    while !stop.is_cancelled() {
        if let Err(error) = start_due(&runner, &running, &tracker, &stop).await {
            tracing::error!(%error, "syncs could not be looked at; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = requests.wait(POLL) => {}
            () = running.0.ended.notified() => {}
        }
    }
    tracker.close();
    tracker.wait().await;
}

/// The rows of the syncs that run.
#[derive(Debug, Clone, Default)]
struct Running(Arc<RunningRows>);

#[derive(Debug, Default)]
struct RunningRows {
    rows: Mutex<HashSet<i64>>,
    ended: Notify,
}

/// Marks a sync as running while it lives.
struct Turn {
    running: Running,
    row: i64,
}

impl Running {
    fn rows(&self) -> std::sync::MutexGuard<'_, HashSet<i64>> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn, unless the sync runs already or enough others do.
    fn begin(&self, row: i64) -> Option<Turn> {
        let mut rows = self.rows();
        (rows.len() < PARALLEL && rows.insert(row)).then(|| Turn { running: self.clone(), row })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.rows().remove(&self.row);
        self.running.0.ended.notify_one();
    }
}

async fn start_due(
    runner: &SyncRunner,
    running: &Running,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Result<()> {
    let syncs: Vec<Arc<SyncView>> = runner.store.snapshot().syncs().cloned().collect();
    if syncs.is_empty() {
        return Ok(());
    }
    let states = runner.store.sync_states().await?;
    for sync in in_turn(syncs, &states, runner.clock.now()) {
        if let Some(turn) = running.begin(sync.row) {
            tracker.spawn(run_one(runner.clone(), sync, stop.clone(), turn));
        }
    }
    Ok(())
}

/// The syncs that are due, the one that has waited longest first.
fn in_turn(syncs: Vec<Arc<SyncView>>, states: &HashMap<i64, SyncState>, now: Timestamp) -> Vec<Arc<SyncView>> {
    let never = SyncState::default();
    let mut due: Vec<(Timestamp, Arc<SyncView>)> = syncs
        .into_iter()
        .filter_map(|sync| Some((due_since(&sync, states.get(&sync.row).unwrap_or(&never), now)?, sync)))
        .collect();
    due.sort_by_key(|(since, sync)| (*since, sync.row));
    due.into_iter().map(|(_, sync)| sync).collect()
}

/// Since when a sync is due; `None` while it is not.
fn due_since(sync: &SyncView, state: &SyncState, now: Timestamp) -> Option<Timestamp> {
    if state.is_requested {
        return Some(state.started_at.unwrap_or(sync.created_at));
    }
    let every = sync.spec.every.filter(|_| sync.spec.is_enabled())?.get();
    let Some(started_at) = state.started_at else { return Some(sync.created_at) };
    let was_cut_short = state.finished_at.is_none_or(|finished_at| finished_at < started_at);
    let failed = state.failed_at.is_some() && state.failed_at == state.finished_at;
    let pause = match () {
        () if was_cut_short => Duration::ZERO,
        () if failed => every.min(AGAIN_AFTER_FAILURE),
        () => every,
    };
    let due = started_at.after(pause);
    // A start in the future: the clock was set back.
    if due <= now || started_at > now { Some(due.min(now)) } else { None }
}

/// Shortest time from a failed run to the next one.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

async fn run_one(runner: SyncRunner, sync: Arc<SyncView>, stop: CancellationToken, turn: Turn) {
    match runner.run(&sync, &stop).await {
        Ok(outcome) => {
            if outcome.refilled > 0 {
                tracing::info!(sync = %sync.name, batches = outcome.refilled, "filled a table from the bucket");
            }
            if let Some(note) = outcome.note {
                tracing::warn!(sync = %sync.name, note, "a table was not as it was left");
            }
            if outcome.aside > 0 {
                tracing::error!(sync = %sync.name, batches = outcome.aside, "batches were set aside");
            }
            if outcome.left_out > 0 {
                tracing::warn!(sync = %sync.name, values = outcome.left_out, "values of keys without a column");
            }
        }
        Err(error) => {
            counter!("linkspan_sync_failures_total").increment(1);
            tracing::warn!(sync = %sync.name, %error, "a sync failed");
            // When not even the failure could be noted, the sync is due again at once.
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(AFTER_FAILURE) => {}
            }
        }
    }
    drop(turn);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn sync(every: &str, enabled: bool) -> SyncView {
        let spec = serde_json::from_value(json!({
            "from": {"endpoint": "in"}, "to": {"destination": "d", "schema": "s", "table": "t"},
            "every": every, "enabled": enabled,
        }));
        SyncView {
            row: 1,
            id: "sync_1".to_owned(),
            name: "s".parse().unwrap(),
            created_at: at(100),
            spec: spec.unwrap(),
        }
    }

    fn ran(started_at: i64, finished_at: i64) -> SyncState {
        SyncState {
            started_at: Some(at(started_at)),
            finished_at: Some(at(finished_at)),
            succeeded_at: Some(at(finished_at)),
            ..SyncState::default()
        }
    }

    #[test]
    fn is_due_when_its_time_has_come() {
        let hourly = sync("1h", true);
        let failed = |state: SyncState| SyncState { failed_at: state.finished_at, succeeded_at: None, ..state };
        let requested = |state: SyncState| SyncState { is_requested: true, ..state };
        for (case, sync, state, now, expected) in [
            ("never ran", &hourly, SyncState::default(), 101, Some(100)),
            ("just before", &hourly, ran(1_000, 1_001), 4_599, None),
            ("just then", &hourly, ran(1_000, 1_001), 4_600, Some(4_600)),
            ("missed many", &hourly, ran(1_000, 1_001), 100_000, Some(4_600)),
            ("took longer than an hour", &hourly, ran(1_000, 9_000), 9_001, Some(4_600)),
            ("cut short", &hourly, ran(1_000, 900), 1_001, Some(1_000)),
            ("failed", &hourly, failed(ran(1_000, 1_001)), 1_060, Some(1_060)),
            ("failed just now", &hourly, failed(ran(1_000, 1_001)), 1_059, None),
            ("failed, and is quick anyway", &sync("2s", true), failed(ran(1_000, 1_001)), 1_002, Some(1_002)),
            ("the clock was set back", &hourly, ran(9_000, 9_001), 2_000, Some(2_000)),
            ("switched off", &sync("1h", false), ran(1_000, 1_001), 100_000, None),
            ("asked for", &sync("1h", false), requested(ran(1_000, 1_001)), 1_002, Some(1_000)),
        ] {
            assert_eq!(due_since(sync, &state, at(now)), expected.map(at), "{case}");
        }
        let on_demand =
            SyncView { spec: linkspan_model::sync::SyncSpec { every: None, ..hourly.spec.clone() }, ..hourly };
        assert_eq!(due_since(&on_demand, &SyncState::default(), at(101)), None);
    }

    #[test]
    fn gives_a_turn_to_each_sync_once_and_to_four_at_a_time() {
        let running = Running::default();
        let first = running.begin(1).unwrap();
        assert!(running.begin(1).is_none());
        let others: Vec<_> = (2..5).map(|row| running.begin(row).unwrap()).collect();
        assert!(running.begin(5).is_none());
        drop(first);
        let fifth = running.begin(5);
        assert!(fifth.is_some() && running.begin(1).is_none());
        drop(others);
        assert!(running.begin(1).is_some());
    }
}
