//! Small helpers for text that came from outside and for the reason why it was refused.

use std::fmt::Write as _;

/// Why a value was refused: what is wrong, why that matters, what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}. {fix}")]
#[non_exhaustive]
pub struct Invalid {
    /// What is wrong with the value, naming it.
    pub message: String,
    /// Why that is refused; may be empty where the message says it all.
    pub why: String,
    /// What to write instead.
    pub fix: String,
}

impl Invalid {
    pub(crate) fn new(message: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { message: message.into(), why: why.into(), fix: fix.into() }
    }
}

/// Characters of outside text that a message quotes at most.
const QUOTE: usize = 60;

/// Outside text inside a message: in back-quotes, cut after [`QUOTE`] characters, nothing that a terminal would obey.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (n, c) in text.chars().enumerate() {
        if n == QUOTE {
            out.push('…');
            break;
        }
        if is_unprintable(c) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c)); // writing to a String cannot fail
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

/// Whether a character must not reach a terminal or a prompt: controls (escape sequences), line and paragraph separators,
/// direction overrides and invisible characters (a name could otherwise pretend to be another).
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{00ad}'
                | '\u{061c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The candidate that was most likely meant: at most a third of the letters away, and never more than three.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Beyond this the distance costs quadratic time on hostile input and can find nothing.
    if word.len() > 40 {
        return None;
    }
    let fold = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let folded = fold(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `1048576` as `1,048,576`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_nothing_that_a_terminal_obeys() {
        assert_eq!(quoted("a\u{1b}[31m\u{202e}b"), r"`a\u{1b}[31m\u{202e}b`");
        assert_eq!(quoted(&"x".repeat(100)), format!("`{}…`", "x".repeat(60)));
    }

    #[test]
    fn suggests_the_word_that_was_meant_and_nothing_far_fetched() {
        let keys = ["name", "models", "memoryGB", "quotaMB"];
        assert_eq!(nearest("modles", keys), Some("models"));
        assert_eq!(nearest("memory_gb", keys), Some("memoryGB"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"m".repeat(10_000), keys), None);
    }

    #[test]
    fn groups_digits() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(8192), "8,192");
        assert_eq!(grouped(1_048_576), "1,048,576");
    }
}
