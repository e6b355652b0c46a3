//! Attention over a cache: keys and values are stored, then each token looks at the cells of its stream.

use super::{
    T, Type,
    inputs::{Build, Cache},
};
use crate::shape::Attention;

/// In which order llama.cpp adds projections to the graph: it differs by kind of cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// One cache for all layers.
    QueryValueKey,
    /// One cache for layers with a window and one for the others.
    QueryKeyValue,
}

/// Queries, keys and values of some tokens, `[width of a head, heads, tokens]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Qkv {
    pub(crate) q: T,
    pub(crate) k: T,
    pub(crate) v: T,
}

/// What the projections go through before attention. The first step on a reshaped projection takes memory, the others work
/// in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Positions {
    /// Rotary positions.
    Rotary,
    /// The same after a norm of each head.
    NormedRotary,
    /// None.
    None,
}

/// Heads of a layer that attends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) n_head: u64,
    pub(crate) n_head_kv: u64,
    pub(crate) k: u64,
    pub(crate) v: u64,
    pub(crate) window: Option<u32>,
    /// It stores keys and values of its own.
    pub(crate) stores: bool,
}

impl Heads {
    /// `None` where the layer has no such heads.
    pub(crate) fn of(attention: &Attention) -> Option<Self> {
        match *attention {
            Attention::Grouped { n_head, n_head_kv, head_dim_k, head_dim_v, window } => Some(Self {
                n_head: n_head.into(),
                n_head_kv: n_head_kv.into(),
                k: head_dim_k.into(),
                v: head_dim_v.into(),
                window,
                stores: true,
            }),
            Attention::Shared { n_head, head_dim_k, head_dim_v, window } => Some(Self {
                n_head: n_head.into(),
                n_head_kv: 0,
                k: head_dim_k.into(),
                v: head_dim_v.into(),
                window,
                stores: false,
            }),
            Attention::Latent { .. } | Attention::None => None,
        }
    }
}

