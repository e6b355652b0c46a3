//! Keys and values of one app on disk.
//!
//! One file for each key, named by the key's SHA-256; it holds the key, the digest of the value and the value. A write
//! goes to a temporary file, is synced and renamed, and the folder is synced: after `kill -9` at any instruction each key
//! has its old or its new value. A file that does not match its digests is reported, never returned.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::cache::hex;

/// Longest key, bytes.
pub(super) const MAX_KEY: usize = 512;
/// Keys of one app: each costs a file whatever its size.
pub(super) const MAX_KEYS: usize = 10_000;

const MAGIC: &[u8; 8] = b"locarakv";
/// Magic, length of the key (u32), digest of the value.
const FIXED: usize = MAGIC.len() + 4 + 32;
/// Names of files that are being written.
const TEMPORARY: &str = ".writing-";

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum KvError {
    #[error("a key has 1 to {MAX_KEY} bytes, this one has {0}")]
    Key(usize),
    #[error(
        "storing {wanted} bytes more than the {used} that are used goes over the quota of {quota} bytes; delete something or ask for more with `capabilities.storage.quotaMB`"
    )]
    Quota { wanted: u64, used: u64, quota: u64 },
    #[error("{MAX_KEYS} keys are stored, which is all there may be; put more into each value")]
    Keys,
    #[error("the stored value of {0:?} is damaged; set it again")]
    Damaged(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The open store of one app. Every call blocks on the disk.
#[derive(Debug)]
pub(super) struct KeyValue {
    dir: PathBuf,
    quota: u64,
    /// Bytes of key and value.
    sizes: BTreeMap<String, u64>,
    used: u64,
}

impl KeyValue {
    /// Opens the store, makes it where it is missing and clears what a crash left behind.
    pub(super) fn open(dir: &Path, quota: u64) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut store = Self { dir: dir.to_owned(), quota, sizes: BTreeMap::new(), used: 0 };
        for entry in fs_err::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) {
                fs_err::remove_file(&path)?;
                continue;
            }
            match key_of(&path, &name)? {
                Some((key, size)) => {
                    store.used += size;
                    store.sizes.insert(key, size);
                }
                None => {
                    tracing::warn!(file = %path.display(), "this file in the storage of an app is none of its values")
                }
            }
        }
        Ok(store)
    }

    /// The quota may change between two runs; what is stored already stays.
    pub(super) fn set_quota(&mut self, quota: u64) {
        self.quota = quota;
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        if !self.sizes.contains_key(key) {
            return Ok(None);
        }
        let bytes = fs_err::read(self.path(key))?;
        let header = FIXED + key.len();
        let whole = bytes.len() >= header
            && &bytes[FIXED..header] == key.as_bytes()
            && Sha256::digest(&bytes[header..])[..] == bytes[MAGIC.len() + 4..FIXED];
        if whole { Ok(Some(bytes[header..].to_vec())) } else { Err(KvError::Damaged(key.to_owned())) }
    }

    pub(super) fn set(&mut self, key: &str, value: &[u8]) -> Result<(), KvError> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(KvError::Key(key.len()));
        }
        let old = self.sizes.get(key).copied();
        if old.is_none() && self.sizes.len() >= MAX_KEYS {
            return Err(KvError::Keys);
        }
        let size = (key.len() + value.len()) as u64;
        let used = self.used - old.unwrap_or(0);
        if used.saturating_add(size) > self.quota {
            return Err(KvError::Quota { wanted: size, used, quota: self.quota });
        }
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.dir)?;
        file.write_all(MAGIC)?;
        file.write_all(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        file.write_all(&Sha256::digest(value))?;
        file.write_all(key.as_bytes())?;
        file.write_all(value)?;
        file.as_file().sync_all()?;
        file.persist(self.path(key)).map_err(|error| error.error)?;
        self.sync_folder()?;
        self.sizes.insert(key.to_owned(), size);
        self.used = used + size;
        Ok(())
    }

    /// Whether there was something to delete.
    pub(super) fn delete(&mut self, key: &str) -> Result<bool, KvError> {
        let Some(size) = self.sizes.get(key).copied() else { return Ok(false) };
        fs_err::remove_file(self.path(key))?;
        self.sync_folder()?;
        self.sizes.remove(key);
        self.used -= size;
        Ok(true)
    }

    /// Keys that begin with `prefix`, in order.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        self.sizes
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Bytes used and bytes allowed.
    pub(super) fn usage(&self) -> (u64, u64) {
        (self.used, self.quota)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(hex(&Sha256::digest(key)))
    }

    fn sync_folder(&self) -> std::io::Result<()> {
        fs_err::File::open(&self.dir)?.sync_all()
    }
}

