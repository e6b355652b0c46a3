//! The memory lease of the app: how much it may hold, and what the host asks back.
//!
//! The host asks early and says what it does if nothing is released. An app that ignores all of this is still correct:
//! the default answer is honest ("released nothing").
//!
//! What counts is what the machine gets back. A conversation that is dropped gives its KV back at once. The app's own heap
//! never shrinks, because a Wasm memory cannot: what is freed in it keeps the app from growing, no more.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures::future::LocalBoxFuture;

use crate::host;

/// How hard the machine's memory is pressed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pressure {
    /// All is well.
    Normal,
    /// Start nothing big.
    Elevated,
    /// Give back what can be made again.
    Tight,
    /// The host is about to act.
    Critical,
    /// A level that this version has no name for.
    Other(String),
}

impl Pressure {
    /// Whether the app does well to work in smaller steps: tight, critical, or a level that this version does not know.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        !matches!(self, Self::Normal | Self::Elevated)
    }
}

/// What the host does at the deadline if the bytes are not released.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consequence {
    /// Nothing.
    Nothing,
    /// It drops what it cached for the app; the next answer computes it again.
    DropCaches,
    /// It suspends the app.
    Suspend,
    /// It stops the app.
    Stop,
    /// Something that this version has no name for.
    Other(String),
}

/// The lease in one epoch. The newest epoch wins; older ones are void.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// Counts up with every change.
    pub epoch: u32,
    /// When the epoch began, on [`system::monotonic`](crate::system::monotonic)'s clock.
    pub since: Duration,
    /// How hard memory is pressed.
    pub pressure: Pressure,
    /// Why, in words for a log.
    pub cause: String,
    /// Bytes that the app may hold from now on.
    pub limit: u64,
    /// Bytes that the host counts as the app's now: its linear memory, its KV state, its share of the weights.
    pub usage: u64,
    /// Bytes that the app is asked to release before the deadline; 0 asks nothing.
    pub release: u64,
    /// Counts from [`since`](Self::since).
    pub deadline: Duration,
    /// Whether a person is looking at the app.
    pub visible: bool,
    /// What happens at the deadline.
    pub on_deadline: Consequence,
}

impl Budget {
    /// A lease without a wish: for tests, and to build others from with [`asking`](Self::asking).
    #[must_use]
    pub fn of(limit: u64) -> Self {
        Self {
            epoch: 0,
            since: Duration::ZERO,
            pressure: Pressure::Normal,
            cause: String::new(),
            limit,
            usage: 0,
            release: 0,
            deadline: Duration::ZERO,
            visible: true,
            on_deadline: Consequence::Nothing,
        }
    }

    /// The same lease under pressure, asking for bytes within a second: for tests.
    #[must_use]
    pub fn asking(self, pressure: Pressure, release: u64) -> Self {
        Self { pressure, release, deadline: Duration::from_secs(1), on_deadline: Consequence::DropCaches, ..self }
    }

    /// The lease now. Cheap: ask between two steps of the work.
    #[must_use]
    pub fn current() -> Self {
        host::budget()
    }

    /// The lease now, then every change, for apps that [`answer`](Self::answer) themselves: while somebody holds this, the
    /// SDK does not say "released nothing" in their place. A slow reader sees the newest, not all of them;
    /// one whose [`epoch`](Self::epoch) was seen before changed in [`visible`](Self::visible) only.
    ///
    /// ```
    /// use locara::testing::{self, Script};
    /// use locara::{App, Budget, Failure, Pressure, Release};
    ///
    /// async fn app(_: &mut App) -> Result<(), Failure> {
    ///     let mut changes = Budget::changes();
    ///     while let Some(budget) = changes.next().await {
    ///         if budget.release > 0 {
    ///             budget.answer(Release::Done(budget.release));
    ///             break;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let asked = Budget::of(1_000_000).asking(Pressure::Tight, 4096);
    /// let run = testing::run(app, Script::new().budget_at(0, asked));
    /// assert_eq!(run.released(1), 4096);
    /// ```
    #[must_use]
    pub fn changes() -> Changes {
        REGISTRY.with_borrow_mut(|registry| registry.readers += 1);
        Changes { host: host::BudgetChanges::new() }
    }

