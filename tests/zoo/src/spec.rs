//! What a synthetic model looks like: architecture, sizes, number formats.

use std::fmt;
use std::str::FromStr;

use locara_gguf::GgmlType;

use crate::ZooError;
use crate::vocab::Vocab;

/// What a model must remember between tokens: this is what the planner tells architectures apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Attention in every layer, fewer key-value heads than heads.
    DenseGqa,
    /// Attention in every layer, one key-value head for each head.
    DenseMha,
    /// One compressed latent for all heads.
    Mla,
    /// Layers that look back only a window, between layers that look back all the way.
    SlidingWindow,
    /// Later layers use the keys and values of earlier ones.
    SharedKv,
    /// A state of fixed size instead of keys and values.
    Recurrent,
    /// Attention in some layers, a state of fixed size in others or beside it.
    Hybrid,
    /// Attention in every layer; of the feed-forward experts only some work on each token.
    Moe,
    /// No generation: one vector for each text.
    Encoder,
}

macro_rules! archs {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $class:ident;)+) => {
        /// An architecture of llama.cpp that the zoo can write.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Arch {
            $($(#[$doc])* $variant,)+
        }

        impl Arch {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// `general.architecture`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it remembers. A specification may make MHA of GQA or add experts: see [`Spec::class`].
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)+ }
            }
        }
    };
}

archs! {
    /// Llama 2 and 3, Mistral, with experts Mixtral.
    Llama = "llama", DenseGqa;
    /// Qwen 2 and 2.5.
    Qwen2 = "qwen2", DenseGqa;
    /// Qwen 3.
    Qwen3 = "qwen3", DenseGqa;
    /// Qwen 3 with experts.
    Qwen3Moe = "qwen3moe", Moe;
    /// OLMoE.
    Olmoe = "olmoe", Moe;
    /// DeepSeek 2 and 3, Kimi K2.
    DeepSeek2 = "deepseek2", Mla;
    /// Gemma 2: every second layer has a window.
    Gemma2 = "gemma2", SlidingWindow;
    /// Gemma 3: five of six layers have a window.
    Gemma3 = "gemma3", SlidingWindow;
    /// Gemma 3n: 20 layers with keys and values of their own, the later ones share.
    Gemma3n = "gemma3n", SharedKv;
    /// Gemma 4: windows, wider heads in the full layers, shared keys and values at the end.
    Gemma4 = "gemma4", SharedKv;
    /// Mamba.
    Mamba = "mamba", Recurrent;
    /// Mamba 2.
    Mamba2 = "mamba2", Recurrent;
    /// RWKV 6.
    Rwkv6 = "rwkv6", Recurrent;
    /// RWKV 7.
    Rwkv7 = "rwkv7", Recurrent;
    /// Jamba: Mamba with attention in one of four layers.
    Jamba = "jamba", Hybrid;
    /// Granite 4: Mamba 2 with attention in one of four layers.
    GraniteHybrid = "granitehybrid", Hybrid;
    /// Qwen 3 Next: gated delta nets with attention in every fourth layer, experts.
    Qwen3Next = "qwen3next", Hybrid;
    /// Falcon H1: Mamba 2 and attention side by side in every layer.
    FalconH1 = "falcon-h1", Hybrid;
    /// LFM 2: short convolutions with attention in one of four layers.
    Lfm2 = "lfm2", Hybrid;
    /// BERT, BGE, MiniLM.
    Bert = "bert", Encoder;
    /// Nomic Embed.
    NomicBert = "nomic-bert", Encoder;
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = ZooError;

    fn from_str(name: &str) -> Result<Self, ZooError> {
        Self::ALL.iter().copied().find(|arch| arch.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|arch| arch.name()).collect();
            ZooError::Spec(format!("no architecture {name:?}; known are {}", known.join(", ")))
        })
    }
}

