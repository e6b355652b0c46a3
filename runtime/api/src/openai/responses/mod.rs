//! `/v1/responses`: answers that can be continued by their id.

mod encode;
mod request;
mod store;

use axum::{
    Json,
    extract::{Extension, Path, State},
    response::{IntoResponse, Response},
};
pub(crate) use request::ResponsesRequest;
use serde_json::{Value, json};
pub(crate) use store::Store;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::encode::ResponseWriter;
use crate::{
    Api,
    access::Caller,
    answering::Piece,
    body::Body,
    fault::{Fault, Kind},
    stream::{self, Format, Frames},
};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(retrieve, delete))
        .routes(routes!(cancel))
        .routes(routes!(input_items))
}

/// Answers items, or continues a response.
#[utoipa::path(post, path = "/v1/responses", tag = "openai", request_body = ResponsesRequest,
    responses((status = 200, description = "The response, or server-sent events", body = Value),
        (status = 400), (status = 404), (status = 429), (status = 503), (status = 507)))]
async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ResponsesRequest>,
) -> Result<Response, Fault> {
    let mut plan = request.plan(&api, &caller)?;
    let wish = std::mem::take(&mut plan.wish);
    let streams = plan.streams;
    let answering = api.answer(&caller, &plan.model, wish, streams.then_some(stream::PATIENCE)).await?;
    let mut writer = ResponseWriter::new(api.clone(), caller.client, answering.model.clone(), plan);
    if streams {
        let times = api.stream_times();
        return Ok(stream::respond(answering, writer, Format::ServerSentEvents, times));
    }
    let answer = answering.collect().await?.pop().unwrap_or_default();
    let ending = answer.ending()?.clone();
    let mut nowhere = Frames::default();
    let mut pieces = Vec::new();
    if !answer.thinking.is_empty() {
        pieces.push(Piece::Thinking(answer.thinking));
    }
    if !answer.text.is_empty() {
        pieces.push(Piece::Text(answer.text, Vec::new()));
    }
    pieces.extend(answer.calls.into_iter().map(Piece::Call));
    pieces.push(Piece::End(ending));
    for piece in pieces {
        writer.take(piece, &mut nowhere);
    }
    writer.store();
    Ok(Json(writer.response()).into_response())
}

fn unknown(id: &str) -> Fault {
    Fault::new(Kind::NotFound, format!("the response {id:?} is not kept here (any more)"))
}

/// A response that was stored.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "openai", params(("id" = String, Path)),
    responses((status = 200, body = Value), (status = 404)))]
async fn retrieve(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let stored = api.responses().get(&id, &caller.client).ok_or_else(|| unknown(&id))?;
    Ok(Json(stored.response.clone()))
}

/// Forgets a response.
#[utoipa::path(delete, path = "/v1/responses/{id}", tag = "openai", params(("id" = String, Path)),
    responses((status = 200, body = Value), (status = 404)))]
async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    if api.responses().delete(&id, &caller.client) {
        Ok(Json(json!({"id": id, "object": "response", "deleted": true})))
    } else {
        Err(unknown(&id))
    }
}

/// A stored response is complete: there is nothing to cancel, and it is answered as it is.
#[utoipa::path(post, path = "/v1/responses/{id}/cancel", tag = "openai", params(("id" = String, Path)),
    responses((status = 200, body = Value), (status = 404)))]
async fn cancel(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    retrieve(State(api), Extension(caller), Path(id)).await
}

/// The items that a response was asked with, the last one first.
#[utoipa::path(get, path = "/v1/responses/{id}/input_items", tag = "openai", params(("id" = String, Path)),
    responses((status = 200, body = Value), (status = 404)))]
async fn input_items(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    let stored = api.responses().get(&id, &caller.client).ok_or_else(|| unknown(&id))?;
    let mut items = stored.input.clone();
    for (at, item) in items.iter_mut().enumerate() {
        if let Some(fields) = item.as_object_mut() {
            fields.entry("id").or_insert_with(|| json!(format!("item_{at}")));
        }
    }
    items.reverse();
    let id_of = |item: Option<&Value>| item.and_then(|item| item.get("id")).cloned();
    Ok(Json(json!({"object": "list", "first_id": id_of(items.first()), "last_id": id_of(items.last()),
        "has_more": false, "data": items})))
}
