//! The wall clock, watched against the time that has really passed.
//!
//! What is due and what has expired is said in wall time, so that it outlives a restart. A clock that jumps must
//! neither hold jobs up for as long as it was ahead, nor make everything a month older at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use linkspan_model::Timestamp;

/// How far a clock may go back before that counts as a jump: corrections by a time server are smaller.
const BACK: Duration = Duration::from_secs(5);
/// How far a clock may go ahead while the server runs before expiry pauses.
const AHEAD: Duration = Duration::from_hours(1);
/// How long a server may have been stopped before expiry pauses at its start.
const STOPPED: Duration = Duration::from_hours(24);
/// How long the clock has to run on before it is believed.
const BELIEVED_AFTER: Duration = Duration::from_hours(24);

/// What the clock has done since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jump {
    /// It went on.
    None,
    /// It went back by so much.
    Back(Duration),
    /// It went ahead by so much.
    Ahead(Duration),
}

/// Watches the wall clock.
#[derive(Debug)]
pub(crate) struct ClockWatch(Mutex<State>);

#[derive(Debug)]
struct State {
    wall: Timestamp,
    at: Instant,
    /// By how much it has gone ahead, and when that was seen.
    ahead: Option<(Duration, Instant)>,
}

impl ClockWatch {
    /// Begins to watch, where a process before this one has `noted` the time; gives what the clock has done since.
    pub(crate) fn new(noted: Option<Timestamp>, wall: Timestamp, now: Instant) -> (Self, Jump) {
        let jump = match noted {
            Some(noted) if wall < noted.before(BACK) => Jump::Back(noted.since(wall)),
            Some(noted) if wall > noted.after(STOPPED) => Jump::Ahead(wall.since(noted)),
            _ => Jump::None,
        };
        let ahead = match jump {
            Jump::Ahead(by) => Some((by, now)),
            _ => None,
        };
        (Self(Mutex::new(State { wall, at: now, ahead })), jump)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values: a panic elsewhere leaves them whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the clock.
    pub(crate) fn look(&self, wall: Timestamp, now: Instant) -> Jump {
        let mut state = self.lock();
        let expected = state.wall.after(now.saturating_duration_since(state.at));
        (state.wall, state.at) = (wall, now);
        if wall < expected.before(BACK) {
            let by = expected.since(wall);
            // Back where it was before it went ahead.
            state.ahead = state.ahead.filter(|(ahead, _)| *ahead > by + AHEAD);
            return Jump::Back(by);
        }
        if wall > expected.after(AHEAD) {
            let by = wall.since(expected);
            state.ahead = Some((by, now));
            return Jump::Ahead(by);
        }
        Jump::None
    }

    /// By how much the clock is ahead of what is believed; nothing may expire meanwhile.
    pub(crate) fn doubt(&self, now: Instant) -> Option<Duration> {
        let ahead = self.lock().ahead?;
        (now.saturating_duration_since(ahead.1) < BELIEVED_AFTER).then_some(ahead.0)
    }

    /// Somebody says that the clock is right.
    pub(crate) fn confirm(&self) {
        self.lock().ahead = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    fn wall(after: Duration) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000).after(after)
    }

    #[test]
    fn tells_jumps_from_time_that_has_passed() {
        let began = Instant::now();
        let (watch, jump) = ClockWatch::new(None, wall(DAY), began);
        assert_eq!(jump, Jump::None);
        assert_eq!(watch.look(wall(DAY + HOUR), began + HOUR), Jump::None);
        // A correction.
        assert_eq!(watch.look(wall(DAY + HOUR - Duration::from_secs(3)), began + HOUR), Jump::None);
        assert_eq!(watch.look(wall(DAY - HOUR), began + HOUR), Jump::Back(2 * HOUR - Duration::from_secs(3)));
        assert_eq!(watch.look(wall(DAY), began + 2 * HOUR), Jump::None);
        assert_eq!(watch.doubt(began + 2 * HOUR), None);
    }

    #[test]
    fn doubts_a_clock_that_went_ahead_for_a_day() {
        let began = Instant::now();
        let (watch, _) = ClockWatch::new(None, wall(DAY), began);
        let ahead = 31 * DAY;
        assert_eq!(watch.look(wall(DAY + ahead), began), Jump::Ahead(ahead));
        assert_eq!(watch.doubt(began), Some(ahead));
        assert_eq!(watch.look(wall(DAY + ahead + DAY), began + DAY), Jump::None);
        assert_eq!(watch.doubt(began + DAY), None);
        // One that comes back is believed at once, and so is one that somebody has looked at.
        assert_eq!(watch.look(wall(ahead + 33 * DAY), began + DAY), Jump::Ahead(31 * DAY));
        assert_eq!(watch.look(wall(ahead + 2 * DAY), began + DAY), Jump::Back(31 * DAY));
        assert_eq!(watch.doubt(began + DAY), None);
        assert_eq!(watch.look(wall(80 * DAY), began + DAY), Jump::Ahead(47 * DAY));
        watch.confirm();
        assert_eq!(watch.doubt(began + DAY), None);
    }

    #[test]
    fn compares_with_the_time_that_an_earlier_process_noted() {
        let began = Instant::now();
        let at_start = |noted: Duration, now: Duration| {
            let (watch, jump) = ClockWatch::new(Some(wall(noted)), wall(now), began);
            (jump, watch.doubt(began))
        };
        assert_eq!(at_start(DAY, DAY + HOUR), (Jump::None, None));
        assert_eq!(at_start(DAY, 2 * HOUR), (Jump::Back(22 * HOUR), None));
        assert_eq!(at_start(DAY, 32 * DAY), (Jump::Ahead(31 * DAY), Some(31 * DAY)));
    }
}
