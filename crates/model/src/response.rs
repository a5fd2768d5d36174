//! Answers as data: what pills see under `steps.ID.body`.
//!
//! A format that the step names is strict; without one the answer's own word counts, then what it looks like,
//! and what is neither is text, or bytes. Numbers keep their text.

use std::borrow::Cow;

use serde_json::Value;

use crate::charset::{self, CharsetError};
use crate::request::ResponseFormat;
use crate::tree::{self, TreeError};
use crate::xml;

/// Why an answer is not what the step wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The step wants JSON.
    #[error("the answer is {0}; set `response` to text or raw when it need not be JSON")]
    Json(TreeError),
    /// The step wants XML.
    #[error("the answer is {0}; set `response` to text or raw when it need not be XML")]
    Xml(TreeError),
    /// The step wants text, and the bytes are none in their character set.
    #[error("the answer is no text: {0}; set `response` to raw for bytes")]
    Text(#[from] CharsetError),
    /// The step wants more than bytes, and the answer has a content coding that is not undone.
    #[error("the answer is packed as `{0}`, which is not known; set `response` to raw for its bytes")]
    Packed(String),
}

impl ReadError {
    /// Dotted slug.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "response.not_json",
            Self::Xml(_) => "response.not_xml",
            Self::Text(_) => "response.not_text",
            Self::Packed(_) => "response.packed",
        }
    }
}

/// An answer as it came, but unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status code.
    pub status: u16,
    /// Its content type.
    pub content_type: Option<&'a str>,
    /// Its content coding, when that was not undone.
    pub packed: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
}

/// Reads an answer; an empty one is null in every format, and so is one whose status says that nothing comes:
/// 204, 205 and 304 (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
///
/// # Errors
/// When `format` is given and the body is not of it.
pub fn read(format: Option<ResponseFormat>, answer: Answer<'_>) -> Result<Value, ReadError> {
    let Answer { status, content_type, packed, body } = answer;
    if body.is_empty() || matches!(status, 204 | 205 | 304) {
        return Ok(Value::Null);
    }
    match (format, packed) {
        (Some(ResponseFormat::Raw), _) | (None, Some(_)) => Ok(tree::base64(body)),
        (_, Some(packed)) => Err(ReadError::Packed(packed.to_owned())),
        (Some(ResponseFormat::Json), None) => json(content_type, body).map_err(ReadError::Json),
        (Some(ResponseFormat::Xml), None) => xml::read(content_type, body).map_err(ReadError::Xml),
        (Some(ResponseFormat::Text), None) => Ok(text(content_type, body)?.into_owned().into()),
        (None, None) => Ok(unasked(content_type, body)),
    }
}

/// The body itself, where it is the JSON text of what was read from it: a list or an object.
#[must_use]
pub fn json_text<'a>(format: Option<ResponseFormat>, answer: Answer<'a>, read: &Value) -> Option<&'a str> {
    let may_be_json = match format {
        Some(format) => format == ResponseFormat::Json,
        // What was not known as JSON gave a text, or bytes where it is no text.
        None => answer.packed.is_none() && is_said_json(answer.content_type, answer.body),
    };
    if !may_be_json || !(read.is_object() || read.is_array()) {
        return None;
    }
    let text = std::str::from_utf8(answer.body).ok()?.trim_ascii();
    // Others could not read the half of a pair.
    let is_readable = !tree::has_lone_surrogate(text.as_bytes());
    (text.starts_with(['{', '[']) && is_readable).then_some(text)
}

/// By the answer's own word, else by its looks: JSON or XML where it is, else text where it can be, else bytes.
fn unasked(content_type: Option<&str>, body: &[u8]) -> Value {
    let essence = content_type.map(charset::essence).unwrap_or_default();
    if is_said_json(content_type, body)
        && let Ok(value) = json(content_type, body)
    {
        return value;
    }
    if (is_xml(&essence) || essence.is_empty() && looks_like_xml(body))
        && let Ok(tree) = xml::read(content_type, body)
    {
        return tree;
    }
    let binary = ["image/", "audio/", "video/", "font/"].iter().any(|kind| essence.starts_with(kind))
        || matches!(essence.as_str(), "application/octet-stream" | "application/pdf" | "application/zip");
    match text(content_type, body) {
        Ok(text) if !binary || essence == "image/svg+xml" => Value::String(text.into_owned()),
        _ => tree::base64(body),
    }
}

