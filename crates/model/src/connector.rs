//! Connectors: an API written down once: its settings, how it is reached, the actions and streams that it offers, and
//! the webhooks that it sends.
//!
//! A [`Connector`] holds every template read and every schema checked. What varies between its users are settings, in
//! the connection, and input, in each call; secrets are neither, they are the account's.

mod case;
mod compact;
mod patterns;
mod schema;
mod stream;
mod unique;
mod webhook;

use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::case::{AnswerSpec, CaseSpec, ExchangeSpec, Files, ReceivesSpec, SendsSpec};
pub use self::compact::CompactConnector;
use self::compact::Part;
pub use self::schema::ObjectSchema;
pub(crate) use self::schema::PATTERNS_TOO_LARGE;
pub use self::stream::{Reading, Stream, StreamCursorSpec, StreamSpec};
pub use self::webhook::{Intake, WebhookSpec};
use crate::account::AccountSpec;
use crate::connection::ConnectionSpec;
use crate::fault::{self, Fault};
use crate::job::StepError;
use crate::limits;
use crate::name::{Name, near_match};
use crate::paginate::{Paginate, PaginateSpec};
use crate::reader::Reader;
use crate::request::{Expectation, RequestPlan, RequestStep};
use crate::template::{Pill, Scope, Segment, Template};

/// The `spec` of a connector document: one file says all that there is to know of an API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectorSpec {
    /// The version of this document, as its author counts: `1.2.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What people call the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The page of the API's own documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documentation: Option<String>,
    /// A connector that this one adds to: what this one says goes before, action by action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<Name>,
    /// What a connection says of itself, as a JSON Schema of an object. Texts of the connector name it
    /// `{{ settings.NAME }}`. Secrets belong into an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    /// How the API is reached, as in a connection; a connection over the connector may say otherwise.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub connection: ConnectionSpec,
    /// The kinds of accounts that the API takes. Left out: any, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountChoice>,
    /// Whether a connection may have no account although the API takes some: what it calls says by itself whether it is
    /// for everybody.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub account_optional: bool,
    /// What its answers must be, for actions and streams that do not say it, and for the connection's test.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub answers: AnswersSpec,
    /// How lists go on, for the actions that say `paginate` and not how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paginate: Option<PaginateSpec>,
    /// What it offers, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub actions: IndexMap<String, ActionSpec>,
    /// Lists that can be read again and again, by name; no action has the same one.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub streams: IndexMap<String, StreamSpec>,
    /// What it sends to endpoints, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub webhooks: IndexMap<String, WebhookSpec>,
    /// Cases that show what is sent, what is made of answers, and which webhooks are taken, without a network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<CaseSpec>,
}

/// What the answers of an API must be, and where they say why they are not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswersSpec {
    /// An expression over `status`, `headers` and `body` that must hold of an answer with a good status: `body.ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// An expression over the same that gives what an error says: `body.error.message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl AnswersSpec {
    /// Everything that is wrong with it.
    fn faults(&self) -> Vec<Fault> {
        let check = |_: &str, _: &Pill| None;
        let mut reader = Reader::new(&check);
        let holds = ("answers.expect", self.expect.as_deref());
        Expectation::read(&mut reader, holds, ("answers.message", self.message.as_deref()));
        reader.into_faults()
    }
}

/// A kind of account that an API takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountChoice {
    /// The kind: `bearer`, `basic`, `oauth2`.
    pub kind: String,
    /// What the API calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Where its credentials come from, and what they have to allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// One thing that an API can be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionSpec {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does, and what is worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it is given, as a JSON Schema of an object. Texts of the request name it `{{ input.NAME }}`; a
    /// parameter, header or field that is nothing but the pill of something that is not given, perhaps with filters,
    /// is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The request; without a `connection`.
    pub request: RequestStep,
    /// That it gives a list, and how the list goes on: what is not said here is the connector's `paginate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paginate: Option<PaginateSpec>,
    /// What its answer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,
}

/// What an action's answer holds: of a list, one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Its JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// An example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Value>,
}

/// A connector that is ready to be used.
#[derive(Debug)]
pub struct Connector {
    /// What it says, with what it extends; of one that was opened from its compact form without actions, streams and
    /// cases.
    pub spec: ConnectorSpec,
    settings: ObjectSchema,
    actions: IndexMap<String, Part<Action>>,
    streams: IndexMap<String, Part<Stream>>,
}

