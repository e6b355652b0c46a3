//! Splits an answer into text, reasoning and tool calls while it is being made.
//!
//! Formats: reasoning in `<think>…</think>`; tool calls in Hermes' form, a JSON object in `<tool_call>…</tool_call>`.
//! What looks like a tool call and does not parse is given out as text, word for word: nothing the model said is lost.

use crate::{
    api::{Event, ToolCall},
    text::overlap,
};

const THINK: (&str, &str) = ("<think>", "</think>");
const CALL: (&str, &str) = ("<tool_call>", "</tool_call>");

/// A tool call longer than this is text: the buffer must not grow with a model that never closes its tag (bytes).
const MAX_CALL_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Text,
    Thinking,
    Call,
}

/// The parser's state.
#[derive(Debug)]
pub(crate) struct OutputParser {
    part: Part,
    held: String,
    tools: bool,
    thinking: bool,
    calls: usize,
    failures: usize,
    id_prefix: u64,
}

impl OutputParser {
    /// `tools`: calls are looked for. `thinking`: reasoning is looked for. `id_prefix` makes call ids unique between requests.
    pub(crate) fn new(tools: bool, thinking: bool, id_prefix: u64) -> Self {
        Self { part: Part::Text, held: String::new(), tools, thinking, calls: 0, failures: 0, id_prefix }
    }

    /// Pieces that looked like a tool call and did not parse.
    pub(crate) fn failures(&self) -> usize {
        self.failures
    }

    /// The tag that ends the reasoning, while the answer is inside one.
    pub(crate) fn reasoning_end(&self) -> Option<&'static str> {
        (self.part == Part::Thinking).then_some(THINK.1)
    }

    /// Takes text and returns the events that are complete.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Event> {
        if !self.tools && !self.thinking {
            return if text.is_empty() { Vec::new() } else { vec![Event::Text(text.to_owned())] };
        }
        self.held.push_str(text);
        let mut events = Vec::new();
        while self.step(&mut events) {}
        events
    }

    /// The end of the answer.
    pub(crate) fn finish(&mut self) -> Vec<Event> {
        let rest = std::mem::take(&mut self.held);
        if rest.is_empty() && self.part != Part::Call {
            return Vec::new();
        }
        match self.part {
            Part::Text => vec![Event::Text(rest)],
            Part::Thinking => vec![Event::Thinking(rest)],
            // The model stopped before the closing tag: a whole object is still a call.
            Part::Call => vec![self.call(&rest, "")],
        }
    }

    /// One transition; false when more text is needed.
    fn step(&mut self, events: &mut Vec<Event>) -> bool {
        match self.part {
            Part::Text => {
                let think = self.thinking.then_some((THINK.0, Part::Thinking));
                let call = self.tools.then_some((CALL.0, Part::Call));
                let tags: Vec<_> = think.into_iter().chain(call).collect();
                let hit = tags
                    .iter()
                    .filter_map(|&(tag, part)| self.held.find(tag).map(|at| (at, tag, part)))
                    .min_by_key(|&(at, ..)| at);
                if let Some((at, tag, part)) = hit {
                    let after = self.held.split_off(at + tag.len());
                    self.held.truncate(at);
                    let before = std::mem::replace(&mut self.held, after);
                    if !before.trim().is_empty() {
                        events.push(Event::Text(before));
                    }
                    self.part = part;
                    return true;
                }
                let keep = tags.iter().map(|(tag, _)| overlap(&self.held, tag)).max().unwrap_or(0);
                self.give_out(keep, events, Event::Text);
                false
            }
            Part::Thinking => {
                if let Some(at) = self.held.find(THINK.1) {
                    let after = self.held.split_off(at + THINK.1.len());
                    self.held.truncate(at);
                    let before = std::mem::replace(&mut self.held, after);
                    if !before.is_empty() {
                        events.push(Event::Thinking(before));
                    }
                    self.part = Part::Text;
                    return true;
                }
                let keep = overlap(&self.held, THINK.1);
                self.give_out(keep, events, Event::Thinking);
                false
            }
            Part::Call => {
                if let Some(at) = self.held.find(CALL.1) {
                    let after = self.held.split_off(at + CALL.1.len());
                    self.held.truncate(at);
                    let body = std::mem::replace(&mut self.held, after);
                    events.push(self.call(&body, CALL.1));
                    self.part = Part::Text;
                    return true;
                }
                if self.held.len() > MAX_CALL_BYTES {
                    let body = std::mem::take(&mut self.held);
                    self.failures += 1;
                    events.push(Event::Text(format!("{}{body}", CALL.0)));
                    self.part = Part::Text;
                }
                false
            }
        }
    }

    fn give_out(&mut self, keep: usize, events: &mut Vec<Event>, event: fn(String) -> Event) {
        let tail = self.held.split_off(self.held.len() - keep);
        let text = std::mem::replace(&mut self.held, tail);
        if !text.is_empty() {
            events.push(event(text));
        }
    }

    fn call(&mut self, body: &str, closing: &str) -> Event {
        match parse_call(body) {
            Some((name, arguments)) => {
                self.calls += 1;
                Event::ToolCall(ToolCall { id: format!("call_{}_{}", self.id_prefix, self.calls), name, arguments })
            }
            None => {
                self.failures += 1;
                Event::Text(format!("{}{body}{closing}", CALL.0))
            }
        }
    }
}

