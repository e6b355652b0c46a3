//! Calls whose arguments are elements with bare text inside, which gets the type that the schema gives it.

use serde_json::{Map, Value};

use super::{
    body::{RawCall, is_name, is_name_char},
    cursor::{Cursor, Stop},
    format::Xml,
    schema::Allowed,
};
use crate::api::Tool;

/// Reads one call.
pub(super) fn call(form: &Xml, cursor: &mut Cursor<'_>, tools: &[Tool]) -> Result<RawCall, Stop> {
    let [open, name_end, close] = form.function;
    cursor.expect(open)?;
    let name = if name_end.is_empty() { cursor.take(is_name_char) } else { cursor.until(name_end)? };
    let name = name.trim().trim_matches('"');
    if !is_name(name) {
        return Err(if cursor.is_at_end() { Stop::Partial } else { Stop::Bad });
    }
    let schema = tools.iter().find(|tool| tool.name == name).map(|tool| &tool.parameters);
    let mut arguments = Map::new();
    loop {
        cursor.skip_space();
        if close.is_empty() && cursor.is_at_end() || !close.is_empty() && cursor.eat(close) {
            return Ok(RawCall { name: name.to_owned(), arguments });
        }
        let (key, value) = parameter(form, cursor)?;
        arguments.insert(key.to_owned(), typed(value, schema, key));
    }
}

fn parameter<'a>(form: &Xml, cursor: &mut Cursor<'a>) -> Result<(&'a str, &'a str), Stop> {
    let [open, key_end, value_open, close] = form.parameter;
    expect_one(cursor, open, form.function[2])?;
    let key = cursor.until(key_end)?.trim().trim_matches('"');
    // A key that runs on into markup has lost its own end.
    if key.is_empty() || key.contains(['<', '>', '"', '\n']) {
        return Err(Stop::Bad);
    }
    if !value_open.is_empty() {
        cursor.skip_space();
        cursor.expect(value_open)?;
    }
    // A value may hold its own closing tag: it ends where the tag is followed by what must come next.
    let rest = cursor.rest();
    let mut from = 0;
    loop {
        let end = from + rest[from..].find(close).ok_or(Stop::Partial)?;
        let mut after = Cursor::new(&rest[end + close.len()..]);
        if is_over(form, &mut after) {
            cursor.advance(end + close.len());
            let value = &rest[..end];
            let value = if form.lines { without_lines(value) } else { value };
            return Ok((key, value));
        }
        from = end + close.len();
    }
}

/// Whether what follows a value continues or ends the call.
fn is_over(form: &Xml, after: &mut Cursor<'_>) -> bool {
    let [function_open, _, function_close] = form.function;
    after.skip_space();
    if after.rest().starts_with(form.parameter[0]) {
        return true;
    }
    if !function_close.is_empty() {
        if !after.eat(function_close) {
            return false;
        }
        after.skip_space();
    }
    after.is_at_end() || !function_open.is_empty() && after.rest().starts_with(function_open)
}

/// Skips `literal`; stopping is partial as long as `literal` or `other` may still come.
fn expect_one(cursor: &mut Cursor<'_>, literal: &str, other: &str) -> Result<(), Stop> {
    match cursor.expect(literal) {
        Err(Stop::Bad) if !other.is_empty() && other.starts_with(cursor.rest()) => Err(Stop::Partial),
        outcome => outcome,
    }
}

/// The text without the line ends that only the markup asks for.
fn without_lines(text: &str) -> &str {
    let text = text.strip_prefix("\r\n").or_else(|| text.strip_prefix('\n')).unwrap_or(text);
    text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text)
}

/// The value that bare text stands for: what the schema of its parameter allows, and a string in doubt. Text that fits
/// nothing stays a string too: whoever checks the arguments sees what the model said.
fn typed(text: &str, schema: Option<&Value>, key: &str) -> Value {
    let property = |root: &Value| Some(Allowed::by(root.get("properties")?.get(key)?, root));
    let allowed = schema.and_then(property).unwrap_or_default();
    let as_text = || Value::String(text.to_owned());
    let spelled = match text.trim() {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        other => other,
    };
    match serde_json::from_str::<Value>(spelled) {
        Ok(value) if allowed.any() => {
            // `"x"` in quotes is a string with quotes in it where strings are bare.
            if !value.is_string() && allowed.takes(&value) { value } else { as_text() }
        }
        Ok(value) if !value.is_string() => value,
        _ => as_text(),
    }
}
