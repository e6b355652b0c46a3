//! Folders of files that look like a machine.

#![allow(dead_code, reason = "each test program uses a part of it")]

use fs_err as fs;
use locara_platform::sys::linux::Linux;
use tempfile::TempDir;

/// A folder that looks like a machine: each pair is a path and the text of that file.
pub(crate) fn machine(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

pub(crate) fn at(root: &TempDir) -> Linux {
    Linux::at(root.path())
}

pub(crate) const MEMINFO: &str = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    9000000 kB\n\
                       SwapCached:            0 kB\nSwapTotal:       4000000 kB\nSwapFree:        3500000 kB\nZswap:             12 kB\n";
pub(crate) const VMSTAT: &str = "nr_free_pages 250000\npswpin 10\npswpout 300\npgfault 12345\n";

/// Two cores with two threads each.
pub(crate) const LAPTOP: &[(&str, &str)] = &[
    ("proc/meminfo", MEMINFO),
    ("proc/vmstat", VMSTAT),
    (
        "proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Example CPU @ 3 GHz\n\nprocessor\t: 1\nmodel name\t: Example CPU @ 3 GHz\n",
    ),
    ("proc/sys/kernel/osrelease", "6.18.44\n"),
    (
        "proc/self/status",
        "Name:\tx\nRssAnon:\t  2048 kB\nRssFile:\t  4096 kB\nRssShmem:\t   8 kB\nVmSwap:\t  16 kB\nCpus_allowed_list:\t0-3\n",
    ),
    ("proc/self/cgroup", "0::/\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/cpu0/topology/core_cpus_list", "0,2\n"),
    ("sys/devices/system/cpu/cpu1/topology/core_cpus_list", "1,3\n"),
    ("sys/devices/system/cpu/cpu2/topology/core_cpus_list", "0,2\n"),
    ("sys/devices/system/cpu/cpu3/topology/core_cpus_list", "1,3\n"),
];

/// The laptop with some files added or replaced.
pub(crate) fn laptop_with(files: &[(&str, &str)]) -> TempDir {
    let all: Vec<_> = LAPTOP.iter().chain(files).copied().collect();
    machine(&all)
}
