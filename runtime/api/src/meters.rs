//! Counters and histograms of the HTTP layer, in Prometheus' text format.
//!
//! Labels are models, classes, dialects and outcomes: all of them few. No client, prompt or path of a request becomes a
//! label.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use locara_engine::{Class, EngineStats};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use serde_json::{Value, json};

use crate::{
    answering::{Ending, Reason},
    fault::Dialect,
};

/// Answers whose times are kept for percentiles, per class.
const RECENT: usize = 512;
/// Seconds; from a token on a fast GPU to a long prompt on a slow processor.
const TIMES_S: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0];

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    dialect: &'static str,
    status: u16,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AnswerLabels {
    model: String,
    class: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

/// How requests for answers end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stop,
    Length,
    ToolCalls,
    Repetition,
    /// The request was wrong.
    Refused,
    /// We failed, or had no room.
    Failed,
    /// The client went away.
    Abandoned,
    /// The model had gone; the request was put again.
    Retried,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Repetition => "repetition",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
            Self::Retried => "retried",
        }
    }
}

const fn word(class: Class) -> &'static str {
    match class {
        Class::Interactive => "interactive",
        Class::Background => "batch",
    }
}

/// Everything that is counted. A clone counts into the same figures.
#[derive(Clone)]
pub(crate) struct Meters(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    answers: Family<AnswerLabels, Counter>,
    prompt_tokens: Family<ModelLabel, Counter>,
    cached_tokens: Family<ModelLabel, Counter>,
    output_tokens: Family<ModelLabel, Counter>,
    ttft: Family<ClassLabel, Histogram, fn() -> Histogram>,
    wait: Family<ClassLabel, Histogram, fn() -> Histogram>,
    gap: Family<ClassLabel, Histogram, fn() -> Histogram>,
    engines: EngineGauges,
    classes: [ClassFigures; 2],
    /// Answers that a handler waits for at this moment.
    waiting_readers: AtomicI64,
}

/// What engines say of themselves, read when the metrics are.
#[derive(Default)]
struct EngineGauges {
    running: Family<ModelLabel, Gauge>,
    waiting: Family<ModelLabel, Gauge>,
    kv_cells_used: Family<ModelLabel, Gauge>,
    kv_cells: Family<ModelLabel, Gauge>,
    steps: Family<ModelLabel, Gauge>,
    prefilled: Family<ModelLabel, Gauge>,
    decoded: Family<ModelLabel, Gauge>,
    tool_call_failures: Family<ModelLabel, Gauge>,
}

#[derive(Default)]
struct ClassFigures {
    in_flight: AtomicI64,
    finished: AtomicU64,
    /// Wait and time to the first token of the last answers, ms.
    recent: Mutex<VecDeque<(f64, f64)>>,
}

fn times() -> Histogram {
    Histogram::new(TIMES_S)
}

