//! How requests are framed: what the HTTP library lets through and we do not take, and the answers that it gives
//! itself, in our shape.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use linkspan_model::limits;

use crate::problem::Problem;

/// Refuses transfer codings besides `chunked`: the library undoes that one and would hand on what is still coded by
/// another as if it were the body (RFC 9112, section 6.1).
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_none_or(is_chunked) && codings.next().is_none() {
        return Ok(());
    }
    let text = "the only transfer coding that is known is `chunked`; name a compressed body in Content-Encoding";
    Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "request.transfer_coding", text))
}

/// A whole answer in our shape in place of one that the library gives itself to a head that does not parse; none for
/// any other. Its own has no body, which none of ours lacks where it says that the caller is wrong.
pub(crate) fn in_our_shape(answer: &[u8]) -> Option<Vec<u8>> {
    // Whatever is written to a connection passes here: most of it goes on after one look.
    if answer.get(9) != Some(&b'4') {
        return None;
    }
    let answer = std::str::from_utf8(answer).ok()?;
    let head = answer.strip_suffix("\r\n\r\n").filter(|head| head.starts_with("HTTP/1."))?;
    let mut lines = head.lines();
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let (mut is_empty, mut date) = (false, "");
    for line in lines {
        match line.split_once(": ")? {
            ("content-length", "0") => is_empty = true,
            ("connection", "close") => {}
            ("date", value) => date = value,
            _ => return None,
        }
    }
    let problem = is_empty.then(|| unparsed(StatusCode::from_u16(status).ok()?)).flatten()?;
    let body = problem.body();
    let mut whole = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n",
        problem.status,
        body.len()
    );
    if !date.is_empty() {
        whole.push_str(&format!("date: {date}\r\n"));
    }
    whole.push_str("\r\n");
    Some([whole.into_bytes(), body].concat())
}

/// What the library means by a status that it chooses itself.
fn unparsed(status: StatusCode) -> Option<Problem> {
    let (code, text) = match status {
        StatusCode::BAD_REQUEST => (
            "request.malformed",
            "this is no request of HTTP/1.0, HTTP/1.1 or HTTP/2; nothing was read of it".to_owned(),
        ),
        StatusCode::URI_TOO_LONG => {
            ("head.uri_too_long", format!("the URL is longer than {} bytes", limits::URI_MAX_BYTES))
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            let (fields, bytes) = (limits::HEADERS_MAX, limits::HEAD_MAX_BYTES);
            let text =
                format!("the head has more than {fields} fields or {bytes} bytes, or its Content-Length is no body's");
            ("head.too_large", text)
        }
        _ => return None,
    };
    Some(Problem::new(status, code, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_transfer_coding() {
        let of = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::TRANSFER_ENCODING, HeaderValue::from_static(value)));
            check(&values.fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            }))
        };
        assert!(of(&[]).is_ok());
        assert!(of(&["Chunked"]).is_ok());
        for wrong in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["identity"], &[""]] {
            assert_eq!(of(wrong).unwrap_err().code, "request.transfer_coding", "{wrong:?}");
        }
    }

    #[test]
    fn replaces_only_answers_of_the_library() {
        let library = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n";
        let ours = String::from_utf8(in_our_shape(library.as_bytes()).unwrap()).unwrap();
        assert!(ours.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"), "{ours}");
        assert!(ours.contains("\r\ndate: today\r\n\r\n{\"error\":{\"code\":\"request.malformed\""), "{ours}");
        for other in [
            "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0",
            "12345678 4",
            "",
        ] {
            assert!(in_our_shape(other.as_bytes()).is_none(), "{other}");
        }
    }
}
