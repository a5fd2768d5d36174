//! A SQLite file as a destination.
//!
//! SQLite has no schemas: a table is literally named `schema.table`. Columns have no declared type, so that SQLite
//! never converts a value; what they hold says our catalogue `_linkspan_columns`. Whole numbers within 64 bits are
//! integers, truth values 0 and 1, everything else is text exactly as written. When a column widens, the values that
//! stand in it are rewritten, so that a table does not depend on how its events were cut into batches.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use linkspan_model::rows::{Cell, Column, ColumnType, Columns, Row, SYSTEM_COLUMNS};
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior, params};
use serde_json::{Map, Value};

use super::{Destination, DestinationError, LoadBatch, Loaded, Page, ShownColumn, Table, TableName};

/// How long SQLite itself waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a transaction is tried while another program holds the database: half a minute in all.
const BUSY_ATTEMPTS: u32 = 6;
/// Most bytes of values in one page: 16 MiB.
const PAGE_BYTES: usize = 16 << 20;

/// A SQLite file below the folder of destinations.
pub(super) struct SqliteDestination {
    db: Connection,
    path: String,
}

impl SqliteDestination {
    /// Opens the file for loading, making it when it is not there.
    pub(super) fn create(folder: &Path, path: &str) -> Result<Self, DestinationError> {
        let file = place(folder, path)?;
        let made = |error: std::io::Error| refused(path, format!("its folder cannot be made: {error}"));
        fs::create_dir_all(file.parent().unwrap_or(folder)).map_err(made)?;
        stays_inside(folder, &file, path)?;
        let destination =
            Self { db: Connection::open(&file).map_err(|error| fault(path, error))?, path: path.to_owned() };
        destination.configure().map_err(|error| fault(path, error))?;
        Ok(destination)
    }

    /// Opens the file for reading; `None` when it is not there.
    pub(super) fn existing(folder: &Path, path: &str) -> Result<Option<Self>, DestinationError> {
        let file = place(folder, path)?;
        if !file.exists() {
            return Ok(None);
        }
        stays_inside(folder, &file, path)?;
        let open = || {
            let db = Connection::open_with_flags(
                &file,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            db.pragma_update(None, "query_only", true)?;
            Ok(db)
        };
        let db = open().map_err(|error| fault(path, error))?;
        Ok(Some(Self { db, path: path.to_owned() }))
    }

    fn configure(&self) -> rusqlite::Result<()> {
        self.db.busy_timeout(BUSY_TIMEOUT)?;
        match self.db.pragma_update(None, "journal_mode", "WAL") {
            // Somebody reads it in another mode, which serves as well.
            Err(error) if is_busy(&error) => {}
            outcome => outcome?,
        }
        self.db.pragma_update(None, "synchronous", "FULL")?;
        self.db.pragma_update(None, "trusted_schema", false)
    }

    fn fault(&self, error: rusqlite::Error) -> DestinationError {
        fault(&self.path, error)
    }
}

impl Destination for SqliteDestination {
    fn position(&mut self, sync: &str, table: &TableName) -> Result<u64, DestinationError> {
        position(&self.db, sync, table).map_err(|error| self.fault(error))
    }

    fn load(&mut self, batch: &LoadBatch<'_>) -> Result<Loaded, DestinationError> {
        let mut attempt = 1;
        loop {
            match load(&mut self.db, batch) {
                Err(error) if is_busy(&error) && attempt < BUSY_ATTEMPTS => attempt += 1,
                outcome => return outcome.map_err(|error| self.fault(error)),
            }
        }
    }

    fn tables(&mut self) -> Result<Vec<Table>, DestinationError> {
        tables(&self.db).map_err(|error| self.fault(error))
    }

