//! The messages between whoever wants tokens and whoever makes them.
//!
//! An [`Engine`] serves one model. Everything that crosses its border is plain data over bounded channels, so the same
//! messages can cross a process boundary (a worker engine). This module must never name llama.cpp, HTTP or Wasm.
//!
//! The way of one token: [`Engine::submit`] → actor batches, samples, detokenises → [`Event`] in the bounded channel of
//! its [`Generation`]. A reader that does not read stops its own sequence only; dropping the [`Generation`] cancels it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

pub use crate::reclaim::{Admit, Class, Reclaim, Reclaimed, Throttle};

/// A token id of the model's vocabulary.
pub type Token = i32;

/// Events that a slow reader may leave unread before its sequence is set aside.
pub const EVENT_QUEUE: usize = 64;

/// One conversation inside an engine: a token history and, while it is warm, its KV cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// One request inside an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What an engine has loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// `general.name` of the file, or its file stem.
    pub name: String,
    /// SHA-256 of the file, lower-case hex.
    pub digest: String,
    /// `general.architecture`, e.g. `llama`.
    pub architecture: String,
    /// Tokens that prompt and answer of one sequence may take together.
    pub n_ctx: u32,
    /// Sequences that are decoded in one batch.
    pub n_seq_max: u32,
    /// Entries of the vocabulary.
    pub n_vocab: u32,
    /// Width of an embedding vector, in f32 values.
    pub n_embd: u32,
    /// Whether the file brings a chat template.
    pub has_chat_template: bool,
    /// Name of the form in which it writes tool calls, e.g. `hermes`.
    #[serde(default)]
    pub tool_format: String,
    /// Name of the form in which it marks reasoning, e.g. `think`; `none` if it does not.
    #[serde(default)]
    pub reasoning_format: String,
}

impl ModelInfo {
    /// `name@digest-prefix`: how answers name the physical model.
    #[must_use]
    pub fn label(&self) -> String {
        let short: String = self.digest.chars().take(12).collect();
        format!("{}@{short}", self.name)
    }
}

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// Instructions of the app.
    System,
    /// The person, or the app in the person's place.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub speaker: Speaker,
    /// The text.
    pub content: String,
    /// Calls that an assistant turn made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool turn answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A turn of `speaker` with nothing but text.
    pub fn new(speaker: Speaker, content: impl Into<String>) -> Self {
        Self { speaker, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }
    /// A user turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Speaker::User, content)
    }
    /// A system turn.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Speaker::System, content)
    }
    /// An assistant turn.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Speaker::Assistant, content)
    }
}

/// A call that the model asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique within the conversation.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// A JSON object, as text.
    pub arguments: String,
}

/// A function that the model may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Name of the tool.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: serde_json::Value,
}

/// Whether the model may, must or must not call tools.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No calls.
    None,
    /// At least one call, of any tool; enforced by the sampler.
    Required,
    /// A call of this tool; enforced by the sampler.
    Named(String),
}

/// What the answer must look like; enforced token by token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Constraint {
    /// A JSON Schema.
    JsonSchema(serde_json::Value),
    /// A regular expression for the whole answer.
    Regex(String),
    /// A Lark grammar in llguidance's dialect.
    Grammar(String),
}

/// Sampler settings of one sequence. The defaults are the host's, see each field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy. Default 0.7.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all. Default 40. Always first in the chain: a full chain over 128k tokens costs 0.8 ms.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches p. Default 0.95.
    pub top_p: f32,
    /// Drop tokens below this share of the best one's probability. Default 0.05.
    pub min_p: f32,
    /// Multiplicative penalty on the last 64 tokens; 1 is off. Default 1.
    pub repeat_penalty: f32,
    /// Additive penalty for each occurrence. Default 0.
    pub frequency_penalty: f32,
    /// Additive penalty for having occurred. Default 0.
    pub presence_penalty: f32,
    /// Seed of the sequence's own generator. `None` draws one.
    pub seed: Option<u32>,
    /// Values added to the logits of single tokens.
    pub logit_bias: Vec<(Token, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// Always the most likely token.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, seed: Some(0), ..Self::default() }
    }
}

/// What the model is asked to continue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Prompt {
    /// The whole conversation; the engine applies the model's chat template. What the session has already computed of it is reused.
    Chat {
        /// Every turn from the first on.
        messages: Vec<Message>,
        /// Tools offered to the model.
        tools: Vec<Tool>,
        /// May, must or must not call them.
        tool_choice: ToolChoice,
        /// What the template may ask for besides, e.g. `enable_thinking`, `reasoning_effort` or `documents`. What the engine
        /// sets itself (`messages`, `tools`, `add_generation_prompt`, `bos_token`, `eos_token`) is refused.
        #[serde(default)]
        template: BTreeMap<String, serde_json::Value>,
    },
    /// Text without a template; special tokens in it are not parsed.
    Text(String),
    /// Tokens as they are. Ids outside the vocabulary are refused.
    Tokens(Vec<Token>),
}

