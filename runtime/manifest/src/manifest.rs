//! The types of `locara.json`. Their doc comments are the descriptions in the JSON Schema, so an author reads them in the
//! editor. They are only made by [`Manifest::parse`]: no `Deserialize`, or a manifest could come in unchecked.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    AppId, ComponentPath, Diagnosis, Digest, FolderAsk, HostPattern, Limits, LimitsAsk, Role, ToolName, WitPackage,
    decode, limits,
};

/// The format of `locara.json` that this crate reads and writes.
pub const MANIFEST_VERSION: u32 = 1;

/// Tokens of context that a role gets when its entry names none. A manifest may ask for 256 to 1,048,576.
pub const DEFAULT_CONTEXT: u32 = 8192;

/// The manifest of a Locara app: what it is, what it needs, what it asks the owner of the machine to allow.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "Locara app manifest")]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Manifest {
    /// The JSON Schema of this file, for editors. The host ignores it.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Format of this file. Always 1.
    #[schemars(extend("const" = 1))]
    pub manifest_version: u32,
    /// Who the app is, for good: a reverse domain name such as `org.example.summarize`. Grants and storage belong to it.
    pub id: AppId,
    /// The name people see. At most 64 characters.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Version of the app, as semantic versioning writes it: `1.0.0`.
    #[schemars(with = "String", length(max = 64), regex(pattern = r"^\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$"))]
    pub version: semver::Version,
    /// One or two sentences: what the app does for its user. At most 500 characters.
    #[schemars(length(min = 1, max = 500))]
    pub description: String,
    /// Who made the app. At most 128 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub author: Option<String>,
    /// Licence of the app, as SPDX writes it: `MIT OR Apache-2.0`. At most 128 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub license: Option<String>,
    /// The WebAssembly component.
    pub component: ComponentAsk,
    /// The interface that the component was built for: `locara:app@0.1.0`.
    pub wit: WitPackage,
    /// Whether a person waits for the app.
    #[serde(default)]
    pub class: Class,
    /// Memory of the whole app: its own, its conversations, its share of the models.
    pub requires: Requires,
    /// The models that the app talks to, by role. The owner decides which model plays a role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub models: Vec<ModelAsk>,
    /// What the app may touch besides models. Absent means nothing.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
    /// Bounds of one run. Absent ones take the defaults.
    #[serde(default, skip_serializing_if = "LimitsAsk::is_empty")]
    pub limits: LimitsAsk,
}

/// The WebAssembly component of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct ComponentAsk {
    /// The `.wasm` file, relative to the folder of this manifest.
    pub path: ComponentPath,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits. `locara pack` writes it; nothing is installed without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// Whether a person waits for the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A person waits: served first, tightened last.
    #[default]
    Interactive,
    /// Nobody waits: runs when there is room, gives way first.
    Batch,
}

impl Class {
    /// The spellings, in the order of the variants.
    pub(crate) const NAMES: [&str; 2] = ["interactive", "batch"];

    /// The spelling in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

/// Memory of the whole app: its own, its conversations (KV) and its share of the models.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Requires {
    /// The ceiling in GB (10⁹ bytes): the host lends no more, and warns the app when it comes near. At most 1024.
    #[serde(rename = "memoryGB")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1024))]
    pub memory_gb: f64,
    /// The floor in GB: below this the app cannot work, so it is refused rather than squeezed. At most `memoryGB`.
    #[serde(rename = "floorGB", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1024))]
    pub floor_gb: Option<f64>,
}

impl Requires {
    /// The ceiling, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        gb(self.memory_gb)
    }

    /// The floor, in bytes; 0 if the manifest names none.
    #[must_use]
    pub fn floor_bytes(&self) -> u64 {
        self.floor_gb.map_or(0, gb)
    }
}

/// GB to bytes. Both figures of [`Requires`] are finite, positive and at most 1024, so the product fits many times over.
fn gb(figure: f64) -> u64 {
    (figure * 1e9).round() as u64
}

