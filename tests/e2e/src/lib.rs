//! The real `locara` binary, seen from outside: what it prints, how it exits, what it leaves on the disk.
//!
//! A [`TestContext`] is one person on one machine: a home folder, a working folder and nothing else of the environment.
//! [`TestContext::run`] gives an [`Outcome`], whose text form (exit code, standard output, standard error) is what
//! snapshots compare. Facts of the machine at hand are replaced by names in brackets first, see [`Redactions`].
//!
//! `cargo insta review` takes over what changed on purpose.
//!
//! This crate must never look inside: what it knows of Locara is what a person or a script could know.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test harness: a failed unwrap is a failed test")]

mod hub;
mod outcome;
mod redact;
mod serving;
mod terminal;

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use hub::Hub;
pub use outcome::Outcome;
pub use redact::Redactions;
pub use serving::Serving;
pub use terminal::Terminal;

/// No command of a test takes this long on any machine; one that does hangs, and is killed so that the test can say so.
const PATIENCE: Duration = Duration::from_secs(240);

/// One person on one machine, who has not used Locara before.
#[derive(Debug)]
pub struct TestContext {
    root: TempDir,
    redactions: Redactions,
}

impl Default for TestContext {
    fn default() -> Self {
        Self::new()
    }
}

impl TestContext {
    /// A fresh home and a fresh working folder; both are gone with the context.
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["work", "home"] {
            fs_err::create_dir(root.path().join(folder)).unwrap();
        }
        let redactions = Redactions::new(root.path());
        Self { root, redactions }
    }

    /// With these apps of `dist/apps` installed and everything granted that they ask for.
    #[must_use]
    pub fn with_apps(names: &[&str]) -> Self {
        let context = Self::new();
        for name in names {
            context.copy_app(name);
            context.run(["install", name, "--yes"]).assert_code(0);
        }
        context
    }

    /// A path in the working folder, where every command runs. Name it relatively on command lines: then no output
    /// depends on where the folder lies.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join("work").join(name)
    }

    /// A path in the person's home, `~`.
    #[must_use]
    pub fn home(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join("home").join(name)
    }

    /// A path in the state folder, `LOCARA_HOME`.
    #[must_use]
    pub fn state(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join("state").join(name)
    }

    /// Writes a file into the working folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs_err::write(self.path(name), content).unwrap();
    }

    /// Copies a packed app into the working folder, under its own name.
    ///
    /// # Panics
    /// The apps are not built.
    pub fn copy_app(&self, name: &str) {
        let from = repository("dist/apps").join(name);
        assert!(from.is_dir(), "no app at {}: run `cargo xtask apps` first", from.display());
        fs_err::create_dir_all(self.path(name)).unwrap();
        for entry in fs_err::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs_err::copy(entry.path(), self.path(name).join(entry.file_name())).unwrap();
        }
    }

    /// Changes the manifest of an app that was copied into the working folder.
    pub fn edit_manifest(&self, app: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        let path = self.path(app).join("locara.json");
        let mut manifest = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        edit(&mut manifest);
        fs_err::write(path, manifest.to_string()).unwrap();
    }

    /// The command, ready to be started in the working folder with nothing of this process's environment but `PATH`.
    /// Standard input is empty; standard output and error are pipes.
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.root.path().join("home"))
            .env("LOCARA_HOME", self.root.path().join("state"))
            .current_dir(self.root.path().join("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        self.finish(self.command(arguments).spawn().unwrap(), Vec::new())
    }

    /// Runs a command to its end as a client of a host.
    pub fn run_at<A: AsRef<OsStr>>(&self, host: &Serving, arguments: impl IntoIterator<Item = A>) -> Outcome {
        let child = self.command(arguments).env("LOCARA_LISTEN", &host.address).spawn().unwrap();
        self.finish(child, Vec::new())
    }

    /// The same with this on its standard input.
    pub fn run_at_with_input<A: AsRef<OsStr>>(
        &self,
        host: &Serving,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Outcome {
        let child = self.command(arguments).env("LOCARA_LISTEN", &host.address).stdin(Stdio::piped()).spawn().unwrap();
        self.finish(child, input.as_bytes().to_vec())
    }

    /// Starts `locara serve` on a free port and waits until it listens.
    #[must_use]
    pub fn serve(&self) -> Serving {
        Serving::start(self.command(["serve", "--listen", "127.0.0.1:0"]))
    }

    /// Runs a command to its end with this on its standard input.
    pub fn run_with_input<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: impl Into<Vec<u8>>,
    ) -> Outcome {
        let child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        self.finish(child, input.into())
    }

    /// Feeds `input` to a command that was started and waits for its end.
    pub fn finish(&self, mut child: Child, input: Vec<u8>) -> Outcome {
        let stdin = child.stdin.take();
        // A command that ends without reading breaks the pipe: no fault of the test.
        let feeder = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        let watchdog = Watchdog::over(&child);
        let output = child.wait_with_output().unwrap();
        drop(watchdog);
        let _ = feeder.join();
        Outcome::new(output, &self.redactions)
    }
}

/// Asks a command to stop, as `kill` and Ctrl-C do.
pub fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Kills a child that hangs, so that the test fails instead of hanging too. Dropping it calls it off.
#[derive(Debug)]
struct Watchdog(#[expect(dead_code, reason = "its end is the message")] mpsc::Sender<()>);

impl Watchdog {
    fn over(child: &Child) -> Self {
        let (called_off, wait) = mpsc::channel::<()>();
        let pid = Pid::from_child(child);
        thread::spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self(called_off)
    }
}

/// The folder that cargo builds this profile into: `target/release`.
#[must_use]
pub fn build_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/release/deps/cli-0123456789abcdef
    test.ancestors().nth(2).expect("cargo puts tests two folders deep").to_owned()
}

/// The binary under test, from the same build folder as the test itself.
///
/// # Panics
/// It is not built.
#[must_use]
pub fn binary() -> PathBuf {
    let binary = build_folder().join("locara");
    assert!(binary.is_file(), "no binary at {}: run `cargo build --release -p locara-daemon` first", binary.display());
    binary
}

/// A path in the repository.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}
