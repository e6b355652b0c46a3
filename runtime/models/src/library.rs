//! The models of a machine: what the registry says of them, and whether their files are there.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use locara_manifest::{
    Digest, ModelName, ModelPart, ModelSettings, RegisteredModel, Registry, Role, Source, Unresolved,
};
use tokio_util::sync::CancellationToken;

use crate::{
    EMBEDDED_DIGEST, EMBEDDED_NAME,
    error::LibraryError,
    progress::{Meter, OnProgress, Stage},
    registry::RegistryFile,
    store::{ModelFile, ModelStore, StoreError},
};

/// Whether a model can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// All files are there, as they were when they were hashed.
    Ready,
    /// The size is right and the time is not: it is hashed again before it is used.
    Unverified {
        /// The file.
        path: PathBuf,
    },
    /// A file is not there.
    Unavailable {
        /// The file.
        path: PathBuf,
        /// The first folder above it that is not there either.
        folder: Option<PathBuf>,
        /// When this process saw first that it is not there.
        since: SystemTime,
    },
    /// A file is another one.
    Changed {
        /// The file.
        path: PathBuf,
        /// Sizes or digests, expected and found.
        difference: String,
    },
}

/// A model of the registry, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its digest.
    pub digest: Digest,
    /// What answers call it.
    pub name: ModelName,
    /// Bytes of all files.
    pub bytes: u64,
    /// Its files, in order.
    pub files: Vec<PathBuf>,
    /// Whether the files lie in the store, and go with the model.
    pub owned: bool,
    /// Whether it can be used.
    pub state: ModelState,
    /// Whether the owner switched it off.
    pub disabled: bool,
    /// Roles and aliases that lead to it.
    pub words: Vec<String>,
    /// Where it came from; `None` for the embedded model, and for entries that do not say.
    pub source: Option<Source>,
    /// What the owner set for it.
    pub settings: ModelSettings,
}

/// A model that is there and may be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file that the engine opens: the first of several. The size is that of all.
    pub file: ModelFile,
    /// All files, in order.
    pub parts: Vec<PathBuf>,
    /// What the owner set for it.
    pub settings: ModelSettings,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The model; `None` if only a file of it was left in the store.
    pub name: Option<ModelName>,
    /// Bytes that are free again: those in the store. Files of others stay where they are.
    pub freed_bytes: u64,
    /// Files of others that are no longer used and still there.
    pub left: Vec<PathBuf>,
}

/// The store and the registry together: what the command line and the HTTP interface work with.
///
/// Everything that touches files blocks; asynchronous callers use `spawn_blocking`.
#[derive(Debug)]
pub struct Library {
    store: ModelStore,
    registry: RegistryFile,
    /// Files that are not there, and since when.
    absent: Mutex<BTreeMap<PathBuf, SystemTime>>,
}

impl Library {
    /// The models of `store` that `registry` knows.
    #[must_use]
    pub fn new(store: ModelStore, registry: RegistryFile) -> Self {
        Self { store, registry, absent: Mutex::default() }
    }

    /// Where the files are.
    #[must_use]
    pub fn store(&self) -> &ModelStore {
        &self.store
    }

    /// Which files there are.
    #[must_use]
    pub fn registry(&self) -> &RegistryFile {
        &self.registry
    }

