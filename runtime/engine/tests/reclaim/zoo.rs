//! Every architecture class: what is saved and put back, and a pool that changes in the middle of an answer.

use locara_engine::Reclaim;
use locara_zoo::{catalogue, write};

use super::*;

#[tokio::test]
async fn every_class_comes_back_from_disk_and_survives_a_new_pool() {
    let folder = tempfile::tempdir().unwrap();
    let states = folder.path().join("states");
    let options = LoadOptions {
        n_ctx: 512,
        kv_cells: 1024,
        n_seq_max: 2,
        n_batch: 128,
        n_ubatch: 128,
        // Some classes want one type for both.
        type_k: KvType::F16,
        ..options()
    };
    let mut tried = 0;
    for entry in catalogue().iter().filter(|entry| entry.name.starts_with("tiny-")) {
        let path = folder.path().join("model.gguf");
        write(&entry.spec, &path).unwrap();
        let load = || LlamaEngine::load_with_cache(&path, entry.name, options, &on_disk(&states), |_| true).unwrap();
        let prompt: Vec<Token> = (40..70).collect();
        let (quiet, engine) = (load(), load());
        let session = [open(&quiet).await, open(&engine).await];
        let first = match outcome(quiet.submit(of(session[0], request(prompt.clone(), 12)))).await {
            Ok(first) => first.tokens,
            Err(EngineError::Unsupported(_)) => continue,
            Err(error) => panic!("{}: {error}", entry.name),
        };
        answer(&engine, of(session[1], request(prompt.clone(), 12))).await;
        let spilled = engine.reclaim(Reclaim::IdleSessions { spill: true }).await.unwrap().unwrap();
        assert_eq!(spilled.sessions, 1, "{}", entry.name);
        let next = [prompt, first, (80..90).collect()].concat();
        let expected = answer(&quiet, of(session[0], request(next.clone(), 150))).await;

        let running = begun(&engine, of(session[1], request(next, 150))).await;
        for cells in [1024, 1, 512] {
            engine.resize(cells).await.unwrap().unwrap();
        }
        let completion = outcome(running).await.unwrap();
        assert_eq!(completion.usage.cached_tokens, expected.usage.cached_tokens, "{}", entry.name);
        assert!(completion.usage.cached_tokens > 0, "{}", entry.name);
        assert_eq!(completion.tokens, expected.tokens, "{}", entry.name);
        tried += 1;
    }
    assert!(tried > 5, "the zoo has classes");
}
