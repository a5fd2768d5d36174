//! One step of a job: from its templates to its record.
//!
//! Guarantees: every attempt of a step carries the same idempotency key; what is not safe to repeat is not
//! repeated, and the record says so; the record holds the request as it was sent, secrets masked, and every attempt.
//! A step that its connection puts off has made no attempt.

use http::{HeaderName, HeaderValue};
use linkspan_model::connection::ConnectionSpec;
use linkspan_model::hops::HEADER as HOPS_HEADER;
use linkspan_model::job::{AttemptDecision, AttemptRun, JobStatus, StepError, StepRun};
use linkspan_model::recipe::CompiledStep;
use linkspan_model::request::{Effect, RequestSpec, SentRequest, Timings};
use linkspan_model::response::{self, Answer};
use linkspan_model::retry::{self, Attempts, Outcome, Reason, RetryDecision, RetryPolicy};
use linkspan_model::template::{Scope, headers_value};
use linkspan_model::{Timestamp, limits};
use linkspan_outbound::{Ask, Credentials, Exchange, Failed, Pass, PutOff, Reached, SendError, SendErrorKind};
use linkspan_store::{Lease, Next, Snapshot, StepRecord};
use serde_json::{Value, json};

use crate::connection::{NoAnswer, Way, connect};
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
pub(crate) struct Earlier<'a> {
    pub(crate) run: Option<&'a StepRun>,
    pub(crate) resumed: bool,
}

impl Earlier<'_> {
    /// The attempts made.
    pub(crate) fn attempts(&self) -> u32 {
        self.run.map_or(0, |run| run.attempts)
    }
}

/// What came of an attempt.
struct Attempt {
    input: Option<Value>,
    output: Option<Value>,
    /// The whole output when the step succeeded.
    result: Result<Value, StepError>,
    /// What a retry depends on; nothing when the step cannot be helped by one.
    outcome: Option<Outcome>,
    /// The status of the answer.
    status: Option<u16>,
    timings: Option<Timings>,
}

/// What a step needs to make an attempt.
struct Prepared {
    way: Way,
    request: RequestSpec,
}