    /// Every model, by name: those of the registry, and the embedded one.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, LibraryError> {
        let registry = self.registry.load()?;
        let mut all: Vec<Listed> = registry
            .models
            .iter()
            .map(|(digest, model)| Listed {
                digest: digest.clone(),
                name: model.name.clone(),
                bytes: model.bytes(),
                files: self.files(digest, model),
                owned: model.files.iter().all(|part| part.path.is_none()),
                state: self.state(digest, model),
                disabled: model.disabled,
                words: registry.names_of(digest).into_iter().map(str::to_owned).collect(),
                source: model.source.clone(),
                settings: model.settings.clone(),
            })
            .collect();
        if let Ok(digest) = EMBEDDED_DIGEST.parse::<Digest>()
            && !registry.models.contains_key(&digest)
        {
            let file = self.store.embedded()?;
            all.push(Listed {
                digest,
                name: ModelName::from_text(EMBEDDED_NAME),
                bytes: file.bytes,
                files: vec![file.path],
                owned: true,
                state: ModelState::Ready,
                disabled: false,
                words: Vec::new(),
                source: None,
                settings: ModelSettings::default(),
            });
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Models that lie in the store and that the registry does not know, with their sizes in bytes: what a download that
    /// was killed in its last step left, or an edit of the registry. [`Library::remove`] takes their digests.
    ///
    /// # Errors
    /// The registry or the store cannot be read.
    pub fn unregistered(&self) -> Result<Vec<(Digest, u64)>, LibraryError> {
        let registry = self.registry.load()?;
        let blobs = self.store.blobs();
        let all = blobs.all().map_err(|source| StoreError::Io {
            what: "list the models in",
            path: self.store.root().to_owned(),
            source,
        })?;
        let unknown = all.into_iter().filter(|digest| !registry.models.contains_key(digest));
        Ok(unknown.map(|digest| (digest.clone(), blobs.bytes(&digest))).collect())
    }

    /// The model that a word means, if its files are there and are what they were. A file whose time changed is hashed
    /// again, which takes about a second for a gigabyte.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn resolve(&self, word: &str) -> Result<Located, LibraryError> {
        let registry = self.registry.load()?;
        match registry.resolve(word) {
            Ok(found) => self.locate(found.digest, found.model),
            Err(Unresolved::Unknown { .. }) if is_embedded(word) => {
                let file = self.store.embedded()?;
                Ok(Located { parts: vec![file.path.clone()], file, settings: ModelSettings::default() })
            }
            Err(unresolved) => Err(unresolved.into()),
        }
    }

    fn locate(&self, digest: &Digest, model: &RegisteredModel) -> Result<Located, LibraryError> {
        let name = model.name.clone();
        // Hashing one part makes the next one the first that is unverified.
        loop {
            match self.state(digest, model) {
                ModelState::Ready => break,
                ModelState::Unverified { path } => {
                    let failed = |source| StoreError::Io { what: "read", path: path.clone(), source };
                    self.store.digest_of_file(&path, &mut |_| {}, &CancellationToken::new()).map_err(failed)?;
                    if self.state(digest, model) == (ModelState::Unverified { path: path.clone() }) {
                        let difference = "somebody is writing to it".to_owned();
                        return Err(LibraryError::Changed { name, path, difference });
                    }
                }
                ModelState::Unavailable { path, folder, since } => {
                    return Err(LibraryError::Unavailable { name, path, folder, since });
                }
                ModelState::Changed { path, difference } => {
                    return Err(LibraryError::Changed { name, path, difference });
                }
            }
        }
        let parts = self.files(digest, model);
        let path = parts.first().cloned().unwrap_or_default(); // a registry has no model without files
        let file = ModelFile { path, digest: digest.to_string(), name: name.to_string(), bytes: model.bytes() };
        Ok(Located { file, parts, settings: model.settings.clone() })
    }

    /// Where the files of a model are, in order.
    fn files(&self, digest: &Digest, model: &RegisteredModel) -> Vec<PathBuf> {
        let count = model.files.len() as u32; // at most 1024
        let place = |(number, part): (u32, &ModelPart)| match &part.path {
            Some(path) => PathBuf::from(path),
            None => self.store.blobs().path(digest, number, count),
        };
        (1..=count).zip(&model.files).map(place).collect()
    }

