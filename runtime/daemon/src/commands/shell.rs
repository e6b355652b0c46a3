//! `locara completions` and `locara man`: generated from the same definitions as the command line.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::{
    cli::Cli,
    exit::Exit,
    failure::{Failure, io},
    print,
};

pub(super) fn completions(shell: Shell, as_json: bool) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "locara", &mut script);
    let script = String::from_utf8_lossy(&script);
    if as_json {
        print::json(&json!({"shell": shell.to_string(), "script": script}));
    } else {
        print::say!("{}", script.trim_end());
    }
    Exit::Success
}

pub(super) fn man(folder: &Path, as_json: bool) -> Result<Exit, Failure> {
    let failed = |error| io("write the man pages", error);
    fs_err::create_dir_all(folder).map_err(failed)?;
    let mut command = Cli::command();
    // Full names and all options below the commands.
    command.build();
    let mut written = Vec::new();
    pages(&command, folder, &mut written).map_err(failed)?;
    written.sort();
    if as_json {
        print::json(&json!({"folder": folder, "pages": written}));
    } else {
        print::say!(
            "{} pages are in {}; `man -l {}` shows the first",
            written.len(),
            folder.display(),
            folder.join("locara.1").display()
        );
    }
    Ok(Exit::Success)
}

fn pages(command: &clap::Command, folder: &Path, written: &mut Vec<String>) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    let file = format!("{name}.1");
    locara_models::write_whole(&folder.join(&file), &page)?;
    written.push(file);
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| pages(command, folder, written))
}
