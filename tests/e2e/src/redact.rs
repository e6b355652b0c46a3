//! Facts of one machine, one build or one moment, and the names that stand for them in snapshots.

use std::path::Path;

use regex::{NoExpand, Regex};

/// What is replaced by what, in order.
#[derive(Debug, Clone)]
pub struct Redactions(Vec<(Regex, &'static str)>);

impl Redactions {
    /// For output of commands that ran below `root`.
    pub(crate) fn new(root: &Path) -> Self {
        // The folder for temporary files may be a link: commands that resolve paths print where it leads.
        let resolved = fs_err::canonicalize(root).unwrap();
        let path = |path: &Path, below: &str| format!("{}{below}", regex::escape(&path.display().to_string()));
        let rules = [
            (path(&resolved, "/state"), "[STATE]"),
            (path(root, "/state"), "[STATE]"),
            (path(&resolved, "/home"), "[HOME]"),
            (path(root, "/home"), "[HOME]"),
            (path(&resolved, "/work"), "[WORK]"),
            (path(root, "/work"), "[WORK]"),
            (r"\b[0-9a-f]{64}\b".to_owned(), "[DIGEST]"),
            (r"\b[0-9a-f]{12}\b".to_owned(), "[DIGEST]"),
            // Which llama.cpp with which processor features.
            (r"llama\.cpp \S.*".to_owned(), "[ENGINE]"),
            // Ports that the system gives out; those that people choose are lower.
            (r"127\.0\.0\.1:(3[2-9]\d{3}|[4-6]\d{4})\b".to_owned(), "[ADDRESS]"),
            (r"\bprocess \d+\b".to_owned(), "process [PID]"),
            (r"\b\d+(\.\d+)? tok/s".to_owned(), "[RATE]"),
            (r"\b\d+(\.\d+)? (ms|s)\b".to_owned(), "[TIME]"),
        ];
        Self(rules.into_iter().map(|(rule, name)| (Regex::new(&rule).unwrap(), name)).collect())
    }

    /// The text with names in place of facts.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (rule, name)| rule.replace_all(&text, NoExpand(name)).into_owned())
    }
}
