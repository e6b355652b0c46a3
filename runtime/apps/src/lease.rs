//! What an app may hold now, and what it answers when the host asks bytes back.
//!
//! Level-triggered in both directions: only the newest epoch and the newest answer count, so nothing here can queue up.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How tight memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pressure {
    /// Nothing to do.
    Normal,
    /// Growing is unwise.
    Elevated,
    /// Something has to be given back.
    Tight,
    /// The host takes what it needs.
    Critical,
}

/// What the host does at the deadline if the bytes are not released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consequence {
    /// Nothing.
    Nothing,
    /// Drops what can be made again.
    DropCaches,
    /// Suspends the app.
    Suspend,
    /// Stops the app.
    Stop,
}

/// One epoch of an app's lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetState {
    /// Counts up; a newer epoch voids the older ones.
    pub epoch: u32,
    /// Milliseconds of the host's monotonic clock when the epoch began.
    pub origin_ms: f64,
    /// How tight memory is.
    pub level: Pressure,
    /// Why, in words for a log.
    pub cause: String,
    /// Bytes that the app may hold from now on.
    pub limit: u64,
    /// Bytes that the host counts as the app's now.
    pub usage: u64,
    /// Bytes that the app is asked to release; 0 asks nothing.
    pub release: u64,
    /// Time it has for that, ms.
    pub deadline_ms: u32,
    /// Whether a person is looking at the app.
    pub visible: bool,
    /// What happens at the deadline.
    pub on_deadline: Consequence,
}

impl BudgetState {
    /// The first epoch of a calm machine: `limit` bytes, nothing asked.
    #[must_use]
    pub fn calm(limit: u64) -> Self {
        Self {
            epoch: 0,
            origin_ms: 0.0,
            level: Pressure::Normal,
            cause: "start".to_owned(),
            limit,
            usage: 0,
            release: 0,
            deadline_ms: 0,
            visible: true,
            on_deadline: Consequence::Nothing,
        }
    }
}

/// What an app answers to an epoch. Advice: the host never waits for it beyond the deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetAnswer {
    /// Will release this much in about this time.
    Pledge {
        /// Bytes.
        release: u64,
        /// Milliseconds.
        eta_ms: u32,
    },
    /// Has released this many bytes.
    Done(u64),
    /// Needs this many milliseconds more.
    Defer(u32),
}

/// The newest answer of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredEpoch {
    /// The epoch that is answered.
    pub epoch: u32,
    /// The answer.
    pub answer: BudgetAnswer,
}

/// Memory of an app that the host may ask back by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimablePool {
    /// Given by the app, bounded.
    pub name: String,
    /// Lower priorities are asked back first.
    pub priority: u32,
    /// Bytes that it could release now.
    pub reclaimable: u64,
}

/// The host's end of a lease: says what the app may hold, hears what it answers.
#[derive(Debug)]
pub struct Lease {
    state: watch::Sender<BudgetState>,
    answer: watch::Receiver<Option<AnsweredEpoch>>,
    pools: watch::Receiver<Vec<ReclaimablePool>>,
}

/// The app's end of a lease; goes into an [`crate::Invocation`].
#[derive(Debug, Clone)]
pub struct LeaseEnd {
    pub(crate) state: watch::Receiver<BudgetState>,
    pub(crate) answer: watch::Sender<Option<AnsweredEpoch>>,
    pub(crate) pools: watch::Sender<Vec<ReclaimablePool>>,
}

impl Lease {
    /// A lease that begins with `state`, and the end that the app gets.
    #[must_use]
    pub fn new(state: BudgetState) -> (Self, LeaseEnd) {
        let (state_tx, state_rx) = watch::channel(state);
        let (answer_tx, answer_rx) = watch::channel(None);
        let (pools_tx, pools_rx) = watch::channel(Vec::new());
        let lease = Self { state: state_tx, answer: answer_rx, pools: pools_rx };
        (lease, LeaseEnd { state: state_rx, answer: answer_tx, pools: pools_tx })
    }

    /// Starts a new epoch: `change` is given the state now, its `epoch` is set here.
    pub fn tighten(&self, change: impl FnOnce(&mut BudgetState)) -> u32 {
        let mut epoch = 0;
        self.state.send_modify(|state| {
            epoch = state.epoch.saturating_add(1);
            change(state);
            state.epoch = epoch;
        });
        epoch
    }

    /// The newest answer, and a wait for newer ones.
    pub fn answers(&mut self) -> &mut watch::Receiver<Option<AnsweredEpoch>> {
        &mut self.answer
    }

    /// What the app says it could release now, by pool.
    #[must_use]
    pub fn pools(&self) -> Vec<ReclaimablePool> {
        self.pools.borrow().clone()
    }
}
