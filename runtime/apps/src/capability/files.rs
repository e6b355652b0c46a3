//! `files`: files inside the granted folders.
//!
//! Each granted folder is one open directory; every path is resolved below it by cap-std, which refuses `..` and symlinks
//! that lead out, without a gap between check and use. A write goes to a temporary file beside the target and replaces it
//! as a whole when the guest has closed its stream; a run that ends before that leaves the old file.

use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cap_std::fs::Dir;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use wasmtime::Result;
use wasmtime::component::{Access as StoreAccess, FutureReader, HasData, StreamReader};

use super::{Access, DeniedLog, to_wit_bytes};
use crate::allow::{Allowed, Folder};
use crate::bindings::files as wit;
use crate::bindings::types::{Busy, Error};
use crate::relay::{Admit, ByteSink, ByteSource, CHUNK, QUEUE, io_error};

/// Files that one app has open at once.
const MAX_OPEN: usize = 16;
/// Entries of one listing; more would be a list of megabytes.
const MAX_ENTRIES: usize = 10_000;
/// Largest file that one write makes, bytes.
const MAX_WRITE: u64 = 1 << 30;

/// The open folders of one app. Opened once, when the app is prepared.
#[derive(Debug, Clone)]
pub(crate) struct OpenFolder {
    folder: Folder,
    dir: Arc<Dir>,
}

impl OpenFolder {
    /// Opens a granted folder. Symlinks on the way to the folder itself are the owner's and are followed.
    pub(crate) fn open(folder: &Folder) -> std::io::Result<Self> {
        let path = fs_err::canonicalize(&folder.path)?;
        let dir = Dir::open_ambient_dir(path, cap_std::ambient_authority())?;
        Ok(Self { folder: folder.clone(), dir: Arc::new(dir) })
    }
}

/// What the app has open.
pub(crate) struct FilesState {
    places: Arc<Semaphore>,
}

impl FilesState {
    pub(crate) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_OPEN)) }
    }
}

/// Where the app may read and write.
#[derive(Clone)]
pub(crate) struct FilesPolicy {
    pub(crate) folders: Vec<OpenFolder>,
    pub(crate) allowed: Arc<Allowed>,
}

/// A path below an open folder.
struct Below {
    dir: Arc<Dir>,
    path: PathBuf,
}

impl FilesPolicy {
    /// Finds the folder that a path of the guest lies in: by the manifest's spelling (`~/Documents/a`) or by the real one.
    fn resolve(&self, path: &str, write: bool, denied: &DeniedLog) -> std::result::Result<Below, Error> {
        let wanted = Path::new(path);
        if wanted.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(Error::InvalidRequest("`..` does not occur in paths of apps".to_owned()));
        }
        self.folders
            .iter()
            .filter(|open| open.folder.write || !write)
            .find_map(|open| {
                let named = wanted.strip_prefix(&open.folder.name).or_else(|_| wanted.strip_prefix(&open.folder.path));
                named.ok().map(|path| Below { dir: open.dir.clone(), path: path.to_owned() })
            })
            .ok_or_else(|| denied.refuse(self.allowed.folder_denied(path, write)))
    }
}

/// `files` of one host call.
pub(crate) type FilesAccess<'a> = Access<'a, FilesState, FilesPolicy>;

/// Names [`FilesAccess`] to wasmtime.
pub(crate) struct HasFiles;

impl HasData for HasFiles {
    type Data<'a> = FilesAccess<'a>;
}

impl FilesAccess<'_> {
    /// A path and the right to have one more file open.
    fn admit(&self, path: &str, write: bool) -> std::result::Result<(Below, OwnedSemaphorePermit), Error> {
        let below = self.policy.resolve(path, write, &self.shared.denied)?;
        let place = self.state.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Error::Busy(Busy { retry_after_ms: 0, waiting: MAX_OPEN as u32 }))?;
        Ok((below, place))
    }
}

impl wit::Host for FilesAccess<'_> {
    fn folders(&mut self) -> Result<Vec<(String, bool)>> {
        self.charge()?;
        Ok(self.policy.folders.iter().map(|open| (open.folder.name.clone(), open.folder.write)).collect())
    }

    async fn entries(&mut self, path: String) -> Result<std::result::Result<Vec<wit::Entry>, Error>> {
        self.charge()?;
        let below = match self.admit(&path, false) {
            Ok((below, _place)) => below,
            Err(error) => return Ok(Err(error)),
        };
        Ok(blocking(move || entries(&below)).await)
    }
}

