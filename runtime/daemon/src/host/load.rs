//! From a role to a resident model: find, vet, plan, ask the governor, load, report. In this order, so that nothing is mapped
//! that was not promised.

use std::{sync::Arc, time::Duration, time::Instant};

use locara_apps::ModelError;
use locara_engine::{
    Engine, EngineMemory,
    llama::{CacheOptions, ChatOptions, LlamaEngine, LoadOptions, build_info, probe_in_child},
};
use locara_manifest::ModelSettings;
use locara_models::{LibraryError, Located, ModelFile};
use locara_platform::Platform;
use locara_policy::{
    Bytes, Kind, Plan, PlanRequest,
    governor::{Class, Event, LoadRequest, ModelUse, Need, Recovery, Refusal},
    ledger::{AppId, ModelDigest},
};

use super::{Host, governed::Granted, learned, resolve::Found, tenure::Tenure};
use crate::failure::one_line;

/// A child that opens an unknown model may take this long: a large file on a slow disk.
const PROBE_LIMIT: Duration = Duration::from_secs(120);
/// Requests that may wait for one model.
const QUEUE_MAX: u32 = 64;
/// For the first estimate of a reload: what a laptop's disk reads in a millisecond, bytes. Measured loads replace it.
const DISK_BYTES_PER_MS: u64 = 1_000_000;
/// What a load takes beside reading the file, ms.
const LOAD_BASE_MS: u64 = 100;

/// A model that runs, and what was promised and measured for it. Clones are the same model.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The engine, as long as it lasts.
    pub(crate) engine: Arc<Tenure>,
    /// What the planner had said.
    pub(crate) plan: Arc<Plan>,
    /// The file.
    pub(crate) file: Arc<ModelFile>,
    /// From the request to the first token it could make, ms.
    pub(crate) load_ms: f64,
    /// Cells of the pool that it was loaded with.
    pub(crate) kv_cells: u32,
    /// Threads that it was loaded with.
    pub(crate) n_threads: u32,
}

impl Loaded {
    /// KV bytes of one cell.
    pub(crate) fn kv_per_cell(&self) -> u64 {
        self.plan.of_kind(Kind::Kv).get() / u64::from(self.kv_cells.max(1))
    }
}

/// How the engine is to load a model that was planned so.
pub(crate) fn load_options(request: &PlanRequest, n_threads: u32) -> LoadOptions {
    LoadOptions {
        n_ctx: request.n_ctx,
        kv_cells: request.n_ctx,
        n_seq_max: request.n_seq_max,
        n_batch: request.n_batch,
        n_ubatch: request.n_ubatch,
        type_k: request.type_k,
        type_v: request.type_v,
        flash_attention: request.flash_attention,
        n_threads,
        n_gpu_layers: -1,
        repack: false,
        queue_max: QUEUE_MAX,
    }
}

/// What a plan holds, by kind, with the engine's own figures where it gives them.
pub(crate) fn holds(plan: &Plan, memory: &EngineMemory) -> Vec<(Kind, Bytes)> {
    let mapped = if plan.of_kind(Kind::WeightsWired).is_zero() { Kind::WeightsMapped } else { Kind::WeightsWired };
    let mut holds = vec![
        (mapped, Bytes(memory.weights_mapped)),
        (Kind::WeightsCopied, Bytes(memory.weights_resident)),
        (Kind::Kv, Bytes(memory.kv)),
        (Kind::Compute, Bytes(memory.compute)),
        (Kind::Output, Bytes(memory.output)),
    ];
    // The engine does not report these; what was promised for them is theirs.
    holds.extend([Kind::PrefixCache, Kind::Tables].map(|kind| (kind, plan.of_kind(kind))));
    holds.retain(|(_, bytes)| !bytes.is_zero());
    holds
}

/// Why a model is not there. Clones tell the same to everybody who waited for one load.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NoModel {
    /// None is meant, or its files are not there.
    #[error(transparent)]
    Library(Arc<LibraryError>),
    /// The governor says no.
    #[error("{name}: {refusal}")]
    Refused {
        /// The model.
        name: String,
        /// With the numbers and the way out.
        refusal: Box<Refusal>,
    },
    /// It is on its way out, or in; ask again.
    #[error("{name} is being unloaded; try again in a second")]
    Leaving {
        /// The model.
        name: String,
    },
    /// It does not load.
    #[error("{name} does not load: {detail}")]
    Failed {
        /// The model.
        name: String,
        /// All causes, paths included: for the person, never for an app.
        detail: String,
    },
}

impl NoModel {
    fn failed(name: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Failed { name: name.to_owned(), detail: one_line(error) }
    }

    /// What an app is told.
    pub(crate) fn for_app(&self) -> ModelError {
        match self {
            Self::Refused { refusal, .. } => match refusal.recovery {
                Recovery::Retry { after_ms } if refusal.short_by().is_zero() => {
                    ModelError::Busy { retry_after_ms: after_ms, waiting: 1 }
                }
                Recovery::Retry { .. } | Recovery::Free { .. } | Recovery::Smaller { .. } => ModelError::OverBudget {
                    needed: refusal.needs.get(),
                    available: refusal.room.get(),
                    reason: refusal.to_string(),
                },
            },
            Self::Leaving { .. } => ModelError::Busy { retry_after_ms: 1000, waiting: 1 },
            Self::Library(_) | Self::Failed { .. } => {
                ModelError::Unavailable("the model of this role does not load".to_owned())
            }
        }
    }
}

