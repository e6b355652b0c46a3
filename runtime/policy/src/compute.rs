//! What computing takes: the scratch buffer of the graph.
//!
//! llama.cpp places every intermediate tensor of its largest graph in one arena. The arena's size is therefore not a sum but
//! a maximum over moments: `inputs + mask + max(feed-forward, logits, attention, scores)`, where each moment is given by the
//! tensors alive in it. **Every coefficient lives in this file.** They were fitted to the engine's own dry run and meet it to
//! the byte in the table of `tests/engine.rs` (Llama, Qwen2 and Qwen3 shapes, 256 to 32768 tokens, 1 to 4 sequences, unified
//! and separate, FlashAttention on and off, f16 and quantised KV) wherever [`Derived::exact`] is set.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Bytes,
    kv::{Cells, KvType},
    shape::{ArchClass, Attention, ModelShape},
};

/// Bytes of an f32, the type of every intermediate tensor.
const F32: u64 = 4;
/// ggml aligns tensors in a CPU buffer to this.
const ALIGNMENT: u64 = 32;

/// Tensors as wide as the residual stream, for each token, in the moments of feed-forward, logits and attention.
const STREAM: u64 = 5;
/// Tensors as wide as the feed-forward part, for each token: gate, up and their product.
const FEED_FORWARD: u64 = 3;
/// Tensors as wide as all query heads and, separately, all key heads, at the moment of attention: before and after RoPE.
const ATTENTION: u64 = 2;
/// Tensors as wide as the residual stream while attention scores are written out (FlashAttention off).
const SCORES_STREAM: u64 = 3;
/// Tensors as wide as all query heads at that moment; one fewer when the keys are rotated before they are quantised.
const SCORES_QUERIES: u64 = 3;
/// Head widths that are a multiple of this are rotated (Hadamard) when keys or values are quantised; values always in blocks of it.
const ROTATION: u64 = 64;

/// Host memory of an engine's vocabulary tables for one token: measured 38 MiB of anonymous memory after loading a model with
/// 128,256 tokens.
pub const TABLE_BYTES_PER_TOKEN: u64 = 310;

/// Architectures whose graph was compared with the engine's dry run.
pub const MEASURED: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// What [`compute_bytes`] needs beside the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeLayout {
    /// Cells and streams.
    pub cells: Cells,
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

/// Elements of the widest row of each kind, over all layers.
struct Widths {
    queries: u64,
    keys: u64,
    values: u64,
    feed_forward: u64,
}

impl Widths {
    fn of(shape: &ModelShape) -> Option<Self> {
        let widest =
            |row: fn(&Attention) -> u64| shape.layers.iter().map(|layer| row(&layer.attention)).max().unwrap_or(0);
        let dense = u64::from(shape.n_ff_max()).checked_mul(FEED_FORWARD)?;
        let routed = match shape.experts {
            Some(experts) => {
                let active = u64::from(experts.active);
                let inside = active.checked_mul(experts.n_ff.into())?.checked_mul(FEED_FORWARD)?;
                // The outputs of all active experts, before and after weighting, and their sum.
                let outside = active.checked_mul(2)?.checked_add(1)?.checked_mul(shape.n_embd.into())?;
                inside.max(outside)
            }
            None => 0,
        };
        Some(Self {
            queries: widest(Attention::q_row),
            keys: widest(Attention::k_row),
            values: widest(Attention::v_row),
            feed_forward: dense.max(routed),
        })
    }
}

/// The compute buffer; `None` when it cannot be counted in 64 bits.
#[must_use]
pub fn compute_bytes(shape: &ModelShape, layout: &ComputeLayout) -> Option<Derived> {
    let tokens = u64::from(layout.n_tokens);
    let widths = Widths::of(shape)?;
    let rows = |width: u64| Bytes::product(&[F32, tokens, width]);

    let fixed = inputs(layout, &widths)?.checked_add(rotations(shape, layout))?;
    let mask = mask(shape, layout)?;
    let stream = rows(STREAM.checked_mul(shape.n_embd.into())?)?;
    let feed_forward = stream.checked_add(rows(widths.feed_forward)?)?;
    let logits = stream.checked_add(Bytes::product(&[F32, layout.n_outputs.into(), shape.n_vocab.into()])?)?;
    let heads = ATTENTION.checked_mul(widths.queries.checked_add(widths.keys)?)?;
    let attention = stream.checked_add(rows(heads)?)?;
    let scores = if layout.flash_attention { Bytes::ZERO } else { scores(shape, layout, &widths)? };

    let moments =
        [("feed-forward", feed_forward), ("attention scores", scores), ("logits", logits), ("attention", attention)];
    // Ties go to the first: at equal size the better known moment decides.
    let (widest, peak) = moments.into_iter().rev().max_by_key(|(_, bytes)| *bytes)?;
    let bytes = fixed.checked_add(mask)?.checked_add(peak)?;

    // With narrow feed-forward parts the arena is fragmented by attention, which no closed formula follows.
    let spacious = widths.feed_forward / FEED_FORWARD >= u64::from(shape.n_embd).saturating_add(widths.queries);
    let known = match widest {
        "feed-forward" => true,
        "attention scores" => spacious,
        _ => false,
    };
    let exact = known && shape.class() == ArchClass::Dense && MEASURED.contains(&shape.architecture.as_str());
    let derivation = format!(
        "{fixed} inputs + {mask} mask + {peak} at its widest moment ({widest}), for {tokens} tokens with {outputs} outputs \
         over {cells} cells",
        fixed = fixed.binary(),
        mask = mask.binary(),
        peak = peak.binary(),
        outputs = layout.n_outputs,
        cells = layout.cells.n_ctx_seq,
    );
    Some(Derived { bytes, derivation, exact })
}