impl Meters {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("locara");
        let requests = Family::default();
        registry.register(
            "http_requests",
            "Requests, by status; 499 for clients that left before there was one",
            requests.clone(),
        );
        let answers = Family::default();
        registry.register("answers", "Answers, by how they ended", answers.clone());
        let [prompt_tokens, cached_tokens, output_tokens]: [Family<ModelLabel, Counter>; 3] = Default::default();
        registry.register("prompt_tokens", "Tokens of prompts, cached ones included", prompt_tokens.clone());
        registry.register("cached_tokens", "Tokens of prompts that were not computed again", cached_tokens.clone());
        registry.register("output_tokens", "Tokens made", output_tokens.clone());
        let make: fn() -> Histogram = times;
        let [ttft, wait, gap] = [(); 3].map(|()| Family::new_with_constructor(make));
        let unit = || Unit::Seconds;
        registry.register_with_unit("time_to_first_token", "From request to first token", unit(), Family::clone(&ttft));
        registry.register_with_unit("wait", "From request to admission into the batch", unit(), Family::clone(&wait));
        registry.register_with_unit("token_gap", "Mean time between tokens of an answer", unit(), Family::clone(&gap));
        let engines = EngineGauges::default();
        registry.register("engine_running", "Requests in the batch", engines.running.clone());
        registry.register("engine_waiting", "Requests in the queue", engines.waiting.clone());
        registry.register("engine_kv_cells_used", "KV cells in use", engines.kv_cells_used.clone());
        registry.register("engine_kv_cells", "KV cells in all", engines.kv_cells.clone());
        registry.register("engine_steps", "Batches computed since the load", engines.steps.clone());
        registry.register("engine_prefilled_tokens", "Tokens prefilled since the load", engines.prefilled.clone());
        registry.register("engine_decoded_tokens", "Tokens made since the load", engines.decoded.clone());
        let failures = engines.tool_call_failures.clone();
        registry.register(
            "engine_tool_call_failures",
            "What looked like a tool call and was none, since the load",
            failures,
        );
        Self(Arc::new(Inner {
            registry,
            requests,
            answers,
            prompt_tokens,
            cached_tokens,
            output_tokens,
            ttft,
            wait,
            gap,
            engines,
            classes: Default::default(),
            waiting_readers: AtomicI64::new(0),
        }))
    }

    pub(crate) fn request(&self, dialect: Dialect, status: u16) {
        let dialect = match dialect {
            Dialect::OpenAi => "openai",
            Dialect::Anthropic => "anthropic",
            Dialect::Ollama => "ollama",
        };
        self.0.requests.get_or_create(&RequestLabels { dialect, status }).inc();
    }

    /// Counts one request for answers until the guard is dropped.
    pub(crate) fn track(&self, model: &str, class: Class) -> Tracked {
        self.class(class).in_flight.fetch_add(1, Ordering::Relaxed);
        Tracked { meters: self.clone(), model: model.to_owned(), class, outcome: None }
    }

    fn class(&self, class: Class) -> &ClassFigures {
        &self.0.classes[usize::from(class == Class::Background)]
    }

    /// Whether somebody waits for a token now.
    pub(crate) fn somebody_waits(&self) -> bool {
        self.0.waiting_readers.load(Ordering::Relaxed) > 0
    }

    /// The text for `/metrics`.
    pub(crate) fn text(&self, engines: &[(String, EngineStats)]) -> Result<String, std::fmt::Error> {
        let gauges = &self.0.engines;
        for family in [
            &gauges.running,
            &gauges.waiting,
            &gauges.kv_cells_used,
            &gauges.kv_cells,
            &gauges.steps,
            &gauges.prefilled,
            &gauges.decoded,
            &gauges.tool_call_failures,
        ] {
            family.clear();
        }
        for (model, stats) in engines {
            let label = ModelLabel { model: model.clone() };
            let set = |family: &Family<ModelLabel, Gauge>, value: u64| {
                family.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&gauges.running, stats.running.into());
            set(&gauges.waiting, stats.waiting.into());
            set(&gauges.kv_cells_used, stats.kv_cells_used.into());
            set(&gauges.kv_cells, stats.kv_cells.into());
            set(&gauges.steps, stats.steps);
            set(&gauges.prefilled, stats.prefilled);
            set(&gauges.decoded, stats.decoded);
            set(&gauges.tool_call_failures, stats.tool_call_failures);
        }
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// The figures of a class for `/v1/batch/stats`.
    pub(crate) fn class_stats(&self, class: Class) -> Value {
        let figures = self.class(class);
        let recent = figures.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |pick: fn(&(f64, f64)) -> f64| {
            let mut times: Vec<f64> = recent.iter().map(pick).collect();
            times.sort_by(f64::total_cmp);
            json!({"p50": quantile(&times, 50), "p95": quantile(&times, 95), "p99": quantile(&times, 99)})
        };
        json!({
            "class": word(class),
            "in_flight": figures.in_flight.load(Ordering::Relaxed),
            "finished": figures.finished.load(Ordering::Relaxed),
            "samples": recent.len(),
            "wait_ms": of(|times| times.0),
            "time_to_first_token_ms": of(|times| times.1),
        })
    }
}

