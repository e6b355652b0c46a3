//! What of a model decides how many bytes it takes. Filled from GGUF metadata by whoever reads the file; this crate never does.
//!
//! Layers are listed one by one, because the interesting architectures (interleaved windows, shared KV, hybrids) differ
//! from layer to layer. The architecture *class* is derived from that list and can therefore not contradict it.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// The most layers that llama.cpp accepts (`LLAMA_MAX_LAYERS`). A longer list is refused by the planner.
pub const MAX_LAYERS: usize = 512;

/// Everything the planner knows of a model. Dimensions are in elements, sizes in [`Bytes`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    /// `general.architecture` of the file, e.g. `llama`, `qwen2`.
    pub architecture: String,
    /// Every layer that the engine counts, first to last.
    pub layers: Vec<Layer>,
    /// Width of the residual stream (`{arch}.embedding_length`).
    pub n_embd: u32,
    /// Entries of the vocabulary.
    pub n_vocab: u32,
    /// Trained context in tokens (`{arch}.context_length`).
    pub n_ctx_train: u32,
    /// Expert counts, for a mixture of experts.
    pub experts: Option<Experts>,
    /// The model has no autoregressive state: all tokens of a text are computed at once (BERT and its kin).
    pub encoder: bool,
    /// What else the compute graph depends on.
    pub graph: GraphDims,
    /// Size of all tensors.
    pub weights: Weights,
    /// Trained parameters.
    pub parameters: u64,
    /// Parameters that one token passes through; equal to `parameters` unless the model routes to experts.
    pub active_parameters: u64,
}

/// Sizes of the tensors of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Σ tensors, each padded to the file's alignment: what llama.cpp logs as the model buffer.
    pub bytes: Bytes,
    /// The token embedding table, part of `bytes`. llama.cpp keeps it in host memory whatever the device.
    pub token_embedding: Bytes,
    /// The token embedding table is the output matrix too, so a GPU needs a second view of it.
    pub tied_output: bool,
}

/// How an embedding model makes one vector of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// It does not: the model makes logits.
    #[default]
    None,
    /// Their mean.
    Mean,
    /// The first or the last.
    OneToken,
    /// A score of how well two texts match.
    Rank,
}

/// Dimensions that only the compute graphs of some architectures depend on: of all layers alike, 0 or `false` where a file
/// has none. Names are those of llama.cpp's keys where there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphDims {
    /// The file has parts that change the graph in ways the planner does not follow; the compute buffer is an estimate.
    pub unfollowed: bool,
    /// How it pools.
    pub pooling: Pooling,
    /// One matrix makes queries, keys and values.
    pub fused_qkv: bool,
    /// First layers without experts (`leading_dense_block_count`).
    pub dense_layers: u32,
    /// Width of the experts that see every token, together.
    pub n_ff_shared: u32,
    /// Weights of chosen experts are divided by their sum (`expert_weights_norm`).
    pub expert_norm: bool,
    /// The choice of experts has a bias of its own.
    pub expert_bias: bool,
    /// Latent attention: rank of the queries' compression, 0 when they are not compressed.
    pub q_lora_rank: u32,
    /// Latent attention: width of a key head, decompressed (`key_length_mla`).
    pub head_dim_k_mla: u32,
    /// Latent attention: width of a value head, decompressed (`value_length_mla`).
    pub head_dim_v_mla: u32,
    /// Width of the input that each layer gets by token (`embedding_length_per_layer_input`).
    pub per_layer_embd: u32,
    /// State space: width of the convolution (`ssm.conv_kernel`).
    pub ssm_conv: u32,
    /// State space: `ssm.inner_size`.
    pub ssm_inner: u32,
    /// State space: `ssm.state_size`.
    pub ssm_state: u32,
    /// State space: `ssm.time_step_rank`.
    pub ssm_rank: u32,
    /// State space: `ssm.group_count`.
    pub ssm_groups: u32,
    /// State space: what comes out is normed by group.
    pub ssm_norm: bool,
    /// Short convolutions: `shortconv.l_cache`.
    pub short_conv: u32,
    /// RWKV: width of a head (`wkv.head_size`).
    pub wkv_head: u32,
    /// RWKV 6: rank of what mixes tokens.
    pub rwkv_mix_rank: u32,
    /// RWKV: rank of the decay.
    pub rwkv_decay_rank: u32,
    /// RWKV 7: rank of the learning rate.
    pub rwkv_rate_rank: u32,
    /// RWKV 7: rank of the way back to the first layer's values.
    pub rwkv_value_rank: u32,
    /// RWKV 7: rank of the gate, 0 without one.
    pub rwkv_gate_rank: u32,
}

