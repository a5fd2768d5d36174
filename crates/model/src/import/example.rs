//! Requests as somebody wrote them down, with their values: of curl commands, of Postman collections.
//!
//! What is a value becomes an input with that value as its default, so that the action does what the source did when
//! nothing is given, and something else when it is: the parameters of the query, the fields of a JSON or form body.
//! Path and headers stay as they are. A value that is a secret, by its name or look, becomes an account's or an input
//! without a default.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use url::Url;

use super::credentials;
use super::draft::{Draft, Fields};
use super::only::{Known, Only};
use super::text;
use crate::connector::{ActionSpec, OutputSpec};
use crate::limits;
use crate::request::{Effect, PartSpec, RawSpec, RequestStep};

/// Signs that stand round the name of a variable in texts of this module; they are no characters.
const OPEN: char = '\u{f8ff0}';
const CLOSE: char = '\u{f8ff1}';

/// What stands for the variable `name` in a text.
pub(super) fn variable(name: &str) -> String {
    let name = if name.is_empty() { "value" } else { name };
    format!("{OPEN}{name}{CLOSE}")
}

/// The same text without signs that could be taken for variables.
pub(super) fn unmarked(text: &str) -> String {
    text.replace([OPEN, CLOSE], "")
}

/// A piece of a text with variables.
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((name, after)) = after.split_once(CLOSE) else { break };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Variable(name));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

fn has_variables(text: &str) -> bool {
    text.contains(OPEN)
}

fn holds_variables(value: &Value) -> bool {
    match value {
        Value::String(text) => has_variables(text),
        Value::Array(items) => items.iter().any(holds_variables),
        Value::Object(map) => map.iter().any(|(key, item)| has_variables(key) || holds_variables(item)),
        _ => false,
    }
}

/// The name of the variable that is the whole text.
fn whole_variable(text: &str) -> Option<&str> {
    match pieces(text).as_slice() {
        [Piece::Variable(name)] => Some(*name),
        _ => None,
    }
}

/// A request with its values. Texts may hold variables.
#[derive(Debug, Default)]
pub(super) struct Example {
    /// What the action is to be called; none: by its method and path.
    pub(super) name: Option<String>,
    /// What the source calls it.
    pub(super) title: Option<String>,
    /// What the source says of it.
    pub(super) description: Option<String>,
    /// The folders that it stands in.
    pub(super) groups: Vec<String>,
    /// The method.
    pub(super) method: String,
    /// The URL, perhaps with a query.
    pub(super) url: String,
    /// More parameters of the query.
    pub(super) query: Vec<Given>,
    /// What is known of segments of the path that are variables: `:id`.
    pub(super) segments: Vec<Given>,
    /// Headers, credentials among them.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: Body,
    /// What it was answered.
    pub(super) sample: Option<Value>,
}

/// A parameter or a field with its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    /// Its name.
    pub(super) name: String,
    /// Its value; none when it is only known that it can be given.
    pub(super) value: Option<String>,
    /// What the source says of it.
    pub(super) description: Option<String>,
}

/// A body with its values.
#[derive(Debug, Default)]
pub(super) enum Body {
    /// None.
    #[default]
    None,
    /// JSON.
    Json(Value),
    /// A form.
    Form(Vec<Given>),
    /// Parts.
    Multipart(Vec<PartGiven>),
    /// A text of the content type that the headers name.
    Text(String),
    /// A file.
    File,
    /// A GraphQL query with its variables.
    GraphQl(String, Value),
}

/// A part of a multipart body.
#[derive(Debug, Default)]
pub(super) struct PartGiven {
    pub(super) field: Given,
    /// The name of the file, when it is one.
    pub(super) file: Option<String>,
    pub(super) content_type: Option<String>,
}

/// What variables are: settings of the connection where the source gives their values, or else input of each action.
#[derive(Debug, Default)]
pub(super) struct Variables {
    settings: HashMap<String, String>,
    /// Values that the source gives.
    known: HashMap<String, String>,
}

impl Variables {
    /// From now on this variable is the setting called `setting`.
    pub(super) fn sets(&mut self, name: &str, setting: String) {
        self.settings.insert(name.to_owned(), setting);
    }

