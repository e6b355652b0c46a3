//! Background requests that give way in the middle of their answer.

use locara_engine::{Class, Constraint, Message, Reclaim};

use super::*;

fn background(request: Request) -> Request {
    Request { class: Class::Background, ..request }
}

/// Parks `request` in the middle of its answer, lets it go on, and returns its answer beside that of an engine left alone,
/// with the figures from after it was parked and from the end.
async fn parked(
    cache: &CacheOptions,
    spill: bool,
    request: &Request,
) -> (Completion, Completion, EngineStats, EngineStats) {
    let alone = answer(&engine_with(options(), &CacheOptions::default()), request.clone()).await;
    let engine = engine_with(options(), cache);
    let before = engine.memory();
    let generation = begun(&engine, background(request.clone())).await;
    let given = engine.reclaim(Reclaim::Background { spill }).await.unwrap().unwrap();
    let after = engine.memory();
    assert_eq!(given.sessions, 1);
    assert!(after.kv < before.kv);
    assert_eq!((given.expected_bytes, given.freed_bytes), (before.kv - after.kv, before.kv - after.kv));
    let held = stats(&engine).await;
    assert_eq!((held.running, held.parked, held.kv_cells_used), (0, 1, 0));

    // Somebody else uses the cells meanwhile.
    answer(&engine, super::request(words(8, 200), 60)).await;
    engine.resume();
    let wanted = stats(&engine).await.cells_wanted;
    if wanted > 0 {
        engine.resize(held.kv_cells + wanted).await.unwrap().unwrap();
    }
    let completion = outcome(generation).await.unwrap();
    (completion, alone, held, stats(&engine).await)
}

#[tokio::test]
async fn a_parked_answer_goes_on_with_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let schema = serde_json::json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 700},
        "b": {"type": "integer"}}, "required": ["a", "b"], "additionalProperties": false});
    let constrained = Request {
        constraint: Some(Constraint::JsonSchema(schema)),
        sampling: Sampling { temperature: 1.0, seed: Some(5), ..Sampling::default() },
        max_tokens: 900,
        ..Request::chat(vec![Message::user("Describe it.")])
    };
    for request in [request(words(1, 300), 500), sampled(words(1, 300), 500), constrained] {
        for (cache, spill) in [(in_memory(), false), (in_memory(), true), (on_disk(folder.path()), true)] {
            let (completion, alone, held, end) = parked(&cache, spill, &request).await;
            assert!(alone.usage.output_tokens > 100, "it was parked in the middle");
            assert_eq!(completion.tokens, alone.tokens, "{cache:?}");
            assert_eq!(completion.message, alone.message, "{cache:?}");
            assert_eq!(held.prompt_cache_bytes > 0, cache.spill.is_none(), "{held:?}");
            assert_eq!(held.spilled_bytes > 0, cache.spill.is_some(), "{held:?}");
            assert!(end.restored_tokens > 0 && end.parked == 0, "{end:?}");
        }
    }
}

#[tokio::test]
async fn a_parked_answer_whose_state_is_lost_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    for (cache, spill) in [(CacheOptions::default(), true), (on_disk(folder.path()), false)] {
        let (completion, alone, held, end) = parked(&cache, spill, &request(words(1, 300), 500)).await;
        assert_eq!(completion.tokens, alone.tokens);
        assert_eq!((held.prompt_cache_bytes, held.spilled_bytes), (0, 0), "nothing was kept, nothing was written");
        assert_eq!(end.restored_tokens, 0);
    }
}

#[tokio::test]
async fn only_background_requests_are_parked_and_only_until_they_may_go_on() {
    let engine = engine_with(options(), &in_memory());
    let alone = answer(&engine, request(words(1, 100), 200)).await;
    let other_alone = answer(&engine, request(words(2, 100), 200)).await;
    let interactive = begun(&engine, request(words(1, 100), 200)).await;
    let first = begun(&engine, background(request(words(2, 100), 200))).await;
    engine.reclaim(Reclaim::Background { spill: false }).await.unwrap().unwrap();
    let waiting = engine.submit(background(request(words(2, 100), 200)));
    engine.tokenize(Prompt::Tokens(vec![1])).await.unwrap().unwrap();
    let held = stats(&engine).await;
    assert_eq!((held.running, held.parked, held.waiting), (1, 1, 1), "new background requests wait too");
    assert_eq!(outcome(interactive).await.unwrap().tokens, alone.tokens, "beside a parked one");
    engine.resume();
    engine.resize(4096).await.unwrap().unwrap();
    assert_eq!(outcome(first).await.unwrap().tokens, other_alone.tokens);
    assert_eq!(outcome(waiting).await.unwrap().tokens, other_alone.tokens);
}

#[tokio::test]
async fn a_parked_request_can_be_cancelled_dropped_and_closed() {
    let engine = engine_with(options(), &in_memory());
    let session = open(&engine).await;
    let cancelled = begun(&engine, background(request(words(1, 100), 200))).await;
    let dropped = begun(&engine, background(request(words(2, 100), 200))).await;
    let closed = begun(&engine, background(of(session, request(words(3, 100), 200)))).await;
    engine.reclaim(Reclaim::Background { spill: false }).await.unwrap().unwrap();
    assert_eq!(stats(&engine).await.parked, 3);
    engine.cancel(cancelled.id);
    engine.close(session);
    assert_eq!(outcome(cancelled).await.unwrap().stop, locara_engine::StopReason::Cancelled);
    assert_eq!(outcome(closed).await.unwrap().stop, locara_engine::StopReason::Cancelled);
    let mut watch = engine.watch();
    drop(dropped);
    let end = watch.wait_for(|stats| stats.parked == 0).await.unwrap().clone();
    assert_eq!((end.sessions, end.prompt_cache_bytes, end.kv_cells_used), (0, 0, 0), "{end:?}");
}
