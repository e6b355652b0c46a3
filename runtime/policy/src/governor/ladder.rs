//! What is given back, and by whom: the ladder of `memory.md` §5.
//!
//! Of everything that the level allows, the cheapest set is taken whose bytes reach the target. It is measured when it is
//! done, the system gets time to settle, and only then the next round begins. Victims among models are chosen by
//! GreedyDual-Size-Frequency (Cherkasova 1998): a model is worth how often it is used times what a reload costs, per byte.

use std::collections::BTreeMap;

use super::{
    Governor,
    action::{Action, Level, Rung, Throttle},
    climate,
    event::{Activity, LoadRequest, ModelUse, StepId},
};
use crate::{
    bytes::Bytes,
    ledger::{Kind, Ledger, ModelDigest, ReservationId},
};

/// A step for less than this is not worth its disturbance.
const LEAST_STEP: Bytes = Bytes::mib(1);
/// A rung that failed is not tried again for so long, ms.
const FAILED_RESTS_MS: u64 = 30_000;

/// What a model is doing, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its bytes are reserved.
    Loading,
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
    pub(super) last_used: u64,
    /// Uses, in thousandths, halved with every doubling of the clock of uses.
    frequency: u64,
    /// `GreedyDual`'s H.
    value: u64,
    /// The system was asked to drop its pages; the next use brings them back.
    pub(super) pages_dropped: bool,
    /// Held beyond what the ledger could take.
    pub(super) excess: Bytes,
    /// What was sent last.
    pub(super) throttle: Throttle,
    rests_until: BTreeMap<Rung, u64>,
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
            last_used: now,
            frequency: 0,
            value: 0,
            pages_dropped: false,
            excess: Bytes::ZERO,
            throttle: Throttle::default(),
            rests_until: BTreeMap::new(),
        }
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

    /// Asked for by nobody: no request runs and none waits.
    pub(super) const fn is_idle(&self) -> bool {
        !self.activity.is_busy() && self.activity.waiting == 0
    }

    fn rests(&self, rung: Rung, now: u64) -> bool {
        self.rests_until.get(&rung).is_some_and(|until| *until > now)
    }
}

/// What was asked for and not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) model: ModelDigest,
    /// `None`: unload.
    pub(super) rung: Option<Rung>,
    pub(super) expected: Bytes,
    since: u64,
}

/// Something that could be given back.
struct Candidate {
    model: ModelDigest,
    rung: Option<Rung>,
    bytes: Bytes,
    /// What it costs to have it back, ms.
    cost: u64,
}

impl Governor {
    /// Gives back what the level demands, one round at a time.
    pub(super) fn climb(&mut self, out: &mut Vec<Action>) {
        let level = self.gauge.level;
        if level == Level::Normal || self.stale || self.is_stepping() {
            return;
        }
        let Some(wanted) = self.wanted() else { return };
        let candidates = self.candidates(level);
        // At `critical` everything goes that nobody is waiting for; below it, the cheapest set that is enough.
        let (chosen, got) = if level == Level::Critical { all(candidates) } else { cheapest(candidates, wanted) };
        for candidate in chosen {
            self.step(candidate, &format!("{wanted} are wanted"), out);
        }
        if level >= Level::Tight {
            self.ask_apps(wanted.saturating_sub(got), out);
        }
    }

    /// A step is under way: its bytes are not in any reading yet. A model that leaves when its answers have ended may take
    /// its time, and does not hold up the rest.
    fn is_stepping(&self) -> bool {
        self.steps.values().any(|step| {
            step.rung.is_some() || self.models.get(&step.model).is_none_or(|model| !model.activity.is_busy())
        })
    }

    /// How many bytes should come free. `None`: enough is free.
    fn wanted(&self) -> Option<Bytes> {
        let sample = self.sample.as_ref()?;
        let clean = self.clean().min(sample.own_file);
        let outlook = self.gauge.outlook(sample, clean, &self.config);
        let target = self.config.calm_above(Level::Elevated).saturating_add(outlook.falling);
        let excess: Bytes = self.models.values().map(|model| model.excess).sum();
        let mut wanted = target.saturating_sub(outlook.spare).max(excess);
        if self.gauge.level >= Level::Tight {
            // The kernel may know what no figure of ours shows: then give back something all the same.
            wanted = wanted.max(self.config.tight_below.fraction(1, 2));
        }
        (!wanted.is_zero()).then_some(wanted)
    }

