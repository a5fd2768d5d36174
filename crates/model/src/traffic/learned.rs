//! What answers say about how long to wait.
//!
//! - `Retry-After` (RFC 9110, section 10.2.3) on an answer of 400 and above;
//! - `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), in the form of structured fields
//!   (`"default";r=0;t=30`) and in the older one (`limit=100, remaining=0, reset=30`);
//! - `RateLimit-Remaining` and `-Reset`, `X-RateLimit-…`, `X-Rate-Limit-…`: a reset is in seconds from now, in
//!   seconds or milliseconds since 1970, or a date.
//!
//! The last two count when nothing remains, on a success too, and on 429 also when nothing is said of what remains.

use std::time::Duration;

use http::HeaderMap;

use crate::retry::{RETRY_AFTER_MAX, RETRY_AFTER_MIN, parse_retry_after, parse_span, retry_after};
use crate::time::Timestamp;

/// A wait that an answer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// How long, from 1 s to 6 h: less is no wait, and more would let one wrong answer stop a connection for good.
    pub wait: Duration,
    /// The header that said so.
    pub by: &'static str,
}

/// Pairs of headers that say what remains and when it is full again.
const PAIRS: [(&str, &str, &str); 3] = [
    ("ratelimit-remaining", "ratelimit-reset", "RateLimit-Reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset", "X-RateLimit-Reset"),
    ("x-rate-limit-remaining", "x-rate-limit-reset", "X-Rate-Limit-Reset"),
];

/// How long an answer asks to wait before the next request; the longest, when it says so in several ways.
#[must_use]
pub fn learn(status: u16, headers: &HeaderMap, now: Timestamp) -> Option<Learned> {
    // Few answers say anything, and every one is asked.
    if !headers.keys().any(|name| is_about_limits(name.as_str())) {
        return None;
    }
    let retry_after = (status >= 400).then(|| retry_after(headers, now)).flatten().map(|wait| (wait, "Retry-After"));
    let pairs = PAIRS.iter().filter_map(|(remaining, reset, name)| {
        let is_spent = match text(headers, remaining) {
            Some(remaining) => remaining.parse::<f64>().is_ok_and(|left| left <= 0.0),
            None => status == 429,
        };
        if !is_spent {
            return None;
        }
        let resets = headers.get_all(*reset).iter().filter_map(|value| parse_reset(value.to_str().ok()?.trim(), now));
        Some((resets.max()?, *name))
    });
    let limits = text(headers, "ratelimit").and_then(|limits| {
        let wait = parse_rate_limit(limits, text(headers, "ratelimit-policy").unwrap_or_default())?;
        Some((wait, "RateLimit"))
    });
    let (wait, by) = retry_after.into_iter().chain(pairs).chain(limits).max_by_key(|(wait, _)| *wait)?;
    Some(Learned { wait: wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX), by })
}

/// Whether an answer says that its caller was too fast: 429, and 403 where it says when to come back, as GitHub does.
#[must_use]
pub fn is_too_fast(status: u16, headers: &HeaderMap, now: Timestamp) -> bool {
    status == 429 || status == 403 && learn(status, headers, now).is_some()
}

