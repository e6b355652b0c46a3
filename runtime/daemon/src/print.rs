//! Words and figures for people. Colour is stripped where the terminal or `NO_COLOR` does not want it.

use std::{
    io::{IsTerminal, Write},
    sync::OnceLock,
};

use locara_policy::Bytes;
use miette::{GraphicalReportHandler, GraphicalTheme};

use crate::failure::Failure;

/// Whether standard error is a terminal whose owner does not mind colour.
pub(crate) fn in_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()
}

/// Prints a failure to standard error.
pub(crate) fn failure(failure: &Failure) {
    let theme = if in_colour() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
    if handler.render_report(&mut text, failure).is_err() {
        text = format!("{failure}\n");
    }
    anstream::eprint!("{text}");
}

/// Something that the person should know, to standard error.
pub(crate) fn note(text: &str) {
    use owo_colors::OwoColorize;
    anstream::eprintln!("{} {text}", "note:".yellow());
}

/// A size in the unit that people compare: GB and MB of 10⁹ and 10⁶ bytes, kB below.
pub(crate) fn size(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

/// The first write to standard output that failed.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// `println!` that does not panic: see [`lost`].
macro_rules! say {
    ($($text:tt)*) => { $crate::print::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// A line on standard output. After a write that failed nothing more is written.
pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    if LOST.get().is_none()
        && let Err(error) = writeln!(anstream::stdout(), "{text}")
    {
        let _ = LOST.set(error);
    }
}

/// Why output was lost, if it was. A reader who went away, as `head` does, had what it wanted: that is no loss.
pub(crate) fn lost() -> Option<&'static std::io::Error> {
    LOST.get().filter(|error| error.kind() != std::io::ErrorKind::BrokenPipe)
}

/// One line of a two-column list.
pub(crate) fn row(name: &str, value: impl std::fmt::Display) {
    say!("{}  {value}", dim(&format!("{name:<18}")));
}

/// A heading.
pub(crate) fn heading(text: &str) {
    use owo_colors::OwoColorize;
    say!("{}", text.bold());
}

/// Text that may be overlooked.
pub(crate) fn dim(text: &str) -> String {
    use owo_colors::OwoColorize;
    text.dimmed().to_string()
}

/// A table, without the padding that it puts at both ends of its lines.
pub(crate) fn table(table: &comfy_table::Table) {
    for line in table.lines() {
        say!("{}", line.strip_prefix(' ').unwrap_or(&line).trim_end());
    }
}

/// JSON on standard output.
pub(crate) fn json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say!("{text}"),
        Err(error) => tracing::error!(%error, "a result does not serialise"),
    }
}
