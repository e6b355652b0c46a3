//! How likely tokens were: logprobs, computed from the raw logits before anything bends them.

use super::model::Model;
use crate::api::{Event, Token, TokenLogprob, TokenLogprobs};

/// The logprobs of one position: of the most likely tokens, and of any that is drawn.
#[derive(Debug)]
pub(super) struct Likely {
    logits: Vec<f32>,
    /// ln Σ exp(logit).
    normaliser: f32,
    /// Ids, the most likely one first.
    top: Vec<usize>,
}

impl Likely {
    /// `n` alternatives. One pass over the vocabulary for the sum, one for the choice.
    pub(super) fn of(logits: &[f32], n: usize) -> Self {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // In f64: a vocabulary of 256k entries adds up small numbers.
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
        let normaliser = most + sum.ln() as f32;
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        let by_logit = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        let n = n.min(ids.len());
        if n < ids.len() {
            ids.select_nth_unstable_by(n, by_logit);
            ids.truncate(n);
        }
        ids.sort_unstable_by(by_logit);
        Self { logits: logits.to_vec(), normaliser, top: ids }
    }

    /// What is told of the token that was drawn.
    pub(super) fn event(&self, drawn: Token, model: &Model) -> Event {
        let one = |token: Token| TokenLogprob { token, bytes: model.piece(token, true), logprob: self.logprob(token) };
        let top = self.top.iter().filter_map(|&id| Token::try_from(id).ok()).map(one).collect();
        Event::Token(TokenLogprobs { drawn: one(drawn), top })
    }

    fn logprob(&self, token: Token) -> f32 {
        let logit = usize::try_from(token).ok().and_then(|id| self.logits.get(id));
        // JSON knows no infinity; this is what OpenAI's API writes for a token that cannot be.
        logit.map_or(-9999.0, |logit| (logit - self.normaliser).clamp(-9999.0, 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_and_the_top_is_sorted() {
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 2.0, 3.0];
        let likely = Likely::of(&logits, 3);
        assert_eq!(likely.top, [1, 4, 3]);
        let sum: f64 = (0..5).map(|token| f64::from(likely.logprob(token)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(likely.logprob(2), -9999.0);
        assert_eq!(likely.logprob(77), -9999.0);
        assert!(
            (f64::from(likely.logprob(1)) - (3f64.exp() / (1f64.exp() + 2.0 * 3f64.exp() + 2f64.exp())).ln()).abs()
                < 1e-6
        );
        assert_eq!(Likely::of(&logits, 0).top, [0; 0]);
        assert_eq!(Likely::of(&logits, 9).top.len(), 5);
    }
}
