//! Models: what there is, what is loaded, and fetching, removing and naming them.

use axum::{
    Json,
    body::Body as HttpBody,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream::BoxStream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::plain;
use crate::{
    Api,
    body::Body,
    fault::{Dialect, Fault},
    host::{ModelEntry, ModelState, PullProgress, Refusal},
    stream::{Format, Frames, response},
    text::time_of,
};

/// The version of Ollama whose interface this is: clients ask before they use what came later.
const LIKE_OLLAMA: &str = "0.12.0";

/// A model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaModel)]
pub(super) struct Model {
    name: String,
    model: String,
    /// RFC 3339.
    modified_at: String,
    /// Bytes of the file, or in memory for `/api/ps`.
    size: u64,
    /// SHA-256 of the file.
    digest: String,
    details: Details,
    /// Of `/api/ps`: bytes that are no pages of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_vram: Option<u64>,
    /// Of `/api/ps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u32>,
}

/// What kind of model it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaDetails)]
struct Details {
    parent_model: &'static str,
    /// `gguf`.
    format: &'static str,
    family: String,
    families: Vec<String>,
    /// E.g. `7.6B`.
    parameter_size: String,
    quantization_level: String,
}

/// Several models.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OllamaModels)]
pub(super) struct Models {
    models: Vec<Model>,
}

impl From<&ModelEntry> for Details {
    fn from(entry: &ModelEntry) -> Self {
        Self {
            parent_model: "",
            format: "gguf",
            family: entry.architecture.clone(),
            families: vec![entry.architecture.clone()],
            parameter_size: entry.parameters.map(short).unwrap_or_default(),
            quantization_level: entry.quantization.clone().unwrap_or_default(),
        }
    }
}

impl From<&ModelEntry> for Model {
    fn from(entry: &ModelEntry) -> Self {
        Self {
            name: entry.name.clone(),
            model: entry.name.clone(),
            modified_at: time_of(entry.created),
            size: entry.size_bytes,
            digest: entry.digest.clone(),
            details: entry.into(),
            size_vram: None,
            context_length: None,
        }
    }
}

/// `7616000000` as `7.6B`.
fn short(parameters: u64) -> String {
    let tenths = |unit: u64| (parameters / (unit / 10)) as f64 / 10.0;
    match parameters {
        0..1_000_000 => format!("{parameters}"),
        1_000_000..1_000_000_000 => format!("{:.1}M", tenths(1_000_000)),
        _ => format!("{:.1}B", tenths(1_000_000_000)),
    }
}

/// Models that requests may name.
#[utoipa::path(get, path = "/api/tags", tag = "ollama", responses((status = 200, body = Models)))]
pub(super) async fn tags(State(api): State<Api>) -> Json<Models> {
    let models = api.host().models().await;
    let listed = models.iter().filter(|model| model.state != ModelState::Disabled);
    Json(Models { models: listed.map(Model::from).collect() })
}

/// Models in memory.
#[utoipa::path(get, path = "/api/ps", tag = "ollama", responses((status = 200, body = Models)))]
pub(super) async fn ps(State(api): State<Api>) -> Json<Models> {
    let entries = api.host().models().await;
    let loaded = api.host().loaded();
    let models = loaded.iter().filter_map(|served| {
        let entry = entries.iter().find(|entry| entry.name == served.model)?;
        let memory = served.engine.memory();
        let own = memory.weights_resident + memory.kv + memory.compute + memory.output;
        Some(Model {
            size: own + memory.weights_mapped,
            size_vram: Some(own),
            context_length: Some(served.engine.model().n_ctx),
            ..Model::from(entry)
        })
    });
    Json(Models { models: models.collect() })
}

/// Which model.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaNamed)]
pub(super) struct Named {
    /// A model or a role.
    #[serde(alias = "name")]
    model: String,
    /// Lines of JSON while it takes; the default where there is something to tell.
    stream: Option<bool>,
}

/// What is known of a model.
#[utoipa::path(post, path = "/api/show", tag = "ollama", request_body = Named,
    responses((status = 200, body = Value), (status = 400), (status = 404)))]
pub(super) async fn show(State(api): State<Api>, Body(named): Body<Named>) -> Result<Json<Value>, Fault> {
    let entry = api.model(plain(&named.model)).await?;
    let architecture = &entry.architecture;
    let mut info = Map::new();
    info.insert("general.architecture".into(), json!(architecture));
    info.insert("general.parameter_count".into(), json!(entry.parameters));
    info.insert(format!("{architecture}.context_length"), json!(entry.n_ctx));
    info.insert(format!("{architecture}.embedding_length"), json!(entry.n_embd));
    let capabilities: Vec<_> = entry.capabilities.iter().map(|capability| capability.word()).collect();
    Ok(Json(json!({
        "modelfile": "", "parameters": "", "template": "", "license": "",
        "details": Details::from(&entry),
        "model_info": info,
        "capabilities": capabilities,
        "modified_at": time_of(entry.created),
    })))
}

