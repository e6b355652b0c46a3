//! The in-process engine: llama.cpp behind the [`Engine`] messages.
//!
//! Two threads per model. The *front* renders templates and tokenises; the *actor* owns the context and does everything
//! else: it batches, decodes, samples and turns tokens into text. They share nothing but channels, the immutable model
//! and the abort flag.
//!
//! This folder is the only place that names llama.cpp, and with `runtime/platform` the only one with `unsafe`. Misuse of
//! llama.cpp ends the process, so every argument is checked on this side of the border.
#![expect(unsafe_code, reason = "the llama.cpp boundary: one of the two places where unsafe is allowed")]

mod actor;
mod backend;
mod batch;
mod cache;
mod chat;
mod constraint;
mod context;
mod embed;
mod ffi;
mod front;
mod heap;
mod likely;
mod log;
mod model;
mod perplexity;
mod probe;
mod reference;
mod sampler;
mod sequence;
mod sessions;
mod spill;

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

pub use backend::{Device, build_info, devices};
pub use chat::ChatOptions;
use locara_gguf::Gguf;
use locara_platform::{Platform, Qos};
use locara_policy::{KvType, PlanRequest};
pub use perplexity::{Perplexity, PerplexityError, perplexity};
pub use probe::{ProbeError, ProbeReport, dry_run, probe, probe_in_child};
pub use reference::{ReferenceLoop, ReferenceTimes};
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    actor::{Actor, Command, Limits},
    cache::StateCache,
    chat::Chat,
    context::{Context, ContextParams},
    front::{Front, Question},
    model::{Model, ModelParams},
};
use crate::{
    api::{
        EVENT_QUEUE, Engine, EngineError, EngineMemory, EngineStats, Event, Generation, Interrupt, ModelInfo, Prompt,
        Reply, Request, RequestId, SessionId, Token,
    },
    reclaim::{Reclaim, Reclaimed, Throttle},
};

/// How a model is loaded and served. Made by the host from the machine's facts; apps have no say in any of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadOptions {
    /// Tokens that prompt and answer of one sequence may take together.
    pub n_ctx: u32,
    /// KV cells in all, shared by the sequences; at least `n_ctx`.
    pub kv_cells: u32,
    /// Sequences in one batch.
    pub n_seq_max: u32,
    /// Tokens in one batch; on GPUs also the latency of a cancel during prefill.
    pub n_batch: u32,
    /// Tokens computed at once; bounds the compute buffer.
    pub n_ubatch: u32,
    /// Type of K cells.
    pub type_k: KvType,
    /// Type of V cells; quantised needs FlashAttention.
    pub type_v: KvType,
    /// FlashAttention.
    pub flash_attention: bool,
    /// Threads that compute: the performance cores.
    pub n_threads: u32,
    /// Layers on the GPU; -1 offloads all.
    pub n_gpu_layers: i32,
    /// Copy weights into a faster layout. Anonymous memory; only on the wish of the machine's owner.
    pub repack: bool,
    /// Requests that may wait for a place.
    pub queue_max: u32,
}

impl LoadOptions {
    /// What a planner is to be asked for a context that is made so.
    #[must_use]
    pub fn plan_request(&self, device: locara_policy::Device) -> PlanRequest {
        PlanRequest {
            n_ctx: self.kv_cells.max(self.n_ctx),
            n_seq_max: self.n_seq_max,
            n_outputs_max: self.n_seq_max,
            n_batch: self.n_batch,
            n_ubatch: self.n_ubatch,
            type_k: self.type_k,
            type_v: self.type_v,
            flash_attention: self.flash_attention,
            ..PlanRequest::new(device)
        }
    }
}

/// Where the states of idle sessions go when their cells are needed. The default is nowhere: they are computed again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheOptions {
    /// Bound of the states in memory, bytes; to be reserved by the caller. 0 keeps none there.
    pub prompt_cache_bytes: u64,
    /// Where those go that the memory has no room for.
    pub spill: Option<SpillOptions>,
}

