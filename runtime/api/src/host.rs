//! What the HTTP layer asks of the host that it stands in front of.
//!
//! The daemon implements [`Host`]; tests implement it around one engine. This module must never decide anything about
//! memory: it carries the host's answers, refusals included, to the dialects.

use std::fmt;

use futures::{future::BoxFuture, stream::BoxStream};
use locara_engine::{Class, SharedEngine};
use serde_json::Value;

/// The host behind the routes. Calls may wait, for a load for example; dropping the future gives the wish up.
pub trait Host: Send + Sync + 'static {
    /// Every model that a request may name, disabled ones included. Cheap: it is asked with every `GET /v1/models`.
    fn models(&self) -> BoxFuture<'_, Vec<ModelEntry>>;

    /// The engine that serves a model or role, loaded if it is not.
    ///
    /// # Errors
    /// [`Refusal`], with the numbers where memory is the reason.
    fn engine(&self, ask: Ask) -> BoxFuture<'_, Result<Served, Refusal>>;

    /// What is loaded now. Loads nothing, waits for nothing.
    fn loaded(&self) -> Vec<Served>;

    /// Takes a model or role out of memory. What runs on it ends first, or is stopped, as the host decides.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], or why it stays.
    fn unload(&self, model: String) -> BoxFuture<'_, Result<(), Refusal>>;

    /// The account of memory as the host's policy keeps it, for `/admin/memory`.
    fn memory(&self) -> BoxFuture<'_, Value>;

    /// What happens in the host from now on, for `/admin/events`. Bounded: a reader that is too slow misses events.
    fn events(&self) -> BoxStream<'static, Value>;

    /// What must hold before requests make sense, for `/ready`.
    fn checks(&self) -> BoxFuture<'_, Vec<Check>>;

    /// Fetches a model by name. The stream ends with the pull; dropping it stops the pull.
    fn pull(&self, name: String) -> BoxStream<'static, Result<PullProgress, Refusal>> {
        let refusal = Refusal::Unsupported(format!("this host does not fetch models, and was asked for {name:?}"));
        Box::pin(futures::stream::once(async { Err(refusal) }))
    }

    /// Removes a model from disk.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Busy`] while it is in use, or why it stays.
    fn delete(&self, name: String) -> BoxFuture<'_, Result<(), Refusal>> {
        unsupported(format!("this host does not remove models, and was asked to remove {name:?}"))
    }

    /// Gives a model a second name.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] for the source, [`Refusal::Invalid`] for a name that cannot be.
    fn copy(&self, source: String, destination: String) -> BoxFuture<'_, Result<(), Refusal>> {
        unsupported(format!("this host does not copy models, and was asked to copy {source:?} to {destination:?}"))
    }

    /// Makes a model out of another one.
    ///
    /// # Errors
    /// [`Refusal`].
    fn create(&self, name: String, _from: Option<String>) -> BoxFuture<'_, Result<(), Refusal>> {
        unsupported(format!("this host does not create models, and was asked for {name:?}"))
    }
}

fn unsupported(reason: String) -> BoxFuture<'static, Result<(), Refusal>> {
    Box::pin(async { Err(Refusal::Unsupported(reason)) })
}

/// Who asks: the name of a key, what the client calls itself, or what can be told of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub String);

impl ClientId {
    /// A number for the client, the same in every process.
    #[must_use]
    pub fn number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = crate::config::digest(&self.0);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A wish for an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// A model or a role, as the client wrote it.
    pub model: String,
    /// Who asks, for fairness between clients.
    pub client: ClientId,
    /// How urgent it is.
    pub class: Class,
}

/// An engine, and the name of the model that it serves.
#[derive(Clone)]
pub struct Served {
    /// The physical model: every answer names it.
    pub model: String,
    /// What answers.
    pub engine: SharedEngine,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("model", &self.model).finish_non_exhaustive()
    }
}

/// A model that a request may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// The physical name.
    pub name: String,
    /// SHA-256 of the file, lower-case hex.
    pub digest: String,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// When the file came, in seconds since 1970.
    pub created: i64,
    /// `general.architecture`, e.g. `llama`.
    pub architecture: String,
    /// Parameters, where the file says.
    pub parameters: Option<u64>,
    /// The type of most weights, e.g. `Q4_K_M`, where the file says.
    pub quantization: Option<String>,
    /// Tokens that prompt and answer may take together.
    pub n_ctx: u32,
    /// Width of an embedding, f32 values.
    pub n_embd: u32,
    /// Roles that resolve to this model.
    pub roles: Vec<String>,
    /// Whether it is there, loaded, or switched off.
    pub state: ModelState,
    /// What it can do.
    pub capabilities: Vec<Capability>,
}

/// Where a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// On disk.
    Ready,
    /// On the way into memory.
    Loading,
    /// In memory.
    Loaded,
    /// Switched off by the owner: requests for it are answered with 404.
    Disabled,
}

impl ModelState {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Disabled => "disabled",
        }
    }
}

/// What a model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Continues text.
    Completion,
    /// Brings a chat template.
    Chat,
    /// Its template takes tools.
    Tools,
    /// Marks its reasoning.
    Thinking,
    /// Turns text into vectors.
    Embedding,
}

impl Capability {
    /// The word in JSON; Ollama's where it has one.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Chat => "chat",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Embedding => "embedding",
        }
    }
}

/// One condition of `/ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A stable name, e.g. `model-store`.
    pub name: String,
    /// Why it fails, with the next step; `None` when it holds.
    pub failure: Option<String>,
}

/// How far a pull has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// What is being done, e.g. `pulling` or `verifying`.
    pub status: String,
    /// The file that it is about.
    pub digest: Option<String>,
    /// Bytes in all, once known.
    pub total: Option<u64>,
    /// Bytes there.
    pub completed: Option<u64>,
}

/// Why the host does not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No model or role has this name.
    #[error("no model or role is named {0:?}")]
    Unknown(String),
    /// The owner switched it off.
    #[error("the model {0:?} is switched off by the owner of this machine")]
    Disabled(String),
    /// It would not fit into memory, whatever else is given back.
    #[error("{model} needs {needed_bytes} bytes and {available_bytes} are to be had; {way_out}")]
    DoesNotFit {
        /// The model.
        model: String,
        /// What it takes, bytes.
        needed_bytes: u64,
        /// What could be had at most, bytes.
        available_bytes: u64,
        /// The next step.
        way_out: String,
    },
    /// This client has enough running or waiting, or the queue is full.
    #[error("{reason}; try again in {retry_after_s} s")]
    Busy {
        /// What is full, with the numbers.
        reason: String,
        /// When to try again, seconds.
        retry_after_s: u32,
    },
    /// Nothing is taken on for now, whoever asks: memory is short, or the host is going down.
    #[error("{reason}; try again in {retry_after_s} s")]
    Unavailable {
        /// What stands in the way, with the numbers.
        reason: String,
        /// When to try again, seconds.
        retry_after_s: u32,
    },
    /// The file is there and does not load.
    #[error("{model} does not load: {reason}")]
    LoadFailed {
        /// The model.
        model: String,
        /// What the engine or the file said.
        reason: String,
    },
    /// The request is wrong whatever the state of the host.
    #[error("{0}")]
    Invalid(String),
    /// This host does not offer it.
    #[error("{0}")]
    Unsupported(String),
    /// Something broke.
    #[error("{0}")]
    Failed(String),
}
