//! Errors that a caller sees: `{"error": {"code", "description"}}`, with details beside them where they help.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use linkspan_model::Fault;
use linkspan_store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// An error with its status.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status code.
    pub status: StatusCode,
    /// Dotted slug; its page is docs/errors/CODE.md.
    pub code: &'static str,
    /// What happened and what to do.
    pub description: String,
    /// Every fault of documents.
    pub faults: Vec<Fault>,
    /// When to try again, in seconds.
    pub retry_after: Option<u64>,
}

/// The body of an error.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ErrorDetail {
    /// Dotted slug.
    pub code: String,
    /// What happened and what to do.
    pub description: String,
    /// Every fault of the documents that were sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

impl Problem {
    /// A problem without details.
    pub fn new(status: StatusCode, code: &'static str, description: impl Into<String>) -> Self {
        Self { status, code, description: description.into(), faults: Vec::new(), retry_after: None }
    }

    /// 503 with a time to try again.
    pub fn unavailable(code: &'static str, description: impl Into<String>, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, description) }
    }

    /// 404 for something that does not exist.
    pub fn not_found(description: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "resource.not_found", description)
    }

    /// The two-field error as JSON, with faults where there are any.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut error = json!({"code": self.code, "description": self.description});
        if !self.faults.is_empty() {
            error["faults"] = serde_json::to_value(&self.faults).unwrap_or_default();
        }
        serde_json::to_vec(&json!({"error": error})).unwrap_or_default()
    }

    /// The whole answer.
    #[must_use]
    pub fn respond(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let challenge: Option<(HeaderName, &str)> = match self.status {
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::METHOD_NOT_ALLOWED => None,
            _ => None,
        };
        if let Some((name, value)) = challenge {
            headers.insert(name, HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("Bearer")));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Overloaded => Self::unavailable("store.overloaded", "the server is busy; try again shortly", 5),
            StoreError::Deadline => {
                Self::unavailable("store.deadline", "the event was not stored in time; send it again", 5)
            }
            StoreError::DiskFull => {
                Self::unavailable("store.disk_full", "the server has no room; nothing was stored, try again later", 60)
            }
            StoreError::Busy => {
                Self::unavailable("store.busy", "another process holds the database; try again shortly", 5)
            }
            StoreError::Poisoned => {
                Self::unavailable("store.stopped", "the server is restarting; nothing was stored, try again", 10)
            }
            StoreError::NotFound(what) => Self::not_found(format!("{what} does not exist")),
            StoreError::Conflict(what) => Self::new(StatusCode::CONFLICT, "resource.conflict", what),
            StoreError::Revision { expected, current } => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "resource.revision",
                format!("somebody changed it: its revision is {current}, not {expected}; read it again and retry"),
            ),
            StoreError::Invalid(faults) => Self::invalid(faults),
            StoreError::Fenced => Self::new(StatusCode::CONFLICT, "job.lease_lost", "another worker has the job"),
            StoreError::Unusable(reason) | StoreError::Database(reason) => {
                tracing::error!(reason, "an operation on the store failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server.internal", "the server failed; its log says why")
            }
        }
    }
}

impl Problem {
    /// 422 with every fault.
    #[must_use]
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let description = match faults.as_slice() {
            [only] => only.to_string(),
            many => format!("{} faults; nothing was changed", many.len()),
        };
        Self { faults, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "document.invalid", description) }
    }
}

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        self.respond().map(axum::body::Body::new)
    }
}
