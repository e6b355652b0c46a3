//! What may be loaded or grow: reserve first, then load. What does not fit waits for what can be made free, or is refused
//! with the numbers and a way out that holds.
//!
//! One load at a time, a load never overlaps an unload unless the sum was reserved, and a model is loaded at most once in a
//! cool-down, so that two clients in turn cannot thrash two models.

use super::{
    Governor,
    action::{Action, Level, Recovery, Refusal, Rung},
    event::{Class, LoadRequest, Need, TicketId},
    fair,
    ladder::{Model, State},
};
use crate::{
    bytes::Bytes,
    ledger::{AppId, Kind, ModelDigest, Owner},
};

/// Tickets that may wait. Beyond it the newest is refused: a queue that nobody can wait out helps nobody.
const MOST_WAITING: usize = 64;
/// About how long an unload takes, ms.
const UNLOAD_MS: u64 = 500;
/// About how long an answer in flight takes, ms.
const ANSWER_MS: u64 = 10_000;

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
    since: u64,
    passed_over: u32,
    /// The reason that was told last.
    told: String,
}

impl Waiting {
    fn new(ticket: TicketId, wish: Wish, now: u64) -> Self {
        Self { ticket, wish, since: now, passed_over: 0, told: String::new() }
    }
    const fn app(&self) -> Option<&AppId> {
        match &self.wish {
            Wish::Load(request) => request.app.as_ref(),
            Wish::Grow { .. } => None,
        }
    }
    const fn class(&self) -> Class {
        match &self.wish {
            Wish::Load(request) => request.class,
            // A resident model that cannot answer is waited for.
            Wish::Grow { .. } => Class::Interactive,
        }
    }
}

/// What comes of a ticket now.
enum Answer {
    Admitted,
    Joined,
    Later { why: String, estimate_ms: u64 },
    No(Refusal),
}

impl Governor {
    pub(super) fn ask_load(&mut self, request: LoadRequest, out: &mut Vec<Action>) {
        if let Some(app) = &request.app {
            self.ledger.attach(&request.model, app);
        }
        self.ask(request.ticket, Wish::Load(request), out);
    }

    pub(super) fn ask_growth(&mut self, ticket: TicketId, model: ModelDigest, kv: Bytes, out: &mut Vec<Action>) {
        self.ask(ticket, Wish::Grow { model, kv }, out);
    }

    fn ask(&mut self, ticket: TicketId, wish: Wish, out: &mut Vec<Action>) {
        let waiting = Waiting::new(ticket, wish, self.now);
        if self.waiting.len() >= MOST_WAITING {
            let (needs, what) = self.wish_size(&waiting.wish);
            let after_ms = clamp(ANSWER_MS);
            let refusal = self.refusal(what, needs, Recovery::Retry { after_ms }, "the queue of loads is full");
            self.refuse(ticket, refusal, out);
            return;
        }
        self.waiting.push(waiting);
    }

    /// Answers tickets whose turn has come.
    pub(super) fn serve(&mut self, out: &mut Vec<Action>) {
        // What cannot change its answer by waiting is answered in any order; for the rest the fair one goes first, and those
        // behind it wait for it: a small load must not overtake a large one for ever.
        let mut at = 0;
        while at < self.waiting.len() {
            let wish = self.waiting[at].wish.clone();
            match self.at_once(&wish) {
                Some(answer) => self.conclude(at, answer, out),
                None => at += 1,
            }
        }
        while let Some(at) = self.fair.next(self.waiting.iter().map(|waiting| fair::Waiting {
            app: waiting.app(),
            class: waiting.class(),
            passed_over: waiting.passed_over,
        })) {
            let wish = self.waiting[at].wish.clone();
            let answer = self.consider(&wish, out);
            let later = matches!(answer, Answer::Later { .. });
            if matches!(answer, Answer::Admitted) {
                for (other, waiting) in self.waiting.iter_mut().enumerate() {
                    if other < at {
                        waiting.passed_over += 1;
                    }
                }
            }
            self.conclude(at, answer, out);
            if later {
                break;
            }
        }
        self.explain_waits(out);
        self.expire_waits(out);
    }

