//! What may be loaded or grow: reserve first, then load. What does not fit waits for what can be made free, or is refused
//! with the numbers and a way out that holds.
//!
//! One load at a time, a load never overlaps an unload unless the sum was reserved, and a model is loaded at most once in a
//! cool-down, so that two clients in turn cannot thrash two models. Whoever waits may be overtaken by what fits beside it, but
//! only so often; and nobody waits longer than [`Config::longest_wait_ms`](super::Config::longest_wait_ms).

use super::{
    Governor,
    action::{Action, Level, Recovery, Refusal},
    climate,
    event::{Class, LoadRequest, TicketId},
    fair,
    model::State,
    room::Needer,
};
use crate::{
    bytes::Bytes,
    ledger::{Kind, ModelDigest, Owner},
};

/// Tickets that may wait. Beyond it the newest is refused: a queue that nobody can wait out helps nobody.
const MOST_WAITING: usize = 64;
/// About how long an unload takes, ms.
pub(super) const UNLOAD_MS: u64 = 500;
/// About how long an answer in flight takes, ms.
pub(super) const ANSWER_MS: u64 = 10_000;

/// What a ticket waits for.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    Load(LoadRequest),
    Grow { model: ModelDigest, kv: Bytes },
}

/// A ticket that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) ticket: TicketId,
    pub(super) wish: Wish,
    pub(super) since: u64,
    passed_over: u32,
    /// The reason that was told last: its topic and its words.
    told: Option<(&'static str, String)>,
}

impl Waiting {
    /// How it competes.
    const fn rank(&self) -> fair::Waiting<'_> {
        let (app, class) = match &self.wish {
            Wish::Load(request) => (request.app.as_ref(), request.class),
            // A resident model that cannot answer is waited for.
            Wish::Grow { .. } => (None, Class::Interactive),
        };
        fair::Waiting { app, class, passed_over: self.passed_over }
    }
}

/// What comes of a ticket now.
pub(super) enum Answer {
    Admitted,
    Joined,
    /// A new `topic` is told; new numbers of the same one are not.
    Later {
        topic: &'static str,
        why: String,
        estimate_ms: u64,
    },
    No(Refusal),
}

impl Answer {
    pub(super) fn later(topic: &'static str, why: impl Into<String>, estimate_ms: u64) -> Self {
        Self::Later { topic, why: why.into(), estimate_ms }
    }
}

