//! What a template does with the parts of a conversation that templates disagree about, found out by trying.

use serde_json::{Value, json};

use super::history::{Made, as_json, tools_json};
use crate::{
    api::{Message, Speaker, Tool, ToolCall},
    output::Ids,
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
    pub(super) arguments_as_text: bool,
    /// No content instead of empty content, for templates that show calls only then.
    pub(super) null_content: bool,
    /// One turn may make several calls.
    pub(super) several: bool,
    /// Calls are shown beside text.
    pub(super) beside_text: bool,
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
        let call = |id: &str| ToolCall { id: id.into(), name: "f".into(), arguments: format!("{{\"{NEEDLE}\":true}}") };
        let answer = |id: &str| Message { tool_call_id: Some(id.into()), ..Message::new(Speaker::Tool, "y") };
        let shown_with = |calls: Calls| {
            let made = Message { tool_calls: vec![call("call00001")], ..Message::assistant("") };
            let history = [Message::user("x"), made, answer("call00001")];
            let mut known = Made::new(Ids::Free);
            let history = history.iter().map(|turn| as_json(turn, calls, &mut known)).collect();
            render(history, none.clone())
                // Content that is not there must not be shown as the word for it.
                .filter(|text| text.contains(NEEDLE) && !(calls.null_content && text.contains("None")))
        };
        let as_python = format!("'{NEEDLE}': True");
        let shown: Vec<(Calls, String)> = [(false, false), (false, true), (true, false), (true, true)]
            .map(|(arguments_as_text, null_content)| Calls {
                arguments_as_text,
                null_content,
                several: true,
                beside_text: true,
            })
            .into_iter()
            .filter_map(|calls| shown_with(calls).map(|text| (calls, text)))
            .collect();
        let not_as_python = shown.iter().find(|(_, text)| !text.contains(&as_python));
        let calls = not_as_python.or(shown.first()).map(|(calls, _)| *calls);
        let calls = calls.map(|calls| {
            // How many of the calls of a turn are shown.
            let shown = |made: Message| {
                let answers = made.tool_calls.iter().map(|call| answer(&call.id));
                let turns: Vec<Message> = answers.collect();
                let turns = [Message::user("x"), made].into_iter().chain(turns);
                let mut known = Made::new(Ids::Free);
                let text = render(turns.map(|turn| as_json(&turn, calls, &mut known)).collect(), none.clone());
                text.map_or(0, |text| text.matches(NEEDLE).count())
            };
            let two = vec![call("call00001"), call("call00002")];
            Calls {
                several: shown(Message { tool_calls: two, ..Message::assistant("") }) > 1,
                beside_text: shown(Message { tool_calls: vec![call("call00001")], ..Message::assistant("y") }) > 0,
                ..calls
            }
        });
        Self {
            // A template that refuses the trial is left alone: it may need what the trial does not have.
            tools: with.is_none() || without.is_none() || shows(&with),
            null_tools,
            system: without.is_none() || shows(&system),
            calls,
        }
    }
}
