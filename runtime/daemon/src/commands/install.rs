//! `locara install`: check, ask the owner, compile, keep.

use std::io::{BufRead, IsTerminal};

use locara_manifest::{Grants, Manifest};
use serde_json::json;

use crate::{
    cli::InstallArgs,
    commands::grants::parse,
    exit::Exit,
    failure::{Failure, io},
    host::{self, Host},
    installed,
    paths::Paths,
    print,
};

pub(super) fn run(args: &InstallArgs, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let (manifest, component) = installed::read_packed(&args.folder)?;
    let Some(grants) = decide(args, &manifest)? else {
        return Err(Failure::new(Exit::Denied, format!("{} was not installed: nothing was granted", manifest.title())));
    };
    let runtime = host::runtime()?;
    runtime.block_on(async {
        let apps = host::app_host(&paths, &Host::idle(&paths)?)?;
        apps.install(component.clone(), &manifest).await.map_err(host::not_prepared)
    })?;
    installed::save(&paths, &manifest, &component, &grants)?;
    let granted: Vec<_> = grants.list().iter().map(ToString::to_string).collect();
    if as_json {
        print::json(&json!({"id": manifest.id.as_str(), "version": manifest.version.to_string(), "granted": granted}));
    } else {
        print::say!("{} is installed and may use: {}", manifest.title(), granted.join(", "));
    }
    Ok(Exit::Success)
}

/// What the owner allows: by option, or asked at the terminal. `None`: no.
fn decide(args: &InstallArgs, manifest: &Manifest) -> Result<Option<Grants>, Failure> {
    if args.yes {
        return Ok(Some(Grants::ask(manifest)));
    }
    if !args.grant.is_empty() {
        let asked = Grants::ask(manifest);
        let mut grants = Grants::default();
        // Memory is not a capability to pick: an app that may hold none can never run.
        grants.memory_mb = asked.memory_mb;
        for grant in parse(&args.grant)? {
            if !asked.allows(&grant) {
                return Err(Failure::new(Exit::Denied, format!("{} does not ask for {grant}", manifest.title()))
                    .help("`locara check FOLDER` shows what it asks for"));
            }
            grants.allow(grant);
        }
        return Ok(Some(grants));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Denied,
            format!("{} asks for grants and nobody is there to answer", manifest.title()),
        )
        .help("grant all of it with --yes, or some of it with --grant; `locara check FOLDER` shows what it asks"));
    }
    anstream::eprintln!("{} asks:", manifest.title());
    for ask in Grants::asks(manifest) {
        anstream::eprintln!("  {:<32}  {}", ask.grant.to_string(), print::dim(&ask.sentence));
    }
    anstream::eprint!("Allow all of it? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| io("read the answer", error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes").then(|| Grants::ask(manifest)))
}
