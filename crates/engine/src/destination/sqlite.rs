//! A SQLite file as a destination.
//!
//! SQLite has no schemas: a table is literally named `schema.table`. Columns have no declared type, so that SQLite
//! never converts a value; what they hold says our catalogue `_linkspan_columns`. Whole numbers within 64 bits are
//! integers, truth values 0 and 1, everything else is text exactly as written. A column that has had both holds the
//! one that came first as integers ([`Integers`]), the other as text. So nothing that stands in a column changes when
//! it widens, and a table does not depend on how its events were cut into batches.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use linkspan_model::limits::COLUMN_KEY_BYTES;
use linkspan_model::rows::{Cell, Column, ColumnType, Columns, Integers, Learnt, Row, SYSTEM_COLUMNS};
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior, params};
use serde_json::{Map, Value};

use super::{Destination, DestinationError, LoadBatch, Loaded, Page, Position, ShownColumn, Table, TableName, Turn};

/// How long SQLite itself waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a transaction is tried while another program holds the database: half a minute in all.
const BUSY_ATTEMPTS: u32 = 6;
/// How long a reader waits for a lock: a page is an answer that somebody waits for.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Most bytes of values in one page: 16 MiB.
const PAGE_BYTES: usize = 16 << 20;
/// Rows that are held at a time while a batch is loaded, and bytes of their values; one event may have more.
const HELD_ROWS: usize = 1_000;
const HELD_BYTES: usize = 1 << 20;

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
            db.busy_timeout(READ_TIMEOUT)?;
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
    fn position(&mut self, sync: &str, table: &TableName) -> Result<Position, DestinationError> {
        position(&self.db, sync, table).map_err(|error| self.fault(error))
    }

    fn forget_position(&mut self, sync: &str, table: &TableName) -> Result<(), DestinationError> {
        let forget = || {
            if exists(&self.db, "_linkspan_positions")? {
                let key = params![sync, table.full()];
                self.db.execute("DELETE FROM _linkspan_positions WHERE sync = ?1 AND \"table\" = ?2", key)?;
            }
            Ok(())
        };
        forget().map_err(|error| self.fault(error))
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

    fn check(&mut self) -> Result<Vec<String>, DestinationError> {
        let check = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.db.prepare("PRAGMA integrity_check(10)")?;
            let found = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            Ok(found.into_iter().filter(|fault| fault != "ok").collect())
        };
        match check() {
            // What the check itself stumbles over is damage too.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => Ok(vec![error.to_string()]),
            outcome => outcome.map_err(|error| self.fault(error)),
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

fn position(db: &Connection, sync: &str, table: &TableName) -> rusqlite::Result<Position> {
    let is_there = exists(db, &table.full())?;
    let is_empty = is_there && !db.prepare(&format!("SELECT 1 FROM {} LIMIT 1", quoted(&table.full())))?.exists([])?;
    if !exists(db, "_linkspan_positions")? {
        return Ok(Position { seq: 0, is_there, is_empty });
    }
    let seq: Option<i64> = db
        .query_row(
            "SELECT seq FROM _linkspan_positions WHERE sync = ?1 AND \"table\" = ?2",
            params![sync, table.full()],
            |row| row.get(0),
        )
        .optional()?;
    Ok(Position { seq: seq.unwrap_or(0).max(0).cast_unsigned(), is_there, is_empty })
}

fn exists(db: &Connection, table: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?.exists([table])
}

fn load(db: &mut Connection, batch: &LoadBatch<'_>) -> rusqlite::Result<Loaded> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS _linkspan_columns (
             \"table\" TEXT NOT NULL COLLATE NOCASE, place INTEGER NOT NULL, source TEXT NOT NULL, name TEXT NOT NULL,
             type TEXT NOT NULL, integers TEXT, PRIMARY KEY (\"table\", source)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS _linkspan_positions (
             sync TEXT NOT NULL, \"table\" TEXT NOT NULL COLLATE NOCASE, seq INTEGER NOT NULL,
             PRIMARY KEY (sync, \"table\")) WITHOUT ROWID;",
    )?;
    if !says_integers(&transaction)? {
        transaction.execute_batch("ALTER TABLE _linkspan_columns ADD COLUMN integers TEXT")?;
    }
    // A table that others dropped begins anew: its old columns would only be empty ones.
    if !exists(&transaction, &batch.table.full())? {
        transaction.execute("DELETE FROM _linkspan_columns WHERE \"table\" = ?1", [batch.table.full()])?;
    }
    let mut columns = catalogue(&transaction, batch.table)?;
    let mut loaded = Loaded::default();
    let mut learnt = Learnt::default();
    let (mut at, mut is_shaped) = (0, false);
    loop {
        let rows = next_rows(batch, &mut at);
        if rows.is_empty() && is_shaped {
            break;
        }
        let before = columns.clone();
        let mut news = Learnt::default();
        rows.iter().for_each(|row| news.add(columns.learn(row)));
        // Also the first time when nothing is new: others may have dropped a column.
        if !is_shaped || news.changed > 0 || (news.left_out > 0 && learnt.left_out == 0) {
            shape_table(&transaction, batch.table, &columns, news.left_out > 0)?;
            keep_catalogue(&transaction, batch.table, &before, &columns)?;
            is_shaped = true;
        }
        insert(&transaction, batch, &columns, &rows, news.left_out > 0 || learnt.left_out > 0)?;
        loaded.rows += rows.len() as u64;
        learnt.add(news);
    }
    if batch.turn == Turn::Next {
        transaction.execute(
            "INSERT OR REPLACE INTO _linkspan_positions (sync, \"table\", seq) VALUES (?1, ?2, ?3)",
            params![batch.sync, batch.table.full(), batch.last.cast_signed()],
        )?;
    }
    transaction.commit()?;
    Ok(Loaded { left_out: learnt.left_out, left_out_keys: learnt.left_out_keys, ..loaded })
}

/// The rows of the next events, as many as are held at a time; none after the last event.
fn next_rows(batch: &LoadBatch<'_>, at: &mut usize) -> Vec<Row> {
    let (mut held, mut bytes) = (Vec::new(), 0);
    while held.len() < HELD_ROWS && bytes < HELD_BYTES {
        let Some(rows) = (batch.rows_of)(*at) else { break };
        *at += 1;
        bytes += rows.iter().flat_map(|row| &row.cells).map(|(key, cell)| key.len() + cell.size()).sum::<usize>();
        held.extend(rows);
    }
    held
}

/// Whether the catalogue says what integers mean. In the first ones of ours they were rewritten instead.
fn says_integers(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare("SELECT 1 FROM pragma_table_info('_linkspan_columns') WHERE name = 'integers'")?.exists([])
}

fn catalogue(db: &Connection, table: &TableName) -> rusqlite::Result<Columns> {
    if !exists(db, "_linkspan_columns")? {
        return Ok(Columns::new());
    }
    let integers = if says_integers(db)? { "integers" } else { "NULL" };
    // A key that is longer than a column's may be is not read: only its name is taken.
    let mut statement = db.prepare(&format!(
        "SELECT CASE WHEN octet_length(source) <= ?2 THEN source END, name, type, {integers}
         FROM _linkspan_columns WHERE \"table\" = ?1 ORDER BY place"
    ))?;
    let mut rows = statement.query(params![table.full(), COLUMN_KEY_BYTES as i64])?;
    let (mut columns, mut reserved) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (source, name): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        let column_type = type_named(&row.get::<_, String>(2)?);
        let integers = match (row.get::<_, Option<String>>(3)?.as_deref(), column_type) {
            (Some("bool"), _) | (None, ColumnType::Bool) => Integers::Bool,
            (Some("int64"), _) | (None, ColumnType::Int) => Integers::Int,
            _ => Integers::Unused,
        };
        match source {
            Some(source) => columns.push(Column { source, name, column_type, integers }),
            None => reserved.push(name),
        }
    }
    Ok(Columns::restore(columns, reserved))
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

/// Makes the table, or adds the columns that it lacks.
fn shape_table(db: &Connection, table: &TableName, columns: &Columns, has_rest: bool) -> rusqlite::Result<()> {
    let name = quoted(&table.full());
    let there = columns_of(db, table)?;
    let rest = has_rest.then(|| columns.rest_name());
    let own = columns.iter().map(|column| column.name.as_str()).chain(rest);
    if there.is_empty() {
        let own: String = own.map(|column| format!(", {}", quoted(column))).collect();
        return db.execute_batch(&format!(
            "CREATE TABLE {name} (\"_id\" NOT NULL, \"_index\" NOT NULL, \"_received_at\" NOT NULL,
                 \"_synced_at\" NOT NULL{own}, PRIMARY KEY (\"_id\", \"_index\"))"
        ));
    }
    let there: HashSet<String> = there.into_iter().map(|name| name.to_ascii_lowercase()).collect();
    for column in own.filter(|column| !there.contains(&column.to_ascii_lowercase())) {
        db.execute_batch(&format!("ALTER TABLE {name} ADD COLUMN {}", quoted(column)))?;
    }
    Ok(())
}

fn keep_catalogue(db: &Connection, table: &TableName, before: &Columns, after: &Columns) -> rusqlite::Result<()> {
    let mut keep = db.prepare(
        "INSERT INTO _linkspan_columns (\"table\", place, source, name, type, integers) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (\"table\", source) DO UPDATE SET type = excluded.type, integers = excluded.integers",
    )?;
    for (place, column) in after.iter().enumerate() {
        if before.by_source(&column.source) != Some(column) {
            let place = i64::try_from(place).unwrap_or(i64::MAX);
            let integers = match column.integers {
                Integers::Unused => None,
                Integers::Bool => Some(type_name(ColumnType::Bool)),
                Integers::Int => Some(type_name(ColumnType::Int)),
            };
            let column_type = type_name(column.column_type);
            keep.execute(params![table.full(), place, column.source, column.name, column_type, integers])?;
        }
    }
    Ok(())
}

fn insert(
    db: &Connection,
    batch: &LoadBatch<'_>,
    columns: &Columns,
    rows: &[Row],
    has_rest: bool,
) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let rest = has_rest.then(|| columns.rest_name());
    let own = columns.iter().map(|column| column.name.as_str());
    let names: Vec<String> = SYSTEM_COLUMNS.into_iter().chain(own).chain(rest).map(quoted).collect();
    let places = vec!["?"; names.len()].join(", ");
    let replaced: Vec<String> = names[2..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let mut statement = db.prepare(&format!(
        "INSERT INTO {} ({}) VALUES ({places}) ON CONFLICT (\"_id\", \"_index\") DO UPDATE SET {}",
        quoted(&batch.table.full()),
        names.join(", "),
        replaced.join(", ")
    ))?;
    let synced_at = batch.synced_at.to_string();
    for row in rows {
        let system = [
            SqlValue::Text(row.id.to_string()),
            SqlValue::Integer(i64::try_from(row.index).unwrap_or(i64::MAX)),
            SqlValue::Text(row.received_at.to_string()),
            SqlValue::Text(synced_at.clone()),
        ];
        let own = columns.iter().map(|column| cell_of(row, column));
        let rest = rest.map(|_| columns.rest(row).map_or(SqlValue::Null, SqlValue::Text));
        statement.execute(rusqlite::params_from_iter(system.into_iter().chain(own).chain(rest)))?;
    }
    Ok(())
}

/// A row's value in a column, in the form that it has there.
fn cell_of(row: &Row, column: &Column) -> SqlValue {
    let Some(cell) = row.cells.get(&column.source) else { return SqlValue::Null };
    match (column.integers, cell) {
        (Integers::Bool, Cell::Bool(is)) => SqlValue::Integer(i64::from(*is)),
        (Integers::Int, Cell::Int(number)) => SqlValue::Integer(*number),
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
    let shapes: Vec<Shown> = names
        .iter()
        .map(|name| match catalogue.iter().find(|column| column.name.eq_ignore_ascii_case(name)) {
            Some(column) => Shown { column_type: column.column_type, integers: Some(column.integers) },
            None if name == "_index" => Shown { column_type: ColumnType::Int, integers: None },
            None if name == catalogue.rest_name() => Shown { column_type: ColumnType::Json, integers: None },
            None => Shown { column_type: ColumnType::Text, integers: None },
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
        for (at, (name, shape)) in names.iter().zip(&shapes).enumerate() {
            let value = row.get_ref(at)?;
            bytes += size(value);
            values.insert(name.clone(), shown(value, *shape));
        }
        rows.push(values);
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    let columns =
        names.into_iter().zip(shapes).map(|(name, shape)| ShownColumn { name, kind: type_name(shape.column_type) });
    Ok(Some(Page { columns: columns.collect(), rows, total: count(db, table)? }))
}

fn size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 8,
    }
}

/// How the values of a column are shown. Columns that others added have no meaning of integers.
#[derive(Clone, Copy)]
struct Shown {
    column_type: ColumnType,
    integers: Option<Integers>,
}

fn shown(value: ValueRef<'_>, Shown { column_type, integers }: Shown) -> Value {
    let is_wider = matches!(column_type, ColumnType::Decimal | ColumnType::Text);
    match (value, column_type, integers) {
        (ValueRef::Null, ..) => Value::Null,
        (ValueRef::Integer(number), ColumnType::Bool, _) => Value::Bool(number != 0),
        (ValueRef::Integer(number), _, Some(Integers::Bool)) if is_wider => (number != 0).to_string().into(),
        (ValueRef::Integer(number), _, Some(Integers::Int)) if is_wider => number.to_string().into(),
        (ValueRef::Integer(number), ..) => Value::from(number),
        (ValueRef::Real(number), ..) => Value::from(number),
        (ValueRef::Text(bytes), ColumnType::Json, _) => {
            serde_json::from_slice(bytes).unwrap_or_else(|_| text_or_base64(bytes))
        }
        (ValueRef::Text(bytes), ..) => text_or_base64(bytes),
        (ValueRef::Blob(bytes), ..) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
    }
}

/// A text of somebody else's table may be none in UTF-8: then it is shown as bytes are.
fn text_or_base64(bytes: &[u8]) -> Value {
    let encoded = |_| base64::engine::general_purpose::STANDARD.encode(bytes).into();
    std::str::from_utf8(bytes).map_or_else(encoded, Value::from)
}
