//! One file for each command.

mod check;
mod doctor;
mod grants;
mod install;
mod key;
mod list;
mod memory;
mod pack;
mod plan;
mod probe;
mod run;
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
        Command::Serve(args) => crate::serve::run(&args),
        Command::Key { command } => key::run(&command, json),
        Command::Run(args) => run::run(args, json),
        Command::Install(args) => install::run(&args, json),
        Command::List => list::run(json),
        Command::Grants(args) => grants::run(&args, json),
        Command::Check { path } => check::run(&path, json),
        Command::Memory(args) => memory::run(&args, json),
        Command::Pack(args) => pack::run(&args, json),
        Command::Plan(args) => plan::run(&args, json),
        Command::Doctor => doctor::run(json),
        Command::Version => version::run(json),
        Command::Probe { path } => probe::run(&path),
    }
}