/// Saved states on disk. They end with the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillOptions {
    /// Each engine makes a folder of its own below this one, which is the host's alone; it is made where it is missing.
    pub dir: PathBuf,
    /// Bound of this engine's files, bytes.
    pub max_bytes: u64,
}

/// Why a model does not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The path cannot be given to C.
    #[error("the path {} holds a NUL byte", .0.display())]
    Path(PathBuf),
    /// The file is not a GGUF that may be shown to llama.cpp.
    #[error("{} is refused", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: locara_gguf::GgufError,
    },
    /// llama.cpp refuses the file.
    #[error("llama.cpp does not load {}: {reason}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Its last errors.
        reason: String,
    },
    /// llama.cpp makes no context.
    #[error("no context for {}: {reason}", path.display())]
    Context {
        /// The model file.
        path: PathBuf,
        /// Its last errors, or what the options break.
        reason: String,
    },
    /// What the owner says about how the model is spoken to cannot be.
    #[error("the chat settings of {} cannot be used: {reason}", path.display())]
    Chat {
        /// The model file.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// The load was stopped by its progress callback.
    #[error("the load of {} was stopped", .0.display())]
    Stopped(PathBuf),
    /// The OS gives no thread.
    #[error("cannot start the engine's threads")]
    Thread(#[source] std::io::Error),
}

/// Counters that the front, the actor and the handle share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Requests submitted and not yet admitted.
    waiting: AtomicU32,
    /// Sum and count of finished requests' milliseconds, for the retry estimate.
    busy_ms: AtomicU64,
    finished: AtomicU64,
    /// What the actor holds now.
    memory: Mutex<EngineMemory>,
    /// What the actor does now.
    stats: watch::Sender<EngineStats>,
}

/// A model served by llama.cpp in this process. Dropping it stops the threads and frees everything.
#[derive(Debug)]
pub struct LlamaEngine {
    info: ModelInfo,
    options: LoadOptions,
    questions: Option<mpsc::Sender<Question>>,
    commands: mpsc::UnboundedSender<Command>,
    abort: Arc<AtomicBool>,
    /// A step that is stopped can be cut back. Recurrent state cannot: it would be computed again from the start.
    interruptible: bool,
    shared: Arc<Shared>,
    next_request: AtomicU64,
    threads: Vec<JoinHandle<()>>,
}

/// Prompts that may wait for the front thread.
const QUESTION_QUEUE: usize = 256;

impl LlamaEngine {
    /// Maps the file, makes the context and starts the threads. Blocks: seconds for a large model on a cold disk.
    ///
    /// `digest` is the SHA-256 of the file; it names the model in answers. `progress` hears the fraction loaded and may
    /// stop the load by returning false.
    ///
    /// # Errors
    /// [`LoadError`]; nothing stays allocated.
    pub fn load(
        path: &Path,
        digest: &str,
        options: LoadOptions,
        progress: impl FnMut(f32) -> bool,
    ) -> Result<Self, LoadError> {
        Self::load_with_cache(path, digest, options, &CacheOptions::default(), progress)
    }

    /// [`LlamaEngine::load`], with places for the states of sessions that give way. A folder that cannot be used is logged,
    /// and the engine works without it.
    ///
    /// # Errors
    /// [`LoadError`]; nothing stays allocated.
    pub fn load_with_cache(
        path: &Path,
        digest: &str,
        options: LoadOptions,
        cache: &CacheOptions,
        progress: impl FnMut(f32) -> bool,
    ) -> Result<Self, LoadError> {
        Self::load_with(path, digest, options, cache, &ChatOptions::default(), progress)
    }

