//! Which keys and tensors each architecture has.
//!
//! Source: `src/llama-arch.cpp` (names) and `src/models/*.cpp` (required keys, shapes) of the llama.cpp that the engine
//! is built with. One function per architecture; what several share is in [`Builder`].

mod attention;
mod encoder;
mod recurrent;

use locara_gguf::GgmlType;

use crate::ZooError;
use crate::draft::{Draft, Meta, TensorDraft};
use crate::spec::{Arch, Spec};
use crate::weights::Fill;

/// Deviation of embedding rows, as models are initialised.
const EMBEDDING_DEVIATION: f32 = 0.02;

/// The file of a specification.
pub(crate) fn draft(spec: &Spec) -> Result<Draft, ZooError> {
    spec.check()?;
    let mut builder = Builder { spec, draft: Draft::new(spec.seed) };
    builder.general();
    match spec.arch {
        Arch::Llama | Arch::Qwen2 | Arch::Qwen3 | Arch::Qwen3Moe | Arch::Olmoe => attention::dense(&mut builder),
        Arch::DeepSeek2 => attention::mla(&mut builder),
        Arch::Gemma2 | Arch::Gemma3 => attention::gemma(&mut builder),
        Arch::Gemma3n => attention::gemma3n(&mut builder),
        Arch::Gemma4 => attention::gemma4(&mut builder),
        Arch::Mamba => recurrent::mamba(&mut builder),
        Arch::Mamba2 => recurrent::mamba2(&mut builder),
        Arch::Rwkv6 => recurrent::rwkv6(&mut builder),
        Arch::Rwkv7 => recurrent::rwkv7(&mut builder),
        Arch::Jamba => recurrent::jamba(&mut builder),
        Arch::GraniteHybrid => recurrent::granite_hybrid(&mut builder),
        Arch::Qwen3Next => recurrent::qwen3next(&mut builder),
        Arch::FalconH1 => recurrent::falcon_h1(&mut builder),
        Arch::Lfm2 => recurrent::lfm2(&mut builder),
        Arch::Bert | Arch::NomicBert => encoder::bert(&mut builder),
    }
    spec.tokenizer().put(&mut builder.draft, spec.vocab)?;
    Ok(builder.draft)
}

/// A draft in the making.
struct Builder<'a> {
    spec: &'a Spec,
    draft: Draft,
}

