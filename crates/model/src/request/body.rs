//! Bodies of requests: read from documents, and made of data. The same data gives the same bytes.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use serde_json::Value;

use super::fields::{Fields, Written};
use super::multipart::{self, Part};
use super::render::RenderFault;
use super::step::{PartSpec, RawSpec, RequestStep};
use crate::charset;
use crate::limits;
use crate::reader::Reader;
use crate::template::{self, Scope, Template};
use crate::xml;

#[derive(Debug)]
pub(super) enum Body {
    None,
    Json(JsonTemplate),
    Form(Fields),
    Multipart(Vec<PartTemplate>),
    Xml(XmlTemplate),
    Text(Template),
    Raw(RawTemplate),
}

/// A JSON value whose texts are templates; its keys are literal.
#[derive(Debug)]
pub(crate) enum JsonTemplate {
    Literal(Value),
    Text(Template),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

#[derive(Debug)]
pub(super) enum XmlTemplate {
    Tree(JsonTemplate),
    /// A document; pills are escaped, but for one that is the whole.
    Text(Template),
}

#[derive(Debug)]
pub(super) enum RawTemplate {
    /// One whole pill that holds bytes.
    Pill(Template),
    /// A text in base64.
    Base64(Template),
}

#[derive(Debug)]
pub(super) struct PartTemplate {
    name: Template,
    filename: Option<Template>,
    content_type: Option<Template>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Text(Template),
    Json(JsonTemplate),
    Raw(RawTemplate),
    /// A list, each item a part of its own.
    Each(Template),
}

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Body {
    pub(super) fn read(reader: &mut Reader, path: &str, request: &RequestStep) -> Self {
        let given = [
            request.json.is_some(),
            request.form.is_some(),
            request.multipart.is_some(),
            request.xml.is_some(),
            request.text.is_some(),
            request.raw.is_some(),
        ];
        if given.iter().filter(|is| **is).count() > 1 {
            reader.fault(path, "give one of json, form, multipart, xml, text and raw");
        }
        let read = if let Some(value) = &request.json {
            JsonTemplate::read(reader, &format!("{path}.json"), value).map(Self::Json)
        } else if let Some(given) = &request.form {
            Some(Self::Form(Fields::read(reader, &format!("{path}.form"), given)))
        } else if let Some(parts) = &request.multipart {
            Some(Self::Multipart(PartTemplate::read_all(reader, &format!("{path}.multipart"), parts)))
        } else if let Some(value) = &request.xml {
            XmlTemplate::read(reader, &format!("{path}.xml"), value).map(Self::Xml)
        } else if let Some(text) = &request.text {
            reader.template(&format!("{path}.text"), text).map(Self::Text)
        } else if let Some(raw) = &request.raw {
            RawTemplate::read(reader, &format!("{path}.raw"), raw).map(Self::Raw)
        } else {
            None
        };
        read.unwrap_or(Self::None)
    }

    /// The bytes, and what they are. A text is in the character set that the step's own content type declares (RFC 7303,
    /// section 3.2; RFC 9110, section 8.3.2), else in UTF-8.
    pub(super) fn render(
        &self,
        scope: &Scope,
        charset: Option<&str>,
    ) -> Result<(Vec<u8>, Option<HeaderValue>), RenderFault> {
        let known = |content_type| Some(HeaderValue::from_static(content_type));
        let encoded = |text: String| encoded(text, charset, CONTENT_TYPE_FIELD);
        match self {
            Self::None => Ok((Vec::new(), None)),
            body if body.is_absent(scope) => Ok((Vec::new(), None)),
            Self::Json(json) => Ok((encoded(json.render_whole("json", scope)?.to_string())?, known(multipart::JSON))),
            Self::Form(fields) => {
                let mut form = String::new();
                for (name, value) in fields.render("form", scope)? {
                    if !form.is_empty() {
                        form.push('&');
                    }
                    form.extend(url::form_urlencoded::byte_serialize(&encoded(name)?));
                    form.push('=');
                    match value {
                        Written::Text(text) => form.extend(url::form_urlencoded::byte_serialize(&encoded(text)?)),
                        // In another character set than UTF-8 the percent-encoding of the items is another, too.
                        Written::Joined(joined) if charset.is_none() => form.push_str(&joined.encoded()),
                        Written::Joined(joined) => {
                            form.extend(url::form_urlencoded::byte_serialize(&encoded(joined.text())?));
                        }
                    }
                }
                Ok((form.into_bytes(), known("application/x-www-form-urlencoded")))
            }
            Self::Multipart(parts) => {
                let parts = PartTemplate::render_all(parts, scope)?;
                let (body, content_type) = multipart::encode(&parts);
                Ok((body, Some(content_type)))
            }
            Self::Xml(xml) => {
                let text = xml.render(scope)?;
                let text = match charset {
                    Some(name) => declaring(&text, name),
                    None => text,
                };
                Ok((encoded(text)?, known("application/xml")))
            }
            Self::Text(template) => {
                let text = template.render_text(scope).map_err(|e| RenderFault::of("text", &e))?;
                Ok((encoded(text)?, known(multipart::TEXT)))
            }
            Self::Raw(raw) => Ok((raw.render("raw", scope)?, known(multipart::BYTES))),
        }
    }
}

/// The field whose character set a body is in.
const CONTENT_TYPE_FIELD: &str = "headers.Content-Type";

/// A text in a character set; without one in UTF-8.
fn encoded(text: String, charset: Option<&str>, field: &str) -> Result<Vec<u8>, RenderFault> {
    match charset {
        None => Ok(text.into_bytes()),
        Some(name) => {
            charset::encode(&text, name).map_err(|error| RenderFault::new(field, "request.body", error.to_string()))
        }
    }
}

/// A document that declares the character set that it is sent in, where it declares one.
fn declaring(text: &str, charset: &str) -> String {
    match text.split_once("?>") {
        Some((declaration, rest)) if declaration.starts_with("<?xml") => {
            let is_name = charset.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'));
            let lower = declaration.to_ascii_lowercase();
            match lower.find("utf-8").filter(|_| is_name) {
                Some(at) => format!("{}{charset}{}?>{rest}", &declaration[..at], &declaration[at + 5..]),
                None => text.to_owned(),
            }
        }
        _ => text.to_owned(),
    }
}

impl Body {
    fn is_absent(&self, scope: &Scope) -> bool {
        match self {
            Self::Json(json) | Self::Xml(XmlTemplate::Tree(json)) => json.is_absent(scope),
            Self::Xml(XmlTemplate::Text(template)) | Self::Text(template) => template.is_absent(scope),
            Self::Raw(raw) => raw.is_absent(scope),
            Self::None | Self::Form(_) | Self::Multipart(_) => false,
        }
    }
}

impl JsonTemplate {
    pub(crate) fn read(reader: &mut Reader, path: &str, value: &Value) -> Option<Self> {
        Some(match value {
            Value::String(text) => {
                let template = reader.template(path, text)?;
                match template.as_literal() {
                    Some(_) => Self::Literal(value.clone()),
                    None => Self::Text(template),
                }
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                Self::List(items.filter_map(|(n, item)| Self::read(reader, &format!("{path}[{n}]"), item)).collect())
            }
            Value::Object(map) => {
                let fields = map.iter();
                let read = fields
                    .filter_map(|(key, item)| Some((key.clone(), Self::read(reader, &format!("{path}.{key}"), item)?)));
                Self::Object(read.collect())
            }
            scalar => Self::Literal(scalar.clone()),
        })
    }

