//! One step of a job: from its templates to its record.
//!
//! Guarantees: every attempt of a step carries the same idempotency key; what is not safe to repeat is not
//! repeated, and the record says so; the record holds the request as it was sent, secrets masked.

use http::{HeaderName, HeaderValue};
use linkspan_model::Timestamp;
use linkspan_model::connection::ConnectionSpec;
use linkspan_model::hops::HEADER as HOPS_HEADER;
use linkspan_model::job::{JobStatus, StepError, StepRun};
use linkspan_model::recipe::CompiledStep;
use linkspan_model::request::{Effect, RequestSpec, SentRequest};
use linkspan_model::response::{self, Answer};
use linkspan_model::retry::{self, Attempts, Outcome, Reason, RetryDecision};
use linkspan_model::template::{Scope, headers_value};
use linkspan_outbound::{Credentials, Exchange, Failed, Reached, SendError, SendErrorKind};
use linkspan_store::{Lease, Next, Snapshot, StepRecord};
use serde_json::{Value, json};

use crate::connection::{NoAnswer, connect};
use crate::oauth::Unready;
use crate::{Engine, failed, jitter};

/// Where a step runs.
pub(crate) struct StepContext<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) lease: Lease,
    pub(crate) position: u32,
    pub(crate) is_last: bool,
    /// What the request says of how often it has come through recipes.
    pub(crate) hops: &'a str,
}

/// What earlier work on the step has recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Earlier {
    pub(crate) attempts: u32,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) resumed: bool,
}

/// What came of an attempt.
struct Attempt {
    input: Option<Value>,
    output: Option<Value>,
    /// The whole output when the step succeeded.
    result: Result<Value, StepError>,
    /// What a retry depends on; nothing when the step cannot be helped by one.
    outcome: Option<Outcome>,
}

/// Runs one attempt of a step; gives its record, how the job goes on, and the output for later steps.
pub(crate) async fn run(
    context: &StepContext<'_>,
    step: &CompiledStep,
    scope: &Scope,
    earlier: Earlier,
) -> (StepRecord, Next, Option<Value>) {
    let clock = &context.engine.clock;
    let started_at = earlier.started_at.unwrap_or_else(|| clock.now());
    let attempts = earlier.attempts + 1;
    let attempt = attempt(context, step, scope).await;
    let now = clock.now();

    let mut error = None;
    let mut retry_at = None;
    let next = match &attempt.result {
        Ok(_) if context.is_last => Next::Succeed,
        Ok(_) => Next::Continue,
        Err(failed) => {
            let decision = attempt.outcome.map(|outcome| {
                let made = Attempts { made: attempts, first_at: started_at };
                retry::decide(step.effect, made, outcome, now, jitter())
            });
            let (failed, at) = settle(failed.clone(), decision, now);
            retry_at = at;
            error = Some(failed.clone());
            match at {
                Some(at) => Next::RetryAt(at),
                None => Next::Fail(failed),
            }
        }
    };
    let status = match next {
        Next::Continue | Next::Succeed => JobStatus::Succeeded,
        Next::RetryAt(_) => JobStatus::Waiting,
        Next::Fail(_) => JobStatus::Failed,
    };
    let run = StepRun {
        id: step.id.clone(),
        status,
        attempts,
        input: attempt.input,
        output: attempt.output,
        error,
        resumed: earlier.resumed,
        retry_at,
        started_at: Some(started_at),
        finished_at: (retry_at.is_none()).then_some(now),
    };
    let result = attempt.result.ok();
    let bytes = result.as_ref().and_then(|result| serde_json::to_vec(result).ok());
    (StepRecord { position: context.position, run, result: bytes }, next, result)
}

/// The error as it is recorded, and when the step is tried again.
fn settle(mut error: StepError, decision: Option<RetryDecision>, now: Timestamp) -> (StepError, Option<Timestamp>) {
    match decision {
        Some(RetryDecision::After(wait)) => (error, Some(now.after(wait))),
        Some(RetryDecision::GiveUp(reason)) => {
            if reason == Reason::OutcomeUnknown {
                error.outcome_unknown = Some(true);
            }
            if let Some(why) = explain(reason) {
                error.description = format!("{}; {why}", error.description);
            }
            (error, None)
        }
        None => (error, None),
    }
}

fn explain(reason: Reason) -> Option<String> {
    match reason {
        Reason::Final => None,
        other => Some(other.to_string()),
    }
}

fn not_begun(error: StepError) -> Attempt {
    Attempt { input: None, output: None, result: Err(error), outcome: None }
}

