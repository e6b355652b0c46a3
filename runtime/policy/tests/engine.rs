//! The planner against the engine: every row of `engine.tsv` was allocated by llama.cpp itself in a dry run.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

use locara_policy::{
    Bytes, Device, Kind, KvType, ModelShape, PlanRequest, plan,
    shape::{DenseDims, Weights},
};

struct Row {
    line: &'static str,
    shape: ModelShape,
    request: PlanRequest,
    weights: Bytes,
    kv: Bytes,
    compute: Bytes,
}

fn shape(name: &str, weights: Bytes) -> ModelShape {
    let (architecture, [n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab]) = match name {
        "llama-1b" => ("llama", [16, 2048, 8192, 32, 8, 64, 128_256]),
        "qwen2-7b" => ("qwen2", [28, 3584, 18_944, 28, 4, 128, 152_064]),
        "qwen2-0.5b" => ("qwen2", [24, 896, 4864, 14, 2, 64, 151_936]),
        "qwen3-0.6b" => ("qwen3", [28, 1024, 3072, 16, 8, 128, 151_936]),
        "llama-tiny" => ("llama", [4, 256, 768, 4, 2, 64, 2048]),
        "llama-mha" => ("llama", [4, 1024, 2816, 16, 16, 64, 32_000]),
        other => panic!("no shape for {other}"),
    };
    let dims = DenseDims { n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_ctx_train: 131_072 };
    ModelShape::dense(architecture, dims, Weights { bytes: weights, ..Weights::default() })
}

fn rows() -> Vec<Row> {
    let table = include_str!("engine.tsv").lines().filter(|line| !line.starts_with('#'));
    let rows: Vec<Row> = table
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let number = |at: usize| cells[at].parse::<u32>().unwrap();
            let bytes = |at: usize| cells[at].parse::<Bytes>().unwrap();
            let kind = |at: usize| cells[at].parse::<KvType>().unwrap();
            let request = PlanRequest {
                n_ctx: number(1),
                n_seq_max: number(2),
                kv_unified: number(3) == 1,
                type_k: kind(4),
                type_v: kind(5),
                n_batch: number(6),
                n_ubatch: number(7),
                n_outputs_max: number(8),
                flash_attention: number(9) == 1,
                ..PlanRequest::new(Device::Cpu)
            };
            Row {
                line,
                shape: shape(cells[0], bytes(10)),
                request,
                weights: bytes(10),
                kv: bytes(11),
                compute: bytes(12),
            }
        })
        .collect();
    assert!(rows.len() > 400, "the table was cut short: {} rows", rows.len());
    rows
}

#[test]
fn weights_and_kv_are_exact_everywhere() {
    for Row { line, shape, request, weights, kv, .. } in rows() {
        let plan = plan(&shape, &request).unwrap();
        assert_eq!((plan.weights(), plan.of_kind(Kind::Kv)), (weights, kv), "{line}");
        assert!(plan.items.iter().filter(|item| item.kind == Kind::Kv).all(|item| item.exact), "{line}");
    }
}

#[test]
fn compute_is_exact_where_the_plan_says_so_and_close_elsewhere() {
    let (mut exact, mut estimated) = (0, 0);
    for Row { line, shape, request, compute, .. } in rows() {
        let plan = plan(&shape, &request).unwrap();
        let item = plan.items.iter().find(|item| item.kind == Kind::Compute).unwrap();
        if item.exact {
            exact += 1;
            assert_eq!(item.bytes, compute, "{line}: {}", item.derivation);
        } else {
            estimated += 1;
            let error = item.bytes.get().abs_diff(compute.get());
            assert!(error * 100 <= compute.get() * 3, "{line}: {} is off by {error}", item.bytes);
        }
    }
    assert!(exact > 10 * estimated, "{exact} exact and {estimated} estimated rows");
}

#[test]
fn the_hosts_own_requests_are_exact() {
    for name in ["llama-1b", "qwen2-7b", "qwen2-0.5b", "qwen3-0.6b", "llama-tiny", "llama-mha"] {
        let plan = plan(&shape(name, Bytes::gb(1)), &PlanRequest::new(Device::Cpu)).unwrap();
        let inexact: Vec<_> = plan.items.iter().filter(|item| !item.exact).map(|item| item.kind).collect();
        assert_eq!(inexact, [Kind::Tables], "{name}");
    }
}