impl Builder<'_> {
    /// `suffix` under the architecture's name.
    fn key(&mut self, suffix: &str, value: impl Into<Meta>) {
        self.draft.key(format!("{}.{suffix}", self.spec.arch), value);
    }

    /// Keys that every file has.
    fn general(&mut self) {
        let spec = self.spec;
        self.draft.key("general.architecture", spec.arch.name());
        self.draft.key("general.name", spec.name.as_str());
        self.draft.key("general.file_type", spec.quant.file_type());
        self.draft.key("general.quantization_version", 2_u32);
        self.key("block_count", spec.layers);
        self.key("context_length", spec.ctx);
        self.key("embedding_length", spec.embd);
        self.key("vocab_size", spec.vocab);
    }

    /// Keys of ordinary attention with rotary positions. `kv_heads` is one number, or one for each layer.
    fn attention_keys(&mut self, kv_heads: impl Into<Meta>) {
        let spec = self.spec;
        self.key("feed_forward_length", spec.ff);
        self.key("attention.head_count", spec.heads);
        self.key("attention.head_count_kv", kv_heads);
        self.key("attention.key_length", spec.head_dim);
        self.key("attention.value_length", spec.head_dim);
        self.key("attention.layer_norm_rms_epsilon", 1e-5_f32);
        self.key("rope.dimension_count", spec.head_dim);
        self.key("rope.freq_base", 500_000.0_f32);
    }

    /// Keys of expert layers.
    fn expert_keys(&mut self) {
        let spec = self.spec;
        self.key("expert_count", spec.experts);
        self.key("expert_used_count", spec.experts_used);
        self.key("expert_feed_forward_length", spec.expert_ff);
    }

    fn put(&mut self, name: String, dims: &[u64], kind: GgmlType, fill: Fill) {
        self.draft.tensors.push(TensorDraft { name, dims: dims.to_vec(), kind, fill });
    }

    /// A weight matrix from `dims[0]` inputs, in the file's number format; further dimensions are outputs and experts.
    /// Its deviation keeps the size of what goes through it.
    fn matrix(&mut self, name: impl Into<String>, dims: &[u64]) {
        let name = name.into();
        let kind = self.spec.quant.kind(&name, dims[0], self.spec.layers);
        // The cast rounds; any deviation of that size will do.
        let fill = Fill::Random((dims[0] as f32).sqrt().recip());
        self.put(name, dims, kind, fill);
    }

    /// A small tensor of one value, in F32.
    fn constant(&mut self, name: impl Into<String>, dims: &[u64], value: f32) {
        self.put(name.into(), dims, GgmlType::F32, Fill::Constant(value));
    }

    /// A small random tensor, in F32.
    fn float(&mut self, name: impl Into<String>, dims: &[u64], deviation: f32) {
        self.put(name.into(), dims, GgmlType::F32, Fill::Random(deviation));
    }

    /// A norm: ones.
    fn norm(&mut self, name: impl Into<String>, width: u64) {
        self.constant(name, &[width], 1.0);
    }

    /// A norm with a bias; `name` without `.weight`.
    fn norm_with_bias(&mut self, name: &str, width: u64) {
        self.norm(format!("{name}.weight"), width);
        self.constant(format!("{name}.bias"), &[width], 0.0);
    }

    /// The token embedding and, unless it is tied, the output.
    fn embedding(&mut self) {
        let spec = self.spec;
        let dims = [spec.embd.into(), spec.vocab.into()];
        let names: &[&str] = if spec.tied { &["token_embd.weight"] } else { &["token_embd.weight", "output.weight"] };
        for &name in names {
            let kind = spec.quant.kind(name, dims[0], spec.layers);
            self.put(name.to_owned(), &dims, kind, Fill::Random(EMBEDDING_DEVIATION));
        }
    }

    /// Projections of ordinary attention, without norms. `prefix` is `blk.N.`.
    fn qkvo(&mut self, prefix: &str, head_dim: u32, kv_heads: u32) {
        let (embd, q) = (u64::from(self.spec.embd), u64::from(self.spec.heads) * u64::from(head_dim));
        let kv = u64::from(kv_heads) * u64::from(head_dim);
        self.matrix(format!("{prefix}attn_q.weight"), &[embd, q]);
        self.matrix(format!("{prefix}attn_k.weight"), &[embd, kv]);
        self.matrix(format!("{prefix}attn_v.weight"), &[embd, kv]);
        self.matrix(format!("{prefix}attn_output.weight"), &[q, embd]);
    }

    /// A gated feed-forward layer of width `ff`; `suffix` is empty or `_shexp`.
    fn gated_ff(&mut self, prefix: &str, suffix: &str, ff: u32) {
        let (embd, ff) = (u64::from(self.spec.embd), u64::from(ff));
        self.matrix(format!("{prefix}ffn_gate{suffix}.weight"), &[embd, ff]);
        self.matrix(format!("{prefix}ffn_up{suffix}.weight"), &[embd, ff]);
        self.matrix(format!("{prefix}ffn_down{suffix}.weight"), &[ff, embd]);
    }

    /// Experts of width `ff` and their router.
    fn experts(&mut self, prefix: &str, ff: u32) {
        let (embd, ff, experts) = (u64::from(self.spec.embd), u64::from(ff), u64::from(self.spec.experts));
        self.float(format!("{prefix}ffn_gate_inp.weight"), &[embd, experts], (embd as f32).sqrt().recip());
        self.matrix(format!("{prefix}ffn_gate_exps.weight"), &[embd, ff, experts]);
        self.matrix(format!("{prefix}ffn_up_exps.weight"), &[embd, ff, experts]);
        self.matrix(format!("{prefix}ffn_down_exps.weight"), &[ff, embd, experts]);
    }
}
