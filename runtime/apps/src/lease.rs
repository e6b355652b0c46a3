//! What an app may hold now, and what it answers when the host asks bytes back.
//!
//! Level-triggered in both directions: only the newest epoch and the newest answer to it count, so nothing here can queue
//! up. An answer to an older epoch is void, whatever way it comes.

use locara_policy::governor::{Consequence, Level};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One epoch of an app's lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetState {
    /// Counts up; a newer epoch voids the older ones.
    pub epoch: u32,
    /// Milliseconds of the host's monotonic clock when the epoch began.
    pub origin_ms: f64,
    /// How tight memory is.
    pub level: Level,
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
            level: Level::Normal,
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
    /// The epoch that the lease began with: the app knows it without being told.
    pub(crate) began: u32,
    pub(crate) state: watch::Receiver<BudgetState>,
    pub(crate) answer: watch::Sender<Option<AnsweredEpoch>>,
    pub(crate) pools: watch::Sender<Vec<ReclaimablePool>>,
}

impl LeaseEnd {
    /// Tells the host, unless the epoch is not the newest or the answer says nothing new.
    pub(crate) fn answer(&self, answered: AnsweredEpoch) {
        // Held while the answer is handed over: no epoch can begin in between.
        let state = self.state.borrow();
        if answered.epoch == state.epoch {
            self.answer.send_if_modified(|last| {
                let new = last.as_ref() != Some(&answered);
                *last = Some(answered);
                new
            });
        }
    }

    /// Tells the host what could be released.
    pub(crate) fn publish(&self, pools: Vec<ReclaimablePool>) {
        self.pools.send_if_modified(|last| {
            let new = *last != pools;
            *last = pools;
            new
        });
    }
}

impl Lease {
    /// A lease that begins with `state`, and the end that the app gets.
    #[must_use]
    pub fn new(state: BudgetState) -> (Self, LeaseEnd) {
        let began = state.epoch;
        let (state_tx, state_rx) = watch::channel(state);
        let (answer_tx, answer_rx) = watch::channel(None);
        let (pools_tx, pools_rx) = watch::channel(Vec::new());
        let lease = Self { state: state_tx, answer: answer_rx, pools: pools_rx };
        (lease, LeaseEnd { began, state: state_rx, answer: answer_tx, pools: pools_tx })
    }

    /// Starts a new epoch and returns its number: the next one, or a later one that `change` sets. `change` is given the
    /// state now; a wish that it leaves in there is a wish of the new epoch.
    pub fn tighten(&self, change: impl FnOnce(&mut BudgetState)) -> u32 {
        let mut epoch = 0;
        self.state.send_modify(|state| {
            let next = state.epoch.saturating_add(1);
            change(state);
            epoch = state.epoch.max(next);
            state.epoch = epoch;
        });
        epoch
    }

    /// Says whether a person is looking at the app. No new epoch: what was asked stays asked, and its answers count. An
    /// app sees it in `current` and `changes`; `on-budget` is not called for it.
    pub fn set_visible(&self, visible: bool) {
        self.state.send_if_modified(|state| std::mem::replace(&mut state.visible, visible) != visible);
    }

    /// The newest answer to the newest epoch that was answered, and a wait for newer ones; that fails when the run has
    /// ended.
    #[must_use]
    pub fn answers(&self) -> watch::Receiver<Option<AnsweredEpoch>> {
        self.answer.clone()
    }

    /// What the app says it could release now, by pool; nothing after its end.
    #[must_use]
    pub fn pools(&self) -> Vec<ReclaimablePool> {
        self.pools.borrow().clone()
    }

    /// What the app says it could release, and a wait for changes; that fails when the run has ended.
    #[must_use]
    pub fn pools_changed(&self) -> watch::Receiver<Vec<ReclaimablePool>> {
        self.pools.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_older_epochs_are_void() {
        let (lease, end) = Lease::new(BudgetState::calm(100));
        let done = |epoch, bytes| AnsweredEpoch { epoch, answer: BudgetAnswer::Done(bytes) };
        assert_eq!(lease.tighten(|state| state.release = 10), 1);
        end.answer(done(0, 99));
        assert_eq!(*lease.answers().borrow(), None);
        end.answer(done(1, 10));
        assert_eq!(lease.tighten(|state| state.epoch = 7), 7, "whoever decides may count");
        assert_eq!(lease.tighten(|state| state.epoch = 3), 8, "but never back");
        end.answer(done(1, 20));
        end.answer(done(9, 20));
        assert_eq!(*lease.answers().borrow(), Some(done(1, 10)));
        end.answer(done(8, 20));
        assert_eq!(*lease.answers().borrow(), Some(done(8, 20)));
    }

    fn changed<T>(receiver: &watch::Receiver<T>) -> bool {
        receiver.has_changed().expect("the sender lives")
    }

    #[test]
    fn what_says_nothing_new_wakes_nobody() {
        let (lease, end) = Lease::new(BudgetState::calm(100));
        let (mut answers, mut pools) = (lease.answers(), lease.pools_changed());
        let answered = AnsweredEpoch { epoch: 0, answer: BudgetAnswer::Defer(5) };
        let pool = ReclaimablePool { name: "cache".to_owned(), priority: 1, reclaimable: 10 };
        for news in [true, false] {
            end.answer(answered.clone());
            end.publish(vec![pool.clone()]);
            assert_eq!((changed(&answers), changed(&pools)), (news, news));
            answers.mark_unchanged();
            pools.mark_unchanged();
        }
        lease.set_visible(true);
        assert!(!changed(&end.state), "it was visible");
        lease.set_visible(false);
        assert_eq!((changed(&end.state), end.state.borrow().epoch), (true, 0));
    }
}
