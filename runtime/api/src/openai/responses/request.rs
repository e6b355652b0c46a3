//! Requests for responses, and what they mean to an engine.

use std::sync::Arc;

use locara_engine::{Message, Speaker, Tool, ToolCall, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::super::{
    any_object,
    message::{check_choice, json_schema},
};
use crate::{
    Api,
    access::Caller,
    body::{OneOrMany, WordOr},
    fault::{Fault, Kind},
    wish::{Names, SamplingWish, Thinking, Wish, check_schema},
};

const NAMES: Names = Names { max_tokens: "max_output_tokens", messages: "input", ..super::super::NAMES };

/// Items to be answered. Fields that are not listed are accepted and have no effect.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ResponsesRequest {
    /// A model or a role.
    model: String,
    /// A text, or items of type `message`, `function_call`, `function_call_output` and `reasoning`.
    #[schema(value_type = Option<Value>)]
    input: Option<OneOrMany<Value>>,
    /// A system turn for this response alone.
    instructions: Option<String>,
    /// The response that this one continues.
    previous_response_id: Option<String>,
    /// Keep it, so that it can be continued; the default.
    store: Option<bool>,
    stream: Option<bool>,
    background: Option<bool>,
    /// Bound of the answer, tokens. What the prompt leaves of the context is a bound too.
    max_output_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_logprobs: Option<u32>,
    tools: Option<Vec<OfferedTool>>,
    /// `auto`, `none`, `required`, or an object that names a function.
    #[schema(value_type = Option<Value>)]
    tool_choice: Option<WordOr<NamedTool>>,
    /// False ends the answer after its first call.
    parallel_tool_calls: Option<bool>,
    text: Option<TextConfig>,
    reasoning: Option<Reasoning>,
    /// Given back as it is.
    #[schema(value_type = Option<Value>)]
    metadata: Option<Map<String, Value>>,
}

/// A tool that is offered.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseTool)]
struct OfferedTool {
    /// `function`.
    r#type: String,
    name: Option<String>,
    description: Option<String>,
    /// JSON Schema of the arguments.
    parameters: Option<Value>,
}

/// The function that must be called.
#[derive(Debug, Deserialize, ToSchema)]
struct NamedTool {
    name: Option<String>,
}

/// What the text must look like.
#[derive(Debug, Deserialize, ToSchema)]
struct TextConfig {
    format: Option<TextFormat>,
}

/// Its format.
#[derive(Debug, Deserialize, ToSchema)]
struct TextFormat {
    /// `text`, `json_object` or `json_schema`.
    r#type: String,
    schema: Option<Value>,
}

/// How much the model may reason.
#[derive(Debug, Deserialize, ToSchema)]
struct Reasoning {
    /// `none` is no reasoning; other words are passed to templates that know them.
    effort: Option<String>,
}

/// An item of the input. Each kind has its own of these fields.
#[derive(Debug, Deserialize)]
struct Item {
    r#type: Option<String>,
    role: Option<String>,
    content: Option<OneOrMany<ItemPart>>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    output: Option<OneOrMany<ItemPart>>,
}

/// A part of an item.
#[derive(Debug, Deserialize)]
struct ItemPart {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
}

/// What is to be done for a request.
pub(crate) struct Plan {
    pub(crate) model: String,
    pub(crate) wish: Wish,
    pub(crate) streams: bool,
    pub(crate) stores: bool,
    /// The turns that a response which continues this one begins with, but for the answer.
    pub(super) turns: Vec<Arc<Message>>,
    /// The items of the input.
    pub(super) input: Vec<Value>,
    /// The fields of the response that only repeat the request.
    pub(super) echo: Map<String, Value>,
}

