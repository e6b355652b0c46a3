//! What the governor asks for, and why. Every refusal and every decision carries its numbers and its reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::{StepId, TicketId};
use crate::{
    bytes::Bytes,
    ledger::{AppId, ModelDigest},
};

/// How tight memory is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing to do.
    #[default]
    Normal,
    /// Nothing more is taken without need; what costs nothing is given back.
    Elevated,
    /// Something has to be given back.
    Tight,
    /// The system is about to swap or to kill.
    Critical,
}

impl Level {
    /// One step up.
    #[must_use]
    pub const fn raised(self) -> Self {
        match self {
            Self::Normal => Self::Elevated,
            Self::Elevated => Self::Tight,
            Self::Tight | Self::Critical => Self::Critical,
        }
    }
    /// One step down.
    #[must_use]
    pub const fn lowered(self) -> Self {
        match self {
            Self::Normal | Self::Elevated => Self::Normal,
            Self::Tight => Self::Elevated,
            Self::Critical => Self::Tight,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::Tight => "tight",
            Self::Critical => "critical",
        })
    }
}

/// One rung of the ladder, for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Saved states in memory.
    PromptCache,
    /// KV of sessions that nobody is answering; the pool shrinks to what runs.
    IdleSessions,
    /// Clean pages of the weights; the context stays and the next token works.
    Weights,
    /// KV of background requests, at a token boundary; they go on later.
    Background,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PromptCache => "prompt cache",
            Self::IdleSessions => "KV of idle sessions",
            Self::Weights => "pages of the weights",
            Self::Background => "KV of background requests",
        })
    }
}

/// Who may begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// Everybody.
    #[default]
    All,
    /// Requests that somebody waits for; the others wait.
    Interactive,
    /// Nobody; what runs ends.
    Nobody {
        /// When to try again, ms; an estimate.
        retry_after_ms: u32,
    },
}

/// How much of its speed a model may use. Absent: as it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// Tokens in one step of prefill.
    pub n_batch: Option<u32>,
    /// Longest answer of requests that wait, tokens.
    pub max_tokens: Option<u32>,
    /// Sequences at once. Zero: nothing computes, what is in flight keeps its cells and goes on later, between two tokens.
    /// Requests that come meanwhile wait.
    pub n_seq: Option<u32>,
    /// Threads fewer than it was loaded with.
    pub fewer_threads: u32,
    /// Who may begin.
    pub gate: Gate,
}

/// What the host does at the deadline to an app that did not release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consequence {
    /// Nothing.
    Nothing,
    /// Forgets its idle conversations; they are computed again.
    DropCaches,
    /// The app computes nothing until memory is free again.
    Suspend,
    /// Stops it.
    Stop,
}

/// A new epoch of an app's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tightening {
    /// Counts up; a newer one voids the older ones.
    pub epoch: u32,
    /// When it began, ms.
    pub origin_ms: u64,
    /// How tight memory is.
    pub level: Level,
    /// Why, in words that say nothing about other apps.
    pub cause: String,
    /// What the app may hold from now on.
    pub limit: Bytes,
    /// What it is counted to hold by its own doing: guest memory and KV of its conversations.
    pub usage: Bytes,
    /// What it is asked to release; nothing: only the limit changed.
    pub release: Bytes,
    /// Time for it, ms.
    pub deadline_ms: u32,
    /// Whether a person looks at it.
    pub visible: bool,
    /// What happens then.
    pub on_deadline: Consequence,
}

/// A way out of a refusal that holds when it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "recovery")]
pub enum Recovery {
    /// Ask again then.
    Retry {
        /// ms.
        after_ms: u32,
    },
    /// When so much more is available, the same request is admitted.
    Free {
        /// How much.
        bytes: Bytes,
    },
    /// It never fits here: something smaller does.
    Smaller {
        /// The most that fits.
        at_most: Bytes,
    },
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { after_ms } => write!(f, "try again in about {} s", after_ms.div_ceil(1000)),
            Self::Free { bytes } => {
                write!(f, "close programs until {bytes} more are available, or take a smaller model")
            }
            Self::Smaller { at_most } => write!(f, "take a model or a context that needs at most {at_most}"),
        }
    }
}

