//! What a caller without sessions relies on: prefixes that are found again, logprobs, bounds of reasoning and of circles.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;

use locara_engine::{
    Completion, Constraint, Engine, Event, Generation, MAX_LOGPROBS, Message, Prompt, Request, Sampling, StopReason,
    Token, TokenLogprobs,
    llama::{CacheOptions, ChatOptions, LlamaEngine, LoadOptions},
};
use locara_policy::KvType;

fn engine() -> LlamaEngine {
    engine_with(4, &ChatOptions::default())
}

fn engine_with(n_seq_max: u32, chat: &ChatOptions) -> LlamaEngine {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf");
    let options = LoadOptions {
        n_ctx: 1024,
        kv_cells: 2048,
        n_seq_max,
        n_batch: 256,
        n_ubatch: 256,
        type_k: KvType::F16,
        type_v: KvType::F16,
        // Cells may lie anywhere without a difference in the last bit.
        flash_attention: true,
        n_threads: 1,
        n_gpu_layers: -1,
        repack: false,
        queue_max: 16,
    };
    LlamaEngine::load_with(&path, "test", options, &CacheOptions::default(), chat, |_| true).unwrap()
}

/// `n` tokens that mean nothing; another `salt` gives others from the first on.
fn words(salt: i32, n: usize) -> Vec<Token> {
    (0..).map(|i: i32| 300 + (i * 7 + i * i * 3 + salt * 131) % 500).take(n).collect()
}

fn ask(number: impl Into<Option<u64>>, prompt: &[Token]) -> Request {
    Request {
        reuse: number.into(),
        sampling: Sampling::greedy(),
        max_tokens: 8,
        ignore_eos: true,
        ..Request::new(Prompt::Tokens(prompt.to_vec()))
    }
}

async fn outcome(generation: Generation) -> Completion {
    generation.collect().await.unwrap().1
}

async fn answer(engine: &LlamaEngine, request: Request) -> Completion {
    outcome(engine.submit(request)).await
}

/// All events of an answer that can be told apart, and how it ended.
async fn events(mut generation: Generation) -> (String, String, Vec<TokenLogprobs>, Completion) {
    let (mut text, mut thinking, mut tokens) = (String::new(), String::new(), Vec::new());
    loop {
        match generation.events.recv().await.unwrap() {
            Event::Text(piece) => text += &piece,
            Event::Thinking(piece) => thinking += &piece,
            Event::Token(token) => tokens.push(token),
            Event::Done(outcome) => return (text, thinking, tokens, outcome.unwrap()),
            Event::Prefill { .. } | Event::ToolCall(_) => {}
        }
    }
}

#[tokio::test]
async fn the_next_turn_of_a_conversation_without_a_session_prefills_only_what_is_new() {
    let engine = engine();
    let first = words(1, 200);
    let one = answer(&engine, ask(7, &first)).await;
    assert_eq!(one.usage.cached_tokens, 0);
    let second = [first.clone(), one.tokens.clone(), words(2, 40)].concat();
    let two = answer(&engine, ask(7, &second)).await;
    // All but the last token of the answer, which nobody computed.
    assert_eq!(two.usage.cached_tokens as usize, first.len() + one.tokens.len() - 1);
    // Who has another number, or none, finds nothing, and gets the same answer.
    for stranger in [Some(8), None] {
        let answer = answer(&engine, ask(stranger, &second)).await;
        assert_eq!((answer.usage.cached_tokens, &answer.tokens), (0, &two.tokens), "{stranger:?}");
    }
    // Without a number nothing was left either.
    assert_eq!(answer(&engine, ask(None, &second)).await.usage.cached_tokens, 0);
}

#[tokio::test]
async fn two_conversations_that_begin_alike_both_go_on() {
    let engine = engine();
    let system = words(1, 150);
    let mut histories = [words(2, 200), words(3, 200)].map(|user| [system.clone(), user].concat());
    for (at, history) in histories.iter_mut().enumerate() {
        let first = answer(&engine, ask(7, history)).await;
        // The second shares the beginning with the first, and leaves it what it is.
        assert_eq!(first.usage.cached_tokens as usize, if at == 0 { 0 } else { system.len() });
        history.extend(&first.tokens);
    }
    for _ in 0..2 {
        for history in &mut histories {
            let known = history.len() - 1;
            history.extend(words(4, 10));
            let next = answer(&engine, ask(7, history)).await;
            assert_eq!(next.usage.cached_tokens as usize, known);
            history.extend(&next.tokens);
        }
    }
    // As if each had been alone.
    let (first, rest) = histories[0].split_at(350);
    let alone = answer(&engine, ask(None, first)).await;
    assert_eq!(alone.tokens, rest[..8]);
}

#[tokio::test]
async fn a_request_shares_the_beginning_of_one_that_still_runs() {
    let engine = engine();
    let prompt = words(1, 180);
    let mut running = engine.submit(Request { max_tokens: 500, ..ask(7, &prompt) });
    while !matches!(running.events.recv().await.unwrap(), Event::Text(_)) {}
    let beside = answer(&engine, ask(7, &prompt)).await;
    assert_eq!(beside.usage.cached_tokens as usize, prompt.len() - 1);
    drop(running);
}

#[tokio::test]
async fn what_requests_leave_gives_way_to_those_that_need_the_cells() {
    let engine = engine();
    for salt in 0..20 {
        let all = answer(&engine, ask(7, &words(salt, 700))).await;
        assert_eq!(all.usage.output_tokens, 8);
    }
    let stats = engine.stats().await.unwrap().unwrap();
    assert!(stats.kv_cells_used <= stats.kv_cells, "{stats:?}");
    assert!(stats.sessions <= 20, "{stats:?}");
}

