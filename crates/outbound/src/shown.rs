//! What a job's history shows of an exchange: requests and responses with secrets masked and bodies cut.
//!
//! Guarantees that nothing it returns holds a secret of the credentials in use in a readable form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use linkspan_model::limits::HISTORY_BODY_BYTES;
use linkspan_model::request::{ReceivedResponse, SentRequest, ShownBody};
use linkspan_model::secret::MASK;
use url::Url;

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
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut shown = vec![(HOST.to_string(), masker.mask_text(&host).into_owned())];
    shown.extend(headers.iter().map(|(name, value)| {
        let value = if credentials.hides(name) || is_authorization(name) && !credentials.carries(name) {
            hidden(name, value)
        } else {
            text(masker, value)
        };
        (name.to_string(), value)
    }));
    SentRequest {
        method: method.to_string(),
        url: credentials.shown_url(url),
        headers: shown,
        body: body_of(masker, body),
    }
}

pub(crate) fn response(status: StatusCode, headers: &HeaderMap, body: &[u8], masker: &Masker) -> ReceivedResponse {
    let encoded =
        headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let body = if encoded && !masker.is_empty() && !body.is_empty() {
        // A compressed body can hold a secret that no search finds: its size is all that is shown.
        Some(ShownBody { text: None, base64: None, size: size(body), cut: true })
    } else {
        body_of(masker, body)
    };
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(masker, value))).collect();
    ReceivedResponse { status: status.as_u16(), headers, body }
}

fn body_of(masker: &Masker, body: &[u8]) -> Option<ShownBody> {
    if body.is_empty() {
        return None;
    }
    let cut = body.len() > HISTORY_BODY_BYTES;
    let beginning = masker.mask_beginning(body, HISTORY_BODY_BYTES);
    let (text, base64) = match std::str::from_utf8(&beginning) {
        Ok(text) => (Some(text.to_owned()), None),
        // The cut went through a character.
        Err(error) if cut && error.error_len().is_none() => {
            (Some(String::from_utf8_lossy(&beginning[..error.valid_up_to()]).into_owned()), None)
        }
        Err(_) => (None, Some(STANDARD.encode(&beginning))),
    };
    Some(ShownBody { text, base64, size: size(body), cut })
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
    fn an_encoded_response_is_shown_by_its_size() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let shown = response(StatusCode::OK, &headers, b"\x1f\x8b", credentials().masker());
        assert_eq!(shown.body, Some(ShownBody { text: None, base64: None, size: 2, cut: true }));
        let shown = response(StatusCode::OK, &headers, b"\x1f\x8b", Credentials::none().masker());
        assert!(shown.body.unwrap().base64.is_some());
    }
}
