//! Reads the calls inside a block.

use serde_json::{Map, Value};

use super::{
    cursor::{Cursor, Stop},
    format::{Body, FUNCTION_XML, Named},
    literal, xml,
};
use crate::api::Tool;

/// A call as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RawCall {
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
}

/// What was read of a body.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Calls that are whole.
    pub(super) calls: Vec<RawCall>,
    /// Bytes that they take.
    pub(super) used: usize,
    /// Why reading ended before the end of the body, if it did.
    pub(super) stopped: Option<Stop>,
}

impl Parsed {
    /// Whether the body is nothing but calls.
    pub(super) fn is_whole(&self) -> bool {
        self.stopped.is_none() && !self.calls.is_empty()
    }
}

/// Reads as many calls as there are.
pub(super) fn parse(body: &Body, text: &str, tools: &[Tool]) -> Parsed {
    let mut cursor = Cursor::new(text);
    let mut parsed = Parsed { calls: Vec::new(), used: 0, stopped: None };
    loop {
        cursor.skip(|c| c.is_whitespace() || c == ',' || c == ';');
        if cursor.is_at_end() {
            return parsed;
        }
        match item(body, &mut cursor, tools) {
            Ok(calls) => {
                parsed.calls.extend(calls);
                parsed.used = cursor.at();
            }
            Err(stop) => {
                parsed.stopped = Some(stop);
                return parsed;
            }
        }
    }
}

fn item(body: &Body, cursor: &mut Cursor<'_>, tools: &[Tool]) -> Result<Vec<RawCall>, Stop> {
    match body {
        // Models mix the two forms that stand between the same tags.
        Body::Json if cursor.rest().starts_with(FUNCTION_XML.function[0]) => {
            xml::call(&FUNCTION_XML, cursor, tools).map(|call| vec![call])
        }
        Body::Xml(_) if cursor.peek() == Some('{') => json(cursor),
        Body::Json => json(cursor),
        Body::Named(form) => named(form, cursor).map(|call| vec![call]),
        Body::JsonOrNamed(form) => {
            if matches!(cursor.peek(), Some('[' | '{')) && !cursor.rest().starts_with(form.before) {
                json(cursor)
            } else {
                named(form, cursor).map(|call| vec![call])
            }
        }
        Body::Xml(form) => xml::call(form, cursor, tools).map(|call| vec![call]),
        Body::Braces(quote) => literal::braces_call(quote, cursor).map(|call| vec![call]),
        Body::Python => {
            let mut ahead = *cursor;
            match json(&mut ahead) {
                Ok(calls) => {
                    *cursor = ahead;
                    Ok(calls)
                }
                Err(_) => literal::python_calls(cursor),
            }
        }
    }
}

fn json(cursor: &mut Cursor<'_>) -> Result<Vec<RawCall>, Stop> {
    match cursor.json()? {
        Value::Array(values) => values.into_iter().map(|value| as_call(value).ok_or(Stop::Bad)).collect(),
        value => as_call(value).map(|call| vec![call]).ok_or(Stop::Bad),
    }
}

/// `{"name": …, "arguments": {…}}` and the other spellings of its keys. An object whose arguments stand under a key that
/// nobody knows is no call: they would be lost.
fn as_call(value: Value) -> Option<RawCall> {
    let Value::Object(mut object) = value else { return None };
    if let Some(Value::Object(function)) = object.remove("function") {
        return as_call(Value::Object(function));
    }
    let name = ["name", "tool_name"].iter().find_map(|key| object.remove(*key))?;
    let arguments = ["arguments", "parameters"].iter().find_map(|key| object.remove(*key));
    for known in ["type", "id", "index", "tool_call_id"] {
        object.remove(known);
    }
    let arguments = match arguments {
        None | Some(Value::Null) if object.is_empty() => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        // Some models write the object as a JSON text.
        Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
        _ => return None,
    };
    let name = name.as_str().filter(|name| !name.is_empty())?.to_owned();
    Some(RawCall { name, arguments })
}

fn named(form: &Named, cursor: &mut Cursor<'_>) -> Result<RawCall, Stop> {
    // What is the same for every call may be cut short: `functions.` and the number of the call are part of some names.
    let (before, between) = (form.before.trim_end_matches("functions."), form.between.trim_start_matches(":0"));
    let _ = cursor.eat(before);
    let rest = cursor.rest();
    let ends = [rest.find(between), rest.find('{')];
    let Some(end) = ends.into_iter().flatten().min() else {
        return Err(if rest.chars().all(|c| c != '"') { Stop::Partial } else { Stop::Bad });
    };
    let name = name_in(&rest[..end]).ok_or(Stop::Bad)?;
    cursor.advance(end);
    let _ = cursor.eat(between);
    cursor.skip_space();
    let arguments = match cursor.json()? {
        Value::Object(arguments) => arguments,
        _ => return Err(Stop::Bad),
    };
    cursor.skip_space();
    cursor.expect(form.after.trim_start())?;
    Ok(RawCall { name, arguments })
}

/// The name in `functions.name:0` or `name[CALL_ID]abc`.
fn name_in(text: &str) -> Option<String> {
    let text = text.split("[CALL_ID]").next().unwrap_or(text).trim();
    let text = text.strip_prefix("functions.").unwrap_or(text);
    let name = match text.rsplit_once(':') {
        Some((name, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => text,
    };
    is_name(name).then(|| name.to_owned())
}

/// Whether it can be the name of a tool where nothing quotes it.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_name_char)
}

pub(super) fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/')
}
