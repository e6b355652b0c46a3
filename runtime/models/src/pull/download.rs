//! One file from a server to the disk: resumed where it stopped, checked before it gets its name.
//!
//! `partial/KEY.part` is what came so far, `KEY.json` says of which version of the file it is, `KEY.lock` keeps other
//! processes out. Whatever happens between two instructions, the next try finds bytes of one version or starts anew, and the
//! digest decides in the end.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use locara_manifest::Digest;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE},
};
use serde::{Deserialize, Serialize};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncSeekExt, AsyncWriteExt, BufWriter},
};
use tokio_util::sync::CancellationToken;

use super::{
    Hub, PlannedPart, PullError,
    http::{Failure, text},
    hub::ContentRange,
};
use crate::{
    atomic::write_whole,
    digest::{digest_of_bytes, hash},
    lock::FileLock,
    progress::{Meter, Stage},
};

/// Bytes that are written at a time.
const BUFFER: usize = 1 << 20;
/// Bytes that make a try one with progress, so that it is not counted against the patience.
const PROGRESS: u64 = 64 << 10;
/// Time between two looks at a lock that another process holds.
const LOOK: Duration = Duration::from_millis(100);

/// What came so far of one file.
pub(super) struct Partial {
    path: PathBuf,
    lock: FileLock,
}

/// Of which version of the file the bytes are.
#[derive(Debug, Serialize, Deserialize)]
struct Version {
    bytes: u64,
    /// A strong entity tag of the server that sent them.
    etag: Option<String>,
}

/// How one try ended that was not a failure.
enum Step {
    /// All bytes are there.
    Whole,
    /// The version on the server is another one, so nothing is there any more.
    Anew,
}

