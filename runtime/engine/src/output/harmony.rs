//! Splits harmony, the form of gpt-oss: an answer is a row of messages, and the header of each says what it is.
//!
//! `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}<|call|>`.
//! The last token of a call and of the answer ends generation, so it does not come here.

use super::{Found, MAX_CALL_BYTES, arguments_in, body::RawCall, format::Formats, give_text};
use crate::{api::Event, text::overlap};

const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const START: &str = "<|start|>";
/// End a message.
const ENDS: [&str; 4] = ["<|end|>", "<|call|>", "<|return|>", START];
/// What the functions that were offered are addressed by.
const FUNCTIONS: &str = "functions.";

/// A header that is longer is text (bytes).
const MAX_HEADER_BYTES: usize = 512;

/// Whether the text of a control token is part of the markup.
pub(super) fn reads(token: &str) -> bool {
    token == CHANNEL || token == MESSAGE || token == "<|constrain|>" || ENDS.contains(&token)
}

#[derive(Debug)]
enum Part {
    /// Before `<|message|>`.
    Header,
    Text,
    Reasoning,
    Call {
        name: String,
        /// Bytes of what is held that hold no unseen end.
        searched: usize,
    },
}

#[derive(Debug)]
pub(super) struct Harmony {
    pub(super) found: Found,
    reasons: bool,
    part: Part,
    /// The header of the message that is being read, word for word.
    header: String,
    held: String,
}

impl Harmony {
    pub(super) fn new(formats: Formats, found: Found) -> Self {
        let reasons = !formats.reasoning.open.is_empty();
        Self { found, reasons, part: Part::Header, header: String::new(), held: String::new() }
    }

    pub(super) fn is_reasoning(&self) -> bool {
        matches!(self.part, Part::Reasoning)
    }

    pub(super) fn push(&mut self, text: &str, events: &mut Vec<Event>) {
        self.held.push_str(text);
        while self.step(events) {}
    }

    pub(super) fn finish(&mut self, events: &mut Vec<Event>) {
        let rest = std::mem::take(&mut self.held);
        match &self.part {
            // A header of which nothing came says nothing.
            Part::Header if could_be_header(&rest) => {}
            Part::Header | Part::Text => give_text(&rest, events),
            Part::Reasoning => self.say(rest, events),
            Part::Call { name, .. } => {
                let name = name.clone();
                self.call(name, &rest, "", events);
            }
        }
    }

    fn step(&mut self, events: &mut Vec<Event>) -> bool {
        match &mut self.part {
            Part::Header => self.header(events),
            Part::Text | Part::Reasoning => {
                let Some((at, end)) = first_end(&self.held) else {
                    let keep = ENDS.iter().map(|end| overlap(&self.held, end)).max().unwrap_or(0);
                    let rest = self.held.split_off(self.held.len() - keep);
                    let text = std::mem::replace(&mut self.held, rest);
                    self.say(text, events);
                    return false;
                };
                let after = self.held.split_off(at + end.len());
                self.held.truncate(at);
                let text = std::mem::replace(&mut self.held, after);
                self.say(text, events);
                self.part = Part::Header;
                true
            }
            Part::Call { name, searched } => {
                let Some((found, end)) = first_end(&self.held[*searched..]) else {
                    let keep = ENDS.iter().map(|end| overlap(&self.held, end)).max().unwrap_or(0);
                    *searched = (*searched).max(self.held.len() - keep);
                    if self.held.len() > MAX_CALL_BYTES {
                        let body = std::mem::take(&mut self.held);
                        self.fail(&body, "", events);
                        self.part = Part::Text;
                    }
                    return false;
                };
                let (at, after) = (*searched + found, *searched + found + end.len());
                let goes_on = |text: &str| arguments_in(text).is_err_and(|error| error.is_eof());
                // An end that the arguments go on after is part of a string in them.
                if arguments_in(&self.held[..at]).is_err()
                    && goes_on(&self.held[..after])
                    && self.found.may_be_literal()
                {
                    *searched = after;
                    return true;
                }
                let name = std::mem::take(name);
                let rest = self.held.split_off(after);
                self.held.truncate(at);
                let body = std::mem::replace(&mut self.held, rest);
                self.call(name, &body, end, events);
                self.part = Part::Header;
                true
            }
        }
    }

    fn header(&mut self, events: &mut Vec<Event>) -> bool {
        let Some(at) = self.held.find(MESSAGE) else {
            if self.held.len() > MAX_HEADER_BYTES || !could_be_header(&self.held) {
                // The model speaks without a header.
                self.part = Part::Text;
                return true;
            }
            return false;
        };
        if !could_be_header(&self.held[..at]) {
            self.part = Part::Text;
            return true;
        }
        let rest = self.held.split_off(at + MESSAGE.len());
        self.header = std::mem::replace(&mut self.held, rest);
        let header = self.header.strip_suffix(MESSAGE).unwrap_or(&self.header);
        let ends = |c: char| c.is_whitespace() || c == '<';
        let word = |after: &str| header.split_once(after).map(|(_, rest)| rest.split(ends).next().unwrap_or(""));
        let is_analysis = word(CHANNEL) == Some("analysis");
        let addressee = word("to=").map(str::to_owned);
        self.part = match addressee {
            Some(name) => match name.strip_prefix(FUNCTIONS).filter(|name| !name.is_empty()) {
                Some(name) if !self.found.tools.is_empty() => Part::Call { name: name.to_owned(), searched: 0 },
                // Nobody here answers to that name: it stays what the model said.
                _ => {
                    self.found.failures += 1;
                    give_text(&self.header, events);
                    Part::Text
                }
            },
            None if is_analysis && self.reasons => Part::Reasoning,
            None => Part::Text,
        };
        true
    }

    fn say(&self, text: String, events: &mut Vec<Event>) {
        if !text.is_empty() {
            events.push(if self.is_reasoning() { Event::Thinking(text) } else { Event::Text(text) });
        }
    }

    fn call(&mut self, name: String, body: &str, end: &str, events: &mut Vec<Event>) {
        match arguments_in(body) {
            Ok(arguments) => events.push(self.found.event(RawCall { name, arguments })),
            Err(_) => self.fail(body, end, events),
        }
    }

    fn fail(&mut self, body: &str, end: &str, events: &mut Vec<Event>) {
        self.found.failures += 1;
        give_text(&format!("{}{body}{end}", self.header), events);
    }
}

fn first_end(text: &str) -> Option<(usize, &'static str)> {
    ENDS.iter().filter_map(|end| text.find(end).map(|at| (at, *end))).min_by_key(|(at, _)| *at)
}

/// Whether a text can be the beginning of a header.
fn could_be_header(text: &str) -> bool {
    let text = text.trim_start();
    [CHANNEL, START, "assistant", "to=", "<|constrain|>"]
        .iter()
        .any(|start| text.starts_with(start) || start.starts_with(text))
}