impl ResponsesRequest {
    /// What is wanted; finds the response that is continued.
    pub(crate) fn plan(self, api: &Api, caller: &Caller) -> Result<Plan, Fault> {
        if self.background == Some(true) {
            return Err(Fault::not_offered("background", "answers are not made in the background; stream them"));
        }
        if self.top_logprobs.is_some_and(|n| n > 0) {
            return Err(Fault::not_offered("top_logprobs", "told by /v1/chat/completions, not here"));
        }
        let tools = tools(self.tools.as_deref().unwrap_or_default())?;
        let choice = match &self.tool_choice {
            None => ToolChoice::Auto,
            Some(WordOr::Object(tool)) => {
                ToolChoice::Named(tool.name.clone().ok_or_else(|| Fault::field("tool_choice.name", "missing"))?)
            }
            Some(WordOr::Word(word)) => match word.as_str() {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                "required" => ToolChoice::Required,
                other => {
                    let problem =
                        format!("{other:?} is none of auto, none, required, and no object that names a function");
                    return Err(Fault::field("tool_choice", problem));
                }
            },
        };
        check_choice(&choice, &tools, "tool_choice")?;
        let constraint = match self.text.and_then(|text| text.format) {
            None => None,
            Some(format) => match format.r#type.as_str() {
                "text" => None,
                "json_object" => Some(json_schema("text.format.schema", format.schema.unwrap_or_else(any_object))?),
                "json_schema" => {
                    let path = "text.format.schema";
                    Some(json_schema(path, format.schema.ok_or_else(|| Fault::field(path, "missing"))?)?)
                }
                other => {
                    let problem = format!("{other:?} is none of text, json_object, json_schema");
                    return Err(Fault::field("text.format.type", problem));
                }
            },
        };
        let mut turns = match &self.previous_response_id {
            None => Vec::new(),
            Some(id) => match api.responses().get(id, &caller.client) {
                Some(previous) => previous.turns.clone(),
                None => {
                    let problem =
                        format!("the response {id:?} is not kept here (any more); send the whole conversation");
                    let fault = Fault::field("previous_response_id", problem);
                    return Err(Fault { kind: Kind::NotFound, ..fault });
                }
            },
        };
        let input = match self.input {
            None => Vec::new(),
            Some(OneOrMany::One(text)) => vec![json!({"type": "message", "role": "user", "content": text})],
            Some(OneOrMany::Many(items)) => items,
        };
        turns.extend(items(&input)?.into_iter().map(Arc::new));
        let instructions = self.instructions.as_deref().filter(|text| !text.is_empty()).map(Message::system);
        let messages = instructions.into_iter().chain(turns.iter().map(|turn| (**turn).clone())).collect();
        let mut wish = Wish {
            max_tokens: self.max_output_tokens,
            sampling: SamplingWish { temperature: self.temperature, top_p: self.top_p, ..SamplingWish::default() },
            constraint,
            one_call: self.parallel_tool_calls == Some(false),
            ..Wish::chat(messages, tools, choice)
        };
        wish.think(Thinking::with_effort(self.reasoning.and_then(|reasoning| reasoning.effort)));
        wish.check(NAMES)?;
        let stores = self.store != Some(false);
        let echo = json!({
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata.unwrap_or_default(),
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": self.previous_response_id,
            "store": stores,
            "temperature": self.temperature,
            "tool_choice": self.tool_choice.map_or_else(|| json!("auto"), |choice| match choice {
                WordOr::Word(word) => json!(word),
                WordOr::Object(tool) => json!({"type": "function", "name": tool.name}),
            }),
            "tools": self.tools.unwrap_or_default().into_iter().map(|tool| json!({"type": tool.r#type, "name": tool.name,
                "description": tool.description, "parameters": tool.parameters})).collect::<Vec<_>>(),
            "top_p": self.top_p,
            "truncation": "disabled",
        });
        let Value::Object(echo) = echo else { return Err(Fault::internal("the response is no object")) };
        Ok(Plan { model: self.model, wish, streams: self.stream == Some(true), stores, turns, input, echo })
    }
}