    fn candidates(&self, level: Level) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (digest, model) in &self.models {
            if !model.is_resident() {
                continue;
            }
            let mut offer = |rung: Option<Rung>, bytes: Bytes, cost: u64| {
                let resting = rung.is_some_and(|rung| model.rests(rung, self.now));
                if bytes >= LEAST_STEP && !resting {
                    found.push(Candidate { model: digest.clone(), rung, bytes, cost });
                }
            };
            let Activity { idle_kv, background_kv, prompt_cache, background, .. } = model.activity;
            let mb = |bytes: Bytes| bytes.get() >> 20;
            offer(Some(Rung::PromptCache), prompt_cache, mb(prompt_cache) / 64);
            offer(Some(Rung::IdleSessions), idle_kv, 50 + mb(idle_kv) / 8);
            if level < Level::Tight {
                continue;
            }
            let weights = model.held(&self.ledger, Kind::is_file_backed);
            let reload = u64::from(model.reload_ms);
            let idle = model.is_idle();
            if idle && !model.pages_dropped && !self.config.wires_weights {
                offer(Some(Rung::Weights), weights, reload);
            }
            // What leaves takes its rungs along; these two compete with it, and the set is pruned.
            let total = model.total(&self.ledger);
            if model.used_as == ModelUse::Secondary && idle {
                offer(None, total, reload + 100);
            } else if idle && (level == Level::Critical || !model.keep_loaded) {
                offer(None, total, 2 * reload + 1_000);
            } else if level == Level::Critical {
                // Finishes what it is answering, then goes.
                offer(None, total, 4 * reload + 10_000);
            }
            if background > 0 {
                offer(Some(Rung::Background), background_kv, 500 + mb(background_kv));
            }
        }
        found
    }

    /// Whether states may be written to disk: not at `critical`, where writing takes memory, and not on a full disk.
    fn may_spill(&self) -> bool {
        let disk = self.sample.as_ref().and_then(|sample| sample.disk_free);
        self.gauge.level < Level::Critical && disk.is_none_or(|free| free >= self.config.disk_least)
    }

    fn step(&mut self, candidate: Candidate, why: &str, out: &mut Vec<Action>) {
        let Candidate { model: digest, rung, bytes: expected, .. } = candidate;
        let spill = self.may_spill();
        let Some(model) = self.models.get_mut(&digest) else { return };
        let id = StepId(self.next_step);
        self.next_step += 1;
        let what = match rung {
            Some(rung) => {
                out.push(Action::Reclaim { step: id, model: digest.clone(), rung, spill, expected });
                format!("give back {expected}: {rung} of {}", model.name)
            }
            None => {
                model.state = State::Leaving;
                self.inflation = self.inflation.max(model.value);
                out.push(Action::Unload { step: id, model: digest.clone(), expected });
                format!("unload {} for {expected}", model.name)
            }
        };
        self.steps.insert(id, Step { model: digest, rung, expected, since: self.now });
        self.decide(what, why);
    }

    /// Unloads one model.
    pub(super) fn unload(&mut self, digest: &ModelDigest, why: &str, out: &mut Vec<Action>) {
        let Some(model) = self.models.get(digest).filter(|model| model.is_resident()) else { return };
        let bytes = model.total(&self.ledger);
        self.step(Candidate { model: digest.clone(), rung: None, bytes, cost: 0 }, why, out);
    }

    /// Gives back one rung of one model, if there is anything worth it.
    pub(super) fn reclaim(&mut self, digest: &ModelDigest, rung: Rung, bytes: Bytes, why: &str, out: &mut Vec<Action>) {
        let rests = self.models.get(digest).is_none_or(|model| !model.is_resident() || model.rests(rung, self.now));
        if bytes >= LEAST_STEP && !rests {
            self.step(Candidate { model: digest.clone(), rung: Some(rung), bytes, cost: 0 }, why, out);
        }
    }

    /// A step is done: what it freed is entered, and no reading counts until the system has settled.
    pub(super) fn done(&mut self, id: StepId, freed: Bytes, holds: Option<&[(Kind, Bytes)]>) {
        let Some(step) = self.steps.remove(&id) else { return };
        self.stale = true;
        self.settle_until = self.now.saturating_add(self.config.settle_ms);
        let took = self.now.saturating_sub(step.since);
        let name = self.models.get(&step.model).map_or_else(String::new, |model| model.name.clone());
        let what = match step.rung {
            Some(rung) => format!("freed {freed}: {rung} of {name}"),
            None => format!("freed {freed}: {name} unloaded"),
        };
        self.decide(what, format!("{} expected, {took} ms", step.expected));
        match holds {
            Some(holds) => self.enter(&step.model, holds),
            None => self.forget(&step.model),
        }
        if let (Some(rung), Some(model)) = (step.rung, self.models.get_mut(&step.model)) {
            match rung {
                Rung::PromptCache => model.activity.prompt_cache = Bytes::ZERO,
                Rung::IdleSessions => model.activity.idle_kv = Bytes::ZERO,
                Rung::Background => model.activity.background_kv = Bytes::ZERO,
                Rung::Weights => model.pages_dropped = true,
            }
            if freed.is_zero() {
                // It promised and had nothing: do not ask again at once.
                model.rests_until.insert(rung, self.now.saturating_add(FAILED_RESTS_MS));
            }
        }
    }

    /// A step could not be done.
    pub(super) fn failed(&mut self, id: StepId, reason: &str) {
        let Some(step) = self.steps.remove(&id) else { return };
        let Some(model) = self.models.get_mut(&step.model) else { return };
        let name = model.name.clone();
        match step.rung {
            Some(rung) => {
                model.rests_until.insert(rung, self.now.saturating_add(FAILED_RESTS_MS));
                self.decide(format!("could not give back {rung} of {name}"), reason);
            }
            None => {
                model.state = State::Resident;
                self.decide(format!("could not unload {name}"), reason);
            }
        }
    }

    /// A step that nobody answers is taken for lost, so that a vanished answer does not stop the ladder for ever. Unloads
    /// wait for the answers in flight and are not lost.
    pub(super) fn expire_steps(&mut self) {
        let limit = self.config.step_limit_ms;
        let now = self.now;
        let lost = |step: &Step| step.rung.is_some() && now.saturating_sub(step.since) > limit;
        let ids: Vec<_> = self.steps.iter().filter(|(_, step)| lost(step)).map(|(id, _)| *id).collect();
        for id in ids {
            self.failed(id, &format!("no answer within {limit} ms"));
        }
    }

    /// Models that nobody used for long go, unless somebody asked to keep them and memory is not tight.
    pub(super) fn let_go_of_idle(&mut self, out: &mut Vec<Action>) {
        let limit = climate::idle_unload_ms(self.sample.as_ref(), &self.config);
        let (now, tight) = (self.now, self.gauge.level >= Level::Tight);
        let due = |model: &Model| {
            model.is_resident()
                && model.is_idle()
                && now.saturating_sub(model.last_used.max(model.loaded_at)) >= limit
                && (tight || !model.keep_loaded)
        };
        let digests: Vec<_> = self.models.iter().filter(|(_, model)| due(model)).map(|(id, _)| id.clone()).collect();
        for digest in digests {
            self.unload(&digest, &format!("nobody used it for {} s", limit / 1000), out);
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
    }

    /// A model is used differently than before.
    pub(super) fn active(&mut self, digest: &ModelDigest, activity: super::Activity) {
        let Some(model) = self.models.get_mut(digest) else { return };
        let begins = activity.is_busy() && !model.activity.is_busy();
        let ends = !activity.is_busy() && model.activity.is_busy();
        model.activity = activity;
        if begins {
            // Whoever computes reads all the weights.
            model.pages_dropped = false;
            self.touch(digest);
        } else if ends {
            model.last_used = self.now;
        }
    }

    /// Idle models in the order in which they are given up for another one: those that somebody asked to keep last.
    pub(super) fn victims(&self) -> Vec<ModelDigest> {
        let idle = |(_, model): &(&ModelDigest, &Model)| model.is_resident() && model.is_idle();
        let mut found: Vec<_> = self.models.iter().filter(idle).collect();
        found.sort_by_key(|(digest, model)| {
            (model.keep_loaded, model.used_as == ModelUse::Chat, model.value, (*digest).clone())
        });
        found.into_iter().map(|(digest, _)| digest.clone()).collect()
    }
}

