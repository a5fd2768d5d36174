//! Actions of requests with their values.
//!
//! What is a value becomes an input with that value as its default, so that the action does what the source did when
//! nothing is given, and something else when it is: the parameters of the query, the fields of a JSON or form body.
//! Path and headers stay as they are. A value that is a secret, by its name or look, becomes an account's, or an input
//! without a default.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{
    Body, Example, Given, OPEN, PartGiven, Piece, Variables, has_variables, holds_variables, pieces, shown, take_apart,
    unmarked,
};
use crate::connector::{ActionSpec, OutputSpec};
use crate::fault::Fault;
use crate::import::draft::{Draft, Fields};
use crate::import::only::{Known, Only};
use crate::import::{credentials, text, too_large};
use crate::limits;
use crate::request::{Effect, PartSpec, RawSpec, RequestStep};

/// Makes actions of requests.
pub(in crate::import) struct Writer<'a> {
    /// Where they go.
    pub(in crate::import) draft: &'a mut Draft,
    /// What variables are.
    variables: &'a mut Variables,
    /// The base that paths are appended to.
    base: &'a str,
    /// Which are wanted.
    only: &'a Only,
    /// How many bytes actions may still have.
    room: usize,
}

impl<'a> Writer<'a> {
    pub(in crate::import) fn new(
        draft: &'a mut Draft,
        variables: &'a mut Variables,
        base: &'a str,
        only: &'a Only,
    ) -> Self {
        Self { draft, variables, base, only, room: limits::IMPORTED_BYTES }
    }

    /// Makes an action of a request, and gives its name; `place` names the request in notes.
    ///
    /// # Errors
    /// The connector would be too large.
    pub(in crate::import) fn write(&mut self, example: &Example, place: &str) -> Result<Option<String>, Fault> {
        let Some((name, action)) = self.action(example, place) else { return Ok(None) };
        // What is too large is not even compiled: that takes many times its length.
        let bytes = text::weight(&action) + name.len();
        self.room = self.room.checked_sub(bytes).ok_or_else(too_large)?;
        if self.draft.spec.actions.len() >= limits::ACTIONS_MAX {
            let reason =
                format!("more than {} requests, which is how many actions a connector has", limits::ACTIONS_MAX);
            return Err(Fault::new("source", reason).hint("pick the requests that you need with `only`"));
        }
        self.draft.adds_action(name.clone(), action);
        Ok(Some(name))
    }

