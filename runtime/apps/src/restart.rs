//! When an app that crashed may start again. Pure: the clock is the caller's.
//!
//! Each crash doubles the wait; a run that stays healthy long enough, or ends well, forgives all earlier crashes; an app
//! that spends its budget of crashes stays down until a person starts it.

use std::time::Duration;

/// The rules. There is no default: they come from the daemon's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Wait after the first crash.
    pub first_delay: Duration,
    /// No wait is longer.
    pub max_delay: Duration,
    /// A run that lives this long before it crashes starts the count anew.
    pub healthy_after: Duration,
    /// Crashes in a row after which the app stays down.
    pub budget: u32,
}

/// What to do with an app that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartVerdict {
    /// Start it again whenever somebody wants it.
    Ready,
    /// Do not start it before this time has passed.
    Wait(Duration),
    /// It crashed this often in a row: it stays down until a person starts it.
    GaveUp {
        /// Crashes in a row.
        crashes: u32,
    },
}

/// The crash history of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    policy: RestartPolicy,
    crashes: u32,
    /// Time of the daemon's monotonic clock until which it must not start.
    not_before: Duration,
}

impl Restart {
    /// An app that never crashed.
    #[must_use]
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, crashes: 0, not_before: Duration::ZERO }
    }

    /// A run ended without a crash.
    pub fn ended_well(&mut self) {
        self.crashes = 0;
        self.not_before = Duration::ZERO;
    }

    /// A run that had lived for `lived` crashed at `now` (monotonic).
    pub fn crashed(&mut self, now: Duration, lived: Duration) -> RestartVerdict {
        if lived >= self.policy.healthy_after {
            self.crashes = 0;
        }
        self.crashes = self.crashes.saturating_add(1);
        let doublings = (self.crashes - 1).min(31);
        let delay = self.policy.first_delay.saturating_mul(1 << doublings).min(self.policy.max_delay);
        self.not_before = now.saturating_add(delay);
        self.verdict(now)
    }

    /// A person wants it to start whatever happened.
    pub fn forgive(&mut self) {
        self.ended_well();
    }

    /// Whether it may start at `now` (monotonic).
    #[must_use]
    pub fn verdict(&self, now: Duration) -> RestartVerdict {
        if self.crashes >= self.policy.budget {
            return RestartVerdict::GaveUp { crashes: self.crashes };
        }
        match self.not_before.checked_sub(now) {
            None | Some(Duration::ZERO) => RestartVerdict::Ready,
            Some(wait) => RestartVerdict::Wait(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
    const POLICY: RestartPolicy = RestartPolicy { first_delay: s(1), max_delay: s(5), healthy_after: s(60), budget: 5 };

    #[test]
    fn waits_double_up_to_the_longest_and_then_it_stays_down() {
        let mut restart = Restart::new(POLICY);
        assert_eq!(restart.verdict(s(0)), RestartVerdict::Ready);
        assert_eq!(restart.crashed(s(10), s(1)), RestartVerdict::Wait(s(1)));
        assert_eq!(restart.crashed(s(20), s(1)), RestartVerdict::Wait(s(2)));
        assert_eq!(restart.crashed(s(30), s(1)), RestartVerdict::Wait(s(4)));
        assert_eq!(restart.crashed(s(40), s(1)), RestartVerdict::Wait(s(5)));
        assert_eq!(restart.verdict(s(44)), RestartVerdict::Wait(s(1)));
        assert_eq!(restart.verdict(s(45)), RestartVerdict::Ready);
        assert_eq!(restart.crashed(s(50), s(1)), RestartVerdict::GaveUp { crashes: 5 });
        assert_eq!(restart.verdict(s(5000)), RestartVerdict::GaveUp { crashes: 5 });
        restart.forgive();
        assert_eq!(restart.verdict(s(5000)), RestartVerdict::Ready);
    }

    #[test]
    fn a_long_healthy_run_or_a_good_end_starts_the_count_anew() {
        let mut restart = Restart::new(POLICY);
        for at in [0, 10, 20] {
            restart.crashed(s(at), s(1));
        }
        assert_eq!(restart.crashed(s(200), s(61)), RestartVerdict::Wait(s(1)));
        restart.ended_well();
        assert_eq!(restart.verdict(s(200)), RestartVerdict::Ready);
        assert_eq!(restart.crashed(s(300), s(1)), RestartVerdict::Wait(s(1)));
    }

    #[test]
    fn a_huge_count_does_not_overflow() {
        let mut restart = Restart::new(RestartPolicy { budget: u32::MAX, ..POLICY });
        for _ in 0..100 {
            restart.crashed(Duration::MAX, s(0));
        }
        assert_eq!(restart.verdict(Duration::MAX), RestartVerdict::Ready);
    }
}
