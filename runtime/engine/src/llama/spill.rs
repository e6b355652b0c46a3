//! Saved states on disk.
//!
//! A folder of its own per engine, below a folder of the host. Files are written aside, synced and renamed, and are gone
//! when their session or the engine ends; a process that died leaves a folder that nobody has locked, and the next engine
//! removes it. A state that does not verify never reaches llama.cpp: the digest of what was written stays in memory.

use std::{
    fs::TryLockError,
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use fs_err::os::unix::fs::OpenOptionsExt as _;
use sha2::{Digest, Sha256};

use super::SpillOptions;
use crate::api::Token;

const MAGIC: &[u8; 8] = b"LOCARAKV";
/// Version of the layout below.
const VERSION: u32 = 1;
/// Bytes of a SHA-256.
const DIGEST: usize = 32;
/// Held while folders are made or removed, so that a folder is never seen before it is locked.
const FOLDER_LOCK: &str = "lock";

/// Why a state is not to be had from disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpillError {
    /// The error names the file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is not what was written.
    #[error("{} is not the state that was written: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The folder of one engine.
#[derive(Debug)]
pub(super) struct SpillFolder {
    dir: PathBuf,
    /// Locked as long as the engine lives.
    _lock: fs_err::File,
    /// What a state depends on besides its tokens.
    identity: String,
}

/// A state on disk. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct SpillFile {
    path: PathBuf,
    /// Length of the file, bytes.
    pub(super) bytes: u64,
    digest: [u8; DIGEST],
}

impl SpillFolder {
    /// Makes the folder, and removes those of processes that are gone. `identity` names everything that a state depends
    /// on: model, KV types, build.
    pub(super) fn create(options: &SpillOptions, identity: String) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.dir)?;
        let making = open_lock(&options.dir.join(FOLDER_LOCK))?;
        making.lock()?;
        for entry in fs_err::read_dir(&options.dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() && is_abandoned(&path) {
                tracing::debug!(folder = %path.display(), "removing saved states of a process that is gone");
                if let Err(error) = fs_err::remove_dir_all(&path) {
                    tracing::warn!(%error, "saved states of a process that is gone stay on disk");
                }
            }
        }
        let dir = options.dir.join(random_name()?);
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let lock = open_lock(&dir.join(FOLDER_LOCK))?;
        lock.lock()?;
        Ok(Self { dir, _lock: lock, identity })
    }

    /// Length of the file that a state would take, bytes.
    pub(super) fn file_bytes(&self, tokens: &[Token], state: &[u8]) -> u64 {
        (header(&self.identity, tokens, state.len()).len() + state.len() + DIGEST) as u64
    }

    /// Writes a state.
    pub(super) fn write(&self, tokens: &[Token], state: &[u8]) -> io::Result<SpillFile> {
        let header = header(&self.identity, tokens, state.len());
        let digest: [u8; DIGEST] = Sha256::new().chain_update(&header).chain_update(state).finalize().into();
        let name = random_name()?;
        let aside = self.dir.join(format!("{name}.part"));
        let written = (|| {
            let mut file = fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(&header)?;
            file.write_all(state)?;
            file.write_all(&digest)?;
            file.sync_all()?;
            let path = self.dir.join(format!("{name}.kv"));
            fs_err::rename(&aside, &path)?;
            Ok(path)
        })();
        match written {
            Ok(path) => Ok(SpillFile { path, bytes: (header.len() + state.len() + DIGEST) as u64, digest }),
            Err(error) => {
                let _ = fs_err::remove_file(&aside);
                Err(error)
            }
        }
    }

    /// Reads a state back and verifies it.
    pub(super) fn read(&self, file: &SpillFile, tokens: &[Token]) -> Result<Vec<u8>, SpillError> {
        let corrupt = |reason: String| SpillError::Corrupt { path: file.path.clone(), reason };
        let mut open = fs_err::File::open(&file.path)?;
        let len = open.metadata()?.len();
        if len != file.bytes {
            return Err(corrupt(format!("it has {len} bytes, {} were written", file.bytes)));
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        // Memory may be short: then the session is computed again.
        bytes.try_reserve_exact(len).map_err(io::Error::other)?;
        bytes.resize(len, 0);
        open.read_exact(&mut bytes)?;
        let body = verify(&bytes, &file.digest)
            .and_then(|body| parse(body, &self.identity))
            .and_then(|(held, state)| if held == tokens { Ok(state) } else { Err("it holds other tokens".to_owned()) })
            .map_err(corrupt)?;
        bytes.truncate(body.end);
        bytes.drain(..body.start);
        Ok(bytes)
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        if let Err(error) = fs_err::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "saved states stay on disk until the next engine starts");
        }
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if let Err(error) = fs_err::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a saved state stays on disk until the engine ends");
        }
    }
}

fn open_lock(path: &Path) -> io::Result<fs_err::File> {
    fs_err::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Whether nobody holds the lock of an engine's folder. What is not such a folder is left alone.
fn is_abandoned(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.len() != 32 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return false;
    }
    // Without its lock file the process died between two lines of `create`, under the lock that is held now.
    let Ok(lock) = open_lock(&dir.join(FOLDER_LOCK)) else { return false };
    match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

/// 128 random bits, hex.
fn random_name() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Everything before the state. Numbers are little-endian: magic, version (u32), length of the identity (u32), identity,
/// number of tokens (u32), tokens (i32 each), bytes of the state (u64). After the state comes the SHA-256 of all before.
fn header(identity: &str, tokens: &[Token], state_bytes: usize) -> Vec<u8> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut header = Vec::with_capacity(28 + identity.len() + 4 * tokens.len());
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend(count(identity.len()));
    header.extend(identity.as_bytes());
    header.extend(count(tokens.len()));
    header.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    header.extend((state_bytes as u64).to_le_bytes());
    header
}

