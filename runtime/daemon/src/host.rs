//! The assembly: machine, ledger, model store and engines, put together for one process.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use locara_apps::{AppHost, GuestLedger, HostOptions, ModelError, Models, PrepareError};
use locara_engine::{
    Engine, SharedEngine,
    llama::{LlamaEngine, LoadOptions, build_info, probe_in_child},
    shape::model_shape,
};
use locara_gguf::Gguf;
use locara_models::{ModelFile, ModelStore, StoreError};
use locara_platform::{MachineFacts, Platform, PlatformError};
use locara_policy::{
    Bytes, Kind, Ledger, Owner, Plan, ReservationId,
    defaults::{Defaults, defaults},
    machine::Machine,
    plan::plan,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    exit::Exit,
    failure::{Failure, io, one_line},
    paths::Paths,
};

/// A child that opens an unknown model may take this long: a large file on a slow disk.
const PROBE_LIMIT: Duration = Duration::from_secs(120);

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

/// The model store of this user.
pub(crate) fn store(paths: &Paths) -> Result<ModelStore, Failure> {
    ModelStore::open(paths.models()).map_err(no_model)
}

/// A model is not to be had.
pub(crate) fn no_model(error: StoreError) -> Failure {
    Failure::new(Exit::Failure, "the model is not available").because(error)
}

/// The OS does not say what it must.
pub(crate) fn no_answer(error: PlatformError) -> Failure {
    Failure::new(Exit::Internal, "the system does not say how much memory there is").because(error)
}

/// How the engine is to load a model, from the derived defaults.
pub(crate) fn load_options(derived: &Defaults) -> LoadOptions {
    let request = derived.request();
    LoadOptions {
        n_ctx: request.n_ctx,
        kv_cells: request.n_ctx,
        n_seq_max: request.n_seq_max,
        n_batch: request.n_batch,
        n_ubatch: request.n_ubatch,
        type_k: request.type_k,
        type_v: request.type_v,
        flash_attention: request.flash_attention,
        n_threads: derived.n_threads.value,
        n_gpu_layers: -1,
        repack: false,
        queue_max: QUEUE_MAX,
    }
}

/// Requests that may wait for one model.
const QUEUE_MAX: u32 = 64;

/// A model that runs, and what was promised and measured for it.
#[derive(Clone)]
pub(crate) struct Loaded {
    /// The engine.
    pub(crate) engine: SharedEngine,
    /// What the planner had said.
    pub(crate) plan: Arc<Plan>,
    /// The file.
    pub(crate) file: Arc<ModelFile>,
    /// From the request to the first token it could make, ms.
    pub(crate) load_ms: f64,
}

type Load = Shared<BoxFuture<'static, Result<Loaded, ModelError>>>;

/// Everything that is the host's: one per process.
pub(crate) struct Host {
    machine: Machine,
    store: Arc<ModelStore>,
    chosen: Option<PathBuf>,
    ledger: Arc<Mutex<Ledger>>,
    /// Loads by model, finished ones too: whoever asks for the same model shares one load.
    loads: Mutex<HashMap<PathBuf, Load>>,
    /// A load waits for the one before: two at once would compete for the same memory.
    loading: Arc<tokio::sync::Mutex<()>>,
    /// Why the last load failed, with paths: for the person, never for an app.
    failure: Arc<Mutex<Option<String>>>,
}

impl Host {
    /// A host whose roles all resolve to `chosen`, or to the embedded model.
    pub(crate) fn new(paths: &Paths, chosen: Option<PathBuf>) -> Result<Arc<Self>, Failure> {
        let machine = machine()?;
        let cap = defaults(&machine, None).memory_cap.value;
        Ok(Arc::new(Self {
            machine,
            store: Arc::new(store(paths)?),
            chosen,
            ledger: Arc::new(Mutex::new(Ledger::new(cap))),
            loads: Mutex::new(HashMap::new()),
            loading: Arc::new(tokio::sync::Mutex::new(())),
            failure: Arc::default(),
        }))
    }

