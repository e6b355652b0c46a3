//! Requests of Anthropic's clients, and what they mean to an engine.

use locara_engine::{Message, Speaker, Tool, ToolCall, ToolChoice};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    body::OneOrMany,
    fault::Fault,
    openai::message::{check_choice, json_schema},
    wish::{Names, SamplingWish, Thinking, Wish, check_schema},
};

const NAMES: Names = Names {
    prefix: "",
    max_tokens: "max_tokens",
    stop: "stop_sequences",
    messages: "messages",
    repeat_penalty: "repeat_penalty",
    logprobs: "top_logprobs",
};

/// A conversation to be continued. Fields that are not listed are accepted and have no effect.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct MessagesRequest {
    /// A model or a role.
    model: String,
    messages: Vec<Turn>,
    /// Bound of the answer, tokens. What the prompt leaves of the context is a bound too.
    max_tokens: Option<u32>,
    /// A text, or blocks of type `text`.
    #[schema(value_type = Option<Value>)]
    system: Option<OneOrMany<Block>>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    tools: Option<Vec<OfferedTool>>,
    tool_choice: Option<Choice>,
    thinking: Option<ThinkingConfig>,
    output_config: Option<OutputConfig>,
}

/// One turn.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AnthropicTurn)]
struct Turn {
    /// `user`, `assistant` or `system`.
    role: String,
    /// A text, or blocks.
    #[schema(value_type = Value)]
    content: OneOrMany<Block>,
}

/// A block of a turn: `text`, `tool_use`, `tool_result`, `thinking`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = AnthropicBlock)]
struct Block {
    r#type: String,
    text: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Value>,
    tool_use_id: Option<String>,
    #[schema(value_type = Option<Value>)]
    content: Option<OneOrMany<ResultBlock>>,
    is_error: Option<bool>,
}

/// A block in the result of a tool.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = AnthropicResultBlock)]
struct ResultBlock {
    r#type: String,
    text: Option<String>,
}

/// A tool that is offered.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AnthropicOfferedTool)]
struct OfferedTool {
    /// `custom`, or nothing.
    r#type: Option<String>,
    name: String,
    description: Option<String>,
    /// JSON Schema of the input.
    input_schema: Option<Value>,
}

/// Whether tools may or must be called.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AnthropicChoice)]
struct Choice {
    /// `auto`, `any`, `tool` or `none`.
    r#type: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

/// How much the model may reason.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AnthropicThinkingConfig)]
struct ThinkingConfig {
    /// `disabled` is none, `enabled` is up to the budget; anything else leaves it to the model.
    r#type: String,
    /// Tokens before the answer has to begin.
    budget_tokens: Option<u32>,
}

/// What the answer must look like.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AnthropicOutputConfig)]
struct OutputConfig {
    format: Option<OutputFormat>,
}

/// A JSON Schema for the answer.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AnthropicOutputFormat)]
struct OutputFormat {
    /// `json_schema`.
    r#type: String,
    schema: Option<Value>,
}

impl MessagesRequest {
    pub(super) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// What is wanted, and the name of the model.
    pub(super) fn wish(self) -> Result<(String, Wish), Fault> {
        let mut messages = Vec::new();
        if let Some(system) = self.system {
            messages.push(Message::system(system_text(system)?));
        }
        for (at, turn) in self.messages.into_iter().enumerate() {
            turn.push_onto(&mut messages, &format!("messages[{at}]"))?;
        }
        if messages.last().is_some_and(|last| last.speaker == Speaker::Assistant) {
            return Err(Fault::not_offered(
                "messages",
                "the last turn is the assistant's, and an answer that is begun cannot be continued; end with a user turn",
            ));
        }
        let tools = tools(self.tools.unwrap_or_default())?;
        let one_call = self.tool_choice.as_ref().is_some_and(|choice| choice.disable_parallel_tool_use == Some(true));
        let choice = self.tool_choice.map_or(Ok(ToolChoice::Auto), Choice::meaning)?;
        check_choice(&choice, &tools, "tool_choice")?;
        let constraint = match self.output_config.and_then(|config| config.format) {
            None => None,
            Some(format) if format.r#type == "json_schema" => {
                let path = "output_config.format.schema";
                let schema = format.schema.ok_or_else(|| Fault::field(path, "missing"))?;
                Some(json_schema(path, schema)?)
            }
            Some(format) => {
                let problem = format!("{:?} is not json_schema", format.r#type);
                return Err(Fault::field("output_config.format.type", problem));
            }
        };
        let mut wish = Wish {
            max_tokens: self.max_tokens,
            stop: self.stop_sequences.unwrap_or_default(),
            sampling: SamplingWish {
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k,
                ..SamplingWish::default()
            },
            constraint,
            one_call,
            ..Wish::chat(messages, tools, choice)
        };
        wish.think(self.thinking.map_or_else(Thinking::default, |thinking| match thinking.r#type.as_str() {
            "disabled" => Thinking { on: Some(false), ..Thinking::default() },
            "enabled" => Thinking { on: Some(true), tokens: thinking.budget_tokens, ..Thinking::default() },
            _ => Thinking::default(),
        }));
        wish.check(NAMES)?;
        Ok((self.model, wish))
    }
}

