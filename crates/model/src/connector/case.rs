//! Cases of a connector: what an action sends, and what it makes of the answers, without a network.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::{Action, Connector};
use crate::connection::ConnectionSpec;
use crate::fault::Fault;
use crate::job::StepError;
use crate::paginate::NextPage;
use crate::request::RequestSpec;
use crate::response::{self, Answer};
use crate::template::headers_value;

/// A case: an action, what it is given, the requests that it must send, the answers to them, and what must come of
/// it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseSpec {
    /// What it shows.
    pub name: String,
    /// The action.
    pub action: String,
    /// The connection's settings.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// What the action is given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub input: Map<String, Value>,
    /// The request and its answer; of a list, those of each page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<ExchangeSpec>,
    /// What it gives: the body of the answer, of a list all items. Fields that this does not name are not compared.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub gives: Option<Value>,
    /// That it fails, and what the error says, or a part of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<String>,
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeSpec {
    /// What must be sent.
    pub sends: SendsSpec,
    /// What comes back.
    pub answers: AnswerSpec,
}

/// What must be sent. One of `json`, `form` and `text` is the body; without them there must be none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendsSpec {
    /// The method.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// Headers that must be there; others may be too.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// The body as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The body as fields of a form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<IndexMap<String, String>>,
    /// The body as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What comes back. One of `json`, `text` and `file` is the body; without them there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerSpec {
    /// The status. Default 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The headers.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// The body as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The body as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The body as a file beside the connector's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A value that is said, also when it is null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Gives the bytes of a file beside the connector's, or why there are none.
pub type Files<'a> = dyn Fn(&str) -> Result<Vec<u8>, String> + 'a;

impl Connector {
    /// What is wrong with the cases themselves.
    pub(super) fn case_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (n, case) in self.spec.tests.iter().enumerate() {
            let path = format!("tests[{n}]");
            if let Err(fault) = self.action(&case.action) {
                faults.push(fault.under(&format!("{path}.action")));
            }
            if case.exchanges.is_empty() && case.fails.is_none() {
                faults.push(Fault::new(&path, "give the exchanges, or the error that comes before anything is sent"));
            }
            if case.gives.is_some() == case.fails.is_some() {
                faults.push(Fault::new(&path, "give one of gives and fails"));
            }
        }
        faults
    }

    /// Runs a case; `files` reads what stands beside the connector.
    ///
    /// # Errors
    /// Everything that is not as the case says, paths relative to the case.
    pub fn run_case(&self, case: &CaseSpec, files: &Files<'_>) -> Result<(), Vec<Fault>> {
        let action = self.action(&case.action).map_err(|fault| vec![fault.under("action")])?;
        let own = ConnectionSpec { settings: Some(case.settings.clone()), ..ConnectionSpec::default() };
        let (connection, settings) = self.connect(&own)?;
        let run = Run { connector: self, case, action, connection, settings, files };
        let mut faults = Vec::new();
        let came = run.outcome(&mut faults);
        match (&case.gives, &case.fails, came) {
            (Some(wanted), _, Ok(came)) => differences(wanted, &came, "gives", &mut faults),
            (Some(_), _, Err(error)) if faults.is_empty() => {
                faults.push(Fault::new("gives", format_args!("it fails: {}", error.description)));
            }
            (_, Some(wanted), Err(error)) if !error.description.contains(wanted.as_str()) => {
                faults.push(Fault::new("fails", format_args!("the error says otherwise: {}", error.description)));
            }
            (_, Some(_), Ok(_)) => faults.push(Fault::new("fails", "it does not fail")),
            _ => {}
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

struct Run<'a> {
    connector: &'a Connector,
    case: &'a CaseSpec,
    action: &'a Action,
    connection: ConnectionSpec,
    settings: Value,
    files: &'a Files<'a>,
}

impl Run<'_> {
    /// What the action gives; what it sends otherwise than it should goes to `faults`.
    fn outcome(&self, faults: &mut Vec<Fault>) -> Result<Value, StepError> {
        let scope = self.action.scope(self.connector, &self.settings, self.case.input.clone())?;
        let mut request = self.action.plan.request.render(&scope, self.connection.base().as_ref())?;
        if !self.connection.admits(self.connection.base().as_ref(), &request.url) {
            return Err(stopped(&format!(
                "{} is none of the connection's hosts",
                request.url.origin().ascii_serialization()
            )));
        }
        let mut pages = self.action.paginate.as_ref().map(|rule| rule.pages());
        if let Some(pages) = &pages {
            request = pages.first(&request).map_err(|fault| stopped(&fault))?;
        }
        let mut items = Vec::new();
        for (n, exchange) in self.case.exchanges.iter().enumerate() {
            let mut sent = request.clone();
            self.connection.add_headers(&mut sent);
            let path = format!("exchanges[{n}]");
            compare(&exchange.sends, &sent, &format!("{path}.sends"), faults);
            let (headers, body) = self.answer(&exchange.answers).map_err(|reason| {
                faults.push(Fault::new(format!("{path}.answers"), &reason));
                stopped(&reason)
            })?;
            let status = exchange.answers.status.unwrap_or(200);
            let content_type = headers.get("content-type").and_then(Value::as_str);
            let read =
                response::read(self.action.plan.response, Answer { status, content_type, packed: None, body: &body });
            let headers = headers.clone().into();
            let body =
                self.action.plan.judge(status, &headers, read.map(Into::into)).map_err(|fault| stopped(&fault))?;
            let Some(pages) = &mut pages else { return Ok(Value::clone(&body)) };
            let page = pages.turn(&request, status, Value::clone(&headers), Value::clone(&body));
            let page = page.map_err(|fault| stopped(&fault))?;
            items.extend(page.items);
            match page.next.map_err(|fault| stopped(&fault))? {
                NextPage::Request(next) => request = *next,
                NextPage::End | NextPage::Capped if n + 1 < self.case.exchanges.len() => {
                    faults.push(Fault::new(format!("exchanges[{}]", n + 1), "the list has ended before"));
                    return Ok(Value::Array(items));
                }
                NextPage::End | NextPage::Capped => return Ok(Value::Array(items)),
            }
        }
        if pages.is_some() {
            let reason = format!("the list goes on with {}", request.url);
            faults.push(Fault::new("exchanges", &reason));
        }
        Ok(Value::Array(items))
    }

    /// The headers and the body that come back.
    fn answer(&self, answer: &AnswerSpec) -> Result<(Value, Vec<u8>), String> {
        let mut headers = answer.headers.clone();
        let body = match (&answer.json, &answer.text, &answer.file) {
            (Some(json), None, None) => {
                headers.entry("content-type".to_owned()).or_insert_with(|| "application/json".to_owned());
                json.to_string().into_bytes()
            }
            (None, Some(text), None) => text.clone().into_bytes(),
            (None, None, Some(name)) => {
                let is_json = std::path::Path::new(name).extension().is_some_and(|extension| extension == "json");
                if is_json {
                    headers.entry("content-type".to_owned()).or_insert_with(|| "application/json".to_owned());
                }
                (self.files)(name).map_err(|reason| format!("{name}: {reason}"))?
            }
            (None, None, None) => Vec::new(),
            _ => return Err("give one of json, text and file".to_owned()),
        };
        let lower = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        let lower: Vec<_> = lower.collect();
        let headers = headers_value(lower.iter().map(|(name, value)| (name.as_str(), value.as_str().into())));
        Ok((headers, body))
    }
}

