//! Hearing of memory pressure: a dispatch source of the kernel, and its level read once a second.
//!
//! Both are needed. The source tells processes one after another, 250 ms apart, and never one with a footprint below 10 MB,
//! which is what a host without a model is.

#![allow(unsafe_code, reason = "making a dispatch source has no safe wrapper; the one call says why it is sound")]

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use block2::RcBlock;
use dispatch2::{
    _dispatch_source_type_memorypressure, DispatchObject, DispatchQueue, DispatchRetained, DispatchSource,
    dispatch_source_memorypressure_flags_t as Flags,
};

use super::sysctl;
use crate::{KernelLevel, PlatformError, PressureEvent, PressureWatch};

/// How often the level is read.
const POLL: Duration = Duration::from_secs(1);

/// The watch.
#[derive(Debug)]
pub(super) struct Watch {
    source: DispatchRetained<DispatchSource>,
    /// The source has spoken.
    spoken: Receiver<()>,
    /// What was reported last.
    level: KernelLevel,
}

impl Watch {
    pub(super) fn start() -> Self {
        // One word is enough: the level is read again when it arrives.
        let (sender, spoken) = sync_channel(1);
        let handler = RcBlock::new(move || {
            // Full: the watch has not heard the last word yet, and will read the level when it does.
            let _ = sender.try_send(());
        });
        let queue = DispatchQueue::new("locara.memory-pressure", None);
        let levels = Flags::DISPATCH_MEMORYPRESSURE_NORMAL.0
            | Flags::DISPATCH_MEMORYPRESSURE_WARN.0
            | Flags::DISPATCH_MEMORYPRESSURE_CRITICAL.0;
        // SAFETY: the type is a constant of the system that nobody writes to; this one takes no handle and a mask of levels.
        // The handler may run on any thread (it owns a sender), and the source keeps a copy of it.
        let source = unsafe {
            let kind = (&raw const _dispatch_source_type_memorypressure).cast_mut();
            let source = DispatchSource::new(kind, 0, levels as usize, Some(&queue));
            source.set_event_handler_with_block(RcBlock::as_ptr(&handler));
            source
        };
        source.resume();
        Self { source, spoken, level: KernelLevel::Normal }
    }

    fn report(&mut self, level: Option<KernelLevel>) -> PressureEvent {
        self.level = level.unwrap_or(self.level);
        PressureEvent { level }
    }
}

impl PressureWatch for Watch {
    fn wait(&mut self, timeout: Duration) -> Result<Option<PressureEvent>, PlatformError> {
        // `None`: longer than clocks count.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // Also before the first wait: a host may start under pressure.
            let level = sysctl::pressure_level();
            if level.is_some_and(|level| level != self.level) {
                return Ok(Some(self.report(level)));
            }
            let left = deadline.map_or(POLL, |deadline| deadline.saturating_duration_since(Instant::now()));
            match self.spoken.recv_timeout(left.min(POLL)) {
                // The data of the event may be older than the level.
                Ok(()) => {
                    let level = sysctl::pressure_level();
                    return Ok(Some(self.report(level)));
                }
                Err(error) => {
                    // The source owns the sender and lives as long as this. Were it otherwise, the level is still read.
                    if error == RecvTimeoutError::Disconnected {
                        std::thread::sleep(left.min(POLL));
                    }
                    if deadline.is_some() && left <= POLL {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn describe(&self) -> String {
        "memory-pressure events of the kernel, and its level once a second".to_owned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.source.cancel();
    }
}
