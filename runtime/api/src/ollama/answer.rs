//! `/api/chat` and `/api/generate`.

use axum::{
    Json,
    extract::{Extension, State},
    response::{IntoResponse, Response},
};
use locara_engine::ToolCall;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    plain,
    request::{ChatRequest, GenerateRequest, KeepAlive},
};
use crate::{
    Api,
    access::Caller,
    answering::{Answer, Ending, Piece, Reason},
    body::Body,
    fault::{Dialect, Fault},
    logprobs::Logprob,
    stream::{self, Encoder, Format, Frames},
    text::{nanoseconds, now},
    wish::Wish,
};

/// An answer, or a line of one.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OllamaAnswer)]
struct Line {
    /// The physical model.
    model: String,
    /// RFC 3339.
    created_at: String,
    /// Of `/api/chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Said>,
    /// Of `/api/generate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    /// Of `/api/generate`: reasoning, if the model marks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    /// How likely the tokens of this line were, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Logprob>,
    /// Whether this is the last line.
    done: bool,
    /// `stop`, `length`, `load` or `unload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    figures: Option<Figures>,
}

/// What the model said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaSaid)]
struct Said {
    /// `assistant`.
    role: &'static str,
    content: String,
    /// Reasoning, if the model marks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

/// Counts and times of an answer, with the last line of it; times in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = OllamaFigures)]
struct Figures {
    #[schema(required = false)]
    total_duration: u64,
    #[schema(required = false)]
    load_duration: u64,
    /// Tokens of the prompt.
    #[schema(required = false)]
    prompt_eval_count: u32,
    #[schema(required = false)]
    prompt_eval_duration: u64,
    /// Tokens made.
    #[schema(required = false)]
    eval_count: u32,
    #[schema(required = false)]
    eval_duration: u64,
    /// Tokens of the prompt that were not computed again.
    #[schema(required = false)]
    cached_count: u32,
}

impl Figures {
    fn of(ending: &Ending) -> Self {
        let usage = &ending.usage;
        Self {
            total_duration: nanoseconds(usage.total_ms),
            load_duration: 0,
            prompt_eval_count: usage.prompt_tokens,
            prompt_eval_duration: nanoseconds(usage.ttft_ms - usage.wait_ms),
            eval_count: usage.output_tokens,
            eval_duration: nanoseconds(usage.total_ms - usage.ttft_ms),
            cached_count: usage.cached_tokens,
        }
    }
}

/// Which of the two routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Chat,
    Generate,
}

impl Route {
    /// A line with this said in it.
    fn line(self, model: &str, content: String, thinking: String, calls: &[ToolCall]) -> Line {
        let thinking = (!thinking.is_empty()).then_some(thinking);
        let line = Line { model: model.to_owned(), created_at: now(), ..Line::default() };
        match self {
            Self::Chat => {
                let tool_calls = calls.iter().map(call).collect();
                Line { message: Some(Said { role: "assistant", content, thinking, tool_calls }), ..line }
            }
            Self::Generate => Line { response: Some(content), thinking, ..line },
        }
    }

    /// An answer without an answer: the model was loaded or unloaded.
    fn nothing(self, model: &str, done_reason: &'static str) -> Response {
        let line = self.line(model, String::new(), String::new(), &[]);
        Json(Line { done: true, done_reason: Some(done_reason), ..line }).into_response()
    }
}

fn call(call: &ToolCall) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({ "text": call.arguments }));
    json!({"function": {"name": call.name, "arguments": arguments}})
}

const fn done_reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::End | Reason::StopSequence(_) | Reason::ToolCalls => "stop",
        // A loop that was stopped is an answer that was cut off.
        Reason::MaxTokens | Reason::Repetition => "length",
    }
}

/// Continues a conversation.
#[utoipa::path(post, path = "/api/chat", tag = "ollama", request_body = ChatRequest,
    responses((status = 200, description = "Lines of JSON, or one answer", body = Line),
        (status = 400), (status = 404), (status = 429), (status = 503), (status = 507)))]
