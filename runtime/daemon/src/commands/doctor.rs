//! `locara doctor`: the machine, the engine, the state on disk, and every default with its derivation.

use locara_engine::llama;
use locara_platform::Platform;
use locara_policy::{
    defaults::{Setting, defaults},
    governor::{Config, Level},
};
use serde_json::json;

use crate::{exit::Exit, failure::Failure, host, installed, paths::Paths, print};

pub(super) fn run(as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    let platform = locara_platform::host();
    let facts = host::facts()?;
    let memory = platform.memory().map_err(host::no_answer)?;
    let machine = host::machine()?;
    let derived = defaults(&machine, None);
    let devices = llama::devices();
    let apps = installed::all(&paths)?;
    let library = host::library(&paths)?;
    let embedded = library.store().embedded();
    if as_json {
        print::json(
            &json!({"machine": facts, "memory": memory, "engine": {"build": llama::build_info(), "devices": devices},
            "defaults": derived, "state": paths.data(), "apps": apps.len(),
            "embedded_model": embedded.as_ref().ok().map(|model| &model.path),
            "problems": problems(&memory, embedded.as_ref().err())}),
        );
        return Ok(Exit::Success);
    }
    print::heading("Machine");
    print::row("system", format!("{} {}", facts.os, facts.os_version));
    print::row(
        "processor",
        format!("{}, {} cores, {} of them for the engine", facts.cpu, facts.physical_cores, facts.performance_cores),
    );
    print::row(
        "memory",
        format!("{}, {} available", print::size(facts.ram_bytes), print::size(memory.available_bytes)),
    );
    if let Some(limit) = facts.memory_limit_bytes {
        print::row("memory limit", format!("{} for this process's group", print::size(limit)));
    }
    let swap = if memory.swap_total_bytes == 0 {
        "none: the OS kills instead of swapping".to_owned()
    } else {
        format!("{} of {} used", print::size(memory.swap_used_bytes), print::size(memory.swap_total_bytes))
    };
    print::row("swap", swap);
    for device in &devices {
        print::row(if device.gpu { "GPU" } else { "device" }, format!("{}: {}", device.name, device.description));
    }
    print::heading("\nEngine");
    print::row("build", llama::build_info());
    print::row(
        "embedded model",
        match &embedded {
            Ok(model) => format!("{}@{} in {}", model.name, &model.digest[..12], model.path.display()),
            Err(error) => error.to_string(),
        },
    );
    print::heading("\nDefaults on this machine");
    setting("memory cap", &derived.memory_cap);
    setting("KV budget", &derived.kv_budget);
    setting("context", &derived.n_ctx);
    setting("sequences", &derived.max_sequences);
    setting("keys as", &derived.type_k);
    setting("values as", &derived.type_v);
    setting("FlashAttention", &derived.flash_attention);
    setting("batch", &derived.n_batch);
    setting("outputs", &derived.n_outputs_max);
    setting("prompt cache", &derived.prompt_cache);
    setting("threads", &derived.n_threads);
    setting("idle unload, s", &derived.idle_unload_seconds);
    setting("chat models", &derived.resident_chat_models);
    setting("speculative", &derived.speculative);
    setting("suited model", &derived.suggested_model);
    let governor = Config::new(&machine, &derived);
    print::heading("\nMemory pressure");
    print::row("listens to", watch(&platform));
    for (level, below) in [
        (Level::Elevated, governor.elevated_below),
        (Level::Tight, governor.tight_below),
        (Level::Critical, governor.critical_below),
    ] {
        let parts = machine.ram.get().checked_div(below.get()).unwrap_or(0);
        print::row(
            &level.to_string(),
            format!("below {below} available  {}", print::dim(&format!("(one part in {parts} of {})", machine.ram))),
        );
    }
    print::heading("\nState");
    print::row("folder", paths.data().display());
    print::row("installed apps", apps.len());
    let problems = problems(&memory, embedded.as_ref().err());
    if !problems.is_empty() {
        print::heading("\nWhat is wrong");
        for problem in problems {
            print::say!("- {problem}");
        }
    }
    Ok(Exit::Success)
}

/// What tells the host that memory is short.
fn watch(platform: &impl Platform) -> String {
    platform.watch_pressure().map_or_else(|error| error.to_string(), |watch| watch.describe())
}

fn setting<T: std::fmt::Display>(name: &str, setting: &Setting<T>) {
    print::row(name, format!("{}  {}", setting.value, print::dim(&format!("({})", setting.why))));
}

fn problems(memory: &locara_platform::MemoryNow, model: Option<&locara_models::StoreError>) -> Vec<String> {
    let mut problems: Vec<String> = model.iter().map(|error| error.to_string()).collect();
    if memory.available_bytes < 1_000_000_000 {
        problems.push(format!(
            "only {} of memory are available: close programs before loading a model",
            print::size(memory.available_bytes)
        ));
    }
    problems
}
