//! What can go wrong with an app, typed. Every message names the app's numbers and what to do about it.

use std::fmt;
use std::path::PathBuf;

use crate::report::RunReport;

/// Why an app could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The file is larger than any component the host compiles.
    #[error(
        "the component of {app} has {bytes} bytes; the host takes at most {max}. Strip debug information (`strip = true`) or leave data out of the component"
    )]
    TooLarge {
        /// Id of the app.
        app: String,
        /// Size of the file.
        bytes: u64,
        /// Largest size the host compiles.
        max: u64,
    },
    /// The bytes are not those that the manifest names.
    #[error(
        "the component of {app} has the SHA-256 {found}, its manifest says {expected}. Pack the app again (`locara pack`) or fetch it again"
    )]
    Digest {
        /// Id of the app.
        app: String,
        /// From the manifest.
        expected: String,
        /// Of the bytes at hand.
        found: String,
    },
    /// The manifest does not say which component it means.
    #[error(
        "the manifest of {app} names no component digest (`component.sha256`). Pack the app (`locara pack`), it writes the digest"
    )]
    NoDigest {
        /// Id of the app.
        app: String,
    },
    /// The bytes are no valid component, or use a feature that is off.
    #[error("the component of {app} does not compile: {reason}")]
    Compile {
        /// Id of the app.
        app: String,
        /// The compiler's words.
        reason: String,
    },
    /// The component imports something that the app may not have.
    #[error("{app} imports `{import}`, which it may not have: {reason}. {remedy}")]
    DeniedImport {
        /// Id of the app.
        app: String,
        /// The import, e.g. `locara:app/http@0.1.0`.
        import: String,
        /// The manifest key that would ask for it, e.g. `capabilities.http`.
        capability: String,
        /// Not asked for, or not granted.
        reason: String,
        /// The change or the command that allows it.
        remedy: String,
    },
    /// The component imports something that no Locara host offers.
    #[error(
        "{app} imports `{import}`, which this host does not offer. It offers the interfaces of locara:app@0.1.0 and nothing else: build for wasm32-unknown-unknown, without WASI"
    )]
    UnknownImport {
        /// Id of the app.
        app: String,
        /// The import.
        import: String,
    },
    /// The component exports no way to run it, or two.
    #[error(
        "the component of {app} {problem}. An app exports `locara:app/run@0.1.0` (world `app`) or `locara:app/run-sync@0.1.0` (world `app-sync`)"
    )]
    World {
        /// Id of the app.
        app: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Imports and exports have the right names but the wrong types.
    #[error("the component of {app} does not fit this host: {reason}. Build it again with the SDK of locara:app@0.1.0")]
    Link {
        /// Id of the app.
        app: String,
        /// The linker's words.
        reason: String,
    },
    /// The cache of compiled components does not work.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A folder, a host pattern or another granted thing cannot be used.
    #[error("the grant `{grant}` of {app} cannot be used: {reason}")]
    Grant {
        /// Id of the app.
        app: String,
        /// The grant.
        grant: String,
        /// Why.
        reason: String,
    },
    /// The storage of the app cannot be opened.
    #[error("the storage of {app} at {} cannot be opened: {reason}", path.display())]
    Storage {
        /// Id of the app.
        app: String,
        /// Its folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Why the host for apps could not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// wasmtime refuses the configuration on this machine.
    #[error("the Wasm engine does not start on this machine: {0}")]
    Engine(String),
    /// The cache of compiled components does not work.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The HTTP client does not start.
    #[error("the HTTP client of the apps does not start: {0}")]
    Http(String),
    /// The thread that interrupts busy guests does not start.
    #[error("the thread that interrupts busy apps does not start: {0}")]
    Ticker(#[source] std::io::Error),
}

/// Why the cache of compiled components does not work.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Another user could plant machine code there.
    #[error("{} must belong to you and be closed to others (mode 0700), it {found}. Remove it or run `chmod 700` on it", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// The file system says no.
    #[error("the cache of compiled apps: {0}")]
    Io(#[from] std::io::Error),
}

/// A growth of guest memory that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryDenial {
    /// Bytes that the guest held.
    pub used: u64,
    /// Bytes that it asked for in addition.
    pub asked: u64,
    /// Bytes that it may hold.
    pub cap: u64,
    /// Set when the machine had not got them although the app may: what is missing.
    pub machine: Option<String>,
}

/// Ends a run from inside a host call or an epoch check. Travels through wasmtime as the cause of a trap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("more than {per_second} host calls per second")]
    HostCallRate { calls: u64, per_second: u32 },
    #[error("computed for {used_ms} ms without awaiting, {limit_ms} ms are allowed")]
    Cpu { used_ms: u64, limit_ms: u64 },
}

