//! The fake is a platform like any other.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

use std::{path::Path, sync::Arc};

use locara_platform::{GpuFacts, MappingMemory, MemoryNow, Platform, ProcessMemory, Qos, sys::fake::Fake};

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
fn facts_survive_json() {
    let facts = Fake::default().machine().unwrap();
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<locara_platform::MachineFacts>(&text).unwrap(), facts);
}
