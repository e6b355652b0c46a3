//! A conversation as a template wants it: what templates disagree about, found out by trying.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::{
    api::{Message, Speaker, Tool, ToolCall},
    output::{CallFormat, Ids, write_calls},
};

/// What a template does with the parts of a conversation that templates disagree about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// It shows the tools that are offered.
    pub(super) tools: bool,
    /// It asks for tools even where there are none, and wants them to be nothing then.
    pub(super) null_tools: bool,
    /// It takes a system message.
    pub(super) system: bool,
    /// How it shows calls that were made; `None` if it does not.
    pub(super) calls: Option<Calls>,
}

/// How calls in a history have to be handed to a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Calls {
    /// Arguments as a JSON text, for templates that join them to other text.
    arguments_as_text: bool,
    /// No content instead of empty content, for templates that show calls only then.
    null_content: bool,
}

/// What is looked for in what a template makes of a trial conversation.
const NEEDLE: &str = "needle";

impl Dialect {
    /// Tries the template out. `render` gives what it makes of messages and tools.
    pub(super) fn of(render: impl Fn(Vec<Value>, Option<Value>) -> Option<String>) -> Self {
        let user = || json!({"role": "user", "content": "x"});
        let tool = Tool {
            name: NEEDLE.into(),
            description: NEEDLE.into(),
            parameters: json!({"type": "object", "properties": {}}),
        };
        let without = render(vec![user()], None);
        let null_tools = without.is_none() && render(vec![user()], Some(Value::Null)).is_some();
        let none = null_tools.then_some(Value::Null);
        let without = without.or_else(|| render(vec![user()], none.clone()));
        let with = render(vec![user()], Some(tools_json(&[tool])));
        let system = render(vec![json!({"role": "system", "content": NEEDLE}), user()], none.clone());
        let shows = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(NEEDLE));
        let shown_with = |calls: Calls| {
            let call =
                ToolCall { id: "call00001".into(), name: "f".into(), arguments: format!("{{\"{NEEDLE}\":true}}") };
            let made = Message { tool_calls: vec![call], ..Message::assistant("") };
            let answer = Message { tool_call_id: Some("call00001".into()), ..Message::new(Speaker::Tool, "y") };
            let mut known = Made::new(Ids::Free);
            let history =
                [Message::user("x"), made, answer].iter().map(|turn| as_json(turn, calls, &mut known)).collect();
            render(history, none.clone())
                // Content that is not there must not be shown as the word for it.
                .filter(|text| text.contains(NEEDLE) && !(calls.null_content && text.contains("None")))
        };
        let as_python = format!("'{NEEDLE}': True");
        let shown: Vec<(Calls, String)> = [(false, false), (false, true), (true, false), (true, true)]
            .map(|(arguments_as_text, null_content)| Calls { arguments_as_text, null_content })
            .into_iter()
            .filter_map(|calls| shown_with(calls).map(|text| (calls, text)))
            .collect();
        let as_json = shown.iter().find(|(_, text)| !text.contains(&as_python));
        let calls = as_json.or(shown.first()).map(|(calls, _)| *calls);
        Self {
            // A template that refuses the trial is left alone: it may need what the trial does not have.
            tools: with.is_none() || without.is_none() || shows(&with),
            null_tools,
            system: without.is_none() || shows(&system),
            calls,
        }
    }
}

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
        describe_tools(&mut messages, tools, format);
    }
    if !dialect.system {
        join_system_with_user(&mut messages);
    }
    let mut made = Made::new(format.ids);
    let shown = messages.into_iter().map(|message| match dialect.calls {
        Some(calls) => as_json(&message, calls, &mut made),
        None => without_calls(message, dialect.tools, format, &mut made),
    });
    shown.collect()
}

/// Calls that the history has shown so far.
struct Made {
    ids: Ids,
    /// From the id that a call has to the one that is shown, and its name.
    known: HashMap<String, (String, String)>,
    count: usize,
}

impl Made {
    fn new(ids: Ids) -> Self {
        Self { ids, known: HashMap::new(), count: 0 }
    }

    fn add(&mut self, id: &str, name: &str) -> String {
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

fn as_json(message: &Message, calls: Calls, made: &mut Made) -> Value {
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

/// Tells the model of the tools in the system message, for templates that do not.
fn describe_tools(messages: &mut Vec<Message>, tools: &[Tool], format: &CallFormat) {
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
fn join_system_with_user(messages: &mut Vec<Message>) {
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
fn without_calls(mut message: Message, knows_tools: bool, format: &CallFormat, made: &mut Made) -> Value {
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
    as_json(&message, Calls { arguments_as_text: false, null_content: false }, made)
}
