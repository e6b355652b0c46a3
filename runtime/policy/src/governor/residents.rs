//! The models that hold bytes: how they come into the account, what they really hold, and how they leave it.

use super::{
    Governor,
    action::Action,
    event::{Activity, LoadRequest},
    model::{Model, State},
};
use crate::{
    bytes::Bytes,
    ledger::{Kind, ModelDigest, Owner},
};

/// A load has so long beside ten times what was expected, ms.
const LOAD_LIMIT_MS: u64 = 60_000;

impl Governor {
    /// Enters the promise of an admitted load, for which there is `room`.
    pub(super) fn reserve(&mut self, request: &LoadRequest, room: Bytes) {
        let owner = Owner::Model(request.model.clone());
        let mut model = Model::new(request, self.now);
        let cool_down = self.config.cool_down_ms;
        model.early = self.gone.get(&request.model).is_some_and(|(at, _)| at.saturating_add(cool_down) > self.now);
        // `room` is within what the ledger has left, so this cannot be refused; were it, the load would hold less than it was
        // promised and the difference show up as excess when it is done.
        for &(kind, bytes) in &request.need.parts {
            match model.parts.get(&kind) {
                Some(id) => {
                    let held = self.ledger.entry(*id).map_or(Bytes::ZERO, |entry| entry.bytes);
                    let _ = self.ledger.resize(*id, held.saturating_add(bytes));
                }
                None => {
                    if let Ok(id) = self.ledger.reserve(owner.clone(), kind, bytes) {
                        model.parts.insert(kind, id);
                    }
                }
            }
        }
        if !request.need.transient.is_zero() {
            model.transient = self.ledger.reserve(owner, Kind::Tables, request.need.transient).ok();
        }
        if self.models.is_empty() {
            self.rules.begin();
        }
        if let Some(app) = &request.app {
            self.fair.arrive(app, self.apps.keys());
        }
        self.models.insert(request.model.clone(), model);
        let needs = request.need.peak();
        self.decide(format!("admitted {}", request.name), format!("needs {needs}, {room} can be had"));
    }

    /// The app uses the model from now on and bears a part of it, as long as both are there.
    pub(super) fn share(&mut self, request: &LoadRequest, out: &mut Vec<Action>) {
        if let Some(model) = self.models.get_mut(&request.model) {
            model.keep_loaded |= request.keep_loaded;
            model.claim(self.now);
        }
        if let Some(app) = request.app.as_ref().filter(|app| self.apps.contains_key(*app)) {
            self.ledger.attach(&request.model, app);
            self.tell_of_excess(app, out);
        }
    }

    pub(super) fn loaded(
        &mut self,
        digest: &ModelDigest,
        holds: &[(Kind, Bytes)],
        took_ms: u32,
        out: &mut Vec<Action>,
    ) {
        let now = self.now;
        let Some(model) = self.models.get_mut(digest).filter(|model| model.is_loading()) else { return };
        model.state = State::Resident;
        model.loaded_at = now;
        model.last_used = now;
        model.claim(now);
        // What a load really takes here is the best guess of the next one; disks and caches differ from hour to hour.
        model.reload_ms = model.reload_ms.midpoint(took_ms.max(1));
        if let Some(transient) = model.transient.take() {
            let _ = self.ledger.release(transient);
        }
        self.enter(digest, holds);
        // The next reading shows it, where there are readings.
        self.stale = self.sample.is_some();
        let Some(model) = self.models.get(digest) else { return };
        let anonymous = model.held(&self.ledger, |kind| !kind.is_file_backed());
        let (name, excess) = (model.name.clone(), model.excess.values().copied().sum::<Bytes>());
        self.unseen[1] = self.unseen[1].saturating_add(anonymous);
        if !excess.is_zero() {
            let why = format!("{name} holds {excess} more than was promised and there is no room for it");
            self.unload(digest, &why, out);
        }
    }

    /// Enters what a model really holds. Less gives the rest back; more than there is room for is its excess.
    pub(super) fn enter(&mut self, digest: &ModelDigest, holds: &[(Kind, Bytes)]) {
        let Some(model) = self.models.get(digest) else { return };
        let kinds = model.parts.keys().chain(holds.iter().map(|(kind, _)| kind));
        let of = |kind: Kind| holds.iter().filter(|(of, _)| *of == kind).map(|(_, bytes)| *bytes).sum::<Bytes>();
        let mut wanted: Vec<(Kind, Bytes)> = kinds.map(|kind| (*kind, of(*kind))).collect();
        wanted.sort_unstable();
        wanted.dedup();
        // What shrinks makes room for what grows.
        let held = |kind: Kind| model.held(&self.ledger, |of| of == kind);
        wanted.sort_by_key(|(kind, bytes)| *bytes > held(*kind));
        for (kind, bytes) in wanted {
            self.set_part(digest, kind, bytes);
        }
    }

