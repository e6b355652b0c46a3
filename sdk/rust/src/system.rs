//! Clock and randomness of the host: a component has none of its own (`Instant::now` panics there).

use std::time::{Duration, SystemTime};

use crate::host;

/// The date and the time of day.
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + host::now()
}

/// A clock that never goes back, from some start in the past.
#[must_use]
pub fn monotonic() -> Duration {
    host::monotonic()
}

/// Random bytes from the host's generator, good for keys.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    /// The host gives at most this many at once.
    const AT_ONCE: usize = 4096;
    let mut bytes = [0; N];
    for part in bytes.chunks_mut(AT_ONCE) {
        let len = u32::try_from(part.len()).expect("at most 4096");
        part.copy_from_slice(&host::random(len)[..part.len()]);
    }
    bytes
}
