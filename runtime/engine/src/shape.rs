//! From GGUF metadata to what the planner needs to know of a model.

use locara_gguf::{Gguf, GgufError};
use locara_policy::{
    Attention, Bytes, Layer, ModelShape,
    shape::{Experts, MAX_LAYERS, Weights},
};

mod graph;

/// Why a file that reads well cannot be planned for.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// A key that llama.cpp insists on is missing or wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// More layers than llama.cpp has room for.
    #[error("the file says it has {n_layer} layers; llama.cpp accepts at most {MAX_LAYERS}")]
    TooManyLayers {
        /// `{arch}.block_count`.
        n_layer: u32,
    },
    /// A dimension that others are divided by is zero.
    #[error("the key {key} is 0")]
    Zero {
        /// The key.
        key: String,
    },
}

/// Every `n`-th layer sees the whole context, the others a window, where the file does not say so itself.
/// The periods are llama.cpp's (`set_swa_pattern` in its model definitions).
const WINDOW_PERIODS: [(&str, u32); 7] =
    [("gemma2", 2), ("gemma3", 6), ("gemma3n", 5), ("cohere2", 4), ("gpt-oss", 2), ("exaone4", 4), ("llama4", 4)];

/// What the planner needs, from metadata and tensor table alone.
///
/// # Errors
/// [`ShapeError`]: the file would not load either.
pub fn model_shape(gguf: &Gguf) -> Result<ModelShape, ShapeError> {
    let architecture = gguf.architecture()?.to_owned();
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    let number = |suffix: &str| gguf.u32(&key(suffix));

    let n_layer = gguf.need_u32(&key("block_count"))?;
    if n_layer as usize > MAX_LAYERS {
        return Err(ShapeError::TooManyLayers { n_layer });
    }
    let n_embd = gguf.need_u32(&key("embedding_length"))?;
    let per_layer = |suffix: &str| gguf.per_layer_u32(&key(suffix), n_layer);
    let n_head = per_layer("attention.head_count")?.unwrap_or_else(|| vec![0; n_layer as usize]);
    let n_head_kv = per_layer("attention.head_count_kv")?.unwrap_or_else(|| n_head.clone());
    let n_ff = per_layer("feed_forward_length")?.unwrap_or_else(|| vec![0; n_layer as usize]);
    let experts = match number("expert_count")?.unwrap_or(0) {
        0 => None,
        total => Some(Experts {
            total,
            active: number("expert_used_count")?.unwrap_or(total),
            n_ff: match number("expert_feed_forward_length")? {
                Some(n_ff) => n_ff,
                None => n_ff.first().copied().unwrap_or(0),
            },
        }),
    };
    let encoder = gguf.bool(&key("attention.causal"))? == Some(false);
    // Older files of the same architectures have a rank too, but keep whole keys and values.
    let latent = match number("attention.key_length_mla")? {
        Some(_) => number("attention.kv_lora_rank")?,
        None => None,
    };
    let rope_dim = number("rope.dimension_count")?.unwrap_or(0);
    let windows = windows(gguf, &architecture, n_layer)?;
    let recurrent = recurrent_f32(gguf, &architecture)?;
    // Every `n`-th layer attends, the others are recurrent (Qwen 3 Next).
    let attends_every = number("full_attention_interval")?.filter(|n| *n > 0);
    let shared_from = match number("attention.shared_kv_layers")? {
        Some(n) => Some(n_layer.saturating_sub(n)),
        // A constant of llama.cpp (`n_layer_kv_from_start`).
        None if architecture == "gemma3n" => Some(20),
        None => None,
    };
    // Heads of layers with a window may have widths of their own.
    let widths = |whole: &str, windowed: &str| {
        let whole = number(whole)?;
        Ok::<_, GgufError>((whole, number(windowed)?.or(whole)))
    };
    let width_k = widths("attention.key_length", "attention.key_length_swa")?;
    let width_v = widths("attention.value_length", "attention.value_length_swa")?;

    let mut layers = Vec::with_capacity(n_layer as usize);
    for index in 0..n_layer {
        let at = index as usize;
        let heads = n_head[at];
        let is_recurrent = recurrent.is_some()
            && match attends_every {
                Some(n) => (index + 1) % n != 0,
                None => n_head_kv[at] == 0,
            };
        // The default head width is llama.cpp's: the stream divided among the query heads.
        let width = |(whole, windowed): (Option<u32>, Option<u32>)| {
            let width = if windows[at].is_some() { windowed } else { whole };
            width.unwrap_or_else(|| n_embd.checked_div(heads).unwrap_or(0))
        };
        let (head_dim_k, head_dim_v, window) = (width(width_k), width(width_v), windows[at]);
        let attention = if heads == 0 || is_recurrent {
            Attention::None
        } else if shared_from.is_some_and(|from| index >= from) {
            Attention::Shared { n_head: heads, head_dim_k, head_dim_v, window }
        } else if let Some(kv_lora_rank) = latent {
            Attention::Latent { n_head: heads, kv_lora_rank, rope_dim }
        } else {
            Attention::Grouped { n_head: heads, n_head_kv: n_head_kv[at], head_dim_k, head_dim_v, window }
        };
        let recurrent_f32 = match (&attention, recurrent) {
            (Attention::None, Some(state)) => state,
            // Attention and state side by side in every layer.
            (_, Some(state)) if architecture == "falcon-h1" => state,
            _ => 0,
        };
        layers.push(Layer { n_ff: n_ff[at], attention, recurrent_f32 });
    }

    let parameters: u64 = gguf.tensors().iter().map(locara_gguf::Tensor::elements).sum();
    let of_experts: u64 =
        gguf.tensors().iter().filter(|t| t.name().contains("_exps.")).map(locara_gguf::Tensor::elements).sum();
    let active_parameters = match experts {
        Some(experts) if experts.total > 0 => {
            parameters - of_experts + of_experts / u64::from(experts.total) * u64::from(experts.active)
        }
        _ => parameters,
    };
    let tensor_bytes = |name: &str| gguf.tensors().iter().find(|t| t.name() == name).map(|t| Bytes(t.bytes()));
    Ok(ModelShape {
        layers,
        n_embd,
        n_vocab: gguf.n_vocab()?.unwrap_or(0),
        n_ctx_train: number("context_length")?.unwrap_or(0),
        experts,
        encoder,
        graph: graph::dims(gguf, &architecture, n_layer)?,
        weights: Weights {
            bytes: Bytes(gguf.weights_bytes()),
            token_embedding: tensor_bytes("token_embd.weight").unwrap_or(Bytes::ZERO),
            tied_output: tensor_bytes("output.weight").is_none(),
        },
        parameters,
        active_parameters,
        architecture,
    })
}

