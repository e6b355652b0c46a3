//! `/v1/models`, in a form that both OpenAI's and Anthropic's clients read.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    Api,
    fault::Fault,
    host::{ModelEntry, ModelState, Refusal, Served},
    text::time_of,
};

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    /// The physical name; every answer carries it.
    id: String,
    /// `model`.
    object: &'static str,
    created: i64,
    /// `local`.
    owned_by: &'static str,
    /// `model`: Anthropic's clients read the same list.
    r#type: &'static str,
    /// For Anthropic's clients.
    display_name: String,
    /// For Anthropic's clients, RFC 3339.
    created_at: String,
    locara: Facts,
}

/// What OpenAI's model has no field for.
#[derive(Debug, Serialize, ToSchema)]
struct Facts {
    /// SHA-256 of the file.
    digest: String,
    size_bytes: u64,
    architecture: String,
    parameters: Option<u64>,
    quantization: Option<String>,
    /// Tokens that prompt and answer may take together.
    context_tokens: u32,
    /// Roles that resolve to this model; they serve as `model` too.
    roles: Vec<String>,
    /// `ready`, `loading`, `loaded` or `disabled`.
    state: &'static str,
    capabilities: Vec<&'static str>,
    /// The form in which it writes tool calls; known once it is loaded.
    tool_format: Option<String>,
    /// The form in which it marks reasoning; known once it is loaded.
    reasoning_format: Option<String>,
}

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<Model>,
    /// For Anthropic's clients: this is all.
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
}

/// A model that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deleted {
    id: String,
    /// `model`.
    object: &'static str,
    deleted: bool,
}

impl Model {
    fn new(entry: ModelEntry, loaded: &[Served]) -> Self {
        let engine = loaded.iter().find(|served| served.model == entry.name).map(|served| served.engine.model());
        Self {
            display_name: entry.name.clone(),
            created_at: time_of(entry.created),
            r#type: "model",
            id: entry.name,
            object: "model",
            created: entry.created,
            owned_by: "local",
            locara: Facts {
                digest: entry.digest,
                size_bytes: entry.size_bytes,
                architecture: entry.architecture,
                parameters: entry.parameters,
                quantization: entry.quantization,
                context_tokens: entry.n_ctx,
                roles: entry.roles,
                state: entry.state.word(),
                capabilities: entry.capabilities.iter().map(|capability| capability.word()).collect(),
                tool_format: engine.map(|model| model.tool_format.clone()),
                reasoning_format: engine.map(|model| model.reasoning_format.clone()),
            },
        }
    }
}

/// Models that requests may name; those that are switched off are not listed.
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses((status = 200, body = ModelList)))]
pub(crate) async fn list(State(api): State<Api>) -> Json<ModelList> {
    let models = api.host().models().await.into_iter().filter(|model| model.state != ModelState::Disabled);
    let loaded = api.host().loaded();
    let data: Vec<Model> = models.map(|model| Model::new(model, &loaded)).collect();
    let id = |model: Option<&Model>| model.map(|model| model.id.clone());
    Json(ModelList { object: "list", has_more: false, first_id: id(data.first()), last_id: id(data.last()), data })
}

/// One model, by its name or by a role.
#[utoipa::path(get, path = "/v1/models/{*model}", tag = "openai", params(("model" = String, Path)),
    responses((status = 200, body = Model), (status = 404)))]
pub(crate) async fn retrieve(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Model>, Fault> {
    Ok(Json(Model::new(api.model(&name).await?, &api.host().loaded())))
}

/// Removes a model from disk.
#[utoipa::path(delete, path = "/v1/models/{*model}", tag = "openai", params(("model" = String, Path)),
    responses((status = 200, body = Deleted), (status = 400), (status = 404), (status = 429), (status = 501)))]
pub(crate) async fn delete(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Deleted>, Fault> {
    api.host().delete(name.clone()).await?;
    Ok(Json(Deleted { id: name, object: "model", deleted: true }))
}

impl Api {
    /// A model by its name or by a role, without loading it.
    pub(crate) async fn model(&self, name: &str) -> Result<ModelEntry, Fault> {
        let models = self.host().models().await;
        let found = models.into_iter().find(|model| model.name == name || model.roles.iter().any(|role| role == name));
        match found {
            Some(model) if model.state == ModelState::Disabled => Err(Refusal::Disabled(model.name).into()),
            Some(model) => Ok(model),
            None => Err(self.unknown(name).await),
        }
    }
}