/// Counts of a mixture of experts, the same in every layer that has experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experts {
    /// Experts in a layer (`{arch}.expert_count`).
    pub total: u32,
    /// Experts that compute one token (`{arch}.expert_used_count`).
    pub active: u32,
    /// Width of one expert's feed-forward part (`{arch}.expert_feed_forward_length`).
    pub n_ff: u32,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Width of the dense feed-forward part; 0 where there is none.
    pub n_ff: u32,
    /// How it attends, which decides what it must remember of each token.
    pub attention: Attention,
    /// Size of its recurrent state, for one sequence and independent of the context, in f32 elements
    /// (llama.cpp's `n_embd_r + n_embd_s`: convolution or token-shift state plus the state matrix). 0 for a pure attention layer.
    pub recurrent_f32: u32,
}

/// How a layer attends to earlier tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Attention {
    /// Grouped-query attention; multi-head when `n_head_kv == n_head`, multi-query when `n_head_kv == 1`.
    Grouped {
        /// Query heads.
        n_head: u32,
        /// Key and value heads.
        n_head_kv: u32,
        /// Width of one key head.
        head_dim_k: u32,
        /// Width of one value head.
        head_dim_v: u32,
        /// Tokens it looks back at; `None` is the whole context.
        window: Option<u32>,
    },
    /// Multi-head latent attention: one compressed row per token, no separate values.
    Latent {
        /// Query heads.
        n_head: u32,
        /// Width of the compressed row (`{arch}.attention.kv_lora_rank`).
        kv_lora_rank: u32,
        /// Width of the position part beside it (`{arch}.rope.dimension_count`).
        rope_dim: u32,
    },
    /// Reads the keys and values of an earlier layer and stores none of its own (the upper layers of Gemma 3n).
    Shared {
        /// Query heads.
        n_head: u32,
        /// Width of one key head.
        head_dim_k: u32,
        /// Width of one value head.
        head_dim_v: u32,
        /// Tokens it looks back at; `None` is the whole context.
        window: Option<u32>,
    },
    /// Does not attend (a recurrent layer, or a feed-forward one).
    None,
}

impl Attention {
    /// Width of one key head, in elements; 0 where it does not attend.
    #[must_use]
    pub const fn head_dim_k(&self) -> u32 {
        match *self {
            Self::Grouped { head_dim_k, .. } | Self::Shared { head_dim_k, .. } => head_dim_k,
            Self::Latent { kv_lora_rank, rope_dim, .. } => kv_lora_rank.saturating_add(rope_dim),
            Self::None => 0,
        }
    }
    /// Width of one value head, in elements; 0 where no values are kept.
    #[must_use]
    pub const fn head_dim_v(&self) -> u32 {
        match *self {
            Self::Grouped { head_dim_v, .. } | Self::Shared { head_dim_v, .. } => head_dim_v,
            Self::Latent { .. } | Self::None => 0,
        }
    }
    /// Width of one token's keys, over all heads, in elements. 0 where none are stored.
    #[must_use]
    pub const fn k_row(&self) -> u64 {
        match *self {
            Self::Grouped { n_head_kv, head_dim_k, .. } => n_head_kv as u64 * head_dim_k as u64,
            Self::Latent { kv_lora_rank, rope_dim, .. } => kv_lora_rank as u64 + rope_dim as u64,
            Self::Shared { .. } | Self::None => 0,
        }
    }
    /// Width of one token's values, over all heads, in elements. 0 where none are stored.
    #[must_use]
    pub const fn v_row(&self) -> u64 {
        match *self {
            Self::Grouped { n_head_kv, head_dim_v, .. } => n_head_kv as u64 * head_dim_v as u64,
            Self::Latent { .. } | Self::Shared { .. } | Self::None => 0,
        }
    }
    /// Query heads; 0 where it does not attend.
    #[must_use]
    pub const fn n_head(&self) -> u32 {
        match *self {
            Self::Grouped { n_head, .. } | Self::Latent { n_head, .. } | Self::Shared { n_head, .. } => n_head,
            Self::None => 0,
        }
    }
    /// Tokens it looks back at, where that is fewer than the context.
    #[must_use]
    pub const fn window(&self) -> Option<u32> {
        match *self {
            Self::Grouped { window, .. } | Self::Shared { window, .. } => window,
            _ => None,
        }
    }
}