    /// These variables have these values, so that those which are used are settings.
    pub(super) fn know(&mut self, values: HashMap<String, String>) {
        self.known = values;
    }

    /// The setting that a variable is.
    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }
}

/// A URL taken apart, which may hold variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// Scheme, host and port, or a variable that is all of it.
    pub(super) base: String,
    /// From the slash on; a segment that looks like a secret is a variable.
    pub(super) path: String,
    /// Whether there was such a segment.
    pub(super) has_secret: bool,
    /// Names and values, decoded.
    pub(super) query: Vec<(String, String)>,
    /// Whether it held credentials.
    pub(super) has_credentials: bool,
    /// Whether it said no scheme.
    pub(super) lacks_scheme: bool,
}

/// Takes a URL apart; none when it has no host.
pub(super) fn take_apart(url: &str) -> Option<Parts> {
    let url = url.trim();
    let (url, _) = url.split_once('#').unwrap_or((url, ""));
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => (Some(scheme), rest),
        _ => (None, url),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (credentials, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (true, host),
        None => (false, authority),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_base_variable = scheme.is_none() && whole_variable(host).is_some();
    let base = match scheme {
        _ if host.is_empty() => return None,
        _ if is_base_variable => host.to_owned(),
        Some(scheme) if has_variables(scheme) => format!("https://{host}"),
        Some(scheme) => format!("{}://{host}", scheme.to_ascii_lowercase()),
        None => format!("http://{host}"),
    };
    let base = if has_variables(&base) { base } else { origin(&base)? };
    // Plus signs are spaces, and what is percent-encoded is encoded again when it is sent.
    let query = url::form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into(), value.into()));
    let path = if path.is_empty() { "/" } else { path };
    let has_secret = path.split('/').any(credentials::is_secret_segment);
    let told = |segment| if credentials::is_secret_segment(segment) { variable("token") } else { segment.to_owned() };
    Some(Parts {
        base,
        path: path.split('/').map(told).collect::<Vec<_>>().join("/"),
        has_secret,
        query: query.collect(),
        has_credentials: credentials,
        lacks_scheme: scheme.is_none() && !is_base_variable,
    })
}

/// A URL's origin, when it is one of HTTP.
fn origin(base: &str) -> Option<String> {
    let url = Url::parse(base).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}

/// A text as people read it: variables in braces.
pub(super) fn shown(text: &str) -> String {
    text.replace(OPEN, "{").replace(CLOSE, "}")
}

/// JSON in which variables may stand for whole values too: `{"id": {{id}}}`.
pub(super) fn json_with_variables(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    if !has_variables(text) {
        return None;
    }
    let mut quoted = String::with_capacity(text.len());
    let mut is_text = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if is_text => {
                quoted.push(c);
                quoted.extend(chars.next());
                continue;
            }
            '"' => is_text = !is_text,
            OPEN if !is_text => quoted.push('"'),
            _ => {}
        }
        quoted.push(c);
        if c == CLOSE && !is_text {
            quoted.push('"');
        }
    }
    serde_json::from_str(&quoted).ok()
}

/// The base URL of a connection for the base of its requests: variables in it are settings. `value_of` gives what the
/// source says of a variable.
pub(super) fn settle_base(
    draft: &mut Draft,
    variables: &mut Variables,
    base: &str,
    value_of: &dyn Fn(&str) -> Option<String>,
) -> String {
    if let Some(name) = whole_variable(base) {
        let value = value_of(name).and_then(|value| whole_base(&value));
        let mut schema = json!({
            "type": "string", "format": "uri", "title": "Base URL",
            "description": format!("What paths are appended to; the variable `{name}` of the source."),
        });
        if let Some(value) = &value {
            schema["default"] = value.as_str().into();
        }
        let setting = draft.settings.add(name, schema, value.is_none());
        variables.sets(name, setting.clone());
        return text::pill("settings", &setting);
    }
    let mut written = String::new();
    for piece in pieces(base) {
        match piece {
            Piece::Text(text) => written.push_str(&text::literal(text)),
            Piece::Variable(name) => {
                if variables.setting(name).is_none() {
                    let mut schema =
                        json!({"type": "string", "description": format!("The variable `{name}` of the source.")});
                    let value = value_of(name);
                    if let Some(value) = &value {
                        schema["default"] = value.as_str().into();
                    }
                    let setting = draft.settings.add(name, schema, value.is_none());
                    variables.sets(name, setting);
                }
                written.push_str(&text::pill("settings", variables.setting(name).unwrap_or_default()));
            }
        }
    }
    written
}

