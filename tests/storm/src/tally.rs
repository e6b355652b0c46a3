//! What clients saw, counted the way the host counts.

use std::{collections::BTreeMap, fmt};

/// Whose wire format. The words are those of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
        }
    }
}

/// How urgent. The words are those of the header and of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Interactive,
    Batch,
}

impl Class {
    pub(crate) const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

/// How an answer ended, as far as every dialect tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    /// By itself, at a stop string or with a call: not every dialect tells these apart.
    Whole,
    /// At a bound, or in a loop.
    Cut,
    /// The request was wrong, or the queue full.
    Refused,
    /// The host failed, or had no room.
    Failed,
}

/// Counts of one client or of all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Responses by dialect and status.
    pub(crate) responses: BTreeMap<(Dialect, u16), u64>,
    /// Answers whose end was seen.
    pub(crate) answers: BTreeMap<(Class, Ended), u64>,
    /// Requests whose streams were left in the middle.
    pub(crate) left: BTreeMap<Class, u64>,
    /// Requests that were left before a response was read: the host may have been anywhere with them.
    pub(crate) left_early: BTreeMap<(Dialect, Class), u64>,
    /// Requests that were refused with 503: by the host, which counts no answer, or by an engine, which does.
    pub(crate) unavailable: BTreeMap<Class, u64>,
    /// Tokens of the answers whose ends were seen.
    pub(crate) output_tokens: u64,
    /// Requests without a byte for too long.
    pub(crate) hung: u64,
    /// Those, one by one.
    pub(crate) stuck: Vec<String>,
    /// What no client should see.
    pub(crate) broken: Vec<String>,
}

fn merge<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    from.into_iter().for_each(|(key, n)| *into.entry(key).or_default() += n);
}

impl Tally {
    /// Counts what another one counted too.
    pub(crate) fn add(&mut self, other: Self) {
        merge(&mut self.responses, other.responses);
        merge(&mut self.answers, other.answers);
        merge(&mut self.left, other.left);
        merge(&mut self.left_early, other.left_early);
        merge(&mut self.unavailable, other.unavailable);
        self.output_tokens += other.output_tokens;
        self.hung += other.hung;
        self.stuck.extend(other.stuck);
        self.broken.extend(other.broken);
    }

    pub(crate) fn response(&mut self, dialect: Dialect, status: u16) {
        *self.responses.entry((dialect, status)).or_default() += 1;
    }

    pub(crate) fn answer(&mut self, class: Class, ended: Ended) {
        *self.answers.entry((class, ended)).or_default() += 1;
    }

    /// All requests that were sent.
    pub(crate) fn requests(&self) -> u64 {
        self.responses.values().sum::<u64>() + self.left_early.values().sum::<u64>()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((dialect, status), n) in &self.responses {
            writeln!(f, "responses: {} {status}: {n}", dialect.word())?;
        }
        for ((class, ended), n) in &self.answers {
            writeln!(f, "answers: {} {ended:?}: {n}", class.word())?;
        }
        let (left, early) = (self.left.values().sum::<u64>(), self.left_early.values().sum::<u64>());
        write!(f, "left: {left} while streaming, {early} before an answer; output tokens seen: {}", self.output_tokens)
    }
}
