//! How the engine speaks to models: templates, tool calls and reasoning of the families, on the embedded model.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use locara_engine::{
    Completion, Constraint, Engine, EngineError, Event, Message, Prompt, Request, Sampling, Speaker, StopReason, Tool,
    ToolCall, ToolChoice,
    llama::{CacheOptions, ChatOptions, LlamaEngine, LoadError, LoadOptions},
};
use locara_policy::KvType;
use locara_zoo::{Arch, Meta, Spec, draft};
use serde_json::{Value, json};

fn load(chat: &ChatOptions) -> Result<LlamaEngine, LoadError> {
    load_file(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf"), chat)
}

fn load_file(path: &Path, chat: &ChatOptions) -> Result<LlamaEngine, LoadError> {
    let options = LoadOptions {
        n_ctx: 1024,
        kv_cells: 1024,
        n_seq_max: 1,
        n_batch: 256,
        n_ubatch: 256,
        type_k: KvType::Q8_0,
        type_v: KvType::F16,
        flash_attention: false,
        n_threads: 1,
        n_gpu_layers: -1,
        repack: false,
        queue_max: 16,
    };
    LlamaEngine::load_with(path, "test", options, &CacheOptions::default(), chat, |_| true)
}

fn with_formats(tools: &str, reasoning: &str) -> ChatOptions {
    ChatOptions { tool_format: Some(tools.into()), reasoning_format: Some(reasoning.into()), ..ChatOptions::default() }
}

fn timer() -> Tool {
    Tool {
        name: "set_timer".into(),
        description: "Sets a timer.".into(),
        parameters: json!({"type": "object", "additionalProperties": false, "required": ["minutes", "tone"],
            "properties": {"minutes": {"type": "integer", "minimum": 1, "maximum": 60},
                "tone": {"type": "string", "enum": ["low", "high"]}}}),
    }
}

fn ask(messages: Vec<Message>, tool_choice: ToolChoice) -> Request {
    let tools = vec![timer()];
    let prompt = Prompt::Chat { messages, tools, tool_choice, template: BTreeMap::new() };
    Request { sampling: Sampling::greedy(), max_tokens: 300, ..Request::new(prompt) }
}

async fn outcome(engine: &LlamaEngine, request: Request) -> (Vec<Event>, Result<Completion, EngineError>) {
    let mut generation = engine.submit(request);
    let mut events = Vec::new();
    while let Some(event) = generation.events.recv().await {
        match event {
            Event::Done(outcome) => return (events, outcome),
            Event::Prefill { .. } => {}
            other => events.push(other),
        }
    }
    panic!("the channel closed without `Done`");
}

#[tokio::test]
async fn a_required_call_is_made_in_the_form_of_every_family() {
    let formats = "apriel command-r7b deepseek-v3 deepseek-v3.1 function-gemma gemma4 glm granite harmony hermes kimi-k2 lfm2 llama3 \
                   minimax-m2 mistral mistral-args nemotron phi4 qwen3-coder seed-oss";
    let unknown = load(&with_formats("herms", "think")).unwrap_err().to_string();
    assert!(
        unknown.ends_with(&format!("known are {}", formats.replace(' ', ", "))),
        "the list is not whole: {unknown}"
    );
    for format in formats.split(' ') {
        let engine = load(&with_formats(format, "none")).unwrap();
        assert_eq!(engine.model().tool_format, format);
        let request = ask(vec![Message::user("hello")], ToolChoice::Named("set_timer".into()));
        let (events, completion) = outcome(&engine, request).await;
        let completion = completion.unwrap();
        assert_eq!(completion.stop, StopReason::ToolCalls, "{format}: {events:?} {completion:?}");
        let [call] = &completion.message.tool_calls[..] else { panic!("{format}: {completion:?}") };
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
        assert_eq!(call.name, "set_timer", "{format}");
        assert!((1..=60).contains(&arguments["minutes"].as_i64().unwrap()), "{format}: {arguments}");
        assert!(["low", "high"].contains(&arguments["tone"].as_str().unwrap()), "{format}: {arguments}");
        assert_eq!(completion.message.content, "", "{format}");
        assert_eq!(engine.stats().await.unwrap().unwrap().tool_call_failures, 0, "{format}");
    }
}

/// A model without sense whose vocabulary has these control tokens.
fn write_with_controls(path: &Path, controls: &[&str]) {
    let mut draft = draft(&Spec::tiny(Arch::Llama)).unwrap();
    for (key, value) in &mut draft.keys {
        let at = |len: usize| len - controls.len() - 5..len - 5;
        match (key.as_str(), value) {
            // The last tokens before the markers of Llama 3, of which there are five.
            ("tokenizer.ggml.tokens", Meta::Strs(tokens)) => {
                let at = at(tokens.len());
                tokens.splice(at, controls.iter().map(|text| (*text).to_owned()));
            }
            ("tokenizer.ggml.token_type", Meta::I32s(types)) => {
                let at = at(types.len());
                types[at].fill(3);
            }
            ("tokenizer.ggml.merges", Meta::Strs(merges)) => merges.truncate(merges.len() - controls.len()),
            _ => {}
        }
    }
    draft.save(path).unwrap();
}

#[tokio::test]
async fn control_tokens_that_are_markup_reach_the_splitter_and_never_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let families: [(&str, &str, &[&str]); 4] = [
        ("harmony", "harmony", &["<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|start|>"]),
        ("mistral-args", "none", &["[TOOL_CALLS]", "[ARGS]"]),
        ("command-r7b", "command-r", &["<|START_ACTION|>", "<|END_ACTION|>", "<|START_THINKING|>", "<|END_THINKING|>"]),
        (
            "deepseek-v3.1",
            "none",
            &[
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁call▁begin｜>",
                "<｜tool▁sep｜>",
                "<｜tool▁call▁end｜>",
                "<｜tool▁calls▁end｜>",
            ],
        ),
    ];
    for (format, reasoning, controls) in families {
        let path = folder.path().join("model.gguf");
        write_with_controls(&path, controls);
        let engine = load_file(&path, &with_formats(format, reasoning)).unwrap();
        let request = ask(vec![Message::user("hello")], ToolChoice::Named("set_timer".into()));
        let (events, completion) = outcome(&engine, request).await;
        let completion = completion.unwrap();
        assert!(events.iter().all(|event| matches!(event, Event::ToolCall(_))), "{format}: {events:?}");
        let [call] = &completion.message.tool_calls[..] else { panic!("{format}: {completion:?}") };
        assert_eq!(call.name, "set_timer", "{format}");
        // The same tokens mean nothing to a reader where no call can be.
        let said = Prompt::Chat {
            messages: vec![Message::user("hello")],
            tools: vec![],
            tool_choice: ToolChoice::Auto,
            template: BTreeMap::new(),
        };
        let bias: Vec<_> = completion.tokens.iter().take(1).map(|token| (*token, 100.0)).collect();
        let sampling = Sampling { logit_bias: bias, ..Sampling::greedy() };
        let request = Request { sampling, max_tokens: 4, ignore_eos: true, ..Request::new(said) };
        let (events, _) = outcome(&engine, request).await;
        assert_eq!(events, [], "{format}");
    }
}

