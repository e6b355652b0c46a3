//! What is said: messages, tools, requests, events, completions. Plain data, the same on both sides of the host's wall.

use std::time::Duration;

use serde_json::Value;

use crate::Error;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Speaker {
    /// The instructions of the app.
    System,
    /// The person, or the app in their place.
    User,
    /// The model.
    Assistant,
    /// The answer of a tool.
    Tool,
    /// A speaker of a particular model's template.
    Other(String),
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Who speaks.
    pub speaker: Speaker,
    /// What is said.
    pub content: String,
    /// Tools that an assistant message asks for.
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool message answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message without tool calls.
    #[must_use]
    pub fn new(speaker: Speaker, content: impl Into<String>) -> Self {
        Self { speaker, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }

    /// Instructions.
    #[must_use]
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Speaker::System, content)
    }

    /// What the person says.
    #[must_use]
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Speaker::User, content)
    }

    /// What the model said, or is made to have said.
    #[must_use]
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Speaker::Assistant, content)
    }

    /// The result of a tool call.
    #[must_use]
    pub fn tool(call: &ToolCall, result: impl Into<String>) -> Self {
        Self { tool_call_id: Some(call.id.clone()), ..Self::new(Speaker::Tool, result) }
    }
}

/// A text alone is what the person says.
impl<T: Into<String>> From<T> for Message {
    fn from(text: T) -> Self {
        Self::user(text)
    }
}

/// A tool that the model asks the app to run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolCall {
    /// Names this call in the answer.
    pub id: String,
    /// Which tool.
    pub name: String,
    /// A JSON object, as the model wrote it.
    pub arguments: String,
}

impl ToolCall {
    /// A call, for tests and for histories that are rebuilt.
    #[must_use]
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { id: id.into(), name: name.into(), arguments: arguments.into() }
    }

    /// The arguments as a type of the app.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the model's JSON does not fit the type.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.arguments).map_err(|error| {
            Error::Malformed(format!("arguments of the tool `{}`: {error}: {}", self.name, self.arguments))
        })
    }
}

/// A function that the model may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tool {
    /// What the model calls it by.
    pub name: String,
    /// When and what for, in words for the model.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: String,
}

impl Tool {
    /// A tool whose arguments follow a JSON Schema.
    #[must_use]
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: &Value) -> Self {
        Self { name: name.into(), description: description.into(), parameters: parameters.to_string() }
    }

    /// A tool whose arguments are a type of the app.
    #[must_use]
    pub fn of<Arguments: schemars::JsonSchema>(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self { name: name.into(), description: description.into(), parameters: schema_of::<Arguments>() }
    }
}

/// Whether the model may, must or must not ask for a tool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No tool.
    None,
    /// Some tool.
    Required,
    /// This tool.
    Named(String),
}

/// What the answer must look like. The sampler enforces it token by token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Constraint {
    /// A JSON Schema (draft 2020-12).
    JsonSchema(String),
    /// A regular expression that the whole answer matches.
    Regex(String),
    /// A Lark grammar in llguidance's dialect.
    Grammar(String),
}

/// How the next token is chosen. What is absent takes the default of the role.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Sampling {
    /// 0 always takes the likeliest token.
    pub temperature: Option<f32>,
    /// Only the `top_k` likeliest tokens.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that sum up to this probability.
    pub top_p: Option<f32>,
    /// Only tokens with at least this share of the likeliest token's probability.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens that were used already; 1 is off.
    pub repeat_penalty: Option<f32>,
    /// Taken from a logit for each use of its token.
    pub frequency_penalty: Option<f32>,
    /// Taken from a logit once its token was used.
    pub presence_penalty: Option<f32>,
    /// The same seed and the same prompt give the same answer.
    pub seed: Option<u32>,
    /// Token id and what is added to its logit.
    pub logit_bias: Vec<(u32, f32)>,
}

/// A name and a JSON value for what this version has no type for. Unknown names are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extension {
    /// The name.
    pub name: String,
    /// The value, as JSON.
    pub json: String,
}

/// Everything about one question to the model. [`Ask`](crate::Ask) builds it.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Request {
    /// Appended to the history of the session.
    pub messages: Vec<Message>,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: Option<u32>,
    /// The answer ends before the first of these strings.
    pub stop: Vec<String>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
    /// What the model may ask for.
    pub tools: Vec<Tool>,
    /// Whether it may.
    pub tool_choice: ToolChoice,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Text of the answer.
    Text(String),
    /// Text of the model's reasoning, if it has any.
    Thinking(String),
    /// A piece of a tool call. The pieces of one call share an `index`; [`Completion::tool_calls`] has them whole.
    ToolCall {
        /// Counts the calls of this answer.
        index: u32,
        /// In the first piece.
        id: Option<String>,
        /// In the first piece.
        name: Option<String>,
        /// To be appended.
        arguments: String,
    },
    /// Something that this version has no type for.
    Other(Extension),
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model was done.
    End,
    /// `max_tokens` was reached.
    MaxTokens,
    /// One of the stop strings came.
    StopSequence(String),
    /// The model waits for the results of tools.
    ToolCalls,
    /// The app dropped the answer.
    Cancelled,
    /// Something that this version has no name for.
    Other(String),
}

/// Token counts and times of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt: history, messages, template.
    pub prompt_tokens: u32,
    /// How many of them were not computed again.
    pub cached_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Time to the first token.
    pub ttft: Duration,
    /// Time to the last token.
    pub total: Duration,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// Why.
    pub stop: StopReason,
    /// Counts and times.
    pub usage: Usage,
    /// Tools that the model asks for.
    pub tool_calls: Vec<ToolCall>,
    /// The physical model that answered, as `name@digest-prefix`.
    pub model: String,
    /// What this version has no field for.
    pub extensions: Vec<Extension>,
}

/// The JSON Schema of a type, as text.
pub(crate) fn schema_of<T: schemars::JsonSchema>() -> String {
    schemars::schema_for!(T).as_value().to_string()
}
