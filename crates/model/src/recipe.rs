//! Recipes: a trigger and the steps that follow it, as documents say them and compiled to run.
//!
//! A [`Recipe`] holds every template read and every reference checked: pills name known roots and earlier
//! steps, so that what can be known before the first event is said when the document is applied. Rendering
//! a request gives one that stays below the connection's base URL and on its origin.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use indexmap::IndexMap;
use percent_encoding::utf8_percent_encode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::fault::Fault;
use crate::job::StepError;
use crate::limits;
use crate::name::{Name, near_match};
use crate::request::RequestSpec;
use crate::template::{self, Expression, Pill, RenderError, Scope, Segment, Template, TemplateError};
use crate::units::Duration;

/// The `spec` of a recipe document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipeSpec {
    /// What starts the recipe.
    pub trigger: Trigger,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// Whether it runs; a stopped recipe starts no job, and events that came meanwhile can be replayed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// What starts a recipe: one key that names the kind of trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Trigger {
    /// Every event of an endpoint, or those that a condition picks.
    Webhook(WebhookTrigger),
}

/// A trigger on an endpoint's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookTrigger {
    /// The endpoint.
    pub endpoint: Name,
    /// An expression over `trigger`; only events for which it is true start a job. A missing path is null here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// One step of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How later steps refer to it: `[a-z][a-z0-9_]*`, unique in the recipe.
    pub id: String,
    /// Calls an API.
    pub request: RequestStep,
}

/// A step that calls an API. Every text may hold pills.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestStep {
    /// The connection; left out, `url` is a whole URL and no credentials are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Name>,
    /// GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS.
    pub method: String,
    /// Appended to the connection's base URL; pills in it are percent-encoded by their position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A whole URL, in place of `path`; one that is a single pill is taken as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Query parameters, appended in order.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub query: IndexMap<String, String>,
    /// Headers.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// A JSON body; a text in it that is one whole pill keeps the value's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<serde_json::Value>,
    /// A form body, fields in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<IndexMap<String, String>>,
    /// A text body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What the answer is read as; left out: JSON where the answer says so, else text, else bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseFormat>,
    /// Whether the request may be repeated when its outcome is unknown; left out: by the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Longest time for the whole exchange, in place of the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// What an answer is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResponseFormat {
    /// JSON; an answer that is not JSON is a step error.
    Json,
    /// Text in UTF-8.
    Text,
    /// The bytes, as base64 in the output.
    Raw,
}

/// What repeating a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Changes nothing; always safe to repeat.
    Read,
    /// Repeating it leaves the same state as doing it once.
    Idempotent,
    /// Repeating it may do it twice.
    Write,
}

impl Effect {
    /// The effect that a method has unless the step says otherwise (RFC 9110, section 9.2).
    #[must_use]
    pub fn of_method(method: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" => Self::Read,
            "PUT" | "DELETE" => Self::Idempotent,
            _ => Self::Write,
        }
    }
}

impl RecipeSpec {
    /// Whether it runs.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        Recipe::compile(self).err().unwrap_or_default()
    }

    /// The endpoint whose events start it.
    #[must_use]
    pub fn endpoint(&self) -> &Name {
        match &self.trigger {
            Trigger::Webhook(webhook) => &webhook.endpoint,
        }
    }
}

/// A recipe that is ready to run.
#[derive(Debug)]
pub struct Recipe {
    when: Option<Expression>,
    steps: Vec<CompiledStep>,
}

/// A step that is ready to run.
#[derive(Debug)]
pub struct CompiledStep {
    /// How later steps refer to it.
    pub id: String,
    /// The connection that it uses.
    pub connection: Option<Name>,
    /// What repeating its request does: as the step says, else by its method.
    pub effect: Effect,
    /// What its answer is read as.
    pub response: Option<ResponseFormat>,
    /// Longest time for the whole exchange, in place of the connection's.
    pub timeout: Option<std::time::Duration>,
    /// Its request.
    pub request: CompiledRequest,
}

/// A request with its templates read.
#[derive(Debug)]
pub struct CompiledRequest {
    method: Method,
    target: Target,
    query: Vec<(String, Template)>,
    headers: Vec<(HeaderName, String, Template)>,
    body: Body,
}

#[derive(Debug)]
enum Target {
    Path(Template),
    Url(Template),
}

#[derive(Debug)]
enum Body {
    None,
    Json(JsonTemplate),
    Form(Vec<(String, Template)>),
    Text(Template),
}

