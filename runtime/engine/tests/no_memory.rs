//! A system that gives no memory for a larger pool. A binary of its own: the limit is that of the process.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;

use locara_engine::{
    Engine, EngineError, Event, Prompt, Request, Sampling,
    llama::{LlamaEngine, LoadOptions},
};
use locara_policy::KvType;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Address space of this process, bytes.
fn address_space() -> u64 {
    let statm = fs_err::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

fn request(max_tokens: u32) -> Request {
    Request {
        sampling: Sampling::greedy(),
        max_tokens,
        ignore_eos: true,
        ..Request::new(Prompt::Tokens((300..400).collect()))
    }
}

#[tokio::test]
async fn a_pool_that_cannot_be_made_leaves_the_old_one_and_without_any_the_engine_says_so() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf");
    let options = LoadOptions {
        n_ctx: 1024,
        kv_cells: 65536,
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
    let engine = LlamaEngine::load(&path, "test", options, |_| true).unwrap();
    let alone = engine.submit(request(300)).collect().await.unwrap().1.tokens;
    let mut running = engine.submit(request(300));
    while matches!(running.events.recv().await.unwrap(), Event::Prefill { .. }) {}
    let full = engine.memory();
    let unlimited = getrlimit(Resource::As);
    let limit = |bytes: u64| setrlimit(Resource::As, Rlimit { current: Some(bytes), ..unlimited }).unwrap();

    // Room for the old pool, not for one of twice the size.
    limit(address_space() + full.kv / 2);
    let error = engine.resize(131_072).await.unwrap().unwrap_err();
    assert!(matches!(&error, EngineError::Failed(why) if why.contains("131072") && why.contains("65536")), "{error}");
    assert_eq!(engine.memory(), full);
    assert_eq!(running.collect().await.unwrap().1.tokens, alone, "it goes on in the old pool");

    // Room for neither.
    let running = engine.submit(request(300));
    limit(address_space() - full.kv / 2);
    let error = engine.resize(131_072).await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::Failed(_)), "{error}");
    assert_eq!(engine.memory().kv, 0);
    for lost in [running, engine.submit(request(8))] {
        let error = lost.collect().await.unwrap_err();
        assert!(matches!(&error, EngineError::Failed(why) if why.contains("KV cells")), "{error}");
    }

    // With memory again, the next resize brings it back.
    setrlimit(Resource::As, unlimited).unwrap();
    engine.resize(2048).await.unwrap().unwrap();
    assert_eq!(engine.submit(request(300)).collect().await.unwrap().1.tokens, alone);
}
