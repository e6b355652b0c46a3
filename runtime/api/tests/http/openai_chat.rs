//! `/v1/chat/completions` and `/v1/models`.

use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::host::{MODEL, Server, config, data, options, parts, user};

const CHAT: &str = "/v1/chat/completions";

fn weather() -> Value {
    json!([{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}])
}

/// An answer that goes on until its bound: it is not complete before.
pub(crate) fn endless(max_tokens: u32) -> Value {
    json!({"model": "default", "messages": user("Tell me a story about a lamp."), "max_tokens": max_tokens,
        "structured_outputs": {"regex": "[a-z ]{9000,10000}"}, "temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0,
        "seed": 1})
}

fn stable(mut value: Value) -> Value {
    for (field, word) in [("id", json!("ID")), ("created", json!(0))] {
        if value.get(field).is_some() {
            value[field] = word;
        }
    }
    value
}

#[tokio::test]
async fn an_answer() {
    let server = Server::start().await;
    let body = json!({"model": "default", "messages": user("Who are you?"), "unknown_field": {"a": 1}, "user": null});
    let (status, answer) = server.ask(CHAT, body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl"));
    assert!(answer["created"].as_i64().unwrap() > 1_700_000_000);
    assert_json_snapshot!(stable(answer));
}

#[tokio::test]
async fn a_stream_says_the_same_as_the_answer() {
    let server = Server::start().await;
    let mut body = json!({"model": "default", "messages": user("Who are you?")});
    let (_, whole) = server.ask(CHAT, body.clone()).await;
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let text = server.text(CHAT, body).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let chunks = data(&text);
    let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, whole["choices"][0]["message"]["content"]);
    let ids: std::collections::BTreeSet<_> = chunks.iter().map(|chunk| chunk["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert_json_snapshot!([stable(chunks[0].clone()), stable(chunks[chunks.len() - 2].clone())]);
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    assert_eq!(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
}

#[tokio::test]
async fn a_tool_is_called_when_it_must_be() {
    let server = Server::start().await;
    let mut body = json!({"model": "tool-calling", "messages": user("What is the weather in Paris?"),
        "tools": weather(), "tool_choice": "required", "max_tokens": 64});
    let (status, answer) = server.ask(CHAT, body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("get_weather")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string());

    body["stream"] = json!(true);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "get_weather"}});
    let chunks = data(&server.text(CHAT, body).await);
    let deltas: Vec<_> = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert_eq!(deltas[0]["function"], json!({"name": "get_weather", "arguments": ""}));
    assert!(deltas.iter().all(|delta| delta["index"] == 0));
    let streamed: String = deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&streamed).unwrap(), arguments);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn the_result_of_a_tool_is_read() {
    let server = Server::start().await;
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": "What is the weather in Paris?"}]},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
            "function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "{\"sky\": \"clear\"}"}]);
    let (status, answer) =
        server.ask(CHAT, json!({"model": "default", "messages": messages, "tools": weather()})).await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer["choices"][0]["message"]["content"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn answers_keep_to_schema_regex_choice_and_grammar() {
    let server = Server::start().await;
    let say = |mut extra: Value| {
        extra["model"] = json!("default");
        extra["messages"] = user("Extract name and age as JSON: Orla is 31.");
        extra["max_tokens"] = json!(200);
        async { server.ask(CHAT, extra).await.1["choices"][0]["message"]["content"].as_str().unwrap().to_owned() }
    };
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer"}, "name": {"type": "string", "maxLength": 10}},
        "required": ["age", "name"], "additionalProperties": false});
    let json_schema = json!({"type": "json_schema", "json_schema": {"name": "p", "strict": true, "schema": schema}});
    let person: Value = serde_json::from_str(&say(json!({ "response_format": json_schema })).await).unwrap();
    assert!(person["age"].is_i64() && person["name"].is_string(), "{person}");
    assert_eq!(say(json!({"structured_outputs": {"choice": ["(a|b)*"]}})).await, "(a|b)*");
    let digits = say(json!({"structured_outputs": {"regex": "[0-9]{3}-[0-9]{2}"}})).await;
    assert_eq!((digits.len(), &digits[3..4]), (6, "-"));
    assert_eq!(say(json!({"structured_outputs": {"grammar": "start: \"on\" \" \" \"off\"\n"}})).await, "on off");
}

