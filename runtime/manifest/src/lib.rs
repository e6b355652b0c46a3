//! What an app asks for (`locara.json`), what the owner allowed ([`Grants`]), and reports that point at the place.
//!
//! - [`Manifest::parse`] is the only way to a [`Manifest`]: bytes in, a checked manifest or *every* problem at once out.
//!   A manifest is hostile until it has passed.
//! - [`Diagnosis`] speaks miette's protocol: line, column, caret, why, fix. Who prints it decides how it looks.
//! - [`Grants`] is what the owner allowed, [`Grant`] one item of it in the spelling of the command line.
//! - [`Limits`] are the bounds of one run, resolved from a manifest and from nothing else.
//! - [`schema`] is the JSON Schema 2020-12 of `locara.json`, generated from the same types.
//!
//! This crate must never do I/O, name a machine's paths, decide about memory (that is `locara-policy`), or offer a key
//! that nobody enforces. It depends on nothing else of ours.
//!
//! Units: `GB` is 10⁹ bytes and `MB` 10⁶ bytes, as machines and files are sold; tokens are tokens of the role's model.

mod decode;
mod diagnosis;
mod excerpt;
mod folder;
mod grants;
mod host_owned;
mod host_pattern;
mod json;
mod limits;
mod manifest;
mod names;
mod schema;
mod text;

pub use diagnosis::{Code, Diagnosis, Problem};
pub use folder::{Access, FolderAsk, FolderPath};
pub use grants::{Ask, Grant, Grants};
pub use host_pattern::{HostPattern, Scheme};
pub use limits::{Bound, Limits, LimitsAsk};
pub use manifest::{
    Capabilities, Class, ComponentAsk, DEFAULT_CONTEXT, HttpAsk, KeepLoaded, KvAsk, KvType, MANIFEST_VERSION, Manifest,
    ModelAsk, NoDigest, Requires, StorageAsk,
};
pub use names::{AppId, ComponentPath, Digest, Role, ToolName, WitPackage};
pub use schema::schema;
pub use text::Invalid;

/// Name of the manifest file in an app's folder.
pub const FILE_NAME: &str = "locara.json";

/// Largest manifest that is read, in bytes. Real ones are below 4 KiB.
pub const MAX_BYTES: usize = 256 * 1024;
