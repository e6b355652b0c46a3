//! Single values: text, numbers, words of a list, lists.

use std::ops::Range;
use std::str::FromStr;

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged as _;

use super::fields::Cx;
use super::{Node, kind, report};
use crate::json::is_strict_number;
use crate::text::{grouped, is_unprintable, quoted};
use crate::{Code, Invalid, Problem};

/// A value of another type than the key asks for.
fn wrong_type<T>(cx: &mut Cx<'_>, node: Node<'_, '_>, wanted: &str, fix: &str) -> Option<T> {
    let problem = Problem::new(
        Code::WrongType,
        node.span(cx),
        format!("`{}` is {}, not {wanted}", node.path, kind(cx, node.value)),
    )
    .label(format!("not {wanted}"))
    .fix(fix);
    report(cx, problem)
}

/// Any text.
pub(super) fn string<'n>(cx: &mut Cx<'_>, node: Node<'n, '_>) -> Option<&'n str> {
    match node.value {
        Value::StringLit(text) => Some(text.value.as_ref()),
        _ => wrong_type(cx, node, "text", "write text in double quotes"),
    }
}

/// Text that people read, of `length` characters.
pub(super) fn words(cx: &mut Cx<'_>, node: Node<'_, '_>, length: Range<usize>) -> Option<String> {
    let text = string(cx, node)?;
    let (min, max) = (length.start, length.end - 1);
    let count = text.chars().count();
    let bad = |message: String| Problem::new(Code::BadText, node.span(cx), message);
    if text.trim().is_empty() {
        let problem =
            bad(format!("`{}` is empty", node.path)).label("nothing to read").fix("write what people should read here");
        return report(cx, problem);
    }
    if !length.contains(&count) {
        let problem =
            bad(format!("`{}` has {} characters; {min} to {max} are allowed", node.path, grouped(count as u64)))
                .label(if count < min { "too short" } else { "too long" })
                .fix(if count < min {
                    format!("say it in {min} characters or more")
                } else {
                    format!("say it in {max} characters")
                });
        return report(cx, problem);
    }
    if let Some(c) = text.chars().find(|c| is_unprintable(*c)) {
        // A control character that stands in the file as it is was reported with the syntax.
        if c.is_control() && cx.text.text[node.value.start()..node.value.end()].contains(c) {
            return None;
        }
        let problem = bad(format!("`{}` holds U+{:04X}, which cannot be shown on a line", node.path, u32::from(c)))
            .label("an invisible character")
            .why("it is shown where people decide what to allow; such characters can hide or reorder text")
            .fix("remove the character");
        return report(cx, problem);
    }
    Some(text.to_owned())
}

/// Text with a form of its own.
pub(super) fn parsed<T: FromStr<Err = Invalid>>(cx: &mut Cx<'_>, node: Node<'_, '_>, code: Code) -> Option<T> {
    match string(cx, node)?.parse() {
        Ok(value) => Some(value),
        Err(Invalid { message, why, fix }) => {
            let problem = Problem::new(code, node.span(cx), format!("`{}`: {message}", node.path))
                .label("not allowed")
                .why(why)
                .fix(fix);
            report(cx, problem)
        }
    }
}

/// One word of a list; the position in the list.
pub(super) fn one_of(cx: &mut Cx<'_>, node: Node<'_, '_>, words: &[&str]) -> Option<usize> {
    let text = string(cx, node)?;
    let found = words.iter().position(|word| *word == text);
    if found.is_none() {
        let all: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        let problem = Problem::new(Code::BadValue, node.span(cx), format!("`{}` is {}", node.path, quoted(text)));
        let problem = match crate::text::nearest(text, words.iter().copied()) {
            Some(meant) => problem.label(format!("did you mean `{meant}`?")),
            None => problem.label("no such word"),
        };
        cx.problems.push(problem.fix(format!("write {}", all.join(" or "))));
    }
    found
}

/// A number as it stands. A number that JSON does not have was reported with the syntax.
fn number(cx: &mut Cx<'_>, node: Node<'_, '_>, wanted: &str) -> Option<f64> {
    match node.value {
        Value::NumberLit(number) if !is_strict_number(number.value) => None,
        Value::NumberLit(number) => number.value.parse().ok(), // a strict number is always an f64, maybe an infinite one
        Value::StringLit(text) if is_strict_number(text.value.trim()) => {
            let fix = format!("write `{}`, without the quotes", text.value.trim().chars().take(30).collect::<String>());
            wrong_type(cx, node, wanted, &fix)
        }
        _ => wrong_type(cx, node, wanted, "write a number, like `4`; the key names the unit"),
    }
}

/// Whole numbers up to this one are exact as an `f64`.
const EXACT: u64 = 1 << 53;