/// A JSON value whose texts are templates; its keys are literal.
#[derive(Debug)]
enum JsonTemplate {
    Literal(Value),
    Text(Template),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// Why a request could not be made of the data: which field of the step, where in it, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}, {message}")]
pub struct RenderFault {
    /// The field of the step: `path`, `headers.X-Name`, `json.items[0].title`.
    pub field: String,
    /// Dotted slug: `template.unknown_pill`, `template.failed`, `request.url`, `request.too_large`.
    pub code: &'static str,
    /// Where in the field, in characters from 1, when a template is at fault.
    pub column: Option<usize>,
    /// The pill that is missing, when one is.
    pub pill: Option<String>,
    /// What is wrong and what was probably meant.
    pub message: String,
}

impl RenderFault {
    fn of(field: impl Into<String>, error: &RenderError) -> Self {
        Self {
            field: field.into(),
            code: error.code(),
            column: Some(error.column),
            pill: error.pill.clone(),
            message: error.to_string(),
        }
    }

    fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, column: None, pill: None, message: message.into() }
    }
}

impl From<RenderFault> for StepError {
    fn from(fault: RenderFault) -> Self {
        Self {
            code: fault.code.to_owned(),
            description: fault.to_string(),
            field: Some(fault.field),
            outcome_unknown: None,
        }
    }
}

/// Methods that requests may have.
pub(crate) const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// Headers that describe the message on the wire, which only the sender of it can know.
const WIRE_HEADERS: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"];

const ROOTS: [&str; 3] = ["trigger", "steps", "job"];
const TRIGGER_FIELDS: [&str; 7] = ["id", "received_at", "method", "event_name", "headers", "query", "body"];
const STEP_FIELDS: [&str; 3] = ["status", "headers", "body"];
const JOB_FIELDS: [&str; 4] = ["id", "attempt", "recipe", "test"];

impl Recipe {
    /// Reads every template of a recipe and checks every reference in it.
    ///
    /// # Errors
    /// Every fault, paths relative to `spec`: `steps[0].request.json.title`.
    pub fn compile(spec: &RecipeSpec) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader { faults: Vec::new(), earlier: Vec::new() };
        let Trigger::Webhook(webhook) = &spec.trigger;
        let when = webhook.when.as_deref().and_then(|text| reader.condition("trigger.webhook.when", text));
        if spec.steps.is_empty() {
            reader.fault("steps", "a recipe has at least one step");
        }
        let mut steps = Vec::with_capacity(spec.steps.len());
        for (n, step) in spec.steps.iter().enumerate() {
            reader.check_id(&format!("steps[{n}].id"), &step.id);
            steps.extend(reader.step(&format!("steps[{n}].request"), step));
            reader.earlier.push(&step.id);
        }
        if reader.faults.is_empty() { Ok(Self { when, steps }) } else { Err(reader.faults) }
    }

    /// Whether an event starts the recipe.
    ///
    /// # Errors
    /// Why the condition gives nothing, such as a text compared with a number.
    pub fn when(&self, scope: &Scope) -> Result<bool, RenderError> {
        self.when.as_ref().map_or(Ok(true), |when| when.holds(scope))
    }

    /// Its steps, in order.
    #[must_use]
    pub fn steps(&self) -> &[CompiledStep] {
        &self.steps
    }
}

/// Reads the texts of a recipe and gathers what is wrong with them.
struct Reader<'a> {
    faults: Vec<Fault>,
    /// The ids of the steps before the one that is read.
    earlier: Vec<&'a str>,
}

