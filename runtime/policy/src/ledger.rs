//! The account of every byte the host holds: owner × kind.
//!
//! Bytes are *reserved* before anything is loaded or run, *committed* with the figure that was really allocated, and
//! *released* when they are gone. The ledger decides nothing and frees nothing; it refuses to be wrong. It is plain data
//! with ids instead of guards, so that a recorded sequence of calls can be replayed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// SHA-256 of a model's file, lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelDigest(pub String);

/// The id of an installed app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppId(pub String);

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who holds bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The host itself.
    Host,
    /// A model: its weights and what its context needs. Shared by the apps that use it.
    Model(ModelDigest),
    /// An app: its instances.
    App(AppId),
    /// One conversation of an app.
    Session {
        /// The app.
        app: AppId,
        /// The session's number, unique in the host.
        session: u64,
    },
}

impl Owner {
    /// A model's share.
    #[must_use]
    pub fn model(digest: impl Into<String>) -> Self {
        Self::Model(ModelDigest(digest.into()))
    }
    /// An app's share.
    #[must_use]
    pub fn app(id: impl Into<String>) -> Self {
        Self::App(AppId(id.into()))
    }
    /// A session's share.
    #[must_use]
    pub fn session(app: impl Into<String>, session: u64) -> Self {
        Self::Session { app: AppId(app.into()), session }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host"),
            // Twelve hex digits name a file well enough for a person.
            Self::Model(digest) => write!(f, "model {}", digest.0.chars().take(12).collect::<String>()),
            Self::App(app) => write!(f, "app {app}"),
            Self::Session { app, session } => write!(f, "session {session} of app {app}"),
        }
    }
}

/// What bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Weights in a shared read-only mapping of the file: clean pages that the OS can drop.
    WeightsMapped,
    /// The same mapping while a GPU works on it: wired, cannot be dropped.
    WeightsWired,
    /// Weights in memory of their own: on a discrete GPU, or repacked because the machine's owner asked for it.
    WeightsCopied,
    /// KV cells and recurrent state.
    Kv,
    /// Scratch buffers of the graph. Only the touched part is resident on a CPU.
    Compute,
    /// Logits and embeddings of the outputs.
    Output,
    /// Saved states of prefixes.
    PrefixCache,
    /// Linear memories, tables and stacks of guests.
    GuestMemory,
    /// Vocabulary, graph and scheduler tables of an engine; compiled components; the host's own heap.
    Tables,
}

impl Kind {
    /// Every kind, in the order of display.
    pub const ALL: [Self; 9] = [
        Self::WeightsMapped,
        Self::WeightsWired,
        Self::WeightsCopied,
        Self::Kv,
        Self::Compute,
        Self::Output,
        Self::PrefixCache,
        Self::GuestMemory,
        Self::Tables,
    ];

    /// Two or three words for a table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WeightsMapped => "weights, mapped",
            Self::WeightsWired => "weights, wired",
            Self::WeightsCopied => "weights, copied",
            Self::Kv => "KV",
            Self::Compute => "compute",
            Self::Output => "output",
            Self::PrefixCache => "prefix cache",
            Self::GuestMemory => "guest memory",
            Self::Tables => "tables",
        }
    }

    /// Whether the bytes are pages of a file, which the OS counts and drops differently from anonymous memory.
    #[must_use]
    pub const fn is_file_backed(self) -> bool {
        matches!(self, Self::WeightsMapped | Self::WeightsWired)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Names one reservation. Never used twice within a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(u64);

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One line of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who holds it.
    pub owner: Owner,
    /// What it is for.
    pub kind: Kind,
    /// The amount that counts against the cap.
    pub bytes: Bytes,
    /// Whether it was really allocated; until then it is a promise.
    pub committed: bool,
}

/// Why the ledger refuses. Nothing has changed after a refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LedgerError {
    /// The cap would be exceeded.
    #[error(
        "{owner} needs {wanted} for {kind}, {available} of {cap} are not promised, short by {}{}",
        wanted.saturating_sub(*available),
        biggest.as_ref().map(|(holder, bytes)| format!("; biggest holder: {holder} with {bytes}")).unwrap_or_default()
    )]
    OverCap {
        /// Who asked.
        owner: Owner,
        /// What for; the first kind of a group.
        kind: Kind,
        /// How much, over the whole group.
        wanted: Bytes,
        /// What is left under the cap.
        available: Bytes,
        /// The cap.
        cap: Bytes,
        /// Who holds most now.
        biggest: Option<(Owner, Bytes)>,
    },
    /// Never given out, or released before.
    #[error("reservation {0} does not exist or was released")]
    Unknown(ReservationId),
    /// A reservation can be committed once.
    #[error("reservation {id} ({kind} of {owner}) was committed before")]
    AlreadyCommitted {
        /// The reservation.
        id: ReservationId,
        /// Who holds it.
        owner: Owner,
        /// What it is for.
        kind: Kind,
    },
}

/// What the OS says the process holds; see [`Ledger::reconcile`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Resident pages of mapped model files.
    pub file_backed: Bytes,
    /// Resident anonymous pages.
    pub anonymous: Bytes,
}