/// A variable's value as a base URL, when it is one.
fn whole_base(value: &str) -> Option<String> {
    let value = value.trim().trim_end_matches('/');
    let value = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let url = Url::parse(&value).ok()?;
    let is_base = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.query().is_none();
    (is_base && !has_variables(&value)).then_some(value)
}

/// Makes actions of requests.
pub(super) struct Writer<'a> {
    /// Where they go.
    pub(super) draft: &'a mut Draft,
    /// What variables are.
    pub(super) variables: &'a mut Variables,
    /// The base that paths are appended to.
    pub(super) base: &'a str,
    /// Which are wanted.
    pub(super) only: &'a Only,
}

impl Writer<'_> {
    /// Makes an action of a request; `place` names it in notes.
    pub(super) fn write(&mut self, example: &Example, place: &str) -> Option<String> {
        let url = Some(&example.url).filter(|url| url.len() <= limits::URI_MAX_BYTES).and_then(|url| take_apart(url));
        let Some(url) = url else {
            self.draft.notes.add("left out, because its URL is none", place);
            return None;
        };
        if braces(example) > BRACES_MAX {
            self.draft.notes.add("left out, because its texts hold too many braces", place);
            return None;
        }
        let known_path = shown(&url.path);
        let wanted = example.name.clone().unwrap_or_else(|| text::request_name(&example.method, &known_path));
        let name = self.draft.free_action_name(&wanted);
        let groups: Vec<&str> = example.groups.iter().map(String::as_str).collect();
        let known = Known {
            id: example.title.as_deref(),
            action: &name,
            groups: &groups,
            method: &example.method,
            path: &known_path,
        };
        if !self.only.wants(&known) {
            return None;
        }
        let mut writing = Writing {
            draft: self.draft,
            variables: self.variables,
            fields: Fields::default(),
            inputs: HashMap::new(),
            place,
        };
        let mut request = RequestStep { method: example.method.to_ascii_uppercase(), ..RequestStep::default() };
        let path = writing.path(&url.path, &example.segments);
        if url.base == self.base {
            request.path = Some(path);
        } else if has_variables(&url.base) {
            writing
                .draft
                .notes
                .add("left out, because it leads to another base URL than the others, one that is a variable", place);
            return None;
        } else {
            request.url = Some(format!("{}{path}", text::literal(&url.base)));
            if let Some((_, host)) = url.base.split_once("://") {
                writing.draft.adds_host(host);
            }
        }
        if url.has_secret {
            let text = "a part of the path that looks like a secret is left out; give it as the input `token`";
            writing.draft.notes.add(text, place);
        }
        if url.has_credentials {
            writing.asks_for_account("basic", None, "User and password of HTTP Basic.");
        }
        let mut query: Vec<Given> =
            url.query.into_iter().map(|(name, value)| Given { name, value: Some(value), description: None }).collect();
        query.extend(example.query.iter().cloned());
        request.query = writing.fields_of(&query, Origin::Query);
        let content_type = writing.headers(&example.headers, &mut request);
        writing.body(&example.body, content_type, &mut request);
        let input = writing.fields.into_schema();
        let output = example
            .sample
            .as_ref()
            .map(|sample| OutputSpec { schema: None, sample: Some(credentials::scrubbed(sample)) });
        let action = ActionSpec {
            title: example.title.as_deref().and_then(|title| text::line(&shown(title), 100)),
            description: example.description.as_deref().and_then(|text| text::plain(text, 600)),
            input,
            request,
            paginate: None,
            output,
        };
        self.draft.adds_action(name.clone(), action);
        Some(name)
    }
}

