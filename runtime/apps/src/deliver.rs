//! Budget events on their way into a guest that exports `events`.
//!
//! The newest epoch is delivered, concurrently with `run` in the same store. A guest that keeps an event for ever harms
//! nobody: the host's deadlines do not wait for answers, and after [`MAX_OPEN`] unanswered events it gets no more.

use std::convert::Infallible;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use wasmtime::component::Accessor;

use crate::bindings::events;
use crate::capability::budget::{answered, state};
use crate::ctx::Ctx;
use crate::lease::LeaseEnd;

/// Events that a guest may hold unanswered. Each costs about 5 KiB of host memory until the store is dropped.
const MAX_OPEN: usize = 4;

/// Delivers until the run ends: this never resolves but with the trap of the guest.
pub(crate) async fn deliver(
    accessor: &Accessor<Ctx>,
    guest: &events::Guest,
    lease: &LeaseEnd,
) -> wasmtime::Result<Infallible> {
    // Nobody has read from this end: an epoch that began while the instance was being made counts as a change.
    let mut states = lease.state.clone();
    let mut delivered = lease.began;
    let mut open = FuturesUnordered::new();
    let mut over = false;
    loop {
        tokio::select! {
            changed = states.changed(), if !over && open.len() < MAX_OPEN => match changed {
                Ok(()) => {
                    let newest = states.borrow_and_update().clone();
                    if std::mem::replace(&mut delivered, newest.epoch) == newest.epoch {
                        continue;
                    }
                    open.push(async move { (newest.epoch, guest.call_on_budget(accessor, state(&newest)).await) });
                }
                // The host's end is gone: no event can come any more.
                Err(_) => over = true,
            },
            Some((epoch, answer)) = open.next() => {
                if let Some(answered) = answered(epoch, answer?) {
                    lease.answer(answered);
                }
            }
            else => std::future::pending::<()>().await,
        }
    }
}
