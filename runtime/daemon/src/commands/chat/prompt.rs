//! The line editor: several lines, and a history that outlives the program.

use std::path::PathBuf;

use rustyline::{
    Config, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::input::goes_on;
use crate::{exit::Exit, failure::Failure};

/// Entries that are kept.
const HISTORY_MOST: usize = 1_000;

/// What came from the terminal.
pub(super) enum Typed {
    /// A line, or several that belong together.
    Text(String),
    /// Ctrl-C: what was typed is dropped.
    Interrupted,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// Holds lines together. It completes, hints and highlights nothing.
struct Several;

impl Completer for Several {
    type Candidate = String;
}
impl Hinter for Several {
    type Hint = String;
}
impl Highlighter for Several {}
impl Helper for Several {}

impl Validator for Several {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let open = goes_on(context.input());
        Ok(if open { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

/// A prompt at the terminal.
pub(super) struct Prompt {
    editor: Editor<Several, FileHistory>,
    history: PathBuf,
}

impl Prompt {
    /// A prompt whose history is in this file, for the owner's eyes only.
    pub(super) fn new(history: PathBuf) -> Result<Self, Failure> {
        let config = Config::builder().max_history_size(HISTORY_MOST).map(rustyline::config::Builder::build);
        let mut editor = config.and_then(Editor::with_config).map_err(|error| terminal(&error))?;
        editor.set_helper(Some(Several));
        if let Some(folder) = history.parent() {
            fs_err::create_dir_all(folder).map_err(|error| crate::failure::io("keep a history", error))?;
        }
        // No history yet, or one that cannot be read: it begins anew.
        let _ = editor.load_history(&history);
        Ok(Self { editor, history })
    }

    pub(super) fn read(&mut self) -> Result<Typed, Failure> {
        match self.editor.readline(">>> ") {
            Ok(text) => {
                if !text.trim().is_empty() && self.editor.add_history_entry(&text).unwrap_or(false) {
                    // A conversation is worth more than its history.
                    if let Err(error) = self.editor.append_history(&self.history) {
                        tracing::warn!(%error, "the history is not kept");
                    }
                }
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Interrupted),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(terminal(&error)),
        }
    }
}

fn terminal(error: &ReadlineError) -> Failure {
    Failure::new(Exit::Failure, format!("the terminal cannot be read: {error}"))
        .help("pipe the question in instead: echo QUESTION | locara chat")
}
