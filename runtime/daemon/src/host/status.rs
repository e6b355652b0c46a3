//! What a running host shows of itself: a socket in the state folder, for this user alone, that answers every connection with
//! one snapshot as a line of JSON.
//!
//! `locara memory` reads it. A process that was killed leaves its socket behind; whoever cannot connect removes it, and so does
//! the next host.

use std::{
    io::{self, Read as _},
    os::unix::{fs::DirBuilderExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::Weak,
    time::Duration,
};

use locara_policy::{Kind, correction::ErrorSummary, governor::Snapshot};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt as _, net::UnixListener, task::JoinHandle};

use super::Host;

/// A host answers within microseconds; one that hangs is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest snapshot that is read, bytes. One has some kilobytes.
const MOST: u64 = 4 << 20;

/// What a host says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Its process.
    pub(crate) pid: u32,
    /// What it was started for.
    pub(crate) command: String,
    /// The governor's state.
    pub(crate) memory: Snapshot,
    /// How far predictions were off, by kind: observations, and millionths of the prediction.
    pub(crate) prediction_error: Vec<(Kind, ErrorSummary)>,
    /// Whether the governor acts. Switched off only to measure what it prevents.
    pub(crate) governed: bool,
    /// A model that nobody used for so long is unloaded, ms; the greatest number is never.
    pub(crate) idle_unload_ms: u64,
}

/// Answers for as long as it is held; the socket goes with it.
#[derive(Debug)]
pub(crate) struct Status {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Status {
    /// Serves the reports of `host` from a socket in `folder`.
    pub(crate) fn serve(folder: &Path, host: Weak<Host>) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        sockets(folder).iter().for_each(|path| drop(connect(path)));
        let path = folder.join(format!("{}.sock", std::process::id()));
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(report) = host.upgrade().map(|host| host.report()) else { return };
                let line = serde_json::to_vec(&report).unwrap_or_default();
                // One after the other: readers are few, and one that does not read is dropped.
                let _ = tokio::time::timeout(PATIENCE, stream.write_all(&line)).await;
            }
        });
        Ok(Self { path, serving })
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = fs_err::remove_file(&self.path);
    }
}

/// The reports of all hosts of this user, by process.
pub(crate) fn reports(folder: &Path) -> Vec<Report> {
    let mut reports: Vec<Report> = sockets(folder).iter().filter_map(|path| report(path)).collect();
    reports.sort_by_key(|report| report.pid);
    reports
}

/// Those of living hosts and of dead ones.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect()
}

/// Connects to a host; removes the socket of one that is dead.
fn connect(path: &Path) -> Option<UnixStream> {
    match UnixStream::connect(path) {
        Ok(stream) => Some(stream),
        Err(error) => {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                let _ = fs_err::remove_file(path);
            }
            None
        }
    }
}

fn report(path: &Path) -> Option<Report> {
    let stream = connect(path)?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = String::new();
    stream.take(MOST).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}
