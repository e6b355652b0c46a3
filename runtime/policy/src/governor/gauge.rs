//! From readings to a pressure level: the worst of what the kernel says, what is available, where it is heading, what the
//! ledger holds and what the disk has left.
//!
//! Kernel events only raise; the forecast raises by one step at most. The level rises at once and falls one step at a time
//! after a while of calm. Without swap, growth of anonymous memory causes no stall at all before the kernel kills, so the
//! forecast is not an extra.

use serde::{Deserialize, Serialize};

use super::{
    action::Level,
    config::Config,
    event::{KernelLevel, Sample},
};
use crate::bytes::Bytes;

/// A kernel event that is not repeated counts for so long: PSI triggers speak once in two seconds at most, systemd and xnu
/// less often.
const EVENT_HOLDS_MS: u64 = 10_000;
/// Readings further apart than this say nothing about a slope: the machine slept.
pub(super) const SLEPT_MS: u64 = 30_000;
/// Readings closer together than this say nothing about a slope either: one page cache flush in a millisecond is not a trend.
const SLOPE_LEAST_MS: u64 = 250;
/// Swapping faster than this is `elevated`, and sixteen times as fast is `tight`: a system at peace writes idle pages out,
/// but not megabytes a second.
const SWAP_RATE: u64 = 1 << 20;
/// Share of time in which some task waited for memory, in hundredths of a percent. systemd's default is 10 % of a second.
const SOME_ELEVATED: u32 = 1_000;
/// Share of time in which all tasks waited. systemd-oomd kills at 60 % for 30 s.
const FULL_TIGHT: u32 = 1_000;
const FULL_CRITICAL: u32 = 4_000;

/// What a reading means for the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outlook {
    /// Available without dropping a page of a model that is to stay warm.
    pub(super) spare: Bytes,
    /// What may be lost until the next decision takes effect.
    pub(super) falling: Bytes,
}

/// The level and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gauge {
    pub(super) level: Level,
    /// Why the level is what it is.
    pub(super) cause: String,
    /// Since when the readings would allow a lower level.
    calm_since: Option<u64>,
    /// Fall of available memory, bytes per second, smoothed; negative while it rises.
    fall: i64,
    /// Bytes written to swap per second, smoothed.
    swap_rate: u64,
    last: Option<Reading>,
    /// Until when an event of the kernel counts, by what it said.
    stalled_until: u64,
    warned_until: u64,
    critical_until: u64,
    /// Times that somebody other than our own figures of available memory raised the alarm: the ladder answers each once.
    pub(super) alarms: u64,
}

/// What is kept of a reading for the slopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Reading {
    at: u64,
    available: Bytes,
    own: Bytes,
    swapped_out: Bytes,
}

impl Gauge {
    pub(super) const fn new() -> Self {
        Self {
            level: Level::Normal,
            cause: String::new(),
            calm_since: None,
            fall: 0,
            swap_rate: 0,
            last: None,
            stalled_until: 0,
            warned_until: 0,
            critical_until: 0,
            alarms: 0,
        }
    }

    /// The kernel spoke.
    pub(super) fn kernel(&mut self, now: u64, said: KernelLevel) {
        let until = now.saturating_add(EVENT_HOLDS_MS);
        match said {
            KernelLevel::Normal => (self.stalled_until, self.warned_until, self.critical_until) = (0, 0, 0),
            KernelLevel::Stalled => self.stalled_until = until,
            KernelLevel::Warning => self.warned_until = until,
            KernelLevel::Critical => (self.warned_until, self.critical_until) = (until, until),
        }
        if said > KernelLevel::Normal {
            self.alarms += 1;
        }
        if let (level, Some(cause)) = event_level(said)
            && level > self.level
        {
            self.level = level;
            cause.clone_into(&mut self.cause);
            self.calm_since = None;
        }
    }

    /// The machine slept: one reading after it is no calm.
    pub(super) const fn slept(&mut self) {
        self.calm_since = None;
    }

