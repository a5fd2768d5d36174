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
const ROUND: i64 = 500;

impl Store {
    /// Removes a small batch of what is too old.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn expire(&self, keep: Retention) -> Result<Expired> {
        let now = self.now();
        let spool = self.spool_folder().clone();
        let (expired, files) = self.write(move |db| expire(db, keep, now)).await?;
        crate::event::blocking(move || {
            files.iter().for_each(|file| spool.remove(file));
            Ok(())
        })
        .await?;
        Ok(expired)
    }
}

fn expire(db: &Connection, keep: Retention, now: Timestamp) -> Result<(Expired, Vec<String>)> {
    let before = |age: Duration| now.before(age).as_micros();
    let jobs = delete_jobs(db, before(keep.jobs), before(keep.failed_jobs))?;
    let refusals = db
        .prepare_cached(
            "DELETE FROM refusals WHERE seq IN (SELECT seq FROM refusals WHERE at < ?1 ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![before(keep.refusals), ROUND])?;
    let dedupe = db
        .prepare_cached(
            "DELETE FROM dedupe WHERE (endpoint, key) IN
                 (SELECT endpoint, key FROM dedupe WHERE expires_at <= ?1 LIMIT ?2)",
        )?
        .execute(params![now.as_micros(), ROUND])?;
    let (events, files) = delete_events(db, before(keep.events))?;
    if events > 0 {
        db.execute_batch("PRAGMA incremental_vacuum(256)")?;
    }
    let expired =
        Expired { events: events as u64, jobs: jobs as u64, refusals: refusals as u64, dedupe: dedupe as u64 };
    Ok((expired, files))
}

fn delete_jobs(db: &Connection, before: i64, failed_before: i64) -> Result<usize> {
    let mut old = db.prepare_cached(
        "SELECT seq FROM jobs WHERE seq <= (SELECT ifnull(max(seq), 0) FROM (SELECT seq FROM jobs ORDER BY seq LIMIT ?3))
         AND ((status IN ('succeeded', 'canceled') AND finished_at < ?1) OR (status = 'failed' AND finished_at < ?2))",
    )?;
    let seqs: Vec<i64> = old
        .query_map(params![before, failed_before, ROUND * 20], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let seqs = &seqs[..seqs.len().min(ROUND as usize)];
    for seq in seqs {
        db.prepare_cached("DELETE FROM steps WHERE job = ?1")?.execute([seq])?;
        db.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?.execute([seq])?;
    }
    Ok(seqs.len())
}

/// The events that dispatch, every sync and every open job have done with.
fn delete_events(db: &Connection, before: i64) -> Result<(usize, Vec<String>)> {
    let floor: i64 = db
        .prepare_cached(
            "SELECT min(ifnull((SELECT seq FROM positions WHERE consumer = 'dispatch'), 0),
                        ifnull((SELECT min(ifnull(s.position, 0)) FROM resources r LEFT JOIN sync_states s ON s.sync = r.id
                                WHERE r.kind = 'sync' AND r.deleted_at IS NULL), 9223372036854775807),
                        ifnull((SELECT min(event_seq) - 1 FROM jobs WHERE status IN ('queued', 'waiting')), 9223372036854775807),
                        ifnull((SELECT min(event_seq) - 1 FROM jobs WHERE status = 'running'), 9223372036854775807))",
        )?
        .query_row([], |row| row.get(0))?;
    let mut old = db.prepare_cached(
        "SELECT seq, endpoint, spool FROM events WHERE seq <= ?1 AND received_at < ?2 ORDER BY seq LIMIT ?3",
    )?;
    let found: Vec<(i64, i64, Option<String>)> = old
        .query_map(params![floor, before, ROUND], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut files = Vec::new();
    for (seq, endpoint, file) in &found {
        db.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq])?;
        db.prepare_cached("DELETE FROM event_index WHERE endpoint = ?1 AND seq = ?2")?
            .execute(params![endpoint, seq])?;
        if let Some(file) = file {
            db.prepare_cached("DELETE FROM spool WHERE name = ?1")?.execute([file])?;
            files.push(file.clone());
        }
    }
    Ok((found.len(), files))
}
