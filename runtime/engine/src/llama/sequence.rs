//! One request in the batch: its tokens, its sampler, and the text that it has become so far.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::{actor::Prepared, constraint::ActiveConstraint, model::Model, sampler::Sampler};
use crate::{
    api::{Completion, EngineError, Event, Message, RequestId, SessionId, Speaker, StopReason, Token, ToolCall, Usage},
    output::OutputParser,
    reclaim::Class,
    text::{StopMatcher, Utf8Joiner},
};

/// How far the reader lets a sequence go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// All events are delivered.
    Open,
    /// The reader's queue is full: the sequence is set aside.
    Blocked,
    /// The reader is gone, or the last event is delivered.
    Closed,
}

/// An answer is searched for circles each time it has grown by so many tokens.
const REPETITION_EVERY: usize = 16;
/// Longest circle that is looked for, tokens: a sentence or two.
const REPETITION_PERIOD: usize = 64;
/// A circle must have been gone round this often, and have taken so many tokens: rules of a table, long runs of zeros and
/// refrains are shorter.
const REPETITION_TIMES: usize = 8;
const REPETITION_TOKENS: usize = 192;

/// The shortest circle that the end of `answer` goes round in.
fn period(answer: &[Token]) -> Option<usize> {
    (1..=REPETITION_PERIOD).find(|&period| {
        let len = (period * REPETITION_TIMES).max(REPETITION_TOKENS);
        answer.len().checked_sub(len).is_some_and(|start| {
            let end = &answer[start..];
            end[period..].iter().rev().eq(end[..len - period].iter().rev())
        })
    })
}

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) session: SessionId,
    pub(super) class: Class,
    /// Taken out of the batch: it has no cells and no sequence id until there is room again. `tokens[..n_past]` may be in
    /// the cache.
    pub(super) parked: bool,
    /// The session ends with the request.
    pub(super) ephemeral: bool,
    pub(super) seq: i32,
    /// Prompt and answer. `tokens[..n_past]` are in the cells.
    pub(super) tokens: Vec<Token>,
    pub(super) n_past: usize,
    pub(super) prompt_len: usize,
    /// Cells that are set aside for it: prompt and the longest answer.
    pub(super) reserved: usize,
    /// Its row in the batch that is being computed, if it wants logits.
    pub(super) row: Option<usize>,
    /// Its tokens in the batch that is being computed.
    pub(super) in_batch: usize,
    pub(super) sampler: Sampler,
    /// Tokens that come next whatever the model says.
    pub(super) forced: VecDeque<Token>,
    /// Alternatives that are told with each token.
    pub(super) logprobs: Option<u32>,
    /// Whose requests may take over what this one leaves.
    pub(super) reuse: Option<u64>,
    constraint: Option<ActiveConstraint>,
    thinking_tokens: Option<u32>,
    n_thinking: u32,
    stops_repetition: bool,
    cached: usize,
    max_tokens: usize,
    n_output: usize,
    ignore_eos: bool,
    joiner: Utf8Joiner,
    stop: StopMatcher,
    parser: OutputParser,
    content: String,
    calls: Vec<ToolCall>,
    events: mpsc::Sender<Event>,
    done: Option<mpsc::OwnedPermit<Event>>,
    pending: VecDeque<Event>,
    ending: Option<Event>,
    armed: Arc<AtomicBool>,
    submitted: Instant,
    admitted: Instant,
    first_token: Option<Instant>,
}

