//! What tests of connections have shown.
//!
//! Guarantees that a result counts only for the documents that it was made with: a connection, account or secret
//! that has changed since makes the connection untested again.

use std::time::Duration;

use linkspan_model::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use crate::Store;
use crate::error::Result;
use crate::snapshot::ConnectionView;

/// What a test of a connection has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionTest {
    /// When it ended.
    pub tested_at: Timestamp,
    /// How long its exchange took.
    pub duration: Duration,
    /// The status of the answer, when one came.
    pub http_status: Option<u16>,
    /// Why the connection does not work; nothing when it does.
    pub failure: Option<TestFailure>,
}

/// Why a connection does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFailure {
    /// Dotted slug.
    pub code: String,
    /// The same in words.
    pub reason: String,
    /// The beginning of the answer's text, secrets masked.
    pub answer: Option<String>,
}

impl Store {
    /// Keeps what a test has shown, in place of an earlier one.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn record_connection_test(&self, connection: &ConnectionView, test: ConnectionTest) -> Result<()> {
        let (row, basis) = (connection.row, connection.basis.clone());
        self.write(move |db| {
            let failure = test.failure;
            let (code, reason, answer) = failure
                .map_or((None, None, None), |failure| (Some(failure.code), Some(failure.reason), failure.answer));
            // Not for a connection that was deleted meanwhile.
            db.prepare_cached(
                "INSERT OR REPLACE INTO connection_tests
                        (connection, basis, tested_at, duration_us, http_status, code, reason, answer)
                 SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM resources WHERE id = ?1 AND deleted_at IS NULL",
            )?
            .execute(params![
                row,
                basis,
                test.tested_at.as_micros(),
                i64::try_from(test.duration.as_micros()).unwrap_or(i64::MAX),
                test.http_status,
                code,
                reason,
                answer
            ])?;
            Ok(())
        })
        .await
    }

    /// What the last test of a connection has shown, unless something has changed since.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn connection_test(&self, connection: &ConnectionView) -> Result<Option<ConnectionTest>> {
        let (row, basis) = (connection.row, connection.basis.clone());
        self.read(move |db| {
            let found = db
                .prepare_cached(
                    "SELECT tested_at, duration_us, http_status, code, reason, answer FROM connection_tests
                     WHERE connection = ?1 AND basis = ?2",
                )?
                .query_row(params![row, basis], |row| {
                    let code: Option<String> = row.get(3)?;
                    let failure = match code {
                        Some(code) => {
                            let reason: Option<String> = row.get(4)?;
                            Some(TestFailure { code, reason: reason.unwrap_or_default(), answer: row.get(5)? })
                        }
                        None => None,
                    };
                    Ok(ConnectionTest {
                        tested_at: Timestamp::from_micros(row.get(0)?),
                        duration: Duration::from_micros(row.get::<_, i64>(1)?.unsigned_abs()),
                        http_status: row.get(2)?,
                        failure,
                    })
                })
                .optional()?;
            Ok(found)
        })
        .await
    }
}
