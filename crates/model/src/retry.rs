//! Whether and when a step is tried again.
//!
//! Unless connection or step say otherwise: up to five attempts within 15 minutes; the waits double from 1 s, never
//! above 5 min, with full jitter. What may have been processed is repeated only where repeating does no harm: a write is tried again when nothing was sent, or
//! when the answer itself says that it was not processed (408, 425, 429, 503). A server that names a time
//! (`Retry-After`) is given it, up to 6 hours: that wait is its wish and may lie beyond our 15 minutes, which
//! bound only the attempts that we time ourselves.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::limits;
use crate::request::Effect;
use crate::time::Timestamp;
use crate::traffic::{BackoffSpec, RetrySpec, Statuses};
use crate::units;

/// Shortest wait on a server's word: less would be no wait at all.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Longest wait on a server's word.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3_600);

/// What came of an attempt that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Name look-up, connection or TLS failed: nothing was sent.
    NotSent,
    /// At least a part was sent, and no answer came in time.
    SentNoAnswer,
    /// An answer with this status came.
    Status {
        /// The status code.
        code: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// An answer came that cannot be used: too large, cut off, not of the format that the step wants.
    BadAnswer,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after this time.
    After(Duration),
    /// The step has failed.
    GiveUp(Reason),
}

/// Why a step is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The answer is final: the same request would get it again.
    #[error("the answer is final")]
    Final,
    /// The request may have been processed, and repeating it may do it twice.
    #[error("the request may have been processed, and repeating it may do it twice")]
    OutcomeUnknown,
    /// This many attempts were made, as many as are allowed.
    #[error("attempts made: {0}, as many as are allowed")]
    Attempts(u32),
    /// The next attempt would be later after the first than this.
    #[error("the next attempt would be more than {0} after the first")]
    Window(units::Duration),
    /// The server asks to wait longer than 6 hours.
    #[error("the server asks to wait longer than {} hours", RETRY_AFTER_MAX.as_secs() / 3_600)]
    WaitTooLong,
}

/// When a step is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy<'a> {
    /// Most attempts, the first included.
    pub tries: u32,
    /// Time within which they happen.
    pub within: Duration,
    /// Bound of the first wait; each further one is twice as long.
    pub from: Duration,
    /// Longest bound of a wait.
    pub to: Duration,
    /// Statuses that are tried again, where repeating does no harm.
    pub statuses: &'a [Statuses],
}

/// The statuses that are tried again by default.
const STATUSES: &[Statuses] = &[Statuses::One(408), Statuses::One(425), Statuses::One(429), Statuses::Class(5)];

impl Default for RetryPolicy<'_> {
    fn default() -> Self {
        Self {
            tries: limits::STEP_ATTEMPTS,
            within: limits::STEP_WINDOW,
            from: limits::BACKOFF_FROM,
            to: limits::BACKOFF_TO,
            statuses: STATUSES,
        }
    }
}

impl<'a> RetryPolicy<'a> {
    /// What the step says, where it says nothing the connection, where that says nothing the defaults.
    #[must_use]
    pub fn new(connection: Option<&'a RetrySpec>, step: Option<&'a RetrySpec>) -> Self {
        let mut policy = Self::default();
        for spec in [connection, step].into_iter().flatten() {
            let BackoffSpec { from, to } = spec.backoff.clone().unwrap_or_default();
            policy.tries = spec.tries.unwrap_or(policy.tries);
            policy.within = spec.within.map_or(policy.within, units::Duration::get);
            policy.from = from.map_or(policy.from, units::Duration::get);
            policy.to = to.map_or(policy.to, units::Duration::get).max(policy.from);
            policy.statuses = spec.statuses.as_deref().unwrap_or(policy.statuses);
        }
        policy
    }
}

/// The attempts of a step so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// How many were made, the one that just ended included.
    pub made: u32,
    /// When the first one began.
    pub first_at: Timestamp,
}

