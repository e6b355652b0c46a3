//! `make bench`: measures Locara against llama.cpp's own loop and against its own promises, prints the tables, writes
//! them to `tests/bench/RESULTS.md`, and ends with one line that a program can read.
//!
//! Every speed is a ratio within this run: two things are measured in turn on the same machine, so that results of
//! different machines and days can be compared. `--quick` measures each pair once, with the embedded model in the place of
//! the large one, and writes nothing: for trying a change of the benchmarks themselves.

mod guest;
mod http;
mod instances;
mod memory;
mod model;
mod planner;
mod prediction;
mod quality;
mod reclaim;
mod report;
mod sandbox;
mod scripted;
mod speed;
mod stats;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use locara_engine::llama::build_info;
use locara_platform::{Host, MachineFacts, Platform};
use locara_policy::Bytes;
use tokio::runtime::Runtime;

use crate::model::{LARGE, ModelFile, device, large, options, tiny};
use crate::report::{Figures, Section};
use crate::sandbox::Sandbox;
use crate::scripted::{Pace, Scripted};

/// Pairs of each comparison.
const PAIRS: usize = 7;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--quick"] => true,
        _ => bail!("the only argument is --quick, not {arguments:?}"),
    };
    let host = locara_platform::host();
    let facts = host.machine()?;
    let (large, pairs) = if quick { (tiny()?, 1) } else { (large()?, PAIRS) };
    let (sections, figures) = measure(&host, &facts, &large, pairs)?;
    let text = document(&facts, &sections);
    if !quick {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
        fs_err::write(results, format!("{text}\n## Figures\n\n```\n{figures}\n```\n"))?;
    }
    println!("{text}\n{figures}");
    Ok(())
}

/// All measurements, each with the process in the state that it needs: first the one of memory, with nothing else loaded.
fn measure(host: &Host, facts: &MachineFacts, large: &ModelFile, pairs: usize) -> Result<(Vec<Section>, Figures)> {
    let tiny = tiny()?;
    let options = options(facts);
    let runtime = Runtime::new()?;
    let (engine, memory) = memory::measure(&runtime, host, large, options, device(facts))?;
    let speed = speed::measure(&runtime, &engine, large, options, pairs)?;
    let guest = guest::measure(&runtime, &engine, pairs)?;
    drop(engine);
    let reclaiming = reclaim::measure(&runtime, host, large, options, memory.planned(), pairs)?;
    let (freed_p50_ms, freed_p99_ms) = reclaiming.freed_ms();
    let sandbox = runtime.block_on(Sandbox::new(Arc::new(Scripted::new(Pace::Ready))))?;
    let instances = instances::measure(&runtime, host, &sandbox)?;
    let http = http::measure(&runtime)?;
    let planner = planner::measure(&[("locara-tiny", &tiny), (LARGE, large)], options)?;
    let prediction = prediction::measure(options, &memory)?;
    let quality = quality::measure(&tiny, options)?;
    let figures = Figures {
        decode_ratio: speed.decode.ratio().median,
        prefill_ratio: speed.prefill.ratio().median,
        batch4_ratio: speed.batch4.ratio().median,
        batch8_ratio: speed.batch8.ratio().median,
        wasm_ratio: guest.speed.ratio().median,
        token_us: guest.ready_us.median,
        instantiate_p50_us: instances.p50_us,
        instantiate_p99_us: instances.p99_us,
        instance_kib: instances.idle_kib,
        plan_ms: planner.plan_ms(),
        plan_error_bytes: planner.worst(),
        prediction_median_ppm: prediction.median(),
        prediction_worst_ppm: prediction.worst(),
        anon_weight_bytes: memory.anonymous_weights(),
        freed_p50_ms,
        freed_p99_ms,
        restore_ratio: reclaiming.restore_ratio(),
        ledger_error: reclaiming.ledger_error(),
        http_added_p50_us: http.added_us(0.5),
        http_added_p99_us: http.added_us(0.99),
        token_added_us: http.token_us(),
    };
    let mut sections = vec![speed.section()];
    sections.extend(guest.sections());
    sections.extend([instances.section(), memory.section(), planner.section(), prediction.section()]);
    sections.extend(reclaiming.sections());
    sections.extend([quality.section(), http.section()]);
    Ok((sections, figures))
}

/// All tables, and what they were measured on.
fn document(facts: &MachineFacts, sections: &[Section]) -> String {
    let MachineFacts { cpu, performance_cores, ram_bytes, .. } = facts;
    let mut text = format!(
        "# Results\n\nWritten by `make bench`; do not edit.\n\nMachine: {cpu}, {performance_cores} cores, {} of memory. \
         Engine: {}.\n\nThe large model is `{LARGE}` of the zoo: the shape of Llama 3.2 1B with random weights.\n",
        Bytes(*ram_bytes),
        build_info().trim_end_matches([' ', '|']),
    );
    for section in sections {
        write!(text, "\n{section}").expect("a String takes all");
    }
    text
}