/// Why a run did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The app itself says so.
    #[error("{message}")]
    App {
        /// The text of the app, bounded and without control characters.
        message: String,
    },
    /// A growth of its memory was refused and it did not survive that.
    #[error("out of memory: {0}")]
    Memory(MemoryDenial),
    /// It computed too long without awaiting anything.
    #[error(
        "the app computed for {used_ms} ms without waiting for anything, {limit_ms} ms are allowed. An endless loop? If not, raise `limits.cpuMs` or await between two steps"
    )]
    Cpu {
        /// CPU time of the slice, ms.
        used_ms: u64,
        /// What is allowed, ms.
        limit_ms: u64,
    },
    /// The run took too long in all.
    #[error(
        "the run was stopped after {limit_s} s, its wall-clock limit. Raise `limits.wallSeconds` if it needs longer"
    )]
    Wall {
        /// The limit, s.
        limit_s: u64,
    },
    /// The guest's call stack overflowed.
    #[error("stack overflow: the app's calls are nested deeper than {stack_kib} KiB of stack. An endless recursion?{}", Frames(.frames))]
    StackOverflow {
        /// Stack that a guest has, KiB.
        stack_kib: u64,
        /// The innermost guest frames.
        frames: Vec<String>,
    },
    /// It wrote more output than it may.
    #[error("the app wrote more than {limit} bytes of output. Raise `limits.outputMB` if it should")]
    Output {
        /// The limit, bytes.
        limit: u64,
    },
    /// It flooded the host with calls.
    #[error(
        "the app called the host more than {per_second} times a second ({calls} calls in all). Raise `limits.hostCallsPerSecond`, or do more with each call"
    )]
    HostCallRate {
        /// Calls since its start.
        calls: u64,
        /// The limit.
        per_second: u32,
    },
    /// One call handed over more than the host takes at once, or the guest holds too many things.
    #[error("the app handed over or held more than the host takes: {reason}")]
    Excess {
        /// wasmtime's words.
        reason: String,
    },
    /// Any other trap.
    #[error("the app crashed: {kind}{}", Frames(.frames))]
    Trap {
        /// What happened, e.g. `unreachable` (a panic), `out-of-bounds memory access`.
        kind: String,
        /// The innermost guest frames.
        frames: Vec<String>,
    },
    /// It did not even start.
    #[error("the app did not start: {reason}")]
    Start {
        /// Why.
        reason: String,
    },
    /// As many apps run as the host has room for.
    #[error("as many apps run as the host has room for: {reason}. Stop one or try again later")]
    Full {
        /// What ran out.
        reason: String,
    },
    /// The caller or the host took it back.
    #[error("cancelled: {reason}")]
    Cancelled {
        /// Why.
        reason: String,
    },
    /// A fault of the host.
    #[error("the host failed: {reason}")]
    Host {
        /// For a bug report.
        reason: String,
    },
}

impl RunError {
    /// Whether it was the app that broke: counts against its restart budget.
    #[must_use]
    pub fn is_crash(&self) -> bool {
        !matches!(self, Self::App { .. } | Self::Cancelled { .. } | Self::Full { .. } | Self::Host { .. })
    }
}

/// A run that did not end well, with everything that is known about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct RunFailure {
    /// Why.
    #[source]
    pub error: RunError,
    /// What it did until then, its last log lines included.
    pub report: RunReport,
}

impl fmt::Display for MemoryDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used, asked, cap, machine } = self;
        write!(f, "the app held {} and asked for {} more, its limit is {}", Mb(*used), Mb(*asked), Mb(*cap))?;
        match machine {
            Some(reason) => {
                write!(f, ", but the machine has not got it ({reason}). Close another app or try again later")
            }
            None => write!(f, ". Raise `limits.memoryMB` in its manifest, or give it less to do"),
        }
    }
}

/// Bytes for people.
struct Mb(u64);

impl fmt::Display for Mb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let mb = self.0 as f64 / 1e6;
        write!(f, "{mb:.1} MB")
    }
}

struct Frames<'a>(&'a [String]);

impl fmt::Display for Frames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (in {})", self.0.join(" ← ")) }
    }
}
