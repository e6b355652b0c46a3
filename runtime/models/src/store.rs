//! The model store on disk.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    atomic::{remove_leftovers, write_whole},
    blobs::Blobs,
    digest::{Digest, digest_of, digest_of_bytes, hash},
    embedded::{EMBEDDED, EMBEDDED_DIGEST, EMBEDDED_NAME},
};

/// A model file that is there, and whose digest was computed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// How people call it.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Why a model is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The OS says no.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A named file is not there. Volumes come and go, so this is a state and not a fault.
    #[error("there is no model file at {}; is the volume attached?", .0.display())]
    Missing(PathBuf),
    /// The bytes inside the binary are not the ones that were built in.
    #[error("the embedded model is damaged: its digest is {found}, expected {expected}; reinstall locara")]
    Damaged {
        /// What was computed.
        found: Digest,
        /// What is pinned.
        expected: Digest,
    },
}

/// What the store remembers of files, so that they need not be read again. Keyed by absolute path.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    /// Files by path.
    files: BTreeMap<String, KnownFile>,
    /// Digests that were opened without harm, each with the engine builds that opened them.
    vetted: BTreeMap<Digest, Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownFile {
    bytes: u64,
    /// Modification time, nanoseconds since the epoch.
    modified_ns: u128,
    digest: Digest,
}

/// Engine builds that are remembered for one digest.
const MAX_BUILDS: usize = 8;
/// Files that are remembered: more than one model has parts.
const MAX_FILES: usize = 4096;

/// Model files of the host, under one folder.
#[derive(Debug)]
pub struct ModelStore {
    root: PathBuf,
    blobs: Blobs,
}

impl ModelStore {
    /// A store in `root`; the folder is made.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        fs_err::create_dir_all(&root).map_err(|source| StoreError::Io {
            what: "make the model folder",
            path: root.clone(),
            source,
        })?;
        remove_leftovers(&root);
        let blobs = Blobs::open(&root)?;
        Ok(Self { root, blobs })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the host downloaded.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The embedded model as a file, so that it is mapped like any other. Written on first use and whenever it is not whole.
    ///
    /// # Errors
    /// No space, or a damaged binary.
    pub fn embedded(&self) -> Result<ModelFile, StoreError> {
        let path = self.root.join(format!("{EMBEDDED_DIGEST}.gguf"));
        let file = ModelFile {
            path: path.clone(),
            digest: EMBEDDED_DIGEST.to_owned(),
            name: EMBEDDED_NAME.to_owned(),
            bytes: EMBEDDED.len() as u64,
        };
        if digest_of(&path).is_ok_and(|found| found == EMBEDDED_DIGEST) {
            return Ok(file);
        }
        let found = digest_of_bytes(EMBEDDED);
        if found != EMBEDDED_DIGEST {
            return Err(StoreError::Damaged { found, expected: EMBEDDED_DIGEST.to_owned() });
        }
        write_whole(&path, EMBEDDED).map_err(|source| StoreError::Io {
            what: "write the embedded model to",
            path,
            source,
        })?;
        Ok(file)
    }

    /// A file that a person names, used where it is. Its digest is computed once and remembered with size and time.
    ///
    /// # Errors
    /// The file is missing or unreadable.
    pub fn adopt(&self, path: &Path) -> Result<ModelFile, StoreError> {
        let io = |what| move |source| StoreError::Io { what, path: path.to_owned(), source };
        let absolute = match fs_err::canonicalize(path) {
            Ok(absolute) => absolute,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing(path.to_owned())),
            Err(error) => return Err(io("find")(error)),
        };
        let name = absolute.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let (digest, bytes) =
            self.digest_of_file(&absolute, &mut |_| {}, &CancellationToken::new()).map_err(io("read"))?;
        Ok(ModelFile { path: absolute, digest, name, bytes })
    }

    /// The digest and the size of a file, remembered from the last time if size and modification time are still the same.
    /// `done` is told how many bytes more are through, hashed or remembered.
    ///
    /// # Errors
    /// The file cannot be read, or [`io::ErrorKind::Interrupted`] after cancellation.
    pub(crate) fn digest_of_file(
        &self,
        path: &Path,
        done: &mut dyn FnMut(u64),
        cancel: &CancellationToken,
    ) -> io::Result<(Digest, u64)> {
        let metadata = fs_err::metadata(path)?;
        if let Some(digest) = self.remembered(path, &metadata) {
            done(metadata.len());
            return Ok((digest, metadata.len()));
        }
        Ok((self.digest_of_file_again(path, done, cancel)?, metadata.len()))
    }

    /// The digest of a file from its bytes, whatever is remembered of it.
    ///
    /// # Errors
    /// Those of [`ModelStore::digest_of_file`].
    pub(crate) fn digest_of_file_again(
        &self,
        path: &Path,
        done: &mut dyn FnMut(u64),
        cancel: &CancellationToken,
    ) -> io::Result<Digest> {
        let before = fs_err::metadata(path)?;
        let digest = hash(path, done, cancel)?.to_string();
        let after = fs_err::metadata(path)?;
        // What somebody wrote to meanwhile has a digest that nobody knows the moment of.
        if stamp(&after) == stamp(&before) {
            self.remember_file(path, &after, &digest);
        }
        Ok(digest)
    }

    /// The digest of a file that was hashed before and has not changed since, as far as size and time tell.
    pub(crate) fn remembered(&self, path: &Path, metadata: &Metadata) -> Option<Digest> {
        let known = self.known();
        let seen = known.files.get(path.to_string_lossy().as_ref())?;
        ((seen.bytes, seen.modified_ns) == stamp(metadata)).then(|| seen.digest.clone())
    }

    fn remember_file(&self, path: &Path, metadata: &Metadata, digest: &str) {
        let mut known = self.known();
        if known.files.len() >= MAX_FILES {
            known.files.clear();
        }
        let (bytes, modified_ns) = stamp(metadata);
        let file = KnownFile { bytes, modified_ns, digest: digest.to_owned() };
        known.files.insert(path.to_string_lossy().into_owned(), file);
        self.remember(&known);
    }

    /// Whether this engine build has opened this model before and lived. The embedded model is trusted: it was built in.
    #[must_use]
    pub fn is_vetted(&self, digest: &str, engine_build: &str) -> bool {
        digest == EMBEDDED_DIGEST
            || self.known().vetted.get(digest).is_some_and(|builds| builds.iter().any(|build| build == engine_build))
    }

    /// Notes that it has.
    pub fn vet(&self, digest: &str, engine_build: &str) {
        let mut known = self.known();
        let builds = known.vetted.entry(digest.to_owned()).or_default();
        if !builds.iter().any(|build| build == engine_build) {
            if builds.len() >= MAX_BUILDS {
                builds.remove(0);
            }
            builds.push(engine_build.to_owned());
        }
        self.remember(&known);
    }

    fn known_path(&self) -> PathBuf {
        self.root.join("known.json")
    }

    /// What is remembered; a damaged memory is an empty one, since everything in it can be computed again.
    fn known(&self) -> Known {
        fs_err::read(self.known_path()).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Best effort: forgetting costs time, not correctness.
    fn remember(&self, known: &Known) {
        if let Ok(text) = serde_json::to_vec_pretty(known) {
            let _ = write_whole(&self.known_path(), &text);
        }
    }
}

