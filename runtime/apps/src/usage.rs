//! What a run holds now, for whoever accounts for it: the memory of its guest and the KV of its conversations.
//!
//! Level-triggered: a reader sees the newest figures, not every step. This module must never decide anything.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a run holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of its linear memories and tables. A linear memory never shrinks before the run ends: what the guest frees
    /// inside it stays counted.
    pub guest_bytes: u64,
    /// Tokens that its sessions in engines hold in KV, as their last answers left them. A prefix that forks share is
    /// counted for each; an answer counts from its end on.
    pub kv_tokens: u64,
}

/// Where the parts of a run report. Clones report to the same figures; when the last one is gone, so is the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsageGauge(watch::Sender<Usage>);

impl UsageGauge {
    /// The figures now, and a wait for newer ones that fails when the run has given everything back.
    pub(crate) fn watch(&self) -> watch::Receiver<Usage> {
        self.0.subscribe()
    }

    /// The guest holds `bytes` now.
    pub(crate) fn guest(&self, bytes: u64) {
        self.0.send_if_modified(|usage| std::mem::replace(&mut usage.guest_bytes, bytes) != bytes);
    }

    /// A session that held `before` tokens holds `now`.
    pub(crate) fn session(&self, before: u64, now: u64) {
        self.0.send_if_modified(|usage| {
            usage.kv_tokens = usage.kv_tokens.saturating_sub(before).saturating_add(now);
            before != now
        });
    }
}
