//! The real `locara` with the test's app inside a group, as a person would run it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::enter;

/// What is installed, and where the host keeps its state.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) locara: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) model: PathBuf,
}

/// A change of its lease, as the app heard it. Times are milliseconds of the host's clock.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Heard {
    pub(crate) epoch: u32,
    pub(crate) heard: f64,
    pub(crate) since: f64,
    pub(crate) deadline: f64,
    pub(crate) level: String,
    pub(crate) limit: u64,
    pub(crate) release: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Ready {
        #[expect(dead_code, reason = "only its coming counts")]
        ready: u64,
    },
    Piece {
        piece: String,
    },
    End {
        #[expect(dead_code, reason = "one answer runs at a time")]
        end: String,
        tokens: u32,
    },
    Failed {
        failed: String,
        why: String,
    },
    Heard(Heard),
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) tokens: u32,
    /// The longest time without a new piece, ms.
    pub(crate) longest_gap_ms: f64,
    /// From its first piece to its end, ms.
    pub(crate) streamed_ms: f64,
}

impl Answer {
    /// How fast it was streamed.
    pub(crate) fn tokens_per_second(&self) -> f64 {
        f64::from(self.tokens) * 1e3 / self.streamed_ms.max(1.0)
    }
}

/// A running host.
#[derive(Debug)]
pub(crate) struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
    /// Everything that the app heard so far.
    pub(crate) heard: Vec<Heard>,
}

impl Setup {
    /// A command of `locara` on this state.
    fn on(&self, command: &mut Command) {
        command.env("LOCARA_HOME", &self.home).env("NO_COLOR", "1");
    }

    /// Installs the app with all that it asks for.
    pub(crate) fn install(&self, app: &Path) -> Result<()> {
        let mut command = Command::new(&self.locara);
        self.on(&mut command);
        let output = command.arg("install").arg(app).arg("--yes").stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "locara install {}: {}", app.display(), said.trim());
        Ok(())
    }

    /// Starts it in these groups; `log` gets the governor's events, `governed` switches the governor on, and what it says on
    /// standard error goes into `said`.
    pub(crate) fn start(&self, folders: &[&Path], log: &Path, governed: bool, said: &Path) -> Result<Host> {
        let mut command = enter::command(folders, &self.locara)?;
        self.on(&mut command);
        if !governed {
            command.env("LOCARA_UNGOVERNED", "1");
        }
        command.env("LOCARA_GOVERNOR_LOG", log).stderr(fs_err::File::create(said)?.into_parts().0);
        command.args(["run", "org.locara.test.pressure", "--no-card", "--model"]).arg(&self.model);
        let mut child = command.spawn().context("start locara")?;
        let out = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let mut host = Host { stdin: child.stdin.take(), child, lines, heard: Vec::new() };
        let until = Instant::now() + Duration::from_secs(60);
        while !matches!(host.next(until)?.1, Line::Ready { .. }) {}
        Ok(host)
    }
}

impl Host {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks; [`answer`](Self::answer) reads what comes of it.
    pub(crate) fn ask(&mut self, session: &str, tokens: u32, prompt: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the input was closed")?;
        writeln!(stdin, "{session} {tokens} {prompt}").context("the host reads no more input")?;
        Ok(stdin.flush()?)
    }

    /// Reads the answer to its end. `began` is called at its first piece. `Err(why)` inside: the host refused, or took it
    /// back, and said why.
    pub(crate) fn answer(&mut self, patience: Duration, began: impl FnOnce()) -> Result<Result<Answer, String>> {
        let until = Instant::now() + patience;
        let (mut first, mut last) = (None, None);
        let mut began = Some(began);
        let mut answer = Answer::default();
        loop {
            let (at, line) = self.next(until)?;
            match line {
                Line::Ready { .. } => {}
                Line::Heard(heard) => self.heard.push(heard),
                Line::Failed { failed, why } => return Ok(Err(format!("{failed}: {why}"))),
                Line::Piece { piece } => {
                    if let Some(began) = began.take() {
                        began();
                    }
                    let gap = last.map_or(0.0, |last| ms(at.saturating_duration_since(last)));
                    answer.longest_gap_ms = answer.longest_gap_ms.max(gap);
                    last = Some(at);
                    first.get_or_insert(at);
                    answer.text.push_str(&piece);
                }
                Line::End { tokens, .. } => {
                    answer.tokens = tokens;
                    answer.streamed_ms = first.map_or(0.0, |first| ms(at.saturating_duration_since(first)));
                    return Ok(Ok(answer));
                }
            }
        }
    }

    fn next(&mut self, until: Instant) -> Result<(Instant, Line)> {
        let (at, line) = match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("the host said nothing in time"),
            Err(RecvTimeoutError::Disconnected) => bail!("the host ended: {}", self.child.wait()?),
        };
        Ok((at, serde_json::from_str(&line).with_context(|| format!("the app wrote {line:?}"))?))
    }

    /// Ends its input and waits for its end. A host that hangs is killed with its group.
    pub(crate) fn leave(mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the host does not end though its app has")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