/// What changes when a file changes: size, and modification time in nanoseconds since the epoch.
fn stamp(metadata: &Metadata) -> (u64, u128) {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), since.map_or(0, |since| since.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_model_is_written_once_and_mended_when_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::open(folder.path()).unwrap();
        let model = store.embedded().unwrap();
        assert_eq!(digest_of(&model.path).unwrap(), EMBEDDED_DIGEST);
        let written = fs_err::metadata(&model.path).unwrap().modified().unwrap();
        assert_eq!(store.embedded().unwrap(), model);
        assert_eq!(fs_err::metadata(&model.path).unwrap().modified().unwrap(), written, "a whole file is left alone");

        fs_err::write(&model.path, b"half").unwrap();
        store.embedded().unwrap();
        assert_eq!(digest_of(&model.path).unwrap(), EMBEDDED_DIGEST);
        let names: Vec<_> = fs_err::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
    }

    #[test]
    fn leftovers_of_killed_writers_are_removed_and_those_of_living_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let living = folder.path().join(format!(".a.gguf.{}.tmp", std::process::id()));
        // Above every limit on process ids, so nobody has it.
        let killed = folder.path().join(format!(".a.gguf.{}.tmp", i32::MAX));
        for path in [&living, &killed] {
            fs_err::write(path, b"half").unwrap();
        }
        ModelStore::open(folder.path()).unwrap();
        assert!(living.exists() && !killed.exists());
    }

    #[test]
    fn an_adopted_file_is_known_by_its_content_and_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::open(folder.path().join("store")).unwrap();
        let path = folder.path().join("mine.gguf");
        fs_err::write(&path, b"one").unwrap();
        let one = store.adopt(&path).unwrap();
        assert_eq!((one.name.as_str(), one.bytes), ("mine", 3));
        assert_eq!(store.adopt(&path).unwrap(), one);
        fs_err::write(&path, b"three").unwrap();
        let three = store.adopt(&path).unwrap();
        assert_ne!(three.digest, one.digest);
        assert_eq!(three.digest, digest_of_bytes(b"three"));
    }

    #[test]
    fn a_missing_volume_is_a_state_with_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::open(folder.path()).unwrap();
        let error = store.adopt(Path::new("/nonexistent/volume/model.gguf")).unwrap_err();
        assert!(matches!(error, StoreError::Missing(_)), "{error}");
    }

    #[test]
    fn vetting_holds_for_the_build_that_did_it_and_survives_a_damaged_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::open(folder.path()).unwrap();
        assert!(!store.is_vetted("d", "build 1"));
        store.vet("d", "build 1");
        assert!(store.is_vetted("d", "build 1") && !store.is_vetted("d", "build 2"));
        assert!(store.is_vetted(EMBEDDED_DIGEST, "any"));
        fs_err::write(folder.path().join("known.json"), b"{").unwrap();
        assert!(!store.is_vetted("d", "build 1"));
    }
}
