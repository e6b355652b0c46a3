//! Writes calls as a family writes them: for histories that a template does not show, and to teach a model the form.

use serde_json::{Map, Value};

use super::format::{Body, CallFormat, Shape, Xml};

/// The calls, each with its name and arguments, as a model of this format would have written them.
pub(crate) fn write_calls<'a>(
    format: &CallFormat,
    calls: impl IntoIterator<Item = (&'a str, &'a Map<String, Value>)>,
) -> String {
    let calls: Vec<String> = calls.into_iter().map(|(name, arguments)| one(format, name, arguments)).collect();
    let written = &format.written;
    let joined = if written.between.is_empty() && !matches!(written.call, Shape::AsRead) {
        calls.join("; ")
    } else {
        calls.join(written.between)
    };
    format!("{}{joined}{}", written.first, written.last)
}

fn one(format: &CallFormat, name: &str, arguments: &Map<String, Value>) -> String {
    let json = || spaced(&Value::Object(arguments.clone()));
    if let Shape::Json(name_key, arguments_key) = format.written.call {
        return format!("{{\"{name_key}\": {}, \"{arguments_key}\": {}}}", Value::String(name.to_owned()), json());
    }
    match format.blocks.first().map(|block| &block.body) {
        Some(Body::Named(named) | Body::JsonOrNamed(named)) => {
            format!("{}{name}{}{}{}", named.before, named.between, json(), named.after)
        }
        Some(Body::Xml(form)) => xml(form, name, arguments),
        Some(Body::Braces(quote)) => format!("call:{name}{}", braces(quote, &Value::Object(arguments.clone()), true)),
        Some(Body::Python) => {
            let pairs: Vec<String> = arguments.iter().map(|(key, value)| format!("{key}={}", spaced(value))).collect();
            format!("{name}({})", pairs.join(", "))
        }
        Some(Body::Json) | None => format!("{name} <|constrain|>json<|message|>{}", json()),
    }
}

fn xml(form: &Xml, name: &str, arguments: &Map<String, Value>) -> String {
    let [open, name_end, close] = form.function;
    let [key_open, key_end, value_open, value_close] = form.parameter;
    let line = if form.lines { "\n" } else { "" };
    let gap = if value_open.is_empty() { "" } else { "\n" };
    let mut text = format!("{open}{name}{name_end}");
    for (key, value) in arguments {
        let value = value.as_str().map_or_else(|| spaced(value), str::to_owned);
        text.push_str(&format!("\n{key_open}{key}{key_end}{gap}{value_open}{line}{value}{line}{value_close}"));
    }
    if !close.is_empty() {
        text.push('\n');
        text.push_str(close);
    }
    text
}

fn braces(quote: &str, value: &Value, outermost: bool) -> String {
    match value {
        Value::String(text) => format!("{quote}{text}{quote}"),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| braces(quote, value, false)).collect();
            format!("[{}]", values.join(","))
        }
        Value::Object(object) => {
            let pair = |(key, value): (&String, &Value)| {
                let key = if outermost { key.clone() } else { format!("{quote}{key}{quote}") };
                format!("{key}:{}", braces(quote, value, false))
            };
            format!("{{{}}}", object.iter().map(pair).collect::<Vec<_>>().join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// JSON with a space after commas and colons, as models were trained on it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("[{}]", values.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        Value::Object(object) => {
            let pair = |(key, value): (&String, &Value)| format!("{}: {}", Value::String(key.clone()), spaced(value));
            format!("{{{}}}", object.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}
