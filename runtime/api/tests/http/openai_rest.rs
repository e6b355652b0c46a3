//! OpenAI's other routes: completions, embeddings, rerank, tokens, responses.

use std::sync::Arc;

use base64::Engine as _;
use locara_engine::llama::{LlamaEngine, LoadOptions};
use serde_json::{Value, json};

use crate::host::{MODEL, Server, config, data, options, parts, user};

const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";

/// A server in front of a small synthetic model that makes vectors.
async fn embedder() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let entry = locara_zoo::catalogue().iter().find(|entry| entry.name == "tiny-bert").unwrap();
    locara_zoo::write(&entry.spec, &path).unwrap();
    let options = LoadOptions { n_ctx: 256, kv_cells: 256, n_gpu_layers: 0, ..options() };
    let engine = LlamaEngine::load(&path, &"0".repeat(64), options, |_| true).unwrap();
    Server::around(config(), Arc::new(engine)).await
}

#[tokio::test]
async fn text_is_continued() {
    let server = Server::start().await;
    let body = json!({"model": "default", "prompt": "The host", "max_tokens": 6, "echo": true, "logprobs": 2});
    let (status, answer) = server.ask(COMPLETIONS, body.clone()).await;
    assert_eq!((status, &answer["object"]), (200, &json!("text_completion")), "{answer}");
    let choice = &answer["choices"][0];
    assert!(choice["text"].as_str().unwrap().starts_with("The host"));
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 6);
    assert_eq!(logprobs["text_offset"][0], 8, "behind the prompt");
    assert!(logprobs["top_logprobs"][0].as_object().unwrap().len() == 2);

    let mut body = body;
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let text = server.text(COMPLETIONS, body).await;
    assert!(text.ends_with("data: [DONE]\n\n"));
    let chunks = data(&text);
    let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(said, choice["text"]);
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 6);
}

#[tokio::test]
async fn several_prompts_have_several_answers_in_order() {
    let server = Server::start().await;
    let one = |prompt: Value| json!({"model": "default", "prompt": prompt, "max_tokens": 5});
    let text = |answer: &Value, at: usize| answer["choices"][at]["text"].clone();
    let (_, apart) = server.ask(COMPLETIONS, one(json!("The lamp"))).await;
    let (_, other) = server.ask(COMPLETIONS, one(json!("A story about"))).await;
    let mut body = one(json!(["The lamp", "A story about"]));
    body["n"] = json!(2);
    let (status, both) = server.ask(COMPLETIONS, body).await;
    assert_eq!(status, 200, "{both}");
    assert_eq!((text(&both, 0), text(&both, 1)), (text(&apart, 0), text(&apart, 0)));
    assert_eq!((text(&both, 2), text(&both, 3)), (text(&other, 0), text(&other, 0)));
    let prompt = apart["usage"]["prompt_tokens"].as_u64().unwrap() + other["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(both["usage"]["prompt_tokens"], prompt, "each prompt counts once");

    let (_, tokens) = server.ask("/tokenize", json!({"model": "default", "prompt": "The lamp"})).await;
    assert_eq!(tokens["count"].as_u64().unwrap(), apart["usage"]["prompt_tokens"].as_u64().unwrap());
    let (_, by_token) = server.ask(COMPLETIONS, one(tokens["tokens"].clone())).await;
    assert_eq!(text(&by_token, 0), text(&apart, 0));
    let (_, back) = server.ask("/detokenize", json!({"model": "default", "tokens": tokens["tokens"]})).await;
    assert!(back["prompt"].as_str().unwrap().ends_with("The lamp"), "{back}");

    for (body, path) in [
        (one(json!([1, "x"])), "prompt[0]"),
        (one(json!([])), "prompt"),
        (one(json!(vec!["x"; 33])), "prompt"),
        (json!({"model": "default", "prompt": "x", "suffix": "y"}), "suffix"),
        (json!({"model": "default", "prompt": "x", "best_of": 3}), "best_of"),
        (json!({"model": "default", "prompt": "x", "logprobs": 21}), "logprobs"),
        (json!({"model": "default", "prompt": [1, 2], "echo": true}), "echo"),
    ] {
        let (status, answer) = server.ask(COMPLETIONS, body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(path)), "{answer}");
    }
}

