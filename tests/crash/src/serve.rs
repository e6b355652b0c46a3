//! A host that is killed: while it starts for the first time, and while it loads and answers.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use locara_models::digest_of;
use locara_zoo::Rng;
use tempfile::TempDir;

use crate::{
    Broken, Scene,
    child::{locara, moment, next_start, run},
};

/// A host answers within this time, or it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that is about to die.
struct Host {
    child: Child,
    /// Held, so that the host can write to it.
    said: BufReader<ChildStderr>,
}

impl Host {
    fn start(home: &Path) -> Result<Self> {
        let mut command = locara(home)?;
        command.args(["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let said = BufReader::new(child.stderr.take().context("the host has no output")?);
        Ok(Self { child, said })
    }

    /// Its address, once it listens.
    fn address(&mut self) -> Result<String> {
        let mut all = String::new();
        loop {
            let before = all.len();
            if self.said.read_line(&mut all)? == 0 {
                bail!("the host ends before it listens: {all}");
            }
            if let Some((_, address)) = all[before..].split_once("listens on http://") {
                return Ok(address.trim().to_owned());
            }
        }
    }

    fn kill(mut self, after: Duration) -> Result<()> {
        std::thread::sleep(after);
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for an answer in a stream, without reading it.
fn ask(address: &str) -> Result<TcpStream> {
    let body = r#"{"model":"default","messages":[{"role":"user","content":"Summarize: apps ask for tokens."}],
        "max_tokens":400,"stream":true}"#;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(stream)
}

/// The host is up and answers.
fn answers(address: &str) -> Result<()> {
    let mut status = [0; 12];
    ask(address)?.read_exact(&mut status)?;
    ensure!(status == *b"HTTP/1.1 200", "the host answers {:?}", String::from_utf8_lossy(&status));
    Ok(())
}

/// The embedded model is written aside and renamed: under its name it is whole or not there.
pub(crate) struct FirstStart {
    /// From nothing to an answer.
    whole: Duration,
}

impl FirstStart {
    pub(crate) fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let started = Instant::now();
        let mut host = Host::start(home.path())?;
        answers(&host.address()?)?;
        Ok(Self { whole: started.elapsed() })
    }
}

impl Scene for FirstStart {
    fn name(&self) -> &'static str {
        "first start"
    }

    fn kill(&mut self, rng: &mut Rng) -> Result<Vec<Broken>> {
        let home = tempfile::tempdir()?;
        Host::start(home.path())?.kill(moment(rng, self.whole))?;
        let mut broken = Vec::new();
        let models = home.path().join("models");
        if models.is_dir() {
            for entry in fs_err::read_dir(&models)? {
                let path = entry?.path();
                let named = path.file_stem().is_some_and(|stem| stem.len() == 64);
                if named && path.file_stem() != Some(digest_of(&path)?.as_ref()) {
                    broken.push(Broken::HalfWritten(format!("{} is not what its name says", path.display())));
                }
            }
        }
        broken.extend(next_start(home.path())?);
        Ok(broken)
    }
}

/// A host that loads and answers is killed in the same home again and again.
pub(crate) struct Serving {
    home: TempDir,
    /// From the question to the end of the answer, the load included.
    whole: Duration,
}

impl Serving {
    pub(crate) fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let mut host = Host::start(home.path())?;
        let address = host.address()?;
        let started = Instant::now();
        answers(&address)?;
        Ok(Self { home, whole: started.elapsed() + Duration::from_millis(300) })
    }

    /// Sockets of hosts: one of each that lives.
    fn sockets(&self) -> Result<Vec<String>> {
        let folder = self.home.path().join("hosts");
        let names = fs_err::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }
}

impl Scene for Serving {
    fn name(&self) -> &'static str {
        "serving"
    }

    fn kill(&mut self, rng: &mut Rng) -> Result<Vec<Broken>> {
        let mut host = Host::start(self.home.path())?;
        let mut broken = Vec::new();
        let address = match host.address() {
            Ok(address) => address,
            Err(error) => return Ok(vec![Broken::Lost(format!("the next start: {error:#}"))]),
        };
        let own = format!("{}.sock", host.child.id());
        let sockets = self.sockets()?;
        if sockets != [own.clone()] {
            broken.push(Broken::HalfWritten(format!("sockets of dead hosts stay: {sockets:?} beside {own}")));
        }
        let connection = ask(&address)?;
        host.kill(moment(rng, self.whole))?;
        drop(connection);
        Ok(broken)
    }

    fn end(&mut self) -> Result<Vec<Broken>> {
        let mut broken = next_start(self.home.path())?;
        let output = run(self.home.path(), &["memory"])?;
        let sockets = self.sockets()?;
        if !output.status.success() || !sockets.is_empty() {
            broken
                .push(Broken::HalfWritten(format!("`locara memory` ends with {}, sockets {sockets:?}", output.status)));
        }
        let mut host = Host::start(self.home.path())?;
        if let Err(error) = host.address().and_then(|address| answers(&address)) {
            broken.push(Broken::Lost(format!("the next start: {error:#}")));
        }
        Ok(broken)
    }
}
