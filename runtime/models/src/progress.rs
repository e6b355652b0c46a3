//! How far something long has come.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for another process that downloads the same.
    Waiting,
    /// Bytes come from the hub.
    Downloading,
    /// Bytes on the disk are hashed.
    Verifying,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes that are through, with what was there before.
    pub done: u64,
    /// Bytes of all files together.
    pub total: u64,
    /// Bytes in a second over the last few seconds; 0 until that is known.
    pub bytes_per_second: u64,
}

/// What is called about ten times a second, at every new stage and at the end. It must not block.
pub type OnProgress<'a> = dyn Fn(Progress) + Send + Sync + 'a;

/// Time between two calls.
const BETWEEN: Duration = Duration::from_millis(100);
/// Time over which the rate is taken.
const WINDOW: Duration = Duration::from_secs(4);

/// Counts bytes from several files and tells how far they have come.
pub(crate) struct Meter<'a> {
    on_progress: &'a OnProgress<'a>,
    total: u64,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    done: u64,
    told: Instant,
    /// Where the window of the rate began, and the bytes that had come over the wire by then.
    window: (Instant, u64),
    /// Bytes that came, without those that were there before.
    came: u64,
    rate: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(total: u64, stage: Stage, on_progress: &'a OnProgress<'a>) -> Self {
        let now = Instant::now();
        let state = State { stage, done: 0, told: now, window: (now, 0), came: 0, rate: 0 };
        Self { on_progress, total, state: Mutex::new(state) }
    }

    /// `bytes` more are through.
    pub(crate) fn advance(&self, bytes: u64) {
        self.change(false, |state| {
            state.done = state.done.saturating_add(bytes);
            state.came = state.came.saturating_add(bytes);
            let now = Instant::now();
            let elapsed = now.duration_since(state.window.0);
            if elapsed >= WINDOW || (state.rate == 0 && elapsed >= WINDOW / 8) {
                state.rate = ((state.came - state.window.1) as f64 / elapsed.as_secs_f64()) as u64;
                state.window = (now, state.came);
            }
        });
    }

    /// `bytes` were there before.
    pub(crate) fn found(&self, bytes: u64) {
        self.change(true, |state| state.done = state.done.saturating_add(bytes));
    }

    /// `bytes` that were counted are to be fetched again.
    pub(crate) fn lost(&self, bytes: u64) {
        self.change(true, |state| state.done = state.done.saturating_sub(bytes));
    }

    pub(crate) fn stage(&self, stage: Stage) {
        self.change(true, |state| state.stage = stage);
    }

    pub(crate) fn finish(&self) {
        self.change(true, |_| {});
    }

    fn change(&self, tell: bool, change: impl FnOnce(&mut State)) {
        let progress = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner); // counters are right after any panic
            change(&mut state);
            let now = Instant::now();
            if !tell && now.duration_since(state.told) < BETWEEN {
                return;
            }
            state.told = now;
            let done = state.done.min(self.total);
            Progress { stage: state.stage, done, total: self.total, bytes_per_second: state.rate }
        };
        (self.on_progress)(progress);
    }
}
