//! Messages, tools and response formats of chat completions, and what they mean to an engine.

use std::collections::BTreeMap;

use locara_engine::{Constraint, Message, Speaker, Tool, ToolCall, ToolChoice};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::any_object;
use crate::{
    body::{OneOrMany, WordOr},
    fault::Fault,
    wish::check_schema,
};

/// One turn.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub(crate) role: String,
    /// A text, or parts of type `text`.
    #[schema(value_type = Option<Value>)]
    pub(crate) content: Option<OneOrMany<Part>>,
    /// Calls that an assistant turn made.
    pub(crate) tool_calls: Option<Vec<Call>>,
    /// The call that a `tool` turn answers.
    pub(crate) tool_call_id: Option<String>,
}

/// A part of a message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct Part {
    /// `text`, or `refusal` of an assistant.
    pub(crate) r#type: String,
    pub(crate) text: Option<String>,
    pub(crate) refusal: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub(crate) struct Call {
    pub(crate) id: String,
    /// `function`.
    #[serde(default = "function")]
    pub(crate) r#type: String,
    pub(crate) function: CalledFunction,
}

fn function() -> String {
    "function".into()
}

/// What is called.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub(crate) struct CalledFunction {
    pub(crate) name: String,
    /// A JSON object, as text.
    pub(crate) arguments: String,
}

impl From<&ToolCall> for Call {
    fn from(call: &ToolCall) -> Self {
        let function = CalledFunction { name: call.name.clone(), arguments: call.arguments.clone() };
        Self { id: call.id.clone(), r#type: self::function(), function }
    }
}

/// A tool that is offered.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct OfferedTool {
    /// `function`.
    pub(crate) r#type: String,
    pub(crate) function: Option<OfferedFunction>,
}

/// The function behind a tool.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct OfferedFunction {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// JSON Schema of the arguments.
    pub(crate) parameters: Option<Value>,
}

/// `{"type": "function", "function": {"name": …}}`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct NamedChoice {
    pub(crate) function: Option<ChosenFunction>,
}

/// The function that must be called.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct ChosenFunction {
    pub(crate) name: String,
}

/// What the answer must look like.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    pub(crate) r#type: String,
    pub(crate) json_schema: Option<NamedSchema>,
    /// Where some clients put the schema.
    pub(crate) schema: Option<Value>,
}

/// A JSON Schema with a name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct NamedSchema {
    pub(crate) schema: Option<Value>,
}

/// Constraints that OpenAI has no word for; the field of vLLM's clients.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct StructuredOutputs {
    /// A JSON Schema.
    pub(crate) json: Option<Value>,
    /// A regular expression for the whole answer.
    pub(crate) regex: Option<String>,
    /// One of these texts.
    pub(crate) choice: Option<Vec<String>>,
    /// A Lark grammar.
    pub(crate) grammar: Option<String>,
}

/// The turns of a conversation.
pub(crate) fn messages(messages: Vec<ChatMessage>) -> Result<Vec<Message>, Fault> {
    messages.into_iter().enumerate().map(|(at, message)| message.into_turn(&format!("messages[{at}]"))).collect()
}

impl ChatMessage {
    fn into_turn(self, path: &str) -> Result<Message, Fault> {
        let speaker = match self.role.as_str() {
            "system" | "developer" => Speaker::System,
            "user" => Speaker::User,
            "assistant" => Speaker::Assistant,
            "tool" | "function" => Speaker::Tool,
            other => {
                return Err(Fault::field(
                    format!("{path}.role"),
                    format!("{other:?} is none of system, developer, user, assistant, tool"),
                ));
            }
        };
        let tool_calls = self.tool_calls.unwrap_or_default();
        let content = match self.content {
            Some(content) => content_text(content, &format!("{path}.content"))?,
            // Calls stand for themselves; anybody else must say something.
            None if speaker == Speaker::Assistant => String::new(),
            None => return Err(Fault::field(format!("{path}.content"), "missing")),
        };
        let tool_calls = tool_calls
            .into_iter()
            .map(|call| ToolCall { id: call.id, name: call.function.name, arguments: call.function.arguments })
            .collect();
        Ok(Message { speaker, content, tool_calls, tool_call_id: self.tool_call_id })
    }
}

