//! `registry.json` on disk: read, changed under a lock, written whole.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use locara_manifest::{Diagnosis, Registry};

use crate::{atomic::write_whole, lock::FileLock};

/// How long a writer waits for another one, which needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the registry cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The OS says no.
    #[error("cannot {what} the registry {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody edited it and made a mistake. Nothing was changed.
    #[error("the registry {} is not to be read; mend it or move it away, nothing was changed", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every problem with its place.
        #[source]
        diagnosis: Box<Diagnosis>,
    },
    /// The change would leave a registry that cannot be read. Nothing was changed.
    #[error("{}; nothing was changed", first_problem(.0))]
    Refused(Box<Diagnosis>),
    /// Another process holds the registry.
    #[error(
        "another process has held the registry {} for more than {} s; is a `locara` stopped somewhere? Nothing was changed",
        path.display(), PATIENCE.as_secs()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
}

fn first_problem(diagnosis: &Diagnosis) -> String {
    diagnosis.problems().first().map_or_else(|| diagnosis.to_string(), |problem| format!("{problem}; {}", problem.fix))
}

/// The file of the registry.
#[derive(Debug, Clone)]
pub struct RegistryFile {
    path: PathBuf,
    /// What holds whatever the file says by now; see [`RegistryFile::hold`].
    held: Arc<Mutex<Option<Registry>>>,
}

