//! What is wrong, and for each of it the one thing to do.

use std::{net::SocketAddr, path::Path};

use locara_manifest::Config;
use locara_models::StoreError;
use locara_platform::MemoryNow;
use serde::Serialize;

use super::super::{client, client::Client, models, service};
use crate::{
    failure::{Failure, one_line},
    host::{self, Host, Wanted},
    paths::Paths,
    print, serve,
};

/// With less than this available nothing of use can be loaded.
const LEAST_AVAILABLE: u64 = 1_000_000_000;

/// Something that is wrong.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    pub(super) what: String,
    /// The command, or the deed, that mends it.
    pub(super) mend: String,
}

/// What runs, and what is set.
pub(super) struct There {
    pub(super) address: SocketAddr,
    /// Who listens on the port.
    pub(super) owner: Option<String>,
    /// The version of the host that answers.
    pub(super) host: Result<String, Failure>,
    pub(super) service: Result<service::Status, Failure>,
    configuration: Result<Config, Failure>,
}

impl There {
    /// Looks. What cannot be found out is told, never a reason to stop.
    pub(super) fn look(paths: &Paths) -> Self {
        let configuration = serve::read_config(paths);
        let address = client::address(paths).unwrap_or(Config::default().server.listen);
        let host = Client::new(paths).and_then(|client| host::runtime()?.block_on(client.hello()));
        Self { address, owner: serve::owner(address.port()), host, service: service::look(), configuration }
    }

    /// The configuration in a few words.
    pub(super) fn config(&self, paths: &Paths) -> String {
        let file = paths.config();
        match &self.configuration {
            Ok(_) if file.exists() => file.display().to_string(),
            Ok(_) => format!("{}, which is not there: all defaults", file.display()),
            Err(failure) => failure.to_string(),
        }
    }

    /// The service in a few words.
    pub(super) fn service(&self) -> String {
        match &self.service {
            Err(failure) => failure.to_string(),
            Ok(service) if !service.installed => "not installed".to_owned(),
            Ok(service) => match &service.state {
                Ok(state) => format!("{}: {}", service.manager, state.word),
                Err(why) => why.clone(),
            },
        }
    }
}

/// Everything that is wrong, the worst first.
pub(super) fn all(paths: &Paths, memory: &MemoryNow, embedded: Option<&StoreError>, there: &There) -> Vec<Problem> {
    let mut all = Vec::new();
    let mut wrong = |what: String, mend: &str| all.push(Problem { what, mend: mend.to_owned() });
    if let Some(error) = embedded {
        wrong(one_line(error), "install locara again");
    }
    if let Err(failure) = &there.configuration {
        wrong(failure.to_string(), &format!("correct {}; `locara serve` shows the place", paths.config().display()));
    }
    host_and_port(there, &mut wrong);
    the_service(there, &mut wrong);
    files(paths, &mut wrong);
    if memory.available_bytes < LEAST_AVAILABLE {
        let available = print::size(memory.available_bytes);
        wrong(format!("only {available} of memory are available"), "close programs before loading a model");
    }
    all
}

fn host_and_port(there: &There, wrong: &mut impl FnMut(String, &str)) {
    let ours = env!("CARGO_PKG_VERSION");
    match &there.host {
        Ok(version) if version == ours => {}
        Ok(version) => wrong(
            format!("the host that runs is locara {version}, and this command is {ours}"),
            "locara service stop, then locara service start",
        ),
        // Nobody listens: that is no fault by itself.
        Err(_) if there.owner.is_none() => {}
        Err(failure) => wrong(client::why(failure), failure.advice().unwrap_or("locara logs")),
    }
}

fn the_service(there: &There, wrong: &mut impl FnMut(String, &str)) {
    let Ok(service) = &there.service else { return };
    if !service.installed {
        return;
    }
    match &service.state {
        Ok(state) if state.running => {}
        Ok(state) => {
            wrong(format!("the service is installed and does not run: {}", state.word), "locara service start")
        }
        Err(why) => wrong(
            format!("the service is installed and {} says nothing: {why}", service.manager),
            "locara service status",
        ),
    }
    if starts_another(&service.file) {
        let file = service.file.display();
        wrong(format!("the service starts another locara than this one: {file}"), "locara service install");
    }
}

/// Whether the definition names another binary. One that cannot be read is the manager's to complain about.
fn starts_another(file: &Path) -> bool {
    let (Ok(text), Ok(program)) = (fs_err::read_to_string(file), std::env::current_exe()) else { return false };
    let program = program.display().to_string();
    // Paths with characters that the manager wants escaped are not compared.
    let plain = program.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    plain && !text.contains(&program)
}

fn files(paths: &Paths, wrong: &mut impl FnMut(String, &str)) {
    let host = match Host::idle(paths) {
        Ok(host) => host,
        Err(failure) => return wrong(client::why(&failure), "locara models"),
    };
    let models = match models::problems(&host) {
        Ok(models) => models,
        Err(failure) => {
            let file = paths.registry();
            return wrong(client::why(&failure), &format!("correct {} or move it away", file.display()));
        }
    };
    for (name, problem) in models {
        // Each has its own way out in it, behind the first semicolon.
        let (what, mend) = problem.split_once("; ").unwrap_or((&problem, "locara models"));
        wrong(format!("{name}: {what}"), mend);
    }
    if let Err(error) = host.locate(&Wanted::named("default")) {
        wrong(format!("`default` leads to no model: {}", one_line(&error)), "locara role set default MODEL");
    }
    match host.library().unregistered() {
        Ok(stray) if !stray.is_empty() => {
            let bytes = print::size(stray.iter().map(|(_, bytes)| bytes).sum());
            wrong(
                format!("{bytes} in the model store belong to no model"),
                "`locara models` names them, `locara rm DIGEST` frees them",
            );
        }
        _ => {}
    }
}
