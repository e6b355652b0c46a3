//! Linux, read from `/proc` and `/sys` alone, so that a folder of fixture files can stand in for a machine.

mod cgroup;
mod cpu;
mod proc;

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::{MachineFacts, MappingMemory, MemoryNow, Platform, PlatformError, ProcessMemory, Qos};

/// Linux at a root folder.
#[derive(Debug, Clone)]
pub struct Linux {
    root: PathBuf,
}

impl Default for Linux {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Linux {
    /// Reads `root/proc` and `root/sys`. Everything but [`Platform::set_thread_qos`] then describes that folder.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The text of a file that every Linux has.
    fn read(&self, below: &str) -> Result<String, PlatformError> {
        Ok(fs::read_to_string(self.path(below))?)
    }

    /// The text of a file that only some kernels or set-ups have.
    fn read_optional(&self, below: &str) -> Option<String> {
        fs::read_to_string(self.path(below)).ok()
    }
}

impl Platform for Linux {
    fn machine(&self) -> Result<MachineFacts, PlatformError> {
        let ram_bytes = proc::kb_field(self, "proc/meminfo", "MemTotal")?;
        let cores = cpu::cores(self)?;
        Ok(MachineFacts {
            os: "linux".to_owned(),
            os_version: self
                .read_optional("proc/sys/kernel/osrelease")
                .map_or_else(String::new, |text| text.trim().to_owned()),
            cpu: cpu::name(self),
            ram_bytes,
            memory_limit_bytes: cgroup::memory(self)
                .map(|memory| memory.limit_bytes)
                .filter(|limit| *limit < ram_bytes),
            page_bytes: page_bytes(),
            physical_cores: cores.physical,
            performance_cores: cores.usable,
            // Discrete GPUs have memory of their own; which share of it is free only their drivers know.
            gpu: None,
        })
    }

    fn memory(&self) -> Result<MemoryNow, PlatformError> {
        proc::memory(self, page_bytes())
    }

    fn process(&self) -> Result<ProcessMemory, PlatformError> {
        proc::process(self)
    }

    fn mapping(&self, path: &Path) -> Result<MappingMemory, PlatformError> {
        proc::mapping(self, &fs::canonicalize(path)?)
    }

    fn set_thread_qos(&self, qos: Qos) -> Result<(), PlatformError> {
        // The scheduler of Linux treats equal threads equally and needs privileges to go above that; going below is the
        // only honest answer, and only for work nobody waits for.
        let nice = match qos {
            Qos::UserInteractive | Qos::UserInitiated => return Ok(()),
            Qos::Utility => 5,
        };
        let thread = rustix::thread::gettid();
        rustix::process::setpriority_process(Some(thread), nice)
            .map_err(|error| PlatformError::Call { call: format!("setpriority({nice})"), source: error.into() })
    }
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}