/// Decides after an attempt that did not succeed; `jitter` is random, from 0 up to 1.
#[must_use]
pub fn decide(
    policy: &RetryPolicy<'_>,
    effect: Effect,
    attempts: Attempts,
    outcome: Outcome,
    now: Timestamp,
    jitter: f64,
) -> RetryDecision {
    if let Some(reason) = forbidden(policy, effect, outcome) {
        return RetryDecision::GiveUp(reason);
    }
    if attempts.made >= policy.tries {
        return RetryDecision::GiveUp(Reason::Attempts(attempts.made));
    }
    let wait = jittered(policy, attempts.made, jitter);
    if let Outcome::Status { retry_after: Some(asked), .. } = outcome {
        return if asked > RETRY_AFTER_MAX {
            RetryDecision::GiveUp(Reason::WaitTooLong)
        } else {
            RetryDecision::After(asked.max(RETRY_AFTER_MIN).max(wait))
        };
    }
    if now.after(wait).since(attempts.first_at) > policy.within {
        let millis = u64::try_from(policy.within.as_millis()).unwrap_or(u64::MAX);
        return RetryDecision::GiveUp(Reason::Window(units::Duration::from_millis(millis)));
    }
    RetryDecision::After(wait)
}

/// Why this outcome does not allow another attempt.
fn forbidden(policy: &RetryPolicy<'_>, effect: Effect, outcome: Outcome) -> Option<Reason> {
    let repeatable = matches!(effect, Effect::Read | Effect::Idempotent);
    match outcome {
        Outcome::NotSent => None,
        Outcome::SentNoAnswer => (!repeatable).then_some(Reason::OutcomeUnknown),
        Outcome::Status { code, .. } if policy.statuses.iter().any(|statuses| statuses.contains(code)) => {
            // An answer below 500 refuses the request, and 503 says that it was not processed (RFC 9110).
            let may_be_processed = code >= 500 && code != 503;
            (may_be_processed && !repeatable).then_some(Reason::OutcomeUnknown)
        }
        Outcome::Status { code: 500..=599, .. } if !repeatable => Some(Reason::OutcomeUnknown),
        Outcome::Status { .. } | Outcome::BadAnswer => Some(Reason::Final),
    }
}

/// Full jitter: anything up to the bound, so that those who failed together do not come back together.
fn jittered(policy: &RetryPolicy<'_>, made: u32, jitter: f64) -> Duration {
    let bound = policy.from.saturating_mul(1 << made.saturating_sub(1).min(24)).min(policy.to);
    let part = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
    bound.mul_f64(part)
}

/// How long the headers of an answer ask to wait by `Retry-After`: the longest, when it says so several times.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let values = headers.get_all(RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
    values.filter_map(|value| parse_retry_after(value, now)).max()
}

/// Reads the value of `Retry-After`: seconds, or a date in any of the forms of HTTP (RFC 9110, sections 10.2.3 and
/// 5.6.7); a date in the past is no wait. Servers write more than that: a fraction, a unit (`2m`, `1.5 seconds`), other
/// dates, several values. What can mean several waits means the longest, because who comes too early is asked to wait
/// longer still.
#[must_use]
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim().trim_matches('"').trim();
    if let Some(at) = parse_date(value) {
        return Some(at.since(now));
    }
    value
        .split([',', ';'])
        .filter_map(|part| parse_span(part).or_else(|| Some(parse_date(part.trim())?.since(now))))
        .max()
}

fn parse_date(value: &str) -> Option<Timestamp> {
    if !value.contains([':', '-']) {
        return None;
    }
    let http = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .into_iter()
        .find_map(|form| jiff::fmt::strtime::parse(form, value).ok()?.to_datetime().ok())
        .and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .map(|at| at.timestamp());
    let mail = || {
        // As in mails (RFC 5322, section 3.3), with the zone that HTTP does not allow.
        let value = value.strip_suffix("UTC").map_or_else(|| value.to_owned(), |date| format!("{date}GMT"));
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&value).ok()
    };
    let at = http.or_else(mail).map(|at| Timestamp::from_micros(at.as_microsecond()));
    at.or_else(|| value.parse().ok())
}

