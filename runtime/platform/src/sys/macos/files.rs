//! Pages of one mapped file: dropping them and reading them in; and free heap.

#![allow(unsafe_code, reason = "advice on ranges of memory has no safe wrapper; each call says why it is sound")]

use std::path::Path;

use rustix::mm::{Advice, MsyncFlags, madvise, msync};

use super::mach;
use crate::{Evicted, PlatformError};

/// Drops the clean pages of all mappings of `file`. Advice does not: `MADV_DONTNEED` only makes pages the next to go and
/// `MADV_PAGEOUT` is refused.
pub(super) fn evict(file: &Path) -> Result<Evicted, PlatformError> {
    let regions = shared_regions(file, "evicted")?;
    let before_bytes = mach::mapping(file)?.resident_bytes;
    for region in regions {
        // Written back first: a page that somebody else has made dirty must not be lost.
        let flags = MsyncFlags::SYNC | MsyncFlags::INVALIDATE;
        // SAFETY: written back and then dropped, so the contents are the same at the next touch, whatever is mapped there by
        // then. Unmapped or mapped anew meanwhile, it would fail or drop the wrong pages; callers rule that out by holding the
        // mappings.
        let done = unsafe { msync(region.start as *mut _, region.size as usize, flags) };
        ignoring_unmapped("msync(MS_SYNC | MS_INVALIDATE)", &region, done)?;
    }
    Ok(Evicted { before_bytes, after_bytes: mach::mapping(file)?.resident_bytes })
}

/// Asks for `file` to be read into all its mappings; how many bytes are resident by then.
pub(super) fn prefetch(file: &Path) -> Result<u64, PlatformError> {
    for region in shared_regions(file, "prefetched")? {
        // SAFETY: the advice reads pages in and changes neither contents nor mappings, whatever is mapped there by then.
        let done = unsafe { madvise(region.start as *mut _, region.size as usize, Advice::WillNeed) };
        ignoring_unmapped("madvise(MADV_WILLNEED)", &region, done)?;
    }
    Ok(mach::mapping(file)?.resident_bytes)
}

/// Gives free heap back to the system.
pub(super) fn release_heap() {
    unsafe extern "C" {
        /// `malloc/malloc.h`: a zone of null means all of them, a goal of zero as much as possible.
        fn malloc_zone_pressure_relief(zone: *mut libc::malloc_zone_t, goal: libc::size_t) -> libc::size_t;
    }
    // SAFETY: both values are documented; it touches nothing but free blocks of the allocator, and takes its locks.
    unsafe {
        malloc_zone_pressure_relief(std::ptr::null_mut(), 0);
    }
}

/// The mappings of `file`, all of them shared and not writable.
fn shared_regions(file: &Path, action: &'static str) -> Result<Vec<mach::Region>, PlatformError> {
    let regions = mach::regions(file)?;
    match regions.iter().find(|region| region.is_private() || region.is_writable()) {
        None => Ok(regions),
        Some(region) => Err(PlatformError::Refused {
            path: file.to_owned(),
            action,
            reason: format!(
                "it is mapped {} at {:x}; only mappings that are shared and not writable are clean by construction",
                if region.is_private() { "privately" } else { "writable" },
                region.start
            ),
        }),
    }
}

/// A region that was unmapped meanwhile has nothing left to drop or to read into.
fn ignoring_unmapped(call: &str, region: &mach::Region, done: rustix::io::Result<()>) -> Result<(), PlatformError> {
    match done {
        Ok(()) | Err(rustix::io::Errno::NOMEM) => Ok(()),
        Err(error) => {
            let call = format!("{call} of {} bytes at {:x}", region.size, region.start);
            Err(PlatformError::Call { call, source: error.into() })
        }
    }
}