    fn page(&mut self, table: &TableName, offset: u64, limit: u32) -> Result<Option<Page>, DestinationError> {
        // Columns, rows and their number as of one moment.
        let read = || {
            let moment = self.db.unchecked_transaction()?;
            page(&moment, table, offset, limit)
        };
        read().map_err(|error| self.fault(error))
    }
}

/// The file at `path` below `folder`.
fn place(folder: &Path, path: &str) -> Result<PathBuf, DestinationError> {
    let is_plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if !path.split('/').all(is_plain) {
        return Err(refused(path, "it is not a relative path without `..`".to_owned()));
    }
    if ["-wal", "-shm", "-journal"].iter().any(|end| path.ends_with(end)) {
        return Err(refused(path, "a file of that name would be taken for the log of another".to_owned()));
    }
    Ok(folder.join(path))
}

/// A link must not lead to our own database or anywhere else outside.
fn stays_inside(folder: &Path, file: &Path, path: &str) -> Result<(), DestinationError> {
    let outside = || refused(path, "it leads out of the folder of destinations".to_owned());
    let root = folder.canonicalize().map_err(|_| outside())?;
    let existing = if file.exists() { file } else { file.parent().unwrap_or(folder) };
    let is_link_to_nowhere = fs::symlink_metadata(file).is_ok() && !file.exists();
    match existing.canonicalize() {
        Ok(real) if real.starts_with(&root) && !is_link_to_nowhere => Ok(()),
        _ => Err(outside()),
    }
}

fn refused(path: &str, reason: String) -> DestinationError {
    DestinationError::Place { path: path.to_owned(), reason }
}

fn fault(path: &str, error: rusqlite::Error) -> DestinationError {
    let path = path.to_owned();
    if is_busy(&error) { DestinationError::Busy { path } } else { DestinationError::Database { path, source: error } }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// A name as SQL. Ours are plain, but what stands in a catalogue may have been changed by others.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn position(db: &Connection, sync: &str, table: &TableName) -> rusqlite::Result<u64> {
    if !exists(db, "_linkspan_positions")? {
        return Ok(0);
    }
    let seq: Option<i64> = db
        .query_row(
            "SELECT seq FROM _linkspan_positions WHERE sync = ?1 AND \"table\" = ?2",
            params![sync, table.full()],
            |row| row.get(0),
        )
        .optional()?;
    Ok(seq.unwrap_or(0).cast_unsigned())
}

fn exists(db: &Connection, table: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?.exists([table])
}

fn load(db: &mut Connection, batch: &LoadBatch<'_>) -> rusqlite::Result<Loaded> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS _linkspan_columns (
             \"table\" TEXT NOT NULL COLLATE NOCASE, place INTEGER NOT NULL, source TEXT NOT NULL, name TEXT NOT NULL,
             type TEXT NOT NULL, PRIMARY KEY (\"table\", source)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS _linkspan_positions (
             sync TEXT NOT NULL, \"table\" TEXT NOT NULL COLLATE NOCASE, seq INTEGER NOT NULL,
             PRIMARY KEY (sync, \"table\")) WITHOUT ROWID;",
    )?;
    if position(&transaction, batch.sync, batch.table)? >= batch.last {
        return Ok(Loaded::Before);
    }
    let before = catalogue(&transaction, batch.table)?;
    let mut columns = before.clone();
    let left_out: usize = batch.rows.iter().map(|row| columns.learn(row).left_out).sum();
    shape_table(&transaction, batch.table, &before, &columns)?;
    keep_catalogue(&transaction, batch.table, &before, &columns)?;
    insert(&transaction, batch, &columns)?;
    transaction.execute(
        "INSERT OR REPLACE INTO _linkspan_positions (sync, \"table\", seq) VALUES (?1, ?2, ?3)",
        params![batch.sync, batch.table.full(), batch.last.cast_signed()],
    )?;
    transaction.commit()?;
    Ok(Loaded::Now { left_out: left_out as u64 })
}

fn catalogue(db: &Connection, table: &TableName) -> rusqlite::Result<Columns> {
    if !exists(db, "_linkspan_columns")? {
        return Ok(Columns::new());
    }
    let mut statement =
        db.prepare("SELECT source, name, type FROM _linkspan_columns WHERE \"table\" = ?1 ORDER BY place")?;
    let columns = statement.query_map([table.full()], |row| {
        let column_type: String = row.get(2)?;
        let column_type = type_named(&column_type);
        Ok(serde_json::json!(Column { source: row.get(0)?, name: row.get(1)?, column_type }))
    })?;
    let columns: Vec<Value> = columns.collect::<rusqlite::Result<_>>()?;
    serde_json::from_value(Value::Array(columns))
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))
}

