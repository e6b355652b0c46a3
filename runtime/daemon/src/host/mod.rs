//! The assembly: machine, governor, model store, engines and apps, put together for one process.
//!
//! | file | what it does |
//! | --- | --- |
//! | `governed` | events into the governor, actions out of it, tickets answered |
//! | `senses` | what the governor is told about the machine |
//! | `hands` | what the governor asks for |
//! | `load` | from a role to a resident model |
//! | `learned` | what loads have taught about predictions |
//! | `tenure` | an engine that can be taken away |
//! | `tenants` | runs of apps and their leases |
//! | `account` | guest memory |
//! | `status` | what the host shows of itself |

mod account;
mod governed;
mod hands;
mod learned;
mod load;
mod resolve;
mod senses;
pub(crate) mod status;
mod tenants;
mod tenure;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use locara_apps::{AppHost, HostOptions, ModelError, Models, PrepareError};
use locara_engine::{Engine, EngineStats, SharedEngine, llama::SpillOptions};
use locara_models::{Library, LibraryError, Located, ModelStore, RegistryFile};
use locara_platform::{MachineFacts, Platform, PlatformError};
use locara_policy::{
    Bytes,
    defaults::defaults,
    governor::{Action, Activity, Class, Config, Event, Level, StepId},
    ledger::ModelDigest,
    machine::Machine,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use self::{
    account::GuestAccount,
    governed::{Governed, Granted},
    hands::SecondThought,
    learned::Learned,
    senses::Senses,
    status::{Report, Status},
    tenants::Tenants,
};
pub(crate) use self::{
    load::{Asker, Loaded, NoModel, load_options},
    resolve::{Found, Wanted},
    senses::translated,
    tenants::Terms,
};
use crate::{
    exit::Exit,
    failure::{Failure, io, one_line},
    paths::Paths,
};

/// After a refusal, more cells are asked for again after this.
const GROW_AGAIN: Duration = Duration::from_secs(1);
/// Sessions of one model may take so much of the disk.
const SPILL_MOST: u64 = 8 << 30;

/// Facts of this machine.
pub(crate) fn facts() -> Result<MachineFacts, Failure> {
    locara_platform::host().machine().map_err(no_answer)
}

/// This machine as the planner sees it.
pub(crate) fn machine() -> Result<Machine, Failure> {
    let facts = facts()?;
    let ram = Bytes(facts.memory_limit_bytes.map_or(facts.ram_bytes, |limit| limit.min(facts.ram_bytes)));
    Ok(match &facts.gpu {
        Some(gpu) => Machine::unified_gpu("this machine", ram, facts.performance_cores, Bytes(gpu.working_set_bytes)),
        None => Machine::cpu("this machine", ram, facts.performance_cores),
    })
}

/// What the OS says can be taken now without swapping.
pub(crate) fn available_now() -> Option<Bytes> {
    locara_platform::host().memory().ok().map(|memory| Bytes(memory.available_bytes))
}

/// The models of this user.
pub(crate) fn library(paths: &Paths) -> Result<Arc<Library>, Failure> {
    // The registry and the keys lie beside the store, which clears up its own folders.
    locara_models::remove_leftovers(paths.data());
    let store = ModelStore::open(paths.models()).map_err(|error| no_model(error.into()))?;
    Ok(Arc::new(Library::new(store, RegistryFile::new(paths.registry()))))
}

/// A model is not to be had.
pub(crate) fn no_model(error: LibraryError) -> Failure {
    Failure::new(Exit::Failure, "the model is not available").because(error)
}

/// The OS does not say what it must.
pub(crate) fn no_answer(error: PlatformError) -> Failure {
    Failure::new(Exit::Internal, "the system does not say how much memory there is").because(error)
}

type Load = Shared<BoxFuture<'static, Result<Loaded, NoModel>>>;

/// Everything that is the host's: one per process.
pub(crate) struct Host {
    machine: Machine,
    library: Arc<Library>,
    chosen: Option<PathBuf>,
    /// Conversations at once, where the owner says.
    max_sequences: Option<u32>,
    spill: PathBuf,
    command: String,
    /// A model that nobody used for so long is unloaded.
    idle_unload_ms: u64,
    governed: Arc<Governed>,
    tenants: Arc<Tenants>,
    /// What the app that runs asks to be kept.
    keep_loaded: bool,
    acts: bool,
    /// Loads by model, finished ones too: whoever asks for the same model shares one load.
    loads: Mutex<HashMap<ModelDigest, Load>>,
    residents: Mutex<HashMap<ModelDigest, Loaded>>,
    /// Unloads that have not ended, and how they are told to think again.
    unloads: Mutex<HashMap<StepId, mpsc::Sender<SecondThought>>>,
    learned: Learned,
    /// The planned context of what apps ask for, read from the file once.
    contexts: Mutex<HashMap<String, Option<u32>>>,
    senses: OnceLock<Senses>,
    status: OnceLock<Status>,
    /// Why the last load failed, with paths: for the person, never for an app.
    failure: Mutex<Option<String>>,
}

/// What a host is started with.
#[derive(Debug, Default)]
pub(crate) struct HostAsk {
    /// A model file that all roles resolve to; the embedded model if absent.
    pub(crate) chosen: Option<PathBuf>,
    /// Conversations at once, for models that do not say it themselves; derived if absent.
    pub(crate) max_sequences: Option<u32>,
    /// What the owner wants otherwise than derived.
    pub(crate) owner: OwnerLimits,
    /// An app asks to keep its model loaded.
    pub(crate) keep_loaded: bool,
    /// What it is started for, for `locara memory`.
    pub(crate) command: String,
}

/// Bounds that the owner of the machine may set; what is absent is derived.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnerLimits {
    /// How much the host may hold, or must leave.
    pub(crate) memory: locara_manifest::Memory,
    /// A model that nobody used for so long is unloaded, ms.
    pub(crate) idle_unload_ms: Option<u64>,
}

