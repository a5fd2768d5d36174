//! Documents: everything that a person configures, as `kind`, `name` and `spec`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::account::AccountSpec;
use crate::connection::ConnectionSpec;
use crate::connector::ConnectorSpec;
use crate::destination::DestinationSpec;
use crate::endpoint::EndpointSpec;
use crate::fault::{Fault, without_value};
use crate::import;
use crate::limits;
use crate::name::{Name, SHOWN_BYTES, near_match};
use crate::recipe::RecipeSpec;
use crate::secret::SecretSpec;
use crate::sync::SyncSpec;

/// The kinds of documents, in the order in which they depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A secret value, by reference.
    Secret,
    /// Stored credentials.
    Account,
    /// An API written down: how it is reached, and its actions.
    Connector,
    /// A way to one outside API.
    Connection,
    /// An inbound URL.
    Endpoint,
    /// Trigger and steps.
    Recipe,
    /// A database.
    Destination,
    /// Events into a table.
    Sync,
}

impl Kind {
    /// Every kind, in the order in which they depend on each other.
    pub const ALL: [Self; 8] = [
        Self::Secret,
        Self::Account,
        Self::Connector,
        Self::Connection,
        Self::Endpoint,
        Self::Recipe,
        Self::Destination,
        Self::Sync,
    ];

    /// The word for one.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Account => "account",
            Self::Connector => "connector",
            Self::Connection => "connection",
            Self::Endpoint => "endpoint",
            Self::Recipe => "recipe",
            Self::Destination => "destination",
            Self::Sync => "sync",
        }
    }

    /// The word for several: the name of its collection in the API and the CLI.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Account => "accounts",
            Self::Connector => "connectors",
            Self::Connection => "connections",
            Self::Endpoint => "endpoints",
            Self::Recipe => "recipes",
            Self::Destination => "destinations",
            Self::Sync => "syncs",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str);
            match near_match(text, words) {
                Some(near) => format!("`{text}` is not a kind (did you mean `{near}`?)"),
                None => format!("`{text}` is not a kind; use {}", words.join(", ")),
            }
        })
    }
}

/// A document, read and checked on its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its name among the documents of its kind.
    pub name: Name,
    /// Free text.
    pub description: Option<String>,
    /// Free text pairs.
    pub labels: IndexMap<String, String>,
    /// What it says.
    pub spec: Spec,
    /// The spec as its author wrote it, without secret values: what `export` gives back.
    pub written: Value,
}

/// What a document says, by its kind.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is the spec of its kind")]
pub enum Spec {
    Secret(SecretSpec),
    Account(AccountSpec),
    Connector(Box<ConnectorSpec>),
    Connection(Box<ConnectionSpec>),
    Endpoint(Box<EndpointSpec>),
    Recipe(RecipeSpec),
    Destination(DestinationSpec),
    Sync(SyncSpec),
}