    /// The account of every byte that the host holds.
    pub(crate) fn ledger(&self) -> &Arc<Mutex<Ledger>> {
        &self.ledger
    }

    /// The models that run now.
    pub(crate) fn loaded(&self) -> Vec<Loaded> {
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        loads.values().filter_map(|load| load.peek().and_then(|result| result.as_ref().ok()).cloned()).collect()
    }

    /// Why the last load failed, if it did.
    pub(crate) fn load_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn key(&self) -> PathBuf {
        self.chosen.clone().unwrap_or_default()
    }

    /// The load that runs or ran for the model, started if there is none. A failed one is started again.
    fn load(&self) -> Load {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.key();
        if let Some(load) = loads.get(&key)
            && !matches!(load.peek(), Some(Err(_)))
        {
            return load.clone();
        }
        let (machine, store, chosen) = (self.machine.clone(), Arc::clone(&self.store), self.chosen.clone());
        let (ledger, turn) = (Arc::clone(&self.ledger), Arc::clone(&self.loading));
        let failure = Arc::clone(&self.failure);
        // Spawned, so that a caller who gives up does not stop the load for the others.
        let task = tokio::spawn(async move {
            let _turn = turn.lock().await;
            let work = move || load_now(&machine, &store, chosen.as_deref(), &ledger);
            let loaded = tokio::task::spawn_blocking(work)
                .await
                .unwrap_or_else(|error| Err(ModelError::Unavailable(format!("loading ended unexpectedly: {error}"))));
            if let Err(ModelError::Unavailable(detail)) = loaded {
                tracing::error!(%detail, "a model does not load");
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(detail);
                return Err(ModelError::Unavailable("the model of this role does not load".to_owned()));
            }
            loaded
        });
        let load = async move {
            task.await
                .unwrap_or_else(|error| Err(ModelError::Unavailable(format!("loading ended unexpectedly: {error}"))))
        }
        .boxed()
        .shared();
        loads.insert(key, load.clone());
        load
    }
}

impl Models for Host {
    fn engine(&self, _app: &str, _role: &str) -> BoxFuture<'static, Result<SharedEngine, ModelError>> {
        // One model is resident, and every role that an app was granted resolves to it.
        let load = self.load();
        async move { load.await.map(|loaded| loaded.engine) }.boxed()
    }

    fn context_tokens(&self, _role: &str) -> Option<u32> {
        if let Some(loaded) = self.loaded().first() {
            return Some(loaded.engine.model().n_ctx);
        }
        let file = find(&self.store, self.chosen.as_deref()).ok()?;
        let shape = model_shape(&Gguf::open(&file.path).ok()?).ok()?;
        Some(defaults(&self.machine, Some(&shape)).n_ctx.value)
    }
}

fn find(store: &ModelStore, chosen: Option<&std::path::Path>) -> Result<ModelFile, StoreError> {
    match chosen {
        Some(path) => store.adopt(path),
        None => store.embedded(),
    }
}

