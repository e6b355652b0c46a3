//! [`AppHost`]: installs, prepares and runs apps.
//!
//! One host per process, one store per run, owned by one task. The host knows engines only as
//! [`locara_engine::api::Engine`] behind [`Models`], and memory only as [`GuestLedger`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use locara_manifest::{Class, Grants, Manifest};
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use crate::allow::Allowed;
use crate::bindings::{events, run, run_sync};
use crate::cache::{Cache, hex};
use crate::capability::files::OpenFolder;
use crate::capability::http::Clients;
use crate::capability::storage::{Store as KvStore, Stores};
use crate::ctx::{Ctx, linker};
use crate::error::{HostError, PrepareError};
use crate::imports::{World, check, world};
use crate::limiter::GuestLedger;
use crate::models::Models;
use crate::run::{Invocation, RunHandle, start};
use crate::sandbox::Sandbox;

/// Largest component that is compiled, bytes. CPython in a component has 22 MB.
const MAX_COMPONENT: u64 = 64 << 20;

/// Where the host keeps things and whom it asks. There is no default: everything comes from the daemon.
pub struct HostOptions {
    /// Compiled components. Made with mode 0700; must belong to this user.
    pub cache_dir: PathBuf,
    /// Keys and values of apps, a folder for each.
    pub storage_dir: PathBuf,
    /// What `~` in folder grants stands for.
    pub home: PathBuf,
    /// Resolves roles to engines.
    pub models: Arc<dyn Models>,
    /// Accounts for the memory of guests.
    pub ledger: Arc<dyn GuestLedger>,
}

/// The host of all apps. Cheap to clone.
#[derive(Clone)]
pub struct AppHost(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) sandbox: Sandbox,
    cache: Cache,
    pub(crate) clients: Clients,
    stores: Stores,
    home: PathBuf,
    pub(crate) models: Arc<dyn Models>,
    pub(crate) ledger: Arc<dyn GuestLedger>,
    /// Compilation takes all cores and, for large components, gigabytes: one at a time.
    compiling: tokio::sync::Mutex<()>,
    /// The origin of the monotonic clock that apps see.
    pub(crate) origin: Instant,
}

/// An app that is ready to run: compiled, checked against its grants, linked.
pub struct Prepared {
    pub(crate) allowed: Arc<Allowed>,
    pub(crate) pre: InstancePre<Ctx>,
    pub(crate) entry: Entry,
    pub(crate) folders: Vec<OpenFolder>,
    pub(crate) storage: Option<KvStore>,
    digest: String,
}

/// What the component exports.
pub(crate) enum Entry {
    Async { run: run::GuestIndices, events: Option<events::GuestIndices> },
    Sync { run: run_sync::GuestIndices },
}

impl Prepared {
    /// Id of the app.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.allowed.app
    }

    /// SHA-256 of its component, lower-case hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether a person waits for it, as its manifest says.
    #[must_use]
    pub fn class(&self) -> Class {
        self.allowed.class
    }

    /// Whether it listens to budget events.
    #[must_use]
    pub fn listens(&self) -> bool {
        matches!(self.entry, Entry::Async { events: Some(_), .. })
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("app", &self.allowed.app).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AppHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppHost").field("pooled", &self.0.sandbox.pooled).finish_non_exhaustive()
    }
}