    pub(super) fn is_absent(&self, scope: &Scope) -> bool {
        matches!(self, Self::Text(template) if template.is_absent(scope))
    }

    pub(crate) fn render_whole(&self, field: &str, scope: &Scope) -> Result<Value, RenderFault> {
        let mut room = usize::try_from(limits::BODY_MAX_BYTES).unwrap_or(usize::MAX);
        self.render(field, scope, &mut room)
    }

    /// The value; `room` is how much memory values of pills may still take, together.
    fn render(&self, field: &str, scope: &Scope, room: &mut usize) -> Result<Value, RenderFault> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Text(template) => {
                let value = template.render_value(scope).map_err(|e| RenderFault::of(field, &e))?;
                *room = room.checked_sub(template::weight(&value, *room)).ok_or_else(|| too_large(field))?;
                Ok(value)
            }
            Self::List(items) => {
                let given = items.iter().enumerate().filter(|(_, item)| !item.is_absent(scope));
                given.map(|(n, item)| item.render(&format!("{field}[{n}]"), scope, room)).collect()
            }
            Self::Object(fields) => fields
                .iter()
                .filter(|(_, item)| !item.is_absent(scope))
                .map(|(key, item)| Ok((key.clone(), item.render(&format!("{field}.{key}"), scope, room)?)))
                .collect::<Result<serde_json::Map<_, _>, _>>()
                .map(Value::Object),
        }
    }

    /// The value with every pill an empty text, when that says something about its shape.
    fn skeleton(&self) -> Option<Value> {
        Some(match self {
            Self::Literal(value) => value.clone(),
            Self::Text(_) => Value::from(""),
            Self::List(items) => items.iter().map(Self::skeleton).collect::<Option<Value>>()?,
            // How often a name is to be there, a pill may decide.
            Self::Object(fields) if fields.iter().any(|(key, _)| key == "#order") => return None,
            Self::Object(fields) => {
                let fields = fields.iter().map(|(key, item)| Some((key.clone(), item.skeleton()?)));
                Value::Object(fields.collect::<Option<_>>()?)
            }
        })
    }
}

