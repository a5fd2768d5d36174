//! How far syncs have come, and the runs that were asked for.
//!
//! Guarantees: a batch's bounds stand before its object is put, and one batch of a sync is open at a time; a
//! run that was asked for stays asked for, also after a restart, until one that began later has ended. A batch that
//! cannot be loaded is set aside, with its reason, so that those after it are.

use std::collections::{BTreeSet, HashMap};

use linkspan_model::Timestamp;
use linkspan_model::limits::{LEFT_OUT_KEYS, SYNC_BATCH_ATTEMPTS};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::Store;
use crate::error::{Result, StoreError};

/// How a sync stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncState {
    /// Events up to here are in the bucket and in the table. A hint: the destination's own is what holds.
    pub position: u64,
    /// Events loaded so far.
    pub events: u64,
    /// Rows loaded so far.
    pub rows: u64,
    /// Events whose body could not be unpacked and stands whole in `payload`.
    pub unparsed: u64,
    /// The last position of the batches that were loaded: what a table that has less is short of.
    pub loaded: u64,
    /// Values of keys that have no column.
    pub left_out: u64,
    /// Some of these keys, shortened.
    pub left_out_keys: BTreeSet<String>,
    /// Batches that were set aside, counted up to 1,000.
    pub aside: u64,
    /// Why the first of them was.
    pub aside_reason: Option<String>,
    /// What was last seen of the table that is not as it was left.
    pub note: Option<String>,
    /// Whether the table is to be filled again from its beginning.
    pub is_resync_wanted: bool,
    /// Whether a run was asked for that no run has answered yet.
    pub is_requested: bool,
    /// When the last run began.
    pub started_at: Option<Timestamp>,
    /// When the last run ended.
    pub finished_at: Option<Timestamp>,
    /// When a run last succeeded.
    pub succeeded_at: Option<Timestamp>,
    /// When a run last failed.
    pub failed_at: Option<Timestamp>,
    /// Why the last run failed.
    pub error: Option<String>,
}

/// How far a batch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchState {
    /// Its bounds are known; its object may or may not be there.
    Begun,
    /// Its object is there.
    Packed,
    /// Its events are in the table.
    Loaded,
    /// It could not be loaded, and others went on.
    Aside,
    /// It was loaded once; the table lost it, and it could not be loaded again.
    Lost,
}

/// A batch that is about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// Events after this position…
    pub after: u64,
    /// …up to this one.
    pub last: u64,
    /// The object's name.
    pub object: String,
    /// The row of the endpoint whose events they are.
    pub endpoint: i64,
    /// How many there are.
    pub events: u64,
}

/// What a batch came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchOutcome {
    /// Its events.
    pub events: u64,
    /// Their rows.
    pub rows: u64,
    /// Events whose body could not be unpacked.
    pub unparsed: u64,
    /// Values of keys that have no column.
    pub left_out: u64,
    /// Some of these keys.
    pub left_out_keys: BTreeSet<String>,
}

/// A run that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncTicket(i64);

/// A stretch of events that is one object in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Counts the sync's batches from 1.
    pub number: u64,
    /// Events after this position…
    pub after: u64,
    /// …up to this one.
    pub last: u64,
    /// The object's name, which follows from the bounds alone.
    pub object: String,
    /// SHA-256 of the object; `None` before it is put.
    pub sha256: Option<Vec<u8>>,
    /// The row of the endpoint whose events it holds; unknown for old ones.
    pub endpoint: Option<i64>,
    /// How many it holds; unknown for old ones.
    pub events: Option<u64>,
    /// How often it was tried without an end: the process died each time.
    pub attempts: u32,
    /// How far it has come.
    pub state: BatchState,
}

