//! `budget`: what the app may hold, what it answers, what it could release. Newest wins in every direction.

use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use locara_policy::governor::{Consequence, Level};
use tokio::sync::watch;
use wasmtime::Result;
use wasmtime::component::{Access as StoreAccess, HasData, Resource, StreamReader};

use super::{Access, from_wit_bytes, to_wit_bytes};
use crate::bindings::{budget as wit, budget_sync};
use crate::lease::{AnsweredEpoch, BudgetAnswer, BudgetState, LeaseEnd, ReclaimablePool};
use crate::relay::Items;
use crate::report::presentable;

/// Pools of one app; more cannot be told apart by anybody.
const MAX_POOLS: usize = 64;
/// Longest name of a pool, bytes.
const MAX_NAME: usize = 64;

/// The host's half of the `pool` resource: its number in the list.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Pool(u32);

/// The app's end of its lease.
pub(crate) struct BudgetHeld {
    lease: LeaseEnd,
    pools: Vec<(u32, ReclaimablePool)>,
    next_pool: u32,
}

/// Every app may hear about its own budget.
pub(crate) struct BudgetPolicy;

impl BudgetHeld {
    pub(crate) fn new(lease: LeaseEnd) -> Self {
        Self { lease, pools: Vec::new(), next_pool: 0 }
    }

    fn publish(&self) {
        self.lease.publish(self.pools.iter().map(|(_, pool)| pool.clone()).collect());
    }

    fn answer(&self, epoch: u32, answer: wit::Answer) {
        if let Some(answered) = answered(epoch, answer) {
            self.lease.answer(answered);
        }
    }
}

impl Drop for BudgetHeld {
    /// The pools end with the instance.
    fn drop(&mut self) {
        self.lease.publish(Vec::new());
    }
}

/// `budget` of one host call.
pub(crate) type BudgetAccess<'a> = Access<'a, BudgetHeld, BudgetPolicy>;

/// Names [`BudgetAccess`] to wasmtime.
pub(crate) struct HasBudget;

impl HasData for HasBudget {
    type Data<'a> = BudgetAccess<'a>;
}

impl wit::Host for BudgetAccess<'_> {
    fn current(&mut self) -> Result<wit::State> {
        self.charge()?;
        Ok(state(&self.state.lease.state.borrow()))
    }

    fn answer_epoch(&mut self, epoch: u32, answer: wit::Answer) -> Result<()> {
        self.charge()?;
        self.state.answer(epoch, answer);
        Ok(())
    }
}

impl wit::HostPool for BudgetAccess<'_> {
    fn new(&mut self, name: String, priority: u32) -> Result<Resource<Pool>> {
        self.charge()?;
        let id = self.state.next_pool;
        self.state.next_pool = id.wrapping_add(1);
        let pool = self.shared.table.push(Pool(id))?;
        // One more than anybody can use is accepted and not listed: a constructor has no way to refuse.
        if self.state.pools.len() < MAX_POOLS {
            let name = presentable(&name, MAX_NAME);
            self.state.pools.push((id, ReclaimablePool { name, priority, reclaimable: 0 }));
            self.state.publish();
        }
        Ok(pool)
    }

    fn set_reclaimable(&mut self, pool: Resource<Pool>, size: f64) -> Result<()> {
        self.charge()?;
        let id = self.shared.table.get(&pool)?.0;
        if let Some((_, pool)) = self.state.pools.iter_mut().find(|(of, _)| *of == id) {
            pool.reclaimable = from_wit_bytes(size);
            self.state.publish();
        }
        Ok(())
    }

    fn drop(&mut self, pool: Resource<Pool>) -> Result<()> {
        let id = self.shared.table.delete(pool)?.0;
        self.state.pools.retain(|(of, _)| *of != id);
        self.state.publish();
        Ok(())
    }
}

impl<T: 'static> wit::HostWithStore<T> for HasBudget {
    fn changes(mut store: StoreAccess<'_, T, Self>) -> Result<StreamReader<wit::State>> {
        let mut access = store.get();
        access.charge()?;
        let states = states(access.state.lease.state.clone());
        StreamReader::new(&mut store, Items(states))
    }
}

impl budget_sync::Host for BudgetAccess<'_> {
    fn current(&mut self) -> Result<wit::State> {
        wit::Host::current(self)
    }
    fn answer_epoch(&mut self, epoch: u32, answer: wit::Answer) -> Result<()> {
        wit::Host::answer_epoch(self, epoch, answer)
    }
}

/// The state now, then the newest one after every change. Ends when the host's end of the lease is gone.
fn states(mut receiver: watch::Receiver<BudgetState>) -> BoxStream<'static, wit::State> {
    receiver.mark_changed();
    unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        let newest = state(&receiver.borrow_and_update());
        Some((newest, receiver))
    })
    .boxed()
}

/// An epoch as the guest sees it.
pub(crate) fn state(state: &BudgetState) -> wit::State {
    wit::State {
        epoch: state.epoch,
        origin_ms: state.origin_ms,
        level: match state.level {
            Level::Normal => wit::Pressure::Normal,
            Level::Elevated => wit::Pressure::Elevated,
            Level::Tight => wit::Pressure::Tight,
            Level::Critical => wit::Pressure::Critical,
        },
        cause: state.cause.clone(),
        limit: to_wit_bytes(state.limit),
        usage: to_wit_bytes(state.usage),
        release: to_wit_bytes(state.release),
        deadline_ms: state.deadline_ms,
        visible: state.visible,
        on_deadline: match state.on_deadline {
            Consequence::Nothing => wit::Consequence::Nothing,
            Consequence::DropCaches => wit::Consequence::DropCaches,
            Consequence::Suspend => wit::Consequence::Suspend,
            Consequence::Stop => wit::Consequence::Stop,
        },
    }
}

/// An answer as the host sees it. Answers of later versions of the WIT are ignored.
pub(crate) fn answered(epoch: u32, answer: wit::Answer) -> Option<AnsweredEpoch> {
    let answer = match answer {
        wit::Answer::Pledge(pledge) => {
            BudgetAnswer::Pledge { release: from_wit_bytes(pledge.release), eta_ms: pledge.eta_ms }
        }
        wit::Answer::Done(bytes) => BudgetAnswer::Done(from_wit_bytes(bytes)),
        wit::Answer::Defer(ms) => BudgetAnswer::Defer(ms),
        wit::Answer::Other(_) => return None,
    };
    Some(AnsweredEpoch { epoch, answer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Lease;

    #[tokio::test]
    async fn changes_begin_with_the_state_now_and_skip_what_nobody_read() {
        let (lease, end) = Lease::new(BudgetState::calm(100));
        let mut states = states(end.state);
        assert_eq!(states.next().await.map(|state| state.epoch), Some(0));
        lease.tighten(|state| state.limit = 90);
        lease.tighten(|state| state.limit = 80);
        let newest = states.next().await.expect("a change");
        assert_eq!((newest.epoch, newest.limit), (2, 80.0));
        drop(lease);
        assert!(states.next().await.is_none());
    }

    #[test]
    fn an_answer_to_an_epoch_that_never_was_is_ignored() {
        let (lease, end) = Lease::new(BudgetState::calm(100));
        let held = BudgetHeld::new(end);
        held.answer(7, wit::Answer::Done(5.0));
        assert_eq!(*lease.answers().borrow(), None);
        held.answer(0, wit::Answer::Done(f64::NAN));
        assert_eq!(*lease.answers().borrow(), Some(AnsweredEpoch { epoch: 0, answer: BudgetAnswer::Done(0) }));
    }
}
