//! `locara ps` and `locara stop`: what the running host has in memory, and taking it out.

use comfy_table::{CellAlignment, Table, presets};
use locara_policy::{Bytes, Kind, governor::ModelView};
use serde_json::{Value, json};

use super::{client::Client, progress::duration};
use crate::{
    exit::Exit,
    failure::Failure,
    host::{self, status::Report},
    paths::Paths,
    print,
};

/// What the host says of itself.
struct Now {
    version: String,
    report: Report,
    engines: Vec<Value>,
}

async fn now(client: &Client) -> Result<Now, Failure> {
    let version = client.hello().await?;
    let report = client.get("/admin/memory").await?;
    let report = serde_json::from_value(report).map_err(|error| {
        Failure::new(Exit::Failure, format!("the host is locara {version} and says more than this one understands"))
            .because(error)
            .help("use the `locara` that it was started with, or start it again: `locara service stop`, `locara service start`")
    })?;
    let mut stats = client.get("/v1/batch/stats").await?;
    let engines = serde_json::from_value(stats["engines"].take()).unwrap_or_default();
    Ok(Now { version, report, engines })
}

pub(super) fn run(as_json: bool) -> Result<Exit, Failure> {
    let client = Client::new(&Paths::find()?)?;
    let now = host::runtime()?.block_on(now(&client))?;
    let memory = &now.report.memory;
    let idle_unload_ms = now.report.idle_unload_ms;
    if as_json {
        let models: Vec<Value> = memory
            .models
            .iter()
            .map(|model| {
                json!({"name": model.name, "digest": model.digest, "state": model.state, "bytes": model.bytes,
                    "kv_bytes": kv(&now.report, model), "idle_ms": model.idle_ms,
                    "unloads_in_s": unloads_in(model, idle_unload_ms), "engine": engine(&now.engines, model)})
            })
            .collect();
        print::json(&json!({"locara": now.version, "pid": now.report.pid, "address": client.address().to_string(),
            "uptime_s": memory.at_ms / 1000, "level": memory.level.to_string(), "measured": memory.measured,
            "models": models}));
        return Ok(Exit::Success);
    }
    print::say!(
        "locara {}  {}",
        now.version,
        print::dim(&format!(
            "http://{}, process {}, up for {}",
            client.address(),
            now.report.pid,
            duration(memory.at_ms / 1000)
        ))
    );
    if let Some(measured) = memory.measured {
        print::row(
            "memory",
            format!("{} of files, {} its own; {} may be held", measured.file_backed, measured.anonymous, memory.cap),
        );
    }
    print::row(
        "pressure",
        if memory.cause.is_empty() { memory.level.to_string() } else { format!("{}: {}", memory.level, memory.cause) },
    );
    if memory.models.is_empty() {
        print::say!("\nno model is in memory; the first request loads one");
        return Ok(Exit::Success);
    }
    print::say!("");
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["model", "state", "memory", "KV", "cells used", "requests", "unloads"]);
    for model in &memory.models {
        let engine = engine(&now.engines, model);
        let figure = |name: &str| engine[name].as_u64().unwrap_or(0);
        let requests = format!(
            "{} of {}{}",
            figure("running"),
            figure("places"),
            match figure("waiting") {
                0 => String::new(),
                waiting => format!(", {waiting} waiting"),
            }
        );
        let unloads = match unloads_in(model, idle_unload_ms) {
            None if model.keep_loaded => "is kept".to_owned(),
            None if model.state != "resident" => String::new(),
            None if model.activity.is_busy() => "in use".to_owned(),
            None => "never".to_owned(),
            Some(seconds) => format!("in {}", duration(seconds)),
        };
        table.add_row([
            model.name.clone(),
            model.state.clone(),
            model.bytes.to_string(),
            kv(&now.report, model).to_string(),
            format!("{} of {}", figure("kv_cells_used"), figure("kv_cells")),
            requests,
            unloads,
        ]);
    }
    for column in [2, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    print::table(&table);
    Ok(Exit::Success)
}

/// What holds keys and values of a model.
fn kv(report: &Report, model: &ModelView) -> Bytes {
    let of_model = |hold: &&locara_policy::governor::HoldView| hold.owner == model.name && hold.kind == Kind::Kv;
    Bytes(report.memory.holds.iter().filter(of_model).map(|hold| hold.bytes.get()).sum())
}

fn engine<'v>(engines: &'v [Value], model: &ModelView) -> &'v Value {
    engines.iter().find(|engine| engine["model"] == model.name).unwrap_or(&Value::Null)
}

/// Seconds until it is let go if nobody asks for it; none while it is used, kept, or never let go.
fn unloads_in(model: &ModelView, idle_unload_ms: u64) -> Option<u64> {
    let idle = !model.activity.is_busy() && !model.keep_loaded && model.state == "resident";
    (idle && idle_unload_ms != u64::MAX).then(|| idle_unload_ms.saturating_sub(model.idle_ms) / 1000)
}

pub(super) fn stop(word: &str, as_json: bool) -> Result<Exit, Failure> {
    let client = Client::new(&Paths::find()?)?;
    let (before, after) = host::runtime()?.block_on(async {
        let before = now(&client).await?.report.memory.models;
        client.post("/admin/unload", &json!({"model": word})).await?;
        Ok::<_, Failure>((before, now(&client).await?.report.memory.models))
    })?;
    let gone: Vec<&ModelView> =
        before.iter().filter(|model| !after.iter().any(|other| other.digest == model.digest)).collect();
    if as_json {
        let names: Vec<&str> = gone.iter().map(|model| model.name.as_str()).collect();
        print::json(&json!({"stopped": names}));
        return Ok(Exit::Success);
    }
    if gone.is_empty() {
        print::say!("{word} was not in memory");
    }
    for model in gone {
        print::say!("{} is out of memory, {} are free again", model.name, model.bytes);
    }
    Ok(Exit::Success)
}
