//! A stored body as the API shows it: as text where it is UTF-8, as base64 where not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::Serialize;

/// A body as it is shown: one of the fields, or none when the body is lost.
#[derive(Default, Serialize, JsonSchema)]
pub(super) struct ShownBody {
    /// The body, where it is UTF-8; of a refusal its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The body as base64, where it is not; of a refusal its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl ShownBody {
    /// Shows these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { body: Some(text.to_owned()), body_base64: None },
            Err(_) => Self { body: None, body_base64: Some(BASE64.encode(bytes)) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_text_as_text_and_other_bytes_as_base64() {
        let shown = |bytes: &[u8]| serde_json::to_string(&ShownBody::of(bytes)).unwrap();
        assert_eq!(shown("caf\u{e9}".as_bytes()), r#"{"body":"café"}"#);
        assert_eq!(shown(b""), r#"{"body":""}"#);
        assert_eq!(shown(b"\xff\x00"), r#"{"body_base64":"/wA="}"#);
    }
}