fn missing(path: &str, field: &str) -> Fault {
    Fault::field(format!("{path}.{field}"), "missing")
}

fn not_read(path: &str, kind: &str) -> Fault {
    Fault::not_offered(format!("{path}.type"), format!("{kind:?} blocks are not read by the models here, only text"))
}

fn system_text(system: OneOrMany<Block>) -> Result<String, Fault> {
    let blocks = match system {
        OneOrMany::One(text) => return Ok(text),
        OneOrMany::Many(blocks) => blocks,
    };
    let texts = blocks.into_iter().enumerate().map(|(at, block)| {
        let path = format!("system[{at}]");
        if block.r#type == "text" {
            block.text.ok_or_else(|| missing(&path, "text"))
        } else {
            Err(not_read(&path, &block.r#type))
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

impl Turn {
    /// One turn here may be several for an engine: results of tools are turns of their own there.
    fn push_onto(self, messages: &mut Vec<Message>, path: &str) -> Result<(), Fault> {
        let speaker = match self.role.as_str() {
            "user" => Speaker::User,
            "assistant" => Speaker::Assistant,
            "system" => Speaker::System,
            other => {
                let problem = format!("{other:?} is none of user, assistant, system");
                return Err(Fault::field(format!("{path}.role"), problem));
            }
        };
        let blocks = match self.content {
            OneOrMany::One(text) => {
                messages.push(Message::new(speaker, text));
                return Ok(());
            }
            OneOrMany::Many(blocks) => blocks,
        };
        let mut texts = Vec::new();
        let mut tool_calls = Vec::new();
        let mut results = 0;
        for (at, block) in blocks.into_iter().enumerate() {
            let path = format!("{path}.content[{at}]");
            match block.r#type.as_str() {
                "text" => texts.push(block.text.ok_or_else(|| missing(&path, "text"))?),
                // Reasoning of earlier turns is not shown to the model again.
                "thinking" | "redacted_thinking" => {}
                "tool_use" if speaker == Speaker::Assistant => tool_calls.push(ToolCall {
                    id: block.id.ok_or_else(|| missing(&path, "id"))?,
                    name: block.name.ok_or_else(|| missing(&path, "name"))?,
                    arguments: block.input.unwrap_or_else(|| json!({})).to_string(),
                }),
                "tool_result" if speaker == Speaker::User => {
                    results += 1;
                    messages.push(block.into_result(&path)?);
                }
                "tool_use" | "tool_result" => {
                    let problem = format!("{:?} does not belong to a turn of {}", block.r#type, self.role);
                    return Err(Fault::field(format!("{path}.type"), problem));
                }
                other => return Err(not_read(&path, other)),
            }
        }
        if results == 0 || !texts.is_empty() {
            messages.push(Message { tool_calls, ..Message::new(speaker, texts.join("\n")) });
        }
        Ok(())
    }
}

impl Block {
    fn into_result(self, path: &str) -> Result<Message, Fault> {
        let id = self.tool_use_id.ok_or_else(|| missing(path, "tool_use_id"))?;
        let text = match self.content {
            None => String::new(),
            Some(OneOrMany::One(text)) => text,
            Some(OneOrMany::Many(blocks)) => {
                let texts = blocks.into_iter().enumerate().map(|(at, block)| {
                    let path = format!("{path}.content[{at}]");
                    if block.r#type == "text" {
                        block.text.ok_or_else(|| missing(&path, "text"))
                    } else {
                        Err(not_read(&path, &block.r#type))
                    }
                });
                texts.collect::<Result<Vec<_>, _>>()?.join("\n")
            }
        };
        let text = if self.is_error == Some(true) { format!("Error: {text}") } else { text };
        Ok(Message { tool_call_id: Some(id), ..Message::new(Speaker::Tool, text) })
    }
}

fn tools(tools: Vec<OfferedTool>) -> Result<Vec<Tool>, Fault> {
    tools
        .into_iter()
        .enumerate()
        .map(|(at, tool)| {
            if let Some(kind) = tool.r#type.filter(|kind| kind != "custom") {
                return Err(Fault::not_offered(
                    format!("tools[{at}].type"),
                    format!("{kind:?} tools run on servers of others; offer custom tools"),
                ));
            }
            let parameters = tool.input_schema.unwrap_or_else(|| json!({"type": "object"}));
            check_schema(&format!("tools[{at}].input_schema"), &parameters)?;
            Ok(Tool { name: tool.name, description: tool.description.unwrap_or_default(), parameters })
        })
        .collect()
}

impl Choice {
    fn meaning(self) -> Result<ToolChoice, Fault> {
        match self.r#type.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "any" => Ok(ToolChoice::Required),
            "none" => Ok(ToolChoice::None),
            "tool" => self.name.map(ToolChoice::Named).ok_or_else(|| missing("tool_choice", "name")),
            other => Err(Fault::field("tool_choice.type", format!("{other:?} is none of auto, any, tool, none"))),
        }
    }
}