    /// Answers this epoch, as often as there is news; the newest answer counts, and none once a newer epoch has begun.
    /// Needed by readers of [`changes`](Self::changes), and after a [`Release::Pledge`] that was kept.
    pub fn answer(&self, release: Release) {
        REGISTRY.with_borrow_mut(|registry| registry.answered = Some(self.epoch));
        host::answer_epoch(self.epoch, release);
    }

    /// Calls `answer` whenever the host changes the lease, beside what the app is doing. It replaces an earlier one.
    ///
    /// The [pools](Pool) have been asked before, and `release` is what is still wanted after them.
    pub fn on_change(answer: impl AsyncFn(Self) -> Release + 'static) {
        let answer = Rc::new(answer);
        let handler: Handler = Rc::new(move |budget| {
            let answer = Rc::clone(&answer);
            Box::pin(async move { answer(budget).await })
        });
        REGISTRY.with_borrow_mut(|registry| registry.handler = Some(handler));
    }
}

/// Changes of the lease, from [`Budget::changes`].
#[derive(Debug)]
pub struct Changes {
    host: host::BudgetChanges,
}

impl Drop for Changes {
    fn drop(&mut self) {
        REGISTRY.with_borrow_mut(|registry| registry.readers = registry.readers.saturating_sub(1));
    }
}

impl Changes {
    /// The lease now at the first call, then the next change; `None` when the host is done with this run.
    pub async fn next(&mut self) -> Option<Budget> {
        self.host.next().await
    }
}

/// The app's answer to a wish. Advice: the host never waits for it beyond the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Release {
    /// This many bytes were released.
    Done(u64),
    /// This many bytes will be released in about this time.
    Pledge(u64, Duration),
    /// The app needs this much longer than the deadline (bounded by the host).
    Defer(Duration),
}

/// Memory of the app that the host may ask back by name: a cache, an index, conversations that can be had again.
///
/// The SDK answers the host: it pledges what the pools can release, runs them, those with the lowest priority first, until
/// enough is released, and says how much that was.
///
/// ```
/// use std::{cell::RefCell, collections::HashMap, rc::Rc};
/// use locara::testing::{self, Script};
/// use locara::{App, Budget, Failure, Pool, Pressure};
///
/// async fn app(app: &mut App) -> Result<(), Failure> {
///     let pages: Rc<RefCell<HashMap<u32, Vec<u8>>>> = Rc::default();
///     let pool = Pool::new("pages", 10, {
///         let pages = Rc::clone(&pages);
///         move |_wanted| pages.borrow_mut().drain().map(|(_, page)| page.len() as u64).sum()
///     });
///     pages.borrow_mut().insert(1, vec![0; 4096]);
///     pool.set_reclaimable(4096);
///     app.input.text().await?;
///     Ok(())
/// }
///
/// // The host asks while the app waits for its input.
/// let asked = Budget::of(1_000_000).asking(Pressure::Tight, 1000);
/// let run = testing::run(app, Script::new().input("…").budget_at(0, asked));
/// assert_eq!((run.pledged(1), run.released(1)), (1000, 4096));
/// assert_eq!(run.reclaimable["pages"], 0);
/// ```
#[must_use = "a pool that is dropped is no longer asked"]
pub struct Pool {
    inner: Rc<Inner>,
}

struct Inner {
    host: host::Pool,
    priority: u32,
    reclaimable: RefCell<u64>,
    reclaim: RefCell<Box<dyn FnMut(u64) -> u64>>,
}

