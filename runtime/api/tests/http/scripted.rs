//! What the embedded model cannot be made to do: reasoning, several calls, failures in the middle, waiting.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use locara_api::Config;
use locara_engine::{
    Class, Completion, Engine, EngineError, EngineMemory, EngineStats, Event, Generation, Message, ModelInfo, Prompt,
    Reply, Request, RequestId, SessionId, StopReason, Token, ToolCall, Usage,
};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::host::{Server, config, data, parts, user};

/// What an engine does next.
#[derive(Debug, Clone)]
enum Step {
    Say(Event),
    /// Waits until the test lets it go on.
    Wait,
    /// Waits until it is cancelled, and ends so.
    WaitForCancel,
    /// Talks until nobody listens any more, and says so.
    TalkForEver,
}

/// An engine that follows a script, one for each request.
#[derive(Debug)]
struct Script {
    info: ModelInfo,
    plays: Mutex<VecDeque<Vec<Step>>>,
    requests: Mutex<Vec<Request>>,
    go_on: Arc<Notify>,
    cancelled: Arc<Notify>,
    abandoned: Arc<Notify>,
}

impl Script {
    fn new(plays: impl IntoIterator<Item = Vec<Step>>) -> Arc<Self> {
        Arc::new(Self {
            info: ModelInfo {
                name: "script".into(),
                digest: "0".repeat(64),
                architecture: "llama".into(),
                n_ctx: 1024,
                n_seq_max: 4,
                n_vocab: 100,
                n_embd: 8,
                has_chat_template: true,
                tool_format: "hermes".into(),
                reasoning_format: "think".into(),
            },
            plays: Mutex::new(plays.into_iter().collect()),
            requests: Mutex::default(),
            go_on: Arc::default(),
            cancelled: Arc::default(),
            abandoned: Arc::default(),
        })
    }
}

fn never<T>() -> Reply<T> {
    oneshot::channel().1
}

impl Engine for Script {
    fn model(&self) -> &ModelInfo {
        &self.info
    }
    fn memory(&self) -> EngineMemory {
        EngineMemory::default()
    }
    fn open(&self) -> Reply<SessionId> {
        never()
    }
    fn fork(&self, _session: SessionId) -> Reply<SessionId> {
        never()
    }
    fn close(&self, _session: SessionId) {}
    fn submit(&self, request: Request) -> Generation {
        self.requests.lock().unwrap().push(request);
        let play = self.plays.lock().unwrap().pop_front().unwrap();
        let (events, receiver) = mpsc::channel(64);
        let (go_on, cancelled) = (Arc::clone(&self.go_on), Arc::clone(&self.cancelled));
        let abandoned = Arc::clone(&self.abandoned);
        tokio::spawn(async move {
            for step in play {
                match step {
                    Step::Say(event) => events.send(event).await.unwrap(),
                    Step::TalkForEver => {
                        while events.send(Event::Text("x".repeat(1 << 16))).await.is_ok() {}
                        abandoned.notify_one();
                    }
                    Step::Wait => go_on.notified().await,
                    Step::WaitForCancel => {
                        cancelled.notified().await;
                        events.send(end(StopReason::Cancelled)).await.unwrap();
                    }
                }
            }
        });
        Generation::new(RequestId(1), receiver)
    }
    fn cancel(&self, _request: RequestId) {
        self.cancelled.notify_one();
    }
    fn tokenize(&self, _prompt: Prompt) -> Reply<Vec<Token>> {
        never()
    }
    fn detokenize(&self, _tokens: Vec<Token>) -> Reply<String> {
        never()
    }
    fn embed(&self, _texts: Vec<String>) -> Reply<Vec<Vec<f32>>> {
        never()
    }
    fn stats(&self) -> Reply<EngineStats> {
        never()
    }
}

fn end(stop: StopReason) -> Event {
    let usage = Usage { prompt_tokens: 9, output_tokens: 5, thinking_tokens: 3, ..Usage::default() };
    Event::Done(Ok(Completion { stop, usage, message: Message::assistant(""), tokens: Vec::new() }))
}

fn text(text: &str) -> Step {
    Step::Say(Event::Text(text.into()))
}

fn thinking(text: &str) -> Step {
    Step::Say(Event::Thinking(text.into()))
}

fn call(id: &str) -> Step {
    Step::Say(Event::ToolCall(ToolCall { id: id.into(), name: "f".into(), arguments: "{\"a\":1}".into() }))
}

fn done(stop: StopReason) -> Step {
    Step::Say(end(stop))
}

fn fails(error: EngineError) -> Step {
    Step::Say(Event::Done(Err(error)))
}

async fn server(script: &Arc<Script>) -> Server {
    // A stream that waits says so at once.
    let config = Config { keep_alive: Duration::from_millis(5), write_timeout: Duration::from_millis(50), ..config() };
    Server::around(config, Arc::clone(script) as _).await
}

fn body(stream: bool) -> Value {
    json!({"model": "default", "messages": user("Hi"), "stream": stream, "max_tokens": 50, "input": "Hi"})
}

