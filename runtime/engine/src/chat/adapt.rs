//! Rewrites conversations for templates that do not know every kind of turn, so that nothing in them is lost.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::{
    dialect::Calls,
    history::{Made, as_json, tools_json},
};
use crate::{
    api::{Message, Speaker, Tool},
    output::{CallFormat, write_calls},
};

/// Tells the model of the tools in the system message, for templates that do not.
pub(super) fn describe_tools(messages: &mut Vec<Message>, tools: &[Tool], format: &CallFormat) {
    let mut text = String::from(
        "You may call functions to help with the request. The functions are described here, one JSON object a line:\n<tools>\n",
    );
    for tool in tools_json(tools).as_array().into_iter().flatten() {
        text.push_str(&tool.to_string());
        text.push('\n');
    }
    let arguments = Map::from_iter([("argument".to_owned(), Value::from("its value"))]);
    let example = write_calls(format, [("name_of_the_function", &arguments)]);
    text.push_str("</tools>\nTo call a function, answer with nothing but the call, in this form:\n");
    text.push_str(&example);
    match messages.iter_mut().find(|message| message.speaker == Speaker::System) {
        Some(system) => system.content = format!("{}\n\n{text}", system.content),
        None => messages.insert(0, Message::system(text)),
    }
}

/// Puts what system turns say before what the user says next, for templates that take no system turn.
pub(super) fn join_system_with_user(messages: &mut Vec<Message>) {
    let mut said = String::new();
    messages.retain_mut(|message| {
        match message.speaker {
            Speaker::System => {
                said.push_str(&message.content);
                said.push_str("\n\n");
                return false;
            }
            Speaker::User => message.content.insert_str(0, &std::mem::take(&mut said)),
            Speaker::Assistant | Speaker::Tool => {}
        }
        true
    });
    if !said.is_empty() {
        messages.push(Message::user(said.trim_end()));
    }
}

/// A turn with calls as one of text, in the model's own form; and the result of one as a user's turn if the template
/// knows no tools at all.
pub(super) fn without_calls(mut message: Message, knows_tools: bool, format: &CallFormat, made: &mut Made) -> Value {
    let calls: Vec<(String, Map<String, Value>)> = std::mem::take(&mut message.tool_calls)
        .into_iter()
        .map(|call| {
            made.add(&call.id, &call.name);
            (call.name, serde_json::from_str(&call.arguments).unwrap_or_default())
        })
        .collect();
    if !calls.is_empty() {
        let gap = if message.content.is_empty() { "" } else { "\n" };
        let text = write_calls(format, calls.iter().map(|(name, arguments)| (name.as_str(), arguments)));
        message.content.push_str(gap);
        message.content.push_str(&text);
    }
    if message.speaker == Speaker::Tool && !knows_tools {
        message.speaker = Speaker::User;
        message.content = format!("<tool_response>\n{}\n</tool_response>", message.content);
        message.tool_call_id = None;
    }
    as_json(&message, Calls { arguments_as_text: false, null_content: false, several: true, beside_text: true }, made)
}

/// Puts the results of several calls into one turn: as turns of the user they would follow each other, which some templates
/// refuse.
pub(super) fn join_results(messages: &mut Vec<Message>) {
    messages.dedup_by(|next, before| {
        let join = before.speaker == Speaker::Tool && next.speaker == Speaker::Tool;
        if join {
            before.content.push_str("\n</tool_response>\n<tool_response>\n");
            before.content.push_str(&next.content);
        }
        join
    });
}

/// Makes a turn with several calls several turns, each followed by its result, for templates that take one call a turn.
pub(super) fn one_call_a_turn(messages: Vec<Message>) -> Vec<Message> {
    let mut turns = Vec::with_capacity(messages.len());
    let mut rest = VecDeque::from(messages);
    while let Some(mut message) = rest.pop_front() {
        if message.tool_calls.len() < 2 {
            turns.push(message);
            continue;
        }
        let n_results = rest.iter().take_while(|next| next.speaker == Speaker::Tool).count();
        let mut results: Vec<Message> = rest.drain(..n_results).collect();
        let mut content = std::mem::take(&mut message.content);
        for call in message.tool_calls {
            let result = results.iter().position(|result| result.tool_call_id.as_ref() == Some(&call.id));
            let said = std::mem::take(&mut content);
            turns.push(Message { tool_calls: vec![call], ..Message::assistant(said) });
            turns.extend(result.map(|at| results.remove(at)));
        }
        turns.append(&mut results);
    }
    turns
}

/// Makes a turn with text and calls two turns, for templates that show only one of them.
pub(super) fn calls_apart(messages: Vec<Message>) -> Vec<Message> {
    let apart = |mut message: Message| {
        let has_both = !message.tool_calls.is_empty() && !message.content.is_empty();
        let text = has_both.then(|| Message::assistant(std::mem::take(&mut message.content)));
        text.into_iter().chain([message])
    };
    messages.into_iter().flat_map(apart).collect()
}
