//! The card at the end of a run: what it cost, and what the app was allowed to do.

use locara_apps::RunReport;
use locara_engine::Engine;
use locara_platform::Platform;
use locara_policy::Kind;
use serde::Serialize;

use crate::{host::Host, installed::InstalledApp, print};

/// Swap of the whole machine at one moment, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swap {
    used: u64,
    written: u64,
}

impl Swap {
    /// Now; zero where the OS does not say.
    pub(crate) fn now() -> Self {
        locara_platform::host().memory().map_or(Self { used: 0, written: 0 }, |memory| Self {
            used: memory.swap_used_bytes,
            written: memory.swapped_out_bytes,
        })
    }
}

/// Bytes of one kind.
#[derive(Debug, Serialize)]
struct Row {
    kind: &'static str,
    /// What the planner said; none for what is not planned.
    predicted: Option<u64>,
    /// What was allocated.
    measured: u64,
}

/// The figures of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Card {
    app: String,
    model: Option<String>,
    answers: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    first_token_ms: f64,
    tokens_per_second: Option<f64>,
    wall_ms: f64,
    load_ms: Option<f64>,
    memory: Vec<Row>,
    /// Of this process: pages of files, and anonymous memory.
    resident_file: u64,
    resident_anonymous: u64,
    /// Of the weights' mapping: resident and anonymous (copied on write; must be 0).
    weights_resident: u64,
    weights_anonymous: u64,
    swap_used_change: i64,
    swap_written: u64,
    allowed: Vec<String>,
    denied: Vec<String>,
}

impl Card {
    /// Measures what is measured at the end.
    pub(crate) fn new(app: &InstalledApp, host: &Host, report: &RunReport, before: Swap) -> Self {
        let platform = locara_platform::host();
        let after = Swap::now();
        let process = platform.process().ok();
        let loaded = host.loaded().into_iter().next();
        let mapping = loaded.as_ref().and_then(|loaded| platform.mapping(&loaded.file.path).ok());
        let mut memory: Vec<Row> = Vec::new();
        if let Some(loaded) = &loaded {
            let measured = loaded.engine.memory();
            for (kind, measured) in [
                (Kind::WeightsMapped, measured.weights_mapped),
                (Kind::Kv, measured.kv),
                (Kind::Compute, measured.compute),
                (Kind::Output, measured.output),
            ] {
                memory.push(Row { kind: kind.name(), predicted: Some(loaded.plan.of_kind(kind).get()), measured });
            }
        }
        memory.push(Row { kind: Kind::GuestMemory.name(), predicted: None, measured: report.peak_guest_bytes });
        let tokens = report.tokens;
        let decoded = tokens.output.saturating_sub(tokens.answers);
        Self {
            app: app.manifest.title(),
            model: loaded.as_ref().map(|loaded| loaded.engine.model().label()),
            answers: tokens.answers,
            prompt_tokens: tokens.prompt,
            cached_tokens: tokens.cached,
            output_tokens: tokens.output,
            first_token_ms: tokens.first_token_ms,
            tokens_per_second: (tokens.decode_ms > 0.0).then(|| decoded as f64 * 1e3 / tokens.decode_ms),
            wall_ms: report.wall.as_secs_f64() * 1e3,
            load_ms: loaded.as_ref().map(|loaded| loaded.load_ms),
            memory,
            resident_file: process.as_ref().map_or(0, |process| process.rss_file_bytes),
            resident_anonymous: process.as_ref().map_or(0, |process| process.rss_anon_bytes),
            weights_resident: mapping.as_ref().map_or(0, |mapping| mapping.resident_bytes),
            weights_anonymous: mapping.as_ref().map_or(0, |mapping| mapping.anonymous_bytes),
            swap_used_change: i64::try_from(after.used).unwrap_or(i64::MAX)
                - i64::try_from(before.used).unwrap_or(i64::MAX),
            swap_written: after.written.saturating_sub(before.written),
            allowed: app.grants.within(&app.manifest).list().iter().map(ToString::to_string).collect(),
            denied: report.denied.iter().map(|denied| format!("{}: {}", denied.capability, denied.reason)).collect(),
        }
    }

    /// To standard error, so that standard output is the app's alone.
    pub(crate) fn print(&self) {
        let line = |name: &str, value: String| anstream::eprintln!("{}  {value}", print::dim(&format!("{name:<10}")));
        anstream::eprintln!("{}", print::dim(&format!("── {} ──", self.app)));
        if let Some(model) = &self.model {
            line("model", model.clone());
        }
        line(
            "tokens",
            format!(
                "{} in {} answers, from {} of prompt ({} cached)",
                self.output_tokens, self.answers, self.prompt_tokens, self.cached_tokens
            ),
        );
        let rate = self.tokens_per_second.map(|rate| format!(", {rate:.1} tok/s while decoding")).unwrap_or_default();
        let load = self.load_ms.map(|ms| format!(", model loaded in {ms:.0} ms")).unwrap_or_default();
        line(
            "time",
            format!("first token after {:.0} ms{rate}, {:.1} s in all{load}", self.first_token_ms, self.wall_ms / 1e3),
        );
        for (index, row) in self.memory.iter().enumerate() {
            let predicted = match row.predicted {
                Some(predicted) if predicted == row.measured => "as predicted".to_owned(),
                Some(predicted) => format!("predicted {}", print::size(predicted)),
                None => "peak".to_owned(),
            };
            let name = if index == 0 { "memory" } else { "" };
            line(name, format!("{:<16} {:>9}  {predicted}", row.kind, print::size(row.measured)));
        }
        line(
            "resident",
            format!(
                "{} of files, {} anonymous; weights {} of which anonymous {}",
                print::size(self.resident_file),
                print::size(self.resident_anonymous),
                print::size(self.weights_resident),
                print::size(self.weights_anonymous)
            ),
        );
        line(
            "swap",
            format!("{:+} bytes used, {} bytes written out meanwhile", self.swap_used_change, self.swap_written),
        );
        line("allowed", self.allowed.join(", "));
        for denied in &self.denied {
            line("refused", denied.clone());
        }
    }
}