#[tokio::test]
async fn texts_become_vectors_in_both_dialects_and_forms() {
    let server = embedder().await;
    let body = json!({"model": "default", "input": ["one two", "three"]});
    let (status, answer) = server.ask("/v1/embeddings", body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let vector =
        |value: &Value| -> Vec<f32> { value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect() };
    let first = vector(&answer["data"][0]["embedding"]);
    assert!(answer["usage"]["total_tokens"].as_u64().unwrap() >= 2);
    let mut body = body;
    body["encoding_format"] = json!("base64");
    let (_, encoded) = server.ask("/v1/embeddings", body).await;
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(encoded["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let decoded: Vec<f32> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(decoded, first);
    let (_, short) =
        server.ask("/v1/embeddings", json!({"model": "default", "input": "one two", "dimensions": 4})).await;
    let short = vector(&short["data"][0]["embedding"]);
    assert_eq!(short.len(), 4);
    assert!((short.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
    let (_, ollama) = server.ask("/api/embed", json!({"model": "default", "input": ["one two", "three"]})).await;
    assert_eq!(vector(&ollama["embeddings"][0]), first);
    let (_, old) = server.ask("/api/embeddings", json!({"model": "default", "prompt": "one two"})).await;
    // Alone in its batch: the sums are the same but for rounding.
    let far = vector(&old["embedding"]).iter().zip(&first).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-4, "{far}");
    for (body, path) in [
        (json!({"model": "default", "input": ["x", ""]}), "input[1]"),
        (json!({"model": "default", "input": []}), "input"),
        (json!({"model": "default", "input": "x", "dimensions": 100_000}), "dimensions"),
        (json!({"model": "default", "input": "x", "encoding_format": "hex"}), "encoding_format"),
    ] {
        let (status, answer) = server.ask("/v1/embeddings", body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(path)), "{answer}");
    }
}

#[tokio::test]
async fn the_document_that_is_the_query_comes_first() {
    let server = embedder().await;
    let body = json!({"model": "default", "query": "red lamp", "documents": ["blue sea", {"text": "red lamp"}, "x"], "top_n": 2,
        "return_documents": true});
    let (status, answer) = server.ask("/v1/rerank", body).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    assert_eq!(
        (results.len(), &results[0]["index"], &results[0]["document"]["text"]),
        (2, &json!(1), &json!("red lamp"))
    );
    assert!((results[0]["relevance_score"].as_f64().unwrap() - 1.0).abs() < 1e-3);
    let (status, answer) =
        server.ask("/v1/rerank", json!({"model": "default", "query": "x", "documents": ["y", ""]})).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("documents[1]")));
}

#[tokio::test]
async fn a_model_without_vectors_says_so() {
    let server = Server::start().await;
    let (status, answer) = server.ask("/v1/embeddings", json!({"model": "default", "input": "x"})).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("unsupported_by_model")));
    let server = embedder().await;
    let (status, answer) = server.ask("/v1/completions", json!({"model": "default", "prompt": "x"})).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("unsupported_by_model")), "{answer}");
}

