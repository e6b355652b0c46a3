//! A system that says what a test wants, and remembers what it was asked to do.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    Evicted, FileResidency, MachineFacts, MappingMemory, MemoryNow, Platform, PlatformError, PressureEvent,
    PressureWatch, ProcessMemory, Qos, Sample,
};

/// The fake. Change its answers at any time, from any thread.
#[derive(Debug)]
pub struct Fake {
    state: Mutex<State>,
    events: Arc<Events>,
}

#[derive(Debug)]
struct State {
    machine: MachineFacts,
    /// What is read now, and what will be read after that.
    sample: Sample,
    script: VecDeque<Sample>,
    /// The figures of memory are gone.
    silent: bool,
    mappings: BTreeMap<PathBuf, MappingMemory>,
    stuck: BTreeSet<PathBuf>,
    evictions: Vec<PathBuf>,
    prefetches: Vec<PathBuf>,
    heap_releases: usize,
    qos: Vec<Qos>,
}

/// Events of the kernel that no watch has taken yet.
#[derive(Debug, Default)]
struct Events {
    waiting: Mutex<VecDeque<PressureEvent>>,
    pushed: Condvar,
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
                sample: Sample { memory, ..Sample::default() },
                script: VecDeque::new(),
                silent: false,
                mappings: BTreeMap::new(),
                stuck: BTreeSet::new(),
                evictions: Vec::new(),
                prefetches: Vec::new(),
                heap_releases: 0,
                qos: Vec::new(),
            }),
            events: Arc::default(),
        }
    }
    /// Changes what [`Platform::machine`] answers.
    pub fn set_machine(&self, machine: MachineFacts) {
        self.lock().machine = machine;
    }
    /// Changes the memory that [`Platform::memory`] and [`Platform::sample`] answer.
    pub fn set_memory(&self, memory: MemoryNow) {
        self.lock().sample.memory = memory;
    }
    /// Changes the process that [`Platform::process`] and [`Platform::sample`] answer.
    pub fn set_process(&self, process: ProcessMemory) {
        self.lock().sample.process = process;
    }
    /// Changes some sensors, or takes them away: `fake.change(|now| now.thermal = None)`.
    pub fn change(&self, change: impl FnOnce(&mut Sample)) {
        change(&mut self.lock().sample);
    }
    /// What the next samples are, one each. The last of them stays.
    pub fn script(&self, samples: impl IntoIterator<Item = Sample>) {
        self.lock().script.extend(samples);
    }
    /// Takes the figures of memory away, which makes reading them an error, or gives them back.
    pub fn set_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }
    /// Lets the kernel say something. Each event reaches one watch.
    pub fn push_pressure(&self, event: PressureEvent) {
        self.events.lock().push_back(event);
        self.events.pushed.notify_one();
    }
    /// Changes what [`Platform::mapping`] answers for one file. Files never set are not mapped.
    pub fn set_mapping(&self, path: impl Into<PathBuf>, mapping: MappingMemory) {
        self.lock().mappings.insert(path.into(), mapping);
    }
    /// From now on evicting this file silently does nothing, as on Linux for a file of another owner.
    pub fn set_stuck(&self, path: impl Into<PathBuf>) {
        self.lock().stuck.insert(path.into());
    }
    /// Every file that was to be evicted, oldest first.
    #[must_use]
    pub fn evictions(&self) -> Vec<PathBuf> {
        self.lock().evictions.clone()
    }
    /// Every file that was to be prefetched, oldest first.
    #[must_use]
    pub fn prefetches(&self) -> Vec<PathBuf> {
        self.lock().prefetches.clone()
    }
    /// How often the heap was released.
    #[must_use]
    pub fn heap_releases(&self) -> usize {
        self.lock().heap_releases
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
        Ok(self.lock().speaking()?.sample.memory)
    }
    fn process(&self) -> Result<ProcessMemory, PlatformError> {
        Ok(self.lock().speaking()?.sample.process)
    }
    fn mapping(&self, path: &Path) -> Result<MappingMemory, PlatformError> {
        Ok(self.lock().mappings.get(path).copied().unwrap_or_default())
    }
    fn sample(&self, _: &Path) -> Result<Sample, PlatformError> {
        let mut state = self.lock();
        if let Some(next) = state.speaking()?.script.pop_front() {
            state.sample = next;
        }
        Ok(state.sample)
    }
    fn watch_pressure(&self) -> Result<Box<dyn PressureWatch>, PlatformError> {
        Ok(Box::new(Watch { events: Arc::clone(&self.events) }))
    }
    fn residency(&self, path: &Path) -> Result<FileResidency, PlatformError> {
        let mapping = self.mapping(path)?;
        Ok(FileResidency {
            file_bytes: mapping.mapped_bytes,
            cached_bytes: Some(mapping.resident_bytes),
            resident_bytes: mapping.resident_bytes,
        })
    }
    fn evict(&self, path: &Path) -> Result<Evicted, PlatformError> {
        let mut state = self.lock();
        state.evictions.push(path.to_owned());
        let stuck = state.stuck.contains(path);
        let Some(mapping) = state.mappings.get_mut(path) else { return Ok(Evicted::default()) };
        let before_bytes = mapping.resident_bytes;
        if !stuck {
            // What was written to or locked cannot be dropped.
            mapping.resident_bytes = before_bytes.min(mapping.dirty_bytes.max(mapping.locked_bytes));
        }
        Ok(Evicted { before_bytes, after_bytes: mapping.resident_bytes })
    }
    fn prefetch(&self, path: &Path) -> Result<u64, PlatformError> {
        let mut state = self.lock();
        state.prefetches.push(path.to_owned());
        let Some(mapping) = state.mappings.get_mut(path) else { return Ok(0) };
        mapping.resident_bytes = mapping.mapped_bytes;
        Ok(mapping.resident_bytes)
    }
    fn release_heap(&self) {
        self.lock().heap_releases += 1;
    }
    fn set_thread_qos(&self, qos: Qos) -> Result<(), PlatformError> {
        self.lock().qos.push(qos);
        Ok(())
    }
}

impl State {
    fn speaking(&mut self) -> Result<&mut Self, PlatformError> {
        if self.silent {
            let source = std::io::Error::other("the fake was told to be silent");
            return Err(PlatformError::Call { call: "reading memory".to_owned(), source });
        }
        Ok(self)
    }
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, VecDeque<PressureEvent>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Watch {
    events: Arc<Events>,
}

impl PressureWatch for Watch {
    fn wait(&mut self, timeout: Duration) -> Result<Option<PressureEvent>, PlatformError> {
        let waiting = self.events.lock();
        let (mut waiting, _) = self
            .events
            .pushed
            .wait_timeout_while(waiting, timeout, |waiting| waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        Ok(waiting.pop_front())
    }
    fn describe(&self) -> String {
        "events that a test pushes".to_owned()
    }
}