pub(super) async fn chat(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, Fault> {
    let model = plain(&request.model).to_owned();
    if request.messages.is_empty() {
        return load_or_unload(&api, &caller, &model, request.keep_alive.as_ref(), Route::Chat).await;
    }
    let streams = request.stream != Some(false);
    answer(&api, &caller, &model, request.wish()?, streams, Route::Chat).await
}

/// Answers a prompt, or continues a raw one.
#[utoipa::path(post, path = "/api/generate", tag = "ollama", request_body = GenerateRequest,
    responses((status = 200, description = "Lines of JSON, or one answer", body = Line),
        (status = 400), (status = 404), (status = 429), (status = 503), (status = 507)))]
pub(super) async fn generate(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<GenerateRequest>,
) -> Result<Response, Fault> {
    let model = plain(&request.model).to_owned();
    if request.prompt.as_ref().is_none_or(String::is_empty) {
        return load_or_unload(&api, &caller, &model, request.keep_alive.as_ref(), Route::Generate).await;
    }
    let streams = request.stream != Some(false);
    answer(&api, &caller, &model, request.wish()?, streams, Route::Generate).await
}

async fn load_or_unload(
    api: &Api,
    caller: &Caller,
    model: &str,
    keep_alive: Option<&KeepAlive>,
    route: Route,
) -> Result<Response, Fault> {
    if keep_alive.is_some_and(KeepAlive::is_zero) {
        let entry = api.model(model).await?;
        api.host().unload(model.to_owned()).await?;
        return Ok(route.nothing(&entry.name, "unload"));
    }
    let served = api.engine(caller, model).await?;
    Ok(route.nothing(&served.model, "load"))
}

async fn answer(
    api: &Api,
    caller: &Caller,
    model: &str,
    wish: Wish,
    streams: bool,
    route: Route,
) -> Result<Response, Fault> {
    let answering = api.answer(caller, model, wish, streams.then_some(stream::PATIENCE)).await?;
    let model = answering.model.clone();
    if streams {
        let times = api.stream_times();
        return Ok(stream::respond(answering, LineEncoder { model, route }, Format::JsonLines, times));
    }
    let answer = answering.collect().await?.pop().unwrap_or_default();
    let ending = answer.ending()?.clone();
    let Answer { text, thinking, calls, tokens, .. } = answer;
    let line =
        Line { logprobs: tokens.iter().map(Logprob::of).collect(), ..route.line(&model, text, thinking, &calls) };
    Ok(Json(last(line, &ending)).into_response())
}

fn last(line: Line, ending: &Ending) -> Line {
    Line { done: true, done_reason: Some(done_reason(&ending.reason)), figures: Some(Figures::of(ending)), ..line }
}

struct LineEncoder {
    model: String,
    route: Route,
}

impl LineEncoder {
    fn said(&self, content: String, thinking: String, calls: &[ToolCall]) -> Line {
        self.route.line(&self.model, content, thinking, calls)
    }
}

impl Encoder for LineEncoder {
    fn begin(&mut self, _prompt_tokens: Option<u32>, _out: &mut Frames) {}

    fn piece(&mut self, _choice: usize, piece: Piece, out: &mut Frames) {
        let none = String::new;
        match piece {
            Piece::Prefill { .. } => {}
            Piece::Text(text, tokens) => {
                let logprobs = tokens.iter().map(Logprob::of).collect();
                out.line(&Line { logprobs, ..self.said(text, none(), &[]) });
            }
            Piece::Thinking(text) => out.line(&self.said(none(), text, &[])),
            Piece::Call(call) => out.line(&self.said(none(), none(), &[call])),
            Piece::End(ending) => out.line(&last(self.said(none(), none(), &[]), &ending)),
        }
    }

    /// This dialect has no comments: a line without text says that the stream is alive.
    fn idle(&mut self, _progress: Option<(u32, u32)>, out: &mut Frames) {
        out.line(&self.said(String::new(), String::new(), &[]));
    }

    fn end(&mut self, _out: &mut Frames) {}

    fn fail(&mut self, fault: &Fault, out: &mut Frames) {
        out.line(&fault.body(Dialect::Ollama));
    }
}