/// A whole number from `min` to `max`, at most [`EXACT`].
pub(super) fn whole<N>(cx: &mut Cx<'_>, node: Node<'_, '_>, min: N, max: N, unit: &str) -> Option<N>
where
    N: Copy + Into<u64> + TryFrom<u64>,
{
    let (min, max): (u64, u64) = (min.into(), max.into().min(EXACT));
    let figure = number(cx, node, "a whole number")?;
    let range = || format!("{} to {}", grouped(min), grouped(max));
    if figure.fract() != 0.0 {
        let problem = Problem::new(Code::WrongType, node.span(cx), format!("`{}` is a fraction", node.path))
            .label("not a whole number")
            .fix(format!("write a whole number of {unit}, {}", range()));
        return report(cx, problem);
    }
    if !(min as f64..=max as f64).contains(&figure) {
        return out_of_range(cx, node, &format!("{} {unit}", range()));
    }
    N::try_from(figure as u64).ok() // whole and inside the range of N: both checked above
}

/// A number above 0 and up to `max`.
pub(super) fn positive(cx: &mut Cx<'_>, node: Node<'_, '_>, max: f64, unit: &str) -> Option<f64> {
    let figure = number(cx, node, "a number")?;
    if figure > 0.0 && figure <= max {
        return Some(figure);
    }
    out_of_range(cx, node, &format!("more than 0, up to {} {unit}", grouped(max as u64)))
}

/// A number from `min` to `max`.
pub(super) fn within(cx: &mut Cx<'_>, node: Node<'_, '_>, min: f32, max: f32) -> Option<f32> {
    let figure = number(cx, node, "a number")?;
    if (f64::from(min)..=f64::from(max)).contains(&figure) {
        return Some(figure as f32); // inside the range of f32: checked above
    }
    out_of_range(cx, node, &format!("{min} to {max}"))
}

/// `true` or `false`.
pub(super) fn boolean(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<bool> {
    match node.value {
        Value::BooleanLit(boolean) => Some(boolean.value),
        _ => wrong_type(cx, node, "true or false", "write `true` or `false`, without quotes"),
    }
}

fn out_of_range<T>(cx: &mut Cx<'_>, node: Node<'_, '_>, range: &str) -> Option<T> {
    let shown = match node.value {
        Value::NumberLit(number) => quoted(number.value),
        _ => "the value".to_owned(),
    };
    let problem =
        Problem::new(Code::OutOfRange, node.span(cx), format!("`{}` is {shown}, which is out of range", node.path))
            .label(format!("allowed: {range}"))
            .fix(format!("write a number in the range: {range}"));
    report(cx, problem)
}

/// A list of `length` entries, each with its place. Entries that were reported are left out, so that the rest is read.
pub(super) fn list<T>(
    cx: &mut Cx<'_>,
    node: Node<'_, '_>,
    length: Range<usize>,
    mut read: impl FnMut(&mut Cx<'_>, Node<'_, '_>) -> Option<T>,
) -> Option<Vec<(T, Range<usize>)>> {
    let Value::Array(array) = node.value else {
        return wrong_type(cx, node, "a list", "write `[ … ]`, even around a single entry");
    };
    let (min, max, count) = (length.start, length.end - 1, array.elements.len());
    if !length.contains(&count) {
        let problem = Problem::new(
            Code::BadLength,
            node.span(cx),
            format!("`{}` has {} entries", node.path, grouped(count as u64)),
        );
        let problem = if count < min {
            problem.label("nothing in it").fix("name at least one, or remove the key around it")
        } else {
            problem.label(format!("at most {max}")).fix(format!("name {max} at most"))
        };
        return report(cx, problem);
    }
    let mut entries = Vec::with_capacity(count);
    for (n, value) in array.elements.iter().enumerate() {
        let path = format!("{}[{n}]", node.path);
        let entry = Node { value, path: &path };
        if let Some(value) = read(cx, entry) {
            entries.push((value, entry.span(cx)));
        }
    }
    Some(entries)
}

/// Reports entries that say the same as an earlier one, and removes the places.
pub(super) fn distinct<T>(
    cx: &mut Cx<'_>,
    path: &str,
    entries: Vec<(T, Range<usize>)>,
    same: impl Fn(&T, &T) -> bool,
    name: impl Fn(&T) -> String,
) -> Vec<T> {
    let mut kept: Vec<(T, Range<usize>)> = Vec::with_capacity(entries.len());
    for (entry, span) in entries {
        if let Some((_, first)) = kept.iter().find(|(other, _)| same(other, &entry)) {
            let problem =
                Problem::new(Code::DuplicateEntry, span, format!("`{path}` names {} twice", quoted(&name(&entry))))
                    .label("and again")
                    .other(first.clone(), "first here")
                    .fix("remove one of them");
            cx.problems.push(problem);
        } else {
            kept.push((entry, span));
        }
    }
    kept.into_iter().map(|(entry, _)| entry).collect()
}

/// An absolute path.
pub(super) fn absolute<'n>(cx: &mut Cx<'_>, node: Node<'n, '_>) -> Option<&'n str> {
    let text = string(cx, node)?;
    if text.starts_with('/') && text.len() <= 4096 && !text.contains('\0') {
        return Some(text);
    }
    let problem = Problem::new(
        Code::BadValue,
        node.span(cx),
        format!("`{}` is {}, not an absolute path", node.path, quoted(text)),
    )
    .label("not from the root")
    .why("the host and its tools run in different folders, so a relative path would mean different files")
    .fix("write the whole path, beginning with `/`");
    report(cx, problem)
}