/// Number formats of the weights. Norms, biases and other small tensors are always F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quant {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit brain floats.
    BF16,
    /// 4 bits in blocks of 32.
    Q4_0,
    /// 8 bits in blocks of 32.
    Q8_0,
    /// The mix that llama.cpp calls Q4_K_M: Q4_K with Q6_K for the embedding and the more delicate half of the layers'
    /// `attn_v` and `ffn_down`.
    Q4KM,
}

impl Quant {
    /// `general.file_type` (`enum llama_ftype`).
    #[must_use]
    pub const fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::BF16 => 32,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
        }
    }

    /// The format of a weight matrix with rows of `row` elements: the wanted one or, where a row is no whole number of
    /// its blocks, one with smaller blocks (as llama.cpp's quantiser does).
    pub(crate) fn kind(self, tensor: &str, row: u64, layers: u32) -> GgmlType {
        let wanted = match self {
            Self::F32 => GgmlType::F32,
            Self::F16 => GgmlType::F16,
            Self::BF16 => GgmlType::BF16,
            Self::Q4_0 => GgmlType::Q4_0,
            Self::Q8_0 => GgmlType::Q8_0,
            Self::Q4KM if is_delicate(tensor, layers) => GgmlType::Q6K,
            Self::Q4KM => GgmlType::Q4K,
        };
        [wanted, GgmlType::Q8_0, GgmlType::F16]
            .into_iter()
            .find(|kind| row.is_multiple_of(kind.block_elements()))
            .unwrap_or(GgmlType::F16)
    }
}

/// Whether Q4_K_M keeps six bits of this tensor (`use_more_bits` in llama.cpp's quantiser).
fn is_delicate(tensor: &str, layers: u32) -> bool {
    if matches!(tensor, "token_embd.weight" | "output.weight") {
        return true;
    }
    let Some((layer, role)) = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let Ok(layer) = layer.parse::<u32>() else {
        return false;
    };
    let eighth = layers / 8;
    (role.starts_with("attn_v.") || role.starts_with("ffn_down"))
        && (layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2)
}

impl FromStr for Quant {
    type Err = ZooError;

    fn from_str(name: &str) -> Result<Self, ZooError> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "f32" => Self::F32,
            "f16" => Self::F16,
            "bf16" => Self::BF16,
            "q4_0" => Self::Q4_0,
            "q8_0" => Self::Q8_0,
            "q4_k_m" => Self::Q4KM,
            _ => {
                return Err(ZooError::Spec(format!(
                    "no number format {name:?}; known are f32, f16, bf16, q4_0, q8_0, q4_k_m"
                )));
            }
        })
    }
}

/// A synthetic model. Start from [`Spec::tiny`] and change what matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// `general.name`.
    pub name: String,
    /// Architecture.
    pub arch: Arch,
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub embd: u32,
    /// Attention heads; recurrent architectures ignore it.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the feed-forward layer.
    pub ff: u32,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Trained context, tokens.
    pub ctx: u32,
    /// Whether the output uses the embedding's weights.
    pub tied: bool,
    /// Experts of a feed-forward layer, 0 for none.
    pub experts: u32,
    /// Experts that work on a token.
    pub experts_used: u32,
    /// Width of an expert; in architectures without a key for it (Llama, OLMoE) the same as `ff`.
    pub expert_ff: u32,
    /// Sliding window, tokens; 0 for none. Only for architectures that have one.
    pub window: u32,
    /// Width of a state: per channel in Mamba, per head in the delta net.
    pub state: u32,
    /// Number formats.
    pub quant: Quant,
    /// Seed of weights and vocabulary: same specification and seed, same bytes.
    pub seed: u64,
}

