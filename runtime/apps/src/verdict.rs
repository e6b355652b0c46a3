//! From the error that wasmtime gives to the one that a person can act on.

use wasmtime::component::ResourceTableError;
use wasmtime::{Error, PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::error::{MemoryDenial, RunError, Stop};
use crate::report::presentable;
use crate::sandbox::WASM_STACK;

/// How far the run had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The instance was being made.
    Start,
    /// `run` was called.
    Run,
}

/// Frames that are named in an error.
const MAX_FRAMES: usize = 8;
/// Longest name of a frame, bytes.
const MAX_FRAME: usize = 120;
/// Longest text of wasmtime, bytes.
const MAX_TEXT: usize = 500;

/// Says what ended a run. `denial` is a growth of memory that was refused and not followed by one that was allowed.
pub(crate) fn classify(error: &Error, phase: Phase, denial: Option<&MemoryDenial>) -> RunError {
    match error.downcast_ref::<Stop>() {
        Some(Stop::Cpu { used_ms, limit_ms }) => return RunError::Cpu { used_ms: *used_ms, limit_ms: *limit_ms },
        Some(Stop::HostCallRate { calls, per_second }) => {
            return RunError::HostCallRate { calls: *calls, per_second: *per_second };
        }
        None => {}
    }
    let text = || presentable(&format!("{error:#}"), MAX_TEXT);
    let root = || presentable(&error.root_cause().to_string(), MAX_TEXT);
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return RunError::Full { reason: root() };
    }
    let frames = frames(error);
    match (error.downcast_ref::<Trap>(), denial) {
        // A guest that gets no memory gives up with `unreachable`; an instance that gets none is not made.
        (Some(Trap::UnreachableCodeReached), Some(denial)) => RunError::Memory(denial.clone()),
        (None, Some(denial)) if phase == Phase::Start => RunError::Memory(denial.clone()),
        (Some(Trap::StackOverflow), _) => RunError::StackOverflow { stack_kib: WASM_STACK as u64 >> 10, frames },
        (Some(trap), _) => RunError::Trap { kind: trap.to_string(), frames },
        (None, _) if is_excess(error) => RunError::Excess { reason: root() },
        (None, _) if phase == Phase::Start => RunError::Start { reason: text() },
        (None, _) => RunError::Trap { kind: root(), frames },
    }
}

/// wasmtime has no types for these limits of ours.
fn is_excess(error: &Error) -> bool {
    let root = error.root_cause().to_string();
    matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full))
        || ["fuel allocated for hostcalls", "handle", "resource table"].iter().any(|part| root.contains(part))
}

/// The innermost guest frames, by name where the component carries names.
fn frames(error: &Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => presentable(name, MAX_FRAME),
        None => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().take(MAX_FRAMES).map(name).collect()
}
