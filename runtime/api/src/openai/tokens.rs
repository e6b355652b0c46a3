//! Tokens of texts and conversations, without an answer.

use axum::{
    Json,
    extract::{Extension, State},
};
use locara_engine::{Prompt, Token};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{chat::ChatRequest, responses::ResponsesRequest};
use crate::{
    Api,
    access::Caller,
    answering::{count, reply},
    body::Body,
    fault::Fault,
    wish::Wish,
};

/// A text to be taken apart.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TokenizeRequest {
    /// A model or a role.
    model: String,
    /// The text; special tokens in it are not parsed.
    #[serde(alias = "content")]
    prompt: String,
}

/// Its tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokenized {
    /// The physical model.
    model: String,
    count: usize,
    /// Tokens that prompt and answer may have together.
    max_model_len: u32,
    tokens: Vec<Token>,
}

/// Tokens of a text.
#[utoipa::path(post, path = "/tokenize", tag = "host", request_body = TokenizeRequest,
    responses((status = 200, body = Tokenized), (status = 400), (status = 404)))]
pub(crate) async fn tokenize(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<TokenizeRequest>,
) -> Result<Json<Tokenized>, Fault> {
    let served = api.engine(&caller, &request.model).await?;
    let tokens = reply(served.engine.tokenize(Prompt::Text(request.prompt))).await?;
    let max_model_len = served.engine.model().n_ctx;
    Ok(Json(Tokenized { model: served.model, count: tokens.len(), max_model_len, tokens }))
}

/// Tokens to be put together.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DetokenizeRequest {
    /// A model or a role.
    model: String,
    tokens: Vec<Token>,
}

/// Their text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detokenized {
    /// The physical model.
    model: String,
    /// Special tokens are written out; what is no UTF-8 is replaced.
    prompt: String,
}

/// The text of tokens.
#[utoipa::path(post, path = "/detokenize", tag = "host", request_body = DetokenizeRequest,
    responses((status = 200, body = Detokenized), (status = 400), (status = 404)))]
pub(crate) async fn detokenize(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<DetokenizeRequest>,
) -> Result<Json<Detokenized>, Fault> {
    let served = api.engine(&caller, &request.model).await?;
    let prompt = reply(served.engine.detokenize(request.tokens)).await?;
    Ok(Json(Detokenized { model: served.model, prompt }))
}

/// Tokens of a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InputTokens {
    /// `response.input_tokens`.
    object: &'static str,
    input_tokens: u32,
}

impl InputTokens {
    async fn of(api: &Api, caller: &Caller, model: &str, wish: Wish) -> Result<Json<Self>, Fault> {
        let served = api.engine(caller, model).await?;
        let mut input_tokens = 0;
        for prompt in wish.prompts {
            input_tokens += count(&served, prompt).await?;
        }
        Ok(Json(Self { object: "response.input_tokens", input_tokens }))
    }
}

/// Counts the tokens of a chat, template and tools included.
#[utoipa::path(post, path = "/v1/chat/completions/input_tokens", tag = "openai", request_body = ChatRequest,
    responses((status = 200, body = InputTokens), (status = 400), (status = 404)))]
pub(crate) async fn chat_input_tokens(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ChatRequest>,
) -> Result<Json<InputTokens>, Fault> {
    let (model, wish) = request.wish()?;
    InputTokens::of(&api, &caller, &model, wish).await
}

/// Counts the tokens of a request for a response, what it continues included.
#[utoipa::path(post, path = "/v1/responses/input_tokens", tag = "openai", request_body = ResponsesRequest,
    responses((status = 200, body = InputTokens), (status = 400), (status = 404)))]
pub(crate) async fn response_input_tokens(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ResponsesRequest>,
) -> Result<Json<InputTokens>, Fault> {
    let plan = request.plan(&api, &caller)?;
    InputTokens::of(&api, &caller, &plan.model, plan.wish).await
}