/// Where fields with values stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Query,
    Body,
}

/// An action in the making.
struct Writing<'a> {
    draft: &'a mut Draft,
    variables: &'a mut Variables,
    fields: Fields,
    /// Variables that are inputs of this action, with the names of the inputs.
    inputs: HashMap<String, String>,
    place: &'a str,
}

impl Writing<'_> {
    /// A text with pills in the place of its variables.
    fn template(&mut self, text: &str) -> String {
        let pieces = pieces(text);
        pieces
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(text) => text::literal(text),
                Piece::Variable(name) => self.pill(name),
            })
            .collect()
    }

    /// The pill of a variable.
    fn pill(&mut self, name: &str) -> String {
        if let Some(setting) = self.variables.setting(name) {
            return text::pill("settings", setting);
        }
        if let Some(value) = self.variables.known.get(name) {
            let about = format!("The variable `{name}` of the source.");
            let schema = json!({"default": value, "description": about});
            let setting = self.draft.settings.add(name, schema, false);
            self.variables.sets(name, setting.clone());
            return text::pill("settings", &setting);
        }
        if let Some(input) = self.inputs.get(name) {
            return text::pill("input", input);
        }
        let schema = json!({"description": format!("The variable `{name}` of the source.")});
        let input = self.fields.add(name, schema, true);
        self.inputs.insert(name.to_owned(), input.clone());
        text::pill("input", &input)
    }

    fn path(&mut self, path: &str, known: &[Given]) -> String {
        let segments: Vec<String> = path.split('/').map(|segment| self.segment(segment, known)).collect();
        segments.join("/")
    }

    fn segment(&mut self, segment: &str, known: &[Given]) -> String {
        let braced = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let colon = segment.strip_prefix(':');
        match braced.or(colon).filter(|name| is_word(name)) {
            Some(name) if !self.inputs.contains_key(name) => {
                let given = known.iter().take(SEGMENTS_MAX).find(|given| given.name == name);
                let mut schema = Map::new();
                let about =
                    given.and_then(|given| given.description.as_deref()).and_then(|text| text::plain(text, 400));
                if let Some(about) = about {
                    schema.insert("description".to_owned(), about.into());
                }
                let value = given.and_then(|given| given.value.as_deref()).filter(|value| !is_placeholder(value));
                if let Some(value) = value.filter(|value| !has_variables(value)) {
                    schema.insert("examples".to_owned(), json!([value]));
                }
                let input = self.fields.add(name, schema.into(), true);
                self.inputs.insert(name.to_owned(), input.clone());
                text::pill("input", &input)
            }
            Some(name) => self.pill(name),
            None => self.template(&segment.replace(' ', "%20").replace('\\', "%5C")),
        }
    }

    /// Parameters of a query or fields of a form, as inputs with their values. A name that stands several times is one
    /// input, a list.
    fn fields_of(&mut self, given: &[Given], origin: Origin) -> IndexMap<String, String> {
        let mut by_name: IndexMap<&str, Vec<&Given>> = IndexMap::new();
        for field in given.iter().filter(|field| !field.name.is_empty()) {
            by_name.entry(field.name.as_str()).or_default().push(field);
        }
        let mut written = IndexMap::new();
        for (name, fields) in by_name {
            if has_variables(name) {
                self.draft.notes.add("a parameter is left out, because its name is a variable", self.place);
                continue;
            }
            let looks_secret = fields.iter().filter_map(|field| field.value.as_deref()).any(credentials::looks_secret);
            if origin == Origin::Query && (looks_secret || credentials::is_secret_parameter(name)) {
                self.asks_for_account("query", Some(name), &format!("The query parameter `{name}`."));
                continue;
            }
            let text = match fields.as_slice() {
                [field] => self.given(field),
                several => self.list(name, several),
            };
            written.insert(name.to_owned(), text);
        }
        written
    }

    /// The text of a field with its value.
    fn given(&mut self, field: &Given) -> String {
        let value = field.value.as_deref();
        if let Some(value) = value.filter(|value| has_variables(value)) {
            return self.template(value);
        }
        let default = value.filter(|value| !is_placeholder(value)).map(Value::from);
        // Without a type: what the source has as text may be a number for whoever calls the action.
        self.input(&field.name, None, default, field.description.as_deref())
    }

    /// The text of a field that stands several times.
    fn list(&mut self, name: &str, fields: &[&Given]) -> String {
        let values: Vec<Value> = fields
            .iter()
            .filter_map(|field| field.value.as_deref())
            .filter(|value| !has_variables(value) && !is_placeholder(value))
            .map(Value::from)
            .collect();
        if values.len() < fields.len() {
            let text = "values of a repeated parameter that are variables or placeholders are left out";
            self.draft.notes.add(text, self.place);
        }
        let description = fields.iter().find_map(|field| field.description.as_deref());
        let default = (!values.is_empty()).then_some(Value::Array(values));
        self.input(name, Some("array".into()), default, description)
    }

    /// The pill of an input. A secret has no default and must be given.
    fn input(&mut self, name: &str, kind: Option<Value>, default: Option<Value>, description: Option<&str>) -> String {
        let mut schema = Map::new();
        schema.extend(kind.map(|kind| ("type".to_owned(), kind)));
        if let Some(text) = description.and_then(|text| text::plain(text, 400)) {
            schema.insert("description".to_owned(), text.into());
        }
        let is_secret = default.as_ref().is_some_and(|value| {
            credentials::is_secret_name(name) && !is_container(value) || credentials::holds_secret(value)
        });
        if is_secret {
            let text = "a value that looks like a secret is left out; give it to the action, or better: put it into an account";
            self.draft.notes.add(text, &format!("{}: {name}", self.place));
        } else if default.as_ref().is_some_and(holds_placeholder) {
            schema.extend(default.map(|default| ("examples".to_owned(), json!([default]))));
        } else {
            schema.extend(default.map(|default| ("default".to_owned(), default)));
        }
        // As converters from OpenAPI say it.
        let is_told = description.is_some_and(|text| text.starts_with("(Required)"));
        let is_required = is_secret || (is_told && !schema.contains_key("default"));
        let input = self.fields.add(name, schema.into(), is_required);
        text::pill("input", &input)
    }

    /// Headers but for credentials and what the sender decides; gives the content type.
    fn headers(&mut self, headers: &[(String, String)], request: &mut RequestStep) -> Option<String> {
        let mut content_type = None;
        for (name, value) in headers.iter().take(limits::HEADERS_MAX) {
            let name = name.trim();
            let lower = name.to_ascii_lowercase();
            let is_taken = request.headers.keys().any(|known| known.eq_ignore_ascii_case(name));
            if lower == "content-type" {
                content_type = Some(value.trim().to_owned());
            } else if is_senders(&lower) {
                self.draft
                    .notes
                    .add("headers that only a browser or the connection itself says are left out", self.place);
            } else if lower == "authorization" {
                self.authorization(value);
            } else if credentials::is_secret_header(name) || credentials::looks_secret(value) {
                self.asks_for_account("headers", Some(name), &format!("The header `{name}`."));
            } else if has_variables(name) || is_taken {
                self.draft.notes.add("a header is left out: its name is a variable, or it stands twice", self.place);
            } else {
                let value = self.template(value.trim());
                request.headers.insert(name.to_owned(), value);
            }
        }
        content_type
    }

    fn authorization(&mut self, value: &str) {
        let scheme = value.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        match scheme.as_str() {
            "bearer" => self.asks_for_account("bearer", None, "A bearer token."),
            "basic" => self.asks_for_account("basic", None, "User and password of HTTP Basic."),
            "digest" => self.asks_for_account("digest", None, "User and password of HTTP Digest."),
            "aws4-hmac-sha256" => self.asks_for_account("aws_sigv4", None, "An AWS key, with region and service."),
            _ => self.asks_for_account("headers", Some("Authorization"), "The header `Authorization`."),
        }
    }

    /// Says that the API wants an account, in place of a credential of the source.
    fn asks_for_account(&mut self, kind: &str, name: Option<&str>, help: &str) {
        asks_for_account(self.draft, kind, name, help);
    }

    fn body(&mut self, body: &Body, content_type: Option<String>, request: &mut RequestStep) {
        let mut usual = None;
        match body {
            Body::None => {}
            Body::Json(value) => {
                usual = Some("application/json");
                request.json = Some(self.json(value));
            }
            Body::Form(fields) => {
                usual = Some("application/x-www-form-urlencoded");
                request.form = Some(self.fields_of(fields, Origin::Body));
            }
            Body::Multipart(parts) => {
                request.multipart = Some(parts.iter().map(|part| self.part(part)).collect());
                return;
            }
            Body::Text(text) if credentials::speaks_of_secrets(text) => {
                let text = "the text of the body speaks of secrets and is left out; give it as the input `body`";
                self.draft.notes.add(text, self.place);
                let input = self.fields.add("body", json!({"type": "string"}), true);
                request.text = Some(text::pill("input", &input));
            }
            Body::Text(text) => request.text = Some(self.template(text)),
            Body::File => {
                let schema = json!({"description": "The bytes: a text, or {base64: …}."});
                let input = self.fields.add("file", schema, true);
                request.raw = Some(RawSpec::Pill(text::pill("input", &input)));
            }
            Body::GraphQl(query, variables) => {
                usual = Some("application/json");
                request.json = Some(self.graphql(query, variables));
                if is_graphql_query(query) {
                    request.effect = Some(Effect::Read);
                }
            }
        }
        let Some(content_type) = content_type else { return };
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if !usual.is_some_and(|usual| essence.eq_ignore_ascii_case(usual)) {
            let content_type = self.template(&content_type);
            request.headers.insert("Content-Type".to_owned(), content_type);
        }
    }

    /// A JSON body: the fields of an object are inputs.
    fn json(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(map) if map.len() <= FIELDS_MAX && !map.keys().any(|key| has_variables(key)) => {
                let fields = map.iter().map(|(key, item)| (key.clone(), self.json_field(key, item)));
                Value::Object(fields.collect())
            }
            value if holds_variables(value) => self.json_template(value),
            value => self.json_input("body", value).into(),
        }
    }

    /// A field of a JSON body.
    fn json_field(&mut self, key: &str, value: &Value) -> Value {
        match value {
            value if holds_variables(value) => self.json_template(value),
            Value::String(text) if is_placeholder(text) && !text.is_empty() => {
                self.input(key, Some("string".into()), None, None).into()
            }
            value => self.json_input(key, value).into(),
        }
    }

    /// The pill of an input that is a part of a JSON body, typed as its value is.
    fn json_input(&mut self, key: &str, value: &Value) -> String {
        let kind = match value {
            Value::Null => None,
            Value::Bool(_) => Some("boolean"),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some("integer"),
            Value::Number(_) => Some("number"),
            Value::String(_) => Some("string"),
            Value::Array(_) => Some("array"),
            Value::Object(_) => Some("object"),
        };
        self.input(key, kind.map(Value::from), Some(value.clone()), None)
    }

    /// JSON with pills in the place of variables.
    fn json_template(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.template(text).into(),
            Value::Array(items) => items.iter().map(|item| self.json_template(item)).collect(),
            Value::Object(map) => {
                let fields = map.iter().map(|(key, item)| {
                    let is_secret = credentials::is_secret_name(key) && !holds_variables(item) && item.is_string();
                    let item = if is_secret { self.json_input(key, item).into() } else { self.json_template(item) };
                    (unmarked(key), item)
                });
                Value::Object(fields.collect())
            }
            other => other.clone(),
        }
    }

    fn graphql(&mut self, query: &str, variables: &Value) -> Value {
        let mut body = Map::new();
        body.insert("query".to_owned(), self.template(query).into());
        let variables = match variables {
            Value::Null => return body.into(),
            variables if holds_variables(variables) => self.json_template(variables),
            variables => self.json_input("variables", variables).into(),
        };
        body.insert("variables".to_owned(), variables);
        body.into()
    }

    fn part(&mut self, part: &PartGiven) -> PartSpec {
        let name = text::literal(&unmarked(&part.field.name));
        let content_type = part.content_type.as_deref().map(|text| self.template(text));
        let mut spec = PartSpec { name, filename: None, content_type, text: None, json: None, raw: None };
        match &part.file {
            Some(file) => {
                let about = part.field.description.as_deref().and_then(|text| text::plain(text, 400));
                let about = about.unwrap_or_else(|| "The file: a text, or {base64: …}.".to_owned());
                let input = self.fields.add(&part.field.name, json!({"description": about}), true);
                let file = unmarked(file.rsplit(['/', '\\']).next().unwrap_or_default());
                let file = if file.is_empty() || has_variables(&part.field.name) { "file".to_owned() } else { file };
                spec.filename = Some(text::literal(&file));
                spec.raw = Some(RawSpec::Pill(text::pill("input", &input)));
            }
            None => spec.text = Some(self.given(&part.field)),
        }
        spec
    }
}

