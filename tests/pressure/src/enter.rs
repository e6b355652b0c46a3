//! Starts a program inside control groups: everything it allocates is charged there from its first page on.
//!
//! A process can only put itself in safely before it becomes the program, so this program is started first and then replaces
//! itself. It asks to be killed when the test dies.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::process::{Signal, set_parent_process_death_signal};

/// The word on the command line.
pub(crate) const MODE: &str = "enter";
const END: &str = "--";

/// A command that runs `program` in these groups, with pipes. Must be started by a thread that outlives it: the kernel takes
/// the end of that thread for the end of the test.
pub(crate) fn command(folders: &[&Path], program: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(MODE).args(folders).arg(END).arg(program).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

/// Enters and becomes the program; returns only if that fails.
pub(crate) fn work(arguments: &[impl AsRef<OsStr>]) -> Result<()> {
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let end = arguments.iter().position(|argument| *argument == END).context("no program is named")?;
    let (folders, rest) = arguments.split_at(end);
    set_parent_process_death_signal(Some(Signal::KILL))?;
    for folder in folders {
        fs_err::write(Path::new(folder).join("cgroup.procs"), std::process::id().to_string())?;
    }
    let program = rest.get(1).context("no program is named")?;
    Err(Command::new(program).args(&rest[2..]).exec()).with_context(|| format!("become {}", program.display()))
}
