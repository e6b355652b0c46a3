//! `/v1/messages`.

use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::{
    host::{MODEL, Server, data, parts, user},
    openai_chat::endless,
};

const MESSAGES: &str = "/v1/messages";

fn stable(mut value: Value) -> Value {
    for path in ["/id", "/message/id"] {
        if let Some(id) = value.pointer_mut(path) {
            assert!(id.as_str().unwrap().starts_with("msg_"));
            *id = json!("ID");
        }
    }
    value
}

fn ask(text: &str) -> Value {
    json!({"model": "default", "max_tokens": 64, "messages": user(text)})
}

fn weather() -> Value {
    json!([{"name": "get_weather", "description": "The weather of a city.", "input_schema":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}])
}

/// Names of the events, in order.
fn events(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
}

#[tokio::test]
async fn an_answer() {
    let server = Server::start().await;
    let mut body = ask("Who are you?");
    body["system"] = json!([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]);
    let (status, answer) = server.ask(MESSAGES, body).await;
    assert_eq!(status, 200, "{answer}");
    assert_json_snapshot!(stable(answer));
}

#[tokio::test]
async fn a_stream_says_the_same_as_the_answer() {
    let server = Server::start().await;
    let mut body = ask("Who are you?");
    let (_, whole) = server.ask(MESSAGES, body.clone()).await;
    body["stream"] = json!(true);
    let text = server.text(MESSAGES, body).await;
    let names = events(&text);
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert!(names[2..names.len() - 3].iter().all(|name| *name == "content_block_delta"));
    let data = data(&text);
    assert!(data.iter().zip(&names).all(|(data, name)| data["type"] == *name), "the name is in the data too");
    let said: String = data.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(said, whole["content"][0]["text"]);
    let start = stable(data[0].clone());
    let prompt = whole["usage"]["input_tokens"].as_u64().unwrap();
    assert_eq!(start["message"]["usage"]["input_tokens"], prompt);
    let end = &data[data.len() - 2];
    let usage = &end["usage"];
    assert_eq!(usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap(), prompt);
    assert_eq!(
        (&end["delta"]["stop_reason"], &usage["output_tokens"]),
        (&json!("end_turn"), &whole["usage"]["output_tokens"])
    );
    assert_json_snapshot!([start, data[1].clone()]);
}

