//! What the HTTP layer tells about a model file, read from its header once.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use locara_api::Capability;
use locara_engine::shape::model_shape;
use locara_gguf::Gguf;
use locara_policy::{defaults::defaults, machine::Machine};

/// Facts of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) architecture: String,
    pub(super) parameters: Option<u64>,
    pub(super) quantization: Option<String>,
    pub(super) n_ctx: u32,
    pub(super) n_embd: u32,
    pub(super) created: i64,
    pub(super) capabilities: Vec<Capability>,
}

/// Facts by digest. A file that cannot be read has none, and is asked again.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<String, Facts>>);

impl Known {
    /// The facts of a file; reads its header the first time. Blocks.
    pub(super) fn of(&self, digest: &str, path: &Path, machine: &Machine) -> Facts {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = lock().get(digest) {
            return facts.clone();
        }
        let Some(facts) = read(path, machine) else { return Facts::default() };
        lock().insert(digest.to_owned(), facts.clone());
        facts
    }
}

fn read(path: &Path, machine: &Machine) -> Option<Facts> {
    let gguf = Gguf::open(path).ok()?;
    let shape = model_shape(&gguf).ok()?;
    let modified = fs_err::metadata(path).ok()?.modified().ok()?;
    let created = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Some(Facts {
        architecture: shape.architecture.clone(),
        parameters: Some(shape.parameters),
        quantization: gguf.u32("general.file_type").ok().flatten().and_then(quantization).map(str::to_owned),
        n_ctx: defaults(machine, Some(&shape)).n_ctx.value,
        n_embd: gguf.u32(&gguf.arch_key("embedding_length").ok()?).ok().flatten().unwrap_or(0),
        created: i64::try_from(created).unwrap_or(i64::MAX),
        capabilities: capabilities(&gguf, shape.encoder),
    })
}

fn capabilities(gguf: &Gguf, encoder: bool) -> Vec<Capability> {
    let pools = gguf.arch_key("pooling_type").is_ok_and(|key| gguf.get(&key).is_some());
    if encoder || pools {
        return vec![Capability::Embedding];
    }
    let mut all = vec![Capability::Completion];
    if let Ok(Some(template)) = gguf.chat_template() {
        all.push(Capability::Chat);
        if template.contains("tools") {
            all.push(Capability::Tools);
        }
        if ["<think>", "enable_thinking", "reasoning_content"].iter().any(|word| template.contains(word)) {
            all.push(Capability::Thinking);
        }
    }
    all
}

/// The name of a mixture of types (`enum llama_ftype` in `llama.h`): what most of the weights are.
pub(crate) fn quantization(file_type: u32) -> Option<&'static str> {
    Some(match file_type {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        _ => return None,
    })
}
