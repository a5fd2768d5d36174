//! Bodies as trees of values: JSON, XML, forms and query strings. One rule for everybody who reads a body.
//!
//! Numbers keep their text. Depth and number of values are counted before anything is built, because the
//! tree of a small hostile body can take a hundred times its size.

use std::borrow::Cow;

use serde_json::Value;

use crate::charset::{self, CharsetError};
use crate::endpoint::Format;
use crate::form;
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
    /// Its content coding cannot be undone.
    #[error("{0}")]
    Packed(String),
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

/// Reads JSON (RFC 8259) in UTF-8; a byte order mark is skipped, of a repeated key the last value counts.
///
/// # Errors
/// When it is not JSON, too deep or too large.
pub fn parse_json(bytes: &[u8]) -> Result<Value, TreeError> {
    json_text(&text_of_json(None, bytes)?)
}

/// The text of a JSON body. JSON is UTF-8 (RFC 8259, section 8.1); what is not may say so by a byte order mark, or by
/// the character set that its content type declares.
///
/// # Errors
/// When it is no text in its character set.
pub fn text_of_json<'a>(content_type: Option<&str>, body: &'a [u8]) -> Result<Cow<'a, str>, TreeError> {
    // ASCII in UTF-16 is UTF-8 too, with zeros that no JSON begins with.
    let is_utf16 = matches!(body, [0, ..] | [_, 0, ..]);
    let error = match std::str::from_utf8(without_bom(body)) {
        Ok(text) if !is_utf16 => return Ok(Cow::Borrowed(text)),
        Ok(_) => "it begins like UTF-16, and nothing says so".to_owned(),
        Err(error) => format!("not UTF-8 from byte {} on", error.valid_up_to()),
    };
    match (charset::has_mark(body), charset::declared(content_type)) {
        (false, None) => Err(TreeError::NotJson(error)),
        (_, declared) => match charset::decode(body, declared) {
            Ok(text) => Ok(text),
            // It may declare no more than what it should be.
            Err(CharsetError::NotUtf8(_)) => Err(TreeError::NotJson(error)),
            Err(other) => Err(TreeError::NotJson(other.to_string())),
        },
    }
}

/// Reads JSON that is text already. A string that no Unicode string can hold, because it has half a surrogate pair
/// (`"\ud83d"`; RFC 8259, section 8.2, allows it), is its JSON as it was written, quotes and all.
pub(crate) fn json_text(text: &str) -> Result<Value, TreeError> {
    measure(text.as_bytes())?;
    let not_json = |error: serde_json::Error| TreeError::NotJson(error.to_string());
    serde_json::from_str(text).or_else(|error| match without_lone_surrogates(text) {
        Cow::Owned(mended) => serde_json::from_str(&mended).map_err(not_json),
        Cow::Borrowed(_) => Err(not_json(error)),
    })
}

/// The same JSON with every string that has half a surrogate pair as a string of its JSON.
pub(crate) fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut done, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while let Some(start) = memchr::memchr(b'"', &bytes[at..]).map(|found| at + found) {
        let end = text.len() - after_string(&bytes[start + 1..]).len();
        let string = &bytes[start..end];
        if has_lone_surrogate(string) && !string.iter().any(|byte| *byte < b' ') {
            out.push_str(&text[done..start]);
            out.push_str(&Value::from(&text[start..end]).to_string());
            done = end;
        }
        at = end;
    }
    if done == 0 { Cow::Borrowed(text) } else { Cow::Owned(out + &text[done..]) }
}

