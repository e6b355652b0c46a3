//! `locara import`: models that are on this machine already are used where they are.

use std::{
    collections::BTreeSet,
    io::{BufRead, IsTerminal},
    path::{Path, PathBuf},
};

use comfy_table::{CellAlignment, Table, presets};
use locara_gguf::Gguf;
use locara_manifest::{Role, SourceKind};
use locara_models::{Found, ImportError, Imported, Library, LibraryError, Places};
use serde_json::{Value, json};

use super::{progress::Bar, role};
use crate::{
    cli::{ImportArgs, Origin},
    exit::Exit,
    failure::{Failure, io, one_line},
    host,
    paths::Paths,
    print, serve,
};

pub(super) fn run(args: &ImportArgs, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let library = host::library(&paths)?;
    let all = match args.from {
        None => at_paths(&library, &args.what)?,
        Some(origin) => {
            let found = elsewhere(&paths, &library, origin)?;
            if found.is_empty() {
                return Err(Failure::new(Exit::Failure, format!("no models of {} were found", called(origin)))
                    .help("`locara import FOLDER` looks below any folder"));
            }
            let chosen = choose(found, &args.what)?;
            if !args.yes && args.what.is_empty() && !agreed(&chosen, as_json)? {
                return Ok(Exit::Success);
            }
            chosen
        }
    };
    import(&library, &all, as_json)
}

fn at_paths(library: &Library, what: &[String]) -> Result<Vec<Found>, Failure> {
    let mut all = Vec::new();
    for path in what {
        let path = Path::new(path);
        let found = library
            .look_at(path)
            .map_err(|error| Failure::new(Exit::Failure, format!("cannot import {}", path.display())).because(error))?;
        all.extend(found);
    }
    Ok(all)
}

fn elsewhere(paths: &Paths, library: &Library, origin: Origin) -> Result<Vec<Found>, Failure> {
    let config = serve::read_config(paths)?;
    let places = Places::usual(|name| std::env::var_os(name), config.models.dirs.iter().map(PathBuf::from));
    let found = library.discover(&places).map_err(role::refused("look for models"))?;
    Ok(found.into_iter().filter(|found| is_of(found, origin)).collect())
}

fn is_of(found: &Found, origin: Origin) -> bool {
    let kind = match origin {
        Origin::All => return true,
        Origin::Ollama => SourceKind::Ollama,
        Origin::LmStudio => SourceKind::LmStudio,
        Origin::HuggingFace => SourceKind::HuggingFace,
        Origin::LlamaCpp => SourceKind::LlamaCpp,
    };
    found.source.kind == kind
}

fn called(origin: Origin) -> &'static str {
    match origin {
        Origin::Ollama => "Ollama",
        Origin::LmStudio => "LM Studio",
        Origin::HuggingFace => "Hugging Face's cache",
        Origin::LlamaCpp => "llama.cpp's cache",
        Origin::All => "any other program",
    }
}

/// Those with these names; all if none are named.
fn choose(found: Vec<Found>, names: &[String]) -> Result<Vec<Found>, Failure> {
    let there: BTreeSet<String> =
        found.iter().flat_map(|found| [found.name.to_string(), found.source.name.clone()]).collect();
    if let Some(unknown) = names.iter().find(|name| !there.contains(*name)) {
        let names: BTreeSet<String> = found.iter().map(|found| found.name.to_string()).collect();
        let names: Vec<String> = names.into_iter().collect();
        return Err(Failure::new(Exit::Failure, format!("no model `{unknown}` was found"))
            .help(format!("there are: {}", names.join(", "))));
    }
    let wanted = |found: &Found| {
        names.is_empty() || names.iter().any(|name| found.name.as_str() == name || found.source.name == *name)
    };
    Ok(found.into_iter().filter(wanted).collect())
}

