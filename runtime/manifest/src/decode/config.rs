//! The tables of a configuration, and what must hold between their values.

use std::net::SocketAddr;

use jsonc_parser::ast::Value;

use super::fields::{Cx, Fields, Keys};
use super::read::{absolute, boolean, distinct, list, one_of, parsed, positive, string, whole, within};
use super::{Node, report};
use crate::text::quoted;
use crate::{
    Batch, Code, Config, Defaults, HostPattern, Idle, Interactive, Log, LogLevel, Memory, Models, Problem, Role,
    SamplingDefaults, Server,
};

const TOP: Keys = Keys {
    place: "the top of the file, before the first table",
    required: &[],
    optional: &["preload", "server", "models", "memory", "defaults", "interactive", "batch", "idle", "log"],
};
const SERVER: Keys = Keys {
    place: "`[server]`",
    required: &[],
    optional: &["listen", "allowed_hosts", "allowed_origins", "request_max_bytes"],
};
const MODELS: Keys = Keys { place: "`[models]`", required: &[], optional: &["dirs", "hub"] };
const MEMORY: Keys =
    Keys { place: "`[memory]`", required: &[], optional: &["ceiling_fraction", "ceiling_gb", "reserve_gb"] };
const DEFAULTS: Keys = Keys {
    place: "`[defaults]`",
    required: &[],
    optional: &["max_tokens", "max_tokens_hard", "thinking_budget", "sampling"],
};
const SAMPLING: Keys = Keys {
    place: "`[defaults.sampling]`",
    required: &[],
    optional: &["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty"],
};
const INTERACTIVE: Keys = Keys { place: "`[interactive]`", required: &[], optional: &["max_sequences"] };
const BATCH: Keys = Keys { place: "`[batch]`", required: &[], optional: &["window_ms", "max_size", "max_sequences"] };
const IDLE: Keys = Keys { place: "`[idle]`", required: &[], optional: &["ttl_seconds"] };
const LOG: Keys = Keys { place: "`[log]`", required: &[], optional: &["prompts", "level"] };

/// All kinds of tables of a configuration.
pub(super) const ALL: &[&Keys] =
    &[&TOP, &SERVER, &MODELS, &MEMORY, &DEFAULTS, &SAMPLING, &INTERACTIVE, &BATCH, &IDLE, &LOG];

/// The whole configuration. `None` is "reported".
pub(super) fn read(cx: &mut Cx<'_>, tree: &Value<'_>) -> Option<Config> {
    let top = Fields::read(cx, Node { value: tree, path: "" }, &TOP)?;
    let preload = top.optional(cx, "preload", preload);
    let server = top.optional(cx, "server", server);
    let models = top.optional(cx, "models", models);
    let memory = top.optional(cx, "memory", memory);
    let defaults = top.optional(cx, "defaults", defaults);
    let interactive = top.optional(cx, "interactive", |cx, node| {
        let fields = Fields::read(cx, node, &INTERACTIVE)?;
        Some(Interactive { max_sequences: fields.optional(cx, "max_sequences", sequences)? })
    });
    let batch = top.optional(cx, "batch", batch);
    let idle = top.optional(cx, "idle", |cx, node| {
        let fields = Fields::read(cx, node, &IDLE)?;
        let ttl_seconds = fields.optional(cx, "ttl_seconds", |cx, node| whole(cx, node, 1, 604_800, "seconds"))?;
        Some(Idle { ttl_seconds: ttl_seconds.unwrap_or(Idle::default().ttl_seconds) })
    });
    let log = top.optional(cx, "log", |cx, node| {
        let fields = Fields::read(cx, node, &LOG)?;
        let prompts = fields.optional(cx, "prompts", boolean);
        let level =
            fields.optional(cx, "level", |cx, node| one_of(cx, node, &LogLevel::NAMES).map(|n| LogLevel::ALL[n]));
        Some(Log { prompts: prompts?.unwrap_or_default(), level: level?.unwrap_or_default() })
    });
    Some(Config {
        preload: preload?.unwrap_or_default(),
        server: server?.unwrap_or_default(),
        models: models?.unwrap_or_default(),
        memory: memory?.unwrap_or_default(),
        defaults: defaults?.unwrap_or_default(),
        interactive: interactive?.unwrap_or_default(),
        batch: batch?.unwrap_or_default(),
        idle: idle?.unwrap_or_default(),
        log: log?.unwrap_or_default(),
    })
}