/// Measured minus accounted, by the way the memory is backed. Positive: the process holds bytes nobody accounted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Of file-backed pages. Usually negative: pages that nobody touched yet are not resident.
    pub file_backed: i64,
    /// Of anonymous pages. Negative while compute buffers are untouched; positive is what the ledger does not know.
    pub anonymous: i64,
}

/// The account. See the module's documentation. It can be written down but not read back: an account that was not kept by
/// these functions need not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ledger {
    cap: Bytes,
    held: Bytes,
    next: u64,
    entries: BTreeMap<ReservationId, Entry>,
    users: BTreeMap<ModelDigest, BTreeSet<AppId>>,
}

impl Ledger {
    /// An empty account that will never promise more than `cap`.
    #[must_use]
    pub fn new(cap: Bytes) -> Self {
        Self { cap, held: Bytes::ZERO, next: 1, entries: BTreeMap::new(), users: BTreeMap::new() }
    }

    /// The most that may be promised.
    #[must_use]
    pub const fn cap(&self) -> Bytes {
        self.cap
    }
    /// Moves the cap. Below what is promised already, nothing new is promised until enough was released.
    pub const fn set_cap(&mut self, cap: Bytes) {
        self.cap = cap;
    }
    /// Promised and committed bytes of everybody.
    #[must_use]
    pub const fn held(&self) -> Bytes {
        self.held
    }
    /// What can still be promised.
    #[must_use]
    pub const fn available(&self) -> Bytes {
        self.cap.saturating_sub(self.held)
    }

    /// Promises `bytes` to `owner`.
    ///
    /// # Errors
    /// [`LedgerError::OverCap`] with the numbers.
    pub fn reserve(&mut self, owner: Owner, kind: Kind, bytes: Bytes) -> Result<ReservationId, LedgerError> {
        self.admit(&owner, kind, bytes)?;
        Ok(self.insert(owner, kind, bytes))
    }

    /// Promises several amounts to one owner, or none of them.
    ///
    /// # Errors
    /// [`LedgerError::OverCap`] for the sum.
    pub fn reserve_all(&mut self, owner: &Owner, parts: &[(Kind, Bytes)]) -> Result<Vec<ReservationId>, LedgerError> {
        let Some(&(first, _)) = parts.first() else { return Ok(Vec::new()) };
        // A sum that cannot be written down is above every cap, so saturating refuses it too.
        let wanted = parts.iter().map(|&(_, bytes)| bytes).sum();
        self.admit(owner, first, wanted)?;
        Ok(parts.iter().map(|&(kind, bytes)| self.insert(owner.clone(), kind, bytes)).collect())
    }

