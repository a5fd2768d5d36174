//! One run of a sync: events into the bucket and into the table, a batch at a time.
//!
//! Guarantees: a table has exactly one row for each event or element, and the bucket each event in exactly one
//! object, wherever a run is cut short. A batch's bounds are stored first; from them follow the object's name and
//! content, and the rows; the destination moves its own position with the rows. So every stage can be done again, and
//! is, until the next one is noted. A destination that has less than it was given (a new file, another table, an old
//! copy, a table that was dropped or emptied) is filled from the bucket, or from the log where the bucket has lost
//! something. A batch that neither has, or that the process died of twice, is set aside with its reason, and those
//! after it are loaded.

mod load;
mod pack;
pub mod schedule;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use linkspan_model::limits::SYNC_BATCH_ATTEMPTS;
use linkspan_model::{Clock, Name, Timestamp};
use linkspan_store::{Batch, BatchOutcome, DataFolder, NewBatch, Store, StoreError, StoredEvent, SyncState, SyncView};
use metrics::counter;
use tokio_util::sync::CancellationToken;

use self::load::{Came, Events, Loading, Run};
use crate::bucket::{Bucket, BucketError, object_name};
use crate::destination::{DestinationError, TableName, Turn};

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
    /// Blocking work ended early.
    #[error("the work ended early: {0}")]
    Ended(String),
    /// A test cut the run short here.
    #[cfg(test)]
    #[error("cut short")]
    Cut,
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncOutcome {
    /// Batches loaded.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Rows made of them.
    pub rows: u64,
    /// Events whose body could not be unpacked and stands whole in `payload`.
    pub unparsed: u64,
    /// Values of keys that have no column.
    pub left_out: u64,
    /// Batches that the destination had lost, or never had, and that came from the bucket or the log.
    pub refilled: u64,
    /// Batches that were set aside.
    pub aside: u64,
    /// What was seen of the table that is not as it was left.
    pub note: Option<String>,
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
            Ok(outcome) => self.store.sync_finished(sync.row, None, outcome.note.clone()).await?,
            #[cfg(test)]
            Err(SyncError::Cut) => {}
            Err(error) => self.store.sync_finished(sync.row, Some(error.to_string()), None).await?,
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
            match self.next_batch(&course, goal).await? {
                Next::Load(batch, events) => {
                    self.reached(Stage::Begun)?;
                    loading = self.load(loading, &course, batch, events, Turn::Next, &mut outcome).await?;
                }
                Next::Aside => outcome.aside += 1,
                Next::Nothing => return self.load_late(loading, &course, stop, outcome).await,
            }
        }
        outcome.is_stopped = true;
        Ok(outcome)
    }

    async fn load(
        &self,
        loading: Loading,
        course: &Course<'_>,
        batch: Batch,
        events: Events,
        turn: Turn,
        outcome: &mut SyncOutcome,
    ) -> Result<Loading, SyncError> {
        let batch = self.pack(course, batch, &events).await?;
        let (loading, came) = loading.load(events, batch.last, turn).await?;
        self.reached(Stage::Loaded)?;
        let Came { events, rows, unparsed, left_out, left_out_keys } = came;
        let noted = BatchOutcome { events, rows, unparsed, left_out, left_out_keys };
        self.store.batch_loaded(course.sync.row, batch, noted).await?;
        self.reached(Stage::Noted)?;
        counter!("linkspan_sync_events_total").increment(events);
        counter!("linkspan_sync_rows_total").increment(rows);
        outcome.batches += 1;
        outcome.events += events;
        outcome.rows += rows;
        outcome.unparsed += unparsed;
        outcome.left_out += left_out;
        Ok(loading)
    }

    /// Tries once more what was set aside, when that was asked for since.
    async fn load_late(
        &self,
        mut loading: Loading,
        course: &Course<'_>,
        stop: &CancellationToken,
        mut outcome: SyncOutcome,
    ) -> Result<SyncOutcome, SyncError> {
        let sync = course.sync.row;
        let mut after = 0;
        while !stop.is_cancelled() {
            let found = self.store.sync_batches_aside(sync, after, SYNC_BATCH_ATTEMPTS, 1).await?;
            let Some(batch) = found.into_iter().next() else { return Ok(outcome) };
            after = batch.number;
            self.store.batch_attempted(sync, batch.number).await?;
            match self.events_of(course, &batch).await? {
                Ok(events) => {
                    let loaded = self.load(loading, course, batch.clone(), events, Turn::Late, &mut outcome).await;
                    match loaded {
                        Ok(open) => loading = open,
                        #[cfg(test)]
                        Err(SyncError::Cut) => return Err(SyncError::Cut),
                        // Its reason is shown; the run itself has loaded what was due.
                        Err(error) => {
                            self.store.set_batch_aside(sync, batch, error.to_string()).await?;
                            outcome.aside += 1;
                            return Ok(outcome);
                        }
                    }
                }
                Err(reason) => {
                    self.store.set_batch_aside(sync, batch, reason).await?;
                    outcome.aside += 1;
                }
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
        let row = course.sync.row;
        let (state, open) = self.store.sync_state(row).await?;
        if state.is_resync_wanted {
            loading = loading.forget_position().await?;
            self.store.resync_begun(row).await?;
        }
        let (mut position, note) = seen(&loading, &state, open.as_ref());
        while position < state.loaded && !stop.is_cancelled() {
            let batches = self.store.sync_batches(row, position, 1).await?;
            let Some(batch) = batches.into_iter().next() else { break };
            position = batch.last;
            match self.events_of(course, &batch).await? {
                Ok(events) => {
                    loading = loading.load(events, batch.last, Turn::Next).await?.0;
                    outcome.refilled += 1;
                }
                Err(reason) => {
                    self.store.set_batch_aside(row, batch, reason).await?;
                    outcome.aside += 1;
                }
            }
        }
        outcome.note = note.map(|note| format!("{}: {note}", course.began_at));
        Ok(loading)
    }

    /// The batch that an earlier run has begun, or the next one up to `goal`, with its events.
    async fn next_batch(&self, course: &Course<'_>, goal: u64) -> Result<Next, SyncError> {
        let sync = course.sync;
        let (state, open) = self.store.sync_state(sync.row).await?;
        if let Some(batch) = open {
            if batch.attempts >= SYNC_BATCH_ATTEMPTS {
                let reason = format!(
                    "the server ended {} times while it loaded the events after position {} up to {}",
                    batch.attempts, batch.after, batch.last
                );
                self.store.set_batch_aside(sync.row, batch, reason).await?;
                return Ok(Next::Aside);
            }
            self.store.batch_attempted(sync.row, batch.number).await?;
            return match self.events_of(course, &batch).await? {
                Ok(events) => Ok(Next::Load(batch, events)),
                Err(reason) => {
                    self.store.set_batch_aside(sync.row, batch, reason).await?;
                    Ok(Next::Aside)
                }
            };
        }
        let after = state.position;
        let found = self.store.endpoint_events_after(course.endpoint, after, goal, self.batch_events).await?;
        if let (true, Some((last, reason))) = (found.events.is_empty(), found.lost) {
            // An event whose body cannot be read must not stop those after it.
            let object = object_name(course.endpoint_name.as_str(), &sync.id, course.began_at, after, last);
            let new = NewBatch { after, last, object, endpoint: course.endpoint, events: 1 };
            let batch = self.store.begin_batch(sync.row, new).await?;
            self.store.set_batch_aside(sync.row, batch, reason).await?;
            return Ok(Next::Aside);
        }
        let events = found.events;
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            if goal > after + IDLE_STRETCH {
                self.store.skip_events(sync.row, after, goal).await?;
            }
            return Ok(Next::Nothing);
        };
        let last = last.seq;
        let object = object_name(course.endpoint_name.as_str(), &sync.id, first.event.received_at, after, last);
        let new = NewBatch { after, last, object, endpoint: course.endpoint, events: events.len() as u64 };
        let batch = self.store.begin_batch(sync.row, new).await?;
        Ok(Next::Load(batch, Events::Log(events)))
    }

    /// The events of a batch: from the bucket, or from the log where they are not in the bucket (any more), which puts
    /// them there again. Or why they are nowhere.
    async fn events_of(&self, course: &Course<'_>, batch: &Batch) -> Result<Result<Events, String>, SyncError> {
        let mut lost = None;
        if let Some(sha256) = batch.sha256.clone() {
            let (bucket, object) = (self.bucket.clone(), batch.object.clone());
            match blocking(move || Ok(bucket.read(&object, Some(&sha256)))).await? {
                Ok(events) => return Ok(Ok(Events::Object(events))),
                Err(error) if error.is_lost() => lost = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        let events = match self.logged_events(batch).await? {
            Ok(events) => events,
            Err(reason) => {
                let lost = lost.map_or_else(String::new, |error| format!("{error}, and "));
                return Ok(Err(format!("{lost}{reason}")));
            }
        };
        if let Some(error) = lost {
            tracing::warn!(%error, sync = %course.sync.name, "an object of the bucket was made again from the log");
            let sha256 = pack::put_again(self.bucket.clone(), batch.object.clone(), &events).await?;
            self.store.batch_packed(course.sync.row, batch.number, sha256.to_vec()).await?;
        }
        Ok(Ok(Events::Log(events)))
    }

    /// Every event of a batch, from the log, or why the log does not have them all. The sync's document may have come
    /// to name another endpoint since the batch was begun, and the endpoint may be gone.
    async fn logged_events(&self, batch: &Batch) -> Result<Result<Vec<StoredEvent>, String>, SyncError> {
        let named = || {
            let snapshot = self.store.snapshot();
            // Old batches name it in their object only.
            let name = batch.object.split('/').nth(1).and_then(|name| name.parse().ok())?;
            snapshot.endpoint(&name).map(|endpoint| endpoint.row)
        };
        let gone =
            || format!("the events after position {} up to {} are no longer in the log", batch.after, batch.last);
        let Some(endpoint) = batch.endpoint.or_else(named) else { return Ok(Err(gone())) };
        let mut events: Vec<StoredEvent> = Vec::new();
        let mut after = batch.after;
        while after < batch.last {
            let more = self.store.endpoint_events_after(endpoint, after, batch.last, BATCH_EVENTS).await?;
            let Some(last) = more.events.last() else {
                if let Some((_, reason)) = more.lost {
                    return Ok(Err(reason));
                }
                break;
            };
            after = last.seq;
            events.extend(more.events);
        }
        let is_whole = batch.events.map_or(after == batch.last, |count| count == events.len() as u64);
        Ok(if is_whole { Ok(events) } else { Err(gone()) })
    }

    async fn pack(&self, course: &Course<'_>, mut batch: Batch, events: &Events) -> Result<Batch, SyncError> {
        if let (None, Events::Log(events)) = (&batch.sha256, events) {
            let sha256 = pack::put(self.bucket.clone(), batch.object.clone(), events).await?;
            self.reached(Stage::Put)?;
            self.store.batch_packed(course.sync.row, batch.number, sha256.to_vec()).await?;
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

/// What there is to do next.
enum Next {
    Load(Batch, Events),
    /// A batch was set aside.
    Aside,
    Nothing,
}

/// From where on a table is to be filled again, and what is seen of it that is not as it was left.
fn seen(loading: &Loading, state: &SyncState, open: Option<&Batch>) -> (u64, Option<String>) {
    let found = loading.position();
    let noted = state.position.max(open.map_or(0, |batch| batch.last));
    let refilled = |what: &str| Some(format!("{what}; it was filled again"));
    if state.is_resync_wanted {
        (0, Some("the table was filled again, as was asked for".to_owned()))
    } else if state.loaded == 0 {
        (found.seq, None)
    } else if !found.is_there {
        (0, refilled("the table was not there"))
    } else if found.is_empty && state.rows > 0 {
        (0, refilled("the table was empty"))
    } else if found.seq < state.loaded {
        (found.seq, refilled("the table's position was behind what had been loaded"))
    } else if found.seq > noted {
        let note = format!(
            "the table's position was {}, ahead of the {noted} that this sync has come to; nothing was passed over",
            found.seq
        );
        (found.seq, Some(note))
    } else {
        (found.seq, None)
    }
}

/// Runs what blocks away from the threads that serve requests.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(SyncError::Ended(error.to_string())))
}