/// One request for an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The session whose history the prompt continues. `None` is a session of its own that ends with the answer.
    pub session: Option<SessionId>,
    /// What to continue.
    pub prompt: Prompt,
    /// Upper bound of the answer, in tokens; 0 asks for what the prompt leaves of the context. Prompt and bound together
    /// must fit into the context.
    pub max_tokens: u32,
    /// The answer ends before the first of these strings to be complete, wherever token borders fall.
    pub stop: Vec<String>,
    /// Sampler settings.
    pub sampling: Sampling,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
    /// Generate up to `max_tokens` even if the model ends the turn, or repeats itself. For benchmarks.
    pub ignore_eos: bool,
    /// How urgent it is.
    #[serde(default)]
    pub class: Class,
    /// Without a session: whose earlier requests may have computed part of this prompt. What requests with the same number
    /// left in the cells is taken over where it begins as this prompt does; others never see it, not even by its speed.
    /// `None`: nothing is taken over, nothing is left. Those with different numbers take turns in the queue.
    #[serde(default)]
    pub reuse: Option<u64>,
    /// Sends [`Event::Token`] for each token, with as many alternatives, at most [`MAX_LOGPROBS`].
    #[serde(default)]
    pub logprobs: Option<u32>,
    /// Tokens of reasoning before the answer has to begin: then the model's closing tag is put into its mouth, and
    /// `max_tokens` goes on counting. `None` leaves it to the model.
    #[serde(default)]
    pub thinking_tokens: Option<u32>,
    /// Ends an answer that repeats itself without end, with [`StopReason::Repetition`].
    #[serde(default = "yes")]
    pub stop_repetition: bool,
}

fn yes() -> bool {
    true
}

/// Alternatives that can be asked for with each token; what OpenAI's API allows.
pub const MAX_LOGPROBS: u32 = 20;

impl Request {
    /// A request with the host's defaults: own session, at most 512 tokens.
    #[must_use]
    pub fn new(prompt: Prompt) -> Self {
        Self {
            session: None,
            prompt,
            max_tokens: 512,
            stop: Vec::new(),
            sampling: Sampling::default(),
            constraint: None,
            ignore_eos: false,
            class: Class::Interactive,
            reuse: None,
            logprobs: None,
            thinking_tokens: None,
            stop_repetition: true,
        }
    }
    /// A chat without tools.
    #[must_use]
    pub fn chat(messages: Vec<Message>) -> Self {
        Self::new(Prompt::Chat {
            messages,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            template: BTreeMap::new(),
        })
    }
}

/// A piece of an answer. Text pieces are valid UTF-8 and never split a character.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Prefill has come this far; sent at most once per batch.
    Prefill {
        /// Prompt tokens computed so far, cached ones included.
        done: u32,
        /// Prompt tokens in all.
        total: u32,
    },
    /// A token was drawn; its text comes afterwards, as soon as it can be given out. Only if asked for.
    Token(TokenLogprobs),
    /// Text of the answer.
    Text(String),
    /// Reasoning that the model marks as such.
    Thinking(String),
    /// A tool call, complete: it is sent when its closing tag has been parsed.
    ToolCall(ToolCall),
    /// The last event: how it ended. Nothing follows.
    Done(Result<Completion, EngineError>),
}

/// A token, how likely it was, and what else was likely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprobs {
    /// What was drawn.
    pub drawn: TokenLogprob,
    /// The most likely tokens, the first one first; as many as were asked for.
    pub top: Vec<TokenLogprob>,
}

/// A token and its probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Id in the vocabulary.
    pub token: Token,
    /// What it stands for; part of a character is possible.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability under the model alone: before bias, penalties, temperature and constraints.
    pub logprob: f32,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The model ended its turn.
    End,
    /// `max_tokens` were made.
    MaxTokens,
    /// This stop string came up.
    StopSequence(String),
    /// The turn ended with tool calls.
    ToolCalls,
    /// The answer went round in a circle of so many tokens.
    Repetition {
        /// Tokens that came again and again.
        period: u32,
    },
    /// The reader went away or cancelled.
    Cancelled,
}

/// Counts and times of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u32,
    /// Prompt tokens whose KV was already there.
    pub cached_tokens: u32,
    /// Tokens made.
    pub output_tokens: u32,
    /// Tokens made that were reasoning, tags included.
    #[serde(default)]
    pub thinking_tokens: u32,
    /// From submit to the first token, ms.
    pub ttft_ms: f64,
    /// From submit to the admission into the batch, ms.
    pub wait_ms: f64,
    /// From submit to the end, ms.
    pub total_ms: f64,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Why it ended.
    pub stop: StopReason,
    /// Counts and times.
    pub usage: Usage,
    /// The answer as a turn for the history.
    pub message: Message,
    /// Raw tokens of the answer, the end-of-turn token excluded.
    pub tokens: Vec<Token>,
}