#[tokio::test]
async fn several_answers_differ_and_repeat_with_the_seed() {
    let server = Server::start().await;
    let body = json!({"model": "default", "messages": user("Tell me a story about a lamp."), "n": 3, "seed": -5,
        "temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0, "max_tokens": 12});
    let texts = |answer: Value| -> Vec<String> {
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["message"]["content"].to_string()).collect()
    };
    let (_, first) = server.ask(CHAT, body.clone()).await;
    assert_eq!(first["choices"][2]["index"], 2);
    let (first, again) = (texts(first), texts(server.ask(CHAT, body).await.1));
    assert_eq!(first.len(), 3);
    assert!(first[0] != first[1] && first[1] != first[2], "{first:?}");
    assert_eq!(first, again);
}

#[tokio::test]
async fn a_bias_and_a_stop_string_change_the_answer() {
    let server = Server::start().await;
    let body =
        json!({"model": "default", "messages": user("Repeat: alpha beta gamma delta"), "stop": ["gam", "delta"]});
    let (_, answer) = server.ask(CHAT, body).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert!(!choice["message"]["content"].as_str().unwrap().contains("gam"), "{choice}");
    let body = json!({"model": "default", "messages": user("Hello"), "max_tokens": 3, "logit_bias": {"70": 100}});
    let (_, answer) = server.ask(CHAT, body).await;
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let first = content.chars().next().unwrap();
    assert!(content.chars().all(|c| c == first), "one token only: {content:?}");
}

#[tokio::test]
async fn an_answer_longer_than_the_context_gets_what_is_left() {
    let server = Server::start().await;
    let (status, answer) = server.ask(CHAT, endless(1_000_000)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["total_tokens"], 1024);
}

#[tokio::test]
async fn an_answer_that_runs_into_a_loop_is_stopped() {
    let server = Server::start().await;
    let mut body = endless(900);
    body["temperature"] = json!(0);
    let (_, answer) = server.ask(CHAT, body).await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["locara"]), (&json!("length"), &json!({"ended_by": "repetition"})));
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() < 400, "{answer}");
}

#[tokio::test]
async fn a_prompt_longer_than_the_context_is_refused_before_prefill_with_both_counts() {
    let server = Server::start().await;
    for stream in [false, true] {
        let body = json!({"model": "default", "messages": user(&"word ".repeat(3000)), "stream": stream});
        let (status, answer) = server.ask(CHAT, body).await;
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
        let prompt = error["numbers"]["prompt_tokens"].as_u64().unwrap();
        assert_eq!(error["numbers"]["context_tokens"], 1024);
        let message = error["message"].as_str().unwrap();
        assert!(prompt > 1024 && message.contains(&prompt.to_string()) && message.contains("1024"), "{message}");
    }
    assert_eq!(server.host.engine.stats().await.unwrap().unwrap().prefilled, 0);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let server = Server::start().await;
    let mut body = endless(900);
    for stream in [true, false] {
        body["stream"] = json!(stream);
        let request = tokio::spawn(server.post(CHAT, &body).send());
        server.engine_is(|stats| stats.running == 1).await;
        // A stream's response is here by now and unread, the other is still waited for.
        request.abort();
        let _ = request.await;
        server.engine_is(|stats| stats.running == 0 && stats.waiting == 0).await;
    }
    let stats = server.host.engine.stats().await.unwrap().unwrap();
    assert!(stats.decoded < 1500, "neither ran to its end: {stats:?}");
}

#[tokio::test]
async fn tokens_are_told_how_likely_they_were() {
    let server = Server::start().await;
    let mut body = json!({"model": "default", "messages": user("Who are you?"), "max_tokens": 64, "logprobs": true, "top_logprobs": 3});
    let (_, answer) = server.ask(CHAT, body.clone()).await;
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    // Not the end of the turn: it is no text.
    assert_eq!(tokens.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());
    assert_eq!(tokens[0]["top_logprobs"].as_array().unwrap().len(), 3);
    assert_eq!(tokens[0]["logprob"], tokens[0]["top_logprobs"][0]["logprob"], "greedy takes the first");
    let text: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token["bytes"].as_array().unwrap())
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect();
    assert_eq!(String::from_utf8(text).unwrap(), answer["choices"][0]["message"]["content"]);
    body["stream"] = json!(true);
    let chunks = data(&server.text(CHAT, body).await);
    let streamed: Vec<&Value> = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().into_iter().flatten())
        .collect();
    assert!(streamed.iter().map(|token| &token["token"]).eq(tokens.iter().map(|token| &token["token"])));
    let alone = json!({"model": "default", "messages": user("Hi"), "top_logprobs": 3});
    assert_eq!(server.ask(CHAT, alone).await.1["error"]["param"], "top_logprobs");
}

