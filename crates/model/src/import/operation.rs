//! Operations of an OpenAPI document as actions.

mod body;

use std::borrow::Cow;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use self::body::MEDIA_MAX;
pub(super) use self::body::Media;
use super::credentials;
use super::draft::{Draft, Fields};
use super::schema::{ObjectView, Schemas, Side, is_kind, kinds_of, of_kinds, short_example};
use super::security::Credentials;
use super::servers::{self, Piece};
use super::text;
use crate::connector::{ActionSpec, OutputSpec};
use crate::limits;
use crate::request::RequestStep;

/// What the operations of a document share.
pub(super) struct Reader<'a> {
    pub(super) schemas: Schemas<'a>,
    pub(super) credentials: Credentials,
    /// The connection's base URL.
    pub(super) base: Option<String>,
}

/// An operation.
pub(super) struct Operation<'a> {
    /// The name of its action.
    pub(super) name: String,
    /// Upper case.
    pub(super) method: String,
    /// As the document writes it.
    pub(super) path: &'a str,
    /// The path item that it stands in.
    pub(super) item: &'a Map<String, Value>,
    /// Itself.
    pub(super) operation: &'a Map<String, Value>,
}

/// How much is told of an action.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detail {
    /// About how long the schema or the example of its answer may be.
    pub(super) output_bytes: usize,
    /// How long its description may be.
    pub(super) description_chars: usize,
}

/// About how long the schemas of all inputs of an action may be, in bytes.
const INPUT_BYTES: usize = 32 << 10;
/// The least of it for one input, however many there are.
const INPUT_BYTES_LEAST: usize = 400;
/// Most parameters of an operation that are read.
const PARAMETERS_MAX: usize = 300;
/// Longest example of an answer in bytes.
const SAMPLE_BYTES: usize = 4 << 10;

impl<'a> Reader<'a> {
    /// The action for an operation; none when it cannot be one, which a note says.
    pub(super) fn action(&self, operation: &Operation<'a>, detail: Detail, draft: &mut Draft) -> Option<ActionSpec> {
        if operation.path.len() > limits::URI_MAX_BYTES {
            draft.notes.add("left out, because its path is too long", &operation.name);
            return None;
        }
        let place = format!("{} {}", operation.method, operation.path);
        let mut building = Building {
            reader: self,
            draft,
            fields: Fields::default(),
            room: INPUT_BYTES,
            request: RequestStep { method: operation.method.clone(), ..RequestStep::default() },
            place: &place,
        };
        let built = building.build(operation);
        let Building { fields, request, .. } = building;
        self.schemas.note(&mut draft.notes, &place);
        built?;
        let output = self.output(operation, detail, &place, draft);
        let get = |field: &str| operation.operation.get(field).and_then(Value::as_str);
        let title = get("summary").and_then(|text| text::line(text, 100));
        let mut description = get("description").and_then(|text| text::plain(text, detail.description_chars));
        if description.as_deref() == title.as_deref() {
            description = None;
        }
        if operation.operation.get("deprecated") == Some(&Value::Bool(true)) {
            description = Some(format!("Deprecated. {}", description.unwrap_or_default()).trim_end().to_owned());
        }
        let input = fields.into_schema();
        Some(ActionSpec { title, description, input, request, paginate: None, output })
    }

