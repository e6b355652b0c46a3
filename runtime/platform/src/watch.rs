//! Hearing from the kernel that memory is short.
//!
//! A watch says that something happened, never how bad it is for the host: that is decided elsewhere, from a fresh
//! [`Sample`](crate::Sample). It is not enough by itself either: without swap Linux kills before it notifies, and macOS never
//! notifies a process with a footprint below 10 MB.

use std::{fmt::Debug, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{KernelLevel, PlatformError};

/// The kernel says that memory is short, or on macOS that it no longer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureEvent {
    /// The kernel's own word, where it has one. macOS: read after the event came. Linux: `None`.
    pub level: Option<KernelLevel>,
}

/// Waits for events of the kernel, on a thread of its own.
pub trait PressureWatch: Send + Debug {
    /// Blocks until the kernel says something; `None` after `timeout`. A source that went away is replaced by the next best
    /// one, and without any this only times out.
    ///
    /// # Errors
    /// [`PlatformError::Call`] when waiting itself fails.
    fn wait(&mut self, timeout: Duration) -> Result<Option<PressureEvent>, PlatformError>;

    /// What is listened to, and why not to something better. For the log and `doctor`.
    fn describe(&self) -> String;
}