/// Says that the API wants an account, in place of a credential of the source; `name` is that of its header or
/// parameter.
pub(super) fn asks_for_account(draft: &mut Draft, kind: &str, name: Option<&str>, help: &str) {
    draft.takes_account(kind, None, Some(unmarked(help)));
    let reference = match (kind, name) {
        ("headers" | "query", Some(name)) => format!("{kind}: {{{}: {{secret: NAME}}}}", unmarked(name)),
        ("bearer", _) => "bearer: {token: {secret: NAME}}".to_owned(),
        (kind, _) => format!("{kind}: …"),
    };
    draft.notes.add(
        format!(
            "a credential is no input: store its value with `linkspan secrets set NAME`, and make an account for it: `{reference}`"
        ),
        "",
    );
}

/// How often `{{` may stand in the texts of a request: each is a pill of its own to stay what it is.
const BRACES_MAX: usize = 1_000;

fn braces(example: &Example) -> usize {
    let count = |text: &str| text.matches("{{").count();
    let body = match &example.body {
        Body::Text(text) => count(text),
        Body::GraphQl(query, variables) => count(query) + count(&variables.to_string()),
        Body::Json(value) if holds_variables(value) => count(&value.to_string()),
        Body::Json(_) | Body::None | Body::File => 0,
        Body::Form(fields) => fields.iter().filter_map(|field| field.value.as_deref()).map(count).sum(),
        Body::Multipart(parts) => parts.iter().filter_map(|part| part.field.value.as_deref()).map(count).sum(),
    };
    let headers: usize = example.headers.iter().map(|(_, value)| count(value)).sum();
    let query: usize = example.query.iter().filter_map(|field| field.value.as_deref()).map(count).sum();
    body + headers + query + count(&example.url)
}