#[tokio::test]
async fn logprobs_are_those_of_the_model_and_change_nothing() {
    let engine = engine();
    let sampling = Sampling { temperature: 1.5, seed: Some(3), ..Sampling::default() };
    let request = || Request { sampling: sampling.clone(), max_tokens: 24, ..ask(None, &words(5, 30)) };
    let plain = answer(&engine, request()).await;
    let (text, _, tokens, told) = events(engine.submit(Request { logprobs: Some(5), ..request() })).await;
    assert_eq!(told.tokens, plain.tokens);
    assert_eq!(tokens.iter().map(|token| token.drawn.token).collect::<Vec<_>>(), plain.tokens);
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.drawn.bytes.clone()).collect();
    // The text leaves out the special tokens.
    let spelled = String::from_utf8_lossy(&bytes).replace("<|im_end|>", "").replace("<|im_start|>", "");
    assert_eq!(spelled.trim(), text.trim());
    for token in &tokens {
        assert_eq!(token.top.len(), 5);
        assert!(token.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
        assert!(token.drawn.logprob <= token.top[0].logprob && token.drawn.logprob <= 0.0);
        let sum: f32 = token.top.iter().map(|top| top.logprob.exp()).sum();
        assert!(sum <= 1.001, "{sum}");
    }
    let greedy = Request { logprobs: Some(1), ..ask(None, &words(5, 30)) };
    assert!(events(engine.submit(greedy)).await.2.iter().all(|token| token.drawn == token.top[0]));
    let many = Request { logprobs: Some(MAX_LOGPROBS + 1), ..request() };
    let refused = engine.submit(many).collect().await.unwrap_err().to_string();
    assert!(refused.contains("21") && refused.contains("20"), "{refused}");
}

/// The constraint opens the reasoning, which is free then and would never end: the end of the turn is ignored.
#[tokio::test]
async fn reasoning_that_uses_up_its_tokens_is_ended_and_the_answer_follows_its_constraint() {
    let thinks = ChatOptions { reasoning_format: Some("think".to_owned()), ..ChatOptions::default() };
    let engine = engine_with(4, &thinks);
    let ask = |thinking_tokens| Request {
        constraint: Some(Constraint::Regex("<think>(yes|no)".into())),
        thinking_tokens,
        ignore_eos: true,
        sampling: Sampling::greedy(),
        max_tokens: 120,
        ..Request::chat(vec![Message::user("Is water wet?")])
    };
    let (text, thinking, _, done) = events(engine.submit(ask(Some(20)))).await;
    assert!(["yes", "no"].contains(&text.trim()), "{text:?}");
    assert!(!thinking.is_empty());
    assert!((20..40).contains(&done.usage.thinking_tokens), "{:?}", done.usage);
    assert!(done.usage.output_tokens > done.usage.thinking_tokens);
    // Without a bound it thinks as long as it may.
    let (text, _, _, done) = events(engine.submit(ask(None))).await;
    assert_eq!((text.as_str(), done.stop), ("", StopReason::MaxTokens));
    assert!(done.usage.thinking_tokens > 100, "{:?}", done.usage);
}

#[tokio::test]
async fn an_answer_that_goes_round_in_a_circle_is_ended() {
    let engine = engine();
    let stuck = |stop_repetition| Request {
        sampling: Sampling { logit_bias: vec![(400, 100.0)], ..Sampling::greedy() },
        max_tokens: 400,
        stop_repetition,
        ..Request::new(Prompt::Tokens(words(1, 20)))
    };
    let ended = answer(&engine, stuck(true)).await;
    assert_eq!(ended.stop, StopReason::Repetition { period: 1 });
    assert_eq!(ended.usage.output_tokens, 192);
    let allowed = answer(&engine, stuck(false)).await;
    assert_eq!((allowed.stop, allowed.usage.output_tokens), (StopReason::MaxTokens, 400));
}

#[tokio::test]
async fn text_becomes_tokens_and_text_again() {
    let engine = engine();
    let text = "Orla lives in Venmoor, at 12 °C. 漢";
    let tokens = engine.tokenize(Prompt::Text(text.into())).await.unwrap().unwrap();
    let back = engine.detokenize(tokens).await.unwrap().unwrap();
    assert!(back.ends_with(text), "{back}");
    let refused = engine.detokenize(vec![9_999_999]).await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("9999999"), "{refused}");
}

#[tokio::test]
async fn those_who_ask_take_turns_however_much_one_of_them_asks() {
    let engine = engine_with(1, &ChatOptions::default());
    // It holds the only place until it is read.
    let mut running = engine.submit(Request { max_tokens: 200, ..ask(1, &words(1, 20)) });
    while !matches!(running.events.recv().await.unwrap(), Event::Text(_)) {}
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for (number, salt) in [(1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (3, 7)] {
        let (generation, order) = (engine.submit(ask(number, &words(salt, 20))), order.clone());
        // Through the same thread, so the order of arrival is this one.
        engine.tokenize(Prompt::Tokens(vec![1])).await.unwrap().unwrap();
        waiting.push(tokio::spawn(async move {
            outcome(generation).await;
            order.lock().unwrap().push(number);
        }));
    }
    outcome(running).await;
    for task in waiting {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [2, 3, 1, 2, 1, 1]);
}
