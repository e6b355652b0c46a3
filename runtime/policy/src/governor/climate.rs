//! Heat and power: a dimension of its own beside memory, with the same outcome, a [`Throttle`].
//!
//! Rows 72 to 74 and 101 of the requirements: from `serious` on background work pauses, answers get shorter and steps
//! smaller; at `critical` nothing begins and only what somebody waits for ends; with an energy saver nothing runs that nobody
//! waits for.

use super::{
    action::{Gate, Level, Throttle},
    config::Config,
    event::{Sample, Thermal},
};

/// Tokens of one step of prefill when hot: bounds the heat of one burst and the gap between two tokens.
const HOT_BATCH: u32 = 128;
/// Longest answer of a queued request when hot, tokens.
const HOT_TOKENS: u32 = 1024;
/// Threads fewer when hot: the system itself needs the cores to cool down.
const HOT_THREADS: u32 = 2;

/// A machine that is critically hot is asked again after so long, ms: heat sinks within tens of seconds.
pub(super) const HOT_RETRY_MS: u32 = 30_000;

/// What heat, power and pressure together allow.
pub(super) fn throttle(
    level: Level,
    sample: Option<&Sample>,
    fewer_sequences: bool,
    hold_background: bool,
    config: &Config,
) -> Throttle {
    let mut throttle = Throttle::default();
    let thermal = sample.and_then(|sample| sample.thermal).unwrap_or_default();
    if thermal >= Thermal::Serious {
        throttle.n_batch = Some(HOT_BATCH);
        throttle.n_seq = Some(1);
        throttle.max_tokens = Some(HOT_TOKENS);
        throttle.fewer_threads = HOT_THREADS;
    }
    if fewer_sequences {
        throttle.n_seq = Some(throttle.n_seq.unwrap_or(2).min(2));
    }
    if level >= Level::Elevated {
        throttle.max_tokens = Some(throttle.max_tokens.unwrap_or(u32::MAX).min(config.queued_max_tokens));
    }
    if level >= Level::Tight {
        throttle.n_batch = Some(HOT_BATCH);
    }
    let saver = sample.is_some_and(|sample| sample.saver);
    throttle.gate = if level == Level::Critical {
        Gate::Nobody { retry_after_ms: u32::try_from(config.calm_ms * 2).unwrap_or(u32::MAX) }
    } else if thermal == Thermal::Critical {
        Gate::Nobody { retry_after_ms: HOT_RETRY_MS }
    } else if level == Level::Tight || thermal >= Thermal::Serious || saver || hold_background {
        Gate::Interactive
    } else {
        Gate::All
    };
    throttle
}

/// How long an unused model stays, ms: on battery with an energy saver a third.
pub(super) fn idle_unload_ms(sample: Option<&Sample>, config: &Config) -> u64 {
    match sample {
        Some(sample) if sample.saver => config.idle_unload_ms / 3,
        _ => config.idle_unload_ms,
    }
}

/// Whether the machine is so hot that nothing begins.
pub(super) fn is_critical(sample: Option<&Sample>) -> bool {
    sample.is_some_and(|sample| sample.thermal == Some(Thermal::Critical))
}
