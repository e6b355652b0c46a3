//! `/health`: do the engines make progress? `/ready`: can a request be served, and if not, which check fails?
//!
//! A process that answers HTTP while its engine hangs is not healthy. Each engine is asked a question that its actor
//! answers between two steps; a question that stays open too long is a hang, and so are steps that stand still while
//! somebody waits for a token.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use locara_engine::{EngineStats, Reply};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Api, host::Served};

/// An engine that is between two steps answers within this time; one that computes need not be waited for.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

/// What is remembered between two questions after health.
#[derive(Default)]
pub(crate) struct Health(Mutex<HashMap<String, Pulse>>);

/// One engine, as it was last seen.
#[derive(Default)]
struct Pulse {
    /// A question that the engine has not answered yet, and since when.
    open: Option<(Instant, Reply<EngineStats>)>,
    /// The last answer, and since when its progress has been what it is.
    last: Option<(EngineStats, Instant)>,
}

/// The state of one engine.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EngineHealth {
    /// The physical model.
    model: String,
    /// Batches computed since the load.
    steps: u64,
    /// Requests in the batch.
    running: u32,
    /// Seconds without progress, if there should be some.
    stalled_s: Option<u64>,
}

/// The answer of `/health`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthReport {
    /// `ok` or `stalled`.
    status: &'static str,
    /// What is loaded.
    engines: Vec<EngineHealth>,
}

/// Whether the engines make progress.
#[utoipa::path(get, path = "/health", tag = "host", responses(
    (status = 200, body = HealthReport), (status = 503, description = "An engine hangs", body = HealthReport)))]
pub(crate) async fn health(State(api): State<Api>) -> Response {
    let loaded = api.host().loaded();
    let stall_after = api.config().stall_after;
    let engines = api.health().look(&loaded, api.meters().somebody_waits(), stall_after).await;
    let stalled = engines.iter().any(|engine| engine.stalled_s.is_some());
    let status = if stalled { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(HealthReport { status: if stalled { "stalled" } else { "ok" }, engines })).into_response()
}

impl Health {
    async fn look(&self, loaded: &[Served], somebody_waits: bool, stall_after: Duration) -> Vec<EngineHealth> {
        let looks = loaded.iter().map(|served| async {
            let key = key_of(served);
            let open = self.with(|pulses| pulses.get_mut(&key).and_then(|pulse| pulse.open.take()));
            let (asked, mut reply) = open.unwrap_or_else(|| (Instant::now(), served.engine.stats()));
            let answer = tokio::time::timeout(ANSWER_WITHIN, &mut reply).await;
            self.with(|pulses| {
                let pulse = pulses.entry(key).or_default();
                let now = Instant::now();
                let stalled = match answer {
                    Ok(Ok(Ok(stats))) => pulse.note(stats, somebody_waits, now),
                    // Stopped or gone: that is no hang, and `/ready` tells.
                    Ok(_) => None,
                    Err(_) => {
                        pulse.open = Some((asked, reply));
                        Some(now.saturating_duration_since(asked))
                    }
                };
                let (steps, running) = pulse.last.as_ref().map_or((0, 0), |(stats, _)| (stats.steps, stats.running));
                EngineHealth {
                    model: served.model.clone(),
                    steps,
                    running,
                    stalled_s: stalled.filter(|time| *time >= stall_after).map(|time| time.as_secs()),
                }
            })
        });
        let engines = futures::future::join_all(looks).await;
        self.with(|pulses| pulses.retain(|key, _| loaded.iter().any(|served| key_of(served) == *key)));
        engines
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Pulse>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An engine that was loaded anew counts from the start.
fn key_of(served: &Served) -> String {
    format!("{}@{:p}", served.model, std::sync::Arc::as_ptr(&served.engine))
}

impl Pulse {
    /// How long there has been no progress although somebody waits for it.
    fn note(&mut self, stats: EngineStats, somebody_waits: bool, now: Instant) -> Option<Duration> {
        let since = match &self.last {
            // Requests that end without a step, because their readers went away, are progress too.
            Some((last, since)) if last.running > 0 && (last.steps, last.finished) == (stats.steps, stats.finished) => {
                *since
            }
            _ => now,
        };
        // Readers that do not read stop their own sequences: steps that stand still mean nothing then.
        let should_run = stats.running > 0 && somebody_waits;
        self.last = Some((stats, since));
        should_run.then(|| now.saturating_duration_since(since))
    }
}

/// One failing check.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failing {
    /// Its stable name.
    check: String,
    /// Why it fails, and the next step.
    reason: String,
}

/// The answer of `/ready`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    ready: bool,
    /// Names of all checks.
    checks: Vec<String>,
    failing: Vec<Failing>,
}

/// Whether requests make sense now; names what fails.
#[utoipa::path(get, path = "/ready", tag = "host", responses(
    (status = 200, body = Readiness), (status = 503, description = "A check fails", body = Readiness)))]
pub(crate) async fn ready(State(api): State<Api>) -> Response {
    let checks = api.host().checks().await;
    let names = checks.iter().map(|check| check.name.clone()).collect();
    let failing: Vec<Failing> = checks
        .into_iter()
        .filter_map(|check| check.failure.map(|reason| Failing { check: check.name, reason }))
        .collect();
    let ready = failing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, checks: names, failing })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_stand_still_count_only_while_somebody_waits() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let stats = |steps, running, finished| EngineStats { steps, running, finished, ..EngineStats::default() };
        let mut pulse = Pulse::default();
        assert_eq!(pulse.note(stats(5, 1, 0), true, start), Some(Duration::ZERO));
        assert_eq!(pulse.note(stats(5, 1, 0), true, start + minute), Some(minute));
        assert_eq!(pulse.note(stats(5, 1, 0), false, start + 2 * minute), None, "its reader does not read");
        assert_eq!(pulse.note(stats(5, 1, 1), true, start + 3 * minute), Some(Duration::ZERO), "another request");
        assert_eq!(pulse.note(stats(6, 1, 1), true, start + 4 * minute), Some(Duration::ZERO), "a step");
        assert_eq!(pulse.note(stats(6, 0, 2), true, start + 5 * minute), None, "idle");
        assert_eq!(pulse.note(stats(6, 1, 2), true, start + 6 * minute), Some(Duration::ZERO), "it has just begun");
    }
}
