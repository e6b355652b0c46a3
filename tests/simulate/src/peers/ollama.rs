//! Ollama (fb30760, August 2026): `server/sched.go`, a llama-server process for each model.
//!
//! - `OLLAMA_KEEP_ALIVE` 5 minutes after the last request; `OLLAMA_MAX_LOADED_MODELS` 3; `OLLAMA_NUM_PARALLEL` 1;
//!   `OLLAMA_MAX_QUEUE` 512, beyond it 503.
//! - One queue: the request at its head blocks those behind it (`sched.go:234`).
//! - The first model is never refused. Another one must be predicted to fit into 80 % of free memory (`sched.go:549`): file and
//!   KV; compute buffers and saved states are not counted. Free memory is looked at only then.
//! - The victim is the idle one with the shortest keep-alive, then by name; without an idle one it waits for the first to end.
//! - Nothing listens to memory pressure. Each process silently keeps llama-server's 8 GiB of saved states (#18264).

use std::collections::VecDeque;

use super::{CACHE_RAM, grant, idle, resident};
use crate::{
    host::{Host, Phase},
    policy::{Cause, Command, Happened, Policy, Rules},
};

const KEEP_ALIVE_MS: u64 = 300_000;
const MAX_LOADED: usize = 3;
const MAX_QUEUE: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub struct Ollama {
    waiting: VecDeque<usize>,
}

impl Ollama {
    fn next(&mut self, host: &Host<'_>) -> Vec<Command> {
        let mut commands = Vec::new();
        while let Some(&request) = self.waiting.front() {
            let model = host.request(request).model;
            let wanted = &host.models[model];
            if wanted.is_ready() || (matches!(wanted.phase, Phase::Loading(_)) && !wanted.draining) {
                commands.push(Command::Queue(request));
                self.waiting.pop_front();
                continue;
            }
            // Everybody waits for the one that is going.
            if wanted.phase != Phase::Unloaded || host.models.iter().any(|resident| resident.draining) {
                break;
            }
            let file = &host.laptop.models[model];
            let loaded = resident(host).count();
            let fits = file.weights + file.kv() <= host.memory.available() / 5 * 4;
            if loaded == 0 || (loaded < MAX_LOADED && fits) {
                commands.extend([Command::Load(model), Command::Queue(request)]);
                self.waiting.pop_front();
                // What it takes is known only when it is there.
                break;
            }
            // All have the same keep-alive, so the name decides.
            let victim = idle(host).into_iter().min_by_key(|&model| host.laptop.models[model].name);
            commands.extend(victim.map(|victim| Command::Unload(victim, Cause::Room)));
            break;
        }
        commands
    }
}

impl Policy for Ollama {
    fn rules(&self) -> Rules {
        Rules {
            slots: 1,
            prompt_cache: CACHE_RAM,
            spills: false,
            by_class: false,
            process_per_model: true,
            owns_apps: false,
        }
    }

    fn handle(&mut self, host: &Host<'_>, happened: &Happened) -> Vec<Command> {
        match *happened {
            Happened::Arrived(request) if self.waiting.len() >= MAX_QUEUE => return vec![Command::Refuse(request)],
            Happened::Arrived(request) => self.waiting.push_back(request),
            Happened::Ended(request) => self.waiting.retain(|&waiting| waiting != request),
            Happened::Loaded(_) | Happened::Unloaded(..) | Happened::Killed(_) => {}
            Happened::Changed(_) if !self.waiting.is_empty() => {}
            Happened::Sampled(_) => {
                let old = |&model: &usize| host.now - host.models[model].last_used >= KEEP_ALIVE_MS;
                let mut commands: Vec<Command> =
                    idle(host).into_iter().filter(old).map(|model| Command::Unload(model, Cause::Idle)).collect();
                if commands.is_empty() && !self.waiting.is_empty() {
                    commands = self.next(host);
                }
                return commands;
            }
            _ => return grant(happened),
        }
        self.next(host)
    }
}
