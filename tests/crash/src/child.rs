//! Processes that are killed, and the homes that they leave.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use locara_zoo::Rng;

use crate::Broken;

/// The binary under test, which lies beside this program.
pub(crate) fn locara(home: &Path) -> Result<Command> {
    let binary = std::env::current_exe()?.with_file_name("locara");
    ensure!(binary.is_file(), "no {}; `cargo build --release -p locara-daemon` builds it", binary.display());
    let mut command = Command::new(binary);
    command.env("LOCARA_HOME", home).stdin(Stdio::null());
    Ok(command)
}

/// Runs a command of the binary under test to its end.
pub(crate) fn run(home: &Path, arguments: &[&str]) -> Result<Output> {
    locara(home)?.args(arguments).output().with_context(|| format!("locara {arguments:?}"))
}

/// A child of this program that says a number after each thing that it has done.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    said: BufReader<ChildStdout>,
    done: usize,
}

impl Worker {
    /// Starts this program with `arguments`, and waits for its first number.
    pub(crate) fn start<'a>(arguments: impl IntoIterator<Item = &'a str>, folder: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(child.stdout.take().context("the child has no output")?);
        let mut worker = Self { child, said, done: 0 };
        ensure!(worker.hear()?, "the child ends without having done anything");
        Ok(worker)
    }

    /// Reads one number. False at the end of the output; a line that was cut off was not said.
    pub(crate) fn hear(&mut self) -> Result<bool> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        let Some(number) = line.strip_suffix('\n') else { return Ok(false) };
        self.done = number.parse().with_context(|| format!("the child says {line:?}"))?;
        Ok(true)
    }

    /// Kills it after a moment. Returns the last number that it said.
    pub(crate) fn kill(mut self, moment: Duration) -> Result<usize> {
        std::thread::sleep(moment);
        if let Some(status) = self.child.try_wait()? {
            bail!("the child ended by itself, with {status}");
        }
        self.child.kill()?;
        self.child.wait()?;
        while self.hear()? {}
        Ok(self.done)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A moment below `longest`, to the microsecond.
pub(crate) fn moment(rng: &mut Rng, longest: Duration) -> Duration {
    let micros = usize::try_from(longest.as_micros()).unwrap_or(usize::MAX);
    Duration::from_micros(rng.below(micros.max(1)) as u64)
}

/// What the next start makes of a home: it works and says nothing, and clears up what writers left that were killed.
pub(crate) fn next_start(home: &Path) -> Result<Vec<Broken>> {
    let mut broken = Vec::new();
    let output = run(home, &["plan", "--json"])?;
    if !output.status.success() || !output.stderr.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        broken.push(Broken::Lost(format!("the next start ends with {}: {said}", output.status)));
    }
    broken.extend(leftovers(home)?.into_iter().map(|path| {
        Broken::HalfWritten(format!(
            "{} stays after the next start",
            path.strip_prefix(home).unwrap_or(&path).display()
        ))
    }));
    Ok(broken)
}

/// Files that somebody wrote aside and did not rename.
fn leftovers(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(leftovers(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "tmp") {
            all.push(path);
        }
    }
    Ok(all)
}