impl RegistryFile {
    /// The registry at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), held: Arc::default() }
    }

    /// From now on [`RegistryFile::load`] answers this and reads nothing, here and in clones. A host that runs holds what it
    /// has understood last ([`Watcher`](crate::Watcher)): a bad edit then changes nothing.
    pub fn hold(&self, registry: Registry) {
        *self.held() = Some(registry);
    }

    fn held(&self) -> MutexGuard<'_, Option<Registry>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner) // it is replaced as a whole
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says, or what is held. A file that is not there says nothing.
    ///
    /// # Errors
    /// It cannot be read, or not understood.
    pub fn load(&self) -> Result<Registry, RegistryError> {
        if let Some(held) = &*self.held() {
            return Ok(held.clone());
        }
        self.read()
    }

    fn read(&self) -> Result<Registry, RegistryError> {
        let bytes = match fs_err::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Registry::default()),
            Err(source) => return Err(self.failed("read")(source)),
        };
        Registry::parse(&self.path.display().to_string(), bytes)
            .map_err(|diagnosis| RegistryError::Invalid { path: self.path.clone(), diagnosis: Box::new(diagnosis) })
    }

    /// Changes what it says, with everybody else kept out between reading and writing. An unchanged registry is not
    /// written; one that could not be read again is refused.
    ///
    /// # Errors
    /// What `change` says, or the file cannot be locked, read, understood or written. Then it stays as it was.
    pub fn update<T, E: From<RegistryError>>(
        &self,
        change: impl FnOnce(&mut Registry) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.lock()?;
        let before = self.read()?;
        let mut after = before.clone();
        let value = change(&mut after)?;
        if after != before {
            let text = after.to_json();
            Registry::parse(&self.path.display().to_string(), &text)
                .map_err(|diagnosis| RegistryError::Refused(Box::new(diagnosis)))?;
            // A link keeps pointing at the file that it points at.
            let target = fs_err::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
            write_whole(&target, text.as_bytes()).map_err(self.failed("write"))?;
            if let Some(held) = &mut *self.held() {
                *held = after;
            }
        }
        Ok(value)
    }

    fn lock(&self) -> Result<FileLock, RegistryError> {
        if let Some(folder) = self.path.parent() {
            fs_err::create_dir_all(folder).map_err(self.failed("make the folder of"))?;
        }
        let name = format!(".{}.lock", self.path.file_name().unwrap_or_default().to_string_lossy());
        FileLock::take(&self.path.with_file_name(name), PATIENCE)
            .map_err(self.failed("lock"))?
            .ok_or_else(|| RegistryError::Busy { path: self.path.clone() })
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> RegistryError + '_ {
        move |source| RegistryError::Io { what, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use locara_manifest::{ModelPart, RegisteredModel};

    use super::*;

    fn add(registry: &mut Registry, name: &str) {
        let digest: locara_manifest::Digest = crate::digest::digest_of_bytes(name.as_bytes()).parse().unwrap();
        let files = vec![ModelPart { sha256: digest.clone(), bytes: 1, path: None }];
        let name = name.parse().unwrap();
        let model = RegisteredModel { name, files, source: None, disabled: false, settings: Default::default() };
        registry.models.insert(digest, model);
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = RegistryFile::new(folder.path().join("deep/registry.json"));
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for n in 0..10 {
                        file.update(|registry| {
                            add(registry, &format!("model-{writer}-{n}"));
                            Ok::<_, RegistryError>(())
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(file.load().unwrap().models.len(), 40);
    }

    #[test]
    fn a_registry_that_somebody_broke_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = RegistryFile::new(folder.path().join("registry.json"));
        let broken = "{\"registryVersion\": 1, \"models\": {}, \"futureKey\": {}}";
        fs_err::write(file.path(), broken).unwrap();
        let error = file.update(|_| Ok::<_, RegistryError>(())).unwrap_err();
        assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
        assert_eq!(fs_err::read_to_string(file.path()).unwrap(), broken);
    }

    #[test]
    fn what_is_held_outlives_a_bad_edit_and_follows_ones_own_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = RegistryFile::new(folder.path().join("registry.json"));
        file.hold(file.load().unwrap());
        let of_another = RegistryFile::new(file.path());
        let named = |name: &'static str| {
            move |registry: &mut Registry| {
                add(registry, name);
                Ok::<_, RegistryError>(())
            }
        };
        of_another.update(named("theirs")).unwrap();
        assert!(file.load().unwrap().models.is_empty(), "edits of others count when they are held");
        // A change goes on from what the file says, not from what is held.
        file.clone().update(named("ours")).unwrap();
        assert_eq!(file.load().unwrap().models.len(), 2);
        fs_err::write(file.path(), "{").unwrap();
        assert_eq!(file.load().unwrap().models.len(), 2);
        assert!(of_another.load().is_err());
        assert!(file.update(named("more")).is_err(), "a broken file is not written over");
    }

    #[test]
    fn a_change_that_makes_nonsense_is_refused_with_the_reason_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = RegistryFile::new(folder.path().join("registry.json"));
        file.update(|registry| {
            add(registry, "qwen");
            Ok::<_, RegistryError>(())
        })
        .unwrap();
        let before = fs_err::read(file.path()).unwrap();
        let error = file
            .update(|registry| {
                registry.aliases.insert("coding".parse().unwrap(), "qwen".parse().unwrap());
                Ok::<_, RegistryError>(())
            })
            .unwrap_err();
        assert!(error.to_string().contains("`coding` is a role already"), "{error}");
        assert_eq!(fs_err::read(file.path()).unwrap(), before);
        let names: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "the file and its lock: {names:?}");
    }

    #[test]
    fn an_unchanged_registry_is_not_written_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("dotfiles.json");
        fs_err::write(&real, "{\"models\": {},   \"registryVersion\": 1}").unwrap();
        let file = RegistryFile::new(folder.path().join("registry.json"));
        std::os::unix::fs::symlink(&real, file.path()).unwrap();
        file.update(|_| Ok::<_, RegistryError>(())).unwrap();
        assert!(fs_err::read_to_string(&real).unwrap().contains(",   "), "not even its white space changed");
        file.update(|registry| {
            add(registry, "qwen");
            Ok::<_, RegistryError>(())
        })
        .unwrap();
        assert!(fs_err::symlink_metadata(file.path()).unwrap().is_symlink());
        assert!(fs_err::read_to_string(&real).unwrap().contains("qwen"));
    }
}
