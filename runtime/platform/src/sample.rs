//! One reading of everything that moves. Plain data: nothing here says what a reading means for the host.

use serde::{Deserialize, Serialize};

use crate::{MemoryNow, ProcessMemory};

/// Everything that moves, read at one moment. A sensor that is absent, vanished or says nonsense is `None`; only the figures
/// of memory are always there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Memory of the machine.
    pub memory: MemoryNow,
    /// Memory of this process.
    pub process: ProcessMemory,
    /// The kernel's own word for the state of memory. macOS only.
    pub pressure: Option<KernelLevel>,
    /// How long work stood still for want of memory: in the own control group where the kernel tells, else in the whole
    /// machine. Linux only.
    pub stall: Option<Stall>,
    /// The tightest memory limit of a control group around this process. Linux only; `None` without a limit.
    pub group: Option<GroupMemory>,
    /// How hot the machine is. `None` without a sensor.
    pub thermal: Option<Thermal>,
    /// Where the energy comes from.
    pub power: Power,
    /// What this user may still write to the volume of the folder that was asked for.
    pub disk_free_bytes: Option<u64>,
}

/// The state of memory, as a kernel calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelLevel {
    /// Nothing to do.
    Normal,
    /// macOS: the compressor occupies more than all that is not wired.
    Warning,
    /// macOS: close to killing processes.
    Critical,
}

/// Pressure stall information of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Part of the last ten seconds in which at least one task stood still, percent.
    pub some_avg10: f64,
    /// Part of the last ten seconds in which all tasks stood still, percent.
    pub full_avg10: f64,
    /// Time in which at least one task stood still since boot or since the group was made, microseconds.
    pub some_total_us: u64,
    /// Time in which all tasks stood still, microseconds.
    pub full_total_us: u64,
}

/// A control group's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMemory {
    /// The limit, beyond which the kernel kills.
    pub limit_bytes: u64,
    /// In use and not reclaimable: pages of files are not counted.
    pub used_bytes: u64,
}

impl GroupMemory {
    /// What the group may still take.
    #[must_use]
    pub const fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

/// How hot the machine is, in the words of macOS (`NSProcessInfoThermalState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thermal {
    /// Cool enough.
    Nominal,
    /// Warm: work that nobody waits for should stop. Linux: 5 °C below the point where the kernel slows processors down.
    Fair,
    /// Slowed down. Linux: at that point (a `passive` trip).
    Serious,
    /// About to be slowed down drastically or switched off. Linux: at a `hot` trip, or 5 °C below a `critical` one.
    Critical,
}

/// Where the energy comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// What feeds the machine.
    pub source: PowerSource,
    /// How full the battery is, 0 to 100; the mean where there are several. `None` without one.
    pub battery_percent: Option<u8>,
    /// The person asked the machine to save energy: Low Power Mode, or the power profile of the firmware or processor.
    pub saver: bool,
}

/// What feeds the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerSource {
    /// The wall.
    Mains,
    /// A battery, of the machine or of a UPS.
    Battery,
    /// The system does not tell: desktops and virtual machines.
    #[default]
    Unknown,
}
