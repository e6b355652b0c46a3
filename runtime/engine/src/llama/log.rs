//! llama.cpp's log: to `tracing`, and the last warnings of each thread kept for our own errors.
//!
//! One load writes over a thousand lines; at the default level all but warnings are dropped before formatting.

use std::{
    cell::RefCell,
    collections::VecDeque,
    ffi::{CStr, c_char, c_void},
    panic::catch_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::ffi::sys;

/// Lines that [`take_last`] returns at most.
const KEPT_LINES: usize = 6;
/// Characters kept of one line.
const KEPT_CHARS: usize = 400;

thread_local! {
    static LAST: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
    /// What interrupts the step that this thread computes.
    static ABORT: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// From now on a step on this thread that fails while `abort` is raised was interrupted, and its errors are none: llama.cpp
/// writes three for each.
pub(super) fn expect_interrupts(abort: &Arc<AtomicBool>) {
    ABORT.set(Some(Arc::clone(abort)));
}

/// Routes the log of llama.cpp and ggml to [`on_line`]. Called once, before the backend starts.
pub(super) fn install() {
    // SAFETY: the callback is a plain function without state that does not unwind.
    unsafe {
        sys::llama_log_set(Some(on_line), std::ptr::null_mut());
        sys::ggml_log_set(Some(on_line), std::ptr::null_mut());
    }
}

/// The warnings and errors that llama.cpp wrote on this thread since the last call, joined; empty if none.
pub(super) fn take_last() -> String {
    LAST.with_borrow_mut(|lines| lines.drain(..).collect::<Vec<_>>().join("; "))
}

unsafe extern "C" fn on_line(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) };
    // A panic must not cross into C; losing one log line is the lesser harm.
    let interrupted = || ABORT.with_borrow(|abort| abort.as_ref().is_some_and(|raised| raised.load(Ordering::Relaxed)));
    let _ = catch_unwind(|| match level {
        sys::GGML_LOG_LEVEL_ERROR if interrupted() => {
            tracing::debug!(target: "llama.cpp", "interrupted: {}", text.to_string_lossy().trim_end());
        }
        sys::GGML_LOG_LEVEL_ERROR => keep_and(text, |line| tracing::error!(target: "llama.cpp", "{line}")),
        sys::GGML_LOG_LEVEL_WARN => keep_and(text, |line| tracing::warn!(target: "llama.cpp", "{line}")),
        sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama.cpp", "{}", text.to_string_lossy().trim_end()),
        _ => tracing::trace!(target: "llama.cpp", "{}", text.to_string_lossy().trim_end()),
    });
}

fn keep_and(text: &CStr, emit: impl FnOnce(&str)) {
    let text = text.to_string_lossy();
    let line = text.trim();
    if line.is_empty() {
        return;
    }
    emit(line);
    LAST.with_borrow_mut(|lines| {
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(KEPT_CHARS).collect());
    });
}
