//! One laptop for one week under one policy: time, work, memory. What commands do is in `carry`.
//!
//! Driven by events: it steps from one thing that changes to the next. While something moves (other programs grow, a request
//! runs, a model loads) the sensors are read every [`SAMPLE_MS`]; while nothing does, every [`IDLE_SAMPLE_MS`] and once just
//! before the next thing happens, so a policy never sees older figures than it would at the steady rate.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use crate::{
    carry::Later,
    figures::Figures,
    fleet::Laptop,
    host::{Host, Phase, Resident},
    memory::{Memory, UNWIRE_MS, Wanted},
    policy::{Happened, Policy, Sample},
    trace::{Heat, Power, Trace, between},
};

/// Between two readings of the sensors while something moves, ms.
pub const SAMPLE_MS: u64 = 1_000;
/// Between two readings while nothing does, ms.
pub const IDLE_SAMPLE_MS: u64 = 10_000;
/// A victim's program is there again after so long, ms.
const RESTART_MS: u64 = 300_000;
/// Things that may happen at one moment, each because of the one before. A hundred requests come at once at most.
const MOST_ROUNDS: u32 = 10_000;
/// Violations of one laptop that are kept.
const VIOLATIONS_KEPT: usize = 4;
/// Time that somebody waited for memory shows in the sensor for so long, ms.
const STALL_MS: u64 = 10_000;

/// A laptop and its counterfactual while they run.
pub(crate) struct Sim<'a> {
    pub(crate) host: Host<'a>,
    /// The same laptop with a host that holds nothing.
    shadow: Memory,
    pub(crate) figures: Figures,
    pub(crate) later: BinaryHeap<Reverse<(u64, u64, Later)>>,
    pub(crate) later_seq: u64,
    pub(crate) inbox: VecDeque<Happened>,
    /// Which requests have ended or begun, by index.
    pub(crate) state: Vec<State>,
    /// Apps that were stopped until their run would have ended.
    pub(crate) stopped: Vec<bool>,
    /// The newest epoch of each app: it answers no older one.
    pub(crate) epochs: Vec<u32>,
    cursors: Cursors,
    sampled: u64,
    stalled: Option<u64>,
    /// Killed programs, and what they held: until then and bytes; of the laptop and of its counterfactual.
    killed: [(u64, u64); 2],
}

/// What has become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not yet come, or come and not begun.
    Open,
    /// Computes.
    Running,
    /// Over, one way or the other.
    Over,
}

/// How far the week was read.
#[derive(Debug, Default)]
struct Cursors {
    others: usize,
    requests: usize,
    guests: usize,
    visible: usize,
    heat: usize,
    power: usize,
    sleeps: usize,
}

/// Runs one laptop for one week.
#[must_use]
pub fn run(laptop: &Laptop, trace: &Trace, policy: &mut dyn Policy) -> Figures {
    let mut sim = Sim::new(laptop, trace, policy);
    sim.run(policy);
    sim.figures
}

impl<'a> Sim<'a> {
    pub(crate) fn new(laptop: &'a Laptop, trace: &'a Trace, policy: &dyn Policy) -> Self {
        let memory = Memory::new(laptop.ram, laptop.kernel, laptop.page_cache, laptop.swap);
        let host = Host {
            laptop,
            now: 0,
            memory: memory.clone(),
            models: vec![Resident::default(); laptop.models.len()],
            guests: vec![0; laptop.apps.len()],
            suspended: vec![false; laptop.apps.len()],
            heat: Heat::default(),
            power: Power::default(),
            trace,
            rules: policy.rules(),
        };
        Self {
            host,
            shadow: memory,
            figures: Figures::default(),
            later: BinaryHeap::new(),
            later_seq: 0,
            inbox: VecDeque::new(),
            state: vec![State::Open; trace.requests.len()],
            stopped: vec![false; laptop.apps.len()],
            epochs: vec![0; laptop.apps.len()],
            cursors: Cursors::default(),
            sampled: 0,
            stalled: None,
            killed: [(0, 0); 2],
        }
    }

    pub(crate) fn run(&mut self, policy: &mut dyn Policy) {
        self.settle(0);
        self.sample();
        self.deliver(policy);
        loop {
            let next = self.next();
            if next >= self.host.trace.length {
                break;
            }
            self.advance(next);
            self.due();
            self.deliver(policy);
            self.settle(0);
            self.deliver(policy);
            self.speeds();
        }
    }