impl Build<'_> {
    /// Projects to heads. Some files have one matrix for all three.
    pub(crate) fn project(&mut self, x: T, heads: Heads) -> Qkv {
        let Heads { n_head, n_head_kv, k, v, .. } = heads;
        let (q_row, k_row, v_row) =
            (n_head.saturating_mul(k), n_head_kv.saturating_mul(k), n_head_kv.saturating_mul(v));
        let tokens = self.tokens;
        if self.shape.graph.fused_qkv {
            let all = self.g.linear(x, q_row.saturating_add(k_row).saturating_add(v_row));
            let row = self.g.stride(all, 1);
            let mut part = |width: u64, n: u64| self.g.view(all, [width, n, tokens], &[4 * width, row]);
            return Qkv { q: part(k, n_head), k: part(k, n_head_kv), v: part(v, n_head_kv) };
        }
        let g = &mut self.g;
        let [q_, k_, v_] = [q_row, k_row, v_row].map(|row| g.linear(x, row));
        Qkv {
            q: g.reshape(q_, [k, n_head, tokens]),
            k: g.reshape(k_, [k, n_head_kv, tokens]),
            v: g.reshape(v_, [v, n_head_kv, tokens]),
        }
    }

    /// Tells heads where their tokens stand.
    pub(crate) fn place(&mut self, x: T, positions: Positions) -> T {
        let at = self.positions;
        match positions {
            Positions::Rotary => self.g.in_place(&[x, at]),
            Positions::NormedRotary => {
                let normed = self.g.rms_norm(x);
                self.g.in_place(&[normed, at])
            }
            Positions::None => x,
        }
    }

    /// Ordinary attention of a layer, without the projection of its output: `[heads × width, tokens]`.
    pub(crate) fn attend(&mut self, x: T, heads: Heads, positions: Positions, order: Order) -> T {
        let Qkv { q, k, v } = self.project(x, heads);
        let (q, k) = (self.place(q, positions), self.place(k, positions));
        self.attend_with(Qkv { q, k, v }, heads, order)
    }

    /// The same for projections that are ready. A layer that stores nothing ignores keys and values.
    pub(crate) fn attend_with(&mut self, qkv: Qkv, heads: Heads, order: Order) -> T {
        let cache = self.cache(heads.window);
        let q = self.rotate(qkv.q, cache.k_rotation);
        if !heads.stores {
            self.g.expand(q);
        } else {
            let (k, v) = (self.rotate(qkv.k, cache.k_rotation), self.rotate(qkv.v, cache.v_rotation));
            self.g.expand(q);
            let (first, second) = match order {
                Order::QueryValueKey => (v, k),
                Order::QueryKeyValue => (k, v),
            };
            self.g.expand(first);
            self.g.expand(second);
            self.store_keys(k, &cache);
            self.store_values(v, &cache);
        }
        let attended = self.look(q, heads, &cache);
        self.g.expand(attended);
        self.rotate(attended, cache.v_rotation)
    }

    /// Hadamard rotation, in blocks as wide as the matrix.
    fn rotate(&mut self, x: T, rotation: Option<T>) -> T {
        let Some(rotation) = rotation else { return x };
        let (width, shape, elements) = (self.g.ne(rotation)[0], self.g.ne(x), self.g.elements(x));
        let blocks = [width, elements / width.max(1)];
        let rows = if self.g.is_contiguous(x) { self.g.reshape(x, blocks) } else { self.g.cont_as(x, blocks) };
        let rotated = self.g.mul_mat(rotation, rows);
        self.g.reshape(rotated, shape)
    }

    pub(crate) fn store_keys(&mut self, k: T, cache: &Cache) {
        let [width, heads, tokens, _] = self.g.ne(k);
        let row = self.g.stride(k, 2);
        let rows = self.g.view(k, [width.saturating_mul(heads), tokens], &[row]);
        let store = self.g.store(&[rows, cache.k_cells]);
        self.g.expand(store);
    }

    fn store_values(&mut self, v: T, cache: &Cache) {
        let [width, n, tokens, _] = self.g.ne(v);
        let (row, stride) = (width.saturating_mul(n), self.g.stride(v, 2));
        let rows = if self.layout.flash_attention {
            self.g.view(v, [row, tokens], &[stride])
        } else {
            // Stored transposed, element by element, in rows as wide as the widest of any layer.
            let rows = if stride == row.saturating_mul(4) {
                self.g.reshape(v, [row, tokens])
            } else {
                self.g.cont_as(v, [row, tokens])
            };
            let widest = self.shape.layers.iter().map(|layer| layer.attention.v_row()).max().unwrap_or(0);
            let rows = if row < widest { self.g.op([widest, tokens], &[rows]) } else { rows };
            let elements = self.g.elements(rows);
            self.g.reshape(rows, [1, elements])
        };
        let store = self.g.store(&[rows, cache.v_cells]);
        self.g.expand(store);
    }

    /// Queries `[width, heads, tokens]` of each stream, heads outside.
    pub(crate) fn by_head(&mut self, q: T) -> T {
        let streams = u64::from(self.layout.cells.streams.max(1));
        let [width, heads, tokens, _] = self.g.ne(q);
        let (head, token) = (self.g.stride(q, 1), self.g.stride(q, 2));
        let per_stream = tokens / streams;
        let q = self.g.view(q, [width, heads, per_stream, streams], &[head, token, token.saturating_mul(per_stream)]);
        self.g.permute(q, [0, 2, 1, 3])
    }

    fn look(&mut self, q: T, heads: Heads, cache: &Cache) -> T {
        let q = self.by_head(q);
        let [_, per_stream, n_head, streams] = self.g.ne(q);
        let (row, tokens) = (n_head.saturating_mul(heads.v), per_stream.saturating_mul(streams));
        if self.layout.flash_attention {
            let out = self.g.op([heads.v, n_head, per_stream, streams], &[q, cache.mask]);
            return self.g.reshape(out, [row, tokens]);
        }
        let scores = self.g.op([cache.cells, per_stream, n_head, streams], &[q]);
        let weights = self.g.in_place(&[scores, cache.mask]);
        let out = self.g.op([heads.v, per_stream, n_head, streams], &[weights]);
        let out = self.g.permute(out, [0, 2, 1, 3]);
        self.g.cont_as(out, [row, tokens])
    }

    /// Attention among the tokens of the batch, without cells: encoders.
    pub(crate) fn attend_without_cells(&mut self, x: T, heads: Heads, positions: Positions, mask: T) -> T {
        let Qkv { q, k, v } = self.project(x, heads);
        let (q, k) = (self.place(q, positions), self.place(k, positions));
        for part in [q, k, v] {
            self.g.expand(part);
        }
        let tokens = self.tokens;
        let view = [self.g.stride(q, 1), self.g.stride(q, 2), self.g.stride(q, 2).saturating_mul(tokens)];
        let q = self.g.view(q, [heads.k, heads.n_head, tokens, 1], &view);
        let [q, k, v] = [q, k, v].map(|part| self.g.permute(part, [0, 2, 1, 3]));
        let row = heads.n_head.saturating_mul(heads.v);
        let out = if self.layout.flash_attention {
            let [k, v] = [k, v].map(|part| {
                let sizes = self.g.ne(part);
                self.g.op_of(Type::F16, sizes, &[part])
            });
            let out = self.g.op([heads.v, heads.n_head, tokens], &[q, k, v, mask]);
            self.g.reshape(out, [row, tokens])
        } else {
            let v = self.g.transpose(v);
            let v = self.g.cont(v);
            let scores = self.g.mul_mat(k, q);
            let weights = self.g.in_place(&[scores, mask]);
            let out = self.g.mul_mat(v, weights);
            let out = self.g.permute(out, [0, 2, 1, 3]);
            self.g.cont_as(out, [row, tokens])
        };
        self.g.expand(out);
        out
    }
}
