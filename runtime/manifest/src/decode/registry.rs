//! The objects of a registry, and what must hold between its names.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use super::fields::{Cx, Fields, Keys};
use super::read::{boolean, list, one_of, parsed, string, whole, words};
use super::{Node, report};
use crate::text::quoted;
use crate::{
    Code, Digest, Invalid, KvCacheType, KvSetting, ModelName, ModelPart, ModelSettings, Problem, REGISTRY_VERSION,
    RegisteredModel, Registry, Role, Source, SourceKind, ToolParser, Unresolved,
};

const TOP: Keys = Keys {
    place: "the registry itself",
    required: &[("registryVersion", "1"), ("models", "{}")],
    optional: &["$schema", "roles", "aliases"],
};
const MODEL: Keys = Keys {
    place: "an entry of `models`",
    required: &[("name", "\"…\""), ("files", "[{\"sha256\": \"…\", \"bytes\": 1}]")],
    optional: &["source", "disabled", "settings"],
};
const PART: Keys = Keys {
    place: "an entry of `files`",
    required: &[("sha256", "\"…\""), ("bytes", "4683074048")],
    optional: &["path"],
};
const SOURCE: Keys =
    Keys { place: "`source`", required: &[("kind", "\"file\""), ("name", "\"…\"")], optional: &["revision"] };
const SETTINGS: Keys = Keys {
    place: "`settings`",
    required: &[],
    optional: &["context", "kv", "maxSequences", "toolParser", "template", "keepLoaded", "ttlSeconds"],
};
const KV: Keys = Keys { place: "`kv`", required: &[("keys", "\"q8_0\""), ("values", "\"f16\"")], optional: &[] };

/// All kinds of objects of a registry.
pub(super) const ALL: &[&Keys] = &[&TOP, &MODEL, &PART, &SOURCE, &SETTINGS, &KV];

const DIGEST_FIX: &str = "write what `sha256sum` says of the file, or remove the entry and import the file again";

/// Where the names of a registry stand, for problems between them.
#[derive(Default)]
struct Places {
    /// Name of a model → where it stands.
    names: BTreeMap<String, Range<usize>>,
    /// Role or alias → where its target stands.
    targets: BTreeMap<String, Range<usize>>,
    /// Alias → where it stands.
    aliases: BTreeMap<String, Range<usize>>,
}

/// The whole registry. `None` is "reported".
pub(super) fn read(cx: &mut Cx<'_>, tree: &jsonc_parser::ast::Value<'_>) -> Option<Registry> {
    let top = Fields::read(cx, Node { value: tree, path: "" }, &TOP)?;
    let mut places = Places::default();
    let schema = top.optional(cx, "$schema", |cx, node| string(cx, node).map(str::to_owned));
    let version = top.required(cx, "registryVersion", version);
    let models = top.required(cx, "models", |cx, node| models(cx, node, &mut places));
    let roles = top.optional(cx, "roles", |cx, node| targets::<Role>(cx, node, &mut places));
    let aliases = top.optional(cx, "aliases", |cx, node| targets::<ModelName>(cx, node, &mut places));
    let registry = Registry {
        schema: schema?,
        registry_version: version?,
        models: models?,
        roles: roles?.unwrap_or_default(),
        aliases: aliases?.unwrap_or_default(),
    };
    names_mean_one_thing(cx, &registry, &places);
    targets_exist(cx, &registry, &places);
    Some(registry)
}