/// The file without its digest, if the digest is that of the contents and the one expected.
fn verify<'a>(bytes: &'a [u8], expected: &[u8; DIGEST]) -> Result<&'a [u8], String> {
    let (body, digest) = bytes.split_last_chunk::<DIGEST>().ok_or("it is too short")?;
    let computed: [u8; DIGEST] = Sha256::digest(body).into();
    if computed != *digest || computed != *expected {
        return Err("its contents have changed".to_owned());
    }
    Ok(body)
}

/// The tokens, and where the state lies. Checks every length, whatever the digest said.
fn parse(body: &[u8], identity: &str) -> Result<(Vec<Token>, Range<usize>), String> {
    let mut rest = body;
    let mut take = |what: &str, n: usize| {
        let (taken, left) = rest.split_at_checked(n).ok_or_else(|| format!("it ends inside its {what}"))?;
        rest = left;
        Ok::<_, String>(taken)
    };
    if take("magic", MAGIC.len())? != MAGIC {
        return Err("it is no saved state".to_owned());
    }
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
    let version = number(take("version", 4)?);
    if version != VERSION {
        return Err(format!("it has version {version}, this build writes {VERSION}"));
    }
    let len = number(take("identity", 4)?) as usize;
    let held = take("identity", len)?;
    if held != identity.as_bytes() {
        return Err(format!("it was made by {}, not by {identity}", String::from_utf8_lossy(held)));
    }
    let n_tokens = number(take("number of tokens", 4)?) as usize;
    let tokens = take("tokens", n_tokens.checked_mul(4).ok_or("its number of tokens is absurd")?)?;
    let tokens = tokens.chunks_exact(4).map(|token| token.try_into().map_or(-1, Token::from_le_bytes)).collect();
    let len = take("length", 8)?.try_into().map_or(0, u64::from_le_bytes);
    if rest.len() as u64 != len {
        return Err(format!("its state should have {len} bytes and has {}", rest.len()));
    }
    Ok((tokens, body.len() - rest.len()..body.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: &str = "model abc, K q8_0";

    fn digest(body: &[u8]) -> [u8; DIGEST] {
        Sha256::digest(body).into()
    }

    #[test]
    fn a_state_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let options = SpillOptions { dir: dir.path().to_owned(), max_bytes: 0 };
        let folder = SpillFolder::create(&options, IDENTITY.to_owned()).unwrap();
        for (tokens, state) in [(vec![], vec![]), (vec![1, -1, i32::MAX], vec![7; 100_000])] {
            let file = folder.write(&tokens, &state).unwrap();
            assert_eq!(file.bytes, folder.file_bytes(&tokens, &state));
            assert_eq!(fs_err::metadata(&file.path).unwrap().len(), file.bytes);
            assert_eq!(folder.read(&file, &tokens).unwrap(), state);
            let other = folder.read(&file, &[5]).unwrap_err().to_string();
            assert!(other.contains("other tokens"), "{other}");
            let path = file.path.clone();
            drop(file);
            assert!(!path.exists());
        }
    }

    /// With a digest that is right, so that only the lengths are left to protect us.
    #[test]
    fn lengths_that_lie_are_refused() {
        let body = [header(IDENTITY, &[1, 2, 3], 5), vec![9; 5]].concat();
        assert_eq!(parse(&body, IDENTITY).unwrap(), (vec![1, 2, 3], body.len() - 5..body.len()));
        let lengths = [("identity", 12), ("tokens", 16 + IDENTITY.len()), ("state", 32 + IDENTITY.len())];
        for (what, at) in lengths {
            for lie in [0u32, 1, 2, 4, 1000, u32::MAX / 4, u32::MAX] {
                let mut lying = body.clone();
                lying[at..at + 4].copy_from_slice(&lie.to_le_bytes());
                assert!(parse(&lying, IDENTITY).is_err(), "{what} said to be {lie}");
            }
        }
        assert!(parse(&body, "another model").unwrap_err().contains("another model"));
        let newer = [&MAGIC[..], &2u32.to_le_bytes(), &body[12..]].concat();
        assert!(parse(&newer, IDENTITY).unwrap_err().contains("version 2"));
    }

    proptest! {
        #[test]
        fn a_file_with_any_change_is_refused(state in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8, cut in any::<prop::sample::Index>()) {
            let body = [header(IDENTITY, &[1, 2], state.len()), state].concat();
            let written = digest(&body);
            let file = [body.clone(), written.to_vec()].concat();
            prop_assert_eq!(verify(&file, &written), Ok(body.as_slice()));
            let mut flipped = file.clone();
            flipped[at.index(file.len())] ^= 1u8 << bit;
            prop_assert!(verify(&flipped, &written).is_err());
            prop_assert!(verify(&file[..cut.index(file.len())], &written).is_err());
            // Changed, and given a digest that is right.
            let mut resealed = flipped[..body.len()].to_vec();
            resealed.extend(digest(&flipped[..body.len()]));
            prop_assert!(flipped[..body.len()] == body || verify(&resealed, &written).is_err());
        }

        #[test]
        fn nothing_in_a_file_makes_the_parser_panic(body in prop::collection::vec(any::<u8>(), 0..100), n in 0..60usize) {
            let _ = parse(&body, IDENTITY);
            let grafted = [&header(IDENTITY, &[1], 3)[..n.min(header(IDENTITY, &[1], 3).len())], &body].concat();
            let _ = parse(&grafted, IDENTITY);
        }
    }
}
