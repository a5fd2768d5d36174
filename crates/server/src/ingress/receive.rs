//! One webhook, from its head to its acknowledgement.
//!
//! Guarantees: nothing is parsed before the signature is verified; a 2xx leaves only after the event is
//! durable; every refusal is counted and kept with its cause, while the caller sees a status and two fields.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::Full;
use linkspan_model::coding::{self, Unreadable};
use linkspan_model::endpoint::Format;
use linkspan_model::event::{HeaderText, Headers};
use linkspan_model::place::Found;
use linkspan_model::secret::MASK;
use linkspan_model::verify::Proof;
use linkspan_model::{Clock, EventId, JsonText, JsonWriter, Timestamp, limits, tree};
use linkspan_store::{DedupeKey, EndpointView, NewEvent, NewRefusal, Store};
use percent_encoding::percent_decode_str;

use super::body::{BodyError, BodyTimes, Budget, Share, read_capped};
use super::counters::IngressMetrics;
use super::places::{Busy, Place, Places};
use super::refusals::RefusalLog;
use super::remote::TrustedProxies;
use super::timer::SpareTimer;
use crate::accept::Handler;
use crate::framing;
use crate::problem::Problem;

/// Limits of the ingest path that a server can set.
#[derive(Debug, Clone, Copy)]
pub struct IngressLimits {
    /// Longest time for a whole body.
    pub body_total: Duration,
    /// From when on a body's average rate counts.
    pub body_grace: Duration,
    /// Longest wait for the commit.
    pub commit: Duration,
    /// Requests in flight, and per endpoint.
    pub requests: usize,
    /// Requests in flight on one endpoint.
    pub requests_per_endpoint: usize,
}

impl Default for IngressLimits {
    fn default() -> Self {
        Self {
            body_total: limits::BODY_TIMEOUT,
            body_grace: limits::BODY_RATE_GRACE,
            commit: limits::COMMIT_DEADLINE,
            requests: limits::IN_FLIGHT_REQUESTS,
            requests_per_endpoint: limits::IN_FLIGHT_PER_ENDPOINT,
        }
    }
}

/// Receives webhooks. Each connection has a clone of its own.
#[derive(Clone)]
pub struct Ingress {
    inner: Arc<Inner>,
    timer: SpareTimer,
}

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    refusals: RefusalLog,
    proxies: TrustedProxies,
    limits: IngressLimits,
    metrics: IngressMetrics,
    load: Load,
}

/// What every request counts. On cache lines of its own: processors take these from each other, and would take what
/// stands beside along.
#[repr(align(128))]
struct Load {
    /// Requests, from a number that differs from start to start.
    requests: AtomicU16,
    places: Places,
    budget: Budget,
}

/// A request to an endpoint, its head read.
pub struct Delivery<B> {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The caller.
    pub caller: IpAddr,
    /// The body, still to be read.
    pub body: B,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The event.
    pub id: EventId,
    /// Whether it had been stored before.
    pub duplicate: bool,
}

/// A refusal as the caller sees it, with what only the operator sees. Boxed: it is rare, and the way of what is
/// accepted should not carry room for it.
struct Refused(Box<Parts>);

struct Parts {
    problem: Problem,
    cause: String,
    body: Bytes,
    allowed: Option<Allowed>,
}

/// What a caller may do instead, with the header that says so: `Allow` on 405, `Accept-Encoding` on 415 (RFC 9110,
/// sections 15.5.6 and 15.5.16).
#[derive(Debug, Clone)]
pub struct Allowed {
    header: HeaderName,
    values: &'static str,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, description: &str, cause: impl Into<String>) -> Self {
        Self::from(Problem::new(status, code, description)).because(cause)
    }

    fn because(mut self, cause: impl Into<String>) -> Self {
        self.0.cause = cause.into();
        self
    }

    fn with_body(mut self, body: &Bytes) -> Self {
        self.0.body = body.clone();
        self
    }

    fn allowing(mut self, header: HeaderName, values: &'static str) -> Self {
        self.0.allowed = Some(Allowed { header, values });
        self
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        let cause = problem.description.clone();
        Self(Box::new(Parts { problem, cause, body: Bytes::new(), allowed: None }))
    }
}

impl Handler for Ingress {
    type Body = Full<Bytes>;