impl Spec {
    /// The kind of document that says this.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Secret(_) => Kind::Secret,
            Self::Account(_) => Kind::Account,
            Self::Connector(_) => Kind::Connector,
            Self::Connection(_) => Kind::Connection,
            Self::Endpoint(_) => Kind::Endpoint,
            Self::Recipe(_) => Kind::Recipe,
            Self::Destination(_) => Kind::Destination,
            Self::Sync(_) => Kind::Sync,
        }
    }

    /// Reads the spec of a document of `kind`, paths of faults relative to the document.
    ///
    /// # Errors
    /// The first fault of its shape, or every fault of its meaning.
    pub fn read(kind: Kind, written: &Value) -> Result<Self, Vec<Fault>> {
        let spec = Self::reread(kind, written)?;
        let faults: Vec<Fault> = spec.faults().into_iter().map(|fault| fault.under("spec")).collect();
        if faults.is_empty() { Ok(spec) } else { Err(faults) }
    }

    /// Reads a spec whose meaning was checked before, when it was stored: only its shape can be wrong, where another
    /// version of the product has stored it.
    ///
    /// # Errors
    /// The first fault of its shape.
    pub fn reread(kind: Kind, written: &Value) -> Result<Self, Vec<Fault>> {
        Ok(match kind {
            Kind::Secret => Self::Secret(shaped(written)?),
            Kind::Account => Self::Account(shaped(written)?),
            Kind::Connector => Self::Connector(shaped(written)?),
            Kind::Connection => Self::Connection(shaped(written)?),
            Kind::Endpoint => Self::Endpoint(shaped(written)?),
            Kind::Recipe => Self::Recipe(shaped(written)?),
            Kind::Destination => Self::Destination(shaped(written)?),
            Kind::Sync => Self::Sync(shaped(written)?),
        })
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Secret(spec) => spec.faults(),
            Self::Account(spec) => spec.faults(),
            Self::Connector(spec) => spec.faults(),
            Self::Connection(spec) => spec.faults(),
            Self::Endpoint(spec) => spec.faults(),
            Self::Recipe(spec) => spec.faults(),
            Self::Destination(spec) => spec.faults(),
            Self::Sync(spec) => spec.faults(),
        }
    }

    /// The documents that this one refers to, each with the path of the reference in the document.
    #[must_use]
    pub fn references(&self) -> Vec<(String, Kind, &Name)> {
        match self {
            Self::Secret(_) | Self::Destination(_) => Vec::new(),
            Self::Account(account) => {
                account.secrets().into_iter().map(|(path, name)| (format!("spec.{path}"), Kind::Secret, name)).collect()
            }
            Self::Connector(connector) => {
                connector.extends.iter().map(|name| ("spec.extends".to_owned(), Kind::Connector, name)).collect()
            }
            Self::Connection(connection) => {
                let account = connection.account.iter().map(|name| ("spec.account".to_owned(), Kind::Account, name));
                let connector =
                    connection.connector.iter().map(|name| ("spec.connector".to_owned(), Kind::Connector, name));
                let endpoint =
                    connection.endpoint.iter().map(|name| ("spec.endpoint".to_owned(), Kind::Endpoint, name));
                let secrets = connection.secrets().into_iter();
                let secrets = secrets.map(|(path, name)| (format!("spec.{path}"), Kind::Secret, name));
                account.chain(connector).chain(endpoint).chain(secrets).collect()
            }
            Self::Endpoint(endpoint) => {
                let connector =
                    endpoint.connector.iter().map(|name| ("spec.connector".to_owned(), Kind::Connector, name));
                let own = endpoint.secrets.iter().enumerate();
                let own = own.map(|(n, reference)| (format!("spec.secrets[{n}]"), Kind::Secret, &reference.secret));
                let verify = endpoint.verify.iter().flat_map(|verify| {
                    let secrets = verify.secrets().iter().enumerate();
                    secrets.map(|(n, reference)| {
                        (format!("spec.verify.{}.secrets[{n}]", verify.way()), Kind::Secret, &reference.secret)
                    })
                });
                connector.chain(own).chain(verify).collect()
            }
            Self::Recipe(recipe) => {
                let trigger = ("spec.trigger.webhook.endpoint".to_owned(), Kind::Endpoint, recipe.endpoint());
                let steps = recipe.steps.iter().enumerate().filter_map(|(n, step)| {
                    let work = if step.call.is_some() { "call" } else { "request" };
                    Some((format!("spec.steps[{n}].{work}.connection"), Kind::Connection, step.connection()?))
                });
                std::iter::once(trigger).chain(steps).collect()
            }
            Self::Sync(sync) => vec![
                ("spec.from.endpoint".to_owned(), Kind::Endpoint, &sync.from.endpoint),
                ("spec.to.destination".to_owned(), Kind::Destination, &sync.to.destination),
            ],
        }
    }
}

impl Document {
    /// Reads a document from JSON (or from what YAML gave).
    ///
    /// # Errors
    /// Every fault that can be found in this document alone.
    pub fn read(value: &Value) -> Result<Self, Vec<Fault>> {
        Self::read_by(value, Spec::read)
    }