    /// Takes a reading. `clean` bytes of `available` are pages of weights that are to stay; `wired` ones are pages of weights
    /// that a GPU took out of it for the moment; `over_cap` is what the ledger holds beyond its cap.
    pub(super) fn read(
        &mut self,
        now: u64,
        sample: &Sample,
        clean: Bytes,
        wired: Bytes,
        over_cap: Bytes,
        config: &Config,
    ) {
        self.slopes(now, sample, wired);
        let spare = sample.available.saturating_sub(clean);
        let (wanted, cause) = self.judge(now, sample, spare, over_cap, config);
        if wanted >= self.level {
            if wanted > Level::Normal {
                self.cause = cause;
            }
            self.level = wanted;
            self.calm_since = None;
            return;
        }
        // To leave a level, the reading must be clearly above where it begins.
        let measured = if self.level == Level::Critical { sample.available } else { spare };
        if measured < config.calm_above(self.level).min(config.ram) {
            self.calm_since = None;
            return;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_sub(since) >= config.calm_ms {
            self.level = self.level.lowered();
            self.cause = if self.level == Level::Normal { String::new() } else { cause };
            self.calm_since = Some(now);
        }
    }

    /// What is to be expected.
    pub(super) fn outlook(&self, sample: &Sample, clean: Bytes, config: &Config) -> Outlook {
        Outlook { spare: sample.available.saturating_sub(clean), falling: self.falling(config.horizon_ms) }
    }

    /// What others are about to take within so many milliseconds.
    pub(super) fn falling(&self, within_ms: u64) -> Bytes {
        Bytes(u64::try_from(self.fall).unwrap_or(0).saturating_mul(within_ms) / 1000)
    }

    /// What is known of our own growth says nothing about the next reading.
    pub(super) const fn forget_own(&mut self) {
        if let Some(last) = &mut self.last {
            last.own = Bytes::ZERO;
        }
    }

    /// Whether somebody writes more than so many bytes a second to swap.
    pub(super) const fn swaps(&self, bytes_a_second: u64) -> bool {
        self.swap_rate >= bytes_a_second
    }

    /// What others take, that is: our own growth was reserved before it began, and is no trend.
    fn slopes(&mut self, now: u64, sample: &Sample, wired: Bytes) {
        let own = sample.own_anonymous.saturating_add(sample.own_swapped).saturating_add(wired);
        let reading = Reading { at: now, available: sample.available, own, swapped_out: sample.swapped_out };
        if let Some(last) = self.last {
            let elapsed = now.saturating_sub(last.at);
            if elapsed < SLOPE_LEAST_MS {
                return;
            }
            if elapsed > SLEPT_MS {
                (self.fall, self.swap_rate) = (0, 0);
            } else {
                let signed = |bytes: Bytes| i128::from(bytes.get());
                // A process without anonymous memory does not exist: the sensor is gone, and a jump of it says nothing.
                let grown = if last.own.is_zero() || own.is_zero() { 0 } else { signed(own) - signed(last.own) };
                let lost = signed(last.available) - signed(sample.available) - grown;
                let rate = clamp(lost * 1000 / i128::from(elapsed));
                // Half of the news: one reading is noise, three are a trend. A burst of growth must not be smoothed away.
                self.fall = if rate > self.fall {
                    midpoint(self.fall, rate)
                } else {
                    midpoint(midpoint(self.fall, rate), rate)
                };
                let written = sample.swapped_out.saturating_sub(last.swapped_out).get();
                let rate = written.saturating_mul(1000) / elapsed;
                self.swap_rate = u64::midpoint(self.swap_rate, rate);
            }
        }
        self.last = Some(reading);
    }

    fn judge(&mut self, now: u64, sample: &Sample, spare: Bytes, over_cap: Bytes, config: &Config) -> (Level, String) {
        let mut worst = (Level::Normal, String::new());
        let mut say = |level: Level, cause: String| {
            if level > worst.0 {
                worst = (level, cause);
            }
        };
        let available = sample.available;
        if available < config.critical_below {
            say(Level::Critical, format!("{available} available, below {}", config.critical_below));
        }
        if spare < config.tight_below {
            say(Level::Tight, format!("{spare} available beside the weights, below {}", config.tight_below));
        } else if spare < config.elevated_below {
            say(Level::Elevated, format!("{spare} available beside the weights, below {}", config.elevated_below));
        }
        let polled = sample.kernel.unwrap_or(KernelLevel::Normal);
        let said = match (self.critical_until > now, self.warned_until > now, self.stalled_until > now) {
            (true, ..) => KernelLevel::Critical,
            (_, true, _) => KernelLevel::Warning,
            (.., true) => KernelLevel::Stalled,
            _ => KernelLevel::Normal,
        };
        if let (level, Some(cause)) = event_level(said.max(polled)) {
            say(level, cause.to_owned());
        }
        let stalled = sample.stall.is_some_and(|stall| stall.full >= FULL_TIGHT);
        if polled > KernelLevel::Normal || stalled || self.swap_rate >= SWAP_RATE * 16 || !over_cap.is_zero() {
            self.alarms += 1;
        }
        if let Some(stall) = sample.stall {
            let percent = |hundredths: u32| format!("{}.{:02} %", hundredths / 100, hundredths % 100);
            if stall.full >= FULL_CRITICAL {
                say(Level::Critical, format!("all tasks waited for memory {} of the time", percent(stall.full)));
            } else if stall.full >= FULL_TIGHT {
                say(Level::Tight, format!("all tasks waited for memory {} of the time", percent(stall.full)));
            } else if stall.some >= SOME_ELEVATED {
                say(Level::Elevated, format!("tasks waited for memory {} of the time", percent(stall.some)));
            }
        }
        if self.swap_rate >= SWAP_RATE * 16 {
            say(Level::Tight, format!("{} a second go to swap", Bytes(self.swap_rate)));
        } else if self.swap_rate >= SWAP_RATE {
            say(Level::Elevated, format!("{} a second go to swap", Bytes(self.swap_rate)));
        }
        if !over_cap.is_zero() {
            say(Level::Tight, format!("the host holds {over_cap} more than its cap"));
        }
        if let Some(free) = sample.disk_free
            && free < config.disk_least.fraction(1, 4)
        {
            say(Level::Elevated, format!("{free} of disk are free"));
        }
        // Where is it heading? Raises by one step only: a guess is not a fact.
        let (next, floor) = match worst.0 {
            Level::Normal => (Level::Elevated, config.tight_below),
            Level::Elevated => (Level::Tight, config.tight_below),
            Level::Tight => (Level::Critical, config.critical_below),
            Level::Critical => return worst,
        };
        let falling = self.outlook(sample, sample.available.saturating_sub(spare), config).falling;
        let measured = if next == Level::Critical { available } else { spare };
        if !falling.is_zero() && measured.saturating_sub(falling) < floor {
            let seconds = config.horizon_ms / 1000;
            worst = (next, format!("{measured} available and falling by {falling} in {seconds} s"));
        }
        worst
    }
}

const fn event_level(said: KernelLevel) -> (Level, Option<&'static str>) {
    match said {
        KernelLevel::Normal => (Level::Normal, None),
        KernelLevel::Stalled => (Level::Elevated, Some("tasks wait for memory")),
        KernelLevel::Warning => (Level::Tight, Some("the kernel warns")),
        KernelLevel::Critical => (Level::Critical, Some("the kernel says critical")),
    }
}

fn clamp(rate: i128) -> i64 {
    i64::try_from(rate).unwrap_or(if rate < 0 { i64::MIN } else { i64::MAX })
}

fn midpoint(a: i64, b: i64) -> i64 {
    i64::midpoint(a, b)
}
