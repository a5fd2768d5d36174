//! Events: accepted requests, raw and immutable.

use std::borrow::Cow;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::endpoint::Format;
use crate::id::EventId;
use crate::name::Name;
use crate::time::Timestamp;
use crate::tree::{self, TreeError};
use crate::{coding, limits};

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
    /// The name after the key in the URL, percent-decoded where that is UTF-8.
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

/// What headers say of the body beside them.
#[derive(Debug, Clone, Default)]
pub struct Content {
    content_type: Option<HeaderText>,
    codings: Vec<HeaderText>,
}

impl Content {
    /// What these headers say.
    #[must_use]
    pub fn of(headers: &Headers) -> Self {
        let of = |wanted: &'static str| headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted));
        Self {
            content_type: of("content-type").next().map(|(_, value)| value.clone()),
            codings: of("content-encoding").map(|(_, value)| value.clone()).collect(),
        }
    }

    /// The content type, where it is text.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        std::str::from_utf8(self.content_type.as_ref()?.as_bytes()).ok()
    }

    /// The body without its content codings, as long as it may be for any endpoint.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn unpacked<'a>(&self, body: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        if self.codings.is_empty() {
            return Ok(Cow::Borrowed(body));
        }
        let codings = coding::codings(self.codings.iter().map(HeaderText::as_bytes))
            .map_err(|named| format!("compressed as `{named}`, which is not known"))?;
        if codings.is_empty() {
            return Ok(Cow::Borrowed(body));
        }
        coding::unpack(&codings, body, limits::BODY_MAX_BYTES).map(Cow::Owned).map_err(|error| error.to_string())
    }

    /// The body as pills see it, by the endpoint's declared format; what is declared as bytes stays as it came.
    ///
    /// # Errors
    /// Why there is no parsed view: as [`tree::event_body`], or that it cannot be unpacked.
    pub fn tree(&self, format: Option<Format>, body: &[u8]) -> Result<Value, TreeError> {
        match (format, self.unpacked(body)) {
            (Some(Format::Bytes), _) | (None, Err(_)) => Ok(tree::base64(body)),
            (Some(_), Err(reason)) => Err(TreeError::Packed(reason)),
            (format, Ok(body)) => tree::event_body(format, self.content_type(), &body),
        }
    }
}

impl EventHead {
    /// The first value of the header `name`, compared without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&HeaderText> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use serde_json::json;

    fn content(headers: &[(&str, &str)]) -> Content {
        Content::of(
            &headers.iter().map(|(name, value)| ((*name).to_owned(), HeaderText::new((*value).to_owned()))).collect(),
        )
    }

    #[test]
    fn a_compressed_body_is_read_as_what_it_was() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(br#"{"a":1}"#).unwrap();
        let packed = encoder.finish().unwrap();
        let gzip = content(&[("content-type", "application/json"), ("Content-Encoding", "GZIP")]);
        for format in [None, Some(Format::Json)] {
            assert_eq!(gzip.tree(format, &packed).unwrap(), json!({"a": 1}));
        }
        assert_eq!(gzip.tree(Some(Format::Bytes), &packed).unwrap(), tree::base64(&packed));
        assert_eq!(content(&[("content-encoding", "identity")]).tree(None, b"[1]").unwrap(), json!([1]));
        let other = content(&[("content-encoding", "compress")]);
        assert_eq!(other.tree(None, b"x").unwrap(), json!({"base64": "eA=="}));
        assert_eq!(
            other.tree(Some(Format::Json), b"x").unwrap_err().to_string(),
            "compressed as `compress`, which is not known"
        );
        assert!(gzip.tree(Some(Format::Json), b"{}").unwrap_err().to_string().starts_with("not gzip: "));
    }
}
