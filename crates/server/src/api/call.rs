//! A call of an operation: authenticated, and checked against its declaration before a handler sees it.

use std::collections::HashMap;

use axum::body::Body;
use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use linkspan_model::coding::{self, Unreadable};
use linkspan_model::fault::without_value;
use linkspan_model::id::BadId;
use linkspan_model::{Name, form, limits, tree};
use linkspan_store::Precondition;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Api;
use super::route::{Access, Declared, ParameterKind, ParameterPlace};
use crate::ingress::body::{BodyError, BodyTimes, Budget, read_capped};
use crate::problem::Problem;

/// A checked call.
pub(super) struct Call {
    path: HashMap<String, String>,
    query: HashMap<String, String>,
    if_match: Option<u64>,
    /// The body; null when none was sent.
    pub(super) body: Value,
    /// The kind that the route is about.
    pub(super) kind: linkspan_model::Kind,
}

/// An answer of an operation.
pub(super) struct Answer {
    status: StatusCode,
    body: Body,
    content_type: &'static str,
    revision: Option<u64>,
    retry_after: Option<u64>,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(&body).unwrap_or_default().into();
        Self { status, body, content_type: "application/json", revision: None, retry_after: None }
    }

    pub(super) fn text(status: StatusCode, body: String, content_type: &'static str) -> Self {
        Self { status, body: body.into(), content_type, revision: None, retry_after: None }
    }

    pub(super) fn nothing() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: Body::empty(),
            content_type: "",
            revision: None,
            retry_after: None,
        }
    }

    /// Lines of JSON that are written as they come.
    pub(super) fn lines(body: Body) -> Self {
        Self { status: StatusCode::OK, body, content_type: "application/x-ndjson", revision: None, retry_after: None }
    }

    /// The same with the time to try again, in seconds.
    pub(super) fn with_retry_after(mut self, after: Option<u64>) -> Self {
        self.retry_after = after;
        self
    }

    pub(super) fn with_revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    pub(super) fn respond(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(tag) = self.revision.and_then(|revision| HeaderValue::from_str(&format!("\"{revision}\"")).ok()) {
            headers.insert(header::ETAG, tag);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn bad_request(code: &'static str, description: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, description)
}

impl Call {
    /// Authenticates and reads a call.
    pub(super) async fn read(
        api: &Api,
        declared: &Declared,
        path: Vec<(String, String)>,
        request: Request<Body>,
    ) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if declared.access == Access::Operator {
            authenticate(api, &parts.headers).await?;
        }
        let query = read_query(declared, parts.uri.query().unwrap_or_default())?;
        let if_match = read_if_match(&parts.headers)?;
        let body = match declared.body {
            None => Value::Null,
            Some(required) => read_body(api.ingress.body_times(), &parts.headers, body, required).await?,
        };
        Ok(Self {
            path: path.into_iter().collect(),
            query,
            if_match,
            body,
            kind: declared.kind.unwrap_or(linkspan_model::Kind::Endpoint),
        })
    }

    /// A text of the path.
    pub(super) fn path(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// The name in the path; what is not a name names nothing.
    pub(super) fn name(&self) -> Result<Name, Problem> {
        let text = self.path("name");
        text.parse().map_err(|_| Problem::not_found(format!("{}/{text} does not exist", self.kind)))
    }

    /// The id in the path; what is not an id names nothing.
    pub(super) fn id<T: std::str::FromStr<Err = BadId>>(&self) -> Result<T, Problem> {
        self.path("id").parse().map_err(|error: BadId| Problem::not_found(error.to_string()))
    }

    /// A text of the query.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A text of the query as something else.
    pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        let parse = |text: &str| text.parse().map_err(|error| bad_request("query.invalid", format!("{name}: {error}")));
        self.text(name).map(parse).transpose()
    }

    /// A number of the query, or its default.
    pub(super) fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// The size of a page.
    pub(super) fn limit(&self) -> u32 {
        u32::try_from(self.number("limit", 100)).unwrap_or(100)
    }

    /// A flag of the query.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), Some("true" | ""))
    }

    /// The body as something typed.
    pub(super) fn typed<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_path_to_error::deserialize(&self.body).map_err(|error| {
            let path = error.path().to_string();
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "request.invalid",
                format!("{path}: {}", without_value(&error.inner().to_string())),
            )
        })
    }

    /// What must be true of a resource that exists.
    pub(super) fn present(&self) -> Precondition {
        Precondition::Present(self.if_match)
    }

    /// Whether the caller named a revision.
    pub(super) fn names_revision(&self) -> bool {
        self.if_match.is_some()
    }
}

async fn authenticate(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    let denied = || {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "token.invalid",
            "send an operator token as Authorization: Bearer TOKEN; at the first run it stands in the data folder's operator-token",
        )
    };
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(denied)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(denied)?;
    if scheme.eq_ignore_ascii_case("bearer") && api.store.is_operator_token(token.trim()).await? {
        Ok(())
    } else {
        Err(denied())
    }
}

