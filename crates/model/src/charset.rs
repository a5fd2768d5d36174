//! Bytes as text: byte order marks and character sets.
//!
//! A byte order mark counts most, then what is declared, then UTF-8. Names are those of the WHATWG Encoding
//! Standard, as browsers take them (`iso-8859-1` is windows-1252). Strict: bytes that are no text in their
//! character set are an error, never replacement characters.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

/// Why bytes are no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharsetError {
    /// The name is none of the Encoding Standard.
    #[error("the character set `{0}` is not known")]
    Unknown(String),
    /// The bytes are none of this character set.
    #[error("not text in {charset}")]
    NotText {
        /// The character set.
        charset: &'static str,
    },
    /// Not UTF-8, and nothing says what else.
    #[error("not text in UTF-8, from byte {0} on")]
    NotUtf8(usize),
}

/// The text of `bytes`, without its byte order mark; `declared` is the name of a character set.
///
/// # Errors
/// When the character set is not known, or the bytes are none of it.
pub fn decode<'a>(bytes: &'a [u8], declared: Option<&str>) -> Result<Cow<'a, str>, CharsetError> {
    let (encoding, bytes) = match (Encoding::for_bom(bytes), declared) {
        (Some((encoding, mark)), _) => (encoding, bytes.get(mark..).unwrap_or_default()),
        (None, Some(name)) => (named(name)?, bytes),
        (None, None) => (UTF_8, bytes),
    };
    if encoding == UTF_8 {
        return match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(error) => Err(CharsetError::NotUtf8(error.valid_up_to())),
        };
    }
    encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .ok_or_else(|| CharsetError::NotText { charset: encoding.name() })
}

fn named(name: &str) -> Result<&'static Encoding, CharsetError> {
    // UTF-8 holds all of ASCII, and what says ASCII and is not has most often become UTF-8 since.
    if name.eq_ignore_ascii_case("us-ascii") || name.eq_ignore_ascii_case("ascii") {
        return Ok(UTF_8);
    }
    Encoding::for_label(name.as_bytes()).ok_or_else(|| CharsetError::Unknown(name.chars().take(40).collect()))
}

/// The type without its parameters, in lower case.
pub(crate) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The character set that a content type declares.
pub(crate) fn declared(content_type: Option<&str>) -> Option<&str> {
    let charset = content_type?.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    charset.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_marks_before_names_before_utf8() {
        for (bytes, declared, expected) in [
            (&b"a\xc3\xa9"[..], None, "aé"),
            (b"\xef\xbb\xbfa", Some("utf-16"), "a"),
            (b"\xff\xfea\0\x3d\xd8\x00\xde", None, "a😀"),
            (b"\xfe\xff\0a", Some("utf-8"), "a"),
            (b"caf\xe9", Some("ISO-8859-1"), "café"),
            (b"\x80", Some("windows-1252"), "€"),
            (b"\x82\xa0", Some("Shift_JIS"), "あ"),
            (b"a\0b\0", Some("utf-16le"), "ab"),
            (b"a\xc3\xa9", Some("US-ASCII"), "aé"),
            (b"", Some("utf-16"), ""),
        ] {
            assert_eq!(decode(bytes, declared).unwrap(), expected, "{bytes:?} {declared:?}");
        }
    }

    #[test]
    fn replaces_nothing() {
        assert_eq!(decode(b"ab\xff", None), Err(CharsetError::NotUtf8(2)));
        assert_eq!(decode(b"\xff\xfea", None), Err(CharsetError::NotText { charset: "UTF-16LE" }));
        assert_eq!(decode(b"\xff\xfe\x00\xd8", None), Err(CharsetError::NotText { charset: "UTF-16LE" }));
        assert_eq!(decode(b"a", Some("klingon")), Err(CharsetError::Unknown("klingon".to_owned())));
    }

    #[test]
    fn finds_the_charset_of_a_content_type() {
        assert_eq!(declared(Some("text/plain; format=flowed; Charset=\"koi8-r\"")), Some("koi8-r"));
        assert_eq!(declared(Some("text/plain; charset=")), None);
        assert_eq!(essence("Text/HTML ; charset=x"), "text/html");
    }
}
