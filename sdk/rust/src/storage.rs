//! A key-value store of the app's own, on disk, inside the manifest's `capabilities.storage.quotaMB`.

use crate::{Error, host};

/// The value of a key, if there is one.
///
/// # Errors
/// [`Error::Denied`] without the capability.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    host::storage::get(key)
}

/// Sets a value. It is on disk when this returns.
///
/// # Errors
/// [`Error::QuotaExceeded`] when it does not fit; the old value stays.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    host::storage::set(key, value.as_ref())
}

/// Removes a key and says whether it was there.
///
/// # Errors
/// [`Error::Denied`] without the capability.
pub fn delete(key: &str) -> Result<bool, Error> {
    host::storage::delete(key)
}

/// The keys that begin with `prefix`, in order.
///
/// # Errors
/// [`Error::Denied`] without the capability.
pub fn keys(prefix: &str) -> Result<Vec<String>, Error> {
    host::storage::keys(prefix)
}

/// Bytes used and bytes allowed.
#[must_use]
pub fn usage() -> (u64, u64) {
    host::storage::usage()
}