    async fn handle(&self, request: Request<hyper::body::Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let caller = self.inner.proxies.caller(peer, &parts.headers);
        let delivery = Delivery { method: parts.method, uri: parts.uri, headers: parts.headers, caller, body };
        self.respond(delivery).await
    }
}

impl Ingress {
    /// An ingress over `store`.
    #[must_use]
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        refusals: RefusalLog,
        proxies: TrustedProxies,
        limits: IngressLimits,
    ) -> Self {
        // Ids of two histories that share positions differ by these bits; where they start does not matter.
        let requests = AtomicU16::new(u16::try_from(clock.now().as_micros() & 0x0fff).unwrap_or(0));
        let inner = Inner {
            store,
            clock,
            refusals,
            proxies,
            limits,
            metrics: IngressMetrics::default(),
            load: Load {
                requests,
                places: Places::new(limits.requests, limits.requests_per_endpoint),
                budget: Budget::default(),
            },
        };
        Self { inner: Arc::new(inner), timer: SpareTimer::default() }
    }

    /// How long bodies may take.
    pub(crate) fn body_times(&self) -> BodyTimes {
        BodyTimes { total: self.inner.limits.body_total, grace: self.inner.limits.body_grace }
    }

    /// Receives one request and answers it.
    pub async fn respond<B>(&self, delivery: Delivery<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        match self.receive(delivery).await {
            Ok(received) => acknowledge(received),
            Err((problem, allowed)) => {
                let mut response = problem.respond();
                if let Some(allowed) = allowed {
                    response.headers_mut().insert(allowed.header, HeaderValue::from_static(allowed.values));
                }
                response
            }
        }
    }

    /// Receives one request: the whole way to the store.
    ///
    /// # Errors
    /// The problem to answer with, and what is allowed where that is the problem.
    pub async fn receive<B>(&self, delivery: Delivery<B>) -> Result<Received, (Problem, Option<Allowed>)>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let number = self.inner.load.requests.fetch_add(1, Ordering::Relaxed);
        let began = IngressMetrics::begin(number);
        let now = self.inner.clock.now();
        let Delivery { method, uri, headers, caller, body } = delivery;
        let snapshot = self.inner.store.snapshot();
        let (key, event_name) = split_path(uri.path()).unwrap_or_default();
        let endpoint = snapshot.endpoint_by_key(key).cloned();
        drop(snapshot);

        let head = HeadParts { method: &method, uri: &uri, headers: &headers, event_name, caller };
        let outcome = match &endpoint {
            None => Err(unknown("no endpoint has this key")),
            Some(endpoint) if !endpoint.spec.is_enabled() => Err(unknown("the endpoint is disabled")),
            Some(endpoint) => self.accept(endpoint, &head, body, now, number & 0x0fff).await,
        };
        match outcome {
            Ok(received) => {
                if received.duplicate {
                    self.inner.metrics.duplicate();
                }
                self.inner.metrics.accepted(began);
                Ok(received)
            }
            Err(refused) => {
                let allowed = refused.0.allowed.clone();
                Err((self.refuse(endpoint.as_deref(), &head, refused, now), allowed))
            }
        }
    }

    async fn accept<B>(
        &self,
        endpoint: &EndpointView,
        head: &HeadParts<'_>,
        body: B,
        now: Timestamp,
        salt: u16,
    ) -> Result<Received, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        // Turned away before any work when there is no room for the event.
        self.inner.store.admits().map_err(Problem::from)?;
        check_head(endpoint, head)?;
        let mut share = self.inner.load.budget.share();
        let body = self.read_body(endpoint, body, &mut share).await?;
        // A place is taken only now: callers that send slowly would hold all of them, and others would wait in vain.
        // Until here a request costs a connection and the bytes that came, and both are limited.
        let _in_flight = self.enter(endpoint.row).await?;
        let proof = verify(endpoint, head.headers, &body, now)?;
        // What is stored stays as it came; only what is looked at is unpacked.
        let unpacked = unpack(endpoint, head.headers, &body, &mut share).await?;
        let content = unpacked.as_ref().unwrap_or(&body);
        check_format(endpoint.spec.format, head.headers, content).map_err(|refused| refused.with_body(content))?;
        let dedupe = dedupe_key(endpoint, head, content, now);
        drop(unpacked);
        let spool = match body.len() > limits::INLINE_BODY_BYTES {
            true => Some(self.inner.store.spool(body.clone()).await.map_err(Problem::from)?),
            false => None,
        };
        // What stands in a file is not held in memory as well while it waits for the writer.
        let body = if spool.is_some() { Bytes::new() } else { body };
        let event = NewEvent {
            endpoint: endpoint.row,
            received_at: now,
            salt,
            head: head.to_json(&proof).into_string().into_bytes(),
            body,
            spool,
            dedupe,
        };
        let mut patience = self.timer.take(self.inner.limits.commit);
        let appended = self.inner.store.append(event, patience.as_mut()).await;
        self.timer.keep(patience);
        let appended = appended.map_err(Problem::from)?;
        Ok(Received { id: appended.id, duplicate: appended.duplicate })
    }

    async fn enter(&self, endpoint: i64) -> Result<Place<'_>, Refused> {
        let patience = || async {
            let mut patience = self.timer.take(self.inner.limits.commit);
            patience.as_mut().await;
            self.timer.keep(patience);
        };
        self.inner.load.places.enter(endpoint, patience).await.map_err(|Busy| {
            let problem = Problem::unavailable("server.busy", "the server is busy; try again shortly", 5);
            Refused::from(problem).because("too many requests are in flight")
        })
    }

    async fn read_body<B>(&self, endpoint: &EndpointView, body: B, share: &mut Share<'_>) -> Result<Bytes, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let max = endpoint.spec.body_max_bytes();
        read_capped(body, max, self.body_times(), share).await.map_err(|error| match error {
            BodyError::TooLarge(beginning) => {
                let text = format!("the body is longer than {max} bytes");
                Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "body.too_large", &text, text.clone()).with_body(&beginning)
            }
            BodyError::TooSlow(beginning) => {
                let text = "the body came too slowly";
                Refused::new(StatusCode::REQUEST_TIMEOUT, "body.too_slow", text, text).with_body(&beginning)
            }
            BodyError::Broken(beginning) => {
                let text = "the body ended before it was whole";
                Refused::new(StatusCode::BAD_REQUEST, "body.broken", text, text).with_body(&beginning)
            }
            BodyError::Busy => too_much_in_flight(),
        })
    }

    /// Counts and keeps a refusal; gives what the caller sees.
    fn refuse(
        &self,
        endpoint: Option<&EndpointView>,
        head: &HeadParts<'_>,
        refused: Refused,
        now: Timestamp,
    ) -> Problem {
        let Parts { problem, cause, body, .. } = *refused.0;
        self.inner.metrics.refused(problem.status.as_u16(), problem.code);
        let row = endpoint.map(|endpoint| endpoint.row);
        self.inner.refusals.record(row, now, || NewRefusal {
            endpoint: row,
            at: now,
            status: problem.status.as_u16(),
            code: problem.code.to_owned(),
            cause,
            method: head.method.to_string(),
            remote: Some(head.caller.to_string()),
            headers: refused_headers(endpoint, head.headers),
            body_size: body.len() as u64,
            body: body[..body.len().min(RefusalLog::BODY_BYTES)].to_vec(),
        });
        problem
    }
}

