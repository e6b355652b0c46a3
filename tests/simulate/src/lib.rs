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
//! that actions take) and each peer. They are the same for every policy, and none was chosen by looking at a result. This is a
//! model: its figures compare policies, they do not predict a machine.
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
