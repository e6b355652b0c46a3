//! oMLX (`omlx/process_memory_enforcer.py`): polls once a second and keeps its footprint below a ceiling.
//!
//! - Ceiling = min(RAM − reserve, own + free + inactive + active × 0.5, Metal's working set); reserve 8 GB in the balanced tier
//!   (4 GB below 16 GB of memory). Own footprint counts weights, as MLX allocates them.
//! - Above 0.85 of it (soft): evicts the least recently used model that nobody uses, and admits nothing until it is below again.
//!   Above 0.95 (hard): also aborts what runs and what loads, but keeps the last model.
//! - A load that would exceed the ceiling first evicts idle models, then is refused with 507.
//! - Models have no idle time by default; up to 8 requests compute together.
//!
//! In its favour: weights are mapped here, so what it evicts costs no swap (MLX's own are anonymous and end up in the
//! compressor, oMLX #2304); old models are gone before new ones load (#1867 was about the reverse). macOS's `inactive` and
//! `active` do not exist on Linux: a third of what other programs hold is taken to be inactive on both.

use std::collections::VecDeque;

use super::{GIB, idle, resident};
use crate::{
    host::{Host, Phase},
    policy::{Cause, Command, Happened, Policy, Rules},
};

/// See the module.
#[derive(Debug, Default)]
pub struct Omlx {
    waiting: VecDeque<usize>,
    paused: bool,
}

impl Omlx {
    /// The most that it may hold now, bytes.
    fn ceiling(host: &Host<'_>) -> u64 {
        let ram = host.laptop.ram;
        let reserve = if ram < 16 * GIB { 4 * GIB } else { 8 * GIB };
        let wanted = host.memory.wanted();
        let held = Self::footprint(host);
        let inactive = wanted.others / 3;
        let active = wanted.others - inactive;
        // Clean pages of its own models are in its footprint already.
        let own = host.models.iter().map(|model| model.cached).sum::<u64>() + wanted.host;
        let free = ram.saturating_sub(host.memory.fixed() + wanted.others + own);
        let dynamic = held + free + inactive + active / 2;
        ram.saturating_sub(reserve).min(dynamic).min(host.laptop.gpu.unwrap_or(u64::MAX))
    }

    fn footprint(host: &Host<'_>) -> u64 {
        (0..host.models.len()).map(|model| host.footprint(model)).sum()
    }

    fn next(&mut self, host: &Host<'_>) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.paused || host.models.iter().any(|resident| resident.draining) {
            return commands;
        }
        let ceiling = Self::ceiling(host);
        let held = Self::footprint(host);
        while let Some(&request) = self.waiting.front() {
            let model = host.request(request).model;
            let needs = host.laptop.models[model].total();
            if host.models[model].phase != Phase::Unloaded {
                commands.push(Command::Queue(request));
            } else if held + needs <= ceiling {
                commands.extend([Command::Load(model), Command::Queue(request)]);
                self.waiting.pop_front();
                // The others come when this one is there.
                break;
            } else if let Some(victim) = idle(host).first() {
                commands.push(Command::Unload(*victim, Cause::Room));
                break;
            } else if resident(host).any(|other| host.models[other].is_busy()) && needs <= ceiling {
                // It would fit alone: it waits for those that compute.
                break;
            } else {
                commands.push(Command::Refuse(request));
            }
            self.waiting.pop_front();
        }
        commands
    }

    fn enforce(&mut self, host: &Host<'_>) -> Vec<Command> {
        let ceiling = Self::ceiling(host);
        let held = Self::footprint(host);
        if held <= ceiling / 100 * 85 {
            self.paused = false;
            return self.next(host);
        }
        self.paused = true;
        let victim = idle(host).first().copied().filter(|_| resident(host).count() > 1 || held > ceiling / 100 * 95);
        let mut commands: Vec<Command> =
            victim.map(|model| Command::Unload(model, Cause::Pressure)).into_iter().collect();
        if held > ceiling / 100 * 95 && victim.is_none() {
            for model in resident(host) {
                let running = host.models[model].running.iter().map(|job| job.request);
                let queued = host.models[model].queue.iter().copied();
                commands.extend(running.chain(queued).map(Command::Abort));
            }
        }
        commands
    }
}

impl Policy for Omlx {
    fn rules(&self) -> Rules {
        Rules { slots: 8, prompt_cache: 0, spills: true, by_class: false, process_per_model: false, owns_apps: false }
    }

    fn handle(&mut self, host: &Host<'_>, happened: &Happened) -> Vec<Command> {
        match *happened {
            Happened::Arrived(request) => self.waiting.push_back(request),
            Happened::Ended(request) => self.waiting.retain(|&waiting| waiting != request),
            Happened::Sampled(_) => return self.enforce(host),
            Happened::Loaded(_) | Happened::Unloaded(..) => {}
            Happened::Changed(_) if !self.waiting.is_empty() => {}
            Happened::HostKilled => self.waiting.clear(),
            _ => return Vec::new(),
        }
        self.next(host)
    }
}
