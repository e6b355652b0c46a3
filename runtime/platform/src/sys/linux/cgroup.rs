//! The control group this process runs in: memory limit, CPU quota and stalls, of version 1 and 2 hierarchies.
//!
//! A limit anywhere between the process and the root applies, so every level is asked and the tightest answer wins.

use std::path::{Path, PathBuf};

use super::Linux;
use crate::GroupMemory;

/// Where hierarchies are mounted, relative to the root: alone, or beside version 1.
const V2_MOUNTS: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];

/// The level with the least memory left; `None` without a limit.
pub(super) fn memory(linux: &Linux) -> Option<GroupMemory> {
    let v2 = levels(linux, "", &V2_MOUNTS)
        .into_iter()
        .filter_map(|dir| group(linux, &dir, "memory.max", "memory.current", ""));
    let v1 = levels(linux, "memory", &["sys/fs/cgroup/memory"])
        .into_iter()
        .filter_map(|dir| group(linux, &dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"));
    v2.chain(v1).min_by_key(GroupMemory::left_bytes)
}

/// `prefix` is what the figures of a group with all below it begin with.
fn group(linux: &Linux, dir: &Path, limit: &str, used: &str, prefix: &str) -> Option<GroupMemory> {
    let limit_bytes = number(linux, &dir.join(limit))?;
    // Version 1 writes "no limit" as the largest number of pages.
    if limit_bytes >= u64::MAX / 4 {
        return None;
    }
    // Pages of files that are used are reclaimable too: `MemAvailable` of the machine counts them, so must this.
    let reclaimable = text(linux, &dir.join("memory.stat"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (name, bytes) = line.strip_prefix(prefix)?.split_once(' ')?;
            matches!(name, "inactive_file" | "active_file").then(|| bytes.trim().parse::<u64>().ok())?
        })
        .fold(0, u64::saturating_add);
    let used_bytes = number(linux, &dir.join(used))?.saturating_sub(reclaimable);
    Some(GroupMemory { limit_bytes, used_bytes })
}

/// Whole processors that the quota allows, at least one; `None` without a quota.
pub(super) fn cpu_quota(linux: &Linux) -> Option<u32> {
    let v2 = levels(linux, "", &V2_MOUNTS).into_iter().filter_map(|dir| {
        let text = text(linux, &dir.join("cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some((quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?))
    });
    let v1 = levels(linux, "cpu", &["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]).into_iter().filter_map(|dir| {
        // -1 is "no quota" and does not parse.
        Some((number(linux, &dir.join("cpu.cfs_quota_us"))?, number(linux, &dir.join("cpu.cfs_period_us"))?))
    });
    let whole = |(quota, period): (u64, u64)| u32::try_from(quota.checked_div(period)?).ok();
    v2.chain(v1).filter_map(whole).min().map(|processors| processors.max(1))
}

/// Where this process's own group of version 2 may tell how long its tasks stood still for memory, relative to the root.
/// Version 1 has no such file.
pub(super) fn pressure_files(linux: &Linux) -> Vec<PathBuf> {
    let own = own(linux, "");
    own.iter()
        .flat_map(|own| V2_MOUNTS.iter().map(move |mount| Path::new(mount).join(own).join("memory.pressure")))
        .collect()
}

/// Folders from this process's group up to the mount, of one controller (empty: version 2).
fn levels(linux: &Linux, controller: &str, mounts: &[&str]) -> Vec<PathBuf> {
    let Some(path) = own(linux, controller) else { return Vec::new() };
    let above = Path::new(&path).ancestors().map(Path::to_owned).collect::<Vec<_>>();
    mounts.iter().flat_map(|mount| above.iter().map(move |level| Path::new(mount).join(level))).collect()
}

/// Path of this process's group below the mount.
fn own(linux: &Linux, controller: &str) -> Option<String> {
    // `4:memory:/a/b` or, for version 2, `0::/a/b`.
    linux.read_optional("proc/self/cgroup")?.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
    })
}

fn text(linux: &Linux, path: &Path) -> Option<String> {
    linux.read_optional(path.to_str()?)
}

fn number(linux: &Linux, path: &Path) -> Option<u64> {
    text(linux, path)?.trim().parse().ok()
}
