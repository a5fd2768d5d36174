//! Syncs: how they stand, and runs on demand.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use linkspan_model::{Kind, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::call::{Answer, Call};
use super::route::{ParameterKind, Route, data, run};
use super::{Api, internal};
use crate::problem::Problem;

/// How a sync stands.
#[derive(Serialize, JsonSchema)]
struct SyncStatus {
    /// Whether a run is under way or asked for.
    running: bool,
    /// Events loaded so far.
    events: u64,
    /// Rows loaded so far.
    rows: u64,
    /// Events whose body could not be unpacked and stands whole in `payload`.
    unparsed: u64,
    /// Values of keys that have no column: the key is too long, or the table is full. They stand in the row's `_rest`.
    left_out: u64,
    /// Some of these keys, shortened.
    left_out_keys: BTreeSet<String>,
    /// Batches that could not be loaded and were set aside, counted up to 1,000; asking for a run tries them again.
    aside: u64,
    /// Why the first of them was.
    aside_reason: Option<String>,
    /// What was last seen of the table that is not as it was left, and when.
    note: Option<String>,
    /// When the last run began.
    started_at: Option<Timestamp>,
    /// When the last run ended.
    finished_at: Option<Timestamp>,
    /// When a run last succeeded.
    succeeded_at: Option<Timestamp>,
    /// When a run last failed.
    failed_at: Option<Timestamp>,
    /// Why the last run failed.
    error: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct SyncAnswer {
    data: SyncStatus,
}

pub(super) fn routes() -> Vec<Route> {
    let wait = |route: Route| {
        let seconds = ParameterKind::Number { least: 0, most: 600, default: 0 };
        route
            .path_parameter("name", "The name of the sync.")
            .query("wait", "How many seconds to wait for the run to end.", seconds)
            .gives::<SyncAnswer>()
            .of(Kind::Sync)
    };
    vec![
        wait(
            Route::new(Method::POST, "/api/v1/syncs/{name}/run", "run_sync", run!(run_now))
                .about("syncs", "Runs a sync now, and tries again what was set aside."),
        ),
        wait(
            Route::new(Method::POST, "/api/v1/syncs/{name}/resync", "resync", run!(resync))
                .about("syncs", "Fills a sync's table again from the bucket: rows that are lost or changed come back."),
        ),
    ]
}

#[derive(Clone, Copy)]
enum Wanted {
    Run,
    Resync,
}

async fn run_now(api: Api, call: Call) -> Result<Answer, Problem> {
    request(api, call, Wanted::Run).await
}

async fn resync(api: Api, call: Call) -> Result<Answer, Problem> {
    request(api, call, Wanted::Resync).await
}

async fn request(api: Api, call: Call, wanted: Wanted) -> Result<Answer, Problem> {
    let name = call.name()?;
    let snapshot = api.store.snapshot().clone();
    let sync = snapshot.sync(&name).ok_or_else(|| Problem::not_found(format!("sync/{name} does not exist")))?;
    let mut ends = api.store.sync_ends();
    let ticket = match wanted {
        Wanted::Run => api.store.request_sync(sync.row).await?,
        Wanted::Resync => api.store.request_resync(sync.row).await?,
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(call.number("wait", 0));
    while !api.store.sync_is_done(sync.row, ticket).await? {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() {
            break;
        }
        // A sync that is deleted meanwhile ends no run.
        ends.wait(left.min(Duration::from_secs(1))).await;
    }
    data(read_status(&api, sync.row).await?)
}

/// How a sync stands, as its document's status.
pub(super) async fn status(api: &Api, row: i64) -> Result<Value, Problem> {
    serde_json::to_value(read_status(api, row).await?).map_err(|error| internal(&error))
}

async fn read_status(api: &Api, row: i64) -> Result<SyncStatus, Problem> {
    let (state, _) = api.store.sync_state(row).await?;
    Ok(SyncStatus {
        running: state.started_at > state.finished_at,
        events: state.events,
        rows: state.rows,
        unparsed: state.unparsed,
        left_out: state.left_out,
        left_out_keys: state.left_out_keys,
        aside: state.aside,
        aside_reason: state.aside_reason,
        note: state.note,
        started_at: state.started_at,
        finished_at: state.finished_at,
        succeeded_at: state.succeeded_at,
        failed_at: state.failed_at,
        error: state.error,
    })
}
