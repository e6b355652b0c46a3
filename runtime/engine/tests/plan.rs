//! The planner against llama.cpp's own account, on the embedded model: every kind, byte by byte.

use std::path::PathBuf;

use locara_engine::{
    llama::{LoadOptions, dry_run},
    shape::model_shape,
};
use locara_gguf::Gguf;
use locara_policy::{Device, Kind, KvType, plan};

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf")
}

#[test]
fn a_dense_model_is_planned_as_it_is_allocated() {
    let shape = model_shape(&Gguf::open(tiny()).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for n_ctx in [512, 1000, 2048, 8192] {
        for (type_k, type_v, flash_attention) in [
            (KvType::F16, KvType::F16, true),
            (KvType::F16, KvType::F16, false),
            (KvType::Q8_0, KvType::F16, false),
            (KvType::Q8_0, KvType::Q8_0, true),
            (KvType::Q4_0, KvType::Q4_0, true),
        ] {
            for (n_seq_max, n_ubatch) in [(1, 128), (4, 512), (8, 256)] {
                let options = LoadOptions {
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
                };
                let request = options.plan_request(Device::Cpu);
                let planned = plan(&shape, &request).unwrap();
                let allocated = dry_run(&tiny(), options).unwrap();
                for (kind, bytes) in [
                    (Kind::WeightsMapped, allocated.weights_mapped),
                    (Kind::Kv, allocated.kv),
                    (Kind::Compute, allocated.compute),
                    (Kind::Output, allocated.output),
                ] {
                    let predicted = planned.of_kind(kind).get();
                    if predicted != bytes {
                        wrong.push(format!(
                            "{kind:?}: planned {predicted}, allocated {bytes} ({:+}) at {n_ctx} {type_k}/{type_v} FA {flash_attention} seq {n_seq_max} ub {n_ubatch}",
                            predicted as i64 - bytes as i64
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells differ:\n{}", wrong.len(), wrong.join("\n"));
}
