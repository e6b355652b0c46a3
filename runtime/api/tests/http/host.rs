//! A host with one real engine, and models that it refuses in every way there is.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::Router;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use locara_api::{
    Api, Ask, Capability, Check, Config, Defaults, Host, ModelEntry, ModelState, PullProgress, Refusal, Served,
};
use locara_engine::{
    EngineStats, Sampling, SharedEngine,
    llama::{LlamaEngine, LoadOptions},
};
use locara_policy::KvType;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

pub(crate) const MODEL: &str = "locara-tiny@v1";

pub(crate) struct TestHost {
    pub(crate) engine: SharedEngine,
    pub(crate) failing: Mutex<Option<String>>,
    /// Who asked for an engine.
    pub(crate) asked: Mutex<Vec<Ask>>,
    pub(crate) unloaded: Mutex<Vec<String>>,
}

pub(crate) fn options() -> LoadOptions {
    LoadOptions {
        n_ctx: 1024,
        kv_cells: 4096,
        n_seq_max: 4,
        n_batch: 256,
        n_ubatch: 256,
        type_k: KvType::Q8_0,
        type_v: KvType::F16,
        flash_attention: false,
        n_threads: 1,
        n_gpu_layers: -1,
        repack: false,
        queue_max: 16,
    }
}

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf")
}

fn entry(name: &str, roles: &[&str], state: ModelState) -> ModelEntry {
    ModelEntry {
        name: name.into(),
        digest: "0123456789abcdef".repeat(4),
        size_bytes: 7_000_000,
        created: 1_760_000_000,
        architecture: "llama".into(),
        parameters: Some(3_500_000),
        quantization: Some("F16".into()),
        n_ctx: 1024,
        n_embd: 256,
        roles: roles.iter().map(|role| (*role).into()).collect(),
        state,
        capabilities: vec![Capability::Completion, Capability::Chat, Capability::Tools],
    }
}

impl Host for TestHost {
    fn models(&self) -> BoxFuture<'_, Vec<ModelEntry>> {
        let models = vec![
            entry(MODEL, &["default", "tool-calling"], ModelState::Loaded),
            entry("off", &[], ModelState::Disabled),
        ];
        async { models }.boxed()
    }

    fn engine(&self, ask: Ask) -> BoxFuture<'_, Result<Served, Refusal>> {
        let served = Served { model: MODEL.into(), engine: Arc::clone(&self.engine) };
        let model = ask.model.clone();
        self.asked.lock().unwrap().push(ask);
        async move {
            match model.as_str() {
                MODEL | "default" | "tool-calling" => Ok(served),
                "off" => Err(Refusal::Disabled(model)),
                "huge" => Err(Refusal::DoesNotFit {
                    model,
                    needed_bytes: 40_000_000_000,
                    available_bytes: 9_000_000_000,
                    way_out: "take a quantisation below 9 GB".into(),
                }),
                "busy" => Err(Refusal::Busy { reason: "3 of 3 places are taken".into(), retry_after_s: 7 }),
                "short" => Err(Refusal::Unavailable { reason: "memory is short".into(), retry_after_s: 30 }),
                "broken" => Err(Refusal::LoadFailed { model, reason: "tensor blk.0 is cut off".into() }),
                _ => Err(Refusal::Unknown(model)),
            }
        }
        .boxed()
    }

    fn loaded(&self) -> Vec<Served> {
        vec![Served { model: MODEL.into(), engine: Arc::clone(&self.engine) }]
    }

    fn unload(&self, model: String) -> BoxFuture<'_, Result<(), Refusal>> {
        self.unloaded.lock().unwrap().push(model);
        async { Ok(()) }.boxed()
    }

    fn memory(&self) -> BoxFuture<'_, Value> {
        async { json!({"reserved_bytes": 1}) }.boxed()
    }

    fn events(&self) -> BoxStream<'static, Value> {
        futures::stream::iter([json!({"event": "loaded", "model": MODEL})]).boxed()
    }

    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        let failure = self.failing.lock().unwrap().clone();
        async { vec![Check { name: "config".into(), failure: None }, Check { name: "model-store".into(), failure }] }
            .boxed()
    }

    fn pull(&self, name: String) -> BoxStream<'static, Result<PullProgress, Refusal>> {
        let step = |status: &str, completed| {
            Ok(PullProgress { status: status.into(), digest: Some("sha256:00".into()), total: Some(2), completed })
        };
        match name.as_str() {
            "there" => futures::stream::iter([step("pulling", Some(1)), step("verifying", Some(2))]).boxed(),
            "torn" => futures::stream::iter([step("pulling", Some(1)), Err(Refusal::Failed("cut off".into()))]).boxed(),
            _ => futures::stream::iter([Err(Refusal::Unknown(name))]).boxed(),
        }
    }

    fn delete(&self, name: String) -> BoxFuture<'_, Result<(), Refusal>> {
        async move { if name == MODEL { Ok(()) } else { Err(Refusal::Unknown(name)) } }.boxed()
    }
}

/// A server on a port of its own. It ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) host: Arc<TestHost>,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
}

/// Answers that repeat from run to run.
pub(crate) fn config() -> Config {
    let defaults = Defaults { sampling: Sampling::greedy(), max_tokens: 32, ..Defaults::default() };
    Config { defaults, version: "test".into(), ..Config::default() }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(config(), options()).await
    }

    pub(crate) async fn with(config: Config, options: LoadOptions) -> Self {
        let engine = LlamaEngine::load(&tiny(), &"0123456789abcdef".repeat(4), options, |_| true).unwrap();
        Self::around(config, Arc::new(engine)).await
    }

    pub(crate) async fn around(config: Config, engine: SharedEngine) -> Self {
        // The client wants to know one even where nothing is encrypted; the first test of the process installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = Arc::new(TestHost {
            engine,
            failing: Mutex::default(),
            asked: Mutex::default(),
            unloaded: Mutex::default(),
        });
        let router: Router = Api::new(Arc::clone(&host) as Arc<dyn Host>, config).router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { host, address, client: Client::new() }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address)).json(body)
    }

    /// Status and JSON of a POST.
    pub(crate) async fn ask(&self, path: &str, body: Value) -> (u16, Value) {
        parts(self.post(path, &body).send().await.unwrap()).await
    }

    /// The text of a POST that is answered with 200.
    pub(crate) async fn text(&self, path: &str, body: Value) -> String {
        let response = self.post(path, &body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        response.text().await.unwrap()
    }

    /// Waits until the engine tells figures of which `holds` is true.
    pub(crate) async fn engine_is(&self, holds: impl FnMut(&EngineStats) -> bool) {
        self.host.engine.watch().wait_for(holds).await.unwrap();
    }
}

pub(crate) async fn parts(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}")))
}

/// The JSON of all `data:` lines but `[DONE]`.
pub(crate) fn data(stream: &str) -> Vec<Value> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// A user's turn.
pub(crate) fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}