    /// The sleep that the laptop is in or comes to next.
    fn sleep(&self) -> Option<(u64, u64)> {
        self.host.trace.sleeps.get(self.cursors.sleeps).copied()
    }

    fn asleep(&self) -> bool {
        self.sleep().is_some_and(|(from, _)| from <= self.host.now)
    }

    /// When something changes next, ms. Always later than now.
    fn next(&self) -> u64 {
        let now = self.host.now;
        if let Some((_, to)) = self.sleep().filter(|_| self.asleep()) {
            return to.max(now + 1);
        }
        let trace = self.host.trace;
        let cursors = &self.cursors;
        let mut next = trace.length;
        let times = [
            trace.others.get(cursors.others).map(|point| point.0),
            trace.requests.get(cursors.requests).map(|request| request.at),
            trace.guests.get(cursors.guests).map(|guest| guest.0),
            trace.visible.get(cursors.visible).map(|visible| visible.0),
            trace.heat.get(cursors.heat).map(|heat| heat.0),
            trace.power.get(cursors.power).map(|power| power.0),
            self.sleep().map(|sleep| sleep.0),
            self.later.peek().map(|Reverse((at, ..))| *at),
        ];
        for at in times.into_iter().flatten() {
            next = next.min(at.max(now + 1));
        }
        let loading = self.loading();
        for resident in &self.host.models {
            if let Phase::Loading(left) = resident.phase {
                next = next.min(now + (left * loading).div_ceil(self.host.laptop.disk).max(1));
            }
            for job in resident.running.iter().filter(|_| resident.computes()) {
                next = next.min(now + job.left.div_ceil(resident.speed.max(1)).max(1));
            }
        }
        let grid = (now / SAMPLE_MS + 1) * SAMPLE_MS;
        if self.moves() {
            return next.min(grid);
        }
        // One look just before it happens, if the last one is older than a tick.
        let before = (next - 1) / SAMPLE_MS * SAMPLE_MS;
        let idle = (self.sampled / SAMPLE_MS * SAMPLE_MS + IDLE_SAMPLE_MS).max(grid);
        next.min(if before > now { before.min(idle) } else { idle })
    }

    fn loading(&self) -> u64 {
        self.host.models.iter().filter(|resident| matches!(resident.phase, Phase::Loading(_))).count() as u64
    }

    /// Whether the sensors would show something new at every reading.
    fn moves(&self) -> bool {
        let others = &self.host.trace.others;
        let slope = match (self.cursors.others.checked_sub(1), others.get(self.cursors.others)) {
            (Some(before), Some(after)) => others[before].1 != after.1,
            _ => false,
        };
        let busy =
            |resident: &Resident| resident.is_busy() || matches!(resident.phase, Phase::Loading(_) | Phase::Unloading);
        slope || self.host.models.iter().any(busy)
    }

    /// Time passes: requests compute, models load, memory settles.
    fn advance(&mut self, to: u64) {
        let dt = to - self.host.now;
        let awake = if self.asleep() { 0 } else { dt };
        self.host.now = to;
        if awake > 0 {
            self.compute(awake);
        }
        self.settle(awake);
    }

    fn compute(&mut self, dt: u64) {
        let loading = self.loading();
        let disk = self.host.laptop.disk;
        for (resident, model) in self.host.models.iter_mut().zip(&self.host.laptop.models) {
            if let Phase::Loading(left) = &mut resident.phase {
                let read = (disk * dt / loading).min(*left);
                *left -= read;
                resident.cached = (resident.cached + read).min(model.weights);
                if resident.was_loaded {
                    self.figures.reload_bytes += read;
                }
            }
            if !resident.computes() {
                continue;
            }
            for job in &mut resident.running {
                job.left = job.left.saturating_sub(dt * resident.speed);
            }
            let missing = model.weights.saturating_sub(resident.cached);
            if missing > 0 {
                let read = disk * dt;
                self.figures.reload_bytes += read;
                resident.cached += read.min(missing);
                self.stalled = Some(self.host.now);
            }
        }
    }

    /// How fast each model computes, per mille of an undisturbed device (so: µs of work in a millisecond). Models that compute
    /// together share the device; heat slows it, and so does what every token has to read again from the disk.
    fn speeds(&mut self) {
        let active = self.host.models.iter().filter(|resident| resident.computes()).count() as u64;
        let heat = self.host.heat.speed();
        for model in 0..self.host.models.len() {
            if !self.host.models[model].computes() {
                continue;
            }
            let token = self.host.token_us(model);
            let missing = self.host.laptop.models[model].weights.saturating_sub(self.host.models[model].cached);
            let reading = missing * 1000 / self.host.laptop.disk;
            self.host.models[model].speed = (heat * token / (token + reading) / active).max(1);
        }
    }

