//! The single writer: one thread, one transaction for whatever waits, answers after the commit.
//!
//! Guarantees: an operation's future resolves with success only after the transaction that holds it is
//! durable (WAL, synchronous=FULL); operations take effect in the order in which they were queued; an
//! operation that fails leaves no trace, and does not disturb the others of its batch. After the first
//! failed write nothing is acknowledged any more: what a failed fsync left in the page cache is unknown,
//! so the process must start again from the log. Nothing lingers: a lone operation commits at once, and
//! batches form by themselves while the disk is busy.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use linkspan_model::id::EventId;
use rusqlite::{Connection, Statement, params};
use tokio::sync::oneshot;

use crate::checkpoint::Checkpoints;
use crate::error::{Result, StoreError};
use crate::event::{Appended, LogRun, LogTail, NewEvent};
use crate::spool::SpoolFile;
use crate::wakeup::Wakeup;

/// Most operations that wait for the writer.
const QUEUE_MAX: usize = 8_192;
/// Most bytes of events that wait for the writer: 64 MiB.
const QUEUE_BYTES: usize = 64 << 20;
/// Most operations in one transaction, so that the first of them does not wait for ever.
const BATCH_MAX: usize = 256;
/// Most bytes of events in one transaction: 4 MiB.
const BATCH_BYTES: usize = 4 << 20;

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// What the writer and its callers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    poisoned: AtomicBool,
    pub(crate) last_seq: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) committed_events: AtomicU64,
    pub(crate) commit_micros: AtomicU64,
    pub(crate) tail: LogTail,
    pub(crate) events: Wakeup,
    pub(crate) stopped: Wakeup,
}

/// The handle through which operations reach the writer.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Work>>,
    pub(crate) shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

enum Work {
    Append(Append),
    Run(Box<dyn Operation>),
}

struct Append {
    event: NewEvent,
    taken: Arc<AtomicU8>,
    reply: oneshot::Sender<Result<Appended>>,
}

/// An operation other than an append: runs inside a savepoint of the batch's transaction.
trait Operation: Send {
    fn run(&mut self, db: &Connection) -> Result<()>;
    fn finish(self: Box<Self>, commit: Result<()>);
}

struct Closure<F, T> {
    run: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Operation for Closure<F, T>
where
    F: FnOnce(&Connection) -> Result<T> + Send,
    T: Send,
{
    fn run(&mut self, db: &Connection) -> Result<()> {
        let outcome = self.run.take().map_or(Err(StoreError::Poisoned), |run| run(db));
        let failed = outcome.as_ref().err().cloned();
        self.outcome = Some(outcome);
        failed.map_or(Ok(()), Err)
    }

    fn finish(self: Box<Self>, commit: Result<()>) {
        let Self { outcome, reply, .. } = *self;
        let outcome = match (outcome, commit) {
            (Some(Ok(_)) | None, Err(error)) => Err(error),
            (Some(outcome), _) => outcome,
            (None, Ok(())) => Err(StoreError::Poisoned),
        };
        // The caller may have gone away; the operation stands all the same.
        drop(reply.send(outcome));
    }
}

impl Writer {
    /// Starts the writer on its own connection; `last_seq` is the highest position in the log.
    pub(crate) fn start(mut db: Connection, beside: Connection, last_seq: u64) -> Result<Self> {
        let (queue, work) = mpsc::channel();
        let shared = Arc::new(Shared { last_seq: AtomicU64::new(last_seq), ..Shared::default() });
        let state = Arc::clone(&shared);
        let poisoned = Arc::clone(&shared);
        let checkpoints = Checkpoints::start(&mut db, beside, move || poisoned.poison())?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_until_closed(&db, checkpoints, &work, &state, last_seq + 1))?;
        Ok(Self { queue: Some(queue), shared, thread: Some(thread) })
    }