impl Store {
    /// How a sync stands, and the batch that an earlier run has begun and not finished.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sync_state(&self, sync: i64) -> Result<(SyncState, Option<Batch>)> {
        self.read_for_engine(move |db| Ok((state(db, sync)?, open_batch(db, sync)?))).await
    }

    /// How every sync stands that ever ran or was asked to, by row.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sync_states(&self) -> Result<HashMap<i64, SyncState>> {
        self.read_for_engine(|db| {
            let sql = format!("SELECT {STATE}, sync FROM sync_states s");
            let mut statement = db.prepare_cached(&sql)?;
            let found = statement
                .query_map([], |row| Ok((row.get("sync")?, state_of(row)?)))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(found)
        })
        .await
    }

    /// The objects of a sync that are loaded, oldest first: those that hold events after position `after`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sync_batches(&self, sync: i64, after: u64, limit: u32) -> Result<Vec<Batch>> {
        self.read_for_engine(move |db| {
            let sql = format!(
                "SELECT {BATCH} FROM sync_batches WHERE sync = ?1 AND last_seq > ?2 AND state = 'loaded'
                 ORDER BY last_seq LIMIT ?3"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let found = statement
                .query_map(params![sync, after.cast_signed(), limit], batch_of)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(found)
        })
        .await
    }

    /// Batches of a sync that were set aside and were tried less than `attempts` times since, after the batch `after`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sync_batches_aside(&self, sync: i64, after: u64, attempts: u32, limit: u32) -> Result<Vec<Batch>> {
        self.read_for_engine(move |db| {
            let sql = format!(
                "SELECT {BATCH} FROM sync_batches INDEXED BY sync_batches_aside
                 WHERE sync = ?1 AND batch > ?2 AND attempts < ?3 AND state IN ('aside', 'lost') ORDER BY batch LIMIT ?4"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let found = statement
                .query_map(params![sync, after.cast_signed(), attempts, limit], batch_of)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(found)
        })
        .await
    }

    /// Asks for a run now, which also tries again what was set aside.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn request_sync(&self, sync: i64) -> Result<SyncTicket> {
        self.request(sync, false).await
    }

    /// Asks for a run that fills the table again from its beginning.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn request_resync(&self, sync: i64) -> Result<SyncTicket> {
        self.request(sync, true).await
    }

    async fn request(&self, sync: i64, again: bool) -> Result<SyncTicket> {
        let ticket = self
            .write(move |db| {
                db.prepare_cached(
                    "UPDATE sync_batches INDEXED BY sync_batches_aside SET attempts = 0
                     WHERE sync = ?1 AND attempts > 0 AND state IN ('aside', 'lost')",
                )?
                .execute([sync])?;
                Ok(db
                    .prepare_cached(
                        "INSERT INTO sync_states (sync, position, requests, resync) VALUES (?1, 0, 1, ?2)
                         ON CONFLICT (sync) DO UPDATE SET requests = requests + 1, resync = max(resync, ?2)
                         RETURNING requests",
                    )?
                    .query_row(params![sync, again], |row| row.get(0))?)
            })
            .await?;
        self.tell_sync_request();
        Ok(SyncTicket(ticket))
    }

    /// Whether a run that began after the request has ended, well or not; or the sync is gone.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sync_is_done(&self, sync: i64, ticket: SyncTicket) -> Result<bool> {
        self.read(move |db| {
            let answered: Option<i64> = db
                .prepare_cached("SELECT answered FROM sync_states WHERE sync = ?1")?
                .query_row([sync], |row| row.get(0))
                .optional()?;
            Ok(answered.is_none_or(|answered| answered >= ticket.0))
        })
        .await
    }

    /// Notes that a run begins; it answers every request up to now.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn sync_started(&self, sync: i64) -> Result<()> {
        let now = self.now();
        self.write(move |db| {
            db.prepare_cached(
                "INSERT INTO sync_states (sync, position, started_at) VALUES (?1, 0, ?2)
                 ON CONFLICT (sync) DO UPDATE SET started_at = excluded.started_at, taken = requests",
            )?
            .execute(params![sync, now.as_micros()])?;
            Ok(())
        })
        .await
    }

    /// Notes that the table is being filled again, as was asked for: its position is forgotten.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn resync_begun(&self, sync: i64) -> Result<()> {
        self.write(move |db| {
            db.prepare_cached("UPDATE sync_states SET resync = 0 WHERE sync = ?1")?.execute([sync])?;
            Ok(())
        })
        .await
    }

    /// Fixes the bounds of the next batch, and counts its first attempt.
    ///
    /// # Errors
    /// `Conflict` when a batch is begun already or the position has moved; `NotFound` when the sync is gone.
    pub async fn begin_batch(&self, sync: i64, new: NewBatch) -> Result<Batch> {
        self.write(move |db| {
            let NewBatch { after, last, object, endpoint, events } = new;
            let state = state(db, sync)?;
            if state.position != after || open_batch(db, sync)?.is_some() {
                return Err(StoreError::Conflict("the sync has moved on meanwhile".to_owned()));
            }
            let number: i64 = db
                .prepare_cached(
                    "SELECT s.batch + 1 FROM sync_states s JOIN resources r ON r.id = s.sync
                     WHERE s.sync = ?1 AND r.deleted_at IS NULL",
                )?
                .query_row([sync], |row| row.get(0))
                .optional()?
                .ok_or_else(|| StoreError::NotFound("the sync".to_owned()))?;
            db.prepare_cached(
                "INSERT INTO sync_batches (sync, batch, after_seq, last_seq, object, state, endpoint, events, attempts)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'begun', ?6, ?7, 1)",
            )?
            .execute(params![
                sync,
                number,
                after.cast_signed(),
                last.cast_signed(),
                object,
                endpoint,
                events.cast_signed()
            ])?;
            Ok(Batch {
                number: number.cast_unsigned(),
                after,
                last,
                object,
                sha256: None,
                endpoint: Some(endpoint),
                events: Some(events),
                attempts: 1,
                state: BatchState::Begun,
            })
        })
        .await
    }

    /// Counts another attempt at a batch, before it is made: should the process die of it, the next one knows.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn batch_attempted(&self, sync: i64, number: u64) -> Result<()> {
        self.write(move |db| {
            db.prepare_cached("UPDATE sync_batches SET attempts = attempts + 1 WHERE sync = ?1 AND batch = ?2")?
                .execute(params![sync, number.cast_signed()])?;
            Ok(())
        })
        .await
    }

    /// Notes that a batch's object is there.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn batch_packed(&self, sync: i64, number: u64, sha256: Vec<u8>) -> Result<()> {
        self.write(move |db| {
            db.prepare_cached(
                "UPDATE sync_batches SET state = CASE state WHEN 'begun' THEN 'packed' ELSE state END, sha256 = ?3
                 WHERE sync = ?1 AND batch = ?2",
            )?
            .execute(params![sync, number.cast_signed(), sha256])?;
            Ok(())
        })
        .await
    }

    /// Notes that a batch is in the table, and moves the position over it unless it is there already.
    ///
    /// # Errors
    /// `Conflict` when that was noted before, or the sync is gone.
    pub async fn batch_loaded(&self, sync: i64, batch: Batch, outcome: BatchOutcome) -> Result<()> {
        self.write(move |db| {
            let changed = db
                .prepare_cached(
                    "UPDATE sync_batches SET state = 'loaded', attempts = 0, reason = NULL
                     WHERE sync = ?1 AND batch = ?2 AND state <> 'loaded'",
                )?
                .execute(params![sync, batch.number.cast_signed()])?;
            if changed == 0 {
                return Err(StoreError::Conflict("the batch is loaded already".to_owned()));
            }
            // One that was loaded before is counted already.
            let outcome = if batch.state == BatchState::Lost { BatchOutcome::default() } else { outcome };
            let keys = with_keys(state(db, sync)?.left_out_keys, outcome.left_out_keys)?;
            db.prepare_cached(
                "UPDATE sync_states SET position = max(position, ?2), batch = max(batch, ?3), events = events + ?4,
                        rows = rows + ?5, unparsed = unparsed + ?6, left_out = left_out + ?7, left_out_keys = ?8
                 WHERE sync = ?1",
            )?
            .execute(params![
                sync,
                batch.last.cast_signed(),
                batch.number.cast_signed(),
                outcome.events.cast_signed(),
                outcome.rows.cast_signed(),
                outcome.unparsed.cast_signed(),
                outcome.left_out.cast_signed(),
                keys
            ])?;
            Ok(())
        })
        .await
    }

    /// Sets a batch aside, and moves the position over it, so that those after it are loaded.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn set_batch_aside(&self, sync: i64, batch: Batch, reason: String) -> Result<()> {
        self.write(move |db| {
            db.prepare_cached(
                "UPDATE sync_batches SET state = CASE WHEN state IN ('loaded', 'lost') THEN 'lost' ELSE 'aside' END,
                        attempts = max(attempts, ?3), reason = ?4 WHERE sync = ?1 AND batch = ?2",
            )?
            .execute(params![sync, batch.number.cast_signed(), SYNC_BATCH_ATTEMPTS, reason])?;
            db.prepare_cached(
                "UPDATE sync_states SET position = max(position, ?2), batch = max(batch, ?3) WHERE sync = ?1",
            )?
            .execute(params![sync, batch.last.cast_signed(), batch.number.cast_signed()])?;
            Ok(())
        })
        .await
    }

    /// Moves the position over a stretch without events of this sync, so that the log behind it can expire.
    ///
    /// # Errors
    /// `Conflict` when a batch is open or the position has moved.
    pub async fn skip_events(&self, sync: i64, after: u64, to: u64) -> Result<()> {
        self.write(move |db| {
            if open_batch(db, sync)?.is_some() {
                return Err(StoreError::Conflict("the sync has moved on meanwhile".to_owned()));
            }
            let changed = db
                .prepare_cached("UPDATE sync_states SET position = ?3 WHERE sync = ?1 AND position = ?2")?
                .execute(params![sync, after.cast_signed(), to.cast_signed()])?;
            if changed == 1 { Ok(()) } else { Err(StoreError::Conflict("the sync has moved on meanwhile".to_owned())) }
        })
        .await
    }

    /// Notes how a run ended, and what was seen of the table that is not as it was left.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn sync_finished(&self, sync: i64, error: Option<String>, note: Option<String>) -> Result<()> {
        let now = self.now().as_micros();
        self.write(move |db| {
            let sql = match &error {
                None => {
                    "UPDATE sync_states SET finished_at = ?2, succeeded_at = ?2, error = ?3, answered = taken,
                            note = ifnull(?4, note) WHERE sync = ?1"
                }
                Some(_) => {
                    "UPDATE sync_states SET finished_at = ?2, failed_at = ?2, error = ?3, answered = taken,
                            note = ifnull(?4, note) WHERE sync = ?1"
                }
            };
            db.prepare_cached(sql)?.execute(params![sync, now, error, note])?;
            // The process outlived the attempt at the batch that is open.
            db.prepare_cached(
                "UPDATE sync_batches INDEXED BY sync_batches_open SET attempts = 0
                 WHERE sync = ?1 AND state IN ('begun', 'packed')",
            )?
            .execute([sync])?;
            Ok(())
        })
        .await?;
        self.tell_sync_end();
        Ok(())
    }
}