    /// The answer that shows success.
    fn response(&self, operation: &Operation<'a>) -> Option<&'a Map<String, Value>> {
        let responses = operation.operation.get("responses")?.as_object()?;
        let usual = ["200", "201", "202", "2XX", "2xx"].iter().find_map(|status| responses.get(*status));
        let found = usual.or_else(|| {
            responses.iter().take(MEDIA_MAX).find(|(status, _)| status.starts_with('2')).map(|(_, found)| found)
        });
        self.schemas.resolve(found.or_else(|| responses.get("default"))?)?.as_object()
    }

    fn output(&self, operation: &Operation<'a>, detail: Detail, place: &str, draft: &mut Draft) -> Option<OutputSpec> {
        let content = self.response(operation)?.get("content")?.as_object()?;
        let (_, media) = content
            .iter()
            .take(MEDIA_MAX)
            .find(|(name, _)| Media::of(name) == Media::Json)
            .or(content.iter().next())?;
        let media = media.as_object()?;
        let schema = media.get("schema").filter(|_| detail.output_bytes > 0);
        let schema = schema.map(|schema| self.schemas.write(schema, Side::Output, detail.output_bytes));
        let schema = schema.filter(|schema| schema.as_object().is_some_and(|map| !map.is_empty()));
        self.schemas.note(&mut draft.notes, place);
        let most = SAMPLE_BYTES.min(detail.output_bytes);
        let sample = if schema.is_none() { self.sample(media, most) } else { None };
        (schema.is_some() || sample.is_some()).then_some(OutputSpec { schema, sample })
    }

    /// The example of an answer, when it is not longer than `most` bytes; secrets in it are hidden.
    fn sample(&self, media: &'a Map<String, Value>, most: usize) -> Option<Value> {
        let several = media.get("examples").and_then(Value::as_object).and_then(|examples| examples.values().next());
        let first = several.and_then(|example| self.schemas.resolve(example)).and_then(|example| example.get("value"));
        let example = media.get("example").or(first).filter(|example| text::is_within(example, most))?;
        Some(credentials::scrubbed(example))
    }
}

/// An action in the making.
struct Building<'r, 'a> {
    reader: &'r Reader<'a>,
    draft: &'r mut Draft,
    fields: Fields,
    /// Bytes that schemas of inputs may still take.
    room: usize,
    request: RequestStep,
    place: &'r str,
}

/// A parameter of an operation.
#[derive(Clone, Copy)]
struct Parameter<'a> {
    name: &'a str,
    place: &'a str,
    /// All that the document says of it.
    written: &'a Map<String, Value>,
    schema: &'a Value,
    /// Whether its value is JSON in a text.
    is_json: bool,
}

impl<'a> Parameter<'a> {
    fn is_required(&self) -> bool {
        self.written.get("required") == Some(&Value::Bool(true)) || self.place == "path"
    }

    fn description(&self) -> Option<&'a str> {
        self.written.get("description").and_then(Value::as_str)
    }

    fn style(&self) -> &'a str {
        let usual = if self.place == "query" || self.place == "cookie" { "form" } else { "simple" };
        self.written.get("style").and_then(Value::as_str).unwrap_or(usual)
    }

    fn explodes(&self) -> bool {
        self.written.get("explode").and_then(Value::as_bool).unwrap_or_else(|| self.style() == "form")
    }
}

/// What a text of a parameter is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Scalar,
    List,
    Object,
}

static ANYTHING: Value = Value::Bool(true);

