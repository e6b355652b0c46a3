//! How one model is spoken to: its chat template, and the forms in which it reasons and calls tools.

use super::model::Model;
use crate::{
    api::{EngineError, Token},
    chat::ChatTemplate,
    output::{Formats, hermes},
};

/// The owner's word on how a model is spoken to, for files that bring a wrong template or none. The default takes what the
/// file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatOptions {
    /// A chat template (Jinja) instead of the one in the file.
    pub template_override: Option<String>,
    /// Name of the form of tool calls, e.g. `hermes`.
    pub tool_format: Option<String>,
    /// Name of the form of reasoning, e.g. `think`.
    pub reasoning_format: Option<String>,
}

impl ChatOptions {
    /// What is wrong with the names, and which ones exist.
    pub(super) fn check(&self) -> Result<(), String> {
        self.apply(Formats::of("", |_| false)).map(|_| ())
    }

    fn apply(&self, formats: Formats) -> Result<Formats, String> {
        formats.named(self.tool_format.as_deref(), self.reasoning_format.as_deref())
    }
}

/// How one model is spoken to.
#[derive(Debug)]
pub(super) struct Chat {
    pub(super) template: ChatTemplate,
    pub(super) formats: Formats,
    /// The control tokens with their texts.
    pub(super) controls: Vec<(String, Token)>,
}

impl Chat {
    /// `in_file` is the template that the file brings. `None` when there is no template at all.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] when the template does not parse.
    pub(super) fn new(
        model: &Model,
        in_file: Option<&str>,
        options: &ChatOptions,
    ) -> Result<Option<Self>, EngineError> {
        let Some(source) = options.template_override.as_deref().or(in_file) else { return Ok(None) };
        let (eos, eot) = model.eos_and_eot();
        let ids = 0..i32::try_from(model.n_vocab()).unwrap_or(i32::MAX);
        let controls: Vec<(String, Token)> =
            ids.filter(|id| model.is_control(*id)).map(|id| (model.special_text(id), id)).collect();
        let end = if model.knows(eos) { eos } else { eot };
        let special = controls.iter().map(|(text, _)| text.clone()).collect();
        let mut template =
            ChatTemplate::new(source, model.special_text(model.bos()), model.special_text(end), special)?;
        // Tags that are tokens of their own need not be control tokens.
        let is_token = |text: &str| model.tokenize(text, false, true).is_ok_and(|tokens| tokens.len() == 1);
        let mut formats = Formats::of(source, is_token);
        if !template.shows_tools() {
            // Tokens that the vocabulary has from the base model do not mean that the model learned to use them.
            formats.calls = Formats::of(source, |_| false).calls;
        }
        let formats = options.apply(formats).map_err(EngineError::Unsupported)?;
        if template.shows_tools()
            && options.tool_format.is_none()
            && formats.calls == hermes()
            && !source.contains("<tool_call>")
        {
            tracing::warn!(model = %model.path().display(), "the chat template shows tools and none of the known forms of calls; calls are looked for in Hermes' form");
        }
        template.set_calls(formats.calls);
        Ok(Some(Self { template, formats, controls }))
    }
}
