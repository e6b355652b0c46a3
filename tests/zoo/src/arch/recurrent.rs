//! Architectures with a state of fixed size: in every layer, in some, or beside attention.

use super::Builder;
use crate::draft::Meta;

/// Width of the convolution before a state-space layer.
const CONV: u64 = 4;
/// Width of a head of Mamba 2.
const SSM_HEAD: u64 = 64;
/// Attention comes in the last of this many layers of a hybrid.
const ATTENTION_EVERY: u32 = 4;

/// Sizes of a state-space layer.
struct Ssm {
    inner: u64,
    state: u64,
    /// Mamba: rank of the time step. Mamba 2: heads.
    rank: u64,
}

impl Ssm {
    /// Mamba: twice the residual width, and a time step of a sixteenth of it.
    fn mamba(b: &Builder<'_>) -> Self {
        let embd = u64::from(b.spec.embd);
        Self { inner: 2 * embd, state: b.spec.state.into(), rank: embd.div_ceil(16) }
    }

    /// Mamba 2: twice the residual width in heads of 64.
    fn mamba2(b: &Builder<'_>) -> Self {
        let inner = 2 * u64::from(b.spec.embd);
        Self { inner, state: b.spec.state.into(), rank: inner.div_ceil(SSM_HEAD) }
    }

    fn keys(&self, b: &mut Builder<'_>, groups: Option<u64>) {
        let keys = [
            ("conv_kernel", CONV),
            ("inner_size", self.inner),
            ("state_size", self.state),
            ("time_step_rank", self.rank),
        ];
        for (key, value) in keys.into_iter().chain(groups.map(|groups| ("group_count", groups))) {
            // The cast cannot truncate: twice a `u32` that memory can hold rows of.
            b.key(&format!("ssm.{key}"), Meta::U32(value as u32));
        }
    }

    /// A Mamba mixer; Jamba's has norms inside.
    fn mamba_mixer(&self, b: &mut Builder<'_>, prefix: &str, inner_norms: bool) {
        let embd = u64::from(b.spec.embd);
        b.matrix(format!("{prefix}ssm_in.weight"), &[embd, 2 * self.inner]);
        b.float(format!("{prefix}ssm_conv1d.weight"), &[CONV, self.inner], 0.5);
        b.constant(format!("{prefix}ssm_conv1d.bias"), &[self.inner], 0.0);
        b.matrix(format!("{prefix}ssm_x.weight"), &[self.inner, self.rank + 2 * self.state]);
        if inner_norms {
            b.norm(format!("{prefix}ssm_dt_norm.weight"), self.rank);
            b.norm(format!("{prefix}ssm_b_norm.weight"), self.state);
            b.norm(format!("{prefix}ssm_c_norm.weight"), self.state);
        }
        b.float(format!("{prefix}ssm_dt.weight"), &[self.rank, self.inner], (self.rank as f32).sqrt().recip());
        // Time steps of about e^-4 (softplus): the state forgets slowly and stays bounded.
        b.constant(format!("{prefix}ssm_dt.bias"), &[self.inner], -4.0);
        b.constant(format!("{prefix}ssm_a"), &[self.state, self.inner], -1.0);
        b.constant(format!("{prefix}ssm_d"), &[self.inner], 1.0);
        b.matrix(format!("{prefix}ssm_out.weight"), &[self.inner, embd]);
    }

    /// A Mamba 2 mixer with one group.
    fn mamba2_mixer(&self, b: &mut Builder<'_>, prefix: &str) {
        let embd = u64::from(b.spec.embd);
        let conv = self.inner + 2 * self.state;
        b.matrix(format!("{prefix}ssm_in.weight"), &[embd, self.inner + conv + self.rank]);
        b.float(format!("{prefix}ssm_conv1d.weight"), &[CONV, conv], 0.5);
        b.constant(format!("{prefix}ssm_conv1d.bias"), &[conv], 0.0);
        b.constant(format!("{prefix}ssm_dt.bias"), &[self.rank], -4.0);
        b.constant(format!("{prefix}ssm_a"), &[1, self.rank], -1.0);
        b.constant(format!("{prefix}ssm_d"), &[1, self.rank], 1.0);
        b.constant(format!("{prefix}ssm_norm.weight"), &[self.inner, 1], 1.0);
        b.matrix(format!("{prefix}ssm_out.weight"), &[self.inner, embd]);
    }
}