    /// [`LlamaEngine::load_with_cache`], with the owner's word on how the model is spoken to.
    ///
    /// # Errors
    /// [`LoadError`]; nothing stays allocated.
    pub fn load_with(
        path: &Path,
        digest: &str,
        options: LoadOptions,
        cache: &CacheOptions,
        chat: &ChatOptions,
        mut progress: impl FnMut(f32) -> bool,
    ) -> Result<Self, LoadError> {
        let refuse = |source| LoadError::Gguf { path: path.to_owned(), source };
        chat.check().map_err(|reason| LoadError::Chat { path: path.to_owned(), reason })?;
        let gguf = Gguf::open(path).and_then(checked).map_err(refuse)?;
        let mut stopped = false;
        let mut watched = |fraction| {
            let go_on = progress(fraction);
            stopped |= !go_on;
            go_on
        };
        let params = ModelParams { n_gpu_layers: options.n_gpu_layers, repack: options.repack, no_alloc: false };
        let model = match Model::load(path, params, &mut watched) {
            Err(_) if stopped => return Err(LoadError::Stopped(path.to_owned())),
            other => other?,
        };
        let embeddings = model.is_encoder_only() || embed::pools(&gguf);
        let context = Context::new(Arc::clone(&model), context_params(&options, embeddings))?;
        let chat = match Chat::new(&model, gguf.chat_template().map_err(refuse)?, chat) {
            Ok(chat) => chat,
            Err(error) if chat.template_override.is_some() => {
                return Err(LoadError::Chat { path: path.to_owned(), reason: error.to_string() });
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the model serves text prompts only");
                None
            }
        };
        let name_of = |name: fn(&Chat) -> &'static str| chat.as_ref().map_or("none", name).to_owned();
        let info = ModelInfo {
            name: gguf
                .str("general.name")
                .map_err(refuse)?
                .map(str::to_owned)
                .or_else(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
                .unwrap_or_default(),
            digest: digest.to_owned(),
            architecture: gguf.architecture().map_err(refuse)?.to_owned(),
            n_ctx: options.n_ctx.min(context.kv_cells()),
            n_seq_max: options.n_seq_max,
            n_vocab: u32::try_from(model.n_vocab()).unwrap_or(u32::MAX),
            n_embd: u32::try_from(model.n_embd()).unwrap_or(u32::MAX),
            has_chat_template: chat.is_some(),
            tool_format: name_of(|chat| chat.formats.calls.name),
            reasoning_format: name_of(|chat| chat.formats.reasoning.name),
        };
        let abort = context.abort_flag();
        let interruptible = !context.is_recurrent();
        let shared = Arc::new(Shared {
            memory: Mutex::new(context.measure()),
            stats: watch::Sender::new(EngineStats { kv_cells: context.kv_cells(), ..EngineStats::default() }),
            ..Shared::default()
        });
        let limits = Limits { n_ctx: info.n_ctx, pool: pool_sizes(&gguf, &context, &options).map_err(refuse)? };
        let cache = StateCache::new(cache, state_identity(digest, &options));
        let (questions, question_queue) = mpsc::channel(QUESTION_QUEUE);
        let (commands, command_queue) = mpsc::unbounded_channel();
        let front = Front::new(Arc::clone(&model), chat, info.n_ctx, commands.clone(), Arc::clone(&shared));
        let actor = Actor::new(model, context, options, limits, cache, command_queue, Arc::clone(&shared));
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let work = move || {
                // The threads of llama.cpp's pool take over the class of the thread that computes. Being refused costs
                // speed, not correctness.
                if let Err(error) = locara_platform::host().set_thread_qos(Qos::UserInitiated) {
                    tracing::debug!(%error, "the system does not take the class of an engine thread");
                }
                run();
            };
            std::thread::Builder::new().name(name.into()).spawn(work).map_err(LoadError::Thread)
        };
        let threads = vec![
            spawn("engine-front", Box::new(move || front.run(question_queue)))?,
            spawn("engine-actor", Box::new(move || actor.run()))?,
        ];
        Ok(Self {
            info,
            options,
            questions: Some(questions),
            commands,
            abort,
            interruptible,
            shared,
            next_request: AtomicU64::new(1),
            threads,
        })
    }