impl Reader<'_> {
    fn fault(&mut self, path: &str, reason: impl std::fmt::Display) {
        self.faults.push(Fault::new(path, reason));
    }

    fn check_id(&mut self, path: &str, id: &str) {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if id.len() > 63 || !id.starts_with(|c: char| c.is_ascii_lowercase()) || !id.chars().all(allowed) {
            self.fault(
                path,
                format_args!(
                    "`{id}` is not a step id; use up to 63 lower-case letters, digits and `_`, beginning with a letter"
                ),
            );
        }
        if self.earlier.contains(&id) {
            self.fault(path, format_args!("another step is called `{id}` already"));
        }
    }

    fn condition(&mut self, path: &str, text: &str) -> Option<Expression> {
        let expression = self.read(path, Expression::parse(text))?;
        for pill in expression.pills() {
            if pill.root == "trigger" {
                self.check_pill(path, pill);
            } else {
                self.fault(path, format_args!("column {}: a condition is over `trigger` only", pill.column));
            }
        }
        Some(expression)
    }

    fn template(&mut self, path: &str, text: &str) -> Option<Template> {
        let template = self.read(path, Template::parse(text))?;
        for pill in template.pills() {
            self.check_pill(path, pill);
        }
        Some(template)
    }

    fn read<T>(&mut self, path: &str, read: Result<T, TemplateError>) -> Option<T> {
        read.map_err(|error| self.fault(path, error)).ok()
    }

    /// Whether a pill can name something: a known root, an earlier step, a known field of either.
    fn check_pill(&mut self, path: &str, pill: &Pill) {
        let keys: Vec<Option<&str>> = pill
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Key(key) => Some(key.as_str()),
                Segment::Index(_) => None,
            })
            .collect();
        let earlier = self.earlier.clone();
        let step_before = |id: &str| earlier.contains(&id);
        // The words that may stand at the first place where the path goes astray, and the word there.
        let astray: Option<(&str, &[&str])> = match (pill.root.as_str(), keys.as_slice()) {
            ("trigger", [first, ..]) => Some((first.unwrap_or_default(), &TRIGGER_FIELDS[..])),
            ("job", [first, ..]) => Some((first.unwrap_or_default(), &JOB_FIELDS[..])),
            ("steps", [Some(id), second, ..]) if step_before(id) => {
                Some((second.unwrap_or_default(), &STEP_FIELDS[..]))
            }
            ("steps", [first, ..]) => Some((first.unwrap_or_default(), earlier.as_slice())),
            ("trigger" | "steps" | "job", _) => None,
            (root, _) => Some((root, &ROOTS[..])),
        };
        let Some((word, known)) = astray.filter(|(word, known)| !known.contains(word)) else { return };
        let reason = if pill.root == "steps" && known == earlier.as_slice() {
            format!("column {}: pill \"{pill}\" does not name an earlier step", pill.column)
        } else {
            format!("column {}: pill \"{pill}\" names nothing; use {}", pill.column, known.join(", "))
        };
        let mut fault = Fault::new(path, reason);
        if let Some(near) = near_match(word, known.iter().copied()) {
            fault = fault.hint(format!("did you mean `{near}`?"));
        }
        self.faults.push(fault);
    }

    fn step(&mut self, path: &str, step: &Step) -> Option<CompiledStep> {
        let request = &step.request;
        let method = METHODS.into_iter().find(|method| method.as_str() == request.method);
        if method.is_none() {
            let words = METHODS.map(|method| method.to_string()).join(", ");
            self.fault(&format!("{path}.method"), format_args!("`{}` is not a method; use {words}", request.method));
        }
        let target = self.target(path, request);
        let query = self.fields(&format!("{path}.query"), &request.query);
        let headers = self.headers(&format!("{path}.headers"), &request.headers);
        let body = self.body(path, request);
        if request.timeout.is_some_and(|timeout| timeout.get().is_zero() || timeout.get() > limits::TOTAL_TIMEOUT_MAX) {
            self.fault(&format!("{path}.timeout"), "a timeout is between 1ms and 120s");
        }
        let method = method?;
        Some(CompiledStep {
            id: step.id.clone(),
            connection: request.connection.clone(),
            effect: request.effect.unwrap_or_else(|| Effect::of_method(method.as_str())),
            response: request.response,
            timeout: request.timeout.map(Duration::get),
            request: CompiledRequest { method, target: target?, query, headers, body },
        })
    }

    fn target(&mut self, path: &str, request: &RequestStep) -> Option<Target> {
        match (&request.path, &request.url) {
            (Some(_), Some(_)) => self.fault(path, "give one of path and url"),
            (None, None) if request.connection.is_some() => self.fault(path, "give a path, or a url"),
            (None, None) => self.fault(path, "give a url, or a connection and a path"),
            (Some(_), None) if request.connection.is_none() => {
                self.fault(&format!("{path}.path"), "a path needs a connection; without one give a url");
            }
            (Some(text), None) => {
                let path = format!("{path}.path");
                let template = self.template(&path, text)?;
                if let Some(error) = template.path_fault() {
                    self.fault(&path, error);
                }
                return Some(Target::Path(template));
            }
            (None, Some(text)) => {
                let path = format!("{path}.url");
                let template = self.template(&path, text)?;
                let literal = template.as_literal().map(|text| checked_url(text).map(|_| ()));
                if let Some(error) = template.url_fault() {
                    self.fault(&path, error);
                } else if let Some(Err(reason)) = literal {
                    self.fault(&path, reason);
                }
                return Some(Target::Url(template));
            }
        }
        None
    }

    fn fields(&mut self, path: &str, fields: &IndexMap<String, String>) -> Vec<(String, Template)> {
        fields
            .iter()
            .filter_map(|(name, text)| Some((name.clone(), self.template(&format!("{path}.{name}"), text)?)))
            .collect()
    }

    fn headers(&mut self, path: &str, headers: &IndexMap<String, String>) -> Vec<(HeaderName, String, Template)> {
        let mut read: Vec<(HeaderName, String, Template)> = Vec::new();
        for (written, text) in headers {
            let path = format!("{path}.{written}");
            let template = self.template(&path, text);
            let Ok(name) = HeaderName::from_bytes(written.as_bytes()) else {
                self.fault(&path, format_args!("`{written}` is not a header name"));
                continue;
            };
            if WIRE_HEADERS.contains(&name.as_str()) {
                self.fault(&path, "this header is set when the request is sent");
            }
            if read.iter().any(|(known, ..)| *known == name) {
                self.fault(&path, "this header is given twice");
            }
            let Some(template) = template else { continue };
            if template.as_literal().is_some_and(|text| HeaderValue::from_bytes(text.as_bytes()).is_err()) {
                self.fault(&path, "a header value holds no line breaks or other control characters");
            }
            read.push((name, written.clone(), template));
        }
        read
    }

    fn body(&mut self, path: &str, request: &RequestStep) -> Body {
        let given = [request.json.is_some(), request.form.is_some(), request.text.is_some()];
        if given.iter().filter(|is| **is).count() > 1 {
            self.fault(path, "give one of json, form and text");
        }
        if let Some(value) = &request.json {
            return self.json(&format!("{path}.json"), value).map_or(Body::None, Body::Json);
        }
        if let Some(fields) = &request.form {
            return Body::Form(self.fields(&format!("{path}.form"), fields));
        }
        let text = request.text.as_deref();
        text.and_then(|text| self.template(&format!("{path}.text"), text)).map_or(Body::None, Body::Text)
    }

    fn json(&mut self, path: &str, value: &Value) -> Option<JsonTemplate> {
        Some(match value {
            Value::String(text) => {
                let template = self.template(path, text)?;
                match template.as_literal() {
                    Some(_) => JsonTemplate::Literal(value.clone()),
                    None => JsonTemplate::Text(template),
                }
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                JsonTemplate::List(items.filter_map(|(n, item)| self.json(&format!("{path}[{n}]"), item)).collect())
            }
            Value::Object(map) => {
                let fields = map.iter();
                let read =
                    fields.filter_map(|(key, item)| Some((key.clone(), self.json(&format!("{path}.{key}"), item)?)));
                JsonTemplate::Object(read.collect())
            }
            scalar => JsonTemplate::Literal(scalar.clone()),
        })
    }
}

