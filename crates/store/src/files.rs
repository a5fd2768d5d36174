//! The files of the store, watched from outside: whether they are still those that were opened, and how far the log
//! had come.
//!
//! SQLite cannot tell that its file was removed or another put in its place, and a log whose end was damaged ends
//! earlier for it. Both would lose what was acknowledged in silence.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use linkspan_model::Timestamp;

use crate::error::{Result, StoreError};

/// The database, its log and the folder's lock, as they were when they were opened.
#[derive(Debug)]
pub(crate) struct Files(Vec<(PathBuf, (u64, u64))>);

impl Files {
    /// Notes which files these are.
    pub(crate) fn look(database: &Path, folder: &Path) -> Result<Self> {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let watched = [database.to_owned(), PathBuf::from(log), folder.join("lock")];
        let mut files = Vec::new();
        for path in watched {
            match fs::metadata(&path) {
                Ok(found) => files.push((path, (found.dev(), found.ino()))),
                // Not every store has a folder's lock.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self(files))
    }

    /// Whether they still are.
    pub(crate) fn check(&self) -> Result<()> {
        for (path, inode) in &self.0 {
            let now = fs::metadata(path).map(|found| (found.dev(), found.ino()));
            let fault = match now {
                Ok(now) if now == *inode => continue,
                Ok(_) => "is another file than the one that was opened".to_owned(),
                Err(error) => format!("cannot be found any more: {error}"),
            };
            return Err(StoreError::Unusable(format!(
                "{} {fault}; nothing is accepted any more, because it would go nowhere",
                path.display()
            )));
        }
        Ok(())
    }
}

/// Acknowledged events that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostStretch {
    /// Position of the first.
    pub first: u64,
    /// Position of the last that is known to have been acknowledged.
    pub last: u64,
}

/// A small file beside the database that says how far the log had come, and when. It lags a second behind, so that it never
/// says more than was durable.
#[derive(Debug)]
pub(crate) struct Mark {
    path: PathBuf,
    noted: AtomicU64,
    /// When it was noted last, in microseconds.
    noted_at: AtomicI64,
    lost: Option<LostStretch>,
}

/// How old the time that the mark says becomes at most while nothing else changes.
const TIME_EVERY: Duration = Duration::from_mins(1);

impl Mark {
    /// Reads the mark of a store whose log ends at `last_seq`.
    pub(crate) fn open(folder: &Path, last_seq: u64) -> Result<Self> {
        let path = folder.join("position");
        // One that does not read says nothing.
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut numbers = text.split_whitespace();
        let noted = numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let noted_at = numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let lost = (noted > last_seq).then_some(LostStretch { first: last_seq + 1, last: noted });
        Ok(Self { path, noted: AtomicU64::new(noted), noted_at: AtomicI64::new(noted_at), lost })
    }

    /// The time at which it was noted.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        let noted_at = self.noted_at.load(Ordering::Relaxed);
        (noted_at > 0).then(|| Timestamp::from_micros(noted_at))
    }

    /// The position that it says.
    pub(crate) fn position(&self) -> u64 {
        self.noted.load(Ordering::Relaxed)
    }

    /// What is missing at the end of the log.
    pub(crate) fn lost(&self) -> Option<LostStretch> {
        self.lost
    }

    /// Notes that the log has come to `seq`, which is durable, and the time.
    pub(crate) fn note(&self, seq: u64, now: Timestamp) -> Result<()> {
        let seq = seq.max(self.position());
        let is_young = self.time().is_some_and(|noted| now >= noted && now < noted.after(TIME_EVERY));
        if seq == self.position() && is_young {
            return Ok(());
        }
        // Not synced: after a power cut an older mark only says less.
        let partial = self.path.with_extension("part");
        fs::write(&partial, format!("{seq} {}\n", now.as_micros()))?;
        fs::rename(&partial, &self.path)?;
        self.noted.store(seq, Ordering::Relaxed);
        self.noted_at.store(now.as_micros(), Ordering::Relaxed);
        Ok(())
    }
}
