//! From TOML with places to the tree that the readers of this crate read, so that one set of readers serves both languages.

use std::borrow::Cow;
use std::ops::Range;

use jsonc_parser::ast::{Array, BooleanLit, NumberLit, Object, ObjectProp, ObjectPropName, StringLit, Value};
use jsonc_parser::common::Range as Place;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnosis::Problems;
use crate::json::{Text, is_strict_number};
use crate::text::quoted;
use crate::{Code, Problem};

/// The tables of a text, if it is TOML; otherwise problems.
pub(crate) fn parse<'t>(text: &Text<'t>, problems: &mut Problems) -> Option<Spanned<DeTable<'t>>> {
    let (table, errors) = DeTable::parse_recoverable(text.text);
    if errors.is_empty() {
        return Some(table);
    }
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = error.message().lines().next().unwrap_or_default().trim();
        problems.push_with(|| {
            let problem =
                Problem::new(Code::Syntax, text.span(span.start, span.end.max(span.start + 1)), "this is not TOML");
            let problem = problem.label(if line.is_empty() { "here" } else { line });
            problem.fix("write `key = value` lines below `[table]` headers, text in double quotes")
        });
    }
    None
}

/// The tree. Numbers in forms that only TOML has are reported.
pub(crate) fn value<'a>(text: &Text<'_>, table: &'a Spanned<DeTable<'_>>, problems: &mut Problems) -> Value<'a> {
    object(text, table.span(), table.get_ref(), problems)
}

fn object<'a>(text: &Text<'_>, span: Range<usize>, table: &'a DeTable<'_>, problems: &mut Problems) -> Value<'a> {
    let properties = table.iter().map(|(key, value)| {
        let word = StringLit { range: place(key.span()), value: Cow::Borrowed(key.get_ref().as_ref()) };
        ObjectProp {
            range: Place { start: key.span().start, end: value.span().end },
            name: ObjectPropName::String(word),
            value: any(text, value, problems),
        }
    });
    let properties = properties.collect();
    Value::Object(Object { range: place(span), properties })
}

fn any<'a>(text: &Text<'_>, value: &'a Spanned<DeValue<'_>>, problems: &mut Problems) -> Value<'a> {
    let range = place(value.span());
    match value.get_ref() {
        DeValue::String(content) => Value::StringLit(StringLit { range, value: Cow::Borrowed(content.as_ref()) }),
        DeValue::Integer(number) if number.radix() == 10 => self::number(text, value, number.as_str(), problems),
        // Hexadecimal is no strict number either way: reported as such.
        DeValue::Integer(_) => self::number(text, value, "0x", problems),
        DeValue::Float(number) => self::number(text, value, number.as_str(), problems),
        DeValue::Boolean(value) => Value::BooleanLit(BooleanLit { range, value: *value }),
        // No key takes a date, so as text it is refused with the reason of its key.
        DeValue::Datetime(date) => Value::StringLit(StringLit { range, value: Cow::Owned(date.to_string()) }),
        DeValue::Array(list) => {
            let elements = list.iter().map(|entry| any(text, entry, problems)).collect();
            Value::Array(Array { range, elements })
        }
        DeValue::Table(table) => object(text, value.span(), table, problems),
    }
}

/// `digits` are those of the text without `_`.
fn number<'a>(text: &Text<'_>, value: &Spanned<DeValue<'_>>, digits: &'a str, problems: &mut Problems) -> Value<'a> {
    let plain = digits.strip_prefix('+').unwrap_or(digits);
    if !is_strict_number(plain) {
        let span = text.span(value.span().start, value.span().end);
        let shown = text.text.get(value.span()).unwrap_or_default();
        problems.push_with(|| {
            Problem::new(Code::BadValue, span, format!("{} is no plain number", quoted(shown)))
                .label("not plain")
                .fix("write a decimal number like `4` or `0.5`")
        });
    }
    Value::NumberLit(NumberLit { range: place(value.span()), value: plain })
}

fn place(span: Range<usize>) -> Place {
    Place { start: span.start, end: span.end }
}
