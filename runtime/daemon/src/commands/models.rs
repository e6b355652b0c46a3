//! `locara models`: every model with what it takes, whether it fits here, what it is for and how it is.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, Table, presets};
use locara_gguf::Gguf;
use locara_manifest::Role;
use locara_models::{Listed, Located, ModelFile, ModelState};
use locara_policy::{
    Bytes, Plan,
    verdict::{Fit, Verdict, judge},
};
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    failure::{Failure, one_line},
    host::{self, Found, Host, status::reports},
    paths::Paths,
    print, serve,
};

/// One line of the list.
struct Row {
    model: Listed,
    quantization: Option<&'static str>,
    planned: Result<Planned, String>,
    state: &'static str,
    /// What is wrong with it, and the next step.
    problem: Option<String>,
}

impl Row {
    fn is_too_large(&self) -> bool {
        self.planned.as_ref().is_ok_and(|planned| planned.verdict.fit == Fit::NoFit)
    }
}

/// What the planner says.
struct Planned {
    found: Found,
    plan: Plan,
    verdict: Verdict,
}

pub(super) fn run(as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let host = Host::idle(&paths)?;
    let all = host.library().list().map_err(failed)?;
    let loaded: BTreeSet<String> =
        reports(&paths.hosts()).iter().flat_map(|host| &host.memory.models).map(|model| model.digest.clone()).collect();
    let nobody_plays_default = all.iter().all(|model| !model.words.iter().any(|word| word == Role::DEFAULT));
    let rows: Vec<Row> = all.into_iter().map(|model| row(&host, model, &loaded)).collect();
    let stray = host.library().unregistered().map_err(failed)?;
    if as_json {
        let models: Vec<Value> = rows.iter().map(as_value).collect();
        let stray: Vec<Value> =
            stray.iter().map(|(digest, bytes)| json!({"digest": digest.as_str(), "bytes": bytes})).collect();
        print::json(&json!({"models": models, "unregistered": stray}));
        return Ok(Exit::Success);
    }
    show(&rows, nobody_plays_default);
    for Row { model, problem, .. } in &rows {
        if let Some(problem) = problem {
            print::say!("\n{}: {problem}", model.name);
        }
    }
    for (digest, bytes) in &stray {
        print::say!(
            "\n{} lie in the store and belong to no model; `locara rm {}` frees them",
            print::size(*bytes),
            digest.as_str()
        );
    }
    if rows.iter().all(|row| row.model.source.is_none()) {
        print::note(
            "only the embedded model is here, which proves that the machine works and is not clever; \
             `locara pull org/name` fetches one, `locara import --from all` uses what other programs have",
        );
    }
    Ok(Exit::Success)
}

/// What is wrong with models, with their names; for `locara doctor`.
pub(super) fn problems(host: &Host) -> Result<Vec<(String, String)>, Failure> {
    let all = host.library().list().map_err(failed)?;
    let rows = all.into_iter().filter(|model| !model.disabled).map(|model| row(host, model, &BTreeSet::new()));
    // One that does not fit and that nothing leads to is no fault: it may be for another machine.
    let rows = rows.filter(|row| !row.model.words.is_empty() || !row.is_too_large());
    Ok(rows.filter_map(|row| Some((row.model.name.to_string(), row.problem?))).collect())
}

/// The registry or the store cannot be read.
fn failed(error: locara_models::LibraryError) -> Failure {
    Failure::new(Exit::Failure, "the models cannot be listed").because(error)
}

