//! Decisions about memory, as pure functions: how many bytes a model takes, whether they fit, what the defaults of a
//! machine are, and the account of every byte held.
//!
//! This crate **does no I/O, starts no thread, reads no clock and depends on nothing else of ours**. Figures of the
//! machine and of the model come in as arguments, decisions go out as values; whatever it decided can be replayed.
//!
//! | module | question |
//! | --- | --- |
//! | [`shape`] | what of a model decides its bytes? |
//! | [`kv`], [`compute`] | what does remembering a token cost, and computing one? |
//! | [`plan`](mod@plan) | how many bytes, by kind? |
//! | [`correction`] | what did measuring teach about predicting? |
//! | [`machine`] | what does a machine offer? |
//! | [`verdict`](mod@verdict) | does it fit, and what would? |
//! | [`defaults`](mod@defaults) | what does the host choose when nobody says? |
//! | [`ledger`] | who holds what now? |
//! | [`lease`] | what may an app hold now? |
//! | [`governor`] | who may load or grow, and what is given back? |
//!
//! Amounts are [`Bytes`]: written for people in decimal units (GB = 10⁹), in derivations in binary ones (MiB = 2²⁰).

#![forbid(unsafe_code)]

pub mod bytes;
pub mod compute;
pub mod correction;
pub mod defaults;
pub mod governor;
mod graph;
pub mod kv;
pub mod lease;
pub mod ledger;
pub mod machine;
pub mod plan;
pub mod shape;
pub mod verdict;

pub use bytes::Bytes;
pub use correction::{CorrectionKey, Corrections, Footprint, PredictionError};
pub use defaults::{Defaults, defaults};
pub use governor::Governor;
pub use kv::KvType;
pub use ledger::{Kind, Ledger, LedgerError, Owner, ReservationId};
pub use machine::Machine;
pub use plan::{Device, Plan, PlanError, PlanRequest, plan};
pub use shape::{ArchClass, Attention, Layer, ModelShape};
pub use verdict::{Fit, Verdict, judge, verdict};
