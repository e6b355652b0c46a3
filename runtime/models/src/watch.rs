//! Edits of the configuration and the registry while the host runs: new versions that were checked, or why an edit does not
//! count.
//!
//! A bad file never replaces what holds. Editors write beside a file and rename, or empty it and write, so the folders are
//! watched, and a file is read when nothing has happened to it for a moment. What reads as before causes nothing.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver as Events, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use locara_manifest::{Config, Diagnosis, Registry};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, Sender};

/// Silence after which an edit counts as finished.
const QUIET: Duration = Duration::from_millis(100);
/// The longest that an edit may go on, or a file may be empty or gone, before it is looked at all the same.
const LONGEST: Duration = Duration::from_secs(2);
/// Updates that wait for whoever applies them; then the watcher waits, and reads the newest state afterwards.
const QUEUE: usize = 8;

/// What an edit brought.
#[derive(Debug)]
pub enum Update {
    /// The configuration that holds from now on.
    Config(Box<Config>),
    /// The registry that holds from now on.
    Registry(Box<Registry>),
    /// A file that does not count. What held before holds on.
    Rejected {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: Rejection,
    },
}

/// Why an edited file does not count.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It has problems, each with its place.
    #[error(transparent)]
    Invalid(Box<Diagnosis>),
    /// It is gone. Maybe an editor puts it back; to start from nothing, write an empty one.
    #[error("the file is gone; what it said before holds on until it is back")]
    Gone,
    /// It cannot be read.
    #[error("the file cannot be read; what it said before holds on")]
    Unreadable(#[source] io::Error),
}

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch the folder {}; edits count after a restart only", folder.display())]
pub struct WatchError {
    folder: PathBuf,
    source: notify::Error,
}

/// Watches the two files until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    updates: Receiver<Update>,
    /// Dropping it ends the thread.
    _watcher: RecommendedWatcher,
}

impl Watcher {
    /// Watches `config` and `registry`, which said `current` when they were read last. Their folders must be there. An edit
    /// between that reading and this call is noticed too.
    ///
    /// # Errors
    /// The system watches nothing more, or the folders are not there.
    pub fn new(config: &Path, registry: &Path, current: (Config, Registry)) -> Result<Self, WatchError> {
        let (events, changes) = channel();
        let folder = config.parent().unwrap_or(config).to_owned();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change, and the files are read here. Errors mean that something was missed: look.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = events.send(()); // the thread is gone when the receiver of the updates is
            }
        })
        .map_err(|source| WatchError { folder, source })?;
        for folder in folders([config, registry]) {
            watcher
                .watch(&folder, RecursiveMode::NonRecursive)
                .map_err(|source| WatchError { folder: folder.clone(), source })?;
        }
        let (sender, updates) = tokio::sync::mpsc::channel(QUEUE);
        let mut files = Files {
            config: File::new(config, current.0, |name, bytes| Config::parse(name, bytes)),
            registry: File::new(registry, current.1, |name, bytes| Registry::parse(name, bytes)),
        };
        // Now, so that everything that happens from here on counts.
        let first = files.look();
        std::thread::spawn(move || files.run(first, &changes, &sender));
        Ok(Self { updates, _watcher: watcher })
    }

    /// The next update. Never `None` while the watcher lives.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }
}

/// The folders of the files, and of what they are links to: an edit may happen on either side.
fn folders<'a>(files: impl IntoIterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
    let folder = |path: &Path| path.parent().map(Path::to_owned).filter(|folder| !folder.as_os_str().is_empty());
    let both = |file: &'a Path| [folder(file), fs_err::canonicalize(file).ok().and_then(|target| folder(&target))];
    files.into_iter().flat_map(both).flatten().collect()
}

/// One file, and what it said.
struct File<T> {
    path: PathBuf,
    /// What holds.
    current: T,
    /// What was read last, good or bad: told once. `None` before the first look, `Some(None)` if it was not there.
    seen: Option<Option<Vec<u8>>>,
    parse: fn(&str, &[u8]) -> Result<T, Diagnosis>,
}

impl<T: PartialEq + Clone> File<T> {
    fn new(path: &Path, current: T, parse: fn(&str, &[u8]) -> Result<T, Diagnosis>) -> Self {
        Self { path: path.to_owned(), current, seen: None, parse }
    }

    /// Whether a file that said something says nothing now, which is most often half an edit.
    fn is_suspicious(&self) -> bool {
        let said_something = matches!(&self.seen, Some(Some(bytes)) if !bytes.is_empty());
        said_something && fs_err::metadata(&self.path).map_or(0, |metadata| metadata.len()) == 0
    }

    /// What a look at the file brings, if anything.
    fn look(&mut self) -> Option<Result<T, Rejection>> {
        let read = match fs_err::read(&self.path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Some(Err(Rejection::Unreadable(error))),
        };
        let first = self.seen.is_none();
        if self.seen.as_ref() == Some(&read) {
            return None;
        }
        let parsed = match &read {
            Some(bytes) => (self.parse)(&self.path.display().to_string(), bytes),
            // It need not be there at first.
            None if first => {
                self.seen = Some(read);
                return None;
            }
            None => {
                self.seen = Some(read);
                return Some(Err(Rejection::Gone));
            }
        };
        self.seen = Some(read);
        match parsed {
            Ok(value) if value == self.current => None,
            Ok(value) => {
                self.current = value.clone();
                Some(Ok(value))
            }
            Err(diagnosis) => Some(Err(Rejection::Invalid(Box::new(diagnosis)))),
        }
    }
}

struct Files {
    config: File<Config>,
    registry: File<Registry>,
}

impl Files {
    /// What a look at both files brings.
    fn look(&mut self) -> Vec<Update> {
        let rejected = |path: &Path, why| Update::Rejected { path: path.to_owned(), why };
        let config = self.config.look().map(|outcome| match outcome {
            Ok(config) => Update::Config(Box::new(config)),
            Err(why) => rejected(&self.config.path, why),
        });
        let registry = self.registry.look().map(|outcome| match outcome {
            Ok(registry) => Update::Registry(Box::new(registry)),
            Err(why) => rejected(&self.registry.path, why),
        });
        config.into_iter().chain(registry).collect()
    }

    fn run(mut self, first: Vec<Update>, changes: &Events<()>, updates: &Sender<Update>) {
        let mut found = first;
        loop {
            for update in found {
                if updates.blocking_send(update).is_err() {
                    return;
                }
            }
            // Editors empty a file before they write it, and rename it before they write another one.
            if !settled(changes, || self.config.is_suspicious() || self.registry.is_suspicious()) {
                return;
            }
            found = self.look();
        }
    }
}

/// Waits for a change and then for silence, and longer while the files look like half an edit. `false` when nobody watches
/// any more.
fn settled(changes: &Events<()>, is_half: impl Fn() -> bool) -> bool {
    if changes.recv().is_err() {
        return false;
    }
    let start = Instant::now();
    let mut patience = QUIET;
    while start.elapsed() < LONGEST {
        match changes.recv_timeout(patience) {
            Ok(()) => patience = QUIET,
            Err(RecvTimeoutError::Timeout) if is_half() => patience = LONGEST.saturating_sub(start.elapsed()),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}