    /// How it was loaded.
    #[must_use]
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    fn command<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command) -> Reply<T> {
        let (reply, answer) = oneshot::channel();
        // A stopped actor drops the sender; the receiver then fails, which callers read as `Stopped`.
        let _ = self.commands.send(make(reply));
        answer
    }

    /// A command that does not wait for the end of the step that is computed: that is stopped and computed again afterwards.
    fn at_once<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command) -> Reply<T> {
        let answer = self.command(make);
        if self.interruptible {
            self.abort.store(true, Ordering::Relaxed);
        }
        answer
    }

    fn ask<T: Send + 'static>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Question,
        take_back: impl FnOnce(Question) -> Option<oneshot::Sender<Result<T, EngineError>>>,
    ) -> Reply<T> {
        let (reply, answer) = oneshot::channel();
        if let Some(questions) = &self.questions
            && let Err(error) = questions.try_send(make(reply))
            && let Some(reply) = take_back(error.into_inner())
        {
            let _ = reply.send(Err(self.busy()));
        }
        answer
    }

    fn busy(&self) -> EngineError {
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        let finished = self.shared.finished.load(Ordering::Relaxed).max(1);
        let mean_ms = self.shared.busy_ms.load(Ordering::Relaxed) / finished;
        let rounds = u64::from(waiting / self.options.n_seq_max.max(1) + 1);
        EngineError::Busy {
            waiting,
            n_seq_max: self.options.n_seq_max,
            retry_after_ms: u32::try_from(mean_ms.max(100) * rounds).unwrap_or(u32::MAX),
        }
    }
}

/// What llama.cpp would abort on, beyond what every GGUF must hold.
fn checked(gguf: Gguf) -> Result<Gguf, locara_gguf::GgufError> {
    gguf.check_model()?;
    Ok(gguf)
}

fn context_params(options: &LoadOptions, embeddings: bool) -> ContextParams {
    let mut n_batch = options.n_batch.max(options.n_seq_max);
    if embeddings {
        // llama.cpp computes whole sequences: tokens that it adds to make them equal it would pool without having them, and abort.
        n_batch = n_batch.checked_next_multiple_of(options.n_seq_max.max(1)).unwrap_or(n_batch);
    }
    ContextParams {
        kv_cells: options.kv_cells.max(options.n_ctx),
        n_batch,
        // An encoder sees a text as a whole: it must fit into one computation.
        n_ubatch: if embeddings { n_batch } else { options.n_ubatch },
        n_seq_max: options.n_seq_max,
        type_k: options.type_k,
        type_v: options.type_v,
        flash_attention: options.flash_attention,
        n_threads: options.n_threads,
        embeddings,
    }
}

/// Sizes that the pool may be given, in cells.
///
/// Texts to embed must fit into one batch, and llama.cpp makes no batch larger than the pool. Some models turn positions by
/// other factors in a context that is longer than the one they were first trained with (LongRoPE); their pool stays on the
/// side on which it was loaded, since cells of one side mean nothing on the other.
fn pool_sizes(
    gguf: &Gguf,
    context: &Context,
    options: &LoadOptions,
) -> Result<RangeInclusive<u32>, locara_gguf::GgufError> {
    let loaded = context.kv_cells();
    let low = if context.embeds() { options.n_batch.min(loaded) } else { 1 };
    if !gguf.tensors().iter().any(|tensor| tensor.name().contains("rope_factors_long")) {
        return Ok(low..=u32::MAX);
    }
    let switch = gguf.u32(&gguf.arch_key("rope.scaling.original_context_length")?)?;
    Ok(match switch {
        Some(switch) if loaded > switch => low.max(switch.saturating_add(1))..=u32::MAX,
        Some(switch) => low..=switch,
        None => loaded..=loaded,
    })
}

