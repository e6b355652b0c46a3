//! Linux on folders of fixture files, and on the machine the test runs on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod common;

use std::path::Path;

use common::{MEMINFO, at, laptop_with, machine};
use fs_err as fs;
use locara_platform::{MappingMemory, Platform, PlatformError, Qos, host};
use tempfile::TempDir;

#[test]
fn facts_of_a_laptop() {
    let facts = at(&laptop_with(&[])).machine().unwrap();
    assert_eq!((facts.os.as_str(), facts.os_version.as_str()), ("linux", "6.18.44"));
    assert_eq!(facts.cpu, "Example CPU @ 3 GHz");
    assert_eq!(facts.ram_bytes, 16_000_000 << 10);
    assert_eq!((facts.physical_cores, facts.performance_cores), (2, 2));
    assert_eq!((facts.memory_limit_bytes, facts.gpu), (None, None));
}

#[test]
fn memory_of_a_laptop() {
    let root = laptop_with(&[]);
    let page = at(&root).machine().unwrap().page_bytes;
    let memory = at(&root).memory().unwrap();
    assert_eq!((memory.available_bytes, memory.free_bytes), (9_000_000 << 10, 1_000_000 << 10));
    assert_eq!((memory.swap_total_bytes, memory.swap_used_bytes), (4_000_000 << 10, 500_000 << 10));
    assert_eq!((memory.swapped_in_bytes, memory.swapped_out_bytes), (10 * page, 300 * page));
    assert_eq!((memory.wired_bytes, memory.compressed_bytes), (None, Some(12 << 10)));
}

#[test]
fn memory_of_a_process() {
    let process = at(&laptop_with(&[])).process().unwrap();
    assert_eq!((process.rss_anon_bytes, process.rss_file_bytes, process.rss_shmem_bytes), (2 << 20, 4 << 20, 8 << 10));
    assert_eq!(
        (process.rss_bytes(), process.swapped_bytes, process.footprint_bytes),
        ((6 << 20) + (8 << 10), 16 << 10, None)
    );

    let rollup = [(
        "proc/self/smaps_rollup",
        "00400000-7fff0000 ---p 00000000 00:00 0 [rollup]\nRss:  100 kB\nPss:  70 kB\nPss_Anon: 9 kB\n",
    )];
    assert_eq!(at(&laptop_with(&rollup)).process().unwrap().footprint_bytes, Some(70 << 10));
}

#[test]
fn slow_cores_and_forbidden_cores_are_not_performance_cores() {
    let frequency = |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq");
    let hybrid = [
        ("sys/devices/system/cpu/cpu0/topology/core_cpus_list", "0"),
        ("sys/devices/system/cpu/cpu1/topology/core_cpus_list", "1"),
        ("sys/devices/system/cpu/cpu2/topology/core_cpus_list", "2"),
        ("sys/devices/system/cpu/cpu3/topology/core_cpus_list", "3"),
        (&*frequency(0), "4700000"),
        (&*frequency(1), "4600000"),
        (&*frequency(2), "3300000"),
        (&*frequency(3), "3300000"),
    ];
    let facts = at(&laptop_with(&hybrid)).machine().unwrap();
    assert_eq!((facts.physical_cores, facts.performance_cores), (4, 2));

    let bound_to = |list: &str| {
        let status = format!("RssAnon:\t1 kB\nCpus_allowed_list:\t{list}\n");
        let files: Vec<_> = hybrid.into_iter().chain([("proc/self/status", status.as_str())]).collect();
        at(&laptop_with(&files)).machine().unwrap().performance_cores
    };
    assert_eq!(bound_to("0"), 1);
    assert_eq!(bound_to("2-3"), 2, "slow cores are better than none");

    // Two threads of one core are one core.
    let threads = [("proc/self/status", "Cpus_allowed_list:\t0,2\n")];
    assert_eq!(at(&laptop_with(&threads)).machine().unwrap().performance_cores, 1);
}