/// An action that is ready to be called.
#[derive(Debug)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// Its request and what is made of the answer.
    pub plan: Arc<RequestPlan>,
    /// How its list goes on, when it gives one.
    pub paginate: Option<Arc<Paginate>>,
    /// What it is given.
    pub input: ObjectSchema,
}

/// How many connectors may extend each other.
const EXTENDS_MAX: usize = 8;

impl ConnectorSpec {
    /// Everything that is wrong with this spec on its own, paths relative to `spec`. One that extends another can
    /// only be judged with that.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        match self.extends {
            Some(_) => Vec::new(),
            None => Connector::compile(self.clone()).err().unwrap_or_default(),
        }
    }

    /// The same with everything that it extends put under it. `find` gives a connector by its name; of the
    /// connector's own name, one that comes with the product.
    ///
    /// # Errors
    /// What it extends does not exist, or they extend each other without an end.
    pub fn resolve<'a>(&self, name: &Name, find: &dyn Fn(&Name, bool) -> Option<&'a Self>) -> Result<Self, Fault> {
        let mut whole = self.clone();
        let mut name = name.clone();
        for _ in 0..EXTENDS_MAX {
            let Some(base) = whole.extends.take() else { return Ok(whole) };
            let found = find(&base, base == name)
                .ok_or_else(|| Fault::new("extends", format_args!("there is no connector `{base}`")))?;
            whole = whole.over(found);
            name = base;
        }
        Err(endless())
    }

    /// The same on top of `base`: what it names goes before what that names.
    fn over(mut self, base: &Self) -> Self {
        let mut actions = base.actions.clone();
        actions.extend(self.actions);
        self.actions = actions;
        let mut streams = base.streams.clone();
        streams.extend(self.streams);
        self.streams = streams;
        let mut webhooks = base.webhooks.clone();
        webhooks.extend(self.webhooks);
        self.webhooks = webhooks;
        self.settings = match (&base.settings, self.settings) {
            (Some(base), Some(own)) => Some(merged(base.clone(), own)),
            (base, own) => own.or_else(|| base.clone()),
        };
        self.connection = self.connection.over(&base.connection);
        if self.accounts.is_empty() {
            self.accounts.clone_from(&base.accounts);
            self.account_optional |= base.account_optional;
        }
        self.extends.clone_from(&base.extends);
        self.title = self.title.or_else(|| base.title.clone());
        self.documentation = self.documentation.or_else(|| base.documentation.clone());
        self.version = self.version.or_else(|| base.version.clone());
        self.paginate = self.paginate.or_else(|| base.paginate.clone());
        self.answers.expect = self.answers.expect.or_else(|| base.answers.expect.clone());
        self.answers.message = self.answers.message.or_else(|| base.answers.message.clone());
        self
    }
}

/// `own` on top of `base`: objects field by field, lists of required fields together.
fn merged(base: Value, own: Value) -> Value {
    match (base, own) {
        (Value::Object(mut base), Value::Object(own)) => {
            for (key, value) in own {
                let under = base.shift_remove(&key);
                let value = match (under, value) {
                    (Some(Value::Array(mut under)), Value::Array(own)) if key == "required" => {
                        let new: Vec<Value> = own.into_iter().filter(|name| !under.contains(name)).collect();
                        under.extend(new);
                        Value::Array(under)
                    }
                    (Some(under), own) => merged(under, own),
                    (None, own) => own,
                };
                base.insert(key, value);
            }
            Value::Object(base)
        }
        (_, own) => own,
    }
}

