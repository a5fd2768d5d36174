//! A circuit breaker: after so many failures in a row nothing is sent for a while, then one request tries.

use std::time::Duration;

/// A breaker and what it has seen.
#[derive(Debug, Clone)]
pub struct Breaker {
    open_after: u32,
    probe_after: Duration,
    failures: u32,
    state: State,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests go.
    Closed,
    /// None goes until this moment.
    Open(Duration),
    /// One is under way; when nothing is heard of it by this moment, another may try.
    Probing(Duration),
}

impl Breaker {
    /// Opens after `open_after` failures in a row, and lets one request try `probe_after` later.
    #[must_use]
    pub fn new(open_after: u32, probe_after: Duration) -> Self {
        Self { open_after: open_after.max(1), probe_after, failures: 0, state: State::Closed }
    }

    /// Whether a request may go now, and then whether it is the probe; otherwise from when on it is worth asking.
    ///
    /// # Errors
    /// The moment.
    pub fn may_go(&self, now: Duration) -> Result<bool, Duration> {
        match self.state {
            State::Closed => Ok(false),
            State::Open(until) | State::Probing(until) if until > now => Err(until),
            State::Open(_) | State::Probing(_) => Ok(true),
        }
    }

    /// A request goes, after `may_go` said so; gives whether it is the probe.
    pub fn go(&mut self, now: Duration) -> bool {
        let is_probe = self.may_go(now) == Ok(true);
        if is_probe {
            self.state = State::Probing(now + self.probe_after);
        }
        is_probe
    }

    /// The server has answered; gives whether that closed the breaker.
    pub fn succeeded(&mut self) -> bool {
        self.failures = 0;
        std::mem::replace(&mut self.state, State::Closed) != State::Closed
    }

    /// The server has failed; gives whether that opened the breaker.
    pub fn failed(&mut self, now: Duration, was_probe: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Closed if self.failures >= self.open_after => {
                self.state = State::Open(now + self.probe_after);
                true
            }
            State::Probing(_) if was_probe => {
                self.state = State::Open(now + self.probe_after);
                false
            }
            // A request from before it opened says nothing new.
            State::Closed | State::Open(_) | State::Probing(_) => false,
        }
    }

    /// The probe ended without a word about the server: the next request may try.
    pub fn abandoned(&mut self, now: Duration) {
        if matches!(self.state, State::Probing(_)) {
            self.state = State::Open(now);
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn opens_probes_and_closes() {
        let mut breaker = Breaker::new(3, s(30));
        assert!(!breaker.failed(s(0), false) && !breaker.failed(s(1), false));
        breaker.succeeded();
        assert!(!breaker.failed(s(2), false) && !breaker.failed(s(3), false));
        assert!(breaker.failed(s(4), false));
        assert_eq!(breaker.may_go(s(5)), Err(s(34)));
        // What was under way when it opened does not prolong it.
        assert!(!breaker.failed(s(20), false));
        assert_eq!(breaker.may_go(s(34)), Ok(true));
        assert!(breaker.go(s(34)));
        assert_eq!(breaker.may_go(s(35)), Err(s(64)));
        assert!(!breaker.failed(s(36), true));
        assert_eq!(breaker.may_go(s(36)), Err(s(66)));
        assert!(breaker.go(s(66)) && breaker.succeeded());
        assert_eq!((breaker.may_go(s(66)), breaker.failures()), (Ok(false), 0));
    }

    #[test]
    fn a_probe_that_vanishes_leaves_its_place() {
        let mut breaker = Breaker::new(1, s(30));
        breaker.failed(s(0), false);
        assert!(breaker.go(s(30)));
        breaker.abandoned(s(31));
        assert_eq!(breaker.may_go(s(31)), Ok(true));
        assert!(breaker.go(s(31)));
        assert_eq!(breaker.may_go(s(61)), Ok(true));
    }

    proptest! {
        #[test]
        fn one_request_at_most_tries_in_a_span(events in prop::collection::vec((0_u64..20, 0_u8..4), 1..200)) {
            let mut breaker = Breaker::new(2, s(30));
            let (mut now, mut probes) = (Duration::ZERO, Vec::new());
            for (gap, event) in events {
                now += s(gap);
                match event {
                    0 => { if breaker.go(now) { probes.push(now) } }
                    1 => { breaker.failed(now, false); }
                    2 => { breaker.failed(now, true); }
                    _ => { if breaker.state() == State::Closed { breaker.succeeded(); } }
                }
            }
            prop_assert!(probes.windows(2).all(|pair| pair[1] - pair[0] >= s(30)));
        }
    }
}