#[tokio::test]
async fn what_one_client_has_computed_is_found_again_by_it_alone() {
    let server = Server::start().await;
    let body = json!({"model": "default", "messages": user(&"word ".repeat(100)), "max_tokens": 2});
    let cached = |client: &'static str| {
        let request = server.post(CHAT, &body).header("x-locara-client", client);
        async {
            parts(request.send().await.unwrap()).await.1["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64()
        }
    };
    assert_eq!(cached("one").await, Some(0));
    assert!(cached("one").await > Some(50));
    assert_eq!(cached("two").await, Some(0));
}

#[tokio::test]
async fn refusals_of_the_host_have_their_status_and_numbers() {
    let server = Server::start().await;
    let mut seen = Vec::new();
    for model in ["defualt", "off", "huge", "busy", "short", "broken"] {
        let response = server.post(CHAT, &json!({"model": model, "messages": user("Hi")})).send().await.unwrap();
        let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let (status, body) = parts(response).await;
        seen.push(json!({"model": model, "status": status, "retry_after": retry, "body": body}));
    }
    assert_json_snapshot!(seen);
}

#[tokio::test]
async fn a_full_queue_is_429_with_a_time() {
    let options = locara_engine::llama::LoadOptions { n_seq_max: 1, queue_max: 1, ..options() };
    let server = Server::with(config(), options).await;
    let running = tokio::spawn(server.post(CHAT, &endless(900)).send());
    server.engine_is(|stats| stats.running == 1).await;
    let waiting = tokio::spawn(server.post(CHAT, &endless(900)).send());
    server.engine_is(|stats| stats.waiting == 1).await;
    let refused = server.post(CHAT, &endless(900)).send().await.unwrap();
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    let (status, body) = parts(refused).await;
    assert_eq!((status, &body["error"]["type"]), (429, &json!("rate_limit_error")));
    running.abort();
    waiting.abort();
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let server = Server::start().await;
    let base = json!({"model": "default", "messages": user("Hi")});
    let cases = [
        ("messages", json!("x")),
        ("messages", json!([])),
        ("messages", json!([{"role": "robot", "content": "x"}])),
        ("messages", json!([{"role": "user"}])),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]}]),
        ),
        ("messages", json!([{"role": "user", "content": [{"type": "text", "text": 7}]}])),
        ("model", json!(7)),
        ("temperature", json!("hot")),
        ("temperature", json!(9)),
        ("n", json!(9)),
        ("n", json!(-1)),
        ("stop", json!([1])),
        ("max_tokens", json!(0)),
        ("logit_bias", json!({"x": 1})),
        ("logit_bias", json!({"1": 1000})),
        ("logit_bias", json!({"999999": 1})),
        ("tools", json!([{"type": "retrieval"}])),
        ("tools", json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "objekt"}}}])),
        ("tool_choice", json!("sometimes")),
        ("tool_choice", json!("required")),
        ("tool_choice", json!({"type": "function", "function": {"name": "f"}})),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "s", "schema": {"properties": {"a": {"minimum": "x"}}}}}),
        ),
        ("response_format", json!({"type": "xml"})),
        ("structured_outputs", json!({"regex": "(", "choice": []})),
        ("structured_outputs", json!({"regex": "("})),
        ("structured_outputs", json!({"grammar": "nonsense("})),
    ];
    let mut seen = Vec::new();
    for (field, value) in cases {
        let mut body = base.clone();
        body[field] = value.clone();
        let (status, answer) = server.ask(CHAT, body).await;
        assert_eq!(status, 400, "{field}: {value}: {answer}");
        let error = &answer["error"];
        seen.push(format!("{} | {} | {}", error["code"].as_str().unwrap(), error["param"], error["message"]));
    }
    insta::assert_snapshot!(seen.join("\n"));
    let (status, answer) = server.ask(CHAT, json!({"messages": user("Hi")})).await;
    assert_eq!((status, &answer["error"]["message"]), (400, &json!("missing field `model`")));
    let broken =
        server.client.post(format!("http://{}{CHAT}", server.address)).body("{\"model\": ").send().await.unwrap();
    assert_eq!(parts(broken).await.1["error"]["code"], "invalid_json");
}

#[tokio::test]
async fn models_are_listed_with_what_they_are() {
    let server = Server::start().await;
    let (_, list) = parts(server.get("/v1/models").send().await.unwrap()).await;
    assert_json_snapshot!(list);
    let (_, by_role) = parts(server.get("/v1/models/default").send().await.unwrap()).await;
    assert_eq!(by_role["id"], MODEL);
    for (name, word) in [("off", "switched off"), ("a/b/c", "no model")] {
        let (status, body) = parts(server.get(&format!("/v1/models/{name}")).send().await.unwrap()).await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
        assert!(body["error"]["message"].as_str().unwrap().contains(word), "{body}");
    }
}