impl Connector {
    /// Reads every template and schema of a connector that extends no other.
    ///
    /// # Errors
    /// Every fault, paths relative to `spec`: `actions.get_issue.request.path`.
    pub fn compile(spec: ConnectorSpec) -> Result<Self, Vec<Fault>> {
        let settings = ObjectSchema::new(spec.settings.as_ref());
        let mut faults = head_faults(&spec, &settings);
        faults.extend(count_faults(&spec));
        let answers = spec.answers.faults();
        let defaults = Defaults {
            settings: &settings,
            paginate: spec.paginate.as_ref(),
            answers: answers.is_empty().then_some(&spec.answers),
        };
        faults.extend(answers);
        let mut actions = IndexMap::with_capacity(spec.actions.len());
        let mut patterns = settings.pattern_weight();
        for (name, action) in &spec.actions {
            let own = action.input.as_ref().map_or(0, patterns::weight);
            patterns = patterns.saturating_add(own);
            // Each schema alone may be small enough, and there may be thousands.
            if own > 0 && patterns > limits::CONNECTOR_PATTERNS {
                let fault = Fault::new(format!("actions.{name}.input"), PATTERNS_TOO_LARGE);
                faults.push(fault.hint("the connector's patterns are too many or too long together"));
                continue;
            }
            match Action::compile(name, action, &defaults) {
                Ok(action) => drop(actions.insert(name.clone(), Part::ready(action))),
                Err(found) => faults.extend(under(&format!("actions.{name}"), found)),
            }
        }
        let mut streams = IndexMap::with_capacity(spec.streams.len());
        for (name, stream) in &spec.streams {
            match Stream::compile(name, stream, &defaults) {
                Ok(stream) => drop(streams.insert(name.clone(), Part::ready(stream))),
                Err(found) => faults.extend(found),
            }
            if spec.actions.contains_key(name) {
                faults.push(Fault::new(format!("streams.{name}"), "an action has this name already"));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let connector = Self { spec, settings, actions, streams };
        let faults = connector.case_faults();
        if faults.is_empty() { Ok(connector) } else { Err(faults) }
    }

    /// Opens a connector that extends no other and was checked whole when it was stored: its actions and streams are
    /// read when they are used.
    ///
    /// # Errors
    /// Every fault outside actions and streams, paths relative to `spec`.
    pub fn open(compact: &CompactConnector) -> Result<Self, Vec<Fault>> {
        let spec = ConnectorSpec::clone(&compact.head);
        let settings = ObjectSchema::new(spec.settings.as_ref());
        let mut faults = head_faults(&spec, &settings);
        faults.extend(spec.answers.faults());
        if !faults.is_empty() {
            return Err(faults);
        }
        let actions = compact.actions.iter().map(|(name, text)| (name.clone(), Part::later(text))).collect();
        let streams = compact.streams.iter().map(|(name, text)| (name.clone(), Part::later(text))).collect();
        Ok(Self { spec, settings, actions, streams })
    }

    fn defaults(&self) -> Defaults<'_> {
        Defaults { settings: &self.settings, paginate: self.spec.paginate.as_ref(), answers: Some(&self.spec.answers) }
    }

    /// What a connection says of itself.
    #[must_use]
    pub fn settings(&self) -> &ObjectSchema {
        &self.settings
    }

    /// The names of its actions.
    pub fn actions(&self) -> impl Iterator<Item = &str> {
        self.actions.keys().map(String::as_str)
    }

    /// The names of its streams.
    pub fn streams(&self) -> impl Iterator<Item = &str> {
        self.streams.keys().map(String::as_str)
    }

    /// The action with this name.
    ///
    /// # Errors
    /// That there is none, and which was probably meant; or why it cannot be used.
    pub fn action(&self, name: &str) -> Result<&Arc<Action>, Fault> {
        let found = self.actions.get(name).ok_or_else(|| match self.streams.contains_key(name) {
            true => Fault::new("", format_args!("`{name}` is a stream; it is read, not called")),
            false => absent("action", name, self.actions.keys()),
        });
        found?.get(|spec| Action::compile(name, spec, &self.defaults()))
    }

    /// The stream with this name.
    ///
    /// # Errors
    /// That there is none, and which was probably meant; or why it cannot be used.
    pub fn stream(&self, name: &str) -> Result<&Arc<Stream>, Fault> {
        let found = self.streams.get(name).ok_or_else(|| absent("stream", name, self.streams.keys()));
        found?.get(|spec| Stream::compile(name, spec, &self.defaults()))
    }

    /// The connection over this connector that `own` asks for, whole: what it does not say, the connector does.
    /// Gives its settings, defaults filled in, too.
    ///
    /// # Errors
    /// Every fault, paths relative to the connection's `spec`.
    pub fn connect(&self, own: &ConnectionSpec) -> Result<(ConnectionSpec, Value), Vec<Fault>> {
        let given = own.settings.clone().unwrap_or_default();
        let settings = self.settings.complete(given).map_err(|faults| under("settings", faults))?;
        let scope = settings_scope(Scope::new(), &self.settings, &settings);
        let base = render_connection(&self.spec.connection, &scope).map_err(|fault| vec![fault.under("settings")])?;
        let mut whole = own.clone().over(&base);
        if let Some(test) = &mut whole.test {
            test.holds = test.holds.take().or_else(|| self.spec.answers.expect.clone());
            test.message = test.message.take().or_else(|| self.spec.answers.message.clone());
        }
        let faults = ConnectionSpec { connector: None, settings: None, ..whole.clone() }.faults();
        if faults.is_empty() { Ok((whole, Value::Object(settings))) } else { Err(faults) }
    }

    /// What is wrong with an account of this kind, or with none, at this API.
    #[must_use]
    pub fn account_fault(&self, account: Option<&AccountSpec>) -> Option<Fault> {
        let kinds: Vec<&str> = self.spec.accounts.iter().map(|choice| choice.kind.as_str()).collect();
        let kind = account.map_or("none", AccountSpec::kind);
        let is_spared = account.is_none() && self.spec.account_optional;
        if kinds.is_empty() || kinds.contains(&kind) || is_spared {
            return None;
        }
        let reason = format!("the connector takes an account of kind {}, not {kind}", kinds.join(" or "));
        Some(Fault::new("account", reason))
    }
}

impl ConnectorSpec {
    /// The webhook with this name.
    ///
    /// # Errors
    /// That there is none, and which was probably meant.
    pub fn webhook(&self, name: &str) -> Result<&WebhookSpec, Fault> {
        self.webhooks.get(name).ok_or_else(|| absent("webhook", name, self.webhooks.keys()))
    }
}

fn endless() -> Fault {
    Fault::new("extends", format_args!("at most {EXTENDS_MAX} connectors extend each other, and never in a circle"))
}

fn absent<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Fault {
    let fault = Fault::new("", format_args!("the connector has no {what} `{name}`"));
    match near_match(name, known.map(String::as_str)) {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None => fault,
    }
}

/// Reads a rule for pages.
type ReadPages = fn(&PaginateSpec) -> Result<Paginate, Vec<Fault>>;

/// What a connector says for all of its actions and streams.
struct Defaults<'a> {
    settings: &'a ObjectSchema,
    paginate: Option<&'a PaginateSpec>,
    /// What answers must be, when that can be read.
    answers: Option<&'a AnswersSpec>,
}

