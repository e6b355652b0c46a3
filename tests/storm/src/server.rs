//! `locara serve` with the embedded model, in a home of its own.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The first start writes the embedded model; no machine takes so long for it.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// The host itself gives answers in flight thirty seconds.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a file or a process.
const LOOK: Duration = Duration::from_millis(50);

/// A running host. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    base: String,
    home: TempDir,
}

impl Server {
    /// Starts the binary that lies beside this program, and waits until it says where it listens.
    pub(crate) async fn start() -> Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("locara");
        ensure!(binary.is_file(), "no {}; `cargo build --release -p locara-daemon` builds it", binary.display());
        let home = tempfile::tempdir()?;
        let log = fs_err::File::create(home.path().join("log"))?;
        let child = Command::new(&binary)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("LOCARA_HOME", home.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.into_file())
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let mut server = Self { child, base: String::new(), home };
        let listens = async {
            loop {
                let log = server.log();
                if let Some((_, rest)) = log.split_once("listens on ")
                    && let Some((base, _)) = rest.split_once('\n')
                {
                    return Ok(base.trim().to_owned());
                }
                if let Some(status) = server.child.try_wait()? {
                    bail!("the host ended with {status}: {log}");
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let base = tokio::time::timeout(STARTS_WITHIN, listens).await;
        server.base = base.with_context(|| format!("the host does not say where it listens: {}", server.log()))??;
        Ok(server)
    }

    /// `http://ADDRESS:PORT`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return anyhow::Ok(status);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let status = tokio::time::timeout(ENDS_WITHIN, ended).await.context("it does not end")??;
        ensure!(status.success(), "{status}: {}", self.log());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
