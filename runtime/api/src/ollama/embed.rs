//! `/api/embed` and its older sister `/api/embeddings`.

use axum::{
    Json,
    extract::{Extension, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plain;
use crate::{
    Api,
    access::Caller,
    body::{Body, OneOrMany},
    fault::Fault,
};

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaEmbedRequest)]
pub(super) struct EmbedRequest {
    /// A model or a role.
    model: String,
    /// A text or several.
    #[schema(value_type = serde_json::Value)]
    input: OneOrMany<String>,
    /// Length of the vectors.
    dimensions: Option<u32>,
}

/// Their vectors.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaEmbedAnswer)]
pub(super) struct EmbedAnswer {
    /// The physical model.
    model: String,
    embeddings: Vec<Vec<f32>>,
    /// Tokens of all texts.
    prompt_eval_count: u32,
}

/// One vector for each text.
#[utoipa::path(post, path = "/api/embed", tag = "ollama", request_body = EmbedRequest,
    responses((status = 200, body = EmbedAnswer), (status = 400), (status = 404)))]
pub(super) async fn embed(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<EmbedRequest>,
) -> Result<Json<EmbedAnswer>, Fault> {
    let texts = request.input.into_vec();
    let embedded = api.embed(&caller, plain(&request.model), "input", texts, request.dimensions).await?;
    Ok(Json(EmbedAnswer { model: embedded.model, embeddings: embedded.vectors, prompt_eval_count: embedded.tokens }))
}

/// A text to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaEmbeddingsRequest)]
pub(super) struct EmbeddingsRequest {
    /// A model or a role.
    model: String,
    prompt: String,
}

/// Its vector.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaEmbeddingsAnswer)]
pub(super) struct EmbeddingsAnswer {
    embedding: Vec<f32>,
}

/// One vector for one text.
#[utoipa::path(post, path = "/api/embeddings", tag = "ollama", request_body = EmbeddingsRequest,
    responses((status = 200, body = EmbeddingsAnswer), (status = 400), (status = 404)))]
pub(super) async fn embeddings(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<EmbeddingsRequest>,
) -> Result<Json<EmbeddingsAnswer>, Fault> {
    let mut embedded = api.embed(&caller, plain(&request.model), "prompt", vec![request.prompt], None).await?;
    let embedding = embedded.vectors.pop().ok_or_else(|| Fault::internal("the engine gave no vector"))?;
    Ok(Json(EmbeddingsAnswer { embedding }))
}
