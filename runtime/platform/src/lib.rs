//! What the operating system says about memory, processors, heat and power, and what it can be asked to give back, behind
//! one trait.
//!
//! Facts go out, nothing is decided here: no thresholds, no budgets, no reactions. What is asked of the system is measured
//! afterwards, because its return values say little. Everything that differs between systems lives in [`sys`], and everything
//! there can be replaced: [`sys::linux::Linux::at`] reads a folder of fixture files, [`sys::fake::Fake`] says whatever a test
//! wants. No crate with a C or C++ build script may be used here, so that
//! the macOS half is type-checked on Linux.

mod facts;
mod sample;
pub mod sys;
pub mod threads;
mod watch;

use std::path::Path;

pub use facts::{
    Evicted, FileResidency, GpuFacts, MachineFacts, MappingMemory, MemoryNow, PlatformError, ProcessMemory,
};
pub use sample::{GroupMemory, KernelLevel, Power, PowerSource, Sample, Stall, Thermal};
pub use threads::Qos;
pub use watch::{PressureEvent, PressureWatch};

/// What an operating system can be asked.
pub trait Platform: Send + Sync + std::fmt::Debug {
    /// What does not change while the host runs. Ask once and keep it: on macOS this wakes the GPU's driver.
    ///
    /// # Errors
    /// [`PlatformError`] when a figure that every supported system has is missing. Optional figures are `None` instead.
    fn machine(&self) -> Result<MachineFacts, PlatformError>;

    /// Memory of the whole machine now. Costs microseconds.
    ///
    /// # Errors
    /// [`PlatformError`] when the system does not answer.
    fn memory(&self) -> Result<MemoryNow, PlatformError>;

    /// Memory of this process now. Costs up to a few milliseconds with many mappings.
    ///
    /// # Errors
    /// [`PlatformError`] when the system does not answer.
    fn process(&self) -> Result<ProcessMemory, PlatformError>;

    /// How the file at `path` is mapped into this process. Costs milliseconds: for tests, `doctor` and after a load.
    ///
    /// # Errors
    /// [`PlatformError`] when the file does not exist or the system does not answer.
    fn mapping(&self, path: &Path) -> Result<MappingMemory, PlatformError>;

    /// One reading of everything that moves; `folder` names the volume whose free space is wanted. Costs well under a
    /// millisecond on most machines; thermal zones of firmware can be slower.
    ///
    /// # Errors
    /// [`PlatformError`] when the figures of memory are missing. Any other sensor that does not answer is `None`.
    fn sample(&self, folder: &Path) -> Result<Sample, PlatformError>;

    /// Starts to listen to the kernel. Never fails for want of a source: see [`PressureWatch::describe`].
    ///
    /// # Errors
    /// [`PlatformError`] when the system refuses the means to wait.
    fn watch_pressure(&self) -> Result<Box<dyn PressureWatch>, PlatformError>;

    /// Where the bytes of the file at `path` are. Costs milliseconds with many mappings.
    ///
    /// # Errors
    /// [`PlatformError`] when the file does not exist or the system does not answer.
    fn residency(&self, path: &Path) -> Result<FileResidency, PlatformError>;

    /// Asks the system to drop the clean pages of every mapping of the file in this process. The mappings stay: the next touch
    /// reads from disk. Milliseconds to hundreds of them. Only the holder of the mappings may call this, and must keep them
    /// until it returns. On Linux the file must belong to this user or be writable, else the system silently declines; pages that
    /// another process maps too stay.
    ///
    /// # Errors
    /// [`PlatformError::Refused`] when a mapping of the file is private or writable, or the file itself lives in memory:
    /// dropping would then mean swapping. [`PlatformError`] when the file does not exist or the system does not answer.
    fn evict(&self, path: &Path) -> Result<Evicted, PlatformError>;

    /// Reads the file into its mappings in this process, and returns how many of their bytes are resident then. Linux: blocks
    /// until all is read. macOS: only asks. Only the holder of the mappings may call this, and must keep them until it
    /// returns.
    ///
    /// # Errors
    /// [`PlatformError::Refused`] when a mapping of the file is private or writable. [`PlatformError`] when the file does not
    /// exist, cannot be read or the system does not answer.
    fn prefetch(&self, path: &Path) -> Result<u64, PlatformError>;

    /// Asks the allocator to give free memory back to the system. What it achieved shows in [`Platform::process`].
    fn release_heap(&self);

    /// Tells the scheduler what the calling thread is for.
    ///
    /// # Errors
    /// [`PlatformError::Call`] when the system refuses.
    fn set_thread_qos(&self, qos: Qos) -> Result<(), PlatformError>;
}

/// The system this process runs on.
#[cfg(target_os = "linux")]
pub type Host = sys::linux::Linux;
/// The system this process runs on.
#[cfg(target_os = "macos")]
pub type Host = sys::macos::MacOs;

/// The system this process runs on.
#[must_use]
pub fn host() -> Host {
    Host::default()
}