/// Most segments of a path of which the source says more.
const SEGMENTS_MAX: usize = 100;
/// Most fields of a JSON body that are inputs each.
const FIELDS_MAX: usize = 100;

/// A value that stands for one that has to be put in its place: `<string>`.
fn is_placeholder(value: &str) -> bool {
    let value = value.trim();
    value.is_empty() || (value.starts_with('<') && value.ends_with('>') && !value.contains("</"))
}

/// Whether a value has a placeholder anywhere in it.
fn holds_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => is_placeholder(text) && !text.is_empty(),
        Value::Array(items) => items.iter().any(holds_placeholder),
        Value::Object(map) => map.values().any(holds_placeholder),
        _ => false,
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// Headers that the sender decides, and those that tell a browser's story.
fn is_senders(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "te"
            | "trailer"
            | "upgrade"
            | "accept-encoding"
            | "dnt"
            | "priority"
            | "upgrade-insecure-requests"
            | "pragma"
            | "cache-control"
            | "postman-token"
            | "keep-alive"
            | "proxy-connection"
    ) || name.starts_with("sec-")
        || name.starts_with(':')
}

fn is_graphql_query(query: &str) -> bool {
    let query = query.trim_start();
    query.starts_with('{') || query.starts_with("query")
}

fn is_container(value: &Value) -> bool {
    value.is_array() || value.is_object()
}
