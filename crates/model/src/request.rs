//! Requests: as documents write them, with their templates read, made of data, and what came of them.
//!
//! Rendering a path gives a request that stays below the connection's base URL and on its origin.

mod body;
mod compile;
mod fields;
pub mod multipart;
mod plan;
mod render;
mod step;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

pub(crate) use self::body::JsonTemplate;
pub use self::compile::CompiledRequest;
pub(crate) use self::compile::{METHODS, WIRE_HEADERS, checked_url};
pub(crate) use self::plan::Expectation;
pub use self::plan::{AnswerFault, RequestPlan, shortened};
pub use self::render::RenderFault;
pub(crate) use self::render::join;
pub use self::step::{Base64Spec, Effect, PartSpec, RawSpec, RequestStep, ResponseFormat};

/// A request with nothing left to render: what `outbound` sends.
#[derive(Debug, Clone)]
pub struct RequestSpec {
    /// The method.
    pub method: http::Method,
    /// The whole URL, without credentials and fragment.
    pub url: Url,
    /// Headers in order. Host, Content-Length and credentials are added when sending.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// The body; empty for none.
    pub body: Bytes,
}

/// How long the stages of an exchange took, in microseconds. A stage that did not happen (a reused
/// connection, a literal address) is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// Looking the name up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_us: Option<u64>,
    /// Connecting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    /// The TLS handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_us: Option<u64>,
    /// From sending the request to the first byte of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_us: Option<u64>,
    /// The whole exchange.
    pub total_us: u64,
}

#[cfg(test)]
mod tests;
