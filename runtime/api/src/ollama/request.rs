//! Requests of Ollama's clients, and what they mean to an engine.

use std::collections::BTreeMap;

use locara_engine::{Constraint, Message, Prompt, Speaker, ToolCall, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    body::{OneOrMany, WordOr},
    fault::Fault,
    openai::message::{OfferedTool, json_schema, tools},
    wish::{Names, SamplingWish, Thinking, Wish},
};

const NAMES: Names = Names {
    prefix: "options.",
    max_tokens: "options.num_predict",
    stop: "options.stop",
    messages: "messages",
    repeat_penalty: "repeat_penalty",
    logprobs: "top_logprobs",
};

/// A conversation to be continued. Fields that are not listed are accepted and have no effect.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaChatRequest)]
pub(super) struct ChatRequest {
    /// A model or a role.
    pub(super) model: String,
    /// Without any, the model is loaded, or unloaded if `keep_alive` is 0.
    #[serde(default)]
    pub(super) messages: Vec<Turn>,
    /// Lines of JSON instead of one answer; the default.
    pub(super) stream: Option<bool>,
    options: Option<Options>,
    /// `json`, or a JSON Schema.
    #[schema(value_type = Option<Value>)]
    format: Option<WordOr<Map<String, Value>>>,
    tools: Option<Vec<OfferedTool>>,
    /// Whether to reason, or how much: `low`, `medium`, `high`.
    #[schema(value_type = Option<Value>)]
    think: Option<Think>,
    /// Tell how likely each token was.
    logprobs: Option<bool>,
    /// Alternatives to each token.
    top_logprobs: Option<u32>,
    #[schema(value_type = Option<Value>)]
    pub(super) keep_alive: Option<KeepAlive>,
}

/// A text to be continued or answered. Fields that are not listed are accepted and have no effect.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaGenerateRequest)]
pub(super) struct GenerateRequest {
    /// A model or a role.
    pub(super) model: String,
    /// Without one, the model is loaded, or unloaded if `keep_alive` is 0.
    pub(super) prompt: Option<String>,
    system: Option<String>,
    /// The prompt as it is, without the template of the model.
    raw: Option<bool>,
    suffix: Option<String>,
    template: Option<String>,
    images: Option<Vec<Value>>,
    /// Whether to reason, or how much: `low`, `medium`, `high`.
    #[schema(value_type = Option<Value>)]
    think: Option<Think>,
    /// Tell how likely each token was.
    logprobs: Option<bool>,
    /// Alternatives to each token.
    top_logprobs: Option<u32>,
    /// Lines of JSON instead of one answer; the default.
    pub(super) stream: Option<bool>,
    options: Option<Options>,
    /// `json`, or a JSON Schema.
    #[schema(value_type = Option<Value>)]
    format: Option<WordOr<Map<String, Value>>>,
    #[schema(value_type = Option<Value>)]
    pub(super) keep_alive: Option<KeepAlive>,
}

/// One turn.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaMessage)]
pub(super) struct Turn {
    /// `system`, `user`, `assistant` or `tool`.
    role: String,
    content: Option<String>,
    images: Option<Vec<Value>>,
    tool_calls: Option<Vec<Call>>,
}

/// A call that an assistant turn made.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaCall)]
struct Call {
    function: CalledFunction,
}

/// What is called.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaCalledFunction)]
struct CalledFunction {
    name: String,
    #[schema(value_type = Value)]
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// Sampling parameters. What concerns loading (`num_ctx`, `num_gpu`, `num_thread`, …) is the host's and has no effect.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = OllamaOptions)]
struct Options {
    /// Bound of the answer, tokens; negative asks for as much as there may be.
    num_predict: Option<i64>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: Option<i64>,
    #[schema(value_type = Option<Value>)]
    stop: Option<OneOrMany<String>>,
}

/// `keep_alive`: a number of seconds or a text such as `5m`. How long a model stays is the host's; only 0 means something.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum KeepAlive {
    Seconds(f64),
    Text(String),
}

/// `think`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Think {
    Switch(bool),
    Effort(String),
}

impl KeepAlive {
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Seconds(seconds) => *seconds == 0.0,
            Self::Text(text) => {
                !text.is_empty() && text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse() == Ok(0.0)
            }
        }
    }
}

impl Options {
    /// Sampling, stop strings and the bound of the answer.
    fn fill(self, wish: &mut Wish) {
        wish.max_tokens = self.num_predict.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        wish.stop = self.stop.map(OneOrMany::into_vec).unwrap_or_default();
        wish.sampling = SamplingWish {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed,
            logit_bias: Vec::new(),
        };
    }
}