/// The name of a type in the catalogue and in pages; empty for none yet.
const fn type_name(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Null => "",
        ColumnType::Bool => "bool",
        ColumnType::Int => "int64",
        ColumnType::Decimal => "decimal",
        ColumnType::Json => "json",
        ColumnType::Text => "text",
    }
}

/// What is unknown holds anything, as text does.
fn type_named(name: &str) -> ColumnType {
    use ColumnType::{Bool, Decimal, Int, Json, Null, Text};
    [Null, Bool, Int, Decimal, Json].into_iter().find(|column_type| type_name(*column_type) == name).unwrap_or(Text)
}

/// The names of a table's columns, in order; none when there is no table.
fn columns_of(db: &Connection, table: &TableName) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare("SELECT name FROM pragma_table_info(?1)")?;
    statement.query_map([table.full()], |row| row.get(0))?.collect()
}

fn shape_table(db: &Connection, table: &TableName, before: &Columns, after: &Columns) -> rusqlite::Result<()> {
    let name = quoted(&table.full());
    let there = columns_of(db, table)?;
    if there.is_empty() {
        let own: String = after.iter().map(|column| format!(", {}", quoted(&column.name))).collect();
        return db.execute_batch(&format!(
            "CREATE TABLE {name} (\"_id\" NOT NULL, \"_index\" NOT NULL, \"_received_at\" NOT NULL,
                 \"_synced_at\" NOT NULL{own}, PRIMARY KEY (\"_id\", \"_index\"))"
        ));
    }
    for column in after.iter() {
        if !there.iter().any(|name| name.eq_ignore_ascii_case(&column.name)) {
            db.execute_batch(&format!("ALTER TABLE {name} ADD COLUMN {}", quoted(&column.name)))?;
        }
    }
    for column in after.iter() {
        let old = before.by_source(&column.source).map_or(column.column_type, |old| old.column_type);
        if let Some(value) = rewritten(old, column.column_type, &quoted(&column.name)) {
            let column = quoted(&column.name);
            db.execute_batch(&format!("UPDATE {name} SET {column} = {value} WHERE typeof({column}) = 'integer'"))?;
        }
    }
    Ok(())
}

/// What the integers of a column become when it widens.
fn rewritten(old: ColumnType, new: ColumnType, column: &str) -> Option<String> {
    match (old, new) {
        (ColumnType::Bool, ColumnType::Text) => Some(format!("CASE {column} WHEN 0 THEN 'false' ELSE 'true' END")),
        (ColumnType::Int, ColumnType::Decimal | ColumnType::Text) => Some(format!("CAST({column} AS TEXT)")),
        _ => None,
    }
}

fn keep_catalogue(db: &Connection, table: &TableName, before: &Columns, after: &Columns) -> rusqlite::Result<()> {
    let mut keep = db.prepare(
        "INSERT INTO _linkspan_columns (\"table\", place, source, name, type) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (\"table\", source) DO UPDATE SET type = excluded.type",
    )?;
    for (place, column) in after.iter().enumerate() {
        if before.by_source(&column.source) != Some(column) {
            let place = i64::try_from(place).unwrap_or(i64::MAX);
            keep.execute(params![table.full(), place, column.source, column.name, type_name(column.column_type)])?;
        }
    }
    Ok(())
}

