//! One module per system. To port the host, write another one; nothing outside this folder names a system.

pub mod fake;
#[cfg(target_os = "linux")]
pub mod linux;
#[cfg(target_os = "macos")]
pub mod macos;
