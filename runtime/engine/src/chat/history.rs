//! The turns of a conversation as a template wants them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    adapt,
    dialect::{Calls, Dialect},
};
use crate::{
    api::{Message, Speaker, Tool},
    output::{CallFormat, Ids},
};

/// The tools as templates expect them.
pub(super) fn tools_json(tools: &[Tool]) -> Value {
    tools
        .iter()
        .map(|tool| {
            json!({"type": "function", "function": {
                "name": tool.name, "description": tool.description, "parameters": tool.parameters}})
        })
        .collect()
}

/// The messages as a template of this dialect shows them. `format` is how the model writes calls.
pub(super) fn messages_json(messages: &[Message], tools: &[Tool], dialect: Dialect, format: &CallFormat) -> Vec<Value> {
    let mut messages = messages.to_vec();
    if !tools.is_empty() && !dialect.tools {
        adapt::describe_tools(&mut messages, tools, format);
    }
    if !dialect.system {
        adapt::join_system_with_user(&mut messages);
    }
    if dialect.calls.is_some_and(|calls| !calls.beside_text) {
        messages = adapt::calls_apart(messages);
    }
    if dialect.calls.is_some_and(|calls| !calls.several) {
        messages = adapt::one_call_a_turn(messages);
    }
    if dialect.calls.is_none() && !dialect.tools {
        adapt::join_results(&mut messages);
    }
    let mut made = Made::new(format.ids);
    let shown = messages.into_iter().map(|message| match dialect.calls {
        Some(calls) => as_json(&message, calls, &mut made),
        None => adapt::without_calls(message, dialect.tools, format, &mut made),
    });
    shown.collect()
}

/// Calls that the history has shown so far.
pub(super) struct Made {
    ids: Ids,
    /// From the id that a call has to the one that is shown, and its name.
    known: HashMap<String, (String, String)>,
    count: usize,
}

impl Made {
    pub(super) fn new(ids: Ids) -> Self {
        Self { ids, known: HashMap::new(), count: 0 }
    }

    pub(super) fn add(&mut self, id: &str, name: &str) -> String {
        let shown = match self.ids {
            Ids::Free => id.to_owned(),
            Ids::Nine => nine(id),
            Ids::Counted => format!("functions.{name}:{}", self.count),
        };
        self.count += 1;
        self.known.insert(id.to_owned(), (shown.clone(), name.to_owned()));
        shown
    }
}

/// A turn as templates expect it.
pub(super) fn as_json(message: &Message, calls: Calls, made: &mut Made) -> Value {
    let role = match message.speaker {
        Speaker::System => "system",
        Speaker::User => "user",
        Speaker::Assistant => "assistant",
        Speaker::Tool => "tool",
    };
    let mut value = json!({"role": role, "content": message.content});
    if !message.tool_calls.is_empty() {
        if calls.null_content && message.content.is_empty() {
            value["content"] = Value::Null;
        }
        value["tool_calls"] = message
            .tool_calls
            .iter()
            .map(|call| {
                let text = || Value::String(call.arguments.clone());
                let arguments = if calls.arguments_as_text {
                    text()
                } else {
                    serde_json::from_str(&call.arguments).unwrap_or_else(|_| text())
                };
                let id = made.add(&call.id, &call.name);
                json!({"type": "function", "id": id, "function": {"name": call.name, "arguments": arguments}})
            })
            .collect();
    }
    if let Some(id) = &message.tool_call_id {
        match made.known.get(id) {
            Some((shown, name)) => {
                value["tool_call_id"] = json!(shown);
                value["name"] = json!(name);
            }
            None => value["tool_call_id"] = json!(if made.ids == Ids::Nine { nine(id) } else { id.clone() }),
        }
    }
    value
}

/// Nine letters and digits that stand for an id; the same ones for the same id.
fn nine(id: &str) -> String {
    if id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // FNV-1a: ids of one conversation differ, and nobody gains by making two of theirs meet.
    let mut hash =
        id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..9)
        .map(|_| {
            let digit = usize::try_from(hash % 36).unwrap_or(0);
            hash /= 36;
            char::from(DIGITS[digit])
        })
        .collect()
}