/// Finds, vets, plans, reserves, loads, commits: in this order, so that nothing is mapped that was not promised.
fn load_now(
    machine: &Machine,
    store: &ModelStore,
    chosen: Option<&std::path::Path>,
    ledger: &Mutex<Ledger>,
) -> Result<Loaded, ModelError> {
    let started = std::time::Instant::now();
    let unavailable = |error: &(dyn std::error::Error + 'static)| ModelError::Unavailable(one_line(error));
    let file = find(store, chosen).map_err(|error| unavailable(&error))?;
    let gguf = Gguf::open(&file.path).map_err(|error| unavailable(&error))?;
    let shape = model_shape(&gguf).map_err(|error| unavailable(&error))?;
    let build = build_info();
    if !store.is_vetted(&file.digest, &build) {
        let program = std::env::current_exe().map_err(|error| unavailable(&error))?;
        probe_in_child(program.as_os_str(), &["probe"], &file.path, PROBE_LIMIT)
            .map_err(|error| unavailable(&error))?;
        store.vet(&file.digest, &build);
    }
    let derived = defaults(machine, Some(&shape));
    let planned = plan(&shape, &derived.request()).map_err(|error| unavailable(&error))?;
    let owner = Owner::model(&file.digest);
    let parts: Vec<(Kind, Bytes)> =
        Kind::ALL.into_iter().map(|kind| (kind, planned.of_kind(kind))).filter(|(_, bytes)| !bytes.is_zero()).collect();
    let available = available_now();
    let mut account = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(available) = available.filter(|available| *available < planned.peak) {
        return Err(ModelError::OverBudget {
            needed: planned.peak.get(),
            available: available.get(),
            reason: format!(
                "{} needs {} and {available} of memory are available without swapping; close programs, or take a smaller model (`locara plan`)",
                file.name, planned.peak
            ),
        });
    }
    let reservations = account.reserve_all(&owner, &parts).map_err(|error| ModelError::OverBudget {
        needed: planned.peak.get(),
        available: account.available().get(),
        reason: error.to_string(),
    })?;
    drop(account);
    let loaded = LlamaEngine::load(&file.path, &file.digest, load_options(&derived), |_| true);
    let mut account = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let engine = match loaded {
        Ok(engine) => engine,
        Err(error) => {
            account.release_owner(&owner);
            return Err(unavailable(&error));
        }
    };
    let measured = engine.memory();
    for (id, (kind, planned)) in reservations.into_iter().zip(parts) {
        let actual = match kind {
            Kind::WeightsMapped | Kind::WeightsWired => Bytes(measured.weights_mapped),
            Kind::WeightsCopied => Bytes(measured.weights_resident),
            Kind::Kv => Bytes(measured.kv),
            Kind::Compute => Bytes(measured.compute),
            Kind::Output => Bytes(measured.output),
            Kind::PrefixCache | Kind::GuestMemory | Kind::Tables => planned,
        };
        if let Err(error) = account.commit(id, actual) {
            // The engine took more than was promised and there is no room for it: give everything back.
            drop(engine);
            account.release_owner(&owner);
            return Err(ModelError::OverBudget {
                needed: actual.get(),
                available: account.available().get(),
                reason: error.to_string(),
            });
        }
    }
    drop(account);
    Ok(Loaded {
        engine: Arc::new(engine),
        plan: Arc::new(planned),
        file: Arc::new(file),
        load_ms: started.elapsed().as_secs_f64() * 1e3,
    })
}

/// Guest memory in the host's ledger: one reservation per app, resized with every growth.
#[derive(Debug)]
struct GuestAccount {
    ledger: Arc<Mutex<Ledger>>,
    held: Mutex<HashMap<String, (ReservationId, u64)>>,
}

impl GuestLedger for GuestAccount {
    fn reserve(&self, app: &str, bytes: u64) -> Result<(), String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((id, total)) = held.get_mut(app) {
            ledger.resize(*id, Bytes(total.saturating_add(bytes))).map_err(|error| error.to_string())?;
            *total = total.saturating_add(bytes);
        } else {
            let id =
                ledger.reserve(Owner::app(app), Kind::GuestMemory, Bytes(bytes)).map_err(|error| error.to_string())?;
            held.insert(app.to_owned(), (id, bytes));
        }
        Ok(())
    }

    fn release(&self, app: &str, bytes: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((id, total)) = held.get_mut(app) else { return };
        *total = total.saturating_sub(bytes);
        let (id, rest) = (*id, *total);
        let settled = if rest == 0 {
            held.remove(app);
            ledger.release(id).map(drop)
        } else {
            ledger.resize(id, Bytes(rest))
        };
        if let Err(error) = settled {
            tracing::error!(app, %error, "the account of a guest does not add up");
        }
    }
}

/// The app host over the models and the ledger of `host`.
pub(crate) fn app_host(paths: &Paths, host: Arc<Host>) -> Result<AppHost, Failure> {
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()).unwrap_or_default();
    let ledger = Arc::new(GuestAccount { ledger: Arc::clone(host.ledger()), held: Mutex::default() });
    AppHost::new(HostOptions { cache_dir: paths.compiled(), storage_dir: paths.storage(), home, models: host, ledger })
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