#[test]
fn arm_says_how_fast_a_core_is() {
    let phone = [
        ("proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 48\n"),
        ("sys/devices/system/cpu/online", "0-1,4"),
        ("sys/devices/system/cpu/cpu0/cpu_capacity", "400"),
        ("sys/devices/system/cpu/cpu1/cpu_capacity", "1024"),
        ("sys/devices/system/cpu/cpu4/cpu_capacity", "1024"),
        ("proc/meminfo", MEMINFO),
    ];
    let facts = at(&machine(&phone)).machine().unwrap();
    assert_eq!((facts.physical_cores, facts.performance_cores), (3, 2));
    assert_eq!(facts.cpu, std::env::consts::ARCH, "ARM kernels give no name");
}

#[test]
fn a_container_has_its_quota_and_its_limit() {
    let root = laptop_with(&[
        ("proc/self/cgroup", "0::/user.slice/app.scope\n"),
        ("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/user.slice/app.scope/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/user.slice/memory.max", "4294967296\n"),
        ("sys/fs/cgroup/user.slice/memory.current", "3000000000\n"),
        (
            "sys/fs/cgroup/user.slice/memory.stat",
            "anon 1000000000\nfile 2000000000\nactive_file 500000000\ninactive_file 1000000000\n",
        ),
        ("sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n"),
    ]);
    let facts = at(&root).machine().unwrap();
    assert_eq!(facts.performance_cores, 1, "one and a half processors are one whole one");
    assert_eq!(facts.physical_cores, 2);
    assert_eq!(facts.memory_limit_bytes, Some(4 << 30));
    // Pages of files can be dropped: 4 GiB − (3.0 − 1.5) GB.
    assert_eq!(at(&root).memory().unwrap().available_bytes, (4 << 30) - 1_500_000_000);
}

