//! The graphs of the architectures that were compared with the engine, node by node: `src/models` of llama.cpp.

use super::{
    T, Type,
    attention::{Heads, Order, Positions, Qkv},
    inputs::Build,
    recurrent::Rwkv,
};
use crate::{
    compute::ComputeLayout,
    shape::{Attention, ModelShape, Pooling},
};

/// Architectures whose graphs are built here node by node. Each was compared with the engine's dry run.
pub const FOLLOWED: [&str; 21] = [
    "bert",
    "deepseek2",
    "falcon-h1",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "granitehybrid",
    "jamba",
    "lfm2",
    "llama",
    "mamba",
    "mamba2",
    "nomic-bert",
    "olmoe",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "qwen3next",
    "rwkv6",
    "rwkv7",
];

/// The arena of the model's largest graph in bytes. `None` where its graph is not followed, or the sizes are absurd.
pub(crate) fn arena_bytes(shape: &ModelShape, layout: &ComputeLayout) -> Option<u64> {
    let build = Build::new(shape, layout);
    if shape.graph.unfollowed || build.tokens == 0 {
        return None;
    }
    let built = match shape.architecture.as_str() {
        "llama" | "qwen2" | "qwen3" | "qwen3moe" | "olmoe" => build.transformer(Style::LLAMA),
        "gemma2" => build.transformer(Style::GEMMA),
        "gemma3" => build.transformer(Style { scaled: true, ..Style::GEMMA }),
        "deepseek2" => build.latent(),
        "gemma3n" => build.gemma3n(),
        "gemma4" => build.gemma4(),
        "mamba" | "mamba2" => Some(build.mamba_stack()),
        "rwkv6" => Some(build.rwkv_stack(Rwkv::Six)),
        "rwkv7" => Some(build.rwkv_stack(Rwkv::Seven)),
        "jamba" | "granitehybrid" | "lfm2" => build.hybrid(),
        "falcon-h1" => build.side_by_side(),
        "qwen3next" => build.qwen3next(),
        "bert" | "nomic-bert" => build.encoder(),
        _ => None,
    };
    built?.g.arena_bytes()
}

/// The arena of a plain transformer of these sizes, for architectures whose graph is not followed. `None` when absurd.
pub(crate) fn plain_arena_bytes(shape: &ModelShape, layout: &ComputeLayout) -> Option<u64> {
    Build::new(shape, layout).plain().g.arena_bytes()
}

/// In what transformers of one kind differ.
#[derive(Debug, Clone, Copy)]
struct Style {
    order: Order,
    /// The embedding is multiplied by an input.
    scaled: bool,
}

impl Style {
    const LLAMA: Self = Self { order: Order::QueryValueKey, scaled: false };
    const GEMMA: Self = Self { order: Order::QueryKeyValue, scaled: false };
}

/// Width of what a recurrent layer of unknown kind computes with, in widths of the residual stream: above that of all known ones
/// whose states are narrower.
const MIXED_WIDTH: u64 = 8;
/// Streams of Gemma 3n beside the residual one, itself included (`n_altup`).
const STREAMS: u64 = 4;
/// Rank of its learned residual (`laurel`).
const LAUREL_RANK: u64 = 64;
/// Layers of it that zero most of their gates (`n_layer_sparsity`).
const SPARSE_LAYERS: usize = 10;