impl CompiledRequest {
    /// Whether the step gives a whole URL, in place of a path.
    #[must_use]
    pub fn names_url(&self) -> bool {
        matches!(self.target, Target::Url(_))
    }

    /// Makes the request of the data; `base` is the connection's base URL.
    ///
    /// # Errors
    /// Which field gives no value, or why the URL is not one that this step may call.
    pub fn render(&self, scope: &Scope, base: Option<&Url>) -> Result<RequestSpec, RenderFault> {
        let mut url = self.target.render(scope, base)?;
        self.append_query(scope, &mut url)?;
        let mut headers = Vec::with_capacity(self.headers.len() + 1);
        for (name, written, template) in &self.headers {
            let value = template.render_header(scope).map_err(|e| RenderFault::of(format!("headers.{written}"), &e))?;
            headers.push((name.clone(), value));
        }
        let (body, content_type) = self.body.render(scope)?;
        if let Some(content_type) = content_type
            && !self.headers.iter().any(|(name, ..)| name == CONTENT_TYPE)
        {
            headers.push((CONTENT_TYPE, HeaderValue::from_static(content_type)));
        }
        Ok(RequestSpec { method: self.method.clone(), url, headers, body: body.into() })
    }

    fn append_query(&self, scope: &Scope, url: &mut Url) -> Result<(), RenderFault> {
        if self.query.is_empty() {
            return Ok(());
        }
        let mut query = url.query().unwrap_or_default().to_owned();
        for (name, template) in &self.query {
            let value = template.render_text(scope).map_err(|e| RenderFault::of(format!("query.{name}"), &e))?;
            if !query.is_empty() && !query.ends_with('&') {
                query.push('&');
            }
            query.extend(utf8_percent_encode(name, template::COMPONENT));
            query.push('=');
            query.extend(utf8_percent_encode(&value, template::COMPONENT));
        }
        url.set_query(Some(&query));
        Ok(())
    }
}