impl Partial {
    /// Waits until no other process downloads the same, and takes over what is there. `None` if `done` says that it is not
    /// needed any more.
    pub(super) async fn take(
        folder: &Path,
        part: &PlannedPart,
        meter: &Meter<'_>,
        done: impl Fn() -> bool,
    ) -> Result<Option<Self>, PullError> {
        let path = path_of(folder, part);
        let mut waited = false;
        loop {
            if done() {
                return Ok(None);
            }
            let lock = path.with_extension("lock");
            let attempt = FileLock::attempt(&lock);
            match attempt.map_err(|source| PullError::Io { what: "lock", path: lock, source })? {
                Some(lock) => {
                    if waited {
                        meter.stage(Stage::Downloading);
                    }
                    // The one before may have finished between the look and the lock.
                    return Ok(if done() { None } else { Some(Self { path, lock }) });
                }
                None => {
                    if !waited {
                        meter.stage(Stage::Waiting);
                    }
                    waited = true;
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// Downloads what is missing, and returns the digest of the whole, which is the announced one if one was announced.
    pub(super) async fn fetch(
        &self,
        hub: &Hub,
        part: &PlannedPart,
        meter: &Meter<'_>,
        cancel: &CancellationToken,
    ) -> Result<Digest, PullError> {
        let mut wrong: Option<Digest> = None;
        loop {
            self.download(hub, part, meter).await?;
            meter.stage(Stage::Verifying);
            let (path, cancel) = (self.path.clone(), cancel.clone());
            let hashed = tokio::task::spawn_blocking(move || {
                let found = hash(&path, &mut |_| {}, &cancel)?;
                // An earlier process may have written some of it and died before that was on the disk.
                fs_err::File::open(&path)?.sync_all()?;
                Ok(found)
            });
            let hashed = hashed.await.unwrap_or_else(|_| Err(io::Error::other("the thread that read it was stopped")));
            let found = hashed.map_err(|source| self.failed("read", source))?;
            match &part.sha256 {
                Some(expected) if *expected != found => {
                    // What was resumed may be of two versions; what comes whole and is wrong again, is wrong there.
                    self.discard()?;
                    if wrong.replace(found.clone()).is_some() {
                        return Err(PullError::Content { what: part.file.clone(), expected: expected.clone(), found });
                    }
                    meter.lost(part.bytes);
                    meter.stage(Stage::Downloading);
                }
                _ => return Ok(found),
            }
        }
    }

    /// Gives the file its final name.
    pub(super) fn place(self, target: &Path) -> Result<(), PullError> {
        let failed = |what| move |source| PullError::Io { what, path: target.to_owned(), source };
        if let Some(folder) = target.parent() {
            fs_err::create_dir_all(folder).map_err(failed("make the folder of"))?;
        }
        crate::atomic::rename(&self.path, target).map_err(failed("write"))?;
        let _ = fs_err::remove_file(self.sidecar());
        self.lock.remove();
        Ok(())
    }

    /// Tries until all bytes are there.
    async fn download(&self, hub: &Hub, part: &PlannedPart, meter: &Meter<'_>) -> Result<(), PullError> {
        let mut counted = self.usable(part);
        meter.found(counted);
        let mut attempt = 0;
        loop {
            let step = self.attempt(hub, part, meter).await;
            // What the meter counted and what lies there may differ by what was lost on the way.
            let there = self.len();
            let gained = there.saturating_sub(counted);
            match step {
                Ok(Step::Whole) => return Ok(()),
                Ok(Step::Anew) => {
                    meter.lost(counted);
                    counted = 0;
                    attempt += 1;
                    let failure = Failure::again("the file on the server is another one every time");
                    if attempt >= hub.http.patience.attempts {
                        hub.http.pause(attempt, failure, &part.url, &part.file).await?;
                    }
                }
                Err(failure) => {
                    attempt = if gained >= PROGRESS { 0 } else { attempt + 1 };
                    counted = there;
                    hub.http.pause(attempt, failure, &part.url, &part.file).await?;
                }
            }
        }
    }

    async fn attempt(&self, hub: &Hub, part: &PlannedPart, meter: &Meter<'_>) -> Result<Step, Failure> {
        let have = self.usable(part);
        if have == part.bytes {
            return Ok(Step::Whole);
        }
        let version = self.version();
        let mut headers = HeaderMap::new();
        if have > 0 {
            headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={have}-")).expect("digits are a header"));
            let etag = version.and_then(|version| HeaderValue::from_str(&version.etag?).ok());
            etag.and_then(|etag| headers.insert(IF_RANGE, etag));
        }
        let response = hub.http.get(&part.url, &part.file, &headers).await?;
        let from = match self.start(&response, part, have)? {
            Some(from) => from,
            None => {
                self.discard()?;
                return Ok(Step::Anew);
            }
        };
        if from < have {
            meter.lost(have);
        }
        let etag = strong_etag(&response);
        let mut file = self.open(from).await.map_err(|source| self.failed("write", source))?;
        if from == 0 {
            // The file is empty by now, so that the note is never about bytes of another version.
            let note = serde_json::to_vec(&Version { bytes: part.bytes, etag }).expect("a number and a text serialise");
            write_whole(&self.sidecar(), &note).map_err(|source| self.failed("write the note beside", source))?;
        }
        let outcome = self.body(response, part, from, &mut file, meter).await;
        // Whatever came is kept, and lasts.
        let written = async {
            file.flush().await?;
            file.get_ref().sync_data().await
        };
        written.await.map_err(|source| self.failed("write", source))?;
        outcome.map(|()| Step::Whole)
    }

    /// Where in the file the answer begins: 0 if the server sends all of it, `None` if the file must be asked for anew.
    fn start(&self, response: &Response, part: &PlannedPart, have: u64) -> Result<Option<u64>, PullError> {
        let size = |found| PullError::Size { what: part.file.clone(), expected: part.bytes, found };
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
            StatusCode::PARTIAL_CONTENT => {
                let range = ContentRange::of(response);
                match range {
                    Some(range) if range.start == have => match range.total {
                        Some(total) if total != part.bytes => Err(size(total)),
                        _ if self.is_another(response) => Ok(None),
                        _ => Ok(Some(have)),
                    },
                    _ => Ok(None),
                }
            }
            _ => {
                let announced =
                    response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
                match announced {
                    Some(announced) if announced != part.bytes => Err(size(announced)),
                    _ => Ok(Some(0)),
                }
            }
        }
    }

    /// Whether the server ignored `If-Range` and sends a part of another version.
    fn is_another(&self, response: &Response) -> bool {
        let before = self.version().and_then(|version| version.etag);
        matches!((before, strong_etag(response)), (Some(before), Some(now)) if before != now)
    }

    async fn body(
        &self,
        mut response: Response,
        part: &PlannedPart,
        from: u64,
        file: &mut BufWriter<File>,
        meter: &Meter<'_>,
    ) -> Result<(), Failure> {
        let mut have = from;
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::again(text(&error)))? {
            have += chunk.len() as u64;
            if have > part.bytes {
                return Err(PullError::Size { what: part.file.clone(), expected: part.bytes, found: have }.into());
            }
            file.write_all(&chunk).await.map_err(|source| self.failed("write", source))?;
            meter.advance(chunk.len() as u64);
        }
        if have < part.bytes {
            return Err(Failure::again(format!("the answer ended after {have} of {} bytes", part.bytes)));
        }
        Ok(())
    }

    /// The file, empty or with what is there up to `from`, ready to be written behind it.
    async fn open(&self, from: u64) -> io::Result<BufWriter<File>> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path).await?;
        file.set_len(from).await?;
        file.seek(io::SeekFrom::Start(from)).await?;
        Ok(BufWriter::with_capacity(BUFFER, file))
    }

