//! Places in a request: where the sender's id of an event stands.

mod pointer;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

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
    /// What stands there; nothing where the request has no such place, or what is there is no scalar. `query` and
    /// `body` are as they came.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap, query: &str, body: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Header(name) => headers.get(name).map(|value| value.as_bytes().to_vec()),
            Self::Query(name) => form_value(query.as_bytes(), name),
            Self::Form(name) => form_value(body, name),
            Self::Json(pointer) => pointer::scalar(body, pointer),
        }
    }
}

fn form_value(form: &[u8], name: &str) -> Option<Vec<u8>> {
    form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_stands_at_a_place() {
        let headers = HeaderMap::from_iter([("x-id".parse().unwrap(), "7".parse().unwrap())]);
        let find = |place: &str, body: &str| {
            let found = place.parse::<Place>().unwrap().find(&headers, "a=1%20b&a=2", body.as_bytes());
            found.map(|found| String::from_utf8(found).unwrap())
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
}
