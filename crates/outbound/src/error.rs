//! Why an exchange failed: in words for people, and classified for those who decide about another attempt.
//!
//! Guarantees that no text holds a path, a query, a header's value or a body: only the host, which was masked.

use std::fmt;
use std::time::Duration;

use linkspan_model::job::StepError;
use linkspan_model::request::Timings;

use crate::policy::Refused;
use crate::progress::Stage;
use crate::proxy::ProxyError;

/// Whether the request reached the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// Nothing was sent: repeating it is always safe.
    No,
    /// It was sent, at least in part, and no answer came: it may have been processed.
    Maybe,
    /// An answer came, but not one that can be used.
    Yes,
}

/// A request that got no usable answer.
#[derive(Debug, Clone)]
pub struct SendError {
    /// What happened.
    pub kind: SendErrorKind,
    host: String,
    redirects: u8,
}

/// What can happen to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The request cannot be sent as it is.
    Invalid(String),
    /// The guard did not let its address pass.
    Refused(Refused),
    /// The name could not be looked up.
    Dns(String),
    /// No connection.
    Connect(String),
    /// No TLS on the connection.
    Tls(String),
    /// The proxy gave no way to the host.
    Proxy(ProxyError),
    /// The connection was closed before the request was written to it.
    NotSent,
    /// A time was over.
    Timeout(Timeout),
    /// The connection was closed or reset: before the answer's head, or within its body.
    Reset {
        /// The answer's status, when its head came.
        status: Option<u16>,
        /// What the connection said.
        reason: String,
    },
    /// What came is not HTTP.
    Malformed {
        /// The answer's status, when its head came.
        status: Option<u16>,
        /// What the parser said.
        reason: String,
    },
    /// The answer's body is not packed in the way that its header says, or not whole.
    Encoding {
        /// The answer's status.
        status: u16,
        /// The content coding: `gzip`, `br`.
        coding: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer's body is longer than allowed, as received or unpacked.
    TooLarge {
        /// The answer's status.
        status: u16,
        /// The limit in bytes.
        max: u64,
    },
    /// A redirect that is not followed.
    Redirect(String),
}

/// A time that was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// What was being waited for.
    pub stage: Stage,
    /// The limit that was reached: of the stage, or of the whole exchange.
    pub after: Duration,
    /// Whether the request was handed to a connection.
    pub bytes_sent: bool,
    /// The answer's status, when its head came.
    pub status: Option<u16>,
    /// The times until then.
    pub timings: Timings,
}

impl SendError {
    pub(crate) fn new(kind: SendErrorKind, host: String, redirects: u8) -> Self {
        Self { kind, host, redirects }
    }

