//! Between the generated types and those of the SDK, field by field.

use std::time::Duration;

use crate::bindings::locara::app::{budget as wit_budget, files as wit_files, http as wit_http, inference, log, types};
use crate::message::{
    Completion, Constraint, Event, Extension, Message, Request, Sampling, Speaker, StopReason, Tool, ToolCall,
    ToolChoice, Usage,
};
use crate::{Budget, Consequence, Error, Pressure, Release, files, http};

/// Bytes from the wall. The cast saturates: what is no number or below zero becomes 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating on purpose")]
pub(super) fn byte_count(bytes: f64) -> u64 {
    bytes as u64
}

/// Bytes to the wall: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no machine holds 2^53 bytes")]
pub(super) fn wit_bytes(bytes: u64) -> f64 {
    bytes as f64
}

/// Milliseconds from the wall; what no duration can hold becomes zero.
pub(super) fn millis(millis: f64) -> Duration {
    Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default()
}

/// Milliseconds to the wall, at most 49 days.
fn wit_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        match error {
            types::Error::Denied(types::Denial { capability, reason, remedy }) => {
                Self::Denied { capability, reason, remedy }
            }
            types::Error::InvalidRequest(reason) => Self::InvalidRequest(reason),
            types::Error::ContextOverflow(types::Overflow { prompt_tokens, max_tokens, context_tokens }) => {
                Self::ContextOverflow { prompt_tokens, max_tokens, context_tokens }
            }
            types::Error::Busy(types::Busy { retry_after_ms, waiting }) => {
                Self::Busy { retry_after: Duration::from_millis(retry_after_ms.into()), waiting }
            }
            types::Error::OverBudget(types::OverBudget { needed, available, reason }) => {
                Self::OverBudget { needed: byte_count(needed), available: byte_count(available), reason }
            }
            types::Error::ModelUnavailable(reason) => Self::ModelUnavailable(reason),
            types::Error::Interrupted(reason) => Self::Interrupted(reason),
            types::Error::QuotaExceeded(reason) => Self::QuotaExceeded(reason),
            types::Error::NotFound(what) => Self::NotFound(what),
            types::Error::Internal(reason) => Self::Internal(reason),
            types::Error::Other(types::Extension { name, json }) => Self::Other { name, json },
        }
    }
}

impl From<types::Extension> for Extension {
    fn from(types::Extension { name, json }: types::Extension) -> Self {
        Self { name, json }
    }
}

impl From<&Speaker> for inference::Speaker {
    fn from(speaker: &Speaker) -> Self {
        match speaker {
            Speaker::System => Self::System,
            Speaker::User => Self::User,
            Speaker::Assistant => Self::Assistant,
            Speaker::Tool => Self::Tool,
            Speaker::Other(name) => Self::Other(name.clone()),
        }
    }
}

impl From<&Message> for inference::Message {
    fn from(message: &Message) -> Self {
        Self {
            speaker: (&message.speaker).into(),
            content: message.content.clone(),
            tool_calls: message.tool_calls.iter().map(Into::into).collect(),
            tool_call_id: message.tool_call_id.clone(),
        }
    }
}

impl From<&ToolCall> for inference::ToolCall {
    fn from(call: &ToolCall) -> Self {
        Self { id: call.id.clone(), name: call.name.clone(), arguments: call.arguments.clone() }
    }
}

impl From<inference::ToolCall> for ToolCall {
    fn from(inference::ToolCall { id, name, arguments }: inference::ToolCall) -> Self {
        Self { id, name, arguments }
    }
}

impl From<&Tool> for inference::Tool {
    fn from(tool: &Tool) -> Self {
        Self { name: tool.name.clone(), description: tool.description.clone(), parameters: tool.parameters.clone() }
    }
}

impl From<&ToolChoice> for inference::ToolChoice {
    fn from(choice: &ToolChoice) -> Self {
        match choice {
            ToolChoice::Auto => Self::Auto,
            ToolChoice::None => Self::None,
            ToolChoice::Required => Self::Required,
            ToolChoice::Named(name) => Self::Named(name.clone()),
        }
    }
}

impl From<&Constraint> for inference::Constraint {
    fn from(constraint: &Constraint) -> Self {
        match constraint {
            Constraint::JsonSchema(schema) => Self::JsonSchema(schema.clone()),
            Constraint::Regex(pattern) => Self::Regex(pattern.clone()),
            Constraint::Grammar(grammar) => Self::Grammar(grammar.clone()),
        }
    }
}

impl From<&Sampling> for inference::Sampling {
    fn from(sampling: &Sampling) -> Self {
        Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repeat_penalty: sampling.repeat_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            seed: sampling.seed,
            logit_bias: sampling.logit_bias.clone(),
        }
    }
}

