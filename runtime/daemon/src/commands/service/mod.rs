//! `locara service`: the host at every login, by the service manager of the system.
//!
//! It writes one file into the user's own folder and asks the manager to read it; it never needs another user's rights.

mod definition;
mod manager;

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::json;

pub(super) use self::manager::State;
use self::{
    definition::Unit,
    manager::{Manager, here, log_file},
};
use super::client;
use crate::{
    cli::{LogsArgs, ServiceCommand},
    exit::Exit,
    failure::{Failure, io},
    paths::Paths,
    print, serve,
};

/// Variables that change where the host keeps its state, where it listens and what it writes. They count for the service as
/// they did for whoever installed it.
const KEPT: [&str; 3] = ["LOCARA_HOME", "LOCARA_LISTEN", "LOCARA_LOG"];

pub(super) fn run(command: &ServiceCommand, as_json: bool) -> Result<Exit, Failure> {
    let manager = here();
    match command {
        ServiceCommand::Install { no_start } => install(manager, *no_start, as_json),
        ServiceCommand::Uninstall => uninstall(manager, as_json),
        ServiceCommand::Start => {
            installed(manager)?;
            manager.start()?;
            status(manager, as_json)
        }
        ServiceCommand::Stop => {
            installed(manager)?;
            manager.stop()?;
            status(manager, as_json)
        }
        ServiceCommand::Status => status(manager, as_json),
        ServiceCommand::Logs(args) => logs(args, as_json),
    }
}

fn install(manager: &dyn Manager, no_start: bool, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    // A service that could not start would fail where nobody looks.
    serve::read_config(&paths)?;
    let program = std::env::current_exe().map_err(|error| io("find the path of this program", error))?;
    let environment = KEPT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let unit = Unit { program, environment: environment.collect(), log: log_file()? };
    let file = manager.file()?;
    let failed = |error| io("write the definition of the service", error);
    if let Some(folder) = file.parent() {
        fs_err::create_dir_all(folder).map_err(failed)?;
    }
    locara_models::write_whole(&file, manager.text(&unit).as_bytes()).map_err(failed)?;
    if no_start {
        if as_json {
            print::json(&json!({"file": file, "manager": manager.name(), "enabled": false}));
        } else {
            print::say!("{} is written; `locara service install` without --no-start enables it", file.display());
        }
        return Ok(Exit::Success);
    }
    manager.enable(&file).map_err(|failure| {
        let help = failure.advice().unwrap_or("run it again when that is mended").to_owned();
        Failure::new(Exit::Failure, format!("{} is written, but {} does not take it", file.display(), manager.name()))
            .help(format!("{help}; `locara serve` works without a service"))
            .because(failure)
    })?;
    if !as_json {
        print::say!("Locara starts at every login: {}", file.display());
    }
    status(manager, as_json)
}

fn uninstall(manager: &dyn Manager, as_json: bool) -> Result<Exit, Failure> {
    let file = installed(manager)?;
    let disabled = manager.disable();
    if let Err(failure) = &disabled {
        print::note(&format!("{failure}; the file is removed all the same"));
    }
    fs_err::remove_file(&file).map_err(|error| io("remove the definition of the service", error))?;
    if disabled.is_ok() {
        manager.forget()?;
    }
    if as_json {
        print::json(&json!({"removed": file}));
    } else {
        print::say!("Locara starts at login no more: {} is removed; models and settings stay", file.display());
    }
    Ok(Exit::Success)
}

/// The file of the service, or a failure that says how to get one.
fn installed(manager: &dyn Manager) -> Result<std::path::PathBuf, Failure> {
    let file = manager.file()?;
    if file.exists() {
        return Ok(file);
    }
    Err(Failure::new(Exit::Failure, format!("the service is not installed: there is no {}", file.display()))
        .help("`locara service install` installs it"))
}

/// What there is to say of the service; also for `locara doctor`.
pub(super) struct Status {
    pub(super) manager: &'static str,
    pub(super) file: std::path::PathBuf,
    pub(super) installed: bool,
    /// Why the manager says nothing.
    pub(super) state: Result<State, String>,
}

pub(super) fn look() -> Result<Status, Failure> {
    look_at(here())
}

fn look_at(manager: &dyn Manager) -> Result<Status, Failure> {
    let file = manager.file()?;
    let installed = file.exists();
    let state = manager.state().map_err(|failure| failure.to_string());
    Ok(Status { manager: manager.name(), file, installed, state })
}

fn status(manager: &dyn Manager, as_json: bool) -> Result<Exit, Failure> {
    let Status { manager, file, installed, state } = look_at(manager)?;
    let address = client::address(&Paths::find()?)?;
    let owner = serve::owner(address.port());
    if as_json {
        let state = match &state {
            Ok(state) => {
                json!({"state": state.word, "running": state.running, "pid": state.pid, "at_login": state.at_login})
            }
            Err(why) => json!({"error": why}),
        };
        print::json(&json!({"manager": manager, "file": file, "installed": installed, "service": state,
            "address": address.to_string(), "port_owner": owner}));
        return Ok(Exit::Success);
    }
    let there = if installed { "" } else { ", which is not there: `locara service install` writes it" };
    print::row("file", format!("{}{there}", file.display()));
    match &state {
        // Nothing is installed: what the manager would say of it does not matter.
        Err(_) if !installed => {}
        Err(why) => print::row(manager, why),
        Ok(state) => {
            if let Some(at_login) = state.at_login.filter(|_| installed) {
                print::row("starts at login", if at_login { "yes" } else { "no" });
            }
            let pid = state.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
            print::row("state", format!("{}{pid}", state.word));
        }
    }
    print::row(
        "port",
        format!("{address}: {}", owner.map_or("nobody listens".to_owned(), |owner| format!("{owner} listens"))),
    );
    Ok(Exit::Success)
}

/// Shows what the service wrote; with `--json` each line as an object.
pub(super) fn logs(args: &LogsArgs, as_json: bool) -> Result<Exit, Failure> {
    let manager = here();
    installed(manager).map_err(|failure| {
        failure
            .help("`locara serve` in a terminal writes to that terminal; `locara service install` installs the service")
    })?;
    let mut command = manager.logs(args)?;
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error| Failure::new(Exit::Failure, format!("cannot run {program}")).because(error);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let out = child.stdout.take().map(BufReader::new);
    for line in out.into_iter().flat_map(|out| out.split(b'\n')) {
        let line = line.map_err(failed)?;
        let line = String::from_utf8_lossy(&line);
        if as_json {
            print::say!("{}", json!({ "message": line }));
        } else {
            print::say!("{line}");
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(Exit::Success);
    }
    Err(Failure::new(Exit::Failure, format!("{program} ended with {status}")))
}