#[test]
fn version_1_groups_are_understood_and_their_no_limit_is_none() {
    let v1 = |limit: &'static str, quota: &'static str| {
        laptop_with(&[
            ("proc/self/cgroup", "4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ])
    };
    let limited = v1("2147483648\n", "100000\n");
    assert_eq!(at(&limited).machine().unwrap().memory_limit_bytes, Some(2 << 30));
    assert_eq!(at(&limited).machine().unwrap().performance_cores, 1);
    assert_eq!(at(&limited).memory().unwrap().available_bytes, (2 << 30) - 1000);

    let free = v1("9223372036854771712\n", "-1\n");
    let facts = at(&free).machine().unwrap();
    assert_eq!((facts.memory_limit_bytes, facts.performance_cores), (None, 2));
}

#[test]
fn a_limit_above_the_machines_memory_is_no_limit() {
    let root =
        laptop_with(&[("sys/fs/cgroup/memory.max", "99999999999999\n"), ("sys/fs/cgroup/memory.current", "1\n")]);
    assert_eq!(at(&root).machine().unwrap().memory_limit_bytes, None);
    assert_eq!(at(&root).memory().unwrap().available_bytes, 9_000_000 << 10);
}

#[test]
fn a_missing_field_is_named_with_its_file() {
    let root = laptop_with(&[("proc/meminfo", "MemTotal: 5 kB\nMemAvailable: plenty\n")]);
    let error = at(&root).memory().unwrap_err();
    let path = root.path().join("proc/meminfo");
    assert_eq!(
        error.to_string(),
        format!(
            "{}: no `SwapTotal` with a number; this kernel is not supported yet, please report its version",
            path.display()
        )
    );
    let error = at(&machine(&[])).machine().unwrap_err();
    assert!(matches!(error, PlatformError::Io(_)) && error.to_string().contains("proc/meminfo"), "{error}");
}

#[test]
fn nonsense_in_optional_files_is_ignored() {
    let root = laptop_with(&[
        ("sys/devices/system/cpu/online", "0-4294967295,zebra,3-\n"),
        ("sys/devices/system/cpu/cpu0/cpu_capacity", "very fast"),
        ("proc/self/cgroup", "nonsense\n::\n"),
        ("sys/fs/cgroup/cpu.max", "0 0\n"),
    ]);
    let facts = at(&root).machine().unwrap();
    assert_eq!((facts.physical_cores, facts.performance_cores), (2, 2), "the processors of /proc/cpuinfo");
}

#[test]
fn mappings_of_one_file_are_summed_and_others_are_not() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("model with spaces.gguf");
    fs::write(&file, "weights").unwrap();
    let shown = fs::canonicalize(&file).unwrap();
    let shown = shown.display();
    let smaps = format!(
        "7f00-7f10 r--s 00000000 08:01 42                         {shown}\n\
         Size:               1000 kB\nRss:                 900 kB\nPss:                 450 kB\nShared_Clean:        890 kB\n\
         Shared_Dirty:          4 kB\nPrivate_Dirty:         6 kB\nReferenced:          900 kB\nAnonymous:             6 kB\n\
         Locked:                0 kB\nVmFlags: rd sh mr mw me ms\n\
         7f10-7f20 rw-p 00000000 00:00 0                          [heap]\nSize:  77 kB\nRss:  77 kB\nAnonymous: 77 kB\n\
         7f20-7f30 r--s 00000000 08:01 42                         {shown} (deleted)\nSize:  55 kB\nRss:  55 kB\n\
         7f30-7f40 r--s 00100000 08:01 42                         {shown}\nSize:  24 kB\nRss:  8 kB\nLocked:  8 kB\n"
    );
    let root = laptop_with(&[("proc/self/smaps", &smaps)]);
    let mapping = at(&root).mapping(&file).unwrap();
    let expected = MappingMemory {
        mapped_bytes: 1024 << 10,
        resident_bytes: 908 << 10,
        dirty_bytes: 10 << 10,
        anonymous_bytes: 6 << 10,
        locked_bytes: 8 << 10,
    };
    assert_eq!(mapping, expected);

    let other = folder.path().join("other.gguf");
    fs::write(&other, "x").unwrap();
    assert_eq!(at(&root).mapping(&other).unwrap(), MappingMemory::default());
    let error = at(&root).mapping(Path::new("/no/such/model.gguf")).unwrap_err();
    assert!(error.to_string().contains("/no/such/model.gguf"), "{error}");
}

#[test]
fn the_machine_at_hand_answers() {
    let host = host();
    let facts = host.machine().unwrap();
    assert!(facts.ram_bytes > 64 << 20 && facts.page_bytes.is_power_of_two());
    assert!(facts.performance_cores >= 1 && facts.physical_cores >= 1);
    let memory = host.memory().unwrap();
    assert!(memory.available_bytes > 0 && memory.available_bytes <= facts.ram_bytes);
    assert!(memory.swap_used_bytes <= memory.swap_total_bytes);
    let process = host.process().unwrap();
    assert!(process.rss_anon_bytes > 0 && process.rss_bytes() < facts.ram_bytes);
    // This program is mapped into itself, and nobody locked it.
    let program = host.mapping(&std::env::current_exe().unwrap()).unwrap();
    assert!(program.resident_bytes > 0 && program.mapped_bytes >= program.resident_bytes, "{program:?}");
    assert_eq!(program.locked_bytes, 0);
}

#[test]
fn a_thread_can_say_what_it_is_for() {
    // In a thread of its own: going below is not always taken back.
    std::thread::spawn(|| {
        let host = host();
        for qos in [Qos::UserInitiated, Qos::UserInteractive, Qos::Utility] {
            host.set_thread_qos(qos).unwrap();
        }
        let nice = fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The 19th field; the second is a name in brackets that may contain spaces.
        let nice = nice.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().to_owned();
        assert!(nice.parse::<i32>().unwrap() >= 5, "nice {nice}");
    })
    .join()
    .unwrap();
}
