//! `multipart/form-data` (RFC 7578), written and taken apart.
//!
//! The boundary is made of the content, so the same parts give the same bytes on every attempt, and it occurs in
//! no part.

use std::fmt::Write as _;

use http::HeaderValue;
use sha2::{Digest as _, Sha256};

/// What texts are sent as.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// What JSON is sent as.
pub(super) const JSON: &str = "application/json";
/// What bytes are sent as, when nothing else is said.
pub(super) const BYTES: &str = "application/octet-stream";

/// A field or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The name of the field.
    pub name: String,
    /// The name of the file; a part with one is a file.
    pub filename: Option<String>,
    /// What the content is.
    pub content_type: Option<HeaderValue>,
    /// The content, sent as it is.
    pub content: Vec<u8>,
}

/// A part as it stands in a body: the lines of its head, and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Names and values, as written.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub content: &'a [u8],
}

/// The body, and its content type with the boundary.
#[must_use]
pub fn encode(parts: &[Part]) -> (Vec<u8>, HeaderValue) {
    let boundary = boundary(parts);
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        body.extend_from_slice(disposition(part).as_bytes());
        if let Some(content_type) = &part.content_type {
            body.extend_from_slice(b"Content-Type: ");
            body.extend_from_slice(content_type.as_bytes());
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(&part.content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let content_type = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"));
    (body, content_type.expect("a boundary is letters, digits and hyphens"))
}

/// Takes a body apart whose parts are separated by `boundary`; `None` when it is not of this form.
#[must_use]
pub fn split<'a>(boundary: &str, body: &'a [u8]) -> Option<Vec<Piece<'a>>> {
    let mut pieces = Vec::new();
    let line = format!("--{boundary}");
    let end = format!("\r\n{line}");
    let mut rest = body.strip_prefix(line.as_bytes())?;
    loop {
        if rest == b"--" || rest == b"--\r\n" {
            return Some(pieces);
        }
        rest = rest.strip_prefix(b"\r\n")?;
        let mut headers = Vec::new();
        while !rest.starts_with(b"\r\n") {
            let at = find(rest, b"\r\n")?;
            let (name, value) = std::str::from_utf8(&rest[..at]).ok()?.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
            rest = &rest[at + 2..];
        }
        rest = &rest[2..];
        let at = find(rest, end.as_bytes())?;
        pieces.push(Piece { headers, content: &rest[..at] });
        rest = &rest[at + end.len()..];
    }
}

/// The boundary that a content type names.
#[must_use]
pub fn boundary_of(content_type: &str) -> Option<&str> {
    let (essence, parameters) = content_type.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })
}

/// A line that stands in no part.
fn boundary(parts: &[Part]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths keep what stands before them apart.
        hash.update(u64::try_from(part.content.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(&part.content);
    }
    // Content that holds its own hash exists nowhere, but the next try costs nothing.
    (0_u32..)
        .map(|again| {
            let digest = hash.clone().chain_update(again.to_be_bytes()).finalize();
            format!("linkspan-{}", hex::encode(&digest[..16]))
        })
        .find(|boundary| parts.iter().all(|part| find(&part.content, boundary.as_bytes()).is_none()))
        .unwrap_or_default()
}

fn disposition(part: &Part) -> String {
    let mut line = format!("Content-Disposition: form-data; name=\"{}\"", quoted(&part.name));
    if let Some(filename) = &part.filename {
        line.push_str(&format!("; filename=\"{}\"", quoted(filename)));
    }
    line + "\r\n"
}

/// A name as browsers write it (HTML, multipart/form-data encoding algorithm): UTF-8, with what would end the
/// name or the line percent-encoded.
fn quoted(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c == '"' || c.is_ascii_control() {
            // Writing to a text cannot fail.
            write!(out, "%{:02X}", u32::from(c)).unwrap_or_default();
        } else {
            out.push(c);
        }
    }
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        let at = from + haystack.get(from..)?.iter().position(|byte| *byte == first)?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(name: &str, filename: Option<&str>, content_type: Option<&'static str>, content: &[u8]) -> Part {
        Part {
            name: name.to_owned(),
            filename: filename.map(str::to_owned),
            content_type: content_type.map(HeaderValue::from_static),
            content: content.to_vec(),
        }
    }

    #[test]
    fn writes_fields_and_files() {
        let parts = [
            part("title", None, None, b"a"),
            part("fi\"le\r\n", Some("a\"b\\\u{e9}.png"), Some("image/png"), b"\x89\r\n"),
        ];
        let (body, content_type) = encode(&parts);
        let boundary = boundary_of(content_type.to_str().unwrap()).unwrap();
        assert!(boundary.starts_with("linkspan-") && boundary.len() == 41);
        let expected = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\na\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"fi%22le%0D%0A\"; filename=\"a%22b\\\u{e9}.png\"\r\n\
             Content-Type: image/png\r\n\r\n"
        );
        assert_eq!(body, [expected.as_bytes(), b"\x89\r\n\r\n--", boundary.as_bytes(), b"--\r\n"].concat());
        assert_eq!(encode(&parts), (body, content_type));
    }

    #[test]
    fn takes_no_other_body_apart() {
        for body in ["", "--b", "--b\r\n", "--b\r\nx: y\r\n\r\nz", "x--b--", "--bb--"] {
            assert_eq!(split("b", body.as_bytes()), None, "{body:?}");
        }
        assert_eq!(split("b", b"--b--\r\n"), Some(Vec::new()));
        assert_eq!(boundary_of("multipart/mixed; boundary=b"), None);
        assert_eq!(boundary_of("Multipart/Form-Data; charset=x; Boundary=\"b c\""), Some("b c"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_taken_apart_again(
            contents in prop::collection::vec((any::<String>(), any::<Option<String>>(), prop::collection::vec(any::<u8>(), 0..60)), 0..5),
            nested in any::<bool>(),
        ) {
            let mut parts: Vec<Part> = contents
                .iter()
                .map(|(name, filename, content)| part(name, filename.as_deref(), Some("a/b"), content))
                .collect();
            if nested {
                // A body as the content of another one: the inner boundary must not end the outer part.
                let (inner, _) = encode(&parts);
                parts.push(part("inner", None, None, &inner));
            }
            let (body, content_type) = encode(&parts);
            let boundary = boundary_of(content_type.to_str().unwrap()).unwrap();
            let pieces = split(boundary, &body).unwrap();
            prop_assert_eq!(pieces.len(), parts.len());
            for (piece, part) in pieces.iter().zip(&parts) {
                prop_assert_eq!(piece.content, &part.content[..]);
                prop_assert_eq!(piece.headers.len(), 1 + usize::from(part.content_type.is_some()));
            }
        }

        #[test]
        fn never_panics(body in prop::collection::vec(prop_oneof![Just(b'-'), Just(b'b'), Just(b'\r'), Just(b'\n'), Just(b':')], 0..60)) {
            drop(split("b", &body));
        }
    }
}
