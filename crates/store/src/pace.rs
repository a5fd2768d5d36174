//! Whether commits wait for the disk: who makes them depends on that.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Whether commits wait for the disk.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The last 32 commits that were measured, a bit for each: set where it waited.
    waits: u32,
    commits: u32,
}

impl Pace {
    /// One in so many is measured: asking how long a thread has worked is a call of the system.
    const MEASURED: u32 = 4;
    /// From which time on a commit has waited. Handing one to another thread and back costs half of that.
    const WAITED: Duration = Duration::from_micros(50);
    /// Most that may have waited: on a busy machine a commit waits for a processor now and then.
    const FEW: u32 = 8;
    /// After a turn that took so long, for whatever reason, the disk counts as slow at once: whoever serves requests must
    /// not be held up.
    const LONG: Duration = Duration::from_millis(20);

    /// Of a disk that is to be waited for until it shows that it is not.
    pub(crate) const fn slow() -> Self {
        Self { waits: u32::MAX, commits: 0 }
    }

    /// Makes a commit, and notes whether it waited.
    pub(crate) fn measure<T>(&mut self, commit: impl FnOnce() -> T) -> T {
        self.commits = self.commits.wrapping_add(1);
        let worked = self.commits.is_multiple_of(Self::MEASURED).then(cpu_time);
        let began = Instant::now();
        let outcome = commit();
        if let Some(worked) = worked {
            let waited = began.elapsed().saturating_sub(cpu_time().saturating_sub(worked));
            self.waits = self.waits << 1 | u32::from(waited > Self::WAITED);
        }
        outcome
    }

    /// Notes how long a whole turn took.
    pub(crate) fn bound(&mut self, turn: Duration) {
        if turn >= Self::LONG {
            *self = Self::slow();
        }
    }

    /// Whether commits hardly wait.
    pub(crate) fn is_swift(&self) -> bool {
        self.waits.count_ones() <= Self::FEW
    }
}

/// Time that this thread has had a processor.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits(pace: &mut Pace, measured: u32, commit: impl Fn()) {
        for _ in 0..measured * Pace::MEASURED {
            pace.measure(&commit);
        }
    }

    fn wait(micros: u64) -> impl Fn() {
        move || std::thread::sleep(Duration::from_micros(micros))
    }

    #[test]
    fn counts_a_disk_as_slow_until_it_shows_otherwise_and_again_when_it_waits() {
        let mut pace = Pace::slow();
        assert!(!pace.is_swift());
        commits(&mut pace, 32, || ());
        assert!(pace.is_swift(), "{:b}", pace.waits);
        commits(&mut pace, Pace::FEW + 1, wait(200));
        assert!(!pace.is_swift());
    }

    #[test]
    fn tells_a_commit_that_works_from_one_that_waits() {
        let mut pace = Pace::slow();
        let work = || {
            let until = cpu_time() + 2 * Pace::WAITED;
            while cpu_time() < until {}
        };
        commits(&mut pace, 32, work);
        assert!(pace.is_swift(), "{:b}", pace.waits);
    }

    #[test]
    fn counts_a_disk_as_slow_after_one_long_turn() {
        let mut pace = Pace::slow();
        commits(&mut pace, 32, || ());
        pace.bound(Duration::from_millis(19));
        assert!(pace.is_swift());
        pace.bound(Duration::from_millis(20));
        assert!(!pace.is_swift());
    }
}