/// What the template is told besides the conversation.
fn template(request: &Request) -> Value {
    let Prompt::Chat { template, .. } = &request.prompt else { panic!("{request:?}") };
    json!(template)
}

/// The routes that answer conversations.
const ROUTES: [&str; 4] = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"];

#[tokio::test]
async fn reasoning_is_told_apart_from_the_answer() {
    let play = vec![thinking("hm"), thinking("m"), text("Yes"), text("."), done(StopReason::End)];
    let script = Script::new(std::iter::repeat_n(play, 8));
    let server = server(&script).await;
    let (_, chat) = server.ask(ROUTES[0], body(false)).await;
    let message = &chat["choices"][0]["message"];
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("hmm"), &json!("Yes.")));
    assert_eq!(chat["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
    let (_, response) = server.ask(ROUTES[1], body(false)).await;
    let kinds: Vec<_> = response["output"].as_array().unwrap().iter().map(|item| item["type"].clone()).collect();
    assert_eq!(kinds, ["reasoning", "message"]);
    assert_eq!(response["output"][0]["content"][0]["text"], "hmm");
    let (_, message) = server.ask(ROUTES[2], body(false)).await;
    assert_eq!(
        message["content"],
        json!([{"type": "thinking", "thinking": "hmm", "signature": ""}, {"type": "text", "text": "Yes."}])
    );
    let (_, line) = server.ask(ROUTES[3], body(false)).await;
    assert_eq!((&line["message"]["thinking"], &line["message"]["content"]), (&json!("hmm"), &json!("Yes.")));

    let chunks = data(&server.text(ROUTES[0], body(true)).await);
    let thought: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["reasoning_content"].as_str()).collect();
    assert_eq!(thought, "hmm");
    let events = data(&server.text(ROUTES[1], body(true)).await);
    assert_eq!(events.last().unwrap()["response"]["output"][0]["content"], response["output"][0]["content"]);
    assert!(events.iter().any(|event| event["type"] == "response.reasoning_text.delta"));
    let events = data(&server.text(ROUTES[2], body(true)).await);
    let blocks: Vec<_> = events.iter().filter(|event| event["type"] == "content_block_start").collect();
    assert_eq!(
        (blocks.len(), &blocks[0]["content_block"]["type"], &blocks[1]["index"]),
        (2, &json!("thinking"), &json!(1))
    );
    let lines = server.text(ROUTES[3], body(true)).await;
    let thought: String = lines
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["message"]["thinking"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(thought, "hmm");
}

#[tokio::test]
async fn an_answer_that_is_all_reasoning_says_so() {
    let script = Script::new([vec![thinking("hmm"), done(StopReason::MaxTokens)]]);
    let (_, answer) = server(&script).await.ask(ROUTES[0], body(false)).await;
    assert_eq!(answer["choices"][0]["locara"]["ended_by"], "thinking_exhausted");
}

#[tokio::test]
async fn calls_are_parallel_unless_one_alone_is_wanted() {
    let all = vec![call("a"), call("b"), done(StopReason::ToolCalls)];
    let cut = vec![call("a"), Step::WaitForCancel];
    let script = Script::new([all.clone(), all, cut.clone(), cut]);
    let server = server(&script).await;
    let (_, answer) = server.ask(ROUTES[0], body(false)).await;
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 2);
    let chunks = data(&server.text(ROUTES[0], body(true)).await);
    let places: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0]["index"].as_u64()).collect();
    assert_eq!(places, [0, 0, 1, 1]);
    let mut one = body(false);
    one["parallel_tool_calls"] = json!(false);
    let (_, answer) = server.ask(ROUTES[0], one).await;
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    let mut one = body(false);
    one["tool_choice"] = json!({"type": "auto", "disable_parallel_tool_use": true});
    assert_eq!(server.ask(ROUTES[2], one).await.1["stop_reason"], "tool_use");
}

