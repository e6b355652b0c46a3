//! The OpenAPI document.

use serde_json::Value;

use crate::host::{Server, parts};

#[tokio::test]
async fn the_committed_document_is_the_served_one() {
    let server = Server::start().await;
    let (status, served) = parts(server.get("/openapi.json").send().await.unwrap()).await;
    assert_eq!(status, 200);
    let committed: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    assert!(
        served == committed,
        "runtime/api/openapi.json is old: cargo run --release -p locara-api --example openapi > runtime/api/openapi.json"
    );
    // Every reference leads somewhere.
    let text = committed.to_string();
    for name in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(committed["components"]["schemas"].get(name).is_some(), "{name} is described nowhere");
    }
}
