//! The types of `locara.toml`: what the owner of the machine sets for the host. Absent keys take the defaults, so an empty
//! file and no file mean the same.
//!
//! There is no key for threads, GPU layers, memory mapping or locking: the host decides them, and says why when asked to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{Diagnosis, HostPattern, Role, decode};

/// Name of the configuration file in the host's folder.
pub const CONFIG_FILE_NAME: &str = "locara.toml";

/// Largest configuration that is read, in bytes. Real ones are below 4 KiB.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// 1 GB in bytes.
const GB: f64 = 1e9;

/// Settings of the Locara host. Everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, title = "Locara configuration", default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Config {
    /// Roles whose models are loaded when the host starts, in this order, as far as they fit. None if absent.
    #[schemars(length(max = 16), extend("uniqueItems" = true))]
    pub preload: Vec<Role>,
    /// The HTTP interface.
    pub server: Server,
    /// Where model files come from.
    pub models: Models,
    /// How much memory the host may hold.
    pub memory: Memory,
    /// What a request gets that does not say otherwise.
    pub defaults: Defaults,
    /// Requests that a person waits for.
    pub interactive: Interactive,
    /// Requests that nobody waits for.
    pub batch: Batch,
    /// Models that nobody uses.
    pub idle: Idle,
    /// What the host writes about its work.
    pub log: Log,
}

/// The HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Server {
    /// Address and port to listen on. Only addresses of the machine itself: `127.0.0.1:11434` if absent.
    #[schemars(with = "String", regex(pattern = r"^(127\.\d+\.\d+\.\d+|\[::1\]):\d+$"))]
    pub listen: SocketAddr,
    /// Values of the `Host` header that are answered besides the address itself and `localhost`: names of a proxy on this
    /// machine, such as `locara.local:11434`. None if absent.
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    pub allowed_hosts: Vec<String>,
    /// Web pages that may talk to the host, as `https://app.example.com` or `http://localhost:3000`. None if absent.
    #[schemars(length(max = 64))]
    pub allowed_origins: Vec<HostPattern>,
    /// Largest body of a request in bytes. 33,554,432 (32 MiB) if absent, 1024 to 1,073,741,824.
    #[schemars(range(min = 1024, max = 1073741824))]
    pub request_max_bytes: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 11434),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            request_max_bytes: 32 << 20,
        }
    }
}

/// Where model files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Models {
    /// Folders in which the host looks for model files, by absolute paths. A folder of a volume that is not attached is
    /// left out until it comes back. None if absent.
    #[schemars(length(max = 64), inner(length(max = 4096), regex(pattern = "^/")))]
    pub dirs: Vec<String>,
    /// The hub that models are pulled from, or a mirror of it. `https://huggingface.co` if absent; `HF_ENDPOINT` counts
    /// more.
    #[schemars(length(max = 2048), regex(pattern = "^https?://"))]
    pub hub: String,
}

impl Default for Models {
    fn default() -> Self {
        Self { dirs: Vec::new(), hub: "https://huggingface.co".to_owned() }
    }
}

/// How much memory the host may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Memory {
    /// Share of the machine's memory that the host may hold, 0.05 to 0.95. Absent: all but the reserve.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.05, max = 0.95))]
    pub ceiling_fraction: Option<f32>,
    /// The same in GB (10⁹ bytes), up to 4096. Only one of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 4096))]
    pub ceiling_gb: Option<f64>,
    /// GB that stay with the system and other programs, up to 4096. Absent: a quarter of the memory, at least 2 and at
    /// most 12 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 4096))]
    pub reserve_gb: Option<f64>,
}

impl Memory {
    /// The ceiling in bytes on a machine of `total` bytes, if the owner set one; never more than `total`.
    #[must_use]
    pub fn ceiling_bytes(&self, total: u64) -> Option<u64> {
        let of_fraction = self.ceiling_fraction.map(|share| (total as f64 * f64::from(share)) as u64);
        let of_gb = self.ceiling_gb.map(|gb| (gb * GB).round() as u64); // at most 4096 GB
        of_fraction.or(of_gb).map(|bytes| bytes.min(total))
    }

