//! The log of a governor: one JSON line for each event, so that what it decided can be decided again.

use serde::{Deserialize, Serialize};

use super::{Action, Config, Event, Governor};

/// One event, as it was handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, ms.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the log is not an event: {source}; it may come from another version of Locara")]
pub struct ReplayError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

/// The line of a log for an event at `at_ms`, without a newline.
#[must_use]
pub fn line(at_ms: u64, event: &Event) -> String {
    // Enums of plain data with string keys: they always serialise.
    serde_json::to_string(&Line { at_ms, event: event.clone() }).unwrap_or_default()
}

/// What a governor decides on a recorded log, line by line.
///
/// # Errors
/// [`ReplayError`] for the first line that is not an event. Empty lines are passed over.
pub fn replay(config: Config, log: &str) -> Result<Vec<Vec<Action>>, ReplayError> {
    let mut governor = Governor::new(config);
    let mut actions = Vec::new();
    for (index, text) in log.lines().enumerate().filter(|(_, text)| !text.is_empty()) {
        let line: Line = serde_json::from_str(text).map_err(|source| ReplayError { line: index + 1, source })?;
        actions.push(governor.handle(line.at_ms, line.event));
    }
    Ok(actions)
}

/// The first line of a log: the configuration that its events were decided with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Of the governor that wrote the log.
    pub config: Config,
}

/// The header of a log, without a newline.
#[must_use]
pub fn header(config: &Config) -> String {
    // Plain numbers with string keys: they always serialise.
    serde_json::to_string(&Header { config: config.clone() }).unwrap_or_default()
}

/// What a governor decides on a log that begins with its header.
///
/// # Errors
/// [`ReplayError`] for the first line that is not what it should be.
pub fn replay_log(log: &str) -> Result<Vec<Vec<Action>>, ReplayError> {
    let (first, rest) = log.split_once('\n').unwrap_or((log, ""));
    let Header { config } = serde_json::from_str(first).map_err(|source| ReplayError { line: 1, source })?;
    replay(config, rest).map_err(|error| ReplayError { line: error.line + 1, ..error })
}
