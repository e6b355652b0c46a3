//! Problems of a document, each with its place, and the report of all of them.
//!
//! They implement miette's protocol and nothing of its drawing: the binary and the tests render the same report. What is
//! quoted from outside can neither move a terminal's cursor nor change the direction of writing.

use std::fmt;
use std::ops::Range;

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode};

use crate::document::Document;
use crate::excerpt::{self, Excerpt};
use crate::text::{grouped, is_unprintable};

/// Problems that one report lists at most. A file of commas is not worth a megabyte of advice.
const MAX_PROBLEMS: usize = 50;

/// Problems as they are found: the first [`MAX_PROBLEMS`], and how many more there were.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        self.push_with(|| problem);
    }

    /// For problems that are costly to describe: a hostile file has a hundred thousand of them.
    pub(crate) fn push_with(&mut self, describe: impl FnOnce() -> Problem) {
        if self.kept.len() < MAX_PROBLEMS {
            self.kept.push(describe());
        } else {
            self.omitted += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How many there are, listed or not.
    pub(crate) fn count(&self) -> usize {
        self.kept.len() + self.omitted
    }
}

/// What kind of problem it is: stable, for programs and for searching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The text is not JSON.
    Syntax,
    /// The text is JSON with liberties that JSON has not: comments, trailing commas, single quotes.
    NotStrictJson,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// A byte order mark stands before the text.
    ByteOrderMark,
    /// The file is too large.
    TooLarge,
    /// Objects and arrays are nested too deeply.
    TooDeep,
    /// A key stands twice in one object.
    DuplicateKey,
    /// A required key is missing.
    MissingKey,
    /// No such key exists.
    UnknownKey,
    /// The key sets what is the host's.
    HostOwnedKey,
    /// The value has another type.
    WrongType,
    /// The number is outside its range.
    OutOfRange,
    /// The text is empty, too long, or holds invisible characters.
    BadText,
    /// The value does not have the form that its key asks for.
    BadValue,
    /// The format of the manifest is not one that this host reads.
    UnsupportedVersion,
    /// The interface is not one that this host speaks.
    UnsupportedWit,
    /// A KV cache type below the host's default.
    KvBelowDefault,
    /// Two entries ask for the same thing.
    DuplicateEntry,
    /// Two values contradict each other.
    Contradiction,
    /// A list has too many or too few entries.
    BadLength,
}

impl Code {
    /// The stable spelling, such as `locara::manifest::host_owned_key`. In reports about a registry or a configuration
    /// that word stands in place of `manifest`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "locara::manifest::syntax",
            Self::NotStrictJson => "locara::manifest::not_strict_json",
            Self::NotUtf8 => "locara::manifest::not_utf8",
            Self::ByteOrderMark => "locara::manifest::byte_order_mark",
            Self::TooLarge => "locara::manifest::too_large",
            Self::TooDeep => "locara::manifest::too_deep",
            Self::DuplicateKey => "locara::manifest::duplicate_key",
            Self::MissingKey => "locara::manifest::missing_key",
            Self::UnknownKey => "locara::manifest::unknown_key",
            Self::HostOwnedKey => "locara::manifest::host_owned_key",
            Self::WrongType => "locara::manifest::wrong_type",
            Self::OutOfRange => "locara::manifest::out_of_range",
            Self::BadText => "locara::manifest::bad_text",
            Self::BadValue => "locara::manifest::bad_value",
            Self::UnsupportedVersion => "locara::manifest::unsupported_version",
            Self::UnsupportedWit => "locara::manifest::unsupported_wit",
            Self::KvBelowDefault => "locara::manifest::kv_below_default",
            Self::DuplicateEntry => "locara::manifest::duplicate_entry",
            Self::Contradiction => "locara::manifest::contradiction",
            Self::BadLength => "locara::manifest::bad_length",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One problem: what is wrong, where, why it matters, and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What kind of problem.
    pub code: Code,
    /// What is wrong, naming key and value.
    pub message: String,
    /// Bytes of the document that are wrong.
    pub span: Range<usize>,
    /// What stands under the caret.
    pub label: String,
    /// A second place that belongs to the problem, with its label: the first of two equal keys.
    pub other: Option<(Range<usize>, String)>,
    /// Why it is wrong; empty where the message says it all.
    pub why: String,
    /// What to do about it.
    pub fix: String,
    /// What it is a problem of.
    document: Document,
    /// What is drawn instead of the whole source, if that has very long lines.
    excerpt: Option<Excerpt>,
}

