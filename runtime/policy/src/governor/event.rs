//! What the governor is told. Plain data: a recorded sequence of these replays to the same actions, byte for byte.
//!
//! All times are milliseconds of one monotonic clock of the host; rates are integers, so that a replay on another machine
//! computes the same.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Bytes,
    ledger::{AppId, Kind, ModelDigest},
};

/// Names one thing that waits for an answer: a load, a growth, the start of an app. Given by the caller, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TicketId(pub u64);

/// Names one thing that the governor asked for and waits to hear the end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u64);

/// What the kernel itself says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelLevel {
    /// Nothing to say.
    Normal,
    /// Linux: tasks waited for memory longer than the trigger was set to. Says that it is short, not how short.
    Stalled,
    /// macOS: the compressor holds more than all that is not wired.
    Warning,
    /// macOS: the kernel is about to swap or to kill.
    Critical,
}

/// How hot the machine is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thermal {
    /// Cool.
    #[default]
    Nominal,
    /// Fans may be heard.
    Fair,
    /// The system slows down.
    Serious,
    /// The system slows down a lot.
    Critical,
}

/// Share of wall time in which tasks waited for memory over the last ten seconds, in hundredths of a percent (Linux PSI).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// At least one task waited.
    pub some: u32,
    /// All tasks waited.
    pub full: u32,
}

/// One reading of everything that moves. A sensor that is not there is `None`, never a guess.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What can be taken before the system begins to swap or to warn: `MemAvailable` and what the control group leaves, or
    /// on a Mac what is not wired less what the compressor occupies. Clean pages of mapped weights are part of it.
    pub available: Bytes,
    /// Swap space in all; nothing means that growth ends in a kill.
    pub swap_total: Bytes,
    /// Swap space in use.
    pub swap_used: Bytes,
    /// Written to swap since boot, by anybody.
    pub swapped_out: Bytes,
    /// Resident pages of files in this process: weights and code.
    pub own_file: Bytes,
    /// Resident anonymous pages of this process.
    pub own_anonymous: Bytes,
    /// Anonymous pages of this process that were swapped out or compressed.
    pub own_swapped: Bytes,
    /// What the kernel says, where it can be polled.
    pub kernel: Option<KernelLevel>,
    /// How long tasks waited for memory.
    pub stall: Option<Stall>,
    /// How hot it is.
    pub thermal: Option<Thermal>,
    /// On battery.
    pub on_battery: bool,
    /// The owner asked the machine to save energy.
    pub saver: bool,
    /// Free bytes of the volume that sessions are spilled to.
    pub disk_free: Option<Bytes>,
}

/// Whether somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A person waits: served first, tightened last.
    Interactive,
    /// Nobody waits.
    Background,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelUse {
    /// It holds conversations.
    Chat,
    /// An embedder, a draft, a reranker: given back first.
    Secondary,
}

/// What a model needs to be resident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Bytes by kind that stay.
    pub parts: Vec<(Kind, Bytes)>,
    /// Bytes on top of it while it loads.
    pub transient: Bytes,
    /// How much of it counts against the working set of a GPU.
    pub gpu: Bytes,
}

impl Need {
    /// Everything that stays.
    #[must_use]
    pub fn total(&self) -> Bytes {
        self.parts.iter().map(|(_, bytes)| *bytes).sum()
    }
    /// The most that is held at any moment.
    #[must_use]
    pub fn peak(&self) -> Bytes {
        self.total().saturating_add(self.transient)
    }
}

/// A model that somebody wants loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// Who asks.
    pub ticket: TicketId,
    /// The model.
    pub model: ModelDigest,
    /// How people call it.
    pub name: String,
    /// What it is for.
    pub used_as: ModelUse,
    /// What it needs; corrected by what was learned, where there is something.
    pub need: Need,
    /// Time of a load from a cold disk, ms; an estimate.
    pub reload_ms: u32,
    /// The app asks to keep it loaded.
    pub keep_loaded: bool,
    /// For which app.
    pub app: Option<AppId>,
    /// Whether somebody waits.
    pub class: Class,
}

/// What a resident model does now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Interactive requests that run, also while the model is held back.
    pub interactive: u32,
    /// Background requests that run, also while the model is held back.
    pub background: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// KV bytes that would be free if idle sessions gave up theirs and the pool shrank.
    pub idle_kv: Bytes,
    /// KV bytes of background requests.
    pub background_kv: Bytes,
    /// Saved states in memory.
    pub prompt_cache: Bytes,
}

impl Activity {
    /// Whether a request runs.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        self.interactive > 0 || self.background > 0
    }
}

