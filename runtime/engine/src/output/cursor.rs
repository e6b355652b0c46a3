//! A place in a text that is being read, and the two ways in which reading can stop.

use serde_json::Value;

/// Why reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The text ended too early: more of it could make it right.
    Partial,
    /// No continuation makes it right.
    Bad,
}

/// A place in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Skips what `skips` says.
    pub(super) fn skip(&mut self, skips: impl Fn(char) -> bool) {
        self.at = self.text.len() - self.rest().trim_start_matches(skips).len();
    }

    pub(super) fn skip_space(&mut self) {
        self.skip(char::is_whitespace);
    }

    /// Skips `literal` if it comes next.
    pub(super) fn eat(&mut self, literal: &str) -> bool {
        let found = self.rest().starts_with(literal);
        if found {
            self.at += literal.len();
        }
        found
    }

    /// Skips `literal`, which must come next.
    pub(super) fn expect(&mut self, literal: &str) -> Result<(), Stop> {
        if self.eat(literal) {
            Ok(())
        } else if literal.starts_with(self.rest()) {
            Err(Stop::Partial)
        } else {
            Err(Stop::Bad)
        }
    }

    /// The text up to `literal`, which is skipped.
    pub(super) fn until(&mut self, literal: &str) -> Result<&'a str, Stop> {
        let found = self.rest().find(literal).ok_or(Stop::Partial)?;
        let text = &self.rest()[..found];
        self.at += found + literal.len();
        Ok(text)
    }

    /// The longest run of characters that `takes` says.
    pub(super) fn take(&mut self, takes: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        self.skip(takes);
        &rest[..rest.len() - self.rest().len()]
    }

    /// `n` bytes, which end at a character's border.
    pub(super) fn advance(&mut self, n: usize) {
        self.at += n;
    }

    /// A JSON value.
    pub(super) fn json(&mut self) -> Result<Value, Stop> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(error)) if !error.is_eof() => Err(Stop::Bad),
            Some(Err(_)) | None => Err(Stop::Partial),
        }
    }
}