/// Key and size of a stored file, or `None` if it is not one of ours.
fn key_of(path: &Path, name: &str) -> std::io::Result<Option<(String, u64)>> {
    let mut file = fs_err::File::open(path)?;
    let meta = file.metadata()?;
    let mut fixed = [0; FIXED];
    if !meta.is_file() || meta.len() < FIXED as u64 {
        return Ok(None);
    }
    file.read_exact(&mut fixed)?;
    let length = u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]) as usize;
    if &fixed[..MAGIC.len()] != MAGIC || length > MAX_KEY || meta.len() < (FIXED + length) as u64 {
        return Ok(None);
    }
    let mut key = vec![0; length];
    file.read_exact(&mut key)?;
    let size = meta.len() - FIXED as u64;
    Ok(String::from_utf8(key).ok().filter(|key| hex(&Sha256::digest(key)) == name).map(|key| (key, size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &tempfile::TempDir, quota: u64) -> KeyValue {
        KeyValue::open(&dir.path().join("app"), quota).expect("opens")
    }

    #[test]
    fn values_survive_a_restart() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut store = open(&dir, 1000);
        store.set("a/1", b"one").expect("stored");
        store.set("a/2", b"").expect("stored");
        store.set("b", b"two").expect("stored");
        store.set("b", b"three").expect("replaced");
        assert!(store.delete("a/2").expect("deleted"));
        let again = open(&dir, 1000);
        assert_eq!(again.get("b").expect("reads").as_deref(), Some(&b"three"[..]));
        assert_eq!(again.get("a/2").expect("reads"), None);
        assert_eq!(again.keys("a/"), ["a/1"]);
        assert_eq!(again.keys(""), ["a/1", "b"]);
        assert_eq!(again.usage(), (12, 1000));
        assert_eq!(again.usage(), store.usage());
    }

    #[test]
    fn the_quota_counts_keys_and_values_and_a_refusal_changes_nothing() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut store = open(&dir, 10);
        store.set("key", b"1234567").expect("exactly full");
        assert!(matches!(store.set("k", b""), Err(KvError::Quota { wanted: 1, used: 10, quota: 10 })));
        assert!(matches!(store.set("key", b"12345678"), Err(KvError::Quota { wanted: 11, used: 0, quota: 10 })));
        assert_eq!(store.get("key").expect("reads").as_deref(), Some(&b"1234567"[..]));
        store.set("key", b"1").expect("smaller fits");
        assert_eq!(store.usage().0, 4);
    }

    #[test]
    fn what_a_crash_left_behind_is_cleared_and_damage_is_reported() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut store = open(&dir, 1000);
        store.set("key", b"value").expect("stored");
        fs_err::write(store.dir.join(format!("{TEMPORARY}x")), b"half").expect("writes");
        fs_err::write(store.dir.join("stranger"), b"?").expect("writes");
        let path = store.path("key");
        let mut bytes = fs_err::read(&path).expect("reads");
        *bytes.last_mut().expect("not empty") ^= 1;
        fs_err::write(&path, bytes).expect("writes");
        let again = open(&dir, 1000);
        assert!(!again.dir.join(format!("{TEMPORARY}x")).exists());
        assert_eq!(again.keys(""), ["key"]);
        assert!(matches!(again.get("key"), Err(KvError::Damaged(_))));
    }

    #[test]
    fn keys_have_a_length() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut store = open(&dir, 10_000);
        assert!(matches!(store.set("", b"x"), Err(KvError::Key(0))));
        assert!(matches!(store.set(&"k".repeat(513), b"x"), Err(KvError::Key(513))));
        store.set(&"../".repeat(100), b"x").expect("a key is no path");
    }
}
