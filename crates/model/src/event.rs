//! Events: accepted requests, raw and immutable.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::EventId;
use crate::name::Name;
use crate::time::Timestamp;

/// Headers as received: order kept, names in lower case, values byte for byte.
pub type Headers = Vec<(String, HeaderText)>;

/// The value of a header, byte for byte. In JSON a UTF-8 value is a string, another one `{"base64": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderText(Bytes);

impl HeaderText {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value as text; bytes that are not UTF-8 become replacement characters.
    #[must_use]
    pub fn to_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl Serialize for HeaderText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_map([("base64", base64::engine::general_purpose::STANDARD.encode(&self.0))]),
        }
    }
}

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::{self, MapAccess, Visitor};

        struct TextOrBytes;

        impl<'de> Visitor<'de> for TextOrBytes {
            type Value = HeaderText;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or {\"base64\": …}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HeaderText, E> {
                Ok(HeaderText(Bytes::copy_from_slice(text.as_bytes())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderText, A::Error> {
                use base64::Engine as _;
                let (key, value): (String, String) =
                    map.next_entry()?.ok_or_else(|| de::Error::custom("an empty header value object"))?;
                if key != "base64" {
                    return Err(de::Error::unknown_field(&key, &["base64"]));
                }
                base64::engine::general_purpose::STANDARD
                    .decode(value)
                    .map(|bytes| HeaderText(bytes.into()))
                    .map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(TextOrBytes)
    }
}

/// How a request proved itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifiedBy {
    /// `none`, `token` or `hmac`.
    pub by: String,
    /// Whether it did; false only where the endpoint asks for no proof.
    pub ok: bool,
}

/// Everything of an accepted request but its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventHead {
    /// The method.
    pub method: String,
    /// The name after the key in the URL, percent-decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_name: Option<String>,
    /// The query string as sent, without its question mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Headers; one that carried a verified credential holds a marker in place of its value.
    pub headers: Headers,
    /// The caller's address, behind trusted proxies the one that they report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// How the caller proved itself.
    pub verified: VerifiedBy,
}

/// One accepted request: raw and immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id, which holds its position in the log.
    pub id: EventId,
    /// The endpoint that accepted it.
    pub endpoint: Name,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// Method, headers and the rest of the head.
    pub head: EventHead,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl EventHead {
    /// The first value of the header `name`, compared without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&HeaderText> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}
