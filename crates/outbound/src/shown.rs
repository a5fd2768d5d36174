//! What a job's history shows of an exchange: requests and responses with secrets masked and bodies cut.
//!
//! Guarantees that nothing it returns holds a secret of the credentials in use in a readable form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use linkspan_model::limits::HISTORY_BODY_BYTES;
use linkspan_model::request::multipart::{self, Piece};
use linkspan_model::request::{ReceivedResponse, SentRequest, ShownBody, ShownPart};
use linkspan_model::secret::MASK;
use url::{Position, Url};

use crate::auth::Credentials;
use crate::mask::Masker;

pub(crate) fn request(
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    body: &[u8],
    credentials: &Credentials,
) -> SentRequest {
    let masker = credentials.masker();
    let mut shown = Vec::with_capacity(headers.len() + 1);
    let host = &url[Position::BeforeHost..Position::AfterPort];
    shown.push((HOST.as_str().to_owned(), masker.mask_text(host).into_owned()));
    shown.extend(headers.iter().map(|(name, value)| {
        let value = if credentials.hides(name) || is_authorization(name) && !credentials.carries(name) {
            hidden(name, value)
        } else {
            text(masker, value)
        };
        (name.as_str().to_owned(), value)
    }));
    SentRequest {
        method: method.as_str().to_owned(),
        url: credentials.shown_url(url),
        headers: shown,
        body: parts_of(headers, body)
            .map(|parts| shown_parts(masker, &parts, size(body)))
            .or_else(|| body_of(masker, body)),
    }
}

/// A name as HTTP/1 writes it in title case: every word of it.
pub(crate) fn title_case(name: &str) -> String {
    let mut starts = true;
    name.chars()
        .map(|c| {
            let c = if starts { c.to_ascii_uppercase() } else { c };
            starts = c == '-';
            c
        })
        .collect()
}

/// The parts of a multipart body.
fn parts_of<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<Vec<Piece<'a>>> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    multipart::split(multipart::boundary_of(content_type)?, body)
}

/// Each part on its own, so that a picture does not make a text beside it unreadable. Together they show no more
/// than one body does.
fn shown_parts(masker: &Masker, parts: &[Piece<'_>], size: u64) -> ShownBody {
    let mut room = HISTORY_BODY_BYTES;
    let mut shown = Vec::with_capacity(parts.len());
    for part in parts {
        let ShownBody { text, base64, size, cut, .. } = body_up_to(masker, part.content, room);
        room = room.saturating_sub(part.content.len());
        let headers = part.headers.iter().map(|(name, value)| (name.clone(), masker.mask_text(value).into_owned()));
        shown.push(ShownPart { headers: headers.collect(), text, base64, size, cut });
    }
    let cut = shown.iter().any(|part| part.cut);
    ShownBody { text: None, base64: None, parts: Some(shown), size, cut }
}

/// `is_packed` says that the body has a content coding that was not undone.
pub(crate) fn response(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    is_packed: bool,
    masker: &Masker,
) -> ReceivedResponse {
    let body = if is_packed && !masker.is_empty() && !body.is_empty() {
        // A packed body can hold a secret that no search finds: its size is all that is shown.
        Some(ShownBody { text: None, base64: None, parts: None, size: size(body), cut: true })
    } else {
        body_of(masker, body)
    };
    let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(masker, value))).collect();
    ReceivedResponse { status: status.as_u16(), headers, body }
}

fn body_of(masker: &Masker, body: &[u8]) -> Option<ShownBody> {
    (!body.is_empty()).then(|| body_up_to(masker, body, HISTORY_BODY_BYTES))
}

fn body_up_to(masker: &Masker, body: &[u8], max: usize) -> ShownBody {
    let cut = body.len() > max;
    let beginning = masker.mask_beginning(body, max);
    let (text, base64) = match std::str::from_utf8(&beginning) {
        Ok(text) => (Some(text.to_owned()), None),
        // The cut went through a character.
        Err(error) if cut && error.error_len().is_none() => {
            (Some(String::from_utf8_lossy(&beginning[..error.valid_up_to()]).into_owned()), None)
        }
        Err(_) => (None, Some(STANDARD.encode(&beginning))),
    };
    ShownBody { text, base64, parts: None, size: size(body), cut }
}

fn size(body: &[u8]) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

fn text(masker: &Masker, value: &HeaderValue) -> String {
    let masked = masker.mask_bytes(value.as_bytes());
    match std::str::from_utf8(&masked) {
        Ok(text) => text.to_owned(),
        Err(_) => masked.escape_ascii().to_string(),
    }
}

fn is_authorization(name: &HeaderName) -> bool {
    [AUTHORIZATION, PROXY_AUTHORIZATION].contains(name)
}

