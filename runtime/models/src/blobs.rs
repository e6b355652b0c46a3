//! The host's own copies of model files, and downloads that are not whole yet.
//!
//! `blobs/sha256-…` is a model in one file, or the folder of a model in several. Whatever has its final name there is whole:
//! it was checked and synced before it was renamed. `partial/` holds the rest, and nothing of it is ever served.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use locara_manifest::Digest;

use crate::{atomic::remove_leftovers, lock::FileLock, split::part_name, store::StoreError};

/// A download that nobody went on with for so long is given up.
const FORGOTTEN: Duration = Duration::from_secs(14 * 24 * 3600);

/// The two folders.
#[derive(Debug)]
pub(crate) struct Blobs {
    blobs: PathBuf,
    partial: PathBuf,
}

impl Blobs {
    /// The folders below `root`. They are made, and cleared of what was left behind.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let folders = Self { blobs: root.join("blobs"), partial: root.join("partial") };
        for folder in [&folders.blobs, &folders.partial] {
            fs_err::create_dir_all(folder).map_err(|source| StoreError::Io {
                what: "make the model folder",
                path: folder.clone(),
                source,
            })?;
            remove_leftovers(folder);
        }
        folders.forget(SystemTime::now());
        Ok(folders)
    }

    /// Where part `number` (from 1) of `count` of a model lies, whether it is there or not.
    pub(crate) fn path(&self, model: &Digest, number: u32, count: u32) -> PathBuf {
        let place = self.place(model);
        if count == 1 { place } else { place.join(part_name("model", number, count)) }
    }

    /// The file or folder of a model.
    pub(crate) fn place(&self, model: &Digest) -> PathBuf {
        self.blobs.join(format!("sha256-{model}"))
    }

    /// Where downloads lie that are not whole yet.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }

    /// Models that lie here, whether anybody knows them or not.
    pub(crate) fn all(&self) -> io::Result<Vec<Digest>> {
        let names = fs_err::read_dir(&self.blobs)?.map(|entry| entry.map(|entry| entry.file_name()));
        let digests = names.filter_map(|name| match name {
            Ok(name) => name.to_str()?.strip_prefix("sha256-")?.parse().ok().map(Ok),
            Err(error) => Some(Err(error)),
        });
        digests.collect()
    }

    /// Bytes that a model takes here; 0 if it does not lie here.
    pub(crate) fn bytes(&self, model: &Digest) -> u64 {
        let place = self.place(model);
        let Ok(metadata) = fs_err::metadata(&place) else { return 0 };
        if metadata.is_file() {
            return metadata.len();
        }
        let Ok(entries) = fs_err::read_dir(&place) else { return 0 };
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Deletes a model. One that is mapped stays in memory until it is unmapped; that is what files do.
    pub(crate) fn remove(&self, model: &Digest) -> io::Result<()> {
        let place = self.place(model);
        match fs_err::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_dir() => fs_err::remove_dir_all(&place),
            Ok(_) => fs_err::remove_file(&place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes downloads that nobody went on with. Best effort.
    fn forget(&self, now: SystemTime) {
        let Ok(entries) = fs_err::read_dir(&self.partial) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let old = age.and_then(|time| now.duration_since(time).ok()).is_some_and(|age| age > FORGOTTEN);
            if !old || path.extension().is_none_or(|ending| ending != "part") {
                continue;
            }
            // Somebody may just have gone on with it.
            if let Ok(Some(lock)) = FileLock::attempt(&path.with_extension("lock")) {
                let _ = fs_err::remove_file(&path);
                let _ = fs_err::remove_file(path.with_extension("json"));
                lock.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_downloads_go_and_young_or_running_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let old = SystemTime::now() - FORGOTTEN - Duration::from_secs(60);
        let write = |name: &str, time: SystemTime| {
            let path = blobs.partial().join(name);
            fs_err::write(&path, b"half").unwrap();
            fs_err::OpenOptions::new().write(true).open(&path).unwrap().file().set_modified(time).unwrap();
            path
        };
        let forgotten = write("a.part", old);
        let sidecar = write("a.json", old);
        let young = write("b.part", SystemTime::now());
        let running = write("c.part", old);
        let _held = FileLock::attempt(&running.with_extension("lock")).unwrap().unwrap();
        Blobs::open(folder.path()).unwrap();
        assert!(!forgotten.exists() && !sidecar.exists());
        assert!(young.exists() && running.exists());
    }
}
