//! `simulate`: the fleet under every policy, as a table and a line of figures.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use locara_simulate::{
    POLICIES,
    figures::{Figures, Fleet},
    fleet::Laptop,
    policy, sim,
    trace::Trace,
};

/// Runs a fleet of laptops for a week each under our governor and under what its peers do.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Laptops.
    #[arg(long, default_value_t = 1000)]
    laptops: u64,
    /// The same seed gives the same figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Days of each laptop.
    #[arg(long, default_value_t = 7)]
    days: u64,
    /// This policy alone: locara, naive, llama-server, ollama or omlx.
    #[arg(long)]
    policy: Option<String>,
    /// This laptop alone, by its number.
    #[arg(long)]
    laptop: Option<u64>,
    /// Writes what the governor of one laptop was told to a file, one JSON object a line. Needs --laptop.
    #[arg(long, requires = "laptop")]
    record: Option<PathBuf>,
    /// Prints the laptops with the most swap and the most false refusals under each policy.
    #[arg(long)]
    worst: bool,
}

/// One policy on one laptop.
struct Run {
    policy: &'static str,
    figures: Figures,
    took_us: u64,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let policies: Vec<&'static str> = POLICIES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| cli.policy.as_ref().is_none_or(|only| only == name))
        .collect();
    if policies.is_empty() {
        let known: Vec<&str> = POLICIES.iter().map(|(name, _)| *name).collect();
        bail!("no policy is called {:?}; there are {}", cli.policy.unwrap_or_default(), known.join(", "));
    }
    let ids: Vec<u64> = cli.laptop.map_or_else(|| (0..cli.laptops).collect(), |only| vec![only]);
    let started = Instant::now();
    let runs = run_all(&cli, &ids, &policies)?;
    let mut fleets: BTreeMap<&str, Fleet> = BTreeMap::new();
    let mut worst: BTreeMap<&str, Vec<(u64, u64, u64)>> = BTreeMap::new();
    for (id, laptop) in ids.iter().zip(runs) {
        for run in laptop {
            let Figures { swap_caused, false_refusals, .. } = run.figures;
            worst.entry(run.policy).or_default().push((swap_caused, false_refusals, *id));
            fleets.entry(run.policy).or_default().add(run.figures, run.took_us);
        }
    }
    println!(
        "{} laptops, {} days each, seed {}, {:.1} s",
        ids.len(),
        cli.days,
        cli.seed,
        started.elapsed().as_secs_f64()
    );
    println!();
    table(&policies, &mut fleets);
    if cli.worst {
        show_worst(&worst);
    }
    let mut violations = 0;
    for (name, fleet) in &fleets {
        violations += fleet.sum.violations.len();
        for violation in fleet.sum.violations.iter().take(20) {
            println!("violated under {name}: {violation}");
        }
    }
    println!();
    figures(&mut fleets);
    if violations > 0 {
        bail!("{violations} invariants were violated; replay one with --laptop NUMBER --record FILE");
    }
    Ok(())
}

/// Every laptop under every policy, in the order of `ids`. Threads take laptops as they come; the result does not depend on it.
fn run_all(cli: &Cli, ids: &[u64], policies: &[&'static str]) -> anyhow::Result<Vec<Vec<Run>>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let work = || -> anyhow::Result<Vec<(usize, Vec<Run>)>> {
        let mut done = Vec::new();
        loop {
            let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed))?;
            let Some(&id) = ids.get(index) else { return Ok(done) };
            done.push((index, run_one(cli, id, policies)?));
        }
    };
    let mut runs = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut runs = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(part) => runs.extend(part?),
                Err(_) => bail!("a laptop could not be simulated; the panic is above"),
            }
        }
        Ok(runs)
    })?;
    runs.sort_by_key(|(index, _)| *index);
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

fn run_one(cli: &Cli, id: u64, policies: &[&'static str]) -> anyhow::Result<Vec<Run>> {
    let laptop = Laptop::new(cli.seed, id);
    let trace = Trace::new(cli.seed, &laptop, cli.days);
    let mut runs = Vec::new();
    for &name in policies {
        let mut policy = policy(name, &laptop).with_context(|| format!("no policy is called {name}"))?;
        if cli.record.is_some() {
            policy.start_record();
        }
        let started = processor_us()?;
        let figures = sim::run(&laptop, &trace, policy.as_mut());
        let took_us = processor_us()? - started;
        let log = policy.record();
        if let Some(path) = cli.record.as_ref().filter(|_| !log.is_empty()) {
            fs_err::write(path, log.join("\n") + "\n")?;
            println!("{} events of laptop {id} under {name} written to {}", log.len(), path.display());
        }
        runs.push(Run { policy: name, figures, took_us });
    }
    Ok(runs)
}

/// Processor time of this thread, µs: other work on the machine does not count.
fn processor_us() -> anyhow::Result<u64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Ok(u64::try_from(time.tv_sec)? * 1_000_000 + u64::try_from(time.tv_nsec)? / 1_000)
}

