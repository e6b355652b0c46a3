//! `POST /v1/chat/completions`.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Extension, State},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    NAMES, Note, Usage,
    encode::ChatEncoder,
    finish_reason, logit_bias,
    message::{
        Biases, Call, ChatMessage, NamedChoice, OfferedTool, ResponseFormat, StructuredOutputs, constraint, messages,
        tool_choice, tools,
    },
    note,
};
use crate::{
    Api,
    access::Caller,
    answering::Answer,
    body::{Body, OneOrMany, WordOr},
    fault::Fault,
    logprobs::Logprobs,
    stream::{self, Format},
    text::{fresh_id, now_s},
    wish::{SamplingWish, Thinking, Wish},
};

/// A conversation to be continued. Fields that are not listed are accepted and have no effect.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ChatRequest {
    /// A model or a role.
    model: String,
    messages: Vec<ChatMessage>,
    /// Server-sent events instead of one answer.
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Bound of an answer, tokens; old name.
    max_tokens: Option<u32>,
    /// Bound of an answer, tokens. What the prompt leaves of the context is a bound too.
    max_completion_tokens: Option<u32>,
    /// Answers, 1 to 8.
    n: Option<u32>,
    /// A text or several, at most 16.
    #[schema(value_type = Option<Value>)]
    stop: Option<OneOrMany<String>>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    /// Multiplicative; 1 is off.
    repetition_penalty: Option<f32>,
    seed: Option<i64>,
    /// Token ids to values from -100 to 100.
    logit_bias: Option<Biases>,
    /// Tell how likely each token was.
    logprobs: Option<bool>,
    /// Alternatives to each token, at most 20.
    top_logprobs: Option<u32>,
    /// `none` is no reasoning; other words are passed to templates that know them.
    reasoning_effort: Option<String>,
    /// Tokens of reasoning before the answer has to begin.
    thinking_budget: Option<u32>,
    /// What the template of the model may ask for besides, e.g. `enable_thinking`.
    #[schema(value_type = Option<Value>)]
    chat_template_kwargs: Option<BTreeMap<String, Value>>,
    tools: Option<Vec<OfferedTool>>,
    /// `auto`, `none`, `required`, or an object that names a function.
    #[schema(value_type = Option<Value>)]
    tool_choice: Option<WordOr<NamedChoice>>,
    /// False ends the answer after its first call.
    parallel_tool_calls: Option<bool>,
    response_format: Option<ResponseFormat>,
    structured_outputs: Option<StructuredOutputs>,
}

/// What a stream says beside the answer.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// A last chunk with the counts.
    include_usage: Option<bool>,
}

impl StreamOptions {
    pub(super) fn include_usage(self) -> bool {
        self.include_usage == Some(true)
    }
}

/// An answer, whole.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    /// `chat.completion`.
    object: &'static str,
    created: i64,
    /// The physical model.
    model: String,
    /// Names the weights.
    system_fingerprint: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
}

/// One of the answers.
#[derive(Debug, Serialize, ToSchema)]
struct ChatChoice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    locara: Option<Note>,
}

/// What the model said.
#[derive(Debug, Serialize, ToSchema)]
struct AnswerMessage {
    /// `assistant`.
    role: &'static str,
    content: Option<String>,
    /// Reasoning, if the model marks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

impl ChatRequest {
    /// What is wanted, and the name of the model.
    pub(crate) fn wish(self) -> Result<(String, Wish), Fault> {
        if self.logprobs != Some(true) && self.top_logprobs.is_some_and(|n| n > 0) {
            return Err(Fault::field("top_logprobs", "alternatives are told with logprobs only; set logprobs to true"));
        }
        let tools = tools(self.tools.unwrap_or_default())?;
        let choice = tool_choice(self.tool_choice, &tools)?;
        let mut wish = Wish {
            n: self.n,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            stop: self.stop.map(OneOrMany::into_vec).unwrap_or_default(),
            sampling: SamplingWish {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repeat_penalty: self.repetition_penalty,
                frequency_penalty: self.frequency_penalty,
                presence_penalty: self.presence_penalty,
                seed: self.seed,
                logit_bias: logit_bias(&self.logit_bias.unwrap_or_default())?,
            },
            constraint: constraint(self.response_format, self.structured_outputs)?,
            logprobs: (self.logprobs == Some(true)).then(|| self.top_logprobs.unwrap_or(0)),
            one_call: self.parallel_tool_calls == Some(false),
            ..Wish::chat(messages(self.messages)?, tools, choice)
        };
        wish.think(Thinking { tokens: self.thinking_budget, ..Thinking::with_effort(self.reasoning_effort) });
        wish.tell_template(self.chat_template_kwargs.unwrap_or_default());
        wish.check(NAMES)?;
        Ok((self.model, wish))
    }
}

/// Continues a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", request_body = ChatRequest,
    responses((status = 200, description = "The answer, or server-sent events", body = ChatCompletion),
        (status = 400, description = "The request is wrong; `param` names the field"),
        (status = 404, description = "No such model"), (status = 429, description = "Too many requests"),
        (status = 503, description = "Memory is short"), (status = 507, description = "The model does not fit")))]
pub(crate) async fn chat_completions(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, Fault> {
    let streams = request.stream == Some(true);
    let include_usage = request.stream_options.is_some_and(StreamOptions::include_usage);
    let (model, wish) = request.wish()?;
    let n = wish.answers();
    let times = api.stream_times();
    let answering = api.answer(&caller, &model, wish, streams.then_some(stream::PATIENCE)).await?;
    let id = fresh_id("chatcmpl");
    if streams {
        let encoder = ChatEncoder::new(id, &answering, n, include_usage);
        return Ok(stream::respond(answering, encoder, Format::ServerSentEvents, times));
    }
    let (model, system_fingerprint) = (answering.model.clone(), answering.fingerprint.clone());
    let answers = answering.collect().await?;
    let usage = Usage::of_answers(&answers, n);
    let choices = answers.into_iter().enumerate().map(|(index, answer)| ChatChoice::new(index, answer));
    let completion = ChatCompletion {
        id,
        object: "chat.completion",
        created: now_s(),
        model,
        system_fingerprint,
        choices: choices.collect::<Result<_, _>>()?,
        usage,
    };
    Ok(Json(completion).into_response())
}

impl ChatChoice {
    fn new(index: usize, answer: Answer) -> Result<Self, Fault> {
        let ending = answer.ending()?;
        Ok(Self {
            index,
            logprobs: Logprobs::of(&answer.tokens),
            finish_reason: finish_reason(&ending.reason),
            locara: note(ending),
            message: AnswerMessage {
                role: "assistant",
                refusal: None,
                tool_calls: answer.calls.iter().map(Call::from).collect(),
                content: (answer.calls.is_empty() || !answer.text.is_empty()).then_some(answer.text),
                reasoning_content: (!answer.thinking.is_empty()).then_some(answer.thinking),
            },
        })
    }
}
