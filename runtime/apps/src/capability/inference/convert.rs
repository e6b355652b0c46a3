//! Messages of the WIT ↔ messages of the engine. Pure; what a guest sends is checked here, nothing is trusted.

use locara_engine::{Class, api};

use crate::bindings::inference as wit;
use crate::bindings::types::{Busy, Error, Extension, Overflow};
use crate::capability::to_wit_bytes;
use crate::models::ModelError;

/// Strings at which an answer may end.
const MAX_STOPS: usize = 16;
/// Tools that are offered to a model at once.
const MAX_TOOLS: usize = 64;
/// Pairs of token and bias.
const MAX_BIASES: usize = 1024;

fn invalid(reason: impl Into<String>) -> Error {
    Error::InvalidRequest(reason.into())
}

/// An answer's length when neither the request nor the manifest says one, tokens.
pub(super) const DEFAULT_MAX_TOKENS: u32 = 512;

/// Everything of a request but its messages.
pub(super) struct Ask {
    pub(super) tools: Vec<api::Tool>,
    pub(super) tool_choice: api::ToolChoice,
    pub(super) stop: Vec<String>,
    pub(super) sampling: api::Sampling,
    pub(super) constraint: Option<api::Constraint>,
    pub(super) max_tokens: Option<u32>,
}

/// Splits a request into its messages and the rest.
pub(super) fn request(request: wit::Request) -> Result<(Vec<api::Message>, Ask), Error> {
    if request.stop.len() > MAX_STOPS {
        return Err(invalid(format!("{} stop strings; at most {MAX_STOPS} are allowed", request.stop.len())));
    }
    if request.stop.iter().any(String::is_empty) {
        return Err(invalid("an empty stop string would end every answer at once"));
    }
    if request.tools.len() > MAX_TOOLS {
        return Err(invalid(format!("{} tools; at most {MAX_TOOLS} are allowed", request.tools.len())));
    }
    let messages = messages(request.messages)?;
    let tools = request.tools.into_iter().map(tool).collect::<Result<Vec<_>, _>>()?;
    let tool_choice = tool_choice(request.tool_choice, &tools)?;
    let ask = Ask {
        tools,
        tool_choice,
        stop: request.stop,
        sampling: sampling(request.sampling)?,
        constraint: request.constraint.map(constraint).transpose()?,
        max_tokens: request.max_tokens,
    };
    Ok((messages, ask))
}

/// Turns of a conversation.
pub(super) fn messages(messages: Vec<wit::Message>) -> Result<Vec<api::Message>, Error> {
    messages.into_iter().map(message).collect()
}

fn message(message: wit::Message) -> Result<api::Message, Error> {
    let speaker = match message.speaker {
        wit::Speaker::System => api::Speaker::System,
        wit::Speaker::User => api::Speaker::User,
        wit::Speaker::Assistant => api::Speaker::Assistant,
        wit::Speaker::Tool => api::Speaker::Tool,
        wit::Speaker::Other(name) => return Err(invalid(format!("this host knows no speaker {name:?}"))),
    };
    Ok(api::Message {
        speaker,
        content: message.content,
        tool_calls: message
            .tool_calls
            .into_iter()
            .map(|call| api::ToolCall { id: call.id, name: call.name, arguments: call.arguments })
            .collect(),
        tool_call_id: message.tool_call_id,
    })
}

fn tool(tool: wit::Tool) -> Result<api::Tool, Error> {
    let parameters = serde_json::from_str(&tool.parameters)
        .map_err(|error| invalid(format!("the parameters of tool {:?} are no JSON Schema: {error}", tool.name)))?;
    Ok(api::Tool { name: tool.name, description: tool.description, parameters })
}

fn tool_choice(choice: wit::ToolChoice, tools: &[api::Tool]) -> Result<api::ToolChoice, Error> {
    match choice {
        wit::ToolChoice::Auto => Ok(api::ToolChoice::Auto),
        wit::ToolChoice::None => Ok(api::ToolChoice::None),
        wit::ToolChoice::Required if tools.is_empty() => Err(invalid("a tool call is required but no tool is offered")),
        wit::ToolChoice::Required => Ok(api::ToolChoice::Required),
        wit::ToolChoice::Named(name) if tools.iter().any(|tool| tool.name == name) => Ok(api::ToolChoice::Named(name)),
        wit::ToolChoice::Named(name) => Err(invalid(format!("tool {name:?} is required but not offered"))),
        wit::ToolChoice::Other(other) => Err(invalid(format!("this host knows no tool choice {:?}", other.name))),
    }
}

fn constraint(constraint: wit::Constraint) -> Result<api::Constraint, Error> {
    match constraint {
        wit::Constraint::JsonSchema(text) => serde_json::from_str(&text)
            .map(api::Constraint::JsonSchema)
            .map_err(|error| invalid(format!("the constraint is no JSON: {error}"))),
        wit::Constraint::Regex(regex) => Ok(api::Constraint::Regex(regex)),
        wit::Constraint::Grammar(grammar) => Ok(api::Constraint::Grammar(grammar)),
        wit::Constraint::Other(other) => Err(invalid(format!("this host knows no constraint {:?}", other.name))),
    }
}

