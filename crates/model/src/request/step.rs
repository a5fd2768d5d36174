//! A request as documents write it: of a recipe's step today.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::name::Name;
use crate::traffic::RetrySpec;
use crate::units::Duration;

/// A step that calls an API. Every text may hold pills.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestStep {
    /// The connection; left out, `url` is a whole URL and no credentials are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Name>,
    /// GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS.
    pub method: String,
    /// Appended to the connection's base URL; pills in it are percent-encoded by their position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A whole URL, in place of `path`; one that is a single pill is taken as it comes, and may be a path too, which
    /// begins with a slash and is appended to the base URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Query parameters, appended in order. A list repeats the name, `tag=a&tag=b`; what is nested is written in
    /// brackets, `at[city]=x`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub query: IndexMap<String, serde_json::Value>,
    /// Headers.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// A JSON body; a text in it that is one whole pill keeps the value's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<serde_json::Value>,
    /// A form body, fields in order; lists and objects as in `query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<IndexMap<String, serde_json::Value>>,
    /// A `multipart/form-data` body (RFC 7578), parts in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multipart: Option<Vec<PartSpec>>,
    /// An XML body: a tree (`@name` attributes, `#text`, lists for repeated elements), or a text whose pills are
    /// escaped; one whole pill may hold either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xml: Option<serde_json::Value>,
    /// A text body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A body of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<RawSpec>,
    /// What the answer is read as; left out: JSON or XML where the answer says so, else text, else
    /// bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseFormat>,
    /// An expression over `status`, `headers` and `body` of the answer that must hold: `body.ok`. An answer for which
    /// it does not is an error, whatever its status. A missing path is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// An expression over the same that gives what the error says when the status is none of success or `expect` does
    /// not hold: `body.error`. A text, or a list of them; null says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether the request may be repeated when its outcome is unknown; left out: by the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Longest time for the whole exchange, in place of the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// When it is tried again, in place of what the connection says, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
}

/// A part of a multipart body: a field, or with a `filename` a file. One of `text`, `json` and `raw` is its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartSpec {
    /// The name of the field; may stand in several parts.
    pub name: String,
    /// The name of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// What the content is; left out: nothing for a field of text, else by the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// A text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// JSON; a text in it that is one whole pill keeps the value's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<serde_json::Value>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<RawSpec>,
    /// One whole pill that holds a list: a part for each of its items. Texts, numbers and truth values are text,
    /// `{base64: …}` is bytes, other objects and lists are JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
}

/// Bytes: one whole pill that holds them, or `{base64: …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawSpec {
    /// A pill: the body of an answer that was read as `raw`, of an event of an endpoint of bytes, or a text.
    Pill(String),
    /// Written out.
    Base64(Base64Spec),
}

/// Bytes as base64 (RFC 4648), with or without padding; white space is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Base64Spec {
    /// The text; may hold pills.
    pub base64: String,
}

impl<'de> Deserialize<'de> for RawSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PillOrBase64;

        impl<'de> Visitor<'de> for PillOrBase64 {
            type Value = RawSpec;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a pill or {base64: …}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawSpec, E> {
                Ok(RawSpec::Pill(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawSpec, A::Error> {
                Base64Spec::deserialize(de::value::MapAccessDeserializer::new(map)).map(RawSpec::Base64)
            }
        }

        deserializer.deserialize_any(PillOrBase64)
    }
}

/// What an answer is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResponseFormat {
    /// JSON; an answer that is not JSON is a step error.
    Json,
    /// XML, as a tree; an answer that is not XML is a step error.
    Xml,
    /// Text, in the character set that the answer names, else UTF-8.
    Text,
    /// The bytes, as base64 in the output.
    Raw,
}

/// What repeating a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Changes nothing; always safe to repeat.
    Read,
    /// Repeating it leaves the same state as doing it once.
    Idempotent,
    /// Repeating it may do it twice.
    Write,
}

impl Effect {
    /// The effect that a method has unless the step says otherwise (RFC 9110, section 9.2).
    #[must_use]
    pub fn of_method(method: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" => Self::Read,
            "PUT" | "DELETE" => Self::Idempotent,
            _ => Self::Write,
        }
    }
}
