//! Destinations: databases with tables that syncs load.
//!
//! A destination holds its own position of each sync and table and moves it in the transaction that writes the rows.
//! That position is the one that counts: ours, in the store, is a hint. What the tables look like is the
//! destination's to keep: the catalogue of their columns stands beside them.

mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use linkspan_model::Timestamp;
use linkspan_model::destination::DestinationSpec;
use linkspan_model::rows::Row;
use linkspan_model::sync::Target;
use serde_json::{Map, Value};

use self::sqlite::SqliteDestination;

/// Why a destination cannot be loaded or read.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// The file or its place is not one that we may use.
    #[error("destination {path}: {reason}")]
    Place {
        /// The path in the document.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The name of a schema or table is not one.
    #[error("`{0}` is not a table name of the form schema.table")]
    Name(String),
    /// Another program holds the database.
    #[error("destination {path} is locked by another program; what needs it goes on when it is free")]
    Busy {
        /// The path in the document.
        path: String,
    },
    /// The database refused.
    #[error("destination {path}: {source}")]
    Database {
        /// The path in the document.
        path: String,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The work on it ended early.
    #[error("the work on a destination ended early: {0}")]
    Ended(String),
}

/// The name of a table: `schema.table`, each part `[A-Za-z_][A-Za-z0-9_]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    schema: String,
    table: String,
}

impl TableName {
    /// The table `schema.table`.
    ///
    /// # Errors
    /// `Name` when a part is not an identifier.
    pub fn new(schema: &str, table: &str) -> Result<Self, DestinationError> {
        let is_identifier = |part: &str| {
            part.len() <= 63
                && !part.starts_with(|c: char| c.is_ascii_digit())
                && !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if is_identifier(schema) && is_identifier(table) {
            Ok(Self { schema: schema.to_owned(), table: table.to_owned() })
        } else {
            Err(DestinationError::Name(format!("{schema}.{table}").chars().take(200).collect()))
        }
    }

    /// The table that a sync loads.
    ///
    /// # Errors
    /// `Name` when a part is not an identifier.
    pub fn of(target: &Target) -> Result<Self, DestinationError> {
        Self::new(&target.schema, &target.table)
    }

    /// `schema.table`.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// The rows of one stretch of the log, to be loaded together with the position after it.
pub struct LoadBatch<'a> {
    /// The sync's id.
    pub sync: &'a str,
    /// The table.
    pub table: &'a TableName,
    /// The position after the stretch.
    pub last: u64,
    /// Where the position stands afterwards.
    pub turn: Turn,
    /// The rows of the event at this place of the stretch, `None` after the last one. They are asked for in order, and
    /// again from the first one when the load is tried again: a batch of events is bounded, its rows together are not.
    pub rows_of: &'a dyn Fn(usize) -> Option<Vec<Row>>,
    /// When the run began.
    pub synced_at: Timestamp,
}

/// Which batch it is that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The next one: the position moves to its end.
    Next,
    /// One that was set aside, while others went on: the position stays.
    Late,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows of it.
    pub rows: u64,
    /// Values of keys that have no column, which stand in the column of the rest.
    pub left_out: u64,
    /// Some of these keys.
    pub left_out_keys: BTreeSet<String>,
}

/// How far a table has come with a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The position that is kept beside the table.
    pub seq: u64,
    /// Whether the table is there.
    pub is_there: bool,
    /// Whether it is there without a row.
    pub is_empty: bool,
}

/// A table and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name in the schema.
    pub table: String,
    /// Rows in it.
    pub rows: u64,
}

/// A column of a table, as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownColumn {
    /// Its name.
    pub name: String,
    /// `bool`, `int64`, `decimal`, `text`, `json`; empty while only nulls have come.
    pub kind: &'static str,
}