    /// Reads a document whose meaning was checked before: one that is stored, or comes with the product.
    ///
    /// # Errors
    /// The first fault of its shape.
    pub fn reread(value: &Value) -> Result<Self, Vec<Fault>> {
        Self::read_by(value, Spec::reread)
    }

    fn read_by(value: &Value, read: fn(Kind, &Value) -> Result<Spec, Vec<Fault>>) -> Result<Self, Vec<Fault>> {
        let Envelope { kind, name, description, labels, spec } = shaped_at(value, "")?;
        let subject = format!("{kind}/{name}");
        let about = |mut fault: Fault| {
            fault.subject = Some(subject.clone());
            fault
        };
        let kind: Kind = kind.parse().map_err(|reason: String| vec![Fault::new("kind", reason)])?;
        let name: Name = name.parse().map_err(|reason| vec![about(Fault::new("name", reason))])?;
        if kind == Kind::Connector && name.as_str() == import::RESERVED {
            let reason = format!("`{}` is a word of the API; take another name", import::RESERVED);
            return Err(vec![about(Fault::new("name", reason))]);
        }
        let read = read(kind, &spec).map_err(|faults| faults.into_iter().map(about).collect::<Vec<_>>())?;
        Ok(Self { name, description, labels, written: without_secret_value(kind, spec), spec: read })
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    /// The document with the defaults of its kind written out, so that applying it changes nothing. `in_force` is the
    /// spec with what a connector says in it, where there is one: its defaults go before those of the kind.
    #[must_use]
    pub fn with_defaults(&self, in_force: Option<&Value>) -> Value {
        let mut document = self.to_value();
        let mut defaults = defaults(self.kind());
        if let Some(in_force) = in_force {
            replace(&mut defaults, in_force);
        }
        fill(&mut document["spec"], &defaults);
        document
    }

    /// The document as its author would write it: `kind`, `name`, what describes it, `spec`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let envelope = Envelope {
            kind: self.kind().as_str().to_owned(),
            name: self.name.as_str().to_owned(),
            description: self.description.clone(),
            labels: self.labels.clone(),
            spec: self.written.clone(),
        };
        serde_json::to_value(envelope).unwrap_or_default()
    }
}

/// The JSON Schema of documents, for editors: one of the kinds.
#[must_use]
pub fn schema() -> Value {
    let mut generator = schemars::SchemaGenerator::default();
    let kinds: Vec<Value> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let spec = match kind {
                Kind::Secret => generator.subschema_for::<SecretSpec>(),
                Kind::Account => generator.subschema_for::<AccountSpec>(),
                Kind::Connector => generator.subschema_for::<ConnectorSpec>(),
                Kind::Connection => generator.subschema_for::<ConnectionSpec>(),
                Kind::Endpoint => generator.subschema_for::<EndpointSpec>(),
                Kind::Recipe => generator.subschema_for::<RecipeSpec>(),
                Kind::Destination => generator.subschema_for::<DestinationSpec>(),
                Kind::Sync => generator.subschema_for::<SyncSpec>(),
            };
            json!({
                "title": kind.as_str(),
                "type": "object",
                "required": ["kind", "name", "spec"],
                "additionalProperties": false,
                "properties": {
                    "kind": {"const": kind.as_str()},
                    "name": generator.subschema_for::<Name>(),
                    "description": {"type": "string"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "spec": spec,
                },
            })
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Linkspan document",
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    })
}

/// What a document of this kind says where it says nothing.
fn defaults(kind: Kind) -> Value {
    use crate::units::{ByteSize, Duration};
    let time = |duration: std::time::Duration| {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).to_string()
    };
    let size = |bytes: u64| ByteSize::from_bytes(bytes).to_string();
    match kind {
        Kind::Secret | Kind::Account | Kind::Connector | Kind::Destination => json!({}),
        Kind::Connection => json!({
            "timeout": time(limits::TOTAL_TIMEOUT),
            "timeouts": {
                "connect": time(limits::CONNECT_TIMEOUT),
                "tls": time(limits::CONNECT_TIMEOUT),
                "first_byte": time(limits::FIRST_BYTE_TIMEOUT),
            },
            "redirects": 0,
            "limits": {"response": size(limits::RESPONSE_DEFAULT_BYTES)},
        }),
        Kind::Endpoint => json!({"limits": {"body": size(limits::BODY_DEFAULT_BYTES)}, "enabled": true}),
        Kind::Recipe => json!({"enabled": true}),
        Kind::Sync => json!({"bucket": "own", "format": "unpacked", "enabled": true}),
    }
}

