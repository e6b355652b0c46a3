//! `/api/…`.

use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::{
    host::{MODEL, Server, parts, user},
    openai_chat::endless,
};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stable(mut value: Value) -> Value {
    for (field, word) in [
        ("created_at", json!("TIME")),
        ("total_duration", json!(0)),
        ("prompt_eval_duration", json!(0)),
        ("eval_duration", json!(0)),
    ] {
        if value.get(field).is_some() {
            value[field] = word;
        }
    }
    value
}

#[tokio::test]
async fn a_chat_streams_lines_and_says_the_same_without() {
    let server = Server::start().await;
    let mut body = json!({"model": "default:latest", "messages": user("Who are you?"), "options": {"num_ctx": 4096, "num_gpu": 99}});
    let response = server.post("/api/chat", &body).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let lines = lines(&response.text().await.unwrap());
    let said: String = lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    assert!(lines[..lines.len() - 1].iter().all(|line| line["done"] == false));
    let last = lines.last().unwrap();
    assert!(last["total_duration"].as_u64().unwrap() >= last["eval_duration"].as_u64().unwrap());
    body["stream"] = json!(false);
    let (_, whole) = server.ask("/api/chat", body).await;
    assert_eq!(whole["message"]["content"], said);
    assert_json_snapshot!([stable(lines[0].clone()), stable(last.clone())]);
}

#[tokio::test]
async fn a_prompt_is_answered_and_a_raw_one_is_continued() {
    let server = Server::start().await;
    let body = json!({"model": MODEL, "system": "Be brief.", "prompt": "Who are you?", "stream": false});
    let (status, answer) = server.ask("/api/generate", body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer["response"].as_str().unwrap().is_empty());
    let body = json!({"model": MODEL, "prompt": "The", "raw": true, "options": {"num_predict": 4}});
    let lines = lines(&server.text("/api/generate", body).await);
    let last = lines.last().unwrap();
    assert_eq!((&last["done_reason"], &last["eval_count"]), (&json!("length"), &json!(4)));
    assert!(last["prompt_eval_count"].as_u64().unwrap() < 5, "no template: {last}");
}

