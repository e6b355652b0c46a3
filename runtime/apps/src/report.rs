//! What a run did: figures, refusals and the last log lines.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One run, from start to end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Id of the app.
    pub app: String,
    /// From the start of the instance to the end of the run.
    pub wall: Duration,
    /// From the start of the run to an instance that can be called; zero if it came to none.
    pub start: Duration,
    /// Part of `wall` in which it was suspended: it computed nothing.
    pub suspended: Duration,
    /// CPU time of the guest and of the host calls it made, engine excluded.
    pub cpu: Duration,
    /// Most bytes that its linear memories and tables held at once.
    pub peak_guest_bytes: u64,
    /// Calls from the guest to the host.
    pub host_calls: u64,
    /// What it asked of models.
    pub tokens: TokenCounts,
    /// Bytes of output that the host took.
    pub output_bytes: u64,
    /// What it tried and may not do; each kind once.
    pub denied: Vec<Denied>,
    /// Its last log lines.
    pub logs: Vec<LogLine>,
    /// Log lines that were over its limits.
    pub dropped_log_lines: u64,
}

/// Work of models for one run. Answers that were cancelled count as far as they were streamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Answers that were asked for and admitted.
    pub answers: u64,
    /// Tokens of prompts, cached ones included.
    pub prompt: u64,
    /// Prompt tokens that were not computed again.
    pub cached: u64,
    /// Tokens made.
    pub output: u64,
    /// From the first request to its first token, ms.
    pub first_token_ms: f64,
    /// From first token to end, all answers together, ms.
    pub decode_ms: f64,
}

/// One thing that the app may not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The manifest key, e.g. `capabilities.http`.
    pub capability: String,
    /// What was refused and why.
    pub reason: String,
    /// The change or the command that would allow it.
    pub remedy: String,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// For a person who watches.
    Info,
    /// For the author.
    Debug,
}

/// One log line of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Since the start of the run.
    pub at: Duration,
    /// How important it is.
    pub level: LogLevel,
    /// The text, bounded, without control characters.
    pub message: String,
}

/// Text of a guest, made fit for terminals, logs and errors: at most `max` bytes, no control characters except line
/// breaks and tabs, and a mark where it was cut.
pub(crate) fn presentable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if out.len() + c.len_utf8() > max {
            out.push('…');
            break;
        }
        out.push(if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_cannot_drive_a_terminal_or_fill_a_log() {
        assert_eq!(presentable("a\u{1b}[31mb\r\nc", 100), "a\u{fffd}[31mb\u{fffd}\nc");
        assert_eq!(presentable("äöü", 4), "äö…");
        assert_eq!(presentable("", 0), "");
    }
}
