//! What Metal says about the GPU.

use std::sync::LazyLock;

use objc2::{rc::Retained, runtime::ProtocolObject};
use objc2_metal::{MTLCreateSystemDefaultDevice, MTLDevice};

use super::sysctl;
use crate::GpuFacts;

// Without this framework `MTLCreateSystemDefaultDevice` finds no device in a program without windows.
#[link(name = "CoreGraphics", kind = "framework")]
#[allow(unsafe_code, reason = "an empty block: it links a framework and declares nothing")]
unsafe extern "C" {}

/// The default GPU, where it shares the machine's memory. Made once: making it wakes the driver, and figures of the process are
/// read every second.
static DEVICE: LazyLock<Option<Retained<ProtocolObject<dyn MTLDevice>>>> =
    LazyLock::new(|| MTLCreateSystemDefaultDevice().filter(|device| device.hasUnifiedMemory()));

/// What this process holds through Metal.
pub(super) fn allocated_bytes() -> Option<u64> {
    DEVICE.as_ref().map(|device| device.currentAllocatedSize() as u64)
}

/// The GPU.
pub(super) fn facts() -> Option<GpuFacts> {
    let device = DEVICE.as_ref()?;
    Some(GpuFacts {
        name: device.name().to_string(),
        working_set_bytes: device.recommendedMaxWorkingSetSize(),
        max_buffer_bytes: device.maxBufferLength() as u64,
        wired_limit_bytes: wired_limit(),
    })
}

/// The owner's limit in bytes, where one is set. The first name counts megabytes; the second, before macOS 14, bytes.
fn wired_limit() -> Option<u64> {
    let set = |bytes: &u64| *bytes > 0;
    let mb = || sysctl::number::<u64>(c"iogpu.wired_limit_mb").or_else(|_| number32(c"iogpu.wired_limit_mb"));
    let now = mb().ok().and_then(|mb| mb.checked_mul(1 << 20));
    now.filter(set).or_else(|| sysctl::number::<u64>(c"debug.iogpu.wired_limit").ok().filter(set))
}

/// The kernel has changed the width of this value before.
fn number32(name: &std::ffi::CStr) -> Result<u64, crate::PlatformError> {
    sysctl::number::<u32>(name).map(u64::from)
}
