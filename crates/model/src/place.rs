//! Places in a request: where the sender's id of an event stands.

mod pointer;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};

use crate::{charset, form, tree};

/// A place in a request: `header:X-Name`, `query:name`, `json:/pointer`, `form:field`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// The first value of a header, by its case-insensitive name.
    Header(String),
    /// The first value of a query parameter.
    Query(String),
    /// A scalar in a JSON body, by JSON Pointer (RFC 6901).
    Json(String),
    /// The first value of a form field.
    Form(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
            Self::Form(field) => write!(f, "form:{field}"),
        }
    }
}

/// Why a text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a place in a request; write header:X-Name, query:name, json:/pointer or form:field")]
pub struct BadPlace(String);

impl std::str::FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let bad = || BadPlace(text.chars().take(80).collect());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        if rest.is_empty() {
            return Err(bad());
        }
        match kind {
            "header" if http::HeaderName::from_bytes(rest.as_bytes()).is_ok() => Ok(Self::Header(rest.to_owned())),
            "query" => Ok(Self::Query(rest.to_owned())),
            "json" if rest.starts_with('/') => Ok(Self::Json(rest.to_owned())),
            "form" => Ok(Self::Form(rest.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Place {
    /// What stands there; nothing where the request has no such place, or what is there is no scalar. `query` is as it
    /// came, `body` without its content coding.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap, query: &str, body: &[u8]) -> Option<Found> {
        let content_type = || headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match self {
            Self::Header(name) => headers.get(name).map(|value| Found::Text(value.as_bytes().to_vec())),
            Self::Query(name) => form_value(query.as_bytes(), None, name),
            Self::Form(name) => form_value(body, charset::declared(content_type()), name),
            Self::Json(pointer) => {
                let found = pointer::scalar(&tree::text_of_json(content_type(), body).ok()?, pointer)?;
                Some(match found {
                    Found::Text(text) if serde_json::from_slice::<serde_json::Number>(&text).is_ok() => {
                        Found::Digits(text)
                    }
                    other => other,
                })
            }
        }
    }
}

/// What stands at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The bytes of a text, percent-encoding undone.
    Text(Vec<u8>),
    /// A text of JSON that reads as a number.
    Digits(Vec<u8>),
    /// A number of JSON, as written.
    Number(String),
}

impl Found {
    /// What tells it from every other value: a number is another one than the text of its digits.
    #[must_use]
    pub fn into_key(self) -> Vec<u8> {
        match self {
            Self::Text(bytes) => bytes,
            // No text in UTF-8 begins so, and a text of JSON is UTF-8. Numbers keep the key that they always had.
            Self::Digits(bytes) => [b"\xff", bytes.as_slice()].concat(),
            Self::Number(digits) => digits.into_bytes(),
        }
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(bytes) | Self::Digits(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Number(digits) => f.write_str(digits),
        }
    }
}

fn form_value(form: &[u8], declared: Option<&str>, name: &str) -> Option<Found> {
    let form = tree::without_bom(form);
    form::pairs(form)
        .find(|(key, _)| form::name(key, declared) == name)
        .map(|(_, value)| Found::Text(value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_stands_at_a_place() {
        let headers = HeaderMap::from_iter([("x-id".parse().unwrap(), "7".parse().unwrap())]);
        let find = |place: &str, body: &str| {
            let found = place.parse::<Place>().unwrap().find(&headers, "a=1%20b&a=2", body.as_bytes());
            found.map(|found| found.to_string())
        };
        assert_eq!(find("header:X-Id", "").as_deref(), Some("7"));
        assert_eq!(find("query:a", "").as_deref(), Some("1 b"));
        assert_eq!(find("form:id", "x=1&id=a+b").as_deref(), Some("a b"));
        assert_eq!(find("json:/data/id", r#"{"data": {"id": "e"}}"#).as_deref(), Some("e"));
        let long = r#"{"a":{"id":12345678901234567890123}}"#;
        assert_eq!(find("json:/a/id", long).as_deref(), Some("12345678901234567890123"));
        assert_eq!(find("json:/data", r#"{"data": {"id": "e"}}"#), None);
        assert_eq!(find("header:X-Other", ""), None);
    }

    fn key(place: &str, content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        place.parse::<Place>().unwrap().find(&headers, "", body).map(Found::into_key)
    }

    #[test]
    fn a_number_is_another_id_than_the_text_of_its_digits() {
        let json = |body: &str| key("json:/id", "application/json", body.as_bytes()).unwrap();
        let (number, text) = (json(r#"{"id":9007199254740993}"#), json(r#"{"id":"9007199254740993"}"#));
        assert_ne!(number, text);
        assert_eq!(number, b"9007199254740993");
        assert_eq!(json(r#"{"id":"evt_1"}"#), b"evt_1");
        assert_eq!(number, json(r#"{"id": 9007199254740993 }"#));
        assert_ne!(text, json(r#"{"id":"\u00ff9007199254740993"}"#));
    }

    #[test]
    fn ids_are_bytes_read_as_everything_else_is() {
        let form = "application/x-www-form-urlencoded";
        assert_ne!(key("form:id", form, b"id=%E9"), key("form:id", form, b"id=%E8"));
        assert_eq!(key("form:\u{e9}", "x; charset=latin1", b"%E9=1").unwrap(), b"1");
        let json = "application/json";
        assert_eq!(key("json:/id", json, b"\xef\xbb\xbf{\"id\":\"e1\"}").unwrap(), b"e1");
        assert_eq!(
            key("json:/id", "application/json; charset=latin1", b"{\"id\":\"\xe9\"}").unwrap(),
            "\u{e9}".as_bytes()
        );
        assert_eq!(key("json:/id", json, br#"{"\ud83d":1,"id":"e1"}"#).unwrap(), b"e1");
        let (one, other) = (br#"{"id":"\ud83d"}"#, br#"{"id":"\ud83e"}"#);
        assert_ne!(key("json:/id", json, one).unwrap(), key("json:/id", json, other).unwrap());
    }
}
