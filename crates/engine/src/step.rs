//! One step of a job: from its templates to its record.
//!
//! Guarantees: every attempt of a step carries the same idempotency key; what is not safe to repeat is not
//! repeated, and the record says so; the record holds the request as it was sent, secrets masked, and every attempt.
//! A step that its connection puts off has made no attempt.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use linkspan_model::account::{AccountSpec, Credential};
use linkspan_model::connection::ConnectionSpec;
use linkspan_model::hops::HEADER as HOPS_HEADER;
use linkspan_model::job::{AttemptDecision, AttemptRun, JobStatus, StepError, StepRun};
use linkspan_model::recipe::CompiledStep;
use linkspan_model::request::{Effect, RequestSpec, SentRequest, Timings};
use linkspan_model::response::{self, Answer};
use linkspan_model::retry::{self, Attempts, Outcome, Reason, RetryDecision, RetryPolicy};
use linkspan_model::template::{Scope, headers_value};
use linkspan_model::{Name, Timestamp, limits};
use linkspan_outbound::{
    Ask, Credentials, Exchange, Failed, Part, Pass, PutOff, Reached, RedirectScope, SendErrorKind, SendOptions,
};
use linkspan_store::{Lease, Next, Snapshot, StepRecord};
use serde_json::{Value, json};
use url::Url;

use crate::{Engine, jitter};

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
    connection: ConnectionSpec,
    credentials: Credentials,
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
    let retry = prepared.as_ref().ok().and_then(|prepared| prepared.connection.retry.clone());
    let attempt = match prepared {
        Err(error) => not_begun(error),
        Ok(prepared) => match pass(context, step, &prepared.connection, earlier).await {
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

fn failed(code: &str, description: impl Into<String>, field: Option<String>) -> StepError {
    StepError { code: code.to_owned(), description: description.into(), field, outcome_unknown: None }
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
    let (connection, credentials) = connect(context, step.connection.as_ref())?;
    let base = base(context, &connection)?;
    let mut request = step.request.render(scope, base.as_ref())?;
    add_own_headers(&mut request, context, step);
    Ok(Prepared { connection, credentials, request })
}

async fn attempt(
    context: &StepContext<'_>,
    step: &CompiledStep,
    Prepared { connection, credentials, request }: Prepared,
    pass: Option<Pass>,
) -> Attempt {
    let options = send_options(&connection, step.timeout);
    let began = tokio::time::Instant::now();
    let came = context.engine.outbound.send(request, &credentials, &options).await;
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let now = context.engine.clock.now();
    if let Some(pass) = pass {
        pass.ended(&came, now);
    }
    match came {
        Ok(exchange) => read_answer(step, &credentials, exchange, now),
        Err(failure) => not_answered(&connection, *failure, took),
    }
}

/// The connection of a step with its credentials; a step without one calls whole URLs with none.
fn connect(context: &StepContext<'_>, name: Option<&Name>) -> Result<(ConnectionSpec, Credentials), StepError> {
    let Some(name) = name else { return Ok((ConnectionSpec::default(), Credentials::none())) };
    let view = context
        .snapshot
        .connection(name)
        .ok_or_else(|| failed("connection.missing", format!("connection `{name}` does not exist any more"), None))?;
    let credentials = match view.account.as_deref() {
        Some(account) => credentials(context.snapshot, account)
            .map_err(|reason| failed("account.not_ready", format!("connection `{name}`: {reason}"), None))?,
        None => Credentials::none(),
    };
    Ok((view.spec.clone(), credentials))
}

/// What request paths are appended to: the connection's base URL, or that of an endpoint of this server.
fn base(context: &StepContext<'_>, connection: &ConnectionSpec) -> Result<Option<Url>, StepError> {
    let Some(name) = &connection.endpoint else { return Ok(connection.base()) };
    let endpoint = context
        .snapshot
        .endpoint(name)
        .ok_or_else(|| failed("endpoint.missing", format!("endpoint `{name}` does not exist any more"), None))?;
    let url = format!("{}/webhooks/{}", context.engine.own_url, endpoint.key);
    Url::parse(&url).map(Some).map_err(|error| failed("request.url", format!("{url}: {error}"), None))
}

fn credentials(snapshot: &Snapshot, account: &AccountSpec) -> Result<Credentials, String> {
    let part = |credential: &Credential| match credential {
        Credential::Text(text) => Ok(Part::Plain(text.clone())),
        Credential::Secret(reference) => snapshot.secret(&reference.secret).cloned().map(Part::Secret),
    };
    match account {
        AccountSpec::None {} => Ok(Credentials::none()),
        AccountSpec::Basic(basic) => {
            let password = match &basic.password {
                Some(reference) => Part::Secret(snapshot.secret(&reference.secret)?.clone()),
                None => Part::Plain(String::new()),
            };
            Credentials::basic(&part(&basic.user)?, &password).map_err(|error| error.to_string())
        }
        AccountSpec::Headers(headers) => {
            let mut typed = Vec::with_capacity(headers.len());
            for (name, value) in headers {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
                typed.push((name, part(value)?));
            }
            Credentials::headers(typed).map_err(|error| error.to_string())
        }
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

fn send_options(connection: &ConnectionSpec, timeout: Option<Duration>) -> SendOptions {
    let stages = connection.timeouts.clone().unwrap_or_default();
    let stage = |set: Option<linkspan_model::units::Duration>, default| set.map_or(default, |set| set.get());
    SendOptions {
        connect: stage(stages.connect, limits::CONNECT_TIMEOUT),
        tls: stage(stages.tls, limits::CONNECT_TIMEOUT),
        first_byte: stage(stages.first_byte, limits::FIRST_BYTE_TIMEOUT),
        total: timeout.unwrap_or_else(|| connection.total_timeout()),
        response_max_bytes: connection.response_max_bytes(),
        redirects: connection.redirects.unwrap_or(0),
        redirect_scope: if connection.base_url.is_some() || connection.endpoint.is_some() {
            RedirectScope::SameOrigin
        } else {
            RedirectScope::Anywhere
        },
        header_case: connection.header_case.unwrap_or_default(),
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

fn not_answered(connection: &ConnectionSpec, failure: Failed, took_us: u64) -> Attempt {
    let Failed { error, sent } = failure;
    let stages = match &error.kind {
        SendErrorKind::Timeout(timeout) => timeout.timings,
        _ => Timings::default(),
    };
    let timings = Some(Timings { total_us: took_us, ..stages });
    let status = error.status();
    let mut shown = error.step_error();
    if let (Some(message), true) = (&connection.timeout_message, error.is_unreachable_or_timeout()) {
        shown.description = format!("{message} ({})", shown.description);
    }
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
