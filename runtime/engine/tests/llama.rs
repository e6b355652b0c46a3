//! The llama.cpp engine on the embedded model: what a caller can rely on.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;

use locara_engine::{
    Constraint, Engine, EngineError, Event, Generation, Message, Prompt, Request, Sampling, StopReason, Tool,
    ToolChoice,
    llama::{LlamaEngine, LoadError, LoadOptions, dry_run, probe},
};
use locara_policy::KvType;

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf")
}

fn options() -> LoadOptions {
    LoadOptions {
        n_ctx: 1024,
        kv_cells: 4096,
        n_seq_max: 4,
        n_batch: 256,
        n_ubatch: 256,
        type_k: KvType::Q8_0,
        type_v: KvType::F16,
        flash_attention: false,
        n_threads: 1,
        n_gpu_layers: -1,
        repack: false,
        queue_max: 16,
    }
}

fn engine_with(options: LoadOptions) -> LlamaEngine {
    LlamaEngine::load(&tiny(), "test", options, |_| true).unwrap()
}

fn engine() -> LlamaEngine {
    engine_with(options())
}

fn greedy(text: &str, max_tokens: u32) -> Request {
    Request { sampling: Sampling::greedy(), max_tokens, ..Request::chat(vec![Message::user(text)]) }
}

/// Text that the model continues for long: the end of the turn is ignored.
fn endless(text: &str, max_tokens: u32) -> Request {
    Request { ignore_eos: true, ..greedy(text, max_tokens) }
}

async fn outcome(mut generation: Generation) -> Result<locara_engine::Completion, EngineError> {
    while let Some(event) = generation.events.recv().await {
        if let Event::Done(outcome) = event {
            return outcome;
        }
    }
    panic!("the channel closed without `Done`");
}

const PROMPTS: [&str; 4] = [
    "Summarize: The host owns the model. Apps get tokens from it.",
    "Who are you?",
    "Repeat: alpha beta gamma delta",
    "What is the capital of the town in the passage? The passage: Orla lives in Venmoor.",
];

#[tokio::test]
async fn same_prompt_and_seed_give_the_same_tokens_alone_in_a_batch_and_after_a_fork() {
    let engine = engine();
    let mut alone = Vec::new();
    for prompt in PROMPTS {
        alone.push(outcome(engine.submit(endless(prompt, 24))).await.unwrap().tokens);
    }
    let together: Vec<_> = PROMPTS.map(|prompt| engine.submit(endless(prompt, 24))).into_iter().collect();
    for (generation, expected) in together.into_iter().zip(&alone) {
        assert_eq!(&outcome(generation).await.unwrap().tokens, expected, "in a batch");
    }

    let parent = engine.open().await.unwrap().unwrap();
    let first = Request { session: Some(parent), ..greedy(PROMPTS[0], 24) };
    let answer = outcome(engine.submit(first)).await.unwrap();
    let child = engine.fork(parent).await.unwrap().unwrap();
    let history = vec![Message::user(PROMPTS[0]), answer.message, Message::user(PROMPTS[1])];
    let next = |session| Request {
        session,
        sampling: Sampling::greedy(),
        max_tokens: 24,
        ignore_eos: true,
        ..Request::chat(history.clone())
    };
    let forked = outcome(engine.submit(next(Some(child)))).await.unwrap();
    let original = outcome(engine.submit(next(Some(parent)))).await.unwrap();
    let fresh = outcome(engine.submit(next(None))).await.unwrap();
    assert!(forked.usage.cached_tokens > 0, "the fork shares the cells of its parent");
    assert_eq!(fresh.usage.cached_tokens, 0);
    assert_eq!(forked.tokens, fresh.tokens);
    assert_eq!(original.tokens, fresh.tokens);
}

#[tokio::test]
async fn a_seed_repeats_and_another_seed_differs() {
    let engine = engine();
    let sampled = |seed| {
        let sampling =
            Sampling { temperature: 1.5, top_k: 0, top_p: 1.0, min_p: 0.0, seed: Some(seed), ..Sampling::default() };
        outcome(engine.submit(Request { sampling, ..endless("Tell me something.", 40) }))
    };
    let (one, again, two) = (sampled(7).await.unwrap(), sampled(7).await.unwrap(), sampled(8).await.unwrap());
    assert_eq!(one.tokens, again.tokens);
    assert_ne!(one.tokens, two.tokens);
}

