//! `locara doctor`: the machine, the engine, the host, the state on disk, every default with its derivation, and what is
//! wrong with the command that mends it.

mod problems;

use locara_engine::llama;
use locara_platform::Platform;
use locara_policy::{
    defaults::{Setting, defaults},
    governor::{Config, Level},
};
use serde_json::json;

use self::problems::There;
use super::client;
use crate::{cli::DoctorArgs, exit::Exit, failure::Failure, host, installed, paths::Paths, print};

pub(super) fn run(args: &DoctorArgs, as_json: bool) -> Result<Exit, Failure> {
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
    let there = There::look(&paths);
    let problems = problems::all(&paths, &memory, embedded.as_ref().err(), &there);
    let exit = if args.strict && !problems.is_empty() { Exit::Failure } else { Exit::Success };
    if as_json {
        let host = json!({"address": there.address.to_string(), "port_owner": there.owner,
            "version": there.host.as_ref().ok(), "error": there.host.as_ref().err().map(client::why)});
        let service = there.service.as_ref().ok().map(|service| {
            json!({"manager": service.manager, "file": service.file, "installed": service.installed,
                "state": service.state.as_ref().ok().map(|state| &state.word)})
        });
        print::json(
            &json!({"machine": facts, "memory": memory, "engine": {"build": llama::build_info(), "devices": devices},
            "defaults": derived, "state": paths.data(), "apps": apps.len(),
            "embedded_model": embedded.as_ref().ok().map(|model| &model.path),
            "host": host, "service": service, "problems": problems}),
        );
        return Ok(exit);
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
    print::row("configuration", there.config(&paths));
    print::heading("\nHost");
    print::row("address", format!("http://{}", there.address));
    print::row("port", there.owner.as_deref().map_or("nobody listens".to_owned(), |owner| format!("{owner} listens")));
    print::row(
        "host",
        match &there.host {
            Ok(version) => format!("locara {version} answers"),
            Err(failure) => client::why(failure),
        },
    );
    print::row("service", there.service());
    if problems.is_empty() {
        print::say!("\nNothing is wrong.");
    } else {
        print::heading("\nWhat is wrong");
        for problem in problems {
            print::say!("- {}\n  {}", problem.what, print::dim(&problem.mend));
        }
    }
    Ok(exit)
}

/// What tells the host that memory is short.
fn watch(platform: &impl Platform) -> String {
    platform.watch_pressure().map_or_else(|error| error.to_string(), |watch| watch.describe())
}

fn setting<T: std::fmt::Display>(name: &str, setting: &Setting<T>) {
    print::row(name, format!("{}  {}", setting.value, print::dim(&format!("({})", setting.why))));
}
