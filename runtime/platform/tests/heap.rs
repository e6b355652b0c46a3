//! Free heap goes back to the system. Alone in its program: what other tests allocate meanwhile would blur the figures.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

use locara_platform::{Platform, host};

#[test]
fn free_heap_goes_back_to_the_system() {
    const BLOCKS: usize = 512;
    const BLOCK: usize = 64 << 10;
    let mut blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![1; BLOCK]).collect();
    // The allocator gives the end of its heap back by itself; what is free below a block in use it keeps.
    let last = blocks.pop();
    drop(blocks);
    let host = host();
    let before = host.process().unwrap().rss_anon_bytes;
    host.release_heap();
    let after = host.process().unwrap().rss_anon_bytes;
    drop(last);
    assert!(before.saturating_sub(after) > (BLOCKS * BLOCK / 2) as u64, "{before} bytes before, {after} after");
}
