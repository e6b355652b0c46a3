//! The embedded model through a guest: the sandbox changes nothing about its tokens.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::World;
use locara_engine::api::{Engine, Message, Request, Sampling};
use locara_engine::llama::{LlamaEngine, LoadOptions};
use locara_policy::kv::KvType;

const QUESTION: &str = "Summarize the following part of a document in one or two sentences.\n\nThe harbour of the town was \
                        built in 1820. It has two piers and a lighthouse.";

fn engine() -> Arc<LlamaEngine> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf");
    let options = LoadOptions {
        n_ctx: 1024,
        kv_cells: 4096,
        n_seq_max: 4,
        n_batch: 256,
        n_ubatch: 256,
        type_k: KvType::Q8_0,
        type_v: KvType::F16,
        flash_attention: false,
        n_threads: 1,
        n_gpu_layers: 0,
        repack: false,
        queue_max: 16,
    };
    Arc::new(LlamaEngine::load(&model, "test", options, |_| true).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_gets_the_tokens_that_the_engine_makes() {
    let engine = engine();
    let world = World::new(engine.clone());
    let mut request = Request::chat(vec![Message::user(QUESTION)]);
    request.max_tokens = 40;
    request.sampling = Sampling { seed: Some(7), ..Sampling::greedy() };
    let (alone, completion) = engine.submit(request).collect().await.unwrap();
    assert!(completion.usage.output_tokens > 5, "{alone:?}");

    let app = world.prepare("neighbour").await;
    let ask = || world.run(&app, &["ask", "40"], QUESTION);
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    for (through_guest, ended) in [one, two, three] {
        assert_eq!(through_guest, alone);
        let tokens = ended.unwrap().tokens;
        assert_eq!(tokens.output, u64::from(completion.usage.output_tokens));
    }
    let (through_sync, ended) = world.run_guest("sync", &["ask", "40"], QUESTION).await;
    ended.unwrap();
    assert_eq!(through_sync, alone);
    assert_eq!(engine.stats().await.unwrap().unwrap().sessions, 0, "every session was closed");
    assert_eq!(world.ledger.bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_continues_as_the_original_does() {
    let world = World::new(engine());
    let (output, ended) = world.run_guest("neighbour", &["fork"], QUESTION).await;
    let report = ended.unwrap();
    let parts: Vec<&str> = output.split('|').collect();
    assert_eq!(parts[1], parts[2], "{output:?}");
    assert_eq!(parts[3], "(4, 4) 1 true");
    assert!(report.tokens.cached > 0, "the second and third question reuse what was computed: {:?}", report.tokens);
}
