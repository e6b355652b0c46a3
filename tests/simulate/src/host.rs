//! What the host of a laptop holds and does now, and the engine inside it: slots, cells, sessions.
//!
//! The engine is the same for every policy: one pool of cells for each model, committed whole when the context is made; idle
//! sessions keep their cells until somebody else needs them; a conversation that comes back computes only what is new.

use crate::{
    fleet::{Laptop, N_CTX},
    memory::Memory,
    policy::{Gate, Rules},
    trace::{Heat, Power, Request, Trace},
};

/// What a model is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not there. Pages of its file may still be cached.
    #[default]
    Unloaded,
    /// So many bytes of it have yet to be read.
    Loading(u64),
    /// There.
    Loaded,
    /// Going.
    Unloading,
}

/// Why a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldUp {
    /// The policy has no memory for it.
    Memory,
    /// Nobody waits for it, and the machine is hot or saves energy.
    Energy,
    /// Others compute.
    Device,
}

/// A request that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Index of the request.
    pub request: usize,
    /// Work that is left, µs of an undisturbed device.
    pub left: u64,
    /// Cells that it holds, tokens.
    pub cells: u64,
}

/// Tokens of a conversation somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The conversation.
    pub session: u64,
    /// Its app.
    pub app: usize,
    /// Tokens.
    pub tokens: u64,
}

/// A model on this laptop.
#[derive(Debug, Clone, Default)]
pub struct Resident {
    /// What it is doing.
    pub phase: Phase,
    /// Bytes of its pool of cells.
    pub kv: u64,
    /// Bytes of its file that are in memory and clean.
    pub cached: u64,
    /// What computes.
    pub running: Vec<Job>,
    /// Accepted and not begun, in order of arrival.
    pub queue: Vec<usize>,
    /// Interrupted; cells given back.
    pub parked: Vec<Job>,
    /// Conversations in cells, least recently used first.
    pub idle: Vec<Kept>,
    /// Conversations saved in memory, oldest first.
    pub saved: Vec<Kept>,
    /// Conversations on disk.
    pub disk: Vec<Kept>,
    /// Is to be unloaded; nothing begins.
    pub draining: bool,
    /// Who may begin.
    pub gate: Gate,
    /// Longest answer of what has not begun, tokens.
    pub max_tokens: Option<u64>,
    /// Sequences together, where it was throttled.
    pub slots: Option<usize>,
    /// Last end or begin of a request, ms.
    pub last_used: u64,
    /// Bytes of cells that what waits needs and the pool lacks: the size that the pool would have to have.
    pub wants_kv: Option<u64>,
    pub(crate) wired_until: u64,
    pub(crate) speed: u64,
    pub(crate) was_loaded: bool,
    pub(crate) evicted_at: Option<u64>,
}

impl Resident {
    /// Whether requests can begin.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Loaded && !self.draining
    }
    /// Whether something computes on it or waits for it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty() || !self.queue.is_empty() || !self.parked.is_empty()
    }
    /// Whether something computes: runs and is not held back.
    #[must_use]
    pub fn computes(&self) -> bool {
        !self.running.is_empty() && self.slots != Some(0)
    }
    /// Whether its context is allocated.
    #[must_use]
    pub fn holds_context(&self) -> bool {
        matches!(self.phase, Phase::Loaded | Phase::Unloading)
    }
    fn cells_running(&self) -> u64 {
        self.running.iter().map(|job| job.cells).sum()
    }
    fn cells_idle(&self) -> u64 {
        self.idle.iter().map(|kept| kept.tokens).sum()
    }
    /// Everything about conversations and requests is gone.
    pub(crate) fn clear(&mut self) {
        self.kv = 0;
        self.running.clear();
        self.idle.clear();
        self.saved.clear();
        self.parked.clear();
        self.draining = false;
        self.gate = Gate::All;
        self.max_tokens = None;
        self.slots = None;
        self.wants_kv = None;
    }
}

/// A laptop at one moment, as policies see it.
#[derive(Debug)]
pub struct Host<'a> {
    /// What it is.
    pub laptop: &'a Laptop,
    /// Milliseconds since the week began.
    pub now: u64,
    /// Its memory.
    pub memory: Memory,
    /// Its models, as in [`Laptop::models`].
    pub models: Vec<Resident>,
    /// Guest memory of its apps, bytes.
    pub guests: Vec<u64>,
    /// Apps that may not compute.
    pub suspended: Vec<bool>,
    /// How hot it is.
    pub heat: Heat,
    /// Where the power comes from.
    pub power: Power,
    pub(crate) trace: &'a Trace,
    pub(crate) rules: Rules,
}

