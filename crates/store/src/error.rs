//! What can go wrong in the store, in the terms of whoever called it.

use linkspan_model::Fault;

/// Why an operation did not happen. Unless a variant says otherwise, nothing of it was kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The writer's queue is full by count or by bytes; try again shortly.
    #[error("the store's queue is full")]
    Overloaded,
    /// The commit did not begin within its deadline; the operation was withdrawn.
    #[error("the store did not take the event within its deadline")]
    Deadline,
    /// The disk is full, or about to be.
    #[error("the disk is full")]
    DiskFull,
    /// Another process holds the database; try again shortly.
    #[error("another process holds the database")]
    Busy,
    /// An earlier write to the disk failed: nothing is acknowledged any more until the process is started again.
    #[error("the store has stopped after a failed write; restart to recover from the log")]
    Poisoned,
    /// What was asked for does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// It exists already, or something else stands in the way.
    #[error("{0}")]
    Conflict(String),
    /// The revision is not the one that the caller has seen.
    #[error("the revision is now {current}, not {expected}")]
    Revision {
        /// The revision that the caller named.
        expected: u64,
        /// The revision that is stored.
        current: u64,
    },
    /// Documents are wrong.
    #[error("{} of the documents' fields are wrong", .0.len())]
    Invalid(Vec<Fault>),
    /// Another worker has the job now; whatever this one did must not be recorded.
    #[error("the lease on the job was lost")]
    Fenced,
    /// The data folder, the key or the database is not what it should be.
    #[error("{0}")]
    Unusable(String),
    /// The database refused; a fault of this program or of the disk.
    #[error("database: {0}")]
    Database(String),
}

/// `SQLITE_IOERR_SHMOPEN`, `SQLITE_IOERR_SHMSIZE`, `SQLITE_IOERR_SHMMAP`.
const SHM_FULL: [i32; 3] = [10 | (18 << 8), 10 | (19 << 8), 10 | (21 << 8)];

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            Some(rusqlite::ErrorCode::DatabaseBusy) => Self::Busy,
            // The index of the log cannot grow. Nothing was written yet.
            _ if error.sqlite_error().is_some_and(|error| SHM_FULL.contains(&error.extended_code)) => Self::DiskFull,
            _ => Self::Database(error.to_string()),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Unusable(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Database(format!("a stored JSON text does not read back: {error}"))
    }
}

/// The result of an operation on the store.
pub type Result<T> = std::result::Result<T, StoreError>;
