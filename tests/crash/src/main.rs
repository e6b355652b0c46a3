//! `make crash`: `kill -9` at random moments, and what is left afterwards.
//!
//! Each scene does one thing that writes to the disk, again and again in the same place: the registry, imports, downloads,
//! keys, the embedded model, a serving host, states of sessions. After each kill what was acknowledged must be there, whole, and what
//! was begun must be there or not; the next start must work, and leftovers must not pile up. It prints one line of figures,
//! and fails if a promise was broken.
//!
//! A kill is not a power cut: what a process wrote is in the cache of the system whether it is synced or not. That the right
//! calls are made for a power cut too is not tested here.

mod child;
mod engine;
mod keys;
mod library;
mod pull;
mod serve;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use locara_zoo::Rng;

/// `kill -9` at random moments.
#[derive(Debug, Parser)]
struct Args {
    /// Kills, shared among the scenes
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Draws the moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    work: Option<Work>,
}

/// What is killed: this program starts itself with these.
#[derive(Debug, Subcommand)]
enum Work {
    /// Gives a role to one model after the other
    #[command(hide = true)]
    Roles(library::Roles),
    /// Imports one model after the other
    #[command(hide = true)]
    Imports(library::Imports),
    /// Downloads a model
    #[command(hide = true)]
    Pulls(pull::Pulls),
    /// Writes the states of sessions to disk
    #[command(hide = true)]
    Sessions(engine::Sessions),
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Broken {
    /// What was acknowledged is gone, or the next start does not work.
    Lost(String),
    /// Something is there in part, or stays behind.
    HalfWritten(String),
}

/// One thing that is interrupted.
trait Scene {
    /// Names it in the report.
    fn name(&self) -> &'static str;
    /// Starts it, kills it at a moment that `rng` draws, and looks.
    fn kill(&mut self, rng: &mut Rng) -> Result<Vec<Broken>>;
    /// Looks at what the last kill left, where only a next start shows it.
    fn end(&mut self) -> Result<Vec<Broken>> {
        Ok(Vec::new())
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    match args.work {
        Some(Work::Roles(work)) => work.run()?,
        Some(Work::Imports(work)) => work.run()?,
        Some(Work::Pulls(work)) => work.run()?,
        Some(Work::Sessions(work)) => work.run()?,
        None => return crash(args.kills, args.seed),
    }
    Ok(ExitCode::SUCCESS)
}

fn crash(kills: usize, seed: u64) -> Result<ExitCode> {
    let mut scenes: Vec<Box<dyn Scene>> = vec![
        Box::new(library::RoleScene::new()?),
        Box::new(library::ImportScene::new()?),
        Box::new(pull::PullScene::new()?),
        Box::new(keys::KeyScene::new()?),
        Box::new(serve::FirstStart::new()?),
        Box::new(serve::Serving::new()?),
        Box::new(engine::SpillScene::new()?),
    ];
    let mut rng = Rng::new(seed, "moments");
    let (mut lost, mut half_written) = (0, 0);
    let mut count = |scene: &str, broken: Vec<Broken>| {
        for one in broken {
            let (word, what) = match one {
                Broken::Lost(what) => (&mut lost, what),
                Broken::HalfWritten(what) => (&mut half_written, what),
            };
            *word += 1;
            println!("{scene}: {what}");
        }
    };
    for kill in 0..kills {
        let at = kill % scenes.len();
        let scene = &mut scenes[at];
        let broken = scene.kill(&mut rng).with_context(|| format!("kill {kill}, {}", scene.name()))?;
        count(scene.name(), broken);
    }
    for scene in scenes.iter_mut().take(kills) {
        let broken = scene.end().with_context(|| format!("after the last kill, {}", scene.name()))?;
        count(scene.name(), broken);
    }
    println!("figures: kills={kills} lost={lost} half_written={half_written}");
    Ok(if (lost, half_written) == (0, 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