#[tokio::test]
async fn a_response_is_answered_stored_and_continued() {
    let server = Server::start().await;
    let body = json!({"model": "default", "instructions": "Be brief.", "input": "Who are you?", "max_output_tokens": 64, "metadata": {"k": "v"}});
    let (status, first) = server.ask(RESPONSES, body).await;
    assert_eq!((status, &first["status"], &first["model"]), (200, &json!("completed"), &json!(MODEL)), "{first}");
    assert_eq!((&first["output"][0]["type"], &first["metadata"]["k"]), (&json!("message"), &json!("v")));
    let id = first["id"].as_str().unwrap();
    let get = async |path: String| parts(server.get(&path).send().await.unwrap()).await;
    assert_eq!(get(format!("{RESPONSES}/{id}")).await, (200, first.clone()));
    let (_, items) = get(format!("{RESPONSES}/{id}/input_items")).await;
    assert_eq!((&items["data"][0]["content"], &items["first_id"]), (&json!("Who are you?"), &json!("item_0")));

    let next = json!({"model": "default", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
        "previous_response_id": id});
    let (_, counted) = server.ask("/v1/responses/input_tokens", next.clone()).await;
    let (status, second) = server.ask(RESPONSES, next).await;
    assert_eq!((status, &second["usage"]["input_tokens"]), (200, &counted["input_tokens"]), "{second}");
    // The whole conversation, but not the instructions of the first response.
    let answer = &first["output"][0]["content"][0]["text"];
    let turns = json!([{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": answer}, {"role": "user", "content": "Hello"}]);
    let (_, whole) =
        server.ask("/v1/chat/completions/input_tokens", json!({"model": "default", "messages": turns})).await;
    assert_eq!(whole["input_tokens"], counted["input_tokens"]);

    let foreign = server.get(&format!("{RESPONSES}/{id}")).header("x-locara-client", "other").send().await.unwrap();
    assert_eq!(foreign.status(), 404, "a client sees its own only");
    let url = format!("http://{}{RESPONSES}/{id}", server.address);
    assert_eq!(parts(server.client.delete(&url).send().await.unwrap()).await.1["deleted"], true);
    let (status, gone) =
        server.ask(RESPONSES, json!({"model": "default", "input": "x", "previous_response_id": id})).await;
    assert_eq!((status, &gone["error"]["param"]), (404, &json!("previous_response_id")));
    let (_, unstored) = server.ask(RESPONSES, json!({"model": "default", "input": "Hello", "store": false})).await;
    assert_eq!(get(format!("{RESPONSES}/{}", unstored["id"].as_str().unwrap())).await.0, 404);
}

#[tokio::test]
async fn a_streamed_response_tells_every_step_in_order() {
    let server = Server::start().await;
    let text = server.text(RESPONSES, json!({"model": "default", "input": "Who are you?", "stream": true})).await;
    let events = data(&text);
    let names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let mut steps = names.clone();
    steps.dedup();
    assert_eq!(
        steps,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed"
        ]
    );
    assert!(events.iter().enumerate().all(|(at, event)| event["sequence_number"] == at));
    let said: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["output"][0]["content"][0]["text"], said);
    let id = last["id"].as_str().unwrap();
    let (_, stored) = parts(server.get(&format!("{RESPONSES}/{id}")).send().await.unwrap()).await;
    assert_eq!(&stored, last, "what was stored is what was said");
}

#[tokio::test]
async fn a_response_calls_a_tool_and_reads_its_output() {
    let server = Server::start().await;
    let tools = json!([{"type": "function", "name": "get_weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]);
    let body = json!({"model": "default", "input": "What is the weather in Paris?", "tools": tools, "tool_choice": "required"});
    let (_, first) = server.ask(RESPONSES, body.clone()).await;
    let call = &first["output"][0];
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("get_weather")), "{first}");
    let output = json!([{"type": "function_call_output", "call_id": call["call_id"], "output": "clear"}]);
    let next = json!({"model": "default", "input": output, "previous_response_id": first["id"], "tools": tools});
    let (status, second) = server.ask(RESPONSES, next).await;
    assert_eq!((status, &second["output"][0]["type"]), (200, &json!("message")), "{second}");

    let mut body = body;
    body["stream"] = json!(true);
    body["tool_choice"] = json!({"type": "function", "name": "get_weather"});
    let events = data(&server.text(RESPONSES, body).await);
    let done = events.iter().find(|event| event["type"] == "response.function_call_arguments.done").unwrap();
    assert_eq!(done["arguments"], call["arguments"]);

    let (_, cut) =
        server.ask(RESPONSES, json!({"model": "default", "input": "Who are you?", "max_output_tokens": 2})).await;
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let text = json!({"format": {"type": "json_schema", "name": "p", "schema": {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}}});
    let (_, shaped) = server.ask(RESPONSES, json!({"model": "default", "input": "Extract name and age as JSON: Orla is 31.", "text": text, "max_output_tokens": 200})).await;
    let shaped: Value = serde_json::from_str(shaped["output"][0]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(shaped["age"].is_i64());
}

#[tokio::test]
async fn wrong_items_are_named() {
    let server = Server::start().await;
    for (field, value, path) in [
        (
            "input",
            json!([{"role": "user", "content": "x"}, {"type": "message", "role": "user", "content": [{"type": "input_image"}]}]),
            "input[1].content[0].type",
        ),
        (
            "input",
            json!([{"role": "user", "content": [{"type": "input_text", "text": 7}]}]),
            "input[0].content[0].text",
        ),
        ("input", json!([{"type": "function_call_output", "output": "x"}]), "input[0].call_id"),
        ("input", json!([{"type": "item_reference", "id": "x"}]), "input[0].type"),
        ("input", json!(7), "input"),
        ("input", json!([7]), "input[0]"),
        ("background", json!(true), "background"),
        ("text", json!({"format": {"type": "json_schema"}}), "text.format.schema"),
        ("tools", json!([{"type": "web_search"}]), "tools[0].type"),
    ] {
        let mut body = json!({"model": "default", "input": "x"});
        body[field] = value;
        let (status, answer) = server.ask(RESPONSES, body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(path)), "{answer}");
    }
    let messages = user("x");
    let (status, _) = server.ask(RESPONSES, json!({"model": "default", "messages": messages})).await;
    assert_eq!(status, 400, "nothing to answer");
}
