//! Splits by opening and closing tags, wherever the pieces of text are cut.

use super::{
    Found, MAX_CALL_BYTES,
    body::{self, Parsed},
    cursor::Stop,
    format::{Block, Formats},
};
use crate::{api::Event, text::overlap};

/// Where in the answer the parser is.
#[derive(Debug, Clone, Copy)]
enum Part {
    Text,
    Reasoning,
    Call(&'static Block),
}

#[derive(Debug)]
pub(super) struct Tags {
    pub(super) found: Found,
    formats: Formats,
    part: Part,
    /// What was not given out yet.
    held: String,
    /// Markup was the last thing, besides white space.
    at_border: bool,
    /// Nothing of the answer was given out yet: a call without a tag may begin here.
    fresh: bool,
    /// White space before the call that is being read.
    gap: String,
    /// Bytes of `held` that hold no unseen closing tag.
    searched: usize,
    /// Where the first closing tag stands that was taken for part of an argument.
    first_close: Option<usize>,
}

impl Tags {
    pub(super) fn new(formats: Formats, found: Found, opened: bool) -> Self {
        let part = if opened { Part::Reasoning } else { Part::Text };
        Self {
            found,
            formats,
            part,
            held: String::new(),
            at_border: opened,
            fresh: true,
            gap: String::new(),
            searched: 0,
            first_close: None,
        }
    }

    pub(super) fn is_reasoning(&self) -> bool {
        matches!(self.part, Part::Reasoning)
    }

    pub(super) fn reads(&self, token: &str) -> bool {
        let reasoning = self.formats.reasoning;
        let in_reasoning = [reasoning.open, reasoning.close].iter().any(|tag| tag.contains(token));
        in_reasoning || !self.found.tools.is_empty() && self.blocks().iter().any(|block| block.holds(token))
    }

    pub(super) fn push(&mut self, text: &str, events: &mut Vec<Event>) {
        self.held.push_str(text);
        while self.step(false, events) {}
    }

    pub(super) fn finish(&mut self, events: &mut Vec<Event>) {
        while self.step(true, events) {}
        let rest = std::mem::take(&mut self.held);
        match self.part {
            // White space after markup is part of it.
            Part::Text if self.at_border && rest.trim().is_empty() => {}
            Part::Text => super::give_text(&rest, events),
            Part::Reasoning if !rest.is_empty() => events.push(Event::Thinking(rest)),
            Part::Reasoning | Part::Call(_) => {}
        }
    }

    fn blocks(&self) -> &'static [Block] {
        self.formats.calls.blocks
    }

    /// One transition; false when more text is needed.
    fn step(&mut self, ended: bool, events: &mut Vec<Event>) -> bool {
        match self.part {
            Part::Text => self.text(ended, events),
            Part::Reasoning => self.reasoning(events),
            Part::Call(block) => self.call(block, ended, events),
        }
    }