fn entries(below: &Below) -> std::result::Result<Vec<wit::Entry>, Error> {
    let path = if below.path.as_os_str().is_empty() { Path::new(".") } else { &below.path };
    let mut list = Vec::new();
    for entry in below.dir.read_dir(path).map_err(|error| io_error(&error))? {
        let entry = entry.map_err(|error| io_error(&error))?;
        let kind = entry.file_type().map_err(|error| io_error(&error))?;
        let (kind, size) = if kind.is_dir() {
            (wit::Kind::Folder, 0)
        } else if kind.is_file() {
            (wit::Kind::File, entry.metadata().map_or(0, |meta| meta.len()))
        } else {
            (wit::Kind::Other("link".to_owned()), 0)
        };
        list.push(wit::Entry {
            name: entry.file_name().to_string_lossy().into_owned(),
            kind,
            size: to_wit_bytes(size),
        });
        if list.len() > MAX_ENTRIES {
            return Err(Error::QuotaExceeded(format!("the folder has more than {MAX_ENTRIES} entries")));
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

impl<T: 'static> wit::HostWithStore<T> for HasFiles {
    fn read(
        mut store: StoreAccess<'_, T, Self>,
        path: String,
    ) -> Result<(StreamReader<u8>, FutureReader<std::result::Result<(), Error>>)> {
        let mut access = store.get();
        access.charge()?;
        let admitted = access.admit(&path, false);
        let (ended, end) = oneshot::channel();
        let bytes = match admitted {
            Ok((below, place)) => {
                let (sender, mut chunks) = mpsc::channel(QUEUE);
                tokio::task::spawn_blocking(move || read(&below, &sender, place));
                let chunks = futures::stream::poll_fn(move |cx| chunks.poll_recv(cx));
                let reader = tokio_util::io::StreamReader::new(chunks);
                StreamReader::new(&mut store, ByteSource { reader, ended: Some(ended) })?
            }
            Err(error) => {
                // The receiver is in our hands.
                let _ = ended.send(Err(error));
                StreamReader::new(&mut store, Vec::new())?
            }
        };
        let outcome = end.map(|end| Ok::<_, wasmtime::Error>(end.unwrap_or(Ok(()))));
        Ok((bytes, FutureReader::new(&mut store, outcome)?))
    }

    fn write(
        mut store: StoreAccess<'_, T, Self>,
        path: String,
        mut content: StreamReader<u8>,
    ) -> Result<FutureReader<std::result::Result<(), Error>>> {
        let mut access = store.get();
        access.charge()?;
        let orderly = access.shared.orderly.clone();
        let (below, place) = match access.admit(&path, true) {
            Ok(admitted) => admitted,
            Err(error) => {
                content.close(&mut store)?;
                return FutureReader::new(&mut store, std::future::ready(Ok::<_, wasmtime::Error>(Err(error))));
            }
        };
        let (sender, chunks) = mpsc::channel(QUEUE);
        let (ended, end) = oneshot::channel();
        content.pipe(&mut store, ByteSink::new(sender, write_limit(), ended, orderly))?;
        let written = tokio::task::spawn_blocking(move || write(&below, chunks, end, place));
        let outcome = written.map(|done| {
            Ok::<_, wasmtime::Error>(
                done.unwrap_or_else(|error| Err(Error::Internal(format!("the write failed: {error}")))),
            )
        });
        FutureReader::new(&mut store, outcome)
    }
}

/// Refuses what goes over [`MAX_WRITE`].
fn write_limit() -> Admit {
    let mut taken = 0_u64;
    Box::new(move |bytes| {
        taken += bytes as u64;
        if taken > MAX_WRITE {
            return Err(Error::QuotaExceeded(format!("one write makes a file of at most {MAX_WRITE} bytes")));
        }
        Ok(())
    })
}

/// Reads a file into the channel until it ends or nobody listens. Errors become items: [`ByteSource`] reports them.
fn read(below: &Below, sender: &mpsc::Sender<std::io::Result<Bytes>>, _place: OwnedSemaphorePermit) {
    let opened = below.dir.open(&below.path).and_then(|file| {
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "this is no file"))
        }
    });
    let mut file = match opened {
        Ok(file) => file,
        Err(error) => return drop(sender.blocking_send(Err(error))),
    };
    loop {
        let mut chunk = vec![0; CHUNK];
        let item = match std::io::Read::read(&mut file, &mut chunk) {
            Ok(0) => return,
            Ok(n) => {
                chunk.truncate(n);
                Ok(Bytes::from(chunk))
            }
            Err(error) => Err(error),
        };
        if item.is_err() | sender.blocking_send(item).is_err() {
            return;
        }
    }
}

/// Writes what comes to a temporary file and puts it in the place of the old one if it ended as it should.
fn write(
    below: &Below,
    mut chunks: mpsc::Receiver<Bytes>,
    end: oneshot::Receiver<std::result::Result<(), Error>>,
    _place: OwnedSemaphorePermit,
) -> std::result::Result<(), Error> {
    let name = below
        .path
        .file_name()
        .ok_or_else(|| Error::InvalidRequest("this path names a folder, not a file".to_owned()))?;
    let parent = below.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = below.dir.open_dir(parent).map_err(|error| io_error(&error))?;
    if dir.symlink_metadata(name).is_ok_and(|meta| !meta.is_file()) {
        return Err(Error::InvalidRequest("the path exists and is no plain file".to_owned()));
    }
    let temporary = Temporary::create(dir).map_err(|error| io_error(&error))?;
    let mut file = &temporary.file;
    while let Some(chunk) = chunks.blocking_recv() {
        file.write_all(&chunk).map_err(|error| io_error(&error))?;
    }
    // Without a word from the sink nobody knows whether it was all.
    end.blocking_recv().unwrap_or_else(|_| Err(Error::Interrupted("the stream broke".to_owned())))?;
    temporary.replace(name).map_err(|error| io_error(&error))
}

/// A file beside its target that vanishes unless it replaces it.
struct Temporary {
    dir: Dir,
    name: String,
    file: cap_std::fs::File,
}

impl Temporary {
    fn create(dir: Dir) -> std::io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let name = format!(".locara-{}.tmp", crate::cache::hex(&random));
        let file = dir.open_with(&name, cap_std::fs::OpenOptions::new().write(true).create_new(true))?;
        Ok(Self { dir, name, file })
    }

    fn replace(mut self, target: &std::ffi::OsStr) -> std::io::Result<()> {
        self.file.sync_all()?;
        self.dir.rename(&self.name, &self.dir, target)?;
        self.name.clear();
        // The new name is on disk when the folder is.
        self.dir.open(".")?.sync_all()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.name.is_empty()
            && let Err(error) = self.dir.remove_file(&self.name)
        {
            tracing::warn!(%error, name = self.name, "a temporary file of an app stays behind");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, Error> + Send + 'static,
) -> std::result::Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Internal(format!("the disk failed: {error}"))))
}
