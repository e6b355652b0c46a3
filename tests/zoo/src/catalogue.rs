//! Named models.
//!
//! All of them load in the llama.cpp that the engine is built with and compute finite numbers: the encoders an embedding,
//! the others logits for a prompt and tokens after it.

use std::sync::LazyLock;

use crate::spec::{Arch, Class, Quant, Spec};

/// A named model.
#[derive(Debug, Clone)]
pub struct Entry {
    /// How tests and the command line call it.
    pub name: &'static str,
    /// What it remembers between tokens.
    pub class: Class,
    /// How it is made.
    pub spec: Spec,
}

/// All named models: the big ones of the benchmarks first, then a tiny one of each architecture.
#[must_use]
pub fn catalogue() -> &'static [Entry] {
    &CATALOGUE
}

/// The named model.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    catalogue().iter().find(|entry| entry.name == name)
}

static CATALOGUE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let tiny = |name, arch| (name, Spec::tiny(arch));
    let llama = || Spec::tiny(Arch::Llama);
    let entries = [
        ("llama-1b-q4_k_m", llama_1b(Quant::Q4KM)),
        ("llama-1b-q8_0", llama_1b(Quant::Q8_0)),
        ("llama-05b-q8", llama_05b()),
        tiny("tiny-llama", Arch::Llama),
        ("tiny-llama-f16", Spec { quant: Quant::F16, ..llama() }),
        ("tiny-llama-mha", Spec { kv_heads: 4, ..llama() }),
        ("tiny-llama-moe", Spec { experts: 4, experts_used: 2, expert_ff: 256, ..llama() }),
        tiny("tiny-qwen2", Arch::Qwen2),
        tiny("tiny-qwen3", Arch::Qwen3),
        tiny("tiny-qwen3moe", Arch::Qwen3Moe),
        tiny("tiny-olmoe", Arch::Olmoe),
        tiny("tiny-deepseek2", Arch::DeepSeek2),
        tiny("tiny-gemma2", Arch::Gemma2),
        tiny("tiny-gemma3", Arch::Gemma3),
        tiny("tiny-gemma3n", Arch::Gemma3n),
        tiny("tiny-gemma4", Arch::Gemma4),
        tiny("tiny-mamba", Arch::Mamba),
        tiny("tiny-mamba2", Arch::Mamba2),
        tiny("tiny-rwkv6", Arch::Rwkv6),
        tiny("tiny-rwkv7", Arch::Rwkv7),
        tiny("tiny-jamba", Arch::Jamba),
        tiny("tiny-granitehybrid", Arch::GraniteHybrid),
        tiny("tiny-qwen3next", Arch::Qwen3Next),
        tiny("tiny-falcon-h1", Arch::FalconH1),
        tiny("tiny-lfm2", Arch::Lfm2),
        tiny("tiny-bert", Arch::Bert),
        tiny("tiny-nomic-bert", Arch::NomicBert),
    ];
    let entry = |(name, spec): (&'static str, Spec)| Entry {
        name,
        class: spec.class(),
        spec: Spec { name: format!("zoo-{name}"), ..spec },
    };
    entries.into_iter().map(entry).collect()
});

/// The shape of Llama 3.2 1B: 805 MB in Q4_K_M, 1.3 GB in Q8_0.
fn llama_1b(quant: Quant) -> Spec {
    Spec {
        layers: 16,
        embd: 2048,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        ff: 8192,
        vocab: 128_256,
        ctx: 131_072,
        quant,
        ..Spec::tiny(Arch::Llama)
    }
}

/// The shape of Qwen 2.5 0.5B in the Llama architecture: 525 MB in Q8_0.
fn llama_05b() -> Spec {
    Spec {
        layers: 24,
        embd: 896,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        ff: 4864,
        vocab: 151_936,
        ctx: 32_768,
        ..llama_1b(Quant::Q8_0)
    }
}
