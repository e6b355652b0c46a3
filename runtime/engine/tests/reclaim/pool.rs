//! The pool, larger and smaller, while answers are being made.

use locara_engine::Reclaim;

use super::*;

#[tokio::test]
async fn answers_do_not_notice_that_the_pool_changes() {
    let requests = [request(words(1, 300), 300), sampled(words(2, 40), 400), request(words(3, 150), 500)];
    for watched in 0..requests.len() {
        let quiet = engine_with(options(), &CacheOptions::default());
        let alone = answer(&quiet, requests[watched].clone()).await.tokens;

        let engine = engine_with(options(), &CacheOptions::default());
        let session = open(&engine).await;
        answer(&engine, of(session, request(words(4, 100), 8))).await;
        let mut generations = Vec::new();
        for request in &requests {
            generations.push(begun(&engine, request.clone()).await);
        }
        let bytes_per_cell = engine.memory().kv / 4096;
        for cells in [2048, 8192, 1, 3000, 1690] {
            let memory = engine.resize(cells).await.unwrap().unwrap();
            let now = stats(&engine).await;
            assert_eq!(memory, engine.memory());
            assert_eq!(memory.kv, u64::from(now.kv_cells) * bytes_per_cell);
            // Three answers hold 600, 440 and 650 cells; llama.cpp rounds up to 256.
            assert_eq!(now.kv_cells, cells.max(1690).div_ceil(256) * 256);
            assert_eq!(now.running, 3);
        }
        assert_eq!(outcome(generations.swap_remove(watched)).await.unwrap().tokens, alone, "request {watched}");
    }
}

#[tokio::test]
async fn idle_sessions_give_their_cells_back_to_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let roomy = LoadOptions { kv_cells: 65536, ..options() };
    for (spill, cache) in [(true, on_disk(folder.path())), (false, on_disk(folder.path()))] {
        let engine = engine_with(roomy, &cache);
        let alone = answer(&engine, request(words(1, 300), 300)).await.tokens;
        let session = open(&engine).await;
        let mut history = words(4, 400);
        history.extend(answer(&engine, of(session, request(history.clone(), 8))).await.tokens);
        history.extend(words(5, 10));
        let next = answer(&engine, request(history.clone(), 20)).await.tokens;
        let running = begun(&engine, request(words(1, 300), 300)).await;

        let before = engine.memory();
        let given = engine.reclaim(Reclaim::IdleSessions { spill }).await.unwrap().unwrap();
        let after = engine.memory();
        let now = stats(&engine).await;
        assert_eq!(now.kv_cells, 768, "what the running answer holds: 600 cells, rounded up");
        assert_eq!(after.kv, before.kv / 65536 * 768);
        assert_eq!((given.expected_bytes, given.freed_bytes), (before.kv - after.kv, before.kv - after.kv));
        assert!(given.rss_after < given.rss_before, "{given:?}");
        let really = given.rss_before - given.rss_after;
        assert!(really > given.expected_bytes / 10 * 9, "{really} of {given:?}");
        assert_eq!((given.sessions, now.spilled_bytes > 0), (1, spill), "{now:?}");
        assert_eq!(outcome(running).await.unwrap().tokens, alone);

        // The session goes on in the small pool.
        let turn = answer(&engine, of(session, request(history, 20))).await;
        assert_eq!(turn.tokens, next);
        assert_eq!(turn.usage.cached_tokens > 0, spill);
    }
}

#[tokio::test]
async fn a_request_that_the_pool_has_no_room_for_says_so_and_waits_without_holding_up_others() {
    let engine = engine_with(options(), &CacheOptions::default());
    let large = request(words(1, 700), 300);
    let alone = answer(&engine, large.clone()).await.tokens;
    engine.reclaim(Reclaim::IdleSessions { spill: false }).await.unwrap().unwrap();
    let mut watch = engine.watch();
    assert_eq!((watch.borrow_and_update().kv_cells, stats(&engine).await.cells_wanted), (512, 0));

    let large = engine.submit(large);
    let now = watch.wait_for(|stats| stats.cells_wanted > 0).await.unwrap().clone();
    assert_eq!((now.cells_wanted, now.waiting, now.running), (1000 - 512, 1, 0));
    assert_eq!(answer(&engine, request(words(2, 100), 50)).await.usage.output_tokens, 50, "a small one goes before it");
    engine.resize(now.kv_cells + now.cells_wanted).await.unwrap().unwrap();
    assert_eq!(outcome(large).await.unwrap().tokens, alone);
    assert_eq!(stats(&engine).await.cells_wanted, 0);
    // In a pool as large as at the load, nobody wants more: it is a queue.
    engine.resize(4096).await.unwrap().unwrap();
    let all: Vec<_> = (0..8).map(|salt| engine.submit(request(words(salt, 500), 500))).collect();
    engine.tokenize(Prompt::Tokens(vec![1])).await.unwrap().unwrap();
    assert_eq!(stats(&engine).await.cells_wanted, 0);
    drop(all);
}

#[tokio::test]
async fn a_reader_that_leaves_while_its_request_waits_for_a_larger_pool_is_noticed() {
    let engine = engine_with(options(), &CacheOptions::default());
    engine.resize(512).await.unwrap().unwrap();
    let mut watch = engine.watch();
    let large = engine.submit(request(words(1, 700), 300));
    watch.wait_for(|stats| stats.cells_wanted > 0).await.unwrap();
    drop(large);
    watch.wait_for(|stats| stats.waiting == 0 && stats.cells_wanted == 0).await.unwrap();
}

/// On Linux a page that another process maps stays, so the file is one that nobody else has.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn weights_go_and_the_next_token_comes_all_the_same() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("own.gguf");
    fs_err::write(&path, fs_err::read(tiny()).unwrap()).unwrap();
    // A page that is not written back yet cannot be dropped.
    fs_err::OpenOptions::new().write(true).open(&path).unwrap().sync_all().unwrap();
    let engine = LlamaEngine::load(&path, "test", options(), |_| true).unwrap();
    let alone = answer(&engine, request(words(1, 50), 300)).await.tokens;
    let generation = begun(&engine, request(words(1, 50), 300)).await;
    let (weights, cells) = (engine.memory(), stats(&engine).await.kv_cells);
    let given = engine.reclaim(Reclaim::Weights).await.unwrap().unwrap();
    assert!(given.freed_bytes > weights.weights_mapped / 2, "{given:?} of {weights:?}");
    assert!(given.rss_after < given.rss_before, "{given:?}");
    assert_eq!((engine.memory(), stats(&engine).await.kv_cells), (weights, cells), "the context stays");
    assert_eq!(outcome(generation).await.unwrap().tokens, alone);
}