#[tokio::test]
async fn a_later_turn_computes_only_what_is_new() {
    let engine = engine();
    let session = engine.open().await.unwrap().unwrap();
    let long = "word ".repeat(200);
    let first = Request { session: Some(session), ..greedy(&long, 8) };
    let answer = outcome(engine.submit(first)).await.unwrap();
    let history = vec![Message::user(&long), answer.message, Message::user("And now?")];
    let second =
        Request { session: Some(session), max_tokens: 8, sampling: Sampling::greedy(), ..Request::chat(history) };
    let usage = outcome(engine.submit(second)).await.unwrap().usage;
    // The last token of the prompt may merge with the first one of the answer when both are written out again.
    assert!(usage.cached_tokens + 1 >= answer.usage.prompt_tokens, "{usage:?} after {:?}", answer.usage);
    assert!(usage.cached_tokens < usage.prompt_tokens);
}

#[tokio::test]
async fn too_long_a_prompt_is_refused_before_prefill_with_both_counts() {
    let engine = engine();
    let error = outcome(engine.submit(greedy(&"word ".repeat(3000), 16))).await.unwrap_err();
    let EngineError::ContextOverflow { prompt_tokens, max_tokens: 16, n_ctx: 1024 } = error else { panic!("{error}") };
    assert!(prompt_tokens > 1024);
    assert_eq!(engine.stats().await.unwrap().unwrap().prefilled, 0);
}

