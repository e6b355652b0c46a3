//! Values of the kernel, by name.

#![allow(unsafe_code, reason = "sysctlbyname has no safe wrapper; each call is a few lines and says why it is sound")]

use std::{ffi::CStr, mem, ptr};

use crate::{KernelLevel, PlatformError};

/// Types that a sysctl can be read into whatever bytes the kernel writes.
///
/// # Safety
/// Implement it only for plain C data without padding rules, pointers or invalid bit patterns.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: every bit pattern is a number.
unsafe impl Plain for u32 {}
// SAFETY: every bit pattern is a number.
unsafe impl Plain for u64 {}
// SAFETY: a C structure of integers.
unsafe impl Plain for libc::xsw_usage {}

/// A value of exactly the size of `T`.
pub(super) fn number<T: Plain>(name: &CStr) -> Result<T, PlatformError> {
    let mut value = mem::MaybeUninit::<T>::zeroed();
    let mut size = mem::size_of::<T>();
    // SAFETY: the kernel writes at most `size` bytes, which is the size of `value`; the name ends in a null byte.
    let status =
        unsafe { libc::sysctlbyname(name.as_ptr(), value.as_mut_ptr().cast(), &raw mut size, ptr::null_mut(), 0) };
    check(name, status)?;
    if size != mem::size_of::<T>() {
        let message = format!("the kernel wrote {size} bytes, {} were expected", mem::size_of::<T>());
        return Err(failed(name, std::io::Error::other(message)));
    }
    // SAFETY: zeroed, then written whole; `Plain` says that every bit pattern is valid.
    Ok(unsafe { value.assume_init() })
}

/// A text.
pub(super) fn text(name: &CStr) -> Result<String, PlatformError> {
    // Long enough for every name of a processor or system; a longer value is an error of its own and not cut.
    let mut buffer = [0u8; 256];
    let mut size = buffer.len();
    // SAFETY: the kernel writes at most `size` bytes, which is the size of `buffer`; the name ends in a null byte.
    let status =
        unsafe { libc::sysctlbyname(name.as_ptr(), buffer.as_mut_ptr().cast(), &raw mut size, ptr::null_mut(), 0) };
    check(name, status)?;
    let written = &buffer[..size.min(buffer.len())];
    let text = written.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).trim().to_owned())
}

/// Swap space.
pub(super) fn swap() -> Result<libc::xsw_usage, PlatformError> {
    number(c"vm.swapusage")
}

/// The kernel's word for the state of memory: the values of the dispatch source, not a count from zero.
pub(super) fn pressure_level() -> Option<KernelLevel> {
    match number::<u32>(c"kern.memorystatus_vm_pressure_level").ok()? {
        1 => Some(KernelLevel::Normal),
        2 => Some(KernelLevel::Warning),
        4 => Some(KernelLevel::Critical),
        _ => None,
    }
}

fn check(name: &CStr, status: libc::c_int) -> Result<(), PlatformError> {
    if status == 0 { Ok(()) } else { Err(failed(name, std::io::Error::last_os_error())) }
}

fn failed(name: &CStr, source: std::io::Error) -> PlatformError {
    PlatformError::Call { call: format!("sysctlbyname({})", name.to_string_lossy()), source }
}
