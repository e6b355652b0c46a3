//! The scripted model: sessions with a history, a finite context, answers in pieces.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::script::{Ended, Question, Turn};
use super::world::World;
use crate::Error;
use crate::message::{Completion, Event, Message, Request, StopReason, Usage};

/// Characters of a token.
const TOKEN: usize = 4;
/// Tokens that the template adds to each message.
const TEMPLATE: usize = 4;

fn tokens_of_text(text: &str) -> usize {
    text.chars().count().div_ceil(TOKEN)
}

fn tokens_of<'m>(messages: impl IntoIterator<Item = &'m Message>) -> u32 {
    let tokens: usize = messages.into_iter().map(|message| TEMPLATE + tokens_of_text(&message.content)).sum();
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

type History = Rc<RefCell<Vec<Message>>>;

/// A conversation.
#[derive(Debug)]
pub(crate) struct SessionInWorld {
    world: Rc<World>,
    role: String,
    history: History,
}

impl SessionInWorld {
    pub(super) fn new(world: Rc<World>, role: &str) -> Self {
        Self { world, role: role.to_owned(), history: History::default() }
    }

    pub(crate) fn fork(&self) -> Self {
        let history = Rc::new(RefCell::new(self.history.borrow().clone()));
        Self { world: Rc::clone(&self.world), role: self.role.clone(), history }
    }

    pub(crate) fn rewind(&self, messages: u32) -> Result<(), Error> {
        if messages > self.length() {
            return Err(Error::InvalidRequest(format!(
                "cannot rewind to {messages} messages: the history has {}",
                self.length()
            )));
        }
        self.history.borrow_mut().truncate(messages as usize);
        Ok(())
    }

    pub(crate) fn length(&self) -> u32 {
        u32::try_from(self.history.borrow().len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn context_tokens(&self) -> u32 {
        self.world.script.borrow().context_tokens
    }

    pub(crate) fn count_tokens(&self, messages: &[Message]) -> u32 {
        tokens_of(self.history.borrow().iter().chain(messages))
    }

    /// Texts with the same letters are near each other; that is all a test needs.
    pub(crate) fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        let embed = |text: &String| {
            let mut vector = [f32::EPSILON; 26];
            for letter in text.bytes().filter(u8::is_ascii_alphabetic) {
                vector[usize::from(letter.to_ascii_lowercase() - b'a')] += 1.0;
            }
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter().map(|x| x / length).collect()
        };
        Ok(texts.iter().map(embed).collect())
    }

    pub(crate) fn generate(&self, request: &Request) -> (EventsInWorld, Result<Completion, Error>) {
        let prompt_tokens = self.count_tokens(&request.messages);
        let question = Question {
            role: self.role.clone(),
            history: self.history.borrow().clone(),
            request: request.clone(),
            prompt_tokens,
            ended: Ended::Running,
        };
        let index = self.world.happened.borrow().questions.len();
        let turn = match self.refusal(request, prompt_tokens) {
            Some(error) => Turn::refuse(error),
            None => self.world.turn(&question),
        };
        self.world.happened.borrow_mut().questions.push(question);
        self.world.change_budget_at(index + 1);

        let outcome = Answer::of(&turn, request, prompt_tokens);
        let events = EventsInWorld {
            world: Rc::clone(&self.world),
            index,
            history: Rc::clone(&self.history),
            asked: request.messages.clone(),
            pieces: outcome.pieces,
            said: Message { tool_calls: turn.tool_calls, ..Message::assistant("") },
            error: turn.error,
        };
        (events, outcome.completion)
    }

    /// What the real host refuses before it computes anything.
    fn refusal(&self, request: &Request, prompt_tokens: u32) -> Option<Error> {
        let max_tokens = request.max_tokens.unwrap_or(1);
        let context_tokens = self.context_tokens();
        if request.messages.is_empty() && self.length() == 0 {
            return Some(Error::InvalidRequest("there is nothing to answer: no messages and no history".into()));
        }
        (prompt_tokens.saturating_add(max_tokens) > context_tokens).then_some(Error::ContextOverflow {
            prompt_tokens,
            max_tokens,
            context_tokens,
        })
    }
}

/// What a turn comes to under the limits of a request.
struct Answer {
    pieces: VecDeque<Event>,
    completion: Result<Completion, Error>,
}

impl Answer {
    fn of(turn: &Turn, request: &Request, prompt_tokens: u32) -> Self {
        let mut left = request.max_tokens.map_or(usize::MAX, |tokens| tokens as usize);
        let mut stop = if turn.tool_calls.is_empty() { StopReason::End } else { StopReason::ToolCalls };
        let mut pieces = VecDeque::new();
        'turn: for event in &turn.events {
            let Event::Text(text) = event else {
                pieces.push_back(event.clone());
                continue;
            };
            let found = request.stop.iter().filter_map(|text_stop| Some((text.find(text_stop)?, text_stop))).min();
            let kept = found.map_or(text.as_str(), |(place, _)| &text[..place]);
            let characters: Vec<char> = kept.chars().collect();
            for token in characters.chunks(TOKEN) {
                if left == 0 {
                    stop = StopReason::MaxTokens;
                    break 'turn;
                }
                left -= 1;
                pieces.push_back(Event::Text(token.iter().collect()));
            }
            if let Some((_, text_stop)) = found {
                stop = StopReason::StopSequence(text_stop.clone());
                break;
            }
        }
        let usage = Usage {
            prompt_tokens,
            cached_tokens: 0,
            output_tokens: u32::try_from(pieces.len()).unwrap_or(u32::MAX),
            ttft: Duration::from_millis(1),
            total: Duration::from_millis(1 + pieces.len() as u64),
        };
        let completion = match &turn.error {
            Some(error) => Err(error.clone()),
            None => Ok(Completion {
                stop,
                usage,
                tool_calls: turn.tool_calls.clone(),
                model: "scripted@0".into(),
                extensions: Vec::new(),
            }),
        };
        Self { pieces, completion }
    }
}

/// An answer that is being made. Its end, or its drop, goes into the history and the report.
#[derive(Debug)]
pub(crate) struct EventsInWorld {
    world: Rc<World>,
    index: usize,
    history: History,
    asked: Vec<Message>,
    pieces: VecDeque<Event>,
    said: Message,
    error: Option<Error>,
}

impl EventsInWorld {
    pub(crate) fn next(&mut self) -> Option<Event> {
        let event = self.pieces.pop_front()?;
        if let Event::Text(text) = &event {
            self.said.content.push_str(text);
        }
        Some(event)
    }
}

impl Drop for EventsInWorld {
    fn drop(&mut self) {
        let ended = match self.error.take() {
            _ if !self.pieces.is_empty() => Ended::Cancelled,
            Some(error) => Ended::Failed(error),
            None => Ended::Answered,
        };
        // As in the real host: what was not answered to the end was never said.
        if ended == Ended::Answered {
            let mut history = self.history.borrow_mut();
            history.append(&mut self.asked);
            history.push(std::mem::replace(&mut self.said, Message::assistant("")));
        }
        // After the report the list is gone, and with it whoever could look.
        if let Some(question) = self.world.happened.borrow_mut().questions.get_mut(self.index) {
            question.ended = ended;
        }
    }
}