#[tokio::test]
async fn the_owners_word_on_the_chat_is_kept_or_refused_with_the_reason() {
    let own = load(&ChatOptions::default()).unwrap();
    assert_eq!((own.model().tool_format.as_str(), own.model().reasoning_format.as_str()), ("hermes", "none"));
    for (options, expected) in [
        (with_formats("hermes", "thinking"), ["thinking", "magistral"]),
        (
            ChatOptions { template_override: Some("{% if %}".into()), ..ChatOptions::default() },
            ["locara-tiny.gguf", "chat:1"],
        ),
    ] {
        let error = load(&options).unwrap_err();
        assert!(matches!(error, LoadError::Chat { .. }), "{error:?}");
        let shown = error.to_string();
        assert!(expected.iter().all(|part| shown.contains(part)), "{shown}");
    }
    // The template of the request's own making is the one that is used, and gets the request's variables.
    let template = "{{ raise_exception(mood | default('none') ~ ' from ' ~ messages[0].content) }}";
    let engine = load(&ChatOptions { template_override: Some(template.into()), ..ChatOptions::default() }).unwrap();
    let variables = BTreeMap::from([("mood".to_owned(), json!("cheer"))]);
    let prompt = Prompt::Chat {
        messages: vec![Message::user("Ada")],
        tools: vec![],
        tool_choice: ToolChoice::Auto,
        template: variables,
    };
    let error = outcome(&engine, Request::new(prompt)).await.1.unwrap_err();
    assert!(matches!(&error, EngineError::InvalidRequest(reason) if reason.contains("cheer from Ada")), "{error}");
}

