//! From a JSON tree to a manifest, collecting every problem on the way instead of stopping at the first.
//!
//! `None` from a reader means "reported"; the reader above goes on with the next key.

mod fields;
mod manifest;
mod read;

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged as _;

use crate::diagnosis::Problems;
use crate::json::Text;
use crate::{Diagnosis, MAX_BYTES, Manifest, Problem};
use fields::Cx;

/// See [`Manifest::parse`].
pub(crate) fn manifest(source_name: &str, bytes: &[u8]) -> Result<Manifest, Diagnosis> {
    let mut problems = Problems::default();
    let Some(text) = Text::new(bytes, &mut problems) else {
        // A file that is too large to be read is too large to be shown.
        let shown = if bytes.len() > MAX_BYTES { &[] } else { bytes };
        return Err(Diagnosis::new(source_name, shown, problems));
    };
    let tree = text.tree(&mut problems);
    let mut cx = Cx::new(&text, problems);
    let manifest = tree.as_ref().and_then(|tree| manifest::read(&mut cx, tree));
    let mut problems = cx.into_problems();
    if problems.is_empty() {
        text.strictly().into_iter().for_each(|problem| problems.push(problem));
    }
    match manifest {
        Some(manifest) if problems.is_empty() => Ok(manifest),
        _ => Err(Diagnosis::new(source_name, bytes, problems)),
    }
}

/// A value with its path: what a reader gets.
#[derive(Clone, Copy)]
struct Node<'n, 't> {
    value: &'n Value<'t>,
    path: &'n str,
}

impl Node<'_, '_> {
    fn span(&self, cx: &Cx<'_>) -> std::ops::Range<usize> {
        cx.text.span(self.value.start(), self.value.end())
    }
}

/// `models[0]` and `role` → `models[0].role`; nothing and `name` → `name`.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What a problem says of a missing or wrong value: the article and the type.
fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::StringLit(_) => "text",
        Value::NumberLit(_) => "a number",
        Value::BooleanLit(_) => "a boolean",
        Value::Object(_) => "an object",
        Value::Array(_) => "a list",
        Value::NullKeyword(_) => "null",
    }
}

/// Adds `problem` and says "reported".
fn report<T>(cx: &mut Cx<'_>, problem: Problem) -> Option<T> {
    cx.problems.push(problem);
    None
}