    /// The reserve in bytes, if the owner set one.
    #[must_use]
    pub fn reserve_bytes(&self) -> Option<u64> {
        self.reserve_gb.map(|gb| (gb * GB).round() as u64) // at most 4096 GB
    }
}

/// What a request gets that does not say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Defaults {
    /// Tokens of an answer when the request names no bound. Absent: as many as the context holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1048576))]
    pub max_tokens: Option<u32>,
    /// Tokens of an answer whatever the request says. Absent: as many as the context holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1048576))]
    pub max_tokens_hard: Option<u32>,
    /// Tokens that a model may think before it answers; 0 switches thinking off. Absent: no bound of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1048576))]
    pub thinking_budget: Option<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingDefaults,
}

/// How tokens are chosen when the request does not say. Absent keys take what the model's file recommends, or else the
/// host's own values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct SamplingDefaults {
    /// 0 always takes the likeliest token, 2 is the most. The host's own value is 0.7.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2))]
    pub temperature: Option<f32>,
    /// Keeps the likeliest tokens that have this probability together, 0 to 1. The host's own value is 0.95.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub top_p: Option<f32>,
    /// Keeps so many of the likeliest tokens; 0 keeps all. The host's own value is 40.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub top_k: Option<u32>,
    /// Drops tokens below this share of the best one's probability, 0 to 1. The host's own value is 0.05.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub min_p: Option<f32>,
    /// Divides the weight of recent tokens, 0.1 to 2; 1 is off. The host's own value is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.1, max = 2))]
    pub repeat_penalty: Option<f32>,
    /// Taken from the weight of a token for each time that it occurred, -2 to 2. The host's own value is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -2, max = 2))]
    pub frequency_penalty: Option<f32>,
    /// Taken from the weight of a token that occurred, -2 to 2. The host's own value is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -2, max = 2))]
    pub presence_penalty: Option<f32>,
}

/// Requests that a person waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Interactive {
    /// Requests that are answered at one time, 1 to 256. Absent: as many as the memory of the model allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max_sequences: Option<u32>,
}

/// Requests that nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Batch {
    /// Milliseconds that a request waits for others to share a batch with. 50 if absent, 0 to 10,000.
    #[schemars(range(min = 0, max = 10000))]
    pub window_ms: u32,
    /// Requests that start together at most. 10 if absent, 1 to 256.
    #[schemars(range(min = 1, max = 256))]
    pub max_size: u32,
    /// Requests that are answered at one time, 1 to 256. Absent: as many as the memory of the model allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max_sequences: Option<u32>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { window_ms: 50, max_size: 10, max_sequences: None }
    }
}

/// Models that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Idle {
    /// Seconds after the last request until a model is unloaded. 180 if absent, 1 to 604,800. A model's own `ttlSeconds`
    /// counts more; memory pressure counts most.
    #[schemars(range(min = 1, max = 604800))]
    pub ttl_seconds: u32,
}

impl Default for Idle {
    fn default() -> Self {
        Self { ttl_seconds: 180 }
    }
}

/// What the host writes about its work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, default)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct Log {
    /// Whether prompts and answers are logged. `false` if absent: they are nobody's business.
    pub prompts: bool,
    /// How much is logged. `info` if absent.
    pub level: LogLevel,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What is likely to fail.
    Warn,
    /// What happens.
    #[default]
    Info,
    /// How it happens.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The spellings, in the order of the variants.
    pub(crate) const NAMES: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    /// Every level.
    pub(crate) const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The spelling in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl Config {
    /// Reads and checks `text`. `source_name` is only named in reports: a path as the user wrote it.
    ///
    /// # Errors
    /// Every problem at once, in the order of the text, each with its place, the reason and the fix.
    pub fn parse(source_name: &str, text: impl AsRef<[u8]>) -> Result<Self, Diagnosis> {
        decode::config(source_name, text.as_ref())
    }
}
