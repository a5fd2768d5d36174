//! What a job's history shows of an exchange: requests and responses with secrets masked and bodies cut.
//!
//! Guarantees that nothing it returns holds a secret of the credentials in use in a readable form.

use std::borrow::Cow;
use std::str::Utf8Error;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use linkspan_model::connection::HeaderCase;
use linkspan_model::limits::HISTORY_BODY_BYTES;
use linkspan_model::request::multipart::{self, Piece};
use linkspan_model::secret::MASK;
use linkspan_model::{JsonText, JsonWriter};
use serde_json::Value;
use url::{Position, Url};

use crate::auth::Credentials;
use crate::client::Exchange;
use crate::mask::Masker;

/// A request: `method`, `url`, `headers` as pairs in the order sent, `body`.
pub(crate) fn request(
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    body: &[u8],
    case: HeaderCase,
    credentials: &Credentials,
) -> JsonText {
    let masker = credentials.masker();
    let write = |masker: &Masker| {
        let mut json = writer(url.as_str().len(), headers, body);
        json.raw("{\"method\":").text(method.as_str());
        json.raw(",\"url\":").text(&credentials.shown_url(url, masker));
        let host = masker.mask_text(&url[Position::BeforeHost..Position::AfterPort]);
        json.raw(",\"headers\":[[").plain(&shown_name(&HOST, case)).raw(",").text(&host).raw("]");
        for (name, value) in headers {
            json.raw(",[").plain(&shown_name(name, case)).raw(",");
            if credentials.hides(name) || is_authorization(name) && !credentials.carries(name) {
                json.text(&hidden(name, value));
            } else {
                json.text(&shown_value(masker, value));
            }
            json.raw("]");
        }
        json.raw("]");
        json
    };
    let mut json = masked(masker, write);
    if let Some(body) =
        parts_of(headers, body).map(|parts| shown_parts(masker, &parts, size(body))).or_else(|| body_of(masker, body))
    {
        json.raw(",\"body\":");
        body.write(&mut json);
    }
    json.raw("}");
    json.finish()
}

/// What `write` writes, without secrets. There are hardly ever any: it is looked for them in all of it at once, and
/// only where one is found, or may have been hidden by an escape, text by text.
fn masked(masker: &Masker, write: impl Fn(&Masker) -> JsonWriter) -> JsonWriter {
    let json = write(&Masker::default());
    match json.verbatim() {
        Some(text) if matches!(masker.mask_text(text), Cow::Borrowed(_)) => json,
        _ => write(masker),
    }
}

/// The body of an answer as data.
#[derive(Debug, Clone, Copy)]
pub struct ReadBody<'a> {
    /// What was read.
    pub value: &'a Value,
    /// The body itself, where it is the JSON text of that.
    pub json: Option<&'a str>,
}

/// An answer: `status`, `headers` as pairs in the order received, `timings`, `body` as data where it was read and is
/// shown whole, and the body's `size` in bytes.
pub(crate) fn answer(exchange: &Exchange, read: Option<ReadBody<'_>>, masker: &Masker) -> JsonText {
    let write = |masker: &Masker| {
        let mut json = writer(0, &exchange.headers, &exchange.body);
        json.raw("{\"status\":").raw(exchange.status.as_str()).raw(",\"headers\":[");
        for (n, (name, value)) in exchange.headers.iter().enumerate() {
            json.raw(if n > 0 { ",[" } else { "[" }).plain(name.as_str()).raw(",");
            json.text(&shown_value(masker, value)).raw("]");
        }
        json
    };
    let mut json = masked(masker, write);
    json.raw("],\"timings\":").value(&exchange.timings).raw(",\"body\":");
    let is_shown_whole = exchange.body.len() <= HISTORY_BODY_BYTES && !is_hidden(exchange, masker);
    match read {
        Some(ReadBody { json: Some(text), .. }) if is_shown_whole && is_plain(masker, text) => {
            json.raw(text);
        }
        Some(ReadBody { value, .. }) if is_shown_whole => {
            json.value(&masker.mask_value(value.clone()));
        }
        _ => match answer_body(exchange, masker) {
            Some(body) => body.write(&mut json),
            None => {
                json.raw("null");
            }
        },
    }
    if !exchange.body.is_empty() {
        json.raw(",\"size\":").value(&exchange.body.len());
    }
    json.raw("}");
    json.finish()
}