impl Governor {
    pub(super) fn ask(&mut self, ticket: TicketId, wish: Wish, out: &mut Vec<Action>) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push(Waiting { ticket, wish, since: self.now, passed_over: 0, told: None });
            return;
        }
        let recovery = Recovery::Retry { after_ms: clamp(ANSWER_MS) };
        let name = self.wish_name(&wish);
        let refusal = self.refusal(&self.needer(&wish, &name), recovery, "the queue of loads is full");
        self.refuse(ticket, refusal, out);
    }

    /// Answers tickets whose turn has come.
    pub(super) fn serve(&mut self, out: &mut Vec<Action>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut queue = std::mem::take(&mut self.waiting);
        let mut answered = vec![false; queue.len()];
        // Set by a ticket that was overtaken often enough: nobody passes it any more.
        let mut barred = false;
        for at in self.fair.order(queue.iter().map(Waiting::rank)) {
            let ticket = queue[at].ticket;
            let answer = match self.at_once(&queue[at].wish) {
                Some(answer) => answer,
                None if barred => Answer::later("turn", "another request has waited longer", ANSWER_MS),
                None => self.consider(&queue[at].wish, out),
            };
            answered[at] = !matches!(answer, Answer::Later { .. });
            match answer {
                Answer::Admitted => {
                    for older in 0..at {
                        queue[older].passed_over += u32::from(!answered[older]);
                    }
                    self.told_that_it_is_there(&queue[at].wish, out);
                    out.push(Action::Admit { ticket });
                }
                Answer::Joined => {
                    self.told_that_it_is_there(&queue[at].wish, out);
                    out.push(Action::Join { ticket });
                }
                Answer::No(refusal) => self.refuse(ticket, refusal, out),
                Answer::Later { topic, why, estimate_ms } => {
                    let waiting = &mut queue[at];
                    barred |= waiting.rank().is_aged();
                    if waiting.told.as_ref().is_none_or(|(told, _)| *told != topic) {
                        waiting.told = Some((topic, why.clone()));
                        out.push(Action::Wait { ticket, estimate_ms: clamp(estimate_ms), why });
                    }
                }
            }
        }
        let limit = self.config.longest_wait_ms;
        for (waiting, answered) in queue.iter().zip(&mut answered).filter(|(_, answered)| !**answered) {
            if self.now.saturating_sub(waiting.since) >= limit {
                *answered = true;
                let why = waiting.told.as_ref().map_or("", |(_, why)| why);
                let name = self.wish_name(&waiting.wish);
                let refusal =
                    self.not_now(&self.needer(&waiting.wish, &name), &format!("waited {} s: {why}", limit / 1000));
                self.refuse(waiting.ticket, refusal, out);
            }
        }
        let mut answered = answered.into_iter();
        queue.retain(|_| !answered.next().unwrap_or(false));
        self.waiting = queue;
    }

    fn told_that_it_is_there(&mut self, wish: &Wish, out: &mut Vec<Action>) {
        match wish {
            Wish::Load(request) => self.share(request, out),
            Wish::Grow { model, .. } => {
                if let Some(model) = self.models.get_mut(model) {
                    model.claim(self.now);
                }
            }
        }
    }

    pub(super) fn refuse(&mut self, ticket: TicketId, refusal: Refusal, out: &mut Vec<Action>) {
        self.decide_again(format!("refused {}", refusal.what), refusal.to_string());
        out.push(Action::Refuse { ticket, refusal });
    }

    fn wish_name(&self, wish: &Wish) -> String {
        match wish {
            Wish::Load(request) => request.name.clone(),
            Wish::Grow { model, .. } => {
                let name = self.models.get(model).map_or("a model that is gone", |model| &model.name);
                format!("more KV for {name}")
            }
        }
    }

    fn needer<'a>(&self, wish: &'a Wish, name: &'a str) -> Needer<'a> {
        match wish {
            Wish::Load(request) => Needer {
                name,
                needs: request.need.peak(),
                gpu: request.need.gpu,
                spare: Some(&request.model),
                app: None,
            },
            Wish::Grow { model, kv } => {
                let held = self.models.get(model).map_or(Bytes::ZERO, |model| model.held(&self.ledger, is_kv));
                Needer { name, needs: kv.saturating_sub(held), gpu: Bytes::ZERO, spare: Some(model), app: None }
            }
        }
    }

    /// Answers that waiting does not change.
    fn at_once(&self, wish: &Wish) -> Option<Answer> {
        match wish {
            Wish::Load(request) => {
                if let Some(model) = self.models.get(&request.model) {
                    return matches!(model.state, State::Loading | State::Resident).then_some(Answer::Joined);
                }
                let needer = self.needer(wish, &request.name);
                let cap = self.config.cap;
                if needer.needs > cap {
                    let bound = format!("the cap of the host is {cap}");
                    let recovery = Recovery::Smaller { at_most: self.most_in_all(&needer) };
                    return Some(Answer::No(self.refusal(&needer, recovery, &bound)));
                }
                let gpu_cap = self.config.gpu_cap.filter(|cap| needer.gpu > *cap)?;
                let bound = format!("the GPU may use {gpu_cap}");
                let recovery = Recovery::Smaller { at_most: gpu_cap.min(self.most_in_all(&needer)) };
                Some(Answer::No(self.refusal(&needer, recovery, &bound)))
            }
            Wish::Grow { model, kv } => {
                let Some(resident) = self.models.get(model) else {
                    let needer = self.needer(wish, "more KV");
                    let recovery = Recovery::Retry { after_ms: clamp(ANSWER_MS) };
                    return Some(Answer::No(self.refusal(&needer, recovery, "the model is no longer loaded")));
                };
                (resident.held(&self.ledger, is_kv) >= *kv).then_some(Answer::Joined)
            }
        }
    }

    fn consider(&mut self, wish: &Wish, out: &mut Vec<Action>) -> Answer {
        if self.gauge.level == Level::Critical {
            let why = format!("memory is critical: {}", self.gauge.cause);
            return Answer::later("critical", why, self.config.calm_ms.saturating_mul(3));
        }
        if climate::is_critical(self.sample.as_ref()) {
            return Answer::later("heat", "the machine is too hot", u64::from(climate::HOT_RETRY_MS));
        }
        let leaving = self.steps.values().any(|step| step.is_open() && step.is_unload());
        if leaving || self.stale {
            // The sum of what goes and what comes was not reserved.
            return Answer::later("giving back", "memory is being given back", UNLOAD_MS);
        }
        if let Wish::Load(request) = wish
            && let Some(later) = self.not_yet(request)
        {
            return later;
        }
        let name = self.wish_name(wish);
        let needer = self.needer(wish, &name);
        let room = self.room(None);
        if self.short(&room, &needer).is_zero() && self.promise(wish, &name, room.bytes()) {
            return Answer::Admitted;
        }
        if self.short(&room.steady(), &needer).is_zero() {
            let why = format!("available memory is falling; {} can be had if it goes on", room.bytes());
            return Answer::later("falling", why, self.config.horizon_ms);
        }
        self.make_room(&needer, out)
    }

    /// Whether memory stays above where it begins to be tight, with a margin, when so many bytes are taken: then nothing has to
    /// go for it, and nothing swings.
    fn is_plenty(&self, needs: Bytes) -> bool {
        let margin = self.config.calm_above(Level::Elevated);
        self.gauge.level == Level::Normal && self.room(None).bytes() >= needs.saturating_add(margin)
    }

    /// One load at a time, and no model twice within its cool-down; once more where memory is plenty.
    fn not_yet(&self, request: &LoadRequest) -> Option<Answer> {
        if let Some(overdue) = self.models.get(&request.model).filter(|model| model.state == State::Overdue) {
            let seconds = self.now.saturating_sub(overdue.loaded_at) / 1000;
            let why = format!("it has been loading for {seconds} s and may have come to a stop");
            return Some(Answer::later("overdue", why, ANSWER_MS));
        }
        if let Some(loading) = self.models.values().find(|model| model.state == State::Loading) {
            let ends = loading.loaded_at.saturating_add(u64::from(loading.reload_ms));
            let estimate_ms = ends.saturating_sub(self.now).max(UNLOAD_MS).saturating_add(u64::from(request.reload_ms));
            return Some(Answer::later("loading", format!("{} is being loaded", loading.name), estimate_ms));
        }
        let &(loaded_at, early) = self.gone.get(&request.model)?;
        let back = loaded_at.saturating_add(self.config.cool_down_ms);
        (back > self.now && (early || !self.is_plenty(request.need.peak()))).then(|| {
            let why = "it was unloaded a moment ago and may come back after its cool-down";
            Answer::later("cool-down", why, back - self.now)
        })
    }

    fn promise(&mut self, wish: &Wish, name: &str, room: Bytes) -> bool {
        match wish {
            Wish::Load(request) => self.reserve(request, room),
            Wish::Grow { model: digest, kv } => {
                let Some(model) = self.models.get_mut(digest) else { return false };
                let held = model.held(&self.ledger, is_kv);
                let entered = match model.parts.get(&Kind::Kv) {
                    Some(id) => self.ledger.resize(*id, *kv),
                    None => self.ledger.reserve(Owner::Model(digest.clone()), Kind::Kv, *kv).and_then(|id| {
                        model.parts.insert(Kind::Kv, id);
                        self.ledger.commit(id, *kv)
                    }),
                };
                if entered.is_err() {
                    return false;
                }
                let grown = kv.saturating_sub(held);
                self.unseen[0] = self.unseen[0].saturating_add(grown);
                self.decide(format!("admitted {name}"), format!("needs {grown}, {room} can be had"));
            }
        }
        true
    }
}

fn is_kv(kind: Kind) -> bool {
    kind == Kind::Kv
}

pub(super) fn clamp(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}
