//! llama.cpp's process-wide state: started once, never stopped, and the devices it found.

use std::{ffi::CStr, sync::OnceLock};

use serde::{Deserialize, Serialize};

use super::{ffi::sys, heap, log};

/// A device that can compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The backend's name for it, e.g. `CPU`, `Metal`, `CUDA0`.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// Whether layers are offloaded to it.
    pub gpu: bool,
    /// Memory that it reports as free, bytes.
    pub memory_free: u64,
    /// Memory that it reports in all, bytes.
    pub memory_total: u64,
}

/// Proof that the backend runs. Copies are free; the backend lives until the process ends, since a second start is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend(());

impl Backend {
    /// Starts the backend on the first call.
    pub(super) fn start() -> Self {
        static STARTED: OnceLock<()> = OnceLock::new();
        STARTED.get_or_init(|| {
            log::install();
            heap::return_large_blocks();
            // SAFETY: called once per process, before any other function of llama.cpp.
            unsafe { sys::llama_backend_init() };
        });
        Self(())
    }
}

/// The devices of this build on this machine.
#[must_use]
pub fn devices() -> Vec<Device> {
    let _backend = Backend::start();
    // SAFETY: the registry is complete after the start and never shrinks; indexes are below the count; the strings are static.
    unsafe {
        (0..sys::ggml_backend_dev_count())
            .map(|index| {
                let device = sys::ggml_backend_dev_get(index);
                let (mut free, mut total) = (0usize, 0usize);
                sys::ggml_backend_dev_memory(device, &raw mut free, &raw mut total);
                let kind = sys::ggml_backend_dev_type(device);
                Device {
                    name: CStr::from_ptr(sys::ggml_backend_dev_name(device)).to_string_lossy().into_owned(),
                    description: CStr::from_ptr(sys::ggml_backend_dev_description(device))
                        .to_string_lossy()
                        .trim()
                        .to_owned(),
                    gpu: kind == sys::GGML_BACKEND_DEVICE_TYPE_GPU || kind == sys::GGML_BACKEND_DEVICE_TYPE_IGPU,
                    memory_free: free as u64,
                    memory_total: total as u64,
                }
            })
            .collect()
    }
}

/// Version and instruction sets of this build, e.g. `llama.cpp 0.6.0-dev; CPU : AVX2 = 1 | …`.
#[must_use]
pub fn build_info() -> String {
    let _backend = Backend::start();
    // SAFETY: both return static strings.
    let (version, system) =
        unsafe { (CStr::from_ptr(sys::llama_version()), CStr::from_ptr(sys::llama_print_system_info())) };
    format!("llama.cpp {}; {}", version.to_string_lossy(), system.to_string_lossy().trim())
}