impl OwnerLimits {
    /// The governor's settings with these bounds. What must stay available for the system is not the owner's to lower: the
    /// levels keep their thresholds.
    fn over(&self, mut config: Config) -> Config {
        let ram = config.ram;
        if let Some(ceiling) = self.memory.ceiling_bytes(ram.get()) {
            config.cap = Bytes(ceiling);
        }
        if let Some(reserve) = self.memory.reserve_bytes() {
            config.cap = config.cap.min(ram.saturating_sub(Bytes(reserve)));
        }
        config.idle_unload_ms = self.idle_unload_ms.unwrap_or(config.idle_unload_ms);
        config
    }
}

impl Host {
    /// A host that prepares apps and runs none: it reads no sensor and shows itself to nobody.
    pub(crate) fn idle(paths: &Paths) -> Result<Arc<Self>, Failure> {
        let ask = HostAsk::default();
        Ok(Self::assemble(paths, ask, None)?.0)
    }

    /// Starts a host. Must be called inside a tokio runtime.
    pub(crate) fn start(paths: &Paths, ask: HostAsk) -> Result<Arc<Self>, Failure> {
        let log = std::env::var_os("LOCARA_GOVERNOR_LOG").map(PathBuf::from);
        let (host, actions) = Self::assemble(paths, ask, log.as_deref())?;
        if host.acts {
            let platform: Arc<dyn Platform> = Arc::new(locara_platform::host());
            let _ = host.senses.set(Senses::start(platform, &host.governed, paths.data().to_owned()));
            tokio::spawn(hands::work(Arc::downgrade(&host), actions));
        }
        match Status::serve(&paths.hosts(), Arc::downgrade(&host)) {
            Ok(status) => _ = host.status.set(status),
            // A host that cannot be looked at is a host all the same.
            Err(error) => tracing::warn!(%error, "`locara memory` will not see this host"),
        }
        Ok(host)
    }

