//! What `#[locara::app]` builds on. Not for authors.

use crate::{App, Failure};

/// An app: the function behind `#[locara::app]`.
#[doc(hidden)]
pub trait Entry: 'static {
    /// One run.
    fn main(app: &mut App) -> impl Future<Output = Result<(), Failure>>;
}

/// Uses an app where nothing calls it: natively, outside its tests.
#[doc(hidden)]
#[cfg(not(target_family = "wasm"))]
pub fn keep<E: Entry>() {
    let _main = E::main;
}