/// A page of another site must not reach the operator listener through its visitor's browser, also not by a
/// name that resolves to it. Where a request names its server twice, in its target and in `Host`, both count
/// (RFC 9112, section 3.2.2; RFC 9113, section 8.3.1).
pub(super) fn check_origin(target: &Uri, headers: &HeaderMap, hosts: &[String]) -> Result<(), Problem> {
    let forbidden = |description: &str| Problem::new(StatusCode::FORBIDDEN, "request.origin", description);
    let in_target = target.authority().map(Authority::as_str);
    let in_headers = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("not ASCII"));
    let named: Vec<&str> = in_target.into_iter().chain(in_headers).collect();
    if !named.iter().all(|host| is_local(host, hosts)) {
        return Err(forbidden(
            "address the operator listener by its IP address, as localhost, or by an --operator-host",
        ));
    }
    let host = named.first().copied().unwrap_or_default();
    match headers.get(header::ORIGIN).map(HeaderValue::to_str) {
        None => Ok(()),
        Some(Ok(origin)) if origin.split_once("://").is_some_and(|(_, origin)| origin == host) => Ok(()),
        Some(_) => Err(forbidden("requests from other sites are refused")),
    }
}

/// Whether a host with or without a port is one that this listener answers to.
fn is_local(host: &str, hosts: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    let is_named = hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
    name.is_empty() || name == "localhost" || literal.parse::<std::net::IpAddr>().is_ok() || is_named
}

fn read_query(declared: &Declared, query: &str) -> Result<HashMap<String, String>, Problem> {
    let mut read = HashMap::new();
    for (name, value) in form::pairs(query.as_bytes()) {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
        let (Ok(name), Ok(value)) = (text(&name), text(&value)) else {
            return Err(bad_request("query.invalid", "a parameter is not UTF-8 once its percent-encoding is undone"));
        };
        let parameter = declared
            .parameters
            .iter()
            .find(|parameter| parameter.place == ParameterPlace::Query && parameter.name == name)
            .ok_or_else(|| unknown_parameter(declared, &name))?;
        check_parameter(&parameter.kind, &value)
            .map_err(|reason| bad_request("query.invalid", format!("{name}: {reason}")))?;
        if read.insert(name.clone(), value).is_some() {
            return Err(bad_request("query.invalid", format!("{name} stands twice")));
        }
    }
    Ok(read)
}

fn unknown_parameter(declared: &Declared, name: &str) -> Problem {
    let known: Vec<&str> = declared
        .parameters
        .iter()
        .filter(|parameter| parameter.place == ParameterPlace::Query)
        .map(|parameter| parameter.name)
        .collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let name: String = name.chars().take(80).collect();
    bad_request("query.unknown", format!("there is no query parameter `{name}` here; there is: {known}"))
}

fn check_parameter(kind: &ParameterKind, value: &str) -> Result<(), String> {
    match kind {
        ParameterKind::Text if value.contains('\0') => Err("a text cannot hold NUL".to_owned()),
        ParameterKind::Text => Ok(()),
        ParameterKind::Flag if matches!(value, "true" | "false" | "") => Ok(()),
        ParameterKind::Flag => Err("write true or false".to_owned()),
        ParameterKind::Number { least, most, .. } => match value.parse::<u64>() {
            Ok(number) if (*least..=*most).contains(&number) => Ok(()),
            _ => Err(format!("write a whole number from {least} to {most}")),
        },
        ParameterKind::OneOf(words) if words.contains(&value) => Ok(()),
        ParameterKind::OneOf(words) => Err(format!("write one of {}", words.join(", "))),
    }
}

fn read_if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let unquoted = text.trim_start_matches("W/").trim_matches('"');
    unquoted
        .parse()
        .map(Some)
        .map_err(|_| bad_request("request.if_match", "If-Match holds a revision as ETag gives it, such as \"3\""))
}

async fn read_body(times: BodyTimes, headers: &HeaderMap, body: Body, required: bool) -> Result<Value, Problem> {
    let max = limits::API_BODY_BYTES as u64;
    let budget = Budget::default();
    let read = read_capped(body, max, times, &mut budget.share()).await.map_err(|error| match error {
        BodyError::TooLarge(_) => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body.too_large",
            format!("the body is longer than {max} bytes"),
        ),
        BodyError::TooSlow(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "body.too_slow", "the body came too slowly"),
        BodyError::Broken(_) => bad_request("body.broken", "the body ended before it was whole"),
        BodyError::Busy => Problem::unavailable("server.busy", "the server is busy; try again shortly", 5),
    })?;
    if read.is_empty() {
        return if required { Err(bad_request("body.missing", "send a JSON body")) } else { Ok(Value::Null) };
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !(media_type == "application/json" || media_type.ends_with("+json")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "body.content_type",
            "send JSON, and say so: Content-Type: application/json",
        ));
    }
    let read = unpacked(headers, read).await?;
    let malformed = |reason: String| bad_request("body.malformed", format!("the body is not JSON: {reason}"));
    let text = tree::text_of_json(Some(content_type), &read).map_err(|error| malformed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))
}

/// A body without its content codings, as long as a body may be.
async fn unpacked(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Problem> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let codings = coding::codings(values).map_err(|named| {
        let text = format!("the content coding `{named}` is not known; send {} or none", coding::ACCEPTED);
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body.coding", text)
    })?;
    if codings.is_empty() {
        return Ok(body);
    }
    let max = limits::API_BODY_BYTES as u64;
    let unpacked = tokio::task::spawn_blocking(move || coding::unpack(&codings, &body, max)).await;
    match unpacked {
        Ok(Ok(unpacked)) => Ok(unpacked.into()),
        Ok(Err(Unreadable::TooLarge)) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body.too_large",
            format!("the unpacked body is longer than {max} bytes"),
        )),
        Ok(Err(broken)) => Err(bad_request("body.malformed", format!("the body is {broken}"))),
        Err(_) => Err(Problem::unavailable("server.busy", "the server is ending", 5)),
    }
}
