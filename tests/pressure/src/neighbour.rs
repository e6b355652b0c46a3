//! The neighbour: another program in the same group that takes memory in steps, holds it, and is gone.

use std::{
    hint::black_box,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::enter;

/// The word on the command line.
pub(crate) const MODE: &str = "neighbour";

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// What it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appetite {
    /// One step, MiB.
    pub(crate) step_mib: u64,
    /// Steps.
    pub(crate) steps: u64,
    /// Between two steps, ms.
    pub(crate) pause_ms: u64,
}

/// A neighbour that runs.
#[derive(Debug)]
pub(crate) struct Neighbour {
    child: Child,
    stdin: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
}

impl Neighbour {
    /// Starts one in these groups.
    pub(crate) fn start(folders: &[&std::path::Path], appetite: Appetite) -> Result<Self> {
        let program = std::env::current_exe()?;
        let Appetite { step_mib, steps, pause_ms } = appetite;
        let arguments = [MODE.to_owned(), step_mib.to_string(), steps.to_string(), pause_ms.to_string()];
        let mut child = enter::command(folders, &program)?.args(arguments).spawn().context("start the neighbour")?;
        let said = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Self { stdin: child.stdin.take(), child, said })
    }

    /// Waits until it has all that it wants; `false` if it was killed before.
    pub(crate) fn is_full(&mut self) -> Result<bool> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim() == "full")
    }

    /// Lets it go, and says how it ended.
    pub(crate) fn leave(mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        Ok(self.child.wait()?)
    }
}

/// The neighbour itself: takes, says `full`, and touches all of it again and again until its input ends.
pub(crate) fn work(appetite: Appetite) -> Result<()> {
    let mut held = Vec::new();
    for step in 0..appetite.steps {
        let mut taken = vec![0_u8; usize::try_from(appetite.step_mib)? * MIB];
        touch(&mut taken, step);
        held.push(taken);
        std::thread::sleep(Duration::from_millis(appetite.pause_ms));
    }
    let mut out = std::io::stdout();
    writeln!(out, "full")?;
    out.flush()?;
    let end = std::thread::spawn(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let mut round = appetite.steps;
    while !end.is_finished() {
        round += 1;
        held.iter_mut().for_each(|taken| touch(taken, round));
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Writes to every page.
fn touch(taken: &mut [u8], round: u64) {
    for (number, page) in taken.chunks_mut(PAGE).enumerate() {
        let value = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round;
        page[..8].copy_from_slice(&value.to_le_bytes());
    }
    black_box(taken);
}
