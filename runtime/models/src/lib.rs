//! Where model files come from: the embedded one, and files that a person names.
//!
//! A model is known by the SHA-256 of its file. The host's own copies lie in the store under that name, written to a
//! temporary file, synced and renamed, so a file under its final name is whole; a person's files are used where they are
//! and never copied. This crate must never map or parse a model: that is the engine's.

mod digest;
mod embedded;
mod store;

pub use digest::{Digest, digest_of};
pub use embedded::{EMBEDDED_DIGEST, EMBEDDED_NAME};
pub use store::{ModelFile, ModelStore, StoreError};
