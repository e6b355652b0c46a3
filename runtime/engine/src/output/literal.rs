//! Calls whose arguments are literals without being JSON: Gemma's braces and Python's calls.

use serde_json::{Map, Number, Value};

use super::{
    body::{RawCall, is_name, is_name_char},
    cursor::{Cursor, Stop},
};

/// Values inside values that are read; a model that nests deeper writes no call.
const MAX_DEPTH: usize = 64;

/// `call:name{key:value}`; a string stands between two `quote`.
pub(super) fn braces_call(quote: &str, cursor: &mut Cursor<'_>) -> Result<RawCall, Stop> {
    cursor.expect("call:")?;
    let name = cursor.take(is_name_char).to_owned();
    cursor.expect("{")?;
    if !is_name(&name) {
        return Err(Stop::Bad);
    }
    let arguments = pairs(cursor, &Braces(quote), MAX_DEPTH)?;
    Ok(RawCall { name, arguments })
}

/// `[name(key=value), …]`, or one call without brackets.
pub(super) fn python_calls(cursor: &mut Cursor<'_>) -> Result<Vec<RawCall>, Stop> {
    if !cursor.eat("[") {
        return python_call(cursor).map(|call| vec![call]);
    }
    let mut calls = Vec::new();
    loop {
        cursor.skip_space();
        if cursor.eat("]") {
            return Ok(calls);
        }
        calls.push(python_call(cursor)?);
        comma_or(cursor, ']')?;
    }
}

fn python_call(cursor: &mut Cursor<'_>) -> Result<RawCall, Stop> {
    let name = cursor.take(is_name_char).to_owned();
    cursor.expect("(")?;
    if !is_name(&name) {
        return Err(Stop::Bad);
    }
    let mut arguments = Map::new();
    loop {
        cursor.skip_space();
        if cursor.eat(")") {
            return Ok(RawCall { name, arguments });
        }
        let key = cursor.take(|c| c.is_alphanumeric() || c == '_').to_owned();
        cursor.skip_space();
        cursor.expect("=")?;
        if key.is_empty() {
            return Err(Stop::Bad);
        }
        let value = value(cursor, &Python, MAX_DEPTH)?;
        arguments.insert(key, value);
        comma_or(cursor, ')')?;
    }
}

/// How a family writes strings and keys.
trait Literals {
    /// A string, if one comes next.
    fn string(&self, cursor: &mut Cursor<'_>) -> Option<Result<String, Stop>>;
    /// What a word that is no number and no constant stands for.
    fn word(&self, word: &str) -> Result<Value, Stop>;
}

struct Braces<'a>(&'a str);

impl Literals for Braces<'_> {
    fn string(&self, cursor: &mut Cursor<'_>) -> Option<Result<String, Stop>> {
        if cursor.eat(self.0) {
            return Some(cursor.until(self.0).map(str::to_owned));
        }
        self.0.starts_with(cursor.rest()).then_some(Err(Stop::Partial))
    }

    fn word(&self, word: &str) -> Result<Value, Stop> {
        Ok(Value::String(word.to_owned()))
    }
}

struct Python;

impl Literals for Python {
    fn string(&self, cursor: &mut Cursor<'_>) -> Option<Result<String, Stop>> {
        let quote = cursor.peek().filter(|c| matches!(c, '"' | '\''))?;
        cursor.advance(1);
        Some(quoted(cursor, quote))
    }

    fn word(&self, _: &str) -> Result<Value, Stop> {
        Err(Stop::Bad)
    }
}

