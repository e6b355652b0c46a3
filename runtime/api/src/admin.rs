//! The owner's routes: figures, memory, events, load and unload.

use std::time::Duration;

use axum::{
    Json,
    body::Body as HttpBody,
    extract::{Extension, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use locara_engine::{Class, EngineStats};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Api,
    access::Caller,
    body::Body,
    fault::Fault,
    host::Served,
    stream::{Format, Frames, response},
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(metrics))
        .routes(routes!(batch_stats))
        .routes(routes!(load))
        .routes(routes!(unload))
        .routes(routes!(sessions))
        .routes(routes!(memory))
        .routes(routes!(events))
}

/// An engine that computes a long batch is not waited for: its last figures do.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

/// The figures of all loaded engines.
async fn engines(api: &Api) -> Vec<(Served, EngineStats)> {
    let all = api.host().loaded().into_iter().map(|served| async {
        let stats = match tokio::time::timeout(ANSWER_WITHIN, served.engine.stats()).await {
            Ok(Ok(Ok(stats))) => stats,
            _ => served.engine.watch().borrow().clone(),
        };
        (served, stats)
    });
    futures::future::join_all(all).await
}

/// Counters and histograms in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "host",
    responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
async fn metrics(State(api): State<Api>) -> Result<Response, Fault> {
    let engines: Vec<_> = engines(&api).await.into_iter().map(|(served, stats)| (served.model, stats)).collect();
    let text = api.meters().text(&engines).map_err(|error| Fault::internal(format!("metrics: {error}")))?;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Queues and times by class, and what each engine holds.
#[utoipa::path(get, path = "/v1/batch/stats", tag = "host", responses((status = 200, body = Value)))]
async fn batch_stats(State(api): State<Api>) -> Json<Value> {
    let classes = [Class::Interactive, Class::Background].map(|class| api.meters().class_stats(class));
    let engines: Vec<Value> = engines(&api)
        .await
        .into_iter()
        .map(|(served, stats)| {
            json!({
                "model": served.model,
                "places": served.engine.model().n_seq_max,
                "running": stats.running,
                "running_batch": stats.running_background,
                "waiting": stats.waiting,
                "parked": stats.parked,
                "kv_cells_used": stats.kv_cells_used,
                "kv_cells": stats.kv_cells,
                "steps": stats.steps,
                "prefilled_tokens": stats.prefilled,
                "decoded_tokens": stats.decoded,
                "finished": stats.finished,
                "tool_call_failures": stats.tool_call_failures,
            })
        })
        .collect();
    Json(json!({"classes": classes, "engines": engines}))
}

/// Which model.
#[derive(Debug, Deserialize, ToSchema)]
struct Named {
    /// A model or a role.
    model: String,
}

/// Brings a model into memory.
#[utoipa::path(post, path = "/admin/load", tag = "host", request_body = Named,
    responses((status = 200, body = Value), (status = 400), (status = 404), (status = 503),
        (status = 507, description = "It does not fit")))]
async fn load(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(named): Body<Named>,
) -> Result<Json<Value>, Fault> {
    let served = api.engine(&caller, &named.model).await?;
    Ok(Json(json!({"model": served.model, "state": "loaded", "memory": served.engine.memory()})))
}

/// Takes a model out of memory.
#[utoipa::path(post, path = "/admin/unload", tag = "host", request_body = Named,
    responses((status = 200, body = Value), (status = 400), (status = 404)))]
async fn unload(State(api): State<Api>, Body(named): Body<Named>) -> Result<Json<Value>, Fault> {
    api.host().unload(named.model.clone()).await?;
    Ok(Json(json!({"model": named.model, "state": "unloaded"})))
}

/// Conversations that hold memory, by model.
#[utoipa::path(get, path = "/admin/sessions", tag = "host", responses((status = 200, body = Value)))]
async fn sessions(State(api): State<Api>) -> Json<Value> {
    let engines: Vec<Value> = engines(&api)
        .await
        .into_iter()
        .map(|(served, stats)| {
            json!({"model": served.model, "sessions": stats.sessions, "idle": stats.idle_sessions, "parked": stats.parked,
                "kv_cells_used": stats.kv_cells_used, "kv_cells_idle": stats.kv_cells_idle,
                "prompt_cache_bytes": stats.prompt_cache_bytes, "spilled_bytes": stats.spilled_bytes})
        })
        .collect();
    Json(json!({ "engines": engines }))
}

/// The account of memory.
#[utoipa::path(get, path = "/admin/memory", tag = "host", responses((status = 200, body = Value)))]
async fn memory(State(api): State<Api>) -> Json<Value> {
    Json(api.host().memory().await)
}

/// What happens in the host, as server-sent events, from now on.
#[utoipa::path(get, path = "/admin/events", tag = "host",
    responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn events(State(api): State<Api>) -> Response {
    let keep_alive = api.config().keep_alive;
    let frames = futures::stream::unfold(api.host().events(), move |mut events| async move {
        let mut out = Frames::default();
        match tokio::time::timeout(keep_alive, events.next()).await {
            Ok(Some(event)) => out.data(&event),
            Ok(None) => return None,
            Err(_) => out.comment("keep-alive"),
        }
        Some((Ok::<_, std::convert::Infallible>(out.take()), events))
    });
    response(HttpBody::from_stream(frames), Format::ServerSentEvents)
}
