//! One transaction for whatever waits, and the answers after it.
//!
//! Whoever holds the [`Committer`] commits: the writer's thread, or a task beside those that serve connections.
//! What a commit does and promises is the same in both.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Instant;

use linkspan_model::id::EventId;
use rusqlite::{Connection, Statement, params};

use crate::checkpoint::Checkpoints;
use crate::error::{Result, StoreError};
use crate::event::{Appended, LogRun, NewEvent};
use crate::pace::Pace;
use crate::seat::Answer;
use crate::spool::SpoolFile;
use crate::writer::{Append, Operation, Shared, Work};

/// Most operations in one transaction, so that the first of them does not wait for ever.
const BATCH_MAX: usize = 256;
/// Most bytes of events in one transaction: 4 MiB.
const BATCH_BYTES: usize = 4 << 20;

/// The writing connection and what waits for it.
#[derive(Debug)]
pub(crate) struct Committer {
    // Before the connection: the one that closes last folds the log into the database.
    checkpoints: Checkpoints,
    db: Connection,
    /// None after the first failed write: what waits is answered by that.
    work: Option<mpsc::Receiver<Work>>,
    batch: Vec<Work>,
    next_seq: u64,
    pace: Pace,
    /// Answers on their way to the seats, by number; empty between turns.
    mail: Vec<Vec<Answer>>,
}

/// What a turn of the committer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has committed what waited, or as much of it as one transaction takes.
    Committed,
    /// Nothing waited.
    Idle,
    /// Somebody else had the committer.
    Others,
    /// Nothing will be committed any more: the store was closed, or a write has failed.
    Over,
}

/// Poisons the store when a turn ends in a panic.
struct PoisonOnPanic<'a>(&'a Shared);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison();
        }
    }
}

impl Committer {
    /// A committer of `work` through `db`, for so many seats; `next_seq` is the next free position in the log.
    pub(crate) fn new(
        db: Connection,
        checkpoints: Checkpoints,
        work: mpsc::Receiver<Work>,
        next_seq: u64,
        seats: usize,
    ) -> Self {
        let batch = Vec::with_capacity(BATCH_MAX);
        let mail = std::iter::repeat_with(Vec::new).take(seats).collect();
        Self { checkpoints, db, work: Some(work), batch, next_seq, pace: Pace::slow(), mail }
    }

    /// Commits what waits as one transaction, and answers it; `seat` is where this happens. Blocks on the disk.
    pub(crate) fn turn(&mut self, shared: &Shared, seat: Option<usize>) -> Turn {
        // Put back at the end: after a panic or a failed write what waits is dropped, and so answered.
        let Some(work) = self.work.take() else { return Turn::Over };
        let _guard = PoisonOnPanic(shared);
        let mut bytes = 0;
        while self.batch.len() < BATCH_MAX && bytes < BATCH_BYTES {
            match work.try_recv() {
                Ok(more) => {
                    bytes += more.size();
                    self.batch.push(more);
                }
                Err(mpsc::TryRecvError::Disconnected) if self.batch.is_empty() => return Turn::Over,
                Err(_) => break,
            }
        }
        let turn = if self.batch.is_empty() { Turn::Idle } else { Turn::Committed };
        if turn == Turn::Committed {
            shared.queued.fetch_sub(self.batch.len(), Ordering::SeqCst);
            shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let began = Instant::now();
            self.commit(began, shared, seat);
            if let Err(error) = self.checkpoints.after_commit(&self.db) {
                tracing::error!(%error, "the log could not be folded into the database");
                shared.poison();
            }
            self.pace.bound(began.elapsed());
            shared.is_swift.store(self.pace.is_swift(), Ordering::SeqCst);
        }
        if shared.poisoned.load(Ordering::Acquire) {
            return Turn::Over;
        }
        self.work = Some(work);
        turn
    }
}

/// What was done for an operation, to be answered when it is known whether it stands.
struct Done {
    appended: Vec<Written>,
    finished: Vec<Box<dyn Operation>>,
    runs: Vec<LogRun>,
    next_seq: u64,
}

/// An event in the transaction. Its spool file goes when the transaction was rolled back for certain; where the
/// outcome is unknown it stays, and the next start removes it or finds its row.
struct Written {
    seat: Option<usize>,
    spool: Option<SpoolFile>,
    answer: Answer,
}