/// The window of each layer; `None` where it sees the whole context.
fn windows(gguf: &Gguf, architecture: &str, n_layer: u32) -> Result<Vec<Option<u32>>, ShapeError> {
    let whole = vec![None; n_layer as usize];
    let window = match gguf.u32(&format!("{architecture}.attention.sliding_window"))? {
        Some(0) => return Ok(whole),
        Some(window) => window,
        // llama.cpp's default for it.
        None if architecture == "gemma2" => 4096,
        None => return Ok(whole),
    };
    let pattern_key = format!("{architecture}.attention.sliding_window_pattern");
    if gguf.get(&pattern_key).is_some_and(|value| matches!(value, locara_gguf::Value::Array(_))) {
        let pattern = gguf.per_layer_u32(&pattern_key, n_layer)?.unwrap_or_default();
        return Ok(pattern.into_iter().map(|windowed| (windowed != 0).then_some(window)).collect());
    }
    let known = WINDOW_PERIODS.iter().find(|(name, _)| *name == architecture).map(|(_, period)| *period);
    match gguf.u32(&pattern_key)?.or(known) {
        // The model keeps whole-context cells in llama.cpp.
        None => Ok(whole),
        Some(0) => Err(ShapeError::Zero { key: pattern_key }),
        Some(period) => Ok((0..n_layer).map(|l| (l % period < period - 1).then_some(window)).collect()),
    }
}

/// Elements of one sequence's recurrent state in one layer: llama.cpp's `n_embd_r + n_embd_s` for state space models.
fn recurrent_f32(gguf: &Gguf, architecture: &str) -> Result<Option<u32>, ShapeError> {
    let number = |suffix: &str| gguf.u32(&format!("{architecture}.{suffix}"));
    if let (Some(head_size), Some(n_embd)) = (number("wkv.head_size")?, number("embedding_length")?) {
        // RWKV: shifted tokens, and a matrix for each head.
        let shifts = number("token_shift_count")?.unwrap_or(2);
        let elements = u64::from(n_embd).saturating_mul(u64::from(shifts) + u64::from(head_size));
        return Ok(Some(u32::try_from(elements).unwrap_or(u32::MAX)));
    }
    if let (Some(l_cache), Some(n_embd)) = (number("shortconv.l_cache")?, number("embedding_length")?) {
        // LFM 2: the last inputs of a short convolution.
        return Ok(Some(l_cache.saturating_sub(1).saturating_mul(n_embd)));
    }
    let (Some(d_conv), Some(d_inner), Some(d_state)) =
        (number("ssm.conv_kernel")?, number("ssm.inner_size")?, number("ssm.state_size")?)
    else {
        return Ok(None);
    };
    let n_group = number("ssm.group_count")?.unwrap_or(0);
    let convolution =
        u64::from(d_conv.saturating_sub(1)) * (u64::from(d_inner) + 2 * u64::from(n_group) * u64::from(d_state));
    let state = u64::from(d_state) * u64::from(d_inner);
    Ok(Some(u32::try_from(convolution.saturating_add(state)).unwrap_or(u32::MAX)))
}
