//! The bounds and times that the governor keeps. All of them follow from the machine; none is asked of a user.

use serde::{Deserialize, Serialize};

use super::action::Level;
use crate::{bytes::Bytes, defaults::Defaults, machine::Machine, plan::Device};

/// See the fields. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Memory of the machine, or what its control group allows.
    pub ram: Bytes,
    /// The most the host promises in all.
    pub cap: Bytes,
    /// The most that GPU buffers may take, where a GPU shares the memory.
    pub gpu_cap: Option<Bytes>,
    /// Mapped weights are wired while the GPU works, and the system gets them back about a second later.
    pub wires_weights: bool,
    /// After its last use a GPU may keep weights wired for so long: the system gets them back within it.
    pub unwire_ms: u64,
    /// Left available whatever is admitted: a twentieth of memory, at most 1 GiB.
    pub reserve: Bytes,
    /// Available memory below which the level is `elevated`: a tenth, at most 3 GiB.
    pub elevated_below: Bytes,
    /// Below which it is `tight`: a twentieth, at most 1.5 GiB.
    pub tight_below: Bytes,
    /// Below which it is `critical`: a fortieth, at most 768 MiB.
    pub critical_below: Bytes,
    /// Free disk below which nothing is spilled: 1 GiB. Chromium takes less than 250 MiB for memory pressure by itself.
    pub disk_least: Bytes,
    /// A model that nobody used for so long is unloaded.
    pub idle_unload_ms: u64,
    /// A model that was loaded is not evicted for another one before this.
    pub cool_down_ms: u64,
    /// The level falls by one step after so much calm. xnu smooths for as long.
    pub calm_ms: u64,
    /// Between a step that frees and the next look at it: a GPU unwires about a second after its last use.
    pub settle_ms: u64,
    /// A step that was not answered for so long is taken for lost.
    pub step_limit_ms: u64,
    /// A ticket waits no longer than this: a cool-down, and the unload and the load that come after it.
    pub longest_wait_ms: u64,
    /// An app has so long at `elevated`, `tight` and `critical`.
    pub deadlines_ms: [u32; 3],
    /// How far ahead the fall of available memory is extrapolated.
    pub horizon_ms: u64,
    /// Share of the cut that a lease gets back in each interval of calm: a tenth every ten seconds.
    pub restore_ms: u64,
    /// Longest answer of queued requests from `elevated` on, tokens.
    pub queued_max_tokens: u32,
}

impl Config {
    /// What follows from a machine and its defaults.
    #[must_use]
    pub fn new(machine: &Machine, defaults: &Defaults) -> Self {
        let ram = machine.ram;
        let share = |part: u64, most: Bytes| ram.fraction(1, part).min(most);
        let gpu = machine.device == Device::UnifiedGpu;
        Self {
            ram,
            cap: defaults.memory_cap.value,
            gpu_cap: machine.gpu_room().map(|room| room.bytes).filter(|_| gpu),
            wires_weights: gpu,
            unwire_ms: if gpu { 2_000 } else { 0 },
            reserve: share(20, Bytes::gib(1)),
            elevated_below: share(10, Bytes::gib(3)),
            tight_below: share(20, Bytes::mib(1536)),
            critical_below: share(40, Bytes::mib(768)),
            disk_least: Bytes::gib(1),
            idle_unload_ms: u64::from(defaults.idle_unload_seconds.value) * 1000,
            cool_down_ms: 60_000,
            calm_ms: 5_000,
            settle_ms: if gpu { 1_500 } else { 250 },
            step_limit_ms: 30_000,
            longest_wait_ms: 75_000,
            deadlines_ms: [10_000, 3_000, 250],
            horizon_ms: 10_000,
            restore_ms: 10_000,
            queued_max_tokens: 512,
        }
    }

    /// The time an app has at a level, ms.
    #[must_use]
    pub const fn deadline_ms(&self, level: Level) -> u32 {
        match level {
            Level::Normal | Level::Elevated => self.deadlines_ms[0],
            Level::Tight => self.deadlines_ms[1],
            Level::Critical => self.deadlines_ms[2],
        }
    }

    /// What has to be available for a level to be left downwards, and what reclaiming aims at: a quarter above where it begins.
    #[must_use]
    pub const fn calm_above(&self, level: Level) -> Bytes {
        let threshold = match level {
            Level::Normal | Level::Elevated => self.elevated_below,
            Level::Tight => self.tight_below,
            Level::Critical => self.critical_below,
        };
        threshold.saturating_add(threshold.fraction(1, 4))
    }
}
