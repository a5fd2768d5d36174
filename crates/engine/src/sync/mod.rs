//! One run of a sync: events into the bucket and into the table, a batch at a time.
//!
//! Guarantees: a table has exactly one row for each event or element, and the bucket each event in exactly one
//! object, wherever a run is cut short. A batch's bounds are stored first; from them follow the object's name and
//! content, and the rows; the destination moves its own position with the rows. So every stage can be done again, and
//! is, until the next one is noted. A destination that has less than it was given (a new file, another table, an old
//! copy) is filled from the bucket.

mod load;
mod pack;
pub mod schedule;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use linkspan_model::{Clock, Name, Timestamp};
use linkspan_store::{Batch, BatchState, DataFolder, Store, StoreError, StoredEvent, SyncView};
use metrics::counter;
use tokio_util::sync::CancellationToken;

use self::load::{Loading, Run};
use crate::bucket::{Bucket, BucketError, object_name};
use crate::destination::{DestinationError, Loaded, TableName};

/// Most events of a batch. The store gives fewer when their bodies are large: 8 MiB and one more body.
const BATCH_EVENTS: u32 = 5_000;
/// How far an idle sync lets the end of the log run ahead before it skips to it: a write for each step would cost
/// more than the events that it keeps from expiring.
const IDLE_STRETCH: u64 = 1_000;
/// How long a run that was asked for waits until dispatch has seen the events that came before it.
const DISPATCH_PATIENCE: Duration = Duration::from_secs(10);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A document that the sync refers to is gone.
    #[error("{0} does not exist")]
    Missing(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bucket refused.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The destination refused.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// Events of a batch that was begun are gone from the log.
    #[error("events after position {after} up to {last} are no longer in the log, and their batch was not archived")]
    Gone {
        /// The position before the batch.
        after: u64,
        /// The position after it.
        last: u64,
    },
    /// Blocking work ended early.
    #[error("the work ended early: {0}")]
    Ended(String),
    /// A test cut the run short here.
    #[cfg(test)]
    #[error("cut short")]
    Cut,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncOutcome {
    /// Batches loaded.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Rows made of them.
    pub rows: u64,
    /// Events whose body could not be unpacked and stands whole in `payload`.
    pub unparsed: u64,
    /// Values of keys for which the table has no room.
    pub left_out: u64,
    /// Batches that the destination had lost, or never had, and that came from the bucket.
    pub refilled: u64,
    /// Whether it was stopped before it had loaded everything.
    pub is_stopped: bool,
}

/// The stages of a batch, each of which may be the last before a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begun,
    Put,
    Packed,
    Loaded,
    Noted,
}

/// What runs syncs.
#[derive(Clone)]
pub struct SyncRunner {
    store: Store,
    bucket: Bucket,
    destinations: PathBuf,
    clock: Arc<dyn Clock>,
    batch_events: u32,
    #[cfg(test)]
    cut: Arc<std::sync::Mutex<Option<Stage>>>,
}

/// A sync with the documents that it refers to.
struct Course<'a> {
    sync: &'a SyncView,
    endpoint: i64,
    endpoint_name: &'a Name,
    began_at: Timestamp,
}

impl SyncRunner {
    /// Runs syncs of this store, with bucket and destinations in this data folder.
    #[must_use]
    pub fn new(store: Store, folder: &DataFolder, clock: Arc<dyn Clock>) -> Self {
        Self::below(store, folder.bucket(), folder.destinations(), clock)
    }