impl XmlTemplate {
    fn read(reader: &mut Reader, path: &str, value: &Value) -> Option<Self> {
        if let Value::String(text) = value {
            let template = reader.template(path, text)?;
            if let Some(Err(error)) = template.as_literal().map(xml::check_sent) {
                reader.fault(path, error);
            }
            return Some(Self::Text(template));
        }
        let tree = JsonTemplate::read(reader, path, value)?;
        if let Some(Err(error)) = tree.skeleton().map(|skeleton| xml::write(&skeleton)) {
            reader.fault(path, error);
        }
        Some(Self::Tree(tree))
    }

    fn render(&self, scope: &Scope) -> Result<String, RenderFault> {
        let fail = |reason: String| RenderFault::new("xml", "request.body", reason);
        let written = |tree: &Value| xml::write(tree).map_err(|error| fail(error.to_string()));
        let text = match self {
            Self::Tree(tree) => return written(&tree.render_whole("xml", scope)?),
            // As it comes, like a URL that is one whole pill: there is no text of ours that it could leave.
            Self::Text(template) if template.is_whole_pill() => {
                match template.render_value(scope).map_err(|e| RenderFault::of("xml", &e))? {
                    Value::String(text) => text,
                    tree => return written(&tree),
                }
            }
            Self::Text(template) => {
                template.render_escaped(scope, xml::escape).map_err(|e| RenderFault::of("xml", &e))?
            }
        };
        xml::check_sent(&text).map_err(|error| fail(error.to_string()))?;
        Ok(text)
    }
}

impl RawTemplate {
    fn is_absent(&self, scope: &Scope) -> bool {
        let (Self::Pill(template) | Self::Base64(template)) = self;
        template.is_absent(scope)
    }

    fn read(reader: &mut Reader, path: &str, raw: &RawSpec) -> Option<Self> {
        match raw {
            RawSpec::Pill(text) => {
                let template = reader.template(path, text)?;
                if !template.is_whole_pill() {
                    reader.fault(
                        path,
                        "raw is one whole pill that holds bytes, or {base64: …}; a text belongs into text",
                    );
                }
                Some(Self::Pill(template))
            }
            RawSpec::Base64(given) => {
                let path = format!("{path}.base64");
                let template = reader.template(&path, &given.base64)?;
                if let Some(Err(reason)) = template.as_literal().map(decoded) {
                    reader.fault(&path, reason);
                }
                Some(Self::Base64(template))
            }
        }
    }

