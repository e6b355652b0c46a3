//! Memory of the machine, of this task, and of its mappings, from Mach.

#![allow(unsafe_code, reason = "Mach has no safe wrapper; each call is a few lines and says why it is sound")]

use std::{ffi::OsStr, io, mem, os::unix::ffi::OsStrExt, path::Path};

use mach2::{
    kern_return::{KERN_INVALID_ADDRESS, KERN_SUCCESS, kern_return_t},
    mach_init::mach_host_self,
    task::task_info,
    task_info::{TASK_VM_INFO, task_vm_info},
    traps::mach_task_self,
    vm::mach_vm_region_recurse,
    vm_prot::VM_PROT_WRITE,
    vm_region::{SM_COW, vm_region_submap_info_64},
};

use crate::{MappingMemory, PlatformError};

/// Page size of this process.
pub(super) fn page_bytes() -> u64 {
    // SAFETY: takes a plain value and returns one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // It cannot fail for this name; 16 KiB is the page of Apple silicon.
    u64::try_from(bytes).unwrap_or(16 << 10)
}

/// Page counts of the machine.
pub(super) fn statistics() -> Result<libc::vm_statistics64, PlatformError> {
    // SAFETY: a C structure of integers, for which zero is a value.
    let mut statistics: libc::vm_statistics64 = unsafe { mem::zeroed() };
    let mut count = libc::HOST_VM_INFO64_COUNT;
    // SAFETY: the kernel writes at most `count` integers, which is the size of the structure; older kernels write fewer.
    let status = unsafe {
        libc::host_statistics64(mach_host_self(), libc::HOST_VM_INFO64, (&raw mut statistics).cast(), &raw mut count)
    };
    check("host_statistics64", status)?;
    Ok(statistics)
}

/// Memory of this task.
pub(super) fn task() -> Result<task_vm_info, PlatformError> {
    // SAFETY: a C structure of integers, for which zero is a value.
    let mut info: task_vm_info = unsafe { mem::zeroed() };
    let mut count = count_of::<task_vm_info>();
    // SAFETY: the kernel writes at most `count` integers, which is the size of the structure; older kernels write fewer.
    let status = unsafe { task_info(mach_task_self(), TASK_VM_INFO, (&raw mut info).cast(), &raw mut count) };
    check("task_info(TASK_VM_INFO)", status)?;
    Ok(info)
}

/// One mapping of a file.
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) size: u64,
    info: vm_region_submap_info_64,
}

impl Region {
    pub(super) const fn is_writable(&self) -> bool {
        self.info.protection & VM_PROT_WRITE != 0
    }

    /// Whether a write would be copied and not reach the file.
    pub(super) const fn is_private(&self) -> bool {
        self.info.share_mode == SM_COW || self.info.external_pager == 0
    }
}

/// Sums every mapping of `file`, which must be an absolute path without links.
pub(super) fn mapping(file: &Path) -> Result<MappingMemory, PlatformError> {
    let page = page_bytes();
    let pages = |count: u32| u64::from(count).saturating_mul(page);
    let mut sum = MappingMemory::default();
    for Region { size, info, .. } in regions(file)? {
        // Copied on write: no longer the file's.
        let private = pages(info.pages_shared_now_private);
        let resident = pages(info.pages_resident);
        sum.mapped_bytes = sum.mapped_bytes.saturating_add(size);
        sum.resident_bytes = sum.resident_bytes.saturating_add(resident);
        sum.dirty_bytes = sum.dirty_bytes.saturating_add(pages(info.pages_dirtied));
        sum.anonymous_bytes = sum.anonymous_bytes.saturating_add(private);
        if info.user_wired_count > 0 {
            sum.locked_bytes = sum.locked_bytes.saturating_add(resident);
        }
    }
    Ok(sum)
}

/// Every mapping of `file`, which must be an absolute path without links.
pub(super) fn regions(file: &Path) -> Result<Vec<Region>, PlatformError> {
    let mut regions = Vec::new();
    let (mut address, mut depth) = (0u64, 0u32);
    while let Some((start, size, info)) = region(address, &mut depth)? {
        if info.is_submap != 0 {
            // Ask again for the same address, one level deeper.
            (address, depth) = (start, depth.saturating_add(1));
            continue;
        }
        if is_mapped_from(start, file) {
            regions.push(Region { start, size, info });
        }
        let Some(next) = start.checked_add(size).filter(|next| *next > address || size > 0) else { break };
        address = next;
    }
    Ok(regions)
}

/// The region at or after `address`, at most `depth` levels down; `None` past the last one.
fn region(address: u64, depth: &mut u32) -> Result<Option<(u64, u64, vm_region_submap_info_64)>, PlatformError> {
    let (mut start, mut size) = (address, 0u64);
    // SAFETY: a C structure of integers, for which zero is a value.
    let mut info: vm_region_submap_info_64 = unsafe { mem::zeroed() };
    let mut count = count_of::<vm_region_submap_info_64>();
    // SAFETY: the kernel writes at most `count` integers, which is the size of the structure, and three plain values.
    let status = unsafe {
        mach_vm_region_recurse(
            mach_task_self(),
            &raw mut start,
            &raw mut size,
            depth,
            (&raw mut info).cast(),
            &raw mut count,
        )
    };
    if status == KERN_INVALID_ADDRESS {
        return Ok(None);
    }
    check("mach_vm_region_recurse", status)?;
    Ok(Some((start, size, info)))
}

/// Whether the region that starts at `address` is mapped from `file`.
fn is_mapped_from(address: u64, file: &Path) -> bool {
    /// `MAXPATHLEN`.
    const LONGEST: usize = 1024;
    /// The writable half of the system volume, which paths of users leave out.
    const DATA_VOLUME: &[u8] = b"/System/Volumes/Data";

    let Ok(pid) = libc::c_int::try_from(std::process::id()) else { return false };
    let mut buffer = [0u8; LONGEST];
    // SAFETY: the call writes at most as many bytes as it is told the buffer has.
    let written = unsafe { libc::proc_regionfilename(pid, address, buffer.as_mut_ptr().cast(), LONGEST as u32) };
    let Some(path) = usize::try_from(written).ok().and_then(|length| buffer.get(..length)) else { return false };
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    let seen_by_users = path.strip_prefix(DATA_VOLUME).unwrap_or(path);
    [path, seen_by_users].into_iter().any(|path| Path::new(OsStr::from_bytes(path)) == file)
}

/// Size of a structure in the integers that Mach counts in.
fn count_of<T>() -> u32 {
    // Structures of Mach are a few hundred bytes.
    (mem::size_of::<T>() / mem::size_of::<libc::integer_t>()) as u32
}

fn check(call: &str, status: kern_return_t) -> Result<(), PlatformError> {
    if status == KERN_SUCCESS {
        return Ok(());
    }
    let source = io::Error::other(format!("Mach error {status}"));
    Err(PlatformError::Call { call: call.to_owned(), source })
}
