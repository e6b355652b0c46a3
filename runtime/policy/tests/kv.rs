//! KV and recurrent state of every architecture class, against published figures.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod common;

use common::{
    bert, deepseek_v3, gemma3_12b, gpt_oss_20b, layered, llama_1b, llama_8b, llama_70b, mamba, qwen_7b, qwen3_next,
    shared_kv,
};
use locara_policy::{
    ArchClass, Attention, Bytes, KvType, ModelShape,
    kv::{Cells, KvBytes, KvError, KvLayout, kv_bytes},
};

fn layout(n_ctx: u32, n_seq_max: u32, type_k: KvType, type_v: KvType) -> KvLayout {
    let cells = Cells::new(n_ctx, n_seq_max, true, 512).unwrap();
    KvLayout { cells, n_seq_max, type_k, type_v, flash_attention: true, rollback: 0 }
}

fn kv(shape: &ModelShape, n_ctx: u32, kind: KvType) -> KvBytes {
    kv_bytes(shape, &layout(n_ctx, 1, kind, kind)).unwrap()
}

#[test]
fn bytes_per_token_of_the_published_table() {
    let qwen = qwen_7b(4_680);
    assert_eq!(kv(&qwen, 8192, KvType::F16).per_token, Bytes(57_344));
    assert_eq!(kv(&qwen, 8192, KvType::Q8_0).per_token, Bytes(30_464));
    assert_eq!(kv(&qwen, 8192, KvType::Q8_0).global, Bytes::mib(238));
    // (shape, KiB f16, KiB q8_0, KiB q4_0, MiB at 8k q8_0)
    for (shape, f16, q8, q4, at_8k) in
        [(llama_8b(), 128, 68, 36, 544), (llama_70b(42_520), 320, 170, 90, 1360), (llama_1b(), 32, 17, 9, 136)]
    {
        let per_token = [KvType::F16, KvType::Q8_0, KvType::Q4_0].map(|kind| kv(&shape, 8192, kind).per_token);
        assert_eq!(per_token, [Bytes::kib(f16), Bytes::kib(q8), Bytes::kib(q4)]);
        assert_eq!(kv(&shape, 8192, KvType::Q8_0).global, Bytes::mib(at_8k));
    }
}

#[test]
fn windows_bound_the_layers_that_have_them() {
    for (shape, n_ctx, mib) in [
        (gemma3_12b(), 8192, 992),
        (gemma3_12b(), 32_768, 2528),
        (gpt_oss_20b(), 8192, 210),
        (gpt_oss_20b(), 131_072, 3090),
    ] {
        assert_eq!(shape.class(), ArchClass::SlidingWindow);
        let bytes = kv(&shape, n_ctx, KvType::F16);
        assert_eq!(bytes.global.checked_add(bytes.window), Some(Bytes::mib(mib)), "{} at {n_ctx}", shape.architecture);
    }
    // A window that is wider than the context costs what the context costs.
    let short = kv(&gemma3_12b(), 1024, KvType::F16);
    assert_eq!(short.window, short.global.checked_mul(5).unwrap());
}

#[test]
fn every_sequence_needs_its_own_window() {
    let window =
        |n_seq_max| kv_bytes(&gpt_oss_20b(), &layout(32_768, n_seq_max, KvType::F16, KvType::F16)).unwrap().window;
    // 12 layers × 2 KiB × pad256(128·n + 512) cells.
    assert_eq!(window(1), Bytes::kib(24 * 768));
    assert_eq!(window(4), Bytes::kib(24 * 1024));
}

#[test]
fn latent_attention_keeps_one_row_and_no_values() {
    assert_eq!(deepseek_v3().class(), ArchClass::Latent);
    let bytes = kv(&deepseek_v3(), 4096, KvType::F16);
    assert_eq!(bytes.per_token, Bytes(61 * 576 * 2));
    // The engine refuses two types, though no V is kept.
    let error = kv_bytes(&deepseek_v3(), &layout(4096, 1, KvType::Q8_0, KvType::F16)).unwrap_err();
    assert!(error.to_string().contains("both q8_0 and f16"), "{error}");
}

