//! Carries out what the governor asks for, and reports what came of it.
//!
//! Nothing is taken on trust: what a step freed is measured in the process after it ran. A step that cannot be done is
//! reported as failed, never left open.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use locara_engine::{Engine, reclaim};
use locara_platform::Platform;
use locara_policy::{
    Bytes,
    governor::{Action, Event, Gate, Rung, StepId, Throttle},
    ledger::ModelDigest,
};
use tokio::sync::mpsc;

use super::{Host, load::holds};
use crate::print;

/// The settle barrier gives a system so long to take freed pages back. A GPU unwires about a second after its last use.
const SETTLE_MOST: Duration = Duration::from_secs(3);
const SETTLE_LOOK: Duration = Duration::from_millis(20);

/// Begins actions in their order until the host is gone.
pub(crate) async fn work(host: Weak<Host>, mut actions: mpsc::UnboundedReceiver<Action>) {
    while let Some(action) = actions.recv().await {
        let Some(host) = host.upgrade() else { return };
        begin(&host, action);
    }
}

fn begin(host: &Arc<Host>, action: Action) {
    match action {
        Action::Reclaim { step, model, rung, spill, .. } => {
            let host = host.clone();
            tokio::spawn(async move { report(&host, reclaim(&host, step, &model, rung, spill).await) });
        }
        Action::Unload { step, model, expected } => {
            let (second_thoughts, heard) = mpsc::channel(SECOND_THOUGHTS);
            host.unloads().insert(step, second_thoughts);
            let host = host.clone();
            tokio::spawn(async move {
                let outcome = unload(&host, step, &model, expected, heard).await;
                host.unloads().remove(&step);
                report(&host, outcome);
            });
        }
        Action::Keep { step, .. } => reconsider(host, step, SecondThought::Keep),
        Action::Hurry { step, reason, .. } => reconsider(host, step, SecondThought::Hurry(reason)),
        Action::Throttle { model, throttle } => {
            if let Some(loaded) = host.resident(&model) {
                loaded.engine.throttle(translated(throttle, loaded.n_threads));
                if throttle.gate == Gate::All {
                    loaded.engine.resume();
                }
            }
        }
        Action::Tighten { app, tightening } => host.tenants().tighten(&app, &tightening),
        Action::Enforce { app, consequence, reason } => host.tenants().enforce(&app, consequence, &reason),
        Action::Resume { app } => host.tenants().resume(&app),
        Action::Tell { message } => print::note(&message),
        Action::Advise { rule, advice } => print::note(&format!("{rule}: {advice}")),
        // Answered where they were asked.
        Action::Admit { .. } | Action::Join { .. } | Action::Wait { .. } | Action::Refuse { .. } => {}
    }
}

/// Tells what came of a step, and takes a reading that shows it.
fn report(host: &Host, event: Event) {
    host.governed().tell(event);
    host.look();
}

async fn reclaim(host: &Arc<Host>, step: StepId, model: &ModelDigest, rung: Rung, spill: bool) -> Event {
    let failed = |reason: String| Event::Failed { step, reason };
    let Some(loaded) = host.resident(model) else { return failed("the model is not loaded".to_owned()) };
    let what = match rung {
        Rung::PromptCache => reclaim::Reclaim::PromptCache { spill },
        Rung::IdleSessions => reclaim::Reclaim::IdleSessions { spill },
        Rung::Weights => reclaim::Reclaim::Weights,
        Rung::Background => reclaim::Reclaim::Background { spill },
    };
    match loaded.engine.reclaim(what).await {
        Ok(Ok(reclaimed)) => {
            tracing::info!(?rung, freed = reclaimed.freed_bytes, ms = reclaimed.took_ms, "memory was given back");
            let freed = Bytes(reclaimed.freed_bytes);
            Event::Done { step, freed, holds: Some(holds(&loaded.plan, &loaded.engine.memory())) }
        }
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed("the engine was stopped".to_owned()),
    }
}

/// What the governor may say of an unload that waits for answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecondThought {
    /// It is no longer wanted.
    Keep,
    /// The answers are not to be waited for, for this reason.
    Hurry(String),
}

/// Each is said once.
const SECOND_THOUGHTS: usize = 2;

/// Tells an unload that waits. One that is over, or frees already, reports that it is done.
fn reconsider(host: &Host, step: StepId, thought: SecondThought) {
    if let Some(unload) = host.unloads().get(&step) {
        let _ = unload.try_send(thought);
    }
}

/// Unloads once the answers in flight have ended, and waits until the process really is smaller: a system may take a moment
/// to take pages back, and a load that begins before would overlap.
async fn unload(
    host: &Arc<Host>,
    step: StepId,
    model: &ModelDigest,
    expected: Bytes,
    mut heard: mpsc::Receiver<SecondThought>,
) -> Event {
    let Some(loaded) = host.take_resident(model) else {
        return Event::Done { step, freed: Bytes::ZERO, holds: None };
    };
    let platform = locara_platform::host();
    let resident = || platform.process().map(|process| process.rss_bytes()).unwrap_or(0);
    let thought = tokio::select! {
        biased;
        () = loaded.engine.drain() => None,
        thought = heard.recv() => thought,
    };
    match thought {
        Some(SecondThought::Keep) => {
            loaded.engine.stay();
            tracing::info!(name = loaded.file.name, "a model stays: memory is free again");
            host.put_back(model.clone(), loaded);
            return Event::Kept { step };
        }
        Some(SecondThought::Hurry(reason)) => {
            print::note(&format!("{}: answers are ended: {reason}", loaded.file.name))
        }
        None => {}
    }
    let before = resident();
    // Pages of weights that the system dropped already, to make room for others, cannot leave the process again.
    let mapped = loaded.engine.memory().weights_mapped;
    let there = platform.mapping(&loaded.file.path).map_or(mapped, |mapping| mapping.resident_bytes);
    let expected = expected.saturating_sub(Bytes(mapped.saturating_sub(there)));
    loaded.engine.end().await;
    let name = loaded.file.name.clone();
    drop(loaded);
    let target = before.saturating_sub(expected.get().saturating_sub(expected.get() / 10));
    let settled = async {
        while resident() > target {
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    };
    let in_time = tokio::time::timeout(SETTLE_MOST, settled).await.is_ok();
    let freed = Bytes(before.saturating_sub(resident()));
    tracing::info!(name, %freed, %expected, in_time, "a model was unloaded");
    Event::Done { step, freed, holds: None }
}

fn translated(throttle: Throttle, n_threads: u32) -> reclaim::Throttle {
    let Throttle { n_batch, max_tokens, n_seq, fewer_threads, gate } = throttle;
    reclaim::Throttle {
        n_batch,
        max_tokens,
        n_seq,
        n_threads: (fewer_threads > 0).then(|| n_threads.saturating_sub(fewer_threads).max(1)),
        admit: match gate {
            Gate::All => reclaim::Admit::All,
            Gate::Interactive => reclaim::Admit::Interactive,
            Gate::Nobody { retry_after_ms } => reclaim::Admit::Nothing { retry_after_ms },
        },
    }
}