/// Whether a layer of a hybrid attends.
fn attends(layer: u32) -> bool {
    layer % ATTENTION_EVERY == ATTENTION_EVERY - 1
}

/// Key-value heads of each layer of a hybrid: none where it does not attend.
fn hybrid_kv_heads(b: &Builder<'_>) -> Vec<u32> {
    (0..b.spec.layers).map(|layer| if attends(layer) { b.spec.kv_heads } else { 0 }).collect()
}

/// Keys of an architecture without attention.
fn attentionless_keys(b: &mut Builder<'_>, ff: u32) {
    b.key("feed_forward_length", ff);
    b.key("attention.head_count", 0_u32);
}

pub(super) fn mamba(b: &mut Builder<'_>) {
    let ssm = Ssm::mamba(b);
    attentionless_keys(b, 0);
    b.key("attention.layer_norm_rms_epsilon", 1e-5_f32);
    ssm.keys(b, None);
    let embd = u64::from(b.spec.embd);
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..b.spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        ssm.mamba_mixer(b, &prefix, false);
    }
}

pub(super) fn mamba2(b: &mut Builder<'_>) {
    let ssm = Ssm::mamba2(b);
    attentionless_keys(b, 0);
    b.key("attention.layer_norm_rms_epsilon", 1e-5_f32);
    ssm.keys(b, Some(1));
    let embd = u64::from(b.spec.embd);
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..b.spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        ssm.mamba2_mixer(b, &prefix);
    }
}

pub(super) fn jamba(b: &mut Builder<'_>) {
    let spec = b.spec;
    let ssm = Ssm::mamba(b);
    b.attention_keys(hybrid_kv_heads(b));
    ssm.keys(b, None);
    let embd = u64::from(spec.embd);
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        if attends(layer) {
            b.qkvo(&prefix, spec.head_dim, spec.kv_heads);
        } else {
            ssm.mamba_mixer(b, &prefix, true);
        }
        b.norm(format!("{prefix}ffn_norm.weight"), embd);
        b.gated_ff(&prefix, "", spec.ff);
    }
}

pub(super) fn granite_hybrid(b: &mut Builder<'_>) {
    let spec = b.spec;
    let ssm = Ssm::mamba2(b);
    b.attention_keys(hybrid_kv_heads(b));
    ssm.keys(b, Some(1));
    b.key("attention.scale", (spec.head_dim as f32).sqrt().recip());
    for key in ["embedding_scale", "residual_scale", "logit_scale"] {
        b.key(key, 1.0_f32);
    }
    let embd = u64::from(spec.embd);
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        if attends(layer) {
            b.qkvo(&prefix, spec.head_dim, spec.kv_heads);
        } else {
            ssm.mamba2_mixer(b, &prefix);
        }
        b.norm(format!("{prefix}ffn_norm.weight"), embd);
        b.gated_ff(&prefix, "", spec.ff);
    }
}

pub(super) fn falcon_h1(b: &mut Builder<'_>) {
    let spec = b.spec;
    let ssm = Ssm::mamba2(b);
    b.attention_keys(spec.kv_heads);
    ssm.keys(b, Some(1));
    let embd = u64::from(spec.embd);
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        ssm.mamba2_mixer(b, &prefix);
        b.qkvo(&prefix, spec.head_dim, spec.kv_heads);
        // Without `.weight`: so it is in llama.cpp.
        b.norm(format!("{prefix}ffn_norm"), embd);
        b.gated_ff(&prefix, "", spec.ff);
    }
}

