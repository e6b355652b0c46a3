//! `locara memory`: the ledger of every running host as a bar and tables, and the decisions that led to it.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use locara_platform::Platform;
use locara_policy::{
    Bytes, Governor,
    defaults::defaults,
    governor::{AppView, Config, Decision, Event, ModelView, Snapshot},
};
use serde_json::json;

use crate::{
    cli::MemoryArgs,
    exit::Exit,
    failure::Failure,
    host::{
        self,
        status::{Report, reports},
        translated,
    },
    paths::Paths,
    print,
};

/// Between two looks of `--watch`.
const AGAIN: Duration = Duration::from_secs(1);
/// Decisions that are shown.
const DECISIONS: usize = 10;
/// Width of the bar, characters.
const BAR: usize = 60;

pub(super) fn run(args: &MemoryArgs, as_json: bool) -> Result<Exit, Failure> {
    let paths = Paths::find()?;
    loop {
        let hosts = reports(&paths.hosts());
        if as_json {
            let idle = hosts.is_empty().then(nobody).transpose()?;
            print::json(&json!({"hosts": hosts, "machine": idle}));
        } else {
            if args.watch {
                // Home, and clear to the end: less flicker than clearing first.
                anstream::print!("\x1b[H\x1b[J");
            }
            match hosts.as_slice() {
                [] => show_machine(&nobody()?),
                hosts => hosts.iter().for_each(show),
            }
        }
        if !args.watch || print::lost().is_some() {
            return Ok(Exit::Success);
        }
        std::thread::sleep(AGAIN);
    }
}

/// What a host that starts now would see.
fn nobody() -> Result<Snapshot, Failure> {
    let paths = Paths::find()?;
    let machine = host::machine()?;
    let sample = locara_platform::host().sample(paths.data()).map_err(host::no_answer)?;
    let mut governor = Governor::new(Config::new(&machine, &defaults(&machine, None)));
    governor.handle(0, Event::Sample(translated(&sample)));
    Ok(governor.snapshot())
}

fn show_machine(memory: &Snapshot) {
    print::heading("No host is running");
    print::row("level", level(memory));
    if let Some(available) = memory.available {
        print::row("available", available);
    }
    print::row("a host could hold", format!("{} {}", memory.room, print::dim(&format!("({})", memory.bound))));
}

fn level(memory: &Snapshot) -> String {
    if memory.cause.is_empty() { memory.level.to_string() } else { format!("{}: {}", memory.level, memory.cause) }
}

fn show(report: &Report) {
    let Report { pid, command, memory, prediction_error, governed, .. } = report;
    print::heading(&format!("{command}  {}", print::dim(&format!("process {pid}"))));
    if !governed {
        print::note("this host was started with its governor switched off");
    }
    print::say!("{}  {} held of {}", bar(memory), memory.held, memory.cap);
    print::row("level", level(memory));
    print::row("room", format!("{} {}", memory.room, print::dim(&format!("({})", memory.bound))));
    if let Some(available) = memory.available {
        let swap = memory.swap_used.unwrap_or_default();
        print::row("machine", format!("{available} available, {swap} of swap used"));
    }
    if let Some(measured) = memory.measured {
        let sign = |difference: Option<i64>| {
            let difference = difference.unwrap_or(0);
            let sign = if difference < 0 { "−" } else { "+" };
            format!("{sign}{}", Bytes(difference.unsigned_abs()))
        };
        print::row(
            "measured",
            format!(
                "{} of files ({} to the account), {} anonymous ({})",
                measured.file_backed,
                sign(memory.file_difference),
                measured.anonymous,
                sign(memory.anonymous_difference)
            ),
        );
    }
    holds(memory);
    for (kind, error) in prediction_error {
        let percent = |millionths: f64| format!("{:.2} %", millionths / 10_000.0);
        print::row(
            "prediction error",
            format!("{kind}: {} at worst over {} loads", percent(error.worst as f64), error.count),
        );
    }
    memory.models.iter().for_each(model);
    memory.apps.iter().for_each(app);
    if memory.waiting > 0 {
        print::row("waiting", format!("{} for memory", memory.waiting));
    }
    decisions(memory.at_ms, &memory.decisions);
    print::say!("");
}

/// What is held, what could be promised, and what neither: one character is a sixtieth of the cap.
fn bar(memory: &Snapshot) -> String {
    let of_cap = |bytes: Bytes| {
        let cap = u128::from(memory.cap.get()).max(1);
        usize::try_from((u128::from(bytes.get()) * BAR as u128).div_ceil(cap)).unwrap_or(BAR).min(BAR)
    };
    let held = of_cap(memory.held);
    let room = of_cap(memory.room).min(BAR - held);
    format!("[{}{}{}]", "█".repeat(held), "░".repeat(room), " ".repeat(BAR - held - room))
}

fn holds(memory: &Snapshot) {
    if memory.holds.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["owner", "kind", "holds", "of it promised"]);
    for hold in &memory.holds {
        let promised = if hold.promised.is_zero() { String::new() } else { hold.promised.to_string() };
        table.add_row([hold.owner.clone(), hold.kind.to_string(), hold.bytes.to_string(), promised]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    print::say!("");
    print::table(&table);
    print::say!("");
}

fn model(model: &ModelView) {
    let activity = &model.activity;
    let doing = if activity.is_busy() {
        format!(
            "{} interactive, {} background, {} waiting",
            activity.interactive, activity.background, activity.waiting
        )
    } else {
        format!("idle for {}", seconds(model.idle_ms))
    };
    let pages = if model.pages_dropped { ", pages given back" } else { "" };
    let keep = if model.keep_loaded { ", asked to be kept" } else { "" };
    let reload = format!("reload about {}", seconds(model.reload_ms.into()));
    print::row(&model.name, format!("{}, {doing}{pages}{keep}, {reload}", model.state));
}

fn app(app: &AppView) {
    let suspended = if app.suspended { ", suspended" } else { "" };
    print::row(
        &app.app,
        format!(
            "holds {} (guaranteed {}, may hold {}, declared {}), {} with its share of models, epoch {}, trust {} %{suspended}",
            app.own, app.floor, app.limit, app.ceiling, app.charge, app.epoch, app.trust_percent
        ),
    );
}

fn decisions(now: u64, decisions: &[Decision]) {
    let newest = decisions.iter().rev().take(DECISIONS).collect::<Vec<_>>();
    if newest.is_empty() {
        return;
    }
    print::heading("Decisions");
    for decision in newest.into_iter().rev() {
        let ago = seconds(now.saturating_sub(decision.at_ms));
        print::say!("{ago:>8} ago  {:<8}  {}: {}", decision.level, decision.what, print::dim(&decision.why));
    }
}

fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..120_000 => format!("{} s", ms / 1000),
        _ => format!("{} min", ms / 60_000),
    }
}