impl Build<'_> {
    fn n_layer(&self) -> usize {
        self.shape.layers.len()
    }

    fn heads(&self, layer: usize) -> Option<Heads> {
        Heads::of(&self.shape.layers[layer].attention)
    }

    fn is_mamba_1(&self) -> bool {
        matches!(self.shape.architecture.as_str(), "mamba" | "jamba")
    }

    fn n_ff(&self, layer: usize) -> u64 {
        self.shape.layers[layer].n_ff.into()
    }

    /// Feed-forward part of a layer: experts where it has some, else gated.
    fn feed_forward(&mut self, layer: usize, x: T) -> T {
        let dense = self.shape.experts.is_none() || layer < self.shape.graph.dense_layers as usize;
        if dense {
            let width = self.n_ff(layer);
            return self.gated(x, width);
        }
        let routed = self.experts(x, self.shape.graph.expert_norm);
        match u64::from(self.shape.graph.n_ff_shared) {
            0 => routed,
            width => {
                let shared = self.gated(x, width);
                self.g.in_place(&[routed, shared])
            }
        }
    }

    /// What follows attention: residual, feed-forward part, residual.
    fn close_layer(&mut self, layer: usize, attended: T, x: T) -> T {
        let (attended, x) = (self.select_in_last(layer, attended), self.select_in_last(layer, x));
        let x = self.g.in_place(&[attended, x]);
        let normed = self.g.rms_norm(x);
        let out = self.feed_forward(layer, normed);
        self.g.in_place(&[out, x])
    }

    fn transformer(mut self, style: Style) -> Option<Self> {
        // Without a window anywhere llama.cpp has one cache, and its order.
        let windowed = self.shape.layers.iter().any(|layer| layer.attention.window().is_some());
        let order = if windowed { style.order } else { Order::QueryValueKey };
        let mut x = self.embedding(style.scaled);
        for layer in 0..self.n_layer() {
            let heads = self.heads(layer)?;
            let normed = self.g.rms_norm(x);
            let attended = self.attend(normed, heads, Positions::Rotary, order);
            let attended = self.g.linear(attended, self.embd);
            x = self.close_layer(layer, attended, x);
        }
        let normed = self.finish(x);
        self.pool(normed)?;
        Some(self)
    }

    /// Nothing that is special about the model, but as wide as any of its layers and with all that may live beside them.
    fn plain(mut self) -> Self {
        let (tokens, positions) = (self.tokens, Positions::NormedRotary);
        let mask_kind = if self.layout.flash_attention { Type::F16 } else { Type::F32 };
        let mask = self.g.input(mask_kind, [tokens, tokens]);
        let mut x = self.embedding(true);
        let width = u64::from(self.shape.graph.per_layer_embd);
        let inputs = (width > 0).then(|| {
            let rows = self.per_layer_rows(width);
            self.per_layer_inputs(x, rows, width)
        });
        for layer in 0..self.n_layer() {
            let normed = self.g.rms_norm(x);
            let attended = match (self.shape.layers[layer].attention, self.heads(layer)) {
                (Attention::Latent { n_head, kv_lora_rank, rope_dim }, _) => {
                    Some(self.attend_latent(normed, n_head.into(), kv_lora_rank.into(), rope_dim.into()))
                }
                (_, Some(heads)) if self.shape.encoder => {
                    Some(self.attend_without_cells(normed, heads, positions, mask))
                }
                (_, Some(heads)) => Some(self.attend(normed, heads, positions, Order::QueryKeyValue)),
                (_, None) => None,
            };
            let mixed = (self.shape.layers[layer].recurrent_f32 > 0).then(|| self.mix_plainly(layer, normed));
            let mixed = match (attended, mixed) {
                (Some(attended), Some(mixed)) => self.g.op([2 * self.embd, tokens], &[attended, mixed]),
                (one, other) => one.or(other).unwrap_or(normed),
            };
            let mixed = self.g.linear(mixed, self.embd);
            let input = inputs.filter(|_| layer + 1 < self.n_layer()).map(|inputs| self.plane(inputs));
            let mixed = match input {
                Some(input) => self.g.op([self.embd, tokens], &[mixed, input]),
                None => mixed,
            };
            x = self.close_layer(layer, mixed, x);
            // A chain of layers without anything to store would be added in one go, as deep as the model.
            self.g.expand(x);
        }
        self.finish_with_all_rows(x);
        self
    }

    /// A recurrent layer of unknown kind: its state, and a few tensors each a few times as wide as the residual stream.
    fn mix_plainly(&mut self, layer: usize, x: T) -> T {
        let states = self.states();
        let wide = self.g.linear(x, MIXED_WIDTH * self.embd);
        let size = u64::from(self.shape.layers[layer].recurrent_f32).saturating_mul(self.seqs);
        let state = self.g.op([size], &[states.all()]);
        self.g.op([MIXED_WIDTH * self.embd, self.tokens], &[wide, state])
    }

    fn latent(mut self) -> Option<Self> {
        let mut x = self.embedding(false);
        for layer in 0..self.n_layer() {
            let Attention::Latent { n_head, kv_lora_rank, rope_dim } = self.shape.layers[layer].attention else {
                return None;
            };
            let normed = self.g.rms_norm(x);
            let attended = self.attend_latent(normed, n_head.into(), kv_lora_rank.into(), rope_dim.into());
            let attended = self.g.linear(attended, self.embd);
            x = self.close_layer(layer, attended, x);
        }
        self.finish(x);
        Some(self)
    }

    /// Latent attention with the projections of keys and values absorbed into those of queries and outputs.
    fn attend_latent(&mut self, x: T, heads: u64, latent: u64, rope: u64) -> T {
        let (tokens, positions) = (self.tokens, self.positions);
        let [head_k, head_v, q_rank] =
            [self.shape.graph.head_dim_k_mla, self.shape.graph.head_dim_v_mla, self.shape.graph.q_lora_rank]
                .map(u64::from);
        let nope = head_k.saturating_sub(rope);
        let cache = self.cache(None);
        let g = &mut self.g;
        let source = if q_rank > 0 { g.linear(x, q_rank) } else { x };
        let q = g.linear(source, heads * head_k);
        let q = g.reshape(q, [head_k, heads, tokens]);
        let (head, token) = (g.stride(q, 1), g.stride(q, 2));
        let without = g.view(q, [nope, heads, tokens], &[head, token]);
        let with = g.view(q, [rope, heads, tokens], &[head, token]);
        let without = g.permute(without, [0, 2, 1, 3]);
        let absorbed = g.op([latent, tokens, heads], &[without]);
        let absorbed = g.permute(absorbed, [0, 2, 1, 3]);
        let with = g.in_place(&[with, positions]);
        let q = g.op([latent + rope, heads, tokens], &[absorbed, with]);

        let compressed = g.linear(x, latent + rope);
        let row = g.stride(compressed, 1);
        let without = g.view(compressed, [latent, tokens], &[row]);
        let with = g.view(compressed, [rope, 1, tokens], &[row, row]);
        let normed = g.rms_norm(without);
        let v = g.reshape(normed, [latent, 1, tokens]);
        let with = g.in_place(&[with, positions]);
        let k = g.op([latent + rope, 1, tokens], &[v, with]);
        for part in [q, v, k] {
            g.expand(part);
        }
        self.store_keys(k, &cache);

        let streams = u64::from(self.layout.cells.streams.max(1));
        let per_stream = tokens / streams;
        // Without FlashAttention the latent part of all cells is copied, transposed, in the type of the keys.
        let values = (!self.layout.flash_attention).then(|| {
            let (block, bytes) = self.layout.type_k.block();
            let row = (cache.cells / block).saturating_mul(bytes);
            self.g.op_of(Type::Byte, [row, latent, 1, streams], &[])
        });
        let q = self.by_head(q);
        let g = &mut self.g;
        let out = match values {
            None => {
                let out = g.op([latent, heads, per_stream, streams], &[q, cache.mask]);
                let out = g.permute(out, [0, 2, 1, 3]);
                let out = g.op([head_v, per_stream, heads, streams], &[out]);
                let out = g.permute(out, [0, 2, 1, 3]);
                let out = g.cont(out);
                g.reshape(out, [heads * head_v, tokens])
            }
            Some(values) => {
                let scores = g.op([cache.cells, per_stream, heads, streams], &[q]);
                let weights = g.in_place(&[scores, cache.mask]);
                let out = g.op([latent, per_stream, heads, streams], &[values, weights]);
                let out = g.op([head_v, per_stream, heads, streams], &[out]);
                let out = g.permute(out, [0, 2, 1, 3]);
                g.cont_as(out, [heads * head_v, tokens])
            }
        };
        g.expand(out);
        out
    }

    fn mamba_stack(mut self) -> Self {
        let states = self.states();
        let mut x = self.embedding(false);
        for layer in 0..self.n_layer() {
            let normed = self.g.rms_norm(x);
            let mixed = if self.is_mamba_1() { self.mamba(normed, states, false) } else { self.mamba2(normed, states) };
            let (mixed, rest) = (self.select_in_last(layer, mixed), self.select_in_last(layer, x));
            x = self.g.in_place(&[mixed, rest]);
        }
        self.finish(x);
        self
    }

    fn rwkv_stack(mut self, version: Rwkv) -> Self {
        let states = self.states();
        let x = self.embedding(false);
        let mut x = self.g.layer_norm(x);
        for layer in 0..self.n_layer() {
            x = self.rwkv(layer, x, states, version);
        }
        let normed = self.g.layer_norm(x);
        self.logits(normed);
        self
    }

    /// Recurrent layers with attention between them: Jamba, Granite 4, LFM 2.
    fn hybrid(mut self) -> Option<Self> {
        let lfm2 = self.shape.architecture == "lfm2";
        let granite = self.shape.architecture == "granitehybrid";
        let positions = if self.shape.architecture == "jamba" { Positions::None } else { Positions::Rotary };
        let states = self.states();
        let mut x = self.embedding(false);
        for layer in 0..self.n_layer() {
            let normed = self.g.rms_norm(x);
            let mixed = match self.heads(layer) {
                Some(heads) => {
                    let attended = self.attend(normed, heads, positions, Order::QueryValueKey);
                    self.g.linear(attended, self.embd)
                }
                None if lfm2 => self.short_convolution(normed, states),
                None if self.is_mamba_1() => self.mamba(normed, states, true),
                None => self.mamba2(normed, states),
            };
            // Granite adds to what it computed, the others to the residual: another operand is written over.
            if granite {
                x = self.close_layer(layer, mixed, x);
                continue;
            }
            let (mixed, rest) = (self.select_in_last(layer, mixed), self.select_in_last(layer, x));
            x = self.g.in_place(&[rest, mixed]);
            let normed = self.g.rms_norm(x);
            let out = self.feed_forward(layer, normed);
            x = self.g.in_place(&[x, out]);
        }
        self.finish(x);
        Some(self)
    }

    /// Attention and Mamba 2 in every layer (Falcon H1).
    fn side_by_side(mut self) -> Option<Self> {
        let states = self.states();
        let mut x = self.embedding(false);
        for layer in 0..self.n_layer() {
            let heads = self.heads(layer)?;
            let normed = self.g.rms_norm(x);
            let attended = self.attend(normed, heads, Positions::Rotary, Order::QueryValueKey);
            let attended = self.g.linear(attended, self.embd);
            let normed = self.g.rms_norm(x);
            let mixed = self.mamba2(normed, states);
            let both = self.g.in_place(&[attended, mixed]);
            let sum = self.g.in_place(&[both, x]);
            x = self.select_in_last(layer, sum);
            let normed = self.g.rms_norm(x);
            let out = self.feed_forward(layer, normed);
            x = self.g.in_place(&[out, x]);
        }
        self.finish(x);
        Some(self)
    }

    fn qwen3next(mut self) -> Option<Self> {
        let states = self.states();
        let mut x = self.embedding(false);
        for layer in 0..self.n_layer() {
            let normed = self.g.rms_norm(x);
            self.g.expand(normed);
            let mixed = match self.heads(layer) {
                Some(heads) => self.attend_gated(normed, heads),
                None => self.delta_net(normed, states),
            };
            x = self.g.in_place(&[mixed, x]);
            let normed = self.g.rms_norm(x);
            let routed = self.experts(normed, true);
            let shared = self.gated(normed, self.shape.graph.n_ff_shared.into());
            let gate = self.g.linear(normed, 1);
            let shared = self.g.in_place(&[shared, gate]);
            let out = self.g.in_place(&[routed, shared]);
            x = self.g.in_place(&[out, x]);
        }
        self.finish_with_all_rows(x);
        Some(self)
    }

    /// Attention whose queries come with gates of its output.
    fn attend_gated(&mut self, x: T, heads: Heads) -> T {
        let Heads { n_head, n_head_kv, k: width, v: value, .. } = heads;
        let tokens = self.tokens;
        let both = self.g.linear(x, 2 * width * n_head);
        let both = self.g.reshape(both, [2 * width, n_head, tokens]);
        let strides = [self.g.stride(both, 1), self.g.stride(both, 2)];
        let [q, gate] = [(); 2].map(|()| self.g.view(both, [width, n_head, tokens], &strides));
        let q = self.place(q, Positions::NormedRotary);
        let k = self.g.linear(x, width * n_head_kv);
        let k = self.g.reshape(k, [width, n_head_kv, tokens]);
        let k = self.place(k, Positions::NormedRotary);
        let v = self.g.linear(x, value * n_head_kv);
        let v = self.g.reshape(v, [value, n_head_kv, tokens]);
        let attended = self.attend_with(Qkv { q, k, v }, heads, Order::QueryValueKey);
        let gate = self.g.cont_as(gate, [width * n_head, tokens]);
        let gated = self.g.in_place(&[attended, gate]);
        self.g.linear(gated, self.embd)
    }

    /// The inputs that small Gemmas give to each layer beside the residual stream: looked up by token. `[width, layers, tokens]`
    fn per_layer_rows(&mut self, width: u64) -> T {
        let (tokens, layers) = (self.tokens, self.n_layer() as u64);
        let ids = self.g.input(Type::I32, [tokens]);
        let rows = self.g.op([width * layers, tokens], &[ids]);
        let rows = self.g.reshape(rows, [width, layers, tokens]);
        let scaled = self.g.in_place(&[rows]);
        self.g.expand(scaled);
        scaled
    }

    /// The same mixed with a projection of the embedding, `[width, tokens, layers]`.
    fn per_layer_inputs(&mut self, x: T, rows: T, width: u64) -> T {
        let (tokens, layers) = (self.tokens, self.n_layer() as u64);
        let g = &mut self.g;
        let projected = g.linear(x, width * layers);
        let projected = g.reshape(projected, [width, layers, tokens]);
        let normed = g.rms_norm(projected);
        let sum = g.in_place(&[normed, rows]);
        let by_layer = g.permute(sum, [0, 2, 1, 3]);
        g.cont(by_layer)
    }

    /// One plane of `[width, tokens, planes]`.
    fn plane(&mut self, x: T) -> T {
        let [width, tokens, ..] = self.g.ne(x);
        let row = self.g.stride(x, 1);
        self.g.view(x, [width, tokens], &[row])
    }

    /// Attention of Gemma 3n and 4: values are normed too, and layers may look at the cells of another.
    fn attend_gemma(&mut self, x: T, heads: Heads) -> T {
        let tokens = self.tokens;
        let project = |build: &mut Self, width: u64, n: u64| {
            let rows = build.g.linear(x, width.saturating_mul(n));
            build.g.reshape(rows, [width, n, tokens])
        };
        let q = project(self, heads.k, heads.n_head);
        let q = self.place(q, Positions::NormedRotary);
        let (k, v) = if heads.stores {
            let k = project(self, heads.k, heads.n_head_kv);
            let k = self.place(k, Positions::NormedRotary);
            let v = project(self, heads.v, heads.n_head_kv);
            (k, self.g.rms_norm(v))
        } else {
            (q, q)
        };
        let attended = self.attend_with(Qkv { q, k, v }, heads, Order::QueryKeyValue);
        self.g.linear(attended, self.embd)
    }

    fn gemma4(mut self) -> Option<Self> {
        let width = u64::from(self.shape.graph.per_layer_embd);
        let mut x = self.embedding(true);
        let inputs = (width > 0).then(|| {
            let rows = self.per_layer_rows(width);
            self.per_layer_inputs(x, rows, width)
        });
        for layer in 0..self.n_layer() {
            let heads = self.heads(layer)?;
            let normed = self.g.rms_norm(x);
            let attended = self.attend_gemma(normed, heads);
            x = self.g.in_place(&[attended, x]);
            let normed = self.g.rms_norm(x);
            let out = self.gated(normed, self.n_ff(layer));
            x = self.g.in_place(&[out, x]);
            if let Some(inputs) = inputs {
                let gate = self.g.linear(x, width);
                let input = self.plane(inputs);
                let gated = self.g.in_place(&[gate, input]);
                let out = self.g.linear(gated, self.embd);
                x = self.g.in_place(&[x, out]);
            }
        }
        self.finish_with_all_rows(x);
        Some(self)
    }

    /// Length of each row.
    fn magnitude(&mut self, x: T) -> T {
        let squares = self.g.in_place(&[x]);
        let [_, a, b, c] = self.g.ne(x);
        self.g.op([1, a, b, c], &[squares])
    }

    /// How much each stream counts for a token.
    fn modalities(&mut self, x: T) -> T {
        let normed = self.g.rms_norm(x);
        self.g.linear(normed, STREAMS)
    }

    fn gemma3n(mut self) -> Option<Self> {
        let (embd, tokens) = (self.embd, self.tokens);
        let width = u64::from(self.shape.graph.per_layer_embd);
        let x = self.embedding(true);
        let rows = self.per_layer_rows(width);
        let inputs = self.per_layer_inputs(x, rows, width);

        let target = self.magnitude(x);
        let repeated = self.g.op([embd, tokens, STREAMS - 1], &[x]);
        let added = self.g.linear(repeated, embd);
        let length = self.magnitude(added);
        let added = self.g.in_place(&[added, target]);
        let added = self.g.in_place(&[added, length]);
        let mut x = self.g.op([embd, tokens, STREAMS], &[x, added]);
        for layer in 0..self.n_layer() {
            x = self.gemma3n_layer(layer, x, inputs, width)?;
        }

        let active = self.plane(x);
        let target = self.magnitude(active);
        let (row, plane) = (self.g.stride(x, 1), self.g.stride(x, 2));
        let others = self.g.view(x, [embd, tokens, STREAMS - 1], &[row, plane]);
        let merged = self.g.linear(others, embd);
        let length = self.magnitude(merged);
        let merged = self.g.in_place(&[merged, target]);
        let merged = self.g.in_place(&[merged, length]);
        let mut x = self.plane(x);
        for _ in 1..STREAMS {
            let part = self.plane(merged);
            x = self.g.in_place(&[x, part]);
        }
        let x = self.select(x);
        self.finish(x);
        Some(self)
    }

    fn gemma3n_layer(&mut self, layer: usize, x: T, inputs: T, width: u64) -> Option<T> {
        let (embd, tokens) = (self.embd, self.tokens);
        let heads = self.heads(layer)?;
        // Predict all streams from the active one.
        let active = self.plane(x);
        let modalities = self.modalities(active);
        let coefficients = self.g.linear(modalities, STREAMS * STREAMS);
        let coefficients = self.g.reshape(coefficients, [STREAMS, STREAMS, tokens]);
        let by_token = self.g.permute(x, [1, 2, 0, 3]);
        let by_token = self.g.cont(by_token);
        let predicted = self.g.mul_mat(by_token, coefficients);
        let predicted = self.g.permute(predicted, [0, 2, 1, 3]);
        let predicted = self.g.cont(predicted);
        let predictions = self.g.in_place(&[predicted, x]);

        let active = self.plane(predictions);
        let normed = self.g.rms_norm(active);
        let low = self.g.linear(normed, LAUREL_RANK);
        let laurel = self.g.linear(low, embd);
        let laurel = self.g.in_place(&[laurel, normed]);
        let attended = self.attend_gemma(normed, heads);
        let attended = self.g.in_place(&[attended, active]);
        let both = self.g.in_place(&[attended, laurel]);

        let normed = self.g.rms_norm(both);
        let ff = self.n_ff(layer);
        let up = self.g.linear(normed, ff);
        let mut gate = self.g.linear(normed, ff);
        if layer < SPARSE_LAYERS {
            let mean = self.g.op([1, tokens], &[gate]);
            let difference = self.g.in_place(&[gate, mean]);
            let squares = self.g.in_place(&[difference]);
            let deviation = self.g.op([1, tokens], &[squares]);
            let cutoff = self.g.in_place(&[mean, deviation]);
            gate = self.g.in_place(&[gate, cutoff]);
        }
        let product = self.g.in_place(&[up, gate]);
        let out = self.g.linear(product, embd);
        let activated = self.g.in_place(&[out, both]);

        // Correct the streams by what was wrong with the active one.
        let modalities = self.modalities(activated);
        let active = self.plane(predictions);
        let innovation = self.g.in_place(&[activated, active]);
        let coefficients = self.g.linear(modalities, STREAMS);
        let coefficients = self.g.transpose(coefficients);
        let coefficients = self.g.cont_as(coefficients, [1, tokens, STREAMS]);
        let innovation = self.g.op([embd, tokens, STREAMS], &[innovation]);
        let corrected = self.g.in_place(&[innovation, coefficients]);
        let corrected = self.g.in_place(&[corrected, predictions]);

        let first = self.plane(corrected);
        let first = self.g.in_place(&[first]);
        let gate = self.g.linear(first, width);
        let input = self.plane(inputs);
        let gated = self.g.in_place(&[gate, input]);
        let first = self.g.linear(gated, embd);
        let start = self.plane(corrected);
        let (row, plane) = (self.g.stride(corrected, 1), self.g.stride(corrected, 2));
        let rest = self.g.view(corrected, [embd, tokens, STREAMS - 1], &[row, plane]);
        let rest = self.g.in_place(&[rest, first]);
        Some(self.g.op([embd, tokens, STREAMS], &[start, rest]))
    }

    fn encoder(mut self) -> Option<Self> {
        let nomic = self.shape.architecture == "nomic-bert";
        let positions = if nomic { Positions::Rotary } else { Positions::None };
        let tokens = self.tokens;
        let mask_kind = if self.layout.flash_attention { Type::F16 } else { Type::F32 };
        let mask = self.g.input(mask_kind, [tokens, tokens]);
        let mut x = self.embedding(false);
        if !nomic {
            let learned = self.g.op([self.embd, tokens], &[self.positions]);
            x = self.g.in_place(&[learned, x]);
        }
        x = self.g.layer_norm(x);
        for layer in 0..self.n_layer() {
            let heads = self.heads(layer)?;
            let attended = self.attend_without_cells(x, heads, positions, mask);
            let attended = self.g.linear(attended, self.embd);
            let (attended, rest) = (self.select_in_last(layer, attended), self.select_in_last(layer, x));
            let sum = self.g.in_place(&[attended, rest]);
            let normed = self.g.layer_norm(sum);
            let width = self.n_ff(layer);
            let out = if nomic {
                self.gated(normed, width)
            } else {
                let wide = self.g.linear(normed, width);
                self.g.linear(wide, self.embd)
            };
            let sum = self.g.in_place(&[out, normed]);
            x = self.g.layer_norm(sum);
        }
        self.g.set_output(x);
        self.g.expand(x);
        self.pool(x)?;
        Some(self)
    }

    /// One vector for each sequence.
    fn pool(&mut self, x: T) -> Option<()> {
        let pooled = match self.shape.graph.pooling {
            Pooling::None => return Some(()),
            Pooling::Mean => {
                let weights = self.g.input(Type::F32, [self.tokens, self.seqs]);
                let columns = self.g.transpose(x);
                let columns = self.g.cont(columns);
                self.g.mul_mat(columns, weights)
            }
            Pooling::OneToken => {
                let ids = self.g.input(Type::I32, [self.seqs]);
                self.g.get_rows(x, ids)
            }
            Pooling::Rank => return None,
        };
        self.g.set_output(pooled);
        self.g.expand(pooled);
        Some(())
    }
}
