//! Linux, read from `/proc` and `/sys` alone, so that a folder of fixture files can stand in for a machine.

mod cgroup;
mod cpu;
mod files;
mod proc;
mod sensors;
mod watch;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use fs_err as fs;

use crate::{
    Evicted, FileResidency, MachineFacts, MappingMemory, MemoryNow, Platform, PlatformError, PressureWatch,
    ProcessMemory, Qos, Sample,
};

/// Linux at a root folder.
#[derive(Debug, Clone)]
pub struct Linux {
    root: PathBuf,
    told: watch::Told,
}

impl Default for Linux {
    /// The machine, and what the service manager said in the environment.
    fn default() -> Self {
        let say = |name| std::env::var_os(name);
        Self::at("/").with_pressure_watch(say(watch::WATCH), say(watch::WRITE))
    }
}

impl Linux {
    /// Reads `root/proc` and `root/sys` and no environment. Everything but [`Platform::set_thread_qos`] and
    /// [`Platform::release_heap`] then describes that folder.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), told: watch::Told::default() }
    }

    /// With these values of `MEMORY_PRESSURE_WATCH` and `MEMORY_PRESSURE_WRITE`, by which a service manager says where to
    /// listen (<https://systemd.io/PRESSURE/>). The path is not below the root.
    #[must_use]
    pub fn with_pressure_watch(mut self, watch: Option<OsString>, write: Option<OsString>) -> Self {
        self.told = watch::Told { watch, write };
        self
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

    /// Names in a folder that only some machines have, sorted.
    fn list(&self, below: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(below)) else { return Vec::new() };
        let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
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
        proc::memory(self, page_bytes(), cgroup::memory(self))
    }

    fn process(&self) -> Result<ProcessMemory, PlatformError> {
        Ok(ProcessMemory { footprint_bytes: proc::footprint(self), ..proc::process(self)? })
    }

    fn mapping(&self, path: &Path) -> Result<MappingMemory, PlatformError> {
        proc::mapping(self, &fs::canonicalize(path)?)
    }

    fn sample(&self, folder: &Path) -> Result<Sample, PlatformError> {
        let group = cgroup::memory(self);
        Ok(Sample {
            memory: proc::memory(self, page_bytes(), group)?,
            process: proc::process(self)?,
            pressure: None,
            stall: sensors::stall(self),
            group,
            thermal: sensors::thermal(self),
            power: sensors::power(self),
            disk_free_bytes: super::disk_free_bytes(folder),
        })
    }

    fn watch_pressure(&self) -> Result<Box<dyn PressureWatch>, PlatformError> {
        Ok(Box::new(watch::Watch::open(self.clone())))
    }

    fn residency(&self, path: &Path) -> Result<FileResidency, PlatformError> {
        files::residency(self, &fs::canonicalize(path)?)
    }

    fn evict(&self, path: &Path) -> Result<Evicted, PlatformError> {
        files::evict(self, &fs::canonicalize(path)?)
    }

    fn prefetch(&self, path: &Path) -> Result<u64, PlatformError> {
        files::prefetch(self, &fs::canonicalize(path)?)
    }

    fn release_heap(&self) {
        files::release_heap();
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
