//! The planner's error by kind: every model of the zoo in the engine's dry run, and the real engine while it works.

use anyhow::{Context as _, Result};
use locara_engine::llama::{LoadOptions, dry_run, probe};
use locara_engine::shape::model_shape;
use locara_gguf::Gguf;
use locara_policy::correction::ErrorSummary;
use locara_policy::{Device, Kind, KvType, PredictionError, plan};
use locara_zoo::{catalogue, draft};

use crate::memory::Memory;
use crate::report::Section;

/// Types of K and V, and FlashAttention.
const TYPES: [(KvType, KvType, bool); 3] =
    [(KvType::F16, KvType::F16, false), (KvType::F16, KvType::F16, true), (KvType::Q8_0, KvType::Q8_0, true)];
/// Tokens of the context, sequences, and tokens computed at once.
const LAYOUTS: [(u32, u32, u32); 3] = [(1000, 3, 64), (2048, 4, 512), (8192, 1, 512)];

/// See the module.
pub(crate) struct Prediction {
    /// Against the dry run.
    zoo: PredictionError,
    models: usize,
    /// Configurations that the engine refuses, as the planner does.
    refused: usize,
    /// Against what the operating system says of the process, in the parts that it can tell apart.
    resident: [(&'static str, ErrorSummary); 2],
}

/// Compares the whole zoo; `memory` is of the large model while it generates.
pub(crate) fn measure(options: LoadOptions, memory: &Memory) -> Result<Prediction> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    let (mut zoo, mut models, mut refused) = (PredictionError::default(), 0, 0);
    for entry in catalogue().iter().filter(|entry| entry.name.starts_with("tiny-")) {
        eprintln!("prediction: {}", entry.name);
        models += 1;
        draft(&entry.spec)?.save_sparse(&path)?;
        let shape = model_shape(&Gguf::open(&path)?)?;
        let on_cpu = LoadOptions { n_gpu_layers: 0, repack: false, n_batch: 512, ..options };
        // Weights as they are held, mapped: a dry run counts the table of a tied output twice for some models.
        let small = LoadOptions { type_k: KvType::F16, type_v: KvType::F16, ..on_cpu };
        let mapped = probe(&path, small)?.memory.weights_mapped;
        for (n_ctx, n_seq_max, n_ubatch) in LAYOUTS {
            for (type_k, type_v, flash_attention) in TYPES {
                let options = LoadOptions {
                    n_ctx,
                    kv_cells: n_ctx,
                    n_seq_max,
                    n_ubatch,
                    type_k,
                    type_v,
                    flash_attention,
                    ..on_cpu
                };
                // Heads that blocks do not divide: no plan, no context.
                let (Ok(planned), Ok(allocated)) =
                    (plan(&shape, &options.plan_request(Device::Cpu)), dry_run(&path, options))
                else {
                    refused += 1;
                    continue;
                };
                for (kind, allocated) in [
                    (Kind::WeightsMapped, mapped),
                    (Kind::Kv, allocated.kv),
                    (Kind::Compute, allocated.compute),
                    (Kind::Output, allocated.output),
                ] {
                    zoo.record(kind, planned.of_kind(kind), locara_policy::Bytes(allocated));
                }
            }
        }
    }
    let resident = memory.against_plan().map(|(what, kind, planned, measured)| {
        let mut error = PredictionError::default();
        error.record(kind, planned, measured);
        error.of_kind(kind).map(|summary| (what, summary))
    });
    let [file_backed, anonymous] = resident;
    let resident = [file_backed.context("nothing was planned")?, anonymous.context("nothing was planned")?];
    Ok(Prediction { zoo, models, refused, resident })
}

/// Millionths as a percentage.
fn percent(millionths: impl Into<i128>) -> String {
    // Display only; the cast rounds far below what is shown.
    format!("{:+.3}", millionths.into() as f64 / 10_000.0)
}

impl Prediction {
    /// The middle error over the zoo, without sign, in millionths.
    pub(crate) fn median(&self) -> u64 {
        self.zoo.overall().map_or(0, |summary| summary.median)
    }

    /// The error over the zoo that is furthest from zero, in millionths.
    pub(crate) fn worst(&self) -> i64 {
        self.zoo.overall().map_or(0, |summary| summary.worst)
    }

    pub(crate) fn section(&self) -> Section {
        let row = |what: String, summary: ErrorSummary| {
            vec![what, summary.count.to_string(), percent(summary.median), percent(summary.p95), percent(summary.worst)]
        };
        let zoo = self.zoo.iter().map(|(kind, summary)| row(format!("zoo: {kind}"), summary));
        let resident =
            self.resident.iter().map(|(what, summary)| row(format!("large model, resident: {what}"), *summary));
        Section {
            title: "Prediction error".to_owned(),
            about: format!(
                "What is held, against what the plan said, in % of the plan; positive where more is held. Zoo: {} models of \
                 every architecture class in what the engine's dry run would allocate ({} configurations are refused by \
                 both). Resident: pages of the process while the large model generates; pages that were never touched make \
                 it less than planned.",
                self.models, self.refused
            ),
            header: &["what", "figures", "median, without sign", "p95, without sign", "worst"],
            rows: zoo.chain(resident).collect(),
        }
    }
}
