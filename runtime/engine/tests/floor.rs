//! What stays when models come and go. A binary of its own: nothing else may run in its process.
//!
//! The first half fills the allocator's caches, the second half must be flat. The bound is 1 % of what the process holds while a model is loaded. Without any model it holds so little that the
//! allocator's caches, which fill up over some hundred cycles and then stay, would be more than 2 % of that.
#![cfg(target_os = "linux")]

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
        kv_cells: 8192,
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
    let resident = || locara_platform::host().process().unwrap().rss_anon_bytes;
    let (mut floor, mut loaded) = (Vec::new(), 0);
    for _ in 0..100 {
        let engine = LlamaEngine::load(&path, "test", options, |_| true).unwrap();
        let request = Request {
            sampling: Sampling::greedy(),
            max_tokens: 8,
            ignore_eos: true,
            ..Request::new(Prompt::Tokens((300..320).collect()))
        };
        engine.submit(request).collect().await.unwrap();
        loaded = loaded.max(resident());
        drop(engine);
        floor.push(resident());
    }
    let median = |cycles: &[u64]| {
        let mut sorted = cycles.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    let (early, late) = (median(&floor[40..50]), median(&floor[90..]));
    let highest = floor.iter().copied().max().unwrap_or(u64::MAX);
    assert!(highest < loaded / 2, "{highest} bytes without a model, {loaded} with one: {floor:?}");
    assert!(late <= early + loaded / 100, "{early} bytes after 45 loads, {late} after 95, {loaded} loaded: {floor:?}");
}
