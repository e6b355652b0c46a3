//! OpenAI's dialect: `/v1/…`.

mod chat;
mod completions;
mod embeddings;
mod encode;
pub(crate) mod message;
mod models;
mod responses;
mod tokens;

pub(crate) use responses::Store;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Api,
    answering::{Answer, Ending, Reason},
    wish::Names,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(chat::chat_completions))
        .routes(routes!(tokens::chat_input_tokens))
        .routes(routes!(completions::completions))
        .routes(routes!(embeddings::embeddings))
        .routes(routes!(embeddings::rerank))
        .routes(routes!(tokens::tokenize))
        .routes(routes!(tokens::detokenize))
        .merge(responses::routes())
        .routes(routes!(tokens::response_input_tokens))
        .routes(routes!(models::list))
        .routes(routes!(models::retrieve, models::delete))
}

/// What the fields are called here.
const NAMES: Names = Names {
    prefix: "",
    max_tokens: "max_tokens",
    stop: "stop",
    messages: "messages",
    repeat_penalty: "repetition_penalty",
    logprobs: "top_logprobs",
};

/// Counts of a request.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
struct Usage {
    /// Tokens of the prompts.
    prompt_tokens: u32,
    /// Tokens made, of all answers.
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

/// More about the prompt.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
struct PromptDetails {
    /// Tokens that were not computed again.
    cached_tokens: u32,
}

/// More about the answers.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
struct CompletionDetails {
    /// Tokens that were reasoning.
    reasoning_tokens: u32,
}

impl Usage {
    /// `n` answers share a prompt, which counts once.
    fn of<'a>(endings: impl IntoIterator<Item = &'a Ending>, n: usize) -> Self {
        let mut usage = Self::default();
        for (at, ending) in endings.into_iter().enumerate() {
            if at % n.max(1) == 0 {
                usage.prompt_tokens += ending.usage.prompt_tokens;
                usage.prompt_tokens_details.cached_tokens += ending.usage.cached_tokens;
            }
            usage.completion_tokens += ending.usage.output_tokens;
            usage.completion_tokens_details.reasoning_tokens += ending.usage.thinking_tokens;
        }
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
        usage
    }

    fn of_answers(answers: &[Answer], n: usize) -> Self {
        Self::of(answers.iter().filter_map(|answer| answer.ending.as_ref()), n)
    }
}

/// `finish_reason`. A loop that was stopped is an answer that was cut off.
const fn finish_reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::End | Reason::StopSequence(_) => "stop",
        Reason::MaxTokens | Reason::Repetition => "length",
        Reason::ToolCalls => "tool_calls",
    }
}

/// What OpenAI has no word for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct Note {
    /// `repetition`: the answer ran into a loop and was stopped. `thinking_exhausted`: the whole length went into reasoning.
    ended_by: &'static str,
}

fn note(ending: &Ending) -> Option<Note> {
    match ending.reason {
        Reason::Repetition => Some(Note { ended_by: "repetition" }),
        _ if ending.thinking_exhausted => Some(Note { ended_by: "thinking_exhausted" }),
        _ => None,
    }
}

/// A token id in a key of `logit_bias`, with its bias.
fn logit_bias(
    map: &std::collections::BTreeMap<String, f32>,
) -> Result<Vec<(locara_engine::Token, f32)>, crate::fault::Fault> {
    map.iter()
        .map(|(token, bias)| {
            let path = || format!("logit_bias.{token}");
            let id = token.parse().map_err(|_| crate::fault::Fault::field(path(), "the key is no token id"))?;
            if (-100.0..=100.0).contains(bias) {
                Ok((id, *bias))
            } else {
                Err(crate::fault::Fault::field(path(), format!("{bias} is not between -100 and 100")))
            }
        })
        .collect()
}

/// The schema that an empty JSON object in its place means: anything.
fn any_object() -> Value {
    serde_json::json!({"type": "object"})
}
