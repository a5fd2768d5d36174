//! Requests to others: sent within their limits, through the address guard, with what the history may show.
//!
//! Guarantees that an exchange ends within its time and size limits; that each redirect is judged like a first
//! request and takes no credentials to another origin; and that what is shown holds no secret of the credentials
//! in use. Leaves attempts to the
//! engine, rates and breakers to `traffic`, and rendering to the model.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName,
    HeaderValue, LOCATION, PROXY_AUTHORIZATION, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{Method, Request, StatusCode, Uri, Version, response};
use linkspan_model::coding::{self, Unreadable};
use linkspan_model::connection::HeaderCase;
use linkspan_model::limits;
use linkspan_model::request::{RequestSpec, Timings};
use linkspan_model::{JsonText, Timestamp};
use tokio::time::Instant;
use url::Url;

use crate::auth::Credentials;
use crate::connector::{Connector, Guard, Resolver};
use crate::error::{SendError, SendErrorKind};
use crate::policy::Policy;
use crate::progress::micros;
use crate::shown::{self, ReadBody};
use crate::tls::Roots;
use crate::transport::{Pools, Transport, TransportSettings, Transports};
use crate::wire::{self, Answer};

/// What we call ourselves, unless a request does otherwise.
pub(crate) const AGENT: &str = concat!("linkspan/", env!("CARGO_PKG_VERSION"));

/// Headers that say how a message is framed or routed: ours to set, never a step's.
const OURS: &[HeaderName] = &[HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, TRAILER, UPGRADE];

/// Headers that do not follow a request to another origin, besides the account's.
const PERSONAL: &[HeaderName] = &[AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

/// The client for everything that documents name. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Outbound {
    pools: Pools,
    transports: Transports,
}

/// Limits of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOptions {
    /// Longest time until the TCP connection stands, looking the name up included. Default 5 s.
    pub connect: Duration,
    /// Longest time for the TLS handshake. Default 5 s.
    pub tls: Duration,
    /// Longest time from the request sent to the first byte of the answer, and between two pieces of a body that
    /// is sent. Default 15 s.
    pub first_byte: Duration,
    /// Longest time for the whole exchange, redirects included. Default 30 s.
    pub total: Duration,
    /// Longest body of the answer in bytes, as received and unpacked. Default 10 MiB.
    pub response_max_bytes: u64,
    /// Redirects that are followed, at most 5. With 0, the default, a redirect is an answer like others.
    pub redirects: u8,
    /// Where redirects may lead.
    pub redirect_scope: RedirectScope,
    /// How names of headers are written over HTTP/1.
    pub header_case: HeaderCase,
    /// The time, for credentials that sign requests; without one they do not.
    pub at: Option<Timestamp>,
    /// The way that connections are made; nothing: the ordinary one.
    pub transport: Option<Transport>,
}

/// Where redirects may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectScope {
    /// Only within the origin of the request.
    #[default]
    SameOrigin,
    /// Anywhere that the address guard lets pass, without credentials once the origin changed.
    Anywhere,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            connect: limits::CONNECT_TIMEOUT,
            tls: limits::CONNECT_TIMEOUT,
            first_byte: limits::FIRST_BYTE_TIMEOUT,
            total: limits::TOTAL_TIMEOUT,
            response_max_bytes: limits::RESPONSE_DEFAULT_BYTES,
            redirects: 0,
            redirect_scope: RedirectScope::default(),
            header_case: HeaderCase::default(),
            at: None,
            transport: None,
        }
    }
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The request as sent last, redirects followed, for the history: `method`, `url`, `headers` and `body`; secrets
    /// masked, the body cut.
    pub sent: JsonText,
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's headers as received.
    pub headers: HeaderMap,
    /// The answer's body, unpacked.
    pub body: Bytes,
    /// The content coding of the body, when it is one that is not undone here; `body` is then as received.
    pub undecoded: Option<String>,
    /// How long it took.
    pub timings: Timings,
    /// Requests that were sent for it: one, and one more for each redirect and for what was repeated with other
    /// credentials.
    pub requests: u32,
}