/// One role that the app talks to, and what it needs of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct ModelAsk {
    /// The role: `default`, `coding`, `quickest`, `tool-calling`, `embedding`, `rerank`, or one that the owner made.
    pub role: Role,
    /// Tokens that prompt and answer of one conversation take together. 8192 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 1048576))]
    pub context: Option<u32>,
    /// Asks for a more exact KV cache than the host's default. It costs memory of the app's ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv: Option<KvAsk>,
    /// Asks the host to keep the model loaded while the app is idle. Under pressure the host unloads it all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_loaded: Option<KeepLoaded>,
    /// The role of a small model that drafts for this one (speculative decoding). The host counts both models, and drafts
    /// only while it measures a gain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<Role>,
    /// Upper bound of one answer, in tokens. Must leave room for a prompt in `context`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1048576))]
    pub max_tokens: Option<u32>,
}

impl ModelAsk {
    /// Tokens that prompt and answer of one conversation take together: what was asked, or [`DEFAULT_CONTEXT`].
    #[must_use]
    pub fn context_tokens(&self) -> u32 {
        self.context.unwrap_or(DEFAULT_CONTEXT)
    }
}

/// A more exact KV cache than the default, with the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct KvAsk {
    /// The type: `f16`.
    #[serde(rename = "type")]
    pub kind: KvType,
    /// Why the default is not good enough. The owner reads it. 10 to 300 characters.
    #[schemars(length(min = 10, max = 300))]
    pub reason: String,
}

/// The KV cache types above the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum KvType {
    /// 16 bits for each value: twice the memory of the default.
    F16,
}

/// A request to keep a model loaded, with the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct KeepLoaded {
    /// Why a reload would hurt. The owner reads it. 10 to 300 characters.
    #[schemars(length(min = 10, max = 300))]
    pub reason: String,
}

/// What the app asks to touch besides models. Everything here needs a grant of the owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Capabilities {
    /// A key-value store of the app's own, on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageAsk>,
    /// HTTP requests to named hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAsk>,
    /// Folders of the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub folders: Vec<FolderAsk>,
    /// Names of the tools that the app may offer a model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("uniqueItems" = true))]
    pub tools: Vec<ToolName>,
}

impl Capabilities {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A key-value store of the app's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct StorageAsk {
    /// Size in MB (10⁶ bytes) that keys and values may take together. 1 to 10,000.
    #[serde(rename = "quotaMB")]
    #[schemars(range(min = 1, max = 10000))]
    pub quota_mb: u32,
}

impl StorageAsk {
    /// The quota, in bytes.
    #[must_use]
    pub fn quota_bytes(&self) -> u64 {
        u64::from(self.quota_mb) * limits::MB
    }
}

/// HTTP requests to named hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct HttpAsk {
    /// The hosts, as `https://api.example.com`, `*.example.com` or `http://localhost:8080`. Never a path.
    #[schemars(length(min = 1, max = 64), extend("uniqueItems" = true))]
    pub hosts: Vec<HostPattern>,
}

/// The manifest names no digest of its component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the manifest of {id} has no component.sha256, so the file {component} cannot be checked. Run `locara pack` in the app's folder: it writes the digest"
)]
pub struct NoDigest {
    /// The app.
    pub id: AppId,
    /// The component that the digest would pin.
    pub component: ComponentPath,
}

impl Manifest {
    /// Reads and checks `text`. `source_name` is only named in reports: a path as the user wrote it.
    ///
    /// # Errors
    /// Every problem at once, in the order of the text, each with its place, the reason and the fix.
    pub fn parse(source_name: &str, text: impl AsRef<[u8]>) -> Result<Self, Diagnosis> {
        decode::manifest(source_name, text.as_ref())
    }

    /// The bounds of one run: what the manifest names, and the defaults for the rest.
    #[must_use]
    pub fn limits(&self) -> Limits {
        limits::resolve(self)
    }

    /// The entry of a role, if the app asks for it.
    #[must_use]
    pub fn model(&self, role: &str) -> Option<&ModelAsk> {
        self.models.iter().find(|model| model.role.as_str() == role)
    }

    /// The digest of the component. What is installed must have one.
    ///
    /// # Errors
    /// [`NoDigest`] if the manifest was never packed.
    pub fn require_digest(&self) -> Result<&Digest, NoDigest> {
        self.component
            .sha256
            .as_ref()
            .ok_or_else(|| NoDigest { id: self.id.clone(), component: self.component.path.clone() })
    }

    /// The manifest as indented JSON with a newline at the end. Parsing it gives an equal manifest.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("string keys and finite numbers always serialise");
        text.push('\n');
        text
    }

    /// `name version (id)`: how lists and prompts call the app.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {} ({})", self.name, self.version, self.id)
    }
}
