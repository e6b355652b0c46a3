//! The planner against llama.cpp's own account for every architecture of the zoo, in two sizes: weights, KV and state,
//! compute and outputs, over contexts, sequences, batches, KV types and FlashAttention.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

use std::collections::BTreeMap;

use locara_engine::{
    api::EngineMemory,
    llama::{LoadOptions, dry_run, probe},
    shape::model_shape,
};
use locara_gguf::Gguf;
use locara_policy::{Device, Kind, KvType, ModelShape, plan};
use locara_zoo::{Arch, Draft, Spec, catalogue, draft};

/// Types of K and V, and FlashAttention.
const TYPES: [(KvType, KvType, bool); 4] = [
    (KvType::F16, KvType::F16, false),
    (KvType::F16, KvType::F16, true),
    (KvType::Q8_0, KvType::F16, false),
    (KvType::Q8_0, KvType::Q8_0, true),
];
/// Tokens of the context, sequences, and tokens computed at once.
const LAYOUTS: [(u32, u32, u32); 5] = [(512, 1, 128), (1000, 3, 64), (2048, 4, 512), (8192, 1, 512), (4096, 8, 256)];
/// The kinds that differ from configuration to configuration.
const KINDS: [Kind; 3] = [Kind::Kv, Kind::Compute, Kind::Output];

/// The tiny models, each also with the proportions of a real one, and models that make vectors by another way than encoders.
fn models() -> Vec<(String, Draft)> {
    let tiny: Vec<_> = catalogue().iter().filter(|entry| entry.name.starts_with("tiny-")).collect();
    let mut models: Vec<(String, Draft)> = Vec::new();
    for entry in tiny {
        models.push((entry.name.to_owned(), draft(&entry.spec).unwrap()));
        models.push((entry.name.replace("tiny", "wide"), draft(&wide(&entry.spec)).unwrap()));
    }
    for (name, pooling) in [("mean", 1_u32), ("last", 3)] {
        let mut embedder = draft(&Spec::tiny(Arch::Qwen3)).unwrap();
        embedder.key("qwen3.pooling_type", pooling);
        models.push((format!("tiny-qwen3-{name}"), embedder));
    }
    models
}

fn wide(spec: &Spec) -> Spec {
    let some = |wanted: u32, is: u32| if is == 0 { 0 } else { wanted };
    let expert_ff = if matches!(spec.arch, Arch::Llama | Arch::Olmoe) { 1536 } else { 384 };
    Spec {
        embd: 768,
        heads: 12,
        kv_heads: if spec.heads == spec.kv_heads { 12 } else { 4 },
        head_dim: 64,
        ff: 1536,
        vocab: 3000,
        ctx: 16_384,
        experts: some(8, spec.experts),
        experts_used: some(3, spec.experts),
        expert_ff: some(expert_ff, spec.experts),
        ..spec.clone()
    }
}

fn configurations() -> impl Iterator<Item = LoadOptions> {
    LAYOUTS.into_iter().flat_map(|(n_ctx, n_seq_max, n_ubatch)| {
        TYPES.into_iter().map(move |(type_k, type_v, flash_attention)| LoadOptions {
            n_ctx,
            kv_cells: n_ctx,
            n_seq_max,
            n_batch: 512,
            n_ubatch,
            type_k,
            type_v,
            flash_attention,
            n_threads: 1,
            n_gpu_layers: 0,
            repack: false,
            queue_max: 1,
        })
    })
}

fn of_kind(memory: &EngineMemory, kind: Kind) -> u64 {
    match kind {
        Kind::Kv => memory.kv,
        Kind::Compute => memory.compute,
        Kind::Output => memory.output,
        _ => memory.weights_mapped,
    }
}

/// Asks the engine about every model in every configuration that it accepts.
fn for_each(mut look: impl FnMut(&str, &ModelShape, &LoadOptions, &EngineMemory)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (name, draft) in models() {
        draft.save_sparse(&path).unwrap();
        let shape = model_shape(&Gguf::open(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        // A dry run counts the table of a tied output twice for some models; mapped, as weights always are, it is one.
        let first = configurations().next().unwrap();
        let mapped = probe(&path, first).unwrap_or_else(|error| panic!("{name}: {error}")).memory.weights_mapped;
        for options in configurations() {
            match dry_run(&path, options) {
                Ok(allocated) => {
                    look(&name, &shape, &options, &EngineMemory { weights_mapped: mapped, ..allocated });
                }
                // What the engine refuses has no plan either: heads that blocks do not divide.
                Err(_) => assert!(plan(&shape, &options.plan_request(Device::Cpu)).is_err(), "{name}: {options:?}"),
            }
        }
    }
}

#[test]
fn every_class_is_planned_as_it_is_allocated() {
    let (mut wrong, mut worst) = (Vec::new(), BTreeMap::<(String, Kind), (usize, u64, u64)>::new());
    for_each(|name, shape, options, allocated| {
        let planned = plan(shape, &options.plan_request(Device::Cpu)).unwrap_or_else(|error| panic!("{name}: {error}"));
        for kind in [Kind::WeightsMapped].into_iter().chain(KINDS) {
            let (predicted, allocated) = (planned.of_kind(kind).get(), of_kind(allocated, kind));
            let error = predicted.abs_diff(allocated);
            let row = worst.entry((name.to_owned(), kind)).or_default();
            *row = (row.0 + 1, row.1.max(error), row.2.max(allocated));
            let exact = planned.items.iter().filter(|item| item.kind == kind).all(|item| item.exact);
            if error != 0 || !exact {
                wrong.push(format!(
                    "{name} {kind:?}: planned {predicted}, allocated {allocated}, exact {exact}: {options:?}"
                ));
            }
        }
    });
    println!("{:<22} {:<16} {:>14} {:>12} {:>14}", "model", "kind", "configurations", "worst error", "largest");
    for ((name, kind), (configurations, error, largest)) in worst {
        println!("{name:<22} {kind:<16} {configurations:>14} {error:>12} {largest:>14}");
    }
    assert!(wrong.is_empty(), "{} figures differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the planner says of an architecture that it does not know: the graph of a plain transformer and a margin.
#[test]
fn an_unknown_architecture_is_an_estimate_that_is_not_low() {
    let (mut low, mut spread) = (Vec::new(), BTreeMap::<String, (f64, f64)>::new());
    for_each(|name, shape, options, allocated| {
        let unknown = ModelShape { architecture: "brand-new".to_owned(), ..shape.clone() };
        let planned =
            plan(&unknown, &options.plan_request(Device::Cpu)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let item = planned.items.iter().find(|item| item.kind == Kind::Compute).unwrap();
        assert!(!item.exact, "{name}: {}", item.derivation);
        let percent = (item.bytes.get() as f64 / allocated.compute as f64 - 1.0) * 100.0;
        let row = spread.entry(name.to_owned()).or_insert((percent, percent));
        *row = (row.0.min(percent), row.1.max(percent));
        if percent < 0.0 {
            low.push(format!("{name}: {percent:.1} % at {options:?}"));
        }
    });
    println!("{:<22} {:>10} {:>10}", "model", "least", "most");
    for (name, (least, most)) in spread {
        println!("{name:<22} {least:>8.1} % {most:>8.1} %");
    }
    assert!(low.is_empty(), "{} estimates are low:\n{}", low.len(), low.join("\n"));
}
