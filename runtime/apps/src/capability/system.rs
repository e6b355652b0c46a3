//! `system`: clocks and randomness. No app can do harm with them, so every app has them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wasmtime::component::HasData;
use wasmtime::{Error, Result};

use super::Access;
use crate::bindings::system as wit;

/// Random bytes in one call.
const MAX_RANDOM: u32 = 4096;

/// The origin of the monotonic clock: the start of the host, so that lease epochs and apps speak of the same time.
pub(crate) struct SystemState {
    pub(crate) origin: Instant,
}

/// Nothing to allow.
pub(crate) struct SystemPolicy;

/// `system` of one host call.
pub(crate) type SystemAccess<'a> = Access<'a, SystemState, SystemPolicy>;

/// Names [`SystemAccess`] to wasmtime.
pub(crate) struct HasSystem;

impl HasData for HasSystem {
    type Data<'a> = SystemAccess<'a>;
}

impl wit::Host for SystemAccess<'_> {
    fn now_ms(&mut self) -> Result<f64> {
        self.charge()?;
        // A clock before 1970 reads as 1970.
        Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e3))
    }

    fn monotonic_ms(&mut self) -> Result<f64> {
        self.charge()?;
        Ok(self.state.origin.elapsed().as_secs_f64() * 1e3)
    }

    fn random(&mut self, len: u32) -> Result<Vec<u8>> {
        self.charge()?;
        let mut bytes = vec![0; len.min(MAX_RANDOM) as usize];
        // Zeroes in the place of randomness would be worse than a crash.
        getrandom::fill(&mut bytes).map_err(|error| Error::msg(format!("the host has no randomness: {error}")))?;
        Ok(bytes)
    }
}
