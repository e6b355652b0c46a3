//! Why something cannot be done with a model.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use locara_manifest::{Digest, ModelName, Unresolved};

use crate::{EMBEDDED_NAME, registry::RegistryError, store::StoreError};

/// Why something cannot be done with a model.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No model is meant, or too many.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// A file of the model is not there. Volumes come and go, so this is a state and not a fault.
    #[error("{name} is not available: {}", missing(.path, .folder.as_deref(), *.since))]
    Unavailable {
        /// The model.
        name: ModelName,
        /// The file that is not there.
        path: PathBuf,
        /// The first folder above it that is not there either: usually where a volume would be.
        folder: Option<PathBuf>,
        /// When this process saw first that it is not there.
        since: SystemTime,
    },
    /// The file is another one than the one that was imported.
    #[error("the file {} of {name} is not the one that was imported: {difference}; `locara rm {name}`, and import it again", path.display())]
    Changed {
        /// The model.
        name: ModelName,
        /// The file.
        path: PathBuf,
        /// Sizes or digests, expected and found.
        difference: String,
    },
    /// A blob of the host went bad. It was deleted.
    #[error(
        "the file of {name} in the store was damaged: its SHA-256 is {found}, expected {expected}; it was deleted, `locara pull` fetches it again"
    )]
    Damaged {
        /// The model.
        name: ModelName,
        /// What was computed.
        found: String,
        /// What the registry says.
        expected: Digest,
    },
    /// Roles or aliases lead to the model.
    #[error("{name} is in use as {}; give these another model first, or remove it with `--force`, which takes the words too", .words.join(", "))]
    InUse {
        /// The model.
        name: ModelName,
        /// The roles and aliases.
        words: Vec<String>,
    },
    /// The embedded model.
    #[error("{EMBEDDED_NAME} is built into locara; there is nothing to remove or to set")]
    BuiltIn,
    /// The person stopped it.
    #[error("stopped; nothing was changed")]
    Cancelled,
}

fn missing(path: &Path, folder: Option<&Path>, since: SystemTime) -> String {
    let seconds = since.elapsed().map_or(0, |elapsed| elapsed.as_secs());
    match folder {
        Some(folder) => format!(
            "the folder {} is not there (noticed {seconds} s ago); attach the volume, the file is {}",
            folder.display(),
            path.display()
        ),
        None => format!("there is no file {} (noticed {seconds} s ago); put it back or pull it again", path.display()),
    }
}