    fn render(&self, field: &str, scope: &Scope) -> Result<Vec<u8>, RenderFault> {
        let (field, template) = match self {
            Self::Pill(template) => (field.to_owned(), template),
            Self::Base64(template) => (format!("{field}.base64"), template),
        };
        let value = template.render_value(scope).map_err(|e| RenderFault::of(&field, &e))?;
        let bytes = match (self, &value) {
            (_, Value::Null) => Ok(Vec::new()),
            (Self::Base64(_), Value::String(text)) => decoded(text),
            (Self::Base64(_), _) => Err("a text in base64 belongs here".to_owned()),
            (Self::Pill(_), Value::String(text)) => Ok(text.clone().into_bytes()),
            (Self::Pill(_), value) => match bytes_in(value) {
                Some(text) => decoded(text),
                None => Err("this pill holds no bytes; read the answer with `response: raw`".to_owned()),
            },
        };
        bytes.map_err(|reason| RenderFault::new(field, "request.body", reason))
    }
}

/// The base64 of a value that is bytes: `{"base64": …}`.
fn bytes_in(value: &Value) -> Option<&str> {
    value.as_object().filter(|map| map.len() == 1)?.get("base64")?.as_str()
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let is_broken = text.contains(|c: char| c.is_ascii_whitespace());
    let joined = is_broken.then(|| text.split_ascii_whitespace().collect::<String>());
    BASE64.decode(joined.as_deref().unwrap_or(text)).map_err(|error| format!("not base64: {error}"))
}

impl PartTemplate {
    fn read_all(reader: &mut Reader, path: &str, parts: &[PartSpec]) -> Vec<Self> {
        if parts.is_empty() || parts.len() > limits::MULTIPART_PARTS {
            reader.fault(path, format_args!("a multipart body has 1 to {} parts", limits::MULTIPART_PARTS));
        }
        let parts = parts.iter().enumerate();
        parts.filter_map(|(n, part)| Self::read(reader, &format!("{path}[{n}]"), part)).collect()
    }

    fn read(reader: &mut Reader, path: &str, part: &PartSpec) -> Option<Self> {
        let name = reader.template(&format!("{path}.name"), &part.name);
        let mut optional = |field: &str, text: &Option<String>| {
            text.as_ref().and_then(|text| reader.template(&format!("{path}.{field}"), text))
        };
        let filename = optional("filename", &part.filename);
        let content_type = optional("content_type", &part.content_type);
        if let Some(text) = content_type.as_ref().and_then(Template::as_literal)
            && HeaderValue::from_str(text).is_err()
        {
            reader.fault(
                &format!("{path}.content_type"),
                "a content type holds no line breaks or other control characters",
            );
        }
        let content = match (&part.text, &part.json, &part.raw, &part.each) {
            (Some(text), None, None, None) => reader.template(&format!("{path}.text"), text).map(Content::Text),
            (None, Some(value), None, None) => {
                JsonTemplate::read(reader, &format!("{path}.json"), value).map(Content::Json)
            }
            (None, None, Some(raw), None) => RawTemplate::read(reader, &format!("{path}.raw"), raw).map(Content::Raw),
            (None, None, None, Some(text)) => {
                let path = format!("{path}.each");
                let template = reader.template(&path, text);
                if template.as_ref().is_some_and(|template| !template.is_whole_pill()) {
                    reader.fault(&path, "each is one whole pill that holds a list");
                }
                template.map(Content::Each)
            }
            _ => {
                reader.fault(path, "a part has one of text, json, raw and each");
                None
            }
        };
        Some(Self { name: name?, filename, content_type, content: content? })
    }

