//! What the field's templates call: `tojson` as Python writes JSON, the time, and their way to refuse.

use std::sync::Arc;

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{Kwargs, Object},
};
use serde::Serialize;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| strftime(&format));
    environment.add_function("now", || Value::from_object(Now));
}

/// The local time in the format of C's `strftime`.
fn strftime(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::ZonedDateTime::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("time format {format:?}: {error}")))
}

/// The time as an object with the one method that templates use; shown as Python shows it.
#[derive(Debug)]
struct Now;

impl Object for Now {
    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match (method, args) {
            ("strftime", [format]) if format.as_str().is_some() => {
                strftime(format.as_str().unwrap_or_default()).map(Value::from)
            }
            ("isoformat", []) => strftime("%Y-%m-%dT%H:%M:%S").map(Value::from),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&strftime("%Y-%m-%d %H:%M:%S").map_err(|_| std::fmt::Error)?)
    }
}

/// `tojson` as `json.dumps` writes it: Python's separators, no HTML escapes, `indent`, `separators` and `sort_keys`.
fn to_json(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let indent = indent.filter(|indent| !indent.is_none()).map(usize::try_from).transpose()?;
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    // Text is written as it is, whatever this says: so does the field.
    let _ = options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut value = serde_json::to_value(value).map_err(failed)?;
    if sorted {
        value.sort_all_objects();
    }
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
        None => {
            let (item, key) = match separators.unwrap_or_default().as_slice() {
                [] => (", ".to_owned(), ": ".to_owned()),
                [item, key] => (item.clone(), key.clone()),
                others => {
                    let reason = format!("tojson takes two separators, here are {}", others.len());
                    return Err(Error::new(ErrorKind::InvalidOperation, reason));
                }
            };
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonStyle { item, key }))
        }
    }
    .map_err(failed)?;
    String::from_utf8(out)
        .map(Value::from_safe_string)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// `", "` and `": "`, as `json.dumps` writes them: models were trained on that spacing.
struct PythonStyle {
    item: String,
    key: String,
}

impl serde_json::ser::Formatter for PythonStyle {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.item.as_bytes()) }
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.item.as_bytes()) }
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }
}
