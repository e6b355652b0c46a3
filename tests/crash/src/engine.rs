//! States of sessions on disk.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use locara_engine::{
    Engine as _, Prompt, Reclaim, Request, Sampling,
    llama::{CacheOptions, LlamaEngine, LoadOptions, SpillOptions},
};
use locara_models::ModelStore;
use locara_policy::KvType;
use locara_zoo::Rng;
use tempfile::TempDir;

use crate::{
    Broken, Scene,
    child::{Worker, moment},
};

/// A state is written within milliseconds.
const LONGEST: Duration = Duration::from_millis(150);
/// Tokens of a session.
const TOKENS: i32 = 200;

/// See [`crate::Work`].
#[derive(Debug, Args)]
pub(crate) struct Sessions {
    /// Holds `models` and `sessions`
    home: PathBuf,
}

impl Sessions {
    /// Until it is killed.
    pub(crate) fn run(self) -> Result<()> {
        let model = ModelStore::open(self.home.join("models"))?.embedded()?;
        let spill = SpillOptions { dir: states(&self.home), max_bytes: 1 << 30 };
        let cache = CacheOptions { prompt_cache_bytes: 0, spill: Some(spill) };
        let engine = LlamaEngine::load_with_cache(&model.path, &model.digest, options(), &cache, |_| true)?;
        tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
            for n in 1_usize.. {
                let session = engine.open().await??;
                let first = i32::try_from(300 + n % 100)?;
                let prompt = (0..TOKENS).map(|at| first + at % 100).collect();
                let request = Request {
                    session: Some(session),
                    max_tokens: 1,
                    sampling: Sampling::greedy(),
                    ..Request::new(Prompt::Tokens(prompt))
                };
                engine.submit(request).collect().await?;
                engine.reclaim(Reclaim::IdleSessions { spill: true }).await??;
                let mut out = std::io::stdout().lock();
                writeln!(out, "{n}")?;
                out.flush()?;
                // Some of them stay on disk, and not ever more.
                if n % 4 != 0 {
                    engine.close(session);
                }
            }
            bail!("there are no more numbers")
        })
    }
}

fn options() -> LoadOptions {
    LoadOptions {
        n_ctx: 1024,
        kv_cells: 2048,
        n_seq_max: 2,
        n_batch: 256,
        n_ubatch: 256,
        type_k: KvType::Q8_0,
        type_v: KvType::F16,
        flash_attention: false,
        n_threads: 1,
        n_gpu_layers: 0,
        repack: false,
        queue_max: 4,
    }
}

fn states(home: &Path) -> PathBuf {
    home.join("sessions")
}

/// States of an engine that was killed go when the next one starts, and no other engine reads them.
pub(crate) struct SpillScene {
    home: TempDir,
}

impl SpillScene {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { home: tempfile::tempdir()? })
    }

    /// What is wrong with the folder beside a living engine.
    fn beside(&self) -> Result<Vec<Broken>> {
        let mut folders = 0;
        for entry in fs_err::read_dir(states(self.home.path())).context("no state was written")? {
            folders += usize::from(entry?.file_type()?.is_dir());
        }
        let stays = || Broken::HalfWritten(format!("{folders} folders of states beside one engine"));
        Ok(if folders == 1 { Vec::new() } else { vec![stays()] })
    }
}

impl Scene for SpillScene {
    fn name(&self) -> &'static str {
        "spilled sessions"
    }

    fn kill(&mut self, rng: &mut Rng) -> Result<Vec<Broken>> {
        let worker = Worker::start(["sessions"], self.home.path())?;
        let broken = self.beside()?;
        worker.kill(moment(rng, LONGEST))?;
        Ok(broken)
    }

    fn end(&mut self) -> Result<Vec<Broken>> {
        let _worker = Worker::start(["sessions"], self.home.path())?;
        self.beside()
    }
}
