//! The host of apps: sandboxed Wasm components that get tokens from models the host owns.
//!
//! ```text
//! AppHost ── install(component, manifest)            compile into the cache, refuse what can never run
//!         ── prepare(component, manifest, grants)    default deny: link what is asked and granted, nothing else
//!         ── run(prepared, invocation) ─► RunHandle  one store, one task; output, progress, logs, outcome
//! ```
//!
//! A guest that loops, bombs, floods, traps or never reads harms itself only: every run has a cap on memory, CPU between
//! awaits, wall time, stack, host calls, payloads, handles and output, and ends in a typed [`RunError`] that names the
//! numbers and the remedy.
//!
//! This crate must never name llama.cpp (engines are [`locara_engine::api::Engine`]s behind [`Models`]), never decide about
//! memory (it reports to a [`GuestLedger`] and relays [`Lease`]s), and never ask the owner anything (grants come in).

mod allow;
mod bindings;
mod cache;
mod capability;
mod control;
mod cpu;
mod ctx;
mod deliver;
mod error;
mod host;
mod imports;
mod lease;
mod limiter;
mod meter;
mod models;
mod relay;
mod report;
mod restart;
mod run;
mod sandbox;
mod ticker;
mod usage;
mod verdict;

pub use capability::input::Input;
pub use capability::progress::Progress;
pub use control::RunControl;
pub use error::{CacheError, HostError, MemoryDenial, PrepareError, RunError, RunFailure};
pub use host::{AppHost, HostOptions, Prepared};
pub use lease::{AnsweredEpoch, BudgetAnswer, BudgetState, Lease, LeaseEnd, ReclaimablePool};
pub use limiter::{CountingLedger, GuestLedger};
pub use models::{ModelError, Models};
pub use report::{Denied, LogLevel, LogLine, RunReport, TokenCounts};
pub use restart::{Restart, RestartPolicy, RestartVerdict};
pub use run::{Invocation, RunHandle};
pub use usage::Usage;

/// Version of wasmtime in this build, for `locara version`. wasmtime does not say it; a test compares it with the pin in
/// the root manifest.
pub const WASMTIME_VERSION: &str = "48.0.8";

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_of_wasmtime_is_the_pinned_one() {
        let root = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")).expect("readable");
        let pin = format!("wasmtime = {{ version = \"={}\"", super::WASMTIME_VERSION);
        assert!(root.contains(&pin), "the root manifest has no line {pin}");
    }
}