impl Host<'_> {
    /// A request.
    #[must_use]
    pub fn request(&self, index: usize) -> &Request {
        &self.trace.requests[index]
    }

    /// Anonymous bytes of one model's context.
    #[must_use]
    pub fn context(&self, model: usize) -> u64 {
        let resident = &self.models[model];
        if !resident.holds_context() {
            return 0;
        }
        resident.kv + self.laptop.models[model].compute + self.prompt_cache(model)
    }

    /// Bytes of saved states of one model.
    #[must_use]
    pub fn prompt_cache(&self, model: usize) -> u64 {
        let tokens: u64 = self.models[model].saved.iter().map(|kept| kept.tokens).sum();
        tokens * self.laptop.models[model].kv_token
    }

    /// What the host holds of anonymous memory, bytes.
    #[must_use]
    pub fn anonymous(&self) -> u64 {
        let contexts: u64 = (0..self.models.len()).map(|model| self.context(model)).sum();
        contexts + if self.rules.owns_apps { self.guests.iter().sum() } else { 0 }
    }

    /// What a process of this model, or the whole host, is counted to hold: context and weights, bytes.
    #[must_use]
    pub fn footprint(&self, model: usize) -> u64 {
        match self.models[model].phase {
            Phase::Unloaded => 0,
            Phase::Loading(_) | Phase::Loaded | Phase::Unloading => {
                self.context(model) + self.laptop.models[model].weights
            }
        }
    }

    /// KV bytes that would be free if idle sessions gave theirs up and the pool shrank to what runs.
    #[must_use]
    pub fn idle_kv(&self, model: usize) -> u64 {
        let resident = &self.models[model];
        resident.kv.saturating_sub(self.least_pool(model, resident.cells_running()))
    }

    /// KV bytes of running background requests.
    #[must_use]
    pub fn background_kv(&self, model: usize) -> u64 {
        let background = self.models[model].running.iter().filter(|job| !self.request(job.request).interactive);
        background.map(|job| job.cells).sum::<u64>() * self.laptop.models[model].kv_token
    }

    /// The smallest pool that still lets so many cells run, bytes: padded to 256, as the engine pads.
    pub(crate) fn least_pool(&self, model: usize, cells: u64) -> u64 {
        self.laptop.models[model].kv_token * cells.next_multiple_of(256).clamp(256, N_CTX)
    }

    /// Which requests begin now. Conversations that are in the way give up their cells.
    pub(crate) fn begin(&mut self, model: usize) -> Vec<usize> {
        let mut begun = Vec::new();
        self.models[model].wants_kv = None;
        while let Some(job) = self.next_job(model, &mut begun) {
            let resident = &mut self.models[model];
            resident.running.push(job);
            resident.last_used = self.now;
        }
        begun
    }

    /// The next one to run, taken out of where it waited.
    fn next_job(&mut self, model: usize, begun: &mut Vec<usize>) -> Option<Job> {
        let resident = &self.models[model];
        if !resident.is_ready() || resident.running.len() >= resident.slots.unwrap_or(self.rules.slots) {
            return None;
        }
        if let Some(&parked) = resident.parked.first().filter(|_| resident.gate == Gate::All) {
            self.has_room(model, parked.cells)?;
            self.make_room(model, parked.cells);
            self.models[model].parked.remove(0);
            return Some(parked);
        }
        let may = |&index: &usize| {
            let request = self.request(index);
            !self.suspended[request.app]
                && match resident.gate {
                    Gate::All => true,
                    Gate::Interactive => request.interactive,
                    Gate::Nobody => false,
                }
        };
        let mut waiting = resident.queue.iter().copied().enumerate().filter(|(_, index)| may(index));
        let (position, index) = if self.rules.by_class {
            waiting.min_by_key(|&(position, index)| (!self.request(index).interactive, position))?
        } else {
            waiting.next()?
        };
        let request = *self.request(index);
        let answer = resident.max_tokens.map_or(request.answer, |most| request.answer.min(most));
        let has_cells = self.laptop.models[model].kv_token > 0;
        let cells = if has_cells { request.history + request.prompt + answer } else { 0 };
        self.has_room(model, cells)?;
        let left = self.work(model, &request, answer);
        self.take_session(model, request.session);
        self.make_room(model, cells);
        self.models[model].queue.remove(position);
        begun.push(index);
        Some(Job { request: index, left, cells })
    }

    /// Whether the pool has place for `cells` more beside what runs; else it is noted what the pool would have to be.
    fn has_room(&mut self, model: usize, cells: u64) -> Option<()> {
        let token = self.laptop.models[model].kv_token;
        let Some(pool) = self.models[model].kv.checked_div(token) else { return Some(()) };
        let needed = self.models[model].cells_running() + cells;
        if needed <= pool {
            return Some(());
        }
        let wanted = self.least_pool(model, needed);
        // What the context can never hold at once has to wait for those that run.
        self.models[model].wants_kv = (wanted > self.models[model].kv && needed <= N_CTX).then_some(wanted);
        None
    }

    /// Takes cells from idle conversations until `cells` more are free beside what runs.
    fn make_room(&mut self, model: usize, cells: u64) {
        let token = self.laptop.models[model].kv_token;
        let pool = self.models[model].kv.checked_div(token).unwrap_or(u64::MAX);
        let needed = self.models[model].cells_running() + cells;
        while needed + self.models[model].cells_idle() > pool && !self.models[model].idle.is_empty() {
            let kept = self.models[model].idle.remove(0);
            self.keep(model, kept, self.rules.spills);
        }
        if self.rules.prompt_cache > 0 {
            // `--cache-idle-slots`: what is idle is saved as soon as something else begins.
            for kept in std::mem::take(&mut self.models[model].idle) {
                self.keep(model, kept, false);
            }
        }
    }

    /// A conversation without cells goes to the disk, or to saved states, or is forgotten.
    pub(crate) fn keep(&mut self, model: usize, kept: Kept, spill: bool) {
        let token = self.laptop.models[model].kv_token;
        let most = self.rules.prompt_cache;
        let resident = &mut self.models[model];
        if spill {
            resident.disk.retain(|other| other.session != kept.session);
            resident.disk.push(kept);
        } else if kept.tokens * token <= most {
            resident.saved.push(kept);
            let mut bytes: u64 = resident.saved.iter().map(|kept| kept.tokens * token).sum();
            while bytes > most {
                bytes -= resident.saved.remove(0).tokens * token;
            }
        }
    }

    fn take_session(&mut self, model: usize, session: u64) {
        let resident = &mut self.models[model];
        for place in [&mut resident.idle, &mut resident.saved, &mut resident.disk] {
            place.retain(|kept| kept.session != session);
        }
    }

    /// Work of a request on an undisturbed device, µs: decoding is bound by reading the weights, prefill by multiplying.
    #[must_use]
    pub fn work(&self, model: usize, request: &Request, answer: u64) -> u64 {
        let resident = &self.models[model];
        let token = self.laptop.models[model].kv_token;
        let has = |place: &[Kept]| place.iter().find(|kept| kept.session == request.session).map(|kept| kept.tokens);
        // Bytes per millisecond: memory 10 GB/s, disk 1 GB/s.
        let (known, restore) = if let Some(tokens) = has(&resident.idle) {
            (tokens, 0)
        } else if let Some(tokens) = has(&resident.saved) {
            (tokens, tokens * token / 10_000)
        } else if let Some(tokens) = has(&resident.disk) {
            (tokens, tokens * token / 1_000)
        } else {
            (0, 0)
        };
        let fresh = request.prompt + request.history.saturating_sub(known);
        restore + fresh * self.prefill_us(model) + answer * self.token_us(model)
    }

    /// Time of one token of prefill, µs.
    fn prefill_us(&self, model: usize) -> u64 {
        self.laptop.models[model].parameters * 1000 / self.laptop.compute
    }

    /// Time of one token of the answer, µs: real engines reach about two thirds of the bandwidth.
    pub(crate) fn token_us(&self, model: usize) -> u64 {
        (self.laptop.models[model].weights * 3 / 2 * 1000 / self.laptop.bandwidth).max(1)
    }

    /// Time of a load from a cold disk, ms.
    #[must_use]
    pub fn load_ms(&self, model: usize) -> u64 {
        300 + self.laptop.models[model].weights / self.laptop.disk
    }

    /// What holds a request up that waits. In the queue of a model that is there, computes, and whose pool would not help by
    /// being larger, it waits for the device: the laptop is too slow for what is asked of it.
    #[must_use]
    pub fn held_up_by(&self, index: usize) -> HeldUp {
        let request = self.request(index);
        let resident = &self.models[request.model];
        let open = match resident.gate {
            Gate::All => true,
            Gate::Interactive => request.interactive,
            Gate::Nobody => false,
        };
        let saves = self.power.saver || self.heat == Heat::Serious;
        let there = resident.is_ready() && resident.queue.contains(&index) && !self.suspended[request.app];
        match resident.slots {
            _ if !there || resident.wants_kv.is_some() || resident.slots == Some(0) => HeldUp::Memory,
            _ if !open && saves => HeldUp::Energy,
            _ if !open => HeldUp::Memory,
            Some(_) if !saves => HeldUp::Memory,
            _ => HeldUp::Device,
        }
    }

    /// Whether the request could have been answered without causing swap, by somebody who knows the week and gives up
    /// everything that is idle: other programs at their highest until it would have ended, apps as they are, models that
    /// compute for others now, and all of its own model.
    #[must_use]
    pub fn would_fit(&self, index: usize, from: u64) -> bool {
        let request = self.request(index);
        let model = &self.laptop.models[request.model];
        if self.laptop.gpu.is_some_and(|most| model.total() > most) {
            return false;
        }
        let ready = self.models[request.model].phase == Phase::Loaded;
        let load = if ready { 0 } else { self.load_ms(request.model) };
        let until = self.now + load + self.work(request.model, request, request.answer).div_ceil(1000);
        let others = self.trace.most_between(from, until.min(self.trace.length));
        let guests: u64 = self.guests.iter().sum();
        let busy =
            (0..self.models.len()).filter(|&other| other != request.model && !self.models[other].running.is_empty());
        let (mut anonymous, mut weights) = (guests + model.kv() + model.compute, model.weights);
        for other in busy {
            anonymous += self.context(other);
            weights += self.laptop.models[other].weights;
        }
        self.memory.would_hold(others, anonymous, weights)
    }
}
