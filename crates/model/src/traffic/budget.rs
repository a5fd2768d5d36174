//! A budget of retries: a share of the requests, and a few every minute however few requests there are.
//!
//! Each step bounds its own attempts. When every step fails at once, that still multiplies the traffic, just when
//! the other side can bear it least; the budget bounds all of them together.

use std::time::Duration;

/// Retries that are there every minute, whatever the traffic is.
pub const FLOOR_PER_MINUTE: u32 = 10;
/// Most retries that can be saved up: what a new connection begins with.
pub const SAVED_MAX: u32 = 50;

/// What is left to retry with.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Retries that one request earns.
    share: f64,
    balance: f64,
    at: Duration,
}

impl Budget {
    /// A full one that earns `percent` retries in a hundred requests.
    #[must_use]
    pub fn new(percent: u8, now: Duration) -> Self {
        Self { share: f64::from(percent) / 100.0, balance: f64::from(SAVED_MAX), at: now }
    }

    /// Counts first attempts.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn earn(&mut self, requests: u64) {
        self.add(self.share * requests as f64);
    }

    /// Whether there is enough for one retry.
    ///
    /// # Errors
    /// How long until there is, if nothing else is earned.
    pub fn may_spend(&mut self, now: Duration) -> Result<(), Duration> {
        let floor = f64::from(FLOOR_PER_MINUTE) / 60.0;
        self.add(floor * now.saturating_sub(self.at).as_secs_f64());
        self.at = self.at.max(now);
        if self.balance >= 1.0 {
            return Ok(());
        }
        // A little more, so that rounding does not make somebody come twice.
        Err(Duration::from_secs_f64((1.0 - self.balance) / floor) + Duration::from_millis(1))
    }

    /// Takes one retry.
    pub fn spend(&mut self) {
        self.balance = (self.balance - 1.0).max(0.0);
    }

    fn add(&mut self, earned: f64) {
        self.balance = (self.balance + earned).min(f64::from(SAVED_MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spend_all(budget: &mut Budget, now: Duration) -> u32 {
        let mut spent = 0;
        while budget.may_spend(now).is_ok() {
            budget.spend();
            spent += 1;
        }
        spent
    }

    #[test]
    fn earns_its_share_and_its_floor() {
        let mut budget = Budget::new(20, Duration::ZERO);
        assert_eq!(spend_all(&mut budget, Duration::ZERO), 50);
        budget.earn(100);
        assert_eq!(spend_all(&mut budget, Duration::ZERO), 20);
        let wait = budget.may_spend(Duration::ZERO).unwrap_err();
        assert!((5_900..6_100).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(spend_all(&mut budget, wait), 1);
        assert_eq!(spend_all(&mut budget, wait + Duration::from_secs(60)), 10);
        assert_eq!(spend_all(&mut budget, Duration::from_secs(86_400)), 50);
    }

    proptest! {
        #[test]
        fn retries_stay_within_share_floor_and_savings(
            rounds in prop::collection::vec((0_u64..50, 0_u64..30), 1..200), percent in 1_u8..=100,
        ) {
            let mut budget = Budget::new(percent, Duration::ZERO);
            let (mut now, mut requests, mut retries) = (Duration::ZERO, 0, 0);
            for (sent, gap) in rounds {
                now += Duration::from_secs(gap);
                requests += sent;
                budget.earn(sent);
                retries += spend_all(&mut budget, now);
            }
            let most = 50.0 + f64::from(percent) / 100.0 * requests as f64 + now.as_secs_f64() / 6.0;
            prop_assert!(f64::from(retries) <= most + 0.001, "{retries} of {most}");
        }
    }
}