impl Pool {
    /// A pool; those with a lower `priority` are asked back first.
    ///
    /// `reclaim` gets the bytes that are wanted, releases what it can and returns how much that was. It is called
    /// between two awaits of the app, so it sees nothing half-done.
    pub fn new(name: &str, priority: u32, reclaim: impl FnMut(u64) -> u64 + 'static) -> Self {
        let inner = Rc::new(Inner {
            host: host::Pool::new(name, priority),
            priority,
            reclaimable: RefCell::new(0),
            reclaim: RefCell::new(Box::new(reclaim)),
        });
        REGISTRY.with_borrow_mut(|registry| registry.pools.push(Rc::downgrade(&inner)));
        Self { inner }
    }

    /// How many bytes the pool could release now. Say it when it changed by more than a little.
    pub fn set_reclaimable(&self, bytes: u64) {
        self.inner.set_reclaimable(bytes);
    }
}

impl Inner {
    fn set_reclaimable(&self, bytes: u64) {
        self.reclaimable.replace(bytes);
        self.host.set_reclaimable(bytes);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("priority", &self.inner.priority)
            .field("reclaimable", &self.inner.reclaimable)
            .finish()
    }
}

type Handler = Rc<dyn Fn(Budget) -> LocalBoxFuture<'static, Release>>;

#[derive(Default)]
struct Registry {
    handler: Option<Handler>,
    pools: Vec<Weak<Inner>>,
    /// How many [`Changes`] there are.
    readers: usize,
    /// The last epoch that the app itself answered.
    answered: Option<u32>,
}

thread_local! {
    // A component has one thread. Natively every test thread runs its own app.
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

/// Answers a change of the lease: first the pools, the lowest priority first, then the app's own handler. `None` leaves
/// the answer to a reader of [`Changes`].
pub(crate) async fn answer(mut budget: Budget) -> Option<Release> {
    let pools = reclaim(&budget);
    let released = pools.unwrap_or(0);
    budget.release = budget.release.saturating_sub(released);
    let (handler, elsewhere) = REGISTRY.with_borrow(|registry| {
        (registry.handler.clone(), registry.readers > 0 || registry.answered == Some(budget.epoch))
    });
    let Some(handler) = handler else {
        return (pools.is_some() || !elsewhere).then_some(Release::Done(released));
    };
    Some(match handler(budget).await {
        Release::Done(more) => Release::Done(released.saturating_add(more)),
        Release::Pledge(more, eta) => Release::Pledge(released.saturating_add(more), eta),
        defer @ Release::Defer(_) => defer,
    })
}

/// Pledges what the pools can release of what is wanted, and asks them until that is released or none is left. Returns
/// what was released; `None` if there are no pools.
fn reclaim(budget: &Budget) -> Option<u64> {
    let wanted = budget.release;
    // Taken out first: a `reclaim` of the app may make or drop pools.
    let mut pools: Vec<Rc<Inner>> = REGISTRY.with_borrow_mut(|registry| {
        registry.pools.retain(|pool| pool.strong_count() > 0);
        registry.pools.iter().filter_map(Weak::upgrade).collect()
    });
    if pools.is_empty() {
        return None;
    }
    pools.sort_by_key(|pool| pool.priority);
    let reclaimable = pools.iter().fold(0_u64, |sum, pool| sum.saturating_add(*pool.reclaimable.borrow()));
    let pledge = reclaimable.min(wanted);
    if pledge > 0 {
        host::answer_epoch(budget.epoch, Release::Pledge(pledge, Duration::ZERO));
    }
    let mut released = 0_u64;
    for pool in pools {
        if released >= wanted {
            break;
        }
        let freed = (pool.reclaim.borrow_mut())(wanted - released);
        let left = pool.reclaimable.borrow().saturating_sub(freed);
        pool.set_reclaimable(left);
        released = released.saturating_add(freed);
    }
    Some(released)
}

/// Forgets the handler and the pools of a run that ended, so that the next test on this thread starts clean.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn reset() {
    REGISTRY.take();
}
