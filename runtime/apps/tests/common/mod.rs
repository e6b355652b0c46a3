//! The world of the tests: a real host, real guests, and an engine that does what a test says.
//!
//! The guests are built by `cargo xtask apps`. The engine is scripted because the tests need what a model cannot promise:
//! answers that never end, a known number of tokens, an engine that stops in between. `real_engine.rs` runs the same
//! guests on a model.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of the world")]

pub mod engine;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use locara_apps::{
    AppHost, BudgetState, CountingLedger, HostOptions, Invocation, Lease, ModelError, Models, PrepareError, Prepared,
    RunFailure, RunHandle, RunReport,
};
use locara_engine::api::SharedEngine;
use locara_manifest::{Grants, Manifest};
use serde_json::Value;
use tempfile::TempDir;

/// What a run gave: its output and how it ended.
pub type Ended = (String, Result<RunReport, RunFailure>);

/// Roles and their engines.
#[derive(Default)]
pub struct TestModels(Mutex<HashMap<String, SharedEngine>>);

impl TestModels {
    pub fn set(&self, role: &str, engine: SharedEngine) {
        self.0.lock().unwrap().insert(role.to_owned(), engine);
    }
    pub fn remove(&self, role: &str) {
        self.0.lock().unwrap().remove(role);
    }
}

impl Models for TestModels {
    fn engine(&self, _app: &str, role: &str) -> BoxFuture<'static, Result<SharedEngine, ModelError>> {
        let engine = self.0.lock().unwrap().get(role).cloned();
        let missing = ModelError::Unavailable(format!("no model for `{role}`"));
        async move { engine.ok_or(missing) }.boxed()
    }
    fn context_tokens(&self, role: &str) -> Option<u32> {
        self.0.lock().unwrap().get(role).map(|engine| engine.model().n_ctx)
    }
}

/// One host with a temporary home.
pub struct World {
    pub host: AppHost,
    pub ledger: Arc<CountingLedger>,
    pub models: Arc<TestModels>,
    pub dir: TempDir,
}

impl World {
    /// A host whose role `default` is this engine.
    pub fn new(engine: SharedEngine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The folder that the guests' manifests ask for.
        fs_err::create_dir(dir.path().join("data")).unwrap();
        let models = Arc::new(TestModels::default());
        models.set("default", engine);
        let ledger = Arc::new(CountingLedger::default());
        let host = host(dir.path(), models.clone(), ledger.clone());
        Self { host, ledger, models, dir }
    }

    /// Prepares a guest with everything granted that it asks.
    pub async fn prepare(&self, guest: &str) -> Arc<Prepared> {
        self.prepare_with(guest, |_| {}).await.unwrap()
    }

    /// Prepares a guest with a changed manifest.
    pub async fn prepare_with(
        &self,
        guest: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Prepared>, PrepareError> {
        let manifest = manifest(guest, change);
        self.host.prepare(component(guest), &manifest, &Grants::ask(&manifest)).await
    }

    /// Starts a run with a calm lease.
    pub fn start(&self, app: &Arc<Prepared>, arguments: &[&str], input: &str) -> RunHandle {
        let input = Box::new(std::io::Cursor::new(input.as_bytes().to_vec()));
        self.host.run(app, invocation(arguments, input))
    }

    /// Starts a run whose lease the test holds.
    pub fn lend(&self, app: &Arc<Prepared>, arguments: &[&str], input: locara_apps::Input) -> (RunHandle, Lease) {
        let (lease, end) = Lease::new(BudgetState::calm(1_000_000));
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        (self.host.run(app, Invocation { arguments, input, lease: end }), lease)
    }

    /// Runs to the end.
    pub async fn run(&self, app: &Arc<Prepared>, arguments: &[&str], input: &str) -> Ended {
        let (output, ended) = self.start(app, arguments, input).collect().await;
        (String::from_utf8(output).unwrap(), ended)
    }

    /// Prepares and runs to the end.
    pub async fn run_guest(&self, guest: &str, arguments: &[&str], input: &str) -> Ended {
        let app = self.prepare(guest).await;
        self.run(&app, arguments, input).await
    }
}

pub fn host(dir: &Path, models: Arc<dyn Models>, ledger: Arc<CountingLedger>) -> AppHost {
    let options = HostOptions {
        cache_dir: dir.join("cache"),
        storage_dir: dir.join("storage"),
        home: dir.to_owned(),
        models,
        ledger,
    };
    AppHost::new(options).unwrap()
}

pub fn invocation(arguments: &[&str], input: locara_apps::Input) -> Invocation {
    let (lease, end) = Lease::new(BudgetState::calm(1_000_000));
    // For guests that wait for a change that never comes: the host's end stays for the whole test.
    std::mem::forget(lease);
    Invocation { arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(), input, lease: end }
}

fn folder(guest: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/apps").join(format!("guest-{guest}"))
}

/// The packed component of a guest.
pub fn component(guest: &str) -> Vec<u8> {
    let path = folder(guest).join(format!("guest-{guest}.wasm"));
    fs_err::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}. Build the guests: `cargo xtask apps`", path.display()))
}

/// The packed manifest of a guest, changed.
pub fn manifest(guest: &str, change: impl FnOnce(&mut Value)) -> Manifest {
    let path = folder(guest).join("locara.json");
    let text = fs_err::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}. Build the guests: `cargo xtask apps`", path.display()));
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    change(&mut json);
    Manifest::parse("locara.json", json.to_string()).unwrap_or_else(|problems| panic!("{problems:?}"))
}
