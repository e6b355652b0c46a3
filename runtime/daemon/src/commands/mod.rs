//! One file for each command.

mod answer;
mod bench;
mod chat;
mod check;
mod client;
mod doctor;
mod grants;
mod import;
mod install;
mod keep;
mod key;
mod list;
mod memory;
mod models;
mod pack;
mod plan;
mod probe;
mod progress;
mod ps;
mod pull;
mod role;
mod run;
mod service;
mod shell;
mod version;

use crate::{
    cli::{Cli, Command},
    exit::Exit,
    failure::Failure,
};

/// Does what the command line asks.
pub(crate) fn run(cli: Cli) -> Result<Exit, Failure> {
    let json = cli.json;
    match cli.command {
        Command::Chat(args) => chat::run(&args, json),
        Command::Run(args) => run::run(args, json),
        Command::Models => models::run(json),
        Command::Pull(args) => pull::run(&args, json),
        Command::Import(args) => import::run(&args, json),
        Command::Verify { model } => keep::verify(&model, json),
        Command::Rm(args) => keep::remove(&args, json),
        Command::Role { command } => role::run(&command, json),
        Command::Alias { command } => role::run_alias(&command, json),
        Command::Enable { model } => keep::switch(&model, true, json),
        Command::Disable { model } => keep::switch(&model, false, json),
        Command::Plan(args) => plan::run(&args, json),
        Command::Serve(args) => crate::serve::run(&args),
        Command::Service { command } => service::run(&command, json),
        Command::Ps => ps::run(json),
        Command::Stop { model } => ps::stop(&model, json),
        Command::Bench(args) => bench::run(&args, json),
        Command::Memory(args) => memory::run(&args, json),
        Command::Logs(args) => service::logs(&args, json),
        Command::Key { command } => key::run(&command, json),
        Command::Install(args) => install::run(&args, json),
        Command::List => list::run(json),
        Command::Grants(args) => grants::run(&args, json),
        Command::Check { path } => check::run(&path, json),
        Command::Pack(args) => pack::run(&args, json),
        Command::Doctor(args) => doctor::run(&args, json),
        Command::Completions { shell } => Ok(shell::completions(shell, json)),
        Command::Man { folder } => shell::man(&folder, json),
        Command::Version => version::run(json),
        Command::Probe { path } => probe::run(&path),
    }
}