    fn action(&mut self, example: &Example, place: &str) -> Option<(String, ActionSpec)> {
        let url = Some(&example.url).filter(|url| url.len() <= limits::URI_MAX_BYTES).and_then(|url| take_apart(url));
        let Some(url) = url else {
            self.draft.notes.add("left out, because its URL is none", place);
            return None;
        };
        if has_variables(&example.method) {
            self.draft.notes.add("left out, because its method is a variable", place);
            return None;
        }
        if braces(example) > BRACES_MAX {
            self.draft.notes.add("left out, because its texts hold too many braces", place);
            return None;
        }
        if inputs(example) + url.query.len() > INPUTS_MAX {
            self.draft.notes.add(format!("left out, because it would have more than {INPUTS_MAX} inputs"), place);
            return None;
        }
        let known_path = shown(&url.path);
        let wanted = example.name.clone().unwrap_or_else(|| text::request_name(&example.method, &known_path));
        let name = self.draft.free_action_name(&wanted);
        let groups: Vec<&str> = example.groups.iter().map(AsRef::as_ref).collect();
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
            writing.draft.asks_for_account("basic", None, "User and password of HTTP Basic.");
        }
        let mut query: Vec<Given> =
            url.query.into_iter().map(|(name, value)| Given { name, value: Some(value), description: None }).collect();
        query.extend(example.query.iter().cloned());
        request.query = writing.fields_of(&query, Origin::Query);
        let content_type = writing.headers(&example.headers, &mut request);
        writing.body(&example.body, content_type, &mut request);
        if writing.fields.len() > INPUTS_MAX {
            self.draft.notes.add(format!("left out, because it would have more than {INPUTS_MAX} inputs"), place);
            return None;
        }
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
        Some((name, action))
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
        let mut template = String::new();
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => template.push_str(&text::literal(text)),
                Piece::Variable(name) => {
                    let pill = self.pill(name);
                    // The brace before a pill would be taken for one of its own.
                    if template.ends_with('{') {
                        template.pop();
                        template.push_str("{{ '{' }}");
                    }
                    template.push_str(&pill);
                }
            }
        }
        template
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
                let is_secret =
                    |value: &str| credentials::is_secret_parameter(name) || credentials::is_secret_segment(value);
                if let Some(value) = value.filter(|value| !has_variables(value) && !is_secret(value)) {
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
    fn fields_of(&mut self, given: &[Given], origin: Origin) -> IndexMap<String, Value> {
        let mut by_name: IndexMap<&str, Vec<&Given>> = IndexMap::new();
        if given
            .iter()
            .any(|field| field.name.is_empty() && field.value.as_deref().is_some_and(|value| !value.is_empty()))
        {
            self.draft.notes.add("a parameter without a name is left out", self.place);
        }
        for field in given.iter().filter(|field| !field.name.is_empty()) {
            by_name.entry(field.name.as_str()).or_default().push(field);
        }
        let mut written = IndexMap::new();
        for (name, fields) in by_name {
            if has_variables(name) {
                self.draft.notes.add("a parameter is left out, because its name is a variable", self.place);
                continue;
            }
            let looks_secret = fields.iter().filter_map(|field| field.value.as_deref()).any(looks_secret);
            let is_flag = fields.iter().all(|field| field.value.as_deref().is_some_and(|value| is_flag(&value.into())));
            let is_secret = looks_secret || (credentials::is_secret_parameter(name) && !is_flag);
            if origin == Origin::Query && is_secret {
                self.draft.asks_for_account("query", Some(name), &format!("The query parameter `{name}`."));
                continue;
            }
            let text = match fields.as_slice() {
                [field] => self.given(field),
                several => self.list(name, several),
            };
            written.insert(name.to_owned(), text.into());
        }
        written
    }

    /// The text of a field with its value.
    fn given(&mut self, field: &Given) -> String {
        let value = field.value.as_deref();
        if let Some(value) = value.filter(|value| has_variables(value)) {
            if is_secret_template(&field.name, value) {
                return self.secret(&field.name, None, field.description.as_deref());
            }
            return self.template(value);
        }
        let default = value.filter(|value| value.is_empty() || !is_placeholder(value)).map(Value::from);
        // Without a type: what the source has as text may be a number for whoever calls the action.
        self.input(&field.name, None, default, field.description.as_deref())
    }

    /// The text of a field that stands several times.
    fn list(&mut self, name: &str, fields: &[&Given]) -> String {
        let values: Vec<Value> = fields
            .iter()
            .filter_map(|field| field.value.as_deref())
            .filter(|value| !has_variables(value) && (value.is_empty() || !is_placeholder(value)))
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
        let is_secret =
            |value: &Value| (credentials::is_secret_name(name) && !is_flag(value)) || credentials::holds_secret(value);
        if default.as_ref().is_some_and(is_secret) {
            return self.secret(name, kind, description);
        }
        // As converters from OpenAPI say it.
        let is_told = description.is_some_and(|text| text.starts_with("(Required)"));
        let default = default.filter(|value| !is_told || value.as_str() != Some(""));
        let mut schema = written(kind, description);
        if default.as_ref().is_some_and(holds_placeholder) {
            schema.extend(default.map(|default| ("examples".to_owned(), json!([default]))));
        } else {
            schema.extend(default.map(|default| ("default".to_owned(), default)));
        }
        let is_required = is_told && !schema.contains_key("default");
        let input = self.fields.add(name, schema.into(), is_required);
        text::pill("input", &input)
    }

    /// The pill of an input for a value that stays behind.
    fn secret(&mut self, name: &str, kind: Option<Value>, description: Option<&str>) -> String {
        let text =
            "a value that looks like a secret is left out; give it to the action, or better: put it into an account";
        self.draft.notes.add(text, &format!("{}: {name}", self.place));
        let input = self.fields.add(name, written(kind, description).into(), true);
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
            } else if has_variables(name) || is_taken {
                self.draft.notes.add("a header is left out: its name is a variable, or it stands twice", self.place);
            } else if credentials::is_secret_header(name) || looks_secret(value) {
                self.draft.asks_for_account("headers", Some(name), &format!("The header `{name}`."));
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
            "bearer" => self.draft.asks_for_account("bearer", None, "A bearer token."),
            "basic" => self.draft.asks_for_account("basic", None, "User and password of HTTP Basic."),
            "digest" => self.draft.asks_for_account("digest", None, "User and password of HTTP Digest."),
            "aws4-hmac-sha256" => {
                self.draft.asks_for_account("aws_sigv4", None, "An AWS key, with region and service.")
            }
            _ => self.draft.asks_for_account("headers", Some("Authorization"), "The header `Authorization`."),
        }
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
            Body::GraphQl { query, variables, operation } => {
                usual = Some("application/json");
                request.json = Some(self.graphql(query, variables, operation.as_deref()));
                if is_graphql_query(query) {
                    request.effect = Some(Effect::Read);
                }
            }
        }
        let Some(content_type) = content_type else { return };
        let (essence, parameters) = content_type.split_once(';').unwrap_or((&content_type, ""));
        // UTF-8 is what is sent when nothing is said.
        let is_usual = parameters.trim().is_empty() || parameters.to_ascii_lowercase().contains("utf-8");
        if !usual.is_some_and(|usual| essence.trim().eq_ignore_ascii_case(usual)) || !is_usual {
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
            value if holds_variables(value) => self.json_template("body", value),
            value => self.json_input("body", value).into(),
        }
    }

    /// A field of a JSON body.
    fn json_field(&mut self, key: &str, value: &Value) -> Value {
        match value {
            value if holds_variables(value) => self.json_template(key, value),
            Value::String(text) if is_placeholder(text) && !text.is_empty() => {
                self.input(key, Some("string".into()), None, None).into()
            }
            value => self.json_input(key, value).into(),
        }
    }

    /// The pill of an input that is a part of a JSON body, typed as its value is.
    fn json_input(&mut self, key: &str, value: &Value) -> String {
        self.input(key, kind_of(value), Some(value.clone()), None)
    }

    /// JSON with pills in the place of variables, and of secrets; `key` is the field that it stands in.
    fn json_template(&mut self, key: &str, value: &Value) -> Value {
        match value {
            Value::String(text) if has_variables(text) && is_secret_template(key, text) => {
                self.secret(key, kind_of(value), None).into()
            }
            Value::String(text) if has_variables(text) => self.template(text).into(),
            Value::String(_) | Value::Number(_)
                if credentials::is_secret_name(key) || credentials::holds_secret(value) =>
            {
                self.secret(key, kind_of(value), None).into()
            }
            Value::String(text) => text::literal(text).into(),
            Value::Array(items) => items.iter().map(|item| self.json_template(key, item)).collect(),
            Value::Object(map) => {
                let is_secret = credentials::is_secret_name(key);
                let mut fields = Map::new();
                for (inner, item) in map {
                    if has_variables(inner) {
                        self.draft.notes.add("a field is left out, because its name is a variable", self.place);
                        continue;
                    }
                    // Below the name of a secret everything is one.
                    let item = self.json_template(if is_secret { key } else { inner }, item);
                    fields.insert(inner.clone(), item);
                }
                Value::Object(fields)
            }
            other => other.clone(),
        }
    }

    fn graphql(&mut self, query: &str, variables: &Value, operation: Option<&str>) -> Value {
        let mut body = Map::new();
        let query = if credentials::has_secret_words(query) {
            self.secret("query", Some("string".into()), None)
        } else {
            self.template(query)
        };
        body.insert("query".to_owned(), query.into());
        if let Some(operation) = operation {
            body.insert("operationName".to_owned(), self.template(operation).into());
        }
        let variables = match variables {
            Value::Null => return body.into(),
            variables if holds_variables(variables) => self.json_template("variables", variables),
            variables => self.json_input("variables", variables).into(),
        };
        body.insert("variables".to_owned(), variables);
        body.into()
    }

    fn part(&mut self, part: &PartGiven) -> PartSpec {
        let name = self.template(&part.field.name);
        let content_type = part.content_type.as_deref().map(|text| self.template(text));
        let mut spec = PartSpec { name, filename: None, content_type, text: None, json: None, raw: None, each: None };
        // What its input is called; a variable in it says how.
        let called = unmarked(&part.field.name);
        match &part.file {
            Some(file) => {
                let about = part.field.description.as_deref().and_then(|text| text::plain(text, 400));
                let about = about.unwrap_or_else(|| "The file: a text, or {base64: …}.".to_owned());
                let input = self.fields.add(&called, json!({"description": about}), true);
                let file = file.rsplit(['/', '\\']).next().unwrap_or_default();
                spec.filename = Some(if file.is_empty() { "file".to_owned() } else { self.template(file) });
                spec.raw = Some(RawSpec::Pill(text::pill("input", &input)));
            }
            None => spec.text = Some(self.given(&Given { name: called, ..part.field.clone() })),
        }
        spec
    }
}

