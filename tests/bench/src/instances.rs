//! What an instance costs: to make, to keep, and to load its compiled component.

use std::time::Instant;

use anyhow::{Context as _, Result};
use locara_apps::RunHandle;
use locara_platform::{Host, Platform};
use tokio::io::DuplexStream;
use tokio::runtime::Runtime;

use crate::report::{Section, cells};
use crate::sandbox::Sandbox;
use crate::stats::{Spread, quantile};

/// Runs that are started one after the other.
const RUNS: usize = 2000;
/// Instances that wait before counting begins: the pool keeps so many warm, and the first ones pay for shared tables.
const FIRST: usize = 16;
/// Instances that are counted. The pool has places for 96 in all.
const COUNTED: usize = 64;
/// Loads of the compiled component.
const LOADS: usize = 25;

/// See the module.
pub(crate) struct Instances {
    /// From the start of a run to an instance that can be called, µs.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// A whole run of a guest that returns at once, µs.
    run_us: Spread,
    /// Resident memory of one instance that waits for input, KiB.
    pub(crate) idle_kib: f64,
    /// A component made ready to run from its compiled form on disk, ms.
    load_ms: Spread,
    /// The same from its bytecode, ms.
    compile_ms: Spread,
    pooled: bool,
}

/// Measures all of it with an app that has nothing to do.
pub(crate) fn measure(runtime: &Runtime, host: &Host, sandbox: &Sandbox) -> Result<Instances> {
    eprintln!("instances");
    // First, because memory that earlier runs gave back would hide what an instance takes.
    let idle_kib = runtime.block_on(idle(host, sandbox))?;
    let (start_us, run_us) = runtime.block_on(runs(sandbox))?;
    let load_ms = runtime.block_on(loads(sandbox, LOADS, false))?;
    let compile_ms = runtime.block_on(loads(sandbox, 5, true))?;
    Ok(Instances {
        p50_us: quantile(&start_us, 0.5),
        p99_us: quantile(&start_us, 0.99),
        run_us: Spread::of(&run_us),
        idle_kib,
        load_ms: Spread::of(&load_ms),
        compile_ms: Spread::of(&compile_ms),
        pooled: sandbox.pooled(),
    })
}

/// Time to an instance and time of the whole run, µs, of each run.
async fn runs(sandbox: &Sandbox) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut start, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (_, ended) = sandbox.start(&["return"], Box::new(tokio::io::empty())).collect().await;
        let report = ended.map_err(|failure| failure.error)?;
        start.push(report.start.as_secs_f64() * 1e6);
        whole.push(report.wall.as_secs_f64() * 1e6);
    }
    Ok((start, whole))
}

/// Resident KiB that each of [`COUNTED`] waiting instances adds.
async fn idle(host: &Host, sandbox: &Sandbox) -> Result<f64> {
    let mut waiting = Vec::new();
    wait(sandbox, FIRST, &mut waiting).await?;
    let before = host.process()?.rss_bytes();
    wait(sandbox, COUNTED, &mut waiting).await?;
    let after = host.process()?.rss_bytes();
    for (run, input) in waiting {
        drop(input);
        let (_, ended) = run.collect().await;
        ended.map_err(|failure| failure.error)?;
    }
    Ok(after.saturating_sub(before) as f64 / 1024.0 / COUNTED as f64)
}

/// Starts `n` instances and returns when all of them wait. Their input ends when its other half is dropped.
async fn wait(sandbox: &Sandbox, n: usize, waiting: &mut Vec<(RunHandle, DuplexStream)>) -> Result<()> {
    for _ in 0..n {
        let (input, reader) = tokio::io::duplex(1);
        let mut run = sandbox.start(&["wait"], Box::new(reader));
        run.progress.wait_for(|progress| progress.message == "waiting").await.context("an instance does not wait")?;
        waiting.push((run, input));
    }
    Ok(())
}

/// Times of `n` preparations, ms: from the compiled form, or `compiling` it anew each time.
async fn loads(sandbox: &Sandbox, n: usize, compiling: bool) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..n {
        if compiling {
            sandbox.forget()?;
        }
        let began = Instant::now();
        drop(sandbox.prepare().await?);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

impl Instances {
    pub(crate) fn section(&self) -> Section {
        let spread = |what: &str, spread: Spread, decimals| {
            let mut row = vec![what.to_owned()];
            row.extend(cells(spread, decimals));
            row
        };
        let single =
            |what: &str, value: f64| vec![what.to_owned(), String::new(), format!("{value:.1}"), String::new()];
        let allocator = if self.pooled { "from a pool" } else { "on demand" };
        Section {
            title: "Instances".to_owned(),
            about: format!(
                "An app in Rust with all of the SDK. Instances are made {allocator}, each in a store of its own with its \
                 grants, limits and channels; {RUNS} runs one after the other, {COUNTED} instances that wait for input. \
                 Loading checks the digests of the component and of its compiled form."
            ),
            header: &["what", "min", "median", "max"],
            rows: vec![
                single("start of a run to a callable instance, p50, µs", self.p50_us),
                single("start of a run to a callable instance, p99, µs", self.p99_us),
                spread("whole run of an app that returns at once, µs", self.run_us, 1),
                single("resident memory of a waiting instance, KiB", self.idle_kib),
                spread("load of a compiled component, ms", self.load_ms, 2),
                spread("compile and load, ms", self.compile_ms, 1),
            ],
        }
    }
}
