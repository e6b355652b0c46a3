//! `/proc`: memory of the machine, of this process, and of one of its mappings.

use std::{ops::Range, path::Path};

use super::Linux;
use crate::{GroupMemory, MappingMemory, MemoryNow, PlatformError, ProcessMemory};

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

/// Memory of the machine, and no more of it than the control group leaves.
pub(super) fn memory(linux: &Linux, page_bytes: u64, group: Option<GroupMemory>) -> Result<MemoryNow, PlatformError> {
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
        available_bytes: group.map_or(available_bytes, |group| available_bytes.min(group.left_bytes())),
        critical_available_bytes: None,
        free_bytes: need("MemFree")?,
        swap_total_bytes,
        swap_used_bytes: swap_total_bytes.saturating_sub(need("SwapFree")?),
        swapped_in_bytes: pages("pswpin"),
        swapped_out_bytes: pages("pswpout"),
        wired_bytes: None,
        compressed_bytes: find_kb(&meminfo, "Zswap"),
    })
}

/// Memory of this process, without what the kernel would have to walk all pages for.
pub(super) fn process(linux: &Linux) -> Result<ProcessMemory, PlatformError> {
    const STATUS: &str = "proc/self/status";
    let status = linux.read(STATUS)?;
    let need = |name: &str| find_kb(&status, name).ok_or_else(|| missing(linux, STATUS, name));
    Ok(ProcessMemory {
        rss_file_bytes: need("RssFile")?,
        rss_anon_bytes: need("RssAnon")?,
        rss_shmem_bytes: need("RssShmem")?,
        swapped_bytes: need("VmSwap")?,
        footprint_bytes: None,
        gpu_bytes: None,
    })
}

/// The proportional set size of this process. Milliseconds with large mappings.
pub(super) fn footprint(linux: &Linux) -> Option<u64> {
    find_kb(&linux.read_optional("proc/self/smaps_rollup")?, "Pss")
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
        if let Some(region) = Region::parse(line) {
            ours = region.path == file;
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

/// A header line of `smaps`, which is a line of `maps`: `7f00-7f10 r--s 00000000 08:01 42   /some/file`.
pub(super) struct Region<'a> {
    /// Addresses.
    pub(super) range: Range<usize>,
    pub(super) writable: bool,
    pub(super) shared: bool,
    /// Empty for a mapping without a file. A file that was replaced ends in ` (deleted)` and is therefore not the one at its
    /// path.
    pub(super) path: &'a str,
}

impl<'a> Region<'a> {
    /// `None` for any other line.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        let &[_, write, _, share] = fields.next()?.as_bytes() else { return None };
        let path = line.find('/').map_or("", |at| &line[at..]);
        Some(Self { range: start..end, writable: write == b'w', shared: share == b's', path })
    }
}