impl Target {
    fn render(&self, scope: &Scope, base: Option<&Url>) -> Result<Url, RenderFault> {
        match self {
            Self::Path(template) => {
                let path = template.render_url_path(scope).map_err(|e| RenderFault::of("path", &e))?;
                let base = base.ok_or_else(|| {
                    RenderFault::new("path", "request.url", "the connection has no base_url; give the step a url")
                })?;
                join(base, &path).ok_or_else(|| {
                    RenderFault::new("path", "request.url", "the path leads out of the connection's base_url")
                })
            }
            Self::Url(template) => {
                let text = template.render_url(scope).map_err(|e| RenderFault::of("url", &e))?;
                let url = checked_url(&text).map_err(|reason| RenderFault::new("url", "request.url", reason))?;
                match base {
                    // Else the account's credentials would go to whoever a pill names.
                    Some(base) if base.origin() != url.origin() => Err(RenderFault::new(
                        "url",
                        "request.url",
                        format!(
                            "{} is not the origin of the connection, {}",
                            url.origin().ascii_serialization(),
                            base.origin().ascii_serialization()
                        ),
                    )),
                    _ => Ok(url),
                }
            }
        }
    }
}

/// Appends a rendered path, perhaps with a query, to a base URL; `None` when it would lead out of it.
pub(crate) fn join(base: &Url, rendered: &str) -> Option<Url> {
    let (path, query) = rendered.split_once('?').map_or((rendered, None), |(path, query)| (path, Some(query)));
    let root = base.path().trim_end_matches('/');
    let mut url = base.clone();
    if !path.is_empty() {
        url.set_path(&format!("{root}/{}", path.trim_start_matches('/')));
    }
    url.set_query(query);
    url.set_fragment(None);
    let inside = url.path().strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (inside && url.origin() == base.origin()).then_some(url)
}

/// Reads a whole URL that a request may go to.
pub(crate) fn checked_url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text.trim()).map_err(|error| format!("not a whole URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("a URL begins with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL holds no credentials; put them into an account".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

impl Body {
    /// The bytes, and what they are.
    fn render(&self, scope: &Scope) -> Result<(Vec<u8>, Option<&'static str>), RenderFault> {
        match self {
            Self::None => Ok((Vec::new(), None)),
            Self::Json(json) => {
                let mut room = usize::try_from(limits::BODY_MAX_BYTES).unwrap_or(usize::MAX);
                let value = json.render("json", scope, &mut room)?;
                Ok((value.to_string().into_bytes(), Some("application/json")))
            }
            Self::Form(fields) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                for (name, template) in fields {
                    let value = template.render_text(scope).map_err(|e| RenderFault::of(format!("form.{name}"), &e))?;
                    form.append_pair(name, &value);
                }
                Ok((form.finish().into_bytes(), Some("application/x-www-form-urlencoded")))
            }
            Self::Text(template) => {
                let text = template.render_text(scope).map_err(|e| RenderFault::of("text", &e))?;
                Ok((text.into_bytes(), Some("text/plain; charset=utf-8")))
            }
        }
    }
}

impl JsonTemplate {
    /// The value; `room` is how much memory values of pills may still take, together.
    fn render(&self, field: &str, scope: &Scope, room: &mut usize) -> Result<Value, RenderFault> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Text(template) => {
                let value = template.render_value(scope).map_err(|e| RenderFault::of(field, &e))?;
                *room = room.checked_sub(template::weight(&value, *room)).ok_or_else(|| {
                    RenderFault::new(field, "request.too_large", "the body would take more than 64 MiB")
                })?;
                Ok(value)
            }
            Self::List(items) => {
                items.iter().enumerate().map(|(n, item)| item.render(&format!("{field}[{n}]"), scope, room)).collect()
            }
            Self::Object(fields) => fields
                .iter()
                .map(|(key, item)| Ok((key.clone(), item.render(&format!("{field}.{key}"), scope, room)?)))
                .collect::<Result<serde_json::Map<_, _>, _>>()
                .map(Value::Object),
        }
    }
}

#[cfg(test)]
mod tests;
