//! A request with what is made of its answer: what steps, calls and operations run.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::compile::CompiledRequest;
use super::step::{Effect, RequestStep, ResponseFormat};
use crate::reader::Reader;
use crate::response::ReadError;
use crate::template::{Expression, Scope};
use crate::traffic::RetrySpec;
use crate::units::Duration;

/// A request that is ready to be made of data, and what is made of its answer.
#[derive(Debug)]
pub struct RequestPlan {
    /// The request.
    pub request: CompiledRequest,
    /// What repeating it does: as its author says, else by its method.
    pub effect: Effect,
    /// What its answer is read as.
    pub response: Option<ResponseFormat>,
    answers: Expectation,
    /// Longest time for the whole exchange, in place of the connection's.
    pub timeout: Option<std::time::Duration>,
    /// When it is tried again, in place of what the connection says, field by field.
    pub retry: Option<RetrySpec>,
}

/// Why an answer is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// Its status says so.
    #[error("the API answered {code} {reason}{said}", reason = reason_of(*code), said = in_words(said.as_deref()))]
    Status {
        /// The status.
        code: u16,
        /// What the API says of it, in its own words.
        said: Option<String>,
    },
    /// Its body is not of the format that was asked for.
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] ReadError),
    /// What was expected of it does not hold.
    #[error("{0}")]
    Unexpected(String),
}

fn in_words(said: Option<&str>) -> String {
    said.map_or_else(String::new, |said| format!(": {said}"))
}

impl AnswerFault {
    /// The dotted slug.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Status { .. } => "response.status",
            Self::Unreadable(_) => "response.unreadable",
            Self::Unexpected(_) => "response.unexpected",
        }
    }
}

fn reason_of(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("an unknown status")
}

/// What must hold of an answer, and what is said when it does not.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    holds: Option<Expression>,
    message: Option<Expression>,
}

/// Longest text of an API that an error takes along, in characters: far more than is shown, so that whoever hides
/// secrets in it sees them whole.
const SAID_CHARS: usize = 16 << 10;

/// Longest description of an answer that an error shows, in characters.
const SHOWN_CHARS: usize = 400;

/// What an error shows of an answer; secrets are hidden before, for a part of one could not be told any more.
#[must_use]
pub fn shortened(description: &str) -> String {
    match description.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &description[..end]),
        None => description.to_owned(),
    }
}

impl RequestPlan {
    /// Reads the templates of the request at `path`.
    pub(crate) fn compile(reader: &mut Reader, path: &str, step: &RequestStep) -> Option<Self> {
        let holds = (&*format!("{path}.expect"), step.expect.as_deref());
        let answers = Expectation::read(reader, holds, (&format!("{path}.message"), step.message.as_deref()));
        let request = CompiledRequest::compile(reader, path, step)?;
        Some(Self {
            effect: step.effect.unwrap_or_else(|| Effect::of_method(request.method().as_str())),
            response: step.response,
            answers,
            timeout: step.timeout.map(Duration::get),
            retry: step.retry.clone(),
            request,
        })
    }

    /// What an answer gives, whose `body` was read as this plan asks.
    ///
    /// # Errors
    /// Its status, its format, or what was expected of it.
    pub fn judge(
        &self,
        status: u16,
        headers: &Arc<Value>,
        body: Result<Arc<Value>, ReadError>,
    ) -> Result<Arc<Value>, AnswerFault> {
        // Only a request with a condition is answered 304, and then that is what it asked for.
        if !matches!(status, 200..300 | 304) {
            let said = body.ok().and_then(|body| self.answers.said(status, headers, &body));
            return Err(AnswerFault::Status { code: status, said });
        }
        let body = body?;
        self.answers.check(status, headers, &body).map_err(AnswerFault::Unexpected)?;
        Ok(body)
    }
}

fn scope_of(status: u16, headers: &Arc<Value>, body: &Arc<Value>) -> Scope {
    Scope::new()
        .with("status", Value::from(status))
        .with_headers("headers", Arc::clone(headers))
        .with("body", Arc::clone(body))
}

impl Expectation {
    /// Reads what must hold, at its path, and the message, at its.
    pub(crate) fn read(reader: &mut Reader, holds: (&str, Option<&str>), message: (&str, Option<&str>)) -> Self {
        let mut read = |(path, text): (&str, Option<&str>)| answer_expression(reader, path, text?);
        Self { holds: read(holds), message: read(message) }
    }

