//! Accounts: stored credentials of one auth type, used by one or more connections.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::fault::Fault;
use crate::name::Name;
use crate::secret::SecretRef;

/// The `spec` of an account document: one key that names the auth type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum AccountSpec {
    /// No credentials.
    None {},
    /// HTTP Basic (RFC 7617).
    Basic(BasicSpec),
    /// One or several headers, sent as typed.
    Headers(IndexMap<String, Credential>),
}

/// User and password; both may be empty, and the password may hold colons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicSpec {
    /// The user; without colons.
    pub user: Credential,
    /// The password; left out: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// A part of credentials: plain text, or `{secret: NAME}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Credential {
    /// Stands in the document as it is.
    Text(String),
    /// Stands in a secret document.
    Secret(SecretRef),
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrReference;

        impl<'de> Visitor<'de> for TextOrReference {
            type Value = Credential;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or {secret: NAME}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Credential, E> {
                Ok(Credential::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Credential, A::Error> {
                SecretRef::deserialize(de::value::MapAccessDeserializer::new(map)).map(Credential::Secret)
            }
        }

        deserializer.deserialize_any(TextOrReference)
    }
}

impl AccountSpec {
    /// The secret documents that this account refers to, each with its path relative to `spec`.
    #[must_use]
    pub fn secrets(&self) -> Vec<(String, &Name)> {
        match self {
            Self::None {} => Vec::new(),
            Self::Basic(basic) => {
                let user = match &basic.user {
                    Credential::Secret(reference) => Some(("basic.user".to_owned(), &reference.secret)),
                    Credential::Text(_) => None,
                };
                let password =
                    basic.password.as_ref().map(|reference| ("basic.password".to_owned(), &reference.secret));
                user.into_iter().chain(password).collect()
            }
            Self::Headers(headers) => headers
                .iter()
                .filter_map(|(name, value)| match value {
                    Credential::Secret(reference) => Some((format!("headers.{name}"), &reference.secret)),
                    Credential::Text(_) => None,
                })
                .collect(),
        }
    }

    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        match self {
            Self::None {} => Vec::new(),
            Self::Basic(basic) => match &basic.user {
                Credential::Text(user) if user.contains(':') => {
                    vec![Fault::new("basic.user", "a user name cannot hold a colon (RFC 7617)")]
                }
                _ => Vec::new(),
            },
            Self::Headers(headers) if headers.is_empty() => vec![Fault::new("headers", "name at least one header")],
            Self::Headers(headers) => headers.iter().flat_map(|(name, value)| header_faults(name, value)).collect(),
        }
    }
}

fn header_faults(name: &str, value: &Credential) -> Option<Fault> {
    let path = format!("headers.{name}");
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Some(Fault::new(path, format_args!("`{name}` is not a header name")));
    }
    match value {
        Credential::Text(text) if http::HeaderValue::from_str(text).is_err() => {
            Some(Fault::new(path, "a header value cannot hold line breaks or control characters"))
        }
        _ => None,
    }
}
