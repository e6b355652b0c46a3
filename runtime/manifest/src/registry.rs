//! The types of `registry.json`: the one file that says which models there are and which of them plays each role.
//!
//! The host writes it and its owner may edit it. Paths in it are the owner's; nothing of it is ever shown to an app.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{Diagnosis, Digest, ModelName, Role, decode};

/// The format of `registry.json` that this crate reads and writes.
pub const REGISTRY_VERSION: u32 = 1;

/// Largest registry that is read, in bytes: room for some thousands of models.
pub(crate) const MAX_BYTES: usize = 4 << 20;

/// Which models there are, and which of them plays each role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "Locara model registry")]
pub struct Registry {
    /// The JSON Schema of this file, for editors. The host ignores it.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Format of this file. Always 1.
    #[schemars(extend("const" = 1))]
    pub registry_version: u32,
    /// Models by digest. Of a model in one file it is the SHA-256 of the file. Of a split one it is the SHA-256 of the
    /// digests of its parts, in order, each in hexadecimal and followed by a line feed.
    pub models: BTreeMap<Digest, RegisteredModel>,
    /// Which model plays a role: a name or digest of a model, another role, or an alias.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<Role, ModelName>,
    /// Other names that clients may send, each for a model, a role or another alias: `"gpt-4o": "default"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<ModelName, ModelName>,
}

/// A model that the host knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct RegisteredModel {
    /// What answers call it. Unique, and no role.
    pub name: ModelName,
    /// Its files: one, or all parts of a split model in order.
    #[schemars(length(min = 1, max = 1024))]
    pub files: Vec<ModelPart>,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Keeps the entry and refuses to use it. `false` if absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub disabled: bool,
    /// What the owner sets for this model. Absent means the host decides.
    #[serde(default, skip_serializing_if = "ModelSettings::is_empty")]
    pub settings: ModelSettings,
}

impl RegisteredModel {
    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|part| part.bytes).fold(0, u64::saturating_add)
    }
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ModelPart {
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: Digest,
    /// Its size in bytes.
    #[schemars(range(min = 1, max = 9007199254740992_u64))]
    pub bytes: u64,
    /// Absolute path of a file that is used where it is. Absent: the file lies in the host's own store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = "^/"))]
    pub path: Option<String>,
}

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Source {
    /// What kind of place.
    pub kind: SourceKind,
    /// How it is called there: a repository and file, a model of Ollama, an address.
    #[schemars(length(min = 1, max = 2048))]
    pub name: String,
    /// The commit of the repository, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub revision: Option<String>,
}

/// Kinds of places where models come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Downloaded from a hub.
    Hub,
    /// Downloaded from an address that a person named.
    Url,
    /// A file that a person named.
    File,
    /// What Ollama downloaded.
    Ollama,
    /// What LM Studio downloaded.
    LmStudio,
    /// The cache of Hugging Face's libraries.
    HuggingFace,
    /// The cache of llama.cpp.
    LlamaCpp,
}

impl SourceKind {
    /// The spellings, in the order of [`SourceKind::ALL`].
    pub(crate) const NAMES: [&str; 7] = ["hub", "url", "file", "ollama", "lm-studio", "hugging-face", "llama-cpp"];
    /// Every kind.
    pub(crate) const ALL: [Self; 7] =
        [Self::Hub, Self::Url, Self::File, Self::Ollama, Self::LmStudio, Self::HuggingFace, Self::LlamaCpp];

    /// The spelling in a registry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What the owner sets for one model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct ModelSettings {
    /// Tokens of context. Absent: what apps ask for, within what the model was trained for and what fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 1048576))]
    pub context: Option<u32>,
    /// Types of the KV cache. Absent: what the host measured as best on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv: Option<KvSetting>,
    /// Sequences that one context serves at a time. Absent: the host decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max_sequences: Option<u32>,
    /// How the model writes tool calls. Absent: what its chat template says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_parser: Option<ToolParser>,
    /// Absolute path of a Jinja chat template that is used instead of the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = "^/"))]
    pub template: Option<String>,
    /// Keeps the model loaded while nobody uses it. Under pressure it goes all the same. `false` if absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub keep_loaded: bool,
    /// Seconds after the last request until the model is unloaded, 1 to 604,800. Absent: `[idle] ttl_seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub ttl_seconds: Option<u32>,
}

