//! A fleet of laptops for a week each: what a policy does to the people who own them.
//!
//! One laptop is a machine ([`fleet`]), a week of things that happen to it whatever the host does ([`trace`]), memory that
//! follows a few plain rules ([`memory`]), and an engine that is the same for everybody ([`host`]). A [`policy::Policy`] is told
//! what happens and says what to do; [`sim`] makes time pass and counts. Beside each laptop runs its *counterfactual*: the same
//! laptop at the same moment with a host that holds nothing. What is written to swap beyond it is **swap caused**.
//!
//! | policy | |
//! | --- | --- |
//! | [`locara`] | the governor of `locara-policy`, as the daemon drives it |
//! | [`peers::Naive`] | the same host without a governor |
//! | [`peers::LlamaServer`], [`peers::Ollama`], [`peers::Omlx`] | what these do, from their documentation and source |
//!
//! Assumptions are listed where they are made: [`memory`] (physics), [`trace`] (people), [`fleet`] (machines), `carry` (times
//! that actions take) and each peer. They are the same for every policy. This is a model: its figures compare policies, they do
//! not predict a machine.
//!
//! Most were fixed before the governor ran here. These were settled after results had been seen, so look at them twice:
//! - other programs hold more than at first, because a median of a sixth of memory was no laptop in use (seen with peers alone);
//! - `available` on a Mac counts what compressing takes, as `runtime/platform` does since: it had promised three times as much,
//!   and the governor swapped where it believed it. On 60 laptops that took its swap from 11.4 to 8.8 GB and its false refusals
//!   from 0.8 to 1.2 %;
//! - a request that gave up is judged a false refusal only if memory held it up. Waits for the device and for energy or heat are
//!   counted apart; before that all were judged, for every policy;
//! - background requests that are refused are asked again, whoever refused;
//! - a request that waits in a pool that would not help by being larger waits for the device, also if the pool was shrunk once:
//!   it had been judged as held up by memory. That took 1,454 of 13,998 false refusals off the governor; peers never shrink;
//! - a request that was interrupted to give its cells back no longer keeps its model from being unloaded: the engine asks it
//!   anew, and the simulator had let it wait for ever in a model that was to go.
//!
//! Integers only and a generator of its own: the same seed gives the same figures on every machine.

pub mod figures;
pub mod fleet;
pub mod host;
pub mod locara;
pub mod memory;
pub mod peers;
pub mod policy;
pub mod sim;
pub mod trace;

mod carry;
mod rng;

use policy::{Make, Policy};

/// Every policy by its name; ours first.
pub const POLICIES: [(&str, Make); 5] = [
    ("locara", |laptop| Box::new(locara::Locara::new(laptop))),
    ("naive", |_| Box::new(peers::Naive)),
    ("llama-server", |_| Box::new(peers::LlamaServer::new())),
    ("ollama", |_| Box::<peers::Ollama>::default()),
    ("omlx", |_| Box::<peers::Omlx>::default()),
];

/// The policy of this name for a laptop.
#[must_use]
pub fn policy(name: &str, laptop: &fleet::Laptop) -> Option<Box<dyn Policy>> {
    POLICIES.iter().find(|(known, _)| *known == name).map(|(_, make)| make(laptop))
}
