//! Architectures whose layers all attend.

use super::Builder;
use crate::draft::Meta;
use crate::spec::Arch;

/// Llama and what differs from it by norms, biases and experts only.
pub(super) fn dense(b: &mut Builder<'_>) {
    let spec = b.spec;
    let (embd, head_dim) = (u64::from(spec.embd), u64::from(spec.head_dim));
    b.attention_keys(spec.kv_heads);
    if spec.experts > 0 {
        b.expert_keys();
    }
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        b.qkvo(&prefix, spec.head_dim, spec.kv_heads);
        match spec.arch {
            Arch::Qwen2 => {
                let kv = u64::from(spec.kv_heads) * head_dim;
                for (name, width) in [("attn_q", u64::from(spec.heads) * head_dim), ("attn_k", kv), ("attn_v", kv)] {
                    b.float(format!("{prefix}{name}.bias"), &[width], 0.1);
                }
            }
            Arch::Qwen3 | Arch::Qwen3Moe => {
                b.norm(format!("{prefix}attn_q_norm.weight"), head_dim);
                b.norm(format!("{prefix}attn_k_norm.weight"), head_dim);
            }
            Arch::Olmoe => {
                b.norm(format!("{prefix}attn_q_norm.weight"), embd);
                b.norm(format!("{prefix}attn_k_norm.weight"), embd);
            }
            _ => {}
        }
        b.norm(format!("{prefix}ffn_norm.weight"), embd);
        if spec.experts > 0 {
            b.experts(&prefix, spec.expert_ff);
        } else {
            b.gated_ff(&prefix, "", spec.ff);
        }
    }
}

/// DeepSeek 2: keys and values are made from one latent of four heads' width; the first layer has no experts.
pub(super) fn mla(b: &mut Builder<'_>) {
    let spec = b.spec;
    let (embd, heads, nope) = (u64::from(spec.embd), u64::from(spec.heads), u64::from(spec.head_dim));
    // The proportions of DeepSeek 3: rotary part half of a head, query latent three times the key-value latent.
    let rope = nope / 2;
    let latent = 4 * nope;
    let query_latent = 3 * latent;
    b.key("feed_forward_length", spec.ff);
    b.key("leading_dense_block_count", 1_u32);
    b.key("attention.head_count", spec.heads);
    b.key("attention.head_count_kv", 1_u32);
    b.key("attention.layer_norm_rms_epsilon", 1e-6_f32);
    for (key, width) in [
        ("attention.q_lora_rank", query_latent),
        ("attention.kv_lora_rank", latent),
        ("attention.key_length", latent + rope),
        ("attention.value_length", latent),
        ("attention.key_length_mla", nope + rope),
        ("attention.value_length_mla", nope),
        ("rope.dimension_count", rope),
    ] {
        // The cast cannot truncate for any width that `Spec::check` and memory let through; a test pins the values.
        b.key(key, Meta::U32(width as u32));
    }
    b.key("rope.freq_base", 10_000.0_f32);
    b.expert_keys();
    b.key("expert_shared_count", 1_u32);
    b.key("expert_weights_scale", 1.0_f32);
    b.key("expert_gating_func", 1_u32);
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        b.norm(format!("{prefix}attn_norm.weight"), embd);
        b.matrix(format!("{prefix}attn_q_a.weight"), &[embd, query_latent]);
        b.norm(format!("{prefix}attn_q_a_norm.weight"), query_latent);
        b.matrix(format!("{prefix}attn_q_b.weight"), &[query_latent, heads * (nope + rope)]);
        b.matrix(format!("{prefix}attn_kv_a_mqa.weight"), &[embd, latent + rope]);
        b.norm(format!("{prefix}attn_kv_a_norm.weight"), latent);
        b.matrix(format!("{prefix}attn_k_b.weight"), &[nope, latent, heads]);
        b.matrix(format!("{prefix}attn_v_b.weight"), &[latent, nope, heads]);
        b.matrix(format!("{prefix}attn_output.weight"), &[heads * nope, embd]);
        b.norm(format!("{prefix}ffn_norm.weight"), embd);
        if layer == 0 {
            b.gated_ff(&prefix, "", spec.ff);
        } else {
            b.experts(&prefix, spec.expert_ff);
            b.gated_ff(&prefix, "_shexp", spec.expert_ff);
        }
    }
}

/// Gemma 2 and 3: norms before and after, a window in some layers (llama.cpp knows which).
pub(super) fn gemma(b: &mut Builder<'_>) {
    let spec = b.spec;
    let embd = u64::from(spec.embd);
    b.attention_keys(spec.kv_heads);
    b.key("attention.sliding_window", spec.window);
    if spec.arch == Arch::Gemma2 {
        b.key("attn_logit_softcapping", 50.0_f32);
        b.key("final_logit_softcapping", 30.0_f32);
    }
    b.embedding();
    b.norm("output_norm.weight", embd);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        gemma_layer(b, &prefix, spec.head_dim, true);
        if spec.arch == Arch::Gemma3 {
            b.norm(format!("{prefix}attn_q_norm.weight"), spec.head_dim.into());
            b.norm(format!("{prefix}attn_k_norm.weight"), spec.head_dim.into());
        }
    }
}