    /// Settles the memory of the laptop and of its counterfactual, and counts what the host caused.
    pub(crate) fn settle(&mut self, dt: u64) {
        let now = self.host.now;
        let others = self.others();
        let guests: u64 = self.host.guests.iter().sum();
        let gpu = self.host.laptop.gpu.is_some();
        let mut wanted = Wanted { others, host: self.host.anonymous(), wired: 0, hot: 0 };
        let mut bare = Wanted { others, ..Wanted::default() };
        if !self.host.rules.owns_apps {
            wanted.others += guests;
            bare.others += guests;
        }
        for (resident, model) in self.host.models.iter_mut().zip(&self.host.laptop.models) {
            let runs = resident.computes();
            if runs && gpu {
                resident.wired_until = now + UNWIRE_MS;
            }
            if gpu && now < resident.wired_until {
                wanted.wired += model.weights;
            } else if runs {
                wanted.hot += model.weights;
            }
        }
        wanted.others = wanted.others.saturating_sub(self.missing(0));
        bare.others = bare.others.saturating_sub(self.missing(1));
        let outcome = self.host.memory.settle(wanted, dt);
        let without = self.shadow.settle(bare, dt);
        let caused = outcome.written.saturating_sub(without.written);
        self.figures.swap_caused += caused;
        self.figures.swap_for_weights += caused.min(outcome.for_weights);
        self.figures.compressed_caused += outcome.compressed.saturating_sub(without.compressed);
        if outcome.written > 0 {
            self.stalled = Some(now);
        }
        if without.lacking > 0 {
            self.killed[1] = (now + RESTART_MS, bare.others * 2 / 5);
        }
        if outcome.lacking > 0 {
            if without.lacking == 0 {
                self.figures.kills += 1;
            }
            self.kill(wanted.others);
        }
        self.trim();
    }

    /// Anonymous memory of other programs now, bytes.
    fn others(&self) -> u64 {
        let others = &self.host.trace.others;
        match (self.cursors.others.checked_sub(1).map(|index| others[index]), others.get(self.cursors.others)) {
            (Some(from), Some(&to)) => between(from, to, self.host.now),
            (Some((_, bytes)), None) | (None, Some(&(_, bytes))) => bytes,
            (None, None) => 0,
        }
    }

    /// What a killed program held and does not hold yet again.
    fn missing(&self, which: usize) -> u64 {
        let (until, bytes) = self.killed[which];
        u64::try_from(u128::from(bytes) * u128::from(until.saturating_sub(self.host.now)) / u128::from(RESTART_MS))
            .unwrap_or(bytes)
    }

    /// The kernel kills the process with the most resident memory: of other programs the largest is taken to hold two fifths.
    fn kill(&mut self, others: u64) {
        let host = &self.host;
        let resident = |model: usize| match host.models[model].phase {
            Phase::Unloaded => 0,
            Phase::Loading(_) | Phase::Loaded | Phase::Unloading => host.context(model) + host.models[model].cached,
        };
        let largest = (0..host.models.len()).max_by_key(|&model| resident(model));
        let program = others * 2 / 5;
        let ours = if host.rules.process_per_model {
            largest.map_or(0, resident)
        } else {
            (0..host.models.len()).map(resident).sum::<u64>() + host.guests.iter().sum::<u64>()
        };
        if ours <= program {
            self.killed[0] = (host.now + RESTART_MS, program);
            return;
        }
        let victims: Vec<usize> = match largest {
            Some(model) if host.rules.process_per_model => vec![model],
            _ => (0..host.models.len()).collect(),
        };
        for model in victims {
            self.die(model);
        }
        if self.host.rules.process_per_model {
            self.inbox.extend(largest.map(Happened::Killed));
        } else {
            self.host.guests.iter_mut().for_each(|guest| *guest = 0);
            self.stopped.iter_mut().for_each(|stopped| *stopped = true);
            self.host.suspended.iter_mut().for_each(|suspended| *suspended = false);
            self.inbox.push_back(Happened::HostKilled);
        }
    }

