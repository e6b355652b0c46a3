//! Processor name and cores, from `/proc/cpuinfo`, `/sys/devices/system/cpu`, affinity and quota.

use std::collections::BTreeSet;

use super::{Linux, cgroup};
use crate::PlatformError;

/// Counts of cores, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cores {
    /// In the machine, hyper-threads not counted.
    pub(super) physical: u32,
    /// Of those that run fastest, what affinity and quota leave to this process.
    pub(super) usable: u32,
}

/// `model name` of the first processor; the architecture where the kernel gives no name (most ARM).
pub(super) fn name(linux: &Linux) -> String {
    let cpuinfo = linux.read_optional("proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key && !value.trim().is_empty()).then(|| value.trim().to_owned())
        })
    };
    value("model name").or_else(|| value("Hardware")).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// One logical processor.
struct Logical {
    id: u32,
    /// Names the physical core: the first logical processor that shares it.
    core: u32,
    /// Highest frequency or relative capacity; equal for all where the kernel does not tell.
    speed: u64,
}

pub(super) fn cores(linux: &Linux) -> Result<Cores, PlatformError> {
    let online =
        linux.read_optional("sys/devices/system/cpu/online").map(|text| list(&text)).filter(|cpus| !cpus.is_empty());
    let online = match online {
        Some(cpus) => cpus,
        // Without sysfs (some sandboxes) only /proc tells how many there are.
        None => (0..)
            .zip(linux.read("proc/cpuinfo")?.lines().filter(|line| line.starts_with("processor")))
            .map(|(id, _)| id)
            .collect(),
    };
    let logical: Vec<Logical> = online.iter().map(|&id| logical(linux, id)).collect();
    let physical: BTreeSet<u32> = logical.iter().map(|cpu| cpu.core).collect();

    let allowed = linux
        .read_optional("proc/self/status")
        .and_then(|status| status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:").map(list)))
        .filter(|cpus| !cpus.is_empty())
        .unwrap_or(online);
    // Hybrid processors: the slow cores hold every step of the graph up, so only those within a quarter of the fastest count.
    let fastest = logical.iter().map(|cpu| cpu.speed).max().unwrap_or(0);
    let fast: BTreeSet<u32> = logical
        .iter()
        .filter(|cpu| allowed.contains(&cpu.id) && cpu.speed.saturating_mul(4) >= fastest.saturating_mul(3))
        .map(|cpu| cpu.core)
        .collect();
    let any: BTreeSet<u32> = logical.iter().filter(|cpu| allowed.contains(&cpu.id)).map(|cpu| cpu.core).collect();
    let usable = count(if fast.is_empty() { &any } else { &fast });

    let quota = cgroup::cpu_quota(linux).unwrap_or(u32::MAX);
    Ok(Cores { physical: count(&physical), usable: usable.min(quota).max(1) })
}

fn count(cores: &BTreeSet<u32>) -> u32 {
    u32::try_from(cores.len()).unwrap_or(u32::MAX).max(1)
}

fn logical(linux: &Linux, id: u32) -> Logical {
    let cpu = |file: &str| linux.read_optional(&format!("sys/devices/system/cpu/cpu{id}/{file}"));
    let siblings = cpu("topology/core_cpus_list").or_else(|| cpu("topology/thread_siblings_list"));
    let core = siblings.and_then(|text| list(&text).first().copied()).unwrap_or(id);
    // ARM says how fast a core is relative to the fastest; x86 has the clock of each.
    let speed = cpu("cpu_capacity").or_else(|| cpu("cpufreq/cpuinfo_max_freq"));
    Logical { id, core, speed: speed.and_then(|text| text.trim().parse().ok()).unwrap_or(0) }
}

/// `0-3,8,10-11` → the numbers. Nonsense parts are left out.
fn list(text: &str) -> BTreeSet<u32> {
    /// More than any kernel supports; keeps a nonsense range from filling memory.
    const MOST: u32 = 1 << 16;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        (last < MOST).then_some(first..=last)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}
