//! Compiled components on disk, so that starting an app costs a mapping of a file and not a compilation.
//!
//! Compiled code is native machine code: whoever can write it can run anything as this user. Therefore the folder
//! belongs to the user and is closed to others, only files that this module wrote are loaded, and each is checked
//! against the digest that was stored beside it before it is mapped. It is mapped, not read: code that is not used costs
//! no memory, and pages of a file are given back under pressure without swap.
//!
//! The key is (SHA-256 of the component, compatibility hash of the wasmtime build): another wasmtime, CPU or setting is
//! another file. Files are written to a temporary name, synced and renamed, so a crash leaves the old state.

use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::CacheError;

/// Read at once while a file is verified.
const CHUNK: usize = 256 << 10;

/// The folder and the part of the key that belongs to this build.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    build: String,
}

impl Cache {
    /// Opens the folder, makes it (mode 0700) where it is missing.
    pub(crate) fn open(dir: &Path, engine: &Engine) -> Result<Self, CacheError> {
        if let Some(parent) = dir.parent() {
            fs_err::create_dir_all(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let meta = fs_err::symlink_metadata(dir)?;
        let problem = if !meta.is_dir() {
            Some("is not a folder".to_owned())
        } else if meta.uid() != rustix::process::geteuid().as_raw() {
            Some(format!("belongs to user {}", meta.uid()))
        } else if meta.permissions().mode() & 0o077 != 0 {
            Some(format!("has mode {:04o}", meta.permissions().mode() & 0o7777))
        } else {
            None
        };
        if let Some(found) = problem {
            return Err(CacheError::Open { path: dir.to_owned(), found });
        }
        let mut hasher = ShaHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir: dir.to_owned(), build: hex(&hasher.0.finalize()[..8]) })
    }

    /// The compiled form of the component with this digest, if it is there and whole.
    ///
    /// # Errors
    /// The file system's. A file that is damaged is removed and counts as absent.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Result<Option<Component>, CacheError> {
        let path = self.path(digest);
        let (Some(file), Some(expected)) = (open(&path)?, read(&sidecar(&path))?) else { return Ok(None) };
        let loaded = if sha256_of(file)? == expected {
            map(engine, &path)
        } else {
            Err(wasmtime::Error::msg("its digest is not the one that was stored with it"))
        };
        match loaded {
            Ok(component) => Ok(Some(component)),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "removing a damaged file from the cache of compiled apps");
                self.remove(digest)?;
                Ok(None)
            }
        }
    }

    /// Stores what `Engine::precompile_component` made of the component with this digest.
    pub(crate) fn store(&self, digest: &str, compiled: &[u8]) -> Result<(), CacheError> {
        let path = self.path(digest);
        // The digest last: without it the file does not count.
        self.remove(digest)?;
        self.write(&path, compiled)?;
        self.write(&sidecar(&path), hex(&Sha256::digest(compiled)).as_bytes())
    }

    /// Forgets the compiled form.
    pub(crate) fn remove(&self, digest: &str) -> Result<(), CacheError> {
        let path = self.path(digest);
        for path in [sidecar(&path), path] {
            match fs_err::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        fs_err::File::open(&self.dir)?.sync_all()?;
        Ok(())
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{}.cwasm", self.build))
    }
}

/// Maps a verified file.
#[expect(unsafe_code, reason = "wasmtime cannot check native code; this module makes sure of where it comes from")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize_file` runs the bytes as native code, so they must come from `precompile_component` of a
    // compatible engine and must not change while they are mapped. They do and they do not: the folder is the user's
    // alone (`Cache::open`), only `Cache::store` writes to it, what was just read has the digest that `store` recorded,
    // and files are replaced by rename, never written in place. wasmtime itself checks that the engine is compatible.
    unsafe { Component::deserialize_file(engine, path) }
}

fn open(path: &Path) -> Result<Option<fs_err::File>, CacheError> {
    match fs_err::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(path: &Path) -> Result<Option<String>, CacheError> {
    match fs_err::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn sha256_of(mut file: fs_err::File) -> Result<String, CacheError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn sidecar(path: &Path) -> PathBuf {
    path.with_extension("cwasm.sha256")
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `std::hash` into SHA-256: the standard hasher may change from one compiler to the next, and has 64 bits.
struct ShaHasher(Sha256);

impl Hasher for ShaHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(&self) -> u64 {
        let hash = self.0.clone().finalize();
        hash.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    fn cache() -> (tempfile::TempDir, Engine, Cache) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let engine = Engine::default();
        let cache = Cache::open(&dir.path().join("compiled"), &engine).expect("opens");
        (dir, engine, cache)
    }

    #[test]
    fn stores_loads_and_forgets() {
        let (_dir, engine, cache) = cache();
        let compiled = engine.precompile_component(EMPTY_COMPONENT).expect("compiles");
        assert!(cache.load(&engine, "aa").expect("reads").is_none());
        cache.store("aa", &compiled).expect("stores");
        assert!(cache.load(&engine, "aa").expect("reads").is_some());
        cache.remove("aa").expect("removes");
        assert!(cache.load(&engine, "aa").expect("reads").is_none());
    }

    #[test]
    fn a_file_that_changed_on_disk_is_never_loaded() {
        let (_dir, engine, cache) = cache();
        let mut compiled = engine.precompile_component(EMPTY_COMPONENT).expect("compiles");
        cache.store("aa", &compiled).expect("stores");
        let middle = compiled.len() / 2;
        compiled[middle] ^= 1;
        fs_err::write(cache.path("aa"), &compiled).expect("writes");
        assert!(cache.load(&engine, "aa").expect("reads").is_none());
        assert!(!cache.path("aa").exists(), "it was removed");
    }

    #[test]
    fn a_file_without_its_digest_does_not_count() {
        let (_dir, engine, cache) = cache();
        let compiled = engine.precompile_component(EMPTY_COMPONENT).expect("compiles");
        cache.store("aa", &compiled).expect("stores");
        fs_err::remove_file(sidecar(&cache.path("aa"))).expect("removes");
        assert!(cache.load(&engine, "aa").expect("reads").is_none());
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let (dir, engine, _) = cache();
        let open = dir.path().join("open");
        fs_err::create_dir(&open).expect("makes");
        fs_err::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let error = Cache::open(&open, &engine).expect_err("refused");
        assert!(error.to_string().contains("it has mode 0755"), "{error}");
        let link = dir.path().join("link");
        fs_err::os::unix::fs::symlink(dir.path().join("compiled"), &link).expect("links");
        assert!(Cache::open(&link, &engine).is_err(), "a symlink is no folder of ours");
    }
}
