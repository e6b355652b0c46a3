//! Models that were asked to go and still answer: whether they are taken back, or their answers are ended.
//!
//! An unload waits for the answers in flight. While it waits nothing is loaded, so it must not wait for ever; and memory may
//! be free again before it has begun to free anything, and then it would only cost a reload.

use super::{
    Governor, Step,
    action::{Action, Level},
    admit::Wish,
    event::StepId,
};
use crate::{bytes::Bytes, ledger::ModelDigest};

/// While memory is critical, or the weights do not fit, an answer is waited for so long, ms.
const ANSWERS_MS: u64 = 60_000;
/// What is lost within so long cannot be saved by an answer that ends by itself, ms: some readings at `critical`, and the
/// time that an engine needs to stop and free. An answer that could have ended is worth more than a second of caution.
const ENDS_WITHIN_MS: u64 = 1_000;
/// An unload that nobody is short of memory for waits so long for an answer at most, ms.
const LONGEST_ANSWER_MS: u64 = 600_000;

impl Governor {
    /// Withdraws unloads that are no longer wanted, and ends answers that unloads have waited for long enough.
    pub(super) fn watch_leaving(&mut self, out: &mut Vec<Action>) {
        self.give_up_on_answers(out);
        let waits = |step: &&Step| step.is_open() && step.is_unload() && self.is_busy(&step.model);
        let found: Vec<_> =
            self.steps.iter().filter(|(_, step)| waits(step)).map(|(id, step)| (*id, step.clone())).collect();
        for (id, step) in found {
            if let Some(why) = (!step.hurried).then(|| self.must_end(&step)).flatten() {
                self.hurry(id, why, out);
            } else if !step.hurried && !step.withdrawn && self.may_stay(&step) {
                self.withdraw(id, out);
            }
        }
    }

    /// A model that pauses for longer than anybody should wait is unloaded.
    fn give_up_on_answers(&mut self, out: &mut Vec<Action>) {
        let limit = ANSWERS_MS;
        let long = |since: u64| self.now.saturating_sub(since) >= limit;
        let models = self.models.iter().filter(|(_, model)| model.is_resident() && model.held_since.is_some_and(long));
        let paused: Vec<_> = models.map(|(digest, _)| digest.clone()).collect();
        for digest in paused {
            self.unload(&digest, &format!("its weights have not fitted into memory for {} s", limit / 1000), out);
        }
    }

    /// Why the answers that an unload waits for are not waited for any longer.
    fn must_end(&self, step: &Step) -> Option<String> {
        let model = self.models.get(&step.model)?;
        let waited = self.now.saturating_sub(step.since);
        let limit = ANSWERS_MS;
        if model.held_since.is_some_and(|since| self.now.saturating_sub(since) >= limit) {
            return Some(format!("the model has not fitted into memory for {} s", limit / 1000));
        }
        if self.gauge.level == Level::Critical {
            let least = self.config.critical_below.fraction(1, 4);
            let available = self.sample.as_ref().map_or(Bytes::MAX, |sample| sample.available);
            let falling = self.gauge.falling(ENDS_WITHIN_MS);
            if available.saturating_sub(falling) < least {
                return Some(format!(
                    "memory runs out: {available} available, falling by {falling} in {ENDS_WITHIN_MS} ms"
                ));
            }
            if waited >= limit {
                return Some(format!("memory has been short for {} s", limit / 1000));
            }
        }
        (waited >= LONGEST_ANSWER_MS).then(|| format!("it was asked to go {} s ago", waited / 1000))
    }

    /// Whether an unload is no longer wanted: memory is not as tight any more as when it was asked for, or nobody waits for
    /// what it would free.
    fn may_stay(&self, step: &Step) -> bool {
        let Some(model) = self.models.get(&step.model) else { return false };
        let level = self.gauge.level;
        let fits = model.excess.is_empty() && model.held_since.is_none();
        fits && (level < step.level || level <= Level::Elevated && !self.is_wanted_by_others(&step.model))
    }

    fn is_wanted_by_others(&self, digest: &ModelDigest) -> bool {
        self.waiting.iter().any(|waiting| match &waiting.wish {
            Wish::Load(request) => request.model != *digest,
            Wish::Grow { model, .. } => model != digest,
        })
    }

    fn hurry(&mut self, id: StepId, why: String, out: &mut Vec<Action>) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        step.hurried = true;
        let model = step.model.clone();
        let name = self.models.get(&model).map_or_else(String::new, |model| model.name.clone());
        self.decide(format!("end the answers of {name}"), why.clone());
        out.push(Action::Hurry { step: id, model, reason: why });
    }

    fn withdraw(&mut self, id: StepId, out: &mut Vec<Action>) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        step.withdrawn = true;
        let model = step.model.clone();
        let name = self.models.get(&model).map_or_else(String::new, |model| model.name.clone());
        self.decide(format!("keep {name}"), "memory is free again before it went".to_owned());
        out.push(Action::Keep { step: id, model });
    }

    /// An unload was withdrawn in time: the model is there as before.
    pub(super) fn kept(&mut self, id: StepId) {
        if !self.steps.get(&id).is_some_and(Step::is_unload) {
            return;
        }
        let Some(step) = self.steps.remove(&id) else { return };
        if let Some(model) = self.models.get_mut(&step.model) {
            model.state = super::State::Resident;
        }
    }
}
