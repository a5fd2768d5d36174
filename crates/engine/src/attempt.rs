//! One attempt at a request: from the door to what is recorded of it, for steps of jobs and for calls alike.
//!
//! Guarantees that the connection learns how it ended, and that what is shown of it holds no secret.

use std::sync::Arc;

use linkspan_model::connection::ConnectionSpec;
use linkspan_model::job::StepError;
use linkspan_model::request::{AnswerFault, Effect, RequestPlan, RequestSpec, ResponseFormat, Timings, shortened};
use linkspan_model::response::{self, Answer, ReadError};
use linkspan_model::retry::{self, Attempts, Outcome, Reason, RetryDecision, RetryPolicy};
use linkspan_model::template::headers_value;
use linkspan_model::traffic::learned;
use linkspan_model::{JsonText, Timestamp};
use linkspan_outbound::{Credentials, Exchange, Failed, Pass, Reached, ReadBody, SendError, SendErrorKind};
use linkspan_store::Snapshot;
use serde_json::{Value, json};

use crate::connection::{NoAnswer, Way};
use crate::oauth::Unready;
use crate::{Engine, failed, heavy, jitter};

/// What came of an attempt.
pub(crate) struct Attempt {
    /// The request, as the history shows it.
    pub(crate) input: Option<JsonText>,
    /// The answer, as the history shows it, where it is kept.
    pub(crate) output: Option<JsonText>,
    /// The whole output when the step succeeded.
    pub(crate) result: Result<Value, StepError>,
    /// What a retry depends on; nothing when the step cannot be helped by one.
    pub(crate) outcome: Option<Outcome>,
    /// The status of the answer.
    pub(crate) status: Option<u16>,
    pub(crate) timings: Option<Timings>,
}

impl Attempt {
    /// One that ended before anything was sent.
    pub(crate) fn not_begun(error: StepError) -> Self {
        Self { input: None, output: None, result: Err(error), outcome: None, status: None, timings: None }
    }
}

/// Makes one attempt; `pass` is the turn that the connection gave for it, `is_recorded` says whether an
/// answer is kept that is no failure.
pub(crate) async fn attempt(
    engine: &Engine,
    snapshot: &Snapshot,
    plan: &RequestPlan,
    way: &mut Way,
    request: RequestSpec,
    pass: Option<Pass>,
    is_recorded: bool,
) -> Attempt {
    let options = way.options(plan.timeout);
    let began = tokio::time::Instant::now();
    let came = match way.send(engine, snapshot, request, &options).await {
        Ok(exchange) => Ok(exchange),
        Err(NoAnswer::Failed(failure)) => Err(failure),
        // The API was not asked: the turn goes back unused.
        Err(NoAnswer::Unready(Unready { error, outcome })) => return Attempt { outcome, ..Attempt::not_begun(error) },
    };
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let now = engine.clock.now();
    if let Some(pass) = pass {
        pass.ended(&came, now);
    }
    match came {
        Ok(exchange) => {
            heavy::work_on(exchange.body.len(), || read_answer(plan, &way.credentials, exchange, is_recorded, now))
        }
        Err(failure) => not_answered(&way.spec, *failure, took),
    }
}

/// What is made of a failed attempt.
pub(crate) struct Verdict {
    /// The error as it is recorded.
    pub(crate) error: StepError,
    /// When the request is tried again.
    pub(crate) retry_at: Option<Timestamp>,
    /// Why it is not.
    pub(crate) reason: Option<String>,
}

/// Decides whether a request is tried again, by what became of its last attempt.
pub(crate) fn judge(
    mut error: StepError,
    outcome: Option<Outcome>,
    policy: &RetryPolicy,
    effect: Effect,
    attempts: Attempts,
    now: Timestamp,
) -> Verdict {
    let decision = outcome.map(|outcome| retry::decide(policy, effect, attempts, outcome, now, jitter()));
    match decision {
        Some(RetryDecision::After(wait)) => Verdict { error, retry_at: Some(now.after(wait)), reason: None },
        Some(RetryDecision::GiveUp(reason)) => {
            if reason == Reason::OutcomeUnknown {
                error.outcome_unknown = Some(true);
            }
            if reason != Reason::Final {
                error.description = format!("{}; not repeated: {reason}", error.description);
            }
            Verdict { error, retry_at: None, reason: Some(reason.to_string()) }
        }
        None => Verdict { error, retry_at: None, reason: Some(Reason::Final.to_string()) },
    }
}

fn read_answer(
    plan: &RequestPlan,
    credentials: &Credentials,
    exchange: Exchange,
    is_recorded: bool,
    now: Timestamp,
) -> Attempt {
    let status = exchange.status.as_u16();
    let body = body_of(plan.response, &exchange);
    let (headers, body) = (Arc::new(headers_of(&exchange)), body.map(Arc::new));
    let read = body.as_ref().ok().map(Arc::clone);
    let judged = plan.judge(status, &headers, body);
    let output = (is_recorded || judged.is_err()).then(|| {
        let read = read.as_deref().map(|value| {
            let json = response::json_text(plan.response, answer_of(&exchange), value);
            ReadBody { value, json }
        });
        exchange.received(read, credentials)
    });
    // A body that is held only once is moved on below.
    drop(read);
    let (result, outcome) = match judged {
        Ok(body) => {
            // Moved: the macro would copy them, and a body may be large.
            let mut answer = json!({"status": status});
            answer["headers"] = Arc::unwrap_or_clone(headers);
            answer["body"] = Arc::unwrap_or_clone(body);
            (Ok(answer), None)
        }
        Err(fault) => {
            let outcome = match fault {
                AnswerFault::Status { code, .. } => {
                    let retry_after = retry::retry_after(&exchange.headers, now);
                    let is_too_fast = learned::is_too_fast(code, &exchange.headers, now);
                    Outcome::Status { code: if is_too_fast { 429 } else { code }, retry_after }
                }
                AnswerFault::Unreadable(_) | AnswerFault::Unexpected(_) => Outcome::BadAnswer,
            };
            // An API may give back what it was sent.
            let description = shortened(&credentials.masker().mask_text(&fault.to_string()));
            (Err(failed(fault.code(), description, None)), Some(outcome))
        }
    };
    let (input, timings) = (Some(exchange.sent), Some(exchange.timings));
    Attempt { input, output, result, outcome, status: Some(status), timings }
}

/// The body of an answer as data.
pub(crate) fn body_of(format: Option<ResponseFormat>, exchange: &Exchange) -> Result<Value, ReadError> {
    response::read(format, answer_of(exchange))
}

fn answer_of(exchange: &Exchange) -> Answer<'_> {
    let content_type = content_type_of(exchange);
    let (status, packed) = (exchange.status.as_u16(), exchange.undecoded.as_deref());
    Answer { status, content_type, packed, body: &exchange.body }
}

/// The content type of an answer, where it is text.
pub(crate) fn content_type_of(exchange: &Exchange) -> Option<&str> {
    exchange.headers.get(http::header::CONTENT_TYPE)?.to_str().ok()
}

/// The headers of an answer, as pills see them.
pub(crate) fn headers_of(exchange: &Exchange) -> Value {
    headers_value(exchange.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
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
    Attempt { input: Some(sent), output: None, result: Err(shown), outcome, status, timings }
}
