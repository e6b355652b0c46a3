//! Where model files come from, which models there are, and which of them plays which role.
//!
//! A model is known by the SHA-256 of its file. What the host downloads lies in the store under that name, checked, synced
//! and renamed, so a file under its final name is whole; a person's files are used where they are and never copied.
//!
//! - [`Library`] is the store and the registry together: list, resolve, import, pull, verify, remove, roles and aliases.
//! - [`Watcher`] tells what edits of the configuration and the registry bring.
//! - [`ModelStore`] is the files, [`RegistryFile`] is `registry.json`.
//!
//! This crate must never map a model, print, or believe what a hub, another program's folder or a file says of itself.

mod atomic;
mod blobs;
mod digest;
mod embedded;
mod error;
mod import;
mod library;
mod lock;
mod progress;
mod pull;
mod registry;
mod split;
mod store;
mod watch;

pub use atomic::{remove_leftovers, write_whole};
pub use digest::{Digest, digest_of};
pub use embedded::{EMBEDDED_DIGEST, EMBEDDED_NAME};
pub use error::LibraryError;
pub use import::{Found, ImportError, Imported, OllamaLayers, Places};
pub use library::{Library, Listed, Located, ModelState, Removed};
pub use progress::{OnProgress, Progress, Stage};
pub use pull::{Hub, HubOptions, Patience, Pick, PlannedPart, PullError, PullPlan, PullSpec, Pulled, Token};
pub use registry::{RegistryError, RegistryFile};
pub use store::{ModelFile, ModelStore, StoreError};
pub use watch::{Rejection, Update, WatchError, Watcher};
