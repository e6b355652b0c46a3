//! What remembering tokens costs: KV cells per architecture class and the constant state of recurrent layers.
//!
//! Sources: ggml's block layouts (`ggml-common.h`), llama.cpp's cache constructors (`llama-kv-cache.cpp`,
//! `llama-kv-cache-iswa.cpp`, `llama-memory-recurrent.cpp`) and its context padding (`llama-context.cpp`). For dense models
//! the result equals the engine's own figure to the byte; the engine commits all of it when the context is made.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Bytes,
    shape::{Attention, ModelShape},
};

/// llama.cpp pads contexts, and the cells of a sliding window, to this many tokens.
pub const CONTEXT_PADDING: u32 = 256;

/// The type in which keys or values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are ggml's own; `name` and `block` say all there is to say")]
pub enum KvType {
    F32,
    F16,
    Bf16,
    #[serde(rename = "q8_0")]
    Q8_0,
    #[serde(rename = "q5_1")]
    Q5_1,
    #[serde(rename = "q5_0")]
    Q5_0,
    #[serde(rename = "q4_1")]
    Q4_1,
    #[serde(rename = "q4_0")]
    Q4_0,
    Iq4Nl,
}

impl KvType {
    /// Every type, from the most bytes to the fewest.
    pub const ALL: [Self; 9] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q5_1, Self::Q5_0, Self::Q4_1, Self::Q4_0, Self::Iq4Nl];

    /// ggml's name, as in llama.cpp's `--cache-type-k`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q5_1 => "q5_1",
            Self::Q5_0 => "q5_0",
            Self::Q4_1 => "q4_1",
            Self::Q4_0 => "q4_0",
            Self::Iq4Nl => "iq4_nl",
        }
    }

    /// (elements, bytes) of one block.
    #[must_use]
    pub const fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q5_1 => (32, 24),
            Self::Q5_0 => (32, 22),
            Self::Q4_1 => (32, 20),
            Self::Q4_0 | Self::Iq4Nl => (32, 18),
        }
    }

    /// Whether values of this type need FlashAttention: without it V is stored transposed, which blocks cannot be.
    #[must_use]
    pub const fn is_quantised(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of a row of `elements`; `None` when blocks do not divide it (ggml refuses such a row) or it cannot be written down.
    #[must_use]
    pub fn row(self, elements: u64) -> Option<Bytes> {
        let (block, bytes) = self.block();
        if !elements.is_multiple_of(block) {
            return None;
        }
        Bytes::product(&[elements / block, bytes])
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is not the name of a KV type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a KV type; use one of f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl")]
pub struct UnknownKvType(pub String);

impl FromStr for KvType {
    type Err = UnknownKvType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnknownKvType(text.to_owned()))
    }
}

/// How the cells of a context are laid out, after llama.cpp's padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cells {
    /// Tokens over all sequences: `n_ctx` padded, and for separate caches rounded to whole sequences.
    pub n_ctx: u32,
    /// Tokens that one sequence may take.
    pub n_ctx_seq: u32,
    /// Separate caches: 1 when unified.
    pub streams: u32,
    /// Sequences that share one stream; each needs its own window in it.
    sequences_per_stream: u32,
    /// Tokens computed at once; a window must hold them beside what they look back at.
    n_ubatch: u32,
    /// Layers with a window have cells for the whole context too.
    swa_full: bool,
}

impl Cells {
    /// The layout that llama.cpp chooses. `None` when a padded figure cannot be written in 32 bits.
    ///
    /// Unified: one pool of `pad256(n_ctx)` cells. Separate: `pad256(pad256(n_ctx) / n_seq)` cells for each sequence.
    #[must_use]
    pub fn new(n_ctx: u32, n_seq_max: u32, unified: bool, n_ubatch: u32) -> Option<Self> {
        let swa_full = false;
        let padded = pad(n_ctx)?;
        if unified {
            return Some(Self {
                n_ctx: padded,
                n_ctx_seq: padded,
                streams: 1,
                sequences_per_stream: n_seq_max,
                n_ubatch,
                swa_full,
            });
        }
        let n_ctx_seq = pad((padded / n_seq_max.max(1)).max(1))?;
        let n_ctx = n_ctx_seq.checked_mul(n_seq_max)?;
        Some(Self { n_ctx, n_ctx_seq, streams: n_seq_max, sequences_per_stream: 1, n_ubatch, swa_full })
    }

    /// The same layout with cells for the whole context in layers that have a window (llama.cpp's `swa_full`).
    #[must_use]
    pub const fn with_full_windows(self) -> Self {
        Self { swa_full: true, ..self }
    }

    /// Cells per stream of a layer with a window: `pad256(min(n_ctx_seq, window·sequences + n_ubatch))`, or the whole context.
    #[must_use]
    pub fn of_window(&self, window: u32) -> u32 {
        if self.swa_full {
            return self.n_ctx_seq;
        }
        let wanted = window.saturating_mul(self.sequences_per_stream).saturating_add(self.n_ubatch);
        pad(wanted.min(self.n_ctx_seq)).unwrap_or(self.n_ctx_seq)
    }
}

fn pad(tokens: u32) -> Option<u32> {
    tokens.checked_next_multiple_of(CONTEXT_PADDING)
}

