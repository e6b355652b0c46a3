//! The one wasmtime engine of the process: what Wasm may use, what an instance may cost, and who interrupts it.
//!
//! Every setting that hardens the sandbox is here with its reason. It must never be made laxer for one app: what an
//! app may have beyond this comes from its manifest, per store.

use std::num::NonZeroUsize;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::error::HostError;
use crate::ticker::{Ticker, Ticking};

/// Core instances in one component. Rust and C need 2–4, QuickJS and Python up to about 25.
pub(crate) const MAX_CORE_INSTANCES: usize = 64;
/// Tables in one instance.
pub(crate) const MAX_TABLES: usize = 32;
/// Linear memories in one instance. The cap on bytes is on their sum, see [`crate::limiter`].
pub(crate) const MAX_MEMORIES: usize = 16;
/// Stack of Wasm frames, bytes. Deeper recursion traps.
pub(crate) const WASM_STACK: usize = 512 << 10;
/// Stack of a guest's fibre, bytes: Wasm frames plus those of host functions.
const FIBRE_STACK: usize = 2 << 20;
/// Guest frames in a crash report.
const BACKTRACE_FRAMES: usize = 12;
/// Instances that the pool has places for. A place costs address space, memory only while it is used.
const POOL_INSTANCES: u32 = 96;
/// Largest table that the pool has room for; the manifest's limit is below it.
pub(crate) const POOL_TABLE_ELEMENTS: usize = 100_000;

/// The engine and the thread that interrupts its guests.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    /// Instances come from a pool: 9 µs instead of 22 µs each. False where the address space is too small for one.
    pub(crate) pooled: bool,
    ticker: Ticker,
}

impl Sandbox {
    pub(crate) fn new() -> Result<Self, HostError> {
        let (engine, pooled) = match Engine::new(&config(true)) {
            Ok(engine) => (engine, true),
            Err(error) => {
                // A pool wants about 2^42 bytes of address space; some kernels and containers give less.
                tracing::info!(%error, "no instance pool on this machine; instances are allocated on demand");
                let engine = Engine::new(&config(false)).map_err(|error| HostError::Engine(format!("{error:#}")))?;
                (engine, false)
            }
        };
        let ticker = Ticker::start(&engine).map_err(HostError::Ticker)?;
        Ok(Self { engine, pooled, ticker })
    }

    /// Guests are interrupted while somebody holds this.
    pub(crate) fn ticking(&self) -> Ticking {
        self.ticker.ticking()
    }
}

fn config(pooled: bool) -> Config {
    let mut config = Config::new();
    // Interrupts: fuel would be exact but up to 3x slower; a tick is enough for a deadline.
    config.epoch_interruption(true);
    // `Config` refuses the first above the second.
    config.max_wasm_stack(WASM_STACK);
    config.async_stack_size(FIBRE_STACK);
    // Parts of Wasm that no supported toolchain needs are attack surface.
    config.wasm_memory64(false);
    config.shared_memory(false);
    config.wasm_component_model_more_async_builtins(false);
    config.wasm_component_model_async_stackful(false);
    config.wasm_component_model_error_context(false);
    config.wasm_relaxed_simd(false);
    // Crash reports of authors need frames, not hundreds of them.
    config.wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES));
    // Mach ports would take the exception port that crash reporters of the daemon use.
    config.macos_use_mach_ports(false);
    if pooled {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    }
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_INSTANCES)
        .total_core_instances(POOL_INSTANCES * 8)
        .total_memories(POOL_INSTANCES * 2)
        .total_tables(POOL_INSTANCES * 4)
        .total_stacks(POOL_INSTANCES * 2)
        .max_core_instances_per_component(MAX_CORE_INSTANCES as u32)
        .max_memories_per_component(MAX_MEMORIES as u32)
        .max_tables_per_component(MAX_TABLES as u32)
        .table_elements(POOL_TABLE_ELEMENTS)
        // 4 GiB: the largest memory there is. The manifest's cap is enforced by the limiter, byte by byte.
        .max_memory_size(4 << 30)
        .max_unused_warm_slots(16);
    pool
}

#[cfg(test)]
mod tests {
    use wasmtime::Store;
    use wasmtime::component::{Component, Linker};

    use super::*;

    #[test]
    fn both_ways_of_allocating_run_a_component() {
        for pooled in [true, false] {
            let engine = match Engine::new(&config(pooled)) {
                Ok(engine) => engine,
                // A pool does not fit everywhere; without one it must always work.
                Err(error) if pooled => {
                    eprintln!("no pool here: {error}");
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            };
            let component = Component::new(&engine, b"\0asm\x0d\0\x01\0").expect("an empty component");
            let instance = Linker::<()>::new(&engine).instantiate_pre(&component).expect("links");
            let made = futures::executor::block_on(instance.instantiate_async(Store::new(&engine, ())));
            assert!(made.is_ok(), "{made:?}");
        }
    }
}
