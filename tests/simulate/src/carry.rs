//! What commands do, and how long that takes.
//!
//! # Assumptions
//! - Unloading takes 50 ms and 40 ms for each GB of context, at most 500 ms; the file stays cached until others need the room.
//! - States are written to disk at 1 GB/s; a context is made again in 40 ms; clean pages are dropped at 8 GB/s. Measured:
//!   `llama_free` 40 ms, `MADV_PAGEOUT` 469 MB in 61 ms.
//! - A refused request that nobody waits for is asked again every ten seconds while it has patience, whoever refused.
//! - Requests that were interrupted to give their cells back do not keep their model: when it goes they are asked anew.
//! - An app that obeys does so after 200 to 1400 ms; one that defers asks for two seconds more.

use std::cmp::Reverse;

use crate::{
    fleet::Manners,
    host::{HeldUp, Kept, Phase},
    policy::{Answer, Cause, Command, Happened, Rung},
    sim::{Sim, State},
};

const GB: u64 = 1_000_000_000;
/// An app that nobody waits for asks again so long after a refusal, ms.
const RETRY_MS: u64 = 10_000;
/// A model that is evicted again so soon after it came back flips, ms.
const FLIP_MS: u64 = 60_000;

/// What happens at a given moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Later {
    /// A model is gone.
    Unloaded(usize),
    /// A part is given back.
    Reclaimed { step: u64, model: usize, rung: Rung, spill: bool },
    /// A request that was refused is asked again.
    Again(usize),
    /// Nobody waits for the request any longer.
    GaveUp(usize),
    /// An app gives back so much.
    Shrinks { app: usize, epoch: u32, release: u64 },
}

