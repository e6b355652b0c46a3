//! What an operating system can be asked about memory and processors. Plain data, all amounts in bytes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What does not change while the host runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// `linux` or `macos`.
    pub os: String,
    /// Version of the kernel (Linux) or of the product (macOS), as the system writes it.
    pub os_version: String,
    /// Name of the processor, e.g. `Apple M3`.
    pub cpu: String,
    /// Physical memory that the kernel manages.
    pub ram_bytes: u64,
    /// The memory limit of the control group the host runs in, where there is one below `ram_bytes`.
    pub memory_limit_bytes: Option<u64>,
    /// Page size of the process.
    pub page_bytes: u64,
    /// Processor cores, counted without hyper-threads.
    pub physical_cores: u32,
    /// Cores that compute-bound threads should use: the P cluster on Apple silicon, else the physical cores; never more than
    /// affinity and quota leave to this process.
    pub performance_cores: u32,
    /// The GPU that shares the machine's memory, where there is one.
    pub gpu: Option<GpuFacts>,
}

/// A GPU that shares the machine's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuFacts {
    /// Its name.
    pub name: String,
    /// The memory that may be wired for it without harming the system (Metal's `recommendedMaxWorkingSetSize`). The
    /// owner's wired-limit setting is part of that figure already.
    pub working_set_bytes: u64,
    /// The largest single buffer.
    pub max_buffer_bytes: u64,
    /// The owner's wired limit, where one is set (`iogpu.wired_limit_mb`, before macOS 14 `debug.iogpu.wired_limit`). For display.
    pub wired_limit_bytes: Option<u64>,
}

/// Memory of the whole machine at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNow {
    /// What can be taken before the system begins to swap or to warn. Linux: `MemAvailable`, and no more than the control
    /// group leaves. macOS: pages that are not wired, less those that the compressor occupies (the kernel's own rule for
    /// its first warning).
    pub available_bytes: u64,
    /// What can be taken before the system calls its state critical. macOS: the same rule for the next level, for memory
    /// that is wired. Linux: there is no such level.
    pub critical_available_bytes: Option<u64>,
    /// Memory that holds nothing at all.
    pub free_bytes: u64,
    /// Swap space in all.
    pub swap_total_bytes: u64,
    /// Swap space in use.
    pub swap_used_bytes: u64,
    /// Read back from swap since boot.
    pub swapped_in_bytes: u64,
    /// Written to swap since boot. The figure that must not grow because of the host.
    pub swapped_out_bytes: u64,
    /// Memory that cannot be reclaimed at all. macOS: wired. Linux: not known.
    pub wired_bytes: Option<u64>,
    /// Memory that holds compressed pages. macOS: the compressor. Linux: zswap, where it is on.
    pub compressed_bytes: Option<u64>,
}

/// Memory of this process at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMemory {
    /// Resident pages of files: mapped weights, code.
    pub rss_file_bytes: u64,
    /// Resident anonymous pages: KV, compute, heap.
    pub rss_anon_bytes: u64,
    /// Resident shared memory without a file.
    pub rss_shmem_bytes: u64,
    /// Anonymous pages that were swapped out (Linux) or compressed (macOS).
    pub swapped_bytes: u64,
    /// What the system itself charges the process with: `phys_footprint` on macOS (what Activity Monitor shows), the
    /// proportional set size on Linux. `None` where the kernel does not tell, and in a sample on Linux, where it would cost
    /// milliseconds.
    pub footprint_bytes: Option<u64>,
    /// What this process holds through Metal (`currentAllocatedSize`); part of it is in the figures above. `None` without a
    /// GPU that shares the machine's memory.
    pub gpu_bytes: Option<u64>,
}

impl ProcessMemory {
    /// All resident pages.
    #[must_use]
    pub const fn rss_bytes(&self) -> u64 {
        self.rss_file_bytes.saturating_add(self.rss_anon_bytes).saturating_add(self.rss_shmem_bytes)
    }
}

/// How one file is mapped into this process. All zero when it is not mapped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingMemory {
    /// Address space.
    pub mapped_bytes: u64,
    /// Pages in memory.
    pub resident_bytes: u64,
    /// Pages that were written to. Weights must have none: a dirty page cannot be dropped.
    pub dirty_bytes: u64,
    /// Pages that were copied for this process and are no longer the file's. Weights must have none.
    pub anonymous_bytes: u64,
    /// Pages locked into memory by the process. Weights must have none.
    pub locked_bytes: u64,
}

/// Where the bytes of one file are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileResidency {
    /// Size of the file.
    pub file_bytes: u64,
    /// In the page cache, whoever brought it there: what a load need not read from disk. `None` where the kernel does not
    /// tell: macOS, Linux before 6.5, and files that this user neither owns nor may write.
    pub cached_bytes: Option<u64>,
    /// Pages of this process's mappings that are in memory.
    pub resident_bytes: u64,
}

/// What an eviction achieved: resident bytes of the mappings of one file, measured before and after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Before.
    pub before_bytes: u64,
    /// After. The same as before when the system silently declined.
    pub after_bytes: u64,
}

impl Evicted {
    /// What was given back.
    #[must_use]
    pub const fn freed_bytes(&self) -> u64 {
        self.before_bytes.saturating_sub(self.after_bytes)
    }
}

/// Why the system did not answer.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// A file of the system cannot be read; the error names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file of the system does not say what it should.
    #[error("{}: no `{field}` with a number; this kernel is not supported yet, please report its version", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        field: String,
    },
    /// The host will not do this to this file.
    #[error("{}: not {action}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What was asked for: `evicted`, `prefetched`.
        action: &'static str,
        /// Why not, and what would have to be different.
        reason: String,
    },
    /// A call of the system failed.
    #[error("{call} failed: {source}")]
    Call {
        /// The call and its argument.
        call: String,
        /// What the system said.
        source: std::io::Error,
    },
}
