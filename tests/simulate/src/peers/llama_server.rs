//! llama-server in router mode (`tools/server`, b10587): a process for each model, at most `--models-max 4` of them.
//!
//! - A fifth model takes the place of the least recently used **idle** one; a busy one is never evicted, requests wait in one
//!   queue, first come first served (`server-models.cpp`, `server_lru_sched`).
//! - Memory is not looked at: the router knows no bytes (#21231 asks for it, #25326). `--fit` compares a model alone with the
//!   device's total memory on a CPU ("free = total", `ggml-cpu.cpp`), shrinks the context to no less than 4096 tokens, and
//!   loads anyway when that does not help.
//! - Idle models stay: `--sleep-idle-seconds` is off. Saved states take up to `--cache-ram 8192` MiB for each process, and
//!   idle slots are saved as soon as another request begins (`--cache-idle-slots`).
//! - Nothing listens to memory pressure.
//!
//! In its favour the context is always 8192 tokens as everybody's, never the trained length.

use std::collections::VecDeque;

use super::{CACHE_RAM, idle, resident};
use crate::{
    host::{Host, Phase},
    policy::{Cause, Command, Happened, Policy, Rules},
};

const MODELS_MAX: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub struct LlamaServer {
    /// Requests whose model is not there yet, first come first served.
    waiting: VecDeque<usize>,
    /// `--models-max`.
    most: usize,
}

impl LlamaServer {
    /// With its default of four models.
    #[must_use]
    pub fn new() -> Self {
        Self::with_models_max(MODELS_MAX)
    }

    /// With `--models-max most`.
    #[must_use]
    pub fn with_models_max(most: usize) -> Self {
        Self { waiting: VecDeque::new(), most }
    }

    /// Loads for the head of the queue, or makes a place for it; all that need the same model come along.
    fn next(&mut self, host: &Host<'_>) -> Vec<Command> {
        let mut commands = Vec::new();
        self.waiting.retain(|&request| {
            let model = &host.models[host.request(request).model];
            let there = model.is_ready() || matches!(model.phase, Phase::Loading(_));
            if there {
                commands.push(Command::Queue(request));
            }
            !there
        });
        let Some(&request) = self.waiting.front() else { return commands };
        let model = host.request(request).model;
        // One that is going has to be gone first.
        if host.models[model].phase != Phase::Unloaded || host.models.iter().any(|resident| resident.draining) {
            return commands;
        }
        if resident(host).count() < self.most {
            commands.extend([Command::Load(model), Command::Queue(request)]);
            self.waiting.pop_front();
        } else if let Some(victim) = idle(host).first() {
            commands.push(Command::Unload(*victim, Cause::Room));
        }
        commands
    }
}

impl Policy for LlamaServer {
    fn rules(&self) -> Rules {
        Rules {
            slots: 4,
            prompt_cache: CACHE_RAM,
            spills: false,
            by_class: false,
            process_per_model: true,
            owns_apps: false,
        }
    }

    fn handle(&mut self, host: &Host<'_>, happened: &Happened) -> Vec<Command> {
        match *happened {
            Happened::Arrived(request) => self.waiting.push_back(request),
            Happened::Ended(request) => self.waiting.retain(|&waiting| waiting != request),
            Happened::Loaded(_) | Happened::Unloaded(..) | Happened::Killed(_) => {}
            // Again: a model may have become idle, or a second one may be loaded beside the first.
            Happened::Changed(_) if !self.waiting.is_empty() => {}
            _ => return Vec::new(),
        }
        self.next(host)
    }
}
