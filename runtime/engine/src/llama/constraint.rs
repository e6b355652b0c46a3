//! Constrained decoding: which tokens a JSON Schema, a regular expression or a grammar allows next (llguidance).
//!
//! Chosen over llama.cpp's grammars: memory-safe, and a failed step is an error, where theirs aborts the process.

use std::sync::Arc;

use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie},
};

use super::model::Model;
use crate::{
    api::{Constraint, EngineError, Token, Tool, ToolChoice},
    output::{CallFormat, grammar},
};

/// Byte that marks special tokens in the trie, so that text can never spell one.
const SPECIAL: u8 = 0xff;

/// Compiles constraints for one vocabulary. Made on first use: a vocabulary of 128k tokens takes about 100 ms.
pub(super) struct ConstraintFactory(ParserFactory);

impl std::fmt::Debug for ConstraintFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConstraintFactory")
    }
}

impl ConstraintFactory {
    pub(super) fn new(model: &Model) -> Result<Self, EngineError> {
        let n_vocab = model.n_vocab();
        let words: Vec<Vec<u8>> = (0..n_vocab)
            .map(|id| {
                let token = Token::try_from(id).unwrap_or(-1);
                if model.is_control(token) || model.is_end_of_generation(token) {
                    [&[SPECIAL], model.piece(token, true).as_slice()].concat()
                } else {
                    model.piece(token, false)
                }
            })
            .collect();
        let (eos, eot) = model.eos_and_eot();
        let end = if model.knows(eot) { eot } else { eos };
        let fail =
            |error: String| EngineError::Unsupported(format!("constrained output with this vocabulary: {error}"));
        let end = u32::try_from(end).map_err(|_| fail("it has no end-of-turn token".into()))?;
        let info = TokRxInfo::new(u32::try_from(n_vocab).unwrap_or(u32::MAX), end);
        let env = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory = ParserFactory::new_simple(&(env as _)).map_err(|error| fail(error.to_string()))?;
        factory.quiet();
        Ok(Self(factory))
    }

    /// Compiles a constraint.
    pub(super) fn compile(&self, constraint: &Constraint) -> Result<ActiveConstraint, EngineError> {
        let (what, grammar) = match constraint {
            Constraint::JsonSchema(schema) => {
                ("JSON Schema", TopLevelGrammar::from_json_schema(grammar::with_bounded_space(schema)))
            }
            Constraint::Regex(regex) => ("regular expression", TopLevelGrammar::from_regex(regex)),
            Constraint::Grammar(lark) => ("grammar", TopLevelGrammar::from_lark(lark.clone())),
        };
        let parser = self
            .0
            .create_parser(grammar)
            .map_err(|error| EngineError::InvalidRequest(format!("the {what} cannot be enforced: {error:#}")))?;
        Ok(ActiveConstraint(Matcher::new(Ok(parser))))
    }
}

/// The grammar that forces a call of one of the tools, or of the one that is named, in the form that the model was trained
/// on. `controls` are the control tokens with their texts.
pub(super) fn call_grammar(
    format: &CallFormat,
    tools: &[Tool],
    choice: &ToolChoice,
    controls: &[(String, Token)],
) -> Result<Option<Constraint>, EngineError> {
    let (named, parallel): (Vec<&Tool>, _) = match choice {
        ToolChoice::Auto | ToolChoice::None => return Ok(None),
        ToolChoice::Required => (tools.iter().collect(), true),
        ToolChoice::Named(name) => (tools.iter().filter(|tool| tool.name == *name).collect(), false),
    };
    if named.is_empty() {
        let wanted = if let ToolChoice::Named(name) = choice { name.as_str() } else { "any tool" };
        let known: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        return Err(EngineError::InvalidRequest(format!(
            "a call of {wanted} is required, but the tools offered are [{}]",
            known.join(", ")
        )));
    }
    Ok(Some(Constraint::Grammar(grammar::call_grammar(format, &named, parallel, controls))))
}

/// A constraint and how far the answer has come in it.
pub(super) struct ActiveConstraint(Matcher);

impl std::fmt::Debug for ActiveConstraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ActiveConstraint")
    }
}

impl ActiveConstraint {
    /// Sets the logits of all tokens that may not come next to minus infinity.
    pub(super) fn mask(&mut self, logits: &mut [f32]) -> Result<(), EngineError> {
        let allowed =
            self.0.compute_mask_or_eos().map_err(|error| EngineError::Failed(format!("constraint: {error:#}")))?;
        if allowed.is_zero() {
            return Err(EngineError::Failed("the constraint allows no token of the vocabulary next".into()));
        }
        allowed.iter_unset_entries(|id| {
            if let Some(logit) = logits.get_mut(id) {
                *logit = f32::NEG_INFINITY;
            }
        });
        Ok(())
    }

    /// Takes the token that was drawn. Returns whether the answer is complete.
    pub(super) fn accept(&mut self, token: Token) -> Result<bool, EngineError> {
        let token = u32::try_from(token).map_err(|_| EngineError::Failed(format!("constraint: token {token}")))?;
        self.0.consume_token(token).map_err(|error| EngineError::Failed(format!("constraint: {error:#}")))?;
        Ok(self.0.is_stopped())
    }
}
