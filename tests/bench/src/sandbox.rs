//! One app host with the guest of the benchmarks (`tests/guests/bench`).

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use locara_apps::{
    AppHost, BudgetState, CountingLedger, HostOptions, Input, Invocation, Lease, ModelError, Models, Prepared,
    RunHandle,
};
use locara_engine::SharedEngine;
use locara_manifest::{Grants, Manifest};
use tempfile::TempDir;

/// What the lease of a guest allows: more than it takes.
const LIMIT: u64 = 64 << 20;

/// Every role is this engine.
struct One(SharedEngine);

impl Models for One {
    fn engine(&self, _app: &str, _role: &str) -> BoxFuture<'static, Result<SharedEngine, ModelError>> {
        std::future::ready(Ok(self.0.clone())).boxed()
    }

    fn context_tokens(&self, _role: &str) -> Option<u32> {
        Some(self.0.model().n_ctx)
    }
}

/// What a reader saw of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seen {
    /// Tokens of the answer.
    pub(crate) tokens: u32,
    /// From the first piece of it to its outcome, seconds.
    pub(crate) after_first: f64,
}

impl Seen {
    /// Seconds for each token after the first.
    pub(crate) fn seconds_per_token(&self) -> f64 {
        self.after_first / f64::from(self.tokens.saturating_sub(1))
    }
}

/// See the module.
pub(crate) struct Sandbox {
    host: AppHost,
    app: Arc<Prepared>,
    manifest: Manifest,
    component: Arc<[u8]>,
    /// Compiled components; removed with it.
    _folder: TempDir,
}

impl Sandbox {
    /// A host whose models are all this engine, with the guest compiled and ready.
    pub(crate) async fn new(engine: SharedEngine) -> Result<Self> {
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/apps/guest-bench");
        let hint = "build the guests first: `make apps`";
        let component: Arc<[u8]> = fs_err::read(dist.join("guest-bench.wasm")).context(hint)?.into();
        let text = fs_err::read(dist.join("locara.json")).context(hint)?;
        let manifest = Manifest::parse("guest-bench/locara.json", text)?;
        let folder = tempfile::tempdir()?;
        let host = AppHost::new(HostOptions {
            cache_dir: folder.path().join("cache"),
            storage_dir: folder.path().join("storage"),
            home: folder.path().to_owned(),
            models: Arc::new(One(engine)),
            ledger: Arc::new(CountingLedger::default()),
        })?;
        let app = host.prepare(component.clone(), &manifest, &Grants::ask(&manifest)).await?;
        Ok(Self { host, app, manifest, component, _folder: folder })
    }

    /// Whether instances come from a pool.
    pub(crate) fn pooled(&self) -> bool {
        self.host.pooled()
    }

    /// Forgets the compiled component.
    pub(crate) fn forget(&self) -> Result<()> {
        Ok(self.host.forget(self.app.digest())?)
    }

    /// Makes the guest ready to run once more, from the cache of compiled components if it is there.
    pub(crate) async fn prepare(&self) -> Result<Arc<Prepared>> {
        Ok(self.host.prepare(self.component.clone(), &self.manifest, &Grants::ask(&self.manifest)).await?)
    }

    /// Starts the guest in one of its modes.
    pub(crate) fn start(&self, arguments: &[&str], input: Input) -> RunHandle {
        let (_, lease) = Lease::new(BudgetState::calm(LIMIT));
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.host.run(&self.app, Invocation { arguments, input, lease })
    }

    /// Lets the guest ask; what it saw by its own clock.
    pub(crate) async fn ask(&self, question: &str, max_tokens: u32) -> Result<Seen> {
        let input = Box::new(Cursor::new(question.as_bytes().to_vec()));
        let (output, ended) = self.start(&["ask", &max_tokens.to_string()], input).collect().await;
        ended.map_err(|failure| failure.error)?;
        let output = String::from_utf8(output)?;
        let Some((tokens, nanoseconds)) = output.split_once(' ') else { bail!("the guest wrote {output:?}") };
        Ok(Seen { tokens: tokens.parse()?, after_first: nanoseconds.parse::<f64>()? / 1e9 })
    }
}
