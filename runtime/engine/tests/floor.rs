//! What stays when models come and go. A binary of its own: nothing else may run in its process.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "malloc_trim, so that what is measured is held and not merely kept for the next time")]

use std::path::PathBuf;

use locara_engine::{
    Engine, Prompt, Request, Sampling,
    llama::{LlamaEngine, LoadOptions},
};
use locara_platform::Platform;
use locara_policy::KvType;

#[tokio::test]
async fn a_hundred_loads_leave_nothing_behind() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf");
    let options = LoadOptions {
        n_ctx: 512,
        kv_cells: 2048,
        n_seq_max: 2,
        n_batch: 128,
        n_ubatch: 128,
        type_k: KvType::Q8_0,
        type_v: KvType::F16,
        flash_attention: false,
        n_threads: 1,
        n_gpu_layers: 0,
        repack: false,
        queue_max: 4,
    };
    // One arena: each engine has threads of its own, and an arena for each of them would keep what the last one left.
    // SAFETY: takes plain numbers; nothing has allocated from another thread yet that depends on it.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    let mut floor = Vec::new();
    for _ in 0..100 {
        let engine = LlamaEngine::load(&path, "test", options, |_| true).unwrap();
        let request = Request {
            sampling: Sampling::greedy(),
            max_tokens: 8,
            ignore_eos: true,
            ..Request::new(Prompt::Tokens((300..320).collect()))
        };
        engine.submit(request).collect().await.unwrap();
        drop(engine);
        // SAFETY: takes a plain number and locks the heap itself.
        unsafe { libc::malloc_trim(0) };
        floor.push(locara_platform::host().process().unwrap().rss_anon_bytes);
    }
    let median = |cycles: &[u64]| {
        let mut sorted = cycles.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    let (early, late) = (median(&floor[10..20]), median(&floor[90..]));
    assert!(late * 100 <= early * 102, "{early} bytes after 15 loads, {late} after 95: {floor:?}");
}
