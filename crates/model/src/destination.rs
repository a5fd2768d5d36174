//! Destinations: databases with tables that syncs load.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// The `spec` of a destination document: one key that names the kind of database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum DestinationSpec {
    /// A SQLite file.
    Sqlite(SqliteSpec),
}

/// A SQLite file below the data folder's `destinations/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteSpec {
    /// Relative path, without `..`.
    pub path: String,
}

impl DestinationSpec {
    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let Self::Sqlite(SqliteSpec { path }) = self;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        let inside = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if inside && path.len() <= 200 && path.chars().all(allowed) {
            Vec::new()
        } else {
            vec![Fault::new(
                "sqlite.path",
                format_args!("`{path}` is not a relative path of letters, digits, `.`, `_`, `-` and `/` without `..`"),
            )]
        }
    }
}
