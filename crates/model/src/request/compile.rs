//! Requests with their templates read: everything that can be known before there is data.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use indexmap::IndexMap;
use url::Url;

use super::body::Body;
use super::fields::Fields;
use super::step::RequestStep;
use crate::limits;
use crate::reader::Reader;
use crate::template::Template;
use crate::traffic::RetrySpec;

/// A request with its templates read.
#[derive(Debug)]
pub struct CompiledRequest {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) query: Fields,
    pub(super) headers: Vec<(HeaderName, String, Template)>,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Target {
    Path(Template),
    Url(Template),
}

/// Methods that requests may have.
pub(crate) const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// Headers that describe the message on the wire, which only the sender of it can know.
pub(crate) const WIRE_HEADERS: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"];

impl CompiledRequest {
    /// Whether the step gives a whole URL, in place of a path.
    #[must_use]
    pub const fn names_url(&self) -> bool {
        matches!(self.target, Target::Url(_))
    }

    /// Reads every template of a request and checks what can be checked without data. Faults go to `reader`,
    /// with `path` before their own paths.
    pub(crate) fn compile(reader: &mut Reader, path: &str, step: &RequestStep) -> Option<Self> {
        let method = METHODS.into_iter().find(|method| method.as_str() == step.method);
        if method.is_none() {
            let words = METHODS.map(|method| method.to_string()).join(", ");
            reader.fault(&format!("{path}.method"), format_args!("`{}` is not a method; use {words}", step.method));
        }
        let target = Target::read(reader, path, step);
        let query = Fields::read(reader, &format!("{path}.query"), &step.query);
        let headers = headers(reader, &format!("{path}.headers"), &step.headers);
        let body = Body::read(reader, path, step);
        if let (Body::Multipart(_), Some((_, written, _))) =
            (&body, headers.iter().find(|(name, ..)| *name == CONTENT_TYPE))
        {
            let reason = "the content type of a multipart body is set with its boundary; leave it out";
            reader.fault(&format!("{path}.headers.{written}"), reason);
        }
        if step.timeout.is_some_and(|timeout| timeout.get().is_zero() || timeout.get() > limits::TOTAL_TIMEOUT_MAX) {
            reader.fault(&format!("{path}.timeout"), "a timeout is between 1ms and 120s");
        }
        for fault in step.retry.iter().flat_map(RetrySpec::faults) {
            reader.fault(&format!("{path}.{}", fault.path), fault.reason);
        }
        if step.retry.as_ref().is_some_and(|retry| retry.budget.is_some()) {
            reader.fault(
                &format!("{path}.retry.budget"),
                "a budget is for all steps together; give it in the connection",
            );
        }
        Some(Self { method: method?, target: target?, query, headers, body })
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }
}

impl Target {
    fn read(reader: &mut Reader, path: &str, request: &RequestStep) -> Option<Self> {
        match (&request.path, &request.url) {
            (Some(_), Some(_)) => reader.fault(path, "give one of path and url"),
            (None, None) if request.connection.is_some() => reader.fault(path, "give a path, or a url"),
            (None, None) => reader.fault(path, "give a url, or a connection and a path"),
            (Some(_), None) if request.connection.is_none() => {
                reader.fault(&format!("{path}.path"), "a path needs a connection; without one give a url");
            }
            (Some(text), None) => {
                let path = format!("{path}.path");
                let template = reader.template(&path, text)?;
                if let Some(error) = template.path_fault() {
                    reader.fault(&path, error);
                }
                return Some(Self::Path(template));
            }
            (None, Some(text)) => {
                let path = format!("{path}.url");
                let template = reader.template(&path, text)?;
                let literal = template.as_literal().map(|text| checked_url(text).map(|_| ()));
                if let Some(error) = template.url_fault() {
                    reader.fault(&path, error);
                } else if let Some(Err(reason)) = literal {
                    reader.fault(&path, reason);
                }
                return Some(Self::Url(template));
            }
        }
        None
    }
}

fn headers(reader: &mut Reader, path: &str, headers: &IndexMap<String, String>) -> Vec<(HeaderName, String, Template)> {
    let mut read: Vec<(HeaderName, String, Template)> = Vec::new();
    for (written, text) in headers {
        let path = format!("{path}.{written}");
        let template = reader.template(&path, text);
        let Ok(name) = HeaderName::from_bytes(written.as_bytes()) else {
            reader.fault(&path, format_args!("`{written}` is not a header name"));
            continue;
        };
        if WIRE_HEADERS.contains(&name.as_str()) {
            reader.fault(&path, "this header is set when the request is sent");
        }
        if read.iter().any(|(known, ..)| *known == name) {
            reader.fault(&path, "this header is given twice");
        }
        let Some(template) = template else { continue };
        if template.as_literal().is_some_and(|text| HeaderValue::from_bytes(text.as_bytes()).is_err()) {
            reader.fault(&path, "a header value holds no line breaks or other control characters");
        }
        read.push((name, written.clone(), template));
    }
    read
}

/// Reads a whole URL that a request may go to.
pub(crate) fn checked_url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text.trim()).map_err(|error| format!("not a whole URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("a URL begins with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL holds no credentials; put them into an account".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}