/// The parts of a request's head that become an event's head.
struct HeadParts<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    event_name: Option<&'a str>,
    caller: IpAddr,
}

impl HeadParts<'_> {
    /// The head as it is stored: what `EventHead` reads back, written without making one.
    fn to_json(&self, proof: &Proof) -> JsonText {
        let mut json = JsonWriter::with_capacity(1_024);
        json.raw("{\"method\":").text(self.method.as_str());
        if let Some(name) = self.event_name {
            // One that is not UTF-8 stays as it was sent.
            json.raw(",\"event_name\":").text(&percent_decode_str(name).decode_utf8().unwrap_or(Cow::Borrowed(name)));
        }
        if let Some(query) = self.uri.query() {
            json.raw(",\"query\":").text(query);
        }
        json.raw(",\"headers\":[");
        for (n, (name, value)) in self.headers.iter().enumerate() {
            json.raw(if n > 0 { ",[" } else { "[" }).plain(name.as_str()).raw(",");
            if is_credential(name, proof.credential_header.as_ref()) {
                json.plain(MASK);
            } else if let Ok(text) = value.to_str() {
                json.text(text);
            } else {
                json.value(&HeaderText::new(Bytes::copy_from_slice(value.as_bytes())));
            }
            json.raw("]");
        }
        json.raw("],\"remote\":").plain(&self.caller.to_string());
        json.raw(",\"verified\":{\"by\":").text(proof.by);
        json.raw(if proof.ok { ",\"ok\":true}}" } else { ",\"ok\":false}}" });
        json.finish()
    }
}

