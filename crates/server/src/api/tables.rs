//! Tables of destinations, a page at a time.

use http::Method;
use linkspan_model::Name;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::call::{Answer, Call};
use super::route::{ParameterKind, Route, run};
use super::{Api, internal};
use crate::problem::Problem;

/// A table of a destination.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableSummary {
    /// The destination.
    pub destination: String,
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Rows in it.
    pub rows: u64,
}

/// A page of a table.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TablePage {
    /// The columns, in order.
    pub columns: Vec<TableColumn>,
    /// The rows as objects by column.
    pub rows: Vec<Map<String, Value>>,
    /// Rows in the table.
    pub total: u64,
}

/// A column of a table.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type: null (nothing but nulls has come), bool, int, decimal, text, json.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Why tables cannot be read, as the operator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablesError {
    /// Another program holds the database.
    Busy(String),
    /// The place, or what stands there, is not a database that can be used.
    Unusable(String),
    /// Something of ours failed.
    Failed(String),
}

impl From<TablesError> for Problem {
    fn from(error: TablesError) -> Self {
        match error {
            TablesError::Busy(reason) => Self::unavailable("destination.busy", reason, 5),
            TablesError::Unusable(reason) => Self::new(http::StatusCode::CONFLICT, "destination.unusable", reason),
            TablesError::Failed(reason) => internal(&reason),
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct TablesAnswer {
    data: Vec<TableSummary>,
    /// Always null: tables come in one page.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct TableAnswer {
    data: TablePage,
    /// The cursor of the next page.
    next: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    let destination = "The destination; left out: the only one, or the one that a sync loads this table into.";
    vec![
        Route::new(Method::GET, "/api/v1/tables", "list_tables", run!(list))
            .about("tables", "Lists the tables of destinations.")
            .query("destination", "Only of this destination.", ParameterKind::Text)
            .gives::<TablesAnswer>()
            .problems(&[404, 409, 503]),
        Route::new(Method::GET, "/api/v1/tables/{table}", "get_table", run!(show))
            .about("tables", "Reads a page of a table.")
            .path_parameter("table", "The table as schema.table.")
            .query("destination", destination, ParameterKind::Text)
            .paged()
            .gives::<TableAnswer>()
            .problems(&[404, 409, 503]),
    ]
}

async fn list(api: Api, call: Call) -> Result<Answer, Problem> {
    let snapshot = api.store.snapshot().clone();
    let names: Vec<Name> = match call.parsed::<Name>("destination")? {
        Some(name) => {
            snapshot.destination(&name).ok_or_else(|| no_destination(&name))?;
            vec![name]
        }
        None => snapshot.destinations().map(|destination| destination.name.clone()).collect(),
    };
    let mut tables = Vec::new();
    for name in names {
        tables.extend(api.tables.list(name).await?.unwrap_or_default());
    }
    Ok(Answer::json(http::StatusCode::OK, json!({"data": tables, "next": null})))
}

fn no_destination(name: &Name) -> Problem {
    Problem::not_found(format!("destination/{name} does not exist"))
}

async fn show(api: Api, call: Call) -> Result<Answer, Problem> {
    let full = call.path("table").to_owned();
    let missing = || Problem::not_found(format!("table {full} does not exist; `linkspan tables` lists what there is"));
    let (schema, table) = full.split_once('.').ok_or_else(missing)?;
    let snapshot = api.store.snapshot().clone();
    let destination = match call.parsed::<Name>("destination")? {
        Some(name) => {
            snapshot.destination(&name).ok_or_else(|| no_destination(&name))?;
            name
        }
        None => {
            let by_sync = snapshot.syncs().find(|sync| sync.spec.to.full_name().eq_ignore_ascii_case(&full));
            let only = || snapshot.destinations().next().map(|destination| destination.name.clone());
            by_sync.map(|sync| sync.spec.to.destination.clone()).or_else(only).ok_or_else(missing)?
        }
    };
    let offset = call.parsed::<u64>("cursor")?.unwrap_or(0);
    let limit = call.limit();
    let page =
        api.tables.page(destination, schema.to_owned(), table.to_owned(), offset, limit).await?.ok_or_else(missing)?;
    let end = offset + page.rows.len() as u64;
    // A page may be shorter than asked for when its rows are large.
    let next = (!page.rows.is_empty() && end < page.total).then(|| end.to_string());
    // Written as it is: a page may have many MiB.
    Ok(Answer::json(http::StatusCode::OK, TableAnswer { data: page, next }))
}
