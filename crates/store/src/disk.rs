//! Room on the disk: events are refused before it is full, and a reserve makes room to recover.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Store;
use crate::error::{Result, StoreError};

/// Size of the reserve file. Measured: a full disk refuses even deletes, so room must be kept back for them.
const RESERVE_BYTES: u64 = 64 << 20;
/// Free space that the log and the spool need, whatever pages of the database can be written again: 256 MiB.
const LOG_BYTES: u64 = 256 << 20;
/// Share of the disk that may be used before events are refused, in percent.
const STOP_PERCENT: u64 = 90;
/// Share of the disk that may be used before a warning, in percent.
const WARN_PERCENT: u64 = 80;

/// How full the disk under the data folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskState {
    /// Free bytes for this user.
    pub free: u64,
    /// Size of the file system in bytes.
    pub total: u64,
    /// Whether it is time to warn: more than 80 % is used.
    pub warn: bool,
    /// Whether events are refused: more than 90 % is used and less than ten times the least free space is
    /// left, or less than the least free space is left.
    pub full: bool,
}

/// Watches the disk.
#[derive(Debug)]
pub(crate) struct DiskGuard {
    folder: PathBuf,
    min_free: u64,
    full: AtomicBool,
    free: AtomicU64,
}

impl DiskGuard {
    pub(crate) fn open(database: &Path, min_free: u64) -> Result<Self> {
        let folder = database.parent().unwrap_or(Path::new(".")).to_owned();
        let guard = Self { folder, min_free, full: AtomicBool::new(false), free: AtomicU64::new(0) };
        guard.look(0)?;
        Ok(guard)
    }

    fn reserve(&self) -> PathBuf {
        self.folder.join("reserve")
    }

    /// Looks at the disk; gives the reserve free when it is full, and takes it again when there is room. `reusable`
    /// bytes of the database are free for new rows: the file does not shrink when events expire.
    fn look(&self, reusable: u64) -> Result<DiskState> {
        let stat = rustix::fs::statvfs(&self.folder).map_err(std::io::Error::from)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let used_percent = 100 - free.saturating_mul(100) / total.max(1);
        // A share alone would stop a large disk with plenty of room.
        let room = free.saturating_add(reusable);
        let short = used_percent >= STOP_PERCENT && room < self.min_free.saturating_mul(10);
        let full = short || room < self.min_free || free < self.min_free.min(LOG_BYTES);
        let state = DiskState { free, total, warn: used_percent >= WARN_PERCENT, full };
        self.full.store(state.full, Ordering::Relaxed);
        self.free.store(free, Ordering::Relaxed);
        if state.full {
            drop(std::fs::remove_file(self.reserve()));
        } else if free > self.min_free.saturating_add(4 * RESERVE_BYTES) && !self.has_reserve() {
            self.take_reserve()?;
        }
        Ok(state)
    }

    /// Refuses what would write so many bytes when events would be refused afterwards for want of room.
    pub(crate) fn refuse_without_room(&self, bytes: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.folder).map_err(std::io::Error::from)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= bytes.saturating_add(self.min_free) {
            return Ok(());
        }
        Err(StoreError::Conflict(format!(
            "there is no room: {} MiB are needed, {} MiB are free, and {} MiB of these are kept for events",
            bytes.div_ceil(1 << 20),
            free >> 20,
            self.min_free >> 20
        )))
    }

    /// Whether the reserve is whole: a crash may have left a part of it.
    fn has_reserve(&self) -> bool {
        std::fs::metadata(self.reserve()).is_ok_and(|reserve| reserve.len() == RESERVE_BYTES)
    }

    /// Written, not only sized: a hole in a file keeps nothing back.
    fn take_reserve(&self) -> Result<()> {
        let mut file = File::create(self.reserve())?;
        let file_system_allocates =
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES).is_ok();
        if !file_system_allocates {
            let zeros = vec![0; 1 << 20];
            for _ in 0..RESERVE_BYTES >> 20 {
                file.write_all(&zeros)?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// Looks at the disk and decides whether events are accepted.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub async fn check_disk(&self) -> Result<DiskState> {
        let store = self.clone();
        self.read(move |db| {
            let pages: i64 = db.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
            let size: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
            store.disk().look(pages.saturating_mul(size).cast_unsigned())
        })
        .await
    }

    /// Free bytes at the last look, and whether events are refused.
    #[must_use]
    pub fn disk_free(&self) -> (u64, bool) {
        (self.disk().free.load(Ordering::Relaxed), self.disk().full.load(Ordering::Relaxed))
    }

    pub(crate) fn refuse_when_full(&self) -> Result<()> {
        if self.disk().full.load(Ordering::Relaxed) { Err(StoreError::DiskFull) } else { Ok(()) }
    }
}