impl Spec {
    /// A model of at most 3 MB.
    #[must_use]
    pub fn tiny(arch: Arch) -> Self {
        let base = Self {
            name: format!("tiny-{arch}"),
            arch,
            layers: 4,
            embd: 128,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            ff: 256,
            vocab: 512,
            ctx: 2048,
            tied: true,
            experts: 0,
            experts_used: 0,
            expert_ff: 0,
            window: 0,
            state: 16,
            quant: Quant::Q8_0,
            seed: 1,
        };
        let moe = Self { experts: 4, experts_used: 2, expert_ff: 64, ..base.clone() };
        match arch {
            Arch::Llama | Arch::Qwen2 | Arch::Qwen3 | Arch::Mamba | Arch::Mamba2 => base,
            Arch::Jamba | Arch::GraniteHybrid | Arch::FalconH1 | Arch::Lfm2 => base,
            Arch::Qwen3Moe | Arch::DeepSeek2 => moe,
            // Its norm over all keys is as wide as the residual stream, so it has no groups.
            Arch::Olmoe => Self { kv_heads: 4, tied: false, expert_ff: base.ff, ..moe },
            Arch::Qwen3Next => Self { state: 32, ..moe },
            Arch::Gemma2 => Self { window: 256, ..base },
            Arch::Gemma3 => Self { layers: 6, window: 256, ..base },
            // The first 20 layers have keys and values of their own, and the file does not say so: there must be more.
            Arch::Gemma3n => Self {
                layers: 24,
                embd: 64,
                heads: 2,
                kv_heads: 1,
                ff: 128,
                vocab: 288,
                window: 256,
                quant: Quant::Q4_0,
                ..base
            },
            Arch::Gemma4 => Self { layers: 6, window: 256, ..base },
            Arch::Rwkv6 | Arch::Rwkv7 => Self { head_dim: 64, tied: false, ..base },
            Arch::Bert | Arch::NomicBert => Self { kv_heads: 4, ctx: 512, ..base },
        }
    }

    /// What the model must remember between tokens.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.arch.class() {
            Class::DenseGqa if self.experts > 0 => Class::Moe,
            Class::DenseGqa if self.heads == self.kv_heads => Class::DenseMha,
            class => class,
        }
    }

    /// The tokenizer that the architecture gets.
    #[must_use]
    pub fn tokenizer(&self) -> Vocab {
        match self.arch {
            Arch::Llama => Vocab::Llama3,
            Arch::Bert | Arch::NomicBert => Vocab::WordPiece,
            _ => Vocab::ChatMl,
        }
    }

    /// Refuses sizes that llama.cpp would refuse, or abort on.
    ///
    /// # Errors
    /// [`ZooError::Spec`].
    pub fn check(&self) -> Result<(), ZooError> {
        let rules = [
            (self.layers == 0 || self.layers > 512, "layers must be 1 to 512"),
            (self.embd == 0 || self.ff == 0 || self.ctx == 0, "embd, ff and ctx must be at least 1"),
            (self.heads == 0 || self.kv_heads == 0, "heads and kv_heads must be at least 1"),
            (self.head_dim == 0 || !self.head_dim.is_multiple_of(2), "head_dim must be even"),
            (self.kv_heads != 0 && !self.heads.is_multiple_of(self.kv_heads), "heads must be a multiple of kv_heads"),
            (self.experts > 0 && !(1..=self.experts).contains(&self.experts_used), "experts_used must be 1 to experts"),
            (self.experts > 0 && self.expert_ff == 0, "experts need expert_ff"),
            (
                self.experts > 0 && self.expert_ff != self.ff && matches!(self.arch, Arch::Llama | Arch::Olmoe),
                "the experts of this architecture are as wide as ff",
            ),
            (self.experts == 0 && needs_experts(self.arch), "this architecture needs experts"),
            (self.state == 0, "state must be at least 1"),
        ];
        for (broken, rule) in rules {
            if broken {
                return Err(ZooError::Spec(format!("{}: {rule}", self.name)));
            }
        }
        Ok(())
    }
}

fn needs_experts(arch: Arch) -> bool {
    matches!(arch, Arch::Qwen3Moe | Arch::Olmoe | Arch::DeepSeek2 | Arch::Qwen3Next)
}