#[tokio::test]
async fn a_tool_is_called_and_its_result_is_read() {
    let server = Server::start().await;
    let mut body = ask("What is the weather in Paris?");
    body["tools"] = weather();
    body["tool_choice"] = json!({"type": "any", "disable_parallel_tool_use": true});
    let (status, answer) = server.ask(MESSAGES, body.clone()).await;
    assert_eq!((status, &answer["stop_reason"]), (200, &json!("tool_use")), "{answer}");
    let call = answer["content"].as_array().unwrap().last().unwrap();
    assert_eq!((&call["type"], &call["name"]), (&json!("tool_use"), &json!("get_weather")));
    assert!(call["input"]["city"].is_string());

    body["stream"] = json!(true);
    body["tool_choice"] = json!({"type": "tool", "name": "get_weather"});
    let text = server.text(MESSAGES, body.clone()).await;
    let data = data(&text);
    let start = data.iter().find(|event| event["type"] == "content_block_start").unwrap();
    assert_eq!((&start["content_block"]["type"], &start["content_block"]["input"]), (&json!("tool_use"), &json!({})));
    let partial: String = data.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&partial).unwrap(), call["input"]);

    let mut turns = user("What is the weather in Paris?");
    let turns = turns.as_array_mut().unwrap();
    turns
        .push(json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, call]}));
    let result =
        json!({"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "clear"}]});
    turns.push(json!({"role": "user", "content": [result, {"type": "text", "text": "And now?"}]}));
    body["messages"] = json!(turns);
    body["stream"] = json!(false);
    body["tool_choice"] = json!({"type": "none"});
    let (status, answer) = server.ask(MESSAGES, body).await;
    assert_eq!((status, &answer["content"][0]["type"]), (200, &json!("text")), "{answer}");
}

#[tokio::test]
async fn stop_sequences_and_bounds_are_told_apart() {
    let server = Server::start().await;
    let mut body = ask("Repeat: alpha beta gamma delta");
    body["stop_sequences"] = json!(["gamma"]);
    let (_, answer) = server.ask(MESSAGES, body.clone()).await;
    assert_eq!((&answer["stop_reason"], &answer["stop_sequence"]), (&json!("stop_sequence"), &json!("gamma")));
    body["max_tokens"] = json!(1);
    let (_, answer) = server.ask(MESSAGES, body).await;
    assert_eq!(answer["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn a_schema_is_kept_to() {
    let server = Server::start().await;
    let mut body = ask("Extract name and age as JSON: Orla is 31.");
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": false});
    body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
    let (_, answer) = server.ask(MESSAGES, body).await;
    let person: Value = serde_json::from_str(answer["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(person["age"].is_i64());
}

#[tokio::test]
async fn tokens_are_counted_as_the_answer_counts_them() {
    let server = Server::start().await;
    let mut body = ask("What is the weather in Paris?");
    body["tools"] = weather();
    let (_, answer) = server.ask(MESSAGES, body.clone()).await;
    body.as_object_mut().unwrap().remove("max_tokens");
    let (status, count) = server.ask("/v1/messages/count_tokens", body).await;
    assert_eq!((status, &count["input_tokens"]), (200, &answer["usage"]["input_tokens"]));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let server = Server::start().await;
    let mut body = endless(900);
    body.as_object_mut().unwrap().remove("structured_outputs");
    // Banned from ending by a schema that takes long to fill.
    body["output_config"] = json!({"format": {"type": "json_schema", "schema": {"type": "array", "minItems": 3000, "items": {"type": "integer"}}}});
    body["stream"] = json!(true);
    let mut response = server.post(MESSAGES, &body).send().await.unwrap();
    while !String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()).contains("content_block_delta") {}
    drop(response);
    server.engine_is(|stats| stats.running == 0 && stats.finished == 1).await;
    assert!(server.host.engine.stats().await.unwrap().unwrap().decoded < 900);
}

#[tokio::test]
async fn errors_have_their_shape() {
    let server = Server::start().await;
    let mut seen = Vec::new();
    let mut cases = Vec::new();
    for model in ["nobody", "huge", "busy", "short"] {
        let mut body = ask("Hi");
        body["model"] = json!(model);
        cases.push(body);
    }
    for (field, value) in [
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "source": {}}]}]),
        ),
        ("messages", json!([{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}])),
        ("messages", json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "The answer is ("}])),
        ("messages", json!([{"role": "user", "content": [{"type": 7}]}])),
        ("messages", user(&"word ".repeat(3000))),
        ("system", json!(7)),
        ("tools", json!([{"type": "web_search_20250305", "name": "web_search"}])),
        ("tools", json!([{"name": "f", "input_schema": {"required": "a"}}])),
        ("tool_choice", json!({"type": "tool", "name": "g"})),
        ("thinking", json!({"type": "enabled", "budget_tokens": "many"})),
    ] {
        let mut body = ask("Hi");
        body[field] = value;
        cases.push(body);
    }
    for body in cases {
        let (status, answer) = server.ask(MESSAGES, body).await;
        assert_eq!(answer["type"], "error");
        let error = &answer["error"];
        seen.push(format!("{status} | {} | {} | {}", error["type"], error["details"], error["message"]));
    }
    insta::assert_snapshot!(seen.join("\n"));
}

#[tokio::test]
async fn its_clients_read_the_list_of_models() {
    let server = Server::start().await;
    let list = server.get("/v1/models").header("anthropic-version", "2023-06-01");
    let (_, list) = parts(list.send().await.unwrap()).await;
    assert_eq!(
        (&list["data"][0]["type"], &list["has_more"], &list["last_id"]),
        (&json!("model"), &json!(false), &json!(MODEL))
    );
    let unknown = server.get("/v1/models/nobody").header("anthropic-version", "2023-06-01");
    assert_eq!(parts(unknown.send().await.unwrap()).await.1["error"]["type"], "not_found_error");
}