/// A template without tools that opens reasoning in the prompt.
fn reasoning_template() -> ChatOptions {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                    {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
    ChatOptions { template_override: Some(template.into()), ..ChatOptions::default() }
}

#[tokio::test]
async fn an_answer_begins_inside_reasoning_where_the_prompt_opens_it() {
    let engine = load(&reasoning_template()).unwrap();
    assert_eq!((engine.model().tool_format.as_str(), engine.model().reasoning_format.as_str()), ("hermes", "think"));
    let talk = Request { max_tokens: 12, ignore_eos: true, ..Request::chat(vec![Message::user("hello")]) };
    let (events, completion) = outcome(&engine, talk.clone()).await;
    assert!(!events.is_empty() && events.iter().all(|event| matches!(event, Event::Thinking(_))), "{events:?}");
    assert_eq!(completion.unwrap().message.content, "");
    // What is constrained from the first token on is the answer.
    let constrained = Request { constraint: Some(Constraint::Regex("yes|no".into())), ..talk };
    let (events, completion) = outcome(&engine, Request { ignore_eos: false, ..constrained }).await;
    let content = completion.unwrap().message.content;
    assert!(["yes", "no"].contains(&content.as_str()), "{content:?}");
    assert!(events.iter().all(|event| matches!(event, Event::Text(_))), "{events:?}");
    let (_, completion) = outcome(&engine, ask(vec![Message::user("hello")], ToolChoice::Required)).await;
    assert_eq!(completion.unwrap().stop, StopReason::ToolCalls);
}

#[tokio::test]
async fn a_template_without_tools_takes_a_history_with_calls() {
    let engine = load(&reasoning_template()).unwrap();
    let call = ToolCall { id: "1".into(), name: "set_timer".into(), arguments: "{\"minutes\": 5}".into() };
    let messages = vec![
        Message::user("tea"),
        Message { tool_calls: vec![call], ..Message::assistant("") },
        Message { tool_call_id: Some("1".into()), ..Message::new(Speaker::Tool, "done") },
    ];
    let count = |tools: Vec<Tool>| {
        let tool_choice = ToolChoice::Auto;
        let prompt = Prompt::Chat { messages: messages.clone(), tools, tool_choice, template: BTreeMap::new() };
        engine.tokenize(prompt)
    };
    let without = count(vec![]).await.unwrap().unwrap().len();
    let with = count(vec![timer()]).await.unwrap().unwrap().len();
    assert!(with > without + 50, "{without} tokens without the tool, {with} with it");
}

#[tokio::test]
async fn a_call_that_does_not_parse_is_text_and_counted() {
    let engine = load(&ChatOptions::default()).unwrap();
    let damaged = "<tool_call>\n{\"name\": set_timer}\n</tool_call>";
    // The grammar makes the model say it.
    let said = Constraint::Grammar(format!("start: {}", json!(damaged)));
    let request = Request { constraint: Some(said), ..ask(vec![Message::user("hello")], ToolChoice::Auto) };
    let (_, completion) = outcome(&engine, request).await;
    let completion = completion.unwrap();
    assert_eq!((completion.message.content.as_str(), completion.message.tool_calls.len()), (damaged, 0));
    assert_eq!(completion.stop, StopReason::End);
    assert_eq!(engine.stats().await.unwrap().unwrap().tool_call_failures, 1);
}
