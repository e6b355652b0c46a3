//! How likely tokens were, as OpenAI writes it; Ollama's form is the same without the envelope.

use locara_engine::{TokenLogprob, TokenLogprobs};
use serde::Serialize;
use utoipa::ToSchema;

/// The tokens of an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Logprobs {
    content: Vec<Logprob>,
}

/// A token and what else was likely.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Logprob {
    #[serde(flatten)]
    drawn: Likely,
    top_logprobs: Vec<Likely>,
}

/// A token and its probability.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Likely {
    /// Its text; what is only part of a character is replaced.
    token: String,
    /// Natural logarithm of the probability under the model alone. Finite: what cannot be is -9999.
    logprob: f32,
    /// What it stands for.
    bytes: Vec<u8>,
}

/// OpenAI's word for "cannot be": JSON has no infinity.
const NEVER: f32 = -9999.0;

impl Logprobs {
    /// `None` for no tokens: logprobs were not asked for, or there is no text to belong to.
    pub(crate) fn of(tokens: &[TokenLogprobs]) -> Option<Self> {
        (!tokens.is_empty()).then(|| Self { content: tokens.iter().map(Logprob::of).collect() })
    }
}

impl Logprob {
    pub(crate) fn of(token: &TokenLogprobs) -> Self {
        Self { drawn: Likely::of(&token.drawn), top_logprobs: token.top.iter().map(Likely::of).collect() }
    }
}

impl Likely {
    fn of(token: &TokenLogprob) -> Self {
        Self {
            token: String::from_utf8_lossy(&token.bytes).into_owned(),
            logprob: finite(token.logprob),
            bytes: token.bytes.clone(),
        }
    }
}

/// A number that JSON can hold.
pub(crate) fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}
