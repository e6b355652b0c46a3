//! What an app asks for (`locara.json`), what the owner allowed ([`Grants`]), which models there are (`registry.json`), what
//! the owner sets (`locara.toml`), and reports that point at the place.
//!
//! - [`Manifest::parse`] is the only way to a [`Manifest`]: bytes in, a checked manifest or *every* problem at once out.
//!   A manifest is hostile until it has passed.
//! - [`Registry`] and [`Config`] come in the same way. [`Registry::resolve`] is the way from a word to a model.
//! - [`Diagnosis`] speaks miette's protocol: line, column, caret, why, fix. Who prints it decides how it looks.
//! - [`Grants`] is what the owner allowed, [`Grant`] one item of it in the spelling of the command line.
//! - [`Limits`] are the bounds of one run, resolved from a manifest and from nothing else.
//! - [`schema`], [`registry_schema`] and [`config_schema`] are the JSON Schemas 2020-12 of the three files, generated from
//!   the same types.
//!
//! This crate must never do I/O, name a machine's paths, decide about memory (that is `locara-policy`), or offer a key
//! that nobody enforces. It depends on nothing else of ours.
//!
//! Units: `GB` is 10⁹ bytes and `MB` 10⁶ bytes, as machines and files are sold; tokens are tokens of the role's model.

mod config;
mod decode;
mod diagnosis;
mod document;
mod excerpt;
mod folder;
mod grants;
mod host_owned;
mod host_pattern;
mod json;
mod limits;
mod manifest;
mod names;
mod registry;
mod resolve;
mod schema;
mod text;
mod toml_tree;

pub use config::{
    Batch, CONFIG_FILE_NAME, Config, Defaults, Idle, Interactive, Log, LogLevel, Memory, Models, SamplingDefaults,
    Server,
};
pub use diagnosis::{Code, Diagnosis, Problem};
pub use folder::{Access, FolderAsk, FolderPath};
pub use grants::{Ask, Grant, Grants};
pub use host_pattern::{HostPattern, Scheme};
pub use limits::{Bound, Limits, LimitsAsk};
pub use manifest::{
    Capabilities, Class, ComponentAsk, DEFAULT_CONTEXT, HttpAsk, KeepLoaded, KvAsk, KvType, MANIFEST_VERSION, Manifest,
    ModelAsk, NoDigest, Requires, StorageAsk,
};
pub use names::{AppId, ComponentPath, Digest, ModelName, Role, ToolName, WitPackage};
pub use registry::{
    KvCacheType, KvSetting, ModelPart, ModelSettings, REGISTRY_VERSION, RegisteredModel, Registry, Source, SourceKind,
    ToolParser,
};
pub use resolve::{MIN_DIGEST_PREFIX, Resolved, Unresolved};
pub use schema::{config_schema, registry_schema, schema};
pub use text::Invalid;

/// Name of the manifest file in an app's folder.
pub const FILE_NAME: &str = "locara.json";

/// Largest manifest that is read, in bytes. Real ones are below 4 KiB.
pub const MAX_BYTES: usize = 256 * 1024;