/// `{"name": …, "arguments": {…}}`; arguments that are a JSON text in a string, as some models write them, are unwrapped.
fn parse_call(body: &str) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(body.trim()).ok()?;
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = match value.get("arguments").or_else(|| value.get("parameters")) {
        None => "{}".to_owned(),
        Some(serde_json::Value::String(text)) => {
            serde_json::from_str::<serde_json::Value>(text).ok().filter(serde_json::Value::is_object)?;
            text.clone()
        }
        Some(object) if object.is_object() => object.to_string(),
        Some(_) => return None,
    };
    Some((name, arguments))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(parser: &mut OutputParser, pieces: &[&str]) -> Vec<Event> {
        let mut events: Vec<Event> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
        events.extend(parser.finish());
        events
    }

    #[test]
    fn a_call_between_text_is_found() {
        let mut parser = OutputParser::new(true, true, 7);
        let events = run(
            &mut parser,
            &[
                "<think>hm",
                "m</thi",
                "nk>I ask.<tool",
                "_call>\n{\"name\": \"add\", \"argu",
                "ments\": {\"a\": 1}}\n</tool_call>",
            ],
        );
        assert_eq!(
            events,
            [
                Event::Thinking("hm".into()),
                Event::Thinking("m".into()),
                Event::Text("I ask.".into()),
                Event::ToolCall(ToolCall { id: "call_7_1".into(), name: "add".into(), arguments: "{\"a\":1}".into() }),
            ]
        );
        assert_eq!((parser.calls, parser.failures()), (1, 0));
    }

    #[test]
    fn a_call_that_does_not_parse_stays_text() {
        let mut parser = OutputParser::new(true, false, 0);
        let events = run(&mut parser, &["<tool_call>{\"name\": add}</tool_call>!"]);
        assert_eq!(events, [Event::Text("<tool_call>{\"name\": add}</tool_call>".into()), Event::Text("!".into())]);
        assert_eq!((parser.calls, parser.failures()), (0, 1));
    }

    #[test]
    fn a_call_without_its_closing_tag_counts_at_the_end() {
        let mut parser = OutputParser::new(true, false, 0);
        let events = run(&mut parser, &["<tool_call>{\"name\":\"now\"}"]);
        assert_eq!(
            events,
            [Event::ToolCall(ToolCall { id: "call_0_1".into(), name: "now".into(), arguments: "{}".into() })]
        );
    }

    #[test]
    fn without_tools_the_markup_is_text() {
        let mut parser = OutputParser::new(false, false, 0);
        assert_eq!(run(&mut parser, &["<tool_call>{}"]), [Event::Text("<tool_call>{}".into())]);
    }

    proptest! {
        /// Whatever the model says and however it is cut, no text is lost and nothing panics.
        #[test]
        fn nothing_is_lost(pieces in prop::collection::vec("(<think>|</think>|<tool_call>|</tool_call>|<tool|[a<{}\"]){0,4}", 0..12)) {
            let mut parser = OutputParser::new(true, false, 0);
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let all: String = pieces.concat();
            let said: String = run(&mut parser, &pieces)
                .into_iter()
                .map(|event| match event { Event::Text(text) => text, other => format!("{other:?}") })
                .collect();
            prop_assert_eq!(said, all);
        }
    }
}