impl Exchange {
    /// The same, as what came of the repetition of a request that was answered before.
    #[must_use]
    pub fn after(mut self, before: u32) -> Self {
        self.requests += before;
        self
    }

    /// The answer for the history: `status`, `headers`, `timings`, `body` and its `size`; secrets masked, the body cut.
    /// The body is shown as data where it was read as such and needs no cut.
    #[must_use]
    pub fn received(&self, read: Option<ReadBody<'_>>, credentials: &Credentials) -> JsonText {
        shown::answer(self, read, credentials.masker())
    }

    /// The beginning of the answer's body where it is text, secrets masked.
    #[must_use]
    pub fn received_text(&self, credentials: &Credentials) -> Option<String> {
        shown::answer_text(self, credentials.masker())
    }
}

/// A request that failed, with what the history may show of it.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Why.
    pub error: SendError,
    /// The request as it was sent, or would have been, for the history.
    pub sent: JsonText,
}

impl Outbound {
    /// A client behind this policy, with the system's resolver and certificates.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self::with(policy, Resolver::System, Roots::system())
    }

    /// A client behind this policy.
    #[must_use]
    pub fn with(policy: Policy, resolver: Resolver, roots: Roots) -> Self {
        let connector = Connector::new(Guard::Policy(Arc::new(policy)), resolver, roots);
        Self { pools: Pools::new(&connector), transports: Transports::new(connector) }
    }

    /// Another way that connections are made than the ordinary one. Those who ask for the same share it, and with it
    /// their connections; others do not.
    ///
    /// # Errors
    /// Why it cannot be, in words that hold nothing of a secret.
    pub fn transport(&self, settings: &TransportSettings<'_>) -> Result<Transport, String> {
        self.transports.get(settings)
    }

    /// Sends a request and reads its whole answer, whatever its status.
    ///
    /// # Errors
    /// No answer came, or none within the limits; the error says whether the request may have been processed.
    pub async fn send(
        &self,
        spec: RequestSpec,
        credentials: &Credentials,
        options: &SendOptions,
    ) -> Result<Exchange, Box<Failed>> {
        let started = Instant::now();
        let deadline = started + options.total;
        let mut hop = Hop::first(spec, credentials, options.header_case);
        let pools = options.transport.as_ref().map_or(&self.pools, Transport::pools);
        let pool = pools.of(options.header_case);
        loop {
            let uri = hop.check().and_then(|()| {
                hop.sign(credentials, options.at);
                hop.url.as_str().parse::<Uri>().map_err(|error| format!("its URL: {error}"))
            });
            let mut sent = hop.shown(credentials);
            let fail = |kind, hop: &Hop, sent| {
                let error = SendError::new(kind, hop.host(credentials), hop.redirects);
                Box::new(Failed { error, sent })
            };
            let uri = match uri {
                Ok(uri) => uri,
                Err(reason) => return Err(fail(SendErrorKind::Invalid(reason), &hop, sent)),
            };
            let mut request = Request::new(hop.body.clone());
            *request.method_mut() = hop.method.clone();
            *request.uri_mut() = uri;
            // Only a redirect needs them again, and showing them as HTTP/2 has them.
            let is_last = options.redirects == 0 && hop.case == HeaderCase::Lower;
            *request.headers_mut() = if is_last { std::mem::take(&mut hop.headers) } else { hop.headers.clone() };
            let answer = match wire::send(pool, request, options, deadline).await {
                Ok(answer) => answer,
                Err(kind) => return Err(fail(kind, &hop, sent)),
            };

            if answer.parts.version >= Version::HTTP_2 && hop.case == HeaderCase::Title {
                hop.case = HeaderCase::Lower;
                sent = hop.shown(credentials);
            }
            if options.redirects > 0 {
                let max = options.redirects.min(limits::REDIRECTS_MAX);
                match hop.redirect(&answer.parts, max, options.redirect_scope, credentials) {
                    Ok(Some(next)) => {
                        answer.body.discard().await;
                        hop = next;
                        continue;
                    }
                    Ok(None) => {}
                    Err(reason) => return Err(fail(SendErrorKind::Redirect(reason), &hop, sent)),
                }
            }

            let Answer { parts, mut timings, body } = answer;
            let (status, max) = (parts.status, options.response_max_bytes);
            let body = match body.read(max, options.total, deadline).await {
                Ok(body) => unpack(body, &parts.headers, status, max).await,
                Err(kind) => Err(kind),
            };
            let (body, undecoded) = match body {
                Ok(body) => body,
                Err(kind) => return Err(fail(kind, &hop, sent)),
            };
            timings.total_us = micros(started.elapsed());
            let requests = 1 + u32::from(hop.redirects);
            return Ok(Exchange { sent, status, headers: parts.headers, body, undecoded, timings, requests });
        }
    }
}

