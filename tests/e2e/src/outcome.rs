//! How a command ended.

use std::{fmt, os::unix::process::ExitStatusExt as _, process::Output};

use serde_json::Value;

use crate::Redactions;

/// Exit code and output of a command.
///
/// As text it is what a snapshot holds, redacted. The fields are as the command left them.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    redactions: Redactions,
}

impl Outcome {
    /// # Panics
    /// The output is not UTF-8: no command prints anything else.
    pub(crate) fn new(output: Output, redactions: &Redactions) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            redactions: redactions.clone(),
        }
    }

    /// # Panics
    /// It ended in another way.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// The message to a person has these words, wherever its lines are broken.
    ///
    /// # Panics
    /// It has not.
    #[track_caller]
    pub fn assert_says(&self, words: &str) -> &Self {
        assert!(self.message().contains(words), "it does not say {words:?}:\n{self}");
        self
    }

    /// Standard error in one line: without the frame that reports are drawn in, and without the breaks that depend on
    /// the lengths of paths.
    #[must_use]
    pub fn message(&self) -> String {
        let words = self.stderr.split_whitespace().filter(|word| !matches!(*word, "│" | "×" | "╰─▶" | "├─▶"));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// It is none, or something follows it.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}):\n{self}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => writeln!(f, "exit code: {code}")?,
            (None, signal) => writeln!(f, "ended by signal {}", signal.unwrap_or_default())?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let text = self.redactions.apply(text);
            // White space at the ends of lines does not survive editors, and nobody sees it.
            let lines = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
            writeln!(f, "----- {name} -----")?;
            if !lines.is_empty() {
                writeln!(f, "{lines}")?;
            }
        }
        Ok(())
    }
}
