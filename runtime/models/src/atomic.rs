//! Files that are whole or not there, after `kill -9` or a power cut as well.

use std::{
    io::{self, Write},
    path::Path,
};

/// Writes a file so that under `path` there is always the old content or the new.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    // One name per process: two hosts that start at once must not write into each other's file.
    let temporary =
        folder.join(format!(".{}.{}.tmp", path.file_name().unwrap_or_default().to_string_lossy(), std::process::id()));
    let written = (|| {
        let mut file = fs_err::File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs_err::remove_file(&temporary);
    }
    written
}

/// Gives a file that is on disk already its final name, and makes the name last.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs_err::rename(from, to)?;
    fs_err::File::open(folder_of(to))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what writers left behind that were killed; those of living processes stay. Best effort.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs_err::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let writer = name.strip_suffix(".tmp").and_then(|rest| rest.rsplit('.').next()).and_then(|id| id.parse().ok());
        let alive =
            |id| rustix::process::Pid::from_raw(id).is_some_and(|id| rustix::process::test_kill_process(id).is_ok());
        if writer.is_some_and(|id| !alive(id)) {
            let _ = fs_err::remove_file(entry.path());
        }
    }
}