    fn assemble(
        paths: &Paths,
        ask: HostAsk,
        log: Option<&Path>,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Action>), Failure> {
        let machine = machine()?;
        let config = ask.owner.over(Config::new(&machine, &defaults(&machine, None)));
        let idle_unload_ms = config.idle_unload_ms;
        let (governed, actions) = Governed::new(config, log).map_err(|error| io("write the governor's log", error))?;
        let governed = Arc::new(governed);
        let host = Arc::new(Self {
            machine,
            library: library(paths)?,
            chosen: ask.chosen,
            max_sequences: ask.max_sequences,
            spill: paths.spill(),
            command: ask.command,
            idle_unload_ms,
            tenants: Tenants::new(governed.clone()),
            governed,
            keep_loaded: ask.keep_loaded,
            // Only to measure what would happen without it (`make pressure`).
            acts: std::env::var_os("LOCARA_UNGOVERNED").is_none(),
            loads: Mutex::default(),
            residents: Mutex::default(),
            unloads: Mutex::default(),
            learned: Learned::open(paths.corrections()),
            contexts: Mutex::default(),
            senses: OnceLock::new(),
            status: OnceLock::new(),
            failure: Mutex::default(),
        });
        Ok((host, actions))
    }

    pub(crate) fn governed(&self) -> &Governed {
        &self.governed
    }
    pub(crate) fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }
    pub(crate) fn library(&self) -> &Arc<Library> {
        &self.library
    }
    fn keeps_loaded(&self) -> bool {
        self.keep_loaded
    }
    fn spill(&self) -> SpillOptions {
        SpillOptions { dir: self.spill.clone(), max_bytes: SPILL_MOST }
    }
    fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Takes a reading now.
    pub(crate) fn look(&self) {
        if let Some(senses) = self.senses.get() {
            senses.look();
        }
    }

    /// What `locara memory` shows.
    pub(crate) fn report(&self) -> Report {
        Report {
            pid: std::process::id(),
            command: self.command.clone(),
            memory: self.governed.snapshot(),
            prediction_error: self.learned.error(),
            governed: self.acts,
            idle_unload_ms: self.idle_unload_ms,
        }
    }

    /// The models that run now.
    pub(crate) fn loaded(&self) -> Vec<Loaded> {
        self.residents.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn resident(&self, model: &ModelDigest) -> Option<Loaded> {
        self.residents.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// Takes a model away: whoever asks for it from now on causes a load of its own.
    fn take_resident(&self, model: &ModelDigest) -> Option<Loaded> {
        let loaded = self.residents.lock().unwrap_or_else(PoisonError::into_inner).remove(model)?;
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).remove(model);
        Some(loaded)
    }

    /// Roles may lead to other models now.
    pub(crate) fn forget_contexts(&self) {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes a model out of memory because its owner says so. Answers in flight may end, for so long.
    pub(crate) async fn release(&self, model: &ModelDigest, patience: Duration) {
        let Some(loaded) = self.take_resident(model) else { return };
        let _ = tokio::time::timeout(patience, loaded.engine.drain()).await;
        loaded.engine.end().await;
        self.governed.tell(Event::Released { model: model.clone() });
        self.look();
    }

    /// Ends every engine: nothing that was saved for later stays behind.
    pub(crate) async fn shut_down(&self) {
        for loaded in self.loaded() {
            self.release(&ModelDigest(loaded.file.digest.clone()), Duration::ZERO).await;
        }
    }

    fn unloads(&self) -> MutexGuard<'_, HashMap<StepId, mpsc::Sender<SecondThought>>> {
        self.unloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Undoes [`Self::take_resident`]: nothing has happened to the model.
    fn put_back(&self, model: ModelDigest, loaded: Loaded) {
        let ready = futures::future::ready(Ok(loaded.clone())).boxed().shared();
        // A load that somebody asked for meanwhile joins this model when the governor hears of it.
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).entry(model.clone()).or_insert(ready);
        self.residents.lock().unwrap_or_else(PoisonError::into_inner).insert(model, loaded);
    }

    fn add_resident(self: &Arc<Self>, model: ModelDigest, loaded: Loaded) {
        tokio::spawn(follow(Arc::downgrade(self), model.clone(), loaded.clone()));
        self.residents.lock().unwrap_or_else(PoisonError::into_inner).insert(model, loaded);
    }

    /// Why the last load failed, if it did.
    pub(crate) fn load_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The model that is wanted, loaded if it is not.
    pub(crate) async fn engine(self: &Arc<Self>, wanted: Wanted, asker: Asker) -> Result<Loaded, NoModel> {
        let host = self.clone();
        let located = tokio::task::spawn_blocking(move || host.locate(&wanted)).await;
        let located = match located {
            Ok(located) => located.map_err(|error| NoModel::Library(Arc::new(error)))?,
            Err(error) => return Err(NoModel::Failed { name: "a model".to_owned(), detail: error.to_string() }),
        };
        self.load(located, asker).await
    }

    /// The load that runs or ran for the model, started if there is none. A failed one is started again.
    fn load(self: &Arc<Self>, located: Located, asker: Asker) -> Load {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let key = ModelDigest(located.file.digest.clone());
        if let Some(load) = loads.get(&key)
            && !matches!(load.peek(), Some(Err(_)))
        {
            return load.clone();
        }
        let (host, name) = (self.clone(), located.file.name.clone());
        // Spawned, so that a caller who gives up does not stop the load for the others.
        let task = tokio::spawn(async move {
            let loaded = load::load(host.clone(), located, asker).await;
            if let Err(NoModel::Failed { name, detail }) = &loaded {
                tracing::error!(name, detail, "a model does not load");
                *host.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(detail.clone());
            }
            loaded
        });
        let load = async move {
            task.await.unwrap_or_else(|error| {
                Err(NoModel::Failed { name, detail: format!("loading ended unexpectedly: {error}") })
            })
        }
        .boxed()
        .shared();
        loads.insert(key, load.clone());
        load
    }
}

