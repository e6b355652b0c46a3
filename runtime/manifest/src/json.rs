//! From bytes to a JSON tree with places. Reads more than JSON (comments, trailing commas, single quotes…), so that one
//! liberty does not hide the other problems of a file, and reports each liberty it met.

use std::ops::Range;

use jsonc_parser::ast::Value;
use jsonc_parser::errors::{ParseError, ParseErrorKind};
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, Scanner, ScannerOptions, parse_to_ast};

use crate::diagnosis::Problems;
use crate::document::Document;
use crate::text::{grouped, quoted};
use crate::{Code, Problem};

/// Levels of objects and lists that are read. A manifest has four.
const MAX_DEPTH: usize = 16;

const BOM: &str = "\u{feff}";

/// The text of a document and where it begins in the file.
pub(crate) struct Text<'a> {
    /// What it is meant to be.
    pub(crate) document: Document,
    /// The text, without a byte order mark.
    pub(crate) text: &'a str,
    /// Bytes before it.
    base: usize,
}

impl<'a> Text<'a> {
    /// Checks size and encoding. `None` is "reported, and nothing else can be read".
    pub(crate) fn new(document: Document, bytes: &'a [u8], problems: &mut Problems) -> Option<Self> {
        let noun = document.noun();
        if bytes.len() > document.max_bytes() {
            let message = format!(
                "the {noun} is {} bytes long; at most {} are read",
                grouped(bytes.len() as u64),
                grouped(document.max_bytes() as u64)
            );
            problems.push(
                Problem::new(Code::TooLarge, 0..0, message)
                    .label("not read")
                    .why(document.why_max_bytes())
                    .fix(document.fix_max_bytes()),
            );
            return None;
        }
        let not_utf8 = |error: std::str::Utf8Error| {
            let start = error.valid_up_to();
            let end = error.error_len().map_or(bytes.len(), |len| start + len);
            let shown: Vec<String> = bytes[start..end].iter().map(|byte| format!("0x{byte:02x}")).collect();
            Problem::new(
                Code::NotUtf8,
                start..end,
                format!("the {noun} is not UTF-8: {} at byte {start}", shown.join(" ")),
            )
            .label("not a character")
            .why(if document.is_toml() { "TOML is UTF-8 and nothing else" } else { "JSON is UTF-8 and nothing else" })
            .fix("save the file as UTF-8")
        };
        let text = std::str::from_utf8(bytes).map_err(|error| problems.push(not_utf8(error))).ok()?;
        let Some(rest) = text.strip_prefix(BOM) else { return Some(Self { document, text, base: 0 }) };
        if document.is_toml() {
            return Some(Self { document, text: rest, base: BOM.len() }); // TOML lets it pass
        }
        problems.push(
            Problem::new(Code::ByteOrderMark, 0..BOM.len(), format!("the {noun} begins with a byte order mark"))
                .label("invisible mark")
                .why("JSON has none (RFC 8259 §8.1), and many readers stop at it")
                .fix("save the file as UTF-8 without a mark (BOM)"),
        );
        Some(Self { document, text: rest, base: BOM.len() })
    }

    /// A place in this text as a place in the file: inside it, not in the middle of a character, and not beyond the end
    /// of the line on which it begins (a report about a list of a thousand lines points at its beginning).
    pub(crate) fn span(&self, start: usize, end: usize) -> Range<usize> {
        let start = self.text.floor_char_boundary(start);
        let end = self.text.ceil_char_boundary(end.max(start));
        let end = self.text[start..end].find(['\n', '\r']).map_or(end, |line| start + line);
        start + self.base..end + self.base
    }