#[tokio::test]
async fn a_tool_is_offered_and_a_format_is_kept_to() {
    let server = Server::start().await;
    let tools = json!([{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
    let mut messages = user("What is the weather in Paris?");
    let body = json!({"model": "default", "messages": messages, "tools": tools, "stream": false});
    let (_, answer) = server.ask("/api/chat", body).await;
    let call = &answer["message"]["tool_calls"][0]["function"];
    assert_eq!((&call["name"], call["arguments"].is_object()), (&json!("get_weather"), true), "{answer}");
    messages
        .as_array_mut()
        .unwrap()
        .extend([answer["message"].clone(), json!({"role": "tool", "tool_name": "get_weather", "content": "clear"})]);
    let (status, _) = server.ask("/api/chat", json!({"model": "default", "messages": messages, "stream": false})).await;
    assert_eq!(status, 200);
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": false});
    for (format, field) in [(json!("json"), None), (schema, Some("age"))] {
        let body = json!({"model": "default", "messages": user("Extract name and age as JSON: Orla is 31."), "format": format, "stream": false});
        let (_, answer) = server.ask("/api/chat", body).await;
        let value: Value = serde_json::from_str(answer["message"]["content"].as_str().unwrap()).unwrap();
        assert!(value.is_object() && field.is_none_or(|field| value[field].is_i64()), "{value}");
    }
}

#[tokio::test]
async fn an_empty_request_loads_and_one_without_time_unloads() {
    let server = Server::start().await;
    let (_, answer) = server.ask("/api/generate", json!({"model": "default", "keep_alive": "10m"})).await;
    assert_eq!((&answer["done_reason"], &answer["model"]), (&json!("load"), &json!(MODEL)));
    assert!(server.host.unloaded.lock().unwrap().is_empty());
    let (_, answer) = server.ask("/api/chat", json!({"model": "default", "messages": [], "keep_alive": 0})).await;
    assert_eq!(answer["done_reason"], "unload");
    assert_eq!(*server.host.unloaded.lock().unwrap(), ["default"]);
}

#[tokio::test]
async fn models_are_listed_shown_and_managed() {
    let server = Server::start().await;
    let get = |path: &'static str| async { parts(server.get(path).send().await.unwrap()).await.1 };
    let ps = get("/api/ps").await;
    assert_eq!(ps["models"][0]["context_length"], 1024);
    assert!(ps["models"][0]["size"].as_u64() > ps["models"][0]["size_vram"].as_u64(), "the mapped weights come on top");
    assert!(get("/api/version").await["version"].is_string());
    assert_json_snapshot!([get("/api/tags").await, server.ask("/api/show", json!({"model": "default"})).await.1]);

    let pull = |name: &'static str| server.post("/api/pull", &json!({"model": name})).send();
    let text = pull("there").await.unwrap().text().await.unwrap();
    assert_json_snapshot!(lines(&text));
    let torn = lines(&pull("torn").await.unwrap().text().await.unwrap());
    assert_eq!(torn.last().unwrap()["error"], "cut off");
    assert_eq!(parts(pull("nobody").await.unwrap()).await.0, 404, "a refusal at once has its status");
    assert_eq!(
        server.ask("/api/pull", json!({"name": "there", "stream": false})).await.1,
        json!({"status": "success"})
    );
    assert_eq!(server.ask("/api/pull", json!({"name": "torn", "stream": false})).await.0, 500);

    let delete = |name: &str| {
        server.client.delete(format!("http://{}/api/delete", server.address)).json(&json!({"model": name})).send()
    };
    assert_eq!(delete(MODEL).await.unwrap().status(), 200);
    assert_eq!(delete("nobody").await.unwrap().status(), 404);
    let (status, answer) = server.ask("/api/copy", json!({"source": "a", "destination": "b"})).await;
    assert_eq!((status, &answer["code"]), (501, &json!("not_implemented")), "this host does not");
}

#[tokio::test]
async fn errors_have_their_shape() {
    let server = Server::start().await;
    let (status, body) = server.ask("/api/chat", json!({"model": "nobody", "messages": user("Hi")})).await;
    assert_eq!(status, 404);
    assert!(body["error"].as_str().unwrap().contains("nobody"), "{body}");
    for (body, path) in [
        (json!({"model": "default", "messages": user("Hi"), "options": {"temperature": "hot"}}), "options.temperature"),
        (json!({"model": "default", "messages": user("Hi"), "options": {"temperature": 9}}), "options.temperature"),
        (json!({"model": "default", "messages": user("Hi"), "options": {"num_predict": 0}}), "options.num_predict"),
        (
            json!({"model": "default", "messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}),
            "messages[0].images",
        ),
        (json!({"model": "default", "messages": user("Hi"), "format": {"type": "objekt"}}), "format.type"),
        (json!({"model": "default", "messages": user("Hi"), "format": "yaml"}), "format"),
        (json!({"model": 7}), "model"),
    ] {
        let (status, answer) = server.ask("/api/chat", body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().starts_with(&format!("{path}: ")), "{answer}");
    }
    let (status, answer) =
        server.ask("/api/generate", json!({"model": "default", "prompt": "word ".repeat(3000)})).await;
    assert_eq!((status, &answer["code"]), (400, &json!("context_length_exceeded")));
}

#[tokio::test]
async fn tokens_are_told_how_likely_they_were() {
    let server = Server::start().await;
    let body = json!({"model": "default", "prompt": "Who are you?", "logprobs": true, "top_logprobs": 2, "options": {"num_predict": 4}});
    let lines = lines(&server.text("/api/generate", body).await);
    let tokens: Vec<&Value> = lines.iter().flat_map(|line| line["logprobs"].as_array().into_iter().flatten()).collect();
    assert_eq!(tokens.len(), 4, "{lines:?}");
    assert!(tokens.iter().all(|token| token["logprob"].as_f64().unwrap() <= 0.0));
    assert_eq!(tokens[0]["token"], tokens[0]["top_logprobs"][0]["token"], "greedy takes the first");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let server = Server::start().await;
    let mut body = endless(900);
    body["format"] = json!({"type": "array", "minItems": 3000, "items": {"type": "integer"}});
    body["options"] = json!({"num_predict": 900});
    let mut response = server.post("/api/chat", &body).send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    server.engine_is(|stats| stats.running == 0 && stats.finished == 1).await;
    assert!(server.host.engine.stats().await.unwrap().unwrap().decoded < 900);
}
