//! The C border: the functions of `shim/shim.cpp` and the types of `llama-cpp-sys-2`.
//!
//! Only this folder names llama.cpp. Every function that may throw goes through the shim.
pub(super) use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char};

/// One row of the engine's own account: bytes by buffer type.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct MemoryRow {
    pub(super) buffer: [u8; 64],
    pub(super) host: i32,
    pub(super) model: u64,
    pub(super) context: u64,
    pub(super) compute: u64,
}

unsafe extern "C" {
    fn locara_last_exception() -> *const c_char;
    pub(super) fn locara_model_load(path: *const c_char, params: sys::llama_model_params) -> *mut sys::llama_model;
    pub(super) fn locara_context_new(
        model: *mut sys::llama_model,
        params: sys::llama_context_params,
    ) -> *mut sys::llama_context;
    pub(super) fn locara_decode(ctx: *mut sys::llama_context, batch: sys::llama_batch) -> i32;
    pub(super) fn locara_encode(ctx: *mut sys::llama_context, batch: sys::llama_batch) -> i32;
    pub(super) fn locara_sample(sampler: *mut sys::llama_sampler, ctx: *mut sys::llama_context, row: i32) -> i32;
    pub(super) fn locara_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        text_len: i32,
        tokens: *mut i32,
        n_max: i32,
        add_special: bool,
        parse_special: bool,
    ) -> i32;
    pub(super) fn locara_reference_loop(
        ctx: *mut sys::llama_context,
        prompt: *const i32,
        n_prompt: i32,
        n_batch: i32,
        n_seq: i32,
        n_decode: i32,
        prefill_ms: *mut f64,
        decode_ms: *mut f64,
    ) -> i32;
    pub(super) fn locara_state_size(ctx: *mut sys::llama_context, seq: i32) -> usize;
    pub(super) fn locara_state_get(ctx: *mut sys::llama_context, seq: i32, data: *mut u8, size: usize) -> usize;
    pub(super) fn locara_state_set(ctx: *mut sys::llama_context, seq: i32, data: *const u8, size: usize) -> usize;
    pub(super) fn locara_memory_breakdown(ctx: *const sys::llama_context, rows: *mut MemoryRow, n_max: i32) -> i32;
}

/// The text of the last exception that the shim caught on this thread; empty if none.
pub(super) fn last_exception() -> String {
    // SAFETY: the shim returns a pointer to a thread-local string that lives until its next call on this thread.
    unsafe { CStr::from_ptr(locara_last_exception()) }.to_string_lossy().into_owned()
}
