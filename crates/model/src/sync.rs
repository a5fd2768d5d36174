//! Syncs: events of one endpoint, archived in a bucket and loaded into one table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::name::Name;
use crate::units::Duration;

/// The `spec` of a sync document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncSpec {
    /// Where the events come from.
    pub from: Source,
    /// Where the raw events are archived.
    #[serde(default)]
    pub bucket: Bucket,
    /// The table they are loaded into.
    pub to: Target,
    /// How an event becomes rows.
    #[serde(default)]
    pub format: SyncFormat,
    /// How often it runs by itself; left out: only on demand. At least 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// Whether the schedule runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Where the events of a sync come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The endpoint.
    pub endpoint: Name,
}

/// Where raw events are archived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bucket {
    /// The folder `bucket/` in the data folder.
    #[default]
    Own,
}

/// The table that a sync loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The destination document.
    pub destination: Name,
    /// Schema: `[A-Za-z_][A-Za-z0-9_]{0,62}`.
    pub schema: String,
    /// Table: `[A-Za-z_][A-Za-z0-9_]{0,62}`.
    pub table: String,
}

/// How an event becomes rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncFormat {
    /// The whole body in the column `payload`, one row per event.
    Packed,
    /// One column per first-level key, one row per event or per element of an array body.
    #[default]
    Unpacked,
}

impl SyncSpec {
    /// Whether the schedule runs.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (path, name) in [("to.schema", &self.to.schema), ("to.table", &self.to.table)] {
            if !is_identifier(name) {
                faults.push(Fault::new(
                    path,
                    format_args!(
                        "`{name}` is not a name of 1 to 63 letters, digits and `_`, not starting with a digit"
                    ),
                ));
            }
        }
        if self.every.is_some_and(|every| every < Duration::from_secs(1)) {
            faults.push(Fault::new("every", "a sync runs at most once a second"));
        }
        faults
    }
}

impl Target {
    /// The table as people write it: `schema.table`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 63
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
