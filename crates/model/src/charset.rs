//! Bytes as text: byte order marks and character sets.
//!
//! A byte order mark counts most, then what is declared, then UTF-8. Names are those of the WHATWG Encoding
//! Standard, as browsers take them (`iso-8859-1` is windows-1252). Strict: bytes that are no text in their
//! character set are an error, never replacement characters.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

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

/// Whether a body begins with a byte order mark.
pub(crate) fn has_mark(bytes: &[u8]) -> bool {
    Encoding::for_bom(bytes).is_some()
}

/// The text of a part of a body, which begins with no byte order mark: what looks like one is text.
///
/// # Errors
/// As [`decode`]; but ASCII is text whatever is declared, as long as it is not UTF-16.
pub(crate) fn text<'a>(bytes: &'a [u8], declared: Option<&str>) -> Result<Cow<'a, str>, CharsetError> {
    let encoding = match declared.map(named) {
        None => UTF_8,
        Some(Ok(encoding)) => encoding,
        Some(Err(error)) => {
            return std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).map(Cow::Borrowed).ok_or(error);
        }
    };
    if encoding == UTF_8 {
        let not_utf8 = |error: std::str::Utf8Error| CharsetError::NotUtf8(error.valid_up_to());
        return std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(not_utf8);
    }
    encoding
        .decode_without_bom_handling_and_without_replacement(bytes)
        .ok_or_else(|| CharsetError::NotText { charset: encoding.name() })
}

/// The bytes of a text in a character set.
///
/// # Errors
/// The character set is not known, or has no sign for a character of the text.
pub fn encode(text: &str, name: &str) -> Result<Vec<u8>, EncodeError> {
    let is_ascii = name.eq_ignore_ascii_case("us-ascii") || name.eq_ignore_ascii_case("ascii");
    let missing = |text: &str| text.chars().find(|c| !c.is_ascii()).unwrap_or_default();
    if is_ascii && !text.is_ascii() {
        return Err(EncodeError::Missing { charset: "US-ASCII", character: missing(text) });
    }
    let encoding = named(name).map_err(|_| EncodeError::Unknown(name.chars().take(40).collect()))?;
    if encoding == UTF_16LE || encoding == UTF_16BE {
        // The name without a byte order has a mark, so that everybody reads the same (RFC 2781, section 4.3).
        let mark = if name.eq_ignore_ascii_case("utf-16") { "\u{feff}" } else { "" };
        let units = mark.encode_utf16().chain(text.encode_utf16());
        let is_big = encoding == UTF_16BE;
        return Ok(units.flat_map(|unit| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect());
    }
    match encoding.encode(text) {
        (bytes, _, false) => Ok(bytes.into_owned()),
        (.., true) => {
            let missing = text.chars().find(|c| encoding.encode(c.encode_utf8(&mut [0; 4])).2);
            Err(EncodeError::Missing { charset: encoding.name(), character: missing.unwrap_or_default() })
        }
    }
}

/// Why a text cannot be sent in a character set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The name is none of the Encoding Standard.
    #[error("the character set `{0}` is not known")]
    Unknown(String),
    /// It has no sign for a character.
    #[error("`{character}` cannot be written in {charset}; send UTF-8")]
    Missing {
        /// The character set.
        charset: &'static str,
        /// The first character that it lacks.
        character: char,
    },
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
#[must_use]
pub fn declared(content_type: Option<&str>) -> Option<&str> {
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
    fn writes_what_it_reads_or_says_what_it_cannot() {
        for (text, name, expected) in [
            ("caf\u{e9}", "iso-8859-1", &b"caf\xe9"[..]),
            ("\u{20ac}", "Windows-1252", b"\x80"),
            ("\u{3042}", "shift_jis", b"\x82\xa0"),
            ("a", "utf-16", b"\xff\xfea\0"),
            ("a", "utf-16be", b"\0a"),
            ("a", "us-ascii", b"a"),
            ("\u{e9}", "UTF-8", b"\xc3\xa9"),
        ] {
            assert_eq!(encode(text, name).unwrap(), expected, "{text} {name}");
            assert_eq!(decode(expected, Some(name)).unwrap(), text, "{text} {name}");
        }
        for (text, name) in [("\u{3042}b", "iso-8859-1"), ("\u{e9}", "us-ascii"), ("a", "klingon")] {
            assert!(encode(text, name).is_err(), "{text} {name}");
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
