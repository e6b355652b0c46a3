//! The `locara` command: reads the command line, assembles the host, prints.
//!
//! Everything that decides lives in the crates below; here are only words and wiring. Standard output carries what was
//! asked for and nothing else; talk goes to standard error.

mod card;
mod cli;
mod commands;
mod exit;
mod failure;
mod host;
mod installed;
mod paths;
mod print;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{cli::Cli, exit::Exit, failure::Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("LOCARA_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(print::in_colour()).init();
    // Pulls, apps and the client of the running host take it; there is no other one in the binary.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let json = cli.json;
    let done = commands::run(cli).and_then(|exit| match print::lost() {
        None => Ok(exit),
        Some(error) => Err(Failure::new(Exit::Failure, format!("cannot write the output: {error}"))),
    });
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if json {
                print::say!("{}", failure.to_json());
            } else {
                print::failure(&failure);
            }
            failure.exit().into()
        }
    }
}
