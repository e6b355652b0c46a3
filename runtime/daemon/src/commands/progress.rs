//! How far something long has come, as a bar on standard error. Where that is no terminal, nothing is drawn.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use locara_models::{Progress, Stage};

/// Between two drawings where nothing moves.
const TICK: Duration = Duration::from_millis(120);

/// A bar. It goes when it is dropped, so that what is said next stands on a clean line.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar for bytes; `quiet` draws nothing.
    pub(super) fn new(what: &str, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // The template is a constant; were it wrong, the plain bar would do.
        if let Ok(style) = ProgressStyle::with_template("{prefix}  {bar:30}  {percent:>3} %  {msg}") {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏░"));
        }
        bar.set_prefix(what.to_owned());
        // There at once: what comes first may be a hub that takes its time.
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Shows how far it is.
    pub(super) fn show(&self, progress: Progress) {
        self.0.set_length(progress.total.max(1));
        self.0.set_position(progress.done);
        self.0.set_message(message(progress));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A sign that something is waited for, with the seconds so far, until it is ended.
pub(super) struct Waiting(ProgressBar);

impl Waiting {
    /// Begins at once; nothing is drawn where nobody looks.
    pub(super) fn new(what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Takes it away. Again is nothing.
    pub(super) fn end(&self) {
        if !self.0.is_finished() {
            self.0.finish_and_clear();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

/// What stands behind the bar.
fn message(progress: Progress) -> String {
    let size = crate::print::size;
    let so_far = format!("{} of {}", size(progress.done), size(progress.total));
    match progress.stage {
        Stage::Waiting => "waiting for another locara that downloads the same".to_owned(),
        Stage::Verifying => format!("{so_far}  checking"),
        Stage::Downloading if progress.bytes_per_second == 0 => so_far,
        Stage::Downloading => {
            let rate = progress.bytes_per_second;
            let left = progress.total.saturating_sub(progress.done).div_ceil(rate);
            format!("{so_far}  {}/s  {} left", size(rate), duration(left))
        }
    }
}

/// A number of seconds as people say it.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_says_how_far_how_fast_and_how_long() {
        let mut progress =
            Progress { stage: Stage::Downloading, done: 1_000_000_000, total: 4_000_000_000, bytes_per_second: 0 };
        assert_eq!(message(progress), "1.0 GB of 4.0 GB");
        progress.bytes_per_second = 10_000_000;
        assert_eq!(message(progress), "1.0 GB of 4.0 GB  10.0 MB/s  5 min left");
        progress.done = 5_000_000_000; // a server that sends too much
        assert!(message(progress).ends_with("  0 s left"), "{}", message(progress));
    }

    #[test]
    fn times_are_in_the_unit_that_people_use() {
        assert_eq!(
            [0, 119, 120, 7_199, 7_260, 172_800].map(duration),
            ["0 s", "119 s", "2 min", "119 min", "2 h 1 min", "2 days"]
        );
    }
}
