//! Answers as data: what pills see under `steps.ID.body`.
//!
//! A format that the step names is strict; without one the answer's own word counts, and what it does not
//! keep is text, or bytes. Numbers keep their text.

use serde_json::Value;

use crate::request::ResponseFormat;
use crate::tree::{self, TreeError};

/// Why an answer is not what the step wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The step wants JSON.
    #[error("the answer is {0}; set `response` to text or raw when it need not be JSON")]
    Json(#[from] TreeError),
    /// The step wants text, and the bytes are none in their character set.
    #[error("the answer is no text in {charset}; set `response` to raw for bytes")]
    Text {
        /// The character set that the answer names, else UTF-8.
        charset: String,
    },
}

impl ReadError {
    /// Dotted slug.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "response.not_json",
            Self::Text { .. } => "response.not_text",
        }
    }
}

/// Reads an answer; an empty one is null in every format.
///
/// # Errors
/// When `format` is given and the body is not of it.
pub fn read(format: Option<ResponseFormat>, content_type: Option<&str>, body: &[u8]) -> Result<Value, ReadError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    match format {
        Some(ResponseFormat::Json) => Ok(tree::parse_json(body)?),
        Some(ResponseFormat::Text) => text(content_type, body)
            .map(Value::String)
            .ok_or_else(|| ReadError::Text { charset: charset(content_type).unwrap_or("utf-8").to_owned() }),
        Some(ResponseFormat::Raw) => Ok(tree::base64(body)),
        None => Ok(unasked(content_type, body)),
    }
}

/// By the answer's own word: JSON where it says so and is, else text where it can be, else bytes.
fn unasked(content_type: Option<&str>, body: &[u8]) -> Value {
    let essence = content_type.map(essence).unwrap_or_default();
    let is_json = essence == "application/json" || essence == "text/json" || essence.ends_with("+json");
    if is_json && let Ok(value) = tree::parse_json(body) {
        return value;
    }
    let binary = ["image/", "audio/", "video/", "font/"].iter().any(|kind| essence.starts_with(kind))
        || matches!(essence.as_str(), "application/octet-stream" | "application/pdf" | "application/zip");
    match text(content_type, body) {
        Some(text) if !binary || essence == "image/svg+xml" => Value::String(text),
        _ => tree::base64(body),
    }
}

/// The text in the character set that the answer names; UTF-8 without one, a byte order mark is skipped.
fn text(content_type: Option<&str>, body: &[u8]) -> Option<String> {
    match charset(content_type).map(str::to_ascii_lowercase).as_deref() {
        // Its 256 characters are the first 256 of Unicode.
        Some("iso-8859-1" | "latin1" | "iso8859-1") => Some(body.iter().map(|byte| char::from(*byte)).collect()),
        None | Some("utf-8" | "utf8" | "us-ascii" | "ascii") => {
            std::str::from_utf8(tree::without_bom(body)).ok().map(ToOwned::to_owned)
        }
        Some(_) => None,
    }
}

/// The type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn charset(content_type: Option<&str>) -> Option<&str> {
    content_type?.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn auto(content_type: &str, body: &[u8]) -> Value {
        read(None, Some(content_type).filter(|word| !word.is_empty()), body).unwrap()
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
            ("text/plain; charset=shift_jis", b"a", json!({"base64": "YQ=="})),
            ("", b"text", json!("text")),
            ("", b"\xff", json!({"base64": "/w=="})),
            ("image/png", b"png", json!({"base64": "cG5n"})),
            ("image/svg+xml", b"<svg/>", json!("<svg/>")),
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
        let json = |body: &[u8]| read(Some(ResponseFormat::Json), Some("text/plain"), body);
        assert_eq!(json(b"{}").unwrap(), json!({}));
        assert_eq!(json(b"").unwrap(), Value::Null);
        assert_eq!(json(b"<html>").unwrap_err().code(), "response.not_json");
        assert!(json("[".repeat(100).as_bytes()).unwrap_err().to_string().contains("deeper than 64"));
        let text = read(Some(ResponseFormat::Text), Some("text/plain; charset=koi8-r"), b"a").unwrap_err();
        assert_eq!(text.to_string(), "the answer is no text in koi8-r; set `response` to raw for bytes");
        assert_eq!(read(Some(ResponseFormat::Text), None, b"\"a\"").unwrap(), json!("\"a\""));
        assert_eq!(read(Some(ResponseFormat::Raw), None, b"a").unwrap(), json!({"base64": "YQ=="}));
    }

    proptest! {
        #[test]
        fn any_answer_reads_as_something(content_type in any::<String>(), body in prop::collection::vec(any::<u8>(), 0..50)) {
            prop_assert!(read(None, Some(&content_type), &body).is_ok());
        }
    }
}
