//! How far syncs have come, and the runs that were asked for.
//!
//! Guarantees: a batch's bounds stand before its object is put, and one batch of a sync is open at a time; a
//! run that was asked for stays asked for, also after a restart, until one that began later has ended.

use std::collections::HashMap;

use linkspan_model::Timestamp;
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
    /// SHA-256 of the object.
    pub sha256: Option<Vec<u8>>,
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

    /// Asks for a run now.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn request_sync(&self, sync: i64) -> Result<SyncTicket> {
        let ticket = self
            .write(move |db| {
                Ok(db
                    .prepare_cached(
                        "INSERT INTO sync_states (sync, position, requests) VALUES (?1, 0, 1)
                         ON CONFLICT (sync) DO UPDATE SET requests = requests + 1 RETURNING requests",
                    )?
                    .query_row([sync], |row| row.get(0))?)
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

    /// Fixes the bounds of the next batch.
    ///
    /// # Errors
    /// `Conflict` when a batch is begun already or the position has moved; `NotFound` when the sync is gone.
    pub async fn begin_batch(&self, sync: i64, after: u64, last: u64, object: String) -> Result<Batch> {
        self.write(move |db| {
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
                "INSERT INTO sync_batches (sync, batch, after_seq, last_seq, object, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'begun')",
            )?
            .execute(params![sync, number, after.cast_signed(), last.cast_signed(), object])?;
            Ok(Batch { number: number.cast_unsigned(), after, last, object, sha256: None, state: BatchState::Begun })
        })
        .await
    }

    /// Notes that a batch's object is there.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn batch_packed(&self, sync: i64, number: u64, sha256: Vec<u8>) -> Result<()> {
        self.write(move |db| {
            db.prepare_cached("UPDATE sync_batches SET state = 'packed', sha256 = ?3 WHERE sync = ?1 AND batch = ?2")?
                .execute(params![sync, number.cast_signed(), sha256])?;
            Ok(())
        })
        .await
    }

    /// Notes that a batch is in the table, and moves the position over it.
    ///
    /// # Errors
    /// `Conflict` when that was noted before, or the sync is gone.
    pub async fn batch_loaded(&self, sync: i64, batch: Batch, events: u64, rows: u64, unparsed: u64) -> Result<()> {
        self.write(move |db| {
            let changed = db
                .prepare_cached(
                    "UPDATE sync_batches SET state = 'loaded' WHERE sync = ?1 AND batch = ?2 AND state <> 'loaded'",
                )?
                .execute(params![sync, batch.number.cast_signed()])?;
            if changed == 0 {
                return Err(StoreError::Conflict("the batch is loaded already".to_owned()));
            }
            db.prepare_cached(
                "UPDATE sync_states SET position = ?2, batch = ?3, events = events + ?4, rows = rows + ?5,
                        unparsed = unparsed + ?6 WHERE sync = ?1",
            )?
            .execute(params![
                sync,
                batch.last.cast_signed(),
                batch.number.cast_signed(),
                events.cast_signed(),
                rows.cast_signed(),
                unparsed.cast_signed()
            ])?;
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

    /// Notes how a run ended.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn sync_finished(&self, sync: i64, error: Option<String>) -> Result<()> {
        let now = self.now().as_micros();
        self.write(move |db| {
            let sql = match &error {
                None => {
                    "UPDATE sync_states SET finished_at = ?2, succeeded_at = ?2, error = ?3, answered = taken
                     WHERE sync = ?1"
                }
                Some(_) => {
                    "UPDATE sync_states SET finished_at = ?2, failed_at = ?2, error = ?3, answered = taken
                     WHERE sync = ?1"
                }
            };
            db.prepare_cached(sql)?.execute(params![sync, now, error])?;
            Ok(())
        })
        .await?;
        self.tell_sync_end();
        Ok(())
    }
}

const BATCH: &str = "batch, after_seq, last_seq, object, sha256, state";

fn batch_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Batch> {
    let state: String = row.get(5)?;
    Ok(Batch {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        after: row.get::<_, i64>(1)?.cast_unsigned(),
        last: row.get::<_, i64>(2)?.cast_unsigned(),
        object: row.get(3)?,
        sha256: row.get(4)?,
        state: match state.as_str() {
            "begun" => BatchState::Begun,
            "packed" => BatchState::Packed,
            _ => BatchState::Loaded,
        },
    })
}

fn open_batch(db: &Connection, sync: i64) -> Result<Option<Batch>> {
    let sql =
        format!("SELECT {BATCH} FROM sync_batches INDEXED BY sync_batches_open WHERE sync = ?1 AND state <> 'loaded'");
    Ok(db.prepare_cached(&sql)?.query_row([sync], batch_of).optional()?)
}

const STATE: &str = "position, events, rows, unparsed, started_at, finished_at, succeeded_at, failed_at, error, \
    requests > answered, \
    ifnull((SELECT last_seq FROM sync_batches b WHERE b.sync = s.sync AND state = 'loaded' ORDER BY batch DESC LIMIT 1), 0)";

fn state(db: &Connection, sync: i64) -> Result<SyncState> {
    let sql = format!("SELECT {STATE} FROM sync_states s WHERE sync = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([sync], state_of).optional()?.unwrap_or_default())
}

fn state_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<SyncState> {
    let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
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
    })
}
