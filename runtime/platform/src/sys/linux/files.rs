//! Pages of one mapped file: where they are, dropping them, reading them in.
//!
//! Return values of the kernel prove nothing here (paging out a file of another owner succeeds and does nothing), so every
//! figure is measured.

#![allow(unsafe_code, reason = "advice on ranges of memory has no safe wrapper; each call says why it is sound")]

use std::{ops::Range, os::fd::AsRawFd, path::Path};

use fs_err as fs;
use rustix::{
    io::Errno,
    mm::{Advice, madvise},
};

use super::{Linux, proc};
use crate::{Evicted, FileResidency, PlatformError};

/// Where the bytes of `file` are, which must be an absolute path without links.
pub(super) fn residency(linux: &Linux, file: &Path) -> Result<FileResidency, PlatformError> {
    let handle = fs::File::open(file)?;
    Ok(FileResidency {
        file_bytes: handle.metadata()?.len(),
        cached_bytes: cached(&handle),
        resident_bytes: proc::mapping(linux, file)?.resident_bytes,
    })
}

/// Drops the clean pages of all mappings of `file`, and then those that nobody maps.
pub(super) fn evict(linux: &Linux, file: &Path) -> Result<Evicted, PlatformError> {
    let ranges = shared_ranges(linux, file, "evicted")?;
    let handle = fs::File::open(file)?;
    if lives_in_memory(&handle)? {
        let reason = "its file system keeps it in memory, so that dropping it means swapping; move it to a disk";
        return Err(refused(file, "evicted", reason));
    }
    let before_bytes = proc::mapping(linux, file)?.resident_bytes;
    for range in ranges {
        advise(range, Advice::LinuxPageOut, "MADV_PAGEOUT")?;
    }
    // Pages that were cached without being mapped, and those that the mappings have just let go of.
    rustix::fs::fadvise(&handle, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|error| PlatformError::Call { call: "posix_fadvise(DONTNEED)".to_owned(), source: error.into() })?;
    Ok(Evicted { before_bytes, after_bytes: proc::mapping(linux, file)?.resident_bytes })
}

/// Reads `file` into all its mappings; how many bytes are resident then.
pub(super) fn prefetch(linux: &Linux, file: &Path) -> Result<u64, PlatformError> {
    /// Large enough for the disk, small enough that the lock on the address space is let go of many times in a second.
    const PIECE_BYTES: usize = 64 << 20;
    for range in shared_ranges(linux, file, "prefetched")? {
        for start in range.clone().step_by(PIECE_BYTES) {
            let piece = start..start.saturating_add(PIECE_BYTES).min(range.end);
            advise(piece, Advice::LinuxPopulateRead, "MADV_POPULATE_READ")?;
        }
    }
    Ok(proc::mapping(linux, file)?.resident_bytes)
}

/// Gives free heap back to the system.
pub(super) fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a plain value, touches nothing but free blocks of the allocator, and takes its locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The address ranges at which `file` is mapped, all of them shared and not writable.
fn shared_ranges(linux: &Linux, file: &Path, action: &'static str) -> Result<Vec<Range<usize>>, PlatformError> {
    let maps = fs::read(linux.path("proc/self/maps"))?;
    let maps = String::from_utf8_lossy(&maps);
    let name = file.to_string_lossy();
    let ours = maps.lines().filter_map(proc::Region::parse).filter(|region| region.path == name);
    let check = |region: proc::Region<'_>| {
        if !region.shared || region.writable {
            let reason = format!(
                "it is mapped {} at {:x}; only mappings that are shared and not writable are clean by construction",
                if region.shared { "writable" } else { "privately" },
                region.range.start
            );
            return Err(refused(file, action, &reason));
        }
        Ok(region.range)
    };
    ours.map(check).collect()
}

fn refused(file: &Path, action: &'static str, reason: &str) -> PlatformError {
    PlatformError::Refused { path: file.to_owned(), action, reason: reason.to_owned() }
}

/// Gives one piece of advice about one range of addresses.
fn advise(range: Range<usize>, advice: Advice, name: &str) -> Result<(), PlatformError> {
    // SAFETY: both pieces of advice that are given here move pages between memory and their backing store and change neither contents nor
    // mappings, so no range of addresses can make them unsound: not one that a fixture invented, nor one that was unmapped or
    // mapped anew since it was read. Such a race would only move the wrong pages; callers rule it out by holding the mappings.
    match unsafe { madvise(range.start as *mut _, range.len(), advice) } {
        // Unmapped meanwhile: nothing is left to drop or to read into.
        Ok(()) | Err(Errno::NOMEM) => Ok(()),
        Err(error) => {
            let call = format!("madvise({:x}, {} bytes, {name})", range.start, range.len());
            Err(PlatformError::Call { call, source: error.into() })
        }
    }
}

/// Whether the pages of this file have no disk to go to but swap.
fn lives_in_memory(file: &fs::File) -> Result<bool, PlatformError> {
    /// `RAMFS_MAGIC` and `HUGETLBFS_MAGIC` of the kernel's `magic.h`.
    const RAMFS: u64 = 0x8584_58f6;
    const HUGETLBFS: u64 = 0x9584_58f6;
    const TMPFS: u64 = 0x0102_1994;
    let kind = rustix::fs::fstatfs(file)
        .map_err(|error| PlatformError::Call { call: "fstatfs".to_owned(), source: error.into() })?
        .f_type;
    // The width and sign of the field differ between architectures; the magic numbers have 32 bits.
    Ok(matches!(kind as u64 & 0xffff_ffff, TMPFS | RAMFS | HUGETLBFS))
}

/// Bytes of the file in the page cache. `None` before Linux 6.5 and for a file of somebody else.
fn cached(file: &fs::File) -> Option<u64> {
    /// `cachestat` has the same number on every architecture; the library does not name it on all of them.
    const CACHESTAT: libc::c_long = 451;
    /// `struct cachestat_range`: a length of zero reaches to the end of the file.
    #[repr(C)]
    struct Extent {
        offset: u64,
        length: u64,
    }
    /// `struct cachestat`, in pages.
    #[repr(C)]
    #[derive(Default)]
    struct Pages {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let extent = Extent { offset: 0, length: 0 };
    let mut pages = Pages::default();
    // SAFETY: the kernel reads one structure and writes the other, both live here and have the layout that it documents.
    let status =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const extent, &raw mut pages, 0 as libc::c_uint) };
    (status == 0).then(|| pages.cached.saturating_mul(super::page_bytes()))
}