/// The version of Ollama whose interface this is, and the host's own.
#[utoipa::path(get, path = "/api/version", tag = "ollama", responses((status = 200, body = Value)))]
pub(super) async fn version(State(api): State<Api>) -> Json<Value> {
    Json(json!({"version": LIKE_OLLAMA, "locara": api.config().version}))
}

type Progress = BoxStream<'static, Result<PullProgress, Refusal>>;

/// Fetches a model.
#[utoipa::path(post, path = "/api/pull", tag = "ollama", request_body = Named,
    responses((status = 200, description = "Lines of JSON with how far it is", body = Value), (status = 400),
        (status = 404), (status = 501)))]
pub(super) async fn pull(State(api): State<Api>, Body(named): Body<Named>) -> Result<Response, Fault> {
    let mut progress = api.host().pull(plain(&named.model).to_owned());
    if named.stream == Some(false) {
        while let Some(step) = progress.next().await {
            step?;
        }
        return Ok(Json(json!({"status": "success"})).into_response());
    }
    // A refusal at once has a status of its own.
    let first = progress.next().await.transpose()?;
    let rest: Progress = Box::pin(futures::stream::iter(first.map(Ok)).chain(progress));
    let lines = futures::stream::unfold(Some(rest), |rest| async {
        let mut rest = rest?;
        let mut out = Frames::default();
        let rest = match rest.next().await {
            Some(Ok(step)) => {
                out.line(&progress_line(&step));
                Some(rest)
            }
            Some(Err(refusal)) => {
                out.line(&Fault::from(refusal).body(Dialect::Ollama));
                None
            }
            None => {
                out.line(&json!({"status": "success"}));
                None
            }
        };
        Some((Ok::<_, std::convert::Infallible>(out.take()), rest))
    });
    Ok(response(HttpBody::from_stream(lines), Format::JsonLines))
}

fn progress_line(step: &PullProgress) -> Value {
    let mut line = json!({"status": step.status});
    for (field, value) in
        [("digest", json!(step.digest)), ("total", json!(step.total)), ("completed", json!(step.completed))]
    {
        if !value.is_null() {
            line[field] = value;
        }
    }
    line
}

/// Removes a model from disk.
#[utoipa::path(delete, path = "/api/delete", tag = "ollama", request_body = Named,
    responses((status = 200), (status = 400), (status = 404), (status = 429), (status = 501)))]
pub(super) async fn delete(State(api): State<Api>, Body(named): Body<Named>) -> Result<StatusCode, Fault> {
    api.host().delete(plain(&named.model).to_owned()).await?;
    Ok(StatusCode::OK)
}

/// A second name for a model.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaCopy)]
pub(super) struct Copy {
    source: String,
    destination: String,
}

/// Gives a model a second name.
#[utoipa::path(post, path = "/api/copy", tag = "ollama", request_body = Copy,
    responses((status = 200), (status = 400), (status = 404), (status = 501)))]
pub(super) async fn copy(State(api): State<Api>, Body(request): Body<Copy>) -> Result<StatusCode, Fault> {
    api.host().copy(plain(&request.source).to_owned(), plain(&request.destination).to_owned()).await?;
    Ok(StatusCode::OK)
}

/// A model to be made out of another one.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaCreate)]
pub(super) struct Create {
    /// Its name.
    #[serde(alias = "name")]
    model: String,
    from: Option<String>,
}

/// Makes a model out of another one.
#[utoipa::path(post, path = "/api/create", tag = "ollama", request_body = Create,
    responses((status = 200, body = Value), (status = 400), (status = 404), (status = 501)))]
pub(super) async fn create(State(api): State<Api>, Body(request): Body<Create>) -> Result<Json<Value>, Fault> {
    let from = request.from.as_deref().map(plain).map(str::to_owned);
    api.host().create(plain(&request.model).to_owned(), from).await?;
    Ok(Json(json!({"status": "success"})))
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn sizes_are_written_as_people_say_them() {
        assert_eq!([999, 3_550_000, 494_000_000, 7_616_000_000].map(short), ["999", "3.5M", "494.0M", "7.6B"]);
    }
}