    /// The dotted slug.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match &self.kind {
            SendErrorKind::Invalid(_) | SendErrorKind::Refused(_) => "outbound.refused",
            SendErrorKind::Proxy(error) if error.is_refused() => "outbound.refused",
            SendErrorKind::Proxy(_) => "outbound.proxy",
            SendErrorKind::Dns(_) => "outbound.dns",
            SendErrorKind::Connect(_) => "outbound.connect",
            SendErrorKind::Tls(_) => "outbound.tls",
            SendErrorKind::Timeout(_) => "outbound.timeout",
            SendErrorKind::NotSent | SendErrorKind::Reset { .. } => "outbound.reset",
            SendErrorKind::Malformed { .. } => "outbound.protocol",
            SendErrorKind::Encoding { .. } => "outbound.encoding",
            SendErrorKind::TooLarge { .. } => "outbound.too_large",
            SendErrorKind::Redirect(_) => "outbound.redirect",
        }
    }

    /// Whether the request reached the other side.
    #[must_use]
    pub fn reached(&self) -> Reached {
        // A redirect is an answer: what it answered may be done.
        if self.redirects > 0 {
            return Reached::Yes;
        }
        match &self.kind {
            SendErrorKind::Invalid(_)
            | SendErrorKind::Refused(_)
            | SendErrorKind::Dns(_)
            | SendErrorKind::Connect(_)
            | SendErrorKind::Tls(_)
            | SendErrorKind::Proxy(_)
            | SendErrorKind::NotSent => Reached::No,
            SendErrorKind::Timeout(timeout) if !timeout.bytes_sent => Reached::No,
            SendErrorKind::Timeout(Timeout { status, .. })
            | SendErrorKind::Reset { status, .. }
            | SendErrorKind::Malformed { status, .. } => status.map_or(Reached::Maybe, |_| Reached::Yes),
            SendErrorKind::Encoding { .. } | SendErrorKind::TooLarge { .. } | SendErrorKind::Redirect(_) => {
                Reached::Yes
            }
        }
    }

    /// Whether another attempt could end differently, provided that repeating the request is safe.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match &self.kind {
            SendErrorKind::Proxy(error) => error.is_transient(),
            SendErrorKind::Dns(_)
            | SendErrorKind::Connect(_)
            | SendErrorKind::Tls(_)
            | SendErrorKind::NotSent
            | SendErrorKind::Timeout(_)
            | SendErrorKind::Reset { .. }
            | SendErrorKind::Malformed { .. }
            | SendErrorKind::Encoding { .. } => true,
            SendErrorKind::Invalid(_)
            | SendErrorKind::Refused(_)
            | SendErrorKind::TooLarge { .. }
            | SendErrorKind::Redirect(_) => false,
        }
    }

    /// Whether the other side could not be reached or did not answer in time: when a connection's own timeout
    /// message is due.
    #[must_use]
    pub fn is_unreachable_or_timeout(&self) -> bool {
        match &self.kind {
            SendErrorKind::Proxy(error) => error.is_transient(),
            kind => matches!(
                kind,
                SendErrorKind::Dns(_) | SendErrorKind::Connect(_) | SendErrorKind::NotSent | SendErrorKind::Timeout(_)
            ),
        }
    }

    /// What happened and what to do, in one sentence.
    #[must_use]
    pub fn description(&self) -> String {
        self.to_string()
    }

    /// The same for a job.
    #[must_use]
    pub fn step_error(&self) -> StepError {
        StepError {
            code: self.code().to_owned(),
            description: self.description(),
            field: None,
            outcome_unknown: Some(self.reached() != Reached::No),
        }
    }
}

impl std::error::Error for SendError {}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match &self.kind {
            SendErrorKind::Invalid(reason) if host.is_empty() => write!(f, "the request cannot be sent: {reason}")?,
            SendErrorKind::Invalid(reason) => write!(f, "the request to {host} cannot be sent: {reason}")?,
            SendErrorKind::Refused(refused) => write!(f, "{host} is not called: {refused}")?,
            SendErrorKind::Dns(reason) => write!(f, "cannot look up {host}: {reason}")?,
            SendErrorKind::Connect(reason) => write!(f, "cannot connect to {host}: {reason}")?,
            SendErrorKind::Tls(reason) => write!(f, "cannot set up TLS with {host}: {reason}")?,
            SendErrorKind::Proxy(error) if error.is_refused() => write!(f, "{host} is not called: {error}")?,
            SendErrorKind::Proxy(error) => write!(f, "cannot reach {host}: {error}")?,
            SendErrorKind::NotSent => write!(f, "{host} closed the connection")?,
            SendErrorKind::Timeout(timeout) => fmt_timeout(timeout, host, f)?,
            SendErrorKind::Reset { status: None, reason } => write!(f, "no answer from {host}: {reason}")?,
            SendErrorKind::Reset { reason, .. } => write!(f, "the answer from {host} broke off: {reason}")?,
            SendErrorKind::Malformed { reason, .. } => write!(f, "the answer from {host} is not valid HTTP: {reason}")?,
            SendErrorKind::Encoding { coding, reason, .. } => {
                write!(f, "the answer from {host} cannot be unpacked as {coding}: {reason}")?;
            }
            SendErrorKind::TooLarge { max, .. } => {
                write!(f, "the answer from {host} is longer than its limit of {} bytes", grouped(u128::from(*max)))?;
            }
            SendErrorKind::Redirect(reason) => write!(f, "a redirect of {host} is not followed: {reason}")?,
        }
        match self.redirects {
            0 => {}
            1 => f.write_str(" (after 1 redirect)")?,
            more => write!(f, " (after {more} redirects)")?,
        }
        match self.reached() {
            Reached::No if self.code() == "outbound.refused" => Ok(()),
            Reached::No => f.write_str("; nothing was sent"),
            Reached::Maybe => f.write_str("; the request may have been processed, retry only if it is safe to repeat"),
            Reached::Yes => match self.status() {
                Some(status) => {
                    write!(f, "; the request was answered with status {status}, retry only if it is safe to repeat")
                }
                None => f.write_str("; the request was answered, retry only if it is safe to repeat"),
            },
        }
    }
}