/// A length of time: seconds without a unit, or numbers with units one after another (`1m30s`).
pub(crate) fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut whole = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    // Also `+5` and `1e3`; no words such as `inf`.
    if let Some(seconds) = rest.parse::<f64>().ok().filter(|_| rest.ends_with(|c: char| c.is_ascii_digit() || c == '.'))
    {
        return (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds = match unit.to_ascii_lowercase().as_str() {
            "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => 1e-3,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return None,
        };
        // More digits than fit are longer than anyone waits.
        let number = number.parse::<f64>().ok()?;
        let wait = Duration::try_from_secs_f64(number * seconds).unwrap_or(Duration::MAX);
        whole = whole.saturating_add(wait);
        rest = after.trim_start();
        // A number without a unit is the only one.
        if unit.is_empty() && !rest.is_empty() {
            return None;
        }
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn after(made: u32, effect: Effect, outcome: Outcome, jitter: f64) -> RetryDecision {
        decide(&RetryPolicy::default(), effect, Attempts { made, first_at: START }, outcome, START, jitter)
    }

    const fn status(code: u16) -> Outcome {
        Outcome::Status { code, retry_after: None }
    }

    #[test]
    fn doubles_the_bound_of_the_wait() {
        for (made, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
            let decision = after(made, Effect::Read, Outcome::NotSent, 1.0);
            assert_eq!(decision, RetryDecision::After(Duration::from_secs(seconds)));
        }
        assert_eq!(after(5, Effect::Read, Outcome::NotSent, 0.0), RetryDecision::GiveUp(Reason::Attempts(5)));
        assert_eq!(after(1, Effect::Read, Outcome::NotSent, 0.25), RetryDecision::After(Duration::from_millis(250)));
    }

    #[test]
    fn repeats_only_what_does_no_harm() {
        let repeated = |effect, outcome| matches!(after(1, effect, outcome, 0.5), RetryDecision::After(_));
        for effect in [Effect::Read, Effect::Idempotent] {
            for outcome in [Outcome::NotSent, Outcome::SentNoAnswer, status(408), status(429), status(500), status(504)]
            {
                assert!(repeated(effect, outcome), "{effect:?} {outcome:?}");
            }
        }
        for outcome in [Outcome::NotSent, status(408), status(425), status(429), status(503)] {
            assert!(repeated(Effect::Write, outcome), "{outcome:?}");
        }
        for outcome in [Outcome::SentNoAnswer, status(500), status(502), status(504)] {
            assert_eq!(after(1, Effect::Write, outcome, 0.5), RetryDecision::GiveUp(Reason::OutcomeUnknown));
        }
        for outcome in
            [status(301), status(400), status(401), status(404), status(409), status(422), Outcome::BadAnswer]
        {
            assert_eq!(after(1, Effect::Read, outcome, 0.5), RetryDecision::GiveUp(Reason::Final));
        }
    }

    #[test]
    fn gives_the_server_the_time_it_asks_for() {
        let asked = |seconds| {
            let outcome = Outcome::Status { code: 429, retry_after: Some(Duration::from_secs(seconds)) };
            after(1, Effect::Write, outcome, 0.5)
        };
        assert_eq!(asked(0), RetryDecision::After(Duration::from_secs(1)));
        assert_eq!(asked(30), RetryDecision::After(Duration::from_secs(30)));
        assert_eq!(asked(3_600), RetryDecision::After(Duration::from_secs(3_600)));
        assert_eq!(asked(21_600), RetryDecision::After(Duration::from_secs(21_600)));
        assert_eq!(asked(21_601), RetryDecision::GiveUp(Reason::WaitTooLong));
    }

    #[test]
    fn stops_when_the_window_is_over() {
        let at = |seconds| {
            let attempts = Attempts { made: 2, first_at: START };
            let now = START.after(Duration::from_secs(seconds));
            decide(&RetryPolicy::default(), Effect::Read, attempts, Outcome::NotSent, now, 1.0)
        };
        assert_eq!(at(898), RetryDecision::After(Duration::from_secs(2)));
        assert_eq!(at(899), RetryDecision::GiveUp(Reason::Window(units::Duration::from_secs(900))));
    }

    #[test]
    fn step_goes_before_connection_and_connection_before_defaults() {
        let spec = |text| serde_json::from_value::<RetrySpec>(text).unwrap();
        let connection = spec(serde_json::json!({"tries": 2, "within": "1h", "statuses": [409, 503]}));
        let step = spec(serde_json::json!({"tries": 7, "backoff": {"from": "10ms", "to": "20ms"}}));
        let policy = RetryPolicy::new(Some(&connection), Some(&step));
        assert_eq!((policy.tries, policy.within), (7, Duration::from_secs(3_600)));
        let decided =
            |made, effect, outcome| decide(&policy, effect, Attempts { made, first_at: START }, outcome, START, 1.0);
        let after = |millis| RetryDecision::After(Duration::from_millis(millis));
        assert_eq!(decided(1, Effect::Write, status(409)), after(10));
        assert_eq!(decided(6, Effect::Write, Outcome::NotSent), after(20));
        assert_eq!(decided(7, Effect::Read, status(503)), RetryDecision::GiveUp(Reason::Attempts(7)));
        assert_eq!(decided(1, Effect::Read, status(500)), RetryDecision::GiveUp(Reason::Final));
        assert_eq!(decided(1, Effect::Write, status(500)), RetryDecision::GiveUp(Reason::OutcomeUnknown));
        assert_eq!(RetryPolicy::new(None, None), RetryPolicy::default());
    }

    #[test]
    fn reads_retry_after() {
        let now: Timestamp = "1994-11-06T08:48:37Z".parse().unwrap();
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(60)),
            ("Sun Nov  6 08:49:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("soon", None),
            ("1.5.2", None),
            ("2 3", None),
            ("60s", Some(60)),
            ("+60", Some(60)),
            ("6e1", Some(60)),
            ("60.", Some(60)),
            ("inf", None),
            ("NaN", None),
            ("-6e1", None),
            ("2 minutes", Some(120)),
            ("1h1m1s", Some(3_661)),
            ("30, 60", Some(60)),
            ("\"7\"", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 UTC", Some(60)),
            ("Sun, 06 Nov 1994 08:49:37 +0000", Some(60)),
            ("Sun, 06 Nov 1994 00:49:37 -0800", Some(60)),
            ("1994-11-06T08:49:37Z", Some(60)),
        ] {
            assert_eq!(parse_retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn a_fraction_is_waited_for() {
        for (value, millis) in [("2.5", 2_500), ("0.25", 250), ("1.5s", 1_500), ("250ms", 250), ("2,5", 5_000)] {
            assert_eq!(parse_retry_after(value, START), Some(Duration::from_millis(millis)), "{value}");
        }
        assert!(parse_retry_after("99999999999999999999999", START) > Some(RETRY_AFTER_MAX));
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "2.5".parse().unwrap())]);
        assert_eq!(retry_after(&headers, START), Some(Duration::from_millis(2_500)));
        let mut headers = headers;
        headers.append(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(retry_after(&headers, START), Some(Duration::from_secs(7)));
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(
            made in 0_u32..100, passed in 0_u64..2_000, jitter in 0.0_f64..1.0, code in 400_u16..600,
            asked in prop::option::of(0_u64..100_000),
        ) {
            let outcome = Outcome::Status { code, retry_after: asked.map(Duration::from_secs) };
            let attempts = Attempts { made, first_at: START };
            let now = START.after(Duration::from_secs(passed));
            if let RetryDecision::After(wait) = decide(&RetryPolicy::default(), Effect::Read, attempts, outcome, now, jitter)
            {
                prop_assert!(made < limits::STEP_ATTEMPTS);
                match asked {
                    Some(asked) => {
                        prop_assert!(wait >= Duration::from_secs(asked) && wait >= RETRY_AFTER_MIN);
                        prop_assert!(wait <= RETRY_AFTER_MAX);
                    }
                    None => {
                        prop_assert!(wait <= limits::BACKOFF_TO);
                        prop_assert!(Duration::from_secs(passed) + wait <= limits::STEP_WINDOW);
                    }
                }
            }
        }

        #[test]
        fn never_panics_on_what_servers_send(value in any::<String>()) {
            let wait = parse_retry_after(&value, START);
            prop_assert!(wait.is_none() || !value.trim().is_empty());
        }
    }
}