/// Which formulas of the planner a model needs. One class per way of keeping state; see [`ModelShape::class`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchClass {
    /// Grouped-query or multi-head attention over the whole context in every layer, dense feed-forward.
    Dense,
    /// The same with experts.
    MixtureOfExperts,
    /// Some layers look at a window only.
    SlidingWindow,
    /// Some layers reuse the KV of others.
    SharedKv,
    /// Latent attention.
    Latent,
    /// Some layers are recurrent, some attend.
    Hybrid,
    /// No layer attends.
    Recurrent,
    /// No state between texts.
    Encoder,
}

impl ModelShape {
    /// A dense model whose layers are all alike.
    ///
    /// `weights` is Σ tensors in the file; parameters are estimated from the dimensions and can be overwritten.
    #[must_use]
    pub fn dense(architecture: &str, dims: DenseDims, weights: Weights) -> Self {
        let DenseDims { n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_ctx_train } = dims;
        let [n_layer_, n_embd_, n_ff_, n_head_, n_head_kv_, head_dim_, n_vocab_] =
            [n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab].map(u128::from);
        // Projections q, k, v, o; gate, up, down; two norms. 32-bit dimensions cannot overflow 128 bits here.
        let per_layer = 2 * n_embd_ * head_dim_ * (n_head_ + n_head_kv_) + 3 * n_embd_ * n_ff_ + 2 * n_embd_;
        let tables = n_vocab_ * n_embd_ * if weights.tied_output { 1 } else { 2 };
        let parameters = u64::try_from(n_layer_ * per_layer + tables + n_embd_).unwrap_or(u64::MAX);
        let layer = Layer {
            n_ff,
            attention: Attention::Grouped {
                n_head,
                n_head_kv,
                head_dim_k: head_dim,
                head_dim_v: head_dim,
                window: None,
            },
            recurrent_f32: 0,
        };
        Self {
            architecture: architecture.to_owned(),
            layers: vec![layer; (n_layer as usize).min(MAX_LAYERS + 1)],
            n_embd,
            n_vocab,
            n_ctx_train,
            experts: None,
            encoder: false,
            graph: GraphDims::default(),
            weights,
            parameters,
            active_parameters: parameters,
        }
    }

    /// The class of formulas that applies. The rarest trait wins: a hybrid with experts is a hybrid.
    #[must_use]
    pub fn class(&self) -> ArchClass {
        let attends = |layer: &Layer| !matches!(layer.attention, Attention::None);
        if self.encoder {
            ArchClass::Encoder
        } else if self.layers.iter().any(|layer| layer.recurrent_f32 > 0) {
            if self.layers.iter().any(attends) { ArchClass::Hybrid } else { ArchClass::Recurrent }
        } else if self.layers.iter().any(|layer| matches!(layer.attention, Attention::Latent { .. })) {
            ArchClass::Latent
        } else if self.layers.iter().any(|layer| matches!(layer.attention, Attention::Shared { .. })) {
            ArchClass::SharedKv
        } else if self.layers.iter().any(|layer| layer.attention.window().is_some()) {
            ArchClass::SlidingWindow
        } else if self.experts.is_some() {
            ArchClass::MixtureOfExperts
        } else {
            ArchClass::Dense
        }
    }

    /// Whether it makes vectors of texts.
    #[must_use]
    pub fn embeds(&self) -> bool {
        self.encoder || self.graph.pooling != Pooling::None
    }

    /// Layers in all.
    #[must_use]
    pub fn n_layer(&self) -> usize {
        self.layers.len()
    }

    /// Bytes that one token reads from the weights: the active share of them. What decode speed is bounded by.
    #[must_use]
    pub fn active_weights(&self) -> Bytes {
        if self.parameters == 0 {
            return self.weights.bytes;
        }
        self.weights.bytes.fraction(self.active_parameters.min(self.parameters), self.parameters)
    }
}

/// Dimensions of a dense model whose layers are all alike; see [`ModelShape::dense`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenseDims {
    /// Layers.
    pub n_layer: u32,
    /// Width of the residual stream.
    pub n_embd: u32,
    /// Width of the feed-forward part.
    pub n_ff: u32,
    /// Query heads.
    pub n_head: u32,
    /// Key and value heads.
    pub n_head_kv: u32,
    /// Width of one head, the same for keys and values.
    pub head_dim: u32,
    /// Entries of the vocabulary.
    pub n_vocab: u32,
    /// Trained context in tokens.
    pub n_ctx_train: u32,
}
