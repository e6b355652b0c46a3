//! Objects: which keys they may have, and what is said about the others.

use std::ops::Range;

use jsonc_parser::ast::{ObjectPropName, Value};
use jsonc_parser::common::Ranged as _;

use super::{Node, join, kind};
use crate::diagnosis::Problems;
use crate::document::Document;
use crate::json::Text;
use crate::text::{nearest, quoted};
use crate::{Code, Problem, host_owned};

/// What all readers share.
pub(super) struct Cx<'t> {
    pub(super) text: &'t Text<'t>,
    pub(super) problems: Problems,
    /// All kinds of objects of this document: where a misplaced key may belong.
    all: &'static [&'static Keys],
}

impl<'t> Cx<'t> {
    pub(super) fn new(text: &'t Text<'t>, problems: Problems, all: &'static [&'static Keys]) -> Self {
        Self { text, problems, all }
    }

    pub(super) fn into_problems(self) -> Problems {
        self.problems
    }
}

/// The keys that one kind of object may have.
pub(super) struct Keys {
    /// Where such an object stands, for "belongs in".
    pub(super) place: &'static str,
    /// Required keys, each with an example of its value.
    pub(super) required: &'static [(&'static str, &'static str)],
    /// Optional keys.
    pub(super) optional: &'static [&'static str],
}

impl Keys {
    /// The required keys with examples or, where nothing is required, the names of all.
    fn outline(&self, document: Document) -> String {
        if self.required.is_empty() {
            let names: Vec<_> = self.all().map(|key| format!("`{key}`")).collect();
            return names.join(", ");
        }
        format!("`{}`", additions(document, self.required))
    }

    fn all(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.required.iter().map(|(key, _)| *key).chain(self.optional.iter().copied())
    }
}

pub(super) const TOP: Keys = Keys {
    place: "the manifest itself",
    required: &[
        ("manifestVersion", "1"),
        ("id", "\"org.example.app\""),
        ("name", "\"…\""),
        ("version", "\"0.1.0\""),
        ("description", "\"…\""),
        ("component", "{\"path\": \"app.wasm\"}"),
        ("wit", "\"locara:app@0.1.0\""),
        ("requires", "{\"memoryGB\": 4}"),
    ],
    optional: &["$schema", "author", "license", "class", "models", "capabilities", "limits"],
};
pub(super) const COMPONENT: Keys =
    Keys { place: "`component`", required: &[("path", "\"app.wasm\"")], optional: &["sha256"] };
pub(super) const REQUIRES: Keys = Keys { place: "`requires`", required: &[("memoryGB", "4")], optional: &["floorGB"] };
pub(super) const MODEL: Keys = Keys {
    place: "an entry of `models`",
    required: &[("role", "\"default\"")],
    optional: &["context", "kv", "keepLoaded", "draft", "maxTokens"],
};
pub(super) const KV: Keys =
    Keys { place: "`kv`", required: &[("type", "\"f16\""), ("reason", "\"…\"")], optional: &[] };
pub(super) const KEEP_LOADED: Keys = Keys { place: "`keepLoaded`", required: &[("reason", "\"…\"")], optional: &[] };
pub(super) const CAPABILITIES: Keys =
    Keys { place: "`capabilities`", required: &[], optional: &["storage", "http", "folders", "tools"] };
pub(super) const STORAGE: Keys =
    Keys { place: "`capabilities.storage`", required: &[("quotaMB", "10")], optional: &[] };
pub(super) const HTTP: Keys =
    Keys { place: "`capabilities.http`", required: &[("hosts", "[\"https://api.example.com\"]")], optional: &[] };
pub(super) const FOLDER: Keys = Keys {
    place: "an entry of `capabilities.folders`",
    required: &[("path", "\"~/Documents\""), ("access", "\"read\"")],
    optional: &[],
};
pub(super) const LIMITS: Keys = Keys {
    place: "`limits`",
    required: &[],
    optional: &[
        "memoryMB",
        "cpuMs",
        "wallSeconds",
        "outputMB",
        "hostCallsPerSecond",
        "tableElements",
        "sessions",
        "generations",
    ],
};

