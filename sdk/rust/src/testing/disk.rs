//! Storage, files and output of a scripted run, in memory.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::world::World;
use crate::Error;
use crate::files::{Entry, Kind};

/// A denial that names the line which would grant it.
pub(super) fn denied(capability: &str, what: &str, line: &str) -> Error {
    Error::Denied {
        capability: capability.into(),
        reason: format!("{what} in this test's script"),
        remedy: format!("Add {line} to the script, and the capability to the manifest"),
    }
}

/// The key-value store.
pub(crate) struct Storage {
    quota: u64,
    entries: BTreeMap<String, Vec<u8>>,
}

impl Storage {
    pub(super) fn new(quota: u64) -> Self {
        Self { quota, entries: BTreeMap::new() }
    }

    pub(super) fn into_entries(self) -> BTreeMap<String, Vec<u8>> {
        self.entries
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    pub(crate) fn set(&mut self, key: &str, value: &[u8]) -> Result<(), Error> {
        let old = self.entries.get(key).map_or(0, |old| key.len() + old.len());
        let (used, quota) = self.usage();
        let needed = used - old as u64 + (key.len() + value.len()) as u64;
        if needed > quota {
            return Err(Error::QuotaExceeded(format!("storage: {needed} bytes with `{key}`, {quota} allowed")));
        }
        self.entries.insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &str) -> bool {
        self.entries.remove(key).is_some()
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.entries.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub(crate) fn usage(&self) -> (u64, u64) {
        let used = self.entries.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        (used, self.quota)
    }
}

/// The granted folders and their files.
#[derive(Default)]
pub(crate) struct Files {
    folders: Vec<(String, bool)>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Files {
    pub(super) fn new(folders: Vec<(String, bool)>, files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { folders, files }
    }

    pub(super) fn into_files(self) -> BTreeMap<String, Vec<u8>> {
        self.files
    }

    pub(super) fn folders(&self) -> Vec<(String, bool)> {
        self.folders.clone()
    }

    /// Whether `path` is a granted folder or inside one.
    fn check(&self, path: &str, write: bool) -> Result<(), Error> {
        let climbs = path.split('/').any(|part| part == "..");
        let granted = self.folders.iter().any(|(folder, writable)| {
            let inside =
                path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            inside && (*writable || !write)
        });
        if granted && !climbs {
            return Ok(());
        }
        let access = if write { "writing to" } else { "reading" };
        Err(denied("capabilities.folders", &format!("{access} `{path}` is not granted"), ".folder(path, writable)"))
    }

    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.check(path, false)?;
        self.files.get(path).cloned().ok_or_else(|| Error::NotFound(path.to_owned()))
    }

    pub(super) fn write(&mut self, path: &str, content: Vec<u8>) -> Result<(), Error> {
        self.check(path, true)?;
        self.files.insert(path.to_owned(), content);
        Ok(())
    }

    pub(super) fn entries(&self, path: &str) -> Result<Vec<Entry>, Error> {
        self.check(path, false)?;
        let mut entries: BTreeMap<&str, Entry> = BTreeMap::new();
        for (file, content) in &self.files {
            let Some(rest) = file.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')) else { continue };
            let (name, kind, size) = match rest.split_once('/') {
                Some((folder, _)) => (folder, Kind::Folder, 0),
                None => (rest, Kind::File, content.len() as u64),
            };
            entries.insert(name, Entry { name: name.to_owned(), kind, size });
        }
        Ok(entries.into_values().collect())
    }
}

/// Where written bytes go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// The output of the app.
    Output { world: Rc<World>, taken: u64, full: bool },
    /// A file, which appears as a whole at the end.
    File { world: Rc<World>, path: String, content: Vec<u8> },
}

impl Sink {
    /// Whether the bytes were taken.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Output { world, taken, full } => {
                *full |= !world.take_output(bytes, *taken);
                if !*full {
                    *taken += bytes.len() as u64;
                }
                !*full
            }
            Self::File { content, .. } => {
                content.extend_from_slice(bytes);
                true
            }
        }
    }

    /// How it went.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        match self {
            Self::Output { full: false, .. } => Ok(()),
            Self::Output { taken, .. } => {
                Err(Error::QuotaExceeded(format!("the output limit of this test's script, after {taken} bytes")))
            }
            Self::File { world, path, content } => world.files.borrow_mut().write(path, std::mem::take(content)),
        }
    }
}
