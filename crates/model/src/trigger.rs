//! What a recipe sees of the event that started it: the root `trigger` of pills.

use std::sync::Arc;

use serde_json::Value;

use crate::endpoint::Format;
use crate::event::Event;
use crate::template::{Scope, headers_value};
use crate::tree;

/// The scope of an event: `trigger.id`, `received_at`, `method`, `event_name`, `headers`, `query`, `body`. The
/// body is parsed when a pill first asks for it; when it has no parsed view, that pill's error says why.
#[must_use]
pub fn scope(event: &Event, format: Option<Format>) -> Scope {
    let head = &event.head;
    let headers = headers_value(head.headers.iter().map(|(name, value)| (name.as_str(), value.to_text())));
    let query = head.query.as_deref().map_or_else(|| Value::Object(serde_json::Map::new()), tree::parse_query);
    let shape = shape(event, format);
    let body = event.body.clone();
    Scope::new()
        .with("trigger.id", Value::from(event.id.to_string()))
        .with("trigger.received_at", Value::from(event.received_at.to_string()))
        .with("trigger.method", Value::from(head.method.clone()))
        .with("trigger.event_name", head.event_name.clone().map_or(Value::Null, Value::from))
        .with_headers("trigger.headers", headers)
        .with("trigger.query", query)
        .with_lazy("trigger.body", move || parse(shape, &body).map(Arc::new))
}

/// What a body is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    JsonOrText,
    Form,
    Text,
    None,
}

/// The endpoint's word holds; without one the content type's, and JSON is tried where nothing speaks against it.
fn shape(event: &Event, format: Option<Format>) -> Shape {
    match format {
        Some(Format::Json) => return Shape::Json,
        Some(Format::Form) => return Shape::Form,
        Some(Format::Text) => return Shape::Text,
        Some(Format::Bytes | Format::Query) => return Shape::None,
        None => {}
    }
    let content_type = event.head.header("content-type").map(|value| value.to_text().to_ascii_lowercase());
    let media_type = content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match media_type {
        "application/json" => Shape::Json,
        "application/x-www-form-urlencoded" => Shape::Form,
        other if other.ends_with("+json") => Shape::Json,
        _ => Shape::JsonOrText,
    }
}

fn parse(shape: Shape, body: &[u8]) -> Result<Value, String> {
    let text = || String::from_utf8(body.to_vec()).map_or(Value::Null, Value::from);
    match shape {
        Shape::Json => tree::parse_json(body).map_err(|error| format!("the body has no parsed view: {error}")),
        Shape::JsonOrText => Ok(tree::parse_json(body).unwrap_or_else(|_| text())),
        Shape::Form => Ok(tree::parse_form(body)),
        Shape::Text => Ok(text()),
        Shape::None => Ok(Value::Null),
    }
}