fn stopped(reason: &dyn std::fmt::Display) -> StepError {
    StepError { code: String::new(), description: reason.to_string(), field: None, outcome_unknown: None }
}

/// Compares what was sent with what should be.
fn compare(wanted: &SendsSpec, sent: &RequestSpec, path: &str, faults: &mut Vec<Fault>) {
    let mut differ = |field: &str, wanted: &str, sent: &str| {
        if wanted != sent {
            faults.push(Fault::new(format!("{path}.{field}"), format_args!("{sent} is sent, not {wanted}")));
        }
    };
    differ("method", &wanted.method, sent.method.as_str());
    differ("url", &wanted.url, sent.url.as_str());
    for (name, value) in &wanted.headers {
        let found = sent.headers.iter().find(|(known, _)| known.as_str().eq_ignore_ascii_case(name));
        let found = found.map_or("nothing".into(), |(_, value)| String::from_utf8_lossy(value.as_bytes()));
        differ(&format!("headers.{name}"), value, &found);
    }
    let text = String::from_utf8_lossy(&sent.body);
    match (&wanted.json, &wanted.form, &wanted.text) {
        (Some(json), ..) => match serde_json::from_slice::<Value>(&sent.body) {
            Ok(body) if body == *json => {}
            Ok(body) => differ("json", &json.to_string(), &body.to_string()),
            Err(_) => differ("json", &json.to_string(), if text.is_empty() { "nothing" } else { &text }),
        },
        (_, Some(form), _) => {
            let body = form_urlencoded::parse(&sent.body);
            let body: IndexMap<String, String> = body.map(|(name, value)| (name.into(), value.into())).collect();
            differ("form", &format!("{form:?}"), &format!("{body:?}"));
        }
        (.., Some(wanted)) => differ("text", wanted, &text),
        (None, None, None) => differ("text", "", &text),
    }
}

/// Where `came` is not as `wanted` says; fields that it does not name are not compared.
fn differences(wanted: &Value, came: &Value, path: &str, faults: &mut Vec<Fault>) {
    match (wanted, came) {
        (Value::Object(wanted), Value::Object(came)) => {
            for (key, value) in wanted {
                let path = format!("{path}.{key}");
                match came.get(key) {
                    Some(came) => differences(value, came, &path, faults),
                    None => faults.push(Fault::new(path, "is not there")),
                }
            }
        }
        (Value::Array(wanted), Value::Array(came)) if wanted.len() == came.len() => {
            for (n, (wanted, came)) in wanted.iter().zip(came).enumerate() {
                differences(wanted, came, &format!("{path}[{n}]"), faults);
            }
        }
        (Value::Array(wanted), Value::Array(came)) => {
            faults.push(Fault::new(path, format_args!("{} items come, not {}", came.len(), wanted.len())));
        }
        _ if wanted == came => {}
        _ => faults.push(Fault::new(path, format_args!("{came} comes, not {wanted}"))),
    }
}
