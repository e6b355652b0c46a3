//! Bounds of one run of an app: what a manifest may ask, what it gets.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::Manifest;

/// 1 MB in bytes.
pub(crate) const MB: u64 = 1_000_000;

/// Default, smallest and largest value of one limit, in the unit of its manifest key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The key in `limits`.
    pub key: &'static str,
    /// The unit of the three figures.
    pub unit: &'static str,
    /// What an app gets that names no value.
    pub default: u32,
    /// The least that makes sense.
    pub min: u32,
    /// The most that the host ever gives, whatever the manifest says.
    pub max: u32,
}

impl Bound {
    /// Linear memory of the component, all its memories together.
    pub const MEMORY_MB: Self = Self { key: "memoryMB", unit: "MB", default: 64, min: 1, max: 4000 };
    /// Computing time between two awaits.
    pub const CPU_MS: Self = Self { key: "cpuMs", unit: "ms", default: 1000, min: 10, max: 30_000 };
    /// Time from start to end of one run.
    pub const WALL_SECONDS: Self = Self { key: "wallSeconds", unit: "s", default: 600, min: 1, max: 86_400 };
    /// Bytes written to the output of one run.
    pub const OUTPUT_MB: Self = Self { key: "outputMB", unit: "MB", default: 16, min: 1, max: 1000 };
    /// Calls into the host in any one second.
    pub const HOST_CALLS_PER_SECOND: Self =
        Self { key: "hostCallsPerSecond", unit: "calls/s", default: 10_000, min: 10, max: 1_000_000 };
    /// Elements of the component's tables, all together.
    pub const TABLE_ELEMENTS: Self =
        Self { key: "tableElements", unit: "elements", default: 20_000, min: 1, max: 1_000_000 };
    /// Conversations open at one time.
    pub const SESSIONS: Self = Self { key: "sessions", unit: "sessions", default: 16, min: 1, max: 256 };
    /// Answers being generated at one time.
    pub const GENERATIONS: Self = Self { key: "generations", unit: "generations", default: 4, min: 1, max: 64 };

    /// All bounds, in the order of [`LimitsAsk`].
    pub const ALL: [Self; 8] = [
        Self::MEMORY_MB,
        Self::CPU_MS,
        Self::WALL_SECONDS,
        Self::OUTPUT_MB,
        Self::HOST_CALLS_PER_SECOND,
        Self::TABLE_ELEMENTS,
        Self::SESSIONS,
        Self::GENERATIONS,
    ];
}

/// Bounds of one run. Absent ones take the defaults; no value can go above the host's own maximum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
#[schemars(extend("propertyNames" = {"$ref": "#/$defs/NotTheHosts"}))]
#[non_exhaustive]
pub struct LimitsAsk {
    /// Linear memory of the component in MB (10⁶ bytes), all its memories together. 64 if absent, at most 4000, and never
    /// above `requires.memoryGB`.
    #[serde(rename = "memoryMB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4000))]
    pub memory_mb: Option<u32>,
    /// Milliseconds that the component may compute between two awaits. 1000 if absent, 10 to 30,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 30000))]
    pub cpu_ms: Option<u32>,
    /// Seconds from start to end of one run. 600 if absent, 1 to 86,400.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub wall_seconds: Option<u32>,
    /// Output of one run in MB. 16 if absent, 1 to 1000.
    #[serde(rename = "outputMB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub output_mb: Option<u32>,
    /// Calls into the host in any one second. 10,000 if absent, 10 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1000000))]
    pub host_calls_per_second: Option<u32>,
    /// Elements of the component's tables, all together. 20,000 if absent, 1 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub table_elements: Option<u32>,
    /// Conversations open at one time. 16 if absent, 1 to 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub sessions: Option<u32>,
    /// Answers being generated at one time. 4 if absent, 1 to 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub generations: Option<u32>,
}

impl LimitsAsk {
    /// Whether the manifest names no limit at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The bounds that hold for one run. Made by [`Manifest::limits`] and by nothing else: no default, no constructor, so
/// that no run is bounded by figures that came from nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Limits {
    /// Linear memory, all memories of the component together, in bytes.
    pub memory_bytes: u64,
    /// Computing time between two awaits.
    pub cpu_slice: Duration,
    /// Time from start to end.
    pub wall: Duration,
    /// Output, in bytes.
    pub output_bytes: u64,
    /// Calls into the host in any one second.
    pub host_calls_per_second: u32,
    /// Elements of all tables together.
    pub table_elements: u32,
    /// Conversations open at one time.
    pub sessions: u32,
    /// Answers being generated at one time.
    pub generations: u32,
}

/// What a manifest names, or the default; the default of linear memory gives way to a smaller ceiling of the app.
pub(crate) fn resolve(manifest: &Manifest) -> Limits {
    let ask = &manifest.limits;
    let or = |value: Option<u32>, bound: Bound| value.unwrap_or(bound.default).clamp(bound.min, bound.max);
    let megabytes = |value, bound| u64::from(or(value, bound)) * MB;
    Limits {
        memory_bytes: megabytes(ask.memory_mb, Bound::MEMORY_MB).min(manifest.requires.memory_bytes()),
        cpu_slice: Duration::from_millis(or(ask.cpu_ms, Bound::CPU_MS).into()),
        wall: Duration::from_secs(or(ask.wall_seconds, Bound::WALL_SECONDS).into()),
        output_bytes: megabytes(ask.output_mb, Bound::OUTPUT_MB),
        host_calls_per_second: or(ask.host_calls_per_second, Bound::HOST_CALLS_PER_SECOND),
        table_elements: or(ask.table_elements, Bound::TABLE_ELEMENTS),
        sessions: or(ask.sessions, Bound::SESSIONS),
        generations: or(ask.generations, Bound::GENERATIONS),
    }
}
