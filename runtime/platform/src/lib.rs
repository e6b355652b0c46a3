//! What the operating system says about memory and processors, behind one trait.
//!
//! Facts go out, nothing is decided here: no thresholds, no budgets, no reactions. Everything that differs between
//! systems lives in [`sys`], and everything there can be replaced: [`sys::linux::Linux::at`] reads a folder of fixture
//! files, [`sys::fake::Fake`] says whatever a test wants. No crate with a C or C++ build script may be used here, so that
//! the macOS half is type-checked on Linux.

mod facts;
pub mod sys;
pub mod threads;

use std::path::Path;

pub use facts::{GpuFacts, MachineFacts, MappingMemory, MemoryNow, PlatformError, ProcessMemory};
pub use threads::Qos;

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
