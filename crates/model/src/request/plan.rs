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
    expect: Option<Expectation>,
    /// Longest time for the whole exchange, in place of the connection's.
    pub timeout: Option<std::time::Duration>,
    /// When it is tried again, in place of what the connection says, field by field.
    pub retry: Option<RetrySpec>,
}

/// Why an answer is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// Its status says so.
    #[error("the API answered {0} {reason}", reason = reason_of(*.0))]
    Status(u16),
    /// Its body is not of the format that was asked for.
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] ReadError),
    /// What was expected of it does not hold.
    #[error("{0}")]
    Unexpected(String),
}

impl AnswerFault {
    /// The dotted slug.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Status(_) => "response.status",
            Self::Unreadable(_) => "response.unreadable",
            Self::Unexpected(_) => "response.unexpected",
        }
    }
}

fn reason_of(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("an unknown status")
}

/// What must hold of an answer, and what is said when it does not.
#[derive(Debug)]
struct Expectation {
    holds: Expression,
    message: Option<Expression>,
}

/// Longest text of an API that an error repeats, in characters.
const MESSAGE_CHARS: usize = 300;

impl RequestPlan {
    /// Reads the templates of the request at `path`.
    pub(crate) fn compile(reader: &mut Reader, path: &str, step: &RequestStep) -> Option<Self> {
        let expect = Expectation::read(reader, path, step);
        let request = CompiledRequest::compile(reader, path, step)?;
        Some(Self {
            effect: step.effect.unwrap_or_else(|| Effect::of_method(request.method().as_str())),
            response: step.response,
            expect,
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
            return Err(AnswerFault::Status(status));
        }
        let body = body?;
        if let Some(expect) = &self.expect {
            expect.check(status, headers, &body).map_err(AnswerFault::Unexpected)?;
        }
        Ok(body)
    }
}

impl Expectation {
    fn read(reader: &mut Reader, path: &str, step: &RequestStep) -> Option<Self> {
        if step.expect.is_none() && step.message.is_some() {
            reader.fault(&format!("{path}.message"), "what an error says needs an `expect` that can fail");
        }
        let mut read = |field: &str, text: &str| answer_expression(reader, &format!("{path}.{field}"), text);
        let holds = step.expect.as_ref().map(|text| read("expect", text));
        let message = step.message.as_ref().map(|text| read("message", text));
        Some(Self { holds: holds??, message: message.flatten() })
    }

    /// Whether it holds of an answer.
    ///
    /// # Errors
    /// Why it does not, in the API's own words where `message` gives them.
    fn check(&self, status: u16, headers: &Arc<Value>, body: &Arc<Value>) -> Result<(), String> {
        let scope = Scope::new()
            .with("status", Value::from(status))
            .with_headers("headers", Arc::clone(headers))
            .with("body", Arc::clone(body));
        match self.holds.holds(&scope) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(format!("`expect` cannot be evaluated: {error}")),
        }
        let said = self.message.as_ref().and_then(|message| message.evaluate(&scope).ok());
        Err(match said {
            None | Some(Value::Null) => format!("the API answered {status}, but not as expected"),
            Some(said) => {
                let said = said.as_str().map_or_else(|| said.to_string(), ToOwned::to_owned);
                format!("the API answered {status}: {}", said.chars().take(MESSAGE_CHARS).collect::<String>())
            }
        })
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
        let expect = plan.unwrap().expect.unwrap();
        let check = |body: Value| expect.check(200, &Arc::new(json!({})), &Arc::new(body));
        assert_eq!(check(json!({"ok": true})), Ok(()));
        assert_eq!(check(json!({"ok": false, "error": "no_text"})), Err("the API answered 200: no_text".to_owned()));
        assert_eq!(check(json!({})), Err("the API answered 200, but not as expected".to_owned()));
        assert_eq!(check(json!({"error": {"a": 1}})), Err("the API answered 200: {\"a\":1}".to_owned()));
    }

    #[test]
    fn what_is_expected_is_of_the_answer() {
        let faults = read(json!({"method": "GET", "url": "https://a.test/", "expect": "trigger.ok"})).unwrap_err();
        assert_eq!(faults, ["request.expect: column 1: \"trigger.ok\" names nothing; use status, headers, body"]);
        let faults = read(json!({"method": "GET", "url": "https://a.test/", "message": "body.error"})).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
    }
}