/// Runs one attempt of a step; gives its record, how the job goes on, and the output for later steps.
pub(crate) async fn run(
    context: &StepContext<'_>,
    step: &CompiledStep,
    scope: &Scope,
    earlier: Earlier<'_>,
) -> (StepRecord, Next, Option<Value>) {
    let clock = &context.engine.clock;
    let mut began_at = clock.now();
    let prepared = prepare(context, step, scope);
    let retry = prepared.as_ref().ok().and_then(|prepared| prepared.way.spec.retry.clone());
    let attempt = match prepared {
        Err(error) => not_begun(error),
        Ok(prepared) => match pass(context, step, &prepared.way.spec, earlier).await {
            Err(put_off) => return wait(context, step, earlier, &put_off),
            Ok(pass) => {
                began_at = clock.now();
                attempt(context, step, prepared, pass).await
            }
        },
    };
    let started_at = earlier.run.and_then(|run| run.started_at).unwrap_or(began_at);
    let attempts = earlier.attempts() + 1;
    let now = clock.now();

    let mut error = None;
    let mut retry_at = None;
    let mut reason = None;
    let next = match &attempt.result {
        Ok(_) if context.is_last => Next::Succeed,
        Ok(_) => Next::Continue,
        Err(failed) => {
            let decision = attempt.outcome.map(|outcome| {
                let made = Attempts { made: attempts, first_at: started_at };
                let policy = RetryPolicy::new(retry.as_ref(), step.retry.as_ref());
                retry::decide(&policy, step.effect, made, outcome, now, jitter())
            });
            reason = match decision {
                Some(RetryDecision::After(_)) => None,
                Some(RetryDecision::GiveUp(reason)) => Some(reason.to_string()),
                None => Some(Reason::Final.to_string()),
            };
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
    let mut attempt_log = earlier.run.map_or_else(Vec::new, |run| run.attempt_log.clone());
    attempt_log.push(AttemptRun {
        number: attempts,
        started_at: began_at,
        timings: attempt.timings,
        status: attempt.status,
        error: error.clone(),
        decision: match next {
            Next::Continue | Next::Succeed => AttemptDecision::Succeeded,
            Next::RetryAt(_) => AttemptDecision::Retry,
            Next::Fail(_) => AttemptDecision::Stop,
        },
        reason,
        retry_at,
    });
    let unlisted = attempt_log.len().saturating_sub(limits::STEP_ATTEMPTS_MAX as usize);
    attempt_log.drain(..unlisted);
    let run = StepRun {
        id: step.id.clone(),
        status,
        attempts,
        attempt_log,
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
                error.description = format!("{}; not repeated: {why}", error.description);
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
    Attempt { input: None, output: None, result: Err(error), outcome: None, status: None, timings: None }
}

/// The record of a step that its connection puts off: what earlier attempts left, and what it waits for.
fn wait(
    context: &StepContext<'_>,
    step: &CompiledStep,
    earlier: Earlier<'_>,
    put_off: &PutOff,
) -> (StepRecord, Next, Option<Value>) {
    let at = context.engine.clock.now().after(put_off.after);
    let connection = step.connection.as_ref().map_or_else(String::new, |name| format!("connection `{name}`: "));
    let mut run = earlier.run.cloned().unwrap_or_else(|| StepRun {
        id: step.id.clone(),
        status: JobStatus::Waiting,
        attempts: 0,
        attempt_log: Vec::new(),
        input: None,
        output: None,
        error: None,
        resumed: false,
        retry_at: None,
        started_at: None,
        finished_at: None,
    });
    run.status = JobStatus::Waiting;
    run.error = Some(failed(put_off.why.code(), format!("{connection}{}", put_off.why), None));
    run.resumed = earlier.resumed;
    run.retry_at = Some(at);
    (StepRecord { position: context.position, run, result: None }, Next::RetryAt(at), None)
}

/// Asks the connection for a turn; a step without one has its turn at once.
async fn pass(
    context: &StepContext<'_>,
    step: &CompiledStep,
    connection: &ConnectionSpec,
    earlier: Earlier<'_>,
) -> Result<Option<Pass>, PutOff> {
    let Some(name) = &step.connection else { return Ok(None) };
    let gate = context.engine.traffic.gate(name, connection.traffic(), context.snapshot.revision);
    let ask = Ask {
        patience: limits::TURN_PATIENCE,
        is_retry: earlier.attempts() > 0,
        is_returning: earlier.run.is_some_and(|run| run.retry_at.is_some()),
    };
    gate.enter(ask).await.map(Some)
}

fn prepare(context: &StepContext<'_>, step: &CompiledStep, scope: &Scope) -> Result<Prepared, StepError> {
    let way = connect(context.engine, context.snapshot, step.connection.as_ref())?;
    // A whole URL may name another host of the connection; `check` sees that it names no other.
    let base = way.base.as_ref().filter(|_| way.spec.hosts.is_none() || !step.request.names_url());
    let mut request = step.request.render(scope, base)?;
    way.check(&request.url)?;
    add_own_headers(&mut request, context, step);
    Ok(Prepared { way, request })
}

async fn attempt(
    context: &StepContext<'_>,
    step: &CompiledStep,
    Prepared { mut way, request }: Prepared,
    pass: Option<Pass>,
) -> Attempt {
    let options = way.options(step.timeout);
    let began = tokio::time::Instant::now();
    let came = match way.send(context.engine, context.snapshot, request, &options).await {
        Ok(exchange) => Ok(exchange),
        Err(NoAnswer::Failed(failure)) => Err(failure),
        // The API was not asked: the turn goes back unused.
        Err(NoAnswer::Unready(Unready { error, outcome })) => return Attempt { outcome, ..not_begun(error) },
    };
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let now = context.engine.clock.now();
    if let Some(pass) = pass {
        pass.ended(&came, now);
    }
    match came {
        Ok(exchange) => read_answer(step, &way.credentials, exchange, now),
        Err(failure) => not_answered(&way.spec, *failure, took),
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
    let timings = Some(exchange.timings);
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
    Attempt { input, output: Some(output), result, outcome, status: Some(status), timings }
}

/// Why no answer came; in the connection's own words first, where they are about that.
pub(crate) fn unreachable_in_words(connection: &ConnectionSpec, error: &SendError) -> StepError {
    let mut shown = error.step_error();
    if let (Some(message), true) = (&connection.timeout_message, error.is_unreachable_or_timeout()) {
        shown.description = format!("{message} ({})", shown.description);
    }
    shown
}

fn not_answered(connection: &ConnectionSpec, failure: Failed, took_us: u64) -> Attempt {
    let Failed { error, sent } = failure;
    let stages = match &error.kind {
        SendErrorKind::Timeout(timeout) => timeout.timings,
        _ => Timings::default(),
    };
    let timings = Some(Timings { total_us: took_us, ..stages });
    let status = error.status();
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
    Attempt { input: shown_input(&sent), output: None, result: Err(shown), outcome, status, timings }
}
