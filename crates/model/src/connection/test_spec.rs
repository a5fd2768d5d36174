//! Tests of connections as documents write them: which request, and what its answer must be.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use url::Url;

use super::ConnectionSpec;
use crate::fault::Fault;
use crate::reader::Reader;
use crate::request::{Expectation, METHODS, checked_url, join};
use crate::template::Pill;

/// The request that shows whether a connection works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// The method. Default GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path, appended to the base URL; perhaps with a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A whole URL on a host of the connection, in place of a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The statuses that show that it works. Default: every 2xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Vec<ExpectedStatus>>,
    /// An expression over `status`, `headers` and `body` of the answer that must hold besides: `body.ok`, for APIs that
    /// say no with a good status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// An expression over the same that gives what the API says when it does not work: `body.error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A status, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ExpectedStatus {
    /// One status: 200.
    Code(u16),
    /// All of a hundred, `2xx`; from one to another, `200-204`; or one as text.
    Range(String),
}

impl<'de> Deserialize<'de> for ExpectedStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CodeOrRange;

        impl Visitor<'_> for CodeOrRange {
            type Value = ExpectedStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 200, or a range such as 2xx")
            }

            fn visit_u64<E: de::Error>(self, code: u64) -> Result<ExpectedStatus, E> {
                u16::try_from(code)
                    .map(ExpectedStatus::Code)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(code), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ExpectedStatus, E> {
                Ok(ExpectedStatus::Range(text.to_owned()))
            }
        }

        deserializer.deserialize_any(CodeOrRange)
    }
}

impl ExpectedStatus {
    /// The first and the last status of it; `None` when it is neither a status nor a range.
    fn bounds(&self) -> Option<(u16, u16)> {
        let (first, last) = match self {
            Self::Code(code) => (*code, *code),
            Self::Range(text) => match text.trim().to_ascii_lowercase().as_str() {
                text if text.len() == 3 && text.ends_with("xx") => {
                    let hundred = text.get(..1)?.parse::<u16>().ok()? * 100;
                    (hundred, hundred + 99)
                }
                text => {
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    (first.trim().parse().ok()?, last.trim().parse().ok()?)
                }
            },
        };
        (100 <= first && first <= last && last <= 599).then_some((first, last))
    }
}

impl fmt::Display for ExpectedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => code.fmt(f),
            Self::Range(text) => f.write_str(text),
        }
    }
}

impl TestSpec {
    /// The method.
    #[must_use]
    pub fn method(&self) -> http::Method {
        self.method.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Where the request goes.
    ///
    /// # Errors
    /// The path leads out of the base, there is no base for it, or the URL is none.
    pub fn target(&self, base: Option<&Url>) -> Result<Url, String> {
        match (&self.path, &self.url) {
            (Some(path), None) => {
                let base = base.ok_or("a path needs a base_url; give a url")?;
                join(base, path).ok_or_else(|| "the path leads out of the connection's base_url".to_owned())
            }
            (None, Some(url)) => checked_url(url),
            _ => Err("give one of path and url".to_owned()),
        }
    }

    /// Whether this status shows that the connection works.
    #[must_use]
    pub fn expects(&self, status: u16) -> bool {
        match &self.expect {
            None => (200..300).contains(&status),
            Some(expected) => {
                expected.iter().filter_map(ExpectedStatus::bounds).any(|(first, last)| (first..=last).contains(&status))
            }
        }
    }

    /// Whether an answer with an expected status holds what it must.
    ///
    /// # Errors
    /// Why it does not, in the API's own words where `message` gives them.
    pub fn check(&self, status: u16, headers: Value, body: Value) -> Result<(), String> {
        let check = |_: &str, _: &Pill| None;
        let mut reader = Reader::new(&check);
        self.read_answers(&mut reader).check(status, &Arc::new(headers), &Arc::new(body))
    }

    /// What the API says of an answer that does not show that the connection works, in its own words.
    #[must_use]
    pub fn said(&self, status: u16, headers: Value, body: Value) -> Option<String> {
        let check = |_: &str, _: &Pill| None;
        let mut reader = Reader::new(&check);
        self.read_answers(&mut reader).said(status, &Arc::new(headers), &Arc::new(body))
    }

    fn read_answers(&self, reader: &mut Reader) -> Expectation {
        let holds = ("test.holds", self.holds.as_deref());
        Expectation::read(reader, holds, ("test.message", self.message.as_deref()))
    }

    /// The statuses that show that the connection works, in words: `200 or 4xx`.
    #[must_use]
    pub fn expected(&self) -> String {
        match &self.expect {
            None => "2xx".to_owned(),
            Some(expected) => expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
        }
    }

    pub(super) fn faults(&self, connection: &ConnectionSpec) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(method) = &self.method
            && !METHODS.iter().any(|known| known.as_str() == method)
        {
            let words = METHODS.map(|method| method.to_string()).join(", ");
            let reason = format!("`{}` is not a method; use {words}", method.escape_debug());
            faults.push(Fault::new("test.method", reason));
        }
        let check = |_: &str, _: &Pill| None;
        let mut reader = Reader::new(&check);
        self.read_answers(&mut reader);
        faults.extend(reader.into_faults());
        let base = connection.base();
        let field = if self.url.is_some() { "test.url" } else { "test.path" };
        match self.target(base.as_ref()) {
            // Its endpoint's URL is not known here.
            Err(_) if connection.endpoint.is_some() && self.path.is_some() && self.url.is_none() => {}
            Err(reason) if self.path.is_some() == self.url.is_some() => faults.push(Fault::new("test", reason)),
            Err(reason) => faults.push(Fault::new(field, reason)),
            Ok(url) if !connection.admits(base.as_ref(), &url) => {
                faults.push(Fault::new(field, "it is none of the connection's hosts"));
            }
            Ok(_) => {}
        }
        match &self.expect {
            Some(expected) if expected.is_empty() => {
                faults.push(Fault::new("test.expect", "name at least one status, or leave expect out"));
            }
            expected => {
                let wrong = expected.iter().flatten().enumerate().filter(|(_, status)| status.bounds().is_none());
                faults.extend(wrong.map(|(n, status)| {
                    let reason =
                        format!("`{}` is no status; write 200, 2xx or 200-204", status.to_string().escape_debug());
                    Fault::new(format!("test.expect[{n}]"), reason)
                }));
            }
        }
        faults
    }
}
