//! Memory that goes back to the system: pages of the mapped weights, and free pages of the heap.

use std::{io, path::Path};

use locara_platform::{Platform, PlatformError};

/// Asks the system to drop the pages of the file's mappings; they are read back on their next use. Returns the resident
/// bytes before and after: the call succeeds without any effect on a file that is neither owned nor writable by this user,
/// so only the difference counts.
///
/// # Errors
/// When the mappings cannot be read, or the system cannot do it.
#[cfg(target_os = "linux")]
pub(super) fn drop_pages(path: &Path) -> Result<(u64, u64), PlatformError> {
    use rustix::mm::{Advice, madvise};

    let host = locara_platform::host();
    let before = host.mapping(path)?.resident_bytes;
    let name = fs_err::canonicalize(path)?;
    for line in fs_err::read_to_string("/proc/self/maps")?.lines() {
        // `start-end perms offset device inode   path`; the path is the rest of the line, blanks included.
        let mut fields = line.splitn(6, ' ');
        let (Some(range), Some(file)) = (fields.next(), fields.nth(4)) else { continue };
        let address = |hex: &str| usize::from_str_radix(hex, 16).ok();
        let Some((start, end)) = range.split_once('-').and_then(|(a, b)| Some((address(a)?, address(b)?))) else {
            continue;
        };
        if Path::new(file.trim_start()) == name {
            // SAFETY: the range is a mapping of this process. The advice drops clean pages of a shared read-only mapping:
            // what a reader sees does not change.
            unsafe { madvise(start as *mut _, end - start, Advice::LinuxPageOut) }.map_err(|errno| {
                let source = io::Error::from(errno);
                PlatformError::Call { call: format!("madvise(PAGEOUT) of {}", name.display()), source }
            })?;
        }
    }
    Ok((before, host.mapping(path)?.resident_bytes))
}

/// See the Linux half.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub(super) fn drop_pages(path: &Path) -> Result<(u64, u64), PlatformError> {
    let source = io::Error::from(io::ErrorKind::Unsupported);
    Err(PlatformError::Call { call: format!("dropping the pages of {}", path.display()), source })
}

/// Blocks of this size and more are mappings of their own, bytes. KV cells, compute buffers and saved states are above it
/// even in small models, and are rarely made, so the cost of a mapping does not matter.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BLOCK: libc::c_int = 1 << 20;

/// Makes the heap return large blocks to the system when they are freed. By itself glibc raises the bound to the largest
/// block that was freed, up to 32 MiB, and keeps what it takes from then on below the end of a thread's arena, where not
/// even [`trim_heap`] reaches it. To be called once, before anything large is allocated.
pub(super) fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: takes plain numbers and locks the heap itself.
        let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BLOCK) };
        if set != 1 {
            tracing::debug!("the allocator does not take a bound for mapped blocks");
        }
    }
}

/// Gives the free pages of small blocks back.
pub(super) fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes a plain number and locks the heap itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