impl Sim<'_> {
    fn later(&mut self, after: u64, later: Later) {
        self.later_seq += 1;
        self.later.push(Reverse((self.host.now + after.max(1), self.later_seq, later)));
    }

    pub(crate) fn carry(&mut self, command: Command) {
        match command {
            Command::Queue(request) => self.queue(request),
            Command::Refuse(request) => self.refuse(request),
            Command::Abort(request) => self.abort(request),
            Command::Load(model) => self.load(model),
            Command::Unload(model, cause) => self.unload(model, cause),
            Command::Stay(model) => {
                let resident = &mut self.host.models[model];
                resident.draining &= resident.phase != Phase::Loaded;
                self.begin(model);
            }
            Command::Reclaim { step, model, rung, spill } => self.reclaim(step, model, rung, spill),
            Command::Grow(model, kv) => {
                let most = self.host.laptop.models[model].kv();
                let resident = &mut self.host.models[model];
                if resident.phase == Phase::Loaded {
                    resident.kv = resident.kv.max(kv.min(most));
                }
                self.begin(model);
            }
            Command::Throttle { model, gate, max_tokens, slots } => {
                let resident = &mut self.host.models[model];
                (resident.gate, resident.max_tokens, resident.slots) = (gate, max_tokens, slots);
                self.begin(model);
            }
            Command::Guest(app, bytes) => self.host.guests[app] = bytes,
            Command::Tighten { app, epoch, release } => self.tighten(app, epoch, release),
            Command::Suspend(app, suspended) => {
                self.host.suspended[app] = suspended;
                if !suspended {
                    (0..self.host.models.len()).for_each(|model| self.begin(model));
                }
            }
            Command::Forget(app) => {
                for resident in &mut self.host.models {
                    resident.idle.retain(|kept| kept.app != app);
                    resident.saved.retain(|kept| kept.app != app);
                }
            }
            Command::Stop(app) => self.stop(app),
        }
    }

    /// Marks a request as over; false if it was.
    fn over(&mut self, request: usize) -> bool {
        let was = self.state[request];
        self.state[request] = State::Over;
        was != State::Over
    }

    /// Whether not answering was an error of judgement.
    fn judge(&mut self, request: usize) {
        if self.host.would_fit(request, self.host.request(request).at) {
            self.figures.false_refusals += 1;
        }
    }

    pub(crate) fn arrive(&mut self, request: usize) {
        self.figures.requests += 1;
        let app = self.host.request(request).app;
        if self.stopped[app] {
            self.state[request] = State::Over;
            self.figures.refused += 1;
            self.judge(request);
            return;
        }
        self.later(self.host.request(request).patience, Later::GaveUp(request));
        self.inbox.push_back(Happened::Arrived(request));
    }

    /// A person sees an error. What nobody waits for tries again, whoever refused, until its patience ends.
    fn refuse(&mut self, request: usize) {
        if self.state[request] != State::Open {
            return;
        }
        if self.host.request(request).interactive {
            self.state[request] = State::Over;
            self.figures.refused += 1;
            self.judge(request);
        } else {
            self.figures.retries += 1;
            self.later(RETRY_MS, Later::Again(request));
        }
    }

    fn queue(&mut self, request: usize) {
        if self.state[request] != State::Open {
            return;
        }
        let model = self.host.request(request).model;
        let queue = &mut self.host.models[model].queue;
        if !queue.contains(&request) {
            queue.push(request);
        }
        self.begin(model);
    }

    /// Begins what can begin on a model.
    fn begin(&mut self, model: usize) {
        let begun = self.host.begin(model);
        for request in begun {
            self.state[request] = State::Running;
            let waited = self.host.now - self.host.request(request).at;
            let waited = u32::try_from(waited).unwrap_or(u32::MAX);
            if self.host.request(request).interactive {
                self.figures.waits.push(waited);
            } else {
                self.figures.background_waits.push(waited);
            }
            if self.host.models[model].max_tokens.is_some_and(|most| most < self.host.request(request).answer) {
                self.figures.shortened += 1;
            }
            self.wires_too_much(model, request);
        }
        self.inbox.push_back(Happened::Changed(model));
    }

    /// A GPU that is asked for more than its working set fails the request that came last.
    fn wires_too_much(&mut self, model: usize, request: usize) {
        let Some(most) = self.host.laptop.gpu else { return };
        let running = (0..self.host.models.len()).filter(|&model| !self.host.models[model].running.is_empty());
        if running.map(|model| self.host.footprint(model)).sum::<u64>() > most {
            let resident = &mut self.host.models[model];
            resident.running.retain(|job| job.request != request);
            self.state[request] = State::Over;
            self.figures.aborted += 1;
            self.inbox.push_back(Happened::Ended(request));
        }
    }

    pub(crate) fn answered(&mut self, model: usize, position: usize) {
        let now = self.host.now;
        let resident = &mut self.host.models[model];
        let job = resident.running.remove(position);
        resident.last_used = now;
        self.figures.answered += 1;
        self.state[job.request] = State::Over;
        if job.cells > 0 {
            let request = self.host.request(job.request);
            let kept = Kept { session: request.session, app: request.app, tokens: job.cells };
            self.host.models[model].idle.push(kept);
        }
        self.inbox.push_back(Happened::Finished(job.request));
        self.begin(model);
        self.drained(model);
    }

    fn abort(&mut self, request: usize) {
        let model = self.host.request(request).model;
        let began = self.state[request] == State::Running;
        if !self.over(request) {
            return;
        }
        self.figures.aborted += u64::from(began);
        self.figures.refused += u64::from(!began);
        if !began {
            self.judge(request);
        }
        self.forget(model, request);
        self.inbox.push_back(Happened::Ended(request));
        self.begin(model);
        self.drained(model);
    }

    fn forget(&mut self, model: usize, request: usize) {
        let resident = &mut self.host.models[model];
        resident.queue.retain(|&queued| queued != request);
        resident.running.retain(|job| job.request != request);
        resident.parked.retain(|job| job.request != request);
    }

    fn load(&mut self, model: usize) {
        let weights = self.host.laptop.models[model].weights;
        let disk = self.host.laptop.disk;
        let now = self.host.now;
        let resident = &mut self.host.models[model];
        if resident.phase != Phase::Unloaded {
            return;
        }
        // Opening the file and making the context take as long as reading for 300 ms.
        resident.phase = Phase::Loading(weights.saturating_sub(resident.cached) + 300 * disk);
        resident.last_used = now;
        if resident.was_loaded {
            self.figures.reloads += 1;
        }
    }

    pub(crate) fn loaded(&mut self, model: usize) {
        let kv = self.host.laptop.models[model].kv();
        let now = self.host.now;
        let resident = &mut self.host.models[model];
        resident.phase = Phase::Loaded;
        resident.kv = kv;
        resident.was_loaded = true;
        resident.last_used = now;
        self.inbox.push_back(Happened::Loaded(model));
        self.begin(model);
        self.drained(model);
    }

    fn unload(&mut self, model: usize, cause: Cause) {
        let now = self.host.now;
        let resident = &mut self.host.models[model];
        if resident.draining || matches!(resident.phase, Phase::Unloaded | Phase::Unloading) {
            return;
        }
        resident.draining = true;
        if cause == Cause::Idle {
            self.figures.idle_unloads += 1;
        } else {
            self.figures.evictions += 1;
            let flips = resident.evicted_at.is_some_and(|at| now - at < FLIP_MS);
            self.figures.flips += u64::from(flips);
            resident.evicted_at = Some(now);
        }
        self.drained(model);
    }

    /// A model that is to go goes once nothing runs on it.
    fn drained(&mut self, model: usize) {
        let resident = &self.host.models[model];
        // What was interrupted is not waited for: it is asked anew.
        if !resident.draining || resident.phase != Phase::Loaded || !resident.running.is_empty() {
            return;
        }
        let after = (50 + self.host.context(model) * 40 / GB).min(500);
        self.host.models[model].phase = Phase::Unloading;
        self.later(after, Later::Unloaded(model));
    }

    fn reclaim(&mut self, step: u64, model: usize, rung: Rung, spill: bool) {
        let host = &self.host;
        let token = host.laptop.models[model].kv_token;
        let written = if spill { GB / 1000 } else { 10 * GB / 1000 };
        let after = match rung {
            Rung::PromptCache => 5 + host.prompt_cache(model) / written,
            Rung::IdleSessions => {
                let tokens: u64 = host.models[model].idle.iter().map(|kept| kept.tokens).sum();
                40 + tokens * token / written
            }
            Rung::Weights => 5 + host.models[model].cached / (8 * GB / 1000),
            Rung::Background => 40 + host.background_kv(model) / written,
        };
        self.figures.reclaims += 1;
        self.later(after, Later::Reclaimed { step, model, rung, spill });
    }

    fn reclaimed(&mut self, step: u64, model: usize, rung: Rung, spill: bool) {
        let before = self.host.context(model) + self.host.models[model].cached;
        match rung {
            Rung::PromptCache => {
                let saved = std::mem::take(&mut self.host.models[model].saved);
                if spill {
                    self.host.models[model].disk.extend(saved);
                }
            }
            Rung::IdleSessions => self.shrink(model, spill),
            Rung::Weights => self.host.models[model].cached = 0,
            Rung::Background => {
                let trace = self.host.trace;
                let resident = &mut self.host.models[model];
                let background = |job: &crate::host::Job| !trace.requests[job.request].interactive;
                let parked: Vec<_> = resident.running.iter().copied().filter(background).collect();
                resident.running.retain(|job| !background(job));
                resident.parked.extend(parked);
                self.shrink(model, spill);
            }
        }
        let after = self.host.context(model) + self.host.models[model].cached;
        self.inbox.push_back(Happened::Reclaimed { step, model, freed: before.saturating_sub(after) });
        self.begin(model);
    }

    /// Idle conversations leave their cells and the pool shrinks to what runs.
    fn shrink(&mut self, model: usize, spill: bool) {
        if self.host.models[model].phase != Phase::Loaded {
            return;
        }
        for kept in std::mem::take(&mut self.host.models[model].idle) {
            if spill {
                self.host.keep(model, kept, true);
            }
        }
        let idle = self.host.idle_kv(model);
        self.host.models[model].kv -= idle;
    }

    pub(crate) fn happen(&mut self, later: Later) {
        match later {
            Later::Unloaded(model) => {
                if self.host.models[model].phase == Phase::Unloading {
                    let freed = self.host.context(model);
                    let parked = std::mem::take(&mut self.host.models[model].parked);
                    let resident = &mut self.host.models[model];
                    resident.phase = Phase::Unloaded;
                    resident.clear();
                    for job in parked {
                        self.ask_anew(model, job.request);
                    }
                    self.inbox.push_back(Happened::Unloaded(model, freed));
                }
            }
            Later::Reclaimed { step, model, rung, spill } => self.reclaimed(step, model, rung, spill),
            Later::Again(request) => {
                if self.state[request] == State::Open {
                    self.inbox.push_back(Happened::Arrived(request));
                }
            }
            Later::GaveUp(request) => {
                if self.state[request] == State::Open {
                    self.state[request] = State::Over;
                    let model = self.host.request(request).model;
                    self.figures.gave_up += 1;
                    match self.host.held_up_by(request) {
                        HeldUp::Memory => self.judge(request),
                        HeldUp::Energy => self.figures.held_for_energy += 1,
                        HeldUp::Device => self.figures.overloaded += 1,
                    }
                    self.forget(model, request);
                    self.inbox.push_back(Happened::Ended(request));
                }
            }
            Later::Shrinks { app, epoch, .. } if epoch != self.epochs[app] => {}
            Later::Shrinks { app, epoch, release } => {
                let floor = self.host.laptop.apps[app].floor;
                let guest = &mut self.host.guests[app];
                let freed = release.min(guest.saturating_sub(floor));
                *guest -= freed;
                let left = *guest;
                self.inbox.push_back(Happened::GuestShrank(app, left));
                self.inbox.push_back(Happened::Answered(app, epoch, Answer::Done(freed)));
            }
        }
    }

    /// A request that was interrupted and whose model is gone waits again from the beginning, as long as it has patience.
    fn ask_anew(&mut self, model: usize, request: usize) {
        let asked = self.host.request(request);
        if self.host.now >= asked.at + asked.patience {
            self.state[request] = State::Over;
            self.figures.aborted += 1;
            self.inbox.push_back(Happened::Ended(request));
        } else {
            self.state[request] = State::Open;
            self.host.models[model].queue.push(request);
        }
    }

    /// A model's process is gone from one moment to the next.
    pub(crate) fn die(&mut self, model: usize) {
        let resident = &mut self.host.models[model];
        let lost: Vec<usize> = resident
            .running
            .iter()
            .chain(&resident.parked)
            .map(|job| job.request)
            .chain(resident.queue.drain(..))
            .collect();
        resident.phase = Phase::Unloaded;
        resident.clear();
        for request in lost {
            if self.over(request) {
                self.figures.aborted += 1;
                self.inbox.push_back(Happened::Ended(request));
            }
        }
    }

    pub(crate) fn guest(&mut self, app: usize, bytes: u64) {
        if bytes == 0 {
            self.stopped[app] = false;
        }
        if !self.host.rules.owns_apps {
            self.host.guests[app] = bytes;
        } else if !self.stopped[app] {
            self.inbox.push_back(Happened::GuestWants(app, bytes));
        }
    }

    fn tighten(&mut self, app: usize, epoch: u32, release: u64) {
        self.epochs[app] = epoch;
        self.figures.tightenings += 1;
        let floor = self.host.laptop.apps[app].floor;
        let can = release.min(self.host.guests[app].saturating_sub(floor));
        // Slower with more to give back, and the same for every policy.
        let after = 200 + can / 1_000_000;
        match self.host.laptop.apps[app].manners {
            Manners::Ignores => {}
            Manners::Pledges => self.inbox.push_back(Happened::Answered(app, epoch, Answer::Pledge(can))),
            Manners::Obeys => {
                self.inbox.push_back(Happened::Answered(app, epoch, Answer::Pledge(can)));
                self.later(after, Later::Shrinks { app, epoch, release });
            }
            Manners::Defers => {
                self.inbox.push_back(Happened::Answered(app, epoch, Answer::Defer(2_000)));
                self.later(after + 2_000, Later::Shrinks { app, epoch, release });
            }
        }
    }

    fn stop(&mut self, app: usize) {
        if self.stopped[app] {
            return;
        }
        self.stopped[app] = true;
        self.figures.stopped += 1;
        self.host.guests[app] = 0;
        self.host.suspended[app] = false;
        let mut mine: Vec<usize> = Vec::new();
        for resident in &self.host.models {
            let jobs = resident.running.iter().chain(&resident.parked).map(|job| job.request);
            mine.extend(jobs.chain(resident.queue.iter().copied()));
        }
        for request in mine {
            if self.host.request(request).app == app {
                self.abort(request);
            }
        }
    }
}
