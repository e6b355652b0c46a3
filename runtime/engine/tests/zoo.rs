//! Every architecture class in llama.cpp itself: loads, answers and continues a conversation.

use locara_engine::{
    Engine, EngineError, Prompt, Request, Sampling,
    llama::{LlamaEngine, LoadOptions},
};
use locara_policy::KvType;
use locara_zoo::{catalogue, write};

fn options() -> LoadOptions {
    LoadOptions {
        n_ctx: 512,
        kv_cells: 512,
        n_seq_max: 2,
        n_batch: 128,
        n_ubatch: 128,
        type_k: KvType::F16,
        type_v: KvType::F16,
        flash_attention: false,
        n_threads: 1,
        n_gpu_layers: 0,
        repack: false,
        queue_max: 4,
    }
}

/// The tiny models: all but the big ones of the benchmarks.
fn tiny() -> impl Iterator<Item = &'static locara_zoo::Entry> {
    catalogue().iter().filter(|entry| entry.name.starts_with("tiny-"))
}

#[tokio::test]
async fn every_class_answers_and_a_second_turn_equals_a_fresh_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut embedders = 0;
    for entry in tiny() {
        let path = folder.path().join("model.gguf");
        write(&entry.spec, &path).unwrap();
        let engine = LlamaEngine::load(&path, entry.name, options(), |_| true)
            .unwrap_or_else(|error| panic!("{}: {error}", entry.name));
        let request = |session, prompt: Vec<i32>| Request {
            session,
            sampling: Sampling::greedy(),
            max_tokens: 12,
            ignore_eos: true,
            ..Request::new(Prompt::Tokens(prompt))
        };
        let prompt: Vec<i32> = (40..70).collect();
        let session = engine.open().await.unwrap().unwrap();
        match engine.submit(request(Some(session), prompt.clone())).collect().await {
            Ok((_, first)) => {
                assert_eq!(first.usage.output_tokens, 12, "{}", entry.name);
                // The next turn changes the end of the first one: state that cannot be cut back must be made anew.
                let mut next = prompt.clone();
                next.extend(&first.tokens[..6]);
                next.extend(80..90);
                let (_, reused) = engine.submit(request(Some(session), next.clone())).collect().await.unwrap();
                let (_, fresh) = engine.submit(request(None, next)).collect().await.unwrap();
                assert_eq!(reused.tokens, fresh.tokens, "{}", entry.name);
            }
            Err(EngineError::Unsupported(_)) => {
                let vectors = engine.embed(vec!["one two".into(), "three".into()]).await.unwrap().unwrap();
                for vector in &vectors {
                    let norm: f32 = vector.iter().map(|x| x * x).sum();
                    assert!((norm - 1.0).abs() < 1e-3, "{}: {norm}", entry.name);
                }
                assert_ne!(vectors[0], vectors[1]);
                embedders += 1;
            }
            Err(error) => panic!("{}: {error}", entry.name),
        }
    }
    assert!(embedders > 0, "the zoo has encoders");
}