/// `/webhooks/KEY` or `/webhooks/KEY/EVENT-NAME`.
fn split_path(path: &str) -> Option<(&str, Option<&str>)> {
    let rest = path.strip_prefix("/webhooks/")?;
    match rest.split_once('/') {
        None => Some((rest, None)),
        Some((key, "")) => Some((key, None)),
        Some((key, name)) => Some((key, Some(name))),
    }
}

fn is_credential(name: &HeaderName, credential: Option<&HeaderName>) -> bool {
    Some(name) == credential || matches!(*name, header::AUTHORIZATION | header::PROXY_AUTHORIZATION | header::COOKIE)
}

/// What says nothing of a caller's credentials wherever it is sent.
const PLAIN_HEADERS: [HeaderName; 5] =
    [header::HOST, header::USER_AGENT, header::ACCEPT, header::CONTENT_TYPE, header::CONTENT_LENGTH];

/// The headers of a refusal. Without an endpoint nobody knows which of them is a credential, so only the plain
/// ones are kept whole.
fn refused_headers(endpoint: Option<&EndpointView>, headers: &HeaderMap) -> Headers {
    match endpoint.and_then(|endpoint| endpoint.spec.verify.as_ref()) {
        Some(verify) => kept_headers(headers, verify.credential_header().as_ref()),
        None => {
            let mut kept = kept_headers(headers, None);
            for (name, value) in &mut kept {
                if !PLAIN_HEADERS.iter().any(|plain| plain == name.as_str()) {
                    *value = HeaderText::new(Bytes::from_static(MASK.as_bytes()));
                }
            }
            kept
        }
    }
}

/// The headers of a request to an endpoint.
fn kept_headers(headers: &HeaderMap, credential: Option<&HeaderName>) -> Headers {
    let kept = |name: &HeaderName, value: &HeaderValue| match is_credential(name, credential) {
        true => HeaderText::new(Bytes::from_static(MASK.as_bytes())),
        false => HeaderText::new(Bytes::copy_from_slice(value.as_bytes())),
    };
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), kept(name, value))).collect()
}

/// Unknown and disabled look the same to the caller.
fn unknown(cause: &str) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "endpoint.unknown", "there is no endpoint at this URL", cause)
}

fn check_head(endpoint: &EndpointView, head: &HeadParts<'_>) -> Result<(), Refused> {
    let allowed = match endpoint.spec.format {
        Some(Format::Query) => "GET",
        _ => "POST",
    };
    if head.method.as_str() != allowed {
        let text = format!("this endpoint takes {allowed}");
        let cause = format!("{} was sent", head.method);
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "endpoint.method", &text, cause)
            .allowing(header::ALLOW, allowed));
    }
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits::URI_MAX_BYTES {
        let text = format!("the URL is longer than {} bytes", limits::URI_MAX_BYTES);
        return Err(Refused::new(StatusCode::URI_TOO_LONG, "head.uri_too_long", &text, text.clone()));
    }
    let fields = head.headers.len();
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if fields > limits::HEADERS_MAX || bytes > limits::HEAD_MAX_BYTES {
        let text = format!("the head has more than {} fields or {} bytes", limits::HEADERS_MAX, limits::HEAD_MAX_BYTES);
        return Err(Refused::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head.too_large", &text, text.clone()));
    }
    framing::check(head.headers)?;
    check_content_type(endpoint.spec.format, head.headers)
}