    /// Says what was really allocated. Less gives the rest back; more must fit like a new reservation.
    ///
    /// # Errors
    /// [`LedgerError::Unknown`], [`LedgerError::AlreadyCommitted`], or [`LedgerError::OverCap`] when more was allocated than
    /// the cap allows: the caller must then free it and release the reservation.
    pub fn commit(&mut self, id: ReservationId, actual: Bytes) -> Result<(), LedgerError> {
        let entry = self.entries.get(&id).ok_or(LedgerError::Unknown(id))?;
        if entry.committed {
            return Err(LedgerError::AlreadyCommitted { id, owner: entry.owner.clone(), kind: entry.kind });
        }
        self.resize(id, actual)?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.committed = true;
        }
        Ok(())
    }

    /// Grows or shrinks a reservation, committed or not (a guest's memory, a prefix cache).
    ///
    /// # Errors
    /// [`LedgerError::Unknown`], or [`LedgerError::OverCap`] for the growth; shrinking always succeeds.
    pub fn resize(&mut self, id: ReservationId, bytes: Bytes) -> Result<(), LedgerError> {
        let entry = self.entries.get(&id).ok_or(LedgerError::Unknown(id))?;
        let before = entry.bytes;
        if bytes > before {
            self.admit(&entry.owner, entry.kind, bytes.saturating_sub(before))?;
        }
        // `held` is the sum of the entries, so taking one out first can neither underflow nor, after `admit`, overflow.
        self.held = self.held.saturating_sub(before).saturating_add(bytes);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.bytes = bytes;
        }
        Ok(())
    }

    /// The bytes are gone.
    ///
    /// # Errors
    /// [`LedgerError::Unknown`] on a second release.
    pub fn release(&mut self, id: ReservationId) -> Result<Entry, LedgerError> {
        let entry = self.entries.remove(&id).ok_or(LedgerError::Unknown(id))?;
        self.held = self.held.saturating_sub(entry.bytes);
        Ok(entry)
    }

    /// Releases everything `owner` holds, e.g. after a guest was dropped or an engine died, and says how much that was.
    pub fn release_owner(&mut self, owner: &Owner) -> Bytes {
        let mut freed = Bytes::ZERO;
        self.entries.retain(|_, entry| {
            let keep = entry.owner != *owner;
            if !keep {
                freed = freed.saturating_add(entry.bytes);
            }
            keep
        });
        self.held = self.held.saturating_sub(freed);
        freed
    }

    /// One line, while it exists.
    #[must_use]
    pub fn entry(&self, id: ReservationId) -> Option<&Entry> {
        self.entries.get(&id)
    }
    /// Every line, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = (ReservationId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }
    /// What `owner` holds, over all kinds.
    #[must_use]
    pub fn of_owner(&self, owner: &Owner) -> Bytes {
        self.sum(|entry| entry.owner == *owner)
    }
    /// What is held for one kind, over all owners.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> Bytes {
        self.sum(|entry| entry.kind == kind)
    }
    /// What `owner` holds of one kind.
    #[must_use]
    pub fn of(&self, owner: &Owner, kind: Kind) -> Bytes {
        self.sum(|entry| entry.owner == *owner && entry.kind == kind)
    }
    /// Totals by owner and kind. Their sum is [`Ledger::held`].
    #[must_use]
    pub fn totals(&self) -> BTreeMap<(Owner, Kind), Bytes> {
        let mut totals = BTreeMap::<_, Bytes>::new();
        for entry in self.entries.values() {
            let total = totals.entry((entry.owner.clone(), entry.kind)).or_default();
            *total = total.saturating_add(entry.bytes);
        }
        totals
    }
    /// Who holds most.
    #[must_use]
    pub fn biggest(&self) -> Option<(Owner, Bytes)> {
        let mut owners = BTreeMap::<&Owner, Bytes>::new();
        for entry in self.entries.values() {
            let total = owners.entry(&entry.owner).or_default();
            *total = total.saturating_add(entry.bytes);
        }
        owners.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(owner, bytes)| (owner.clone(), bytes))
    }

    /// `app` uses `model` from now on and bears a part of it. Asking twice changes nothing.
    pub fn attach(&mut self, model: &ModelDigest, app: &AppId) {
        self.users.entry(model.clone()).or_default().insert(app.clone());
    }
    /// `app` no longer uses `model`; those that remain bear its part.
    pub fn detach(&mut self, model: &ModelDigest, app: &AppId) {
        if let Some(users) = self.users.get_mut(model) {
            users.remove(app);
            if users.is_empty() {
                self.users.remove(model);
            }
        }
    }
    /// `app` no longer uses any model.
    pub fn detach_app(&mut self, app: &AppId) {
        self.users.retain(|_, users| {
            users.remove(app);
            !users.is_empty()
        });
    }
    /// Nobody uses `model` any more: it is gone.
    pub fn detach_model(&mut self, model: &ModelDigest) {
        self.users.remove(model);
    }
    /// The apps that use `model`.
    #[must_use]
    pub fn users(&self, model: &ModelDigest) -> usize {
        self.users.get(model).map_or(0, BTreeSet::len)
    }
    /// What `app` is charged: its own bytes, those of its sessions, and an equal part of every model it uses.
    ///
    /// The parts of a model add up to the model exactly: the bytes that do not divide go one each to the first users.
    #[must_use]
    pub fn charge(&self, app: &AppId) -> Bytes {
        let own = self.sum(|entry| match &entry.owner {
            Owner::App(id) | Owner::Session { app: id, .. } => id == app,
            Owner::Host | Owner::Model(_) => false,
        });
        let shared = self.users.iter().filter_map(|(model, users)| {
            let rank = users.iter().position(|user| user == app)? as u64;
            let bytes = self.of_owner(&Owner::Model(model.clone())).get();
            let count = users.len() as u64;
            Some(Bytes(bytes / count + u64::from(rank < bytes % count)))
        });
        shared.fold(own, Bytes::saturating_add)
    }

    /// Compares the account with what the OS measured. Only committed bytes are expected to be there.
    #[must_use]
    pub fn reconcile(&self, measured: Measured) -> Difference {
        let committed = |file: bool| self.sum(|entry| entry.committed && entry.kind.is_file_backed() == file);
        Difference {
            file_backed: signed_difference(measured.file_backed, committed(true)),
            anonymous: signed_difference(measured.anonymous, committed(false)),
        }
    }

    fn admit(&self, owner: &Owner, kind: Kind, wanted: Bytes) -> Result<(), LedgerError> {
        let available = self.available();
        if wanted <= available {
            return Ok(());
        }
        Err(LedgerError::OverCap {
            owner: owner.clone(),
            kind,
            wanted,
            available,
            cap: self.cap,
            biggest: self.biggest(),
        })
    }

    fn insert(&mut self, owner: Owner, kind: Kind, bytes: Bytes) -> ReservationId {
        let id = ReservationId(self.next);
        self.next += 1;
        self.held = self.held.saturating_add(bytes);
        self.entries.insert(id, Entry { owner, kind, bytes, committed: false });
        id
    }

    fn sum(&self, wanted: impl Fn(&Entry) -> bool) -> Bytes {
        self.entries.values().filter(|entry| wanted(entry)).map(|entry| entry.bytes).sum()
    }
}

fn signed_difference(measured: Bytes, accounted: Bytes) -> i64 {
    let difference = i128::from(measured.get()) - i128::from(accounted.get());
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}