/// One row for each figure, one column for each policy.
fn table(policies: &[&'static str], fleets: &mut BTreeMap<&str, Fleet>) {
    let mut row = |name: &str, value: &mut dyn FnMut(&mut Fleet) -> String| {
        print!("{name:<34}");
        for policy in policies {
            let cell = fleets.get_mut(policy).map_or_else(String::new, &mut *value);
            print!("{cell:>14}");
        }
        println!();
    };
    print!("{:<34}", "");
    for policy in policies {
        print!("{policy:>14}");
    }
    println!();
    row("swap caused, GB", &mut |fleet| gb(fleet.sum.swap_caused));
    row("  of a laptop: median, GB", &mut |fleet| gb(fleet.swap(50)));
    row("  p99, GB", &mut |fleet| gb(fleet.swap(99)));
    row("  worst, GB", &mut |fleet| gb(fleet.swap(100)));
    row("  laptops without any", &mut |fleet| fleet.swap.iter().filter(|bytes| **bytes == 0).count().to_string());
    row("  for weights in use", &mut |fleet| gb(fleet.sum.swap_for_weights));
    row("compressed, caused, GB (macOS)", &mut |fleet| gb(fleet.sum.compressed_caused));
    row("kills by the kernel, caused", &mut |fleet| fleet.sum.kills.to_string());
    row("requests", &mut |fleet| fleet.sum.requests.to_string());
    row("  answered", &mut |fleet| fleet.sum.answered.to_string());
    row("  of them shortened", &mut |fleet| fleet.sum.shortened.to_string());
    row("  refused", &mut |fleet| fleet.sum.refused.to_string());
    row("  refused and asked again", &mut |fleet| fleet.sum.retries.to_string());
    row("  given up waiting", &mut |fleet| fleet.sum.gave_up.to_string());
    row("    to save energy or heat", &mut |fleet| fleet.sum.held_for_energy.to_string());
    row("    for a slow device alone", &mut |fleet| fleet.sum.overloaded.to_string());
    row("  refused or held up, falsely", &mut |fleet| fleet.sum.false_refusals.to_string());
    row("  aborted", &mut |fleet| fleet.sum.aborted.to_string());
    row("a person waits, p50, ms", &mut |fleet| fleet.wait(50).to_string());
    row("  p95", &mut |fleet| fleet.wait(95).to_string());
    row("  p99", &mut |fleet| fleet.wait(99).to_string());
    row("nobody waits, p99, ms", &mut |fleet| fleet.background_wait(99).to_string());
    row("evictions", &mut |fleet| fleet.sum.evictions.to_string());
    row("  of one model within a minute", &mut |fleet| fleet.sum.flips.to_string());
    row("parts given back", &mut |fleet| fleet.sum.reclaims.to_string());
    row("unloaded when idle", &mut |fleet| fleet.sum.idle_unloads.to_string());
    row("reloads", &mut |fleet| fleet.sum.reloads.to_string());
    row("read again from disk, GB", &mut |fleet| gb(fleet.sum.reload_bytes));
    row("demands for bytes to apps", &mut |fleet| fleet.sum.tightenings.to_string());
    row("runs of apps stopped", &mut |fleet| fleet.sum.stopped.to_string());
    row("time of a laptop, ms", &mut |fleet| format!("{:.1}", fleet.mean_ms()));
}

fn gb(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e9)
}

fn show_worst(worst: &BTreeMap<&str, Vec<(u64, u64, u64)>>) {
    println!();
    for (name, laptops) in worst {
        let mut by_swap = laptops.clone();
        by_swap.sort_by_key(|&(swap, _, id)| (std::cmp::Reverse(swap), id));
        let swap: Vec<String> =
            by_swap.iter().take(5).map(|(swap, _, id)| format!("{id} ({} GB)", gb(*swap))).collect();
        by_swap.sort_by_key(|&(_, refused, id)| (std::cmp::Reverse(refused), id));
        let refused: Vec<String> = by_swap.iter().take(5).map(|(_, refused, id)| format!("{id} ({refused})")).collect();
        println!("{name}: most swap on laptops {}; most false refusals on {}", swap.join(", "), refused.join(", "));
    }
}

/// The last line. A policy that did not run is left out.
fn figures(fleets: &mut BTreeMap<&str, Fleet>) {
    let mut parts = Vec::new();
    if let Some(fleet) = fleets.get_mut("locara") {
        parts.push(format!("swap_bytes={}", fleet.sum.swap_caused));
        parts.push(format!("false_refusal_rate={:.6}", fleet.false_refusal_rate()));
        parts.push(format!("evictions={}", fleet.sum.evictions));
        parts.push(format!("wait_p99_ms={}", fleet.wait(99)));
    }
    for (key, name) in [("llama_server", "llama-server"), ("ollama", "ollama"), ("omlx", "omlx")] {
        parts.extend(fleets.get(name).map(|fleet| format!("{key}_swap_bytes={}", fleet.sum.swap_caused)));
    }
    parts.extend(fleets.get("locara").map(|fleet| format!("week_ms={:.1}", fleet.mean_ms())));
    println!("figures: {}", parts.join(" "));
}