/// An app that starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStart {
    /// Who asks.
    pub ticket: TicketId,
    /// The app.
    pub app: AppId,
    /// Guaranteed to it, short of `critical`.
    pub floor: Bytes,
    /// The most it declared (`requires.memoryGB`).
    pub ceiling: Bytes,
    /// Whether somebody waits for it.
    pub class: Class,
    /// Whether a person looks at it.
    pub visible: bool,
}

/// What an app says to an epoch of its lease. Advice: nothing waits for it beyond the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Will release so much.
    Pledge {
        /// How much.
        release: Bytes,
        /// In how many milliseconds.
        eta_ms: u32,
    },
    /// Has released so much.
    Done(Bytes),
    /// Needs so many milliseconds more.
    Defer(u32),
}

/// Everything the governor is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// Sensors were read. Sent every second or two; it is also the governor's clock tick.
    Sample(Sample),
    /// The kernel spoke up by itself.
    Kernel {
        /// What it said.
        level: KernelLevel,
    },
    /// A model is wanted.
    Load(LoadRequest),
    /// Nobody waits for this ticket any more.
    Cancel {
        /// The ticket.
        ticket: TicketId,
    },
    /// An admitted load is done.
    Loaded {
        /// The model.
        model: ModelDigest,
        /// What it really holds, by kind.
        holds: Vec<(Kind, Bytes)>,
        /// How long it took, ms.
        took_ms: u32,
    },
    /// An admitted load failed; nothing stays allocated.
    LoadFailed {
        /// The model.
        model: ModelDigest,
    },
    /// A resident model is used differently than before.
    Active {
        /// The model.
        model: ModelDigest,
        /// What it does now.
        activity: Activity,
    },
    /// A resident model needs more KV, because its pool had been shrunk.
    Grow {
        /// Who asks.
        ticket: TicketId,
        /// The model.
        model: ModelDigest,
        /// KV bytes that it wants in all.
        kv: Bytes,
    },
    /// Something that the governor asked for is done.
    Done {
        /// Which.
        step: StepId,
        /// What was measured to be free afterwards.
        freed: Bytes,
        /// Everything that the model holds now, by kind; `None` after an unload, or when it is not known.
        holds: Option<Vec<(Kind, Bytes)>>,
    },
    /// An unload was withdrawn before it freed anything: the model is there and takes requests as before.
    Kept {
        /// Which.
        step: StepId,
    },
    /// Something that the governor asked for could not be done.
    Failed {
        /// Which.
        step: StepId,
        /// Why.
        reason: String,
    },
    /// A model is gone without having been asked to go.
    Lost {
        /// The model.
        model: ModelDigest,
    },
    /// A model is gone because the owner of the machine said so: it may come back whenever somebody asks.
    Released {
        /// The model.
        model: ModelDigest,
    },
    /// An app wants to start.
    AppStart(AppStart),
    /// A run of an app has ended; its memory is gone.
    AppStop {
        /// The app.
        app: AppId,
    },
    /// A person looks at the app, or no longer.
    Visible {
        /// The app.
        app: AppId,
        /// Looks.
        visible: bool,
    },
    /// The guest memory of an app changes to `bytes` in all. Growth is answered by `Admit` or `Refuse`.
    Guest {
        /// Who asks.
        ticket: TicketId,
        /// The app.
        app: AppId,
        /// Linear memories, tables and stacks of its runs.
        bytes: Bytes,
    },
    /// The conversations of an app hold so much KV. Part of its usage; the cells themselves belong to the model.
    Sessions {
        /// The app.
        app: AppId,
        /// KV bytes of its sessions.
        kv: Bytes,
    },
    /// An app says what it could release.
    Pools {
        /// The app.
        app: AppId,
        /// The sum over its pools.
        reclaimable: Bytes,
    },
    /// An app answers an epoch.
    Answer {
        /// The app.
        app: AppId,
        /// The epoch.
        epoch: u32,
        /// What it says.
        answer: Answer,
    },
    /// An answer was given to an app.
    Used {
        /// The app.
        app: AppId,
        /// The model.
        model: ModelDigest,
        /// Milliseconds of the device.
        device_ms: u32,
        /// KV held while it ran, in megabyte-seconds.
        kv_mb_s: u32,
        /// Time to the first token, ms.
        ttft_ms: u32,
    },
    /// The system killed a process of the host, or the host found that it was killed.
    Killed {
        /// Seconds since 1970: kills are counted over a week, across restarts.
        unix_s: u64,
    },
}
