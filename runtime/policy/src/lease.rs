//! What an app may hold now: between the floor it is guaranteed and the ceiling it declared.
//!
//! The type keeps `floor ≤ limit ≤ ceiling` true and nothing else; who moves the limit and why is decided elsewhere.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// An app's lease. Always `floor ≤ limit ≤ ceiling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Lease {
    floor: Bytes,
    ceiling: Bytes,
    limit: Bytes,
}

/// The lease as it is written down.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Parts {
    floor: Bytes,
    ceiling: Bytes,
    limit: Bytes,
}

/// Why a lease cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The app asks to be guaranteed more than it says it will ever use.
    #[error("the guaranteed floor of {floor} is above the ceiling of {ceiling}; raise the ceiling or lower the floor")]
    FloorAboveCeiling {
        /// Guaranteed.
        floor: Bytes,
        /// Declared.
        ceiling: Bytes,
    },
    /// A stored limit lies outside the lease.
    #[error("the limit of {limit} lies outside {floor} to {ceiling}")]
    LimitOutside {
        /// Guaranteed.
        floor: Bytes,
        /// Declared.
        ceiling: Bytes,
        /// The limit.
        limit: Bytes,
    },
}

impl Lease {
    /// A lease at its ceiling.
    ///
    /// # Errors
    /// [`LeaseError::FloorAboveCeiling`].
    pub fn new(floor: Bytes, ceiling: Bytes) -> Result<Self, LeaseError> {
        if floor > ceiling {
            return Err(LeaseError::FloorAboveCeiling { floor, ceiling });
        }
        Ok(Self { floor, ceiling, limit: ceiling })
    }

    /// What the app keeps whatever happens, short of `critical` pressure.
    #[must_use]
    pub const fn floor(&self) -> Bytes {
        self.floor
    }
    /// The most the app said it would use.
    #[must_use]
    pub const fn ceiling(&self) -> Bytes {
        self.ceiling
    }
    /// What it may hold now.
    #[must_use]
    pub const fn limit(&self) -> Bytes {
        self.limit
    }
    /// Moves the limit as far towards `wanted` as floor and ceiling allow, and says where it is now.
    pub fn set_limit(&mut self, wanted: Bytes) -> Bytes {
        self.limit = wanted.clamp(self.floor, self.ceiling);
        self.limit
    }
    /// Whether an app that holds `used` may hold `extra` more.
    #[must_use]
    pub fn admits(&self, used: Bytes, extra: Bytes) -> bool {
        used.checked_add(extra).is_some_and(|sum| sum <= self.limit)
    }
    /// What the app must give back to be within the limit.
    #[must_use]
    pub const fn excess(&self, used: Bytes) -> Bytes {
        used.saturating_sub(self.limit)
    }
}

impl TryFrom<Parts> for Lease {
    type Error = LeaseError;

    fn try_from(Parts { floor, ceiling, limit }: Parts) -> Result<Self, LeaseError> {
        let lease = Self::new(floor, ceiling)?;
        if limit < floor || limit > ceiling {
            return Err(LeaseError::LimitOutside { floor, ceiling, limit });
        }
        Ok(Self { limit, ..lease })
    }
}

impl From<Lease> for Parts {
    fn from(Lease { floor, ceiling, limit }: Lease) -> Self {
        Self { floor, ceiling, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_stays_between_floor_and_ceiling() -> Result<(), LeaseError> {
        let mut lease = Lease::new(Bytes::mb(100), Bytes::mb(400))?;
        assert_eq!(lease.limit(), Bytes::mb(400));
        assert_eq!(lease.set_limit(Bytes::mb(10)), Bytes::mb(100));
        assert_eq!(lease.set_limit(Bytes::gb(9)), Bytes::mb(400));
        assert_eq!(lease.set_limit(Bytes::mb(250)), Bytes::mb(250));
        assert!(lease.admits(Bytes::mb(200), Bytes::mb(50)));
        assert!(!lease.admits(Bytes::mb(200), Bytes(50_000_001)));
        assert!(!lease.admits(Bytes::MAX, Bytes(1)));
        assert_eq!(lease.excess(Bytes::mb(300)), Bytes::mb(50));
        assert_eq!(lease.excess(Bytes::mb(200)), Bytes::ZERO);
        Ok(())
    }

    #[test]
    fn impossible_leases_are_refused_with_both_numbers() {
        let error = Lease::new(Bytes::gb(2), Bytes::gb(1)).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("the guaranteed floor of 2.0 GB is above the ceiling of 1.0 GB; raise the ceiling or lower the floor"
                .to_owned())
        );
        assert!(serde_json::from_str::<Lease>(r#"{"floor":1,"ceiling":9,"limit":10}"#).is_err());
        assert!(serde_json::from_str::<Lease>(r#"{"floor":1,"ceiling":9,"limit":9}"#).is_ok());
    }
}
