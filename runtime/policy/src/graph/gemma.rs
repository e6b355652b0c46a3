//! Gemma 3n and 4: inputs for each layer beside the residual stream, layers that look at the cells of another, and in 3n several
//! streams that predict and correct each other.

use super::{
    T, Type,
    attention::{Heads, Order, Positions, Qkv},
    inputs::Build,
};

/// Streams of Gemma 3n beside the residual one, itself included (`n_altup`).
const STREAMS: u64 = 4;
/// Rank of its learned residual (`laurel`).
const LAUREL_RANK: u64 = 64;
/// Layers of it that zero most of their gates (`n_layer_sparsity`).
const SPARSE_LAYERS: usize = 10;

impl Build<'_> {
    /// The inputs that small Gemmas give to each layer beside the residual stream: looked up by token. `[width, layers, tokens]`
    pub(super) fn per_layer_rows(&mut self, width: u64) -> T {
        let (tokens, layers) = (self.tokens, self.n_layer() as u64);
        let ids = self.g.input(Type::I32, [tokens]);
        let rows = self.g.op([width * layers, tokens], &[ids]);
        let rows = self.g.reshape(rows, [width, layers, tokens]);
        let scaled = self.g.in_place(&[rows]);
        self.g.expand(scaled);
        scaled
    }

    /// The same mixed with a projection of the embedding, `[width, tokens, layers]`.
    pub(super) fn per_layer_inputs(&mut self, x: T, rows: T, width: u64) -> T {
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
    pub(super) fn plane(&mut self, x: T) -> T {
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

    pub(super) fn gemma4(mut self) -> Option<Self> {
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

    pub(super) fn gemma3n(mut self) -> Option<Self> {
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
}
