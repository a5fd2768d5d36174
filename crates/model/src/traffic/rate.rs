//! A rate: never more than so many requests in any span of a given length.
//!
//! What counts is every request of the last span, not a bucket that is refilled: a bucket lets almost twice its
//! limit through in a span that begins with it full. Requests that come close together are counted as one entry
//! at the time of the last, so a span has at most about a thousand entries, and the error is on the safe side.

use std::collections::VecDeque;
use std::time::Duration;

/// Parts of a span below which requests share an entry.
const PARTS: u32 = 1_000;

/// The requests of the last span, and a line of those that were put off.
#[derive(Debug, Clone)]
pub struct Rate {
    limit: u32,
    per: Duration,
    /// When requests were sent or will be, oldest first, and how many then.
    taken: VecDeque<(Duration, u32)>,
    count: u32,
    /// The last turn that was promised to somebody who was put off.
    line: Duration,
}

impl Rate {
    /// Lets `limit` requests through in any span of `per`.
    #[must_use]
    pub fn new(limit: u32, per: Duration) -> Self {
        Self { limit: limit.max(1), per, taken: VecDeque::new(), count: 0, line: Duration::ZERO }
    }

    /// The first moment, not before `now`, at which one more may be sent.
    pub fn next(&mut self, now: Duration) -> Duration {
        while let Some((at, count)) = self.taken.front().copied()
            && at + self.per <= now
        {
            self.taken.pop_front();
            self.count -= count;
        }
        // One more may go when the request that is `limit` places before it is a whole span ago.
        let Some(mut before) = self.count.checked_sub(self.limit) else { return now };
        for (at, count) in &self.taken {
            match before.checked_sub(*count) {
                Some(left) => before = left,
                None => return (*at + self.per).max(now),
            }
        }
        now
    }

    /// Counts one request that is sent at `at`: a moment that `next` gave.
    pub fn take(&mut self, at: Duration) {
        self.count += 1;
        match self.taken.back_mut() {
            Some((last, count)) if at.saturating_sub(*last) < self.per / PARTS => {
                *last = at.max(*last);
                *count += 1;
            }
            _ => self.taken.push_back((at, 1)),
        }
    }

    /// Whether somebody who was put off before has their turn first.
    #[must_use]
    pub fn has_line(&self, now: Duration) -> bool {
        self.line > now
    }

    /// A turn at the end of the line for somebody who is put off. Turns come at the rate, so that those who waited do
    /// not come back all together.
    pub fn place(&mut self, now: Duration) -> Duration {
        self.line = self.end_of_line(now);
        self.line
    }

    /// The turn that `place` would give, for somebody who does not wait for it.
    pub fn end_of_line(&mut self, now: Duration) -> Duration {
        let first = self.next(now);
        let behind = if self.has_line(now) { self.line + self.per / self.limit } else { first };
        first.max(behind)
    }

    /// Requests of the span that ends at `now`, those included whose turn is near.
    pub fn used(&mut self, now: Duration) -> u32 {
        self.next(now);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn lets_the_limit_through_at_once_and_the_rest_a_span_later() {
        let mut rate = Rate::new(2, ms(1_000));
        for (now, turn) in [(0, 0), (100, 100), (100, 1_000), (100, 1_100), (100, 2_000)] {
            let at = rate.next(ms(now));
            assert_eq!(at, ms(turn));
            rate.take(at);
        }
        assert_eq!((rate.used(ms(3_100)), rate.next(ms(3_100))), (0, ms(3_100)));
    }

    #[test]
    fn those_who_are_put_off_stand_in_a_line_at_the_rate() {
        let mut rate = Rate::new(10, ms(10_000));
        for _ in 0..10 {
            let at = rate.next(ms(0));
            rate.take(at);
        }
        let turns: Vec<_> = (0..3).map(|_| rate.place(ms(0))).collect();
        assert_eq!(turns, [ms(10_000), ms(11_000), ms(12_000)]);
        assert!(rate.has_line(ms(11_999)) && !rate.has_line(ms(12_000)));
    }

    #[test]
    fn a_large_limit_takes_little_memory() {
        let mut rate = Rate::new(100_000, ms(60_000));
        for n in 0..100_000_u64 {
            let now = Duration::from_micros(n * 600);
            assert_eq!(rate.next(now), now);
            rate.take(now);
        }
        assert!(rate.taken.len() <= 1_001, "{}", rate.taken.len());
    }

    proptest! {
        #[test]
        fn no_span_holds_more_than_the_limit(
            limit in 1_u32..20, per in 10_u64..5_000, gaps in prop::collection::vec(0_u64..500, 1..200),
        ) {
            let mut rate = Rate::new(limit, ms(per));
            let mut sent: Vec<Duration> = Vec::new();
            let mut now = Duration::ZERO;
            for gap in gaps {
                now += ms(gap);
                let at = rate.next(now);
                prop_assert!(at >= now && sent.last().is_none_or(|last| at >= *last));
                rate.take(at);
                sent.push(at);
            }
            let span = limit as usize;
            for window in sent.windows(span + 1) {
                prop_assert!(window[span] - window[0] >= ms(per), "{window:?}");
            }
        }
    }
}