    /// How the files of a model are, from their sizes and times alone.
    pub(crate) fn state(&self, digest: &Digest, model: &RegisteredModel) -> ModelState {
        let mut unverified = None;
        for (path, part) in self.files(digest, model).into_iter().zip(&model.files) {
            let metadata = match fs_err::metadata(&path) {
                Ok(metadata) => metadata,
                // Whatever the reason: a broken link, a folder without access, a volume that hangs in the air.
                Err(_) => return self.unavailable(path),
            };
            self.absent().remove(&path);
            if metadata.len() != part.bytes {
                let difference = format!("it has {} bytes, expected {}", metadata.len(), part.bytes);
                return ModelState::Changed { path, difference };
            }
            if part.path.is_none() {
                continue; // under its final name in the store it is whole
            }
            match self.store.remembered(&path, &metadata) {
                Some(found) if found == part.sha256.as_str() => {}
                Some(found) => {
                    let difference = format!("its SHA-256 is {found}, expected {}", part.sha256);
                    return ModelState::Changed { path, difference };
                }
                None => unverified = unverified.or(Some(path)),
            }
        }
        unverified.map_or(ModelState::Ready, |path| ModelState::Unverified { path })
    }

    fn unavailable(&self, path: PathBuf) -> ModelState {
        let since = *self.absent().entry(path.clone()).or_insert_with(SystemTime::now);
        let gone = path.ancestors().skip(1).take_while(|folder| !folder.exists()).last();
        ModelState::Unavailable { folder: gone.map(std::path::Path::to_owned), path, since }
    }

