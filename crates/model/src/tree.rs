//! Bodies as trees of values: JSON, XML, forms and query strings.
//!
//! Numbers keep their text. Depth and number of values are counted before anything is built, because the
//! tree of a small hostile body can take a hundred times its size.

use serde_json::{Map, Value};

use crate::endpoint::Format;
use crate::limits;
use crate::xml;

/// Why bytes have no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// Not XML.
    #[error("not XML: {0}")]
    NotXml(String),
    /// Brackets within brackets beyond [`limits::TREE_DEPTH`].
    #[error("deeper than {} levels", limits::TREE_DEPTH)]
    TooDeep,
    /// More values than [`limits::TREE_NODES`].
    #[error("more than {} values", limits::TREE_NODES)]
    TooLarge,
}

/// Checks that JSON stays within the limits of a tree, whether or not it is well-formed.
///
/// # Errors
/// [`TreeError::TooDeep`] or [`TreeError::TooLarge`].
pub fn measure(json: &[u8]) -> Result<(), TreeError> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let mut left = json;
    while let [byte, rest @ ..] = left {
        left = rest;
        match byte {
            b'"' => left = after_string(left),
            b'[' | b'{' => {
                depth += 1;
                values += 1;
                if depth > limits::TREE_DEPTH {
                    return Err(TreeError::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if values > limits::TREE_NODES {
            return Err(TreeError::TooLarge);
        }
    }
    Ok(())
}

/// What follows a string whose opening quote was read.
fn after_string(mut json: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', json) {
        let is_end = json[at] == b'"';
        json = json.get(at + if is_end { 1 } else { 2 }..).unwrap_or_default();
        if is_end {
            return json;
        }
    }
    &[]
}

/// Reads JSON (RFC 8259); a byte order mark is skipped, of a repeated key the last value counts.
///
/// # Errors
/// When it is not JSON, too deep or too large.
pub fn parse_json(bytes: &[u8]) -> Result<Value, TreeError> {
    let text = std::str::from_utf8(without_bom(bytes))
        .map_err(|error| TreeError::NotJson(format!("not UTF-8 from byte {} on", error.valid_up_to())))?;
    json_text(text)
}

/// Reads JSON that is text already.
pub(crate) fn json_text(text: &str) -> Result<Value, TreeError> {
    measure(text.as_bytes())?;
    serde_json::from_str(text).map_err(|error| TreeError::NotJson(error.to_string()))
}

/// The same bytes without a UTF-8 byte order mark.
pub(crate) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Reads `application/x-www-form-urlencoded`: an object of texts; a repeated key gives a list of its texts.
#[must_use]
pub fn parse_form(bytes: &[u8]) -> Value {
    let mut map = Map::new();
    for (key, text) in url::form_urlencoded::parse(bytes).take(limits::TREE_NODES) {
        let text = Value::String(text.into_owned());
        match map.get_mut(key.as_ref()) {
            None => {
                map.insert(key.into_owned(), text);
            }
            Some(Value::Array(texts)) => texts.push(text),
            Some(first) => *first = Value::Array(vec![first.take(), text]),
        }
    }
    Value::Object(map)
}

/// Reads a query string, without its question mark, as [`parse_form`] does.
#[must_use]
pub fn parse_query(query: &str) -> Value {
    parse_form(query.as_bytes())
}

/// An event's body as pills see it; an empty one is null.
///
/// By the endpoint's declared format. Without one JSON where it is an object or a list, whatever the content
/// type says (many senders say nothing or something else); then a form where the content type says so; then
/// text; then `{"base64": …}`.
///
/// # Errors
/// Why there is no parsed view: not of the declared format, too deep, too large.
pub fn event_body(format: Option<Format>, content_type: Option<&str>, body: &[u8]) -> Result<Value, TreeError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    match format {
        Some(Format::Json) => parse_json(body),
        Some(Format::Xml) => xml::read(content_type, body),
        Some(Format::Form) => Ok(parse_form(body)),
        Some(Format::Bytes) => Ok(base64(body)),
        Some(Format::Text | Format::Query) => Ok(text(body)),
        None => {
            if matches!(without_bom(body).trim_ascii_start().first(), Some(b'{' | b'[')) {
                match parse_json(body) {
                    Err(TreeError::NotJson(_)) => {}
                    parsed => return parsed,
                }
            }
            let is_form = content_type.is_some_and(|content_type| {
                let essence = content_type.split(';').next().unwrap_or_default().trim();
                essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
            });
            Ok(if is_form { parse_form(body) } else { text(body) })
        }
    }
}

fn text(body: &[u8]) -> Value {
    std::str::from_utf8(body).map_or_else(|_| base64(body), Value::from)
}

/// Bytes as data: `{"base64": …}`.
pub(crate) fn base64(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    serde_json::json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn keeps_numbers_as_written() {
        let text = r#"{"a":12345678901234567890123,"b":1.10,"c":-0,"d":1e400}"#;
        assert_eq!(parse_json(text.as_bytes()).unwrap().to_string(), text.replace("1e400", "1e+400"));
        assert_eq!(parse_json(b"\xef\xbb\xbf[]").unwrap(), json!([]));
    }

    #[test]
    fn refuses_what_is_too_deep_or_too_large_before_building_it() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(parse_json(deep(64).as_bytes()).is_ok());
        assert_eq!(parse_json(deep(65).as_bytes()), Err(TreeError::TooDeep));
        assert_eq!(parse_json("[".repeat(1 << 20).as_bytes()), Err(TreeError::TooDeep));
        let wide = |n: usize| format!("[0{}]", ",0".repeat(n - 1));
        assert!(parse_json(wide(199_998).as_bytes()).is_ok());
        assert_eq!(parse_json(wide(200_000).as_bytes()), Err(TreeError::TooLarge));
        assert!(parse_json(br#"["[[[[\"[[[",",,,,"]"#).is_ok());
        assert!(matches!(parse_json(b"{\"a\":}"), Err(TreeError::NotJson(_))));
        assert!(matches!(parse_json(b"\"\xff\""), Err(TreeError::NotJson(_))));
        assert!(matches!(parse_json(b""), Err(TreeError::NotJson(_))));
    }

    #[test]
    fn reads_forms_and_queries() {
        assert_eq!(parse_form(b"a=1&b=x+y%26&a=2&a=3&c"), json!({"a": ["1", "2", "3"], "b": "x y&", "c": ""}));
        assert_eq!(parse_query(""), json!({}));
    }

    #[test]
    fn shows_bodies_as_what_they_are() {
        let form = Some("application/x-www-form-urlencoded; charset=utf-8");
        for (format, content_type, body, expected) in [
            (None, None, &b""[..], json!(null)),
            (None, form, b" {\"a\": 1}", json!({"a": 1})),
            (None, form, b"a=1", json!({"a": "1"})),
            (None, None, b"a=1", json!("a=1")),
            (None, None, b"{no", json!("{no")),
            (None, None, b"\xff", json!({"base64": "/w=="})),
            (Some(Format::Json), form, b"1", json!(1)),
            (Some(Format::Text), None, b"{}", json!("{}")),
            (Some(Format::Xml), None, b"<a>1</a>", json!({"a": "1"})),
            (Some(Format::Xml), Some("text/xml; charset=latin1"), b"<a>\xe9</a>", json!({"a": "é"})),
            (None, None, b"<a>1</a>", json!("<a>1</a>")),
            (Some(Format::Bytes), None, b"a", json!({"base64": "YQ=="})),
        ] {
            assert_eq!(event_body(format, content_type, body).unwrap(), expected, "{format:?} {body:?}");
        }
        assert!(event_body(Some(Format::Json), None, b"{no").is_err());
        assert_eq!(event_body(None, None, "[".repeat(99).as_bytes()), Err(TreeError::TooDeep));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse_json(&bytes));
            drop(parse_form(&bytes));
        }
    }
}
