//! Splits an answer into text, reasoning and tool calls while it is being made.
//!
//! [`format`] describes how the model families write, [`tags`] splits by tags and [`harmony`] by message headers. What
//! looks like a call and does not parse is given out as text, word for word, and counted: nothing that the model said is
//! lost, and nothing that was given out is ever taken back. That is why a call comes whole and not in pieces: in every
//! format the last byte can still show that it was none.
//!
//! White space where markup meets text is markup and is dropped; where markup turns out to be text it stays.

mod body;
mod cursor;
mod format;
pub(crate) mod grammar;
mod harmony;
mod literal;
mod schema;
mod tags;
mod written;
mod xml;

#[cfg(test)]
mod forced;
#[cfg(test)]
mod tests;

use serde_json::Map;

use self::{body::RawCall, format::CALLS, harmony::Harmony, tags::Tags};
pub(crate) use self::{
    format::{CallFormat, Formats, Ids, hermes},
    written::write_calls,
};
use crate::api::{Event, Tool, ToolCall};

/// A call longer than this is text: the buffer must not grow with a model that never closes its tag (bytes).
const MAX_CALL_BYTES: usize = 256 * 1024;

/// Closing tags in one answer that may turn out to be part of an argument. Each costs reading the call again.
const MAX_LITERAL_TAGS: u32 = 64;

/// The parser's state.
#[derive(Debug)]
pub(crate) struct OutputParser {
    splitter: Splitter,
    format: Option<Formats>,
    offers_tools: bool,
}

#[derive(Debug)]
enum Splitter {
    /// Everything is text.
    Plain,
    Tags(Box<Tags>),
    Harmony(Box<Harmony>),
}

/// Calls that were found, and what is needed to tell them.
#[derive(Debug)]
struct Found {
    tools: Vec<Tool>,
    calls: usize,
    failures: u64,
    literal_tags: u32,
    id_prefix: u64,
}

impl Found {
    fn event(&mut self, call: RawCall) -> Event {
        self.calls += 1;
        Event::ToolCall(ToolCall {
            id: format!("call_{}_{}", self.id_prefix, self.calls),
            name: call.name,
            arguments: serde_json::Value::Object(call.arguments).to_string(),
        })
    }

    /// Whether one more closing tag may be taken for part of an argument.
    fn may_be_literal(&mut self) -> bool {
        let may = self.literal_tags < MAX_LITERAL_TAGS;
        self.literal_tags += 1;
        may
    }
}

impl OutputParser {
    /// A parser for text without markup.
    pub(crate) fn plain() -> Self {
        Self { splitter: Splitter::Plain, format: None, offers_tools: false }
    }

    /// A parser for an answer in `formats`. `tools` are those that may be called; without any, calls are not looked for.
    /// `opened`: the prompt ends inside reasoning. `id_prefix` makes call ids unique between requests.
    pub(crate) fn new(formats: Formats, tools: Vec<Tool>, opened: bool, id_prefix: u64) -> Self {
        let offers_tools = !tools.is_empty();
        let found = Found { tools, calls: 0, failures: 0, literal_tags: 0, id_prefix };
        let splitter = if formats.has_headers() {
            Splitter::Harmony(Box::new(Harmony::new(formats, found)))
        } else if !offers_tools && formats.reasoning.open.is_empty() {
            Splitter::Plain
        } else {
            Splitter::Tags(Box::new(Tags::new(formats, found, opened)))
        };
        Self { splitter, format: Some(formats), offers_tools }
    }

    /// Name of the tool-call format, for messages.
    pub(crate) fn format_name(&self) -> &'static str {
        self.format.map_or("none", |formats| formats.calls.name)
    }

    /// Pieces that looked like a tool call and did not parse.
    pub(crate) fn failures(&self) -> u64 {
        match &self.splitter {
            Splitter::Plain => 0,
            Splitter::Tags(tags) => tags.found.failures,
            Splitter::Harmony(harmony) => harmony.found.failures,
        }
    }

    /// What the model has to say for its reasoning to end here; `None` while it is not reasoning.
    pub(crate) fn reasoning_close(&self) -> Option<&'static str> {
        let reasons = match &self.splitter {
            Splitter::Plain => false,
            Splitter::Tags(tags) => tags.is_reasoning(),
            Splitter::Harmony(harmony) => harmony.is_reasoning(),
        };
        self.format.filter(|_| reasons).map(|formats| formats.reasoning.close)
    }

    /// Whether the text of this control token is part of the markup that is looked for. Others have no text in an answer.
    pub(crate) fn reads(&self, token: &str) -> bool {
        !token.is_empty()
            && match &self.splitter {
                Splitter::Plain => false,
                Splitter::Tags(tags) => tags.reads(token),
                Splitter::Harmony(_) => harmony::reads(token),
            }
    }

    /// Takes text and returns the events that are complete.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Event> {
        let mut events = Vec::new();
        match &mut self.splitter {
            Splitter::Plain => give_text(text, &mut events),
            Splitter::Tags(tags) => tags.push(text, &mut events),
            Splitter::Harmony(harmony) => harmony.push(text, &mut events),
        }
        events
    }

    /// The end of the answer. `content` is its whole text as far as it was given out: if tools were offered and none was
    /// called, calls in the markup of another family are counted as failures.
    pub(crate) fn finish(&mut self, content: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let found = match &mut self.splitter {
            Splitter::Plain => return events,
            Splitter::Tags(tags) => {
                tags.finish(&mut events);
                &mut tags.found
            }
            Splitter::Harmony(harmony) => {
                harmony.finish(&mut events);
                &mut harmony.found
            }
        };
        if self.offers_tools && found.calls == 0 && found.failures == 0 {
            let rest = events
                .iter()
                .filter_map(|event| if let Event::Text(text) = event { Some(text.as_str()) } else { None });
            if std::iter::once(content).chain(rest).any(|text| has_foreign_call(text, &found.tools)) {
                found.failures += 1;
            }
        }
        events
    }
}

/// Whether the text holds what another family calls a tool with.
fn has_foreign_call(text: &str, tools: &[Tool]) -> bool {
    let blocks = CALLS.iter().flat_map(|format| format.blocks);
    blocks.filter(|block| !block.open.is_empty()).any(|block| text.contains(block.open))
        || text.trim_start().starts_with('{') && {
            let parsed = body::parse(&format::Body::Json, text, tools);
            parsed.calls.iter().any(|call| tools.iter().any(|tool| tool.name == call.name))
        }
}

fn give_text(text: &str, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(Event::Text(text.to_owned()));
    }
}

/// The arguments in a JSON text; an empty one is a call without any.
fn arguments_in(text: &str) -> Result<Map<String, serde_json::Value>, serde_json::Error> {
    if text.trim().is_empty() { Ok(Map::new()) } else { serde_json::from_str(text) }
}