    fn absent(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, SystemTime>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner) // a map of times is right after any panic
    }

    /// Reads every byte of a model and compares it with what the registry says. A file of the store that is damaged is
    /// deleted, so that nobody uses it.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn verify(
        &self,
        word: &str,
        on_progress: &OnProgress<'_>,
        cancel: &CancellationToken,
    ) -> Result<Listed, LibraryError> {
        let registry = self.registry.load()?;
        let found = registry.follow(word)?;
        let (digest, model) = (found.digest, found.model);
        if let ModelState::Unavailable { path, folder, since } = self.state(digest, model) {
            return Err(LibraryError::Unavailable { name: model.name.clone(), path, folder, since });
        }
        let meter = Meter::new(model.bytes(), Stage::Verifying, on_progress);
        for (path, part) in self.files(digest, model).into_iter().zip(&model.files) {
            let hashed = self.store.digest_of_file_again(&path, &mut |bytes| meter.advance(bytes), cancel);
            let found = match hashed {
                Err(_) if cancel.is_cancelled() => return Err(LibraryError::Cancelled),
                Err(source) => return Err(StoreError::Io { what: "read", path, source }.into()),
                Ok(found) => found,
            };
            if found == part.sha256.as_str() {
                continue;
            }
            let name = model.name.clone();
            if part.path.is_some() {
                let difference = format!("its SHA-256 is {found}, expected {}", part.sha256);
                return Err(LibraryError::Changed { name, path, difference });
            }
            fs_err::remove_file(&path).map_err(|source| StoreError::Io { what: "delete the damaged", path, source })?;
            return Err(LibraryError::Damaged { name, found, expected: part.sha256.clone() });
        }
        meter.finish();
        let digest = digest.clone();
        let listed = self.list()?.into_iter().find(|listed| listed.digest == digest);
        listed.ok_or_else(|| Unresolved::Unknown { asked: word.to_owned(), suggestions: Vec::new() }.into())
    }

    /// Forgets a model, and deletes its files if they lie in the store. Files of others are left alone. While roles or
    /// aliases lead to it, only with `force`, and then these go too.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn remove(&self, word: &str, force: bool) -> Result<Removed, LibraryError> {
        let outcome = self.registry.update(|registry| {
            let (digest, model) = match registry.follow(word) {
                Ok(found) => (found.digest.clone(), found.model.clone()),
                Err(_) if is_embedded(word) => return Err(LibraryError::BuiltIn),
                Err(unresolved) => match self.unregistered_digest(word) {
                    Some(digest) => return Ok((digest, None)),
                    None => return Err(unresolved.into()),
                },
            };
            let words: Vec<String> = registry.names_of(&digest).into_iter().map(str::to_owned).collect();
            if !words.is_empty() && !force {
                return Err(LibraryError::InUse { name: model.name, words });
            }
            registry.remove(&digest);
            Ok((digest, Some(model)))
        });
        // The registry first: killed in between, a file is left that nobody uses, and never a name without a file.
        let (digest, model) = outcome?;
        let blobs = self.store.blobs();
        let freed_bytes = blobs.bytes(&digest);
        let failed = |source| StoreError::Io { what: "delete", path: blobs.place(&digest), source };
        blobs.remove(&digest).map_err(failed)?;
        let paths = model.iter().flat_map(|model| &model.files).filter_map(|part| part.path.as_ref());
        let left = paths.map(PathBuf::from).filter(|path| path.exists()).collect();
        Ok(Removed { name: model.map(|model| model.name), freed_bytes, left })
    }

    /// The digest of a file in the store that the registry does not know.
    fn unregistered_digest(&self, word: &str) -> Option<Digest> {
        let digest = word.strip_prefix("sha256:").unwrap_or(word).parse().ok()?;
        self.store.blobs().place(&digest).exists().then_some(digest)
    }

    /// Gives a role to the model that a word means. The word of another role or an alias is kept as such, so that the
    /// role follows it.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn set_role(&self, role: &Role, word: &str) -> Result<(), LibraryError> {
        self.registry.update(|registry| {
            let target = target(registry, word)?;
            registry.roles.insert(role.clone(), target);
            Ok(())
        })
    }

    /// Takes a role away from whoever plays it. Whether somebody did.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn unset_role(&self, role: &Role) -> Result<bool, LibraryError> {
        self.registry.update(|registry| Ok(registry.roles.remove(role).is_some()))
    }

    /// Makes `alias` stand for what a word means, like [`Library::set_role`].
    ///
    /// # Errors
    /// [`LibraryError`]; the alias may mean something else already.
    pub fn set_alias(&self, alias: &ModelName, word: &str) -> Result<(), LibraryError> {
        self.registry.update(|registry| {
            let target = target(registry, word)?;
            registry.aliases.insert(alias.clone(), target);
            Ok(())
        })
    }

    /// Takes an alias away. Whether there was one.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn unset_alias(&self, alias: &ModelName) -> Result<bool, LibraryError> {
        self.registry.update(|registry| Ok(registry.aliases.remove(alias).is_some()))
    }

    /// Changes the entry of a model: its settings, its name, whether it is disabled.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn change(&self, word: &str, change: impl FnOnce(&mut RegisteredModel)) -> Result<(), LibraryError> {
        self.registry.update(|registry| {
            let digest = registry.follow(word)?.digest.clone();
            if let Some(model) = registry.models.get_mut(&digest) {
                change(model);
            }
            Ok(())
        })
    }

    /// Enters a model, or the new places of the files of a known one, whose name and settings stay.
    pub(crate) fn enter(
        &self,
        digest: &Digest,
        wanted: &ModelName,
        files: Vec<ModelPart>,
        source: Source,
    ) -> Result<ModelName, LibraryError> {
        self.registry.update(|registry| {
            if let Some(model) = registry.models.get_mut(digest) {
                model.files = files;
                model.source = Some(source);
                return Ok(model.name.clone());
            }
            let name = registry.free_name(wanted, digest);
            let settings = ModelSettings::default();
            let model = RegisteredModel { name: name.clone(), files, source: Some(source), disabled: false, settings };
            registry.models.insert(digest.clone(), model);
            Ok(name)
        })
    }
}

/// What a registry notes for a word: roles and aliases as they are, everything else as the name of the model.
fn target(registry: &Registry, word: &str) -> Result<ModelName, LibraryError> {
    let found = registry.follow(word)?;
    let is_word = registry.roles.keys().any(|role| role.as_str() == word)
        || registry.aliases.keys().any(|alias| alias.as_str() == word);
    Ok(if is_word { ModelName::from_text(word) } else { found.model.name.clone() })
}

fn is_embedded(word: &str) -> bool {
    word == EMBEDDED_NAME || word.strip_prefix("sha256:").unwrap_or(word) == EMBEDDED_DIGEST
}
