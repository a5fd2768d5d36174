//! Forms and query strings: `application/x-www-form-urlencoded` (URL Standard, section 5).
//!
//! Nothing is replaced. A value is bytes; it is text where it is text in its character set, and stays bytes where it
//! is not.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use serde_json::{Map, Value};

use crate::charset::{self, CharsetError};
use crate::limits;
use crate::tree;

/// What a name that is no text is written with: what is no printable ASCII, and the sign of the escapes itself.
const NAME: &AsciiSet = &CONTROLS.add(b'%');

/// The bytes of names and values, in order, percent-encoding undone.
pub fn pairs(form: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = end.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        (decoded(name), decoded(value))
    })
}

/// The bytes of one name or value, or of a name in a path: `+` is a space only in forms.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// A name as text: one that is none in its character set keeps its percent-encoding.
pub(crate) fn name<'a>(bytes: &'a [u8], declared: Option<&str>) -> Cow<'a, str> {
    charset::text(bytes, declared).unwrap_or_else(|_| Cow::Owned(percent_encode(bytes, NAME).to_string()))
}

/// Reads a form: an object of strings; a repeated key gives a list. `declared` is the name of a character set. A value
/// that is no text in it is bytes: `{"base64": …}`.
#[must_use]
pub fn parse(form: &[u8], declared: Option<&str>) -> Value {
    let mut map = Map::new();
    // A mark says UTF-8, whatever is declared.
    let (form, declared) = match form.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => (rest, None),
        None => (form, declared),
    };
    for (key, value) in pairs(form).take(limits::TREE_NODES) {
        let value = match charset::text(&value, declared) {
            Ok(text) => Value::String(text.into_owned()),
            Err(_) => tree::base64(&value),
        };
        match map.get_mut(&*name(&key, declared)) {
            None => {
                map.insert(name(&key, declared).into_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(map)
}

/// Reads a query string, without its question mark, as [`parse`] does.
#[must_use]
pub fn parse_query(query: &str) -> Value {
    parse(query.as_bytes(), None)
}

/// Whether the bytes of a form are text in its character set, before percent-encoding is undone.
///
/// # Errors
/// The character set is not known, or the bytes are none of it.
pub(crate) fn check(form: &[u8], declared: Option<&str>) -> Result<(), CharsetError> {
    charset::decode(form, declared).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn reads_forms_and_queries() {
        assert_eq!(
            parse(b"a=1&b=x+y%26&a=2&a=3&c&&=d", None),
            json!({"a": ["1", "2", "3"], "b": "x y&", "c": "", "": "d"})
        );
        assert_eq!(parse_query(""), json!({}));
        assert_eq!(parse("n=caf\u{e9}&m=caf%C3%A9".as_bytes(), None), json!({"n": "café", "m": "café"}));
        assert_eq!(parse(b"\xef\xbb\xbfa=%C3%A9", Some("windows-1252")), json!({"a": "é"}));
    }

    #[test]
    fn the_declared_character_set_counts_and_nothing_is_replaced() {
        assert_eq!(parse(b"n=caf%E9&%E9=\xe9", Some("windows-1252")), json!({"n": "café", "é": "é"}));
        assert_eq!(parse(b"n=%82%A0", Some("Shift_JIS")), json!({"n": "あ"}));
        assert_eq!(parse(b"n=caf%E9&m=x", None), json!({"n": {"base64": "Y2Fm6Q=="}, "m": "x"}));
        assert_eq!(parse(b"n=a&n=%E9", None), json!({"n": ["a", {"base64": "6Q=="}]}));
        assert_eq!(parse(b"x_%E9%25=1", None), json!({"x_%E9%25": "1"}));
        assert_eq!(parse(b"n=a&m=%E9", Some("klingon")), json!({"n": "a", "m": {"base64": "6Q=="}}));
        // What begins like a mark within a value is a part of it.
        assert_eq!(parse(b"n=%EF%BB%BFa", None), json!({"n": "\u{feff}a"}));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_none_is_replaced(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let written = percent_encoding::percent_encode(&bytes, percent_encoding::NON_ALPHANUMERIC).to_string();
            let form = format!("a={written}");
            let (_, value) = pairs(form.as_bytes()).next().unwrap();
            prop_assert_eq!(&*value, &bytes);
            let shown = parse(form.as_bytes(), None).to_string();
            let is_whole = !shown.contains(char::REPLACEMENT_CHARACTER) || std::str::from_utf8(&bytes).is_ok();
            prop_assert!(is_whole);
        }
    }
}
