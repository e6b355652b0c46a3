//! How much can be promised now, what bounds it, and what can be made free for somebody who needs more.
//!
//! Three bounds count apart, because freeing one of them frees the others only in part: what the ledger may still promise,
//! what the system has available, and what the GPU may use.

use super::{
    Governor,
    action::{Action, Recovery, Refusal},
    admit::{ANSWER_MS, Answer, UNLOAD_MS, clamp},
    event::Sample,
    model::Model,
};
use crate::{
    bytes::Bytes,
    ledger::{AppId, Kind, ModelDigest, Owner},
};

/// What may be promised now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Under the cap, beside what is guaranteed to apps.
    pub(super) ledger: Bytes,
    /// Of what the system has available; `None` before the first reading.
    system: Option<System>,
}

#[derive(Debug, Clone, Copy)]
struct System {
    available: Bytes,
    /// What must stay available: pages of weights, promises, guarantees, a reserve.
    taken: Bytes,
    /// What others may take before a decision of now has taken effect.
    falling: Bytes,
}

impl Room {
    /// The smaller of the two bounds.
    pub(super) fn bytes(&self) -> Bytes {
        self.system().min(self.ledger)
    }

    fn system(&self) -> Bytes {
        self.system
            .map_or(Bytes::MAX, |system| system.available.saturating_sub(system.taken.saturating_add(system.falling)))
    }

    /// What bounds it, in words.
    pub(super) fn bound(&self) -> &'static str {
        if self.system() < self.ledger { "available without swapping" } else { "the cap of the host" }
    }

    /// If nobody else took more: a fall that was seen may be over in a moment.
    pub(super) fn steady(mut self) -> Self {
        if let Some(system) = &mut self.system {
            system.falling = Bytes::ZERO;
        }
        self
    }

    /// What somebody lacks who needs so many bytes.
    pub(super) fn short(&self, needs: Bytes) -> Short {
        let lacks = |system: System| {
            [system.taken, system.falling, needs].into_iter().sum::<Bytes>().saturating_sub(system.available)
        };
        Short {
            ledger: needs.saturating_sub(self.ledger),
            system: self.system.map_or(Bytes::ZERO, lacks),
            gpu: Bytes::ZERO,
        }
    }
}

/// Bytes by what bounds them: lacking, or coming free.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Short {
    pub(super) ledger: Bytes,
    pub(super) system: Bytes,
    pub(super) gpu: Bytes,
}

impl Short {
    pub(super) fn is_zero(self) -> bool {
        self.most().is_zero()
    }
    fn most(self) -> Bytes {
        self.ledger.max(self.system).max(self.gpu)
    }
    fn less(self, freed: Self) -> Self {
        Self {
            ledger: self.ledger.saturating_sub(freed.ledger),
            system: self.system.saturating_sub(freed.system),
            gpu: self.gpu.saturating_sub(freed.gpu),
        }
    }
    fn and(self, other: Self) -> Self {
        Self {
            ledger: self.ledger.saturating_add(other.ledger),
            system: self.system.saturating_add(other.system),
            gpu: self.gpu.saturating_add(other.gpu),
        }
    }
}

/// Somebody who needs bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needer<'a> {
    pub(super) name: &'a str,
    pub(super) needs: Bytes,
    /// Of it, on a GPU.
    pub(super) gpu: Bytes,
    /// The model that it is for, and that is not taken from.
    pub(super) spare: Option<&'a ModelDigest>,
    /// The app that it is for: its own guarantee does not stand in its way.
    pub(super) app: Option<&'a AppId>,
}

impl Governor {
    /// What may be promised now. `app`'s own floor does not stand in its way.
    pub(super) fn room(&self, app: Option<&AppId>) -> Room {
        let floors = self.unused_floors(app);
        let system = self.sample.as_ref().map(|sample| {
            let outlook = self.gauge.outlook(sample, Bytes::ZERO, &self.config);
            let taken = [self.clean(), self.config.reserve, self.promised(), self.unseen(), floors].into_iter().sum();
            System { available: sample.available, taken, falling: outlook.falling }
        });
        Room { ledger: self.ledger.available().saturating_sub(floors), system }
    }

