//! Saved states of sessions: the prompt cache in memory, and behind it the disk.
//!
//! Each session has at most one saved state. What has no room goes to disk or is forgotten, the one that was used longest
//! ago first; a state that is forgotten, or that the disk does not give back whole, is computed again from its tokens. A
//! request never fails because of this module.

use std::collections::HashMap;

use super::{
    CacheOptions,
    spill::{SpillFile, SpillFolder},
};
use crate::api::{SessionId, Token};

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    Disk(SpillFile),
}

#[derive(Debug)]
struct Entry {
    tokens: Vec<Token>,
    place: Place,
    last_used: u64,
}

/// The saved states of an engine.
#[derive(Debug, Default)]
pub(super) struct StateCache {
    entries: HashMap<SessionId, Entry>,
    /// Bound of the states in memory, bytes.
    max_memory: u64,
    /// Bound of the files, bytes.
    max_disk: u64,
    folder: Option<SpillFolder>,
    clock: u64,
}

impl StateCache {
    /// `identity` names everything that a state depends on besides its tokens. Without a usable folder there is no disk
    /// tier: the engine works without it, and the log says why.
    pub(super) fn new(options: &CacheOptions, identity: String) -> Self {
        let folder = options.spill.as_ref().and_then(|spill| {
            SpillFolder::create(spill, identity)
                .inspect_err(|error| {
                    tracing::warn!(
                        folder = %spill.dir.display(), %error,
                        "saved states cannot go to disk; sessions that give way are computed again"
                    );
                })
                .ok()
        });
        let max_disk = options.spill.as_ref().map_or(0, |spill| spill.max_bytes);
        Self { max_memory: options.prompt_cache_bytes, max_disk, folder, ..Self::default() }
    }

    /// Whether a state of this size has a place at all.
    pub(super) fn has_place_for(&self, bytes: u64) -> bool {
        bytes <= self.max_memory || (self.folder.is_some() && bytes <= self.max_disk)
    }

    /// Bytes of the states in memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.entries
            .values()
            .map(|entry| if let Place::Memory(state) = &entry.place { state.len() as u64 } else { 0 })
            .sum()
    }

    /// Bytes of the files.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.entries.values().map(|entry| if let Place::Disk(file) = &entry.place { file.bytes } else { 0 }).sum()
    }

    /// What the saved state of the session holds.
    pub(super) fn tokens(&self, session: SessionId) -> Option<&[Token]> {
        self.entries.get(&session).map(|entry| entry.tokens.as_slice())
    }

    /// Sessions that have a saved state.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.entries.keys().copied()
    }

    /// Keeps a state in memory; older ones give way to disk, or are forgotten unless `may_write`. What is too large for the
    /// memory goes to disk at once. False if it found no place.
    pub(super) fn put(&mut self, session: SessionId, tokens: Vec<Token>, state: Vec<u8>, may_write: bool) -> bool {
        let bytes = state.len() as u64;
        if bytes > self.max_memory {
            return may_write && self.put_on_disk(session, tokens, &state);
        }
        self.forget(session);
        while self.memory_bytes() + bytes > self.max_memory {
            let Some(oldest) = self.oldest(|place| matches!(place, Place::Memory(_))) else { break };
            self.move_out(oldest, may_write);
        }
        self.insert(session, tokens, Place::Memory(state));
        true
    }

    /// Keeps a state on disk; older files give way. False if it found no place.
    pub(super) fn put_on_disk(&mut self, session: SessionId, tokens: Vec<Token>, state: &[u8]) -> bool {
        self.forget(session);
        let Some(folder) = &self.folder else { return false };
        let bytes = folder.file_bytes(&tokens, state);
        if bytes > self.max_disk {
            tracing::debug!(bytes, max_bytes = self.max_disk, "a saved state is too large for the disk tier");
            return false;
        }
        while self.disk_bytes() + bytes > self.max_disk {
            let Some(oldest) = self.oldest(|place| matches!(place, Place::Disk(_))) else { break };
            self.forget(oldest);
        }
        let Some(folder) = &self.folder else { return false };
        match folder.write(&tokens, state) {
            Ok(file) => {
                self.insert(session, tokens, Place::Disk(file));
                true
            }
            Err(error) => {
                tracing::warn!(
                    session = session.0, bytes, %error,
                    "a saved state does not go to disk; the session is computed again when it comes back"
                );
                false
            }
        }
    }

    /// Takes the state of the session out. `None` if there is none, or the disk does not give back what was written.
    pub(super) fn take(&mut self, session: SessionId) -> Option<Vec<u8>> {
        let entry = self.entries.remove(&session)?;
        let file = match entry.place {
            Place::Memory(state) => return Some(state),
            Place::Disk(file) => file,
        };
        self.folder.as_ref()?.read(&file, &entry.tokens).map_or_else(
            |error| {
                tracing::warn!(
                    session = session.0, %error,
                    "a saved state does not come back from disk; the session is computed again"
                );
                None
            },
            Some,
        )
    }

    /// The state of one session becomes that of another, which has none.
    pub(super) fn rename(&mut self, from: SessionId, to: SessionId) {
        if let Some(entry) = self.entries.remove(&from) {
            self.entries.insert(to, entry);
        }
    }

    /// Drops the state of the session.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.entries.remove(&session);
    }

    /// Moves every state out of the memory: to disk, or nowhere. Returns how many there were.
    pub(super) fn empty_memory(&mut self, spill: bool) -> u32 {
        let mut n = 0;
        while let Some(oldest) = self.oldest(|place| matches!(place, Place::Memory(_))) {
            self.move_out(oldest, spill);
            n += 1;
        }
        n
    }

    fn move_out(&mut self, session: SessionId, to_disk: bool) {
        if let Some(Entry { tokens, place: Place::Memory(state), .. }) = self.entries.remove(&session)
            && to_disk
        {
            self.put_on_disk(session, tokens, &state);
        }
    }

    fn oldest(&self, which: impl Fn(&Place) -> bool) -> Option<SessionId> {
        let candidates = self.entries.iter().filter(|(_, entry)| which(&entry.place));
        candidates.min_by_key(|(_, entry)| entry.last_used).map(|(session, _)| *session)
    }

    fn insert(&mut self, session: SessionId, tokens: Vec<Token>, place: Place) {
        self.clock += 1;
        self.entries.insert(session, Entry { tokens, place, last_used: self.clock });
    }
}