#[test]
fn recurrent_state_grows_with_sequences_not_with_context() {
    assert_eq!(qwen3_next().class(), ArchClass::Hybrid);
    assert_eq!(mamba().class(), ArchClass::Recurrent);
    let hybrid = kv(&qwen3_next(), 8192, KvType::F16);
    assert_eq!(hybrid.per_token, Bytes::kib(24));
    assert_eq!(hybrid.recurrent, Bytes(36 * 548_864 * 4));
    assert_eq!(kv(&qwen3_next(), 65_536, KvType::F16).recurrent, hybrid.recurrent);

    let mut four = layout(8192, 4, KvType::F16, KvType::F16);
    assert_eq!(kv_bytes(&qwen3_next(), &four).unwrap().recurrent, hybrid.recurrent.checked_mul(4).unwrap());
    four.rollback = 3;
    assert_eq!(kv_bytes(&qwen3_next(), &four).unwrap().recurrent, hybrid.recurrent.checked_mul(16).unwrap());

    let pure = kv(&mamba(), 8192, KvType::F16);
    assert_eq!((pure.global, pure.window), (Bytes::ZERO, Bytes::ZERO));
}

#[test]
fn layers_that_share_keep_nothing_and_encoders_keep_nothing_at_all() {
    assert_eq!(shared_kv().class(), ArchClass::SharedKv);
    assert_eq!(kv(&shared_kv(), 4096, KvType::F16).per_token, Bytes(20 * 2 * 2 * 256 * 2));
    assert_eq!(bert().class(), ArchClass::Encoder);
    assert_eq!(kv(&bert(), 4096, KvType::F16), KvBytes::default());
}

#[test]
fn without_flash_attention_every_layer_gets_the_widest_values() {
    let attention =
        |n_head_kv| Attention::Grouped { n_head: 16, n_head_kv, head_dim_k: 64, head_dim_v: 64, window: None };
    let shape = layered("openelm", &[(1, attention(2), 0), (1, attention(8), 0)]);
    let mut layout = layout(1024, 1, KvType::F16, KvType::F16);
    assert_eq!(kv_bytes(&shape, &layout).unwrap().per_token, Bytes((2 + 8) * 64 * 2 * 2));
    layout.flash_attention = false;
    assert_eq!(kv_bytes(&shape, &layout).unwrap().per_token, Bytes((2 + 8) * 64 * 2 + 2 * 8 * 64 * 2));
}

#[test]
fn contexts_are_padded_as_the_engine_pads_them() {
    let cells = |n_ctx, n_seq, unified| {
        let cells = Cells::new(n_ctx, n_seq, unified, 512).unwrap();
        (cells.n_ctx, cells.n_ctx_seq, cells.streams)
    };
    assert_eq!(cells(1000, 1, true), (1024, 1024, 1));
    assert_eq!(cells(8192, 4, true), (8192, 8192, 1));
    assert_eq!(cells(5000, 4, false), (5120, 1280, 4));
    assert_eq!(cells(1, 1, true), (256, 256, 1));
    assert_eq!(cells(1, 8, false), (2048, 256, 8));
    assert_eq!(Cells::new(u32::MAX, 1, true, 512), None);
    assert_eq!(Cells::new(u32::MAX - 255, 11, false, 512), None);
}

#[test]
fn a_head_that_blocks_do_not_divide_is_refused_by_name() {
    let attention = Attention::Grouped { n_head: 8, n_head_kv: 8, head_dim_k: 64, head_dim_v: 72, window: None };
    let shape = layered("llama", &[(1, attention, 0)]);
    let error = kv_bytes(&shape, &layout(1024, 1, KvType::Q8_0, KvType::Q8_0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 0: a V head of 72 elements cannot be kept as q8_0, whose blocks hold 32; use f16 for V"
    );
    assert!(kv_bytes(&shape, &layout(1024, 1, KvType::Q8_0, KvType::F16)).is_ok());
}

#[test]
fn absurd_dimensions_are_an_error_and_not_a_wrapped_number() {
    let attention = Attention::Grouped {
        n_head: u32::MAX,
        n_head_kv: u32::MAX,
        head_dim_k: u32::MAX,
        head_dim_v: u32::MAX,
        window: None,
    };
    let shape = layered("llama", &[(1, attention, u32::MAX)]);
    let error = kv_bytes(&shape, &layout(1 << 30, 1, KvType::F32, KvType::F32)).unwrap_err();
    assert!(matches!(error, KvError::Overflow { layer: 0, .. }), "{error}");
}

#[test]
fn names_of_kv_types_are_ggmls_and_unknown_ones_are_listed() {
    for kind in KvType::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
    let error = "q6_k".parse::<KvType>().unwrap_err().to_string();
    assert!(error.contains("`q6_k`") && error.contains("iq4_nl"), "{error}");
}
