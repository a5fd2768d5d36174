//! Connectors: an API written down once: its settings, how it is reached, and the actions that it offers.
//!
//! A [`Connector`] holds every template read and every schema checked. What varies between its users are settings, in
//! the connection, and input, in each call; secrets are neither, they are the account's.

mod case;
mod schema;

use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::case::{AnswerSpec, CaseSpec, ExchangeSpec, Files, SendsSpec};
pub use self::schema::ObjectSchema;
use crate::account::AccountSpec;
use crate::connection::ConnectionSpec;
use crate::fault::Fault;
use crate::job::StepError;
use crate::limits;
use crate::name::{Name, near_match};
use crate::paginate::{Paginate, PaginateSpec};
use crate::reader::Reader;
use crate::request::{RequestPlan, RequestStep};
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
    #[serde(default, skip_serializing_if = "is_default")]
    pub connection: ConnectionSpec,
    /// The kinds of accounts that the API takes. Left out: any, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountChoice>,
    /// How lists go on, for the actions that say `paginate` and not how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paginate: Option<PaginateSpec>,
    /// What it offers, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub actions: IndexMap<String, ActionSpec>,
    /// Cases that show what its actions send and what they make of answers, without a network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<CaseSpec>,
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
    /// parameter, header or field that is nothing but the pill of something that is not given is left out.
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

fn is_default(connection: &ConnectionSpec) -> bool {
    *connection == ConnectionSpec::default()
}

/// A connector that is ready to be used.
#[derive(Debug)]
pub struct Connector {
    /// What it says, with what it extends.
    pub spec: ConnectorSpec,
    settings: ObjectSchema,
    actions: IndexMap<String, Arc<Action>>,
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
        Err(Fault::new(
            "extends",
            format_args!("at most {EXTENDS_MAX} connectors extend each other, and never in a circle"),
        ))
    }

    /// The same on top of `base`.
    fn over(mut self, base: &Self) -> Self {
        let mut actions = base.actions.clone();
        actions.extend(self.actions);
        self.actions = actions;
        self.settings = match (&base.settings, self.settings) {
            (Some(base), Some(own)) => Some(merged(base.clone(), own)),
            (base, own) => own.or_else(|| base.clone()),
        };
        self.connection = self.connection.over(&base.connection);
        if self.accounts.is_empty() {
            self.accounts.clone_from(&base.accounts);
        }
        self.extends.clone_from(&base.extends);
        self.title = self.title.or_else(|| base.title.clone());
        self.documentation = self.documentation.or_else(|| base.documentation.clone());
        self.version = self.version.or_else(|| base.version.clone());
        self.paginate = self.paginate.or_else(|| base.paginate.clone());
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
        let mut faults = Vec::new();
        let settings = ObjectSchema::new(spec.settings.as_ref());
        faults.extend(under("settings", settings.faults()));
        faults.extend(connection_faults(&spec, &settings));
        faults.extend(account_faults(&spec));
        if spec.version.as_deref().is_some_and(|version| !is_version(version)) {
            faults.push(Fault::new("version", "a version is three numbers: 1.2.0"));
        }
        if spec.actions.len() > limits::ACTIONS_MAX {
            faults.push(Fault::new("actions", format_args!("a connector has at most {} actions", limits::ACTIONS_MAX)));
        }
        let mut actions = IndexMap::with_capacity(spec.actions.len());
        for (name, action) in &spec.actions {
            match Action::compile(name, action, &settings, spec.paginate.as_ref()) {
                Ok(action) => drop(actions.insert(name.clone(), Arc::new(action))),
                Err(found) => faults.extend(under(&format!("actions.{name}"), found)),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let connector = Self { spec, settings, actions };
        let faults = connector.case_faults();
        if faults.is_empty() { Ok(connector) } else { Err(faults) }
    }

    /// What a connection says of itself.
    #[must_use]
    pub fn settings(&self) -> &ObjectSchema {
        &self.settings
    }

    /// Its actions, by name.
    pub fn actions(&self) -> impl Iterator<Item = &Arc<Action>> {
        self.actions.values()
    }

    /// The action with this name.
    ///
    /// # Errors
    /// That there is none, and which was probably meant.
    pub fn action(&self, name: &str) -> Result<&Arc<Action>, Fault> {
        self.actions.get(name).ok_or_else(|| {
            let fault = Fault::new("", format_args!("the connector has no action `{name}`"));
            match near_match(name, self.actions.keys().map(String::as_str)) {
                Some(near) => fault.hint(format!("did you mean `{near}`?")),
                None => fault,
            }
        })
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
        let whole = own.clone().over(&base);
        let faults = ConnectionSpec { connector: None, settings: None, ..whole.clone() }.faults();
        if faults.is_empty() { Ok((whole, Value::Object(settings))) } else { Err(faults) }
    }

    /// What is wrong with an account of this kind at this API.
    #[must_use]
    pub fn account_fault(&self, account: &AccountSpec) -> Option<Fault> {
        let kinds: Vec<&str> = self.spec.accounts.iter().map(|choice| choice.kind.as_str()).collect();
        if kinds.is_empty() || kinds.contains(&account.kind()) {
            return None;
        }
        let reason = format!("the connector takes an account of kind {}, not {}", kinds.join(" or "), account.kind());
        Some(Fault::new("account", reason))
    }
}

impl Action {
    fn compile(
        name: &str,
        spec: &ActionSpec,
        settings: &ObjectSchema,
        lists: Option<&PaginateSpec>,
    ) -> Result<Self, Vec<Fault>> {
        let input = ObjectSchema::new(spec.input.as_ref());
        let mut faults = under("input", input.faults());
        let check = |path: &str, pill: &Pill| pill_fault(path, pill, &[("input", &input), ("settings", settings)]);
        let mut reader = Reader::new(&check);
        if !is_action_name(name) {
            let reason = "an action's name is lower-case letters, digits and `_`, beginning with a letter";
            reader.fault("", reason);
        }
        if spec.request.connection.is_some() {
            reader.fault(
                "request.connection",
                "an action goes through the connection that it is called with; leave it out",
            );
        }
        // There will be one; which, the caller says.
        let request = RequestStep { connection: "connection".parse().ok(), ..spec.request.clone() };
        let plan = RequestPlan::compile(&mut reader, "request", &request);
        let paginate = spec.paginate.as_ref().map(|own| own.over(lists).compile()).transpose();
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
        let input = self.input.complete(input).map_err(|faults| {
            let first = faults.first().filter(|fault| !fault.path.is_empty());
            StepError {
                code: "input.invalid".to_owned(),
                field: Some(first.map_or_else(|| "input".to_owned(), |fault| format!("input.{}", fault.path))),
                description: faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                outcome_unknown: None,
            }
        })?;
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

fn is_action_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 100 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(allowed)
}

fn is_version(text: &str) -> bool {
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
    if schema.is_open() || schema.names().any(|known| known == name) {
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