impl ModelSettings {
    /// Whether the owner sets nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Types of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KvSetting {
    /// Of the keys.
    pub keys: KvCacheType,
    /// Of the values. Anything below 16 bits needs FlashAttention.
    pub values: KvCacheType,
}

/// Types in which keys or values are kept, by ggml's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are ggml's own and say all there is to say")]
pub enum KvCacheType {
    F32,
    F16,
    Bf16,
    #[serde(rename = "q8_0")]
    Q8_0,
    #[serde(rename = "q5_1")]
    Q5_1,
    #[serde(rename = "q5_0")]
    Q5_0,
    #[serde(rename = "q4_1")]
    Q4_1,
    #[serde(rename = "q4_0")]
    Q4_0,
    Iq4Nl,
}

impl KvCacheType {
    /// The spellings, in the order of [`KvCacheType::ALL`].
    pub(crate) const NAMES: [&str; 9] = ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"];
    /// Every type.
    pub const ALL: [Self; 9] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q5_1, Self::Q5_0, Self::Q4_1, Self::Q4_0, Self::Iq4Nl];

    /// ggml's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// How a model writes tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ToolParser {
    /// A JSON object in `<tool_call>…</tool_call>`: Hermes, Qwen and many more.
    Hermes,
}

impl ToolParser {
    /// The spellings, in the order of the variants.
    pub(crate) const NAMES: [&str; 1] = ["hermes"];

    /// The spelling in a registry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            schema: None,
            registry_version: REGISTRY_VERSION,
            models: BTreeMap::new(),
            roles: BTreeMap::new(),
            aliases: BTreeMap::new(),
        }
    }
}

impl Registry {
    /// Reads and checks `text`. `source_name` is only named in reports: a path as the user wrote it.
    ///
    /// # Errors
    /// Every problem at once, in the order of the text, each with its place, the reason and the fix.
    pub fn parse(source_name: &str, text: impl AsRef<[u8]>) -> Result<Self, Diagnosis> {
        decode::registry(source_name, text.as_ref())
    }

    /// The registry as indented JSON with a newline at the end. What was edited badly does not parse again: writers check.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("string keys and whole numbers always serialise");
        text.push('\n');
        text
    }

    /// `wanted`, or `wanted` with the start of the digest behind it where that name means something else already.
    #[must_use]
    pub fn free_name(&self, wanted: &ModelName, digest: &Digest) -> ModelName {
        let taken = |name: &ModelName| {
            self.models.iter().any(|(other, model)| model.name == *name && other != digest)
                || self.aliases.contains_key(name)
                || self.roles.keys().any(|role| role.as_str() == name.as_str())
                || Role::BUILT_IN.contains(&name.as_str())
                || name.as_str().parse::<Digest>().is_ok()
        };
        if !taken(wanted) {
            return wanted.clone();
        }
        let short = wanted.with_suffix(&format!("@{}", &digest.as_str()[..12]));
        if taken(&short) { wanted.with_suffix(&format!("@{digest}")) } else { short }
    }

    /// Roles and aliases that lead to a model, over however many steps.
    #[must_use]
    pub fn names_of(&self, digest: &Digest) -> Vec<&str> {
        let words = self.roles.keys().map(Role::as_str).chain(self.aliases.keys().map(ModelName::as_str));
        words.filter(|word| self.follow(word).is_ok_and(|found| found.digest == digest)).collect()
    }

    /// Takes a model out, with the roles and aliases that lead to it.
    pub fn remove(&mut self, digest: &Digest) -> Option<RegisteredModel> {
        let names: Vec<String> = self.names_of(digest).into_iter().map(str::to_owned).collect();
        self.roles.retain(|role, _| names.iter().all(|name| name != role.as_str()));
        self.aliases.retain(|alias, _| names.iter().all(|name| name != alias.as_str()));
        self.models.remove(digest)
    }
}