/// Shows what was found and asks. Where nobody can answer, showing is all that is done.
fn agreed(found: &[Found], as_json: bool) -> Result<bool, Failure> {
    let new = found.iter().filter(|found| found.known.is_none() && found.missing.is_empty()).count();
    if as_json {
        print::json(&json!({"found": found.iter().map(as_value).collect::<Vec<_>>()}));
        return Ok(false);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["name", "size", "of", "state"]);
    for found in found {
        let state = match (&found.known, found.missing.len()) {
            (Some(name), _) => format!("is here as {name}"),
            (None, 0) => "new".to_owned(),
            (None, missing) => format!("{missing} of {} parts are missing", found.files.len()),
        };
        table.add_row([found.name.to_string(), print::size(found.bytes), found.source.kind.as_str().to_owned(), state]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    print::table(&table);
    if new == 0 {
        print::note("nothing of it is new");
        return Ok(false);
    }
    if !std::io::stdin().is_terminal() {
        print::note("nothing was imported: name some of them, or take all with --yes");
        return Ok(false);
    }
    anstream::eprint!("Import the {new} that are new? The files stay where they are. [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| io("read the answer", error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn as_value(found: &Found) -> Value {
    json!({"name": found.name.as_str(), "bytes": found.bytes, "source": found.source, "files": found.files,
        "known": found.known.as_ref().map(ToString::to_string), "missing": found.missing})
}

/// Imports one after the other. What is wrong with one does not keep the others out.
fn import(library: &Library, all: &[Found], as_json: bool) -> Result<Exit, Failure> {
    let runtime = host::runtime()?;
    let cancel = host::until_asked_to_stop(&runtime);
    let (mut imported, mut failed) = (Vec::new(), Vec::new());
    for found in all {
        let bar = Bar::new(found.name.as_str(), as_json);
        let outcome = library.import(found, &|progress| bar.show(progress), &cancel);
        drop(bar);
        match outcome {
            Ok(one) => {
                if !as_json {
                    let known = if one.known { "was here already" } else { "is imported" };
                    print::say!("{} {known}: {} in {}", one.name, print::size(one.bytes), place(found));
                }
                imported.push(one);
            }
            Err(error) => {
                let stopped = matches!(error, ImportError::Library(LibraryError::Cancelled));
                failed.push((found.name.to_string(), error));
                if stopped {
                    break;
                }
            }
        }
    }
    runtime.shutdown_background();
    let crowned = match imported.iter().find(|one| can_chat(library, one)) {
        Some(first) => crown(library, first.name.as_str())?,
        None => false,
    };
    if as_json {
        let models: Vec<Value> = imported
            .iter()
            .map(|one| json!({"name": one.name.as_str(), "digest": one.digest.as_str(), "bytes": one.bytes, "known": one.known}))
            .collect();
        let failures: Vec<Value> =
            failed.iter().map(|(name, error)| json!({"name": name, "error": one_line(error)})).collect();
        print::json(&json!({"imported": models, "failed": failures, "default": crowned}));
        return Ok(if failed.is_empty() { Exit::Success } else { Exit::Failure });
    }
    if !crowned && let [one, ..] = imported.as_slice() {
        print::note(&format!("`locara chat {}` talks to it", one.name));
    }
    let Some((name, error)) = failed.pop() else { return Ok(Exit::Success) };
    for (name, error) in &failed {
        print::note(&format!("{name} was not imported: {}", one_line(error)));
    }
    Err(Failure::new(Exit::Failure, format!("{name} was not imported")).because(error))
}

fn place(found: &Found) -> String {
    found.files.first().map(|path| path.display().to_string()).unwrap_or_default()
}

fn can_chat(library: &Library, one: &Imported) -> bool {
    let located = library.resolve(one.digest.as_str()).ok();
    located.is_some_and(|located| chats(&located.file.path))
}

/// Whether a model makes text, and may thus play `default`.
pub(super) fn chats(path: &Path) -> bool {
    let shape = Gguf::open(path).ok().and_then(|gguf| locara_engine::shape::model_shape(&gguf).ok());
    shape.is_some_and(|shape| !shape.encoder)
}

/// Makes a model play `default` if nobody does, and says so. Whether it does now because of that.
pub(super) fn crown(library: &Library, name: &str) -> Result<bool, Failure> {
    let registry = library.registry().load().map_err(|error| role::refused("read the roles")(error.into()))?;
    let default: Role = role::role_of(Role::DEFAULT)?;
    if registry.roles.contains_key(&default) {
        return Ok(false);
    }
    role::give(library, &default, name)?;
    print::note(&format!(
        "nobody played `default`: {name} does now; `locara chat` talks to it, `locara role set default MODEL` changes it"
    ));
    Ok(true)
}