const BATCH: &str = "batch, after_seq, last_seq, object, sha256, state, endpoint, events, attempts";

fn batch_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Batch> {
    let state: String = row.get(5)?;
    Ok(Batch {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        after: row.get::<_, i64>(1)?.cast_unsigned(),
        last: row.get::<_, i64>(2)?.cast_unsigned(),
        object: row.get(3)?,
        sha256: row.get(4)?,
        endpoint: row.get(6)?,
        events: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
        attempts: row.get(8)?,
        state: match state.as_str() {
            "begun" => BatchState::Begun,
            "packed" => BatchState::Packed,
            "aside" => BatchState::Aside,
            "lost" => BatchState::Lost,
            _ => BatchState::Loaded,
        },
    })
}

fn open_batch(db: &Connection, sync: i64) -> Result<Option<Batch>> {
    let sql = format!(
        "SELECT {BATCH} FROM sync_batches INDEXED BY sync_batches_open
         WHERE sync = ?1 AND state IN ('begun', 'packed')"
    );
    Ok(db.prepare_cached(&sql)?.query_row([sync], batch_of).optional()?)
}

/// The keys of before with some more, as they are stored.
fn with_keys(mut keys: BTreeSet<String>, more: BTreeSet<String>) -> Result<Option<String>> {
    for key in more {
        if keys.len() < LEFT_OUT_KEYS {
            keys.insert(key);
        }
    }
    Ok(if keys.is_empty() { None } else { Some(serde_json::to_string(&keys)?) })
}