fn tools(tools: &[OfferedTool]) -> Result<Vec<Tool>, Fault> {
    tools
        .iter()
        .enumerate()
        .map(|(at, tool)| {
            let path = format!("tools[{at}]");
            if tool.r#type != "function" {
                return Err(Fault::not_offered(
                    format!("{path}.type"),
                    format!("{:?} tools run on servers of others; offer \"function\" tools", tool.r#type),
                ));
            }
            let name = tool.name.clone().ok_or_else(|| Fault::field(format!("{path}.name"), "missing"))?;
            let parameters = tool.parameters.clone().unwrap_or_else(any_object);
            check_schema(&format!("{path}.parameters"), &parameters)?;
            Ok(Tool { name, description: tool.description.clone().unwrap_or_default(), parameters })
        })
        .collect()
}

/// The turns that items stand for. Calls that follow each other belong to one turn.
fn items(items: &[Value]) -> Result<Vec<Message>, Fault> {
    let mut turns: Vec<Message> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let path = format!("input[{at}]");
        let item: Item = serde_path_to_error::deserialize(item).map_err(|error| {
            let inner = error.path().to_string();
            let path = if inner == "." { path.clone() } else { format!("{path}.{inner}") };
            Fault::field(path, error.into_inner())
        })?;
        let missing = |field: &str| Fault::field(format!("{path}.{field}"), "missing");
        match item.r#type.as_deref().unwrap_or("message") {
            "message" => {
                let role = item.role.ok_or_else(|| missing("role"))?;
                let speaker = match role.as_str() {
                    "system" | "developer" => Speaker::System,
                    "user" => Speaker::User,
                    "assistant" => Speaker::Assistant,
                    other => {
                        let problem = format!("{other:?} is none of system, developer, user, assistant");
                        return Err(Fault::field(format!("{path}.role"), problem));
                    }
                };
                let content = item.content.ok_or_else(|| missing("content"))?;
                turns.push(Message::new(speaker, text(content, &format!("{path}.content"))?));
            }
            "function_call" => {
                let call = ToolCall {
                    id: item.call_id.ok_or_else(|| missing("call_id"))?,
                    name: item.name.ok_or_else(|| missing("name"))?,
                    arguments: item.arguments.ok_or_else(|| missing("arguments"))?,
                };
                match turns.last_mut() {
                    Some(last) if last.speaker == Speaker::Assistant => last.tool_calls.push(call),
                    _ => turns.push(Message { tool_calls: vec![call], ..Message::assistant("") }),
                }
            }
            "function_call_output" => {
                let output = item.output.ok_or_else(|| missing("output"))?;
                let id = item.call_id.ok_or_else(|| missing("call_id"))?;
                let text = text(output, &format!("{path}.output"))?;
                turns.push(Message { tool_call_id: Some(id), ..Message::new(Speaker::Tool, text) });
            }
            // Reasoning of earlier turns is not shown to the model again.
            "reasoning" => {}
            other => {
                let problem = format!("{other:?} items are not read here");
                return Err(Fault::not_offered(format!("{path}.type"), problem));
            }
        }
    }
    Ok(turns)
}

fn text(content: OneOrMany<ItemPart>, path: &str) -> Result<String, Fault> {
    let parts = match content {
        OneOrMany::One(text) => return Ok(text),
        OneOrMany::Many(parts) => parts,
    };
    let texts = parts.into_iter().enumerate().map(|(at, part)| {
        let missing = |field: &str| Fault::field(format!("{path}[{at}].{field}"), "missing");
        match part.r#type.as_str() {
            "input_text" | "output_text" | "text" => part.text.ok_or_else(|| missing("text")),
            "refusal" => part.refusal.ok_or_else(|| missing("refusal")),
            other => Err(Fault::not_offered(
                format!("{path}[{at}].type"),
                format!("{other:?} parts are not read by the models here, only text"),
            )),
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}
