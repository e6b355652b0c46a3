//! What is remembered of one model that holds bytes.

use std::collections::BTreeMap;

use super::{
    action::{Rung, Throttle},
    event::{Activity, LoadRequest, ModelUse},
};
use crate::{
    bytes::Bytes,
    ledger::{Kind, Ledger, ReservationId},
};

/// What failed is not tried again for so long, ms.
const FAILED_RESTS_MS: u64 = 30_000;
/// Whoever was told that a model is there has so long to begin, ms; until then it does not count as idle.
const CLAIM_MS: u64 = 5_000;

/// What a model is doing, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its bytes are reserved.
    Loading,
    /// Its load was not reported in time. Its bytes stay reserved, because they may be held, but nobody waits for it.
    Overdue,
    /// It is there.
    Resident,
    /// It was asked to go; what runs on it ends first.
    Leaving,
}

/// One model that holds bytes.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) used_as: ModelUse,
    pub(super) state: State,
    pub(super) parts: BTreeMap<Kind, ReservationId>,
    /// Held while it loads.
    pub(super) transient: Option<ReservationId>,
    pub(super) gpu: Bytes,
    pub(super) reload_ms: u32,
    pub(super) keep_loaded: bool,
    pub(super) activity: Activity,
    pub(super) loaded_at: u64,
    /// It came back within the cool-down of its last load, because memory was plenty.
    pub(super) early: bool,
    pub(super) last_used: u64,
    /// Uses, in thousandths, halved with every doubling of the clock of uses.
    pub(super) frequency: u64,
    /// `GreedyDual`'s H.
    pub(super) value: u64,
    /// The system was asked to drop its pages; the next use brings them back.
    pub(super) pages_dropped: bool,
    /// Held beyond what the ledger could take.
    pub(super) excess: BTreeMap<Kind, Bytes>,
    /// Since when it pauses in the middle of its answers, because its weights do not fit into memory.
    pub(super) held_since: Option<u64>,
    /// Since when they would fit again, with a margin.
    pub(super) fits_since: Option<u64>,
    /// When a GPU ended its last work with weights that are still wired, as far as is known.
    pub(super) unwires_since: Option<u64>,
    /// What was sent last.
    pub(super) throttle: Throttle,
    /// Until when somebody who was told that it is there may begin.
    pub(super) claimed_until: u64,
    /// What failed and is not tried before then; `None`: to unload it.
    rests_until: BTreeMap<Option<Rung>, u64>,
}

impl Model {
    pub(super) fn new(request: &LoadRequest, now: u64) -> Self {
        Self {
            name: request.name.clone(),
            used_as: request.used_as,
            state: State::Loading,
            parts: BTreeMap::new(),
            transient: None,
            gpu: request.need.gpu,
            reload_ms: request.reload_ms,
            keep_loaded: request.keep_loaded,
            activity: Activity::default(),
            loaded_at: now,
            early: false,
            last_used: now,
            frequency: 0,
            value: 0,
            pages_dropped: false,
            excess: BTreeMap::new(),
            unwires_since: None,
            held_since: None,
            fits_since: None,
            throttle: Throttle::default(),
            claimed_until: 0,
            rests_until: BTreeMap::new(),
        }
    }

    pub(super) const fn is_loading(&self) -> bool {
        matches!(self.state, State::Loading | State::Overdue)
    }

    pub(super) const fn is_resident(&self) -> bool {
        matches!(self.state, State::Resident)
    }

    /// Bytes of the kinds that `of` names.
    pub(super) fn held(&self, ledger: &Ledger, of: impl Fn(Kind) -> bool) -> Bytes {
        let bytes = |id: &ReservationId| ledger.entry(*id).map_or(Bytes::ZERO, |entry| entry.bytes);
        self.parts.iter().filter(|(kind, _)| of(**kind)).map(|(_, id)| bytes(id)).sum()
    }

    pub(super) fn total(&self, ledger: &Ledger) -> Bytes {
        self.held(ledger, |_| true)
    }

    /// What comes free for the system when it is gone: pages that it dropped are free already, and those of a model that
    /// leaves are counted as free. Of the prompt cache only what is filled: the rest is promised and free.
    pub(super) fn frees(&self, ledger: &Ledger) -> Bytes {
        let no_pages = self.pages_dropped || self.state == State::Leaving;
        let pages = if no_pages { Bytes::ZERO } else { self.held(ledger, Kind::is_file_backed) };
        pages.saturating_add(self.anonymous(ledger))
    }

    /// By how much the process is smaller when it is gone. `resident` pages of files are in memory, of all models together.
    pub(super) fn shrinks_by(&self, ledger: &Ledger, resident: Bytes) -> Bytes {
        let pages = if self.pages_dropped { Bytes::ZERO } else { self.held(ledger, Kind::is_file_backed) };
        pages.min(resident).saturating_add(self.anonymous(ledger))
    }

    fn anonymous(&self, ledger: &Ledger) -> Bytes {
        let cache = self.held(ledger, |kind| kind == Kind::PrefixCache).min(self.activity.prompt_cache);
        cache.saturating_add(self.held(ledger, |kind| !kind.is_file_backed() && kind != Kind::PrefixCache))
    }

    /// Asked for by nobody: no request runs, none waits, and none is about to begin.
    pub(super) const fn is_idle(&self, now: u64) -> bool {
        !self.activity.is_busy() && self.activity.waiting == 0 && self.claimed_until <= now
    }

    /// Somebody is told that it is there. Asking again and again without using it keeps it only half of the time.
    pub(super) const fn claim(&mut self, now: u64) {
        if self.claimed_until == 0 || self.claimed_until.saturating_add(CLAIM_MS) <= now {
            self.claimed_until = now.saturating_add(CLAIM_MS);
        }
    }

    /// Whether `rung`, or unloading it, failed a moment ago.
    pub(super) fn rests(&self, rung: Option<Rung>, now: u64) -> bool {
        self.rests_until.get(&rung).is_some_and(|until| *until > now)
    }
    pub(super) fn rest(&mut self, rung: Option<Rung>, now: u64) {
        self.rests_until.insert(rung, now.saturating_add(FAILED_RESTS_MS));
    }
}
