//! What other hosts decide, from their documentation and source. All of them run on the same engine as ours here, so only
//! their policy is compared: none is charged for its own formats, heaps or buffer pools.

mod llama_server;
mod naive;
mod ollama;
mod omlx;

pub use llama_server::LlamaServer;
pub use naive::Naive;
pub use ollama::Ollama;
pub use omlx::Omlx;

use crate::{
    host::{Host, Phase},
    policy::{Command, Happened},
};

/// A gibibyte.
const GIB: u64 = 1 << 30;
/// States that llama-server keeps in memory: `--cache-ram 8192`, on by default.
const CACHE_RAM: u64 = 8 * GIB;

/// Apps of a host that owns them without a governor hold what they want.
fn grant(happened: &Happened) -> Vec<Command> {
    match *happened {
        Happened::GuestWants(app, bytes) => vec![Command::Guest(app, bytes)],
        _ => Vec::new(),
    }
}

/// Models that are there or coming.
fn resident<'a>(host: &'a Host<'_>) -> impl Iterator<Item = usize> + 'a {
    (0..host.models.len()).filter(|&model| host.models[model].phase != Phase::Unloaded)
}

/// Models that are there and that nobody uses, least recently used first.
fn idle(host: &Host<'_>) -> Vec<usize> {
    let mut idle: Vec<usize> =
        resident(host).filter(|&model| host.models[model].is_ready() && !host.models[model].is_busy()).collect();
    idle.sort_by_key(|&model| (host.models[model].last_used, model));
    idle
}
