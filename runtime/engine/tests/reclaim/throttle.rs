//! What is taken on under pressure, and in which order.

use locara_engine::{Admit, Class, StopReason, Throttle};

use super::*;

fn background(request: Request) -> Request {
    Request { class: Class::Background, ..request }
}

/// Everything submitted so far has reached the queue: it goes through the same thread.
async fn queued(engine: &LlamaEngine) {
    engine.tokenize(Prompt::Tokens(vec![1])).await.unwrap().unwrap();
}

#[tokio::test]
async fn background_requests_wait_while_only_interactive_ones_are_taken() {
    let engine = engine_with(options(), &CacheOptions::default());
    engine.throttle(Throttle { admit: Admit::Interactive, ..Throttle::default() });
    let waiting = engine.submit(background(request(words(1, 20), 5)));
    answer(&engine, request(words(2, 20), 5)).await;
    queued(&engine).await;
    let now = stats(&engine).await;
    assert_eq!((now.waiting, now.running, now.finished), (1, 0, 1));
    engine.throttle(Throttle::default());
    assert_eq!(outcome(waiting).await.unwrap().usage.output_tokens, 5);
}

#[tokio::test]
async fn when_nothing_is_taken_what_waits_and_what_comes_is_told_when_to_return() {
    let engine = engine_with(LoadOptions { n_seq_max: 1, ..options() }, &CacheOptions::default());
    let alone = answer(&engine, request(words(1, 20), 300)).await.tokens;
    let running = begun(&engine, request(words(1, 20), 300)).await;
    let waiting = engine.submit(request(words(2, 20), 5));
    queued(&engine).await;
    engine.throttle(Throttle { admit: Admit::Nothing { retry_after_ms: 1234 }, ..Throttle::default() });
    let coming = engine.submit(request(words(2, 20), 5));
    for refused in [waiting, coming] {
        assert_eq!(outcome(refused).await.unwrap_err(), EngineError::Throttled { retry_after_ms: 1234 });
    }
    assert_eq!(outcome(running).await.unwrap().tokens, alone, "what runs is not touched");
    assert_eq!(stats(&engine).await.waiting, 0);
    engine.throttle(Throttle::default());
    answer(&engine, request(words(2, 20), 5)).await;
}

#[tokio::test]
async fn answers_become_shorter_and_steps_smaller_only_for_what_comes() {
    let engine = engine_with(options(), &CacheOptions::default());
    let alone = answer(&engine, request(words(1, 250), 300)).await.tokens;
    let running = begun(&engine, request(words(1, 250), 300)).await;
    engine.throttle(Throttle { n_batch: Some(16), max_tokens: Some(7), n_threads: Some(1), ..Throttle::default() });
    let before = stats(&engine).await.steps;
    let short = answer(&engine, request(words(1, 250), 300)).await;
    assert!(stats(&engine).await.steps - before >= 250 / 16, "the prompt took many small steps");
    assert_eq!((short.stop, short.usage.output_tokens), (StopReason::MaxTokens, 7));
    assert_eq!(short.tokens, alone[..7]);
    assert_eq!(outcome(running).await.unwrap().tokens, alone);
    // Nonsense is bounded, not obeyed.
    engine.throttle(Throttle {
        n_batch: Some(0),
        max_tokens: Some(0),
        n_seq: Some(1),
        n_threads: Some(0),
        ..Throttle::default()
    });
    assert_eq!(answer(&engine, request(words(1, 250), 300)).await.tokens, alone[..1]);
    engine.throttle(Throttle {
        n_batch: Some(u32::MAX),
        max_tokens: Some(u32::MAX),
        n_seq: Some(u32::MAX),
        n_threads: Some(u32::MAX),
        ..Throttle::default()
    });
    assert_eq!(answer(&engine, request(words(1, 250), 300)).await.tokens, alone);
}

#[tokio::test]
async fn fewer_requests_run_at_once() {
    let engine = engine_with(options(), &CacheOptions::default());
    engine.throttle(Throttle { n_seq: Some(2), ..Throttle::default() });
    let held = [begun(&engine, request(words(1, 20), 300)).await, begun(&engine, request(words(2, 20), 300)).await];
    let third = engine.submit(request(words(3, 20), 5));
    queued(&engine).await;
    assert_eq!((stats(&engine).await.running, stats(&engine).await.waiting), (2, 1));
    engine.throttle(Throttle::default());
    outcome(third).await.unwrap();
    drop(held);
}

#[tokio::test]
async fn interactive_goes_first_but_background_does_not_starve() {
    let engine = engine_with(LoadOptions { n_seq_max: 1, ..options() }, &CacheOptions::default());
    let place = begun(&engine, request(words(1, 20), 300)).await;
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..14 {
        // Two background requests come first.
        let request = request(words(n, 20), 2);
        let generation = engine.submit(if n < 2 { background(request) } else { request });
        let order = std::sync::Arc::clone(&order);
        tasks.push(tokio::spawn(async move {
            outcome(generation).await.unwrap();
            order.lock().unwrap().push(n);
        }));
    }
    queued(&engine).await;
    assert_eq!(stats(&engine).await.waiting, 14);
    drop(place);
    for task in tasks {
        task.await.unwrap();
    }
    // One place: they end in the order in which they were admitted.
    assert_eq!(*order.lock().unwrap(), [2, 3, 4, 5, 6, 7, 8, 9, 0, 10, 11, 12, 13, 1]);
}

#[tokio::test]
async fn a_watcher_hears_of_requests_that_come_and_go() {
    let engine = engine_with(options(), &CacheOptions::default());
    let mut watch = engine.watch();
    let generation = begun(&engine, request(words(1, 20), 300)).await;
    watch.wait_for(|stats| stats.running == 1).await.unwrap();
    drop(generation);
    let end = watch.wait_for(|stats| stats.running == 0 && stats.finished == 1).await.unwrap().clone();
    assert_eq!((end.sessions, end.kv_cells_used), (0, 0));
    drop(engine);
    assert!(watch.changed().await.is_err(), "the channel ends with the engine");
}

#[tokio::test]
async fn a_pause_keeps_the_cells_and_the_tokens() {
    let engine = engine_with(options(), &CacheOptions::default());
    let alone = answer(&engine, request(words(1, 20), 300)).await.tokens;
    let paused = Throttle { n_seq: Some(0), ..Throttle::default() };
    let mut running = engine.submit(request(words(1, 20), 300));
    while !matches!(running.events.recv().await.unwrap(), Event::Text(_)) {}
    engine.throttle(paused);
    let before = stats(&engine).await;
    let waiting = engine.submit(request(words(2, 20), 5));
    queued(&engine).await;
    for _ in 0..50 {
        let now = stats(&engine).await;
        assert_eq!((now.steps, now.running, now.waiting), (before.steps, 1, 1));
    }
    // Who goes away during a pause is gone.
    let gone = engine.submit(request(words(3, 20), 5));
    queued(&engine).await;
    assert_eq!(stats(&engine).await.waiting, 2);
    drop(gone);
    while stats(&engine).await.waiting == 2 {}
    engine.throttle(Throttle::default());
    assert_eq!(outcome(running).await.unwrap().tokens, alone);
    assert_eq!(outcome(waiting).await.unwrap().usage.output_tokens, 5);
}
