//! The one error type of the SDK.

use std::time::Duration;

/// Why a call was refused or failed. Every message says what, with the numbers, and what can be done about it.
///
/// All variants but [`Error::Malformed`] come from the host.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest does not ask for it, or the owner of the machine did not grant it.
    #[error("`{capability}` is denied: {reason}. {remedy}")]
    Denied {
        /// The manifest key, such as `capabilities.http`.
        capability: String,
        /// Who or what said no.
        reason: String,
        /// The change or the command that would allow it.
        remedy: String,
    },
    /// The request itself is wrong; sending it again does not help.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
    /// Prompt and answer together do not fit into the context. Nothing was computed.
    #[error(
        "{prompt_tokens} tokens of prompt and {max_tokens} of answer do not fit into a context of {context_tokens}: \
         send less, lower max_tokens, rewind the session, or ask for more `context` in the manifest"
    )]
    ContextOverflow {
        /// Tokens of the history and the new messages, template included.
        prompt_tokens: u32,
        /// Tokens reserved for the answer.
        max_tokens: u32,
        /// What the session has.
        context_tokens: u32,
    },
    /// All places are taken.
    #[error("the host is busy: {waiting} requests are waiting; try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When a place may be free.
        retry_after: Duration,
        /// How many wait already.
        waiting: u32,
    },
    /// The memory of this app, or of the machine, does not allow it.
    #[error("over budget: {needed} bytes needed, {available} available: {reason}")]
    OverBudget {
        /// Bytes that the request needs.
        needed: u64,
        /// Bytes that are free for it.
        available: u64,
        /// Whose limit it is and what frees memory.
        reason: String,
    },
    /// The role resolves to a model that is missing or does not load.
    #[error("the model is not available: {0}")]
    ModelUnavailable(String),
    /// The host took the work back (pressure, deadline, shutdown). What was streamed is valid.
    #[error("interrupted by the host: {0}")]
    Interrupted(String),
    /// A quota of this app is used up: storage, files, output.
    #[error("quota exceeded: {0}")]
    QuotaExceeded(String),
    /// The named file, key or host does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// A fault in the host or the engine, for a bug report.
    #[error("internal fault of the host: {0}")]
    Internal(String),
    /// Something that this version of the SDK has no name for.
    #[error("{name}: {json}")]
    Other {
        /// Its name.
        name: String,
        /// Its details, as JSON.
        json: String,
    },
    /// Data that this app received is not what it expected: input that is no UTF-8, an answer that is not the JSON asked for.
    #[error("malformed data: {0}")]
    Malformed(String),
}

/// What the person who runs the app is told when it fails: the error of [`#[locara::app]`](crate::app) functions.
///
/// Made from any error with `?`, causes included, or from a text with [`Failure::new`].
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with this text. Say what failed, on what, and what to do next.
    #[must_use]
    pub fn new(text: impl std::fmt::Display) -> Self {
        Self(text.to_string())
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self(text)
    }
}

// `Display` and `Debug` are the text alone: it is written for a person, and tests show it with `unwrap`.
// `Failure` is no `Error` itself, or it could not be made from every error.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_whole_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("chapter 3 was skipped")]
        struct Skipped(#[source] Error);
        let overflow = Error::ContextOverflow { prompt_tokens: 3000, max_tokens: 256, context_tokens: 2048 };
        let failure = Failure::from(Skipped(overflow));
        assert_eq!(
            failure.text(),
            "chapter 3 was skipped: 3000 tokens of prompt and 256 of answer do not fit into a context of 2048: send \
             less, lower max_tokens, rewind the session, or ask for more `context` in the manifest"
        );
    }
}