    pub(super) fn short(&self, room: &Room, needer: &Needer<'_>) -> Short {
        let used: Bytes = self.models.values().map(|model| model.gpu).sum();
        let gpu = match self.config.gpu_cap {
            Some(cap) if !needer.gpu.is_zero() => used.saturating_add(needer.gpu).saturating_sub(cap),
            _ => Bytes::ZERO,
        };
        Short { gpu, ..room.short(needer.needs) }
    }

    /// What comes free when a model goes.
    fn gain(&self, model: &Model) -> Short {
        Short { ledger: model.total(&self.ledger), system: model.frees(&self.ledger), gpu: model.gpu }
    }

    /// What would come free if all models but `spare` had ended.
    fn all_others(&self, spare: Option<&ModelDigest>) -> Short {
        let others = self.models.iter().filter(|(digest, _)| Some(*digest) != spare);
        others.fold(Short::default(), |sum, (_, model)| sum.and(self.gain(model)))
    }

    /// Makes room for somebody if idle things can give it; else says how long it may take, or that it cannot be.
    pub(super) fn make_room(&mut self, needer: &Needer<'_>, out: &mut Vec<Action>) -> Answer {
        let short = self.short(&self.room(needer.app), needer);
        if self.steps.values().any(super::Step::is_open) {
            return Answer::later("giving back", "memory is being given back", UNLOAD_MS);
        }
        // What costs nothing first, then idle models whose cool-down is over, then what will be idle some time.
        let mut lacking = short;
        let mut rungs = Vec::new();
        for (digest, rung, bytes) in self.cheap_rungs(needer.spare) {
            if !lacking.is_zero() {
                lacking = lacking.less(Short { ledger: bytes, system: bytes, gpu: Bytes::ZERO });
                rungs.push((digest, rung, bytes));
            }
        }
        let mut models: Vec<(ModelDigest, Short)> = Vec::new();
        let mut cooling = None::<u64>;
        for digest in self.victims() {
            if lacking.is_zero() || Some(&digest) == needer.spare {
                continue;
            }
            let Some(model) = self.models.get(&digest) else { continue };
            let cool = model.loaded_at.saturating_add(self.config.cool_down_ms);
            if cool > self.now {
                cooling = Some(cooling.unwrap_or(u64::MAX).min(cool - self.now));
                continue;
            }
            let gain = self.gain(model);
            lacking = lacking.less(gain);
            models.push((digest, gain));
        }
        if lacking.is_zero() {
            // A large victim may make small ones needless; the ones that are worth most are spared first.
            for at in (0..models.len()).rev() {
                let of_rungs = rungs.iter().map(|(_, _, bytes)| *bytes).sum();
                let others = models.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, (_, gain))| *gain);
                let freed = others.fold(Short { ledger: of_rungs, system: of_rungs, gpu: Bytes::ZERO }, Short::and);
                if short.less(freed).is_zero() {
                    models.remove(at);
                }
            }
            let why = format!("{} needs {}, short by {}", needer.name, needer.needs, short.most());
            for (digest, _) in &models {
                self.unload(digest, &why, out);
            }
            for (digest, rung, bytes) in rungs {
                if models.iter().all(|(gone, _)| *gone != digest) {
                    self.reclaim(&digest, rung, bytes, &why, out);
                }
            }
            return Answer::later("making room", format!("{} are being made free", short.most()), UNLOAD_MS * 2);
        }
        match self.never(needer) {
            Some(refusal) => Answer::No(refusal),
            None => {
                let why = format!("short by {} until other models are idle", short.most());
                Answer::later("others are busy", why, cooling.unwrap_or(ANSWER_MS))
            }
        }
    }

    /// What could be promised if all models but its own had ended.
    pub(super) fn most_in_all(&self, needer: &Needer<'_>) -> Bytes {
        self.room(needer.app).ledger.saturating_add(self.all_others(needer.spare).ledger)
    }

    /// The refusal of what would not fit either if everything that runs now had ended.
    fn never(&self, needer: &Needer<'_>) -> Option<Refusal> {
        let room = self.room(needer.app);
        let all = self.all_others(needer.spare);
        let lacking = self.short(&room, needer).less(all);
        let recovery = if !lacking.ledger.is_zero() {
            Recovery::Smaller { at_most: self.most_in_all(needer) }
        } else if !lacking.system.is_zero() {
            Recovery::Free { bytes: lacking.system }
        } else {
            return None;
        };
        Some(self.refusal(needer, recovery, room.bound()))
    }

    /// The refusal of what does not fit now and is not waited for any longer.
    pub(super) fn not_now(&self, needer: &Needer<'_>, bound: &str) -> Refusal {
        if let Some(refusal) = self.never(needer) {
            return refusal;
        }
        let short = self.short(&self.room(needer.app), needer);
        let recovery = if short.ledger.is_zero() && short.gpu.is_zero() && !short.system.is_zero() {
            Recovery::Free { bytes: short.system }
        } else {
            Recovery::Retry { after_ms: clamp(ANSWER_MS) }
        };
        self.refusal(needer, recovery, bound)
    }

    pub(super) fn refusal(&self, needer: &Needer<'_>, recovery: Recovery, bound: &str) -> Refusal {
        Refusal {
            what: needer.name.to_owned(),
            needs: needer.needs,
            room: self.room(needer.app).bytes(),
            bound: bound.to_owned(),
            biggest: self.ledger.biggest().map(|(owner, bytes)| (self.owner_name(&owner), bytes)),
            recovery,
        }
    }

    fn owner_name(&self, owner: &Owner) -> String {
        match owner {
            Owner::Model(digest) => {
                self.models.get(digest).map_or_else(|| owner.to_string(), |model| model.name.clone())
            }
            Owner::Host | Owner::App(_) | Owner::Session { .. } => owner.to_string(),
        }
    }

    /// Pages of weights that are part of what the system calls available and are to stay: those of models that were not
    /// evicted softly. While a GPU works on them they are wired, and not available.
    pub(super) fn clean(&self) -> Bytes {
        let counted = |model: &&Model| model.is_resident() && !model.pages_dropped && !self.wires(model);
        let file = |model: &Model| model.held(&self.ledger, Kind::is_file_backed);
        self.models.values().filter(counted).map(file).sum()
    }

    /// Pages of weights that a GPU works on.
    pub(super) fn wired(&self) -> Bytes {
        let file = |model: &Model| model.held(&self.ledger, Kind::is_file_backed);
        self.models.values().filter(|model| self.wires(model)).map(file).sum()
    }

    /// Weights that a GPU has let go of show up as a rise of what is available; until then they count as wired, but not for
    /// ever.
    pub(super) fn notice_unwired(&mut self, sample: &Sample) {
        let Some(before) = self.sample.as_ref().map(|last| last.available) else { return };
        let mut rise = sample.available.saturating_sub(before);
        let (now, limit) = (self.now, self.config.unwire_ms);
        let mut expired = false;
        for model in self.models.values_mut() {
            let Some(since) = model.unwires_since else { continue };
            let weights = model.held(&self.ledger, Kind::is_file_backed);
            if rise >= weights.fraction(1, 2) {
                rise = rise.saturating_sub(weights);
                model.unwires_since = None;
            } else if now.saturating_sub(since) >= limit {
                model.unwires_since = None;
                expired = true;
            }
        }
        if expired {
            self.gauge.forget_own();
        }
    }

    fn wires(&self, model: &Model) -> bool {
        self.config.wires_weights && (model.activity.is_busy() || model.unwires_since.is_some())
    }

    /// Bytes that were promised and are not allocated yet, so that no reading shows them.
    fn promised(&self) -> Bytes {
        self.ledger.entries().filter(|(_, entry)| !entry.committed).map(|(_, entry)| entry.bytes).sum()
    }

    /// Bytes guaranteed to apps that they do not hold yet, `except` one's. KV of their sessions is not counted against it: it
    /// lies in the models and is gone when a conversation ends.
    pub(super) fn unused_floors(&self, except: Option<&AppId>) -> Bytes {
        let others = self.apps.iter().filter(|(id, _)| Some(*id) != except);
        others.map(|(_, app)| app.lease.floor().saturating_sub(app.guest)).sum()
    }
}