/// The schema of an input, as far as its kind and its description say it.
fn written(kind: Option<Value>, description: Option<&str>) -> Map<String, Value> {
    let mut schema = Map::new();
    schema.extend(kind.map(|kind| ("type".to_owned(), kind)));
    if let Some(text) = description.and_then(|text| text::plain(text, 400)) {
        schema.insert("description".to_owned(), text.into());
    }
    schema
}

/// The type that a value has in a schema.
fn kind_of(value: &Value) -> Option<Value> {
    let kind = match value {
        Value::Null => return None,
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_str().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Some(kind.into())
}

/// What stands round the variables of a text.
fn literals(text: &str) -> String {
    pieces(text)
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Variable(_) => "",
        })
        .collect()
}

/// Whether what a text says itself, not by its variables, looks like a secret.
fn looks_secret(text: &str) -> bool {
    credentials::looks_secret(&literals(text))
}

/// Whether a text with variables has a secret beside them: under the name of one everything is, but the word that says
/// what kind of token follows.
fn is_secret_template(name: &str, text: &str) -> bool {
    let literals = literals(text);
    let is_word = matches!(literals.trim().to_ascii_lowercase().as_str(), "" | "bearer" | "basic" | "token");
    credentials::looks_secret(&literals) || (!is_word && credentials::is_secret_name(name))
}

