//! How much work statements do, as SQLite counts it: for tests that bound it without a clock.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, StatementStatus};

use crate::error::Result;

/// What one run of a statement took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementWork {
    /// The statement.
    pub sql: String,
    /// Whether the writer ran it, so that everybody else's writes waited.
    pub by_writer: bool,
    /// Steps of the virtual machine: the measure of all work.
    pub steps: u64,
    /// Rows that were passed in a scan of a whole table.
    pub scanned: u64,
    /// Sorts that no index saved.
    pub sorts: u64,
}

/// Is told of every statement that has run.
pub type StatementWatch = Arc<dyn Fn(StatementWork) + Send + Sync>;

/// Tells `watch` of every statement of a connection. Without one nothing is counted.
pub(crate) fn watch_statements(db: &mut Connection, by_writer: bool, watch: Option<&StatementWatch>) -> Result<()> {
    let Some(watch) = watch.cloned() else { return Ok(()) };
    // SQLite counts over all runs of a prepared statement.
    let mut before: HashMap<String, [i32; 3]> = HashMap::new();
    let tell = move |event: TraceEvent<'_>| {
        let TraceEvent::Profile(statement, _) = event else { return };
        let sql = statement.sql().into_owned();
        let now = [StatementStatus::VmStep, StatementStatus::FullscanStep, StatementStatus::Sort]
            .map(|count| statement.get_status(count));
        let then = before.insert(sql.clone(), now).unwrap_or_default();
        // One that fell out of the cache was prepared again and counts from the beginning.
        let then = if now[0] < then[0] { [0; 3] } else { then };
        let [steps, scanned, sorts] = [0, 1, 2].map(|n| u64::from(now[n].wrapping_sub(then[n]).unsigned_abs()));
        watch(StatementWork { sql, by_writer, steps, scanned, sorts });
    };
    db.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(tell))?;
    Ok(())
}
