//! A request as documents write it: of a recipe's step today.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::units::Duration;

/// A step that calls an API. Every text may hold pills.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// A whole URL, in place of `path`; one that is a single pill is taken as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Query parameters, appended in order.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub query: IndexMap<String, String>,
    /// Headers.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// A JSON body; a text in it that is one whole pill keeps the value's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<serde_json::Value>,
    /// A form body, fields in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<IndexMap<String, String>>,
    /// A text body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What the answer is read as; left out: JSON or XML where the answer says so, else text, else
    /// bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseFormat>,
    /// Whether the request may be repeated when its outcome is unknown; left out: by the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Longest time for the whole exchange, in place of the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
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
