//! No body, however wrong, is answered with a fault of ours.

use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestRunner},
};
use serde_json::{Map, Value, json};

use crate::host::{Server, user};

/// Routes that take a body, and a body that they take.
fn routes() -> Vec<(&'static str, Value)> {
    let chat = json!({"model": "default", "messages": user("Hi"), "max_tokens": 2});
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let mut rich = chat.clone();
    rich["tools"] = json!([tool]);
    rich["stop"] = json!(["x"]);
    rich["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}});
    vec![
        ("/v1/chat/completions", chat.clone()),
        ("/v1/chat/completions", rich),
        ("/v1/chat/completions/input_tokens", chat.clone()),
        ("/v1/completions", json!({"model": "default", "prompt": ["Hi", [1, 2]], "max_tokens": 2})),
        ("/v1/embeddings", json!({"model": "default", "input": ["Hi", "there"]})),
        ("/v1/rerank", json!({"model": "default", "query": "Hi", "documents": ["a", {"text": "b"}]})),
        (
            "/v1/responses",
            json!({"model": "default", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
            "max_output_tokens": 2, "text": {"format": {"type": "text"}}, "tools": [{"type": "function", "name": "f"}]}),
        ),
        ("/v1/responses/input_tokens", json!({"model": "default", "input": "Hi"})),
        ("/tokenize", json!({"model": "default", "prompt": "Hi"})),
        ("/detokenize", json!({"model": "default", "tokens": [1, 2]})),
        (
            "/v1/messages",
            json!({"model": "default", "max_tokens": 2, "system": "x", "messages": [{"role": "user", "content":
            [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "x"}]}, {"type": "text", "text": "Hi"}]}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"}}),
        ),
        ("/v1/messages/count_tokens", json!({"model": "default", "messages": user("Hi")})),
        (
            "/api/chat",
            json!({"model": "default", "messages": user("Hi"), "format": "json", "options": {"num_predict": 2, "stop": "x"}}),
        ),
        ("/api/generate", json!({"model": "default", "prompt": "Hi", "options": {"num_predict": 2}})),
        ("/api/embed", json!({"model": "default", "input": "Hi"})),
        ("/api/show", json!({"model": "default"})),
        ("/admin/load", json!({"model": "default"})),
    ]
}

/// Fields that routes know, so that an addition has an effect.
const FIELDS: [&str; 24] = [
    "n",
    "seed",
    "stop",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "response_format",
    "structured_outputs",
    "format",
    "options",
    "keep_alive",
    "dimensions",
    "system",
    "thinking",
    "reasoning",
    "echo",
    "messages",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..40).prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "user",
            "assistant",
            "tool",
            "function",
            "auto",
            "json",
            "json_schema",
            "regex",
            "(",
            "<|im_end|>"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            prop::sample::select(vec![
                "type",
                "text",
                "content",
                "role",
                "name",
                "function",
                "parameters",
                "schema",
                "regex",
                "grammar",
                "json",
                "items",
                "$ref"
            ])
            .prop_map(str::to_owned),
            "\\PC{0,6}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

/// Every place in a body, as a JSON pointer.
fn places(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            places(value, &format!("{here}/{}", key.replace('~', "~0").replace('/', "~1")), all);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| places(value, &format!("{here}/{at}"), all))
        }
        _ => {}
    }
}

#[test]
fn no_body_is_answered_with_a_fault_of_ours() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start());
    let routes = routes();
    let change = (any::<prop::sample::Index>(), any_json(), prop::option::of(prop::sample::select(FIELDS.to_vec())));
    let strategy =
        (0..routes.len(), prop::collection::vec(change, 0..3), prop::option::of(any::<prop::sample::Index>()));
    let mut runner = TestRunner::new(Cases { max_shrink_iters: 64, failure_persistence: None, ..Cases::default() });
    runner
        .run(&strategy, |(route, changes, cut)| {
            let (path, mut body) = routes[route].clone();
            for (place, value, added) in changes {
                let mut all = Vec::new();
                places(&body, "", &mut all);
                match (added, body.as_object_mut()) {
                    (Some(field), Some(fields)) => {
                        fields.insert(field.into(), value);
                    }
                    _ => {
                        let place: &String = place.get(&all);
                        *body.pointer_mut(place).unwrap() = value;
                    }
                }
            }
            let mut bytes = body.to_string().into_bytes();
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            let sent = String::from_utf8_lossy(&bytes).into_owned();
            let (status, answer) = runtime.block_on(async {
                let response =
                    server.client.post(format!("http://{}{path}", server.address)).body(bytes).send().await.unwrap();
                (response.status().as_u16(), response.text().await.unwrap())
            });
            prop_assert!(status < 500, "{} {}: {} {}", path, sent, status, answer);
            if status >= 400 {
                let answer: Value = serde_json::from_str(&answer).unwrap();
                prop_assert!(answer.get("error").is_some(), "{} {}: {}", path, sent, answer);
            }
            Ok(())
        })
        .unwrap();
}