const STATE: &str = "position, events, rows, unparsed, started_at, finished_at, succeeded_at, failed_at, error, \
    requests > answered, \
    ifnull((SELECT last_seq FROM sync_batches b INDEXED BY sync_batches_by_position \
            WHERE b.sync = s.sync AND state = 'loaded' ORDER BY last_seq DESC LIMIT 1), 0), \
    left_out, left_out_keys, resync, note, \
    (SELECT count(*) FROM (SELECT 1 FROM sync_batches b INDEXED BY sync_batches_aside \
            WHERE b.sync = s.sync AND state IN ('aside', 'lost') LIMIT 1000)), \
    (SELECT reason FROM sync_batches b INDEXED BY sync_batches_aside \
            WHERE b.sync = s.sync AND state IN ('aside', 'lost') ORDER BY batch LIMIT 1)";

fn state(db: &Connection, sync: i64) -> Result<SyncState> {
    let sql = format!("SELECT {STATE} FROM sync_states s WHERE sync = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([sync], state_of).optional()?.unwrap_or_default())
}

fn state_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<SyncState> {
    let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    let keys: Option<String> = row.get(12)?;
    Ok(SyncState {
        position: row.get::<_, i64>(0)?.cast_unsigned(),
        events: row.get::<_, i64>(1)?.cast_unsigned(),
        rows: row.get::<_, i64>(2)?.cast_unsigned(),
        unparsed: row.get::<_, i64>(3)?.cast_unsigned(),
        started_at: time(row.get(4)?),
        finished_at: time(row.get(5)?),
        succeeded_at: time(row.get(6)?),
        failed_at: time(row.get(7)?),
        error: row.get(8)?,
        is_requested: row.get(9)?,
        loaded: row.get::<_, i64>(10)?.cast_unsigned(),
        left_out: row.get::<_, i64>(11)?.cast_unsigned(),
        left_out_keys: keys.and_then(|keys| serde_json::from_str(&keys).ok()).unwrap_or_default(),
        is_resync_wanted: row.get(13)?,
        note: row.get(14)?,
        aside: row.get::<_, i64>(15)?.cast_unsigned(),
        aside_reason: row.get(16)?,
    })
}