#[tokio::test]
async fn a_dropped_reader_frees_the_sequence_and_its_cells() {
    let engine = engine();
    let mut generation = engine.submit(endless(PROMPTS[0], 900));
    loop {
        match generation.events.recv().await.unwrap() {
            Event::Text(_) => break,
            Event::Prefill { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    drop(generation);
    // The place is free again: four more run at once, and the first one is gone from the statistics.
    let others: Vec<_> = (0..4).map(|_| engine.submit(endless(PROMPTS[1], 8))).collect();
    for generation in others {
        outcome(generation).await.unwrap();
    }
    let stats = engine.stats().await.unwrap().unwrap();
    assert_eq!((stats.running, stats.waiting, stats.sessions, stats.kv_cells_used), (0, 0, 0, 0));
    assert!(stats.decoded < 900, "it stopped long before its bound: {stats:?}");
}

#[tokio::test]
async fn cancel_ends_with_what_was_made() {
    let engine = engine();
    let mut generation = engine.submit(endless(PROMPTS[0], 900));
    let mut text = String::new();
    let completion = loop {
        match generation.events.recv().await.unwrap() {
            Event::Text(piece) => {
                text.push_str(&piece);
                engine.cancel(generation.id);
            }
            Event::Done(outcome) => break outcome.unwrap(),
            _ => {}
        }
    };
    assert_eq!(completion.stop, StopReason::Cancelled);
    assert!(completion.usage.output_tokens < 900);
    assert!(completion.message.content.starts_with(&text), "{completion:?}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_its_own_sequence_only() {
    let engine = engine();
    let mut slow = engine.submit(endless(PROMPTS[0], 600));
    let fast = outcome(engine.submit(endless(PROMPTS[1], 200))).await.unwrap();
    assert_eq!(fast.usage.output_tokens, 200);
    // Nobody read `slow`, so it was set aside with a full queue, and goes on as soon as somebody reads.
    let stats = engine.stats().await.unwrap().unwrap();
    assert_eq!(stats.running, 1);
    assert!(stats.decoded < 200 + 600);
    let mut pieces = 0;
    let completion = loop {
        match slow.events.recv().await.unwrap() {
            Event::Text(_) => pieces += 1,
            Event::Done(outcome) => break outcome.unwrap(),
            _ => {}
        }
    };
    assert_eq!(completion.usage.output_tokens, 600);
    assert!(pieces > 64);
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_before_it() {
    let engine = engine();
    let plain = outcome(engine.submit(endless(PROMPTS[0], 40))).await.unwrap().message.content;
    let words: Vec<&str> = plain.split_whitespace().collect();
    // Two words and the space between them: more than one token in any vocabulary of this size.
    let stop = format!("{} {}", words[3], words[4]);
    let completion =
        outcome(engine.submit(Request { stop: vec![stop.clone()], ..endless(PROMPTS[0], 40) })).await.unwrap();
    assert_eq!(completion.stop, StopReason::StopSequence(stop.clone()));
    assert_eq!(completion.message.content, plain[..plain.find(&stop).unwrap()]);
}

#[tokio::test]
async fn a_schema_holds_whatever_the_model_wants() {
    let engine = engine();
    let schema = serde_json::json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["cat", "dog"]}},
        "required": ["name", "age", "kind"], "additionalProperties": false});
    let sampling = Sampling { temperature: 1.0, seed: Some(3), ..Sampling::default() };
    let request =
        Request { constraint: Some(Constraint::JsonSchema(schema)), sampling, ..greedy("Describe the animal.", 200) };
    let completion = outcome(engine.submit(request)).await.unwrap();
    assert_eq!(completion.stop, StopReason::End);
    let value: serde_json::Value = serde_json::from_str(&completion.message.content).unwrap();
    assert!(value["name"].is_string() && value["age"].as_u64().unwrap() <= 99, "{value}");
    assert!(["cat", "dog"].contains(&value["kind"].as_str().unwrap()));
}

#[tokio::test]
async fn a_required_tool_is_called() {
    let engine = engine();
    let tool = Tool {
        name: "set_timer".into(),
        description: "Sets a timer.".into(),
        parameters: serde_json::json!({"type": "object", "properties": {"minutes": {"type": "integer", "minimum": 1, "maximum": 60}},
            "required": ["minutes"], "additionalProperties": false}),
    };
    let prompt = |choice| Prompt::Chat {
        messages: vec![Message::user("hello")],
        tools: vec![tool.clone()],
        tool_choice: choice,
        template: std::collections::BTreeMap::new(),
    };
    let request = |choice| Request { sampling: Sampling::greedy(), max_tokens: 120, ..Request::new(prompt(choice)) };
    for choice in [ToolChoice::Required, ToolChoice::Named("set_timer".into())] {
        let completion = outcome(engine.submit(request(choice))).await.unwrap();
        assert_eq!(completion.stop, StopReason::ToolCalls, "{completion:?}");
        let call = &completion.message.tool_calls[0];
        assert_eq!(call.name, "set_timer");
        let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap();
        assert!(arguments["minutes"].is_i64());
    }
    let error = outcome(engine.submit(request(ToolChoice::Named("other".into())))).await.unwrap_err();
    assert!(error.to_string().contains("other") && error.to_string().contains("set_timer"), "{error}");
}

#[tokio::test]
async fn bad_requests_are_refused_and_harm_nobody() {
    let engine = engine();
    let neighbour = engine.submit(endless(PROMPTS[0], 100));
    let bad = [
        Request { constraint: Some(Constraint::JsonSchema(serde_json::json!({"type": "nonsense"}))), ..greedy("x", 8) },
        Request { constraint: Some(Constraint::Regex("(".into())), ..greedy("x", 8) },
        Request { constraint: Some(Constraint::Grammar("start: nothing_known".into())), ..greedy("x", 8) },
        Request { sampling: Sampling { temperature: f32::NAN, ..Sampling::default() }, ..greedy("x", 8) },
        Request { sampling: Sampling { logit_bias: vec![(9_999_999, 1.0)], ..Sampling::default() }, ..greedy("x", 8) },
        Request { max_tokens: 8, ..Request::new(Prompt::Tokens(vec![-1])) },
        Request { max_tokens: 8, ..Request::new(Prompt::Tokens(vec![])) },
        Request { stop: vec!["x".into(); 100], ..greedy("x", 8) },
    ];
    for request in bad {
        let shown = format!("{request:?}");
        let error = outcome(engine.submit(request)).await.expect_err(&shown);
        assert!(matches!(error, EngineError::InvalidRequest(_)), "{shown}: {error:?}");
    }
    let unknown = Request { session: Some(locara_engine::SessionId(77)), ..greedy("x", 8) };
    assert_eq!(outcome(engine.submit(unknown)).await.unwrap_err(), EngineError::UnknownSession(77));
    assert_eq!(outcome(neighbour).await.unwrap().usage.output_tokens, 100);
    let embed = engine.embed(vec!["x".into()]).await.unwrap().unwrap_err();
    assert!(matches!(embed, EngineError::Unsupported(_)), "{embed}");
}

#[tokio::test]
async fn a_full_queue_says_how_long_to_wait() {
    let engine = engine_with(LoadOptions { queue_max: 2, n_seq_max: 1, ..options() });
    let mut running: Vec<_> = (0..12).map(|_| engine.submit(endless(PROMPTS[0], 900))).collect();
    let mut refused = 0;
    for mut generation in running.split_off(3) {
        if let Ok(Event::Done(Err(EngineError::Busy { n_seq_max: 1, retry_after_ms, .. }))) =
            generation.events.try_recv()
        {
            assert!(retry_after_ms > 0);
            refused += 1;
        }
    }
    assert!(refused >= 8, "{refused} of 9 were refused");
}

#[tokio::test]
async fn requests_wait_for_cells_and_all_end() {
    // Room for two of them at a time.
    let engine = engine_with(LoadOptions { kv_cells: 1024, n_ctx: 512, ..options() });
    let all: Vec<_> = (0..8).map(|_| engine.submit(endless(PROMPTS[0], 400))).collect();
    let mut tokens = Vec::new();
    for generation in all {
        tokens.push(outcome(generation).await.unwrap().tokens);
    }
    assert!(tokens.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn a_session_answers_one_request_at_a_time_and_ends_when_closed() {
    let engine = engine();
    let session = engine.open().await.unwrap().unwrap();
    let request = |n| Request { session: Some(session), ..endless(PROMPTS[0], n) };
    let first = engine.submit(request(600));
    assert_eq!(outcome(engine.submit(request(8))).await.unwrap_err(), EngineError::SessionBusy(session.0));
    assert_eq!(engine.fork(session).await.unwrap().unwrap_err(), EngineError::SessionBusy(session.0));
    engine.close(session);
    assert_eq!(outcome(first).await.unwrap().stop, StopReason::Cancelled);
    assert_eq!(outcome(engine.submit(request(8))).await.unwrap_err(), EngineError::UnknownSession(session.0));
    assert_eq!(engine.stats().await.unwrap().unwrap().sessions, 0);
}

#[tokio::test]
async fn dropping_the_engine_ends_every_request() {
    let engine = engine();
    let generation = engine.submit(endless(PROMPTS[0], 900));
    drop(engine);
    let error = outcome(generation).await.unwrap_err();
    assert_eq!(error, EngineError::Stopped);
}

#[test]
fn the_dry_run_says_what_the_load_then_holds() {
    for (n_seq_max, n_ubatch, flash_attention) in [(4, 256, false), (1, 64, true), (8, 512, false)] {
        let options = LoadOptions { n_seq_max, n_ubatch, n_batch: 512, flash_attention, ..options() };
        let predicted = dry_run(&tiny(), options).unwrap();
        let measured = engine_with(options).memory();
        assert_eq!(predicted.kv, measured.kv);
        assert_eq!(predicted.compute, measured.compute);
        assert_eq!(predicted.weights_mapped, measured.weights_mapped);
    }
}

#[test]
fn a_load_can_be_stopped_and_bad_options_are_explained() {
    let stopped = LlamaEngine::load(&tiny(), "test", options(), |_| false).unwrap_err();
    assert!(matches!(stopped, LoadError::Stopped(_)), "{stopped}");
    let quantised_v = LoadOptions { type_v: KvType::Q8_0, flash_attention: false, ..options() };
    let error = LlamaEngine::load(&tiny(), "test", quantised_v, |_| true).unwrap_err();
    assert!(error.to_string().contains("FlashAttention"), "{error}");
    let missing = probe(&PathBuf::from("/nonexistent.gguf"), options()).unwrap_err();
    assert!(matches!(missing, LoadError::Gguf { .. }), "{missing}");
}