    fn conclude(&mut self, at: usize, answer: Answer, out: &mut Vec<Action>) {
        let ticket = self.waiting[at].ticket;
        match answer {
            Answer::Admitted => {
                self.waiting.remove(at);
                out.push(Action::Admit { ticket });
            }
            Answer::Joined => {
                self.waiting.remove(at);
                out.push(Action::Join { ticket });
            }
            Answer::No(refusal) => {
                self.waiting.remove(at);
                self.refuse(ticket, refusal, out);
            }
            Answer::Later { why, estimate_ms } => {
                let waiting = &mut self.waiting[at];
                if waiting.told != why {
                    waiting.told.clone_from(&why);
                    out.push(Action::Wait { ticket, estimate_ms: clamp(estimate_ms), why });
                }
            }
        }
    }

    /// Tickets behind the one whose turn it is are told so once.
    fn explain_waits(&mut self, out: &mut Vec<Action>) {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.told.is_empty()) {
            let why = "another load is first".to_owned();
            waiting.told.clone_from(&why);
            out.push(Action::Wait { ticket: waiting.ticket, estimate_ms: clamp(ANSWER_MS), why });
        }
    }

    fn expire_waits(&mut self, out: &mut Vec<Action>) {
        let limit = self.config.longest_wait_ms;
        while let Some(at) = self.waiting.iter().position(|waiting| self.now.saturating_sub(waiting.since) >= limit) {
            let waiting = self.waiting.remove(at);
            let (needs, what) = self.wish_size(&waiting.wish);
            let (room, _) = self.room(waiting.app());
            let recovery = match needs.checked_sub(room) {
                Some(bytes) if !bytes.is_zero() => Recovery::Free { bytes },
                _ => Recovery::Retry { after_ms: clamp(ANSWER_MS) },
            };
            let bound = format!("waited {} s: {}", limit / 1000, waiting.told);
            let refusal = self.refusal(what, needs, recovery, &bound);
            self.refuse(waiting.ticket, refusal, out);
        }
    }

    fn refuse(&mut self, ticket: TicketId, refusal: Refusal, out: &mut Vec<Action>) {
        self.decide(format!("refused {}", refusal.what), refusal.to_string());
        out.push(Action::Refuse { ticket, refusal });
    }

    fn refusal(&self, what: String, needs: Bytes, recovery: Recovery, bound: &str) -> Refusal {
        let biggest = self.ledger.biggest().map(|(owner, bytes)| (self.owner_name(&owner), bytes));
        Refusal { what, needs, room: self.room(None).0, bound: bound.to_owned(), biggest, recovery }
    }

    fn owner_name(&self, owner: &Owner) -> String {
        match owner {
            Owner::Model(digest) => {
                self.models.get(digest).map_or_else(|| owner.to_string(), |model| model.name.clone())
            }
            Owner::Host | Owner::App(_) | Owner::Session { .. } => owner.to_string(),
        }
    }

    fn wish_size(&self, wish: &Wish) -> (Bytes, String) {
        match wish {
            Wish::Load(request) => (request.need.peak(), request.name.clone()),
            Wish::Grow { model, kv } => {
                let held = self
                    .models
                    .get(model)
                    .map_or(Bytes::ZERO, |model| model.held(&self.ledger, |kind| kind == Kind::Kv));
                let name = self.models.get(model).map_or_else(String::new, |model| model.name.clone());
                (kv.saturating_sub(held), format!("more KV for {name}"))
            }
        }
    }

    /// Answers that waiting does not change.
    fn at_once(&self, wish: &Wish) -> Option<Answer> {
        match wish {
            Wish::Load(request) => {
                if let Some(model) = self.models.get(&request.model) {
                    return (model.state != State::Leaving).then_some(Answer::Joined);
                }
                let Need { gpu, .. } = request.need;
                let needs = request.need.peak();
                if needs > self.config.cap {
                    let recovery = Recovery::Smaller { at_most: self.config.cap };
                    let bound = format!("the cap of the host is {}", self.config.cap);
                    return Some(Answer::No(self.refusal(request.name.clone(), needs, recovery, &bound)));
                }
                let gpu_cap = self.config.gpu_cap.filter(|cap| gpu > *cap)?;
                let recovery = Recovery::Smaller { at_most: gpu_cap };
                let bound = format!("the GPU may use {gpu_cap}");
                Some(Answer::No(self.refusal(request.name.clone(), needs, recovery, &bound)))
            }
            Wish::Grow { model, kv } => {
                let Some(resident) = self.models.get(model) else {
                    let recovery = Recovery::Retry { after_ms: clamp(ANSWER_MS) };
                    let what = "more KV".to_owned();
                    return Some(Answer::No(self.refusal(what, *kv, recovery, "the model is no longer loaded")));
                };
                (resident.held(&self.ledger, |kind| kind == Kind::Kv) >= *kv).then_some(Answer::Joined)
            }
        }
    }

    fn consider(&mut self, wish: &Wish, out: &mut Vec<Action>) -> Answer {
        if self.gauge.level == Level::Critical {
            let estimate_ms = self.config.calm_ms * 3;
            return Answer::Later { why: format!("memory is critical: {}", self.gauge.cause), estimate_ms };
        }
        let leaving = self.steps.values().any(|step| step.rung.is_none());
        if leaving || self.stale {
            // The sum of what goes and what comes was not reserved.
            return Answer::Later { why: "memory is being given back".to_owned(), estimate_ms: UNLOAD_MS };
        }
        match wish {
            Wish::Load(request) => self.consider_load(request, out),
            Wish::Grow { model, kv } => self.consider_growth(model, *kv, out),
        }
    }

    fn consider_load(&mut self, request: &LoadRequest, out: &mut Vec<Action>) -> Answer {
        if let Some(loading) = self.models.values().find(|model| model.state == State::Loading) {
            let ends = loading.loaded_at.saturating_add(u64::from(loading.reload_ms));
            let estimate_ms = ends.saturating_sub(self.now).max(UNLOAD_MS) + u64::from(request.reload_ms);
            return Answer::Later { why: format!("{} is being loaded", loading.name), estimate_ms };
        }
        if let Some(loaded_at) = self.gone.get(&request.model) {
            let back = loaded_at.saturating_add(self.config.cool_down_ms);
            if back > self.now {
                let why = "it was unloaded a moment ago and may come back after its cool-down".to_owned();
                return Answer::Later { why, estimate_ms: back - self.now };
            }
        }
        let needs = request.need.peak();
        let (room, bound) = self.room(request.app.as_ref());
        let gpu_room = self.gpu_room();
        if needs <= room && request.need.gpu <= gpu_room {
            self.reserve(request, needs, room);
            return Answer::Admitted;
        }
        let short = needs.saturating_sub(room).max(request.need.gpu.saturating_sub(gpu_room));
        self.make_room(short, &request.name, needs, bound, Some(&request.model), out)
    }

    fn consider_growth(&mut self, digest: &ModelDigest, kv: Bytes, out: &mut Vec<Action>) -> Answer {
        let Some(model) = self.models.get(digest) else {
            return Answer::Later { why: "the model is gone".to_owned(), estimate_ms: 0 };
        };
        let held = model.held(&self.ledger, |kind| kind == Kind::Kv);
        let (needs, name) = (kv.saturating_sub(held), model.name.clone());
        let (room, bound) = self.room(None);
        if needs <= room
            && let Some(id) = model.parts.get(&Kind::Kv)
            && self.ledger.resize(*id, kv).is_ok()
        {
            self.decide(format!("admitted {needs} more KV for {name}"), format!("{room} can be had ({bound})"));
            return Answer::Admitted;
        }
        self.make_room(needs.saturating_sub(room), &name, needs, bound, Some(digest), out)
    }

    /// Makes `short` bytes free for a ticket if idle things can give them; else says how long it may take, or that it cannot be.
    fn make_room(
        &mut self,
        short: Bytes,
        name: &str,
        needs: Bytes,
        bound: &str,
        spare: Option<&ModelDigest>,
        out: &mut Vec<Action>,
    ) -> Answer {
        if !self.steps.is_empty() {
            return Answer::Later { why: "memory is being given back".to_owned(), estimate_ms: UNLOAD_MS };
        }
        // What costs nothing first, then idle models whose cool-down is over, then what will be idle some time.
        let mut freed = Bytes::ZERO;
        let rungs = self.rungs_of_others(spare);
        let (mut take_rungs, mut take_models) = (Vec::new(), Vec::new());
        for (digest, rung, bytes) in rungs {
            if freed < short {
                freed = freed.saturating_add(bytes);
                take_rungs.push((digest, rung, bytes));
            }
        }
        let mut cooling = None::<u64>;
        for digest in self.victims() {
            if freed >= short || Some(&digest) == spare {
                continue;
            }
            let Some(model) = self.models.get(&digest) else { continue };
            let cool = model.loaded_at.saturating_add(self.config.cool_down_ms);
            if cool > self.now {
                cooling = Some(cooling.unwrap_or(u64::MAX).min(cool - self.now));
                continue;
            }
            freed = freed.saturating_add(model.total(&self.ledger));
            take_models.push(digest);
        }
        if freed >= short {
            let why = format!("{name} needs {needs}, short by {short}");
            for digest in &take_models {
                self.unload(digest, &why, out);
            }
            for (digest, rung, bytes) in take_rungs {
                if !take_models.contains(&digest) {
                    self.reclaim(&digest, rung, bytes, &why, out);
                }
            }
            return Answer::Later { why: format!("{short} are being made free"), estimate_ms: UNLOAD_MS * 2 };
        }
        // Would it fit if everything that runs now had ended?
        let all: Bytes = self
            .models
            .iter()
            .filter(|(digest, model)| Some(*digest) != spare && model.is_resident())
            .map(|(_, model)| model.total(&self.ledger))
            .sum();
        if all >= short {
            let estimate_ms = cooling.unwrap_or(ANSWER_MS);
            return Answer::Later { why: format!("short by {short} until other models are idle"), estimate_ms };
        }
        let missing = short.saturating_sub(all);
        Answer::No(self.refusal(name.to_owned(), needs, Recovery::Free { bytes: missing }, bound))
    }

    /// Rungs that cost nobody anything he would notice now.
    fn rungs_of_others(&self, spare: Option<&ModelDigest>) -> Vec<(ModelDigest, Rung, Bytes)> {
        let mut found = Vec::new();
        for (digest, model) in self.models.iter().filter(|(_, model)| model.is_resident()) {
            found.push((digest.clone(), Rung::PromptCache, model.activity.prompt_cache));
            if Some(digest) != spare {
                found.push((digest.clone(), Rung::IdleSessions, model.activity.idle_kv));
            }
        }
        found.retain(|(_, _, bytes)| *bytes >= Bytes::mib(1));
        found
    }

    fn gpu_room(&self) -> Bytes {
        let used: Bytes = self.models.values().map(|model| model.gpu).sum();
        self.config.gpu_cap.map_or(Bytes::MAX, |cap| cap.saturating_sub(used))
    }

    fn reserve(&mut self, request: &LoadRequest, needs: Bytes, room: Bytes) {
        let owner = Owner::Model(request.model.clone());
        let mut model = Model::new(request, self.now);
        for &(kind, bytes) in &request.need.parts {
            // `room` is within what the ledger has left, so this cannot be refused; were it, the load would hold less than
            // it was promised and the difference show up as excess when it is done.
            if let Ok(id) = self.ledger.reserve(owner.clone(), kind, bytes) {
                model.parts.insert(kind, id);
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
        self.decide(format!("admitted {}", request.name), format!("needs {needs}, {room} can be had"));
    }

    pub(super) fn loaded(
        &mut self,
        digest: &ModelDigest,
        holds: &[(Kind, Bytes)],
        took_ms: u32,
        out: &mut Vec<Action>,
    ) {
        let Some(model) = self.models.get_mut(digest) else { return };
        model.state = State::Resident;
        model.loaded_at = self.now;
        model.last_used = self.now;
        // What a load really takes here is the best guess of the next one; disks and caches differ from hour to hour.
        model.reload_ms = model.reload_ms.midpoint(took_ms.max(1));
        if let Some(transient) = model.transient.take() {
            let _ = self.ledger.release(transient);
        }
        self.enter(digest, holds);
        self.stale = true;
        self.settle_until = self.now;
        if let Some((name, excess)) = self.models.get(digest).map(|model| (model.name.clone(), model.excess))
            && !excess.is_zero()
        {
            self.unload(
                digest,
                &format!("{name} holds {excess} more than was promised and there is no room for it"),
                out,
            );
        }
    }

    /// Enters what a model really holds. Less gives the rest back; more than there is room for is its excess.
    pub(super) fn enter(&mut self, digest: &ModelDigest, holds: &[(Kind, Bytes)]) {
        let Some(model) = self.models.get_mut(digest) else { return };
        model.excess = Bytes::ZERO;
        for (kind, id) in model.parts.clone() {
            let holds = holds.iter().filter(|(of, _)| *of == kind).map(|(_, bytes)| *bytes).sum();
            let committed = self.ledger.entry(id).is_some_and(|entry| entry.committed);
            let entered = if committed { self.ledger.resize(id, holds) } else { self.ledger.commit(id, holds) };
            if entered.is_err() {
                let promised = self.ledger.entry(id).map_or(Bytes::ZERO, |entry| entry.bytes);
                model.excess = model.excess.saturating_add(holds.saturating_sub(promised));
                if !committed {
                    let _ = self.ledger.commit(id, promised);
                }
            }
        }
        for &(kind, bytes) in holds.iter().filter(|(_, bytes)| !bytes.is_zero()) {
            if model.parts.contains_key(&kind) {
                continue;
            }
            match self.ledger.reserve(Owner::Model(digest.clone()), kind, bytes) {
                Ok(id) => {
                    let _ = self.ledger.commit(id, bytes);
                    model.parts.insert(kind, id);
                }
                Err(_) => model.excess = model.excess.saturating_add(bytes),
            }
        }
    }

    pub(super) fn load_failed(&mut self, digest: &ModelDigest) {
        if self.models.get(digest).is_some_and(|model| model.state == State::Loading) {
            let name = self.models.get(digest).map(|model| model.name.clone()).unwrap_or_default();
            self.decide(format!("{name} did not load"), "its bytes are free again");
            self.release(digest);
        }
    }

    pub(super) fn lost(&mut self, digest: &ModelDigest) {
        self.steps.retain(|_, step| step.model != *digest);
        self.forget(digest);
    }

    /// A model is gone: its bytes are free, and it stays away for the rest of its cool-down.
    pub(super) fn forget(&mut self, digest: &ModelDigest) {
        if let Some(model) = self.models.get(digest) {
            self.gone.insert(digest.clone(), model.loaded_at);
        }
        let (now, cool_down) = (self.now, self.config.cool_down_ms);
        self.gone.retain(|_, loaded_at| loaded_at.saturating_add(cool_down) > now);
        self.release(digest);
    }

    fn release(&mut self, digest: &ModelDigest) {
        self.models.remove(digest);
        self.ledger.release_owner(&Owner::Model(digest.clone()));
    }
}

fn clamp(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}