    /// Queues an event and waits until it is durable.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full; `Deadline` when the writer had not taken it by `deadline`, and
    /// then it is withdrawn. Once taken, its commit is waited for.
    pub(crate) async fn append(&self, event: NewEvent, deadline: Duration) -> Result<Appended> {
        let taken = Arc::new(AtomicU8::new(WAITING));
        let (reply, mut answer) = oneshot::channel();
        self.queue(event.size(), Work::Append(Append { event, taken: Arc::clone(&taken), reply }))?;
        match tokio::time::timeout(deadline, &mut answer).await {
            Ok(answered) => answered.unwrap_or(Err(StoreError::Poisoned)),
            Err(_) => match taken.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => Err(StoreError::Deadline),
                Err(_) => answer.await.unwrap_or(Err(StoreError::Poisoned)),
            },
        }
    }

    /// Queues an operation and waits until it is durable.
    pub(crate) async fn run<T, F>(&self, run: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue(0, Work::Run(Box::new(Closure { run: Some(run), outcome: None, reply })))?;
        answer.await.unwrap_or(Err(StoreError::Poisoned))
    }

    fn queue(&self, bytes: usize, work: Work) -> Result<()> {
        let shared = &self.shared;
        if shared.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned);
        }
        // Engine operations are few and bounded by their callers; only events are turned away by count.
        let is_event = matches!(work, Work::Append(_));
        if is_event
            && (shared.queued.load(Ordering::Relaxed) >= QUEUE_MAX
                || shared.queued_bytes.load(Ordering::Relaxed).saturating_add(bytes) > QUEUE_BYTES)
        {
            return Err(StoreError::Overloaded);
        }
        shared.queued.fetch_add(1, Ordering::Relaxed);
        shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let queue = self.queue.as_ref().ok_or(StoreError::Poisoned)?;
        queue.send(work).map_err(|_| StoreError::Poisoned)
    }

    /// Whether an event would be taken now.
    pub(crate) fn admits(&self) -> Result<()> {
        if self.is_poisoned() {
            return Err(StoreError::Poisoned);
        }
        let (queued, bytes) = self.depth();
        if queued >= QUEUE_MAX || bytes > QUEUE_BYTES { Err(StoreError::Overloaded) } else { Ok(()) }
    }

    /// Operations that wait, and their bytes.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (self.shared.queued.load(Ordering::Relaxed), self.shared.queued_bytes.load(Ordering::Relaxed))
    }

    /// Whether a write has failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Writer {
    /// Lets the writer finish what waits, and its connection fold the log into the database.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}

/// Poisons the store when the writer's thread ends in any way but the ordinary one.
struct PoisonOnPanic<'a>(&'a Shared);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison();
        }
    }
}

impl Shared {
    fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
        self.stopped.notify();
    }
}

fn write_until_closed(
    db: &Connection,
    mut checkpoints: Checkpoints,
    work: &mpsc::Receiver<Work>,
    shared: &Shared,
    mut next_seq: u64,
) {
    let _guard = PoisonOnPanic(shared);
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while let Ok(first) = work.recv() {
        let mut bytes = first.size();
        batch.push(first);
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES {
            let Ok(more) = work.try_recv() else { break };
            bytes += more.size();
            batch.push(more);
        }
        shared.queued.fetch_sub(batch.len(), Ordering::Relaxed);
        shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        next_seq = commit(db, &mut batch, shared, next_seq);
        if let Err(error) = checkpoints.after_commit(db) {
            tracing::error!(%error, "the log could not be folded into the database");
            shared.poison();
        }
        if shared.poisoned.load(Ordering::Acquire) {
            break;
        }
    }
}

impl Work {
    fn size(&self) -> usize {
        match self {
            Self::Append(append) => append.event.size(),
            Self::Run(_) => 0,
        }
    }
}

/// Runs one batch in one transaction and answers it; gives the next free position.
fn commit(db: &Connection, batch: &mut Vec<Work>, shared: &Shared, first_seq: u64) -> u64 {
    let began = std::time::Instant::now();
    let mut seq = first_seq;
    let mut appended: Vec<WrittenEvent> = Vec::with_capacity(batch.len());
    let mut runs = Vec::new();
    let mut finished: Vec<Box<dyn Operation>> = Vec::new();
    // Looked up once for the batch: for every event it would cost a tenth of its insert.
    let insert = db.prepare_cached(INSERT_EVENT).map_err(StoreError::from);
    let (mut outcome, mut insert) = match insert {
        Ok(insert) => (execute(db, "BEGIN IMMEDIATE"), Some(insert)),
        Err(error) => (Err(error), None),
    };
    for work in batch.drain(..) {
        match work {
            Work::Append(Append { event, taken, reply }) => {
                if taken.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    continue;
                }
                let written = match (&outcome, &mut insert) {
                    (Ok(()), Some(insert)) => write_event(db, insert, &event, &mut seq),
                    (Err(error), _) => Err(error.clone()),
                    (Ok(()), None) => Err(StoreError::Poisoned),
                };
                if let Ok(Appended { id, duplicate: false }) = &written {
                    LogRun::extend(&mut runs, event.endpoint, id.seq());
                }
                // A full disk or a broken one ends the whole transaction, whatever SQLite makes of the statement.
                if let (Ok(()), Err(error)) = (&outcome, &written) {
                    outcome = Err(error.clone());
                }
                appended.push(WrittenEvent { written, spool: event.spool, reply });
            }
            Work::Run(mut operation) => {
                if outcome.is_ok() {
                    outcome = run_in_savepoint(db, operation.as_mut());
                }
                finished.push(operation);
            }
        }
    }
    let outcome = outcome.and_then(|()| execute(db, "COMMIT"));
    match &outcome {
        Ok(()) => {
            shared.commits.fetch_add(1, Ordering::Relaxed);
            shared.committed_events.fetch_add(seq - first_seq, Ordering::Relaxed);
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            shared.commit_micros.fetch_add(micros, Ordering::Relaxed);
            if seq > first_seq {
                shared.tail.push(runs);
                shared.last_seq.store(seq - 1, Ordering::Release);
                shared.events.notify();
            }
        }
        Err(error) => {
            tracing::error!(%error, "a transaction failed");
            let rolled_back = db.is_autocommit() || execute(db, "ROLLBACK").is_ok();
            if !(rolled_back && matches!(error, StoreError::DiskFull)) {
                shared.poison();
            }
        }
    }
    answer(appended, finished, &outcome);
    if outcome.is_ok() { seq } else { first_seq }
}

