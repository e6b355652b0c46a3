//! Synthetic GGUF models: every architecture class, any size, random weights.
//!
//! They have no quality and real cost: the planner, the engine and the benchmarks need files with the shapes of real
//! models, and tests must not download any. The same specification and seed gives the same bytes on every machine.
//!
//! ```
//! let mut spec = locara_zoo::Spec::tiny(locara_zoo::Arch::Llama);
//! spec.layers = 2;
//! let file = locara_zoo::draft(&spec)?.to_bytes()?;
//! assert!(locara_gguf::Gguf::parse(&file).is_ok());
//! # Ok::<(), locara_zoo::ZooError>(())
//! ```
//!
//! Three ways to get a file, from cheap to real: [`header`] (bytes of the header and the length that the file would
//! have: enough for the planner, even for 400 billion parameters), [`Draft::save_sparse`] (loads, all weights zero,
//! takes no space), [`write()`] (loads and computes; streams, so the size of the model does not matter).
//!
//! This crate must never be a dependency of anything that ships.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod arch;
mod broken;
mod catalogue;
mod draft;
mod oracle;
mod rng;
mod spec;
mod vocab;
mod weights;

use std::io;
use std::path::Path;

pub use broken::{Broken, broken};
pub use catalogue::{Entry, catalogue, find};
pub use draft::{Draft, Meta, TensorDraft};
pub use oracle::{interrogate, one_of_each};
pub use rng::Rng;
pub use spec::{Arch, Class, Quant, Spec};
pub use vocab::Vocab;
pub use weights::Fill;

/// Why no file was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZooError {
    /// The specification contradicts itself.
    #[error("{0}")]
    Spec(String),
    /// A tensor of a draft cannot exist.
    #[error("tensor {name:?}: {why}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The keys and tensors of `spec`, to be written or bent.
///
/// # Errors
/// [`ZooError::Spec`].
pub fn draft(spec: &Spec) -> Result<Draft, ZooError> {
    arch::draft(spec)
}

/// Writes the file of `spec` to `path`.
///
/// # Errors
/// [`ZooError`].
pub fn write(spec: &Spec, path: impl AsRef<Path>) -> Result<(), ZooError> {
    draft(spec)?.save(path)
}

/// The header of the file of `spec`, and the length of the whole file in bytes. `locara_gguf::Gguf::read` takes both.
///
/// # Errors
/// [`ZooError`].
pub fn header(spec: &Spec) -> Result<(Vec<u8>, u64), ZooError> {
    let draft = draft(spec)?;
    let header = draft.header()?;
    let len = header.len() as u64 + draft.data_bytes()?;
    Ok((header, len))
}
