//! Checkpoints: the write-ahead log is folded into the database beside the writer, not by it.
//!
//! A checkpoint of a long log takes as long as dozens of commits, and whoever commits would wait for it. So
//! another thread follows the log in passes, each shorter than the one before. The last few pages are the
//! writer's: the log starts from its beginning again only when all of it is folded, and while others write that
//! is never so. Nothing here decides what is durable; a commit is durable in the log.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use rusqlite::Connection;

use crate::error::{Result, StoreError};

/// Pages in the log from which on it is folded: 16 MiB.
const BEGIN: u32 = 2_048;
/// Pages that the writer folds itself: 2 MiB.
const REST: u32 = 256;
/// Pages between two tries of the writer, when a reader still needed the log.
const AGAIN: u32 = 128;
/// Pages in the log from which on the writer does not rely on the other thread any more: 128 MiB.
const LIMIT: u32 = 16_384;

/// The writer's side.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Pages in the log after the last commit.
    log: Arc<AtomicU32>,
    seen: u32,
    stage: Stage,
    /// Only a few pages are left to fold.
    is_near: Arc<AtomicBool>,
    requests: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The log is short.
    Short,
    /// The other thread is folding.
    Following,
    /// All was folded when the log had so many pages; the next commit starts the log again unless somebody reads.
    Folded(u32),
}

impl Checkpoints {
    /// Begins to watch the log of the writer's connection `db`; `beside` folds it. `failed` is called when a
    /// checkpoint cannot be written.
    pub(crate) fn start(db: &mut Connection, beside: Connection, failed: impl Fn() + Send + 'static) -> Result<Self> {
        let log = Arc::new(AtomicU32::new(0));
        let pages = Arc::clone(&log);
        // In place of SQLite's own, which folds within a commit.
        db.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, now: std::ffi::c_int| {
            pages.store(now.cast_unsigned(), Ordering::Relaxed);
            Ok(())
        }))?;
        let is_near = Arc::new(AtomicBool::new(false));
        let near = Arc::clone(&is_near);
        let (requests, asked) = mpsc::channel();
        let thread = std::thread::Builder::new().name("store-checkpoint".to_owned()).spawn(move || {
            while asked.recv().is_ok() {
                match follow(&beside) {
                    // On a full disk nothing is lost; the writer tries again later.
                    Ok(()) | Err(StoreError::DiskFull | StoreError::Busy) => near.store(true, Ordering::Release),
                    Err(error) => {
                        tracing::error!(%error, "the log could not be folded into the database");
                        failed();
                        return;
                    }
                }
            }
        })?;
        Ok(Self { log, seen: 0, stage: Stage::Short, is_near, requests: Some(requests), thread: Some(thread) })
    }

    /// Looks at the log after a commit of `db`, outside any transaction.
    ///
    /// # Errors
    /// When the writer's own part of a checkpoint cannot be written.
    pub(crate) fn after_commit(&mut self, db: &Connection) -> Result<()> {
        let log = self.log.load(Ordering::Relaxed);
        if log < self.seen {
            self.stage = Stage::Short;
        }
        self.seen = log;
        match self.stage {
            Stage::Short if log >= BEGIN => {
                self.is_near.store(false, Ordering::Relaxed);
                // Where the thread is gone it has called `failed`.
                self.requests.iter().for_each(|requests| requests.send(()).unwrap_or_default());
                self.stage = Stage::Following;
            }
            Stage::Following if log >= LIMIT || self.is_near.load(Ordering::Acquire) => self.fold(db)?,
            Stage::Folded(at) if log >= at + AGAIN => self.fold(db)?,
            Stage::Short | Stage::Following | Stage::Folded(_) => {}
        }
        Ok(())
    }

    fn fold(&mut self, db: &Connection) -> Result<()> {
        self.stage = Stage::Folded(self.seen);
        match passive(db) {
            Ok(_) => Ok(()),
            Err(StoreError::DiskFull) => {
                tracing::warn!("the disk is full: the log cannot be folded into the database and grows on");
                Ok(())
            }
            Err(StoreError::Busy) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Checkpoints {
    /// Ends the thread before the writer's connection closes: the one that closes last folds the whole log.
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's checkpoints ended in a panic");
        }
    }
}

/// Folds until little is left, or until readers keep the rest.
fn follow(db: &Connection) -> Result<()> {
    let mut folded = 0;
    loop {
        let reached = passive(db)?;
        // A log that was started again meanwhile counts from its beginning.
        let pass = if reached >= folded { reached - folded } else { reached };
        if pass <= REST {
            return Ok(());
        }
        folded = reached;
    }
}

/// Folds what no reader needs in the log, without waiting for anybody; gives the pages folded so far.
fn passive(db: &Connection) -> Result<u32> {
    let folded: i64 = db.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |row| row.get(2))?;
    Ok(u32::try_from(folded).unwrap_or(0))
}