fn version(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<u32> {
    let version = whole(cx, node, 0, u32::MAX, "versions")?;
    if version == REGISTRY_VERSION {
        return Some(version);
    }
    let message = format!("registry version {version} is unknown to this host");
    let problem = Problem::new(Code::UnsupportedVersion, node.span(cx), message)
        .label(format!("this host reads {REGISTRY_VERSION}"))
        .why("a newer format may say things that this host would lose when it writes the file")
        .fix("update Locara, or write `1` if the file is older than that");
    report(cx, problem)
}

/// An object with chosen keys, each of a form of its own. What was reported is left out.
fn map<K, V>(
    cx: &mut Cx<'_>,
    node: Node<'_, '_>,
    mut read: impl FnMut(&mut Cx<'_>, &str, &Range<usize>, Node<'_, '_>) -> Option<V>,
) -> Option<BTreeMap<K, V>>
where
    K: FromStr<Err = Invalid> + Ord,
{
    let mut out = BTreeMap::new();
    Fields::any(cx, node)?.each(cx, |cx, word, span, node| match word.parse::<K>() {
        Ok(key) => {
            if let Some(value) = read(cx, word, span, node) {
                out.insert(key, value);
            }
        }
        Err(Invalid { message, why, fix }) => {
            let fix = if node.path.starts_with("models.") { DIGEST_FIX.to_owned() } else { fix };
            cx.problems.push_with(|| {
                Problem::new(Code::BadValue, span.clone(), message).label("not allowed as a key").why(why).fix(fix)
            });
        }
    });
    Some(out)
}

fn models(cx: &mut Cx<'_>, node: Node<'_, '_>, places: &mut Places) -> Option<BTreeMap<Digest, RegisteredModel>> {
    map(cx, node, |cx, digest, key, node| {
        let model = model(cx, node, places)?;
        if let [part] = model.files.as_slice()
            && part.sha256.as_str() != digest
        {
            let message = format!("the model is filed under another digest than that of its file, {}", part.sha256);
            let problem = Problem::new(Code::Contradiction, key.clone(), message)
                .label("not its digest")
                .why("a model is known by the SHA-256 of its file, and roles and caches find it by that")
                .fix("write the digest of the file as the key, or `locara rm` the entry and import the file again");
            cx.problems.push(problem);
        }
        Some(model)
    })
}

fn model(cx: &mut Cx<'_>, node: Node<'_, '_>, places: &mut Places) -> Option<RegisteredModel> {
    let fields = Fields::read(cx, node, &MODEL)?;
    let name: Option<ModelName> = fields.required(cx, "name", |cx, node| parsed(cx, node, Code::BadValue));
    let files = fields.required(cx, "files", |cx, node| list(cx, node, 1..1025, part));
    let source = fields.optional(cx, "source", source);
    let disabled = fields.optional(cx, "disabled", boolean);
    let settings = fields.optional(cx, "settings", settings);
    if let Some(name) = &name {
        let place = fields.span_of(cx, "name");
        if let Some(first) = places.names.get(name.as_str()) {
            let problem =
                Problem::new(Code::DuplicateEntry, place, format!("two models are called {}", quoted(name.as_str())))
                    .label("and again")
                    .other(first.clone(), "first here")
                    .why("clients ask for a model by its name")
                    .fix("give one of them another name");
            cx.problems.push(problem);
        } else {
            places.names.insert(name.to_string(), place);
        }
    }
    Some(RegisteredModel {
        name: name?,
        files: files?.into_iter().map(|(part, _)| part).collect(),
        source: source?,
        disabled: disabled?.unwrap_or_default(),
        settings: settings?.unwrap_or_default(),
    })
}

fn part(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<ModelPart> {
    let fields = Fields::read(cx, node, &PART)?;
    let sha256 = fields.required(cx, "sha256", digest);
    let bytes = fields.required(cx, "bytes", |cx, node| whole(cx, node, 1, u64::MAX, "bytes"));
    let path = fields.optional(cx, "path", absolute);
    Some(ModelPart { sha256: sha256?, bytes: bytes?, path: path? })
}

fn digest(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Digest> {
    match string(cx, node)?.parse() {
        Ok(digest) => Some(digest),
        Err(Invalid { message, why, .. }) => {
            let problem = Problem::new(Code::BadValue, node.span(cx), format!("`{}`: {message}", node.path));
            report(cx, problem.label("no digest").why(why).fix(DIGEST_FIX))
        }
    }
}

/// An absolute path. The registry is read by programs with different working folders.
fn absolute(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<String> {
    super::read::absolute(cx, node).map(str::to_owned)
}

fn source(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Source> {
    let fields = Fields::read(cx, node, &SOURCE)?;
    let kind = fields.required(cx, "kind", |cx, node| one_of(cx, node, &SourceKind::NAMES).map(|n| SourceKind::ALL[n]));
    let name = fields.required(cx, "name", |cx, node| words(cx, node, 1..2049));
    let revision = fields.optional(cx, "revision", |cx, node| words(cx, node, 1..129));
    Some(Source { kind: kind?, name: name?, revision: revision? })
}

fn settings(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<ModelSettings> {
    let fields = Fields::read(cx, node, &SETTINGS)?;
    let context = fields.optional(cx, "context", |cx, node| whole(cx, node, 256, 1_048_576, "tokens"));
    let kv = fields.optional(cx, "kv", kv);
    let max_sequences = fields.optional(cx, "maxSequences", |cx, node| whole(cx, node, 1, 256, "sequences"));
    let tool_parser =
        fields.optional(cx, "toolParser", |cx, node| one_of(cx, node, &ToolParser::NAMES).map(|_| ToolParser::Hermes));
    let template = fields.optional(cx, "template", absolute);
    let keep_loaded = fields.optional(cx, "keepLoaded", boolean);
    let ttl_seconds = fields.optional(cx, "ttlSeconds", |cx, node| whole(cx, node, 1, 604_800, "seconds"));
    Some(ModelSettings {
        context: context?,
        kv: kv?,
        max_sequences: max_sequences?,
        tool_parser: tool_parser?,
        template: template?,
        keep_loaded: keep_loaded?.unwrap_or_default(),
        ttl_seconds: ttl_seconds?,
    })
}

fn kv(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<KvSetting> {
    let fields = Fields::read(cx, node, &KV)?;
    let kind = |cx: &mut Cx<'_>, node: Node<'_, '_>| one_of(cx, node, &KvCacheType::NAMES).map(|n| KvCacheType::ALL[n]);
    let keys = fields.required(cx, "keys", kind);
    let values = fields.required(cx, "values", kind);
    Some(KvSetting { keys: keys?, values: values? })
}

/// `roles` or `aliases`: words, and what each stands for.
fn targets<K>(cx: &mut Cx<'_>, node: Node<'_, '_>, places: &mut Places) -> Option<BTreeMap<K, ModelName>>
where
    K: FromStr<Err = Invalid> + Ord,
{
    map(cx, node, |cx, word, key, node| {
        let target = parsed(cx, node, Code::BadValue)?;
        // A word that is both role and alias is reported for that; the role's target counts.
        places.targets.entry(word.to_owned()).or_insert_with(|| node.span(cx));
        if node.path.starts_with("aliases.") {
            places.aliases.insert(word.to_owned(), key.clone());
        }
        Some(target)
    })
}

/// No alias is a role or the name of a model, and no model is called like a role or like another model's digest.
fn names_mean_one_thing(cx: &mut Cx<'_>, registry: &Registry, places: &Places) {
    let is_role =
        |word: &str| Role::BUILT_IN.contains(&word) || registry.roles.keys().any(|role| role.as_str() == word);
    let mut shadows = |word: &str, place: &Range<usize>, what: &str, meaning: &str| {
        let problem = Problem::new(Code::Contradiction, place.clone(), format!("{what} {} {meaning}", quoted(word)))
            .label("means two things")
            .why("whoever asks for it would get one or the other")
            .fix("write another name");
        cx.problems.push(problem);
    };
    for alias in registry.aliases.keys() {
        let word = alias.as_str();
        let Some(place) = places.aliases.get(word) else { continue };
        if is_role(word) {
            shadows(word, place, "the alias", "is a role already");
        } else if places.names.contains_key(word) {
            shadows(word, place, "the alias", "is the name of a model already");
        } else if word.parse::<Digest>().is_ok() {
            shadows(word, place, "the alias", "is a digest");
        }
    }
    for (name, place) in &places.names {
        if is_role(name) {
            shadows(name, place, "the name of a model", "is a role already");
        } else if name.parse::<Digest>().is_ok() {
            shadows(name, place, "the name of a model", "is a digest");
        }
    }
}

/// Every role and alias leads to a model, or to a built-in role that nobody plays yet.
fn targets_exist(cx: &mut Cx<'_>, registry: &Registry, places: &Places) {
    for (word, place) in &places.targets {
        let problem = |message| Problem::new(Code::BadValue, place.clone(), message);
        match registry.follow(word) {
            Ok(_) | Err(Unresolved::Unassigned { .. } | Unresolved::Disabled { .. }) => {}
            Err(Unresolved::Circle { through, .. }) => {
                // Reported once, at the first word of the circle in the order of words.
                let circle =
                    through.iter().position(|one| Some(one) == through.last()).map_or(&[][..], |at| &through[at..]);
                if circle.iter().min() == Some(word) {
                    cx.problems.push(
                        problem(format!("{} leads in a circle: {}", quoted(word), circle.join(" → ")))
                            .label("comes back here")
                            .fix("let one of them name a model"),
                    );
                }
            }
            Err(Unresolved::Ambiguous { matches, .. }) => {
                let message = format!("{} means {} models: {}", quoted(word), matches.len(), matches.join(", "));
                cx.problems.push(problem(message).label("more than one").fix("write more digits of the digest"));
            }
            Err(Unresolved::Unknown { .. }) => {
                // The last word of a longer way is reported where it stands.
                let Some(target) = registry.step(word) else { continue };
                if registry.step(target.as_str()).is_some() {
                    continue;
                }
                // Words that lead nowhere are no way out.
                let mut suggestions = registry.suggestions(target.as_str());
                suggestions.retain(|word| registry.follow(word).is_ok());
                let unknown =
                    problem(format!("{} names {}, which is nothing here", quoted(word), quoted(target.as_str())));
                cx.problems.push(match suggestions.as_slice() {
                    [meant] => unknown.label(format!("did you mean `{meant}`?")).fix(format!("write `{meant}`")),
                    [] => unknown.label("unknown").fix("add the model first: `locara pull` or `locara import`"),
                    several => unknown.label("unknown").fix(format!("write one of: {}", several.join(", "))),
                });
            }
        }
    }
}