    /// Whether it holds of an answer.
    ///
    /// # Errors
    /// Why it does not, in the API's own words where `message` gives them.
    pub(crate) fn check(&self, status: u16, headers: &Arc<Value>, body: &Arc<Value>) -> Result<(), String> {
        let Some(holds) = &self.holds else { return Ok(()) };
        let scope = scope_of(status, headers, body);
        match holds.holds(&scope) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(format!("what is expected of the answer cannot be evaluated: {error}")),
        }
        Err(match self.said(status, headers, body) {
            None => format!("the API answered {status}, but not as expected"),
            Some(said) => format!("the API answered {status}: {said}"),
        })
    }

    /// What the API says of an answer that is none of success: a text, or several of them.
    pub(crate) fn said(&self, status: u16, headers: &Arc<Value>, body: &Arc<Value>) -> Option<String> {
        let texts = match self.message.as_ref()?.evaluate(&scope_of(status, headers, body)).ok()? {
            Value::Array(items) => items,
            Value::Null => return None,
            one => vec![one],
        };
        let texts = texts.iter().filter(|text| !text.is_null());
        let texts: Vec<String> =
            texts.map(|text| text.as_str().map_or_else(|| text.to_string(), ToOwned::to_owned)).collect();
        let said: String = texts.join("; ").chars().take(SAID_CHARS).collect();
        (!said.trim().is_empty()).then_some(said)
    }
}

/// Reads an expression over an answer.
fn answer_expression(reader: &mut Reader, path: &str, text: &str) -> Option<Expression> {
    const ROOTS: [&str; 3] = ["status", "headers", "body"];
    let expression = reader.unchecked_expression(path, text)?;
    let unknown = expression.pills().find(|pill| !ROOTS.contains(&pill.root.as_str()));
    if let Some(pill) = unknown {
        reader.fault(path, format_args!("column {}: \"{pill}\" names nothing; use {}", pill.column, ROOTS.join(", ")));
        return None;
    }
    Some(expression)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(step: Value) -> Result<RequestPlan, Vec<String>> {
        let check = |_: &str, _: &_| None;
        let mut reader = Reader::new(&check);
        let step: RequestStep = serde_json::from_value(step).unwrap();
        let plan = RequestPlan::compile(&mut reader, "request", &step);
        let faults: Vec<String> = reader.into_faults().iter().map(ToString::to_string).collect();
        if faults.is_empty() { Ok(plan.unwrap()) } else { Err(faults) }
    }

    #[test]
    fn an_answer_may_have_to_be_more_than_a_good_status() {
        let plan = read(json!({
            "method": "POST", "url": "https://a.test/", "expect": "status < 300 and body.ok", "message": "body.error",
        }));
        let expect = plan.unwrap().answers;
        let check = |body: Value| expect.check(200, &Arc::new(json!({})), &Arc::new(body));
        assert_eq!(check(json!({"ok": true})), Ok(()));
        assert_eq!(check(json!({"ok": false, "error": "no_text"})), Err("the API answered 200: no_text".to_owned()));
        assert_eq!(check(json!({})), Err("the API answered 200, but not as expected".to_owned()));
        assert_eq!(check(json!({"error": {"a": 1}})), Err("the API answered 200: {\"a\":1}".to_owned()));
    }

    #[test]
    fn a_bad_status_is_said_in_the_apis_own_words() {
        let message = "body.error.message | default(body.errors | default(none))";
        let plan = read(json!({"method": "GET", "url": "https://a.test/", "message": message})).unwrap();
        let judge = |body: Result<Value, ReadError>| {
            plan.judge(422, &Arc::new(json!({})), body.map(Arc::new)).unwrap_err().to_string()
        };
        let bare = "the API answered 422 Unprocessable Entity";
        assert_eq!(judge(Ok(json!({"error": {"message": "no name"}}))), format!("{bare}: no name"));
        assert_eq!(judge(Ok(json!({"errors": ["a", null, {"b": 1}]}))), format!("{bare}: a; {{\"b\":1}}"));
        for body in [json!({}), json!("gateway"), json!({"errors": []}), json!({"error": {"message": " "}})] {
            assert_eq!(judge(Ok(body)), bare);
        }
        let long = judge(Ok(json!({"errors": "x".repeat(100_000)})));
        assert_eq!(long.len(), bare.len() + 2 + SAID_CHARS);
        assert_eq!(shortened(&long).chars().count(), SHOWN_CHARS + 1);
        assert_eq!(shortened(&"é".repeat(SHOWN_CHARS)), "é".repeat(SHOWN_CHARS));
    }

    #[test]
    fn what_is_expected_is_of_the_answer() {
        let faults = read(json!({"method": "GET", "url": "https://a.test/", "expect": "trigger.ok"})).unwrap_err();
        assert_eq!(faults, ["request.expect: column 1: \"trigger.ok\" names nothing; use status, headers, body"]);
    }
}
