//! Shapes of well-known models, from their published configurations.

#![allow(dead_code, reason = "each test file uses some of them")]

use locara_policy::{
    Attention, Bytes, Layer, ModelShape,
    shape::{DenseDims, Weights},
};

fn dense(architecture: &str, dims: [u32; 7], n_ctx_train: u32, weights: Weights) -> ModelShape {
    let [n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab] = dims;
    let dims = DenseDims { n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_ctx_train };
    ModelShape::dense(architecture, dims, weights)
}

/// Untied weights of a file of so many megabytes.
fn file(mb: u64) -> Weights {
    Weights { bytes: Bytes::mb(mb), token_embedding: Bytes::mb(mb / 12), tied_output: false }
}

pub(crate) fn llama_1b() -> ModelShape {
    let weights = Weights { tied_output: true, ..file(800) };
    dense("llama", [16, 2048, 8192, 32, 8, 64, 128_256], 131_072, weights)
}
pub(crate) fn llama_3b_q4() -> ModelShape {
    let weights = Weights { tied_output: true, ..file(2_019) };
    dense("llama", [28, 3072, 8192, 24, 8, 128, 128_256], 131_072, weights)
}
/// Qwen2.5-7B; the files on the hub are 4.68 GB (Q4_K_M) and 6.25 GB (Q6_K).
pub(crate) fn qwen_7b(mb: u64) -> ModelShape {
    dense("qwen2", [28, 3584, 18_944, 28, 4, 128, 152_064], 32_768, file(mb))
}
/// Qwen2.5-14B; the files on the hub are 8.99 GB (Q4_K_M) and 12.12 GB (Q6_K).
pub(crate) fn qwen_14b(mb: u64) -> ModelShape {
    dense("qwen2", [48, 5120, 13_824, 40, 8, 128, 152_064], 32_768, file(mb))
}
/// Qwen2.5-32B; the file on the hub is 26.89 GB (Q6_K).
pub(crate) fn qwen_32b(mb: u64) -> ModelShape {
    dense("qwen2", [64, 5120, 27_648, 40, 8, 128, 152_064], 32_768, file(mb))
}
/// Llama-3-70B; the files on the hub are 42.52 GB (Q4_K_M) and 57.89 GB (Q6_K).
pub(crate) fn llama_70b(mb: u64) -> ModelShape {
    dense("llama", [80, 8192, 28_672, 64, 8, 128, 128_256], 8192, file(mb))
}
pub(crate) fn llama_8b() -> ModelShape {
    dense("llama", [32, 4096, 14_336, 32, 8, 128, 128_256], 131_072, file(4_920))
}

fn grouped(n_head: u32, n_head_kv: u32, head_dim: u32, window: Option<u32>) -> Attention {
    Attention::Grouped { n_head, n_head_kv, head_dim_k: head_dim, head_dim_v: head_dim, window }
}

/// A model whose layers are `(count, attention, recurrent f32)`.
pub(crate) fn layered(architecture: &str, layers: &[(usize, Attention, u32)]) -> ModelShape {
    let mut shape = dense(architecture, [1, 2048, 8192, 16, 8, 128, 32_000], 131_072, file(1_000));
    let layer =
        |&(count, attention, recurrent_f32)| std::iter::repeat_n(Layer { n_ff: 8192, attention, recurrent_f32 }, count);
    shape.layers = layers.iter().flat_map(layer).collect();
    shape
}

/// Gemma-3-12B: 8 layers see everything, 40 a window of 1024 tokens.
pub(crate) fn gemma3_12b() -> ModelShape {
    layered("gemma3", &[(8, grouped(16, 8, 256, None), 0), (40, grouped(16, 8, 256, Some(1024)), 0)])
}
/// gpt-oss-20b: half of the 24 layers see a window of 128 tokens.
pub(crate) fn gpt_oss_20b() -> ModelShape {
    layered("gpt-oss", &[(12, grouped(64, 8, 64, None), 0), (12, grouped(64, 8, 64, Some(128)), 0)])
}
/// DeepSeek-V3: latent attention in 61 layers.
pub(crate) fn deepseek_v3() -> ModelShape {
    layered("deepseek2", &[(61, Attention::Latent { n_head: 128, kv_lora_rank: 512, rope_dim: 64 }, 0)])
}
/// Qwen3-Next: 12 attention layers, 36 with a gated delta net (convolution of 4 over 4096 + 2·16·128, state of 128 × 4096).
pub(crate) fn qwen3_next() -> ModelShape {
    let recurrent = 3 * (4096 + 2 * 16 * 128) + 128 * 4096;
    layered("qwen3next", &[(12, grouped(16, 2, 256, None), 0), (36, Attention::None, recurrent)])
}
/// A Mamba of 48 layers: no attention at all.
pub(crate) fn mamba() -> ModelShape {
    layered("mamba", &[(48, Attention::None, 3 * 4096 + 16 * 4096)])
}
/// Gemma-3n-like: the upper 15 of 35 layers reuse the KV of lower ones.
pub(crate) fn shared_kv() -> ModelShape {
    layered(
        "gemma3n",
        &[
            (20, grouped(8, 2, 256, None), 0),
            (15, Attention::Shared { n_head: 8, head_dim_k: 256, head_dim_v: 256, window: None }, 0),
        ],
    )
}
/// A BERT: nothing is kept between texts.
pub(crate) fn bert() -> ModelShape {
    ModelShape { encoder: true, ..layered("bert", &[(12, grouped(12, 12, 64, None), 0)]) }
}