/// Whether JSON, as it is written, has an escape of half a surrogate pair, and no escape that is none.
pub(crate) fn has_lone_surrogate(mut json: &[u8]) -> bool {
    let unit = |escape: &[u8]| {
        let digits = escape.strip_prefix(b"\\u")?.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut has_lone = false;
    while let Some(at) = memchr::memchr(b'\\', json) {
        json = &json[at..];
        let length = match unit(json) {
            Some(0xd800..=0xdbff) if matches!(json.get(6..).and_then(unit), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                has_lone = true;
                6
            }
            Some(_) => 6,
            None if matches!(json.get(1), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => 2,
            None => return false,
        };
        json = json.get(length..).unwrap_or_default();
    }
    has_lone
}

/// Whether it begins like an object or a list, in UTF-8 or behind a mark of UTF-16.
pub(crate) fn looks_like_json(body: &[u8]) -> bool {
    let begins = |body: &[u8]| matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    match body {
        [0xff, 0xfe, rest @ ..] => begins(rest),
        [0xfe, 0xff, 0, rest @ ..] => begins(rest),
        body => begins(without_bom(body)),
    }
}

/// The same bytes without a UTF-8 byte order mark.
pub(crate) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
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
    let json = || json_text(&text_of_json(content_type, body)?);
    match format {
        Some(Format::Json) => json(),
        Some(Format::Xml) => xml::read(content_type, body),
        Some(Format::Form) => Ok(form::parse(body, charset::declared(content_type))),
        Some(Format::Bytes) => Ok(base64(body)),
        Some(Format::Text | Format::Query) => Ok(text(content_type, body)),
        None => {
            if looks_like_json(body) {
                match json() {
                    Err(TreeError::NotJson(_)) => {}
                    parsed => return parsed,
                }
            }
            let is_form = content_type
                .is_some_and(|content_type| charset::essence(content_type) == "application/x-www-form-urlencoded");
            Ok(if is_form { form::parse(body, charset::declared(content_type)) } else { text(content_type, body) })
        }
    }
}

/// Whether a body is what the endpoint declares. Nothing is built: what parses but is too deep or too large for a tree
/// passes, and only its parsed view is absent.
///
/// # Errors
/// What it should be, and why it is not.
pub fn check(format: Option<Format>, content_type: Option<&str>, body: &[u8]) -> Result<(), (&'static str, String)> {
    match format {
        Some(Format::Json) => {
            let malformed = |error: TreeError| match error {
                TreeError::NotJson(reason) => ("JSON", reason),
                other => ("JSON", other.to_string()),
            };
            let text = text_of_json(content_type, body).map_err(malformed)?;
            serde_json::from_str::<serde::de::IgnoredAny>(&text)
                .map(|_| ())
                .map_err(|error| ("JSON", error.to_string()))
        }
        Some(Format::Xml) => xml::check(content_type, body).map_err(|error| match error {
            TreeError::NotXml(reason) => ("XML", reason),
            other => ("XML", other.to_string()),
        }),
        Some(Format::Text) => charset::decode(body, charset::declared(content_type))
            .map(|_| ())
            .map_err(|error| ("text", error.to_string())),
        Some(Format::Form) => {
            form::check(body, charset::declared(content_type)).map_err(|error| ("a form", error.to_string()))
        }
        Some(Format::Bytes | Format::Query) | None => Ok(()),
    }
}

fn text(content_type: Option<&str>, body: &[u8]) -> Value {
    charset::decode(body, charset::declared(content_type))
        .map_or_else(|_| base64(body), |text| text.into_owned().into())
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
    fn json_says_its_character_set() {
        let latin = Some("application/json; charset=ISO-8859-1");
        for (content_type, body) in [
            (None, &b"\xef\xbb\xbf{\"a\":\"\xc3\xa9\"}"[..]),
            (latin, b"{\"a\":\"\xe9\"}"),
            (latin, "{\"a\":\"\u{e9}\"}".as_bytes()),
            (None, b"\xff\xfe{\0\"\0a\0\"\0:\0\"\0\xe9\0\"\0}\0"),
            (None, b"\xfe\xff\0{\0\"\0a\0\"\0:\0\"\0\xe9\0\"\0}"),
            (Some("application/json; charset=utf-16le"), b"{\0\"\0a\0\"\0:\0\"\0\xe9\0\"\0}\0"),
        ] {
            for format in [Some(Format::Json), None] {
                if format.is_some() || looks_like_json(body) {
                    assert_eq!(event_body(format, content_type, body).unwrap(), json!({"a": "\u{e9}"}), "{body:?}");
                }
            }
            assert_eq!(check(Some(Format::Json), content_type, body), Ok(()));
        }
        for (content_type, body) in [
            (None, &b"{\"a\":\"\xe9\"}"[..]),
            (Some("application/json; charset=utf-8"), b"{\"a\":\"\xe9\"}"),
            (Some("application/json; charset=klingon"), b"{\"a\":\"\xe9\"}"),
            (None, b"{\0}\0"),
            (None, b"\xff\xfe{"),
        ] {
            assert!(check(Some(Format::Json), content_type, body).is_err(), "{body:?}");
            assert!(event_body(Some(Format::Json), content_type, body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_stays_as_written_and_hides_nothing() {
        let body =
            br#"{"a":"x\ud83d","b":1,"c":"\ud83d\ude00","\udc00":"\\ud83d","d":["\ud83d\ud83d\ude00","\uD83Dx"]}"#;
        let read = event_body(Some(Format::Json), None, body).unwrap();
        assert_eq!(
            read,
            json!({"a": r#""x\ud83d""#, "b": 1, "c": "\u{1f600}", r#""\udc00""#: r"\ud83d", "d": [r#""\ud83d\ud83d\ude00""#, r#""\uD83Dx""#]})
        );
        assert_eq!(check(Some(Format::Json), None, body), Ok(()));
        for broken in [r#"{"a":"\ud83"}"#, r#"{"a":"\ud83d}"#, r#"{"a":"\ud83d",}"#, r#""\x\ud83d""#, "\"\n\\ud83d\""] {
            assert!(event_body(Some(Format::Json), None, broken.as_bytes()).is_err(), "{broken}");
        }
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
            (None, Some("text/plain; charset=latin1"), b"\xe9", json!("\u{e9}")),
            (Some(Format::Text), Some("text/plain; charset=latin1"), b"\xe9", json!("\u{e9}")),
            (
                Some(Format::Form),
                Some("application/x-www-form-urlencoded; charset=windows-1252"),
                b"n=caf%E9",
                json!({"n": "caf\u{e9}"}),
            ),
            (
                None,
                Some("Application/X-WWW-Form-Urlencoded ;charset=\"latin1\""),
                b"n=caf%E9",
                json!({"n": "caf\u{e9}"}),
            ),
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
            drop(form::parse(&bytes, None));
            drop(without_lone_surrogates(&String::from_utf8_lossy(&bytes)));
        }
    }
}