/// The rest of a string of Python whose opening quote has been read.
fn quoted(cursor: &mut Cursor<'_>, quote: char) -> Result<String, Stop> {
    let mut text = String::new();
    loop {
        text.push_str(cursor.take(|c| c != quote && c != '\\'));
        let c = cursor.peek().ok_or(Stop::Partial)?;
        cursor.advance(1);
        if c == quote {
            return Ok(text);
        }
        let escaped = cursor.peek().ok_or(Stop::Partial)?;
        cursor.advance(escaped.len_utf8());
        match escaped {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            'b' => text.push('\u{8}'),
            'f' => text.push('\u{c}'),
            'x' => text.push(code(cursor, 2)?),
            'u' => text.push(unit(cursor)?),
            '\n' => {}
            '\\' | '\'' | '"' | '/' => text.push(escaped),
            other => text.extend(['\\', other]),
        }
    }
}

/// A character of four hexadecimal digits, or of two such escapes where it needs them.
fn unit(cursor: &mut Cursor<'_>) -> Result<char, Stop> {
    let high = digits(cursor, 4)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).ok_or(Stop::Bad);
    }
    cursor.expect("\\u")?;
    let low = digits(cursor, 4)?.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(Stop::Bad)?;
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low).ok_or(Stop::Bad)
}

fn code(cursor: &mut Cursor<'_>, n: usize) -> Result<char, Stop> {
    char::from_u32(digits(cursor, n)?).ok_or(Stop::Bad)
}

fn digits(cursor: &mut Cursor<'_>, n: usize) -> Result<u32, Stop> {
    let hex = cursor.rest().get(..n).ok_or(if cursor.rest().len() < n { Stop::Partial } else { Stop::Bad })?;
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Stop::Bad);
    }
    cursor.advance(n);
    u32::from_str_radix(hex, 16).map_err(|_| Stop::Bad)
}

fn value(cursor: &mut Cursor<'_>, literals: &impl Literals, depth: usize) -> Result<Value, Stop> {
    let depth = depth.checked_sub(1).ok_or(Stop::Bad)?;
    cursor.skip_space();
    if let Some(text) = literals.string(cursor) {
        return text.map(Value::String);
    }
    if cursor.eat("{") {
        return pairs(cursor, literals, depth).map(Value::Object);
    }
    if cursor.eat("[") {
        let mut values = Vec::new();
        loop {
            cursor.skip_space();
            if cursor.eat("]") {
                return Ok(Value::Array(values));
            }
            values.push(value(cursor, literals, depth)?);
            comma_or(cursor, ']')?;
        }
    }
    let word = cursor.take(|c| !matches!(c, ',' | '}' | ']' | ')'));
    if cursor.is_at_end() {
        return Err(Stop::Partial);
    }
    match word.trim() {
        "" => Err(Stop::Bad),
        "true" | "True" => Ok(Value::Bool(true)),
        "false" | "False" => Ok(Value::Bool(false)),
        "null" | "None" => Ok(Value::Null),
        word => match word.parse::<Number>() {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) => literals.word(word),
        },
    }
}

/// The rest of `{key:value}` whose brace has been read.
fn pairs(cursor: &mut Cursor<'_>, literals: &impl Literals, depth: usize) -> Result<Map<String, Value>, Stop> {
    let mut object = Map::new();
    loop {
        cursor.skip_space();
        if cursor.eat("}") {
            return Ok(object);
        }
        let key = match literals.string(cursor) {
            Some(key) => key?,
            None => cursor.take(|c| c != ':' && c != '}' && c != '{').trim().to_owned(),
        };
        cursor.skip_space();
        cursor.expect(":")?;
        if key.is_empty() {
            return Err(Stop::Bad);
        }
        let value = value(cursor, literals, depth)?;
        object.insert(key, value);
        comma_or(cursor, '}')?;
    }
}

/// Skips a comma; `close` may come instead and is left.
fn comma_or(cursor: &mut Cursor<'_>, close: char) -> Result<(), Stop> {
    cursor.skip_space();
    match cursor.peek() {
        None => Err(Stop::Partial),
        Some(',') => {
            cursor.advance(1);
            Ok(())
        }
        Some(c) if c == close => Ok(()),
        Some(_) => Err(Stop::Bad),
    }
}
