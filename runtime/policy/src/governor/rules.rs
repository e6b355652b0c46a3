//! The named rules of the playbook (rows 144 to 147 of the requirements): each watches one figure and, when it comes true,
//! gives an advice with the numbers. A rule speaks once per episode.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{action::Rule, config::Config, event::Sample};
use crate::bytes::Bytes;

/// `rss_high`: share of memory, in percent, and how long.
const RSS_PERCENT: u64 = 82;
const RSS_HOLDS_MS: u64 = 600_000;
/// `swap_growth`: growth since the run began, and how long it stays.
const SWAP_GROWTH: Bytes = Bytes::mib(768);
const SWAP_HOLDS_MS: u64 = 90_000;
/// `ttft_spread`: p95 against the median in tenths, and how many answers it takes to say so.
const TTFT_SPREAD_TENTHS: u64 = 28;
const TTFT_LEAST: usize = 20;
const TTFT_KEPT: usize = 200;
/// `kills`: how many, in how many seconds.
const KILLS: usize = 2;
const WEEK_S: u64 = 7 * 24 * 3600;

/// What the rules remember.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rules {
    rss_since: Option<u64>,
    swap_at_start: Option<Bytes>,
    swap_since: Option<u64>,
    ttft: VecDeque<u32>,
    kills: VecDeque<u64>,
    /// Rules that have spoken and are still true.
    speaking: Vec<Rule>,
}

impl Rules {
    /// A run or a load begins: swap growth counts from here when nothing else ran.
    pub(super) const fn begin(&mut self) {
        self.swap_at_start = None;
        self.swap_since = None;
    }

    /// Whether a rule is true now.
    pub(super) fn holds(&self, rule: Rule) -> bool {
        self.speaking.contains(&rule)
    }

    /// Takes a reading.
    pub(super) fn read(&mut self, now: u64, sample: &Sample, config: &Config) -> Vec<(Rule, String)> {
        let own = sample.own_file.saturating_add(sample.own_anonymous);
        let high = own > config.ram.fraction(RSS_PERCENT, 100);
        let rss = held(&mut self.rss_since, now, high, RSS_HOLDS_MS);
        let start = *self.swap_at_start.get_or_insert(sample.swap_used);
        let grown = sample.swap_used.saturating_sub(start);
        let swap = held(&mut self.swap_since, now, grown > SWAP_GROWTH, SWAP_HOLDS_MS);
        [
            self.speak(Rule::RssHigh, rss, || {
                format!(
                    "the host has held {own} of {} for ten minutes, more than {RSS_PERCENT} %; fewer sequences run until it is less. Take a smaller model or context, or another machine",
                    config.ram
                )
            }),
            self.speak(Rule::SwapGrowth, swap, || {
                format!("swap has grown by {grown} for 90 s, more than {SWAP_GROWTH}; background work waits until it has shrunk. Close programs, or unload a model")
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// An answer began after `ttft_ms`.
    pub(super) fn answered(&mut self, ttft_ms: u32) -> Option<(Rule, String)> {
        if self.ttft.len() == TTFT_KEPT {
            self.ttft.pop_front();
        }
        self.ttft.push_back(ttft_ms);
        let mut sorted: Vec<u32> = self.ttft.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| u64::from(sorted[(sorted.len() - 1) * percent / 100]);
        let (p50, p95) = (at(50), at(95));
        let spread = sorted.len() >= TTFT_LEAST && p95 * 10 > p50.max(1) * TTFT_SPREAD_TENTHS;
        self.speak(Rule::TtftSpread, spread, || {
            format!("of the last {} answers one in twenty began after {p95} ms, the usual one after {p50} ms: more than 2.8 times. Give long or background work a class of its own (`class: batch`)", sorted.len())
        })
    }

    /// A process of the host was killed.
    pub(super) fn killed(&mut self, unix_s: u64) -> Option<(Rule, String)> {
        self.kills.push_back(unix_s);
        self.kills.retain(|then| unix_s.abs_diff(*then) <= WEEK_S);
        if self.kills.len() > 16 {
            self.kills.pop_front();
        }
        let n = self.kills.len();
        self.speak(Rule::Kills, n >= KILLS, || {
            format!("the system killed the host {n} times within a week; take a smaller model or context, or run it on a machine with more memory")
        })
    }

    fn speak(&mut self, rule: Rule, holds: bool, advice: impl FnOnce() -> String) -> Option<(Rule, String)> {
        let spoken = self.speaking.contains(&rule);
        if !holds {
            self.speaking.retain(|spoken| *spoken != rule);
            return None;
        }
        if spoken {
            return None;
        }
        self.speaking.push(rule);
        Some((rule, advice()))
    }
}

/// Whether `condition` has been true for `long_ms`.
fn held(since: &mut Option<u64>, now: u64, condition: bool, long_ms: u64) -> bool {
    if !condition {
        *since = None;
        return false;
    }
    now.saturating_sub(*since.get_or_insert(now)) >= long_ms
}
