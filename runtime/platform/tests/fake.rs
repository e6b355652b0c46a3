//! The fake is a platform like any other.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

use std::{path::Path, sync::Arc, time::Duration};

use locara_platform::{
    Evicted, GpuFacts, KernelLevel, MappingMemory, MemoryNow, Platform, PressureEvent, ProcessMemory, Qos, Sample,
    Stall, Thermal, sys::fake::Fake,
};

#[test]
fn it_says_what_it_was_told_and_remembers_what_it_was_asked() {
    let fake = Arc::new(Fake::default());
    let platform: Arc<dyn Platform> = fake.clone();
    assert_eq!(platform.memory().unwrap().available_bytes, platform.machine().unwrap().ram_bytes / 2);

    let memory = MemoryNow { available_bytes: 7, swapped_out_bytes: 3, ..MemoryNow::default() };
    let process = ProcessMemory { rss_anon_bytes: 5, ..ProcessMemory::default() };
    let mapping = MappingMemory { resident_bytes: 9, ..MappingMemory::default() };
    fake.set_memory(memory);
    fake.set_process(process);
    fake.set_mapping("/m.gguf", mapping);
    assert_eq!((platform.memory().unwrap(), platform.process().unwrap()), (memory, process));
    assert_eq!(platform.mapping(Path::new("/m.gguf")).unwrap(), mapping);
    assert_eq!(platform.mapping(Path::new("/other.gguf")).unwrap(), MappingMemory::default());

    let mut machine = platform.machine().unwrap();
    machine.gpu = Some(GpuFacts {
        name: "M3".to_owned(),
        working_set_bytes: 11 << 30,
        max_buffer_bytes: 8 << 30,
        wired_limit_bytes: None,
    });
    fake.set_machine(machine.clone());
    assert_eq!(platform.machine().unwrap(), machine);

    platform.set_thread_qos(Qos::Utility).unwrap();
    platform.set_thread_qos(Qos::UserInitiated).unwrap();
    assert_eq!(fake.qos_calls(), [Qos::Utility, Qos::UserInitiated]);
}

#[test]
fn samples_follow_a_script_and_the_last_one_stays() {
    let fake = Fake::default();
    let folder = Path::new("/");
    let first = fake.sample(folder).unwrap();
    assert_eq!(first.memory, fake.memory().unwrap());
    fake.script(
        [1, 2].map(|available_bytes| Sample { memory: MemoryNow { available_bytes, ..first.memory }, ..first }),
    );
    let available = || fake.sample(folder).unwrap().memory.available_bytes;
    assert_eq!([available(), available(), available()], [1, 2, 2]);
    assert_eq!(fake.memory().unwrap().available_bytes, 2);
}

#[test]
fn sensors_vanish_and_come_back() {
    let fake = Fake::default();
    let folder = Path::new("/");
    fake.change(|now| now.thermal = Some(Thermal::Serious));
    assert_eq!(fake.sample(folder).unwrap().thermal, Some(Thermal::Serious));
    fake.change(|now| now.thermal = None);
    assert_eq!(fake.sample(folder).unwrap().thermal, None);

    fake.set_silent(true);
    assert!(fake.sample(folder).is_err() && fake.memory().is_err() && fake.process().is_err());
    fake.set_silent(false);
    assert!(fake.sample(folder).is_ok() && fake.memory().is_ok() && fake.process().is_ok());
}

#[test]
fn events_reach_a_watch_in_order_even_one_that_waits() {
    let fake = Arc::new(Fake::default());
    let event = |level| PressureEvent { level: Some(level) };
    let mut watch = fake.watch_pressure().unwrap();
    assert_eq!(watch.wait(Duration::ZERO).unwrap(), None);
    fake.push_pressure(event(KernelLevel::Warning));
    fake.push_pressure(event(KernelLevel::Critical));
    assert_eq!(watch.wait(Duration::MAX).unwrap(), Some(event(KernelLevel::Warning)));
    assert_eq!(watch.wait(Duration::MAX).unwrap(), Some(event(KernelLevel::Critical)));

    let waiter = std::thread::spawn(move || watch.wait(Duration::MAX).unwrap());
    fake.push_pressure(event(KernelLevel::Normal));
    assert_eq!(waiter.join().unwrap(), Some(event(KernelLevel::Normal)));
}

#[test]
fn pages_are_dropped_and_read_in_unless_they_are_stuck() {
    let fake = Fake::default();
    let path = Path::new("/m.gguf");
    let mapping = MappingMemory { mapped_bytes: 10, resident_bytes: 9, dirty_bytes: 2, ..MappingMemory::default() };
    fake.set_mapping(path, mapping);
    assert_eq!(fake.evict(path).unwrap(), Evicted { before_bytes: 9, after_bytes: 2 });
    assert_eq!(fake.residency(path).unwrap().resident_bytes, 2);
    assert_eq!(fake.prefetch(path).unwrap(), 10);
    fake.set_stuck(path);
    let nothing = fake.evict(path).unwrap();
    assert_eq!((nothing, nothing.freed_bytes()), (Evicted { before_bytes: 10, after_bytes: 10 }, 0));
    assert_eq!(fake.evict(Path::new("/other.gguf")).unwrap(), Evicted::default());
    fake.release_heap();

    assert_eq!(fake.evictions(), [path, path, Path::new("/other.gguf")]);
    assert_eq!((fake.prefetches(), fake.heap_releases()), (vec![path.to_owned()], 1));
}

#[test]
fn samples_survive_json_to_the_last_digit() {
    let stall = Stall { some_avg10: 0.1, full_avg10: 33.33, some_total_us: u64::MAX, full_total_us: 1 };
    let sample = Sample { stall: Some(stall), pressure: Some(KernelLevel::Warning), ..Sample::default() };
    let text = serde_json::to_string(&sample).unwrap();
    assert_eq!(serde_json::from_str::<Sample>(&text).unwrap(), sample);
}

#[test]
fn facts_survive_json() {
    let facts = Fake::default().machine().unwrap();
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<locara_platform::MachineFacts>(&text).unwrap(), facts);
}