/// Whether it is JSON by its own word, or by its looks where it says nothing.
fn is_said_json(content_type: Option<&str>, body: &[u8]) -> bool {
    let essence = content_type.map(charset::essence).unwrap_or_default();
    is_json(&essence) || essence.is_empty() && tree::looks_like_json(body)
}

fn is_json(essence: &str) -> bool {
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// A picture in XML is rather handed on than looked into.
fn is_xml(essence: &str) -> bool {
    matches!(essence, "application/xml" | "text/xml") || essence.ends_with("+xml") && !essence.starts_with("image/")
}

/// Whether it begins with an XML declaration.
fn looks_like_xml(body: &[u8]) -> bool {
    tree::without_bom(body).starts_with(b"<?xml")
}

fn json(content_type: Option<&str>, body: &[u8]) -> Result<Value, TreeError> {
    tree::json_text(&tree::text_of_json(content_type, body)?)
}

fn text<'a>(content_type: Option<&str>, body: &'a [u8]) -> Result<Cow<'a, str>, CharsetError> {
    charset::decode(body, charset::declared(content_type))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(format: Option<ResponseFormat>, content_type: Option<&str>, body: &[u8]) -> Result<Value, ReadError> {
        read(format, Answer { status: 200, content_type, packed: None, body })
    }

    fn auto(content_type: &str, body: &[u8]) -> Value {
        of(None, Some(content_type).filter(|word| !word.is_empty()), body).unwrap()
    }

    #[test]
    fn takes_the_answer_at_its_word() {
        for (content_type, body, expected) in [
            ("application/json", &b"{\"a\":1}"[..], json!({"a": 1})),
            ("application/problem+json; charset=utf-8", b"[]", json!([])),
            ("Application/JSON", b"\xef\xbb\xbf1", json!(1)),
            ("application/json", b"<html>", json!("<html>")),
            ("text/plain", b"{\"a\":1}", json!("{\"a\":1}")),
            ("text/plain; Charset=\"ISO-8859-1\"", b"caf\xe9", json!("café")),
            ("text/plain; charset=utf-8", b"caf\xe9", json!({"base64": "Y2Fm6Q=="})),
            ("text/plain; charset=shift_jis", b"\x82\xa0", json!("あ")),
            ("text/plain; charset=klingon", b"a", json!({"base64": "YQ=="})),
            ("text/csv", b"\xff\xfea\0;\0", json!("a;")),
            ("application/json; charset=iso-8859-1", b"\"caf\xe9\"", json!("café")),
            ("application/json; charset=iso-8859-1", "\"café\"".as_bytes(), json!("café")),
            ("application/json", b"\xff\xfe7\0", json!(7)),
            ("application/json", br#"{"a":"\ud83d","b":1}"#, json!({"a": r#""\ud83d""#, "b": 1})),
            ("application/json", b"\"\xff\"", json!({"base64": "Iv8i"})),
            ("", b" [1]", json!([1])),
            ("", b"[1", json!("[1")),
            ("", b"text", json!("text")),
            ("", b"\xff", json!({"base64": "/w=="})),
            ("image/png", b"png", json!({"base64": "cG5n"})),
            ("image/svg+xml", b"<svg/>", json!("<svg/>")),
            ("text/xml; charset=latin1", b"<a>\xe9</a>", json!({"a": "é"})),
            ("application/soap+xml", b"<a b='1'/>", json!({"a": {"@b": "1"}})),
            ("application/xml", b"<a>", json!("<a>")),
            ("", b"<?xml version='1.0'?><a/>", json!({"a": ""})),
            ("", b"<html></html>", json!("<html></html>")),
            ("application/json", b"", json!(null)),
        ] {
            assert_eq!(auto(content_type, body), expected, "{content_type} {body:?}");
        }
        assert_eq!(
            auto("application/json", b"[1.10,12345678901234567890123]").to_string(),
            "[1.10,12345678901234567890123]"
        );
    }

    #[test]
    fn is_strict_where_the_step_names_a_format() {
        let json = |body: &[u8]| of(Some(ResponseFormat::Json), Some("text/plain"), body);
        assert_eq!(json(b"{}").unwrap(), json!({}));
        assert_eq!(json(b"").unwrap(), Value::Null);
        assert_eq!(json(b"<html>").unwrap_err().code(), "response.not_json");
        assert!(json("[".repeat(100).as_bytes()).unwrap_err().to_string().contains("deeper than 64"));
        assert_eq!(
            json(b"{\"a\": \"\xff\"}").unwrap_err().to_string(),
            "the answer is not JSON: not UTF-8 from byte 7 on; set `response` to text or raw when it need not be JSON"
        );
        let text = |content_type, body| of(Some(ResponseFormat::Text), Some(content_type), body);
        assert_eq!(text("text/plain; charset=koi8-r", b"\xc1").unwrap(), json!("а"));
        assert_eq!(
            text("text/plain; charset=klingon", b"a").unwrap_err().to_string(),
            "the answer is no text: the character set `klingon` is not known; set `response` to raw for bytes"
        );
        assert_eq!(text("text/plain", b"\xff").unwrap_err().code(), "response.not_text");
        let xml = |body: &[u8]| of(Some(ResponseFormat::Xml), Some("text/plain"), body);
        assert_eq!(xml(b"<a>1</a>").unwrap(), json!({"a": "1"}));
        assert_eq!(
            xml(b"{}").unwrap_err().to_string(),
            "the answer is not XML: text stands outside the root element, at line 1; set `response` to text or raw \
             when it need not be XML"
        );
        assert_eq!(of(Some(ResponseFormat::Text), None, b"\"a\"").unwrap(), json!("\"a\""));
        assert_eq!(of(Some(ResponseFormat::Raw), None, b"a").unwrap(), json!({"base64": "YQ=="}));
    }

    #[test]
    fn what_cannot_hold_anything_is_null() {
        for format in [None, Some(ResponseFormat::Json), Some(ResponseFormat::Text), Some(ResponseFormat::Raw)] {
            for (status, body) in [(204, &b"x"[..]), (205, b"x"), (304, b""), (200, b"")] {
                let answer = Answer { status, content_type: Some("application/json"), packed: None, body };
                assert_eq!(read(format, answer), Ok(Value::Null), "{format:?} {status}");
            }
        }
    }

    #[test]
    fn what_stays_packed_is_bytes() {
        let answer = Answer { status: 200, content_type: Some("text/plain"), packed: Some("compress"), body: b"a" };
        assert_eq!(read(None, answer).unwrap(), json!({"base64": "YQ=="}));
        assert_eq!(read(Some(ResponseFormat::Raw), answer).unwrap(), json!({"base64": "YQ=="}));
        assert_eq!(
            read(Some(ResponseFormat::Text), answer).unwrap_err().to_string(),
            "the answer is packed as `compress`, which is not known; set `response` to raw for its bytes"
        );
    }

    #[test]
    fn a_hundred_thousand_levels_are_too_deep() {
        for body in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
            let error = of(Some(ResponseFormat::Json), None, body.as_bytes()).unwrap_err();
            assert_eq!(error, ReadError::Json(TreeError::TooDeep));
        }
    }

    proptest! {
        #[test]
        fn any_answer_reads_as_something(content_type in any::<String>(), body in prop::collection::vec(any::<u8>(), 0..50)) {
            prop_assert!(of(None, Some(&content_type), &body).is_ok());
        }
    }
}