impl Action {
    fn compile(name: &str, spec: &ActionSpec, defaults: &Defaults<'_>) -> Result<Self, Vec<Fault>> {
        Self::compile_with(name, spec, defaults, PaginateSpec::compile)
    }

    /// The same of a list that may be all on one page.
    fn compile_list(name: &str, spec: &ActionSpec, defaults: &Defaults<'_>) -> Result<Self, Vec<Fault>> {
        Self::compile_with(name, spec, defaults, PaginateSpec::compile_list)
    }

    fn compile_with(
        name: &str,
        spec: &ActionSpec,
        defaults: &Defaults<'_>,
        read_pages: ReadPages,
    ) -> Result<Self, Vec<Fault>> {
        let settings = defaults.settings;
        let input = ObjectSchema::new(spec.input.as_ref());
        let mut faults = under("input", input.faults());
        let check = |path: &str, pill: &Pill| pill_fault(path, pill, &[("input", &input), ("settings", settings)]);
        let mut reader = Reader::new(&check);
        if !is_action_name(name) {
            reader.fault("", BAD_NAME);
        }
        if spec.request.connection.is_some() {
            reader.fault(
                "request.connection",
                "an action goes through the connection that it is called with; leave it out",
            );
        }
        // There will be one; which, the caller says.
        let mut request = RequestStep { connection: "connection".parse().ok(), ..spec.request.clone() };
        if let Some(answers) = defaults.answers {
            request.expect = request.expect.or_else(|| answers.expect.clone());
            request.message = request.message.or_else(|| answers.message.clone());
        }
        let plan = RequestPlan::compile(&mut reader, "request", &request);
        let paginate = spec.paginate.as_ref().map(|own| read_pages(&own.over(defaults.paginate))).transpose();
        let paginate = paginate.map_err(|found| faults.extend(under("paginate", found)));
        faults.extend(reader.into_faults());
        match (plan, paginate) {
            (Some(plan), Ok(paginate)) if faults.is_empty() => {
                Ok(Self { name: name.to_owned(), plan: Arc::new(plan), paginate: paginate.map(Arc::new), input })
            }
            _ => Err(faults),
        }
    }