    /// Clean pages that have no room are dropped: of files that are not mapped first, then of models that nobody uses.
    fn trim(&mut self) {
        let now = self.host.now;
        let room = self.host.memory.room_for_clean();
        let gpu = self.host.laptop.gpu.is_some();
        let clean = |resident: &Resident| if gpu && now < resident.wired_until { 0 } else { resident.cached };
        let mut over = self.host.models.iter().map(clean).sum::<u64>().saturating_sub(room);
        while over > 0 {
            let order =
                |resident: &&mut Resident| (resident.computes(), resident.phase != Phase::Unloaded, resident.last_used);
            let Some(victim) = self.host.models.iter_mut().filter(|resident| clean(resident) > 0).min_by_key(order)
            else {
                break;
            };
            let dropped = victim.cached.min(over);
            victim.cached -= dropped;
            over -= dropped;
        }
    }

    /// Everything that is due now, in a fixed order.
    fn due(&mut self) {
        let now = self.host.now;
        let trace = self.host.trace;
        while self.sleep().is_some_and(|(_, to)| to <= now) {
            self.cursors.sleeps += 1;
        }
        for model in 0..self.host.models.len() {
            if self.host.models[model].phase == Phase::Loading(0) {
                self.loaded(model);
            }
            while let Some(position) = self.host.models[model].running.iter().position(|job| job.left == 0) {
                self.answered(model, position);
            }
        }
        while let Some(Reverse((at, _, later))) = self.later.peek().copied() {
            if at > now {
                break;
            }
            self.later.pop();
            self.happen(later);
        }
        while trace.others.get(self.cursors.others).is_some_and(|point| point.0 <= now) {
            self.cursors.others += 1;
        }
        while let Some(&(_, heat)) = trace.heat.get(self.cursors.heat).filter(|heat| heat.0 <= now) {
            self.host.heat = heat;
            self.cursors.heat += 1;
        }
        while let Some(&(_, power)) = trace.power.get(self.cursors.power).filter(|power| power.0 <= now) {
            self.host.power = power;
            self.cursors.power += 1;
        }
        // A fresh look comes before what it is needed for.
        if now.is_multiple_of(SAMPLE_MS) && now > self.sampled && !self.asleep() {
            self.sample();
        }
        while let Some(&(_, app, looks)) = trace.visible.get(self.cursors.visible).filter(|visible| visible.0 <= now) {
            self.inbox.push_back(Happened::Looked(app, looks));
            self.cursors.visible += 1;
        }
        while let Some(&(_, app, bytes)) = trace.guests.get(self.cursors.guests).filter(|guest| guest.0 <= now) {
            self.guest(app, bytes);
            self.cursors.guests += 1;
        }
        while trace.requests.get(self.cursors.requests).is_some_and(|request| request.at <= now) {
            self.arrive(self.cursors.requests);
            self.cursors.requests += 1;
        }
    }

    fn sample(&mut self) {
        let now = self.host.now;
        self.sampled = now;
        let memory = &self.host.memory;
        let mapped = |resident: &&Resident| resident.phase != Phase::Unloaded;
        let linux = self.host.laptop.gpu.is_none();
        let stalled = self.stalled.is_some_and(|at| now.saturating_sub(at) < STALL_MS);
        self.inbox.push_back(Happened::Sampled(Sample {
            available: memory.available(),
            swap_total: memory.swap_total(),
            swap_used: memory.swap_used(),
            swapped_out: memory.written(),
            own_file: self.host.models.iter().filter(mapped).map(|resident| resident.cached).sum(),
            own_anonymous: self.host.anonymous(),
            warning: memory.warning(),
            stall: linux.then_some(if stalled { 2_000 } else { 0 }),
            heat: self.host.heat,
            power: self.host.power,
        }));
    }

    /// Tells the policy what happened and does what it says, until nothing more happens.
    fn deliver(&mut self, policy: &mut dyn Policy) {
        let mut rounds = 0;
        while let Some(happened) = self.inbox.pop_front() {
            rounds += 1;
            if rounds > MOST_ROUNDS {
                let violation = format!("what it does makes itself go on for ever, last {happened:?}");
                self.violated(violation);
                self.inbox.clear();
                break;
            }
            for command in policy.handle(&self.host, &happened) {
                self.carry(command);
            }
            if let Some(violation) = policy.violation(&self.host) {
                self.violated(violation);
            }
        }
    }

    /// Keeps the first few: one fault is often repeated at every step.
    fn violated(&mut self, what: String) {
        if self.figures.violations.len() < VIOLATIONS_KEPT {
            let Host { laptop, now, .. } = &self.host;
            self.figures.violations.push(format!("laptop {} at {now} ms: {what}", laptop.id));
        }
    }
}
