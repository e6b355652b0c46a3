//! Encoders.

use super::Builder;
use crate::spec::Arch;

/// Mean pooling (`enum llama_pooling_type`).
const POOLING_MEAN: u32 = 1;

/// BERT; Nomic's has rotary positions instead of learned ones, a gate, and no biases.
pub(super) fn bert(b: &mut Builder<'_>) {
    let spec = b.spec;
    let (embd, ff) = (u64::from(spec.embd), u64::from(spec.ff));
    let nomic = spec.arch == Arch::NomicBert;
    b.key("feed_forward_length", spec.ff);
    b.key("attention.head_count", spec.heads);
    b.key("attention.layer_norm_epsilon", 1e-12_f32);
    b.key("attention.causal", false);
    b.key("pooling_type", POOLING_MEAN);
    if nomic {
        b.key("rope.freq_base", 1_000.0_f32);
    }
    b.embedding();
    b.float("token_types.weight", &[embd, 2], 0.02);
    if !nomic {
        b.float("position_embd.weight", &[embd, spec.ctx.into()], 0.02);
    }
    b.norm_with_bias("token_embd_norm", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        b.qkvo(&prefix, spec.embd / spec.heads, spec.heads);
        b.norm_with_bias(&format!("{prefix}attn_output_norm"), embd);
        b.matrix(format!("{prefix}ffn_up.weight"), &[embd, ff]);
        b.matrix(format!("{prefix}ffn_down.weight"), &[ff, embd]);
        if nomic {
            b.matrix(format!("{prefix}ffn_gate.weight"), &[embd, ff]);
        } else {
            for (name, width) in [
                ("attn_q", embd),
                ("attn_k", embd),
                ("attn_v", embd),
                ("attn_output", embd),
                ("ffn_up", ff),
                ("ffn_down", embd),
            ] {
                b.float(format!("{prefix}{name}.bias"), &[width], 0.02);
            }
        }
        b.norm_with_bias(&format!("{prefix}layer_output_norm"), embd);
    }
}