/// Tells the governor what a model does, and asks for cells that its requests lack, until its engine is gone.
async fn follow(host: Weak<Host>, model: ModelDigest, loaded: Loaded) {
    let mut stats = loaded.engine.watch();
    let mut growing: Option<JoinHandle<()>> = None;
    loop {
        let now = stats.borrow_and_update().clone();
        let Some(host) = host.upgrade() else { return };
        host.governed.tell(Event::Active { model: model.clone(), activity: activity(&loaded, &now) });
        if now.cells_wanted > 0 && growing.is_none() {
            growing = Some(tokio::spawn(grow(host.clone(), model.clone(), loaded.clone(), now)));
        }
        drop(host);
        let grown = async {
            match &mut growing {
                Some(task) => _ = task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = stats.changed() => if changed.is_err() { return },
            () = grown => growing = None,
        }
    }
}

fn activity(loaded: &Loaded, stats: &EngineStats) -> Activity {
    let per_cell = loaded.kv_per_cell();
    let bytes = |cells: u32| Bytes(u64::from(cells).saturating_mul(per_cell));
    Activity {
        interactive: stats.running.saturating_sub(stats.running_background),
        background: stats.running_background,
        waiting: stats.waiting,
        idle_kv: bytes(stats.kv_cells_idle),
        background_kv: bytes(stats.kv_cells_background),
        prompt_cache: Bytes(stats.prompt_cache_bytes),
    }
}

/// Asks for the cells that were given back: all of them when memory is plenty, else what is wanted.
async fn grow(host: Arc<Host>, model: ModelDigest, loaded: Loaded, stats: EngineStats) {
    let wanted = stats.kv_cells.saturating_add(stats.cells_wanted).min(loaded.kv_cells);
    let cells = if host.governed.level() == Level::Normal { loaded.kv_cells } else { wanted };
    let kv = Bytes(u64::from(cells).saturating_mul(loaded.kv_per_cell()));
    match host.governed.ask(|ticket| Event::Grow { ticket, model: model.clone(), kv }).await {
        Ok(Granted::Reserved | Granted::Shared) => match loaded.engine.resize(cells).await {
            Ok(Ok(_)) => return tracing::info!(cells, "a pool of KV cells was made larger"),
            Ok(Err(error)) => tracing::warn!(%error, cells, "a pool of KV cells cannot be made larger"),
            Err(_) => return,
        },
        Err(refusal) => tracing::warn!(%refusal, "a pool of KV cells stays small; its requests wait"),
    }
    // Whoever waits in the engine still waits: ask again, but not at once.
    tokio::time::sleep(GROW_AGAIN).await;
}

/// The roles of apps: the registry says which model plays which, unless the person chose one for all.
struct Roles(Arc<Host>);

impl Models for Roles {
    fn engine(&self, app: &str, role: &str) -> BoxFuture<'static, Result<SharedEngine, ModelError>> {
        let (host, wanted) = (self.0.clone(), Wanted::role(role));
        let asker = Asker { app: app.to_owned(), class: Class::Interactive };
        async move {
            match host.engine(wanted, asker).await {
                Ok(loaded) => Ok(loaded.engine as SharedEngine),
                Err(error) => {
                    if let NoModel::Library(error) = &error {
                        *host.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(one_line(&**error));
                    }
                    Err(error.for_app())
                }
            }
        }
        .boxed()
    }

    fn context_tokens(&self, role: &str) -> Option<u32> {
        let Self(host) = self;
        let mut contexts = host.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        *contexts.entry(role.to_owned()).or_insert_with(|| {
            let located = host.locate(&Wanted::role(role)).ok()?;
            host.plan(located).ok().map(|found| found.request.n_ctx)
        })
    }
}