    /// What the pills of its request see: the connection's settings and what the caller gives.
    ///
    /// # Errors
    /// `input.invalid`, naming the field.
    pub fn scope(
        &self,
        connector: &Connector,
        settings: &Value,
        input: Map<String, Value>,
    ) -> Result<Scope, StepError> {
        self.checked_scope(connector, settings, input).map_err(|faults| StepError {
            code: "input.invalid".to_owned(),
            field: faults.first().map(|fault| fault.path.clone()),
            description: fault::in_words(&faults),
            outcome_unknown: None,
        })
    }

    /// The same, with everything that is wrong by its path: `input.number`.
    pub(crate) fn checked_scope(
        &self,
        connector: &Connector,
        settings: &Value,
        input: Map<String, Value>,
    ) -> Result<Scope, Vec<Fault>> {
        let input = self.input.complete(input).map_err(|faults| under("input", faults))?;
        let empty = Map::new();
        let settings = settings.as_object().unwrap_or(&empty);
        let scope = settings_scope(Scope::new(), &connector.settings, settings);
        Ok(scope.with_fields("input", self.input.with_values(input)))
    }
}

fn settings_scope(scope: Scope, schema: &ObjectSchema, settings: &Map<String, Value>) -> Scope {
    scope.with_fields("settings", schema.with_values(settings.clone()))
}

fn under(prefix: &str, faults: Vec<Fault>) -> Vec<Fault> {
    faults.into_iter().map(|fault| fault.under(prefix)).collect()
}

const BAD_NAME: &str = "a name is lower-case letters, digits and `_`, beginning with a letter, at most 100 of them";

fn is_action_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 100 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(allowed)
}

/// What is wrong outside of actions and streams.
fn head_faults(spec: &ConnectorSpec, settings: &ObjectSchema) -> Vec<Fault> {
    let mut faults = under("settings", settings.faults());
    faults.extend(connection_faults(spec, settings));
    faults.extend(account_faults(spec));
    if spec.version.as_deref().is_some_and(|version| !is_version(version)) {
        faults.push(Fault::new("version", "a version is three numbers: 1.2.0"));
    }
    for (name, webhook) in &spec.webhooks {
        faults.extend(under(&format!("webhooks.{name}"), webhook.faults(name)));
    }
    faults
}

fn count_faults(spec: &ConnectorSpec) -> Vec<Fault> {
    let counts = [("actions", spec.actions.len()), ("streams", spec.streams.len()), ("webhooks", spec.webhooks.len())];
    let fault = |(field, count): (&str, usize)| {
        (count > limits::ACTIONS_MAX)
            .then(|| Fault::new(field, format_args!("a connector has at most {} {field}", limits::ACTIONS_MAX)))
    };
    counts.into_iter().filter_map(fault).collect()
}

pub(crate) fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.len() <= 6 && part.parse::<u32>().is_ok())
}

/// What is wrong with a pill that names none of these roots' fields.
fn pill_fault(path: &str, pill: &Pill, roots: &[(&str, &ObjectSchema)]) -> Option<Fault> {
    let Some((root, schema)) = roots.iter().find(|(root, _)| *root == pill.root) else {
        let known: Vec<&str> = roots.iter().map(|(root, _)| *root).collect();
        let reason = format!("column {}: pill \"{pill}\" names nothing; use {}", pill.column, known.join(", "));
        return Some(Fault::new(path, reason));
    };
    let Some(Segment::Key(name)) = pill.segments.first() else { return None };
    if schema.is_open() || schema.has(name) {
        return None;
    }
    let fault = Fault::new(path, format_args!("column {}: the schema of `{root}` names no `{name}`", pill.column));
    Some(match near_match(name, schema.names()) {
        Some(near) => fault.hint(format!("did you mean `{root}.{near}`?")),
        None => fault,
    })
}

