//! The planner against llama.cpp's own account, by kind, and the time of a plan.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use locara_engine::llama::{LoadOptions, dry_run};
use locara_engine::shape::model_shape;
use locara_gguf::Gguf;
use locara_policy::{Device, Kind, KvType, ModelShape, plan};

use crate::model::ModelFile;
use crate::report::{Section, bytes};
use crate::stats::Spread;

/// Types of K and V, and FlashAttention.
const TYPES: [(KvType, KvType, bool); 5] = [
    (KvType::F16, KvType::F16, false),
    (KvType::F16, KvType::F16, true),
    (KvType::Q8_0, KvType::F16, false),
    (KvType::Q8_0, KvType::Q8_0, true),
    (KvType::Q4_0, KvType::Q4_0, true),
];
/// Tokens of the context; one that is no multiple of anything among them.
const CONTEXTS: [u32; 3] = [1000, 2048, 8192];
/// Sequences and tokens computed at once.
const BATCHES: [(u32, u32); 2] = [(1, 128), (4, 512)];
/// The kinds that both sides account for.
const KINDS: [Kind; 4] = [Kind::WeightsMapped, Kind::Kv, Kind::Compute, Kind::Output];

/// One kind of one model over all configurations.
struct Compared {
    model: String,
    kind: Kind,
    configurations: usize,
    wrong: usize,
    worst: u64,
    /// The largest figure that was planned.
    largest: u64,
}

/// See the module.
pub(crate) struct Planner {
    compared: Vec<Compared>,
    /// From the file to the plan, ms.
    read_and_plan_ms: Spread,
    /// From the shape to the plan, µs.
    plan_us: Spread,
}

/// Compares both models in every configuration and times plans for the last one.
pub(crate) fn measure(models: &[(&str, &ModelFile)], options: LoadOptions) -> Result<Planner> {
    let mut compared = Vec::new();
    for (name, file) in models {
        eprintln!("planner: {name}");
        compared.extend(compare(name, file, options)?);
    }
    let request = options.plan_request(Device::Cpu);
    let (mut read, mut alone) = (Vec::new(), Vec::new());
    if let Some((_, file)) = models.last() {
        for _ in 0..9 {
            let began = Instant::now();
            let shape = model_shape(&Gguf::open(&file.path)?)?;
            black_box(plan(&shape, &request)?);
            read.push(began.elapsed().as_secs_f64() * 1e3);
            for _ in 0..100 {
                let began = Instant::now();
                black_box(plan(black_box(&shape), &request)?);
                alone.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    Ok(Planner { compared, read_and_plan_ms: Spread::of(&read), plan_us: Spread::of(&alone) })
}

fn compare(name: &str, file: &ModelFile, options: LoadOptions) -> Result<Vec<Compared>> {
    let shape = model_shape(&Gguf::open(&file.path)?)?;
    let new = |kind| Compared { model: name.to_owned(), kind, configurations: 0, wrong: 0, worst: 0, largest: 0 };
    let mut all = KINDS.map(new);
    for n_ctx in CONTEXTS {
        for (type_k, type_v, flash_attention) in TYPES {
            for (n_seq_max, n_ubatch) in BATCHES {
                // The comparison is with the CPU's buffers, whatever the machine has.
                let options = LoadOptions {
                    n_ctx,
                    kv_cells: n_ctx,
                    n_seq_max,
                    n_ubatch,
                    type_k,
                    type_v,
                    flash_attention,
                    n_gpu_layers: 0,
                    ..options
                };
                add(&mut all, &shape, file, &options)?;
            }
        }
    }
    Ok(all.into())
}

fn add(all: &mut [Compared; 4], shape: &ModelShape, file: &ModelFile, options: &LoadOptions) -> Result<()> {
    let planned = plan(shape, &options.plan_request(Device::Cpu))?;
    let allocated = dry_run(&file.path, *options)?;
    let allocated = [allocated.weights_mapped, allocated.kv, allocated.compute, allocated.output];
    for (compared, allocated) in all.iter_mut().zip(allocated) {
        let planned = planned.of_kind(compared.kind).get();
        let error = planned.abs_diff(allocated);
        compared.configurations += 1;
        compared.wrong += usize::from(error > 0);
        compared.worst = compared.worst.max(error);
        compared.largest = compared.largest.max(planned);
    }
    Ok(())
}

impl Planner {
    /// The largest difference of any kind in any configuration.
    pub(crate) fn worst(&self) -> u64 {
        self.compared.iter().map(|compared| compared.worst).max().unwrap_or(0)
    }

    /// From the file to its plan, ms.
    pub(crate) fn plan_ms(&self) -> f64 {
        self.read_and_plan_ms.median
    }

    pub(crate) fn section(&self) -> Section {
        let row = |compared: &Compared| {
            vec![
                format!("{}: {}", compared.model, compared.kind),
                compared.configurations.to_string(),
                compared.wrong.to_string(),
                bytes(compared.worst),
                bytes(compared.largest),
            ]
        };
        Section {
            title: "Planner against the engine".to_owned(),
            about: format!(
                "Bytes by kind, planned from the header alone, against what llama.cpp would allocate for the same \
                 options, over contexts, KV types, sequences and batches. One plan of the large model takes {:.1} ms \
                 with the reading of the file and {:.1} µs without.",
                self.read_and_plan_ms.median, self.plan_us.median
            ),
            header: &["model: kind", "configurations", "not exact", "largest error", "largest plan"],
            rows: self.compared.iter().map(row).collect(),
        }
    }
}