fn is_about_limits(name: &str) -> bool {
    ["retry-after", "ratelimit", "x-ratelimit", "x-rate-limit"].iter().any(|start| name.starts_with(start))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A reset as servers write it. No wait is as long as the time since 1970, and no clock is in 1970.
fn parse_reset(value: &str, now: Timestamp) -> Option<Duration> {
    const SINCE_1970: f64 = 1e9;
    const MILLIS_SINCE_1970: f64 = 1e11;
    let Ok(number) = value.parse::<f64>() else {
        return parse_retry_after(value, now);
    };
    if !number.is_finite() || number < 0.0 {
        return None;
    }
    let seconds = if number >= MILLIS_SINCE_1970 { number / 1_000.0 } else { number };
    let wait = if number >= SINCE_1970 {
        #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit, but for fractions of one")]
        let now = now.as_micros() as f64 / 1e6;
        (seconds - now).max(0.0)
    } else {
        seconds
    };
    Some(Duration::try_from_secs_f64(wait).unwrap_or(RETRY_AFTER_MAX))
}

/// The wait that `RateLimit` asks for: the longest among its policies of which nothing remains. Without a time, the
/// window of the policy.
fn parse_rate_limit(limits: &str, policies: &str) -> Option<Duration> {
    if limits.contains("remaining=") {
        let old = limits.replace(',', ";");
        let (remaining, reset) = (parameter(&old, "remaining")?, parameter(&old, "reset")?);
        return remaining.is_zero().then_some(reset);
    }
    limits
        .split(',')
        .filter(|limit| parameter(limit, "r").is_some_and(|left| left.is_zero()))
        .filter_map(|limit| {
            let name = limit.split(';').next().map(str::trim);
            let policy = policies.split(',').find(|policy| policy.split(';').next().map(str::trim) == name);
            parameter(limit, "t").or_else(|| parameter(policy?, "w"))
        })
        .max()
}

/// A parameter, as seconds: also what is a count is read so.
fn parameter(item: &str, name: &str) -> Option<Duration> {
    parse_span(item.split(';').filter_map(|part| part.split_once('=')).find(|(key, _)| key.trim() == name)?.1)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    type Row = (u16, &'static [(&'static str, &'static str)], Option<(u64, &'static str)>);

    fn learned(status: u16, headers: &[(&str, &str)]) -> Option<(u64, &'static str)> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        learn(status, &map, NOW).map(|learned| (learned.wait.as_secs(), learned.by))
    }

    #[test]
    fn reads_what_servers_say() {
        let table: &[Row] = &[
            (200, &[], None),
            (429, &[], None),
            (503, &[("Retry-After", "30")], Some((30, "Retry-After"))),
            (403, &[("Retry-After", "Tue, 14 Nov 2023 22:14:20 GMT")], Some((60, "Retry-After"))),
            // The time to look again for something that was begun, not a limit.
            (202, &[("Retry-After", "30")], None),
            (503, &[("Retry-After", "0")], Some((1, "Retry-After"))),
            (503, &[("Retry-After", "86400")], Some((21_600, "Retry-After"))),
            (503, &[("Retry-After", "soon")], None),
            (200, &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "60")], Some((60, "X-RateLimit-Reset"))),
            (200, &[("X-RateLimit-Remaining", "1"), ("X-RateLimit-Reset", "60")], None),
            (
                200,
                &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1700000060")],
                Some((60, "X-RateLimit-Reset")),
            ),
            (
                200,
                &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1700000060000")],
                Some((60, "X-RateLimit-Reset")),
            ),
            (
                200,
                &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1699999999")],
                Some((1, "X-RateLimit-Reset")),
            ),
            (
                200,
                &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "2023-11-14T22:14:20Z")],
                Some((60, "X-RateLimit-Reset")),
            ),
            (200, &[("X-RateLimit-Remaining", "0")], None),
            (200, &[("X-RateLimit-Reset", "60")], None),
            (429, &[("X-RateLimit-Reset", "60")], Some((60, "X-RateLimit-Reset"))),
            (429, &[("X-Rate-Limit-Reset", "60"), ("Retry-After", "90")], Some((90, "Retry-After"))),
            (200, &[("RateLimit-Remaining", "0"), ("RateLimit-Reset", "7")], Some((7, "RateLimit-Reset"))),
            (200, &[("RateLimit", "\"default\";r=0;t=30")], Some((30, "RateLimit"))),
            (200, &[("RateLimit", "\"default\";r=50;t=30")], None),
            (
                200,
                &[("RateLimit", "\"a\";r=5;t=9, \"b\";r=0"), ("RateLimit-Policy", "\"a\";q=10;w=60, \"b\";q=1;w=45")],
                Some((45, "RateLimit")),
            ),
            (200, &[("RateLimit", "\"b\";r=0")], None),
            (200, &[("RateLimit", "limit=100, remaining=0, reset=50")], Some((50, "RateLimit"))),
            (200, &[("RateLimit", "limit=100, remaining=3, reset=50")], None),
            (503, &[("Retry-After", "30.5")], Some((30, "Retry-After"))),
            (503, &[("Retry-After", "30"), ("Retry-After", "40")], Some((40, "Retry-After"))),
            (200, &[("RateLimit", "\"default\";r=0.0;t=30.5")], Some((30, "RateLimit"))),
            (200, &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1m30s")], Some((90, "X-RateLimit-Reset"))),
            (200, &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "-1")], None),
            (200, &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "NaN")], None),
            (
                200,
                &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1e300")],
                Some((21_600, "X-RateLimit-Reset")),
            ),
        ];
        for (status, headers, expected) in table {
            assert_eq!(learned(*status, headers), *expected, "{status} {headers:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_the_wait_is_bounded(
            status in 200_u16..600,
            values in prop::collection::vec((0_usize..9, "[ -~]{0,40}|[0-9]{1,25}|0"), 0..6),
        ) {
            let names = ["retry-after", "ratelimit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-reset",
                "x-ratelimit-remaining", "x-ratelimit-reset", "x-rate-limit-remaining", "x-rate-limit-reset"];
            let headers = values
                .iter()
                .map(|(n, value)| (HeaderName::from_static(names[*n]), value.parse::<HeaderValue>().unwrap()))
                .collect();
            if let Some(Learned { wait, .. }) = learn(status, &headers, NOW) {
                prop_assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&wait));
            }
        }
    }

    #[test]
    fn a_403_may_mean_too_fast() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        for (status, headers, expected) in [
            (429, vec![], true),
            (403, vec![], false),
            (403, vec![("retry-after", "60")], true),
            (403, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000060")], true),
            (403, vec![("x-ratelimit-remaining", "59"), ("x-ratelimit-reset", "1700000060")], false),
            (401, vec![("retry-after", "60")], false),
        ] {
            let map =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            assert_eq!(is_too_fast(status, &map.collect(), now), expected, "{status} {headers:?}");
        }
    }
}
