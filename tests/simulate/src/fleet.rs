//! The laptops: what they are, which models lie on their disks and which apps use them.
//!
//! Shares are round guesses at what people own, not a survey. Model sizes are those of files that exist; KV per token is from
//! the hyperparameters of the families (q8_0, see `runtime/policy/tests/kv.rs` for the formula). All policies get the same
//! bytes, so no policy is charged for another engine's formats.

use crate::{memory::Swap, rng::Rng};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Tokens of context of every model.
pub const N_CTX: u64 = 8192;

/// A model file and what its context takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// How people call it.
    pub name: &'static str,
    /// Bytes of the file, mapped.
    pub weights: u64,
    /// Bytes of KV for one token; 0 for an embedder.
    pub kv_token: u64,
    /// Bytes of compute and output buffers, tables.
    pub compute: u64,
    /// Parameters, millions.
    pub parameters: u64,
    /// An embedder or another helper: given back first.
    pub secondary: bool,
}

impl Model {
    /// KV cells of the whole context, bytes.
    #[must_use]
    pub const fn kv(&self) -> u64 {
        self.kv_token * N_CTX
    }
    /// All that it takes, bytes.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.weights + self.kv() + self.compute
    }
}

const fn model(name: &'static str, weights_mb: u64, kv_kib: u64, compute_mib: u64, parameters: u64) -> Model {
    Model {
        name,
        weights: weights_mb * 1_000_000,
        kv_token: kv_kib * 1024,
        compute: compute_mib * MIB,
        parameters,
        secondary: kv_kib == 0,
    }
}

const EMBED: Model = model("embed-137m", 146, 0, 48, 137);
const EMBED_LARGE: Model = model("embed-600m", 640, 0, 90, 600);
const B1: Model = model("1b-q4", 808, 17, 90, 1_240);
const B3: Model = model("3b-q4", 2_020, 60, 130, 3_210);
const B7: Model = model("7b-coder-q4", 4_680, 30, 160, 7_600);
const B8: Model = model("8b-q4", 4_920, 68, 160, 8_030);
const B8_Q6: Model = model("8b-q6", 6_600, 68, 160, 8_030);
const B14: Model = model("14b-q4", 8_990, 102, 220, 14_800);
const B14_Q6: Model = model("14b-q6", 12_120, 102, 220, 14_800);
const B32: Model = model("32b-q4", 19_850, 136, 320, 32_500);
const B32_Q6: Model = model("32b-q6", 26_890, 136, 320, 32_500);
const B70: Model = model("70b-q4", 42_520, 170, 420, 70_600);
const B70_Q6: Model = model("70b-q6", 57_900, 170, 420, 70_600);

/// How an app answers a tightening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// Releases what it is asked for.
    Obeys,
    /// Asks for more time first.
    Defers,
    /// Does nothing.
    Ignores,
    /// Says it will and does not.
    Pledges,
}

/// What an app does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Conversations; a person waits.
    Chat,
    /// Chains of calls; a person waits for the end.
    Agent,
    /// Completions while typing.
    Complete,
    /// Short spoken exchanges.
    Voice,
    /// Long documents; nobody waits.
    Summarise,
    /// Bursts of embeddings; nobody waits.
    Index,
}

/// An installed app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// What it does.
    pub kind: Kind,
    /// Index of the model that it uses.
    pub model: usize,
    /// Guest memory that it is guaranteed, bytes.
    pub floor: u64,
    /// Guest memory that it declared, bytes.
    pub ceiling: u64,
    /// How it answers a tightening.
    pub manners: Manners,
}

/// A laptop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laptop {
    /// Number in the fleet.
    pub id: u64,
    /// Physical memory, bytes.
    pub ram: u64,
    /// Kept by the kernel, bytes.
    pub kernel: u64,
    /// Working set of the page cache, bytes.
    pub page_cache: u64,
    /// What happens to anonymous memory that does not fit.
    pub swap: Swap,
    /// Working set of a GPU that shares the memory, bytes.
    pub gpu: Option<u64>,
    /// Reads of the disk, bytes per millisecond.
    pub disk: u64,
    /// Reads of the memory, bytes per millisecond.
    pub bandwidth: u64,
    /// Prefill, millions of multiply-adds per millisecond.
    pub compute: u64,
    /// Models on the disk.
    pub models: Vec<Model>,
    /// Apps, 1 to 6.
    pub apps: Vec<App>,
    /// The person compiles.
    pub develops: bool,
    /// The person uses programs that take much: virtual machines, photos, games.
    pub heavy: bool,
    /// The lid stays open at night.
    pub overnight: bool,
}