/// The app host over the models and the ledger of `host`.
pub(crate) fn app_host(paths: &Paths, host: &Arc<Host>) -> Result<AppHost, Failure> {
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()).unwrap_or_default();
    let ledger = Arc::new(GuestAccount::new(host.governed.clone()));
    let models = Arc::new(Roles(host.clone()));
    AppHost::new(HostOptions { cache_dir: paths.compiled(), storage_dir: paths.storage(), home, models, ledger })
        .map_err(|error| Failure::new(Exit::Failure, "the app host does not start").because(error))
}

/// An app cannot run as it is installed.
pub(crate) fn not_prepared(error: PrepareError) -> Failure {
    let exit = if matches!(error, PrepareError::DeniedImport { .. }) { Exit::Denied } else { Exit::Failure };
    Failure::new(exit, error.to_string())
}

/// The async runtime of a command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| io("start the async runtime", error))
}

/// A token that is cancelled when the process is asked to stop, for work that blocks outside of `runtime`.
pub(crate) fn until_asked_to_stop(runtime: &tokio::runtime::Runtime) -> tokio_util::sync::CancellationToken {
    let cancel = tokio_util::sync::CancellationToken::new();
    let stopper = cancel.clone();
    let inside = runtime.enter();
    let asked = asked_to_stop();
    drop(inside);
    runtime.spawn(async move {
        asked.await;
        stopper.cancel();
    });
    cancel
}

/// Listens from this call on; resolves when the person or the system asks the process to stop, with the reason.
///
/// Must be called inside the runtime. Not an `async fn`: that would begin to listen only when it is first polled, and a
/// signal before that would kill the process without a word.
pub(crate) fn asked_to_stop() -> impl Future<Output = &'static str> {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async fn asked(listening: std::io::Result<Signal>) {
        match listening {
            Ok(mut signal) => _ = signal.recv().await,
            // Without a handler the signal does what it does to any process: it ends it.
            Err(_) => std::future::pending().await,
        }
    }
    async {
        tokio::select! {
            () = asked(interrupt) => "interrupted at the terminal",
            () = asked(terminate) => "the system asked to stop (SIGTERM)",
        }
    }
}