impl Sequence {
    /// `n_past` prompt tokens are already in the cells of `seq`. `None` when the reader is gone.
    pub(super) fn new(
        prepared: Prepared,
        session: SessionId,
        ephemeral: bool,
        seq: i32,
        n_past: usize,
        model: &Model,
    ) -> Option<Self> {
        let done = prepared.events.clone().try_reserve_owned().ok()?;
        // A seed that was not asked for must still differ between requests; the clock is good enough for that.
        let seed = prepared.sampling.seed.unwrap_or_else(|| {
            let nanos = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.subsec_nanos());
            nanos ^ u32::try_from(prepared.id.0 & 0xffff_ffff).unwrap_or(0).rotate_left(16)
        });
        let sampler = Sampler::new(&prepared.sampling, model.n_vocab(), seed);
        let prompt_len = prepared.tokens.len();
        let max_tokens = prepared.max_tokens as usize;
        prepared.armed.store(true, Ordering::Relaxed);
        Some(Self {
            id: prepared.id,
            session,
            class: prepared.class,
            parked: false,
            ephemeral,
            seq,
            n_past,
            prompt_len,
            reserved: prompt_len + max_tokens,
            row: None,
            in_batch: 0,
            sampler,
            forced: VecDeque::new(),
            logprobs: prepared.logprobs,
            reuse: prepared.reuse,
            constraint: prepared.constraint,
            thinking_tokens: prepared.thinking_tokens,
            n_thinking: 0,
            stops_repetition: prepared.stops_repetition,
            cached: n_past,
            max_tokens,
            n_output: 0,
            ignore_eos: prepared.ignore_eos,
            joiner: Utf8Joiner::default(),
            stop: StopMatcher::new(prepared.stop),
            parser: prepared.parser,
            content: String::new(),
            calls: Vec::new(),
            events: prepared.events,
            done: Some(done),
            pending: VecDeque::new(),
            ending: None,
            armed: prepared.armed,
            submitted: prepared.submitted,
            admitted: Instant::now(),
            first_token: None,
            tokens: prepared.tokens,
        })
    }

    /// Tokens that are not in the cells yet.
    pub(super) fn remaining(&self) -> usize {
        self.tokens.len() - self.n_past
    }

    /// Whether the prompt is still being computed, or an answer whose cells were lost is computed again.
    pub(super) fn in_prefill(&self) -> bool {
        self.n_past < self.prompt_len || self.remaining() > 1
    }

    /// Whether it takes part in the batch.
    pub(super) fn is_active(&self) -> bool {
        self.ending.is_none() && !self.parked
    }

    /// Cells that nobody else may take: what it may still grow to, or what it left.
    pub(super) fn held_cells(&self) -> usize {
        match (self.parked, self.has_ended()) {
            (true, _) => 0,
            (false, true) => self.n_past,
            (false, false) => self.reserved,
        }
    }

    /// Whether the reader's queue has no room for what is there for it.
    pub(super) fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the answer is complete; only events are left to deliver.
    pub(super) fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    pub(super) fn reader_is_gone(&self) -> bool {
        self.events.is_closed()
    }

    pub(super) fn sender(&self) -> &mpsc::Sender<Event> {
        &self.events
    }

    /// Tells the reader how far prefill has come, if there is room for it.
    pub(super) fn report_prefill(&mut self) {
        // Losing one of these is harmless; they must not fill the queue that text needs.
        if self.n_output == 0 && self.prompt_len > self.cached + 1 && self.events.capacity() > 1 {
            let to_u32 = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let done = to_u32(self.n_past.min(self.prompt_len));
            let _ = self.events.try_send(Event::Prefill { done, total: to_u32(self.prompt_len) });
        }
    }

    /// The constraint, if it holds for the next token: reasoning is free.
    pub(super) fn constraint_now(&mut self) -> Option<&mut ActiveConstraint> {
        if self.parser.reasoning_close().is_some() { None } else { self.constraint.as_mut() }
    }

    /// Gives the reader an event beside the text.
    pub(super) fn tell(&mut self, event: Event) {
        if self.ending.is_none() {
            self.pending.push_back(event);
        }
    }

    /// Takes the next token: one that was drawn, or that had to come (`forced`). The sequence may have ended afterwards.
    pub(super) fn accept(&mut self, token: Token, forced: bool, model: &Model) {
        if self.first_token.is_none() {
            self.first_token = Some(Instant::now());
            self.armed.store(false, Ordering::Relaxed);
        }
        if model.is_end_of_generation(token) && !self.ignore_eos {
            self.finish_text();
            let stop = if self.calls.is_empty() { StopReason::End } else { StopReason::ToolCalls };
            self.end(Ok(stop));
            return;
        }
        // What was forced ends the reasoning, which the constraint does not know.
        let constraint = if forced { None } else { self.constraint_now() };
        let complete = match constraint.map(|constraint| constraint.accept(token)) {
            Some(Err(error)) => {
                self.end(Err(error));
                return;
            }
            Some(Ok(complete)) => complete,
            None => false,
        };
        self.tokens.push(token);
        self.n_output += 1;
        let was_thinking = self.parser.reasoning_close().is_some();
        // Markup may consist of control tokens. They have no text for a reader, so no stop string reaches into them.
        let markup = if model.is_control(token) { model.special_text(token) } else { String::new() };
        let (safe, hit) = if self.parser.reads(&markup) {
            (self.stop.finish() + &self.joiner.finish() + &markup, None)
        } else {
            let text = self.joiner.push(&model.piece(token, false));
            self.stop.push(&text)
        };
        self.say(&safe);
        self.count_thinking(was_thinking, model);
        if let Some(stop) = hit {
            self.finish_parser();
            self.end(Ok(StopReason::StopSequence(stop)));
        } else if complete {
            self.finish_text();
            let stop = if self.calls.is_empty() { StopReason::End } else { StopReason::ToolCalls };
            self.end(Ok(stop));
        } else if self.n_output >= self.max_tokens {
            self.finish_text();
            self.end(Ok(StopReason::MaxTokens));
        } else if let Some(period) = self.repetition() {
            self.finish_text();
            tracing::warn!(
                request = self.id.0,
                period,
                n_output = self.n_output,
                "an answer that repeats itself was ended"
            );
            self.end(Ok(StopReason::Repetition { period }));
        }
    }

    /// Counts a token of reasoning, and ends the reasoning when its tokens are used up.
    fn count_thinking(&mut self, was_thinking: bool, model: &Model) {
        let end = self.parser.reasoning_close();
        if !was_thinking && end.is_none() {
            return;
        }
        self.n_thinking += 1;
        let used_up = self.thinking_tokens.is_some_and(|most| self.n_thinking >= most);
        if let (Some(end), true, true) = (end, used_up, self.forced.is_empty()) {
            // On a line of its own, as models close it themselves.
            match model.tokenize(&format!("\n{end}\n\n"), false, true) {
                Ok(tokens) => self.forced = tokens.into(),
                Err(error) => tracing::warn!(request = self.id.0, %error, "reasoning cannot be ended"),
            }
        }
    }

    /// The period of the circle that the answer goes round in, tokens. Looked for now and then: a circle waits.
    fn repetition(&self) -> Option<u32> {
        if !self.stops_repetition || !self.n_output.is_multiple_of(REPETITION_EVERY) {
            return None;
        }
        let answer = &self.tokens[self.prompt_len..];
        period(answer).and_then(|period| u32::try_from(period).ok())
    }

    /// The reader cancelled.
    pub(super) fn cancel(&mut self) {
        if self.ending.is_none() {
            self.pending.clear();
            self.end(Ok(StopReason::Cancelled));
        }
    }

    /// The engine cannot go on with it.
    pub(super) fn fail(&mut self, error: EngineError) {
        if self.ending.is_none() {
            self.end(Err(error));
        }
    }

    /// Delivers what the reader has room for.
    pub(super) fn flush(&mut self) -> Flow {
        while let Some(event) = self.pending.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.pending.push_front(event);
                    return Flow::Blocked;
                }
                Err(TrySendError::Closed(_)) => return Flow::Closed,
            }
        }
        match (self.ending.take(), self.done.take()) {
            (Some(last), Some(permit)) => {
                permit.send(last);
                Flow::Closed
            }
            (None, done) => {
                self.done = done;
                Flow::Open
            }
            (Some(_), None) => Flow::Closed,
        }
    }

    fn say(&mut self, text: &str) {
        for event in self.parser.push(text) {
            self.keep(event);
        }
    }

    fn keep(&mut self, event: Event) {
        match &event {
            Event::Text(text) => self.content.push_str(text),
            Event::ToolCall(call) => self.calls.push(call.clone()),
            _ => {}
        }
        self.pending.push_back(event);
    }

    /// What was held back in case more would come.
    fn finish_text(&mut self) {
        let last = self.joiner.finish();
        let (safe, _) = self.stop.push(&last);
        let rest = safe + &self.stop.finish();
        self.say(&rest);
        self.finish_parser();
    }

    fn finish_parser(&mut self) {
        for event in self.parser.finish(&self.content) {
            self.keep(event);
        }
        if self.parser.failures() > 0 {
            tracing::warn!(
                request = self.id.0,
                format = self.parser.format_name(),
                n = self.parser.failures(),
                "tool calls did not parse; given out as text"
            );
        }
    }

    /// Pieces that looked like a tool call and did not parse.
    pub(super) fn tool_call_failures(&self) -> u64 {
        self.parser.failures()
    }

    fn end(&mut self, outcome: Result<StopReason, EngineError>) {
        self.armed.store(false, Ordering::Relaxed);
        let ms = |until: Instant| (until - self.submitted).as_secs_f64() * 1e3;
        let to_u32 = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let outcome = outcome.map(|stop| {
            let mut message = Message::new(Speaker::Assistant, std::mem::take(&mut self.content));
            message.tool_calls = std::mem::take(&mut self.calls);
            Completion {
                stop,
                usage: Usage {
                    prompt_tokens: to_u32(self.prompt_len),
                    cached_tokens: to_u32(self.cached),
                    output_tokens: to_u32(self.n_output),
                    thinking_tokens: self.n_thinking,
                    ttft_ms: self.first_token.map_or(0.0, ms),
                    wait_ms: ms(self.admitted),
                    total_ms: ms(Instant::now()),
                },
                message,
                tokens: self.tokens[self.prompt_len..].to_vec(),
            }
        });
        self.ending = Some(Event::Done(outcome));
    }

    /// From submit to now, ms.
    pub(super) fn age_ms(&self) -> u64 {
        u64::try_from(self.submitted.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_and_a_long_table_is_not() {
        let circle = |period: i32, n: i32| (0..n).map(|i| i % period).collect::<Vec<Token>>();
        assert_eq!(period(&circle(1, 192)), Some(1));
        assert_eq!(period(&circle(1, 191)), None);
        assert_eq!(period(&circle(7, 300)), Some(7));
        assert_eq!(period(&circle(64, 64 * 8)), Some(64));
        assert_eq!(period(&circle(64, 64 * 8 - 1)), None);
        // Rows that differ in one cell.
        let table: Vec<Token> = (0..600).map(|i| if i % 10 == 3 { i } else { i % 10 }).collect();
        assert_eq!(period(&table), None);
        // It went round, and went on.
        let over = [circle(3, 400), vec![99]].concat();
        assert_eq!(period(&over), None);
        assert_eq!(period(&[]), None);
    }
}