/// The value that `percent` of the sorted values do not exceed.
fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

/// One request for answers, from submit to the end of its response.
pub(crate) struct Tracked {
    meters: Meters,
    model: String,
    class: Class,
    outcome: Option<Outcome>,
}

impl Tracked {
    /// Says how it ended, where no answer says it.
    pub(crate) fn outcome(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        self.count(outcome);
    }

    fn count(&self, outcome: Outcome) {
        let labels = AnswerLabels { model: self.model.clone(), class: word(self.class), outcome: outcome.word() };
        self.meters.0.answers.get_or_create(&labels).inc();
    }

    /// Counts an answer.
    pub(crate) fn ended(&mut self, ending: &Ending) {
        self.outcome(match ending.reason {
            Reason::End | Reason::StopSequence(_) => Outcome::Stop,
            Reason::MaxTokens => Outcome::Length,
            Reason::ToolCalls => Outcome::ToolCalls,
            Reason::Repetition => Outcome::Repetition,
        });
        let inner = &self.meters.0;
        let model = ModelLabel { model: self.model.clone() };
        let usage = &ending.usage;
        inner.prompt_tokens.get_or_create(&model).inc_by(usage.prompt_tokens.into());
        inner.cached_tokens.get_or_create(&model).inc_by(usage.cached_tokens.into());
        inner.output_tokens.get_or_create(&model).inc_by(usage.output_tokens.into());
        let class = ClassLabel { class: word(self.class) };
        inner.ttft.get_or_create(&class).observe(usage.ttft_ms / 1e3);
        inner.wait.get_or_create(&class).observe(usage.wait_ms / 1e3);
        if usage.output_tokens > 1 {
            let gaps = f64::from(usage.output_tokens - 1);
            inner.gap.get_or_create(&class).observe((usage.total_ms - usage.ttft_ms).max(0.0) / gaps / 1e3);
        }
        let figures = self.meters.class(self.class);
        figures.finished.fetch_add(1, Ordering::Relaxed);
        let mut recent = figures.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back((usage.wait_ms, usage.ttft_ms));
    }

    /// Counts a reader that waits for a piece, until the guard is dropped.
    pub(crate) fn waiting(&self) -> WaitingReader {
        self.meters.0.waiting_readers.fetch_add(1, Ordering::Relaxed);
        WaitingReader(self.meters.clone())
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.meters.class(self.class).in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.outcome.is_none() {
            self.count(Outcome::Abandoned);
        }
    }
}

/// See [`Tracked::waiting`].
pub(crate) struct WaitingReader(Meters);

impl Drop for WaitingReader {
    fn drop(&mut self) {
        self.0.0.waiting_readers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_values() {
        assert_eq!(quantile(&[], 50), None);
        assert_eq!(quantile(&[1.0], 99), Some(1.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&hundred, 50), quantile(&hundred, 95)), (Some(50.0), Some(95.0)));
    }

    #[test]
    fn an_answer_that_nobody_reads_to_its_end_is_abandoned() {
        let meters = Meters::new();
        drop(meters.track("tiny", Class::Background));
        let text = meters.text(&[("tiny".into(), EngineStats { steps: 7, ..EngineStats::default() })]).unwrap();
        assert!(text.contains(r#"locara_answers_total{model="tiny",class="batch",outcome="abandoned"} 1"#), "{text}");
        assert!(text.contains(r#"locara_engine_steps{model="tiny"} 7"#), "{text}");
        assert_eq!(meters.class_stats(Class::Background)["in_flight"], 0);
        assert!(!meters.text(&[]).unwrap().contains("engine_steps{"), "what is unloaded is gone");
    }
}
