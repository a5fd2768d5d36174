//! The command line's way to the operator API.
//!
//! The one client without the address guard, because the operator names the address on the command line, and our
//! own operator port is just what the guard never opens. For nothing else.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use linkspan_model::connection::HeaderCase;
use linkspan_model::secret::SecretBytes;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use crate::client::{AGENT, SendOptions};
use crate::connector::{Connector, Guard, Resolver};
use crate::error::{SendError, SendErrorKind};
use crate::pool::Pool;
use crate::tls::Roots;
use crate::wire::{self, Answer};

/// Longest answer, in bytes: an event of 64 MiB in base64, and some.
const ANSWER_MAX_BYTES: u64 = 96 << 20;

/// A client of one server's operator API. Redirects are not followed: they are answers.
#[derive(Debug, Clone)]
pub struct OperatorClient {
    pool: Pool,
    base: Url,
    authorization: Option<HeaderValue>,
    total: Duration,
}

impl OperatorClient {
    /// A client of the API at `base`, with a bearer token, each call taking at most `total`.
    ///
    /// # Errors
    /// The base is no http or https URL, or the token cannot be sent.
    pub fn new(base: &str, token: Option<&SecretBytes>, total: Duration) -> Result<Self, OperatorError> {
        let base = Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty())
            .filter(|url| url.password().is_none() && url.query().is_none() && url.fragment().is_none())
            .ok_or(OperatorError::Base)?;
        let authorization = token.map(bearer).transpose()?;
        let pool = Pool::new(Connector::new(Guard::Open, Resolver::System, Roots::system()), HeaderCase::Lower);
        Ok(Self { pool, base, authorization, total })
    }

    /// GET.
    ///
    /// # Errors
    /// The server cannot be reached, or gave no usable answer.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, HeaderMap, Bytes), OperatorError> {
        self.call(Method::GET, path, None).await
    }

    /// POST, with a JSON body.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub async fn post(&self, path: &str, body: Option<Value>) -> Result<(StatusCode, HeaderMap, Bytes), OperatorError> {
        self.call(Method::POST, path, json(body)).await
    }

    /// PUT, with a JSON body.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub async fn put(&self, path: &str, body: Option<Value>) -> Result<(StatusCode, HeaderMap, Bytes), OperatorError> {
        self.call(Method::PUT, path, json(body)).await
    }

    /// PATCH, with a JSON body.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub async fn patch(
        &self,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), OperatorError> {
        self.call(Method::PATCH, path, json(body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub async fn delete(&self, path: &str) -> Result<(StatusCode, HeaderMap, Bytes), OperatorError> {
        self.call(Method::DELETE, path, None).await
    }

    /// Any method, with any body and its content type; `path` begins with a slash and may have a query.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(HeaderValue, Bytes)>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), OperatorError> {
        let deadline = Instant::now() + self.total;
        let Answer { parts, body, .. } = self.ask(method, path, body, deadline).await?;
        let body = body.read(ANSWER_MAX_BYTES, self.total, deadline).await.map_err(|kind| self.fail(kind))?;
        Ok((parts.status, parts.headers, body))
    }

    /// POST, with a JSON body, for an answer that comes in pieces as long as it lasts: each is handed to `take`, and
    /// none may take longer than a whole call. An answer that is an error is given back whole instead.
    ///
    /// # Errors
    /// See [`Self::get`]; also when the answer breaks off.
    pub async fn stream(
        &self,
        path: &str,
        body: Value,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(StatusCode, HeaderMap, Bytes), OperatorError> {
        let deadline = Instant::now() + self.total;
        let Answer { parts, mut body, .. } = self.ask(Method::POST, path, json(Some(body)), deadline).await?;
        if !parts.status.is_success() {
            let body = body.read(ANSWER_MAX_BYTES, self.total, deadline).await.map_err(|kind| self.fail(kind))?;
            return Ok((parts.status, parts.headers, body));
        }
        while let Some(piece) = body.next_piece(self.total).await.map_err(|kind| self.fail(kind))? {
            take(&piece);
        }
        Ok((parts.status, parts.headers, Bytes::new()))
    }

    /// Sends a request and waits for the head of its answer.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(HeaderValue, Bytes)>,
        deadline: Instant,
    ) -> Result<Answer, OperatorError> {
        let uri = self.uri(path)?;
        let (content_type, body) = body.unzip();
        let mut request = Request::new(body.unwrap_or_default());
        *request.uri_mut() = uri;
        let size = request.body().len();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        if size > 0 || [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        }
        *request.method_mut() = method;

        // A call that applies or waits is silent until it is done: only the whole has a limit.
        let options = SendOptions { first_byte: self.total, total: self.total, ..SendOptions::default() };
        wire::send(&self.pool, request, &options, deadline).await.map_err(|kind| self.fail(kind))
    }

    fn uri(&self, path: &str) -> Result<Uri, OperatorError> {
        let url = Url::parse(&format!("{}{path}", self.base.as_str().trim_end_matches('/')));
        let url = url.ok().filter(|url| path.starts_with('/') && url.origin() == self.base.origin());
        url.and_then(|url| url.as_str().parse().ok()).ok_or(OperatorError::Path)
    }

    fn fail(&self, kind: SendErrorKind) -> OperatorError {
        let base = self.base.as_str().trim_end_matches('/').to_owned();
        match kind {
            SendErrorKind::Connect(reason) | SendErrorKind::Dns(reason) => {
                // The address stands in the base; the reason's own only repeats it.
                let reason = reason.split(" (").next().unwrap_or_default().to_owned();
                OperatorError::Unreachable { base, reason }
            }
            kind => OperatorError::NoAnswer(Box::new(SendError::new(kind, base, 0))),
        }
    }
}

/// Why a call got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperatorError {
    /// The base is not usable.
    #[error("the server's address is a URL such as http://127.0.0.1:8081")]
    Base,
    /// The token is not usable.
    #[error("the token holds characters that cannot be sent; paste it again")]
    Token,
    /// The path is not usable.
    #[error("a path begins with a slash")]
    Path,
    /// Nobody listens there.
    #[error("cannot reach {base}: {reason}; is `linkspan serve` running?")]
    Unreachable {
        /// The server's address.
        base: String,
        /// What the network said.
        reason: String,
    },
    /// The call began and got no usable answer.
    #[error("{0}")]
    NoAnswer(Box<SendError>),
}

fn json(body: Option<Value>) -> Option<(HeaderValue, Bytes)> {
    body.map(|body| (HeaderValue::from_static("application/json"), Bytes::from(body.to_string())))
}

fn bearer(token: &SecretBytes) -> Result<HeaderValue, OperatorError> {
    let value = [b"Bearer ", token.expose().trim_ascii()].concat();
    let mut value = HeaderValue::from_bytes(&value).map_err(|_| OperatorError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}
