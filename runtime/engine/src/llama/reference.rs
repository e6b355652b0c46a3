//! llama.cpp's own generation loop on the same file and the same options: what `make bench` compares the engine with.

use std::path::Path;

use super::{
    LoadError, LoadOptions,
    context::{Context, DecodeError},
    context_params,
    model::{Model, ModelParams},
};
use crate::api::{EngineError, Token};

/// A model and a context that nothing but the loop uses.
#[derive(Debug)]
pub struct ReferenceLoop(Context);

/// Times of one run of the loop, ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReferenceTimes {
    /// All prompts, one after the other.
    pub prefill_ms: f64,
    /// All tokens, the sequences together.
    pub decode_ms: f64,
}

impl ReferenceLoop {
    /// Loads the file as the engine would.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(path: &Path, options: LoadOptions) -> Result<Self, LoadError> {
        let params = ModelParams { n_gpu_layers: options.n_gpu_layers, repack: options.repack, no_alloc: false };
        let model = Model::load(path, params, &mut |_| true)?;
        Ok(Self(Context::new(model, context_params(&options, false))?))
    }

    /// Prefills `prompt` in each of `n_seq` sequences and decodes `n_decode` tokens of each, greedily.
    ///
    /// # Errors
    /// [`EngineError::InvalidRequest`] for what does not fit into the context, [`EngineError::Failed`] otherwise.
    pub fn run(&mut self, prompt: &[Token], n_seq: u32, n_decode: u32) -> Result<ReferenceTimes, EngineError> {
        match self.0.reference_loop(prompt, n_seq, n_decode) {
            Ok((prefill_ms, decode_ms)) => Ok(ReferenceTimes { prefill_ms, decode_ms }),
            Err(DecodeError::Invalid(reason)) => Err(EngineError::InvalidRequest(reason)),
            Err(DecodeError::Failed(reason)) => Err(EngineError::Failed(reason)),
            Err(error) => Err(EngineError::Failed(format!("{error:?}"))),
        }
    }
}
