//! Bodies of operations.

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{ANYTHING, Building, Operation, Shape, bracketed, joins};
use crate::import::schema::{ObjectView, Side};
use crate::import::text;
use crate::limits;
use crate::request::{PartSpec, RawSpec};

impl<'a> Building<'_, 'a> {
    pub(super) fn body(&mut self, operation: &Operation<'a>) {
        let Some(body) = operation.operation.get("requestBody").and_then(|body| self.reader.schemas.resolve(body))
        else {
            return;
        };
        let is_required = body.get("required") == Some(&Value::Bool(true));
        // What has no meaning by HTTP is sent only where the API insists.
        if matches!(operation.method.as_str(), "GET" | "HEAD") && !is_required {
            self.note("a body that may be left out is left out: HTTP gives none of this method a meaning");
            return;
        }
        let content = body.get("content").and_then(Value::as_object);
        let Some((name, media)) = content.and_then(Media::pick) else { return };
        let schema = media.get("schema").unwrap_or(&ANYTHING);
        // A body that may be left out is one input, where no body is what most callers send.
        let is_whole = operation.method == "DELETE" && !is_required;
        let of =
            Body { name, schema, media, is_required, is_whole, about: body.get("description").and_then(Value::as_str) };
        match Media::of(name) {
            Media::Json => self.json(&of),
            Media::Form => self.form(&of),
            Media::Multipart => self.multipart(&of),
            Media::Xml => {
                let input = self.whole(&of, "An XML document as text, or as a tree.", None);
                self.request.xml = Some(text::pill("input", &input).into());
                self.says_type(name, "application/xml");
            }
            Media::Text => {
                let input = self.whole(&of, "The text.", Some("string"));
                self.request.text = Some(text::pill("input", &input));
                self.says_type(name, "text/plain");
            }
            Media::Bytes => {
                let input = self.whole(&of, "The bytes: a text, or {base64: …}.", None);
                self.request.raw = Some(RawSpec::Pill(text::pill("input", &input)));
                self.says_type(name, "application/octet-stream");
            }
        }
    }

    /// Adds the content type, where it is not what the body says by itself.
    fn says_type(&mut self, name: &str, usual: &str) {
        let is_type = !name.contains('*') && name.len() <= 200 && http::HeaderValue::from_str(name).is_ok();
        if is_type && !name.eq_ignore_ascii_case(usual) {
            self.request.headers.insert("Content-Type".to_owned(), text::literal(name));
        }
    }

    /// One input for the whole body.
    fn whole(&mut self, body: &Body<'a>, about: &str, kind: Option<&str>) -> String {
        let about = body
            .about
            .and_then(|text| text::plain(text, 300))
            .map_or_else(|| about.to_owned(), |text| format!("{} {about}", text::ended(&text)));
        let mut schema = json!({"description": about});
        if let Some(kind) = kind {
            schema["type"] = kind.into();
        }
        self.fields.add("body", schema, body.is_required)
    }

    fn json(&mut self, body: &Body<'a>) {
        self.says_type(body.name, "application/json");
        let view =
            self.reader.schemas.object(body.schema, Side::Input).filter(|view| view.more.is_none() && !body.is_whole);
        let Some(view) = view else {
            let mut schema = self.schema(body.schema, None, "body", false);
            let about = body.about.and_then(|text| text::plain(text, 300));
            if let (Some(about), Some(map)) = (about, schema.as_object_mut()) {
                map.entry("description").or_insert_with(|| about.into());
            }
            let input = self.fields.add("body", schema, body.is_required);
            self.request.json = Some(text::pill("input", &input).into());
            return;
        };
        let fields = self.each(&view);
        self.request.json = Some(Value::Object(fields));
    }

    /// An input for each field of an object; gives them as the template of its JSON.
    fn each(&mut self, view: &ObjectView<'a>) -> Map<String, Value> {
        let mut template = Map::new();
        for (name, schema) in &view.properties {
            let is_required = view.required.contains(name);
            let value = match self.constant(schema).filter(|_| is_required) {
                Some(constant) => match &*constant {
                    Value::String(constant) => text::literal(constant).into(),
                    constant => constant.clone(),
                },
                None => {
                    let schema = self.schema(schema, None, name, is_required);
                    let input = self.fields.add(name, schema, is_required);
                    text::pill("input", &input).into()
                }
            };
            template.insert((*name).to_owned(), value);
        }
        template
    }

    fn form(&mut self, body: &Body<'a>) {
        let Some(view) = self.reader.schemas.object(body.schema, Side::Input) else {
            let input = self.whole(body, "The form, encoded: a=1&b=2.", Some("string"));
            self.request.text = Some(text::pill("input", &input));
            self.request.headers.insert("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned());
            return;
        };
        self.note_more(&view);
        let mut form = IndexMap::new();
        for (name, value) in self.each(&view) {
            let Value::String(text) = value else {
                form.insert(name, text::of(&value).into());
                continue;
            };
            let encoding = body.media.get("encoding").and_then(|encoding| encoding.get(&name));
            let get = |field: &str| encoding.and_then(|encoding| encoding.get(field));
            let style = get("style").and_then(Value::as_str).unwrap_or("form");
            let is_json = get("contentType").and_then(Value::as_str).is_some_and(|name| Media::of(name) == Media::Json);
            let shape = view.properties.get(name.as_str()).map_or(Shape::Scalar, |schema| self.shape(schema));
            let (name, filter) = match (shape, style) {
                (Shape::Scalar, _) => (name, None),
                _ if is_json => (name, Some("json")),
                (Shape::List, "deepObject") if self.has_scalar_items(&view, &name) => (bracketed(&name), None),
                (Shape::List, _) => (name, joins(encoding)),
                _ => (name, None),
            };
            let text = match filter {
                Some(filter) => text.replace(" }}", &format!(" | {filter} }}}}")),
                None => text,
            };
            form.insert(name, text.into());
        }
        self.request.form = Some(form);
    }

    fn has_scalar_items(&self, view: &ObjectView<'a>, name: &str) -> bool {
        let schema = view.properties.get(name).and_then(|schema| self.reader.schemas.resolve(schema));
        schema.and_then(|schema| schema.get("items")).is_none_or(|items| self.shape(items) == Shape::Scalar)
    }

    fn multipart(&mut self, body: &Body<'a>) {
        let schemas = &self.reader.schemas;
        let view = schemas.object(body.schema, Side::Input).or_else(|| schemas.any_object(body.schema, Side::Input));
        let view = view.filter(|view| view.properties.len() <= limits::MULTIPART_PARTS);
        let Some(view) = view else {
            self.note("the parts of its body are not described; it has one, called `file`");
            let part = self.file("file", None, body.is_required);
            self.request.multipart = Some(vec![part]);
            return;
        };
        self.note_more(&view);
        let mut parts = Vec::new();
        for (name, schema) in &view.properties {
            let is_required = view.required.contains(name);
            let resolved = self.reader.schemas.resolve(schema).unwrap_or(&ANYTHING);
            let items = resolved.get("items").and_then(|items| self.reader.schemas.resolve(items));
            if is_binary(resolved) || items.is_some_and(is_binary) {
                let about = resolved.get("description").and_then(Value::as_str);
                let file = self.file(name, about, is_required);
                parts.push(match file.raw {
                    Some(RawSpec::Pill(pill)) if items.is_some() => PartSpec { raw: None, each: Some(pill), ..file },
                    raw => PartSpec { raw, ..file },
                });
                continue;
            }
            let encoding = body.media.get("encoding").and_then(|encoding| encoding.get(*name));
            let content_type = encoding.and_then(|encoding| encoding.get("contentType")?.as_str());
            let is_json_said = content_type.is_some_and(|name| Media::of(name) == Media::Json);
            let content_type =
                content_type.filter(|text| !text.contains([',', '*']) && http::HeaderValue::from_str(text).is_ok());
            let schema_written = self.schema(schema, None, name, is_required);
            let input = self.fields.add(name, schema_written, is_required);
            let pill = text::pill("input", &input);
            let mut part = part(name);
            part.content_type = content_type.map(text::literal);
            match (self.shape(schema), joins(encoding)) {
                (Shape::Scalar, _) => part.text = Some(pill),
                (Shape::List, Some(filter)) => part.text = Some(text::filtered_pill("input", &input, filter)),
                // A part for each item (OpenAPI 3.0.3, special considerations for multipart content).
                (Shape::List, None) if !is_json_said => part.each = Some(pill),
                (Shape::List | Shape::Object, _) => part.json = Some(pill.into()),
            }
            parts.push(part);
        }
        self.request.multipart = Some(parts);
    }

    /// A part that is a file, and the inputs for its bytes and its name.
    fn file(&mut self, name: &str, about: Option<&str>, is_required: bool) -> PartSpec {
        let about = about.and_then(|text| text::plain(text, 200)).unwrap_or_else(|| "The file.".to_owned());
        let schema = json!({"description": format!("{} Its bytes: a text, or {{base64: …}}.", text::ended(&about))});
        let input = self.fields.add(name, schema, is_required);
        let schema = json!({"type": "string", "description": format!("What the file `{}` is called. Left out: file", text::line(name, 60).unwrap_or_default())});
        let filename = self.fields.add(&format!("{name}_name"), schema, false);
        PartSpec {
            filename: Some(text::filtered_pill("input", &filename, "default('file')")),
            raw: Some(RawSpec::Pill(text::pill("input", &input))),
            ..part(name)
        }
    }
}

