//! How a connection treats the API that it calls: as documents write it, and the machines that keep to it.
//!
//! The machines are plain values over a time that is given to them: a length of time since some fixed moment of
//! a clock that only goes forward. Whoever holds them locks them.

pub mod breaker;
pub mod budget;
pub mod learned;
pub mod rate;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fault::Fault;
use crate::limits;
use crate::time::Timestamp;
use crate::units::Duration;

/// How many requests a connection sends in a span of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSpec {
    /// Most requests in any span of `per`; at most 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The span: at least 1s, at most 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Duration>,
    /// Whether the connection waits as long as answers ask for (`Retry-After`, `RateLimit`, `X-RateLimit-Reset`).
    /// Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learn: Option<bool>,
}

/// When a connection stops calling an API that is down, and when it looks again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakerSpec {
    /// Failures in a row that open it. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_after: Option<u32>,
    /// How long it stays open before one request tries. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_after: Option<Duration>,
}

/// A breaker, or `none`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BreakerChoice {
    /// The word `none`: no breaker.
    Off(Off),
    /// One with these settings.
    Settings(BreakerSpec),
}

/// The word that switches something off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Off {
    /// `none`.
    #[serde(rename = "none")]
    None,
}

impl<'de> Deserialize<'de> for BreakerChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = BreakerChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("none or {open_after: …, probe_after: …}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BreakerChoice, E> {
                if text == "none" {
                    return Ok(BreakerChoice::Off(Off::None));
                }
                Err(E::custom(format_args!("`{text}` is no breaker; write none or {{open_after: …, probe_after: …}}")))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BreakerChoice, A::Error> {
                BreakerSpec::deserialize(de::value::MapAccessDeserializer::new(map)).map(BreakerChoice::Settings)
            }
        }

        deserializer.deserialize_any(Choice)
    }
}

/// When steps are tried again. In a connection for all of its steps; in a step in place of the connection's, field
/// by field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrySpec {
    /// Most attempts, the first included. Default 5, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    /// Time within which they happen. Default 15m, at most 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
    /// The waits between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffSpec>,
    /// The statuses that are tried again, where repeating does no harm: 400 to 599, or a class such as `5xx`.
    /// Default 408, 425, 429, 5xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Vec<Statuses>>,
    /// Most retries as a share of the connection's requests; `none` for no such bound. Of a connection only. Default
    /// 20%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudget>,
}

/// The waits between attempts: random, up to a bound that doubles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackoffSpec {
    /// The bound of the first wait. Default 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Duration>,
    /// The bound of the longest. Default 5m, at most 6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Duration>,
}

/// One status, or a whole class of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statuses {
    /// This one.
    One(u16),
    /// All of a class: 5 for `5xx`.
    Class(u16),
}

impl Statuses {
    /// Whether `status` is among them.
    #[must_use]
    pub const fn contains(self, status: u16) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(class) => status / 100 == class,
        }
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(status) => serializer.serialize_u16(*status),
            Self::Class(class) => serializer.collect_str(&format_args!("{class}xx")),
        }
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrClass;

        impl Visitor<'_> for OneOrClass {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status from 400 to 599, 4xx or 5xx")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Statuses, E> {
                match u16::try_from(number) {
                    Ok(status @ 400..=599) => Ok(Statuses::One(status)),
                    _ => Err(E::custom(format_args!("{number} is not a status from 400 to 599"))),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
                match text {
                    "4xx" => Ok(Statuses::Class(4)),
                    "5xx" => Ok(Statuses::Class(5)),
                    _ => Err(E::custom(format_args!("`{text}` is not 4xx, 5xx or a status from 400 to 599"))),
                }
            }
        }

        deserializer.deserialize_any(OneOrClass)
    }
}

/// Most retries, as a share of the requests of a connection: `20%`; or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryBudget {
    /// No bound.
    None,
    /// This many in a hundred.
    Percent(u8),
}

impl fmt::Display for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for RetryBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let percent = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        match percent.and_then(|digits| digits.parse().ok()) {
            Some(percent @ 1..=100) => Ok(Self::Percent(percent)),
            _ => Err(format!("`{text}` is not a budget; write 1% to 100%, or none")),
        }
    }
}

impl Serialize for RetryBudget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RetryBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl RateSpec {
    /// Everything that is wrong with it, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.limit.is_some() != self.per.is_some() {
            faults.push(Fault::new("rate", "give limit and per together"));
        }
        if self.limit.is_some_and(|limit| limit == 0 || limit > limits::RATE_LIMIT_MAX) {
            faults.push(Fault::new("rate.limit", "a limit is between 1 and 100000"));
        }
        let (least, most) = limits::RATE_PER;
        if self.per.is_some_and(|per| per.get() < least || per.get() > most) {
            faults.push(Fault::new("rate.per", "a span is between 1s and 24h"));
        }
        faults
    }
}

impl BreakerChoice {
    /// Everything that is wrong with it, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let Self::Settings(breaker) = self else { return Vec::new() };
        let mut faults = Vec::new();
        if breaker.open_after.is_some_and(|failures| failures == 0 || failures > 10_000) {
            faults.push(Fault::new("breaker.open_after", "between 1 and 10000 failures open a breaker"));
        }
        let (least, most) = limits::PROBE_AFTER;
        if breaker.probe_after.is_some_and(|after| after.get() < least || after.get() > most) {
            faults.push(Fault::new("breaker.probe_after", "a breaker probes after 100ms to 6h"));
        }
        faults
    }
}