fn insert(db: &Connection, batch: &LoadBatch<'_>, columns: &Columns) -> rusqlite::Result<()> {
    let names: Vec<String> =
        SYSTEM_COLUMNS.into_iter().chain(columns.iter().map(|column| column.name.as_str())).map(quoted).collect();
    let places = vec!["?"; names.len()].join(", ");
    let replaced: Vec<String> = names[2..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let mut statement = db.prepare(&format!(
        "INSERT INTO {} ({}) VALUES ({places}) ON CONFLICT (\"_id\", \"_index\") DO UPDATE SET {}",
        quoted(&batch.table.full()),
        names.join(", "),
        replaced.join(", ")
    ))?;
    let synced_at = batch.synced_at.to_string();
    for row in batch.rows {
        let system = [
            SqlValue::Text(row.id.to_string()),
            SqlValue::Integer(i64::try_from(row.index).unwrap_or(i64::MAX)),
            SqlValue::Text(row.received_at.to_string()),
            SqlValue::Text(synced_at.clone()),
        ];
        let own = columns.iter().map(|column| cell_of(row, column));
        statement.execute(rusqlite::params_from_iter(system.into_iter().chain(own)))?;
    }
    Ok(())
}

/// A row's value in a column, in the form that the column's type asks for.
fn cell_of(row: &Row, column: &Column) -> SqlValue {
    let Some(cell) = row.cells.get(&column.source) else { return SqlValue::Null };
    match (column.column_type, cell) {
        (ColumnType::Bool, Cell::Bool(is)) => SqlValue::Integer(i64::from(*is)),
        (ColumnType::Int, Cell::Int(number)) => SqlValue::Integer(*number),
        _ => cell.to_text().map_or(SqlValue::Null, |text| SqlValue::Text(text.into_owned())),
    }
}

fn tables(db: &Connection) -> rusqlite::Result<Vec<Table>> {
    let mut statement = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut tables = Vec::new();
    for name in names {
        let Some((schema, table)) = name.split_once('.') else { continue };
        let Ok(found) = TableName::new(schema, table) else { continue };
        tables.push(Table { schema: schema.to_owned(), table: table.to_owned(), rows: count(db, &found)? });
    }
    Ok(tables)
}

fn count(db: &Connection, table: &TableName) -> rusqlite::Result<u64> {
    let count: i64 = db.query_row(&format!("SELECT count(*) FROM {}", quoted(&table.full())), [], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

fn page(db: &Connection, table: &TableName, offset: u64, limit: u32) -> rusqlite::Result<Option<Page>> {
    let names = columns_of(db, table)?;
    if names.is_empty() {
        return Ok(None);
    }
    let catalogue = catalogue(db, table)?;
    let types: Vec<ColumnType> = names
        .iter()
        .map(|name| match catalogue.iter().find(|column| column.name.eq_ignore_ascii_case(name)) {
            Some(column) => column.column_type,
            None if name == "_index" => ColumnType::Int,
            None => ColumnType::Text,
        })
        .collect();
    let selected: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    let sql =
        format!("SELECT {} FROM {} ORDER BY rowid LIMIT ?1 OFFSET ?2", selected.join(", "), quoted(&table.full()));
    let mut statement = db.prepare(&sql)?;
    let mut found = statement.query(params![limit, i64::try_from(offset).unwrap_or(i64::MAX)])?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        let mut values = Map::new();
        for (at, (name, column_type)) in names.iter().zip(&types).enumerate() {
            let value = row.get_ref(at)?;
            bytes += size(value);
            values.insert(name.clone(), shown(value, *column_type));
        }
        rows.push(values);
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    let columns =
        names.into_iter().zip(types).map(|(name, column_type)| ShownColumn { name, kind: type_name(column_type) });
    Ok(Some(Page { columns: columns.collect(), rows, total: count(db, table)? }))
}

fn size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 8,
    }
}

fn shown(value: ValueRef<'_>, column_type: ColumnType) -> Value {
    match (value, column_type) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Integer(number), ColumnType::Bool) => Value::Bool(number != 0),
        (ValueRef::Integer(number), _) => Value::from(number),
        (ValueRef::Real(number), _) => Value::from(number),
        (ValueRef::Text(bytes), ColumnType::Json) => {
            serde_json::from_slice(bytes).unwrap_or_else(|_| text_or_base64(bytes))
        }
        (ValueRef::Text(bytes), _) => text_or_base64(bytes),
        (ValueRef::Blob(bytes), _) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
    }
}

/// A text of somebody else's table may be none in UTF-8: then it is shown as bytes are.
fn text_or_base64(bytes: &[u8]) -> Value {
    let encoded = |_| base64::engine::general_purpose::STANDARD.encode(bytes).into();
    std::str::from_utf8(bytes).map_or_else(encoded, Value::from)
}