fn constraint(format: Option<WordOr<Map<String, Value>>>) -> Result<Option<Constraint>, Fault> {
    match format {
        None => Ok(None),
        Some(WordOr::Word(word)) => match word.as_str() {
            "" => Ok(None),
            "json" => Ok(Some(Constraint::JsonSchema(serde_json::json!({"type": "object"})))),
            other => Err(Fault::field("format", format!("{other:?} is neither \"json\" nor a JSON Schema"))),
        },
        Some(WordOr::Object(schema)) => json_schema("format", Value::Object(schema)).map(Some),
    }
}

fn thinking(think: Option<Think>) -> Thinking {
    match think {
        None => Thinking::default(),
        Some(Think::Switch(on)) => Thinking { on: Some(on), ..Thinking::default() },
        Some(Think::Effort(effort)) => Thinking { on: Some(true), ..Thinking::with_effort(Some(effort)) },
    }
}

fn logprobs(wanted: Option<bool>, top: Option<u32>) -> Option<u32> {
    (wanted == Some(true)).then(|| top.unwrap_or(0))
}

fn no_images(images: Option<&Vec<Value>>, path: String) -> Result<(), Fault> {
    match images {
        Some(images) if !images.is_empty() => Err(Fault::not_offered(path, "the models here read no images")),
        _ => Ok(()),
    }
}

impl ChatRequest {
    /// What is wanted.
    pub(super) fn wish(self) -> Result<Wish, Fault> {
        let turns = self.messages.into_iter().enumerate();
        let messages = turns.map(|(at, turn)| turn.into_message(&format!("messages[{at}]")));
        let messages = messages.collect::<Result<Vec<_>, _>>()?;
        let tools = tools(self.tools.unwrap_or_default())?;
        let mut wish = Wish {
            constraint: constraint(self.format)?,
            logprobs: logprobs(self.logprobs, self.top_logprobs),
            ..Wish::chat(messages, tools, ToolChoice::Auto)
        };
        wish.think(thinking(self.think));
        self.options.unwrap_or_default().fill(&mut wish);
        wish.check(NAMES)?;
        Ok(wish)
    }
}

impl Turn {
    fn into_message(self, path: &str) -> Result<Message, Fault> {
        let speaker = match self.role.as_str() {
            "system" => Speaker::System,
            "user" => Speaker::User,
            "assistant" => Speaker::Assistant,
            "tool" => Speaker::Tool,
            other => {
                let problem = format!("{other:?} is none of system, user, assistant, tool");
                return Err(Fault::field(format!("{path}.role"), problem));
            }
        };
        no_images(self.images.as_ref(), format!("{path}.images"))?;
        // Calls have no ids in this dialect.
        let calls = self.tool_calls.unwrap_or_default().into_iter().enumerate();
        let tool_calls = calls.map(|(at, call)| ToolCall {
            id: format!("call_{at}"),
            name: call.function.name,
            arguments: Value::Object(call.function.arguments).to_string(),
        });
        Ok(Message { tool_calls: tool_calls.collect(), ..Message::new(speaker, self.content.unwrap_or_default()) })
    }
}

impl GenerateRequest {
    /// What is wanted.
    pub(super) fn wish(self) -> Result<Wish, Fault> {
        no_images(self.images.as_ref(), "images".into())?;
        if self.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Fault::not_offered("suffix", "text is not filled in between a prompt and a suffix"));
        }
        if self.template.is_some_and(|template| !template.is_empty()) {
            return Err(Fault::not_offered("template", "the template is the model's own; send a raw prompt instead"));
        }
        let prompt = self.prompt.unwrap_or_default();
        let prompt = if self.raw == Some(true) {
            Prompt::Text(prompt)
        } else {
            let system = self.system.filter(|system| !system.is_empty()).map(Message::system);
            let messages = system.into_iter().chain([Message::user(prompt)]).collect();
            Prompt::Chat { messages, tools: Vec::new(), tool_choice: ToolChoice::Auto, template: BTreeMap::new() }
        };
        let mut wish = Wish {
            prompts: vec![prompt],
            constraint: constraint(self.format)?,
            logprobs: logprobs(self.logprobs, self.top_logprobs),
            ..Wish::default()
        };
        wish.think(thinking(self.think));
        self.options.unwrap_or_default().fill(&mut wish);
        wish.check(NAMES)?;
        Ok(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_no_time_at_all_means_unload() {
        let zero = |text: &str| serde_json::from_str::<KeepAlive>(text).unwrap().is_zero();
        assert!(zero("0") && zero("0.0") && zero("\"0\"") && zero("\"0s\"") && zero("\"0m\""));
        assert!(!zero("-1") && !zero("300") && !zero("\"5m\"") && !zero("\"\"") && !zero("\"ever\""));
    }
}
