//! Health, readiness, metrics and the owner's routes.

use std::time::Duration;

use locara_api::Config;
use serde_json::{Value, json};

use crate::host::{MODEL, Server, config, data, options, parts, user};

async fn get(server: &Server, path: &str) -> (u16, Value) {
    parts(server.get(path).send().await.unwrap()).await
}

#[tokio::test]
async fn health_is_tied_to_the_engine() {
    // A bound of no time at all: every engine that is in the middle of something counts as stalled.
    let server = Server::with(Config { stall_after: Duration::ZERO, ..config() }, options()).await;
    let (status, health) = get(&server, "/health").await;
    assert_eq!((status, &health["status"]), (200, &json!("ok")), "an idle engine is healthy: {health}");
    let mut body = crate::openai_chat::endless(900);
    body["stream"] = json!(true);
    let request = tokio::spawn(server.post("/v1/chat/completions", &body).send());
    server.engine_is(|stats| stats.running == 1).await;
    let _response = request.await.unwrap().unwrap();
    let mut stalled = false;
    while server.host.engine.stats().await.unwrap().unwrap().running == 1 && !stalled {
        let (status, health) = get(&server, "/health").await;
        stalled = status == 503 && health["engines"][0]["stalled_s"] == 0 && health["status"] == "stalled";
    }
    assert!(stalled, "a busy engine was seen without progress within no time");
    let server = Server::start().await;
    assert_eq!(get(&server, "/health").await.1["engines"][0]["model"], MODEL);
}

#[tokio::test]
async fn readiness_names_what_fails() {
    let server = Server::start().await;
    let (status, ready) = get(&server, "/ready").await;
    assert_eq!((status, &ready["ready"], &ready["checks"]), (200, &json!(true), &json!(["config", "model-store"])));
    *server.host.failing.lock().unwrap() = Some("the disk is full; free 2 GB".into());
    let (status, ready) = get(&server, "/ready").await;
    assert_eq!(status, 503);
    assert_eq!(ready["failing"], json!([{"check": "model-store", "reason": "the disk is full; free 2 GB"}]));
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let server = Server::start().await;
    let chat = json!({"model": "default", "messages": user("Who are you?"), "max_tokens": 5});
    assert_eq!(server.ask("/v1/chat/completions", chat.clone()).await.0, 200);
    let batch = server.post("/v1/messages", &chat).header("x-locara-class", "batch").send().await.unwrap();
    assert_eq!(batch.status(), 200);
    assert_eq!(server.ask("/api/chat", json!({"model": "nobody", "messages": user("Hi")})).await.0, 404);
    let response = server.get("/metrics").send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    for line in [
        format!(r#"locara_answers_total{{model="{MODEL}",class="interactive",outcome="length"}} 1"#),
        format!(r#"locara_answers_total{{model="{MODEL}",class="batch",outcome="length"}} 1"#),
        format!(r#"locara_output_tokens_total{{model="{MODEL}"}} 10"#),
        format!(r#"locara_engine_decoded_tokens{{model="{MODEL}"}} 10"#),
        r#"locara_http_requests_total{dialect="ollama",status="404"} 1"#.into(),
        r#"locara_time_to_first_token_seconds_count{class="batch"} 1"#.into(),
    ] {
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
    assert!(text.ends_with("# EOF\n"));
    let (_, stats) = get(&server, "/v1/batch/stats").await;
    assert_eq!((&stats["classes"][1]["class"], &stats["classes"][1]["finished"]), (&json!("batch"), &json!(1)));
    assert!(stats["classes"][0]["wait_ms"]["p95"].is_f64());
    assert_eq!((&stats["engines"][0]["places"], &stats["engines"][0]["finished"]), (&json!(4), &json!(2)));
}

#[tokio::test]
async fn the_owner_loads_unloads_and_watches() {
    let server = Server::start().await;
    let (status, loaded) = server.ask("/admin/load", json!({"model": "default"})).await;
    assert_eq!((status, &loaded["model"]), (200, &json!(MODEL)));
    assert!(loaded["memory"]["kv"].as_u64().unwrap() > 0);
    assert_eq!(server.ask("/admin/load", json!({"model": "huge"})).await.0, 507);
    assert_eq!(server.ask("/admin/unload", json!({"model": "default"})).await.0, 200);
    assert_eq!(*server.host.unloaded.lock().unwrap(), ["default"]);
    assert_eq!(get(&server, "/admin/memory").await.1["reserved_bytes"], 1);
    assert_eq!(get(&server, "/admin/sessions").await.1["engines"][0]["model"], MODEL);
    let events = server.get("/admin/events").send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert_eq!(data(&events.text().await.unwrap()), [json!({"event": "loaded", "model": MODEL})]);
}