/// An event in the transaction. Its spool file goes when the transaction was rolled back for certain; where the
/// outcome is unknown it stays, and the next start removes it or finds its row.
struct WrittenEvent {
    written: Result<Appended>,
    spool: Option<SpoolFile>,
    reply: oneshot::Sender<Result<Appended>>,
}

fn answer(appended: Vec<WrittenEvent>, finished: Vec<Box<dyn Operation>>, outcome: &Result<()>) {
    for WrittenEvent { written, spool, reply } in appended {
        let answer = match outcome {
            Ok(()) => written,
            Err(error) => Err(error.clone()),
        };
        let is_gone = matches!(&answer, Ok(Appended { duplicate: true, .. }) | Err(StoreError::DiskFull));
        if let (Some(file), false) = (&spool, is_gone) {
            file.keep();
        }
        // The caller may have gone away; the event stands all the same.
        drop(reply.send(answer));
    }
    for operation in finished {
        operation.finish(outcome.clone());
    }
}

fn execute(db: &Connection, sql: &str) -> Result<()> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// A savepoint keeps an operation that fails half-way from leaving its half behind. Fails only when the
/// transaction itself can no longer be trusted.
fn run_in_savepoint(db: &Connection, operation: &mut dyn Operation) -> Result<()> {
    execute(db, "SAVEPOINT operation")?;
    if let Err(error) = operation.run(db) {
        // SQLite itself has rolled the transaction back: the disk is full or broken.
        if db.is_autocommit() {
            return Err(error);
        }
        execute(db, "ROLLBACK TO operation")?;
    }
    execute(db, "RELEASE operation")
}

const INSERT_EVENT: &str =
    "INSERT INTO events (seq, endpoint, received_at, salt, spool, head, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

fn write_event(db: &Connection, insert: &mut Statement<'_>, event: &NewEvent, seq: &mut u64) -> Result<Appended> {
    let id = EventId::new(event.received_at, *seq, event.salt);
    if let Some(dedupe) = &event.dedupe
        && let Some(first) = remember(db, event, dedupe, id)?
    {
        return Ok(Appended { id: first, duplicate: true });
    }
    let body = event.spool.is_none().then_some(event.body.as_ref());
    let spool = event.spool.as_ref().map(|file| file.name());
    insert.execute(params![
        seq.cast_signed(),
        event.endpoint,
        event.received_at.as_micros(),
        event.salt,
        spool,
        event.head,
        body
    ])?;
    if let Some(file) = &event.spool {
        db.prepare_cached("INSERT INTO spool (name, size) VALUES (?1, ?2)")?
            .execute(params![file.name(), file.size().cast_signed()])?;
    }
    *seq += 1;
    Ok(Appended { id, duplicate: false })
}

/// Remembers the sender's id of an event; gives the first event with that id when there is a live one.
fn remember(
    db: &Connection,
    event: &NewEvent,
    dedupe: &crate::event::DedupeKey,
    id: EventId,
) -> Result<Option<EventId>> {
    let mut insert = db.prepare_cached(
        "INSERT INTO dedupe (endpoint, key, event_id, expires_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (endpoint, key) DO UPDATE SET event_id = excluded.event_id, expires_at = excluded.expires_at
         WHERE expires_at <= ?5",
    )?;
    let changed = insert.execute(params![
        event.endpoint,
        dedupe.key,
        id.as_bytes(),
        dedupe.expires_at.as_micros(),
        event.received_at.as_micros()
    ])?;
    if changed == 1 {
        return Ok(None);
    }
    let first: [u8; 16] = db
        .prepare_cached("SELECT event_id FROM dedupe WHERE endpoint = ?1 AND key = ?2")?
        .query_row(params![event.endpoint, dedupe.key], |row| row.get(0))?;
    Ok(Some(EventId::from_bytes(first)))
}