    fn text(&mut self, ended: bool, events: &mut Vec<Event>) -> bool {
        self.drop_space_at_border();
        let offers = !self.found.tools.is_empty();
        if offers
            && self.fresh
            && let Some(bare) = self.blocks().iter().find(|block| block.open.is_empty())
        {
            match self.begins_bare_call() {
                Some(true) => {
                    let start = self.held.len() - self.held.trim_start().len();
                    let rest = self.held.split_off(start);
                    self.gap = std::mem::replace(&mut self.held, rest);
                    self.enter(bare);
                    return true;
                }
                None if !ended => return false,
                _ => {}
            }
        }
        let reasoning = self.formats.reasoning.open;
        let reasoning = (!reasoning.is_empty()).then_some((reasoning, None));
        let calls = self.blocks().iter().filter(|block| offers && !block.open.is_empty());
        let tags = reasoning.into_iter().chain(calls.map(|block| (block.open, Some(block))));
        let mut hit: Option<(usize, &str, Option<&'static Block>)> = None;
        let mut keep = 0;
        for (tag, block) in tags {
            match self.held.find(tag) {
                Some(at) if hit.is_none_or(|(first, ..)| at < first) => hit = Some((at, tag, block)),
                Some(_) => {}
                None => keep = keep.max(overlap(&self.held, tag)),
            }
        }
        let Some((at, tag, block)) = hit else {
            let end = self.held[..self.held.len() - keep].trim_end().len();
            self.give_out(end, events);
            return false;
        };
        self.give_out(self.held[..at].trim_end().len(), events);
        // What is held now begins with the white space before the tag.
        let at = self.held.find(tag).unwrap_or(0);
        let after = self.held.split_off(at + tag.len());
        self.held.truncate(at);
        let gap = std::mem::replace(&mut self.held, after);
        match block {
            Some(block) => {
                self.gap = gap;
                self.enter(block);
            }
            None => {
                self.part = Part::Reasoning;
                self.at_border = true;
            }
        }
        true
    }

    fn reasoning(&mut self, events: &mut Vec<Event>) -> bool {
        self.drop_space_at_border();
        let (open, close) = (self.formats.reasoning.open, self.formats.reasoning.close);
        if self.at_border {
            // Some models repeat the tag that the prompt ends with.
            if self.held.starts_with(open) {
                self.held.drain(..open.len());
                return true;
            }
            if open.starts_with(self.held.as_str()) {
                return false;
            }
        }
        if let Some(at) = self.held.find(close) {
            let after = self.held.split_off(at + close.len());
            self.held.truncate(at);
            let before = std::mem::replace(&mut self.held, after);
            if !before.trim_end().is_empty() {
                events.push(Event::Thinking(before.trim_end().to_owned()));
            }
            self.part = Part::Text;
            self.at_border = true;
            return true;
        }
        let end = self.held[..self.held.len() - overlap(&self.held, close)].trim_end().len();
        if end > 0 {
            let rest = self.held.split_off(end);
            events.push(Event::Thinking(std::mem::replace(&mut self.held, rest)));
            self.at_border = false;
        }
        false
    }

    fn call(&mut self, block: &'static Block, ended: bool, events: &mut Vec<Event>) -> bool {
        let close = block.close;
        while !close.is_empty()
            && let Some(found) = self.held[self.searched..].find(close)
        {
            let at = self.searched + found;
            let after = at + close.len();
            let parsed = body::parse(&block.body, &self.held[..at], &self.found.tools);
            if parsed.is_whole() {
                self.leave(after);
                self.give_calls(parsed, events);
                return true;
            }
            self.first_close.get_or_insert(at);
            // A tag that the call goes on after is part of an argument.
            let with_tag = || body::parse(&block.body, &self.held[..after], &self.found.tools).stopped;
            if with_tag() != Some(Stop::Partial) || !self.found.may_be_literal() {
                self.fail(block, events);
                return true;
            }
            self.searched = after;
        }
        // The rest may hold the beginning of a closing tag.
        self.searched = self.searched.max(self.held.len() - overlap(&self.held, close));
        if !ended && self.held.len() <= MAX_CALL_BYTES {
            return false;
        }
        // The model stopped before the closing tag, or there is none: a whole call still counts.
        let parsed = body::parse(&block.body, &self.held, &self.found.tools);
        if ended && parsed.is_whole() && self.names_are_offered(block, &parsed) {
            self.leave(self.held.len());
            self.give_calls(parsed, events);
        } else {
            self.fail(block, events);
        }
        true
    }

    /// Gives out as text what is no call, up to the first closing tag; what comes after that is read again. Calls before
    /// the damage count.
    fn fail(&mut self, block: &Block, events: &mut Vec<Event>) {
        self.found.failures += 1;
        let body_end = self.first_close.unwrap_or(self.held.len());
        let end = self.first_close.map_or(body_end, |at| at + block.close.len());
        let mut parsed = body::parse(&block.body, &self.held[..body_end], &self.found.tools);
        if !self.names_are_offered(block, &parsed) {
            parsed.calls.clear();
        }
        let mut text = if parsed.calls.is_empty() { format!("{}{}", self.gap, block.open) } else { String::new() };
        let from = if parsed.calls.is_empty() { 0 } else { parsed.used };
        text.push_str(&self.held[from..end]);
        self.leave(end);
        self.give_calls(parsed, events);
        super::give_text(&text, events);
        self.at_border = false;
    }

    /// What is called without a tag must be a tool: an object with a name is an answer like others.
    fn names_are_offered(&self, block: &Block, parsed: &Parsed) -> bool {
        let is_offered = |name: &str| self.found.tools.iter().any(|tool| tool.name == name);
        !block.open.is_empty() || parsed.calls.iter().all(|call| is_offered(&call.name))
    }

    fn give_calls(&mut self, parsed: Parsed, events: &mut Vec<Event>) {
        for call in parsed.calls {
            events.push(self.found.event(call));
        }
    }

    fn enter(&mut self, block: &'static Block) {
        self.part = Part::Call(block);
        self.searched = 0;
        self.first_close = None;
    }

    /// Goes back to text after the first `used` bytes of what is held.
    fn leave(&mut self, used: usize) {
        self.held.drain(..used);
        self.gap.clear();
        self.part = Part::Text;
        self.at_border = true;
        self.fresh = false;
    }

    fn give_out(&mut self, end: usize, events: &mut Vec<Event>) {
        if end > 0 {
            let rest = self.held.split_off(end);
            events.push(Event::Text(std::mem::replace(&mut self.held, rest)));
            self.at_border = false;
            self.fresh = false;
        }
    }

    fn drop_space_at_border(&mut self) {
        if self.at_border {
            let space = self.held.len() - self.held.trim_start().len();
            self.held.drain(..space);
        }
    }

    /// Whether the answer begins with an object that calls a tool that was offered; `None` while it is too short to tell.
    fn begins_bare_call(&self) -> Option<bool> {
        // Names hold no white space, so it can be left out of the comparison.
        let longest = self.found.tools.iter().map(|tool| tool.name.len()).max().unwrap_or(0) + 64;
        let text: String = self.held.chars().filter(|c| !c.is_whitespace()).take(longest).collect();
        let mut undecided = text.is_empty();
        for tool in &self.found.tools {
            for before in ["", "\"type\":\"function\","] {
                let start = format!("{{{before}\"name\":\"{}\"", tool.name);
                if text.starts_with(&start) {
                    return Some(true);
                }
                undecided |= start.starts_with(&text);
            }
        }
        if undecided { None } else { Some(false) }
    }
}
