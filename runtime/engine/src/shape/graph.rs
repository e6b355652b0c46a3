//! What of a file only its compute graph depends on: keys, and the sizes of tensors where no key says them.

use locara_gguf::{Gguf, GgufError};
use locara_policy::shape::{GraphDims, Pooling};

/// llama.cpp's numbers for the ways to pool (`enum llama_pooling_type`).
const MEAN: u32 = 1;
const RANK: u32 = 4;

/// Dimensions of the graph. Sizes that do not fit are cut off: the planner refuses them as absurd.
pub(super) fn dims(gguf: &Gguf, architecture: &str, n_layer: u32) -> Result<GraphDims, GgufError> {
    let number = |suffix: &str| gguf.u32(&format!("{architecture}.{suffix}")).map(Option::unwrap_or_default);
    let flag = |suffix: &str| gguf.bool(&format!("{architecture}.{suffix}")).map(Option::unwrap_or_default);
    // The first layer that has such a tensor speaks for all.
    let find = |suffix: &str| (0..n_layer).find_map(|layer| gguf.tensor(&format!("blk.{layer}.{suffix}")));
    let rows = |suffix: &str| {
        let rows = find(suffix).and_then(|tensor| tensor.dims().get(1).copied());
        rows.map_or(0, |rows| u32::try_from(rows).unwrap_or(u32::MAX))
    };
    let has = |suffix: &str| find(suffix).is_some();
    let fused_qkv = architecture != "qwen3next" && has("attn_qkv.weight");
    let experts = number("expert_count")? > 0;
    let expert_norm = match architecture {
        "olmoe" => false,
        "deepseek2" => flag("expert_weights_norm")?,
        _ => true,
    };
    let strange = match architecture {
        "deepseek2" => number("attention.key_length_mla")? == 0 || fused_qkv,
        "olmoe" | "gemma3n" => fused_qkv,
        "gemma4" => fused_qkv || experts || !has("attn_v.weight"),
        "jamba" | "granitehybrid" | "falcon-h1" => experts,
        "lfm2" => experts || number("attention.sliding_window")? > 0,
        "qwen3next" => !experts || !has("attn_qkv.weight"),
        "mamba" => flag("ssm.dt_b_c_rms")?,
        "rwkv6" => !has("time_mix_lerp_fused.weight") || !has("time_mix_first.weight"),
        "rwkv7" => !has("time_mix_ln.weight"),
        _ => false,
    };
    let everywhere =
        number("expert_group_count")? > 1 || number("nextn_predict_layers")? > 0 || has("ffn_gate_up_exps.weight");
    Ok(GraphDims {
        unfollowed: strange || everywhere,
        pooling: match number("pooling_type")? {
            0 => Pooling::None,
            MEAN => Pooling::Mean,
            RANK => Pooling::Rank,
            _ => Pooling::OneToken,
        },
        fused_qkv,
        dense_layers: number("leading_dense_block_count")?,
        n_ff_shared: rows("ffn_up_shexp.weight"),
        expert_norm,
        expert_bias: has("exp_probs_b.bias"),
        q_lora_rank: rows("attn_q_a.weight"),
        head_dim_k_mla: number("attention.key_length_mla")?,
        head_dim_v_mla: number("attention.value_length_mla")?,
        per_layer_embd: rows("inp_gate.weight"),
        ssm_conv: number("ssm.conv_kernel")?,
        ssm_inner: number("ssm.inner_size")?,
        ssm_state: number("ssm.state_size")?,
        ssm_rank: number("ssm.time_step_rank")?,
        ssm_groups: number("ssm.group_count")?,
        ssm_norm: has("ssm_norm.weight"),
        short_conv: number("shortconv.l_cache")?,
        wkv_head: number("wkv.head_size")?,
        rwkv_mix_rank: rows("time_mix_w1.weight") / 5,
        // The two versions call it differently.
        rwkv_decay_rank: rows(if architecture == "rwkv7" { "time_mix_w1.weight" } else { "time_mix_decay_w1.weight" }),
        rwkv_rate_rank: rows("time_mix_a1.weight"),
        rwkv_value_rank: rows("time_mix_v1.weight"),
        rwkv_gate_rank: rows("time_mix_g1.weight"),
    })
}
