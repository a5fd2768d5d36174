//! The operator API as the commands use it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use http::{HeaderMap, Method, StatusCode};
use linkspan_model::SecretBytes;
use linkspan_outbound::{OperatorClient, OperatorError};
use serde_json::Value;

use crate::cli::Connect;

/// A server, reached with a token.
pub(crate) struct Client {
    api: OperatorClient,
    runtime: tokio::runtime::Runtime,
}

/// What the server answered instead of what was asked for.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    text: String,
    /// The faults of documents, when it found some.
    pub(crate) faults: Vec<linkspan_model::Fault>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

/// Documents are wrong, whoever found it.
#[derive(Debug)]
pub(crate) struct Invalid(pub(crate) String);

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// What scripts can tell apart: 1 failed, 2 usage, 3 does not exist, 4 server not reachable, 5 documents are
/// wrong, 6 not allowed.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Invalid>().is_some() {
        return ExitCode::from(5);
    }
    if error.downcast_ref::<OperatorError>().is_some() {
        return ExitCode::from(4);
    }
    match error.downcast_ref::<Refused>().map(|refused| refused.status) {
        Some(StatusCode::NOT_FOUND) => ExitCode::from(3),
        Some(StatusCode::UNPROCESSABLE_ENTITY) => ExitCode::from(5),
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => ExitCode::from(6),
        _ => ExitCode::FAILURE,
    }
}

/// Whether the server said that there is no such thing.
pub(crate) fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

impl Client {
    /// A client of the server that `connect` names.
    pub(crate) fn new(connect: &Connect) -> Result<Self> {
        let file = connect.data.join("operator-token");
        let token = match &connect.token {
            Some(token) => token.clone(),
            None => std::fs::read_to_string(&file).with_context(|| {
                format!(
                    "no operator token: set LINKSPAN_TOKEN, or name the data folder with --data ({})",
                    file.display()
                )
            })?,
        };
        let token = SecretBytes::new(token.trim());
        let api = OperatorClient::new(&connect.url, Some(&token), Duration::from_secs(660))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { api, runtime })
    }

    /// GET.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let answer = self.runtime.block_on(self.api.get(path))?;
        read(&answer)
    }

    /// POST, with or without a body.
    pub(crate) fn post(&self, path: &str, body: Option<Value>) -> Result<Value> {
        let answer = self.runtime.block_on(self.api.post(path, body))?;
        read(&answer)
    }

    /// POST, for an answer of lines of JSON: each is handed to `take` as it comes.
    pub(crate) fn post_for_lines(&self, path: &str, body: Value, mut take: impl FnMut(Value)) -> Result<()> {
        let mut rest = Vec::new();
        let answer = self.runtime.block_on(self.api.stream(path, body, |piece| {
            rest.extend_from_slice(piece);
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { return };
            let whole: Vec<u8> = rest.drain(..=end).collect();
            for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // What is cut off at its end is told apart by the line that is missing.
                take(serde_json::from_slice(line).unwrap_or_default());
            }
        }))?;
        read(&answer).map(drop)
    }

    /// PUT.
    pub(crate) fn put(&self, path: &str, body: Value) -> Result<Value> {
        let answer = self.runtime.block_on(self.api.put(path, Some(body)))?;
        read(&answer)
    }

    /// PATCH.
    pub(crate) fn patch(&self, path: &str, body: Value) -> Result<Value> {
        let answer = self.runtime.block_on(self.api.patch(path, Some(body)))?;
        read(&answer)
    }

    /// DELETE.
    pub(crate) fn delete(&self, path: &str) -> Result<Value> {
        let answer = self.runtime.block_on(self.api.call(Method::DELETE, path, None))?;
        read(&answer)
    }
}

fn read<B: AsRef<[u8]>>((status, _, body): &(StatusCode, HeaderMap, B)) -> Result<Value> {
    let body = body.as_ref();
    if body.is_empty() && status.is_success() {
        return Ok(Value::Null);
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|_| anyhow!("the server answered {status} without JSON; is LINKSPAN_URL its operator listener?"))?;
    if status.is_success() {
        return Ok(value);
    }
    let error = &value["error"];
    let text = error["description"].as_str().unwrap_or("the server gave no reason").to_owned();
    let faults = serde_json::from_value(error["faults"].clone()).unwrap_or_default();
    let text = match &value["call"]["attempts"] {
        Value::Array(attempts) if attempts.len() > 1 => format!("{text} (attempts: {})", attempts.len()),
        _ => text,
    };
    Err(Refused { status: *status, text, faults }.into())
}

/// A path segment or query value, encoded.
pub(crate) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A path with the query parameters that are set.
pub(crate) fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let set: Vec<String> = parameters
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", encoded(value))))
        .collect();
    if set.is_empty() { path.to_owned() } else { format!("{path}?{}", set.join("&")) }
}