impl Problem {
    pub(crate) fn new(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            span,
            label: "here".into(),
            other: None,
            why: String::new(),
            fix: String::new(),
            document: Document::Manifest,
            excerpt: None,
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    pub(crate) fn other(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.other = Some((span, label.into()));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code.as_str().replacen("manifest", self.document.code(), 1)))
    }

    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        if self.why.is_empty() {
            return Some(Box::new(&self.fix));
        }
        Some(Box::new(format!("{}\nwhy: {}", self.fix, self.why)))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = |span: &Range<usize>| match &self.excerpt {
            Some(excerpt) => excerpt.place(span),
            None => Some(span.clone()),
        };
        let own = place(&self.span).map(|span| LabeledSpan::new_primary_with_span(Some(self.label.clone()), span));
        let other = self.other.iter().filter_map(move |(span, label)| {
            place(span).map(|span| LabeledSpan::new_with_span(Some(label.clone()), span))
        });
        Some(Box::new(own.into_iter().chain(other)))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.excerpt.as_ref().map(|excerpt| excerpt as &dyn SourceCode)
    }
}

/// Everything that is wrong with one document, in the order of its text. Never empty.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    source: NamedSource<String>,
    problems: Vec<Problem>,
    omitted: usize,
    document: Document,
}

impl Diagnosis {
    /// `bytes` is what was read; in the report every byte stands where it stood, or a `?` in its place.
    pub(crate) fn new(document: Document, source_name: &str, bytes: &[u8], problems: Problems) -> Self {
        let Problems { kept: mut problems, omitted } = problems;
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        let name: String = source_name.chars().map(|c| if is_unprintable(c) { '?' } else { c }).collect();
        let text = printable(bytes);
        for problem in &mut problems {
            problem.document = document;
        }
        if excerpt::needed(&text) {
            for problem in &mut problems {
                problem.excerpt = Some(Excerpt::new(&name, &text, &problem.span));
            }
        }
        Self { source: NamedSource::new(name, text).with_language(document.language()), problems, omitted, document }
    }

    /// The problems, in the order of the text.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Problems beyond the first 50 found, which are not listed.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The name of the document, as it was given.
    #[must_use]
    pub fn source_name(&self) -> &str {
        self.source.name()
    }

    /// Line and column of a byte of the document, both counted from 1; columns are characters.
    #[must_use]
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let text = self.source.inner();
        let before = &text[..text.floor_char_boundary(byte)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.problems.len() + self.omitted;
        let plural = if total == 1 { "problem" } else { "problems" };
        write!(f, "{} has {} {plural}", self.source.name(), grouped(total as u64))?;
        if self.omitted > 0 {
            write!(f, "; {MAX_PROBLEMS} are listed")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnosis {}

impl Diagnostic for Diagnosis {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("locara::{}", self.document.code())))
    }

    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

/// The text as it can be shown: as many bytes as came in, so that every span still fits, with `?` for each byte that is
/// not UTF-8 and each byte of a character that a terminal would obey or not show.
fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            let end_of_line = c == '\n' || c == '\r' && chars.peek() == Some(&'\n');
            if is_unprintable(c) && !end_of_line && c != '\t' {
                out.extend(std::iter::repeat_n('?', c.len_utf8()));
            } else {
                out.push(c);
            }
        }
        out.extend(std::iter::repeat_n('?', chunk.invalid().len()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_as_long_as_what_came_and_harmless() {
        for bytes in [&b"{\x1b[2J}\n"[..], b"\xff\xfe{", "\u{202e}\u{9b}ä\t".as_bytes(), b"a\xe2\x80", b"a\rb"] {
            let shown = printable(bytes);
            assert_eq!(shown.len(), bytes.len());
            assert!(!shown.chars().any(|c| is_unprintable(c) && c != '\n' && c != '\t'), "{shown:?}");
        }
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let diagnosis = Diagnosis::new(Document::Manifest, "x", "{\n  \"ä\": 1\n}".as_bytes(), Problems::default());
        assert_eq!(diagnosis.position(0), (1, 1));
        assert_eq!(diagnosis.position(9), (2, 7));
        assert_eq!(diagnosis.position(usize::MAX), (3, 2));
    }
}