impl SendError {
    /// The status of the answer, when its head came.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &self.kind {
            SendErrorKind::Timeout(Timeout { status, .. })
            | SendErrorKind::Reset { status, .. }
            | SendErrorKind::Malformed { status, .. } => *status,
            SendErrorKind::Encoding { status, .. } | SendErrorKind::TooLarge { status, .. } => Some(*status),
            _ => None,
        }
    }
}

fn fmt_timeout(timeout: &Timeout, host: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let what = match (timeout.bytes_sent, timeout.status) {
        (false, _) => "no connection to",
        (true, None) => "no answer from",
        (true, Some(_)) => "no whole answer from",
    };
    write!(f, "{what} {host} within {} ms (", grouped(timeout.after.as_millis()))?;
    let took = |us: u64| grouped(u128::from(us.div_ceil(1_000)));
    if let Some(us) = timeout.timings.connect_us {
        write!(f, "connected in {} ms, ", took(us))?;
    } else if let Some(us) = timeout.timings.dns_us {
        write!(f, "name looked up in {} ms, ", took(us))?;
    }
    f.write_str(match timeout.stage {
        Stage::Dns => "looking the name up",
        Stage::Connect => "connecting",
        Stage::Proxy => "waiting for the proxy",
        Stage::Tls => "waiting for the TLS handshake",
        Stage::Send => "sending the body",
        Stage::FirstByte => "waiting for headers",
        Stage::Body => "reading the body",
    })?;
    f.write_str(")")
}

/// 30000 as 30,000.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(stage: Stage, bytes_sent: bool, status: Option<u16>) -> SendError {
        let timings = Timings { connect_us: Some(11_400), ..Timings::default() };
        let timeout = Timeout { stage, after: Duration::from_secs(30), bytes_sent, status, timings };
        SendError::new(SendErrorKind::Timeout(timeout), "api.example.com".to_owned(), 0)
    }

    #[test]
    fn a_timeout_says_where_it_was_and_what_is_known() {
        let error = timeout(Stage::FirstByte, true, None);
        assert_eq!(
            error.description(),
            "no answer from api.example.com within 30,000 ms (connected in 12 ms, waiting for headers); the request \
             may have been processed, retry only if it is safe to repeat"
        );
        assert_eq!((error.code(), error.reached()), ("outbound.timeout", Reached::Maybe));
        let error = timeout(Stage::Tls, false, None);
        assert_eq!(
            error.description(),
            "no connection to api.example.com within 30,000 ms (connected in 12 ms, waiting for the TLS handshake); \
             nothing was sent"
        );
        assert_eq!(error.reached(), Reached::No);
        let error = timeout(Stage::Body, true, Some(200));
        assert_eq!(
            error.description(),
            "no whole answer from api.example.com within 30,000 ms (connected in 12 ms, reading the body); the request \
             was answered with status 200, retry only if it is safe to repeat"
        );
        assert_eq!(error.step_error().outcome_unknown, Some(true));
    }

    #[test]
    fn after_a_redirect_nothing_counts_as_unsent() {
        let error = SendError::new(SendErrorKind::Connect("connection refused".to_owned()), "a.test".to_owned(), 1);
        assert_eq!(error.reached(), Reached::Yes);
        assert!(error.description().starts_with("cannot connect to a.test: connection refused (after 1 redirect); "));
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (10_485_760, "10,485,760")] {
            assert_eq!(grouped(number), text);
        }
    }
}