fn all(candidates: Vec<Candidate>) -> (Vec<Candidate>, Bytes) {
    // A model that leaves takes its rungs along.
    let leaving: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.rung.is_none())
        .map(|candidate| candidate.model.clone())
        .collect();
    let keep = |candidate: &Candidate| candidate.rung.is_none() || !leaving.contains(&candidate.model);
    let chosen: Vec<_> = candidates.into_iter().filter(keep).collect();
    let got = chosen.iter().map(|candidate| candidate.bytes).sum();
    (chosen, got)
}

/// The cheapest first until it is enough, then whatever turned out not to be needed is left out again, dearest first.
fn cheapest(mut candidates: Vec<Candidate>, wanted: Bytes) -> (Vec<Candidate>, Bytes) {
    candidates.sort_by(|a, b| (a.cost, &a.model, a.rung).cmp(&(b.cost, &b.model, b.rung)));
    let mut chosen: Vec<Candidate> = Vec::new();
    let sum = |chosen: &[Candidate]| -> Bytes { chosen.iter().map(|candidate| candidate.bytes).sum() };
    for candidate in candidates {
        if sum(&chosen) >= wanted {
            break;
        }
        // A model that leaves takes its rungs along.
        if chosen.iter().any(|other| other.rung.is_none() && other.model == candidate.model) {
            continue;
        }
        if candidate.rung.is_none() {
            chosen.retain(|other| other.model != candidate.model);
        }
        chosen.push(candidate);
    }
    let mut at = chosen.len();
    while at > 0 {
        at -= 1;
        if sum(&chosen).saturating_sub(chosen[at].bytes) >= wanted {
            chosen.remove(at);
        }
    }
    let got = sum(&chosen);
    (chosen, got)
}
