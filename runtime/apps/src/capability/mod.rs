//! What an app may reach, one file for each interface of the WIT.
//!
//! A capability is three types:
//! - its *state*, which lives as long as the instance (`StorageState`),
//! - its *policy*, which never changes during a run and comes from manifest ∧ grants (`StoragePolicy`),
//! - its *access*, the short borrow of both in which one host call runs ([`Access`]).
//!
//! Rules for every file here: each host function (but `drop`) charges the [`Meter`] first; a refusal by policy is a value of the
//! WIT's `error`, never a trap; whatever a guest can make the host hold is bounded by a constant that says why.

pub(crate) mod budget;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod inference;
pub(crate) mod input;
pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod storage;
pub(crate) mod system;

use std::sync::{Arc, Mutex, PoisonError};

use crate::bindings::types as wit;
use crate::meter::Meter;
use crate::report::Denied;

/// State and policy of one capability of one instance.
pub(crate) struct Capability<S, P> {
    /// What the instance holds.
    pub(crate) state: S,
    /// What it may do.
    pub(crate) policy: P,
}

impl<S, P> Capability<S, P> {
    pub(crate) fn new(state: S, policy: P) -> Self {
        Self { state, policy }
    }

    /// The borrow for one host call.
    pub(crate) fn access<'a>(&'a mut self, shared: &'a mut Shared) -> Access<'a, S, P> {
        Access { state: &mut self.state, policy: &self.policy, shared }
    }
}

/// What all capabilities of one instance share.
pub(crate) struct Shared {
    /// Charged by each host call.
    pub(crate) meter: Meter,
    /// Owns the host's half of every resource that the guest holds.
    pub(crate) table: wasmtime::component::ResourceTable,
    /// What was refused, for the report.
    pub(crate) denied: DeniedLog,
    /// Revoked when the run ends: a file that is still being written then is half a file.
    pub(crate) orderly: Orderly,
}

/// One host call's borrow of a capability.
pub(crate) struct Access<'a, S, P> {
    pub(crate) state: &'a mut S,
    pub(crate) policy: &'a P,
    pub(crate) shared: &'a mut Shared,
}

impl<S, P> Access<'_, S, P> {
    /// Charges one host call.
    ///
    /// # Errors
    /// A trap when the app calls faster than its manifest says.
    pub(crate) fn charge(&mut self) -> wasmtime::Result<()> {
        self.shared.meter.charge().map_err(wasmtime::Error::new)
    }
}

/// Whether the run still goes on. Shared with consumers of guest streams, which cannot tell a stream that its guest
/// closed from a store that was dropped.
#[derive(Clone, Debug)]
pub(crate) struct Orderly(Arc<std::sync::atomic::AtomicBool>);

impl Orderly {
    pub(crate) fn new() -> Self {
        Self(Arc::new(std::sync::atomic::AtomicBool::new(true)))
    }
    /// Called before the store is dropped.
    pub(crate) fn revoke(&self) {
        self.0.store(false, std::sync::atomic::Ordering::Release);
    }
    pub(crate) fn holds(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// Refusals of one run, bounded: a guest that asks a thousand times is reported once.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeniedLog(Arc<Mutex<Vec<Denied>>>);

/// Different refusals that a report lists.
const MAX_DENIED: usize = 32;

impl DeniedLog {
    /// Notes a refusal and makes the WIT error that tells the guest.
    pub(crate) fn refuse(&self, denied: Denied) -> wit::Error {
        let error = wit::Error::Denied(wit::Denial {
            capability: denied.capability.clone(),
            reason: denied.reason.clone(),
            remedy: denied.remedy.clone(),
        });
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < MAX_DENIED && !list.contains(&denied) {
            tracing::info!(capability = %denied.capability, reason = %denied.reason, remedy = %denied.remedy, "refused");
            list.push(denied);
        }
        error
    }

    pub(crate) fn take(&self) -> Vec<Denied> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Bytes as the WIT carries them. Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "nothing that the host counts comes near 2^53 bytes")]
pub(crate) fn to_wit_bytes(bytes: u64) -> f64 {
    bytes as f64
}

/// Bytes from a guest: a negative or undefined number counts as 0, a huge one as the largest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
pub(crate) fn from_wit_bytes(bytes: f64) -> u64 {
    bytes as u64
}