/// Refuses only a type that is certainly another one than the endpoint declares: many senders label JSON as
/// text, and whether a body parses is checked anyway.
fn check_content_type(format: Option<Format>, headers: &HeaderMap) -> Result<(), Refused> {
    let Some(sent) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return Ok(()) };
    let sent = sent.split(';').next().unwrap_or_default().trim();
    let is_form = sent.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    let begins = |with: &str| sent.get(..with.len()).is_some_and(|part| part.eq_ignore_ascii_case(with));
    let ends = |with: &str| {
        let start = sent.len().checked_sub(with.len());
        start.and_then(|start| sent.get(start..)).is_some_and(|part| part.eq_ignore_ascii_case(with))
    };
    let is_wrong = match format {
        Some(Format::Json) => is_form || begins("multipart/") || ends("/xml") || ends("+xml"),
        Some(Format::Xml) => is_form || begins("multipart/") || ends("/json"),
        Some(Format::Form) => !is_form,
        _ => false,
    };
    if !is_wrong {
        return Ok(());
    }
    let wanted = match format {
        Some(Format::Form) => "application/x-www-form-urlencoded",
        Some(Format::Xml) => "application/xml",
        _ => "application/json",
    };
    let text = format!("this endpoint takes {wanted}");
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "endpoint.content_type", &text, format!("{sent} was sent")))
}

fn verify(endpoint: &EndpointView, headers: &HeaderMap, body: &Bytes, now: Timestamp) -> Result<Proof, Refused> {
    let verifier = endpoint.verifier.as_ref().map_err(|reason| {
        let problem = Problem::unavailable("endpoint.not_ready", "this endpoint is not ready; try again later", 60);
        Refused::from(problem).because(reason.as_str())
    })?;
    verifier.verify(headers, body, now).map_err(|error| {
        let cause = format!("{}: {error}", error.code());
        Refused::new(StatusCode::UNAUTHORIZED, "verify.failed", "the request did not prove itself", cause)
            .with_body(body)
    })
}

/// The body without its content codings; nothing where it has none. Never before it is verified: what a few bytes unpack
/// to costs more than they do.
async fn unpack(
    endpoint: &EndpointView,
    headers: &HeaderMap,
    body: &Bytes,
    share: &mut Share<'_>,
) -> Result<Option<Bytes>, Refused> {
    if !headers.contains_key(header::CONTENT_ENCODING) || endpoint.spec.format == Some(Format::Bytes) || body.is_empty()
    {
        return Ok(None);
    }
    let values = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let codings = match coding::codings(values) {
        Ok(codings) if codings.is_empty() => return Ok(None),
        Ok(codings) => codings,
        // Whoever declares nothing of the body takes it as it is.
        Err(_) if endpoint.spec.format.is_none() => return Ok(None),
        Err(named) => {
            let text = format!("the content coding `{named}` is not known; send {} or none", coding::ACCEPTED);
            let refused = Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body.coding", &text, text.clone());
            return Err(refused.with_body(body).allowing(header::ACCEPT_ENCODING, coding::ACCEPTED));
        }
    };
    let max = endpoint.spec.body_max_bytes();
    let packed = body.clone();
    // Not among the sockets.
    let unpacked = tokio::task::spawn_blocking(move || coding::unpack(&codings, &packed, max)).await;
    let unpacked =
        unpacked.map_err(|_| Refused::from(Problem::unavailable("server.busy", "the server is ending", 5)))?;
    match unpacked {
        Ok(unpacked) if share.take(unpacked.len()) => Ok(Some(unpacked.into())),
        Ok(_) => Err(too_much_in_flight()),
        Err(Unreadable::TooLarge) => {
            let text = format!("the unpacked body is longer than {max} bytes");
            Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "body.too_large", &text, text.clone()).with_body(body))
        }
        Err(broken @ Unreadable::Broken { .. }) => {
            let text = format!("the body is {broken}");
            Err(Refused::new(StatusCode::BAD_REQUEST, "body.malformed", &text, text.clone()).with_body(body))
        }
    }
}

fn too_much_in_flight() -> Refused {
    let problem = Problem::unavailable("server.busy", "the server is busy; try again shortly", 5);
    Refused::from(problem).because("too many bytes are in flight")
}

/// Whether the body is what the endpoint declares. Without building anything: what parses but is too deep or
/// too large for a tree is accepted, and only its parsed view is absent.
fn check_format(format: Option<Format>, headers: &HeaderMap, body: &[u8]) -> Result<(), Refused> {
    let Some(format) = format else { return Ok(()) };
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    tree::check(Some(format), content_type, body).map_err(|(what, reason)| {
        let text = format!("the body is not {what}: {reason}");
        Refused::new(StatusCode::BAD_REQUEST, "body.malformed", &text, text.clone())
    })
}