/// Puts what `by` says in the place of what `value` says; what only `by` says is left out.
fn replace(value: &mut Value, by: &Value) {
    match (value, by) {
        (Value::Object(value), Value::Object(by)) => {
            for (key, inner) in value {
                if let Some(by) = by.get(key) {
                    replace(inner, by);
                }
            }
        }
        (value, by) => value.clone_from(by),
    }
}

/// Puts `defaults` where `value` says nothing.
fn fill(value: &mut Value, defaults: &Value) {
    let (Value::Object(value), Value::Object(defaults)) = (value, defaults) else { return };
    for (key, default) in defaults {
        match value.get_mut(key) {
            Some(said) => fill(said, default),
            None => {
                value.insert(key.clone(), default.clone());
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    kind: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    labels: IndexMap<String, String>,
    spec: Value,
}

/// A secret's value is write-only: it leaves the document before anything can keep it.
fn without_secret_value(kind: Kind, mut spec: Value) -> Value {
    if let (Kind::Secret, Some(fields)) = (kind, spec.as_object_mut()) {
        fields.shift_remove("value");
    }
    spec
}

pub(crate) fn shaped<T: DeserializeOwned>(value: &Value) -> Result<T, Vec<Fault>> {
    shaped_at(value, "spec")
}

fn shaped_at<T: DeserializeOwned>(value: &Value, under: &str) -> Result<T, Vec<Fault>> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        vec![shape_fault(path, &error.inner().to_string()).under(under)]
    })
}