/// The beginning of an answer's body, where that is text.
pub(crate) fn answer_text(exchange: &Exchange, masker: &Masker) -> Option<String> {
    match answer_body(exchange, masker)?.content {
        Content::Text(text) => Some(text.into_owned()),
        _ => None,
    }
}

fn answer_body<'a>(exchange: &'a Exchange, masker: &Masker) -> Option<ShownBody<'a>> {
    if is_hidden(exchange, masker) {
        return Some(ShownBody { content: Content::Nothing, size: size(&exchange.body), cut: true });
    }
    body_of(masker, &exchange.body)
}

/// A packed body can hold a secret that no search finds: its size is all that is shown.
fn is_hidden(exchange: &Exchange, masker: &Masker) -> bool {
    exchange.undecoded.is_some() && !masker.is_empty() && !exchange.body.is_empty()
}

/// Whether no secret stands in a JSON text. One that may be written by escapes is looked for in what they stand for.
fn is_plain(masker: &Masker, text: &str) -> bool {
    memchr::memchr(b'\\', text.as_bytes()).is_none() && matches!(masker.mask_text(text), Cow::Borrowed(_))
}

/// A writer with room for most of what it will be given.
fn writer(more: usize, headers: &HeaderMap, body: &[u8]) -> JsonWriter {
    let body = body.len().min(HISTORY_BODY_BYTES);
    JsonWriter::with_capacity(256 + more + headers.len() * 64 + body + body / 8)
}

/// A body for people, with its whole size beside it.
#[derive(Debug, PartialEq, Eq)]
struct ShownBody<'a> {
    content: Content<'a>,
    /// Of all of it, in bytes.
    size: u64,
    /// Whether only the beginning is shown, or nothing.
    cut: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Content<'a> {
    Text(Cow<'a, str>),
    /// What is no UTF-8.
    Base64(String),
    /// Those of a multipart body: the lines of their heads, and their content.
    Parts(Vec<(Vec<(String, String)>, ShownBody<'a>)>),
    Nothing,
}

impl ShownBody<'_> {
    /// An object with one of `text`, `base64` and `parts`, with `size`, and with `cut` where that is true.
    fn write(&self, json: &mut JsonWriter) {
        json.raw("{");
        self.write_fields(json);
        json.raw("}");
    }

    fn write_fields(&self, json: &mut JsonWriter) {
        match &self.content {
            Content::Text(text) => json.raw("\"text\":").text(text).raw(","),
            Content::Base64(text) => json.raw("\"base64\":").text(text).raw(","),
            Content::Parts(parts) => {
                json.raw("\"parts\":[");
                for (n, (headers, body)) in parts.iter().enumerate() {
                    json.raw(if n > 0 { ",{" } else { "{" }).raw("\"headers\":").value(headers).raw(",");
                    body.write_fields(json);
                    json.raw("}");
                }
                json.raw("],")
            }
            Content::Nothing => json,
        };
        json.raw("\"size\":").value(&self.size);
        if self.cut {
            json.raw(",\"cut\":true");
        }
    }
}

/// A name as HTTP/1 writes it in title case: every word of it.
fn title_case(name: &str) -> String {
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
fn shown_parts<'a>(masker: &Masker, parts: &[Piece<'a>], size: u64) -> ShownBody<'a> {
    let mut room = HISTORY_BODY_BYTES;
    let mut shown = Vec::with_capacity(parts.len());
    for part in parts {
        let body = body_up_to(masker, part.content, room);
        room = room.saturating_sub(part.content.len());
        let headers = part.headers.iter().map(|(name, value)| (name.clone(), masker.mask_text(value).into_owned()));
        shown.push((headers.collect(), body));
    }
    let cut = shown.iter().any(|(_, body)| body.cut);
    ShownBody { content: Content::Parts(shown), size, cut }
}

fn body_of<'a>(masker: &Masker, body: &'a [u8]) -> Option<ShownBody<'a>> {
    (!body.is_empty()).then(|| body_up_to(masker, body, HISTORY_BODY_BYTES))
}