impl AppHost {
    /// Starts the host: the Wasm engine, the thread that interrupts busy guests, the cache, the HTTP client.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let sandbox = Sandbox::new()?;
        let cache = Cache::open(&options.cache_dir, &sandbox.engine)?;
        Ok(Self(Arc::new(Inner {
            sandbox,
            cache,
            clients: Clients::new()?,
            stores: Stores::new(options.storage_dir),
            home: options.home,
            models: options.models,
            ledger: options.ledger,
            compiling: tokio::sync::Mutex::new(()),
            origin: Instant::now(),
        })))
    }

    /// Whether instances come from a pool.
    #[must_use]
    pub fn pooled(&self) -> bool {
        self.0.sandbox.pooled
    }

    /// Compiles a component into the cache and checks it against what its manifest asks, as if all were granted. For
    /// installers: an app that can never run is refused here, and its first run does not wait for the compiler.
    ///
    /// # Errors
    /// See [`PrepareError`].
    pub async fn install(&self, component: impl Into<Arc<[u8]>>, manifest: &Manifest) -> Result<(), PrepareError> {
        let allowed = Allowed::new(manifest, &Grants::ask(manifest), &self.0.home);
        let (component, _) = self.compiled(component.into(), manifest).await?;
        self.check(&component, &allowed).map(drop)
    }

    /// Makes an app ready to run with these grants: from the cache where it was installed, compiled where not.
    ///
    /// # Errors
    /// See [`PrepareError`]; [`PrepareError::DeniedImport`] when the component imports what the manifest does not ask for
    /// or the owner did not grant.
    pub async fn prepare(
        &self,
        component: impl Into<Arc<[u8]>>,
        manifest: &Manifest,
        grants: &Grants,
    ) -> Result<Arc<Prepared>, PrepareError> {
        let allowed = Allowed::new(manifest, grants, &self.0.home);
        let (component, digest) = self.compiled(component.into(), manifest).await?;
        let world = self.check(&component, &allowed)?;
        let link =
            |error: wasmtime::Error| PrepareError::Link { app: allowed.app.to_string(), reason: format!("{error:#}") };
        let pre = linker(&self.0.sandbox.engine, &allowed, world).and_then(|linker| linker.instantiate_pre(&component));
        let pre = pre.map_err(link)?;
        let entry = match world {
            World::Async => Entry::Async {
                run: run::GuestIndices::new(&pre).map_err(link)?,
                events: events::GuestIndices::new(&pre).ok(),
            },
            World::Sync => Entry::Sync { run: run_sync::GuestIndices::new(&pre).map_err(link)? },
        };
        let (host, of_disk) = (self.0.clone(), allowed.clone());
        let (folders, storage) = blocking(&allowed.app, move || host.open(&of_disk)).await?;
        Ok(Arc::new(Prepared { allowed: Arc::new(allowed), pre, entry, folders, storage, digest }))
    }

    /// Starts a run in a store of its own. Must be called inside a tokio runtime.
    #[must_use]
    pub fn run(&self, app: &Arc<Prepared>, invocation: Invocation) -> RunHandle {
        start(self.0.clone(), app.clone(), invocation)
    }

    /// Forgets the compiled form of a component.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget(&self, digest: &str) -> Result<(), PrepareError> {
        Ok(self.0.cache.remove(digest)?)
    }

    /// What may not be imported is refused before anything is linked.
    fn check(&self, component: &Component, allowed: &Allowed) -> Result<World, PrepareError> {
        let engine = &self.0.sandbox.engine;
        allowed.check_memory().map_err(|denied| PrepareError::Grant {
            app: allowed.app.to_string(),
            grant: denied.capability,
            reason: format!("{}. {}", denied.reason, denied.remedy),
        })?;
        check(engine, component, allowed)?;
        world(engine, component, &allowed.app)
    }

    /// The compiled component and its digest, after the bytes were checked against the manifest.
    async fn compiled(&self, bytes: Arc<[u8]>, manifest: &Manifest) -> Result<(Component, String), PrepareError> {
        let app = manifest.id.as_str().to_owned();
        if bytes.len() as u64 > MAX_COMPONENT {
            return Err(PrepareError::TooLarge { app, bytes: bytes.len() as u64, max: MAX_COMPONENT });
        }
        let expected = manifest.require_digest().map_err(|_| PrepareError::NoDigest { app: app.clone() })?;
        let expected = expected.as_str().to_owned();
        let (host, of_app, of_bytes) = (self.0.clone(), app.clone(), bytes.clone());
        let digest = blocking(&app, move || digest(&of_bytes, of_app, expected)).await?;
        let of_digest = digest.clone();
        if let Some(component) = blocking(&app, move || host.cached(&of_digest)).await? {
            return Ok((component, digest));
        }
        let _one_at_a_time = self.0.compiling.lock().await;
        let (host, of_app, of_digest) = (self.0.clone(), app.clone(), digest.clone());
        let component = blocking(&app, move || host.compile(&bytes, of_app, &of_digest)).await?;
        Ok((component, digest))
    }
}

/// Runs work that takes the disk or the compiler where blocking is allowed.
async fn blocking<T: Send + 'static>(
    app: &str,
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<T, PrepareError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(PrepareError::Compile { app: app.to_owned(), reason: error.to_string() }))
}

/// The digest of the bytes, if it is the one that the manifest names.
fn digest(bytes: &[u8], app: String, expected: String) -> Result<String, PrepareError> {
    let found = hex(&Sha256::digest(bytes));
    if found == expected { Ok(found) } else { Err(PrepareError::Digest { app, expected, found }) }
}

impl Inner {
    fn cached(&self, digest: &str) -> Result<Option<Component>, PrepareError> {
        Ok(self.cache.load(&self.sandbox.engine, digest)?)
    }

    fn compile(&self, bytes: &[u8], app: String, digest: &str) -> Result<Component, PrepareError> {
        // Whoever held the lock may just have compiled the same component.
        if let Some(component) = self.cached(digest)? {
            return Ok(component);
        }
        let reason = |error: wasmtime::Error| format!("{error:#}");
        let compiled = match self.sandbox.engine.precompile_component(bytes) {
            Ok(compiled) => compiled,
            Err(error) => return Err(PrepareError::Compile { app, reason: reason(error) }),
        };
        self.cache.store(digest, &compiled)?;
        self.cached(digest)?.ok_or(PrepareError::Compile { app, reason: "the compiled form does not load".to_owned() })
    }

    /// Opens what an app was granted on disk.
    fn open(&self, allowed: &Allowed) -> Result<(Vec<OpenFolder>, Option<KvStore>), PrepareError> {
        let app = || allowed.app.to_string();
        let folders = allowed.folders.iter().map(|folder| {
            OpenFolder::open(folder).map_err(|error| PrepareError::Grant {
                app: app(),
                grant: format!("folder:{}", folder.name),
                reason: error.to_string(),
            })
        });
        let folders = folders.collect::<Result<Vec<_>, _>>()?;
        let storage = allowed.storage_quota.map(|quota| self.stores.open(&allowed.app, quota)).transpose();
        let storage = storage.map_err(|error| PrepareError::Storage {
            app: app(),
            path: self.stores.path(&allowed.app),
            reason: error.to_string(),
        })?;
        Ok((folders, storage))
    }
}
