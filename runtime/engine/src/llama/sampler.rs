//! One sequence's sampler chain.

use super::ffi::sys;
use crate::api::{Sampling, Token};

/// Tokens that the repetition penalties look back over.
const PENALTY_WINDOW: i32 = 64;

/// A chain of llama.cpp's samplers. Holds no pointer into a model (no grammar and no DRY sampler is in it).
#[derive(Debug)]
pub(super) struct Sampler(*mut sys::llama_sampler);

// SAFETY: a chain has no thread-local state and is used by one owner at a time.
unsafe impl Send for Sampler {}

impl Sampler {
    /// Bias and penalties, then top-k before everything that sorts, then the draw.
    pub(super) fn new(sampling: &Sampling, n_vocab: usize, seed: u32) -> Self {
        let n_vocab = i32::try_from(n_vocab).unwrap_or(i32::MAX);
        // SAFETY: the chain takes ownership of every sampler added; arguments are plain values, the bias array is copied.
        unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            let add = |sampler| sys::llama_sampler_chain_add(chain, sampler);
            if !sampling.logit_bias.is_empty() {
                let biases: Vec<_> =
                    sampling.logit_bias.iter().map(|&(token, bias)| sys::llama_logit_bias { token, bias }).collect();
                let n = i32::try_from(biases.len()).unwrap_or(i32::MAX);
                add(sys::llama_sampler_init_logit_bias(n_vocab, n, biases.as_ptr()));
            }
            let penalised =
                sampling.repeat_penalty != 1.0 || sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0;
            if penalised {
                add(sys::llama_sampler_init_penalties(
                    n_vocab,
                    PENALTY_WINDOW,
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                ));
            }
            if sampling.temperature <= 0.0 {
                add(sys::llama_sampler_init_greedy());
            } else {
                if sampling.top_k > 0 {
                    add(sys::llama_sampler_init_top_k(i32::try_from(sampling.top_k).unwrap_or(i32::MAX)));
                }
                if sampling.top_p < 1.0 {
                    add(sys::llama_sampler_init_top_p(sampling.top_p, 1));
                }
                if sampling.min_p > 0.0 {
                    add(sys::llama_sampler_init_min_p(sampling.min_p, 1));
                }
                add(sys::llama_sampler_init_temp(sampling.temperature));
                add(sys::llama_sampler_init_dist(seed));
            }
            Self(chain)
        }
    }

    /// Takes a token that was not drawn by it into account, for the penalties.
    pub(super) fn accept(&mut self, token: Token) {
        // SAFETY: the chain is live; no grammar is in it, so it takes any token.
        unsafe { sys::llama_sampler_accept(self.0, token) };
    }

    pub(super) fn as_ptr(&mut self) -> *mut sys::llama_sampler {
        self.0
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: the chain is owned by `self` and frees its members.
        unsafe { sys::llama_sampler_free(self.0) };
    }
}
