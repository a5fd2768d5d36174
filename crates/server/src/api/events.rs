//! Events: listed, shown, followed, replayed; and test events sent.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use linkspan_model::endpoint::Format;
use linkspan_model::event::{Headers, VerifiedBy};
use linkspan_model::{EventId, JobId, Kind, Name, Timestamp};
use linkspan_store::{EventFilter, NewJob, ShownEvent};
use metrics::counter;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::ShownBody;
use super::call::{Answer, Call};
use super::route::{ParameterKind, Route, data, page, run};
use super::{Api, internal};
use crate::ingress::Delivery;
use crate::problem::Problem;

/// An event as it is shown.
#[derive(Serialize, JsonSchema)]
pub(super) struct EventBody {
    id: EventId,
    /// The endpoint that accepted it.
    endpoint: Name,
    received_at: Timestamp,
    method: String,
    /// The name after the key in the URL.
    event_name: Option<String>,
    /// The query string as sent.
    query: Option<String>,
    /// `[name, value]` pairs in order, names in lower case.
    headers: Headers,
    /// The caller's address.
    remote: Option<String>,
    verified: VerifiedBy,
    #[serde(flatten)]
    body: ShownBody,
    /// Why there is no body: a large one whose file cannot be read any more. Absent when the body is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_lost: Option<String>,
    /// The size of the body in bytes.
    size: u64,
}

#[derive(Serialize, JsonSchema)]
struct EventAnswer {
    data: EventBody,
}

#[derive(Serialize, JsonSchema)]
struct EventPage {
    data: Vec<EventBody>,
    /// The cursor of the next page.
    next: Option<String>,
}

/// Which recipes to start again.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    /// Only this recipe, whether it is running or not; left out: every running recipe that the event starts.
    recipe: Option<Name>,
}

#[derive(Serialize, JsonSchema)]
struct ReplayAnswer {
    data: Replayed,
}

#[derive(Serialize, JsonSchema)]
struct Replayed {
    /// The new jobs.
    jobs: Vec<JobId>,
}

