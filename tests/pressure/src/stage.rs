//! All runs, in their order.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use locara_zoo::{Arch, Quant, Spec};
use rustix::fs::{FlockOperation, flock};

use crate::{
    host::Setup,
    janitor::{self, Janitor},
    place::{NAME, Place, Skip},
    report::Report,
    run::{Part, Stage},
    swap,
};

/// Swap for the half with swap.
const SWAP: u64 = 1 << 30;

/// About 205 MiB of weights, which are read for every token, and with 8192 cells of context 368 MiB of KV: below the eighth
/// of memory that KV may take by default. Random weights are as heavy as good ones.
fn model() -> Spec {
    Spec {
        name: "pressure".to_owned(),
        layers: 20,
        embd: 768,
        heads: 12,
        kv_heads: 12,
        head_dim: 64,
        ff: 2816,
        vocab: 32_000,
        ctx: 8192,
        quant: Quant::Q8_0,
        ..Spec::tiny(Arch::Llama)
    }
}

/// Runs everything; the exit code says whether every promise was kept.
pub(crate) fn all() -> Result<ExitCode> {
    let (place, _lock) = match prepare() {
        Ok(prepared) => prepared,
        Err(skip) => {
            println!("{skip}");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let folder = tempfile::Builder::new().prefix(NAME).tempdir()?.keep();
    let janitor = Janitor::hire(&folder)?;
    let report = play(place, &folder)?;
    report.print();
    janitor.finish()?;
    Ok(if report.broken().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A place, and a lock that is held until the end: two runs would count each other's swap.
fn prepare() -> Result<(Place, fs_err::File), Skip> {
    let place = Place::find()?;
    let lock = fs_err::File::create(std::env::temp_dir().join("locara-pressure.lock"))
        .map_err(|error| Skip(format!("whether another run is under way cannot be told: {error}")))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Skip("another run of this test is under way".to_owned()))?;
    janitor::sweep().map_err(|error| Skip(format!("an earlier run left something behind: {error:#}")))?;
    swap::possible()?;
    Ok((place, lock))
}

fn play(place: Place, folder: &Path) -> Result<Report> {
    let setup = Setup {
        locara: std::env::current_exe()?.with_file_name("locara"),
        home: folder.join("home"),
        model: folder.join("pressure.gguf"),
    };
    ensure!(setup.locara.is_file(), "no binary at {}: run `make build` first", setup.locara.display());
    let app = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/apps/guest-pressure"));
    ensure!(app.is_dir(), "no app at {}: run `make apps` first", app.display());
    locara_zoo::write(&model(), &setup.model).context("write the model")?;
    // Only clean pages can be dropped from the page cache.
    fs_err::File::open(&setup.model)?.sync_all()?;
    setup.install(app)?;
    // target/release/locara-pressure
    let logs = setup.locara.ancestors().nth(2).unwrap_or(folder).join("pressure");
    fs_err::create_dir_all(&logs)?;
    let mut stage = Stage { place, setup, logs: logs.clone(), tokens: None };
    let mut report = Report::default();
    let mut run = |part, swap| -> Result<()> {
        eprintln!("{part}, swap {} …", if swap { "on" } else { "off" });
        report.runs.push(stage.run(part, swap)?);
        Ok(())
    };
    run(Part::Calm, false)?;
    for part in [Part::Alone, Part::Governed, Part::Naive] {
        run(part, false)?;
    }
    for part in [Part::Alone, Part::Governed, Part::Naive] {
        // New for each: what one leaves in swap is no other's.
        swap::on(SWAP)?;
        run(part, true)?;
        swap::off()?;
    }
    println!("logs of the governor: {}", logs.display());
    Ok(report)
}
