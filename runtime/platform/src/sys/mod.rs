//! One module per system. To port the host, write another one; nothing outside this folder names a system.

pub mod fake;
#[cfg(target_os = "linux")]
pub mod linux;
#[cfg(target_os = "macos")]
pub mod macos;

/// What this user may still write to the volume of `folder`.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn disk_free_bytes(folder: &std::path::Path) -> Option<u64> {
    let volume = rustix::fs::statvfs(folder).ok()?;
    volume.f_bavail.checked_mul(volume.f_frsize)
}