/// A test event.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
struct SendBody {
    /// The body as text.
    body: Option<String>,
    /// The body as base64.
    body_base64: Option<String>,
    /// Headers besides those that verification needs.
    headers: BTreeMap<String, String>,
    /// The name after the key in the URL.
    event_name: Option<String>,
    /// The query string.
    query: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct SendAnswer {
    data: Sent,
}

#[derive(Serialize, JsonSchema)]
struct Sent {
    /// The event.
    id: EventId,
    /// Whether it had been stored before.
    duplicate: bool,
}

pub(super) fn routes() -> Vec<Route> {
    let named = "The name of the endpoint.";
    vec![
        Route::new(Method::GET, "/api/v1/events", "list_events", run!(list))
            .about("events", "Lists events, newest first; with `after`, oldest first.")
            .query("endpoint", "Only of this endpoint.", ParameterKind::Text)
            .query(
                "after",
                "Only newer than this event, oldest first; `first` begins with the oldest.",
                ParameterKind::Text,
            )
            .query(
                "wait",
                "With `after`: how many seconds to wait for an event when there is none.",
                ParameterKind::Number { least: 0, most: 30, default: 0 },
            )
            .paged()
            .gives::<EventPage>()
            .problems(&[404]),
        Route::new(Method::GET, "/api/v1/events/{id}", "get_event", run!(get))
            .about("events", "Gives one event.")
            .path_parameter("id", "The id of the event.")
            .gives::<EventAnswer>(),
        Route::new(Method::POST, "/api/v1/events/{id}/replay", "replay_event", run!(replay))
            .about("events", "Starts recipes on a stored event again.")
            .path_parameter("id", "The id of the event.")
            .may_take::<ReplayBody>()
            .gives::<ReplayAnswer>()
            .problems(&[409]),
        Route::new(Method::POST, "/api/v1/endpoints/{name}/send", "send_event", run!(send))
            .about("endpoints", "Sends a test event, signed by the endpoint's own verification.")
            .path_parameter("name", named)
            .takes::<SendBody>()
            .gives::<SendAnswer>()
            .with_status(StatusCode::ACCEPTED)
            .problems(&[401, 405, 408, 414, 431])
            .of(Kind::Endpoint),
        Route::new(Method::POST, "/api/v1/endpoints/{name}/rotate", "rotate_endpoint", run!(rotate))
            .about("endpoints", "Gives the endpoint a new URL; the old one is dead at once.")
            .path_parameter("name", named)
            .gives::<RotateAnswer>()
            .of(Kind::Endpoint),
    ]
}

#[derive(Serialize, JsonSchema)]
struct RotateAnswer {
    data: Rotated,
}

#[derive(Serialize, JsonSchema)]
struct Rotated {
    /// The new URL.
    url: String,
}

impl From<ShownEvent> for EventBody {
    fn from(event: ShownEvent) -> Self {
        let ShownEvent { id, endpoint, received_at, head, body } = event;
        let (body, size, body_lost) = match body {
            Ok(body) => (ShownBody::of(&body), body.len() as u64, None),
            Err(lost) => (ShownBody::default(), lost.size, Some(lost.reason)),
        };
        Self {
            id,
            endpoint,
            received_at,
            method: head.method,
            event_name: head.event_name,
            query: head.query,
            headers: head.headers,
            remote: head.remote,
            verified: head.verified,
            body,
            body_lost,
            size,
        }
    }
}

async fn list(api: Api, call: Call) -> Result<Answer, Problem> {
    let limit = call.limit();
    let before: Option<EventId> = call.parsed("cursor")?;
    let after = match call.text("after") {
        Some("first") => Some(0),
        Some(_) => call.parsed::<EventId>("after")?.map(EventId::seq),
        None => None,
    };
    let filter = EventFilter {
        endpoint: call.parsed("endpoint")?,
        before: before.map(EventId::seq),
        // A cursor of a list that began with `after` goes on in its direction.
        after: after.map(|after| before.map_or(after, EventId::seq)),
        limit,
    };
    let wait = Duration::from_secs(if after.is_some() { call.number("wait", 0) } else { 0 });
    let found = wait_for(&api, filter, wait).await?;
    // A page of large events is cut short, so that only an empty one or a short one of small events is the last.
    let bytes: usize = found.iter().map(|event| event.body.as_ref().map_or(0, Bytes::len)).sum();
    let is_last = found.len() < limit as usize && bytes < 8 << 20;
    let next = if is_last { None } else { found.last().map(|event| event.id.to_string()) };
    let items = found.into_iter().map(|event| serde_json::to_value(EventBody::from(event)));
    Ok(page(items.collect::<Result<_, _>>().map_err(|error| internal(&error))?, next))
}

/// Shortest time between two looks of one who waits for events.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Longest time until one who waits notices that the server is about to stop.
const DRAIN_POLL: Duration = Duration::from_secs(1);

async fn wait_for(api: &Api, filter: EventFilter, wait: Duration) -> Result<Vec<ShownEvent>, Problem> {
    let deadline = tokio::time::Instant::now() + wait;
    let mut dispatches = api.store.dispatches();
    loop {
        let found = api.store.events(filter.clone()).await?;
        let now = tokio::time::Instant::now();
        if !found.is_empty() || now >= deadline || api.is_draining() {
            return Ok(found);
        }
        // One look for all that comes in a moment: many who listen must not read after every commit.
        tokio::time::sleep(LOOK_AGAIN).await;
        dispatches.wait(DRAIN_POLL.min(deadline - now)).await;
    }
}

async fn get(api: Api, call: Call) -> Result<Answer, Problem> {
    data(EventBody::from(api.store.shown_event(call.id()?).await?))
}

async fn replay(api: Api, call: Call) -> Result<Answer, Problem> {
    let body: ReplayBody = if call.body.is_null() { ReplayBody { recipe: None } } else { call.typed()? };
    let event = api.store.shown_event(call.id()?).await?;
    let event = event.whole().map_err(|lost| Problem::new(StatusCode::CONFLICT, "event.body_lost", lost.reason))?;
    let snapshot = api.store.snapshot().clone();
    let format = snapshot.endpoint(&event.endpoint).and_then(|endpoint| endpoint.spec.format);
    let scope = linkspan_model::template::Scope::of_event(&event, format);
    let mut jobs = Vec::new();
    let recipes = match &body.recipe {
        Some(name) => {
            let found = snapshot.recipe(name);
            vec![found.ok_or_else(|| Problem::not_found(format!("recipe/{name} does not exist")))?]
        }
        None => snapshot.recipes().filter(|recipe| recipe.spec.is_enabled()).collect(),
    };
    for recipe in recipes.into_iter().filter(|recipe| *recipe.spec.endpoint() == event.endpoint) {
        // A condition that cannot be evaluated starts a job that fails and says why, as in dispatch.
        if recipe.recipe.when(&scope).unwrap_or(true) {
            jobs.push(NewJob {
                recipe: recipe.row,
                recipe_revision: recipe.revision,
                event: event.id,
                salt: salt(&api),
                rerun_of: None,
                is_deferred: false,
            });
        }
    }
    counter!("linkspan_jobs_queued_total").increment(jobs.len() as u64);
    data(Replayed { jobs: api.store.queue_jobs(jobs).await? })
}

/// Twelve bits that need not be secret, only vary.
pub(super) fn salt(api: &Api) -> u16 {
    u16::try_from(api.clock.now().as_micros() & 0x0fff).unwrap_or(0)
}

async fn rotate(api: Api, call: Call) -> Result<Answer, Problem> {
    let key = api.store.rotate_endpoint_key(call.name()?).await?;
    data(Rotated { url: super::resources::endpoint_url(&api, &key) })
}

async fn send(api: Api, call: Call) -> Result<Answer, Problem> {
    let name = call.name()?;
    let sent: SendBody = call.typed()?;
    let snapshot = api.store.snapshot().clone();
    let endpoint =
        snapshot.endpoint(&name).ok_or_else(|| Problem::not_found(format!("endpoint/{name} does not exist")))?;
    let body = match (sent.body, sent.body_base64) {
        (Some(text), None) => Bytes::from(text),
        (None, Some(encoded)) => {
            Bytes::from(BASE64.decode(encoded).map_err(|error| invalid("body_base64", &error.to_string()))?)
        }
        (None, None) => Bytes::new(),
        (Some(_), Some(_)) => return Err(invalid("body", "give body or body_base64, not both")),
    };
    let mut headers = HeaderMap::new();
    let content_type = match endpoint.spec.format {
        Some(Format::Form) => "application/x-www-form-urlencoded",
        Some(Format::Xml) => "application/xml",
        Some(Format::Text) => "text/plain; charset=utf-8",
        Some(Format::Json) | None => "application/json",
        Some(Format::Bytes | Format::Query) => "application/octet-stream",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("linkspan/", env!("CARGO_PKG_VERSION"))));
    if let Ok(verifier) = &endpoint.verifier {
        let id = uuid_text(&api);
        headers.extend(verifier.sign(&body, api.clock.now(), &id));
    }
    for (name, value) in &sent.headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid("headers", &format!("`{name}` is not a header name")))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| invalid("headers", "a header value cannot hold line breaks or control characters"))?;
        headers.insert(name, value);
    }
    let mut target = format!("/webhooks/{}", endpoint.key);
    if let Some(name) = &sent.event_name {
        target.push('/');
        target.extend(utf8_percent_encode(name, NON_ALPHANUMERIC));
    }
    if let Some(query) = &sent.query {
        target.push('?');
        target.push_str(query);
    }
    let uri = target.parse().map_err(|_| invalid("query", "it is not a query string"))?;
    let method = if endpoint.spec.format == Some(Format::Query) { Method::GET } else { Method::POST };
    let caller = api.exposure.operator.ip();
    let delivery = Delivery { method, uri, headers, caller, body: Full::new(body) };
    let received = api.ingress.receive(delivery).await.map_err(|(problem, _)| problem)?;
    let answer: Value = json!({"data": {"id": received.id, "duplicate": received.duplicate}});
    Ok(Answer::json(StatusCode::ACCEPTED, answer))
}

fn invalid(field: &str, reason: &str) -> Problem {
    Problem::invalid(vec![linkspan_model::Fault::new(field, reason)])
}

fn uuid_text(api: &Api) -> String {
    format!("test_{:x}", api.clock.now().as_micros())
}