#[tokio::test]
async fn a_stream_that_waits_says_that_it_is_alive() {
    let prefill = Step::Say(Event::Prefill { done: 4, total: 9 });
    let play = vec![prefill, Step::Wait, text("Yes"), done(StopReason::End)];
    let script = Script::new(std::iter::repeat_n(play, 4));
    let server = server(&script).await;
    let signs = [
        ": 4 of 9 prompt tokens\n\n",
        ": 4 of 9 prompt tokens\n\n",
        "event: ping\n",
        "\"content\":\"\"},\"done\":false}\n",
    ];
    for (route, sign) in ROUTES.into_iter().zip(signs) {
        let mut response = server.post(route, &body(true)).send().await.unwrap();
        let mut seen = String::new();
        while !seen.contains(sign) {
            seen.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
        }
        if route == "/v1/messages" {
            assert!(seen.contains("\"input_tokens\":9"), "the count is known by then: {seen}");
        }
        script.go_on.notify_one();
        assert!(response.text().await.unwrap().contains("Yes"), "{route}");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go() {
    let script = Script::new([vec![Step::TalkForEver]]);
    let server = server(&script).await;
    let mut response = server.post(ROUTES[0], &body(true)).send().await.unwrap();
    // It is not read until the engine has noticed; then the stream ends without its last words.
    script.abandoned.notified().await;
    let mut last = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        last = chunk.to_vec();
    }
    assert!(!last.is_empty() && !String::from_utf8_lossy(&last).contains("[DONE]"));
}

#[tokio::test]
async fn a_failure_in_the_middle_is_told_in_the_stream() {
    let play = vec![text("Ye"), Step::Wait, fails(EngineError::Failed("the cable was cut".into()))];
    let script = Script::new(std::iter::repeat_n(play, 4));
    let server = server(&script).await;
    for route in ROUTES {
        let response = server.post(route, &body(true)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        script.go_on.notify_one();
        let text = response.text().await.unwrap();
        let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
        let last: Value = serde_json::from_str(last.trim_start_matches("data: ")).unwrap();
        let message = match route {
            "/api/chat" => &last["error"],
            "/v1/responses" => &last["response"]["error"]["message"],
            _ => &last["error"]["message"],
        };
        assert!(message.as_str().unwrap().contains("the cable was cut"), "{route}: {text}");
        assert!(!text.contains("[DONE]"), "{route}");
    }
}

#[tokio::test]
async fn an_engine_that_went_is_asked_for_once_more() {
    let script = Script::new([
        vec![fails(EngineError::Stopped)],
        vec![text("Yes"), done(StopReason::End)],
        vec![fails(EngineError::Stopped)],
        vec![fails(EngineError::Stopped)],
        vec![fails(EngineError::Throttled { retry_after_ms: 2500 })],
    ]);
    let server = server(&script).await;
    assert_eq!(server.ask(ROUTES[0], body(false)).await.0, 200);
    assert_eq!(server.host.asked.lock().unwrap().len(), 2);
    let (status, answer) = server.ask(ROUTES[0], body(true)).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("unavailable")), "not for ever");
    let throttled = server.post(ROUTES[0], &body(true)).send().await.unwrap();
    assert_eq!((throttled.status().as_u16(), &throttled.headers()["retry-after"]), (503, &"3".parse().unwrap()));
}

#[tokio::test]
async fn what_is_wanted_reaches_the_engine() {
    let play = vec![done(StopReason::End)];
    let script = Script::new(std::iter::repeat_n(play, 7));
    let server = server(&script).await;
    let ask = async |route: &str, extra: Value| {
        let mut body = body(false);
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let request = server.post(route, &body).header("x-locara-class", "batch").header("x-locara-client", "notes");
        assert_eq!(parts(request.send().await.unwrap()).await.0, 200);
        script.requests.lock().unwrap().pop().unwrap()
    };
    let request = ask(
        ROUTES[0],
        json!({"reasoning_effort": "none", "max_tokens": 1_000_000, "seed": 3, "top_k": 7, "logit_bias": {"5": -100}}),
    )
    .await;
    assert_eq!((request.thinking_tokens, request.class, request.max_tokens), (Some(0), Class::Background, 8192));
    assert_eq!(
        (request.sampling.seed, request.sampling.top_k, &request.sampling.logit_bias[..]),
        (Some(3), 7, &[(5, -100.0)][..])
    );
    assert!(request.reuse.is_some() && request.stop_repetition);
    let other = ask(ROUTES[0], json!({"thinking_budget": 64, "logprobs": true, "top_logprobs": 2})).await;
    assert_eq!((other.thinking_tokens, other.logprobs, other.reuse), (Some(64), Some(2), request.reuse));
    assert_eq!(other.sampling.temperature, 0.0, "the host's default");
    let kwargs =
        json!({"chat_template_kwargs": {"enable_thinking": true, "date": "today"}, "reasoning_effort": "high"});
    let request = ask(ROUTES[0], kwargs).await;
    assert_eq!(template(&request), json!({"date": "today", "enable_thinking": true, "reasoning_effort": "high"}));
    assert_eq!(request.thinking_tokens, None);
    let request = ask(ROUTES[1], json!({"reasoning": {"effort": "none"}, "max_output_tokens": 7})).await;
    assert_eq!((request.thinking_tokens, request.max_tokens), (Some(0), 7));
    let request =
        ask(ROUTES[2], json!({"thinking": {"type": "enabled", "budget_tokens": 2048}, "stop_sequences": ["x"]})).await;
    assert_eq!((request.thinking_tokens, &request.stop[..]), (Some(2048), &["x".to_owned()][..]));
    let request = ask(ROUTES[3], json!({"think": false, "options": {"num_predict": -1, "repeat_penalty": 1.5}})).await;
    assert_eq!((request.thinking_tokens, request.max_tokens, request.sampling.repeat_penalty), (Some(0), 8192, 1.5));
    assert_eq!(template(&request), json!({"enable_thinking": false}));
    let request = ask(ROUTES[3], json!({"think": "high"})).await;
    assert_eq!(template(&request), json!({"enable_thinking": true, "reasoning_effort": "high"}));
    assert_eq!((request.thinking_tokens, request.max_tokens), (None, 32), "the host's default");
}
