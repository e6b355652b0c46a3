//! From a tree with places to a manifest, a registry or a configuration, collecting every problem on the way instead of stopping at the first.
//!
//! `None` from a reader means "reported"; the reader above goes on with the next key.

mod config;
mod fields;
mod manifest;
mod read;
mod registry;

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged as _;

use crate::diagnosis::Problems;
use crate::document::Document;
use crate::json::Text;
use crate::{Config, Diagnosis, Manifest, Problem, Registry, toml_tree};
use fields::{Cx, Keys};

/// See [`Manifest::parse`].
pub(crate) fn manifest(source_name: &str, bytes: &[u8]) -> Result<Manifest, Diagnosis> {
    json(Document::Manifest, source_name, bytes, fields::ALL, manifest::read)
}

/// See [`Registry::parse`].
pub(crate) fn registry(source_name: &str, bytes: &[u8]) -> Result<Registry, Diagnosis> {
    json(Document::Registry, source_name, bytes, registry::ALL, registry::read)
}

/// See [`Config::parse`].
pub(crate) fn config(source_name: &str, bytes: &[u8]) -> Result<Config, Diagnosis> {
    let mut problems = Problems::default();
    let Some(text) = Text::new(Document::Config, bytes, &mut problems) else {
        return Err(unreadable(Document::Config, source_name, bytes, problems));
    };
    let table = toml_tree::parse(&text, &mut problems);
    let tree = table.as_ref().map(|table| toml_tree::value(&text, table, &mut problems));
    let mut cx = Cx::new(&text, problems, config::ALL);
    let config = tree.as_ref().and_then(|tree| config::read(&mut cx, tree));
    finish(Document::Config, source_name, bytes, config, cx.into_problems())
}

fn json<T>(
    document: Document,
    source_name: &str,
    bytes: &[u8],
    keys: &'static [&'static Keys],
    read: impl FnOnce(&mut Cx<'_>, &Value<'_>) -> Option<T>,
) -> Result<T, Diagnosis> {
    let mut problems = Problems::default();
    let Some(text) = Text::new(document, bytes, &mut problems) else {
        return Err(unreadable(document, source_name, bytes, problems));
    };
    let tree = text.tree(&mut problems);
    let mut cx = Cx::new(&text, problems, keys);
    let value = tree.as_ref().and_then(|tree| read(&mut cx, tree));
    let mut problems = cx.into_problems();
    if problems.is_empty() {
        text.strictly().into_iter().for_each(|problem| problems.push(problem));
    }
    finish(document, source_name, bytes, value, problems)
}

/// A file that is too large to be read is too large to be shown.
fn unreadable(document: Document, source_name: &str, bytes: &[u8], problems: Problems) -> Diagnosis {
    let shown = if bytes.len() > document.max_bytes() { &[] } else { bytes };
    Diagnosis::new(document, source_name, shown, problems)
}

fn finish<T>(
    document: Document,
    source_name: &str,
    bytes: &[u8],
    value: Option<T>,
    problems: Problems,
) -> Result<T, Diagnosis> {
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(Diagnosis::new(document, source_name, bytes, problems)),
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
fn kind(cx: &Cx<'_>, value: &Value<'_>) -> &'static str {
    match value {
        Value::StringLit(_) => "text",
        Value::NumberLit(_) => "a number",
        Value::BooleanLit(_) => "a boolean",
        Value::Object(_) => cx.text.document.object(),
        Value::Array(_) => "a list",
        Value::NullKeyword(_) => "null",
    }
}

/// Adds `problem` and says "reported".
fn report<T>(cx: &mut Cx<'_>, problem: Problem) -> Option<T> {
    cx.problems.push(problem);
    None
}
