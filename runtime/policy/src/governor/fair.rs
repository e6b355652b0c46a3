//! Who is next, among apps that compete for the device: virtual token counters (Sheng et al., arXiv 2401.00588).
//!
//! Each app has a counter that grows with what it used, divided by its weight; the smallest is served first. An app that was
//! away does not bank its idle time: on arrival its counter is lifted to the smallest of those that are active. A ticket
//! that was passed over often enough goes first whatever the counters say, so nobody starves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::Class;
use crate::ledger::AppId;

/// Weight of an app that a person looks at, against one in the background.
const VISIBLE_WEIGHT: u64 = 8;
/// A megabyte of KV held for a second costs as much as this many ms of the device: with 100 MB held, one tenth on top.
const MS_PER_KV_MB_S: u64 = 1;
/// Times that a ticket may be passed over before it goes first.
pub(super) const PASSED_OVER_MOST: u32 = 8;
/// Counters of apps that are gone are kept for so many apps, so that a restart does not wipe what was used.
const MOST_APPS: usize = 256;

/// The counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fairness {
    /// Weighted ms, in thousandths.
    counters: BTreeMap<AppId, u64>,
}

/// Something that waits for its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) app: Option<&'a AppId>,
    pub(super) class: Class,
    /// Times that another one went first.
    pub(super) passed_over: u32,
}

impl Waiting<'_> {
    /// Passed over so often that nobody goes before it any more.
    pub(super) const fn is_aged(&self) -> bool {
        self.passed_over >= PASSED_OVER_MOST
    }
}

impl Fairness {
    /// An app begins to compete with `active` others.
    pub(super) fn arrive<'a>(&mut self, app: &AppId, active: impl Iterator<Item = &'a AppId>) {
        let least = active.filter(|other| *other != app).filter_map(|other| self.counters.get(other)).min().copied();
        let counter = self.counter(app);
        *counter = (*counter).max(least.unwrap_or(0));
    }

    fn counter(&mut self, app: &AppId) -> &mut u64 {
        if self.counters.len() >= MOST_APPS && !self.counters.contains_key(app) {
            // Whoever used least loses least when it is forgotten.
            let least_used = self.counters.iter().min_by_key(|(_, used)| **used).map(|(id, _)| id.clone());
            least_used.map(|id| self.counters.remove(&id));
        }
        self.counters.entry(app.clone()).or_default()
    }

    /// An app used the device.
    pub(super) fn charge(&mut self, app: &AppId, visible: bool, device_ms: u32, kv_mb_s: u32) {
        let cost = u64::from(device_ms) + u64::from(kv_mb_s).saturating_mul(MS_PER_KV_MB_S);
        let weight = if visible { VISIBLE_WEIGHT } else { 1 };
        let counter = self.counter(app);
        *counter = counter.saturating_add(cost.saturating_mul(1000) / weight);
    }

    /// Positions in the order in which they are served: who was passed over too often, then interactive before background,
    /// then the smallest counter, then the longest wait.
    pub(super) fn order<'a>(&self, waiting: impl Iterator<Item = Waiting<'a>>) -> Vec<usize> {
        let rank = |(at, ticket): &(usize, Waiting<'a>)| {
            let aged = ticket.is_aged();
            // Requests of the host itself compete as the least served.
            let counter = ticket.app.and_then(|app| self.counters.get(app)).copied().unwrap_or(0);
            let (class, counter) = if aged { (Class::Interactive, 0) } else { (ticket.class, counter) };
            (!aged, class, counter, *at)
        };
        let mut order: Vec<_> = waiting.enumerate().collect();
        order.sort_by_key(rank);
        order.into_iter().map(|(at, _)| at).collect()
    }

    /// What an app has used, in weighted ms.
    pub(super) fn used(&self, app: &AppId) -> u64 {
        self.counters.get(app).copied().unwrap_or(0) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppId {
        AppId(name.to_owned())
    }

    #[test]
    fn idle_time_is_not_banked() {
        let (busy, late) = (app("busy"), app("late"));
        let mut fair = Fairness::default();
        fair.arrive(&busy, std::iter::empty());
        fair.charge(&busy, false, 60_000, 0);
        fair.arrive(&late, [&busy].into_iter());
        assert_eq!(fair.used(&late), fair.used(&busy), "an hour of absence buys no hour of service");
        fair.charge(&busy, false, 1, 0);
        let waiting = [&busy, &late].map(|app| Waiting { app: Some(app), class: Class::Background, passed_over: 0 });
        assert_eq!(fair.order(waiting.into_iter()), [1, 0]);
    }

    #[test]
    fn a_visible_app_pays_an_eighth_and_an_aged_ticket_goes_first() {
        let (seen, hidden) = (app("seen"), app("hidden"));
        let mut fair = Fairness::default();
        fair.charge(&seen, true, 800, 0);
        fair.charge(&hidden, false, 200, 0);
        let ticket = |app, class, passed_over| Waiting { app: Some(app), class, passed_over };
        let both = [ticket(&hidden, Class::Interactive, 0), ticket(&seen, Class::Interactive, 0)];
        assert_eq!(fair.order(both.into_iter()), [1, 0]);
        let aged = [ticket(&seen, Class::Interactive, 0), ticket(&hidden, Class::Background, PASSED_OVER_MOST)];
        assert_eq!(fair.order(aged.into_iter()), [1, 0]);
    }
}
