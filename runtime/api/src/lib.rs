//! HTTP in the dialects that clients already speak: OpenAI, Anthropic, Ollama, and the host's own for its owner.
//!
//! One way for all: a dialect module decodes a body into a `wish::Wish`, `answering` turns that into requests to an
//! engine and their events into pieces, and the dialect encodes the pieces. What the host must do for it is the trait
//! [`Host`].
//!
//! This crate must never read a path that a request names, log a prompt unless the owner asks for it, keep a key in the
//! clear, or hold a queue without a bound. It knows no llama.cpp and no Wasm.

mod access;
mod admin;
mod answering;
mod anthropic;
mod body;
mod config;
mod embedding;
mod fault;
mod health;
mod host;
mod logprobs;
mod meters;
mod ollama;
mod openai;
mod stream;
mod text;
mod wish;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
pub use config::{Access, BindRefused, Config, Defaults, Key, Scope};
pub use host::{Ask, Capability, Check, ClientId, Host, ModelEntry, ModelState, PullProgress, Refusal, Served};
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    fault::{Dialect, Fault, Kind},
    health::Health,
    meters::Meters,
};

/// The HTTP layer of one host. Clones are the same layer.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    host: Arc<dyn Host>,
    config: RwLock<Arc<Config>>,
    meters: Meters,
    health: Health,
    responses: openai::Store,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("config", &self.config()).finish_non_exhaustive()
    }
}

impl Api {
    /// A layer in front of `host`. Nothing is bound or started.
    pub fn new(host: Arc<dyn Host>, config: Config) -> Self {
        Self(Arc::new(Inner {
            host,
            config: RwLock::new(Arc::new(config)),
            meters: Meters::new(),
            health: Health::default(),
            responses: openai::Store::default(),
        }))
    }

    /// All routes with their guards, to be served by `axum::serve`, or to be put beside other routes.
    ///
    /// Whoever binds asks [`Access::check_bind`] first.
    pub fn router(&self) -> Router {
        let (routes, document) = described().split_for_parts();
        let document = Arc::new(in_openapi(document));
        let documented = move || async move { Json((*document).clone()) };
        routes
            .route("/", axum::routing::get(greet))
            .route("/openapi.json", axum::routing::get(documented))
            .fallback(no_route)
            .method_not_allowed_fallback(wrong_method)
            .layer(from_fn_with_state(self.clone(), access::guard))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn(fault::render))
            .layer(from_fn_with_state(self.clone(), observe))
            .layer(PropagateRequestIdLayer::new(REQUEST_ID))
            .layer(SetRequestIdLayer::new(REQUEST_ID, FreshId))
            .with_state(self.clone())
    }

    pub(crate) fn host(&self) -> &dyn Host {
        &*self.0.host
    }

    /// Other settings from now on. Requests that run keep theirs; what is stored and counted stays.
    pub fn reconfigure(&self, config: Config) {
        *self.0.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        // It is replaced as a whole.
        self.0.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn stream_times(&self) -> stream::Times {
        let config = self.config();
        stream::Times { keep_alive: config.keep_alive, write_timeout: config.write_timeout }
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    pub(crate) fn responses(&self) -> &openai::Store {
        &self.0.responses
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }
}

/// The OpenAPI document of all routes, as it is served at `/openapi.json`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    in_openapi(described().into_openapi())
}

/// The router writes `{*name}` for the rest of a path, OpenAPI knows `{name}` only.
fn in_openapi(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Locara",
    description = "Local models of one host, in the dialects of OpenAI, Anthropic and Ollama.",
    license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
))]
struct Document;

fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(openai::routes())
        .merge(anthropic::routes())
        .merge(ollama::routes())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .merge(admin::routes())
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A random id for a request that brings none.
#[derive(Debug, Clone, Copy)]
struct FreshId;

impl MakeRequestId for FreshId {
    fn make_request_id<B>(&mut self, _request: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&text::fresh_id("req")).ok().map(RequestId::new)
    }
}

/// A request whose client goes away before it has a status is counted with this one, which nginx made customary.
const CLIENT_LEFT: u16 = 499;

/// One request, counted when this is dropped: its future is, when its client goes away.
struct Observed {
    api: Api,
    dialect: Dialect,
    status: u16,
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.api.meters().request(self.dialect, self.status);
    }
}

/// Counts responses and names the server: whoever gets a strange answer can see who gave it.
async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let mut observed = Observed { api: api.clone(), dialect: Dialect::of(&request), status: CLIENT_LEFT };
    let (method, path, began) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let mut response = next.run(request).await;
    // To the headers; a stream goes on after them.
    let took = began.elapsed();
    tracing::debug!(%method, path, status = response.status().as_u16(), ?took, "answered");
    observed.status = response.status().as_u16();
    drop(observed);
    if let Ok(server) = HeaderValue::from_str(&format!("locara/{}", api.config().version)) {
        response.headers_mut().insert(header::SERVER, server);
    }
    response
}

/// Ollama's clients look for exactly these words.
async fn greet() -> &'static str {
    "Ollama is running"
}

async fn no_route(request: Request) -> Fault {
    Fault::new(
        Kind::NotFound,
        format!("there is no {} {}; /openapi.json lists what there is", request.method(), request.uri().path()),
    )
}

async fn wrong_method(request: Request) -> Fault {
    Fault::new(
        Kind::MethodNotAllowed,
        format!("{} does not take {}; /openapi.json lists what it takes", request.uri().path(), request.method()),
    )
}

fn panicked(_panic: Box<dyn std::any::Any + Send + 'static>) -> axum::http::Response<Body> {
    tracing::error!("a handler panicked");
    Fault::internal("the host made a mistake; its log says more").into_response()
}