    /// The tree, if the text has one; otherwise, and for every liberty, problems.
    pub(crate) fn tree(&self, problems: &mut Problems) -> Option<Value<'a>> {
        if let Some(problem) = self.scan() {
            problems.push(problem);
            return None;
        }
        let collect = CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
        let options = ParseOptions { allow_extended_string_escapes: false, ..ParseOptions::default() };
        match parse_to_ast(self.text, &collect, &options) {
            Ok(parsed) => {
                self.liberties(parsed.tokens.as_deref().unwrap_or_default(), problems);
                if parsed.value.is_none() {
                    let message = format!("the {} is empty", self.document.noun());
                    let empty = Problem::new(Code::Syntax, self.span(0, self.text.len()), message)
                        .label("nothing here")
                        .fix(self.document.fix_empty());
                    problems.push(empty);
                }
                parsed.value
            }
            Err(error) => {
                problems.push(self.syntax(&error));
                None
            }
        }
    }

    /// What must be seen before the text is read: too many levels (the reader recurses on the stack and allows hundreds,
    /// more than the stack of a worker thread holds), and numbers that the reader would take for two.
    fn scan(&self) -> Option<Problem> {
        let options = ScannerOptions { allow_extended_string_escapes: false, ..ScannerOptions::default() };
        let mut scanner = Scanner::new(self.text, &options);
        let mut depth = 0_usize;
        let mut number: Option<Range<usize>> = None;
        // A text that cannot be scanned to its end stops the reader at the same place, so it gets no deeper either.
        while let Ok(Some(token)) = scanner.scan() {
            let (start, end) = (scanner.token_start(), scanner.token_end());
            let before = number.take();
            match token {
                Token::OpenBrace | Token::OpenBracket => depth += 1,
                Token::CloseBrace | Token::CloseBracket => depth = depth.saturating_sub(1),
                Token::Number(_) => match before.filter(|before| before.end == start) {
                    Some(before) => {
                        let problem =
                            Problem::new(Code::Syntax, self.span(before.start, end), "a number begins with a zero")
                                .label("a leading zero")
                                .why("some readers take it for an octal number, so JSON does not have it")
                                .fix("write the number without the leading zero");
                        return Some(problem);
                    }
                    None => number = Some(start..end),
                },
                _ => {}
            }
            if depth > MAX_DEPTH {
                let problem =
                    Problem::new(Code::TooDeep, self.span(start, end), "objects and lists are nested too deeply")
                        .label(format!("level {depth}"))
                        .why(format!(
                            "a {} is four levels deep; the host reads strangers' files with care",
                            self.document.noun()
                        ))
                        .fix(format!("remove the nesting; at most {MAX_DEPTH} levels are read"));
                return Some(problem);
            }
        }
        None
    }

    /// What the second, strict parser still refuses in a text in which nothing was found. Such a text would be a manifest
    /// here and rubbish for every other reader: exotic white space, for one.
    pub(crate) fn strictly(&self) -> Option<Problem> {
        let error = serde_json::from_str::<serde::de::IgnoredAny>(self.text).err()?;
        let line_start: usize =
            self.text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let at = line_start + error.column().saturating_sub(1);
        Some(
            Problem::new(Code::Syntax, self.span(at, at + 1), "this is not JSON")
                .label(error.to_string().split(" at line").next().unwrap_or_default())
                .why("some character here looks like white space or a number and is not, for JSON")
                .fix("delete the character and write it anew"),
        )
    }

    fn not_strict(&self, range: (usize, usize), message: &str, label: &str, fix: &str) -> Problem {
        Problem::new(Code::NotStrictJson, self.span(range.0, range.1), message)
            .label(label)
            .why("other programs read this file as well, and JSON does not allow it")
            .fix(fix)
    }

    /// Every liberty that the reader took and JSON does not.
    fn liberties(&self, tokens: &[TokenAndRange<'_>], problems: &mut Problems) {
        let mut before: Option<&TokenAndRange<'_>> = None;
        for token in tokens {
            let range = (token.range.start, token.range.end);
            let raw = &self.text[range.0..range.1];
            match token.token {
                Token::CommentLine(_) | Token::CommentBlock(_) => {
                    problems.push(self.not_strict(
                        range,
                        "a comment",
                        "JSON has no comments",
                        "remove it; `description` is for people",
                    ));
                    continue;
                }
                Token::CloseBrace | Token::CloseBracket => {
                    if let Some(comma) = before.filter(|before| before.token == Token::Comma) {
                        let place = (comma.range.start, comma.range.end);
                        problems.push(self.not_strict(
                            place,
                            "a comma after the last entry",
                            "nothing follows",
                            "remove the comma",
                        ));
                    }
                }
                Token::Colon => {
                    if let Some(key) = before.filter(|before| !matches!(before.token, Token::String(_))) {
                        let text = &self.text[key.range.start..key.range.end];
                        let message = format!("the key {} is not in quotes", quoted(text));
                        let fix = format!("write `\"{}\"`", quoted(text).trim_matches('`'));
                        problems.push(self.not_strict((key.range.start, key.range.end), &message, "no quotes", &fix));
                    }
                }
                Token::String(_) if raw.starts_with('\'') => {
                    problems.push(self.not_strict(
                        range,
                        "a string in single quotes",
                        "single quotes",
                        "write it in double quotes",
                    ));
                }
                Token::String(_) if raw.bytes().any(|b| b < 0x20) => {
                    let message = "a line break, tab or other control character stands inside a string";
                    problems.push(self.not_strict(
                        range,
                        message,
                        "a control character",
                        "close the string, or write `\\n`, `\\t` or `\\u00…`",
                    ));
                }
                Token::Number(_) if !is_strict_number(raw) => {
                    let message = format!("{} is not a number of JSON", quoted(raw));
                    problems.push(self.not_strict(
                        range,
                        &message,
                        "not a JSON number",
                        "write a plain number like `4` or `0.5`",
                    ));
                }
                _ => {}
            }
            if let Some(before) = before.filter(|before| ends_value(&before.token) && starts_value(&token.token)) {
                let place = (before.range.end, before.range.end);
                problems.push(self.not_strict(
                    place,
                    "a comma is missing",
                    "after this",
                    "write a comma between the two entries",
                ));
            }
            before = Some(token);
        }
    }

    /// A text that cannot be read at all.
    fn syntax(&self, error: &ParseError) -> Problem {
        use ParseErrorKind as Kind;
        let (start, end) = (error.range().start, error.range().end);
        if let Some((from, to)) = self.open_string(start) {
            return Problem::new(Code::Syntax, self.span(from, to), "a string is not closed on its line")
                .label("begins here")
                .fix("write the closing `\"`; a line break inside a string is `\\n`");
        }
        let (message, label, fix): (String, &str, &str) = match error.kind() {
            Kind::UnterminatedObject => ("an object is not closed".into(), "no `}` follows", "write the closing `}`"),
            Kind::UnterminatedArray => ("a list is not closed".into(), "no `]` follows", "write the closing `]`"),
            Kind::UnterminatedCommentBlock => {
                ("a comment is not closed".into(), "begins here", "remove it; JSON has no comments")
            }
            Kind::ExpectedColonAfterObjectKey => {
                ("a colon is missing after a key".into(), "no colon before this", "write `\"key\": value`")
            }
            Kind::ExpectedObjectValue => {
                ("a key has no value".into(), "the text ends here", "write the value after the colon")
            }
            Kind::MultipleRootJsonValues => (
                format!("text follows after the end of the {}", self.document.noun()),
                "nothing may follow",
                "remove it, or the closing brace before it",
            ),
            Kind::UnexpectedCloseBrace
            | Kind::UnexpectedCloseBracket
            | Kind::UnexpectedComma
            | Kind::UnexpectedColon => (
                "a value is missing".into(),
                "a value belongs before this",
                "write the value, or remove what asks for it",
            ),
            Kind::UnexpectedWord | Kind::UnexpectedToken => (
                format!("{} is not a value", quoted(&self.text[self.local(start, end)])),
                "no value",
                "write `true`, `false`, a number, or text in double quotes",
            ),
            Kind::String(reason) => (
                format!("a string cannot be read: {}", lower_first(&reason.to_string())),
                "here",
                "write a backslash as `\\\\`, a quote as `\\\"`, any character as `\\u` and four digits",
            ),
            other => (
                format!("this is not JSON: {}", lower_first(&other.to_string())),
                "here",
                "write JSON: keys and text in double quotes, commas between entries",
            ),
        };
        // The whole object from its first brace says less than the brace itself.
        let end =
            if matches!(error.kind(), Kind::UnterminatedObject | Kind::UnterminatedArray) { start + 1 } else { end };
        Problem::new(Code::Syntax, self.span(start, end), message).label(label).fix(fix)
    }

    /// A place inside `self.text` with ends between characters.
    fn local(&self, start: usize, end: usize) -> Range<usize> {
        let span = self.span(start, end);
        span.start - self.base..span.end - self.base
    }

    /// The first string, at or before `limit`, that runs into the end of its line. One missing quote makes the reader
    /// stumble much later, so a syntax error is blamed on this first.
    fn open_string(&self, limit: usize) -> Option<(usize, usize)> {
        let mut open: Option<usize> = None;
        let mut escaped = false;
        for (at, byte) in self.text.bytes().enumerate() {
            match (byte, open) {
                (b'\n', Some(start)) => return Some((start, at)),
                (b'"', Some(_)) if !escaped => open = None,
                (b'"', None) if at > limit => return None,
                (b'"', None) => open = Some(at),
                _ => {}
            }
            escaped = open.is_some() && byte == b'\\' && !escaped;
        }
        open.map(|start| (start, self.text.len()))
    }
}

fn ends_value(token: &Token<'_>) -> bool {
    matches!(
        token,
        Token::String(_)
            | Token::Number(_)
            | Token::Boolean(_)
            | Token::Null
            | Token::Word(_)
            | Token::CloseBrace
            | Token::CloseBracket
    )
}

fn starts_value(token: &Token<'_>) -> bool {
    matches!(
        token,
        Token::String(_)
            | Token::Number(_)
            | Token::Boolean(_)
            | Token::Null
            | Token::Word(_)
            | Token::OpenBrace
            | Token::OpenBracket
    )
}

/// The grammar of RFC 8259 §6, of which the reader accepts a superset. Leading zeros never reach this: it splits there.
pub(crate) fn is_strict_number(raw: &str) -> bool {
    let unsigned = raw.strip_prefix('-').unwrap_or(raw);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    digits(whole)
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_json() {
        for good in ["0", "-0.5", "1e9", "12.25E-3"] {
            assert!(is_strict_number(good), "{good}");
        }
        for bad in ["+1", ".5", "5.", "0x10", "NaN", "-Infinity", "1e", "", "-"] {
            assert!(!is_strict_number(bad), "{bad}");
        }
    }
}