impl Laptop {
    /// Laptop `id` of the fleet of `seed`.
    #[must_use]
    pub fn new(seed: u64, id: u64) -> Self {
        let mut rng = Rng::new(seed, id, "laptop");
        let gib = rng.weighted(&[(20, 8_u64), (40, 16), (10, 24), (8, 32), (10, 36), (9, 64), (3, 128)]).unwrap_or(16);
        let ram = gib * GIB;
        let mac = rng.chance(50);
        let swap = if mac {
            Swap::Compressor
        } else {
            let choices = [
                (30, Swap::None),
                (45, Swap::Disk((ram / 4).clamp(2 * GIB, 8 * GIB))),
                (25, Swap::Zram((ram / 2).min(8 * GIB))),
            ];
            rng.weighted(&choices).unwrap_or(Swap::None)
        };
        let (kernel, page_cache) = if mac {
            (GIB * 12 / 10 + ram / 32, 300 * MIB + ram / 64)
        } else {
            (400 * MIB + ram / 64, 300 * MIB + ram / 64)
        };
        // GB/s and GMAC/s are the same number of millions per millisecond.
        let bandwidth = if mac { (gib * 8).clamp(100, 546) } else { rng.within(45, 90) };
        let compute = if mac { (gib * 250).clamp(1_800, 9_000) } else { rng.within(250, 600) };
        // The smallest share of memory that Metal was seen to recommend.
        let gpu = mac.then_some(if gib <= 36 { ram * 2 / 3 } else { ram * 3 / 4 });
        let models = models(gib, &mut rng);
        let develops = rng.chance(40);
        let apps = apps(&models, develops, &mut rng);
        Self {
            id,
            ram,
            kernel,
            page_cache,
            swap,
            gpu,
            disk: if mac { rng.within(2_500, 5_000) } else { rng.within(900, 3_500) } * 1_000,
            bandwidth: bandwidth * 1_000_000,
            compute,
            models,
            apps,
            develops,
            heavy: rng.chance(30),
            overnight: rng.chance(30),
        }
    }
}

/// Chat, quick, coding and embedding model, in this order. One owner in seven takes a chat model too large for the machine.
fn models(gib: u64, rng: &mut Rng) -> Vec<Model> {
    let [chat, quick, coding, embed] = match gib {
        ..=8 => [if rng.chance(50) { B3 } else { B1 }, B1, B3, EMBED],
        9..=16 => [B8, if rng.chance(50) { B3 } else { B1 }, B7, EMBED],
        17..=24 => [if rng.chance(50) { B8_Q6 } else { B14 }, B3, B7, EMBED],
        25..=36 => [if rng.chance(50) { B14_Q6 } else { B14 }, B3, B7, EMBED_LARGE],
        37..=64 => [if rng.chance(50) { B32_Q6 } else { B70 }, B8, B14, EMBED_LARGE],
        _ => [B70_Q6, B8, B32, EMBED_LARGE],
    };
    let larger = match gib {
        ..=8 => B8,
        9..=16 => B14,
        17..=24 => B32,
        25..=36 => B32_Q6,
        37..=64 => B70_Q6,
        _ => B70_Q6,
    };
    let chat = if rng.chance(14) { larger } else { chat };
    vec![chat, quick, coding, embed]
}

fn apps(models: &[Model], develops: bool, rng: &mut Rng) -> Vec<App> {
    let count = rng.within(1, 6);
    let mut apps: Vec<App> = Vec::new();
    for index in 0..count {
        // The first app is what the model was fetched for.
        let choices = [
            (if index == 0 { 60 } else { 20 }, Kind::Chat),
            (if develops { 20 } else { 5 }, Kind::Agent),
            (if develops { 25 } else { 0 }, Kind::Complete),
            (10, Kind::Voice),
            (20, Kind::Summarise),
            (20, Kind::Index),
        ];
        let kind = rng.weighted(&choices).unwrap_or(Kind::Chat);
        let coding = 2.min(models.len().saturating_sub(1));
        let model = match kind {
            Kind::Chat | Kind::Summarise => 0,
            Kind::Voice | Kind::Complete => 1,
            Kind::Agent => coding,
            Kind::Index => models.len().saturating_sub(1),
        };
        let floor = rng.within(16, 64) * MIB;
        let manners = [(70, Manners::Obeys), (5, Manners::Defers), (15, Manners::Ignores), (10, Manners::Pledges)];
        apps.push(App {
            kind,
            model,
            floor,
            ceiling: floor + rng.mostly_small(64, 1024) * MIB,
            manners: rng.weighted(&manners).unwrap_or(Manners::Obeys),
        });
    }
    apps
}
