//! Perplexity of a text: what a KV type costs in quality, measured instead of believed.
//!
//! As llama.cpp's own tool does it: the text is cut into windows of the context, each is computed from empty cells, and
//! the tokens of its second half are scored, so that each is predicted from at least half a window.

use std::{path::Path, sync::Arc};

use locara_gguf::Gguf;

use super::{
    LoadError, LoadOptions,
    batch::Batch,
    context::{Context, ContextParams, DecodeError},
    context_params,
    model::{Model, ModelParams},
};
use crate::api::EngineError;

/// Tokens that are computed, and at most scored, at once. Outputs are bounded by the number of sequences, so the context
/// is made for as many sequences; only one is used.
const ROWS: u32 = 64;

/// How well a model predicts a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// exp of the mean negative log-likelihood: 1 is certain of every token, the size of the vocabulary knows nothing.
    pub ppl: f64,
    /// Tokens that were scored.
    pub tokens: u32,
}

/// Why there is no perplexity.
#[derive(Debug, thiserror::Error)]
pub enum PerplexityError {
    /// The model does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The text does not tokenise or compute.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nothing would be scored.
    #[error("the text has {tokens} tokens, less than one window of {window}; give a longer text or a smaller n_ctx")]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },
}

/// Measures the model at `path` on `text` with the KV types and FlashAttention of `options`, in windows of
/// `options.n_ctx` tokens. Tokens behind the last whole window are left out.
///
/// # Errors
/// [`PerplexityError`].
pub fn perplexity(path: &Path, options: LoadOptions, text: &str) -> Result<Perplexity, PerplexityError> {
    // llama.cpp only sees files that the reader accepts.
    Gguf::open(path).map_err(|source| LoadError::Gguf { path: path.to_owned(), source })?;
    let params = ModelParams { n_gpu_layers: options.n_gpu_layers, repack: options.repack, no_alloc: false };
    let model = Model::load(path, params, &mut |_| true)?;
    let params = ContextParams {
        kv_cells: options.n_ctx,
        n_batch: ROWS,
        n_ubatch: ROWS,
        n_seq_max: ROWS,
        ..context_params(&options, false)
    };
    let mut context = Context::new(Arc::clone(&model), params)?;
    let tokens = model.tokenize(text, true, false)?;
    // Windows of fewer than two tokens predict nothing.
    let window = (options.n_ctx as usize).max(2);
    let (mut nats, mut scored) = (0.0, 0_u32);
    for tokens in tokens.chunks_exact(window) {
        let (sum, n) = score(&mut context, tokens).map_err(failed)?;
        nats += sum;
        scored = scored.saturating_add(n);
    }
    if scored == 0 {
        return Err(PerplexityError::TooShort { tokens: tokens.len(), window });
    }
    Ok(Perplexity { ppl: (nats / f64::from(scored)).exp(), tokens: scored })
}

/// Sum of the negative log-likelihoods of the second half of a window, in nats, and how many they are.
fn score(context: &mut Context, window: &[i32]) -> Result<(f64, u32), DecodeError> {
    context.clear(0);
    let mut batch = Batch::new(ROWS as usize);
    let (mut nats, mut scored) = (0.0, 0);
    for (index, part) in window.chunks(ROWS as usize).enumerate() {
        batch.clear();
        let mut predictions = Vec::new();
        for (at, token) in (index * ROWS as usize..).zip(part) {
            let next = window.get(at + 1).filter(|_| at >= window.len() / 2);
            let position = i32::try_from(at).unwrap_or(i32::MAX);
            let row = batch.push(*token, position, 0, next.is_some());
            predictions.extend(row.zip(next));
        }
        context.decode(&mut batch)?;
        for (row, next) in predictions {
            let missing = || DecodeError::Failed(format!("row {row} has no logits"));
            let logits = context.logits(row).ok_or_else(missing)?;
            let target = usize::try_from(*next).unwrap_or(usize::MAX);
            nats += negative_log_likelihood(logits, target).ok_or_else(missing)?;
            scored += 1;
        }
    }
    Ok((nats, scored))
}

/// -ln softmax(logits)[target], in nats. `None` if there is no such logit.
fn negative_log_likelihood(logits: &[f32], target: usize) -> Option<f64> {
    let chosen = f64::from(*logits.get(target)?);
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // The largest is taken out so that no exponential overflows.
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    Some(sum.ln() + f64::from(largest) - chosen)
}

fn failed(error: DecodeError) -> PerplexityError {
    let error = match error {
        DecodeError::Invalid(reason) => EngineError::InvalidRequest(reason),
        DecodeError::Failed(reason) => EngineError::Failed(reason),
        DecodeError::Aborted => EngineError::Stopped,
        DecodeError::NoCells => EngineError::Failed("no KV cells are left".to_owned()),
    };
    PerplexityError::Engine(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_are_a_guess_and_a_large_one_is_certain() {
        let guess = negative_log_likelihood(&[3.0; 8], 5).expect("in range");
        assert!((guess - 8.0_f64.ln()).abs() < 1e-12, "{guess}");
        // exp(1e4) is not a number that f64 has.
        let certain = negative_log_likelihood(&[0.0, 1e4, 0.0], 1).expect("in range");
        assert!(certain.abs() < 1e-12, "{certain}");
        assert_eq!(negative_log_likelihood(&[0.0], 1), None);
    }
}
