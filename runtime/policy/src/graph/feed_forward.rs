//! Feed-forward parts: gated, and of experts.

use super::{T, Type, inputs::Build};

/// `LLAMA_MAX_EXPERTS` of llama.cpp: no more can work on a token.
const MAX_EXPERTS: u32 = 1024;

impl Build<'_> {
    /// Gate and up of so many columns, their product, and down.
    pub(crate) fn gated(&mut self, x: T, width: u64) -> T {
        let (gate, up) = (self.g.linear(x, width), self.g.linear(x, width));
        let both = self.g.op(self.g.ne(gate), &[gate, up]);
        self.g.linear(both, self.embd)
    }

    /// Experts. `norm` divides their weights by the sum of those chosen.
    pub(crate) fn experts(&mut self, x: T, norm: bool) -> T {
        let Some(experts) = self.shape.experts else { return x };
        let (total, width) = (u64::from(experts.total), u64::from(experts.n_ff));
        let active = u64::from(experts.active.clamp(1, MAX_EXPERTS));
        let [embd, tokens, ..] = self.g.ne(x);
        let biased = self.shape.graph.expert_bias;
        let g = &mut self.g;

        let probabilities = g.linear(x, total);
        let selecting = if biased { g.in_place(&[probabilities]) } else { probabilities };
        let sorted = g.op_of(Type::I32, [total, tokens], &[selecting]);
        let row = g.stride(sorted, 1);
        let chosen = g.view(sorted, [active, tokens], &[row]);
        let column = g.reshape(probabilities, [1, total, tokens]);
        let mut weights = g.op([1, active, tokens], &[column, chosen]);
        if norm {
            let rows = g.reshape(weights, [active, tokens]);
            let sum = g.op([1, tokens], &[rows]);
            let normed = g.in_place(&[rows, sum]);
            weights = g.reshape(normed, [1, active, tokens]);
        }
        g.expand(weights);

        let x = g.reshape(x, [embd, 1, tokens]);
        let [gate, up] = [(); 2].map(|()| g.op([width, active, tokens], &[x, chosen]));
        let both = g.op([width, active, tokens], &[gate, up]);
        let down = g.op([embd, active, tokens], &[both, chosen]);
        let weighted = g.in_place(&[down, weights]);
        g.expand(weighted);
        let (one, token) = (g.stride(weighted, 1), g.stride(weighted, 2));
        debug_assert!(one <= token, "experts lie within tokens");
        let parts: Vec<T> = (0..active).map(|_| g.view(weighted, [embd, tokens], &[token])).collect();
        for &part in &parts {
            g.expand(part);
        }
        let mut sum = parts[0];
        for &part in &parts[1..] {
            sum = g.in_place(&[sum, part]);
            g.expand(sum);
        }
        if parts.len() == 1 { g.cont(sum) } else { sum }
    }
}