fn content_text(content: OneOrMany<Part>, path: &str) -> Result<String, Fault> {
    let parts = match content {
        OneOrMany::One(text) => return Ok(text),
        OneOrMany::Many(parts) => parts,
    };
    let texts = parts.into_iter().enumerate().map(|(at, part)| {
        let missing = |field: &str| Fault::field(format!("{path}[{at}].{field}"), "missing");
        match part.r#type.as_str() {
            "text" => part.text.ok_or_else(|| missing("text")),
            "refusal" => part.refusal.ok_or_else(|| missing("refusal")),
            other => Err(Fault::not_offered(
                format!("{path}[{at}].type"),
                format!("{other:?} parts are not read by the models here, only \"text\""),
            )),
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// The tools that are offered.
pub(crate) fn tools(tools: Vec<OfferedTool>) -> Result<Vec<Tool>, Fault> {
    tools
        .into_iter()
        .enumerate()
        .map(|(at, tool)| {
            let path = format!("tools[{at}]");
            if tool.r#type != "function" {
                return Err(Fault::not_offered(
                    format!("{path}.type"),
                    format!("{:?} tools run on servers of others; offer \"function\" tools", tool.r#type),
                ));
            }
            let function = tool.function.ok_or_else(|| Fault::field(format!("{path}.function"), "missing"))?;
            let parameters = function.parameters.unwrap_or_else(any_object);
            check_schema(&format!("{path}.function.parameters"), &parameters)?;
            Ok(Tool { name: function.name, description: function.description.unwrap_or_default(), parameters })
        })
        .collect()
}

/// Whether tools may or must be called.
pub(crate) fn tool_choice(choice: Option<WordOr<NamedChoice>>, tools: &[Tool]) -> Result<ToolChoice, Fault> {
    let choice = match choice {
        None => ToolChoice::Auto,
        Some(WordOr::Word(word)) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            other => {
                return Err(Fault::field(
                    "tool_choice",
                    format!("{other:?} is none of auto, none, required, and no object that names a function"),
                ));
            }
        },
        Some(WordOr::Object(NamedChoice { function: Some(function) })) => ToolChoice::Named(function.name),
        Some(WordOr::Object(NamedChoice { function: None })) => {
            return Err(Fault::field("tool_choice.function", "missing"));
        }
    };
    check_choice(&choice, tools, "tool_choice")?;
    Ok(choice)
}

/// A call can only be forced of a tool that is offered.
pub(crate) fn check_choice(choice: &ToolChoice, tools: &[Tool], path: &str) -> Result<(), Fault> {
    match choice {
        ToolChoice::Required if tools.is_empty() => {
            Err(Fault::field(path, "a call is required and no tool is offered"))
        }
        ToolChoice::Named(name) if tools.iter().all(|tool| tool.name != *name) => {
            Err(Fault::field(path, format!("a call of {name:?} is required, and no tool of this name is offered")))
        }
        _ => Ok(()),
    }
}

/// What the answer must look like, from the two fields that say it.
pub(crate) fn constraint(
    format: Option<ResponseFormat>,
    outputs: Option<StructuredOutputs>,
) -> Result<Option<Constraint>, Fault> {
    let mut constraints = Vec::new();
    if let Some(format) = format {
        match format.r#type.as_str() {
            "text" => {}
            "json_object" => constraints.push(match format.schema {
                Some(schema) => json_schema("response_format.schema", schema)?,
                None => Constraint::JsonSchema(any_object()),
            }),
            "json_schema" => {
                let path = "response_format.json_schema.schema";
                let schema = format.json_schema.and_then(|named| named.schema);
                constraints.push(json_schema(path, schema.ok_or_else(|| Fault::field(path, "missing"))?)?);
            }
            other => {
                return Err(Fault::field(
                    "response_format.type",
                    format!("{other:?} is none of text, json_object, json_schema"),
                ));
            }
        }
    }
    if let Some(outputs) = outputs {
        if let Some(schema) = outputs.json {
            constraints.push(json_schema("structured_outputs.json", schema)?);
        }
        if let Some(words) = outputs.choice {
            if words.is_empty() {
                return Err(Fault::field("structured_outputs.choice", "there is nothing to choose from"));
            }
            constraints.push(Constraint::Regex(any_of(&words)));
        }
        constraints.extend(outputs.regex.map(Constraint::Regex));
        constraints.extend(outputs.grammar.map(Constraint::Grammar));
    }
    if constraints.len() > 1 {
        return Err(Fault::field(
            "structured_outputs",
            format!("{} constraints for one answer; keep one of them", constraints.len()),
        ));
    }
    Ok(constraints.pop())
}

pub(crate) fn json_schema(path: &str, schema: Value) -> Result<Constraint, Fault> {
    check_schema(path, &schema)?;
    Ok(Constraint::JsonSchema(schema))
}

/// A regular expression for exactly these texts.
fn any_of(words: &[String]) -> String {
    let escaped: Vec<String> = words
        .iter()
        .map(|word| {
            word.chars().fold(String::new(), |mut escaped, c| {
                if !c.is_alphanumeric() && !c.is_whitespace() && c.is_ascii() {
                    escaped.push('\\');
                }
                escaped.push(c);
                escaped
            })
        })
        .collect();
    format!("({})", escaped.join("|"))
}

/// `logit_bias` as clients send it.
pub(crate) type Biases = BTreeMap<String, f32>;
