//! Counts host calls and stops an app that calls faster than its manifest says.
//!
//! A token bucket that holds one second's worth: bursts are free, a flood is not. The clock is read once in
//! [`READ_CLOCK_EVERY`] calls, because reading it costs about as much as a small host call.

use std::time::Instant;

use crate::error::Stop;

/// Calls between two looks at the clock.
const READ_CLOCK_EVERY: u32 = 16;

/// The host calls of one instance.
#[derive(Debug)]
pub(crate) struct Meter {
    per_second: u32,
    /// Calls that may still be made; refilled by time, never above `per_second`.
    left: u32,
    since_clock: u32,
    refilled: Instant,
    total: u64,
}

impl Meter {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: per_second, since_clock: 0, refilled: now, total: 0 }
    }

    /// Host calls so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Counts one call.
    pub(crate) fn charge(&mut self) -> Result<(), Stop> {
        self.since_clock += 1;
        if self.since_clock >= READ_CLOCK_EVERY || self.left == 0 {
            self.since_clock = 0;
            self.refill(Instant::now());
        }
        self.spend()
    }

    fn spend(&mut self) -> Result<(), Stop> {
        self.total += 1;
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Stop::HostCallRate { calls: self.total, per_second: self.per_second }),
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).as_micros();
        let earned = elapsed * u128::from(self.per_second) / 1_000_000;
        if earned > 0 {
            // Time that was too short to earn a whole call stays on the clock.
            self.refilled = now;
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(self.per_second);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_one_second_passes_and_the_next_call_stops() {
        let start = Instant::now();
        let mut meter = Meter::new(100, start);
        for _ in 0..100 {
            assert_eq!(meter.spend(), Ok(()));
        }
        assert_eq!(meter.spend(), Err(Stop::HostCallRate { calls: 101, per_second: 100 }));
    }

    #[test]
    fn time_earns_calls_back_up_to_one_second() {
        let start = Instant::now();
        let mut meter = Meter::new(100, start);
        for _ in 0..100 {
            assert_eq!(meter.spend(), Ok(()));
        }
        meter.refill(start + Duration::from_millis(50));
        assert_eq!(meter.left, 5);
        meter.refill(start + Duration::from_secs(60));
        assert_eq!(meter.left, 100);
    }
}