/// All kinds of objects of a manifest.
pub(super) const ALL: &[&Keys] =
    &[&TOP, &COMPONENT, &REQUIRES, &MODEL, &KV, &KEEP_LOADED, &CAPABILITIES, &STORAGE, &HTTP, &FOLDER, &LIMITS];

/// Keys and examples as the language writes them: `"path": "app.wasm", "access": "read"`.
fn additions<'a>(document: Document, keys: impl IntoIterator<Item = &'a (&'static str, &'static str)>) -> String {
    let pairs: Vec<String> = keys.into_iter().map(|(key, example)| document.pair(key, example)).collect();
    pairs.join(", ")
}

/// An object whose keys were checked.
pub(super) struct Fields<'n, 't> {
    path: String,
    /// The opening brace: where a missing key is reported.
    brace: Range<usize>,
    present: Vec<(&'n str, Range<usize>, &'n Value<'t>)>,
    /// Keys that were meant by misspelt ones: not missing on top of that.
    meant: Vec<&'static str>,
}

impl<'n, 't> Fields<'n, 't> {
    /// Reads `node` as an object with `keys`; reports other types, unknown keys, keys of the host and duplicates.
    pub(super) fn read(cx: &mut Cx<'_>, node: Node<'n, 't>, keys: &Keys) -> Option<Self> {
        let fields = Self::open(cx, node, Some(keys))?;
        fields.report_missing(cx, keys);
        Some(fields)
    }

    /// Reads `node` as an object whose keys are names that somebody chose; reports other types and duplicates.
    pub(super) fn any(cx: &mut Cx<'_>, node: Node<'n, 't>) -> Option<Self> {
        Self::open(cx, node, None)
    }

    fn open(cx: &mut Cx<'_>, node: Node<'n, 't>, keys: Option<&Keys>) -> Option<Self> {
        let document = cx.text.document;
        let Value::Object(object) = node.value else {
            let what =
                if node.path.is_empty() { format!("the {}", document.noun()) } else { format!("`{}`", node.path) };
            let outline = keys.map_or_else(|| "names as keys".to_owned(), |keys| keys.outline(document));
            let message = format!("{what} is {}, not {}", kind(cx, node.value), document.object());
            let fix = if document.is_toml() {
                format!("write `[{}]` with {outline}", node.path)
            } else {
                format!("write `{{ … }}` with {outline}")
            };
            let problem = Problem::new(Code::WrongType, node.span(cx), message)
                .label(format!("not {}", document.object()))
                .fix(fix);
            cx.problems.push(problem);
            return None;
        };
        let brace = cx.text.span(object.range.start, object.range.start + 1);
        let mut fields = Self { path: node.path.to_owned(), brace, present: Vec::new(), meant: Vec::new() };
        let siblings: Vec<&str> = object.properties.iter().map(|property| property.name.as_str()).collect();
        for property in &object.properties {
            let key = property.name.as_str();
            let place = match &property.name {
                ObjectPropName::String(name) => name.range(),
                ObjectPropName::Word(name) => name.range(),
            };
            let span = cx.text.span(place.start, place.end);
            if let Some((_, first, _)) = fields.present.iter().find(|(present, ..)| *present == key) {
                let path = join(&fields.path, key);
                let problem = Problem::new(Code::DuplicateKey, span, format!("{} stands twice", quoted(&path)))
                    .label("and again")
                    .other(first.clone(), "first here")
                    .why("readers of JSON disagree about which of the two counts")
                    .fix("remove one of them");
                cx.problems.push(problem);
            } else {
                match keys {
                    Some(keys) if keys.all().all(|known| known != key) => {
                        let (all, problems) = (cx.all, &mut cx.problems);
                        problems.push_with(|| fields.unknown(document, all, key, span, keys, &siblings));
                    }
                    _ => fields.present.push((key, span, &property.value)),
                }
            }
        }
        Some(fields)
    }

    /// One problem for all required keys that are missing, with the text to add.
    fn report_missing(&self, cx: &mut Cx<'_>, keys: &Keys) {
        let is_missing =
            |key: &str| self.present.iter().all(|(present, ..)| *present != key) && !self.meant.contains(&key);
        let missing: Vec<_> = keys.required.iter().filter(|(key, _)| is_missing(key)).collect();
        let names: Vec<String> = missing.iter().map(|(key, _)| format!("`{}`", join(&self.path, key))).collect();
        let message = match names.as_slice() {
            [] => return,
            [name] => format!("{name} is missing"),
            names => format!("{} required keys are missing: {}", names.len(), names.join(", ")),
        };
        let problem = Problem::new(Code::MissingKey, self.brace.clone(), message)
            .label("not in here")
            .fix(format!("add `{}`", additions(cx.text.document, missing)));
        cx.problems.push(problem);
    }

