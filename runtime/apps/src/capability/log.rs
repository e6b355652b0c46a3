//! `log`: lines of the app, to `tracing`, to the caller and into the report of the run. Bounded in size, rate and number.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use wasmtime::Result;
use wasmtime::component::HasData;

use super::Access;
use crate::bindings::log as wit;
use crate::report::{LogLevel, LogLine, presentable};

/// Longest line, bytes; the rest is cut.
const MAX_LINE: usize = 2048;
/// Lines of one second; the rest is dropped and counted.
const LINES_PER_SECOND: u32 = 200;
/// Last lines that are kept for the report.
const KEPT: usize = 100;

/// Lines that the caller may leave unread before they are dropped for it (they stay in the report).
pub(crate) const QUEUE: usize = 64;

/// What the app has logged.
pub(crate) struct LogState {
    started: Instant,
    window: Duration,
    in_window: u32,
    kept: VecDeque<LogLine>,
    dropped: u64,
    caller: mpsc::Sender<LogLine>,
}

/// Whose lines they are.
pub(crate) struct LogPolicy {
    pub(crate) app: std::sync::Arc<str>,
}

impl LogState {
    pub(crate) fn new(started: Instant, caller: mpsc::Sender<LogLine>) -> Self {
        Self { started, window: Duration::ZERO, in_window: 0, kept: VecDeque::new(), dropped: 0, caller }
    }

    /// The last lines and how many were dropped.
    pub(crate) fn take(&mut self) -> (Vec<LogLine>, u64) {
        (std::mem::take(&mut self.kept).into(), self.dropped)
    }

    /// `None` when the line is over the rate.
    fn accept(&mut self, at: Duration, level: LogLevel, message: &str) -> Option<LogLine> {
        if at >= self.window + Duration::from_secs(1) {
            self.window = at;
            self.in_window = 0;
        }
        if self.in_window >= LINES_PER_SECOND {
            self.dropped += 1;
            return None;
        }
        self.in_window += 1;
        let line = LogLine { at, level, message: presentable(message, MAX_LINE) };
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line.clone());
        Some(line)
    }
}

/// `log` of one host call.
pub(crate) type LogAccess<'a> = Access<'a, LogState, LogPolicy>;

/// Names [`LogAccess`] to wasmtime.
pub(crate) struct HasLog;

impl HasData for HasLog {
    type Data<'a> = LogAccess<'a>;
}

impl wit::Host for LogAccess<'_> {
    fn write(&mut self, level: wit::Level, message: String) -> Result<()> {
        self.charge()?;
        let level = match level {
            wit::Level::Error => LogLevel::Error,
            wit::Level::Warn => LogLevel::Warn,
            wit::Level::Info => LogLevel::Info,
            wit::Level::Debug => LogLevel::Debug,
        };
        let at = self.state.started.elapsed();
        if let Some(line) = self.state.accept(at, level, &message) {
            let app = &*self.policy.app;
            match level {
                LogLevel::Error => tracing::error!(target: "app", app, "{}", line.message),
                LogLevel::Warn => tracing::warn!(target: "app", app, "{}", line.message),
                LogLevel::Info => tracing::info!(target: "app", app, "{}", line.message),
                LogLevel::Debug => tracing::debug!(target: "app", app, "{}", line.message),
            }
            // A caller that does not read its lines finds the last ones in the report.
            let _ = self.state.caller.try_send(line);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate_and_counted() {
        let (caller, _lines) = mpsc::channel(1);
        let mut log = LogState::new(Instant::now(), caller);
        let mut accepted = 0;
        for i in 0..1000 {
            accepted += u32::from(log.accept(Duration::from_micros(i), LogLevel::Info, "x").is_some());
        }
        assert_eq!(accepted, LINES_PER_SECOND);
        assert!(log.accept(Duration::from_secs(2), LogLevel::Info, "later").is_some());
        let (kept, dropped) = log.take();
        assert_eq!((kept.len(), dropped), (KEPT, 800));
        assert_eq!(kept.last().map(|line| &*line.message), Some("later"));
    }

    #[test]
    fn a_long_line_is_cut() {
        let (caller, _lines) = mpsc::channel(1);
        let mut log = LogState::new(Instant::now(), caller);
        let line = log.accept(Duration::ZERO, LogLevel::Info, &"é".repeat(MAX_LINE)).expect("accepted");
        assert_eq!(line.message.len(), MAX_LINE + '…'.len_utf8());
    }
}
