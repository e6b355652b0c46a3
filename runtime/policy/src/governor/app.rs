//! What is remembered of one app that runs, and what its word is worth.

use super::{
    action::{Consequence, Level},
    event::Class,
};
use crate::{bytes::Bytes, lease::Lease, ledger::ReservationId};

/// Full trust, in thousandths.
const TRUSTED: u32 = 1000;
/// An app is never trusted less than this: an eighth of what lies above its floor.
const LEAST_TRUST: u32 = 125;
/// An app that did not give what it was asked for is left alone for so long, ms; doubled each time.
const QUIET_MS: u64 = 1_000;
const QUIET_MOST_MS: u64 = 60_000;
/// Answers to one epoch that are heard. More are noise, and noise must not cost anything.
pub(super) const ANSWERS_HEARD: u32 = 8;

/// An app that runs.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) lease: Lease,
    pub(super) class: Class,
    pub(super) visible: bool,
    /// Guest memory.
    pub(super) guest: Bytes,
    pub(super) guest_id: Option<ReservationId>,
    /// KV of its conversations.
    pub(super) kv: Bytes,
    /// What it says that its pools could release.
    pub(super) reclaimable: Bytes,
    /// It pledged memory of its heap and nothing was seen of it: the next time counts.
    doubted: bool,
    pub(super) epoch: u32,
    pub(super) open: Option<Open>,
    /// Share of what lies above the floor that it may use, in thousandths.
    pub(super) trust: u32,
    pub(super) suspended: bool,
    /// The person was told that it exceeds what it declared.
    pub(super) told: bool,
    /// It was acted upon and is left alone until then.
    pub(super) rests_until: u64,
    pub(super) restored_at: u64,
    /// It gave less than it was asked for, and is not asked for the same again before a while.
    quiet: Option<Quiet>,
    /// How far the limit was cut in this episode.
    pub(super) cut: Bytes,
    /// Runs that share this lease.
    pub(super) runs: u32,
}

/// An app that could not give what it was asked for. Asking for the same again and again frees nothing.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    /// Demands in a row that were not met.
    tries: u32,
    until: u64,
    /// What it held then, and how tight it was: more of either is a new demand.
    own: Bytes,
    level: Level,
}

/// An epoch that asks for bytes and whose deadline has not passed.
#[derive(Debug, Clone)]
pub(super) struct Open {
    /// The epoch that says so: a newer limit repeats the demand, an answer to an older one is void.
    pub(super) epoch: u32,
    pub(super) level: Level,
    pub(super) release: Bytes,
    pub(super) held_before: Bytes,
    /// Of it, guest memory; and what the app then said that it could release.
    pub(super) guest_before: Bytes,
    pub(super) reclaimable_before: Bytes,
    pub(super) deadline: u64,
    pub(super) pledged: Bytes,
    pub(super) answers: u32,
    pub(super) deferred: bool,
    /// It says that it has released.
    pub(super) done: bool,
    pub(super) on_deadline: Consequence,
}

impl App {
    pub(super) const fn new(lease: Lease, class: Class, visible: bool, now: u64) -> Self {
        Self {
            lease,
            class,
            visible,
            guest: Bytes::ZERO,
            guest_id: None,
            kv: Bytes::ZERO,
            reclaimable: Bytes::ZERO,
            doubted: false,
            epoch: 0,
            open: None,
            trust: TRUSTED,
            suspended: false,
            told: false,
            rests_until: 0,
            restored_at: now,
            quiet: None,
            cut: Bytes::ZERO,
            runs: 1,
        }
    }
    /// What it holds by its own doing.
    pub(super) const fn own(&self) -> Bytes {
        self.guest.saturating_add(self.kv)
    }
    /// The time of a demand does not run out while the machine sleeps.
    pub(super) const fn wait_longer(&mut self, ms: u64) {
        if let Some(open) = &mut self.open {
            open.deadline = open.deadline.saturating_add(ms);
        }
    }
    /// Whether it showed a while ago that it has nothing more to give.
    pub(super) fn is_quiet(&self, now: u64, level: Level) -> bool {
        self.quiet.is_some_and(|quiet| now < quiet.until && self.own() <= quiet.own && level <= quiet.level)
    }
    /// A demand has ended. What was not met is asked for again after a second, then two, and so on up to a minute.
    pub(super) fn asked(&mut self, met: bool, now: u64, level: Level) {
        let own = self.own();
        self.quiet = (!met).then(|| {
            let same = self.quiet.filter(|quiet| own <= quiet.own && level <= quiet.level);
            let tries = same.map_or(0, |quiet| quiet.tries.saturating_add(1));
            let pause = QUIET_MS.saturating_mul(1 << tries.min(6)).min(QUIET_MOST_MS);
            Quiet { tries, until: now.saturating_add(pause), own, level }
        });
    }
    /// A demand has ended: a word that was kept earns trust, one that was broken costs half of it.
    pub(super) fn judge(&mut self, open: &Open, freed: Bytes) {
        if freed >= open.release {
            self.trust = (self.trust + self.trust / 4).min(TRUSTED);
            self.doubted = false;
        } else if self.broke_its_word(open, freed) {
            self.trust = (self.trust / 2).max(LEAST_TRUST);
        }
    }
    /// Whether it did less than it pledged. Linear memory never shrinks, so heap that an app has freed stays committed and is
    /// not seen: a pledge that its heap can explain counts as kept if its pools say so, and is doubted once if they do not.
    fn broke_its_word(&mut self, open: &Open, freed: Bytes) -> bool {
        let promised = open.pledged.min(open.release);
        let missing = promised.saturating_sub(freed);
        if missing.is_zero() {
            return false;
        }
        if missing > open.guest_before {
            return true;
        }
        let freed_inside = open.reclaimable_before.saturating_sub(self.reclaimable);
        freed_inside < missing && std::mem::replace(&mut self.doubted, true)
    }
    /// What it may hold now.
    pub(super) fn limit(&self) -> Bytes {
        self.lease.limit().min(self.burst())
    }
    /// What it has given back since it was asked.
    pub(super) fn freed(&self) -> Bytes {
        self.open.as_ref().map_or(Bytes::ZERO, |open| open.held_before.saturating_sub(self.own()))
    }
    /// What it may hold at most with the trust it has.
    pub(super) fn burst(&self) -> Bytes {
        let above = self.lease.ceiling().saturating_sub(self.lease.floor());
        self.lease.floor().saturating_add(above.fraction(u64::from(self.trust), u64::from(TRUSTED)))
    }
}
