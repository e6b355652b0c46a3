//! The objects of a manifest, and what must hold between their values.

use jsonc_parser::ast::Value;

use super::fields::{
    CAPABILITIES, COMPONENT, Cx, FOLDER, Fields, HTTP, KEEP_LOADED, KV, LIMITS, MODEL, REQUIRES, STORAGE, TOP,
};
use super::read::{distinct, list, one_of, parsed, positive, string, whole, words};
use super::{Node, report};
use crate::text::{grouped, quoted};
use crate::{
    Access, Bound, Capabilities, Class, Code, ComponentAsk, FolderAsk, HostPattern, HttpAsk, KeepLoaded, KvAsk, KvType,
    LimitsAsk, MANIFEST_VERSION, Manifest, ModelAsk, Problem, Requires, Role, StorageAsk,
};

/// The whole manifest. `None` is "reported".
pub(super) fn read(cx: &mut Cx<'_>, tree: &Value<'_>) -> Option<Manifest> {
    let top = Fields::read(cx, Node { value: tree, path: "" }, &TOP)?;
    // Every key is read before the first `?`: each has its own problems.
    let schema = top.optional(cx, "$schema", |cx, node| string(cx, node).map(str::to_owned));
    let manifest_version = top.required(cx, "manifestVersion", manifest_version);
    let id = top.required(cx, "id", |cx, node| parsed(cx, node, Code::BadValue));
    let name = top.required(cx, "name", |cx, node| words(cx, node, 1..65));
    let version = top.required(cx, "version", semantic_version);
    let description = top.required(cx, "description", |cx, node| words(cx, node, 1..501));
    let author = top.optional(cx, "author", |cx, node| words(cx, node, 1..129));
    let license = top.optional(cx, "license", |cx, node| words(cx, node, 1..129));
    let component = top.required(cx, "component", component);
    let wit = top.required(cx, "wit", |cx, node| parsed(cx, node, Code::UnsupportedWit));
    let class = top.optional(cx, "class", class);
    let requires = top.required(cx, "requires", requires);
    let models = top.optional(cx, "models", models);
    let capabilities = top.optional(cx, "capabilities", capabilities);
    let ceiling = requires.as_ref().map(Requires::memory_bytes);
    let limits = top.optional(cx, "limits", |cx, node| limits(cx, node, ceiling));
    Some(Manifest {
        schema: schema?,
        manifest_version: manifest_version?,
        id: id?,
        name: name?,
        version: version?,
        description: description?,
        author: author?,
        license: license?,
        component: component?,
        wit: wit?,
        class: class?.unwrap_or_default(),
        requires: requires?,
        models: models?.unwrap_or_default(),
        capabilities: capabilities?.unwrap_or_default(),
        limits: limits?.unwrap_or_default(),
    })
}