    /// Bytes that the next try can go on from.
    fn usable(&self, part: &PlannedPart) -> u64 {
        usable(&self.path, part)
    }

    fn len(&self) -> u64 {
        fs_err::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    fn version(&self) -> Option<Version> {
        version(&self.path)
    }

    fn discard(&self) -> Result<(), PullError> {
        match fs_err::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("delete", error)),
            _ => Ok(()),
        }
    }

    fn sidecar(&self) -> PathBuf {
        self.path.with_extension("json")
    }

    fn failed(&self, what: &'static str, source: io::Error) -> PullError {
        PullError::Io { what, path: self.path.clone(), source }
    }
}

/// Bytes of a file that need not be downloaded any more.
pub(super) fn there_already(folder: &Path, part: &PlannedPart) -> u64 {
    usable(&path_of(folder, part), part)
}

/// What is known by its digest is the same wherever it comes from; everything else is known by its address.
fn path_of(folder: &Path, part: &PlannedPart) -> PathBuf {
    let key = match &part.sha256 {
        Some(digest) => format!("sha256-{digest}"),
        None => format!("url-{}", digest_of_bytes(part.url.as_str().as_bytes())),
    };
    folder.join(format!("{key}.part"))
}

/// Without a note beside it, nobody knows of what the bytes are. Without a digest to check in the end, only an entity tag
/// can tell whether the server still has the same version.
fn usable(path: &Path, part: &PlannedPart) -> u64 {
    let Some(version) = version(path) else { return 0 };
    let len = fs_err::metadata(path).map_or(0, |metadata| metadata.len());
    let same = version.bytes == part.bytes && (part.sha256.is_some() || version.etag.is_some());
    if same && len <= part.bytes { len } else { 0 }
}

fn version(path: &Path) -> Option<Version> {
    serde_json::from_slice(&fs_err::read(path.with_extension("json")).ok()?).ok()
}

/// Weak tags do not promise equal bytes.
fn strong_etag(response: &Response) -> Option<String> {
    let etag = response.headers().get(ETAG)?.to_str().ok()?;
    (etag.starts_with('"') && etag.len() <= 512).then(|| etag.to_owned())
}