/// Why something is refused. Nothing has changed after a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was asked for.
    pub what: String,
    /// How much it needs.
    pub needs: Bytes,
    /// How much can be had.
    pub room: Bytes,
    /// What bounds it.
    pub bound: String,
    /// Who holds most, where that matters.
    pub biggest: Option<(String, Bytes)>,
    /// The way out.
    pub recovery: Recovery,
}

impl Refusal {
    /// What is missing.
    #[must_use]
    pub const fn short_by(&self) -> Bytes {
        self.needs.saturating_sub(self.room)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, needs, room, bound, biggest, recovery } = self;
        write!(f, "{what} needs {needs}, {room} can be had ({bound})")?;
        if let Some((holder, bytes)) = biggest {
            write!(f, "; biggest holder: {holder} with {bytes}")?;
        }
        write!(f, "; {recovery}")
    }
}

/// A named rule of the playbook that came true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The process holds more than 82 % of memory for ten minutes.
    RssHigh,
    /// Swap grew by more than 768 MiB and stayed so for 90 seconds.
    SwapGrowth,
    /// The slowest first tokens take more than 2.8 times the usual ones.
    TtftSpread,
    /// The system killed the host twice in a week.
    Kills,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RssHigh => "rss_high",
            Self::SwapGrowth => "swap_growth",
            Self::TtftSpread => "ttft_spread",
            Self::Kills => "kills",
        })
    }
}

/// Everything the governor asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// The bytes are reserved: go on.
    Admit {
        /// Who had asked.
        ticket: TicketId,
    },
    /// The same model is being loaded for somebody else already, or is there: share it.
    Join {
        /// Who had asked.
        ticket: TicketId,
    },
    /// Not yet; an `Admit` or a `Refuse` follows.
    Wait {
        /// Who had asked.
        ticket: TicketId,
        /// About how long, ms.
        estimate_ms: u32,
        /// Why.
        why: String,
    },
    /// No.
    Refuse {
        /// Who had asked.
        ticket: TicketId,
        /// Why, and what would help.
        refusal: Refusal,
    },
    /// Give back one rung of one model; answered by `Done` or `Failed`.
    Reclaim {
        /// Names it in the answer.
        step: StepId,
        /// The model.
        model: ModelDigest,
        /// What.
        rung: Rung,
        /// Whether states may be written to disk, or are forgotten.
        spill: bool,
        /// What it should free.
        expected: Bytes,
    },
    /// Unload a model once nothing runs on it; nothing new begins. Answered by `Done` when the footprint fell, or when the
    /// model was gone already; a `Keep` or a `Hurry` may come before.
    Unload {
        /// Names it in the answer.
        step: StepId,
        /// The model.
        model: ModelDigest,
        /// What it should free.
        expected: Bytes,
    },
    /// An unload is no longer wanted. If it has not begun to free, the model takes requests again; answered by `Kept`. If it
    /// has, `Done` follows as if nothing had been said.
    Keep {
        /// Of the unload.
        step: StepId,
        /// The model.
        model: ModelDigest,
    },
    /// An unload has waited for answers long enough: end them, tell whoever reads them, and unload.
    Hurry {
        /// Of the unload.
        step: StepId,
        /// The model.
        model: ModelDigest,
        /// What to tell.
        reason: String,
    },
    /// How much of its speed the model may use from now on.
    Throttle {
        /// The model.
        model: ModelDigest,
        /// How much.
        throttle: Throttle,
    },
    /// A new epoch of an app's lease.
    Tighten {
        /// The app.
        app: AppId,
        /// The epoch.
        tightening: Tightening,
    },
    /// The deadline of an epoch has passed.
    Enforce {
        /// The app.
        app: AppId,
        /// What to do to it.
        consequence: Consequence,
        /// What to tell it.
        reason: String,
    },
    /// The app may compute again.
    Resume {
        /// The app.
        app: AppId,
    },
    /// Tell the person at the machine.
    Tell {
        /// What, in one sentence with the numbers.
        message: String,
    },
    /// A rule of the playbook came true.
    Advise {
        /// Which.
        rule: Rule,
        /// The numbers and what to do about it.
        advice: String,
    },
}

/// One line of the log that explains what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When, ms.
    pub at_ms: u64,
    /// How tight memory was.
    pub level: Level,
    /// What was decided.
    pub what: String,
    /// Why, with the numbers.
    pub why: String,
}