fn body_up_to<'a>(masker: &Masker, body: &'a [u8], max: usize) -> ShownBody<'a> {
    let cut = body.len() > max;
    let beginning = masker.mask_beginning(body, max);
    let content = match utf8(beginning) {
        Ok(text) => Content::Text(text),
        // The cut went through a character.
        Err((beginning, error)) if cut && error.error_len().is_none() => {
            Content::Text(String::from_utf8_lossy(&beginning[..error.valid_up_to()]).into_owned().into())
        }
        Err((beginning, _)) => Content::Base64(STANDARD.encode(&beginning)),
    };
    ShownBody { content, size: size(body), cut }
}

fn utf8(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, (Cow<'_, [u8]>, Utf8Error)> {
    match bytes {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| (Cow::Borrowed(bytes), error)),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|error| {
            let why = error.utf8_error();
            (Cow::Owned(error.into_bytes()), why)
        }),
    }
}

fn size(body: &[u8]) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}

fn shown_name(name: &HeaderName, case: HeaderCase) -> Cow<'_, str> {
    match case {
        HeaderCase::Lower => Cow::Borrowed(name.as_str()),
        HeaderCase::Title => Cow::Owned(title_case(name.as_str())),
    }
}

fn shown_value<'a>(masker: &Masker, value: &'a HeaderValue) -> Cow<'a, str> {
    if let Ok(text) = value.to_str() {
        return masker.mask_text(text);
    }
    let masked = masker.mask_bytes(value.as_bytes());
    Cow::Owned(match std::str::from_utf8(&masked) {
        Ok(text) => text.to_owned(),
        Err(_) => masked.escape_ascii().to_string(),
    })
}

fn is_authorization(name: &HeaderName) -> bool {
    [AUTHORIZATION, PROXY_AUTHORIZATION].contains(name)
}

/// The value without what makes it one; the scheme of an Authorization stays, for it explains most refusals.
fn hidden(name: &HeaderName, value: &HeaderValue) -> Cow<'static, str> {
    let scheme = value.to_str().ok().and_then(|text| text.split_once(' ')).map(|(scheme, _)| scheme);
    let is_known = |scheme: &&str| ["basic", "bearer", "digest"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    match scheme.filter(is_known) {
        Some(scheme) if is_authorization(name) => Cow::Owned([scheme, " ", MASK].concat()),
        _ => Cow::Borrowed(MASK),
    }
}