pub(super) fn lfm2(b: &mut Builder<'_>) {
    /// Tokens that the convolution looks back on, this one included.
    const SHORT_CONV: u32 = 3;

    let spec = b.spec;
    b.attention_keys(hybrid_kv_heads(b));
    b.key("shortconv.l_cache", SHORT_CONV);
    let embd = u64::from(spec.embd);
    b.embedding();
    // The norm of the output: the first converter gave it this name.
    b.norm("token_embd_norm.weight", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        if attends(layer) {
            b.qkvo(&prefix, spec.head_dim, spec.kv_heads);
            b.norm(format!("{prefix}attn_q_norm.weight"), spec.head_dim.into());
            b.norm(format!("{prefix}attn_k_norm.weight"), spec.head_dim.into());
        } else {
            b.float(format!("{prefix}shortconv.conv.weight"), &[SHORT_CONV.into(), embd], 0.5);
            b.matrix(format!("{prefix}shortconv.in_proj.weight"), &[embd, 3 * embd]);
            b.matrix(format!("{prefix}shortconv.out_proj.weight"), &[embd, embd]);
        }
        b.norm(format!("{prefix}ffn_norm.weight"), embd);
        b.gated_ff(&prefix, "", spec.ff);
    }
}

/// Qwen 3 Next: as many key heads as key-value heads, as many value heads as heads, all of the state's width.
pub(super) fn qwen3next(b: &mut Builder<'_>) {
    let spec = b.spec;
    let embd = u64::from(spec.embd);
    let (head, key_heads, value_heads) = (u64::from(spec.state), u64::from(spec.kv_heads), u64::from(spec.heads));
    let (keys, values) = (head * key_heads, head * value_heads);
    b.attention_keys(spec.kv_heads);
    b.expert_keys();
    b.key("expert_shared_feed_forward_length", spec.expert_ff);
    b.key("full_attention_interval", ATTENTION_EVERY);
    Ssm { inner: values, state: head, rank: value_heads }.keys(b, Some(key_heads));
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        b.norm(format!("{prefix}post_attention_norm.weight"), embd);
        if attends(layer) {
            let (q, kv) = (value_heads * u64::from(spec.head_dim), key_heads * u64::from(spec.head_dim));
            // Queries and the gate of the output.
            b.matrix(format!("{prefix}attn_q.weight"), &[embd, 2 * q]);
            b.matrix(format!("{prefix}attn_k.weight"), &[embd, kv]);
            b.matrix(format!("{prefix}attn_v.weight"), &[embd, kv]);
            b.matrix(format!("{prefix}attn_output.weight"), &[q, embd]);
            b.norm(format!("{prefix}attn_q_norm.weight"), spec.head_dim.into());
            b.norm(format!("{prefix}attn_k_norm.weight"), spec.head_dim.into());
        } else {
            b.matrix(format!("{prefix}attn_qkv.weight"), &[embd, 2 * keys + values]);
            b.matrix(format!("{prefix}attn_gate.weight"), &[embd, values]);
            b.float(format!("{prefix}ssm_conv1d.weight"), &[CONV, 2 * keys + values], 0.5);
            b.constant(format!("{prefix}ssm_dt.bias"), &[value_heads], -4.0);
            b.constant(format!("{prefix}ssm_a"), &[value_heads], -1.0);
            b.matrix(format!("{prefix}ssm_ba.weight"), &[embd, 2 * value_heads]);
            b.norm(format!("{prefix}ssm_norm.weight"), head);
            b.matrix(format!("{prefix}ssm_out.weight"), &[values, embd]);
        }
        b.experts(&prefix, spec.expert_ff);
        b.float(format!("{prefix}ffn_gate_inp_shexp.weight"), &[embd], (embd as f32).sqrt().recip());
        b.gated_ff(&prefix, "_shexp", spec.expert_ff);
    }
}

/// Rank of the small matrices that make RWKV's coefficients depend on the token.
const RWKV_RANK: u64 = 32;

/// What both RWKVs have outside their layers.
fn rwkv_frame(b: &mut Builder<'_>) {
    let spec = b.spec;
    attentionless_keys(b, spec.ff);
    b.key("attention.layer_norm_epsilon", 1e-5_f32);
    b.key("wkv.head_size", spec.head_dim);
    b.key("token_shift_count", 2_u32);
    b.embedding();
    b.norm_with_bias("token_embd_norm", spec.embd.into());
    b.norm_with_bias("output_norm", spec.embd.into());
}

