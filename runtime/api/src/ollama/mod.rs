//! Ollama's dialect: `/api/…`. Streams are lines of JSON, and streaming is the default.

mod answer;
mod embed;
mod models;
mod request;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::Api;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(answer::chat))
        .routes(routes!(answer::generate))
        .routes(routes!(embed::embed))
        .routes(routes!(embed::embeddings))
        .routes(routes!(models::tags))
        .routes(routes!(models::show))
        .routes(routes!(models::ps))
        .routes(routes!(models::version))
        .routes(routes!(models::pull))
        .routes(routes!(models::delete))
        .routes(routes!(models::copy))
        .routes(routes!(models::create))
}

/// Ollama's clients write `name:latest` for `name`.
fn plain(model: &str) -> &str {
    model.strip_suffix(":latest").unwrap_or(model)
}