fn dedupe_key(endpoint: &EndpointView, head: &HeadParts<'_>, body: &[u8], now: Timestamp) -> Option<DedupeKey> {
    let dedupe = endpoint.spec.dedupe.as_ref()?;
    let value = dedupe.by.find(head.headers, head.uri.query().unwrap_or_default(), body);
    // A request without the id is an event of its own: nothing says that it came before.
    let value = value.map(Found::into_key).filter(|value| !value.is_empty())?;
    Some(DedupeKey::new(&value, now.after(endpoint.spec.dedupe_within())))
}

fn acknowledge(received: Received) -> Response<Full<Bytes>> {
    let duplicate = if received.duplicate { ",\"duplicate\":true" } else { "" };
    let body = format!("{{\"data\":{{\"id\":\"{}\"{duplicate}}}}}", received.id);
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_the_path_into_key_and_event_name() {
        assert_eq!(split_path("/webhooks/k"), Some(("k", None)));
        assert_eq!(split_path("/webhooks/k/"), Some(("k", None)));
        assert_eq!(split_path("/webhooks/k/order.paid"), Some(("k", Some("order.paid"))));
        assert_eq!(split_path("/webhook/k"), None);
    }

    #[test]
    fn what_is_stored_of_a_head_reads_back() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_bytes(b"\xff\x00a").unwrap_or(HeaderValue::from_static("plain")));
        headers.insert("x-b", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        headers.append("x-c", HeaderValue::from_static("one"));
        headers.append("x-c", HeaderValue::from_static("\"two\""));
        headers.insert("x-api-key", HeaderValue::from_static("hunter2"));
        let uri: Uri = "/webhooks/k/a%20b?q=1&q=2".parse().unwrap();
        let head = HeadParts {
            method: &Method::POST,
            uri: &uri,
            headers: &headers,
            event_name: Some("a%20b"),
            caller: "::1".parse().unwrap(),
        };
        let credential = Some(HeaderName::from_static("x-api-key"));
        let json = head.to_json(&Proof { by: "token", ok: true, credential_header: credential.clone() });
        let read: linkspan_model::event::EventHead = serde_json::from_str(json.as_str()).unwrap();
        assert_eq!(read.headers, kept_headers(&headers, credential.as_ref()));
        assert_eq!(read.header("x-b").unwrap().as_bytes(), b"caf\xe9");
        assert_eq!(read.event_name.as_deref(), Some("a b"));
        assert_eq!(read.query.as_deref(), Some("q=1&q=2"));
        assert_eq!(read.remote.as_deref(), Some("::1"));
        assert!(!json.as_str().contains("hunter2"));
    }

    #[test]
    fn accepts_deep_json_and_refuses_what_does_not_parse() {
        let deep = Bytes::from("[".repeat(100_000) + &"]".repeat(100_000));
        assert!(check_format(Some(Format::Json), &HeaderMap::new(), &deep).is_ok());
        assert!(check_format(Some(Format::Json), &HeaderMap::new(), &Bytes::from_static(b"{\"a\":}")).is_err());
        assert!(check_format(Some(Format::Json), &HeaderMap::new(), &Bytes::new()).is_err());
        assert!(check_format(Some(Format::Json), &HeaderMap::new(), &Bytes::from_static(b"\"\xff\"")).is_err());
        assert!(
            check_format(Some(Format::Xml), &HeaderMap::new(), &Bytes::from("<a>".repeat(70) + &"</a>".repeat(70)))
                .is_ok()
        );
        assert!(check_format(Some(Format::Xml), &HeaderMap::new(), &Bytes::from_static(b"<a>\xe9</a>")).is_err());
        let latin = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/xml;charset=latin1"))]);
        assert!(check_format(Some(Format::Xml), &latin, &Bytes::from_static(b"<a>\xe9</a>")).is_ok());
        assert!(check_format(None, &HeaderMap::new(), &Bytes::from_static(b"\xff")).is_ok());
        assert!(check_format(Some(Format::Text), &HeaderMap::new(), &Bytes::from_static(b"\xff")).is_err());
    }
}