/// For whom a model is loaded.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// An app's id, or what a client is called.
    pub(crate) app: String,
    /// Whether somebody waits.
    pub(crate) class: Class,
}

/// Loads a model for whoever asked first; the others share it.
pub(crate) async fn load(host: Arc<Host>, located: Located, asker: Asker) -> Result<Loaded, NoModel> {
    let started = Instant::now();
    let name = located.file.name.clone();
    let (of_host, of_name) = (host.clone(), name.clone());
    let found = blocking(&name, move || {
        let found = of_host.plan(located).map_err(|error| NoModel::failed(&of_name, &error))?;
        vet(&of_host, &found).map_err(|error| NoModel::failed(&of_name, &*error))?;
        Ok(found)
    })
    .await?;
    let digest = ModelDigest(found.file.digest.clone());
    let request = |ticket| {
        Event::Load(LoadRequest {
            ticket,
            model: digest.clone(),
            name: name.clone(),
            used_as: if found.shape.encoder { ModelUse::Secondary } else { ModelUse::Chat },
            need: host.learned().need(&digest.0, &found.plan),
            reload_ms: u32::try_from(LOAD_BASE_MS + found.plan.weights().get() / DISK_BYTES_PER_MS).unwrap_or(u32::MAX),
            keep_loaded: host.keeps_loaded() || found.settings.keep_loaded,
            app: (!asker.app.is_empty()).then(|| AppId(asker.app.clone())),
            class: asker.class,
        })
    };
    match host.governed().ask(request).await {
        Ok(Granted::Reserved) => {}
        // Loads are shared before they get here: this one met an unload that was taken back, or lost a race with it.
        Ok(Granted::Shared) => return host.resident(&digest).ok_or(NoModel::Leaving { name }),
        Err(refusal) => return Err(NoModel::Refused { name, refusal: Box::new(refusal) }),
    }
    let mut failed = FailedOnDrop { host: &host, model: Some(digest.clone()) };
    let Found { file, settings, derived, request, plan, .. } = found;
    let options = load_options(&request, derived.n_threads.value);
    let cache = CacheOptions { prompt_cache_bytes: derived.prompt_cache.value.get(), spill: Some(host.spill()) };
    let (kv_cells, n_threads) = (options.kv_cells, options.n_threads);
    let (path, of_file, of_name) = (file.path.clone(), file.digest.clone(), name.clone());
    let resident = || {
        let process = locara_platform::host().process().unwrap_or_default();
        (Bytes(process.rss_file_bytes), Bytes(process.rss_anon_bytes))
    };
    let before = resident();
    let engine = blocking(&name, move || {
        let chat = chat_options(&settings).map_err(|error| NoModel::failed(&of_name, &error))?;
        LlamaEngine::load_with(&path, &of_file, options, &cache, &chat, |_| true)
            .map_err(|error| NoModel::failed(&of_name, &error))
    })
    .await?;
    failed.model = None;
    let memory = engine.memory();
    // Loads come one at a time, so what grew meanwhile is this one's but for what guests took.
    host.learned().observe(&file.digest, &plan, &memory, learned::grown(before, resident()));
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let loaded = Loaded {
        engine: Arc::new(Tenure::new(engine)),
        plan: Arc::new(plan),
        file: Arc::new(file),
        load_ms,
        kv_cells,
        n_threads,
    };
    host.add_resident(digest.clone(), loaded.clone());
    host.governed().tell(Event::Loaded {
        model: digest,
        holds: holds(&loaded.plan, &memory),
        took_ms: load_ms.min(f64::from(u32::MAX)) as u32,
    });
    host.look();
    Ok(loaded)
}

/// How the owner wants a model to be spoken to, where the file says it wrong.
fn chat_options(settings: &ModelSettings) -> std::io::Result<ChatOptions> {
    Ok(ChatOptions {
        template_override: settings.template.as_ref().map(fs_err::read_to_string).transpose()?,
        tool_format: settings.tool_parser.map(|parser| parser.as_str().to_owned()),
        reasoning_format: None,
    })
}

/// A load that ends early, by an error or because nobody waits for it any more, gives its bytes back.
struct FailedOnDrop<'a> {
    host: &'a Host,
    model: Option<ModelDigest>,
}

impl Drop for FailedOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(model) = self.model.take() {
            self.host.governed().tell(Event::LoadFailed { model });
        }
    }
}

async fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, NoModel> + Send + 'static,
) -> Result<T, NoModel> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(NoModel::Failed { name: name.to_owned(), detail: format!("loading ended unexpectedly: {error}") })
    })
}

/// Lets a child open files that nobody has opened before: if one of them makes llama.cpp crash, the child dies.
fn vet(host: &Host, found: &Found) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (store, build) = (host.library().store(), build_info());
    if !store.is_vetted(&found.file.digest, &build) {
        let program = std::env::current_exe()?;
        probe_in_child(program.as_os_str(), &["probe"], &found.file.path, PROBE_LIMIT)?;
        store.vet(&found.file.digest, &build);
    }
    Ok(())
}

/// What a plan asks of the governor.
pub(crate) fn need(plan: &Plan) -> Need {
    let parts: Vec<(Kind, Bytes)> =
        Kind::ALL.into_iter().map(|kind| (kind, plan.of_kind(kind))).filter(|(_, bytes)| !bytes.is_zero()).collect();
    Need { transient: plan.peak.saturating_sub(plan.total), gpu: plan.gpu_working_set(), parts }
}
