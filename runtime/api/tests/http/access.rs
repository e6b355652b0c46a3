//! Who is let in.

use locara_api::{Access, Config, Key, Scope};
use serde_json::{Value, json};

use crate::host::{MODEL, Server, config, options, parts, user};

fn chat() -> Value {
    json!({"model": "default", "messages": user("Who are you?"), "max_tokens": 4})
}

#[tokio::test]
async fn a_rebound_name_and_a_foreign_page_are_refused_before_anything_else() {
    let server = Server::start().await;
    let rebound = server.post("/v1/chat/completions", &chat()).header("host", "evil.example");
    let (status, body) = parts(rebound.send().await.unwrap()).await;
    assert_eq!((status, &body["error"]["code"]), (403, &json!("forbidden")));
    let foreign = server.post("/v1/messages", &chat()).header("origin", "https://evil.example").send().await.unwrap();
    assert!(foreign.headers().get("access-control-allow-origin").is_none(), "no origin is reflected");
    let (status, body) = parts(foreign).await;
    assert_eq!((status, &body["type"], &body["error"]["type"]), (403, &json!("error"), &json!("permission_error")));
    let image = server.get("/v1/models").header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(image.status(), 403);
    assert!(server.host.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_page_of_this_machine_is_answered_with_its_origin() {
    let server = Server::start().await;
    let origin = "http://localhost:5173";
    let url = format!("http://{}/v1/chat/completions", server.address);
    let preflight = server
        .client
        .request(reqwest::Method::OPTIONS, url)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-origin"], origin);
    assert_eq!(preflight.headers()["access-control-allow-headers"], "authorization, content-type");
    let answer = server.post("/v1/chat/completions", &chat()).header("origin", origin).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], origin);
    assert_eq!(answer.headers()["vary"], "origin");
}

#[tokio::test]
async fn a_page_that_is_not_the_hosts_own_may_ask_models_only() {
    let listed = "https://desk.example";
    let access = Access { origins: vec![listed.into()], ..Access::default() };
    let server = Server::with(Config { access, ..config() }, options()).await;
    let unload = async |origin: &str| {
        let request = server.post("/admin/unload", &json!({"model": "default"})).header("origin", origin);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(unload("http://localhost:5173").await, 403);
    assert_eq!(unload(&format!("http://{}", server.address)).await, 200, "the host's own page");
    assert_eq!(unload(listed).await, 200);
    assert_eq!(server.host.unloaded.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn with_keys_every_request_needs_one_with_the_scope() {
    let keys = vec![
        Key::new("notes", "k-notes", vec![Scope::Inference]),
        Key::new("owner", "k-owner", vec![Scope::Inference, Scope::Models, Scope::Admin]),
    ];
    let config = Config { access: Access { keys, ..Access::default() }, ..config() };
    let server = Server::with(config, options()).await;
    let status = |request: reqwest::RequestBuilder| async { parts(request.send().await.unwrap()).await };
    let models = || server.get("/v1/models");
    let (code, body) = status(models()).await;
    assert_eq!((code, &body["error"]["code"]), (401, &json!("invalid_api_key")));
    assert_eq!(status(models().bearer_auth("wrong")).await.0, 401);
    assert_eq!(status(models().bearer_auth("k-notes")).await.0, 200);
    assert_eq!(status(models().header("x-api-key", "k-notes")).await.0, 200);
    let (code, body) = status(server.get("/admin/memory").bearer_auth("k-notes")).await;
    assert_eq!((code, &body["error"]["type"]), (403, &json!("permission_error")));
    assert!(body["error"]["message"].as_str().unwrap().contains("\"admin\""), "{body}");
    assert_eq!(status(server.get("/admin/memory").bearer_auth("k-owner")).await.0, 200);
    assert_eq!(status(server.get("/health")).await.0, 200, "a supervisor has no key");
    // The key is the client, whatever it calls itself.
    let named = server.post("/v1/chat/completions", &chat()).bearer_auth("k-notes").header("x-locara-client", "other");
    assert_eq!(status(named).await.0, 200);
    assert_eq!(server.host.asked.lock().unwrap()[0].client.0, "notes");
}

#[tokio::test]
async fn a_client_without_a_key_is_what_it_says_and_may_ask_for_the_batch_class() {
    let server = Server::start().await;
    let request = server.post("/v1/chat/completions", &chat()).header("x-locara-client", "notes");
    assert_eq!(request.header("x-locara-class", "batch").send().await.unwrap().status(), 200);
    let asked = server.host.asked.lock().unwrap().remove(0);
    assert_eq!((asked.client.0.as_str(), asked.class), ("notes", locara_engine::Class::Background));
    let wrong = server.post("/v1/chat/completions", &chat()).header("x-locara-class", "urgent");
    assert_eq!(parts(wrong.send().await.unwrap()).await.1["error"]["param"], "x-locara-class");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let server = Server::with(Config { max_body_bytes: 1000, ..config() }, options()).await;
    let body = json!({"model": MODEL, "messages": user(&"x".repeat(2000))});
    let (status, answer) = server.ask("/v1/chat/completions", body.clone()).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("request_too_large")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("1000"), "{answer}");
    // Without an announced length too.
    let bytes = body.to_string();
    let stream = reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(bytes)]));
    let url = format!("http://{}/v1/chat/completions", server.address);
    let (status, answer) = parts(server.client.post(url).body(stream).send().await.unwrap()).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("request_too_large")));
}

#[tokio::test]
async fn every_response_names_the_server_and_its_request() {
    let server = Server::start().await;
    let response = server.get("/nowhere").send().await.unwrap();
    assert_eq!(response.headers()["server"], "locara/test");
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    let (status, body) = parts(response).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not_found")));
    let own = server.get("/v1/chat/completions").header("x-request-id", "mine").send().await.unwrap();
    assert_eq!(own.headers()["x-request-id"], "mine");
    let (status, body) = parts(own).await;
    assert_eq!((status, &body["error"]["code"]), (405, &json!("method_not_allowed")));
}
