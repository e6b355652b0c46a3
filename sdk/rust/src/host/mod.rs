//! The seam: everything the SDK asks of the host goes through here, and nothing else does.
//!
//! Two twins with the same items: on Wasm the imports of the component (`wasm`), natively a host that follows a script
//! (`native`), so that an app's own tests run without a daemon. Which one is used is decided here and nowhere else.

#[cfg(not(target_family = "wasm"))]
pub(crate) mod native;
#[cfg(target_family = "wasm")]
pub(crate) mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::*;
#[cfg(target_family = "wasm")]
pub(crate) use wasm::*;
