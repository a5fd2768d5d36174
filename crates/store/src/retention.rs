//! Expiry: what is old goes in small batches, and never before everyone who needs it has seen it.

use std::time::Duration;

use linkspan_model::Timestamp;
use rusqlite::{Connection, params};

use crate::Store;
use crate::error::Result;
use crate::open::current_revision;

/// How long things are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Events. Default 30 days.
    pub events: Duration,
    /// Jobs that succeeded or were canceled. Default 14 days.
    pub jobs: Duration,
    /// Jobs that failed. Default 30 days.
    pub failed_jobs: Duration,
    /// Refusals. Default 7 days.
    pub refusals: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self { events: 30 * DAY, jobs: 14 * DAY, failed_jobs: 30 * DAY, refusals: 7 * DAY }
    }
}

/// What one round of expiry removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Events.
    pub events: u64,
    /// Jobs.
    pub jobs: u64,
    /// Refusals.
    pub refusals: u64,
    /// Senders' event ids.
    pub dedupe: u64,
}

impl std::ops::AddAssign for Expired {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.jobs += more.jobs;
        self.refusals += more.refusals;
        self.dedupe += more.dedupe;
    }
}

impl Expired {
    /// Whether anything went; then there may be more.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Most rows of a kind that go in one round, so that ingest never waits long behind it.
const ROUND: usize = 500;
/// Most jobs that go in one round: each has steps, and a place in several indexes.
const ROUND_JOBS: usize = 200;
/// Most senders' ids that one round looks at.
const DEDUPE_SCAN: usize = 5_000;

/// How far a pass over the senders' ids has come. They have no index by age, which every event with an id would pay
/// for before its acknowledgement; a pass looks at all of them in pieces.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    after: Option<(i64, [u8; 16])>,
}

impl Sweep {
    /// Whether the pass has come to its end: the next round begins another one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.after.is_none()
    }
}

/// What a reader found to be old, so that the writer needs to search nothing.
struct Old {
    /// The configuration that the floor of the events was found with.
    revision: u64,
    jobs: Vec<i64>,
    dedupe: Vec<(i64, [u8; 16])>,
    refusals: Vec<i64>,
    events: Vec<OldEvent>,
    batches: Vec<(i64, i64)>,
}

struct OldEvent {
    seq: i64,
    endpoint: i64,
    spool: Option<String>,
}

impl Store {
    /// Removes a small batch of what is too old, and goes on with `sweep`.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn expire(&self, keep: Retention, sweep: &mut Sweep) -> Result<Expired> {
        let now = self.now();
        let spool = self.spool_folder().clone();
        let after = sweep.after;
        let (old, swept) = self
            .read_for_engine(move |db| {
                let (dedupe, swept) = old_dedupe(db, after, now)?;
                let old = Old {
                    revision: current_revision(db)?,
                    jobs: old_jobs(db, keep, now)?,
                    dedupe,
                    refusals: old_refusals(db, now.before(keep.refusals))?,
                    events: old_events(db, now.before(keep.events))?,
                    batches: batches_of_deleted_syncs(db)?,
                };
                Ok((old, swept))
            })
            .await?;
        if swept.is_none() {
            let spool = spool.clone();
            crate::event::blocking(move || spool.forget(keep.events, ROUND)).await?;
        }
        sweep.after = swept;
        if old.is_empty() {
            return Ok(Expired::default());
        }
        let Old { revision, jobs, dedupe, refusals, events, batches } = old;
        // One after the other, each in a commit of its own: what waits behind one does not wait for all.
        let mut expired = Expired::default();
        if !jobs.is_empty() {
            expired.jobs = jobs.len() as u64;
            self.write(move |db| delete_jobs(db, &jobs)).await?;
        }
        if !(dedupe.is_empty() && refusals.is_empty() && batches.is_empty()) {
            expired.refusals = refusals.len() as u64;
            expired.dedupe = self.write(move |db| delete_small(db, &dedupe, &refusals, &batches, now)).await?;
        }
        if !events.is_empty() {
            let (count, files) = self.write(move |db| delete_events(db, &events, revision)).await?;
            expired.events = count;
            crate::event::blocking(move || {
                files.iter().for_each(|file| spool.remove(file));
                Ok(())
            })
            .await?;
        }
        Ok(expired)
    }
}

