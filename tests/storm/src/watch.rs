//! What the host says of itself while the storm goes on, and after it.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use crate::{talk::Client, tally::Tally};

/// Between two questions after health.
const EVERY: Duration = Duration::from_secs(1);
/// Steps that stand still for so many questions, while requests run, are a hang. A batch of the embedded model takes
/// milliseconds, on a machine that others use too.
const STANDSTILL: u32 = 20;
/// After the last client has gone the engines are idle within this time: a request that nobody reads ends within a step.
const IDLE_WITHIN: Duration = Duration::from_secs(15);

/// Tokens of the context of the embedded model.
pub(crate) async fn context_tokens(client: &mut Client) -> Result<usize> {
    let models: Value = serde_json::from_str(&client.get("/v1/models").await?)?;
    let model = models["data"].as_array().and_then(|models| models.first()).context("there is no model")?;
    let tokens = model.pointer("/locara/context_tokens").or_else(|| model.get("context_tokens"));
    let tokens = tokens.and_then(Value::as_u64).with_context(|| format!("no context in {model}"))?;
    Ok(usize::try_from(tokens)?)
}

/// What the watcher saw.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) tally: Tally,
    /// Questions that were not answered with 200, and engines that stood still.
    pub(crate) hung: u64,
    pub(crate) notes: Vec<String>,
    /// What became of the memory of the process, for people.
    pub(crate) memory: String,
}

/// A watcher, and the word that ends it.
#[derive(Debug)]
pub(crate) struct Watching {
    stop: oneshot::Sender<()>,
    watcher: JoinHandle<Health>,
}

/// Asks for health every second until [`end`].
pub(crate) fn every_second(client: Client, pid: u32) -> Watching {
    let (stop, stopped) = oneshot::channel();
    Watching { stop, watcher: tokio::spawn(watch(client, pid, stopped)) }
}

/// Ends a watcher between two questions.
pub(crate) async fn end(watching: Watching) -> Result<Health> {
    // One that broke says so when it is joined.
    let _ = watching.stop.send(());
    Ok(watching.watcher.await?)
}

/// How often an engine said the same number of steps while requests ran.
type Still = HashMap<String, (u64, u32)>;

async fn watch(mut client: Client, pid: u32, mut stopped: oneshot::Receiver<()>) -> Health {
    let (mut notes, mut resident, mut still) = (Vec::new(), Vec::new(), Still::new());
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {}
        }
        match client.get("/health").await {
            Ok(text) => notes.extend(stands_still(&mut still, &text)),
            Err(error) => notes.push(format!("{error:#}")),
        }
        resident.extend(resident_kib(pid));
    }
    Health { hung: notes.len() as u64, tally: client.tally, notes, memory: memory(&resident) }
}

fn stands_still(still: &mut Still, text: &str) -> Option<String> {
    let health: Value = serde_json::from_str(text).unwrap_or_default();
    health["engines"].as_array().into_iter().flatten().find_map(|engine| {
        let (model, steps) = (engine["model"].as_str()?, engine["steps"].as_u64()?);
        let (last, times) = still.entry(model.to_owned()).or_default();
        if *last != steps || engine["running"] == 0 {
            (*last, *times) = (steps, 0);
            return None;
        }
        *times += 1;
        (*times == STANDSTILL).then(|| format!("{model} stands at step {steps} while requests run"))
    })
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rest = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The second half, as its own two halves: what is flat has the same middle in both.
fn memory(resident: &[u64]) -> String {
    let (third, fourth) = resident[resident.len() / 2..].split_at(resident[resident.len() / 2..].len() / 2);
    let middle = |part: &[u64]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    };
    match (middle(third), middle(fourth), resident.iter().max()) {
        (Some(third), Some(fourth), Some(most)) => format!(
            "resident memory: {third} KiB in the third quarter, {fourth} KiB in the fourth ({:+} KiB), {most} KiB at most",
            fourth.cast_signed() - third.cast_signed()
        ),
        _ => "resident memory: too few samples, or no /proc".to_owned(),
    }
}

/// What was left after the last client.
#[derive(Debug)]
pub(crate) struct Idle {
    /// Requests in engines, cells that belong to no session, and requests that the HTTP layer still counts.
    pub(crate) leaked: u64,
    pub(crate) notes: Vec<String>,
}

/// Waits until nothing runs; what still does after a while is leaked.
pub(crate) async fn until_idle(client: &mut Client) -> Result<Idle> {
    let end = Instant::now() + IDLE_WITHIN;
    loop {
        let stats: Value = serde_json::from_str(&client.get("/v1/batch/stats").await?)?;
        let sessions: Value = serde_json::from_str(&client.get("/admin/sessions").await?)?;
        let idle = left(&stats, &sessions);
        if idle.leaked == 0 || Instant::now() >= end {
            return Ok(idle);
        }
        tokio::time::sleep(EVERY / 10).await;
    }
}

fn left(stats: &Value, sessions: &Value) -> Idle {
    let mut idle = Idle { leaked: 0, notes: Vec::new() };
    let mut note = |what: String, n: u64| {
        if n > 0 {
            idle.leaked = idle.leaked.saturating_add(n);
            idle.notes.push(format!("{n} {what}"));
        }
    };
    let number = |value: &Value, name: &str| value[name].as_i64().unwrap_or(i64::MAX).unsigned_abs();
    for engine in stats["engines"].as_array().into_iter().flatten() {
        for what in ["running", "waiting", "parked"] {
            note(format!("requests {what} in {}", engine["model"]), number(engine, what));
        }
    }
    for engine in sessions["engines"].as_array().into_iter().flatten() {
        // What callers without sessions left in the cells is kept for them in sessions that rest.
        if number(engine, "idle") == 0 {
            note(format!("cells of {} belong to nobody", engine["model"]), number(engine, "kv_cells_used"));
        }
    }
    for class in stats["classes"].as_array().into_iter().flatten() {
        note(format!("requests of class {} in flight", class["class"]), number(class, "in_flight"));
    }
    idle
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_to_nobody_is_counted() {
        let stats = |running: u32, in_flight: i32| {
            json!({"engines": [{"model": "m", "running": running, "waiting": 0, "parked": 0}],
                "classes": [{"class": "batch", "in_flight": in_flight}]})
        };
        let sessions = |used: u32, idle: u32| json!({"engines": [{"model": "m", "kv_cells_used": used, "idle": idle}]});
        assert_eq!(left(&stats(0, 0), &sessions(100, 3)).leaked, 0);
        assert_eq!(left(&stats(2, 0), &sessions(100, 3)).leaked, 2);
        assert_eq!(left(&stats(0, 1), &sessions(7, 0)).leaked, 8);
        assert!(
            left(&json!({"engines": [{"model": "m"}]}), &json!({})).leaked > 0,
            "figures that are gone are no zero"
        );
    }

    #[test]
    fn steps_that_stand_still_are_told_once() {
        let mut still = Still::new();
        let health = |steps: u64, running: u32| {
            json!({"engines": [{"model": "m", "steps": steps, "running": running}]}).to_string()
        };
        let mut told = 0;
        (0..2 * STANDSTILL).for_each(|_| told += u32::from(stands_still(&mut still, &health(5, 1)).is_some()));
        assert_eq!(told, 1);
        (0..2 * STANDSTILL).for_each(|_| assert_eq!(stands_still(&mut still, &health(6, 0)), None, "idle"));
    }
}
