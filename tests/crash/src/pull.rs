//! Downloads from a hub that lives in this program.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use locara_gguf::GgmlType;
use locara_models::{Hub, HubOptions, ModelState, Patience, digest_of};
use locara_zoo::{Arch, Fill, Rng, Spec, TensorDraft};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    Broken, Scene,
    child::{Worker, moment, next_start},
    library::{library, say},
};

/// The repository, and its one file.
const REPOSITORY: &str = "org/name";
const FILE: &str = "m-Q4_K_M.gguf";
/// Length of the file, about.
const MEGABYTES: u64 = 3;
/// What is sent at a time, bytes, and the pause after it: a download takes long enough to be killed in.
const CHUNK: usize = 32 << 10;
const PAUSE: Duration = Duration::from_millis(2);
/// Kills come while it downloads, checks and enters, and sometimes after that.
const LONGEST: Duration = Duration::from_millis(250);

/// See [`crate::Work`].
#[derive(Debug, Args)]
pub(crate) struct Pulls {
    /// Where the hub is
    #[arg(long)]
    hub: String,
    /// The home
    home: PathBuf,
}

impl Pulls {
    /// Until it is killed: says 0, pulls, says 1.
    pub(crate) fn run(self) -> Result<()> {
        // The client wants to know one even where nothing is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let library = Arc::new(library(&self.home)?);
        let hub = Hub::new(HubOptions { endpoint: self.hub, token: None, patience: Patience::default() })?;
        say(0)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(library.pull(&hub, &REPOSITORY.parse()?, &|_| {}, &CancellationToken::new()))?;
        say(1)?;
        loop {
            thread::park();
        }
    }
}

/// What a killed download left is gone on with, and never served before it is whole.
pub(crate) struct PullScene {
    home: TempDir,
    hub: String,
}

impl PullScene {
    pub(crate) fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let file = home.path().join(FILE);
        let mut draft = locara_zoo::draft(&Spec::tiny(Arch::Llama))?;
        let (name, dims) = ("test.large".to_owned(), vec![MEGABYTES << 18]);
        draft.tensors.push(TensorDraft { name, dims, kind: GgmlType::F32, fill: Fill::Random(0.02) });
        draft.save(&file)?;
        let (bytes, sha256) = (fs_err::read(&file)?, digest_of(&file)?);
        let len = bytes.len();
        let listing = format!(
            r#"{{"id": "{REPOSITORY}", "sha": "8911e8a47f92bac19d6f5c64a2e2095bd2f7d031", "siblings": [{{"rfilename": "{FILE}",
            "size": {len}, "lfs": {{"sha256": "{sha256}", "size": {len}, "pointerSize": 135}}}}]}}"#
        );
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let hub = format!("http://{}", listener.local_addr()?);
        let content = Arc::new((listing, bytes));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let content = content.clone();
                // A connection that breaks is one whose client was killed.
                thread::spawn(move || drop(answer(connection, &content.0, &content.1)));
            }
        });
        Ok(Self { home, hub })
    }

    fn start(&self) -> Result<Worker> {
        Worker::start(["pulls", "--hub", &self.hub], self.home.path())
    }

    fn look(&self, said: usize) -> Result<Vec<Broken>> {
        let library = library(self.home.path())?;
        let mut broken = Vec::new();
        let listed = match library.list() {
            Ok(listed) => listed,
            Err(error) => return Ok(vec![Broken::HalfWritten(format!("the registry: {error}"))]),
        };
        let model = listed.iter().find(|model| model.name.to_string().starts_with(REPOSITORY));
        match model {
            None if said == 1 => broken.push(Broken::Lost("the download was acknowledged and is not there".to_owned())),
            None => {}
            Some(model) if model.state != ModelState::Ready => {
                broken.push(Broken::HalfWritten(format!("{} is {:?}", model.name, model.state)));
            }
            Some(model) => {
                let name = model.name.to_string();
                if let Err(error) = library.verify(&name, &|_| {}, &CancellationToken::new()) {
                    broken.push(Broken::HalfWritten(format!("{name}: {error}")));
                }
                library.remove(&name, true)?;
            }
        }
        // Killed between the file and the registry: whole, and nobody's.
        for (digest, _) in library.unregistered()? {
            let path = self.home.path().join("models/blobs").join(format!("sha256-{digest}"));
            if digest_of(&path)? != digest.as_str() {
                broken.push(Broken::HalfWritten(format!("{} is not what its name says", path.display())));
            }
        }
        broken.extend(next_start(self.home.path())?);
        Ok(broken)
    }
}

impl Scene for PullScene {
    fn name(&self) -> &'static str {
        "pull"
    }

    fn kill(&mut self, rng: &mut Rng) -> Result<Vec<Broken>> {
        let said = self.start()?.kill(moment(rng, LONGEST))?;
        self.look(said)
    }

    fn end(&mut self) -> Result<Vec<Broken>> {
        let mut worker = self.start()?;
        if !worker.hear()? {
            return Ok(vec![Broken::Lost("what a killed download left is not gone on with".to_owned())]);
        }
        let said = worker.kill(Duration::ZERO)?;
        let mut broken = self.look(said)?;
        let mut partial = fs_err::read_dir(self.home.path().join("models/partial"))?;
        if let Some(entry) = partial.next() {
            let path = entry?.path();
            broken.push(Broken::HalfWritten(format!("{} stays after the download", path.display())));
        }
        Ok(broken)
    }
}

/// Answers one request: the listing, or the file from where it is asked for.
fn answer(connection: TcpStream, listing: &str, bytes: &[u8]) -> Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let first = lines.next().context("no request")??;
    let mut from = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, range)) = line.split_once(": bytes=")
            && name.eq_ignore_ascii_case("range")
        {
            from = Some(range.trim_end_matches('-').parse::<usize>()?);
        }
    }
    let mut out = connection;
    if first.contains(" /api/") {
        let len = listing.len();
        write!(out, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{listing}")?;
        return Ok(());
    }
    let (start, all) = (from.unwrap_or(0), bytes.len());
    ensure!(start < all, "a range behind the end");
    let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
    write!(
        out,
        "HTTP/1.1 {status}\r\nconnection: close\r\netag: \"v1\"\r\ncontent-length: {}\r\n\
         content-range: bytes {start}-{}/{all}\r\n\r\n",
        all - start,
        all - 1,
    )?;
    for chunk in bytes[start..].chunks(CHUNK) {
        out.write_all(chunk)?;
        thread::sleep(PAUSE);
    }
    Ok(())
}