impl<'a> Building<'_, 'a> {
    fn build(&mut self, operation: &Operation<'a>) -> Option<()> {
        let parameters = self.parameters(operation);
        self.target(operation, &parameters)?;
        self.query(&parameters);
        self.headers(&parameters);
        self.cookies(&parameters);
        self.body(operation);
        self.accept(operation);
        Some(())
    }

    fn note(&mut self, text: impl Into<String>) {
        self.draft.notes.add(text, self.place);
    }

    /// The parameters of path item and operation; the operation's go before.
    fn parameters(&mut self, operation: &Operation<'a>) -> Vec<Parameter<'a>> {
        let mut found: IndexMap<(&str, &str), Parameter<'a>> = IndexMap::new();
        for holder in [operation.item, operation.operation] {
            let written = holder.get("parameters").and_then(Value::as_array).into_iter().flatten();
            for written in written.take(PARAMETERS_MAX) {
                let Some(parameter) = self.parameter(written) else { continue };
                found.insert((parameter.place, parameter.name), parameter);
            }
        }
        let sent = |parameter: &Parameter<'_>| self.reader.credentials.sends(parameter.place, parameter.name);
        found.into_values().filter(|parameter| !sent(parameter)).collect()
    }

    fn parameter(&mut self, written: &'a Value) -> Option<Parameter<'a>> {
        let value = self.reader.schemas.resolve(written)?;
        let written = value.as_object()?;
        let (name, place) = (written.get("name")?.as_str()?, written.get("in")?.as_str()?);
        if name.is_empty() || name.len() > 200 {
            self.note("a parameter without a usable name is left out");
            return None;
        }
        let content = written.get("content").and_then(Value::as_object).and_then(|content| content.iter().next());
        let in_content = content.and_then(|(_, media)| media.get("schema"));
        // Documents between the versions have the type in the parameter itself.
        let own = written.contains_key("type").then_some(value);
        let schema = written.get("schema").or(in_content).or(own).unwrap_or(&ANYTHING);
        let is_json = content.is_some_and(|(name, _)| Media::of(name) == Media::Json);
        Some(Parameter { name, place, written, schema, is_json })
    }

    /// Where the request goes: a path, or a whole URL where the operation has a server of its own.
    fn target(&mut self, operation: &Operation<'a>, parameters: &[Parameter<'a>]) -> Option<()> {
        let path = operation.path.split('#').next().unwrap_or_default();
        // APIs that tell their operations apart there say the same in a parameter that is always sent.
        let is_told =
            parameters.iter().any(|parameter| parameter.is_required() && self.constant(parameter.schema).is_some());
        if path.len() < operation.path.len() && !is_told {
            self.note("what stands behind `#` in the path is left out; it is never sent");
        }
        let path = self.path(path, parameters);
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let own = operation.operation.get("servers").or_else(|| operation.item.get("servers"));
        match servers::own_base(own) {
            None => self.request.path = Some(path),
            Some(Ok(base)) if Some(&base) == self.reader.base.as_ref() => self.request.path = Some(path),
            Some(Ok(base)) => {
                let url = url::Url::parse(&base).ok()?;
                let host = url.host_str()?;
                let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
                self.draft.adds_host(&host);
                self.request.url = Some(format!("{}{path}", text::literal(&base)));
            }
            Some(Err(())) => {
                self.note("it has a server of its own whose URL is not whole; its path is appended to the base URL");
                self.request.path = Some(path);
            }
        }
        Some(())
    }

    fn path(&mut self, path: &str, parameters: &[Parameter<'a>]) -> String {
        let mut out = String::new();
        let mut seen: Vec<(String, String)> = Vec::new();
        for piece in servers::pieces(path) {
            match piece {
                Piece::Text(text) => out.push_str(&text::literal(&text.replace(' ', "%20"))),
                Piece::Variable(name) => {
                    if let Some((_, pill)) = seen.iter().find(|(known, _)| known == name) {
                        out.push_str(pill);
                        continue;
                    }
                    let pill = self.path_pill(name, parameters);
                    seen.push((name.to_owned(), pill.clone()));
                    out.push_str(&pill);
                }
            }
        }
        out
    }

    fn path_pill(&mut self, written: &str, parameters: &[Parameter<'a>]) -> String {
        // `{path+}` and `{path*}` stand for several segments.
        let name = written.trim_end_matches(['+', '*']);
        if name.len() < written.len() {
            self.note("a parameter of the path may hold slashes, which are sent percent-encoded");
        }
        let found = parameters.iter().find(|parameter| parameter.place == "path" && parameter.name == name);
        let Some(parameter) = found else {
            self.note(format!(
                "the path names `{}`, which no parameter describes; it is an input",
                text::line(name, 60).unwrap_or_default()
            ));
            let input = self.fields.add(name, json!({}), true);
            return text::pill("input", &input);
        };
        let input = self.input(parameter, true);
        let before = match parameter.style() {
            "label" => ".".to_owned(),
            "matrix" => format!(";{}=", text::literal(name)),
            _ => String::new(),
        };
        let pill = match self.shape(parameter.schema) {
            _ if parameter.is_json => text::filtered_pill("input", &input, "json"),
            // RFC 6570, sections 3.2.5 and 3.2.7.
            Shape::List if parameter.style() == "label" && parameter.explodes() => {
                text::filtered_pill("input", &input, "join('.')")
            }
            Shape::List if parameter.style() == "matrix" && parameter.explodes() && is_plain_name(name) => {
                text::filtered_pill("input", &input, &format!("join(';{name}=')"))
            }
            Shape::List => text::filtered_pill("input", &input, separator(parameter.style())),
            Shape::Scalar => text::pill("input", &input),
            Shape::Object => {
                self.note("an object in the path is sent as JSON");
                text::filtered_pill("input", &input, "json")
            }
        };
        before + &pill
    }

    /// Adds the input for a parameter.
    fn input(&mut self, parameter: &Parameter<'a>, is_required: bool) -> String {
        let schema = self.schema(parameter.schema, Some(parameter), parameter.name, is_required);
        self.fields.add(parameter.name, schema, is_required)
    }

    /// The schema of an input: with the parameter's own words, an example, and what is sent when it is left out.
    fn schema(&mut self, schema: &'a Value, parameter: Option<&Parameter<'a>>, name: &str, is_required: bool) -> Value {
        let room = self.room.clamp(INPUT_BYTES_LEAST, INPUT_BYTES / 4);
        let mut written = self.reader.schemas.write(schema, Side::Input, room);
        let resolved = self.reader.schemas.resolve(schema).unwrap_or(&ANYTHING);
        let own = |field: &str| parameter.and_then(|parameter| parameter.written.get(field));
        let Some(map) = written.as_object_mut() else { return json!({}) };
        let mut description = parameter
            .and_then(Parameter::description)
            .and_then(|text| text::plain(text, 400))
            .or_else(|| map.get("description").and_then(Value::as_str).map(ToOwned::to_owned));
        let kinds = kinds_of(resolved);
        let default = resolved.get("default").or_else(|| own("default")).map(|default| of_kinds(default, &kinds));
        let default = default.as_deref();
        if let Some(default) =
            default.filter(|default| text::is_within(default, 200) && !credentials::holds_secret(default))
        {
            if is_required && fits(default, map) && !credentials::is_secret_name(name) {
                map.insert("default".to_owned(), default.clone());
            } else if !default.is_null() && !credentials::is_secret_name(name) {
                // Not sent by us: some APIs refuse to be told what they would do anyway.
                let text = text::of(default);
                let sentence = format!("Left out: {}", if text.is_empty() { "empty." } else { text.as_str() });
                description = Some(match description {
                    Some(words) if names(&words, &text) => words,
                    Some(words) => format!("{} {sentence}", text::ended(&words)),
                    None => sentence,
                });
            }
        }
        let example = own("example")
            .or_else(|| resolved.get("example"))
            .or_else(|| resolved.get("examples")?.as_array()?.first());
        if let Some(example) = short_example(example, name).filter(|_| !map.contains_key("enum")) {
            map.insert("examples".to_owned(), json!([example]));
        }
        if own("deprecated") == Some(&Value::Bool(true)) || resolved.get("deprecated") == Some(&Value::Bool(true)) {
            description = Some(format!("Deprecated. {}", description.unwrap_or_default()).trim_end().to_owned());
        }
        if let Some(description) = description {
            map.insert("description".to_owned(), description.into());
        }
        self.room = self.room.saturating_sub(text::weight(&written));
        written
    }

    fn shape(&self, schema: &'a Value) -> Shape {
        let Some(schema) = self.reader.schemas.resolve(schema) else { return Shape::Scalar };
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => Some(kind.as_str()),
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
            _ => None,
        };
        match kind {
            Some("array") => Shape::List,
            Some("object") => Shape::Object,
            None if schema.get("items").is_some() => Shape::List,
            None if schema.get("properties").is_some() || schema.get("allOf").is_some() => Shape::Object,
            _ => Shape::Scalar,
        }
    }

    /// The only value that a parameter can have.
    fn constant(&self, schema: &'a Value) -> Option<Cow<'a, Value>> {
        let schema = self.reader.schemas.resolve(schema)?;
        let only = match schema.get("enum").and_then(Value::as_array).map(Vec::as_slice) {
            Some([only]) => Some(only),
            _ => schema.get("const"),
        };
        // Long ones are inputs: they stand in no text.
        let is_short = |only: &&Value| only.as_str().is_none_or(|text| text.len() <= 300);
        let only = only.filter(|only| only.is_string() || only.is_number() || only.is_boolean()).filter(is_short)?;
        Some(of_kinds(only, &kinds_of(schema)))
    }

    fn query(&mut self, parameters: &[Parameter<'a>]) {
        for parameter in parameters.iter().filter(|parameter| parameter.place == "query") {
            if self.is_credential(parameter, "query") {
                continue;
            }
            let constant = self.constant(parameter.schema).filter(|_| parameter.is_required());
            if let Some(constant) = constant {
                self.request.query.insert(parameter.name.to_owned(), text::literal(&text::of(&constant)).into());
                continue;
            }
            let shape = self.shape(parameter.schema);
            if shape == Shape::Object && parameter.style() == "form" && parameter.explodes() && !parameter.is_json {
                self.spread(parameter);
                continue;
            }
            let input = self.input(parameter, parameter.is_required());
            let (name, filter) = match (shape, parameter.style(), parameter.explodes()) {
                _ if parameter.is_json => (parameter.name.to_owned(), Some("json")),
                (Shape::List, "deepObject", _) => (bracketed(parameter.name), None),
                (Shape::Scalar, ..) | (Shape::List, _, true) | (Shape::Object, "deepObject", _) => {
                    (parameter.name.to_owned(), None)
                }
                (Shape::List, style, _) => (parameter.name.to_owned(), Some(separator(style))),
                (Shape::Object, ..) => {
                    self.note("an object in one parameter is sent as JSON");
                    (parameter.name.to_owned(), Some("json"))
                }
            };
            let text = match filter {
                Some(filter) => text::filtered_pill("input", &input, filter),
                None => text::pill("input", &input),
            };
            self.request.query.insert(name, text.into());
        }
    }

    /// An object whose fields are parameters each: inputs of their own.
    fn spread(&mut self, parameter: &Parameter<'a>) {
        let Some(view) = self.reader.schemas.object(parameter.schema, Side::Input) else {
            let input = self.input(parameter, parameter.is_required());
            self.request.query.insert(parameter.name.to_owned(), text::pill("input", &input).into());
            self.note("the fields of an object in the query are not described; they are sent in brackets");
            return;
        };
        self.note_more(&view);
        for (name, schema) in &view.properties {
            let is_required = parameter.is_required() && view.required.contains(name);
            let schema = self.schema(schema, None, name, is_required);
            let field = self.fields.add(name, schema, is_required);
            self.request.query.insert((*name).to_owned(), text::pill("input", &field).into());
        }
    }

    /// Says that an object whose fields are inputs each may have others too, which none of them can hold.
    fn note_more(&mut self, view: &ObjectView<'a>) {
        if view.more.is_some() {
            self.note("fields whose names the source does not say are left out");
        }
    }

    /// Whether a parameter is for a credential, which no input may hold; says that the API wants an account then.
    fn is_credential(&mut self, parameter: &Parameter<'a>, kind: &str) -> bool {
        let about = parameter.description().unwrap_or_default();
        let is = credentials::is_credential_parameter(parameter.place, parameter.name, about);
        if is {
            let help = if kind == "query" { "The query parameter" } else { "The header" };
            self.draft.asks_for_account(kind, Some(parameter.name), &format!("{help} `{}`.", parameter.name));
        }
        is
    }

    fn headers(&mut self, parameters: &[Parameter<'a>]) {
        for parameter in parameters.iter().filter(|parameter| parameter.place == "header") {
            let lower = parameter.name.to_ascii_lowercase();
            // OpenAPI says of these that such parameters are to be ignored; the others the sender knows.
            let is_set = matches!(lower.as_str(), "accept" | "content-type" | "accept-encoding" | "cookie")
                || crate::request::WIRE_HEADERS.contains(&lower.as_str());
            if is_set || self.is_credential(parameter, "headers") {
                continue;
            }
            let taken = self.request.headers.keys().any(|known| known.eq_ignore_ascii_case(parameter.name));
            if http::HeaderName::from_bytes(parameter.name.as_bytes()).is_err() || taken {
                self.note(format!(
                    "the header `{}` is left out, because its name is none or stands twice",
                    parameter.name
                ));
                continue;
            }
            let constant = self.constant(parameter.schema).filter(|_| parameter.is_required());
            let text = match constant {
                Some(constant) => text::literal(&text::of(&constant)),
                None => {
                    let input = self.input(parameter, parameter.is_required());
                    match self.shape(parameter.schema) {
                        _ if parameter.is_json => text::filtered_pill("input", &input, "json"),
                        Shape::List => text::filtered_pill("input", &input, separator(parameter.style())),
                        Shape::Object => {
                            self.note("an object in a header is sent as JSON");
                            text::filtered_pill("input", &input, "json")
                        }
                        Shape::Scalar => text::pill("input", &input),
                    }
                }
            };
            self.request.headers.insert(parameter.name.to_owned(), text);
        }
    }

    fn cookies(&mut self, parameters: &[Parameter<'a>]) {
        let mut cookies = Vec::new();
        for parameter in parameters.iter().filter(|parameter| parameter.place == "cookie") {
            if parameter.is_required() && self.shape(parameter.schema) == Shape::Scalar {
                let input = self.input(parameter, true);
                cookies.push(format!("{}={}", text::literal(parameter.name), text::pill("input", &input)));
            } else {
                self.note(format!("the cookie `{}` is left out", parameter.name));
            }
        }
        if !cookies.is_empty() {
            self.request.headers.insert("Cookie".to_owned(), cookies.join("; "));
        }
    }

    /// What the answer is asked to be.
    fn accept(&mut self, operation: &Operation<'a>) {
        let content = self.reader.response(operation).and_then(|response| response.get("content")?.as_object());
        let Some(content) = content else { return };
        let json = content.keys().take(MEDIA_MAX).find(|name| Media::of(name) == Media::Json);
        let Some(accept) = json.or_else(|| content.keys().next()) else { return };
        let is_header = http::HeaderValue::from_str(accept).is_ok();
        if is_header && !accept.is_empty() && accept.len() <= 200 {
            self.request.headers.insert("Accept".to_owned(), text::literal(accept));
        }
    }
}

/// The filter that makes one text of a list.
fn separator(style: &str) -> &'static str {
    match style {
        "spaceDelimited" => "join(' ')",
        "pipeDelimited" => "join('|')",
        "tabDelimited" => "join('\\t')",
        _ => "join(',')",
    }
}

/// Whether a name can stand in a text of an expression as it is.
fn is_plain_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// How the lists of a field of a body are written: in one value with this filter, or each item by itself. `encoding` is
/// what the media type says of the field (OpenAPI 3.0.3, encoding object).
fn joins(encoding: Option<&Value>) -> Option<&'static str> {
    let get = |field: &str| encoding.and_then(|encoding| encoding.get(field));
    let style = get("style").and_then(Value::as_str).unwrap_or("form");
    let explodes = get("explode").and_then(Value::as_bool).unwrap_or(style == "form");
    (!explodes && style != "deepObject").then(|| separator(style))
}

/// The name of a parameter that is a list, where a name says so.
fn bracketed(name: &str) -> String {
    if name.ends_with("[]") { name.to_owned() } else { format!("{name}[]") }
}

/// Whether a text has another in it that is no part of a longer word or number.
fn names(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric();
    !word.is_empty()
        && text
            .match_indices(word)
            .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// Whether a default is one that its schema allows, as far as type and values say.
fn fits(default: &Value, schema: &Map<String, Value>) -> bool {
    let is_of = |kind: &Value| is_kind(default, kind.as_str().unwrap_or_default());
    let has_kind = match schema.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().any(is_of),
        Some(kind) => is_of(kind),
    };
    has_kind && schema.get("enum").and_then(Value::as_array).is_none_or(|values| values.contains(default))
}
