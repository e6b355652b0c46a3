//! Layers that keep a state of fixed size for each sequence.

use super::{T, Type, inputs::Build};

/// Bytes of an f32, the type of every state.
const F32: u64 = 4;

/// Which states of the memory a batch works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct States {
    all: T,
    /// Those of the sequences in the batch.
    own: T,
    /// Those after the first.
    tail: T,
}

impl States {
    /// The input itself.
    pub(crate) const fn all(self) -> T {
        self.all
    }
}

/// Sizes of a state-space mixer.
struct Sizes {
    /// Columns of the convolution that are kept.
    kept: u64,
    inner: u64,
    state: u64,
    /// Mamba: rank of the time step; Mamba 2 and delta nets: heads.
    rank: u64,
    /// Groups times state, twice: what goes through the convolution beside the inner part.
    beside: u64,
    groups: u64,
}

impl Build<'_> {
    /// The input that names the states.
    pub(crate) fn states(&mut self) -> States {
        let seqs = self.seqs;
        let all = self.g.input(Type::I32, [seqs]);
        let own = self.g.view(all, [seqs], &[]);
        let tail = self.g.view(all, [seqs - 1], &[]);
        States { all, own, tail }
    }

    fn sizes(&self) -> Sizes {
        let dims = &self.shape.graph;
        let (groups, state) = (u64::from(dims.ssm_groups), u64::from(dims.ssm_state));
        Sizes {
            kept: u64::from(dims.ssm_conv).saturating_sub(1),
            inner: dims.ssm_inner.into(),
            state,
            rank: u64::from(dims.ssm_rank).max(1),
            beside: 2 * groups.saturating_mul(state),
            groups: groups.max(1),
        }
    }

    /// Fetches the states of the batch's sequences: `[size, sequences]`. What belongs to other sequences is carried over.
    fn fetch(&mut self, states: States, size: u64) -> T {
        let seqs = self.seqs;
        let all = self.g.op([size, seqs], &[states.all]);
        let own = self.g.view(all, [size, seqs], &[size * F32]);
        self.g.expand(own);
        self.carry_over(all, size);
        own
    }

    /// The same where the operation reads the states by itself. It becomes part of the graph before the others are carried over.
    fn fetch_by(&mut self, states: States, size: u64, reader: T) {
        self.g.expand(reader);
        let others = self.g.op([size, self.seqs - 1], &[states.tail]);
        self.carry_over(others, size);
    }

    fn carry_over(&mut self, fetched: T, size: u64) {
        let extra = self.g.view(fetched, [size, 0], &[size * F32]);
        let store = self.g.store(&[extra]);
        self.g.expand(store);
    }

    fn keep(&mut self, state: T) {
        let store = self.g.store(&[state]);
        self.g.expand(store);
    }

    /// The kept columns and the new ones side by side, along time. Keeps the last of them.
    fn convolution(&mut self, kept: T, new: T, width: u64, columns: u64) -> T {
        let (seqs, tokens) = (self.seqs, self.seq_tokens());
        let kept = self.g.reshape(kept, [columns, width, seqs]);
        let new = self.g.transpose(new);
        let both = self.g.op([columns + tokens, width, seqs], &[kept, new]);
        let (row, plane) = (self.g.stride(both, 1), self.g.stride(both, 2));
        let last = self.g.view(both, [columns, width, seqs], &[row, plane]);
        self.keep(last);
        both
    }

    /// Mamba; Jamba's has norms inside.
    pub(crate) fn mamba(&mut self, x: T, states: States, inner_norms: bool) -> T {
        let Sizes { kept, inner, state, rank, .. } = self.sizes();
        let (seqs, tokens) = (self.seqs, self.seq_tokens());
        let conv = self.fetch(states, kept * inner);
        let x = self.g.reshape(x, [self.embd, tokens, seqs]);
        let both = self.g.linear(x, 2 * inner);
        let (row, plane) = (self.g.stride(both, 1), self.g.stride(both, 2));
        let x = self.g.view(both, [inner, tokens, seqs], &[row, plane]);
        let z = self.g.view(both, [inner, tokens, seqs], &[row, plane]);
        let window = self.convolution(conv, x, inner, kept);
        let x = self.g.op([inner, tokens, seqs], &[window]);

        let parts = self.g.linear(x, rank + 2 * state);
        let (row, plane) = (self.g.stride(parts, 1), self.g.stride(parts, 2));
        let step = self.g.view(parts, [rank, tokens, seqs], &[row, plane]);
        let [b, c] = [(); 2].map(|()| self.g.view(parts, [state, 1, tokens, seqs], &[state * F32, row, plane]));
        let (step, b, c) = if inner_norms {
            (self.g.rms_norm(step), self.g.rms_norm(b), self.g.rms_norm(c))
        } else {
            (self.g.cont(step), b, c)
        };
        let step = self.g.linear(step, inner);
        let heads = self.g.reshape(x, [1, inner, tokens, seqs]);
        let size = inner * state;
        let scanned = self.g.op([inner * tokens * seqs + size * seqs], &[heads, step, b, c, states.own]);
        self.fetch_by(states, size, scanned);
        let last = self.g.view(scanned, [size * seqs], &[]);
        self.keep(last);

        let y = self.g.view(scanned, [inner, tokens, seqs], &[inner * F32, inner * tokens * F32]);
        let skipped = self.g.in_place(&[x]);
        let y = self.g.in_place(&[y, skipped]);
        let z = self.g.cont(z);
        let y = self.g.op([inner, tokens, seqs], &[z, y]);
        let out = self.g.linear(y, self.embd);
        self.g.reshape(out, [self.embd, self.tokens])
    }

    /// Mamba 2.
    pub(crate) fn mamba2(&mut self, x: T, states: States) -> T {
        let Sizes { kept, inner, state, rank: heads, beside, groups } = self.sizes();
        let (seqs, tokens) = (self.seqs, self.seq_tokens());
        let (head, width) = (inner / heads, inner + beside);
        let conv = self.fetch(states, kept * width);
        let all = self.g.linear(x, inner + width + heads);
        let all = self.g.reshape(all, [inner + width + heads, tokens, seqs]);
        let (row, plane) = (self.g.stride(all, 1), self.g.stride(all, 2));
        let z = self.g.view(all, [head, heads, tokens, seqs], &[head * F32, row, plane]);
        let mixed = self.g.view(all, [width, tokens, seqs], &[row, plane]);
        let step = self.g.view(all, [heads, tokens, seqs], &[row, plane]);
        let window = self.convolution(conv, mixed, width, kept);
        let mixed = self.g.op([width, tokens, seqs], &[window]);

        let (row, plane) = (self.g.stride(mixed, 1), self.g.stride(mixed, 2));
        let x = self.g.view(mixed, [head, heads, tokens, seqs], &[head * F32, row, plane]);
        let [b, c] = [(); 2].map(|()| self.g.view(mixed, [state, groups, tokens, seqs], &[state * F32, row, plane]));
        let step = self.g.cont(step);
        let size = inner * state;
        let scanned = self.g.op([inner * tokens * seqs + size * seqs], &[x, step, b, c, states.own]);
        self.fetch_by(states, size, scanned);
        let last = self.g.view(scanned, [size, seqs], &[]);
        self.keep(last);

        let strides = [head * F32, inner * F32, inner * tokens * F32];
        let y = self.g.view(scanned, [head, heads, tokens, seqs], &strides);
        let skipped = self.g.in_place(&[x]);
        let y = self.g.in_place(&[y, skipped]);
        let z = self.g.cont(z);
        let y = self.g.op([head, heads, tokens, seqs], &[z, y]);
        let y = if self.shape.graph.ssm_norm {
            let y = self.g.reshape(y, [inner / groups, groups, tokens, seqs]);
            self.g.rms_norm(y)
        } else {
            y
        };
        let y = self.g.reshape(y, [inner, self.tokens]);
        self.g.linear(y, self.embd)
    }

    /// A short convolution with gates before and after (LFM 2).
    pub(crate) fn short_convolution(&mut self, x: T, states: States) -> T {
        let (embd, seqs, tokens) = (self.embd, self.seqs, self.seq_tokens());
        let columns = u64::from(self.shape.graph.short_conv).saturating_sub(1);
        let x = self.g.reshape(x, [embd, tokens, seqs]);
        let all = self.g.linear(x, 3 * embd);
        let (row, plane) = (self.g.stride(all, 1), self.g.stride(all, 2));
        let [b, c, x] = [(); 3].map(|()| self.g.view(all, [embd, tokens, seqs], &[row, plane]));
        let gated = self.g.in_place(&[b, x]);
        let conv = self.fetch(states, columns * embd);
        let window = self.convolution(conv, gated, embd, columns);
        let convolved = self.g.op([embd, tokens, seqs], &[window]);
        let gated = self.g.in_place(&[c, convolved]);
        let out = self.g.linear(gated, embd);
        self.g.reshape(out, [embd, self.tokens])
    }

    /// A gated delta net with its own projections (Qwen 3 Next).
    pub(crate) fn delta_net(&mut self, x: T, states: States) -> T {
        let Sizes { kept, inner, state, rank: heads, beside, groups } = self.sizes();
        let (seqs, tokens) = (self.seqs, self.seq_tokens());
        let (head, width) = (inner / heads, inner + beside);
        let mixed = self.g.linear(x, width);
        let mixed = self.g.reshape(mixed, [width, tokens, seqs]);
        let z = self.g.linear(x, inner);
        let z = self.g.reshape(z, [head, heads, tokens, seqs]);
        let both = self.g.linear(x, 2 * heads);
        let per_group = heads / groups;
        let both = self.g.reshape(both, [2 * per_group, groups, tokens, seqs]);
        let strides = [1, 2, 3].map(|dimension| self.g.stride(both, dimension));
        let [beta, alpha] = [(); 2].map(|()| self.g.view(both, [per_group, groups, tokens, seqs], &strides));
        let beta = self.g.cont(beta);
        let alpha = self.g.cont_as(alpha, [heads, tokens, seqs]);
        let beta = self.g.reshape(beta, [1, heads, tokens, seqs]);
        let gate = self.g.reshape(alpha, [1, heads, tokens, seqs]);

        let conv = self.fetch(states, kept * width);
        let window = self.convolution(conv, mixed, width, kept);
        let size = state * inner;
        let old = self.fetch(states, size);
        let old = self.g.reshape(old, [head, head, heads, seqs]);
        let convolved = self.g.op([width, tokens, seqs], &[window]);
        let strides = |head: u64| [head * F32, width * F32, width * tokens * F32];
        let [q, k] = [(); 2].map(|()| {
            let part = self.g.view(convolved, [state, groups, tokens, seqs], &strides(state));
            let normed = self.g.rms_norm(part);
            if groups == heads {
                return normed;
            }
            let rows = self.g.reshape(normed, [state, 1, groups, tokens * seqs]);
            let repeated = self.g.op([state, per_group, groups, tokens * seqs], &[rows]);
            self.g.reshape(repeated, [state, heads, tokens, seqs])
        });
        let v = self.g.view(convolved, [head, heads, tokens, seqs], &strides(head));
        let out = self.g.op([inner, tokens * seqs + head * seqs], &[q, k, v, gate, beta, old]);
        let new = self.g.view(out, [head, head, heads, seqs], &[]);
        self.keep(new);
        let out = self.g.view(out, [head, heads, tokens, seqs], &[]);
        let normed = self.g.rms_norm(out);
        let z = self.g.in_place(&[z]);
        let gated = self.g.in_place(&[normed, z]);
        let gated = self.g.reshape(gated, [inner, tokens, seqs]);
        let out = self.g.linear(gated, self.embd);
        self.g.reshape(out, [self.embd, self.tokens])
    }

    /// A whole layer of RWKV 6 or 7. Its input and output are `[width, tokens]`.
    pub(crate) fn rwkv(&mut self, layer: usize, x: T, states: States, version: Rwkv) -> T {
        let (embd, seqs, tokens) = (self.embd, self.seqs, self.seq_tokens());
        let last = layer + 1 == self.shape.layers.len();
        let three = [embd, tokens, seqs];
        let x = self.g.reshape(x, three);
        let kept = self.fetch(states, 2 * embd);
        let kept = self.g.reshape(kept, [embd, 2, seqs]);
        let strides = [1, 2].map(|dimension| self.g.stride(kept, dimension));
        let [before_attention, before_mix] = [(); 2].map(|()| self.g.view(kept, [embd, 1, seqs], &strides));
        let normed = self.g.layer_norm(x);
        let shifted = self.shift(before_attention, normed);
        let mixed = match version {
            Rwkv::Six => self.time_mix_6(normed, shifted, states),
            Rwkv::Seven => self.time_mix_7(normed, shifted, states, layer),
        };
        let x = self.g.in_place(&[mixed, x]);

        let second = self.g.layer_norm(x);
        let shifted = self.shift(before_mix, second);
        let [a, b] = [normed, second].map(|part| {
            let strides = [1, 2].map(|dimension| self.g.stride(part, dimension));
            self.g.view(part, [embd, 1, seqs], &strides)
        });
        let kept = self.g.op([embd, 2, seqs], &[a, b]);
        let kept = self.g.view(kept, [embd * seqs * 2], &[]);
        self.keep(kept);
        let [x, second, shifted] = [x, second, shifted].map(|part| {
            let rows = self.g.reshape(part, [embd, self.tokens]);
            if last { self.select(rows) } else { rows }
        });
        let out = self.channel_mix(layer, second, shifted, version);
        self.g.in_place(&[out, x])
    }

    fn shift(&mut self, before: T, normed: T) -> T {
        let (embd, seqs, tokens) = (self.embd, self.seqs, self.seq_tokens());
        let strides = [1, 2].map(|dimension| self.g.stride(normed, dimension));
        let rest = self.g.view(normed, [embd, tokens - 1, seqs], &strides);
        self.g.op([embd, tokens, seqs], &[before, rest])
    }

    fn channel_mix(&mut self, layer: usize, x: T, shifted: T, version: Rwkv) -> T {
        let width = u64::from(self.shape.layers[layer].n_ff);
        let g = &mut self.g;
        let change = g.in_place(&[shifted, x]);
        let mut mix = || {
            let scaled = g.in_place(&[change]);
            g.in_place(&[scaled, x])
        };
        match version {
            Rwkv::Six => {
                let (for_key, for_gate) = (mix(), mix());
                let gate = g.linear(for_gate, self.embd);
                let key = g.linear(for_key, width);
                let value = g.linear(key, self.embd);
                g.in_place(&[gate, value])
            }
            Rwkv::Seven => {
                let for_key = mix();
                let key = g.linear(for_key, width);
                g.linear(key, self.embd)
            }
        }
    }

    /// The state after a layer's attention goes back to the memory; what it gives is normed by head.
    fn wkv(&mut self, operands: &[T]) -> T {
        let (embd, seqs, tokens) = (self.embd, self.seqs, self.tokens);
        let head = u64::from(self.shape.graph.wkv_head).max(1);
        let out = self.g.op([embd, tokens + head * seqs], operands);
        let state = self.g.view(out, [embd * head * seqs], &[]);
        self.keep(state);
        let out = self.g.view(out, [embd * tokens], &[]);
        let heads = self.g.reshape(out, [head, embd / head, tokens]);
        let normed = self.g.layer_norm(heads);
        let rows = self.g.reshape(normed, [embd, tokens]);
        self.g.in_place(&[rows])
    }

    fn time_mix_6(&mut self, x: T, shifted: T, states: States) -> T {
        let (embd, tokens) = (self.embd, self.tokens);
        let head = u64::from(self.shape.graph.wkv_head).max(1);
        let [mix_rank, decay_rank] = [self.shape.graph.rwkv_mix_rank, self.shape.graph.rwkv_decay_rank].map(u64::from);
        let g = &mut self.g;
        let change = g.in_place(&[shifted, x]);
        let change = g.reshape(change, [embd, tokens]);
        let x = g.reshape(x, [embd, tokens]);
        let scaled = g.in_place(&[change]);
        let mixed = g.in_place(&[scaled, x]);
        let low = g.linear(mixed, 5 * mix_rank);
        let low = g.reshape(low, [mix_rank, 1, 5, tokens]);
        let low = g.permute(low, [0, 1, 3, 2]);
        let low = g.cont(low);
        let five = g.op([embd, 1, tokens, 5], &[low]);
        let change = g.reshape(change, [embd, 1, tokens]);
        let x = g.reshape(x, [embd, 1, tokens]);
        let five = g.in_place(&[five, change]);
        let five = g.in_place(&[five, x]);
        let row = g.stride(five, 1);
        let [w, k, v, r, gate] = [(); 5].map(|()| g.view(five, [embd, tokens], &[row]));
        let [r, k, v, gate] = [r, k, v, gate].map(|part| g.linear(part, embd));
        let [k, v, r] = [k, v, r].map(|part| g.reshape(part, [head, embd / head, tokens]));
        let w = g.linear(w, decay_rank);
        let w = g.linear(w, embd);
        let w = g.reshape(w, [head, embd / head, tokens]);
        let state = self.fetch(states, embd * head);
        let out = self.wkv(&[k, v, r, w, state]);
        let gated = self.g.in_place(&[out, gate]);
        let out = self.g.linear(gated, embd);
        self.g.reshape(out, [embd, self.seq_tokens(), self.seqs])
    }

    fn time_mix_7(&mut self, x: T, shifted: T, states: States, layer: usize) -> T {
        let (embd, tokens) = (self.embd, self.tokens);
        let (seq_tokens, seqs) = (self.seq_tokens(), self.seqs);
        let dims = &self.shape.graph;
        let head = u64::from(dims.wkv_head).max(1);
        let ranks = [dims.rwkv_decay_rank, dims.rwkv_rate_rank, dims.rwkv_value_rank, dims.rwkv_gate_rank];
        let [decay_rank, rate_rank, value_rank, gate_rank] = ranks.map(u64::from);
        let parts = if gate_rank > 0 { 6 } else { 5 };
        let heads = [head, embd / head, tokens];
        let g = &mut self.g;
        let change = g.in_place(&[shifted, x]);
        let all = g.op([embd, seq_tokens, seqs, parts], &[change]);
        let all = g.in_place(&[all, x]);
        let row = g.stride(all, 1);
        let [r, w, k, v, a, gate] = [(); 6].map(|()| g.view(all, [embd, tokens], &[row]));
        let r = g.linear(r, embd);
        let w = g.linear(w, decay_rank);
        let w = g.linear(w, embd);
        let w_heads = g.reshape(w, heads);
        let k = g.linear(k, embd);
        let value_source = v;
        let mut v = g.linear(v, embd);
        match self.first_value {
            None => self.first_value = Some(v),
            Some(first) => {
                let low = g.linear(value_source, value_rank);
                let share = g.linear(low, embd);
                let difference = g.in_place(&[first, v]);
                let scaled = g.in_place(&[difference, share]);
                v = g.in_place(&[v, scaled]);
            }
        }
        debug_assert!(layer > 0 || self.first_value == Some(v), "the first layer's values are the first");
        let a = g.linear(a, rate_rank);
        let a = g.linear(a, embd);
        let weighted = g.in_place(&[k]);
        let kk = g.reshape(weighted, heads);
        let kk = g.op(heads, &[kk]);
        let ka = g.in_place(&[k]);
        let product = g.in_place(&[a, ka]);
        let less = g.in_place(&[product, ka]);
        let k = g.in_place(&[k, less]);
        let [r, v_heads, k, a] = [r, v, k, a].map(|part| g.reshape(part, heads));
        let negative = g.in_place(&[kk]);
        let removed = g.in_place(&[kk, a]);
        let state = self.fetch(states, embd * head);
        let out = self.wkv(&[r, w_heads, k, v_heads, negative, removed, state]);

        let g = &mut self.g;
        let bonus = g.in_place(&[k, r]);
        let bonus = g.op([1, embd / head, tokens], &[bonus]);
        let bonus = g.in_place(&[v_heads, bonus]);
        let bonus = g.reshape(bonus, [embd, tokens]);
        let mut out = g.in_place(&[out, bonus]);
        if gate_rank > 0 {
            let low = g.linear(gate, gate_rank);
            let gate = g.linear(low, embd);
            out = g.in_place(&[out, gate]);
        }
        let out = g.linear(out, embd);
        g.reshape(out, [embd, seq_tokens, seqs])
    }
}

/// Versions of RWKV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rwkv {
    Six,
    Seven,
}