/// What both RWKVs have in a layer.
fn rwkv_layer(b: &mut Builder<'_>, prefix: &str) {
    let (embd, ff) = (u64::from(b.spec.embd), u64::from(b.spec.ff));
    b.norm_with_bias(&format!("{prefix}attn_norm"), embd);
    b.norm_with_bias(&format!("{prefix}attn_norm_2"), embd);
    b.norm_with_bias(&format!("{prefix}time_mix_ln"), embd);
    for name in ["time_mix_key", "time_mix_value", "time_mix_receptance", "time_mix_output"] {
        b.matrix(format!("{prefix}{name}.weight"), &[embd, embd]);
    }
    b.constant(format!("{prefix}channel_mix_lerp_k.weight"), &[embd, 1, 1], 0.5);
    b.matrix(format!("{prefix}channel_mix_key.weight"), &[embd, ff]);
    b.matrix(format!("{prefix}channel_mix_value.weight"), &[ff, embd]);
}

pub(super) fn rwkv6(b: &mut Builder<'_>) {
    let spec = b.spec;
    let (embd, head) = (u64::from(spec.embd), u64::from(spec.head_dim));
    // The casts cannot truncate: a constant.
    b.key("time_mix_extra_dim", Meta::U32(RWKV_RANK as u32));
    b.key("time_decay_extra_dim", Meta::U32(RWKV_RANK as u32));
    rwkv_frame(b);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        rwkv_layer(b, &prefix);
        b.float(format!("{prefix}time_mix_w1.weight"), &[embd, 5 * RWKV_RANK], 0.02);
        b.float(format!("{prefix}time_mix_w2.weight"), &[RWKV_RANK, embd, 5], 0.02);
        b.constant(format!("{prefix}time_mix_lerp_x.weight"), &[embd, 1, 1], 0.5);
        b.constant(format!("{prefix}time_mix_lerp_fused.weight"), &[embd, 1, 1, 5], 0.5);
        b.float(format!("{prefix}time_mix_first.weight"), &[head, embd / head], 0.1);
        b.constant(format!("{prefix}time_mix_decay.weight"), &[embd], -4.0);
        b.float(format!("{prefix}time_mix_decay_w1.weight"), &[embd, RWKV_RANK], 0.02);
        b.float(format!("{prefix}time_mix_decay_w2.weight"), &[RWKV_RANK, embd], 0.02);
        b.matrix(format!("{prefix}time_mix_gate.weight"), &[embd, embd]);
        b.constant(format!("{prefix}channel_mix_lerp_r.weight"), &[embd, 1, 1], 0.5);
        b.matrix(format!("{prefix}channel_mix_receptance.weight"), &[embd, embd]);
    }
}

pub(super) fn rwkv7(b: &mut Builder<'_>) {
    let spec = b.spec;
    let embd = u64::from(spec.embd);
    for key in ["decay", "iclr", "value_residual_mix", "gate"] {
        // The cast cannot truncate: a constant.
        b.key(&format!("attention.{key}_lora_rank"), Meta::U32(RWKV_RANK as u32));
    }
    rwkv_frame(b);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        rwkv_layer(b, &prefix);
        for part in ["w", "a", "v"] {
            b.constant(format!("{prefix}time_mix_{part}0.weight"), &[embd], -1.0);
            b.float(format!("{prefix}time_mix_{part}1.weight"), &[embd, RWKV_RANK], 0.02);
            b.float(format!("{prefix}time_mix_{part}2.weight"), &[RWKV_RANK, embd], 0.02);
        }
        b.float(format!("{prefix}time_mix_g1.weight"), &[embd, RWKV_RANK], 0.02);
        b.float(format!("{prefix}time_mix_g2.weight"), &[RWKV_RANK, embd], 0.02);
        b.constant(format!("{prefix}time_mix_lerp_fused.weight"), &[embd, 1, 1, 6], 0.5);
        for name in ["k_k", "k_a", "r_k"] {
            b.float(format!("{prefix}time_mix_{name}.weight"), &[embd], 0.1);
        }
    }
}
