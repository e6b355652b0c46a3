//! What is given back, and by whom: the ladder of `memory.md` §5.
//!
//! Of everything that the level allows, the cheapest set is taken whose bytes reach the target. It is measured when it is
//! done, the system gets time to settle, and only then the next round begins. Victims among models are chosen by
//! GreedyDual-Size-Frequency (Cherkasova 1998): a model is worth how often it is used times what a reload costs, per byte.

use super::{
    Governor,
    action::{Action, Level, Rung},
    climate,
    event::{Activity, ModelUse, StepId},
    model::{Model, State},
};
use crate::{
    bytes::Bytes,
    ledger::{Kind, ModelDigest},
};

/// A step for less than this is not worth its disturbance.
const LEAST_STEP: Bytes = Bytes::mib(1);

/// What was asked for and not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) model: ModelDigest,
    /// `None`: unload.
    pub(super) rung: Option<Rung>,
    pub(super) expected: Bytes,
    pub(super) since: u64,
    /// The level that asked for it: a higher one does not wait for it.
    pub(super) level: Level,
    /// Nobody answered in time. A late answer still counts.
    lost: bool,
    /// The answers that it waits for were told to end.
    pub(super) hurried: bool,
    /// It is no longer wanted, and the host was told so.
    pub(super) withdrawn: bool,
}

impl Step {
    pub(super) const fn is_open(&self) -> bool {
        !self.lost
    }
    pub(super) const fn is_unload(&self) -> bool {
        self.rung.is_none()
    }
}

/// Something that could be given back.
struct Candidate {
    model: ModelDigest,
    rung: Option<Rung>,
    bytes: Bytes,
    /// What it costs to have it back, ms.
    cost: u64,
    /// Answers run on the model: it leaves later.
    busy: bool,
}

impl Governor {
    /// Gives back what the level demands, one round at a time. Called when something happened that changes what is wanted or
    /// what there is to give.
    pub(super) fn climb(&mut self, out: &mut Vec<Action>) {
        let level = self.gauge.level;
        if level == Level::Normal || self.stale || self.is_stepping() {
            return;
        }
        let Some(wanted) = self.wanted() else { return };
        let candidates = self.candidates(level);
        // At `critical` everything goes that nobody is waiting for; below it, the cheapest set that is enough.
        self.answered = self.gauge.alarms;
        let chosen = if level == Level::Critical { all(candidates) } else { cheapest(candidates, wanted) };
        // What leaves when its answers have ended comes too late to count on.
        let soon = |candidate: &&Candidate| candidate.rung.is_some() || !candidate.busy;
        let got: Bytes = chosen.iter().filter(soon).map(|candidate| candidate.bytes).sum();
        for candidate in chosen {
            self.step(candidate, &format!("{wanted} are wanted"), out);
        }
        if level >= Level::Tight {
            self.ask_apps(wanted.saturating_sub(got), out);
        }
    }

    pub(super) fn is_busy(&self, digest: &ModelDigest) -> bool {
        self.models.get(digest).is_some_and(|model| model.activity.is_busy())
    }

    /// A step is under way: its bytes are not in any reading yet. A model that leaves when its answers have ended may take
    /// its time and does not hold up the rest, nor does a slow write to disk hold up a level that has become worse.
    fn is_stepping(&self) -> bool {
        let level = self.gauge.level;
        let open = |step: &Step| step.is_open() && step.level >= level;
        self.steps.values().any(|step| open(step) && !(step.is_unload() && self.is_busy(&step.model)))
    }

