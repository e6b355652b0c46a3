//! A piece of one line of a manifest, for reports about files with very long lines.
//!
//! Whoever draws a report writes every line of the source in full. A file of one line would fill the screen for each of
//! its problems, so such a file is shown as pieces of [`AROUND`] bytes to the left and right of the place.

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Lines above this many bytes are not drawn as a whole.
const LONG_LINE: usize = 400;

/// Bytes that are drawn to the left and to the right of a place, and of a long place itself: three times this fits a
/// terminal.
const AROUND: usize = 30;

/// Whether a text has lines that should not be drawn as a whole.
pub(crate) fn needed(text: &str) -> bool {
    text.lines().any(|line| line.len() > LONG_LINE)
}

/// The surroundings of one place. Speaks miette's protocol with the line and column of the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    name: String,
    text: String,
    /// Where `text` begins in the whole text.
    start: usize,
    /// Line and column of that place, from 0; the column in bytes, as miette counts.
    line: usize,
    column: usize,
}

impl Excerpt {
    pub(crate) fn new(name: &str, text: &str, span: &Range<usize>) -> Self {
        let line_start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[span.start..].find('\n').map_or(text.len(), |newline| span.start + newline);
        let start = text.floor_char_boundary(span.start.saturating_sub(AROUND)).max(line_start);
        let shown_end = span.end.min(span.start + AROUND) + AROUND;
        let end = text.ceil_char_boundary(shown_end).min(line_end).max(start);
        Self {
            name: name.to_owned(),
            text: text[start..end].to_owned(),
            start,
            line: text[..line_start].matches('\n').count(),
            column: start - line_start,
        }
    }

    /// A place of the whole text as a place of the excerpt; `None` if it lies outside.
    pub(crate) fn place(&self, span: &Range<usize>) -> Option<Range<usize>> {
        let start = span.start.checked_sub(self.start).filter(|start| *start <= self.text.len())?;
        Some(start..(span.end - self.start).min(self.text.len()))
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let asked = self.text.read_span(span, 0, 0)?;
        // Without neighbours somebody asks where the span is; with them, what to draw, which is all there is.
        let (data, shown, column) = if lines_before == 0 && lines_after == 0 {
            (asked.data(), *asked.span(), self.column + asked.column())
        } else {
            (self.text.as_bytes(), SourceSpan::from(0..self.text.len()), self.column)
        };
        Ok(Box::new(MietteSpanContents::new_named(self.name.clone(), data, shown, self.line, column, 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_on_the_line_and_between_characters() {
        let text = format!("short\n{}X{}\nshort", "ä".repeat(300), "ö".repeat(300));
        let at = text.find('X').unwrap();
        let excerpt = Excerpt::new("x", &text, &(at..at + 1));
        assert!(
            excerpt.text.starts_with('ä') && excerpt.text.ends_with('ö') && excerpt.text.len() < 160,
            "{excerpt:?}"
        );
        let place = excerpt.place(&(at..at + 1)).unwrap();
        assert_eq!(&excerpt.text[place], "X");
        assert_eq!((excerpt.line, excerpt.start), (1, excerpt.column + "short\n".len()));
        assert_eq!(excerpt.place(&(0..5)), None);
    }

    #[test]
    fn knows_when_it_is_needed() {
        assert!(!needed("{\n}\n"));
        assert!(needed(&format!("{{\n{}}}", " ".repeat(500))));
    }
}