fn preload(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Vec<Role>> {
    let roles = list(cx, node, 0..17, |cx, node| parsed::<Role>(cx, node, Code::BadValue))?;
    Some(distinct(cx, node.path, roles, |one, other| one == other, ToString::to_string))
}

fn server(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Server> {
    let fields = Fields::read(cx, node, &SERVER)?;
    let listen = fields.optional(cx, "listen", listen);
    let hosts = fields.optional(cx, "allowed_hosts", |cx, node| {
        let hosts = list(cx, node, 0..65, host)?;
        Some(distinct(cx, node.path, hosts, |one, other| one == other, String::clone))
    });
    let origins = fields.optional(cx, "allowed_origins", |cx, node| {
        let origins = list(cx, node, 0..65, |cx, node| parsed::<HostPattern>(cx, node, Code::BadValue))?;
        Some(distinct(cx, node.path, origins, |one, other| one == other, ToString::to_string))
    });
    let largest = fields.optional(cx, "request_max_bytes", |cx, node| whole(cx, node, 1024_u64, 1 << 30, "bytes"));
    let default = Server::default();
    Some(Server {
        listen: listen?.unwrap_or(default.listen),
        allowed_hosts: hosts?.unwrap_or_default(),
        allowed_origins: origins?.unwrap_or_default(),
        request_max_bytes: largest?.unwrap_or(default.request_max_bytes),
    })
}

fn listen(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<SocketAddr> {
    let text = string(cx, node)?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        Ok(address) => {
            let message = format!("`{}` is {address}, which other machines can reach", node.path);
            let problem = Problem::new(Code::BadValue, node.span(cx), message)
                .label("not the machine itself")
                .why("whoever reaches the port can use the models and read what they are told; there is no password")
                .fix(
                    "write an address of the machine itself, like `127.0.0.1:11434`, and let a proxy or SSH forward it",
                );
            report(cx, problem)
        }
        Err(_) => {
            let message = format!("`{}` is {}, not an address with a port", node.path, quoted(text));
            let problem = Problem::new(Code::BadValue, node.span(cx), message)
                .label("not an address and port")
                .fix("write one like `127.0.0.1:11434` or `[::1]:11434`; names are not looked up");
            report(cx, problem)
        }
    }
}

/// A value of the `Host` header: a name or address, and maybe a port.
fn host(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<String> {
    let text = string(cx, node)?;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:[]".contains(c);
    if (1..=255).contains(&text.len()) && text.chars().all(good) {
        return Some(text.to_owned());
    }
    let message = format!("`{}` is {}, not a value of the `Host` header", node.path, quoted(text));
    let problem = Problem::new(Code::BadValue, node.span(cx), message)
        .label("not a host")
        .why("pages of other sites are kept out by it, so no patterns are taken")
        .fix("write a name in lower case and maybe a port, like `locara.local:11434`");
    report(cx, problem)
}

fn models(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Models> {
    let fields = Fields::read(cx, node, &MODELS)?;
    let dirs = fields.optional(cx, "dirs", |cx, node| {
        let dirs = list(cx, node, 0..65, |cx, node| absolute(cx, node).map(str::to_owned))?;
        Some(distinct(cx, node.path, dirs, |one, other| one == other, String::clone))
    });
    let hub = fields.optional(cx, "hub", hub);
    Some(Models { dirs: dirs?.unwrap_or_default(), hub: hub?.unwrap_or_else(|| Models::default().hub) })
}

fn hub(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<String> {
    let text = string(cx, node)?;
    let bad = |message: String| {
        Problem::new(Code::BadValue, node.span(cx), message)
            .label("not the address of a hub")
            .fix("write `https://` and a host, and maybe a path: `https://hub.example.com`")
    };
    let problem = match url::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
            bad(format!("`{}` is {}, which no model can be fetched from", node.path, quoted(text)))
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            bad(format!("`{}` holds a user or a password", node.path))
                .why("the file may be read by others; the token of the hub comes from `HF_TOKEN`")
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() || text.len() > 2048 => {
            bad(format!("`{}` is longer than the address of a hub", node.path))
        }
        Ok(_) => return Some(text.trim_end_matches('/').to_owned()),
        Err(error) => bad(format!("`{}` is {}, not an address: {error}", node.path, quoted(text))),
    };
    report(cx, problem)
}

fn memory(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Memory> {
    let fields = Fields::read(cx, node, &MEMORY)?;
    let fraction = fields.optional(cx, "ceiling_fraction", |cx, node| within(cx, node, 0.05, 0.95));
    let gb = fields.optional(cx, "ceiling_gb", |cx, node| positive(cx, node, 4096.0, "GB"));
    let reserve = fields.optional(cx, "reserve_gb", |cx, node| positive(cx, node, 4096.0, "GB"));
    if let (Some(Some(_)), Some(Some(_))) = (fraction, gb) {
        let problem = Problem::new(
            Code::Contradiction,
            fields.span_of(cx, "ceiling_gb"),
            "`memory` has two ceilings, a fraction and a figure in GB",
        )
        .label("one ceiling")
        .other(fields.span_of(cx, "ceiling_fraction"), "another one")
        .fix("remove one of them");
        return report(cx, problem);
    }
    Some(Memory { ceiling_fraction: fraction?, ceiling_gb: gb?, reserve_gb: reserve? })
}

fn defaults(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Defaults> {
    let fields = Fields::read(cx, node, &DEFAULTS)?;
    let tokens = |min| move |cx: &mut Cx<'_>, node: Node<'_, '_>| whole(cx, node, min, 1_048_576, "tokens");
    let max_tokens = fields.optional(cx, "max_tokens", tokens(1_u32));
    let hard = fields.optional(cx, "max_tokens_hard", tokens(1));
    let thinking_budget = fields.optional(cx, "thinking_budget", tokens(0));
    let sampling = fields.optional(cx, "sampling", sampling);
    if let (Some(Some(soft)), Some(Some(hard))) = (max_tokens, hard)
        && soft > hard
    {
        let message = format!("`defaults.max_tokens` is {soft}, above the {hard} of `defaults.max_tokens_hard`");
        let problem = Problem::new(Code::Contradiction, fields.span_of(cx, "max_tokens"), message)
            .label("more than the hard bound")
            .other(fields.span_of(cx, "max_tokens_hard"), "the hard bound")
            .fix(format!("write {hard} at most, or raise the hard bound"));
        return report(cx, problem);
    }
    Some(Defaults {
        max_tokens: max_tokens?,
        max_tokens_hard: hard?,
        thinking_budget: thinking_budget?,
        sampling: sampling?.unwrap_or_default(),
    })
}

fn sampling(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<SamplingDefaults> {
    let fields = Fields::read(cx, node, &SAMPLING)?;
    let range = |min, max| move |cx: &mut Cx<'_>, node: Node<'_, '_>| within(cx, node, min, max);
    let temperature = fields.optional(cx, "temperature", range(0.0, 2.0));
    let top_p = fields.optional(cx, "top_p", range(0.0, 1.0));
    let top_k = fields.optional(cx, "top_k", |cx, node| whole(cx, node, 0, 1_000_000, "tokens"));
    let min_p = fields.optional(cx, "min_p", range(0.0, 1.0));
    let repeat_penalty = fields.optional(cx, "repeat_penalty", range(0.1, 2.0));
    let frequency_penalty = fields.optional(cx, "frequency_penalty", range(-2.0, 2.0));
    let presence_penalty = fields.optional(cx, "presence_penalty", range(-2.0, 2.0));
    Some(SamplingDefaults {
        temperature: temperature?,
        top_p: top_p?,
        top_k: top_k?,
        min_p: min_p?,
        repeat_penalty: repeat_penalty?,
        frequency_penalty: frequency_penalty?,
        presence_penalty: presence_penalty?,
    })
}

fn batch(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<Batch> {
    let fields = Fields::read(cx, node, &BATCH)?;
    let window = fields.optional(cx, "window_ms", |cx, node| whole(cx, node, 0, 10_000, "ms"));
    let size = fields.optional(cx, "max_size", |cx, node| whole(cx, node, 1, 256, "requests"));
    let max_sequences = fields.optional(cx, "max_sequences", sequences);
    let default = Batch::default();
    Some(Batch {
        window_ms: window?.unwrap_or(default.window_ms),
        max_size: size?.unwrap_or(default.max_size),
        max_sequences: max_sequences?,
    })
}

fn sequences(cx: &mut Cx<'_>, node: Node<'_, '_>) -> Option<u32> {
    whole(cx, node, 1, 256, "requests")
}