impl Old {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty()
            && self.dedupe.is_empty()
            && self.refusals.is_empty()
            && self.events.is_empty()
            && self.batches.is_empty()
    }
}

fn old_jobs(db: &Connection, keep: Retention, now: Timestamp) -> Result<Vec<i64>> {
    let mut statement = db.prepare_cached(
        "SELECT seq FROM jobs WHERE status = ?1 AND finished_at < ?2 AND finished_at IS NOT NULL
         ORDER BY finished_at LIMIT ?3",
    )?;
    let mut old = Vec::new();
    for (status, kept) in [("succeeded", keep.jobs), ("canceled", keep.jobs), ("failed", keep.failed_jobs)] {
        let left = ROUND_JOBS - old.len();
        let found =
            statement.query_map(params![status, now.before(kept).as_micros(), left as i64], |row| row.get(0))?;
        for seq in found {
            old.push(seq?);
        }
    }
    Ok(old)
}

/// The next stretch of the senders' ids: those of it that are over, and where the next one begins.
#[expect(clippy::type_complexity, reason = "keys of the table, as they stand there")]
fn old_dedupe(
    db: &Connection,
    after: Option<(i64, [u8; 16])>,
    now: Timestamp,
) -> Result<(Vec<(i64, [u8; 16])>, Option<(i64, [u8; 16])>)> {
    let mut statement = db.prepare_cached(
        "SELECT endpoint, key, expires_at FROM dedupe WHERE (endpoint, key) > (?1, ?2) ORDER BY endpoint, key LIMIT ?3",
    )?;
    let (endpoint, key) = after.unwrap_or((i64::MIN, [0; 16]));
    let mut rows = statement.query(params![endpoint, key, DEDUPE_SCAN as i64])?;
    let (mut old, mut last, mut seen) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let key = (row.get(0)?, row.get(1)?);
        last = Some(key);
        seen += 1;
        if row.get::<_, i64>(2)? <= now.as_micros() {
            old.push(key);
            if old.len() == ROUND {
                return Ok((old, last));
            }
        }
    }
    Ok((old, last.filter(|_| seen == DEDUPE_SCAN)))
}

