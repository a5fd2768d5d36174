//! Refusals: what was not accepted, and why.

use http::Method;
use linkspan_model::event::Headers;
use linkspan_model::{Name, Timestamp};
use linkspan_store::{Refusal, RefusalFilter};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::body::ShownBody;
use super::call::{Answer, Call};
use super::route::{ParameterKind, Route, page, run};
use super::{Api, internal};
use crate::problem::Problem;

/// A refusal as it is shown.
#[derive(Serialize, JsonSchema)]
struct RefusalBody {
    /// Counts refusals.
    id: u64,
    /// The endpoint, when the URL named one.
    endpoint: Option<Name>,
    at: Timestamp,
    /// The status that the caller saw.
    status: u16,
    /// What the caller saw as code.
    code: String,
    /// The cause.
    cause: String,
    method: String,
    /// The caller's address.
    remote: Option<String>,
    /// `[name, value]` pairs, credentials masked.
    headers: Headers,
    #[serde(flatten)]
    body: ShownBody,
    /// The size of the body as far as it was read.
    size: u64,
}

#[derive(Serialize, JsonSchema)]
struct RefusalPage {
    data: Vec<RefusalBody>,
    /// The cursor of the next page.
    next: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/api/v1/refusals", "list_refusals", run!(list))
            .about("refusals", "Lists requests that were not accepted, newest first.")
            .query("endpoint", "Only of this endpoint.", ParameterKind::Text)
            .paged()
            .gives::<RefusalPage>()
            .problems(&[404]),
    ]
}

impl From<Refusal> for RefusalBody {
    fn from(found: Refusal) -> Self {
        let Refusal { seq, endpoint, refusal } = found;
        Self {
            id: seq,
            endpoint,
            at: refusal.at,
            status: refusal.status,
            code: refusal.code,
            cause: refusal.cause,
            method: refusal.method,
            remote: refusal.remote,
            headers: refusal.headers,
            body: ShownBody::of(&refusal.body),
            size: refusal.body_size,
        }
    }
}

async fn list(api: Api, call: Call) -> Result<Answer, Problem> {
    let limit = call.limit();
    let filter = RefusalFilter { endpoint: call.parsed("endpoint")?, before: call.parsed("cursor")?, limit };
    let found = api.store.refusals(filter).await?;
    let next = if found.len() < limit as usize { None } else { found.last().map(|refusal| refusal.seq.to_string()) };
    let items: Result<Vec<Value>, _> =
        found.into_iter().map(|refusal| serde_json::to_value(RefusalBody::from(refusal))).collect();
    Ok(page(items.map_err(|error| internal(&error))?, next))
}