    fn unknown(
        &mut self,
        document: Document,
        all: &[&Keys],
        key: &str,
        span: Range<usize>,
        keys: &Keys,
        siblings: &[&str],
    ) -> Problem {
        let path = join(&self.path, key);
        match host_owned::find(key) {
            Some(owned) if document == Document::Manifest => {
                let message = format!("{} is not an app's to set: {} is the host's", quoted(&path), owned.what);
                let problem = Problem::new(Code::HostOwnedKey, span, message);
                return problem.label("the host's").why(owned.why).fix(owned.fix);
            }
            Some(owned) if owned.nobodys => {
                let message = format!("there is no key {}: {} is the host's", quoted(&path), owned.what);
                let problem = Problem::new(Code::HostOwnedKey, span, message);
                return problem.label("the host's").why(owned.why).fix("remove the key");
            }
            _ => {}
        }
        let problem = Problem::new(Code::UnknownKey, span, format!("there is no key {}", quoted(&path)));
        if let Some(meant) = nearest(key, keys.all().filter(|known| !siblings.contains(known))) {
            self.meant.push(meant);
            return problem.label(format!("did you mean `{meant}`?")).fix(format!("write `{meant}`"));
        }
        if let Some(other) = all.iter().find(|other| other.all().any(|known| known == key)) {
            return problem.label("not here").fix(format!("move it: `{key}` belongs in {}", other.place));
        }
        let names: Vec<_> = keys.all().map(|known| format!("`{known}`")).collect();
        // Fifteen names help nobody; the editor's completion does.
        let fix = if names.len() > 8 {
            "remove it".to_owned()
        } else {
            format!("remove it; {} has {}", keys.place, names.join(", "))
        };
        problem.label("unknown").why("a key that nothing enforces would promise what nobody keeps").fix(fix)
    }

    /// The value of an optional key: outer `None` is "reported", inner `None` is "absent".
    pub(super) fn optional<T>(
        &self,
        cx: &mut Cx<'_>,
        key: &str,
        read: impl FnOnce(&mut Cx<'_>, Node<'_, '_>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.present.iter().find(|(present, ..)| *present == key) {
            None => Some(None),
            Some((_, _, Value::NullKeyword(null))) => {
                let path = join(&self.path, key);
                let span = cx.text.span(null.range.start, null.range.end);
                let problem = Problem::new(Code::WrongType, span, format!("`{path}` is null"))
                    .label("says nothing")
                    .fix("leave the key out to say nothing");
                super::report(cx, problem)
            }
            Some((_, _, value)) => read(cx, Node { value, path: &join(&self.path, key) }).map(Some),
        }
    }

    /// The value of a required key; `None` is "reported".
    pub(super) fn required<T>(
        &self,
        cx: &mut Cx<'_>,
        key: &str,
        read: impl FnOnce(&mut Cx<'_>, Node<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        // An absent one was reported with the object.
        self.optional(cx, key, read)?
    }

    /// Calls `read` for every key with its place and value, in the order of the text.
    pub(super) fn each(&self, cx: &mut Cx<'_>, mut read: impl FnMut(&mut Cx<'_>, &str, &Range<usize>, Node<'_, '_>)) {
        for (key, span, value) in &self.present {
            // A digest is read well enough by its beginning.
            let shown = if key.len() == 64 { key.get(..12).map(|start| format!("{start}…")) } else { None };
            read(cx, key, span, Node { value, path: &join(&self.path, shown.as_deref().unwrap_or(key)) });
        }
    }

    /// Where the value of a key stands, for problems between two values.
    pub(super) fn span_of(&self, cx: &Cx<'_>, key: &str) -> Range<usize> {
        let found = self.present.iter().find(|(present, ..)| *present == key);
        found.map_or_else(|| self.brace.clone(), |(_, _, value)| cx.text.span(value.start(), value.end()))
    }

    /// The path of a key of this object.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }
}