/// Per token: three 4-byte rows (id, position, sequence) and two of 8 (cell of the key, order); the cells of the values are
/// one index per token, or with transposed values one per element. Per output: its row.
fn inputs(layout: &ComputeLayout, widths: &Widths) -> Option<Bytes> {
    let tokens = u64::from(layout.n_tokens);
    let value_cells = if layout.flash_attention { tokens } else { tokens.checked_mul(widths.values)? };
    let row = |count: u64, width: u64| count.checked_mul(width)?.checked_next_multiple_of(ALIGNMENT).map(Bytes);
    Bytes::checked_sum([
        row(tokens, 4)?.checked_mul(3)?,
        row(tokens, 8)?.checked_mul(2)?,
        row(value_cells, 8)?,
        row(layout.n_outputs.into(), 4)?,
    ])
}

/// One matrix for the keys, as wide as the largest power of two that divides a head, and one of 64×64 for the values.
fn rotations(shape: &ModelShape, layout: &ComputeLayout) -> Bytes {
    let matrix = |width: u64| Bytes(width * width * F32);
    let keys = rotated_head(shape, layout.type_k, |k, _| k).map_or(Bytes::ZERO, |head| {
        // Capped far above any real head, so that the square stays within 64 bits.
        let width = 1u64 << head.trailing_zeros().min(20);
        matrix(width)
    });
    let values = rotated_head(shape, layout.type_v, |_, v| v).map_or(Bytes::ZERO, |_| matrix(ROTATION));
    keys.saturating_add(values)
}

/// The width of a head, when the type is quantised, all attending layers agree on it and 64 divides it.
fn rotated_head(shape: &ModelShape, kind: KvType, part: fn(u32, u32) -> u32) -> Option<u64> {
    let mut heads = shape.layers.iter().filter_map(|layer| match layer.attention {
        Attention::Grouped { head_dim_k, head_dim_v, .. } => Some(u64::from(part(head_dim_k, head_dim_v))),
        _ => None,
    });
    let first = heads.next()?;
    let agreed = heads.all(|head| head == first);
    (kind.is_quantised() && agreed && first > 0 && first % ROTATION == 0).then_some(first)
}

/// One row of cells for each token: f16 with FlashAttention, f32 without; a second one for the cells of a window. Each
/// sequence of separate caches sees its own cells only, so the streams cancel out.
fn mask(shape: &ModelShape, layout: &ComputeLayout) -> Option<Bytes> {
    let element = if layout.flash_attention { 2 } else { F32 };
    let tokens = u64::from(layout.n_tokens);
    let rows = |cells: u32| {
        Bytes::product(&[element, cells.into(), tokens])?.get().checked_next_multiple_of(ALIGNMENT).map(Bytes)
    };
    if shape.encoder {
        return rows(layout.n_tokens);
    }
    let window = shape.layers.iter().filter_map(|layer| layer.attention.window()).max();
    let global = rows(layout.cells.n_ctx_seq)?;
    match window {
        Some(window) => global.checked_add(rows(layout.cells.of_window(window))?),
        None => Some(global),
    }
}

/// The moment at which the scores of one layer are written out: heads × tokens × cells, beside the stream and the queries.
fn scores(shape: &ModelShape, layout: &ComputeLayout, widths: &Widths) -> Option<Bytes> {
    let tokens = u64::from(layout.n_tokens);
    let cells = if shape.encoder { layout.n_tokens } else { layout.cells.n_ctx_seq };
    let rotated = rotated_head(shape, layout.type_k, |k, _| k).is_some();
    let queries = if rotated { SCORES_QUERIES - 1 } else { SCORES_QUERIES };
    let beside = SCORES_STREAM.checked_mul(shape.n_embd.into())?.checked_add(queries.checked_mul(widths.queries)?)?;
    let scores = Bytes::product(&[F32, shape.n_head_max().into(), tokens, cells.into()])?;
    scores.checked_add(Bytes::product(&[F32, tokens, beside])?)
}