impl From<&Request> for inference::Request {
    fn from(request: &Request) -> Self {
        Self {
            messages: request.messages.iter().map(Into::into).collect(),
            max_tokens: request.max_tokens,
            stop: request.stop.clone(),
            sampling: (&request.sampling).into(),
            constraint: request.constraint.as_ref().map(Into::into),
            tools: request.tools.iter().map(Into::into).collect(),
            tool_choice: (&request.tool_choice).into(),
            extensions: Vec::new(),
        }
    }
}

impl From<inference::Event> for Event {
    fn from(event: inference::Event) -> Self {
        match event {
            inference::Event::Text(text) => Self::Text(text),
            inference::Event::Thinking(text) => Self::Thinking(text),
            inference::Event::ToolCall(inference::ToolCallDelta { index, id, name, arguments }) => {
                Self::ToolCall { index, id, name, arguments }
            }
            inference::Event::Other(extension) => Self::Other(extension.into()),
        }
    }
}

impl From<inference::StopReason> for StopReason {
    fn from(reason: inference::StopReason) -> Self {
        match reason {
            inference::StopReason::End => Self::End,
            inference::StopReason::MaxTokens => Self::MaxTokens,
            inference::StopReason::StopSequence(text) => Self::StopSequence(text),
            inference::StopReason::ToolCalls => Self::ToolCalls,
            inference::StopReason::Cancelled => Self::Cancelled,
            inference::StopReason::Other(name) => Self::Other(name),
        }
    }
}

impl From<inference::Completion> for Completion {
    fn from(completion: inference::Completion) -> Self {
        let usage = completion.usage;
        Self {
            stop: completion.stop.into(),
            usage: Usage {
                prompt_tokens: usage.prompt_tokens,
                cached_tokens: usage.cached_tokens,
                output_tokens: usage.output_tokens,
                ttft: millis(usage.ttft_ms),
                total: millis(usage.total_ms),
            },
            tool_calls: completion.tool_calls.into_iter().map(Into::into).collect(),
            model: completion.model,
            extensions: completion.extensions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<wit_budget::State> for Budget {
    fn from(state: wit_budget::State) -> Self {
        Self {
            epoch: state.epoch,
            since: millis(state.origin_ms),
            pressure: match state.level {
                wit_budget::Pressure::Normal => Pressure::Normal,
                wit_budget::Pressure::Elevated => Pressure::Elevated,
                wit_budget::Pressure::Tight => Pressure::Tight,
                wit_budget::Pressure::Critical => Pressure::Critical,
                wit_budget::Pressure::Other(name) => Pressure::Other(name),
            },
            cause: state.cause,
            limit: byte_count(state.limit),
            usage: byte_count(state.usage),
            release: byte_count(state.release),
            deadline: Duration::from_millis(state.deadline_ms.into()),
            visible: state.visible,
            on_deadline: match state.on_deadline {
                wit_budget::Consequence::Nothing => Consequence::Nothing,
                wit_budget::Consequence::DropCaches => Consequence::DropCaches,
                wit_budget::Consequence::Suspend => Consequence::Suspend,
                wit_budget::Consequence::Stop => Consequence::Stop,
                wit_budget::Consequence::Other(extension) => Consequence::Other(extension.name),
            },
        }
    }
}

/// What `on-budget` returns when the app answers in another way: an extension that no host knows, which says nothing.
pub(super) fn no_answer() -> wit_budget::Answer {
    wit_budget::Answer::Other(types::Extension { name: "elsewhere".to_owned(), json: "null".to_owned() })
}

/// The answer to a budget event.
pub(super) fn answer(release: Release) -> wit_budget::Answer {
    match release {
        Release::Done(bytes) => wit_budget::Answer::Done(wit_bytes(bytes)),
        Release::Pledge(bytes, eta) => {
            wit_budget::Answer::Pledge(wit_budget::Pledge { release: wit_bytes(bytes), eta_ms: wit_millis(eta) })
        }
        Release::Defer(more) => wit_budget::Answer::Defer(wit_millis(more)),
    }
}

impl From<wit_files::Entry> for files::Entry {
    fn from(entry: wit_files::Entry) -> Self {
        let kind = match entry.kind {
            wit_files::Kind::File => files::Kind::File,
            wit_files::Kind::Folder => files::Kind::Folder,
            wit_files::Kind::Other(name) => files::Kind::Other(name),
        };
        Self { name: entry.name, kind, size: byte_count(entry.size) }
    }
}

impl From<&http::Request> for wit_http::Request {
    fn from(request: &http::Request) -> Self {
        Self {
            method: request.method.clone(),
            url: request.url.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
            timeout_ms: request.timeout.map(wit_millis),
        }
    }
}

impl From<crate::log::Level> for log::Level {
    fn from(level: crate::log::Level) -> Self {
        match level {
            crate::log::Level::Error => Self::Error,
            crate::log::Level::Warn => Self::Warn,
            crate::log::Level::Info => Self::Info,
            crate::log::Level::Debug => Self::Debug,
        }
    }
}