/// Why an engine refuses or fails. Every message names the numbers and, where there is one, the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum EngineError {
    /// The request is wrong whatever the engine's state.
    #[error("{0}")]
    InvalidRequest(String),
    /// Found before prefill.
    #[error(
        "the prompt has {prompt_tokens} tokens and the answer may take {max_tokens}, together more than the {n_ctx} tokens of the context; shorten the prompt or lower max_tokens"
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens the answer may take.
        max_tokens: u32,
        /// Tokens of the context.
        n_ctx: u32,
    },
    /// The queue is full.
    #[error("{waiting} requests are waiting for {n_seq_max} places; try again in about {retry_after_ms} ms")]
    Busy {
        /// Requests in the queue.
        waiting: u32,
        /// Sequences that run at once.
        n_seq_max: u32,
        /// An estimate, ms.
        retry_after_ms: u32,
    },
    /// The host takes nothing on while memory is short.
    #[error("memory is short, and no new requests are taken on; try again in about {retry_after_ms} ms")]
    Throttled {
        /// When to try again, ms.
        retry_after_ms: u32,
    },
    /// The session id is not (or no longer) known.
    #[error("session {0} does not exist or was closed")]
    UnknownSession(u64),
    /// The session is answering another request.
    #[error("session {0} is still answering; a session answers one request at a time")]
    SessionBusy(u64),
    /// The model does not offer it.
    #[error("{0}")]
    Unsupported(String),
    /// The engine failed while computing; the last lines of its log are attached.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// The engine was stopped.
    #[error("the engine was stopped")]
    Stopped,
}

/// A running request: its id and the bounded channel of its events. Dropping it cancels the request within one token.
#[derive(Debug)]
#[must_use = "dropping a generation cancels it"]
pub struct Generation {
    /// Names the request in [`Engine::cancel`] and in logs.
    pub id: RequestId,
    /// Ends after [`Event::Done`].
    pub events: mpsc::Receiver<Event>,
    /// Held for its drop alone.
    _interrupt: Option<Interrupt>,
}

/// Stops a step that is being computed when the reader of one of its requests goes away.
#[derive(Debug)]
pub(crate) struct Interrupt {
    /// Set while the request is in prefill: only then is a step long enough to be worth an abort.
    pub(crate) armed: Arc<AtomicBool>,
    /// The engine's abort flag.
    pub(crate) abort: Arc<AtomicBool>,
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if self.armed.load(Ordering::Relaxed) {
            self.abort.store(true, Ordering::Relaxed);
        }
    }
}

impl Generation {
    /// A request whose reader the engine watches through the channel alone.
    pub fn new(id: RequestId, events: mpsc::Receiver<Event>) -> Self {
        Self { id, events, _interrupt: None }
    }

    pub(crate) fn interrupting(id: RequestId, events: mpsc::Receiver<Event>, interrupt: Interrupt) -> Self {
        Self { id, events, _interrupt: Some(interrupt) }
    }

    /// Reads to the end. Text pieces are joined.
    ///
    /// # Errors
    /// The error of [`Event::Done`], or [`EngineError::Stopped`] when the engine went away first.
    pub async fn collect(mut self) -> Result<(String, Completion), EngineError> {
        let mut text = String::new();
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Text(piece) => text.push_str(&piece),
                Event::Done(outcome) => return outcome.map(|completion| (text, completion)),
                Event::Prefill { .. } | Event::Token(_) | Event::Thinking(_) | Event::ToolCall(_) => {}
            }
        }
        Err(EngineError::Stopped)
    }
}

/// The answer to a question put to the engine. Resolves with an error when the engine stops first.
pub type Reply<T> = oneshot::Receiver<Result<T, EngineError>>;

