//! Cases of a connector: what an action or a stream sends and what it makes of the answers, and which webhooks are
//! taken, without a network.

mod receipt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use url::form_urlencoded;

pub use self::receipt::ReceivesSpec;
use super::{Action, Connector, Reading, Stream};
use crate::connection::ConnectionSpec;
use crate::fault::Fault;
use crate::job::StepError;
use crate::paginate::NextPage;
use crate::request::RequestSpec;
use crate::response::{self, Answer};
use crate::template::headers_value;
use crate::time::Timestamp;

/// A case: of an action or a stream what it is given, the requests that it must send, the answers to them, and what
/// must come of it; of a webhook a request, and whether it is taken. One of `action`, `stream` and `webhook` is named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseSpec {
    /// What it shows.
    pub name: String,
    /// The action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// The connection's settings.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// What the action or the stream is given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub input: Map<String, Value>,
    /// Of a stream, the cursor of the reading before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Value>,
    /// Of a webhook, the secret that the endpoint would have; an example, never a live one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Of a webhook, when the request comes; for signatures that hold a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub at: Option<Timestamp>,
    /// Of a webhook, the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receives: Option<ReceivesSpec>,
    /// The request and its answer; of a list, those of each page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<ExchangeSpec>,
    /// What it gives: the body of the answer, of a list all items, of a webhook `verified` (`hmac`, `token` or `none`)
    /// and the id that `dedupe` goes by. Fields that this does not name are not compared.
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
            let found = match (&case.action, &case.stream, &case.webhook) {
                (Some(name), None, None) => self.action(name).err().map(|fault| fault.under("action")),
                (None, Some(name), None) => self.stream(name).err().map(|fault| fault.under("stream")),
                (None, None, Some(name)) => self.spec.webhook(name).err().map(|fault| fault.under("webhook")),
                _ => Some(Fault::new("", "name one of action, stream and webhook")),
            };
            faults.extend(found.map(|fault| fault.under(&path)));
            faults.extend(case.misplaced().map(|fault| fault.under(&path)));
            if case.webhook.is_none() && case.exchanges.is_empty() && case.fails.is_none() {
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
        let mut faults = Vec::new();
        let came = match &case.webhook {
            Some(webhook) => self.receive(webhook, case, files)?,
            None => self.exchange(case, files, &mut faults)?,
        };
        match (&case.gives, &case.fails, came) {
            (Some(wanted), _, Ok(came)) => differences(wanted, &came, "gives", &mut faults),
            (Some(_), _, Err(error)) if faults.is_empty() => {
                faults.push(Fault::new("gives", format_args!("it fails: {error}")));
            }
            (_, Some(wanted), Err(error)) if !error.contains(wanted.as_str()) => {
                faults.push(Fault::new("fails", format_args!("the error says otherwise: {error}")));
            }
            (_, Some(_), Ok(_)) => faults.push(Fault::new("fails", "it does not fail")),
            _ => {}
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

impl Connector {
    /// What an action or a stream gives, or why it fails; what it sends otherwise than it should goes to `faults`.
    fn exchange(
        &self,
        case: &CaseSpec,
        files: &Files<'_>,
        faults: &mut Vec<Fault>,
    ) -> Result<Result<Value, String>, Vec<Fault>> {
        let (action, stream) = match (&case.action, &case.stream) {
            (_, Some(name)) => {
                let stream = self.stream(name).map_err(|fault| vec![fault.under("stream")])?;
                (&stream.action, Some(stream))
            }
            (name, None) => {
                let name = name.as_deref().unwrap_or_default();
                (self.action(name).map_err(|fault| vec![fault.under("action")])?, None)
            }
        };
        let own = ConnectionSpec { settings: Some(case.settings.clone()), ..ConnectionSpec::default() };
        let (connection, settings) = self.connect(&own)?;
        let run =
            Run { connector: self, case, action, stream: stream.map(|stream| &**stream), connection, settings, files };
        Ok(run.outcome(faults).map_err(|error| error.description))
    }
}

impl CaseSpec {
    /// Fields that say nothing of what the case is about.
    fn misplaced(&self) -> Option<Fault> {
        let of = |field: &str, what: &str| Some(Fault::new(field, format_args!("only a case of a {what} has it")));
        match (&self.stream, &self.webhook) {
            (_, Some(_)) if self.receives.is_none() => Some(Fault::new("receives", "give the request that comes")),
            (_, Some(_)) if !self.exchanges.is_empty() => {
                Some(Fault::new("exchanges", "a webhook sends nothing; leave them out"))
            }
            (_, None) if self.receives.is_some() => of("receives", "webhook"),
            (_, None) if self.secret.is_some() => of("secret", "webhook"),
            (None, _) if self.since.is_some() => of("since", "stream"),
            _ => None,
        }
    }
}

struct Run<'a> {
    connector: &'a Connector,
    case: &'a CaseSpec,
    action: &'a Action,
    /// The stream, when it is one.
    stream: Option<&'a Stream>,
    connection: ConnectionSpec,
    settings: Value,
    files: &'a Files<'a>,
}

impl Run<'_> {
    /// What it gives; what it sends otherwise than it should goes to `faults`.
    fn outcome(&self, faults: &mut Vec<Fault>) -> Result<Value, StepError> {
        let scope = self.action.scope(self.connector, &self.settings, self.case.input.clone())?;
        let mut request = self.action.plan.request.render(&scope, self.connection.base().as_ref())?;
        if !self.connection.admits(self.connection.base().as_ref(), &request.url) {
            return Err(stopped(&format!(
                "{} is none of the connection's hosts",
                request.url.origin().ascii_serialization()
            )));
        }
        // As a reading does it: the stream says where it begins, then its pages.
        let begun = self.stream.map(|stream| stream.begin(&mut request, &scope, self.case.since.as_ref())).transpose();
        let mut reading: Option<Reading<'_>> = begun.map_err(|fault| stopped(&fault))?;
        let mut pages = self.action.paginate.as_ref().map(|rule| rule.pages());
        if let Some(pages) = &mut pages {
            request = pages.first(&request).map_err(|fault| stopped(&fault))?;
        }
        let mut items = Vec::new();
        for (n, exchange) in self.case.exchanges.iter().enumerate() {
            let mut sent = request.clone();
            self.connection.add_headers(&mut sent);
            let path = format!("exchanges[{n}]");
            compare(&exchange.sends, &sent, &format!("{path}.sends"), faults);
            let answer = &exchange.answers;
            let written = Written {
                headers: &answer.headers,
                json: answer.json.as_ref(),
                text: answer.text.as_deref(),
                file: answer.file.as_deref(),
            };
            let (headers, body) = written.read(self.files).map_err(|reason| {
                faults.push(Fault::new(format!("{path}.answers"), &reason));
                stopped(&reason)
            })?;
            let headers = headers_value(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
            let status = answer.status.unwrap_or(200);
            let content_type = headers.get("content-type").and_then(Value::as_str);
            let read =
                response::read(self.action.plan.response, Answer { status, content_type, packed: None, body: &body });
            let headers = headers.clone().into();
            let body =
                self.action.plan.judge(status, &headers, read.map(Into::into)).map_err(|fault| stopped(&fault))?;
            let Some(pages) = &mut pages else { return Ok(Value::clone(&body)) };
            let page = pages.turn(&request, status, Value::clone(&headers), Value::clone(&body));
            let page = page.map_err(|fault| stopped(&fault))?;
            items.extend(match &mut reading {
                Some(reading) => reading.take(page.items).map_err(|fault| stopped(&fault))?,
                None => page.items,
            });
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
}

/// Headers and body that a case writes down.
struct Written<'a> {
    headers: &'a IndexMap<String, String>,
    json: Option<&'a Value>,
    text: Option<&'a str>,
    file: Option<&'a str>,
}

impl Written<'_> {
    /// The headers, their names in lower case, and the body; a JSON body that names no content type is one.
    fn read(&self, files: &Files<'_>) -> Result<(IndexMap<String, String>, Vec<u8>), String> {
        let mut headers: IndexMap<String, String> =
            self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        let mut is_json = self.json.is_some();
        let body = match (self.json, self.text, self.file) {
            (Some(json), None, None) => json.to_string().into_bytes(),
            (None, Some(text), None) => text.to_owned().into_bytes(),
            (None, None, Some(name)) => {
                is_json = std::path::Path::new(name).extension().is_some_and(|extension| extension == "json");
                files(name).map_err(|reason| format!("{name}: {reason}"))?
            }
            (None, None, None) => Vec::new(),
            _ => return Err("give one of json, text and file".to_owned()),
        };
        if is_json {
            headers.entry("content-type".to_owned()).or_insert_with(|| "application/json".to_owned());
        }
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