/// Everything that a saved state depends on besides its tokens: llama.cpp checks shapes and types, but not the weights.
fn state_identity(digest: &str, options: &LoadOptions) -> String {
    let attention = if options.flash_attention { "on" } else { "off" };
    let (k, v) = (options.type_k, options.type_v);
    format!("model {digest}, K {k}, V {v}, FlashAttention {attention}, {}", build_info())
}

impl Engine for LlamaEngine {
    fn model(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self) -> EngineMemory {
        *self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Reply<SessionId> {
        self.command(Command::Open)
    }

    fn fork(&self, session: SessionId) -> Reply<SessionId> {
        self.command(|reply| Command::Fork(session, reply))
    }

    fn close(&self, session: SessionId) {
        let _ = self.commands.send(Command::Close(session));
    }

    fn submit(&self, request: Request) -> Generation {
        let id = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        // One place is kept for `Done`, so the end of an answer is never stuck behind a full queue.
        let (events, receiver) = mpsc::channel(EVENT_QUEUE + 1);
        let armed = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt { armed: Arc::clone(&armed), abort: Arc::clone(&self.abort) };
        let generation = Generation::interrupting(id, receiver, interrupt);
        let refuse = |error| {
            let _ = events.try_send(Event::Done(Err(error)));
        };
        let waiting = self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let queued = if waiting >= self.options.queue_max {
            Err(self.busy())
        } else {
            let question = Question::Submit {
                id,
                request: Box::new(request),
                events: events.clone(),
                armed,
                submitted: Instant::now(),
            };
            match self.questions.as_ref().map(|questions| questions.try_send(question)) {
                Some(Ok(())) => Ok(()),
                Some(Err(mpsc::error::TrySendError::Full(_))) => Err(self.busy()),
                Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Err(EngineError::Stopped),
            }
        };
        if let Err(error) = queued {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            refuse(error);
        }
        generation
    }

    fn cancel(&self, request: RequestId) {
        let _ = self.commands.send(Command::Cancel(request));
        // The step that runs may be a long prefill of this request; if it is not, the step is simply done again.
        self.abort.store(true, Ordering::Relaxed);
    }

    fn tokenize(&self, prompt: Prompt) -> Reply<Vec<Token>> {
        self.ask(
            |reply| Question::Tokenize { prompt, reply },
            |question| if let Question::Tokenize { reply, .. } = question { Some(reply) } else { None },
        )
    }

    fn detokenize(&self, tokens: Vec<Token>) -> Reply<String> {
        self.ask(
            |reply| Question::Detokenize { tokens, reply },
            |question| if let Question::Detokenize { reply, .. } = question { Some(reply) } else { None },
        )
    }

    fn embed(&self, texts: Vec<String>) -> Reply<Vec<Vec<f32>>> {
        self.ask(
            |reply| Question::Embed { texts, reply },
            |question| if let Question::Embed { reply, .. } = question { Some(reply) } else { None },
        )
    }

    fn stats(&self) -> Reply<EngineStats> {
        self.command(Command::Stats)
    }

    fn watch(&self) -> watch::Receiver<EngineStats> {
        self.shared.stats.subscribe()
    }

    fn reclaim(&self, what: Reclaim) -> Reply<Reclaimed> {
        self.at_once(|reply| Command::Reclaim(what, Instant::now(), reply))
    }

    fn resume(&self) {
        let _ = self.commands.send(Command::Resume);
    }

    fn resize(&self, kv_cells: u32) -> Reply<EngineMemory> {
        self.at_once(|reply| Command::Resize(kv_cells, reply))
    }

    fn throttle(&self, throttle: Throttle) {
        let _ = self.commands.send(Command::Throttle(throttle));
    }
}

impl Drop for LlamaEngine {
    fn drop(&mut self) {
        self.questions = None;
        let _ = self.commands.send(Command::Stop);
        self.abort.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(model = %self.info.label(), "an engine thread had panicked");
            }
        }
        // Everything is freed now; what the heap would keep for the next time goes back to the system.
        locara_platform::host().release_heap();
    }
}