/// What an engine holds and does now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStats {
    /// Sessions that exist.
    pub sessions: u32,
    /// Requests in the batch.
    pub running: u32,
    /// Requests in the queue.
    pub waiting: u32,
    /// Requests that were taken out of the batch until there is room again.
    pub parked: u32,
    /// Sessions that hold cells or a saved state while none of their requests is queued or running.
    pub idle_sessions: u32,
    /// KV cells in use (one cell holds one token of one or more sequences).
    pub kv_cells_used: u32,
    /// KV cells in all.
    pub kv_cells: u32,
    /// Background requests among those in the batch.
    pub running_background: u32,
    /// Cells that [`Reclaim::IdleSessions`] would give back.
    pub kv_cells_idle: u32,
    /// Cells set aside for background requests in the batch: prompt and longest answer of each.
    pub kv_cells_background: u32,
    /// Cells that the next request in line lacks in the pool, beside those that run. No more than what the pool lacks to the
    /// size that it was loaded with: 0 while it has that size.
    pub cells_wanted: u32,
    /// Saved states in memory, bytes.
    pub prompt_cache_bytes: u64,
    /// Saved states on disk, bytes of the files.
    pub spilled_bytes: u64,
    /// Batches computed since the start: a sign of progress.
    pub steps: u64,
    /// Tokens whose cells came back from a saved state since the start.
    pub restored_tokens: u64,
    /// Tokens prefilled since the start.
    pub prefilled: u64,
    /// Tokens made since the start.
    pub decoded: u64,
    /// Requests that ended, whatever the outcome.
    pub finished: u64,
    /// Pieces of answers that looked like a tool call, did not parse and were given out as text.
    #[serde(default)]
    pub tool_call_failures: u64,
}

/// Turns tokens into tokens. Calls return at once; what takes time comes back over a channel.
pub trait Engine: Send + Sync + 'static {
    /// What is loaded.
    fn model(&self) -> &ModelInfo;

    /// Bytes that this engine holds, by kind. The figures follow every [`Engine::resize`] and [`Engine::reclaim`].
    fn memory(&self) -> EngineMemory;

    /// Starts a conversation. Costs nothing until the first request.
    fn open(&self) -> Reply<SessionId>;

    /// A second conversation with the history of the first; the KV cells are shared.
    fn fork(&self, session: SessionId) -> Reply<SessionId>;

    /// Ends a conversation and frees its cells. A request that is still running is cancelled.
    fn close(&self, session: SessionId);

    /// Asks for an answer. A refusal comes as [`Event::Done`] too.
    fn submit(&self, request: Request) -> Generation;

    /// Stops a request within one token. Unknown ids are ignored: it may just have ended.
    fn cancel(&self, request: RequestId);

    /// Tokens of a prompt, template included.
    fn tokenize(&self, prompt: Prompt) -> Reply<Vec<Token>>;

    /// The text of tokens, special ones included. What is no UTF-8 is replaced.
    fn detokenize(&self, tokens: Vec<Token>) -> Reply<String>;

    /// One unit vector for each text.
    fn embed(&self, texts: Vec<String>) -> Reply<Vec<Vec<f32>>>;

    /// What it holds and does now.
    fn stats(&self) -> Reply<EngineStats>;

    /// The figures of [`Engine::stats`], whenever requests, sessions, cells or saved states change; counters of tokens and
    /// steps alone do not count as a change. An engine that does not tell closes the channel.
    fn watch(&self) -> watch::Receiver<EngineStats> {
        watch::channel(EngineStats::default()).1
    }

    /// Gives memory back between two steps. Running requests go on with the same tokens.
    fn reclaim(&self, what: Reclaim) -> Reply<Reclaimed> {
        unsupported(format!("this engine cannot give back {what:?}"))
    }

    /// Lets background requests that [`Reclaim::Background`] parked go on, and new ones start, as far as there is room.
    fn resume(&self) {}

    /// Makes the pool larger or smaller; answers with what is held afterwards. The bytes of a larger pool must be
    /// reserved before: an engine never grows by itself. A smaller pool keeps the cells of running requests; idle sessions
    /// give way. While it is made, the cells in use are held once more.
    ///
    /// When the system does not give the memory, the pool keeps its size and the answer is an error.
    fn resize(&self, kv_cells: u32) -> Reply<EngineMemory> {
        unsupported(format!("this engine cannot make its pool {kv_cells} cells large"))
    }

    /// Says what is taken on from now on. What runs is not touched.
    fn throttle(&self, throttle: Throttle) {
        let _ = throttle;
    }

    /// Whether it was stopped or unloaded: it answers everything with [`EngineError::Stopped`], and its role has to be
    /// resolved again.
    fn is_gone(&self) -> bool {
        false
    }
}

fn unsupported<T>(reason: String) -> Reply<T> {
    let (sender, reply) = oneshot::channel();
    let _ = sender.send(Err(EngineError::Unsupported(reason)));
    reply
}

/// Bytes by kind, as the engine itself reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineMemory {
    /// Weights in the shared read-only mapping of the file.
    pub weights_mapped: u64,
    /// Weights in memory that is not file-backed (a GPU copy, or repacked on the owner's wish).
    pub weights_resident: u64,
    /// KV cells, all of them: they are committed when the context is made.
    pub kv: u64,
    /// Compute buffers.
    pub compute: u64,
    /// Logits and embeddings of the outputs.
    pub output: u64,
}

/// An engine shared by those who use it.
pub type SharedEngine = Arc<dyn Engine>;
