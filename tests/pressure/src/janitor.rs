//! Cleans up after a run, however it ends: its end, a panic, Ctrl-C, `kill -9`.
//!
//! It is a process of its own in a process group of its own, so that no signal to the test reaches it. It waits until the
//! test is gone, which closes a pipe, and then takes everything away that a test makes: processes, groups, swap, files.

use std::{
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{group, place::Place, swap};

/// The word on the command line.
pub(crate) const MODE: &str = "janitor";

/// The janitor of this run. Dropping it makes it work, and waits for it.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Janitor {
    /// Hires one for this process and for `folder`.
    pub(crate) fn hire(folder: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(MODE)
            .arg(std::process::id().to_string())
            .arg(folder)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start the janitor")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Lets it work, and says whether everything is clean.
    pub(crate) fn finish(mut self) -> Result<()> {
        drop(self.pipe.take());
        ensure!(self.child.wait()?.success(), "the janitor could not clean up; see above");
        Ok(())
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}

/// The janitor itself, for the test that runs as `pid`.
pub(crate) fn work(pid: &str, folder: &Path) -> Result<()> {
    // Nothing is ever written to it: it ends when the test does.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    if let Ok(place) = Place::find() {
        group::sweep(&place, |name| name == pid);
    }
    let swapped = swap::off();
    match fs_err::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    swapped
}

/// Takes away what runs left behind whose janitor was killed too. Only with the lock held: then no other run is there.
pub(crate) fn sweep() -> Result<()> {
    if let Ok(place) = Place::find() {
        group::sweep(&place, |_| true);
    }
    let temp = std::env::temp_dir();
    let old =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(crate::place::NAME));
    for folder in fs_err::read_dir(&temp)?.filter_map(|entry| Some(entry.ok()?.path())).filter(old) {
        // A lock file is no folder, and stays.
        let _ = fs_err::remove_dir_all(folder);
    }
    swap::off()
}