fn manifest_version(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<u32> {
    let version = whole(cx, node, 0, u32::MAX, "versions")?;
    if version == MANIFEST_VERSION {
        return Some(version);
    }
    let problem = Problem::new(
        Code::UnsupportedVersion,
        node.span(cx),
        format!("manifest version {version} is unknown to this host"),
    )
    .label(format!("this host reads {MANIFEST_VERSION}"));
    report(
        cx,
        if version > MANIFEST_VERSION {
            problem
                .why("a newer format may ask for things that this host would silently leave out")
                .fix("update Locara, or write the manifest in version 1")
        } else {
            problem.fix("write `1`")
        },
    )
}

fn semantic_version(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<semver::Version> {
    let text = string(cx, node)?;
    match semver::Version::parse(text) {
        Ok(version) if text.len() <= 64 => Some(version),
        Ok(_) => {
            let problem = Problem::new(Code::BadValue, node.span(cx), "`version` is longer than 64 characters")
                .label("too long")
                .fix("write a version like `1.0.0`");
            report(cx, problem)
        }
        Err(error) => {
            let problem =
                Problem::new(Code::BadValue, node.span(cx), format!("`version` is {}: {error}", quoted(text)))
                    .label("not a semantic version")
                    .why("updates are ordered by it")
                    .fix("write three numbers like `1.0.0`");
            report(cx, problem)
        }
    }
}

fn component(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<ComponentAsk> {
    let fields = Fields::read(cx, node, &COMPONENT)?;
    let path = fields.required(cx, "path", |cx, node| parsed(cx, node, Code::BadValue));
    let sha256 = fields.optional(cx, "sha256", |cx, node| parsed(cx, node, Code::BadValue));
    Some(ComponentAsk { path: path?, sha256: sha256? })
}

fn class(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Class> {
    one_of(cx, node, &Class::NAMES).map(|n| [Class::Interactive, Class::Batch][n])
}

fn requires(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Requires> {
    let fields = Fields::read(cx, node, &REQUIRES)?;
    let memory_gb = fields.required(cx, "memoryGB", |cx, node| positive(cx, node, 1024.0, "GB"));
    let floor_gb = fields.optional(cx, "floorGB", |cx, node| positive(cx, node, 1024.0, "GB"));
    let (memory_gb, floor_gb) = (memory_gb?, floor_gb?);
    if let Some(floor) = floor_gb.filter(|floor| *floor > memory_gb) {
        let message = format!("the floor of {floor} GB is above the ceiling of {memory_gb} GB");
        let problem = Problem::new(Code::Contradiction, fields.span_of(cx, "floorGB"), message)
            .label("the least it can work with")
            .other(fields.span_of(cx, "memoryGB"), "the most it may have")
            .fix("raise `memoryGB`, or lower `floorGB`");
        return report(cx, problem);
    }
    Some(Requires { memory_gb, floor_gb })
}

fn models(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Vec<ModelAsk>> {
    let entries = list(cx, node, 0..17, model)?;
    Some(distinct(cx, "models", entries, |a, b| a.role == b.role, |model| model.role.to_string()))
}

fn model(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<ModelAsk> {
    let fields = Fields::read(cx, node, &MODEL)?;
    let role = fields.required(cx, "role", |cx, node| parsed::<Role>(cx, node, Code::BadValue));
    let context = fields.optional(cx, "context", |cx, node| whole(cx, node, 256, 1_048_576, "tokens"));
    let kv = fields.optional(cx, "kv", kv);
    let keep_loaded = fields.optional(cx, "keepLoaded", keep_loaded);
    let draft = fields.optional(cx, "draft", |cx, node| parsed::<Role>(cx, node, Code::BadValue));
    let max_tokens = fields.optional(cx, "maxTokens", |cx, node| whole(cx, node, 1, 1_048_576, "tokens"));
    let model = ModelAsk {
        role: role?,
        context: context?,
        kv: kv?,
        keep_loaded: keep_loaded?,
        draft: draft?,
        max_tokens: max_tokens?,
    };
    let consistent = [drafts(cx, &fields, &model), leaves_room(cx, &fields, &model)];
    consistent.iter().all(|good| *good).then_some(model)
}

/// Reports a draft that cannot draft and text settings of a role without text.
fn drafts(cx: &mut Cx<'_>, fields: &Fields<'_, '_>, model: &ModelAsk) -> bool {
    let before = cx.problems.count();
    let contradiction =
        |cx: &Cx<'_>, key: &str, message: String| Problem::new(Code::Contradiction, fields.span_of(cx, key), message);
    if model.role.is_embedding() {
        let text_only = [("draft", model.draft.is_some()), ("maxTokens", model.max_tokens.is_some())];
        for (key, _) in text_only.into_iter().filter(|(_, present)| *present) {
            let message = format!("`{}` is set for the role `embedding`", fields.path_of(key));
            let problem = contradiction(cx, key, message)
                .label("has no effect")
                .why("an embedding model makes vectors and writes no answer")
                .fix("remove the key");
            cx.problems.push(problem);
        }
    } else if let Some(draft) = &model.draft {
        if *draft == model.role {
            let problem = contradiction(cx, "draft", format!("the role `{draft}` drafts for itself"))
                .label("the same role")
                .other(fields.span_of(cx, "role"), "drafted for")
                .why("a draft gains time only if it is a much smaller model")
                .fix("name another role, like `quickest`, or remove the key");
            cx.problems.push(problem);
        } else if draft.is_embedding() {
            let problem = contradiction(cx, "draft", "an embedding model cannot draft".to_owned())
                .label("writes no text")
                .fix("name a role that writes text, like `quickest`, or remove the key");
            cx.problems.push(problem);
        }
    }
    cx.problems.count() == before
}

/// Reports an answer that may fill the whole context.
fn leaves_room(cx: &mut Cx<'_>, fields: &Fields<'_, '_>, model: &ModelAsk) -> bool {
    let context = model.context_tokens();
    let Some(max_tokens) = model.max_tokens.filter(|max_tokens| *max_tokens >= context) else { return true };
    let message = format!(
        "answers of {} tokens leave no room for a prompt in a context of {}",
        grouped(max_tokens.into()),
        grouped(context.into())
    );
    let mut problem = Problem::new(Code::Contradiction, fields.span_of(cx, "maxTokens"), message)
        .label("the whole context")
        .why("prompt and answer share the context")
        .fix("lower `maxTokens`, or raise `context`");
    if model.context.is_some() {
        problem = problem.other(fields.span_of(cx, "context"), "the context");
    }
    cx.problems.push(problem);
    false
}

fn kv(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<KvAsk> {
    let fields = Fields::read(cx, node, &KV)?;
    let kind = fields.required(cx, "type", kv_type);
    let reason = fields.required(cx, "reason", |cx, node| words(cx, node, 10..301));
    Some(KvAsk { kind: kind?, reason: reason? })
}

/// How the names of ggml's types with fewer bits than the default, q8_0, begin.
const BELOW_DEFAULT: [&str; 6] = ["q2", "q3", "q4", "q5", "q6", "iq"];

fn kv_type(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<KvType> {
    let text = string(cx, node)?;
    let folded = text.to_ascii_lowercase();
    if folded == "f16" && text == "f16" {
        return Some(KvType::F16);
    }
    let shown = quoted(text);
    let problem = |code, message: String| Problem::new(code, node.span(cx), message);
    let problem = match folded.as_str() {
        "f16" | "fp16" | "float16" => problem(Code::BadValue, format!("`{}` is {shown}", node.path))
            .label("did you mean `f16`?")
            .fix("write `f16`"),
        "q8_0" | "q8" => problem(Code::BadValue, format!("{shown} is what the host takes by itself"))
            .label("the default")
            .why("`kv` asks for more than the default, and costs memory of the app")
            .fix("remove `kv`, or write `f16` if the default is not good enough"),
        below if BELOW_DEFAULT.iter().any(|prefix| below.starts_with(prefix)) => problem(
            Code::KvBelowDefault,
            format!("the KV type {shown} is below the host's default, q8_0"),
        )
        .label("fewer bits than q8_0")
        .why("it makes answers worse, for every app with the same model, and it is the host that must find the memory")
        .fix("remove `kv`; if memory is short, lower `context`"),
        "f32" | "bf16" => problem(Code::BadValue, format!("the KV type {shown} is not on offer"))
            .label("not on offer")
            .why("no model is measurably better with it than with f16")
            .fix("write `f16`"),
        _ => problem(Code::BadValue, format!("{shown} is not a KV type"))
            .label("no such type")
            .fix("write `f16`, the one type above the default"),
    };
    report(cx, problem)
}

fn keep_loaded(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<KeepLoaded> {
    if let Value::BooleanLit(_) = node.value {
        let problem =
            Problem::new(Code::WrongType, node.span(cx), format!("`{}` is a boolean, not an object", node.path))
                .label("without a reason")
                .why("a model that stays loaded takes memory from everything else; the owner wants to know why")
                .fix("write `\"keepLoaded\": {\"reason\": \"…\"}`, or remove the key");
        return report(cx, problem);
    }
    let fields = Fields::read(cx, node, &KEEP_LOADED)?;
    let reason = fields.required(cx, "reason", |cx, node| words(cx, node, 10..301));
    Some(KeepLoaded { reason: reason? })
}

fn capabilities(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Capabilities> {
    let fields = Fields::read(cx, node, &CAPABILITIES)?;
    let storage = fields.optional(cx, "storage", |cx, node| {
        let fields = Fields::read(cx, node, &STORAGE)?;
        let quota_mb = fields.required(cx, "quotaMB", |cx, node| whole(cx, node, 1, 10_000, "MB"))?;
        Some(StorageAsk { quota_mb })
    });
    let http = fields.optional(cx, "http", |cx, node| {
        let fields = Fields::read(cx, node, &HTTP)?;
        let hosts = fields.required(cx, "hosts", |cx, node| {
            let entries = list(cx, node, 1..65, |cx, node| parsed::<HostPattern>(cx, node, Code::BadValue))?;
            Some(distinct(cx, node.path, entries, PartialEq::eq, ToString::to_string))
        })?;
        Some(HttpAsk { hosts })
    });
    let folders = fields.optional(cx, "folders", |cx, node| {
        let entries = list(cx, node, 0..33, folder)?;
        Some(distinct(cx, node.path, entries, |a, b| a.path == b.path, |folder| folder.path.to_string()))
    });
    let tools = fields.optional(cx, "tools", |cx, node| {
        let entries = list(cx, node, 0..65, |cx, node| parsed(cx, node, Code::BadValue))?;
        Some(distinct(cx, node.path, entries, PartialEq::eq, ToString::to_string))
    });
    Some(Capabilities {
        storage: storage?,
        http: http?,
        folders: folders?.unwrap_or_default(),
        tools: tools?.unwrap_or_default(),
    })
}

fn folder(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<FolderAsk> {
    let fields = Fields::read(cx, node, &FOLDER)?;
    let path = fields.required(cx, "path", |cx, node| parsed(cx, node, Code::BadValue));
    let access = fields
        .required(cx, "access", |cx, node| one_of(cx, node, &Access::NAMES).map(|n| [Access::Read, Access::Write][n]));
    Some(FolderAsk { path: path?, access: access? })
}

/// `ceiling` is `requires.memoryGB` in bytes, if that could be read.
fn limits(cx: &mut Cx<'_>, node: Node<'_, '_>, ceiling: Option<u64>) -> Option<LimitsAsk> {
    let fields = Fields::read(cx, node, &LIMITS)?;
    let bound = |cx: &mut Cx<'_>, bound: Bound| {
        fields.optional(cx, bound.key, |cx, node| whole(cx, node, bound.min, bound.max, bound.unit))
    };
    let memory_mb = bound(cx, Bound::MEMORY_MB);
    let cpu_ms = bound(cx, Bound::CPU_MS);
    let wall_seconds = bound(cx, Bound::WALL_SECONDS);
    let output_mb = bound(cx, Bound::OUTPUT_MB);
    let host_calls_per_second = bound(cx, Bound::HOST_CALLS_PER_SECOND);
    let table_elements = bound(cx, Bound::TABLE_ELEMENTS);
    let sessions = bound(cx, Bound::SESSIONS);
    let generations = bound(cx, Bound::GENERATIONS);
    if let (Some(Some(mb)), Some(ceiling)) = (memory_mb, ceiling)
        && u64::from(mb) * crate::limits::MB > ceiling
    {
        let message = format!(
            "the linear memory of {} MB is above the app's ceiling of {} MB",
            grouped(mb.into()),
            grouped(ceiling / crate::limits::MB)
        );
        let problem = Problem::new(Code::Contradiction, fields.span_of(cx, Bound::MEMORY_MB.key), message)
            .label("part of `requires.memoryGB`")
            .why("the ceiling covers the app's own memory, its conversations and its share of the models")
            .fix("raise `requires.memoryGB`, or lower `limits.memoryMB`");
        return report(cx, problem);
    }
    Some(LimitsAsk {
        memory_mb: memory_mb?,
        cpu_ms: cpu_ms?,
        wall_seconds: wall_seconds?,
        output_mb: output_mb?,
        host_calls_per_second: host_calls_per_second?,
        table_elements: table_elements?,
        sessions: sessions?,
        generations: generations?,
    })
}
