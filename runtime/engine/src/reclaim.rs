//! The messages of memory pressure: what an engine gives back, and what it takes on until the pressure has gone.
//!
//! Plain data, like everything in [`crate::api`]. This module must never decide anything: which action comes when is the
//! host's policy.

use serde::{Deserialize, Serialize};

/// How urgent a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody waits: admitted after interactive requests (but not for ever), and may be parked in the middle of its answer.
    Background,
}

/// What an engine is asked to give back. Each action is measured after it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reclaim {
    /// The saved states in memory.
    PromptCache {
        /// To disk where there is room for them; otherwise they are forgotten, and nothing is written.
        spill: bool,
    },
    /// The cells of sessions that nobody asks anything, and every cell that running requests do not need. Running
    /// requests go on with the same tokens.
    IdleSessions {
        /// Their states go to disk where there is room for them; otherwise they are forgotten, and nothing is written.
        spill: bool,
    },
    /// The cells of running background requests: each is parked between two tokens, keeps its sampler and its reader, and
    /// goes on with the same tokens after [`Engine::resume`](crate::Engine::resume).
    Background {
        /// Their states go to disk first. Otherwise they stay in the prompt cache within its bound, and nothing is
        /// written. A state that finds no room is computed again.
        spill: bool,
    },
    /// The pages of the mapped weights. The next token reads them back from the file.
    Weights,
}

/// What a [`Reclaim`] brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Reclaimed {
    /// What the engine expected before it began, bytes.
    pub expected_bytes: u64,
    /// What it gave back by its own account: cells, saved states, pages of the file. Compute buffers that become smaller
    /// with the pool come on top and show in [`Engine::memory`](crate::Engine::memory). Bytes.
    pub freed_bytes: u64,
    /// Resident bytes of the process before.
    pub rss_before: u64,
    /// Resident bytes of the process after.
    pub rss_after: u64,
    /// Sessions whose states or cells were given back.
    pub sessions: u32,
    /// From the message to the end of the action, ms.
    pub took_ms: f64,
}

/// What an engine takes on. Replaces the last one as a whole; the default takes everything. What runs is not touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// Tokens in one step, at most what the engine was loaded with and at least one for each sequence.
    pub n_batch: Option<u32>,
    /// Bound of the answers of requests that are not admitted yet, tokens. They end with
    /// [`StopReason::MaxTokens`](crate::StopReason::MaxTokens).
    pub max_tokens: Option<u32>,
    /// Requests that run at once, at most what the engine was loaded with. 0 pauses: nothing is computed, what runs keeps
    /// its cells and goes on later with the same tokens.
    pub n_seq: Option<u32>,
    /// Threads that compute, at most what the engine was loaded with and at least one.
    pub n_threads: Option<u32>,
    /// Which requests are taken on.
    pub admit: Admit,
}

/// Which requests an engine takes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admit {
    /// All.
    #[default]
    All,
    /// Interactive ones; background requests wait.
    Interactive,
    /// None: what is not admitted is refused with [`EngineError::Throttled`](crate::EngineError::Throttled).
    Nothing {
        /// When to try again, ms.
        retry_after_ms: u32,
    },
}
