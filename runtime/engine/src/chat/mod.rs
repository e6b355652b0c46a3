//! Conversations to prompt text, through the chat template that the model file brings.
//!
//! The template is a foreign program: it runs in minijinja with a fuel limit and sees nothing but the conversation, the
//! variables of the request and the time. `functions` holds what it may call, `dialect` finds out what it knows, `history`
//! and `adapt` make the turns.

mod adapt;
mod dialect;
mod functions;
mod history;

use std::collections::BTreeMap;

use minijinja::{Environment, syntax::SyntaxConfig, value::Serde};
use serde_json::{Value, json};

use self::dialect::Dialect;
use crate::{
    api::{EngineError, Message, Tool},
    output::{CallFormat, hermes},
};

/// Instructions that a template may execute; a long conversation with tools takes some ten thousand.
const FUEL: u64 = 20_000_000;

/// The same for each of the short conversations that it is tried out with.
const TRIAL_FUEL: u64 = 500_000;

/// Characters of Unicode's private use area, one of which marks places where special tokens in messages were broken up.
const BREAKS: std::ops::RangeInclusive<char> = '\u{f8e0}'..='\u{f8ff}';

/// Variables that the engine sets; a request may not.
const RESERVED: [&str; 5] = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    special: Vec<String>,
    dialect: Dialect,
    calls: &'static CallFormat,
}

/// A rendered prompt: pieces that are tokenised one by one, special tokens parsed. One piece unless a message tried to
/// smuggle in special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered(pub Vec<String>);

impl Rendered {
    /// Whether the prompt ends with this text, white space aside.
    pub(crate) fn ends_with(&self, text: &str) -> bool {
        let text = text.trim_end();
        !text.is_empty() && self.0.last().is_some_and(|last| last.trim_end().ends_with(text))
    }

    /// Adds text at the end.
    pub(crate) fn push(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(last) => last.push_str(text),
            None => self.0.push(text.to_owned()),
        }
    }
}

impl ChatTemplate {
    /// Compiles a template and tries out what it does with tools and calls. `special` are the texts of the control tokens:
    /// in what comes from outside they are kept from being parsed.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] with the template's own error and line.
    pub fn new(source: &str, bos: String, eos: String, special: Vec<String>) -> Result<Self, EngineError> {
        let mut environment = Environment::new();
        // As Hugging Face renders templates.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| EngineError::Failed(format!("template syntax: {error}")))?);
        functions::add_to(&mut environment);
        environment.add_template_owned("chat", source.to_owned()).map_err(|error| {
            EngineError::Unsupported(format!("the chat template of the model does not parse: {error}"))
        })?;
        environment.set_fuel(Some(TRIAL_FUEL));
        let dialect = Dialect::of(|messages, tools| {
            let mut known =
                json!({"messages": messages, "add_generation_prompt": true, "bos_token": bos, "eos_token": eos});
            if let Some(tools) = tools {
                known["tools"] = tools;
            }
            environment.get_template("chat").and_then(|template| template.render(Serde(known))).ok()
        });
        environment.set_fuel(Some(FUEL));
        let special = special.into_iter().filter(|text| !text.is_empty()).collect();
        Ok(Self { environment, bos, eos, special, dialect, calls: hermes() })
    }

    /// Writes calls in this form where the template does not, and their ids as it wants them.
    pub(crate) fn set_calls(&mut self, calls: &'static CallFormat) {
        self.calls = calls;
    }

    /// Whether it shows the model the tools that are offered. If not, a system message does.
    pub(crate) fn shows_tools(&self) -> bool {
        self.dialect.tools
    }

    /// The prompt of a conversation, up to where the model speaks. `variables` are what the template may ask for besides
    /// the conversation, e.g. `enable_thinking`.
    ///
    /// # Errors
    /// [`EngineError::InvalidRequest`] with what the template says against the conversation, or the variable that a request
    /// may not set.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[Tool],
        variables: &BTreeMap<String, Value>,
    ) -> Result<Rendered, EngineError> {
        if let Some(name) = RESERVED.into_iter().find(|name| variables.contains_key(*name)) {
            return Err(EngineError::InvalidRequest(format!(
                "the template variable {name} is set by the engine; leave it out of the request"
            )));
        }
        let mut foreign = json!({"messages": history::messages_json(messages, tools, self.dialect, self.calls)});
        for (name, value) in variables {
            foreign[name] = value.clone();
        }
        if !tools.is_empty() && self.dialect.tools {
            foreign["tools"] = history::tools_json(tools);
        } else if self.dialect.null_tools {
            foreign["tools"] = Value::Null;
        }
        let mark = self.disarm(&mut foreign)?;
        foreign["add_generation_prompt"] = true.into();
        foreign["bos_token"] = self.bos.as_str().into();
        foreign["eos_token"] = self.eos.as_str().into();
        let template = self.environment.get_template("chat");
        let text = template.and_then(|template| template.render(Serde(foreign))).map_err(|error| {
            EngineError::InvalidRequest(format!("the chat template of the model refuses this conversation: {error}"))
        })?;
        Ok(Rendered(match mark {
            Some(mark) => text.split(mark).map(str::to_owned).collect(),
            None => vec![text],
        }))
    }

    /// Whether the prompt text already begins with the begin-of-sequence token.
    pub(crate) fn adds_bos(&self, text: &str) -> bool {
        !self.bos.is_empty() && text.starts_with(&self.bos)
    }

    /// Breaks up every special token in what comes from outside. Returns the mark that stands where it did.
    fn disarm(&self, foreign: &mut Value) -> Result<Option<char>, EngineError> {
        let holds_special = |text: &str| self.special.iter().any(|special| text.contains(special.as_str()));
        if !any_text(foreign, &holds_special) {
            return Ok(None);
        }
        let Some(mark) = BREAKS.into_iter().find(|mark| !any_text(foreign, &|text| text.contains(*mark))) else {
            return Err(EngineError::InvalidRequest(
                "a message holds special tokens of the model and every private-use mark that could disarm them".into(),
            ));
        };
        self.break_up(foreign, mark);
        Ok(Some(mark))
    }

    fn break_up(&self, value: &mut Value, mark: char) {
        let broken = |text: &str| {
            self.special.iter().fold(text.to_owned(), |text, special| {
                let first = special.chars().next().map_or(0, char::len_utf8);
                text.replace(special.as_str(), &format!("{}{mark}{}", &special[..first], &special[first..]))
            })
        };
        match value {
            Value::String(text) => *text = broken(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.break_up(value, mark)),
            Value::Object(object) => {
                *object = std::mem::take(object)
                    .into_iter()
                    .map(|(key, mut value)| {
                        if key != "role" {
                            self.break_up(&mut value, mark);
                        }
                        // Keys that templates ask for are words; no token may change them.
                        let is_word = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                        (if is_word { key } else { broken(&key) }, value)
                    })
                    .collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Whether any text in the value, keys included, is what `is` looks for.
fn any_text(value: &Value, is: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is(text),
        Value::Array(values) => values.iter().any(|value| any_text(value, is)),
        Value::Object(object) => object.iter().any(|(key, value)| is(key) || any_text(value, is)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