/// Most inputs of an action that is made of an example: parameters of its query and fields of its body.
pub(in crate::import) const INPUTS_MAX: usize = 1_000;

/// How many inputs a request has at least.
fn inputs(example: &Example) -> usize {
    let body = match &example.body {
        Body::Form(fields) => fields.len(),
        Body::Multipart(parts) => parts.len(),
        Body::None | Body::Json(_) | Body::Text(_) | Body::File | Body::GraphQl { .. } => 0,
    };
    example.query.len() + body
}

/// How often `{{` and variables may stand in the texts of a request: each is a pill of its own.
const BRACES_MAX: usize = 1_000;

fn braces(example: &Example) -> usize {
    let count = |text: &str| text.matches("{{").count() + text.matches(OPEN).count();
    let body = match &example.body {
        Body::Text(text) => count(text),
        Body::GraphQl { query, variables, .. } => count(query) + count(&variables.to_string()),
        Body::Json(value) if holds_variables(value) => count(&value.to_string()),
        Body::Json(_) | Body::None | Body::File => 0,
        Body::Form(fields) => fields.iter().filter_map(|field| field.value.as_deref()).map(count).sum(),
        Body::Multipart(parts) => {
            let of = |part: &PartGiven| {
                let given = [&part.field.value, &part.file, &part.content_type].into_iter().flatten();
                count(&part.field.name) + given.map(|text| count(text)).sum::<usize>()
            };
            parts.iter().map(of).sum()
        }
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

/// Whether a value says yes, no or nothing, which is no secret whatever it is called: `include_secrets=true`.
fn is_flag(value: &Value) -> bool {
    value.is_boolean() || value.is_null() || matches!(value.as_str(), Some("true" | "false"))
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

/// Whether a GraphQL document only reads: which of its operations is meant, whoever calls may say.
fn is_graphql_query(query: &str) -> bool {
    let mut words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let begins = query.trim_start();
    (begins.starts_with('{') || words.clone().find(|word| !word.is_empty()) == Some("query") && begins.starts_with('q'))
        && !words.any(|word| matches!(word, "mutation" | "subscription"))
}
