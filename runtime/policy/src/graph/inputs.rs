//! What every graph starts and ends with: inputs that the host fills, and the logits.

use super::{Graph, T, Type};
use crate::{
    compute::ComputeLayout,
    kv::KvType,
    shape::{Attention, ModelShape},
};

/// Head widths that are a multiple of this are rotated (Hadamard) when keys or values are quantised; values always in blocks of it.
const ROTATION: u64 = 64;

/// Inputs of the layers that share a cache: those that see the whole context, or those that see a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cache {
    /// Cells per stream.
    pub(crate) cells: u64,
    /// Which cell each key goes to.
    pub(crate) k_cells: T,
    /// Which cell each value goes to; each element of it when values are stored transposed.
    pub(crate) v_cells: T,
    /// Which cells each token may see.
    pub(crate) mask: T,
    /// Rotates keys and queries before keys are quantised.
    pub(crate) k_rotation: Option<T>,
    /// Rotates values.
    pub(crate) v_rotation: Option<T>,
}

/// A graph in the making, and what its parts have in common.
pub(crate) struct Build<'a> {
    pub(crate) g: Graph,
    pub(crate) shape: &'a ModelShape,
    pub(crate) layout: &'a ComputeLayout,
    /// Tokens computed at once.
    pub(crate) tokens: u64,
    /// Sequences that they belong to, in equal parts.
    pub(crate) seqs: u64,
    /// Width of the residual stream.
    pub(crate) embd: u64,
    /// Position of each token.
    pub(crate) positions: T,
    /// Which tokens have outputs.
    pub(crate) out_ids: T,
    /// The values of the first layer, to which later ones of RWKV 7 return.
    pub(crate) first_value: Option<T>,
    whole: Option<Cache>,
    window: Option<Cache>,
}

impl<'a> Build<'a> {
    pub(crate) fn new(shape: &'a ModelShape, layout: &'a ComputeLayout) -> Self {
        let mut g = Graph::default();
        let (tokens, outputs) = (u64::from(layout.n_tokens), u64::from(layout.n_outputs));
        let positions = g.input(Type::I32, [tokens]);
        let out_ids = g.input(Type::I32, [outputs]);
        let seqs = u64::from(layout.n_seq_max.max(1));
        let embd = u64::from(shape.n_embd);
        Self { g, shape, layout, tokens, seqs, embd, positions, out_ids, first_value: None, whole: None, window: None }
    }

    /// Tokens of each sequence.
    pub(crate) fn seq_tokens(&self) -> u64 {
        self.tokens / self.seqs
    }

    /// The embedding of the tokens. Beside it the graph always has the two other ways in: vectors, and vectors mixed with
    /// tokens. `scaled` ones are multiplied by an input, as tokens are scaled and vectors are not.
    pub(crate) fn embedding(&mut self, scaled: bool) -> T {
        let (tokens, embd) = (self.tokens, self.embd);
        let g = &mut self.g;
        let ids = g.input(Type::I32, [tokens]);
        let rows = g.op([embd, tokens], &[ids]);
        g.expand(rows);
        let vectors = g.input(Type::F32, [embd, tokens]);
        g.expand(vectors);
        let mixed_ids = g.input(Type::I32, [tokens]);
        let mixed_rows = g.op([embd, tokens], &[mixed_ids]);
        let slots = g.input(Type::I64, [tokens]);
        let mixed_vectors = g.input(Type::F32, [embd, tokens]);
        let copy = g.op([embd, tokens], &[mixed_vectors]);
        let mixed = g.store_into(copy, &[mixed_rows, slots, copy]);
        g.expand(mixed);
        if !scaled {
            return rows;
        }
        let scales = g.input(Type::F32, [1, tokens]);
        let scaled = g.in_place(&[rows, scales]);
        g.expand(scaled);
        scaled
    }

    /// The rows of `x` that have outputs.
    pub(crate) fn select(&mut self, x: T) -> T {
        self.g.get_rows(x, self.out_ids)
    }

    /// Rows of the last layer are dropped as soon as only outputs matter.
    pub(crate) fn select_in_last(&mut self, layer: usize, x: T) -> T {
        if layer + 1 == self.shape.layers.len() { self.select(x) } else { x }
    }

    /// RMS norm and logits of rows that were selected before.
    pub(crate) fn finish(&mut self, x: T) -> T {
        let normed = self.g.rms_norm(x);
        self.logits(normed);
        normed
    }

    /// RMS norm of all rows, which the host may read too, then the logits of the selected ones.
    pub(crate) fn finish_with_all_rows(&mut self, x: T) {
        let normed = self.g.rms_norm(x);
        self.g.set_output(normed);
        let selected = self.select(normed);
        self.logits(selected);
    }

    pub(crate) fn logits(&mut self, normed: T) {
        self.g.set_output(normed);
        let logits = self.g.linear(normed, self.shape.n_vocab.into());
        self.g.set_output(logits);
        self.g.expand(logits);
    }

    /// The inputs of a cache, made when first asked for.
    pub(crate) fn cache(&mut self, window: Option<u32>) -> Cache {
        let known = if window.is_some() { self.window } else { self.whole };
        if let Some(cache) = known {
            return cache;
        }
        let ComputeLayout { cells, flash_attention, .. } = *self.layout;
        let tokens = self.tokens;
        let cells_per_stream = u64::from(window.map_or(cells.n_ctx_seq, |window| cells.of_window(window)));
        let streams = u64::from(cells.streams.max(1));
        let widest_value = self.shape.layers.iter().map(|layer| layer.attention.v_row()).max().unwrap_or(0);
        let mask_kind = if flash_attention { Type::F16 } else { Type::F32 };
        let value_cells = if flash_attention { tokens } else { tokens.saturating_mul(widest_value) };
        let k_width = self.rotated(window, self.layout.type_k, Attention::head_dim_k);
        let v_width = self.rotated(window, self.layout.type_v, Attention::head_dim_v);
        let g = &mut self.g;
        let cache = Cache {
            cells: cells_per_stream,
            k_cells: g.input(Type::I64, [tokens]),
            v_cells: g.input(Type::I64, [value_cells]),
            mask: g.input(mask_kind, [cells_per_stream, tokens / streams, 1, streams]),
            // Keys: the largest power of two that divides a head, at least 64; capped far above any real one.
            k_rotation: k_width.map(|head| {
                let width = ROTATION.max(1 << head.trailing_zeros().min(20));
                g.input(Type::F32, [width, width])
            }),
            v_rotation: v_width.map(|_| g.input(Type::F32, [ROTATION, ROTATION])),
        };
        *(if window.is_some() { &mut self.window } else { &mut self.whole }) = Some(cache);
        cache
    }

    /// The width of a head, when the type is quantised, all layers of the cache agree on it, and 64 divides the width that the
    /// first layer of the model has: that is the one llama.cpp asks about.
    fn rotated(&self, window: Option<u32>, kind: KvType, part: fn(&Attention) -> u32) -> Option<u64> {
        let width = |attention: &Attention| u64::from(part(attention));
        let attentions = || self.shape.layers.iter().map(|layer| &layer.attention);
        let asked = attentions().map(width).find(|&width| width > 0)?;
        let mut heads = attentions()
            .filter(|attention| matches!(attention, Attention::Grouped { .. }))
            .filter(|attention| attention.window().is_some() == window.is_some())
            .map(width);
        let first = heads.next()?;
        let agreed = heads.all(|head| head == first);
        (kind.is_quantised() && agreed && first > 0 && asked.is_multiple_of(ROTATION)).then_some(first)
    }
}