/// The body of an operation.
struct Body<'a> {
    /// Its media type.
    name: &'a str,
    schema: &'a Value,
    media: &'a Value,
    is_required: bool,
    /// It is one input, whatever its schema says.
    is_whole: bool,
    about: Option<&'a str>,
}

/// Longest name of a media type that is looked at, in bytes.
const NAME_BYTES: usize = 200;
/// How many media types of one body and answers of one operation are looked at: operations may share them.
pub(super) const MEDIA_MAX: usize = 50;

/// What a media type is for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::import) enum Media {
    Json,
    Form,
    Multipart,
    Xml,
    Text,
    Bytes,
}

impl Media {
    pub(in crate::import) fn of(name: &str) -> Self {
        if name.len() > NAME_BYTES {
            return Self::Bytes;
        }
        let essence = name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "*/*" | "application/*" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            _ if essence.starts_with("multipart/") => Self::Multipart,
            // Several values, a line each, are a text.
            _ if essence.contains("ndjson") || essence.contains("jsonl") || essence.contains("json-seq") => Self::Text,
            _ if essence.ends_with("json") => Self::Json,
            _ if essence.ends_with("/xml") || essence.ends_with("+xml") => Self::Xml,
            _ if essence.starts_with("text/") || essence.contains("yaml") => Self::Text,
            _ => Self::Bytes,
        }
    }

    /// The media type that a body is sent as: JSON where there is a choice.
    fn pick(content: &Map<String, Value>) -> Option<(&str, &Value)> {
        let all = [Self::Json, Self::Form, Self::Multipart, Self::Xml, Self::Text, Self::Bytes];
        let content = || content.iter().take(MEDIA_MAX);
        let of = |wanted: Self| content().find(|(name, _)| Self::of(name) == wanted && !name.contains('*'));
        let found = all.into_iter().find_map(of).or_else(|| content().next());
        found.map(|(name, media)| (name.as_str(), media))
    }
}

/// Whether a value is bytes.
fn is_binary(schema: &Value) -> bool {
    let is = |field: &str, values: &[&str]| {
        schema.get(field).and_then(Value::as_str).is_some_and(|value| values.contains(&value))
    };
    is("format", &["binary", "base64"])
        || is("type", &["file"])
        || is("contentMediaType", &["application/octet-stream"])
}

fn part(name: &str) -> PartSpec {
    PartSpec {
        name: text::literal(name),
        filename: None,
        content_type: None,
        text: None,
        json: None,
        raw: None,
        each: None,
    }
}