impl Committer {
    /// Runs one batch in one transaction, which `began` then, and answers it.
    fn commit(&mut self, began: Instant, shared: &Shared, seat: Option<usize>) {
        let first_seq = self.next_seq;
        let (done, outcome) = self.run();
        let mut outcome = outcome.and_then(|()| self.pace.measure(|| execute(&self.db, "COMMIT")));
        let Done { appended, finished, runs, next_seq } = done;
        match &outcome {
            Ok(()) => {
                self.next_seq = next_seq;
                shared.commits.fetch_add(1, Ordering::Relaxed);
                shared.committed_events.fetch_add(next_seq - first_seq, Ordering::Relaxed);
                let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                shared.commit_micros.fetch_add(micros, Ordering::Relaxed);
                if next_seq > first_seq {
                    shared.tail.push(runs);
                    shared.last_seq.store(next_seq - 1, Ordering::Release);
                    shared.events.give();
                }
            }
            Err(error) => {
                tracing::error!(%error, "a transaction failed");
                let rolled_back = self.db.is_autocommit() || execute(&self.db, "ROLLBACK").is_ok();
                // A full disk and somebody else's lock are known to have left nothing.
                if !(rolled_back && matches!(error, StoreError::DiskFull | StoreError::Busy)) {
                    shared.poison();
                    outcome = Err(StoreError::Poisoned);
                }
            }
        }
        self.answer(appended, &outcome, shared, seat);
        for operation in finished {
            operation.finish(outcome.clone());
        }
    }

    /// Begins a transaction and does in it what the batch asks for, and says whether it can be trusted.
    fn run(&mut self) -> (Done, Result<()>) {
        let Self { db, batch, next_seq, .. } = self;
        let mut done = Done {
            appended: Vec::with_capacity(batch.len()),
            finished: Vec::new(),
            runs: Vec::new(),
            next_seq: *next_seq,
        };
        // Looked up once for the batch: for every event it would cost a tenth of its insert.
        let insert = db.prepare_cached(INSERT_EVENT).map_err(StoreError::from);
        let (mut outcome, mut insert) = match insert {
            Ok(insert) => (execute(db, "BEGIN IMMEDIATE"), Some(insert)),
            Err(error) => (Err(error), None),
        };
        for work in batch.drain(..) {
            match work {
                Work::Append(append) => {
                    if !append.take() {
                        continue;
                    }
                    let Append { event, seat, reply, .. } = append;
                    let written = match (&outcome, &mut insert) {
                        (Ok(()), Some(insert)) => write_event(db, insert, &event, &mut done.next_seq),
                        (Err(error), _) => Err(error.clone()),
                        (Ok(()), None) => Err(StoreError::Poisoned),
                    };
                    if let Ok(Appended { id, duplicate: false }) = &written {
                        LogRun::extend(&mut done.runs, event.endpoint, id.seq());
                    }
                    // A full disk or a broken one ends the whole transaction, whatever SQLite makes of the statement.
                    if let (Ok(()), Err(error)) = (&outcome, &written) {
                        outcome = Err(error.clone());
                    }
                    let NewEvent { head, body, spool, .. } = event;
                    done.appended.push(Written { seat, spool, answer: Answer { reply, outcome: written, head, body } });
                }
                Work::Run(mut operation) => {
                    if outcome.is_ok() {
                        outcome = run_in_savepoint(db, operation.as_mut());
                    }
                    done.finished.push(operation);
                }
            }
        }
        (done, outcome)
    }

    /// Answers appends: those of this seat here, those of others there.
    fn answer(&mut self, appended: Vec<Written>, outcome: &Result<()>, shared: &Shared, here: Option<usize>) {
        for Written { seat, spool, mut answer } in appended {
            if let Err(error) = outcome {
                answer.outcome = Err(error.clone());
            }
            let is_gone = matches!(
                &answer.outcome,
                Ok(Appended { duplicate: true, .. }) | Err(StoreError::DiskFull | StoreError::Busy)
            );
            if let (Some(file), false) = (&spool, is_gone) {
                file.keep();
            }
            match seat.filter(|_| seat != here).and_then(|seat| self.mail.get_mut(seat)) {
                Some(mail) => mail.push(answer),
                None => answer.give(),
            }
        }
        for (seat, mail) in self.mail.iter_mut().enumerate().filter(|(_, mail)| !mail.is_empty()) {
            shared.seats.post(seat, mail);
        }
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
