//! What a machine offers: the one at hand, described by its facts, or one of a named line-up.
//!
//! Named machines answer "would it run on a …?" and keep every default honest: tests plan for all of them. Their GPU share is
//! the smallest seen anywhere for that size, because Apple changed it with almost every release and an owner can change it
//! too; on the machine at hand the figure comes from Metal itself.

use serde::{Deserialize, Serialize};

use crate::{bytes::Bytes, plan::Device, shape::ModelShape};

/// Memory that the system and everybody's other programs keep: a quarter of the machine, within these bounds.
const SYSTEM_SHARE: (u64, u64) = (1, 4);
const SYSTEM_LEAST: Bytes = Bytes::gib(2);
const SYSTEM_MOST: Bytes = Bytes::gib(12);
/// What is left free of a GPU's working set. Exceeding the set fails late, in the middle of a prefill, so all that is not
/// the host's (the window server, a browser) must fit in here.
const GPU_MARGIN: Bytes = Bytes::gib(2);

/// A machine as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Short name, e.g. `air-16`, or `this machine`.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Physical memory, or less where a control group allows less.
    pub ram: Bytes,
    /// Where models compute.
    pub device: Device,
    /// Memory that the GPU may use: for one that shares the machine's memory the working set Metal recommends, for a discrete
    /// one its own.
    pub gpu_memory: Option<Bytes>,
    /// Cores for compute-bound threads.
    pub performance_cores: u32,
    /// Memory bandwidth in bytes per second, for estimates of speed only.
    pub bandwidth: Option<Bytes>,
    /// Where the figures come from.
    pub source: String,
}

/// One bound on what the host may hold, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// How much.
    pub bytes: Bytes,
    /// The derivation, with its numbers.
    pub why: String,
}

impl Machine {
    /// A machine without a GPU, by its facts. `performance_cores` of 0 counts as 1.
    #[must_use]
    pub fn cpu(name: &str, ram: Bytes, performance_cores: u32) -> Self {
        Self {
            name: name.to_owned(),
            description: format!("{ram} of memory, {performance_cores} cores, no GPU"),
            ram,
            device: Device::Cpu,
            gpu_memory: None,
            performance_cores: performance_cores.max(1),
            bandwidth: None,
            source: "as the system reports".to_owned(),
        }
    }

    /// A machine whose GPU shares its memory, by its facts; `working_set` is Metal's `recommendedMaxWorkingSetSize`.
    #[must_use]
    pub fn unified_gpu(name: &str, ram: Bytes, performance_cores: u32, working_set: Bytes) -> Self {
        Self {
            description: format!(
                "{ram} of memory, {performance_cores} performance cores, GPU working set of {working_set}"
            ),
            device: Device::UnifiedGpu,
            gpu_memory: Some(working_set),
            ..Self::cpu(name, ram, performance_cores)
        }
    }

    /// The named line-up, smallest first.
    #[must_use]
    pub fn line_up() -> Vec<Self> {
        MACS.iter().map(Mac::machine).collect()
    }

    /// One of the named line-up.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        MACS.iter().find(|mac| mac.name == name).map(Mac::machine)
    }

    /// Memory that is left to the system and to other programs: a quarter, at least 2 GiB, at most 12 GiB.
    #[must_use]
    pub fn system_share(&self) -> Bytes {
        self.ram.fraction(SYSTEM_SHARE.0, SYSTEM_SHARE.1).clamp(SYSTEM_LEAST, SYSTEM_MOST)
    }

    /// What the host may hold in all.
    #[must_use]
    pub fn room(&self) -> Room {
        let share = self.system_share();
        Room {
            bytes: self.ram.saturating_sub(share),
            why: format!("{} of memory less {share} for the system and other programs", self.ram),
        }
    }

    /// What the host may let the GPU use, where there is one.
    #[must_use]
    pub fn gpu_room(&self) -> Option<Room> {
        let memory = self.gpu_memory?;
        // The margin must not swallow a small GPU whole.
        let margin = GPU_MARGIN.min(memory.fraction(1, 4));
        let why = match self.device {
            Device::UnifiedGpu => format!("GPU working set of {memory} less a margin of {margin}"),
            Device::Cpu | Device::DiscreteGpu => format!("GPU memory of {memory} less a margin of {margin}"),
        };
        Some(Room { bytes: memory.saturating_sub(margin), why })
    }

    /// An **estimate** of decode speed for one sequence, in tokens per second: bandwidth ÷ bytes that one token reads. Real
    /// engines reach 60 to 85 % of it with a short context, less with a long one. `None` where the bandwidth is not known.
    #[must_use]
    pub fn decode_ceiling(&self, shape: &ModelShape) -> Option<f64> {
        let read = shape.active_weights();
        (!read.is_zero()).then_some(())?;
        self.bandwidth.map(|bandwidth| bandwidth.get() as f64 / read.get() as f64)
    }
}

/// A Mac of the line-up.
struct Mac {
    name: &'static str,
    description: &'static str,
    /// Gibibytes: memory is sold in binary units.
    ram_gib: u64,
    performance_cores: u32,
    /// Apple's figure, in GB per second.
    bandwidth_gb: u64,
}

const MACS: [Mac; 6] = [
    Mac { name: "air-8", description: "MacBook Air, M2", ram_gib: 8, performance_cores: 4, bandwidth_gb: 100 },
    Mac { name: "air-16", description: "MacBook Air, M3", ram_gib: 16, performance_cores: 4, bandwidth_gb: 100 },
    Mac { name: "mbp-24", description: "MacBook Pro, M4 Pro", ram_gib: 24, performance_cores: 8, bandwidth_gb: 273 },
    Mac { name: "mbp-36", description: "MacBook Pro, M3 Pro", ram_gib: 36, performance_cores: 6, bandwidth_gb: 150 },
    Mac { name: "mac-64", description: "MacBook Pro, M4 Max", ram_gib: 64, performance_cores: 12, bandwidth_gb: 546 },
    Mac {
        name: "studio-128",
        description: "Mac Studio, M4 Max",
        ram_gib: 128,
        performance_cores: 12,
        bandwidth_gb: 546,
    },
];

impl Mac {
    fn machine(&self) -> Machine {
        let ram = Bytes::gib(self.ram_gib);
        // Seen: 16 GB with macOS 15, 10.67 GiB (two thirds); 16 GB M3, 11.84 GiB; 128 GB with macOS 26, 107.52 GiB (84 %).
        // Up to 36 GB older releases allow two thirds, above that three quarters.
        let (share, working_set) =
            if self.ram_gib <= 36 { ("2/3", ram.fraction(2, 3)) } else { ("3/4", ram.fraction(3, 4)) };
        Machine {
            name: self.name.to_owned(),
            description: format!("{}, {} GB", self.description, self.ram_gib),
            ram,
            device: Device::UnifiedGpu,
            gpu_memory: Some(working_set),
            performance_cores: self.performance_cores,
            bandwidth: Some(Bytes::gb(self.bandwidth_gb)),
            source: format!(
                "Apple's specifications; GPU working set {share} of memory, the smallest share seen for this size"
            ),
        }
    }
}