    /// How many bytes should come free. `None`: enough is free.
    fn wanted(&self) -> Option<Bytes> {
        let mut wanted = self.excess();
        if let Some(sample) = &self.sample {
            let clean = self.clean().min(sample.own_file);
            let outlook = self.gauge.outlook(sample, clean, &self.config);
            let target = self.config.calm_above(Level::Elevated).saturating_add(outlook.falling);
            wanted = wanted.max(target.saturating_sub(outlook.spare));
        }
        if self.gauge.level >= Level::Tight && self.gauge.alarms != self.answered {
            // The kernel may know what no figure of ours shows: then give back something all the same, once for each alarm.
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
            let busy = model.activity.is_busy();
            let under_way: Vec<_> = self
                .steps
                .values()
                .filter(|step| step.is_open() && step.model == *digest)
                .map(|step| step.rung)
                .collect();
            let mut offer = |rung: Option<Rung>, bytes: Bytes, cost: u64| {
                if bytes >= LEAST_STEP && !model.rests(rung, self.now) && !under_way.contains(&rung) {
                    found.push(Candidate { model: digest.clone(), rung, bytes, cost, busy });
                }
            };
            let Activity { idle_kv, background_kv, prompt_cache, background, .. } = model.activity;
            let mb = |bytes: Bytes| bytes.get() >> 20;
            offer(Some(Rung::PromptCache), prompt_cache, mb(prompt_cache) / 64);
            // To forget a conversation costs its whole prefill: not while nothing has to be given back.
            if level >= Level::Tight || self.may_spill() {
                offer(Some(Rung::IdleSessions), idle_kv, 50 + mb(idle_kv) / 8);
            }
            if level < Level::Tight {
                continue;
            }
            let weights = model.held(&self.ledger, Kind::is_file_backed);
            let reload = u64::from(model.reload_ms);
            let idle = model.is_idle(self.now);
            if idle && !model.pages_dropped && !self.config.wires_weights {
                offer(Some(Rung::Weights), weights, reload);
            }
            // What leaves takes its rungs along; these two compete with it, and the set is pruned.
            let total = model.frees(&self.ledger);
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
        let Candidate { model: digest, rung, bytes: mut expected, .. } = candidate;
        let spill = self.may_spill();
        let (now, level) = (self.now, self.gauge.level);
        let Some(model) = self.models.get_mut(&digest) else { return };
        self.steps.retain(|_, step| step.is_open() || step.model != digest || step.rung != rung);
        let id = StepId(self.next_step);
        self.next_step += 1;
        let what = match rung {
            Some(rung) => {
                out.push(Action::Reclaim { step: id, model: digest.clone(), rung, spill, expected });
                format!("give back {expected}: {rung} of {}", model.name)
            }
            None => {
                let resident = self.sample.as_ref().map_or(Bytes::MAX, |sample| sample.own_file);
                expected = model.shrinks_by(&self.ledger, resident);
                model.state = State::Leaving;
                self.inflation = self.inflation.max(model.value);
                out.push(Action::Unload { step: id, model: digest.clone(), expected });
                format!("unload {} for {expected}", model.name)
            }
        };
        let step =
            Step { model: digest, rung, expected, since: now, level, lost: false, hurried: false, withdrawn: false };
        self.steps.insert(id, step);
        self.decide(what, why);
    }

    /// Unloads one model.
    pub(super) fn unload(&mut self, digest: &ModelDigest, why: &str, out: &mut Vec<Action>) {
        let Some(model) = self.models.get(digest).filter(|model| model.is_resident()) else { return };
        let bytes = model.frees(&self.ledger);
        self.step(Candidate { model: digest.clone(), rung: None, bytes, cost: 0, busy: false }, why, out);
    }

    /// Gives back one rung of one model.
    pub(super) fn reclaim(&mut self, digest: &ModelDigest, rung: Rung, bytes: Bytes, why: &str, out: &mut Vec<Action>) {
        self.step(Candidate { model: digest.clone(), rung: Some(rung), bytes, cost: 0, busy: false }, why, out);
    }

    /// Rungs that cost nobody anything he would notice now, of all models; of `spare` only what it does not need to answer.
    pub(super) fn cheap_rungs(&self, spare: Option<&ModelDigest>) -> Vec<(ModelDigest, Rung, Bytes)> {
        let mut found = Vec::new();
        for (digest, model) in self.models.iter().filter(|(_, model)| model.is_resident()) {
            let mut offer = |rung, bytes| {
                if bytes >= LEAST_STEP && !model.rests(Some(rung), self.now) {
                    found.push((digest.clone(), rung, bytes));
                }
            };
            offer(Rung::PromptCache, model.activity.prompt_cache);
            if Some(digest) != spare && self.may_spill() {
                offer(Rung::IdleSessions, model.activity.idle_kv);
            }
        }
        found
    }

    /// A step is done: what it freed is entered, and no reading counts until the system has settled.
    pub(super) fn done(&mut self, id: StepId, freed: Bytes, holds: Option<&[(Kind, Bytes)]>) {
        let Some(step) = self.steps.remove(&id) else { return };
        self.settle();
        let took = self.now.saturating_sub(step.since);
        let name = self.models.get(&step.model).map_or_else(String::new, |model| model.name.clone());
        let what = match step.rung {
            Some(rung) => format!("freed {freed}: {rung} of {name}"),
            None => format!("freed {freed}: {name} unloaded"),
        };
        self.decide(what, format!("{} expected, {took} ms", step.expected));
        match (step.rung, holds) {
            (None, _) => self.forget(&step.model),
            (Some(_), Some(holds)) => self.enter(&step.model, holds),
            (Some(_), None) => {}
        }
        let now = self.now;
        if let (Some(rung), Some(model)) = (step.rung, self.models.get_mut(&step.model)) {
            match rung {
                Rung::PromptCache => model.activity.prompt_cache = Bytes::ZERO,
                Rung::IdleSessions => model.activity.idle_kv = Bytes::ZERO,
                Rung::Background => model.activity.background_kv = Bytes::ZERO,
                Rung::Weights => model.pages_dropped = !freed.is_zero(),
            }
            if freed.is_zero() {
                // It promised and had nothing: do not ask again at once.
                model.rest(Some(rung), now);
            }
        }
    }

    /// A step could not be done.
    pub(super) fn failed(&mut self, id: StepId, reason: &str) {
        if let Some(step) = self.steps.remove(&id).filter(Step::is_open) {
            self.give_up(&step, reason);
        }
    }

    fn give_up(&mut self, step: &Step, reason: &str) {
        let now = self.now;
        let Some(model) = self.models.get_mut(&step.model) else { return };
        model.rest(step.rung, now);
        let what = match step.rung {
            Some(rung) => format!("could not give back {rung} of {}", model.name),
            None => {
                model.state = State::Resident;
                format!("could not unload {}", model.name)
            }
        };
        self.decide(what, reason);
    }

    /// A step that nobody answers is taken for lost, so that a vanished answer does not stop the ladder for ever. The time of
    /// an unload begins when what runs on the model has ended.
    pub(super) fn expire_steps(&mut self) {
        let (limit, now) = (self.config.step_limit_ms, self.now);
        let models = &self.models;
        let began = |step: &Step| match models.get(&step.model) {
            Some(model) if step.is_unload() && model.activity.is_busy() => now,
            Some(model) if step.is_unload() => step.since.max(model.last_used),
            _ => step.since,
        };
        let mut lost = Vec::new();
        for step in self.steps.values_mut().filter(|step| step.is_open()) {
            if now.saturating_sub(began(step)) > limit {
                step.lost = true;
                lost.push(step.clone());
            }
        }
        for step in lost {
            self.give_up(&step, &format!("no answer within {limit} ms"));
        }
    }

    /// No reading counts until the system has settled.
    pub(super) fn settle(&mut self) {
        self.stale = self.sample.is_some();
        self.settle_until = self.settle_until.max(self.now.saturating_add(self.config.settle_ms));
    }

    /// Models that nobody used for long go, unless somebody asked to keep them and memory is not tight.
    pub(super) fn let_go_of_idle(&mut self, out: &mut Vec<Action>) {
        let limit = climate::idle_unload_ms(self.sample.as_ref(), &self.config);
        let (now, tight) = (self.now, self.gauge.level >= Level::Tight);
        let under_way = |digest: &ModelDigest| self.steps.values().any(|step| step.is_open() && step.model == *digest);
        let due = |digest: &ModelDigest, model: &Model| {
            model.is_resident()
                && model.is_idle(now)
                && !model.rests(None, now)
                && !under_way(digest)
                && now.saturating_sub(model.last_used.max(model.loaded_at)) >= limit
                && (tight || !model.keep_loaded)
        };
        let digests: Vec<_> =
            self.models.iter().filter(|(id, model)| due(id, model)).map(|(id, _)| id.clone()).collect();
        for digest in digests {
            self.unload(&digest, &format!("nobody used it for {} s", limit / 1000), out);
        }
    }

    /// Idle models in the order in which they are given up for another one: those that somebody asked to keep last.
    pub(super) fn victims(&self) -> Vec<ModelDigest> {
        let now = self.now;
        let idle =
            |(_, model): &(&ModelDigest, &Model)| model.is_resident() && model.is_idle(now) && !model.rests(None, now);
        let mut found: Vec<_> = self.models.iter().filter(idle).collect();
        found.sort_by_key(|(digest, model)| {
            (model.keep_loaded, model.used_as == ModelUse::Chat, model.value, (*digest).clone())
        });
        found.into_iter().map(|(digest, _)| digest.clone()).collect()
    }
}

/// Everything. A model that leaves at once takes its rungs along; one that still answers gives its rungs first.
fn all(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let at_once: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.rung.is_none() && !candidate.busy)
        .map(|candidate| candidate.model.clone())
        .collect();
    candidates.retain(|candidate| candidate.rung.is_none() || !at_once.contains(&candidate.model));
    candidates
}

/// The cheapest first until it is enough, then whatever turned out not to be needed is left out again, dearest first.
fn cheapest(mut candidates: Vec<Candidate>, wanted: Bytes) -> Vec<Candidate> {
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
    chosen
}