/// A page of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The columns, in order.
    pub columns: Vec<ShownColumn>,
    /// The rows as objects by column, in the order in which they were loaded. Decimals stay the texts that were sent.
    pub rows: Vec<Map<String, Value>>,
    /// Rows in the whole table.
    pub total: u64,
}

/// A database with tables. Its methods block; they are called away from the threads that serve requests.
pub trait Destination: Send {
    /// The position up to which a sync's events are in a table, 0 before the first, and what is seen of the table.
    ///
    /// # Errors
    /// When the database refuses.
    fn position(&mut self, sync: &str, table: &TableName) -> Result<Position, DestinationError>;

    /// Forgets the position of a sync in a table, so that it is filled again.
    ///
    /// # Errors
    /// When the database refuses.
    fn forget_position(&mut self, sync: &str, table: &TableName) -> Result<(), DestinationError>;

    /// Loads rows and moves the position in one transaction. A row that is there already is replaced by the same.
    ///
    /// # Errors
    /// When the database refuses; then nothing of the batch is there.
    fn load(&mut self, batch: &LoadBatch<'_>) -> Result<Loaded, DestinationError>;

    /// What is damaged in the database, at most ten faults; reads all of it.
    ///
    /// # Errors
    /// When the database refuses.
    fn check(&mut self) -> Result<Vec<String>, DestinationError>;

    /// The tables, by name.
    ///
    /// # Errors
    /// When the database refuses.
    fn tables(&mut self) -> Result<Vec<Table>, DestinationError>;

    /// A page of a table; `None` when there is no such table. It may hold fewer rows than `limit` when they are
    /// large, but at least one.
    ///
    /// # Errors
    /// When the database refuses.
    fn page(&mut self, table: &TableName, offset: u64, limit: u32) -> Result<Option<Page>, DestinationError>;
}

/// Opens a destination for loading, making it when it is not there. `folder` is where SQLite files stand. Blocks.
///
/// # Errors
/// When it is not a place or a database that we may use.
pub fn open(folder: &Path, spec: &DestinationSpec) -> Result<Box<dyn Destination>, DestinationError> {
    match spec {
        DestinationSpec::Sqlite(sqlite) => Ok(Box::new(SqliteDestination::create(folder, &sqlite.path)?)),
    }
}

fn open_existing(folder: &Path, spec: &DestinationSpec) -> Result<Option<Box<dyn Destination>>, DestinationError> {
    match spec {
        DestinationSpec::Sqlite(sqlite) => {
            let found = SqliteDestination::existing(folder, &sqlite.path)?;
            Ok(found.map(|found| Box::new(found) as Box<dyn Destination>))
        }
    }
}

/// The tables of a destination; none before the first load.
///
/// # Errors
/// When the database refuses.
pub async fn tables(folder: PathBuf, spec: DestinationSpec) -> Result<Vec<Table>, DestinationError> {
    blocking(move || match open_existing(&folder, &spec)? {
        Some(mut destination) => destination.tables(),
        None => Ok(Vec::new()),
    })
    .await
}

/// What is damaged in a destination; nothing before the first load.
///
/// # Errors
/// When the database refuses.
pub async fn check(folder: PathBuf, spec: DestinationSpec) -> Result<Vec<String>, DestinationError> {
    blocking(move || match open_existing(&folder, &spec)? {
        Some(mut destination) => destination.check(),
        None => Ok(Vec::new()),
    })
    .await
}

/// A page of a table; `None` when there is no such table.
///
/// # Errors
/// When the database refuses.
pub async fn page(
    folder: PathBuf,
    spec: DestinationSpec,
    table: TableName,
    offset: u64,
    limit: u32,
) -> Result<Option<Page>, DestinationError> {
    blocking(move || match open_existing(&folder, &spec)? {
        Some(mut destination) => destination.page(&table, offset, limit),
        None => Ok(None),
    })
    .await
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, DestinationError> + Send + 'static,
) -> Result<T, DestinationError> {
    tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(DestinationError::Ended(error.to_string())))
}