async fn attempt(context: &StepContext<'_>, step: &CompiledStep, scope: &Scope) -> Attempt {
    let mut way = match connect(context.engine, context.snapshot, step.connection.as_ref()) {
        Ok(way) => way,
        Err(error) => return not_begun(error),
    };
    // A whole URL may name another host of the connection; `check` sees that it names no other.
    let base = way.base.as_ref().filter(|_| way.spec.hosts.is_none() || !step.request.names_url());
    let mut request = match step.request.render(scope, base) {
        Ok(request) => request,
        Err(fault) => return not_begun(fault.into()),
    };
    if let Err(error) = way.check(&request.url) {
        return not_begun(error);
    }
    add_own_headers(&mut request, context, step);
    let options = way.options(step.timeout);
    match way.send(context.engine, context.snapshot, request, &options).await {
        Ok(exchange) => read_answer(step, &way.credentials, exchange, context.engine.clock.now()),
        Err(NoAnswer::Failed(failure)) => not_answered(&way.spec, *failure),
        Err(NoAnswer::Unready(Unready { error, outcome })) => Attempt { outcome, ..not_begun(error) },
    }
}

/// The idempotency key, the same on every attempt and after a crash, and the count that ends loops.
fn add_own_headers(request: &mut RequestSpec, context: &StepContext<'_>, step: &CompiledStep) {
    let name = HeaderName::from_static("idempotency-key");
    let is_set = request.headers.iter().any(|(set, _)| *set == name);
    if step.effect != Effect::Read
        && !is_set
        && let Ok(value) = HeaderValue::from_str(&format!("{}-{}", context.lease.job, step.id))
    {
        request.headers.push((name, value));
    }
    // A recipe cannot take itself out of the loop guard.
    request.headers.retain(|(name, _)| *name != HOPS_HEADER);
    if let Ok(value) = HeaderValue::from_str(context.hops) {
        request.headers.push((HeaderName::from_static(HOPS_HEADER), value));
    }
}

fn shown_input(sent: &SentRequest) -> Option<Value> {
    serde_json::to_value(sent).ok()
}

fn read_answer(step: &CompiledStep, credentials: &Credentials, exchange: Exchange, now: Timestamp) -> Attempt {
    let input = shown_input(&exchange.sent);
    let status = exchange.status.as_u16();
    let content_type = exchange.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let packed = exchange.undecoded.as_deref();
    let body = response::read(step.response, Answer { status, content_type, packed, body: &exchange.body });
    let headers = headers_value(
        exchange.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))),
    );
    let mut output = json!({
        "status": status,
        "headers": exchange.received.headers,
        "timings": exchange.timings,
    });
    let is_shown_whole = exchange.received.body.as_ref().is_none_or(|body| !body.cut);
    match &body {
        Ok(body) if is_shown_whole => output["body"] = credentials.masker().mask_value(body.clone()),
        _ => output["body"] = serde_json::to_value(&exchange.received.body).unwrap_or_default(),
    }
    if let Some(shown) = &exchange.received.body {
        output["size"] = shown.size.into();
    }
    let (result, outcome) = match body {
        // Only a request with a condition is answered 304, and then that is what it asked for.
        _ if !exchange.status.is_success() && exchange.status != http::StatusCode::NOT_MODIFIED => {
            let retry_after = exchange
                .headers
                .get(http::header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| retry::parse_retry_after(value, now));
            let reason = exchange.status.canonical_reason().unwrap_or("an unknown status");
            let description = format!("the API answered {status} {reason}");
            (Err(failed("response.status", description, None)), Some(Outcome::Status { code: status, retry_after }))
        }
        Ok(body) => (Ok(json!({"status": status, "headers": headers, "body": body})), None),
        Err(error) => {
            let description = format!("the answer cannot be read: {error}");
            (Err(failed("response.unreadable", description, None)), Some(Outcome::BadAnswer))
        }
    };
    Attempt { input, output: Some(output), result, outcome }
}

/// Why no answer came; in the connection's own words first, where they are about that.
pub(crate) fn unreachable_in_words(connection: &ConnectionSpec, error: &SendError) -> StepError {
    let mut shown = error.step_error();
    if let (Some(message), true) = (&connection.timeout_message, error.is_unreachable_or_timeout()) {
        shown.description = format!("{message} ({})", shown.description);
    }
    shown
}

fn not_answered(connection: &ConnectionSpec, failure: Failed) -> Attempt {
    let Failed { error, sent } = failure;
    let shown = unreachable_in_words(connection, &error);
    let outcome = match (error.is_transient(), error.reached()) {
        (false, _) => None,
        (true, Reached::No) => Some(Outcome::NotSent),
        (true, Reached::Maybe | Reached::Yes) => Some(Outcome::SentNoAnswer),
    };
    let outcome = match error.kind {
        SendErrorKind::Malformed { .. } | SendErrorKind::Encoding { .. } => Some(Outcome::BadAnswer),
        _ => outcome,
    };
    Attempt { input: shown_input(&sent), output: None, result: Err(shown), outcome }
}