fn row(host: &Host, model: Listed, loaded: &BTreeSet<String>) -> Row {
    let is_loaded = loaded.contains(model.digest.as_str());
    let there = matches!(model.state, ModelState::Ready | ModelState::Unverified { .. });
    let planned = if there { planned(host, &model, is_loaded) } else { Err("its files are not there".to_owned()) };
    let state = match &model.state {
        _ if model.disabled => "disabled",
        ModelState::Unavailable { .. } => "unavailable",
        ModelState::Changed { .. } => "changed",
        _ if is_loaded => "loaded",
        ModelState::Unverified { .. } => "touched",
        ModelState::Ready => "ready",
    };
    let problem = match (&model.state, &planned) {
        (ModelState::Unavailable { path, folder: Some(folder), .. }, _) => Some(format!(
            "the folder {} is not there; attach the volume, the file is {}",
            folder.display(),
            path.display()
        )),
        (ModelState::Unavailable { path, folder: None, .. }, _) => {
            Some(format!("there is no file {}; put it back or pull it again", path.display()))
        }
        (ModelState::Changed { path, difference }, _) => Some(format!(
            "{} is not the file that was imported: {difference}; `locara rm {}`, and import it again",
            path.display(),
            model.name
        )),
        (_, Err(why)) => Some(format!("it cannot be planned: {why}")),
        (_, Ok(planned)) if planned.verdict.fit == Fit::NoFit => Some(planned.verdict.to_string()),
        _ => None,
    };
    let quantization = model.files.first().filter(|_| there).and_then(|path| {
        let gguf = Gguf::open(path).ok()?;
        serve::quantization(gguf.u32("general.file_type").ok().flatten()?)
    });
    Row { model, quantization, planned, state, problem }
}

fn planned(host: &Host, model: &Listed, is_loaded: bool) -> Result<Planned, String> {
    let located = Located {
        file: ModelFile {
            path: model.files.first().cloned().unwrap_or_default(), // a registry has no model without files
            digest: model.digest.to_string(),
            name: model.name.to_string(),
            bytes: model.bytes,
        },
        parts: model.files.clone(),
        settings: model.settings.clone(),
    };
    let found = host.plan(located).map_err(|error| one_line(&error))?;
    // What is loaded has its memory already: what is available beside it says nothing about it.
    let available = if is_loaded { None } else { host::available_now() };
    let (plan, verdict) =
        judge(&found.shape, &found.request, host.machine(), available).map_err(|error| one_line(&error))?;
    Ok(Planned { found, plan, verdict })
}

fn show(rows: &[Row], nobody_plays_default: bool) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["name", "size", "type", "context", "memory", "fits", "roles and aliases", "state"]);
    for Row { model, quantization, planned, state, .. } in rows {
        let (context, memory, fits) = match planned {
            Ok(planned) => (
                planned.found.request.n_ctx.to_string(),
                planned.plan.total.to_string(),
                planned.verdict.fit.to_string(),
            ),
            Err(_) => Default::default(),
        };
        // The embedded model stands in until somebody is named.
        let stands_in = model.source.is_none() && nobody_plays_default;
        let words = if stands_in { format!("({})", Role::DEFAULT) } else { model.words.join(", ") };
        table.add_row([
            model.name.to_string(),
            Bytes(model.bytes).to_string(),
            quantization.unwrap_or_default().to_owned(),
            context,
            memory,
            fits,
            words,
            (*state).to_owned(),
        ]);
    }
    for column in [1, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    print::table(&table);
}

fn as_value(row: &Row) -> Value {
    let Row { model, quantization, planned, state, problem } = row;
    let planned = planned.as_ref().ok();
    json!({
        "name": model.name.as_str(), "digest": model.digest.as_str(), "bytes": model.bytes,
        "quantization": quantization,
        "architecture": planned.map(|planned| &planned.found.shape.architecture),
        "parameters": planned.map(|planned| planned.found.shape.parameters),
        "context": planned.map(|planned| planned.found.request.n_ctx),
        "estimate_bytes": planned.map(|planned| planned.plan.total),
        "verdict": planned.map(|planned| &planned.verdict),
        "words": model.words, "state": state, "problem": problem, "disabled": model.disabled,
        "files": model.files, "owned": model.owned, "source": model.source, "settings": model.settings,
    })
}
