//! A system that says what a test wants, and remembers what it was asked to do.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{MachineFacts, MappingMemory, MemoryNow, Platform, PlatformError, ProcessMemory, Qos};

/// The fake. Change its answers at any time, from any thread.
#[derive(Debug)]
pub struct Fake {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    machine: MachineFacts,
    memory: MemoryNow,
    process: ProcessMemory,
    mappings: BTreeMap<PathBuf, MappingMemory>,
    qos: Vec<Qos>,
}

impl Default for Fake {
    /// A 16 GB laptop without a GPU, half of its memory available, four performance cores.
    fn default() -> Self {
        Self::new(MachineFacts {
            os: "fake".to_owned(),
            os_version: "1".to_owned(),
            cpu: "Fake".to_owned(),
            ram_bytes: 16 << 30,
            memory_limit_bytes: None,
            page_bytes: 4096,
            physical_cores: 8,
            performance_cores: 4,
            gpu: None,
        })
    }
}

impl Fake {
    /// A fake of the given machine, half of its memory available and no swap.
    #[must_use]
    pub fn new(machine: MachineFacts) -> Self {
        let available_bytes = machine.ram_bytes / 2;
        let memory = MemoryNow { available_bytes, free_bytes: available_bytes / 2, ..MemoryNow::default() };
        Self {
            state: Mutex::new(State {
                machine,
                memory,
                process: ProcessMemory::default(),
                mappings: BTreeMap::new(),
                qos: Vec::new(),
            }),
        }
    }
    /// Changes what [`Platform::machine`] answers.
    pub fn set_machine(&self, machine: MachineFacts) {
        self.lock().machine = machine;
    }
    /// Changes what [`Platform::memory`] answers.
    pub fn set_memory(&self, memory: MemoryNow) {
        self.lock().memory = memory;
    }
    /// Changes what [`Platform::process`] answers.
    pub fn set_process(&self, process: ProcessMemory) {
        self.lock().process = process;
    }
    /// Changes what [`Platform::mapping`] answers for one file. Files never set are not mapped.
    pub fn set_mapping(&self, path: impl Into<PathBuf>, mapping: MappingMemory) {
        self.lock().mappings.insert(path.into(), mapping);
    }
    /// Every quality of service that threads asked for, oldest first.
    #[must_use]
    pub fn qos_calls(&self) -> Vec<Qos> {
        self.lock().qos.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data: a thread that panicked while it held the lock left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platform for Fake {
    fn machine(&self) -> Result<MachineFacts, PlatformError> {
        Ok(self.lock().machine.clone())
    }
    fn memory(&self) -> Result<MemoryNow, PlatformError> {
        Ok(self.lock().memory)
    }
    fn process(&self) -> Result<ProcessMemory, PlatformError> {
        Ok(self.lock().process)
    }
    fn mapping(&self, path: &Path) -> Result<MappingMemory, PlatformError> {
        Ok(self.lock().mappings.get(path).copied().unwrap_or_default())
    }
    fn set_thread_qos(&self, qos: Qos) -> Result<(), PlatformError> {
        self.lock().qos.push(qos);
        Ok(())
    }
}
