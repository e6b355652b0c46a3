//! What computing takes: the scratch buffer of the graph.
//!
//! llama.cpp places every intermediate tensor of its largest graph in one arena. For the architectures in [`FOLLOWED`] the
//! graph is built again without its data and placed by the rules of ggml's allocator, which gives the engine's own figure to
//! the byte. For others it is the arena of a plain transformer of the same sizes and [`MARGIN`] more: an estimate.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Bytes,
    graph::models,
    kv::{Cells, KvType},
    shape::{Layer, ModelShape},
};

pub use crate::graph::models::FOLLOWED;

/// Host memory of an engine's vocabulary tables for one token: measured 38 MiB of anonymous memory after loading a model with
/// 128,256 tokens.
pub const TABLE_BYTES_PER_TOKEN: u64 = 310;

/// What is added to the arena of a plain transformer where the graph of an architecture is not followed: (parts, of so many).
pub const MARGIN: (u64, u64) = (1, 4);

/// Widths up to which a graph is believed, so that products of a few of them stay within 64 bits.
const MAX_WIDTH: u32 = 1 << 20;
/// The same for kernels of convolutions.
const MAX_KERNEL: u32 = 1 << 10;
/// The same for vocabularies and batches, in tokens.
const MAX_TOKENS: u32 = 1 << 24;

/// What [`compute_bytes`] needs beside the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeLayout {
    /// Cells and streams.
    pub cells: Cells,
    /// Sequences in a batch.
    pub n_seq_max: u32,
    /// Tokens computed at once (llama.cpp's ubatch), a multiple of the sequences.
    pub n_tokens: u32,
    /// Tokens of them whose logits are wanted.
    pub n_outputs: u32,
    /// Type of the keys.
    pub type_k: KvType,
    /// Type of the values.
    pub type_v: KvType,
    /// With it, attention scores are never written out.
    pub flash_attention: bool,
}

/// A figure, how it came about, and whether it equals the engine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// The figure.
    pub bytes: Bytes,
    /// The formula with its numbers.
    pub derivation: String,
    /// `true` where the engine's own figure is met.
    pub exact: bool,
}

/// The compute buffer; `None` when it cannot be counted in 64 bits.
#[must_use]
pub fn compute_bytes(shape: &ModelShape, layout: &ComputeLayout) -> Option<Derived> {
    if !is_plausible(shape, layout) {
        return None;
    }
    let what = format!(
        "for {tokens} tokens of {seqs} sequences with {outputs} outputs over {cells} cells",
        tokens = layout.n_tokens,
        seqs = layout.n_seq_max,
        outputs = layout.n_outputs,
        cells = layout.cells.n_ctx_seq,
    );
    if let Some(bytes) = models::arena_bytes(shape, layout) {
        let derivation = format!("the {} graph, placed as the engine places it, {what}", shape.architecture);
        return Some(Derived { bytes: Bytes(bytes), derivation, exact: true });
    }
    let plain = models::plain_arena_bytes(shape, layout)?;
    let (parts, of) = MARGIN;
    let bytes = plain.checked_add(plain / of * parts)?;
    let derivation = format!("a plain transformer of these sizes and {parts}/{of} more, {what}");
    Some(Derived { bytes: Bytes(bytes), derivation, exact: false })
}

/// Whether products of a few of the figures stay within 64 bits. No real model comes near these bounds.
fn is_plausible(shape: &ModelShape, layout: &ComputeLayout) -> bool {
    let dims = &shape.graph;
    let experts = shape.experts.map_or([0; 3], |experts| [experts.total, experts.active, experts.n_ff]);
    let layer = |layer: &Layer| {
        let attention = &layer.attention;
        let widths = [layer.n_ff, attention.n_head(), attention.head_dim_k(), attention.head_dim_v()];
        widths.into_iter().all(|width| width <= MAX_WIDTH)
            && attention.k_row().max(attention.v_row()) <= MAX_WIDTH.into()
            && u64::from(attention.n_head()) * u64::from(attention.head_dim_k()) <= u64::from(MAX_TOKENS)
    };
    let widths = [
        dims.n_ff_shared,
        dims.q_lora_rank,
        dims.head_dim_k_mla,
        dims.head_dim_v_mla,
        dims.per_layer_embd,
        dims.ssm_inner,
        dims.ssm_state,
        dims.ssm_rank,
        dims.ssm_groups,
        dims.wkv_head,
        dims.rwkv_mix_rank,
        dims.rwkv_decay_rank,
        dims.rwkv_rate_rank,
        dims.rwkv_value_rank,
        dims.rwkv_gate_rank,
        shape.n_embd,
        layout.n_seq_max,
    ];
    let tokens = [shape.n_vocab, layout.n_tokens, layout.n_outputs];
    widths.into_iter().chain(experts).all(|width| width <= MAX_WIDTH)
        && [dims.ssm_conv, dims.short_conv].into_iter().all(|kernel| kernel <= MAX_KERNEL)
        && tokens.into_iter().all(|tokens| tokens <= MAX_TOKENS)
        && layout.n_tokens >= layout.n_seq_max
        && layout.n_tokens.is_multiple_of(layout.n_seq_max.max(1))
        && shape.layers.iter().all(layer)
}