/// Turns the deserialiser's "unknown field `x`, expected one of `a`, `b`" into a reason with a near match. Says little
/// of what stands in the place of something else: people paste secrets where a reference belongs.
fn shape_fault(path: String, message: &str) -> Fault {
    let message = &*without_value(message);
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let fault = match (message.strip_prefix("unknown "), quoted.first()) {
        // A long one is nothing that anybody mistyped.
        (Some(rest), Some(unknown)) if unknown.len() > SHOWN_BYTES => {
            let kind = rest.split(' ').next().unwrap_or_default();
            let known = message.split_once(", expected ").map_or("", |(_, known)| known);
            // The path ends with the unknown field.
            let above = path.strip_suffix(unknown).map_or(&*path, |above| above.trim_end_matches('.'));
            Fault::new(above, format_args!("unknown {kind} of {} bytes, expected {known}", unknown.len()))
        }
        _ => Fault::new(path, message),
    };
    match quoted.split_first() {
        Some((unknown, known)) if message.starts_with("unknown ") => match near_match(unknown, known.iter().copied()) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault,
        },
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(value: &Value) -> Vec<String> {
        Document::read(value).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_an_endpoint_and_gives_it_back_as_written() {
        let written = json!({
            "kind": "endpoint",
            "name": "github",
            "spec": {
                "format": "json",
                "verify": {"hmac": {
                    "header": "X-Hub-Signature-256", "prefix": "sha256=", "algorithm": "SHA_256",
                    "encoding": "HEXA_DECIMAL", "secrets": [{"secret": "github-webhook"}]
                }},
                "dedupe": {"by": "header:X-GitHub-Delivery", "within": "336h"},
                "limits": {"body": "25MiB"}
            }
        });
        let document = Document::read(&written).unwrap();
        assert_eq!(document.kind(), Kind::Endpoint);
        assert_eq!(document.to_value(), written);
        let references = document.spec.references();
        assert_eq!(references.len(), 1);
        assert_eq!(references[0].2.as_str(), "github-webhook");
    }

    #[test]
    fn names_path_and_near_match_of_an_unknown_field() {
        let wrong = json!({"kind": "endpoint", "name": "a", "spec": {"verify": "none", "limit": {"body": "1B"}}});
        let faults = faults(&wrong);
        assert!(faults[0].contains("did you mean `limits`?"), "{faults:?}");
        assert!(faults[0].starts_with("endpoint/a: spec"), "{faults:?}");
    }

    #[test]
    fn offers_the_kind_that_was_meant() {
        let faults = faults(&json!({"kind": "endpont", "name": "a", "spec": {}}));
        assert!(faults[0].contains("did you mean `endpoint`?"), "{faults:?}");
    }

    #[test]
    fn never_repeats_a_secret_that_stands_at_a_wrong_place() {
        let token = "ghp_Secret0123456789abcdefXYZ";
        for spec in [
            json!({"bearer": {"token": token}}),
            json!({"bearer": {"token": {"secret": token}}}),
            json!({"bearer": {"token": {"secret": 4_711_081_500_u64}}}),
            json!({"bearer": {"token": {"value": token}}}),
            json!({"bearer": {"token": [token]}}),
            json!({"bearer": token}),
            json!({"bearer": {token: "x"}}),
            json!({"headers": {"Authorization": [token]}}),
            json!({"headers": {"Authorization": 4_711_081_500_u64}}),
            json!({"headers": format!("Authorization: {token}")}),
            json!({"headers": {format!("Authorization: Bearer {token}"): ""}}),
            json!({"basic": {"user": "a", "password": token}}),
            json!({"aws_sigv4": {"access_key_id": "AKIA", "secret_access_key": token, "region": "a", "service": "b"}}),
            json!({"oauth2": {"token_url": format!("https://a:{token}@ b"), "client_id": "a"}}),
            json!(token),
            json!({token: {}}),
        ] {
            let wrong = json!({"kind": "account", "name": "a", "spec": spec});
            let faults = faults(&wrong).join("\n");
            assert!(!faults.contains("Secret0123") && !faults.contains("4711"), "{faults}");
        }
        for (kind, spec) in [
            ("secret", json!({"value": [token]})),
            ("secret", json!({"value": 4_711_081_500_u64})),
            ("secret", json!(token)),
            ("connection", json!({"base_url": format!("https://a:{token}@ b")})),
            ("connection", json!({"proxy": {"url": "http://p", "password": token}})),
            ("connection", json!({"proxy": {"url": format!("http://a:{token}@ b")}})),
            ("endpoint", json!({"verify": {"token": {"header": "X-Token", "secrets": [token]}}})),
            ("endpoint", json!({"verify": {"token": {"header": "X-Token", "secrets": [{"secret": token}]}}})),
            ("endpoint", json!({"verify": token})),
            ("connection", json!({"headers": {format!("Authorization: Bearer {token}"): ""}})),
            ("connection", json!({"headers": {"Authorization": format!("Bearer {token}")}})),
            ("connection", json!({"headers": {"X-A": [token]}})),
            ("connection", json!({"account": format!("Bearer {token}")})),
        ] {
            let faults = faults(&json!({"kind": kind, "name": "a", "spec": spec})).join("\n");
            assert!(!faults.contains("Secret0123") && !faults.contains("4711"), "{kind} {faults}");
        }
    }

    #[test]
    fn forgets_a_secret_value() {
        let value = json!({"kind": "secret", "name": "a", "spec": {"value": "hunter2"}});
        let document = Document::read(&value).unwrap();
        assert!(!document.to_value().to_string().contains("hunter2"));
        assert!(!format!("{document:?}").contains("hunter2"));
    }

    #[test]
    fn defaults_are_those_in_force() {
        let written = json!({"kind": "endpoint", "name": "a", "spec": {"connector": "desk", "webhook": "events"}});
        let document = Document::read(&written).unwrap();
        assert_eq!(document.with_defaults(None)["spec"]["limits"]["body"], "5MiB");
        let in_force = json!({"format": "json", "verify": "none", "limits": {"body": "25MiB"}});
        let spec = &document.with_defaults(Some(&in_force))["spec"];
        assert_eq!(spec["limits"]["body"], "25MiB");
        assert_eq!((spec.get("format"), &spec["enabled"]), (None, &json!(true)));
        let written = json!({"kind": "connection", "name": "a", "spec": {"connector": "desk", "timeout": "3s"}});
        let in_force = json!({"timeout": "3s", "timeouts": {"first_byte": "60s"}, "redirects": 2});
        let spec = Document::read(&written).unwrap().with_defaults(Some(&in_force))["spec"].clone();
        assert_eq!(spec["timeouts"], json!({"connect": "5s", "tls": "5s", "first_byte": "60s"}));
        assert_eq!((&spec["timeout"], &spec["redirects"]), (&json!("3s"), &json!(2)));
    }

    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = Value> {
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?"
            .prop_map(|text| serde_json::from_str(&text).unwrap())
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[^{}\u{0}]{0,12}", "[-+.:0-9eExX_~ ]{1,8}", "(yes|No|null|TRUE|~|01234|1\\.10)"]
    }

    fn data() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            number(),
            number(),
            text().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null)
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((text(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn any_document() -> impl Strategy<Value = Value> {
        let spec = (data(), number(), text(), prop::sample::select(Kind::ALL.to_vec())).prop_map(|(data, number, text, kind)| {
            let request = json!({"method": "POST", "url": "https://a.test/", "query": {"n": number}, "form": {"t": text, "n": number}});
            let body = json!({"method": "POST", "url": "https://a.test/", "json": data});
            let spec = match kind {
                Kind::Secret => json!({"env": "LINKSPAN_SECRET_A"}),
                Kind::Account => json!({"basic": {"user": text.replace(':', "-"), "password": {"secret": "a"}}}),
                Kind::Connector => json!({
                    "connection": {"base_url": "https://a.test"},
                    "settings": {"type": "object", "properties": {"n": {"default": number, "maximum": number, "examples": [data]}}},
                    "actions": {"a": {"request": {"method": "POST", "path": "/x", "json": data, "query": {"n": number}}}},
                }),
                Kind::Connection => json!({"connector": "a", "settings": {"n": number, "data": data}}),
                Kind::Endpoint => json!({"verify": "none", "dedupe": {"by": "json:/1.10"}, "limits": {"body": "25MiB"}}),
                Kind::Recipe => json!({
                    "trigger": {"webhook": {"endpoint": "a"}}, "steps": [{"id": "a", "request": request}, {"id": "b", "request": body}],
                }),
                Kind::Destination => json!({"sqlite": {"path": "1.10"}}),
                Kind::Sync => json!({"from": {"endpoint": "a"}, "to": {"destination": "a", "schema": "s", "table": "t"}}),
            };
            (kind, spec)
        });
        (spec, text(), text(), text()).prop_map(|((kind, spec), description, label, value)| {
            json!({"kind": kind.as_str(), "name": "a-1", "description": description, "labels": {label: value}, "spec": spec})
        })
    }

    proptest! {
        #[test]
        fn what_is_exported_and_applied_is_the_same(value in any_document()) {
            if let Ok(document) = Document::read(&value) {
                let exported = crate::yaml::write(&document.to_value());
                let read = crate::yaml::read(&exported, crate::yaml::RepeatedKeys::Refuse);
                let read = read.unwrap_or_else(|error| panic!("{error:?}\n{exported}")).value;
                let applied = Document::read(&read).unwrap().to_value();
                prop_assert_eq!(applied.to_string(), document.to_value().to_string());
            }
        }
    }

    #[test]
    fn documents_of_every_kind_are_among_those_that_are_exported() {
        use proptest::strategy::ValueTree as _;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut kinds: Vec<Kind> = Vec::new();
        for _ in 0..200 {
            let value = any_document().new_tree(&mut runner).unwrap().current();
            kinds.extend(Document::read(&value).ok().map(|document| document.kind()));
        }
        for kind in Kind::ALL {
            assert!(kinds.contains(&kind), "{kind:?}");
        }
    }
}