fn sampling(sampling: wit::Sampling) -> Result<api::Sampling, Error> {
    let defaults = api::Sampling::default();
    if sampling.logit_bias.len() > MAX_BIASES {
        return Err(invalid(format!("{} logit biases; at most {MAX_BIASES} are allowed", sampling.logit_bias.len())));
    }
    let within = |name: &str, value: Option<f32>, default: f32, range: std::ops::RangeInclusive<f32>| match value {
        None => Ok(default),
        Some(value) if range.contains(&value) => Ok(value),
        Some(value) => {
            Err(invalid(format!("{name} is {value}, it must be between {} and {}", range.start(), range.end())))
        }
    };
    let logit_bias = sampling
        .logit_bias
        .into_iter()
        .map(|(token, bias)| match api::Token::try_from(token) {
            Ok(token) if !bias.is_nan() => Ok((token, bias)),
            _ => Err(invalid(format!("the logit bias {bias} of token {token} is not possible"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(api::Sampling {
        temperature: within("temperature", sampling.temperature, defaults.temperature, 0.0..=5.0)?,
        top_k: sampling.top_k.unwrap_or(defaults.top_k),
        top_p: within("top-p", sampling.top_p, defaults.top_p, 0.0..=1.0)?,
        min_p: within("min-p", sampling.min_p, defaults.min_p, 0.0..=1.0)?,
        repeat_penalty: within("repeat-penalty", sampling.repeat_penalty, defaults.repeat_penalty, 0.1..=10.0)?,
        frequency_penalty: within(
            "frequency-penalty",
            sampling.frequency_penalty,
            defaults.frequency_penalty,
            -2.0..=2.0,
        )?,
        presence_penalty: within("presence-penalty", sampling.presence_penalty, defaults.presence_penalty, -2.0..=2.0)?,
        seed: sampling.seed,
        logit_bias,
    })
}

/// A complete tool call of the engine is one delta.
pub(super) fn tool_call_event(index: u32, call: api::ToolCall) -> wit::Event {
    wit::Event::ToolCall(wit::ToolCallDelta {
        index,
        id: Some(call.id),
        name: Some(call.name),
        arguments: call.arguments,
    })
}

/// How far the prompt has come, for apps that show it.
pub(super) fn prefill_event(done: u32, total: u32) -> wit::Event {
    wit::Event::Other(Extension { name: "prefill".to_owned(), json: format!(r#"{{"done":{done},"total":{total}}}"#) })
}

/// The end of an answer. `model` is the label of the physical model.
pub(super) fn completion(completion: &api::Completion, model: String) -> wit::Completion {
    let stop = match &completion.stop {
        api::StopReason::End => wit::StopReason::End,
        // Cut off either way; the interface is frozen.
        api::StopReason::MaxTokens | api::StopReason::Repetition { .. } => wit::StopReason::MaxTokens,
        api::StopReason::StopSequence(text) => wit::StopReason::StopSequence(text.clone()),
        api::StopReason::ToolCalls => wit::StopReason::ToolCalls,
        api::StopReason::Cancelled => wit::StopReason::Cancelled,
    };
    let usage = completion.usage;
    wit::Completion {
        stop,
        usage: wit::Usage {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            output_tokens: usage.output_tokens,
            ttft_ms: usage.ttft_ms,
            total_ms: usage.total_ms,
        },
        tool_calls: completion
            .message
            .tool_calls
            .iter()
            .map(|call| wit::ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            })
            .collect(),
        model,
        extensions: Vec::new(),
    }
}

/// What a guest hears of an engine's refusal.
pub(super) fn engine_error(error: api::EngineError) -> Error {
    match error {
        api::EngineError::InvalidRequest(reason) | api::EngineError::Unsupported(reason) => {
            Error::InvalidRequest(reason)
        }
        api::EngineError::ContextOverflow { prompt_tokens, max_tokens, n_ctx } => {
            Error::ContextOverflow(Overflow { prompt_tokens, max_tokens, context_tokens: n_ctx })
        }
        api::EngineError::Busy { waiting, retry_after_ms, .. } => Error::Busy(Busy { retry_after_ms, waiting }),
        api::EngineError::Throttled { retry_after_ms } => Error::Busy(Busy { retry_after_ms, waiting: 0 }),
        api::EngineError::SessionBusy(_) => super::session_busy(),
        api::EngineError::Stopped => Error::Interrupted("the model was stopped".to_owned()),
        error @ (api::EngineError::UnknownSession(_) | api::EngineError::Failed(_)) => {
            Error::Internal(error.to_string())
        }
    }
}

/// What a guest hears when a role has no engine.
pub(super) fn model_error(error: ModelError) -> Error {
    match error {
        ModelError::Unavailable(reason) => Error::ModelUnavailable(reason),
        ModelError::OverBudget { needed, available, reason } => Error::OverBudget(crate::bindings::types::OverBudget {
            needed: to_wit_bytes(needed),
            available: to_wit_bytes(available),
            reason,
        }),
        ModelError::Busy { retry_after_ms, waiting } => Error::Busy(Busy { retry_after_ms, waiting }),
    }
}

/// How urgent the requests of an app are.
pub(super) fn class(class: locara_manifest::Class) -> Class {
    match class {
        locara_manifest::Class::Interactive => Class::Interactive,
        locara_manifest::Class::Batch => Class::Background,
    }
}