    fn below(store: Store, bucket: PathBuf, destinations: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            bucket: Bucket::own(bucket),
            destinations,
            clock,
            batch_events: BATCH_EVENTS,
            #[cfg(test)]
            cut: Arc::default(),
        }
    }

    /// Loads every event that dispatch has seen when the run begins, and notes how the run went. A run that `stop`
    /// ends early is noted neither as a success nor as a failure.
    ///
    /// # Errors
    /// What stood in the way; it is noted as the state of the sync too.
    pub async fn run(&self, sync: &SyncView, stop: &CancellationToken) -> Result<SyncOutcome, SyncError> {
        let (before, _) = self.store.sync_state(sync.row).await?;
        let goal = self.store.last_seq();
        self.store.sync_started(sync.row).await?;
        let outcome = async {
            if before.is_requested {
                self.wait_for_dispatch(goal, stop).await?;
            }
            self.drain(sync, stop).await
        }
        .await;
        match &outcome {
            Ok(outcome) if outcome.is_stopped => {}
            Ok(_) => self.store.sync_finished(sync.row, None).await?,
            #[cfg(test)]
            Err(SyncError::Cut) => {}
            Err(error) => self.store.sync_finished(sync.row, Some(error.to_string())).await?,
        }
        outcome
    }

    /// Who asks for a run expects the events that came before, also those that dispatch has not seen yet.
    async fn wait_for_dispatch(&self, goal: u64, stop: &CancellationToken) -> Result<(), SyncError> {
        let patience = tokio::time::Instant::now() + DISPATCH_PATIENCE;
        while self.store.dispatch_position().await? < goal
            && tokio::time::Instant::now() < patience
            && !stop.is_cancelled()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn drain(&self, sync: &SyncView, stop: &CancellationToken) -> Result<SyncOutcome, SyncError> {
        let endpoint_name = &sync.spec.from.endpoint;
        let (endpoint, destination) = {
            let snapshot = self.store.snapshot();
            let endpoint = snapshot.endpoint(endpoint_name).map(|endpoint| (endpoint.row, endpoint.spec.format));
            let destination = snapshot.destination(&sync.spec.to.destination).map(|found| found.spec.clone());
            (endpoint, destination)
        };
        let (endpoint, declared) = endpoint.ok_or_else(|| SyncError::Missing(format!("endpoint/{endpoint_name}")))?;
        let destination =
            destination.ok_or_else(|| SyncError::Missing(format!("destination/{}", sync.spec.to.destination)))?;
        let course = Course { sync, endpoint, endpoint_name, began_at: self.clock.now() };
        let run = Run { table: TableName::of(&sync.spec.to)?, declared, synced_at: course.began_at };
        let mut loading = Loading::open(self.destinations.clone(), destination, sync, run).await?;

        let mut outcome = SyncOutcome::default();
        let goal = self.store.dispatch_position().await?;
        loading = self.refill(loading, &course, stop, &mut outcome).await?;
        while !stop.is_cancelled() {
            let Some((batch, events)) = self.next_batch(&course, goal).await? else { return Ok(outcome) };
            self.reached(Stage::Begun)?;
            let batch = self.pack(&course, batch, &events).await?;
            let (loaded, counts);
            (loading, loaded, counts) = loading.load(events, batch.last).await?;
            self.reached(Stage::Loaded)?;
            self.store.batch_loaded(sync.row, batch, counts.events, counts.rows, counts.unparsed).await?;
            self.reached(Stage::Noted)?;
            counter!("linkspan_sync_events_total").increment(counts.events);
            counter!("linkspan_sync_rows_total").increment(counts.rows);
            outcome.batches += 1;
            outcome.events += counts.events;
            outcome.rows += counts.rows;
            outcome.unparsed += counts.unparsed;
            if let Loaded::Now { left_out } = loaded {
                outcome.left_out += left_out;
            }
        }
        outcome.is_stopped = true;
        Ok(outcome)
    }

    /// Gives a destination what it has lost, or never had: every batch that was loaded, after its position.
    async fn refill(
        &self,
        mut loading: Loading,
        course: &Course<'_>,
        stop: &CancellationToken,
        outcome: &mut SyncOutcome,
    ) -> Result<Loading, SyncError> {
        let (state, _) = self.store.sync_state(course.sync.row).await?;
        let mut position = loading.position();
        while position < state.loaded && !stop.is_cancelled() {
            let batches = self.store.sync_batches(course.sync.row, position, 1).await?;
            let Some(batch) = batches.into_iter().next() else { break };
            let bucket = self.bucket.clone();
            let events = blocking(move || Ok(bucket.read(&batch.object)?)).await?;
            loading = loading.refill(events, batch.last).await?;
            position = batch.last;
            outcome.refilled += 1;
        }
        Ok(loading)
    }

    /// The batch that an earlier run has begun, or the next one up to `goal`, with its events.
    async fn next_batch(&self, course: &Course<'_>, goal: u64) -> Result<Option<(Batch, Vec<StoredEvent>)>, SyncError> {
        let sync = course.sync;
        let (state, open) = self.store.sync_state(sync.row).await?;
        if let Some(batch) = open {
            let events = self.events_of(course, &batch).await?;
            return Ok(Some((batch, events)));
        }
        let after = state.position;
        let events = self.store.endpoint_events_after(course.endpoint, after, goal, self.batch_events).await?;
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            if goal > after + IDLE_STRETCH {
                self.store.skip_events(sync.row, after, goal).await?;
            }
            return Ok(None);
        };
        let last = last.seq;
        let object = object_name(course.endpoint_name.as_str(), &sync.id, first.event.received_at, after, last);
        let batch = self.store.begin_batch(sync.row, after, last, object).await?;
        Ok(Some((batch, events)))
    }

    /// Every event within the bounds of a batch. Its endpoint stands in the object's name: the document may have
    /// come to name another one since the batch was begun.
    async fn events_of(&self, course: &Course<'_>, batch: &Batch) -> Result<Vec<StoredEvent>, SyncError> {
        let endpoint = {
            let snapshot = self.store.snapshot();
            let name = batch.object.split('/').nth(1).and_then(|name| name.parse().ok());
            name.and_then(|name| snapshot.endpoint(&name).map(|endpoint| endpoint.row)).unwrap_or(course.endpoint)
        };
        let mut events: Vec<StoredEvent> = Vec::new();
        let mut after = batch.after;
        while after < batch.last {
            let more = self.store.endpoint_events_after(endpoint, after, batch.last, BATCH_EVENTS).await?;
            let Some(last) = more.last() else {
                return Err(SyncError::Gone { after, last: batch.last });
            };
            after = last.seq;
            events.extend(more);
        }
        Ok(events)
    }

    async fn pack(&self, course: &Course<'_>, mut batch: Batch, events: &[StoredEvent]) -> Result<Batch, SyncError> {
        if batch.state == BatchState::Begun {
            let sha256 = pack::put(self.bucket.clone(), batch.object.clone(), events).await?;
            self.reached(Stage::Put)?;
            self.store.batch_packed(course.sync.row, batch.number, sha256.to_vec()).await?;
            batch.state = BatchState::Packed;
            batch.sha256 = Some(sha256.to_vec());
        }
        self.reached(Stage::Packed)?;
        Ok(batch)
    }

    /// Where a test may cut a run short.
    #[cfg(test)]
    fn reached(&self, stage: Stage) -> Result<(), SyncError> {
        let mut cut = self.cut.lock().unwrap();
        if *cut == Some(stage) {
            *cut = None;
            return Err(SyncError::Cut);
        }
        Ok(())
    }

    #[cfg(not(test))]
    fn reached(&self, _: Stage) -> Result<(), SyncError> {
        Ok(())
    }
}

/// Runs what blocks away from the threads that serve requests.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(SyncError::Ended(error.to_string())))
}