    fn render_all(parts: &[Self], scope: &Scope) -> Result<Vec<Part>, RenderFault> {
        let mut room = usize::try_from(limits::BODY_MAX_BYTES).unwrap_or(usize::MAX);
        let mut rendered = Vec::with_capacity(parts.len());
        for (n, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_absent(scope)) {
            let field = format!("multipart[{n}]");
            for part in part.render(&field, scope)? {
                room = room.checked_sub(part.content.len()).ok_or_else(|| too_large(&*field))?;
                rendered.push(part);
            }
            if rendered.len() > limits::MULTIPART_PARTS {
                let reason = format!("a multipart body has at most {} parts", limits::MULTIPART_PARTS);
                return Err(RenderFault::new(field, "request.too_large", reason));
            }
        }
        Ok(rendered)
    }

    fn is_absent(&self, scope: &Scope) -> bool {
        match &self.content {
            Content::Text(template) => template.is_absent(scope),
            Content::Json(json) => json.is_absent(scope),
            Content::Raw(raw) => raw.is_absent(scope),
            Content::Each(template) => template.is_absent(scope),
        }
    }

    /// The part, or the parts of a list.
    fn render(&self, field: &str, scope: &Scope) -> Result<Vec<Part>, RenderFault> {
        let text = |name: &str, template: &Template| {
            template.render_text(scope).map_err(|e| RenderFault::of(format!("{field}.{name}"), &e))
        };
        let filename = self.filename.as_ref().map(|template| text("filename", template)).transpose()?;
        let content_type = match &self.content_type {
            Some(template) => {
                let rendered = template.render_header(scope);
                Some(rendered.map_err(|e| RenderFault::of(format!("{field}.content_type"), &e))?)
            }
            None => None,
        };
        let charset = charset::declared(content_type.as_ref().and_then(|value| value.to_str().ok()));
        let encoded = |text: String| encoded(text, charset, &format!("{field}.content_type"));
        // Fields say no type: they are text in UTF-8 (RFC 7578, section 5.1.2).
        let usual_text = filename.is_some().then_some(multipart::TEXT);
        let contents = match &self.content {
            Content::Text(template) => vec![(encoded(text("text", template)?)?, usual_text)],
            Content::Json(json) => {
                let value = json.render_whole(&format!("{field}.json"), scope)?;
                vec![(encoded(value.to_string())?, Some(multipart::JSON))]
            }
            Content::Raw(raw) => vec![(raw.render(&format!("{field}.raw"), scope)?, Some(multipart::BYTES))],
            Content::Each(template) => {
                let field = format!("{field}.each");
                let items = match template.render_value(scope).map_err(|e| RenderFault::of(&field, &e))? {
                    Value::Array(items) => items,
                    Value::Null => Vec::new(),
                    one => vec![one],
                };
                let content = |item: Value| match bytes_in(&item) {
                    Some(text) => {
                        let bytes =
                            decoded(text).map_err(|reason| RenderFault::new(&*field, "request.body", reason))?;
                        Ok((bytes, Some(multipart::BYTES)))
                    }
                    None if item.is_object() || item.is_array() => {
                        Ok((encoded(item.to_string())?, Some(multipart::JSON)))
                    }
                    None => Ok((encoded(template::text_of(&item).into_owned())?, usual_text)),
                };
                // One more than there can be, which is said then.
                items.into_iter().take(limits::MULTIPART_PARTS + 1).map(content).collect::<Result<_, RenderFault>>()?
            }
        };
        let name = text("name", &self.name)?;
        let part = |(content, usual): (Vec<u8>, Option<&'static str>)| Part {
            name: name.clone(),
            filename: filename.clone(),
            content_type: content_type.clone().or_else(|| usual.map(HeaderValue::from_static)),
            content,
        };
        Ok(contents.into_iter().map(part).collect())
    }
}

fn too_large(field: impl Into<String>) -> RenderFault {
    RenderFault::new(field, "request.too_large", "the body would take more than 64 MiB")
}
