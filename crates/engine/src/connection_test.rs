//! Tests of connections: one request through the same door as those of steps, and what it shows.
//!
//! Guarantees that a result is stored with the state of the documents that it was made with, and that its words hold
//! no secret of the account.

use std::time::Duration;

use linkspan_model::Name;
use linkspan_model::connection::TestSpec;
use linkspan_model::job::StepError;
use linkspan_model::request::{RequestSpec, shortened};
use linkspan_outbound::Exchange;
use linkspan_store::{ConnectionTest, ConnectionView, Snapshot, StoreError, TestFailure};
use tokio::time::Instant;
use url::Url;

use crate::attempt::{body_of, headers_of, unreachable_in_words};
use crate::connection::{NoAnswer, Way, connect};
use crate::{Engine, failed};

/// How much of an answer that was not expected is shown, in characters.
const ANSWER_CHARS: usize = 500;

/// Why a connection was not tested.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// There is no connection of this name.
    #[error("the connection does not exist")]
    Missing,
    /// Its document does not say how, and there is no way that fits every API.
    #[error("{0}")]
    NoTest(&'static str),
    /// The result was not stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a test sends, and which statuses show that the connection works.
enum Plan<'a> {
    /// As the document says.
    Said(&'a TestSpec),
    /// Any answer of the base URL shows that it can be reached, which is all that there is to know without
    /// credentials.
    Reachable,
}

/// Tests a connection and stores what it shows.
///
/// # Errors
/// There is nothing to test, or the result was not stored. A connection that does not work is a result.
pub async fn test(engine: &Engine, name: &Name) -> Result<(), TestError> {
    let snapshot = engine.store.snapshot().clone();
    let connection = snapshot.connection(name).ok_or(TestError::Missing)?;
    let plan = plan(connection)?;
    let started = Instant::now();
    let outcome = attempt(engine, &snapshot, connection, &plan).await;
    let took = started.elapsed();
    let (duration, http_status, failure) = match outcome {
        Ok(answered) => (answered.duration, Some(answered.http_status), answered.failure),
        Err(StepError { code, description: reason, .. }) => {
            (took, None, Some(TestFailure { code, reason, answer: None }))
        }
    };
    let result = ConnectionTest { tested_at: engine.clock.now(), duration, http_status, failure };
    Ok(engine.store.record_connection_test(connection, result).await?)
}

fn plan(connection: &ConnectionView) -> Result<Plan<'_>, TestError> {
    let carries = connection.account.as_ref().is_some_and(|account| account.spec.has_credentials());
    match &connection.spec.test {
        Some(test) => Ok(Plan::Said(test)),
        None if carries => Err(TestError::NoTest(
            "only a request that needs the credentials shows that they work; say which: `test: {path: /users/me}`",
        )),
        None if connection.spec.base_url.is_some() => Ok(Plan::Reachable),
        None => Err(TestError::NoTest(
            "without a base_url there is nothing that could be called; say what: `test: {url: https://api.example.com/me}`",
        )),
    }
}

/// An exchange with an answer.
struct Answered {
    duration: Duration,
    http_status: u16,
    failure: Option<TestFailure>,
}

async fn attempt(
    engine: &Engine,
    snapshot: &Snapshot,
    connection: &ConnectionView,
    plan: &Plan<'_>,
) -> Result<Answered, StepError> {
    let mut way = connect(engine, snapshot, Some(&connection.name))?;
    let (method, url) = match plan {
        Plan::Said(test) => (test.method(), test.target(way.base.as_ref())),
        Plan::Reachable => (http::Method::GET, way.base.clone().ok_or_else(|| "there is no base_url".to_owned())),
    };
    let url: Url = url.map_err(|reason| failed("request.url", reason, None))?;
    way.check(&url)?;
    let mut request = RequestSpec { method, url, headers: Vec::new(), body: bytes::Bytes::new() };
    way.spec.add_headers(&mut request);
    let options = way.options(None);
    match way.send(engine, snapshot, request, &options).await {
        Ok(exchange) => Ok(Answered {
            duration: Duration::from_micros(exchange.timings.total_us),
            http_status: exchange.status.as_u16(),
            failure: judge(&way, plan, &exchange),
        }),
        Err(NoAnswer::Failed(failure)) => Err(unreachable_in_words(&way.spec, &failure.error)),
        Err(NoAnswer::Unready(unready)) => Err(unready.error),
    }
}

/// What an answer says against the connection.
fn judge(way: &Way, plan: &Plan<'_>, exchange: &Exchange) -> Option<TestFailure> {
    let status = exchange.status;
    let expected = match plan {
        Plan::Reachable => return None,
        Plan::Said(test) if test.expects(status.as_u16()) => return unheld(way, test, exchange),
        Plan::Said(test) => test.expected(),
    };
    let answered = format!("the API answered {status}");
    let reason = match status.as_u16() {
        401 if way.spec.account.is_none() => {
            format!("{answered}: it wants credentials, and the connection has no account")
        }
        401 => format!("{answered}: it does not accept the account's credentials"),
        403 => format!("{answered}: it does not let these credentials do this"),
        301 | 302 | 303 | 307 | 308 if way.spec.redirects.unwrap_or(0) == 0 => {
            format!(
                "{answered}, a redirect, which is not followed unless the connection sets `redirects`; {expected} was expected"
            )
        }
        _ => format!("{answered}; {expected} was expected"),
    };
    let said = match (plan, body_of(None, exchange)) {
        (Plan::Said(test), Ok(body)) => test.said(status.as_u16(), headers_of(exchange), body),
        _ => None,
    };
    let reason = match said {
        Some(said) => shortened(&format!("{reason}: {}", way.credentials.masker().mask_text(&said))),
        None => reason,
    };
    Some(TestFailure { code: "response.status".to_owned(), reason, answer: beginning(way, exchange) })
}

/// What an answer with a good status says against the connection all the same.
fn unheld(way: &Way, test: &TestSpec, exchange: &Exchange) -> Option<TestFailure> {
    test.holds.as_ref()?;
    let failure = |code: &str, reason: String| {
        let reason = shortened(&way.credentials.masker().mask_text(&reason));
        Some(TestFailure { code: code.to_owned(), reason, answer: beginning(way, exchange) })
    };
    let body = match body_of(None, exchange) {
        Ok(body) => body,
        Err(error) => return failure("response.unreadable", format!("the answer cannot be read: {error}")),
    };
    let reason = test.check(exchange.status.as_u16(), headers_of(exchange), body).err()?;
    failure("response.unexpected", reason)
}

/// The beginning of the answer, for whoever looks into it; secrets are masked.
fn beginning(way: &Way, exchange: &Exchange) -> Option<String> {
    let text = exchange.received_text(&way.credentials)?;
    Some(text.chars().take(ANSWER_CHARS).collect())
}
