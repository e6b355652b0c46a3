//! Sessions that give way and come back.

use locara_engine::Reclaim;

use super::*;

/// The answer to a second turn, whose session had to give way before it: once in an engine with `cache`, and once in one
/// with room for everybody.
async fn second_turn(cache: &CacheOptions, sampled_turn: bool) -> (Completion, Completion, EngineStats) {
    let make = |prompt, n| if sampled_turn { sampled(prompt, n) } else { request(prompt, n) };
    let mut turns = Vec::new();
    let mut last = EngineStats::default();
    for (kv_cells, cache) in [(1024, cache), (4096, &CacheOptions::default())] {
        let engine = engine_with(LoadOptions { kv_cells, ..options() }, cache);
        let session = open(&engine).await;
        let mut history = words(1, 300);
        history.extend(answer(&engine, of(session, make(history.clone(), 24))).await.tokens);
        // Needs nearly all cells of the small pool.
        answer(&engine, request(words(2, 800), 100)).await;
        history.extend(words(3, 20));
        turns.push(answer(&engine, of(session, make(history, 40))).await);
        if kv_cells == 1024 {
            last = stats(&engine).await;
        }
    }
    let undisturbed = turns.pop().unwrap();
    (turns.pop().unwrap(), undisturbed, last)
}

#[tokio::test]
async fn a_session_that_gave_way_comes_back_from_memory_or_disk_with_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    for cache in [in_memory(), on_disk(folder.path())] {
        for sampled_turn in [false, true] {
            let (turn, undisturbed, stats) = second_turn(&cache, sampled_turn).await;
            assert_eq!(turn.tokens, undisturbed.tokens, "{cache:?}");
            assert!(undisturbed.usage.cached_tokens > 300);
            assert_eq!(turn.usage.cached_tokens, undisturbed.usage.cached_tokens, "{cache:?}");
            assert_eq!(stats.restored_tokens, u64::from(turn.usage.cached_tokens), "{cache:?}");
        }
    }
}

#[tokio::test]
async fn without_a_place_for_its_state_it_is_computed_again_with_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let too_small = CacheOptions {
        prompt_cache_bytes: 100,
        spill: Some(SpillOptions { dir: folder.path().to_owned(), max_bytes: 100 }),
    };
    for cache in [CacheOptions::default(), too_small] {
        let (turn, undisturbed, stats) = second_turn(&cache, false).await;
        assert_eq!(turn.tokens, undisturbed.tokens, "{cache:?}");
        assert_eq!((turn.usage.cached_tokens, stats.restored_tokens), (0, 0), "{cache:?}");
    }
}

#[tokio::test]
async fn the_cache_keeps_its_bounds_and_its_account() {
    let folder = tempfile::tempdir().unwrap();
    let one = {
        let engine = engine_with(LoadOptions { kv_cells: 1024, ..options() }, &in_memory());
        let session = open(&engine).await;
        answer(&engine, of(session, request(words(0, 200), 8))).await;
        answer(&engine, request(words(9, 900), 100)).await;
        let bytes = stats(&engine).await.prompt_cache_bytes;
        assert!(bytes > 0);
        engine.close(session);
        assert_eq!(stats(&engine).await.prompt_cache_bytes, 0, "a closed session keeps nothing");
        bytes
    };
    // Two states fit into memory, two onto the disk.
    let cache = CacheOptions {
        prompt_cache_bytes: 2 * one + one / 2,
        spill: Some(SpillOptions { dir: folder.path().to_owned(), max_bytes: 2 * one + one / 2 }),
    };
    let engine = engine_with(LoadOptions { kv_cells: 1024, ..options() }, &cache);
    let mut sessions = Vec::new();
    for salt in 0..6 {
        let session = open(&engine).await;
        answer(&engine, of(session, request(words(salt, 200), 8))).await;
        sessions.push(session);
    }
    answer(&engine, request(words(9, 900), 100)).await;
    let now = stats(&engine).await;
    assert_eq!(now.prompt_cache_bytes, 2 * one);
    assert!((2 * one..cache.spill.as_ref().unwrap().max_bytes).contains(&now.spilled_bytes), "{now:?}");
    assert_eq!(now.idle_sessions, 4, "two of six were forgotten");
    // The oldest were forgotten, the newest are in memory; all of them go on.
    for (salt, session) in (0..).zip(&sessions) {
        let mut prompt = words(salt, 200);
        prompt.extend(words(50, 4));
        let cached = answer(&engine, of(*session, request(prompt, 4))).await.usage.cached_tokens;
        assert_eq!(cached > 0, salt >= 2, "session {salt}");
    }

    let forgotten = engine.reclaim(Reclaim::PromptCache { spill: false }).await.unwrap().unwrap();
    let after = stats(&engine).await;
    assert_eq!(after.prompt_cache_bytes, 0);
    assert_eq!(forgotten.freed_bytes, forgotten.expected_bytes);
    for session in sessions {
        engine.close(session);
    }
    let end = stats(&engine).await;
    assert_eq!((end.spilled_bytes, end.idle_sessions, end.kv_cells_used, end.sessions), (0, 0, 0, 0));
}

#[tokio::test]
async fn the_prompt_cache_goes_to_disk_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let cache = CacheOptions { prompt_cache_bytes: PLENTY, ..on_disk(folder.path()) };
    let engine = engine_with(LoadOptions { kv_cells: 1024, ..options() }, &cache);
    let session = open(&engine).await;
    answer(&engine, of(session, request(words(1, 300), 8))).await;
    answer(&engine, request(words(2, 900), 100)).await;
    let held = stats(&engine).await.prompt_cache_bytes;
    let moved = engine.reclaim(Reclaim::PromptCache { spill: true }).await.unwrap().unwrap();
    assert_eq!((moved.expected_bytes, moved.freed_bytes, moved.sessions), (held, held, 1));
    let now = stats(&engine).await;
    assert_eq!(now.prompt_cache_bytes, 0);
    assert!(now.spilled_bytes > held, "{now:?}");
    let mut prompt = words(1, 300);
    prompt.extend(words(3, 5));
    assert_eq!(answer(&engine, of(session, request(prompt, 4))).await.usage.cached_tokens, 300);
    assert_eq!(stats(&engine).await.spilled_bytes, 0, "a state that came back is not kept twice");
}