/// Only the beginning is looked at: the rest is younger.
fn old_refusals(db: &Connection, before: Timestamp) -> Result<Vec<i64>> {
    let mut statement =
        db.prepare_cached("SELECT seq FROM (SELECT seq, at FROM refusals ORDER BY seq LIMIT ?2) WHERE at < ?1")?;
    let found = statement.query_map(params![before.as_micros(), ROUND as i64], |row| row.get(0))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// The events at the beginning of the log that dispatch and every sync have done with: up to the first event that a
/// sync has still to load, so that a sync of a quiet endpoint holds nothing back.
fn old_events(db: &Connection, before: Timestamp) -> Result<Vec<OldEvent>> {
    let floor: i64 = db
        .prepare_cached(
            "SELECT min(ifnull((SELECT seq FROM positions WHERE consumer = 'dispatch'), 0),
                        ifnull((SELECT min((SELECT max(i.first, ifnull(s.position, 0) + 1) FROM event_runs i
                                            WHERE i.endpoint = e.id AND i.last > ifnull(s.position, 0)
                                            ORDER BY i.last LIMIT 1)) - 1
                                FROM resources r
                                JOIN resources e ON e.workspace = 1 AND e.kind = 'endpoint' AND e.deleted_at IS NULL
                                     AND e.name = json_extract(r.document, '$.spec.from.endpoint')
                                LEFT JOIN sync_states s ON s.sync = r.id
                                WHERE r.workspace = 1 AND r.kind = 'sync' AND r.deleted_at IS NULL), 9223372036854775807))",
        )?
        .query_row([], |row| row.get(0))?;
    // Only the beginning of the log is looked at: the rest is younger.
    let mut statement = db.prepare_cached(
        "SELECT seq, endpoint, spool FROM (SELECT seq, endpoint, spool, received_at FROM events WHERE seq <= ?1 ORDER BY seq LIMIT ?3)
         WHERE received_at < ?2",
    )?;
    let found = statement.query_map(params![floor, before.as_micros(), ROUND as i64], |row| {
        Ok(OldEvent { seq: row.get(0)?, endpoint: row.get(1)?, spool: row.get(2)? })
    })?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// What is left of syncs that were deleted: too much to go with them at once.
fn batches_of_deleted_syncs(db: &Connection) -> Result<Vec<(i64, i64)>> {
    let mut statement = db.prepare_cached(
        "SELECT b.sync, b.batch FROM sync_states s CROSS JOIN resources r ON r.id = s.sync
         CROSS JOIN sync_batches b ON b.sync = s.sync WHERE r.deleted_at IS NOT NULL LIMIT ?1",
    )?;
    let found = statement.query_map([ROUND as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

fn delete_jobs(db: &Connection, jobs: &[i64]) -> Result<()> {
    crate::job::keep_numbers(db)?;
    for seq in jobs {
        db.prepare_cached("DELETE FROM steps WHERE job = ?1")?.execute([seq])?;
        db.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?.execute([seq])?;
    }
    Ok(())
}

fn delete_small(
    db: &Connection,
    dedupe: &[(i64, [u8; 16])],
    refusals: &[i64],
    batches: &[(i64, i64)],
    now: Timestamp,
) -> Result<u64> {
    let mut forgotten = 0;
    for (endpoint, key) in dedupe {
        // Checked again: the sender may have used the id once more meanwhile.
        forgotten += db
            .prepare_cached("DELETE FROM dedupe WHERE endpoint = ?1 AND key = ?2 AND expires_at <= ?3")?
            .execute(params![endpoint, key, now.as_micros()])?;
    }
    for seq in refusals {
        db.prepare_cached("DELETE FROM refusals WHERE seq = ?1")?.execute([seq])?;
    }
    for (sync, batch) in batches {
        db.prepare_cached("DELETE FROM sync_batches WHERE sync = ?1 AND batch = ?2")?.execute(params![sync, batch])?;
    }
    if let Some((sync, _)) = batches.last() {
        db.prepare_cached(
            "DELETE FROM sync_states WHERE sync = ?1 AND NOT EXISTS (SELECT 1 FROM sync_batches WHERE sync = ?1)",
        )?
        .execute([sync])?;
    }
    Ok(forgotten as u64)
}

/// Deletes events that no open job needs; gives how many, and their spool files. None when the configuration has
/// changed since they were found: a new sync may want them.
fn delete_events(db: &Connection, events: &[OldEvent], found_at: u64) -> Result<(u64, Vec<String>)> {
    if current_revision(db)? != found_at {
        return Ok((0, Vec::new()));
    }
    let mut needed = db.prepare_cached(
        "SELECT 1 FROM jobs WHERE event_seq = ?1 AND status IN ('queued', 'waiting', 'running') LIMIT 1",
    )?;
    let (mut count, mut files) = (0, Vec::new());
    for OldEvent { seq, endpoint, spool } in events {
        if needed.exists([seq])? {
            continue;
        }
        count += db.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq])?;
        // A run goes with its last event.
        db.prepare_cached("DELETE FROM event_runs WHERE endpoint = ?1 AND last = ?2")?
            .execute(params![endpoint, seq])?;
        if let Some(file) = spool {
            db.prepare_cached("DELETE FROM spool WHERE name = ?1")?.execute([file])?;
            files.push(file.clone());
        }
    }
    Ok((count as u64, files))
}