/// One request of an exchange: the first, or what a redirect made of it.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
    /// Names that a step set although they are ours.
    refused: Option<HeaderName>,
    redirects: u8,
    /// How names of headers were written, as far as it is known.
    case: HeaderCase,
    /// Whether a redirect has left the origin that the credentials are for.
    has_left: bool,
}

impl Hop {
    fn first(spec: RequestSpec, credentials: &Credentials, case: HeaderCase) -> Self {
        let refused = spec.headers.iter().map(|(name, _)| name).find(|name| OURS.contains(name)).cloned();
        let mut headers = HeaderMap::with_capacity(spec.headers.len() + 4);
        for (name, value) in spec.headers {
            headers.append(name, value);
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        // A part of a packed body cannot be unpacked.
        let accepted = if headers.contains_key(RANGE) { "identity" } else { coding::ACCEPTED };
        headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static(accepted));
        credentials.apply(&mut headers);
        let mut url = spec.url;
        url.set_fragment(None);
        credentials.apply_query(&mut url);
        let mut hop =
            Self { method: spec.method, url, headers, body: spec.body, refused, redirects: 0, case, has_left: false };
        hop.set_length();
        hop
    }

    fn set_length(&mut self) {
        // RFC 9110 section 8.6: methods that define a meaning for a body say so even when it is empty.
        let means_body = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        if !self.body.is_empty() || means_body {
            self.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
    }

    fn sign(&mut self, credentials: &Credentials, at: Option<Timestamp>) {
        if let (Some(at), false) = (at, self.has_left) {
            credentials.sign(&self.method, &self.url, &mut self.headers, &self.body, at);
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(name) = &self.refused {
            return Err(format!("header {name} is set when it is sent; leave it out"));
        }
        if self.method == Method::CONNECT {
            return Err("method CONNECT asks for a tunnel".to_owned());
        }
        check_url(&self.url)
    }

    /// The request that a redirect asks for; nothing when the answer is no redirect.
    fn redirect(
        &self,
        answer: &response::Parts,
        max: u8,
        scope: RedirectScope,
        credentials: &Credentials,
    ) -> Result<Option<Self>, String> {
        let becomes_get = match answer.status {
            // RFC 9110 section 15.4.4: what to look at instead.
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            // Sections 15.4.2 and 15.4.3: what every client came to do.
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return Ok(None),
        };
        let Some(location) = answer.headers.get(LOCATION) else { return Ok(None) };
        if self.redirects >= max {
            return Err(format!("{max} redirects are followed at most"));
        }
        let location = location.to_str().map_err(|_| "its Location is not a URL".to_owned())?;
        let mut url = self.url.join(location).map_err(|error| format!("its Location: {error}"))?;
        url.set_fragment(None);
        check_url(&url)?;
        if self.url.scheme() == "https" && url.scheme() == "http" {
            return Err("it leads from https to http".to_owned());
        }
        let is_same_origin = url.origin() == self.url.origin();
        if scope == RedirectScope::SameOrigin && !is_same_origin {
            return Err("it leads to another origin".to_owned());
        }

        let mut headers = self.headers.clone();
        let has_left = self.has_left || !is_same_origin;
        if !has_left {
            credentials.apply_query(&mut url);
        } else if credentials.shown_url(&url, credentials.masker()) != url.as_str() {
            return Err("it takes a credential of the account to another origin".to_owned());
        }
        if !is_same_origin {
            // Gone for good: a later redirect back does not bring them again.
            let drop: Vec<HeaderName> = headers
                .iter()
                .filter(|(name, value)| is_personal(name, value, credentials))
                .map(|(name, _)| name.clone())
                .collect();
            for name in drop {
                headers.remove(name);
            }
        }
        let mut next = Self {
            method: self.method.clone(),
            url,
            headers,
            body: self.body.clone(),
            refused: None,
            redirects: self.redirects + 1,
            case: self.case,
            has_left,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body = Bytes::new();
            let content: Vec<HeaderName> =
                next.headers.keys().filter(|name| name.as_str().starts_with("content-")).cloned().collect();
            for name in content {
                next.headers.remove(name);
            }
        }
        next.set_length();
        Ok(Some(next))
    }

    fn host(&self, credentials: &Credentials) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let host = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        credentials.masker().mask_text(&host).into_owned()
    }

    fn shown(&self, credentials: &Credentials) -> JsonText {
        shown::request(&self.method, &self.url, &self.headers, &self.body, self.case, credentials)
    }
}

fn is_personal(name: &HeaderName, value: &HeaderValue, credentials: &Credentials) -> bool {
    let holds_secret = || matches!(credentials.masker().mask_bytes(value.as_bytes()), std::borrow::Cow::Owned(_));
    PERSONAL.contains(name) || credentials.carries(name) || value.is_sensitive() || holds_secret()
}

fn check_url(url: &Url) -> Result<(), String> {
    let reason = if !matches!(url.scheme(), "http" | "https") {
        "a URL starts with https:// or http://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "a URL holds no credentials; put them into an account"
    } else if url.host_str().is_none_or(str::is_empty) {
        "its URL has no host"
    } else if url.port() == Some(0) {
        "port 0 cannot be called"
    } else {
        return Ok(());
    };
    Err(reason.to_owned())
}

/// Undoes the content codings of a body; what the header says, when that is nothing that can be undone.
async fn unpack(
    body: Bytes,
    headers: &HeaderMap,
    status: StatusCode,
    max: u64,
) -> Result<(Bytes, Option<String>), SendErrorKind> {
    let codings = match coding::codings(headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes)) {
        // An answer to HEAD, or 304, names the coding of a body that did not come.
        _ if body.is_empty() => return Ok((body, None)),
        Err(undecoded) => return Ok((body, Some(undecoded))),
        Ok(codings) if codings.is_empty() => return Ok((body, None)),
        Ok(codings) => codings,
    };
    let status = status.as_u16();
    // Not among the sockets: what a few bytes unpack to takes its time.
    let unpacked = tokio::task::spawn_blocking(move || coding::unpack(&codings, &body, max)).await;
    match unpacked {
        Ok(Ok(body)) => Ok((body.into(), None)),
        Ok(Err(Unreadable::TooLarge)) => Err(SendErrorKind::TooLarge { status, max }),
        Ok(Err(Unreadable::Broken { coding, reason })) => {
            Err(SendErrorKind::Encoding { status, coding: coding.name(), reason })
        }
        // The runtime is about to end.
        Err(error) => Err(SendErrorKind::Reset { status: Some(status), reason: error.to_string() }),
    }
}