    /// One part of a model is `bytes` now, as far as the cap and the guarantees of apps allow.
    fn set_part(&mut self, digest: &ModelDigest, kind: Kind, bytes: Bytes) {
        let room = self.ledger.available().saturating_sub(self.unused_floors(None));
        let Some(model) = self.models.get_mut(digest) else { return };
        let id = match model.parts.get(&kind) {
            Some(id) => *id,
            None if bytes.is_zero() => return,
            None => match self.ledger.reserve(Owner::Model(digest.clone()), kind, Bytes::ZERO) {
                Ok(id) => *model.parts.entry(kind).or_insert(id),
                Err(_) => return,
            },
        };
        let (before, committed) =
            self.ledger.entry(id).map_or((Bytes::ZERO, true), |entry| (entry.bytes, entry.committed));
        let entered = bytes.min(before.saturating_add(room));
        // Within what is left, so neither can be refused.
        let _ = if committed { self.ledger.resize(id, entered) } else { self.ledger.commit(id, entered) };
        let excess = bytes.saturating_sub(entered);
        if excess.is_zero() {
            model.excess.remove(&kind);
        } else {
            model.excess.insert(kind, excess);
        }
    }

    /// A model was used: its worth rises.
    pub(super) fn touch(&mut self, digest: &ModelDigest) {
        let (now, inflation) = (self.now, self.inflation);
        let Some(model) = self.models.get_mut(digest) else { return };
        // Uses of ten minutes ago count half.
        let halvings = (now.saturating_sub(model.last_used) / 600_000).min(63);
        model.frequency = (model.frequency >> halvings).saturating_add(1000);
        model.last_used = now;
        let bytes = model.total(&self.ledger).get().max(1 << 20) >> 20;
        model.value = inflation.saturating_add(model.frequency.saturating_mul(u64::from(model.reload_ms)) / bytes);
        model.claimed_until = 0;
    }

    /// A model is used differently than before.
    pub(super) fn active(&mut self, digest: &ModelDigest, activity: Activity) {
        let Some(model) = self.models.get_mut(digest) else { return };
        let now = self.now;
        let begins = activity.is_busy() && !model.activity.is_busy();
        let ends = !activity.is_busy() && model.activity.is_busy();
        model.activity = activity;
        if begins {
            // Whoever computes reads all the weights.
            model.pages_dropped = false;
            model.unwires_since = None;
            self.touch(digest);
        } else if ends {
            (model.held_since, model.fits_since) = (None, None);
            model.unwires_since = self.config.wires_weights.then_some(now);
            model.last_used = now;
        }
    }

    /// Bytes that models hold and the account has no room for.
    pub(super) fn excess(&self) -> Bytes {
        self.models.values().flat_map(|model| model.excess.values().copied()).sum()
    }

    /// Enters excess for which there is room by now.
    pub(super) fn absorb_excess(&mut self) {
        let open: Vec<_> = self
            .models
            .iter()
            .flat_map(|(digest, model)| model.excess.iter().map(|(kind, bytes)| (digest.clone(), *kind, *bytes)))
            .collect();
        for (digest, kind, excess) in open {
            let held = self.models.get(&digest).map_or(Bytes::ZERO, |model| model.held(&self.ledger, |of| of == kind));
            self.set_part(&digest, kind, held.saturating_add(excess));
        }
    }

    pub(super) fn load_failed(&mut self, digest: &ModelDigest) {
        if let Some(model) = self.models.get(digest).filter(|model| model.is_loading()) {
            let what = format!("{} did not load", model.name);
            self.decide(what, "its bytes are free again");
            self.release(digest);
        }
    }

    /// A load that takes ten times as long as expected, and a minute more, holds up no other one any longer. Its bytes stay
    /// reserved: they may be held, and whoever loads it may still come to an end.
    pub(super) fn expire_loads(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        let late = |model: &&mut Model| {
            let limit = u64::from(model.reload_ms).saturating_mul(10).saturating_add(LOAD_LIMIT_MS);
            model.state == State::Loading && now.saturating_sub(model.loaded_at) >= limit
        };
        let mut messages = Vec::new();
        for model in self.models.values_mut().filter(late) {
            model.state = State::Overdue;
            let (seconds, expected) = (now.saturating_sub(model.loaded_at) / 1000, model.reload_ms.div_ceil(1000));
            messages.push(format!(
                "{} has been loading for {seconds} s, {expected} s were expected; its bytes stay reserved and other models are loaded meanwhile. Look whether its disk answers, or start Locara again",
                model.name
            ));
        }
        for message in messages {
            self.decide("gave up waiting for a load", message.clone());
            out.push(Action::Tell { message });
        }
    }

    /// A model is gone: its bytes are free, and it stays away for the rest of its cool-down.
    pub(super) fn forget(&mut self, digest: &ModelDigest) {
        if let Some(model) = self.models.get(digest) {
            self.gone.insert(digest.clone(), (model.loaded_at, model.early));
        }
        let (now, cool_down) = (self.now, self.config.cool_down_ms);
        self.gone.retain(|_, (loaded_at, _)| loaded_at.saturating_add(cool_down) > now);
        self.release(digest);
    }

    /// A model is gone by itself: whatever ended it may end it again, so it does not come back early.
    pub(super) fn lost(&mut self, digest: &ModelDigest) {
        if let Some(model) = self.models.get_mut(digest) {
            model.early = true;
        }
        self.forget(digest);
    }

    /// A model is gone, and nothing keeps it from coming back.
    pub(super) fn release(&mut self, digest: &ModelDigest) {
        self.steps.retain(|_, step| step.model != *digest);
        self.models.remove(digest);
        self.ledger.release_owner(&Owner::Model(digest.clone()));
        self.ledger.detach_model(digest);
    }
}
