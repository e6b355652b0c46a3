//! Anthropic's dialect: `/v1/messages`.

mod encode;
mod request;

use axum::{
    Json,
    extract::{Extension, State},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{encode::MessageEncoder, request::MessagesRequest};
use crate::{
    Api,
    access::Caller,
    answering::{Answer, Ending, Reason, count},
    body::Body,
    fault::Fault,
    stream::{self, Format},
    text::fresh_id,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(messages)).routes(routes!(count_tokens))
}

/// An answer, whole.
#[derive(Debug, Serialize, ToSchema)]
struct MessageAnswer {
    id: String,
    /// `message`.
    r#type: &'static str,
    /// `assistant`.
    role: &'static str,
    /// The physical model.
    model: String,
    /// Blocks of type `thinking`, `text` and `tool_use`.
    content: Vec<Value>,
    stop_reason: &'static str,
    stop_sequence: Option<String>,
    usage: Usage,
}

/// Counts of a request. Tokens that were not computed again count apart.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = AnthropicUsage)]
struct Usage {
    input_tokens: u32,
    cache_creation_input_tokens: u32,
    cache_read_input_tokens: u32,
    output_tokens: u32,
}

impl Usage {
    fn of(ending: &Ending) -> Self {
        let usage = &ending.usage;
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.output_tokens,
        }
    }
}

/// `stop_reason` and `stop_sequence`.
fn stop(ending: &Ending) -> (&'static str, Option<String>) {
    match &ending.reason {
        Reason::End => ("end_turn", None),
        Reason::MaxTokens if ending.context_exhausted => ("model_context_window_exceeded", None),
        // A loop that was stopped is an answer that was cut off.
        Reason::MaxTokens | Reason::Repetition => ("max_tokens", None),
        Reason::StopSequence(stop) => ("stop_sequence", Some(stop.clone())),
        Reason::ToolCalls => ("tool_use", None),
    }
}

/// The arguments of a call, which are an object here.
fn input(arguments: &str) -> Value {
    // The engine has parsed them already; what is no object is still shown.
    serde_json::from_str(arguments).unwrap_or_else(|_| json!({ "text": arguments }))
}

fn blocks(answer: &Answer) -> Vec<Value> {
    let mut blocks = Vec::new();
    if !answer.thinking.is_empty() {
        blocks.push(json!({"type": "thinking", "thinking": answer.thinking, "signature": ""}));
    }
    if !answer.text.is_empty() {
        blocks.push(json!({"type": "text", "text": answer.text}));
    }
    let calls = answer.calls.iter();
    blocks
        .extend(calls.map(
            |call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input(&call.arguments)}),
        ));
    blocks
}

/// Continues a conversation.
#[utoipa::path(post, path = "/v1/messages", tag = "anthropic", request_body = MessagesRequest,
    responses((status = 200, description = "The answer, or server-sent events", body = MessageAnswer),
        (status = 400), (status = 404), (status = 429), (status = 503), (status = 507)))]
async fn messages(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<MessagesRequest>,
) -> Result<Response, Fault> {
    let streams = request.streams();
    let (model, wish) = request.wish()?;
    let answering = api.answer(&caller, &model, wish, streams.then_some(stream::PATIENCE)).await?;
    let id = fresh_id("msg");
    if streams {
        let encoder = MessageEncoder::new(id, &answering);
        return Ok(stream::respond(answering, encoder, Format::ServerSentEvents, api.stream_times()));
    }
    let model = answering.model.clone();
    let answer = answering.collect().await?.pop().unwrap_or_default();
    let ending = answer.ending()?;
    let (stop_reason, stop_sequence) = stop(ending);
    let usage = Usage::of(ending);
    let content = blocks(&answer);
    let message =
        MessageAnswer { id, r#type: "message", role: "assistant", model, content, stop_reason, stop_sequence, usage };
    Ok(Json(message).into_response())
}

/// Tokens of a conversation.
#[derive(Debug, Serialize, ToSchema)]
struct TokenCount {
    input_tokens: u32,
}

/// Counts the tokens of a conversation, template and tools included.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "anthropic", request_body = MessagesRequest,
    responses((status = 200, body = TokenCount), (status = 400), (status = 404)))]
async fn count_tokens(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<MessagesRequest>,
) -> Result<Json<TokenCount>, Fault> {
    let (model, wish) = request.wish()?;
    let served = api.engine(&caller, &model).await?;
    let mut input_tokens = 0;
    for prompt in wish.prompts {
        input_tokens += count(&served, prompt).await?;
    }
    Ok(Json(TokenCount { input_tokens }))
}
