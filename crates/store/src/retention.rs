//! Expiry: what is old goes in small batches, and never before everyone who needs it has seen it.

use std::time::Duration;

use linkspan_model::Timestamp;
use rusqlite::{Connection, params};

use crate::Store;
use crate::error::Result;

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

impl Expired {
    /// Whether anything went; then there may be more.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Most rows of a kind that go in one round, so that ingest never waits long behind it.
const ROUND: usize = 500;

/// What a reader found to be old, so that the writer needs to search nothing.
struct Old {
    jobs: Vec<i64>,
    dedupe: Vec<(i64, [u8; 16])>,
}

impl Store {
    /// Removes a small batch of what is too old.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn expire(&self, keep: Retention) -> Result<Expired> {
        let now = self.now();
        let spool = self.spool_folder().clone();
        let old = self
            .read(move |db| {
                let jobs = old_jobs(db, now.before(keep.jobs), now.before(keep.failed_jobs))?;
                Ok(Old { jobs, dedupe: old_dedupe(db, now)? })
            })
            .await?;
        let (expired, files) = self.write(move |db| expire(db, &old, keep, now)).await?;
        crate::event::blocking(move || {
            files.iter().for_each(|file| spool.remove(file));
            Ok(())
        })
        .await?;
        Ok(expired)
    }
}

/// Jobs are read in the order they were made, up to the first that is too young to have ended long ago.
fn old_jobs(db: &Connection, before: Timestamp, failed_before: Timestamp) -> Result<Vec<i64>> {
    let mut statement = db.prepare_cached("SELECT seq, created_at, status, finished_at FROM jobs ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut old = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? >= before.max(failed_before).as_micros() || old.len() >= ROUND {
            break;
        }
        let ended_before = match row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)? {
            "succeeded" | "canceled" => before,
            "failed" => failed_before,
            _ => continue,
        };
        if row.get::<_, Option<i64>>(3)?.is_some_and(|at| at < ended_before.as_micros()) {
            old.push(row.get(0)?);
        }
    }
    Ok(old)
}

fn old_dedupe(db: &Connection, now: Timestamp) -> Result<Vec<(i64, [u8; 16])>> {
    let mut statement = db.prepare_cached("SELECT endpoint, key FROM dedupe WHERE expires_at <= ?1 LIMIT ?2")?;
    let found = statement
        .query_map(params![now.as_micros(), ROUND as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

fn expire(db: &Connection, old: &Old, keep: Retention, now: Timestamp) -> Result<(Expired, Vec<String>)> {
    for seq in &old.jobs {
        db.prepare_cached("DELETE FROM steps WHERE job = ?1")?.execute([seq])?;
        db.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?.execute([seq])?;
    }
    let mut dedupe = 0;
    for (endpoint, key) in &old.dedupe {
        // Checked again: the sender may have used the id once more meanwhile.
        dedupe += db
            .prepare_cached("DELETE FROM dedupe WHERE endpoint = ?1 AND key = ?2 AND expires_at <= ?3")?
            .execute(params![endpoint, key, now.as_micros()])?;
    }
    let refusals = db
        .prepare_cached(
            "DELETE FROM refusals WHERE seq IN (SELECT seq FROM refusals WHERE at < ?1 ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![now.before(keep.refusals).as_micros(), ROUND as i64])?;
    let (events, files) = delete_events(db, now.before(keep.events).as_micros())?;
    let expired = Expired {
        events: events as u64,
        jobs: old.jobs.len() as u64,
        refusals: refusals as u64,
        dedupe: dedupe as u64,
    };
    Ok((expired, files))
}

/// The events that dispatch, every sync and every open job have done with: up to the first event that a sync
/// has still to load, so that a sync of a quiet endpoint holds nothing back.
fn delete_events(db: &Connection, before: i64) -> Result<(usize, Vec<String>)> {
    let floor: i64 = db
        .prepare_cached(
            "SELECT min(ifnull((SELECT seq FROM positions WHERE consumer = 'dispatch'), 0),
                        ifnull((SELECT min((SELECT max(i.first, ifnull(s.position, 0) + 1) FROM event_runs i
                                            WHERE i.endpoint = e.id AND i.last > ifnull(s.position, 0)
                                            ORDER BY i.last LIMIT 1)) - 1
                                FROM resources r
                                JOIN resources e ON e.kind = 'endpoint' AND e.deleted_at IS NULL
                                     AND e.name = json_extract(r.document, '$.spec.from.endpoint')
                                LEFT JOIN sync_states s ON s.sync = r.id
                                WHERE r.kind = 'sync' AND r.deleted_at IS NULL), 9223372036854775807),
                        ifnull((SELECT min(event_seq) - 1 FROM jobs WHERE status IN ('queued', 'waiting')), 9223372036854775807),
                        ifnull((SELECT min(event_seq) - 1 FROM jobs WHERE status = 'running'), 9223372036854775807))",
        )?
        .query_row([], |row| row.get(0))?;
    // Only the beginning of the log is looked at: the rest is younger, and the writer cannot read it all.
    let mut old = db.prepare_cached(
        "SELECT seq, endpoint, spool FROM (SELECT seq, endpoint, spool, received_at FROM events WHERE seq <= ?1 ORDER BY seq LIMIT ?3)
         WHERE received_at < ?2",
    )?;
    let found: Vec<(i64, i64, Option<String>)> = old
        .query_map(params![floor, before, ROUND as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut files = Vec::new();
    for (seq, endpoint, file) in &found {
        db.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq])?;
        // A run goes with its last event.
        db.prepare_cached("DELETE FROM event_runs WHERE endpoint = ?1 AND last = ?2")?
            .execute(params![endpoint, seq])?;
        if let Some(file) = file {
            db.prepare_cached("DELETE FROM spool WHERE name = ?1")?.execute([file])?;
            files.push(file.clone());
        }
    }
    Ok((found.len(), files))
}