fn account_faults(spec: &ConnectorSpec) -> Vec<Fault> {
    let unknown =
        spec.accounts.iter().enumerate().filter(|(_, choice)| !AccountSpec::KINDS.contains(&choice.kind.as_str()));
    let fault = |(n, choice): (usize, &AccountChoice)| {
        let fault =
            Fault::new(format!("accounts[{n}].kind"), format_args!("`{}` is not a kind of account", choice.kind));
        match near_match(&choice.kind, AccountSpec::KINDS) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint(format!("use {}", AccountSpec::KINDS.join(", "))),
        }
    };
    unknown.map(fault).collect()
}

/// What is wrong with how a connector says that its API is reached, as far as that shows before there are settings.
fn connection_faults(spec: &ConnectorSpec, settings: &ObjectSchema) -> Vec<Fault> {
    let connection = &spec.connection;
    let given = [
        ("connector", connection.connector.is_some()),
        ("settings", connection.settings.is_some()),
        ("account", connection.account.is_some()),
        ("endpoint", connection.endpoint.is_some()),
        ("proxy", connection.proxy.is_some()),
    ];
    let mut faults: Vec<Fault> = given
        .into_iter()
        .filter(|(_, is_given)| *is_given)
        .map(|(field, _)| {
            Fault::new(format!("connection.{field}"), "each connection says this for itself; leave it out")
        })
        .collect();
    let check = |path: &str, pill: &Pill| pill_fault(path, pill, &[("settings", settings)]);
    let mut reader = Reader::new(&check);
    let texts = texts(connection);
    let templates: Vec<_> =
        texts.iter().map(|(path, text)| reader.template(&format!("connection.{path}"), text)).collect();
    faults.extend(reader.into_faults());
    let has_pills = templates.iter().flatten().any(|template| template.as_literal().is_none());
    if faults.is_empty() && !has_pills {
        faults.extend(under("connection", connection.faults()));
    }
    faults
}

/// The texts of a connection that may name settings.
fn texts(connection: &ConnectionSpec) -> Vec<(String, &str)> {
    let test = connection.test.as_ref();
    let single = [
        ("base_url", connection.base_url.as_deref()),
        ("timeout_message", connection.timeout_message.as_deref()),
        ("test.path", test.and_then(|test| test.path.as_deref())),
        ("test.url", test.and_then(|test| test.url.as_deref())),
    ];
    let single = single.into_iter().filter_map(|(path, text)| Some((path.to_owned(), text?)));
    let hosts = connection.hosts.iter().flatten().enumerate().map(|(n, host)| (format!("hosts[{n}]"), host.as_str()));
    let headers = connection.headers.iter().map(|(name, value)| (format!("headers.{name}"), value.as_str()));
    single.chain(hosts).chain(headers).collect()
}

/// A connection with settings in the place of their pills.
fn render_connection(connection: &ConnectionSpec, scope: &Scope) -> Result<ConnectionSpec, Fault> {
    type Render = fn(&Template, &Scope) -> Result<String, crate::template::RenderError>;
    let render = |field: &str, text: &mut String, render: Render| -> Result<(), Fault> {
        let fault = |reason: String| Fault::new("", format_args!("the connector's {field}: {reason}"));
        let template = Template::parse(text).map_err(|error| fault(error.to_string()))?;
        *text = render(&template, scope).map_err(|error| fault(error.to_string()))?;
        Ok(())
    };
    let mut connection = connection.clone();
    if let Some(text) = &mut connection.base_url {
        render("base_url", text, Template::render_url)?;
    }
    for host in connection.hosts.iter_mut().flatten() {
        render("hosts", host, Template::render_text)?;
    }
    connection.headers.retain(|_, value| !Template::parse(value).is_ok_and(|template| template.is_absent(scope)));
    for (name, value) in &mut connection.headers {
        render(&format!("headers.{name}"), value, Template::render_text)?;
    }
    if let Some(text) = &mut connection.timeout_message {
        render("timeout_message", text, Template::render_text)?;
    }
    if let Some(test) = &mut connection.test {
        if let Some(path) = &mut test.path {
            render("test.path", path, Template::render_url_path)?;
        }
        if let Some(url) = &mut test.url {
            render("test.url", url, Template::render_url)?;
        }
    }
    Ok(connection)
}

#[cfg(test)]
mod tests;
