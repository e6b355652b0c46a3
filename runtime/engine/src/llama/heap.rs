//! How the heap of this process treats the large blocks of llama.cpp.

/// Blocks of this size and more are mappings of their own, bytes. KV cells, compute buffers and saved states are above it
/// even in small models, and are rarely made, so the cost of a mapping does not matter.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BLOCK: libc::c_int = 1 << 20;

/// Makes the heap return large blocks to the system when they are freed. By itself glibc raises the bound to the largest
/// block that was freed, up to 32 MiB, and keeps what it takes from then on below the end of a thread's arena, where not
/// even [`Platform::release_heap`](locara_platform::Platform::release_heap) reaches it. To be called once, before anything large is allocated.
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