#[cfg(test)]
mod tests {
    use linkspan_model::request::Timings;
    use linkspan_model::secret::SecretBytes;
    use serde_json::json;

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
        let shown =
            request(&Method::POST, &url, &headers, b"password=hunter2%21", HeaderCase::Lower, &credentials()).value();
        let expected = [
            ("host", "api.test:8443".to_owned()),
            ("authorization", format!("Basic {MASK}")),
            ("x-copy", MASK.to_owned()),
            ("x-bytes", "\\xff ok".to_owned()),
        ];
        assert_eq!(
            shown,
            json!({
                "method": "POST",
                "url": format!("https://api.test:8443/a?key={MASK}"),
                "headers": expected,
                "body": {"text": format!("password={MASK}"), "size": 19},
            })
        );
    }

    #[test]
    fn a_short_secret_is_hidden_in_its_own_header() {
        let name = HeaderName::from_static("x-pin");
        let credentials = Credentials::headers([(name, SecretBytes::new("123").into())]).unwrap();
        let mut headers = HeaderMap::new();
        credentials.apply(&mut headers);
        let url = Url::parse("http://a.test/123").unwrap();
        let shown = request(&Method::GET, &url, &headers, b"", HeaderCase::Title, &credentials).value();
        assert_eq!(shown["headers"], json!([["Host", "a.test"], ["X-Pin", MASK]]));
        assert_eq!(shown["url"], "http://a.test/123");
        assert_eq!(shown.get("body"), None);
    }

    #[test]
    fn an_authorization_typed_into_a_step_is_hidden() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        let url = Url::parse("http://a.test/").unwrap();
        let shown = request(&Method::GET, &url, &headers, b"", HeaderCase::Lower, &Credentials::none()).value();
        assert_eq!(shown["headers"][1][1], format!("Bearer {MASK}"));
    }

    #[test]
    fn long_and_binary_bodies() {
        fn shown(body: &[u8]) -> ShownBody<'_> {
            body_of(credentials().masker(), body).unwrap()
        }
        let long = "é".repeat(HISTORY_BODY_BYTES) + "x";
        let longer = [b"x", long.as_bytes()].concat();
        let body = shown(&longer);
        assert!(body.cut && body.size == u64::try_from(long.len() + 1).unwrap());
        assert!(matches!(body.content, Content::Text(text) if text.len() == HISTORY_BODY_BYTES - 1));
        let body = shown(b"\xff hunter2!");
        assert_eq!(body.content, Content::Base64(STANDARD.encode([b"\xff ", MASK.as_bytes()].concat())));
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
        let shown = request(&Method::POST, &url, &headers, &body, HeaderCase::Lower, &credentials()).value();
        let shown = &shown["body"];
        assert_eq!((&shown["size"], &shown["cut"]), (&json!(body.len()), &json!(true)));
        let parts = &shown["parts"];
        assert_eq!(parts[0]["headers"][0][1], format!("form-data; name=\"{MASK}\""));
        assert_eq!(parts[0]["text"], format!("say {MASK}"));
        assert_eq!(parts[1]["base64"], STANDARD.encode([b"\x89", MASK.as_bytes()].concat()));
        assert!(parts[2]["cut"] == true && parts[2]["text"].as_str().unwrap().len() < HISTORY_BODY_BYTES);
        assert_eq!((&parts[3]["cut"], &parts[3]["text"], &parts[3]["size"]), (&json!(true), &json!(""), &json!(1)));
        assert_eq!(title_case("x-api-key"), "X-Api-Key");
    }

    fn exchange(body: &'static [u8], undecoded: Option<&str>) -> Exchange {
        Exchange {
            sent: JsonText::of("").unwrap(),
            status: http::StatusCode::OK,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("a/hunter2!"))]),
            body: body.into(),
            undecoded: undecoded.map(str::to_owned),
            requests: 1,
            timings: Timings::default(),
        }
    }

    fn received(exchange: &Exchange, read: Option<ReadBody<'_>>) -> Value {
        let mut shown = answer(exchange, read, credentials().masker()).value();
        assert_eq!(shown["headers"], json!([["content-type", format!("a/{MASK}")]]));
        assert_eq!((&shown["status"], &shown["timings"]), (&json!(200), &json!({"total_us": 0})));
        json!([shown["body"].take(), shown.get("size")])
    }

    #[test]
    fn a_packed_answer_is_shown_by_its_size() {
        let packed = exchange(b"\x1f\x8b", Some("br"));
        assert_eq!(received(&packed, None), json!([{"size": 2, "cut": true}, 2]));
        let shown = answer(&packed, None, Credentials::none().masker()).value();
        assert_eq!(shown["body"], json!({"base64": "H4s=", "size": 2}));
        assert_eq!(received(&exchange(b"", Some("br")), None), json!([null, null]));
    }

    #[test]
    fn an_answer_that_was_read_is_shown_as_data() {
        let shown = |body: &'static [u8]| {
            let value: Value = serde_json::from_slice(body).unwrap();
            let json = std::str::from_utf8(body).unwrap();
            let as_text = received(&exchange(body, None), Some(ReadBody { value: &value, json: Some(json) }));
            let as_value = received(&exchange(body, None), Some(ReadBody { value: &value, json: None }));
            assert_eq!(as_text, as_value);
            as_text
        };
        assert_eq!(shown(br#"{"a": [1.10, "b"]}"#).to_string(), r#"[{"a":[1.10,"b"]},18]"#);
        assert_eq!(shown(br#"["hunter2!", 1]"#), json!([[MASK, 1], 15]));
        // What stands for a secret is as secret.
        assert_eq!(shown(br#"["\u0068unter2!"]"#), json!([[MASK], 17]));
        let unread = received(&exchange(b"hunter2! x", None), None);
        assert_eq!(unread, json!([{"text": format!("{MASK} x"), "size": 10}, 10]));
    }
}