/// Why the state of a model cannot be sized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum KvError {
    /// ggml stores whole blocks only.
    #[error(
        "layer {layer}: a {part} head of {elements} elements cannot be kept as {kind}, whose blocks hold {block}; use f16 for {part}"
    )]
    Block {
        /// The layer.
        layer: usize,
        /// `K` or `V`.
        part: char,
        /// Width of one head.
        elements: u64,
        /// The type asked for.
        kind: KvType,
        /// Elements of its block.
        block: u64,
    },
    /// Latent attention keeps keys and values in the same row.
    #[error(
        "latent attention keeps keys and values in one row, which cannot be both {type_k} and {type_v}; use one type for both"
    )]
    Mixed {
        /// Type asked for the keys.
        type_k: KvType,
        /// Type asked for the values.
        type_v: KvType,
    },
    /// The product does not fit 64 bits.
    #[error(
        "layer {layer}: {cells} cells × {streams} streams are more bytes than can be counted; lower n_ctx or the number of sequences"
    )]
    Overflow {
        /// The layer.
        layer: usize,
        /// Cells per stream.
        cells: u32,
        /// Streams.
        streams: u32,
    },
}

/// The state of a model by the way it grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvBytes {
    /// Layers that see the whole context.
    pub global: Bytes,
    /// Layers that see a window.
    pub window: Bytes,
    /// Recurrent state, independent of the context.
    pub recurrent: Bytes,
    /// Bytes that one more token takes in the global layers, over all of them.
    pub per_token: Bytes,
}

/// What [`kv_bytes`] needs to know beside the shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvLayout {
    /// Cells and streams.
    pub cells: Cells,
    /// Sequences, each with a recurrent state of its own.
    pub n_seq_max: u32,
    /// Type of the keys.
    pub type_k: KvType,
    /// Type of the values.
    pub type_v: KvType,
    /// Without it V is stored transposed and every layer gets the width of the widest.
    pub flash_attention: bool,
    /// Snapshots of the recurrent state kept for taking tokens back (speculative decoding); 0 for none.
    pub rollback: u32,
}

/// Bytes of the KV cache and of the recurrent state.
///
/// `Σ_layers streams · cells(layer) · (row(type_k, k_row) + row(type_v, v_row))`
/// and `Σ_layers n_seq · (1 + rollback) · state · 4` (recurrent state is always f32).
///
/// # Errors
/// [`KvError`] when blocks do not divide a head, or a figure cannot be written down.
pub fn kv_bytes(shape: &ModelShape, layout: &KvLayout) -> Result<KvBytes, KvError> {
    let mut total = KvBytes::default();
    if shape.encoder {
        return Ok(total);
    }
    let Cells { n_ctx_seq, streams, .. } = layout.cells;
    let widest_v = shape.layers.iter().map(|layer| layer.attention.v_row()).max().unwrap_or(0);

    for (index, layer) in shape.layers.iter().enumerate() {
        let cells = layer.attention.window().map_or(n_ctx_seq, |window| layout.cells.of_window(window));
        let overflow = || KvError::Overflow { layer: index, cells, streams };

        if layer.recurrent_f32 > 0 {
            let state = Bytes::product(&[
                layer.recurrent_f32.into(),
                4,
                layout.n_seq_max.into(),
                u64::from(layout.rollback) + 1,
            ]);
            total.recurrent = state.and_then(|state| total.recurrent.checked_add(state)).ok_or_else(overflow)?;
        }

        let token = token_bytes(index, &layer.attention, widest_v, layout)?;
        if token.is_zero() {
            continue;
        }
        let bytes = Bytes::product(&[token.get(), cells.into(), streams.into()]).ok_or_else(overflow)?;
        if layer.attention.window().is_some() {
            total.window = total.window.checked_add(bytes).ok_or_else(overflow)?;
        } else {
            total.global = total.global.checked_add(bytes).ok_or_else(overflow)?;
            total.per_token = total.per_token.checked_add(token).ok_or_else(overflow)?;
        }
    }
    Ok(total)
}

/// Bytes that one cell takes in one layer.
fn token_bytes(layer: usize, attention: &Attention, widest_v: u64, layout: &KvLayout) -> Result<Bytes, KvError> {
    let (head_k, head_v) = match *attention {
        Attention::Grouped { n_head_kv: 0, .. } | Attention::Shared { .. } | Attention::None => return Ok(Bytes::ZERO),
        Attention::Grouped { head_dim_k, head_dim_v, .. } => (u64::from(head_dim_k), u64::from(head_dim_v)),
        Attention::Latent { .. } if layout.type_k != layout.type_v => {
            return Err(KvError::Mixed { type_k: layout.type_k, type_v: layout.type_v });
        }
        Attention::Latent { .. } => (attention.k_row(), 0),
    };
    // llama.cpp checks the width of one head, not of the row, before it makes the context.
    for (part, elements, kind) in [('K', head_k, layout.type_k), ('V', head_v, layout.type_v)] {
        let (block, _) = kind.block();
        if !elements.is_multiple_of(block) {
            return Err(KvError::Block { layer, part, elements, kind, block });
        }
    }
    let v_row = match attention {
        Attention::Latent { .. } => 0,
        _ if layout.flash_attention => attention.v_row(),
        _ => widest_v,
    };
    let overflow = KvError::Overflow { layer, cells: layout.cells.n_ctx_seq, streams: layout.cells.streams };
    let k = layout.type_k.row(attention.k_row());
    let v = layout.type_v.row(v_row);
    k.zip(v).and_then(|(k, v)| k.checked_add(v)).ok_or(overflow)
}
