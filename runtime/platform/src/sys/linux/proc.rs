//! `/proc`: memory of the machine, of this process, and of one of its mappings.

use std::path::Path;

use super::{Linux, cgroup};
use crate::{MappingMemory, MemoryNow, PlatformError, ProcessMemory};

/// Bytes of a `Name:   123 kB` line.
pub(super) fn kb_field(linux: &Linux, file: &str, name: &str) -> Result<u64, PlatformError> {
    find_kb(&linux.read(file)?, name).ok_or_else(|| missing(linux, file, name))
}

fn missing(linux: &Linux, file: &str, field: &str) -> PlatformError {
    PlatformError::Missing { path: linux.path(file), field: field.to_owned() }
}

fn find_kb(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| kb_of(line, name))
}

/// `Name:  123 kB` → 123 × 1024, when the line is about `name`.
fn kb_of(line: &str, name: &str) -> Option<u64> {
    let value = line.strip_prefix(name)?.strip_prefix(':')?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

pub(super) fn memory(linux: &Linux, page_bytes: u64) -> Result<MemoryNow, PlatformError> {
    const MEMINFO: &str = "proc/meminfo";
    let meminfo = linux.read(MEMINFO)?;
    let need = |name: &str| find_kb(&meminfo, name).ok_or_else(|| missing(linux, MEMINFO, name));
    let swap_total_bytes = need("SwapTotal")?;
    let available_bytes = need("MemAvailable")?;

    const VMSTAT: &str = "proc/vmstat";
    let vmstat = linux.read(VMSTAT)?;
    // Kernels built without swap have no such counters; then nothing was ever swapped.
    let pages = |name: &str| {
        let count =
            vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok());
        count.unwrap_or(0).saturating_mul(page_bytes)
    };
    Ok(MemoryNow {
        available_bytes: cgroup::memory(linux).map_or(available_bytes, |group| available_bytes.min(group.left_bytes())),
        free_bytes: need("MemFree")?,
        swap_total_bytes,
        swap_used_bytes: swap_total_bytes.saturating_sub(need("SwapFree")?),
        swapped_in_bytes: pages("pswpin"),
        swapped_out_bytes: pages("pswpout"),
        wired_bytes: None,
        compressed_bytes: find_kb(&meminfo, "Zswap"),
    })
}

pub(super) fn process(linux: &Linux) -> Result<ProcessMemory, PlatformError> {
    const STATUS: &str = "proc/self/status";
    let status = linux.read(STATUS)?;
    let need = |name: &str| find_kb(&status, name).ok_or_else(|| missing(linux, STATUS, name));
    Ok(ProcessMemory {
        rss_file_bytes: need("RssFile")?,
        rss_anon_bytes: need("RssAnon")?,
        rss_shmem_bytes: need("RssShmem")?,
        swapped_bytes: need("VmSwap")?,
        footprint_bytes: linux.read_optional("proc/self/smaps_rollup").and_then(|text| find_kb(&text, "Pss")),
    })
}

/// Sums every mapping of `file`, which must be an absolute path without links.
pub(super) fn mapping(linux: &Linux, file: &Path) -> Result<MappingMemory, PlatformError> {
    // Paths need not be UTF-8, and one that is not must not hide the others.
    let smaps = fs_err::read(linux.path("proc/self/smaps"))?;
    let smaps = String::from_utf8_lossy(&smaps);
    let file = file.to_string_lossy();

    let mut sum = MappingMemory::default();
    let mut ours = false;
    for line in smaps.lines() {
        if let Some(path) = header(line) {
            ours = path == file;
        } else if let (true, Some((name, _))) = (ours, line.split_once(':')) {
            let total = match name {
                "Size" => &mut sum.mapped_bytes,
                "Rss" => &mut sum.resident_bytes,
                "Shared_Dirty" | "Private_Dirty" => &mut sum.dirty_bytes,
                "Anonymous" => &mut sum.anonymous_bytes,
                "Locked" => &mut sum.locked_bytes,
                _ => continue,
            };
            *total = total.saturating_add(kb_of(line, name).unwrap_or(0));
        }
    }
    Ok(sum)
}

/// The path of a header line `7f00-7f10 r--s 00000000 08:01 42   /some/file`; empty for a mapping without a file.
/// `None` for any other line. A file that was replaced ends in ` (deleted)` and is therefore not the one at its path.
fn header(line: &str) -> Option<&str> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex(start) && hex(end)).then(|| line.find('/').map_or("", |at| &line[at..]))
}