impl RetrySpec {
    /// Everything that is wrong with it, paths relative to where it stands.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.tries.is_some_and(|tries| tries == 0 || tries > limits::STEP_ATTEMPTS_MAX) {
            faults.push(Fault::new("retry.tries", "a step makes between 1 and 20 attempts"));
        }
        if self.within.is_some_and(|within| within.get() > limits::STEP_WINDOW_MAX) {
            faults.push(Fault::new("retry.within", "attempts happen within at most 24h"));
        }
        let backoff = self.backoff.clone().unwrap_or_default();
        let from = backoff.from.map_or(limits::BACKOFF_FROM, Duration::get);
        let to = backoff.to.map_or_else(|| limits::BACKOFF_TO.max(from), Duration::get);
        if from.is_zero() || to < from || to > limits::BACKOFF_MAX {
            faults.push(Fault::new(
                "retry.backoff",
                "waits go from at least 1ms to at most 6h, and to is no less than from",
            ));
        }
        faults
    }
}

/// What a connection keeps to, defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficSettings {
    /// Tells the server that is called from others: what one asked for says nothing of another.
    pub target: u64,
    /// Most requests, in any span of this length.
    pub rate: Option<(u32, std::time::Duration)>,
    /// Whether it waits as long as answers ask for.
    pub learn: bool,
    /// Most requests under way.
    pub concurrency: Option<u32>,
    /// Failures in a row that open the breaker, and how long until it probes.
    pub breaker: Option<(u32, std::time::Duration)>,
    /// Most retries in a hundred requests.
    pub budget: Option<u8>,
}

impl TrafficSettings {
    /// What the parts of a document say.
    #[must_use]
    pub fn new(
        rate: Option<&RateSpec>,
        concurrency: Option<u32>,
        breaker: Option<&BreakerChoice>,
        budget: Option<RetryBudget>,
    ) -> Self {
        let breaker = match breaker {
            Some(BreakerChoice::Off(Off::None)) => None,
            Some(BreakerChoice::Settings(spec)) => Some((
                spec.open_after.unwrap_or(limits::BREAKER_OPEN_AFTER),
                spec.probe_after.map_or(limits::BREAKER_PROBE_AFTER, Duration::get),
            )),
            None => Some((limits::BREAKER_OPEN_AFTER, limits::BREAKER_PROBE_AFTER)),
        };
        Self {
            target: 0,
            rate: rate.and_then(|rate| Some((rate.limit?, rate.per?.get()))),
            learn: rate.and_then(|rate| rate.learn).unwrap_or(true),
            concurrency,
            breaker,
            budget: match budget {
                Some(RetryBudget::None) => None,
                Some(RetryBudget::Percent(percent)) => Some(percent),
                None => Some(limits::RETRY_BUDGET_PERCENT),
            },
        }
    }
}

/// How a connection's traffic stands, as its status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrafficStatus {
    /// `closed`, `open`, `probing`, or `none`.
    pub breaker: String,
    /// Failures in a row.
    pub failures: u32,
    /// What failed last, while failures are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// When an open breaker lets one request try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_at: Option<Timestamp>,
    /// Until when the API asked to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_until: Option<Timestamp>,
    /// The header that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_by: Option<String>,
    /// Requests under way.
    pub in_flight: u32,
    /// Requests that wait here for their turn; jobs that were put off are not among them.
    pub waiting: u32,
    /// Requests within the span of the rate that ends now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_used: Option<u32>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn choices_are_read_and_written_as_people_write_them() {
        for text in [
            json!({"tries": 3, "within": "5m", "backoff": {"from": "100ms", "to": "2s"}, "statuses": [409, "5xx"], "budget": "20%"}),
            json!({"budget": "none"}),
        ] {
            let read: RetrySpec = serde_json::from_value(text.clone()).unwrap();
            assert_eq!((serde_json::to_value(&read).unwrap(), read.faults()), (text, Vec::new()));
        }
        for text in [json!("none"), json!({"open_after": 3, "probe_after": "5s"})] {
            let read: BreakerChoice = serde_json::from_value(text.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), text);
        }
        for wrong in ["0%", "101%", "20", "%", "+5%", "off"] {
            assert!(wrong.parse::<RetryBudget>().is_err(), "{wrong}");
        }
        for wrong in [json!([200]), json!(["3xx"]), json!([600]), json!([true])] {
            assert!(serde_json::from_value::<RetrySpec>(json!({"statuses": wrong})).is_err());
        }
        assert!(serde_json::from_value::<BreakerChoice>(json!("off")).is_err());
    }

    #[test]
    fn what_cannot_be_kept_is_a_fault() {
        let paths = |faults: Vec<Fault>| faults.into_iter().map(|fault| fault.path).collect::<Vec<_>>();
        let rate = |text| serde_json::from_value::<RateSpec>(text).unwrap().faults();
        assert_eq!(paths(rate(json!({"limit": 5}))), ["rate"]);
        assert_eq!(paths(rate(json!({"limit": 0, "per": "1ms"}))), ["rate.limit", "rate.per"]);
        assert_eq!(paths(rate(json!({"learn": false}))), [""; 0]);
        let retry = |text| serde_json::from_value::<RetrySpec>(text).unwrap().faults();
        assert_eq!(paths(retry(json!({"tries": 0, "within": "2d"}))), ["retry.tries", "retry.within"]);
        assert_eq!(paths(retry(json!({"backoff": {"from": "10s", "to": "1s"}}))), ["retry.backoff"]);
        assert_eq!(paths(retry(json!({"backoff": {"from": "10m"}}))), [""; 0]);
    }
}
