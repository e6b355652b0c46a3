//! A control group with a memory limit, and what the kernel says about it.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    parse::field,
    place::{NAME, Place, Version},
};

/// Killed processes are gone, and their pages uncharged, well within this.
const GONE: Duration = Duration::from_secs(10);

/// One group, until it is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    version: Version,
    folder: PathBuf,
    stalls: Option<PathBuf>,
}

/// What a group holds now, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Anonymous memory and page cache.
    pub(crate) memory: u64,
    /// Swap.
    pub(crate) swap: u64,
}

impl Group {
    /// A group that may hold `limit` bytes of memory and as much swap as there is.
    pub(crate) fn new(place: &Place, limit: u64) -> Result<Self> {
        let name = format!("{NAME}{}", std::process::id());
        let folder = place.memory.join(&name);
        fs_err::create_dir(&folder)?;
        let mut group = Self { version: place.version, folder, stalls: None };
        if let Some(stalls) = &place.stalls {
            let stalls = stalls.join(&name);
            fs_err::create_dir(&stalls)?;
            group.stalls = Some(stalls);
        }
        let file = match group.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        fs_err::write(group.folder.join(file), limit.to_string())?;
        Ok(group)
    }

    /// The folders that a process has to enter.
    pub(crate) fn folders(&self) -> Vec<&Path> {
        [Some(self.folder.as_path()), self.stalls.as_deref()].into_iter().flatten().collect()
    }

    /// What it holds now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Ok(match self.version {
            Version::V1 => {
                Usage { memory: self.number("memory.usage_in_bytes")?, swap: self.stat("memory.stat", "swap")? }
            }
            Version::V2 => Usage { memory: self.number("memory.current")?, swap: self.number("memory.swap.current")? },
        })
    }

    /// Processes that the kernel has killed in it.
    pub(crate) fn kills(&self) -> Result<u64> {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        self.stat(file, "oom_kill")
    }

    fn stat(&self, file: &str, key: &str) -> Result<u64> {
        let path = self.folder.join(file);
        field(&fs_err::read_to_string(&path)?, key).with_context(|| format!("{} has no `{key}`", path.display()))
    }

    fn number(&self, file: &str) -> Result<u64> {
        let path = self.folder.join(file);
        fs_err::read_to_string(&path)?.trim().parse().with_context(|| format!("{} is not a number", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in self.folders() {
            if let Err(error) = remove(folder) {
                eprintln!("{}: {error:#}", folder.display());
            }
        }
    }
}

/// Ends every process in a group of ours and removes it.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    let started = Instant::now();
    while folder.is_dir() {
        let inside = fs_err::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            // It may be gone by now.
            let _ = kill_process(pid, Signal::KILL);
        }
        if fs_err::remove_dir(folder).is_ok() {
            break;
        }
        if started.elapsed() > GONE {
            bail!("the group does not go away; still in it: {}", inside.replace('\n', " "));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Removes the groups of this test that `ours` accepts by the number in their name.
pub(crate) fn sweep(place: &Place, ours: impl Fn(&str) -> bool) {
    for parent in [Some(&place.memory), place.stalls.as_ref()].into_iter().flatten() {
        let names = fs_err::read_dir(parent).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        for folder in names {
            let of_test = folder.file_name().and_then(|name| name.to_str()?.strip_prefix(NAME));
            if of_test.is_some_and(&ours)
                && let Err(error) = remove(&folder)
            {
                eprintln!("{}: {error:#}", folder.display());
            }
        }
    }
}