/// What all Gemmas have in a layer. Without keys and values of its own a layer has no `attn_k` and `attn_v`.
fn gemma_layer(b: &mut Builder<'_>, prefix: &str, head_dim: u32, own_kv: bool) {
    let spec = b.spec;
    let embd = u64::from(spec.embd);
    for norm in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"] {
        b.norm(format!("{prefix}{norm}.weight"), embd);
    }
    if own_kv {
        b.qkvo(prefix, head_dim, spec.kv_heads);
    } else {
        let q = u64::from(spec.heads) * u64::from(head_dim);
        b.matrix(format!("{prefix}attn_q.weight"), &[embd, q]);
        b.matrix(format!("{prefix}attn_output.weight"), &[q, embd]);
    }
    b.gated_ff(prefix, "", spec.ff);
}

/// The embedding that every layer of the small Gemmas gets beside the residual stream.
fn per_layer_embedding(b: &mut Builder<'_>, width: u64) {
    let spec = b.spec;
    let (embd, all) = (u64::from(spec.embd), width * u64::from(spec.layers));
    b.matrix("per_layer_token_embd.weight", &[all, spec.vocab.into()]);
    b.matrix("per_layer_model_proj.weight", &[embd, all]);
    b.norm("per_layer_proj_norm.weight", width);
    for layer in 0..spec.layers {
        b.matrix(format!("blk.{layer}.inp_gate.weight"), &[embd, width]);
        b.matrix(format!("blk.{layer}.proj.weight"), &[width, embd]);
        b.norm(format!("blk.{layer}.post_norm.weight"), embd);
    }
}

/// Gemma 3n. Some of its sizes are constants of llama.cpp, not keys of the file.
pub(super) fn gemma3n(b: &mut Builder<'_>) {
    /// Alternating updates: streams beside the residual one, and width of a layer's embedding.
    const ALTUP: u64 = 4;
    const ALTUP_WIDTH: u64 = 256;
    const LAUREL_RANK: u64 = 64;

    let spec = b.spec;
    let embd = u64::from(spec.embd);
    b.attention_keys(spec.kv_heads);
    b.key("attention.sliding_window", spec.window);
    b.embedding();
    b.norm("output_norm.weight", embd);
    b.matrix("altup_proj.weight", &[embd, embd, ALTUP - 1]);
    b.matrix("altup_unembd_proj.weight", &[embd, embd, ALTUP - 1]);
    per_layer_embedding(b, ALTUP_WIDTH);
    for layer in 0..spec.layers {
        let prefix = format!("blk.{layer}.");
        // Layers that share keys and values still bring the unused weights.
        gemma_layer(b, &prefix, spec.head_dim, true);
        b.norm(format!("{prefix}attn_q_norm.weight"), spec.head_dim.into());
        b.norm(format!("{prefix}attn_k_norm.weight"), spec.head_dim.into());
        b.float(format!("{prefix}altup_correct_coef.weight"), &[ALTUP, ALTUP], 0.1);
        b.norm(format!("{prefix}altup_correct_scale.weight"), embd);
        b.float(format!("{prefix}altup_predict_coef.weight"), &[ALTUP, ALTUP * ALTUP], 0.1);
        b.float(format!("{prefix}altup_router.weight"), &[embd, ALTUP], 0.1);
        b.norm(format!("{prefix}altup_router_norm.weight"), embd);
        b.matrix(format!("{prefix}laurel_l.weight"), &[embd, LAUREL_RANK]);
        b.matrix(format!("{prefix}laurel_r.weight"), &[LAUREL_RANK, embd]);
        b.norm(format!("{prefix}laurel_post_norm.weight"), embd);
    }
}

/// Gemma 4: every second layer has a window, the others heads of twice the width; the last third of the layers uses
/// the keys and values of the last two before it.
pub(super) fn gemma4(b: &mut Builder<'_>) {
    let spec = b.spec;
    let embd = u64::from(spec.embd);
    let (narrow, wide) = (spec.head_dim, 2 * spec.head_dim);
    // An even number: the two layers before the shared ones are then one of each kind.
    let shared = spec.layers / 3 / 2 * 2;
    let has_window: Vec<bool> = (0..spec.layers).map(|layer| layer % 2 == 0).collect();
    b.key("feed_forward_length", spec.ff);
    b.key("attention.head_count", spec.heads);
    b.key("attention.head_count_kv", spec.kv_heads);
    b.key("attention.key_length", wide);
    b.key("attention.value_length", wide);
    b.key("attention.key_length_swa", narrow);
    b.key("attention.value_length_swa", narrow);
    b.key("attention.layer_norm_rms_epsilon", 1e-6_f32);
    b.key("attention.sliding_window", spec.window);
    b.key("attention.sliding_window_pattern", has_window.clone());
    b.key("attention.shared_kv_layers", shared);
    b.key("embedding_length_per_layer_input", narrow);
    b.key("rope.dimension_count", wide);
    b.key("rope.dimension_count_swa", narrow);
    b.key("rope.freq_base", 1_000_000.0_f32);
    b.key("rope.freq_base_swa", 10_000.0_f32);
    b.embedding();
    b.norm("output_norm.weight", embd);
    b.norm("rope_freqs.weight", u64::from(wide) / 2);
    per_layer_embedding(b, narrow.into());
    for (layer, has_window) in (0..spec.layers).zip(has_window) {
        let prefix = format!("blk.{layer}.");
        let head_dim = if has_window { narrow } else { wide };
        let own_kv = layer < spec.layers - shared;
        gemma_layer(b, &prefix, head_dim, own_kv);
        b.norm(format!("{prefix}attn_q_norm.weight"), head_dim.into());
        if own_kv {
            b.norm(format!("{prefix}attn_k_norm.weight"), head_dim.into());
        }
    }
}