/// The value without what makes it one; the scheme of an Authorization stays, for it explains most refusals.
fn hidden(name: &HeaderName, value: &HeaderValue) -> String {
    let scheme = value.to_str().ok().and_then(|text| text.split_once(' ')).map(|(scheme, _)| scheme);
    match scheme {
        Some(scheme)
            if is_authorization(name) && ["basic", "bearer", "digest"].contains(&&*scheme.to_ascii_lowercase()) =>
        {
            format!("{scheme} {MASK}")
        }
        _ => MASK.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use linkspan_model::secret::SecretBytes;

    use super::*;

    fn credentials() -> Credentials {
        Credentials::basic(&"a".into(), &SecretBytes::new("hunter2!").into()).unwrap()
    }

    #[test]
    fn a_request_is_shown_without_secrets() {
        let mut headers = HeaderMap::new();
        credentials().apply(&mut headers);
        headers.insert("x-copy", HeaderValue::from_static("hunter2!"));
        headers.insert("x-bytes", HeaderValue::from_bytes(b"\xff ok").unwrap());
        let url = Url::parse("https://api.test:8443/a?key=hunter2!").unwrap();
        let shown = request(&Method::POST, &url, &headers, b"password=hunter2%21", &credentials());
        let expected = [
            ("host", "api.test:8443".to_owned()),
            ("authorization", format!("Basic {MASK}")),
            ("x-copy", MASK.to_owned()),
            ("x-bytes", "\\xff ok".to_owned()),
        ];
        assert_eq!(shown.headers, expected.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(shown.url, format!("https://api.test:8443/a?key={MASK}"));
        assert_eq!(shown.body.unwrap().text.unwrap(), format!("password={MASK}"));
    }

    #[test]
    fn a_short_secret_is_hidden_in_its_own_header() {
        let name = HeaderName::from_static("x-pin");
        let credentials = Credentials::headers([(name, SecretBytes::new("123").into())]).unwrap();
        let mut headers = HeaderMap::new();
        credentials.apply(&mut headers);
        let shown = request(&Method::GET, &Url::parse("http://a.test/123").unwrap(), &headers, b"", &credentials);
        assert_eq!(shown.headers[1].1, MASK);
        assert_eq!(shown.url, "http://a.test/123");
        assert_eq!(shown.body, None);
    }

    #[test]
    fn an_authorization_typed_into_a_step_is_hidden() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        let url = Url::parse("http://a.test/").unwrap();
        let shown = request(&Method::GET, &url, &headers, b"", &Credentials::none());
        assert_eq!(shown.headers[1].1, format!("Bearer {MASK}"));
    }

    #[test]
    fn long_and_binary_bodies() {
        let shown = |body: &[u8]| body_of(credentials().masker(), body).unwrap();
        let long = "é".repeat(HISTORY_BODY_BYTES) + "x";
        let body = shown(&[b"x", long.as_bytes()].concat());
        assert!(body.cut && body.size == u64::try_from(long.len() + 1).unwrap());
        assert_eq!(body.text.unwrap().len(), HISTORY_BODY_BYTES - 1);
        let body = shown(b"\xff hunter2!");
        assert_eq!(body.base64.unwrap(), STANDARD.encode([b"\xff ", MASK.as_bytes()].concat()));
    }

    #[test]
    fn parts_are_shown_one_by_one() {
        let part = |name: &str, content: &[u8]| multipart::Part {
            name: name.to_owned(),
            filename: None,
            content_type: None,
            content: content.to_vec(),
        };
        let long = vec![b'x'; HISTORY_BODY_BYTES];
        let parts = [part("hunter2!", b"say hunter2!"), part("b", b"\x89hunter2!"), part("c", &long), part("d", b"e")];
        let (body, content_type) = multipart::encode(&parts);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        let url = Url::parse("http://a.test/").unwrap();
        let shown = request(&Method::POST, &url, &headers, &body, &credentials()).body.unwrap();
        assert_eq!((shown.size, shown.cut), (size(&body), true));
        let parts = shown.parts.unwrap();
        assert_eq!(parts[0].headers[0].1, format!("form-data; name=\"{MASK}\""));
        assert_eq!(parts[0].text.as_deref(), Some(&*format!("say {MASK}")));
        assert_eq!(parts[1].base64, Some(STANDARD.encode([b"\x89", MASK.as_bytes()].concat())));
        assert!(parts[2].cut && parts[2].text.as_ref().unwrap().len() < HISTORY_BODY_BYTES);
        assert!(parts[3].cut && parts[3].text.as_deref() == Some("") && parts[3].size == 1);
        assert_eq!(title_case("x-api-key"), "X-Api-Key");
    }

    #[test]
    fn a_packed_response_is_shown_by_its_size() {
        let headers = HeaderMap::new();
        let shown = response(StatusCode::OK, &headers, b"\x1f\x8b", true, credentials().masker());
        assert_eq!(shown.body, Some(ShownBody { text: None, base64: None, parts: None, size: 2, cut: true }));
        let shown = response(StatusCode::OK, &headers, b"\x1f\x8b", true, Credentials::none().masker());
        assert!(shown.body.unwrap().base64.is_some());
    }
}
