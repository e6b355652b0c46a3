//! Steering a run from outside: stop it, suspend it, take back what can be made again, see what it holds.
//!
//! Nothing here waits for the guest, so nothing here can be held up by it. The wishes are a level, not a queue: the run
//! sees the newest.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::capability::inference::Conversations;
use crate::ticker::Ticking;
use crate::usage::Usage;

/// What is wished of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    stop: Option<String>,
    suspended: bool,
}

/// Steers a run from anywhere. Cheap to clone; after the end of the run it does nothing.
#[derive(Debug, Clone)]
pub struct RunControl {
    wish: watch::Sender<Wish>,
    conversations: Weak<Conversations>,
    usage: watch::Receiver<Usage>,
}

impl RunControl {
    /// A control, and what the run listens to.
    pub(crate) fn new(conversations: &Arc<Conversations>) -> (Self, watch::Receiver<Wish>) {
        let (wish, listen) = watch::channel(Wish::default());
        let usage = conversations.usage().watch();
        (Self { wish, conversations: Arc::downgrade(conversations), usage }, listen)
    }

    /// Stops the run at once, a suspended one too; `reason` is in its [`crate::RunError::Cancelled`].
    pub fn cancel(&self, reason: impl Into<String>) {
        self.wish.send_modify(|wish| wish.stop = Some(reason.into()));
    }

    /// The guest computes nothing until [`Self::resume`]: a step that is being computed ends within a tick (5 ms). It
    /// keeps its memory and its answers, which wait in their bounded queues; its wall-clock limit goes on.
    pub fn suspend(&self) {
        self.wish.send_modify(|wish| wish.suspended = true);
    }

    /// The guest goes on where it was.
    pub fn resume(&self) {
        self.wish.send_modify(|wish| wish.suspended = false);
    }

    /// Closes the engine's session of every conversation that is not answering, and frees its KV cells. Histories stay:
    /// the next request computes them again. Returns how many sessions were given up.
    pub fn drop_caches(&self) -> u32 {
        self.conversations.upgrade().map_or(0, |conversations| conversations.drop_caches())
    }

    /// What the run holds now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        *self.usage.borrow()
    }

    /// What the run holds, and a wait for changes; that fails when the run has ended and given everything back.
    #[must_use]
    pub fn usage_changes(&self) -> watch::Receiver<Usage> {
        self.usage.clone()
    }
}

/// How long a run was suspended.
#[derive(Debug, Default)]
pub(crate) struct Suspension {
    total: Duration,
    since: Option<Instant>,
}

impl Suspension {
    fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    fn end(&mut self) {
        self.total = self.total();
        self.since = None;
    }

    /// All of it, one that has not ended included.
    pub(crate) fn total(&self) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Polls `guest` to its end, but not while it is suspended; `Err` is the reason of whoever cancelled. Busy guests are
/// interrupted by `ticking`, which a suspended one does not need.
pub(crate) async fn steer<F: Future>(
    mut guest: Pin<&mut F>,
    mut wish: watch::Receiver<Wish>,
    suspension: &mut Suspension,
    ticking: impl Fn() -> Ticking,
) -> Result<F::Output, String> {
    let mut interrupted = Some(ticking());
    loop {
        let suspended = interrupted.is_none();
        let changed = wished(&mut wish, |wish| wish.stop.is_some() || wish.suspended != suspended);
        let wish = tokio::select! {
            // Wishes first: a guest that is always ready must not outrun them.
            biased;
            wish = changed => wish,
            ended = &mut guest, if !suspended => return Ok(ended),
        };
        if let Some(reason) = wish.stop {
            return Err(reason);
        }
        if wish.suspended {
            interrupted = None;
            suspension.begin();
        } else {
            interrupted = Some(ticking());
            suspension.end();
        }
    }
}

/// Resolves with the first wish that fits; never when all controls are gone: nobody can wish any more.
async fn wished(wish: &mut watch::Receiver<Wish>, fits: impl FnMut(&Wish) -> bool) -> Wish {
    if let Ok(wish) = wish.wait_for(fits).await {
        return wish.clone();
    }
    std::future::pending().await
}
