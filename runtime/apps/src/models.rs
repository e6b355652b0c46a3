//! The way from a role to a running engine. The daemon implements it: registry, admission, single-flight loading.

use futures::future::BoxFuture;
use locara_engine::api::SharedEngine;

/// Resolves roles. Roles that reach it were asked for by the app's manifest and granted.
pub trait Models: Send + Sync + 'static {
    /// The engine behind a role for the app with this id, loaded first if need be. Callers that ask for the same role at
    /// the same time share one load. Dropping the future gives up waiting, not the load.
    fn engine(&self, app: &str, role: &str) -> BoxFuture<'static, Result<SharedEngine, ModelError>>;

    /// Tokens of context that the role has or will have, as planned; no load is caused. `None` when the role resolves
    /// to nothing.
    fn context_tokens(&self, role: &str) -> Option<u32>;
}

/// Why a role has no engine now. Shown to apps: no paths, no names of other apps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The role resolves to nothing, or to a model that does not load.
    #[error("{0}")]
    Unavailable(String),
    /// It does not fit into memory now.
    #[error("{reason} (needs {needed} bytes, {available} can be made free)")]
    OverBudget {
        /// Bytes that loading takes.
        needed: u64,
        /// Bytes that could be made free.
        available: u64,
        /// In words, with the way out.
        reason: String,
    },
    /// Another load is in the way.
    #[error("busy; try again in about {retry_after_ms} ms")]
    Busy {
        /// An estimate, ms.
        retry_after_ms: u32,
        /// Requests that wait.
        waiting: u32,
    },
}
