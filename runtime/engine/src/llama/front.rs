//! The front thread: conversations to tokens, before they reach the actor.
//!
//! Templates and tokenisers are CPU work of some milliseconds; here they delay neither the async reactor nor a decode step.
//! What cannot be served is refused here, before any prefill.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Shared,
    actor::{Command, Prepared},
    chat::Chat,
    constraint::{ActiveConstraint, ConstraintFactory, call_grammar},
    model::Model,
};
use crate::{
    api::{Constraint, EngineError, Event, MAX_LOGPROBS, Prompt, Request, RequestId, Sampling, Token, ToolChoice},
    output::OutputParser,
};

/// Stop strings of one request, and bytes of each.
const MAX_STOPS: usize = 32;
const MAX_STOP_BYTES: usize = 1024;

/// What the front is asked.
#[derive(Debug)]
pub(super) enum Question {
    Submit {
        id: RequestId,
        request: Box<Request>,
        events: mpsc::Sender<Event>,
        armed: Arc<AtomicBool>,
        submitted: Instant,
    },
    Tokenize {
        prompt: Prompt,
        reply: oneshot::Sender<Result<Vec<Token>, EngineError>>,
    },
    Detokenize {
        tokens: Vec<Token>,
        reply: oneshot::Sender<Result<String, EngineError>>,
    },
    Embed {
        texts: Vec<String>,
        reply: oneshot::Sender<Result<Vec<Vec<f32>>, EngineError>>,
    },
}

pub(super) struct Front {
    model: Arc<Model>,
    chat: Option<Chat>,
    n_ctx: u32,
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
    constraints: Option<ConstraintFactory>,
}

impl Front {
    pub(super) fn new(
        model: Arc<Model>,
        chat: Option<Chat>,
        n_ctx: u32,
        commands: mpsc::UnboundedSender<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { model, chat, n_ctx, commands, shared, constraints: None }
    }

    /// Answers questions until the engine is dropped.
    pub(super) fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        while let Some(question) = questions.blocking_recv() {
            match question {
                Question::Submit { id, request, events, armed, submitted } => {
                    // The reader may have gone while the request waited here.
                    let prepared = if events.is_closed() {
                        Err(EngineError::Stopped)
                    } else {
                        self.prepare(id, *request, events.clone(), armed, submitted)
                    };
                    match prepared {
                        Ok(prepared) => {
                            // A stopped actor still owes the reader a last event.
                            if self.commands.send(Command::Run(Box::new(prepared))).is_err() {
                                let _ = events.try_send(Event::Done(Err(EngineError::Stopped)));
                            }
                        }
                        Err(error) => {
                            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                            let _ = events.try_send(Event::Done(Err(error)));
                        }
                    }
                }
                Question::Tokenize { prompt, reply } => {
                    let _ = reply.send(self.tokens(&prompt, Start::Free).map(|(tokens, _)| tokens));
                }
                Question::Detokenize { tokens, reply } => {
                    let text = known(&tokens, &self.model).map(|()| {
                        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.model.piece(*token, true)).collect();
                        String::from_utf8_lossy(&bytes).into_owned()
                    });
                    let _ = reply.send(text);
                }
                Question::Embed { texts, reply } => {
                    let tokens: Result<Vec<_>, _> =
                        texts.iter().map(|text| self.model.tokenize(text, true, false)).collect();
                    match tokens {
                        Ok(tokens) => {
                            let _ = self.commands.send(Command::Embed(tokens, reply));
                        }
                        Err(error) => {
                            let _ = reply.send(Err(error));
                        }
                    }
                }
            }
        }
    }

    fn prepare(
        &mut self,
        id: RequestId,
        request: Request,
        events: mpsc::Sender<Event>,
        armed: Arc<AtomicBool>,
        submitted: Instant,
    ) -> Result<Prepared, EngineError> {
        check_sampling(&request.sampling, &self.model)?;
        check_stops(&request.stop)?;
        if let Some(n) = request.logprobs.filter(|&n| n > MAX_LOGPROBS) {
            return Err(EngineError::InvalidRequest(format!(
                "{n} alternatives to each token are asked for, at most {MAX_LOGPROBS} are given"
            )));
        }
        let forced_call = self.forced_call(&request.prompt)?;
        let start = match (&request.constraint, &forced_call) {
            (Some(_), Some(_)) => {
                return Err(EngineError::InvalidRequest(
                    "a constraint and a required tool call cannot hold at once; drop one of them".into(),
                ));
            }
            (Some(_), None) => Start::Answer,
            (None, Some(_)) => Start::Call,
            (None, None) => Start::Free,
        };
        let (tokens, opened) = self.tokens(&request.prompt, start)?;
        if tokens.is_empty() {
            return Err(EngineError::InvalidRequest("the prompt is empty".into()));
        }
        let prompt_tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let max_tokens =
            if request.max_tokens == 0 { self.n_ctx.saturating_sub(prompt_tokens).max(1) } else { request.max_tokens };
        if prompt_tokens.saturating_add(max_tokens) > self.n_ctx {
            return Err(EngineError::ContextOverflow { prompt_tokens, max_tokens, n_ctx: self.n_ctx });
        }
        let constraint = match request.constraint.as_ref().or(forced_call.as_ref()) {
            Some(constraint) => Some(self.compile(constraint)?),
            None => None,
        };
        let parser = match (request.prompt, &self.chat) {
            (Prompt::Chat { tools, tool_choice, .. }, Some(chat)) => {
                let offered = if tool_choice == ToolChoice::None { Vec::new() } else { tools };
                OutputParser::new(chat.formats, offered, opened, id.0)
            }
            _ => OutputParser::plain(),
        };
        Ok(Prepared {
            id,
            session: request.session,
            tokens,
            max_tokens,
            stop: request.stop,
            sampling: request.sampling,
            constraint,
            parser,
            ignore_eos: request.ignore_eos,
            class: request.class,
            reuse: request.reuse,
            logprobs: request.logprobs,
            thinking_tokens: request.thinking_tokens,
            stops_repetition: request.stop_repetition && !request.ignore_eos,
            events,
            armed,
            submitted,
        })
    }

    fn compile(&mut self, constraint: &Constraint) -> Result<ActiveConstraint, EngineError> {
        let factory = match self.constraints.take() {
            Some(factory) => factory,
            None => ConstraintFactory::new(&self.model)?,
        };
        self.constraints.insert(factory).compile(constraint)
    }

    /// The call that the request requires, as a constraint.
    fn forced_call(&self, prompt: &Prompt) -> Result<Option<Constraint>, EngineError> {
        match (prompt, &self.chat) {
            (Prompt::Chat { tools, tool_choice, .. }, Some(chat)) => {
                call_grammar(chat.formats.calls, tools, tool_choice, &chat.controls)
            }
            _ => Ok(None),
        }
    }

    /// The prompt's tokens, and whether it ends inside reasoning.
    fn tokens(&self, prompt: &Prompt, start: Start) -> Result<(Vec<Token>, bool), EngineError> {
        match prompt {
            Prompt::Chat { messages, tools, tool_choice, template: variables } => {
                let Some(chat) = &self.chat else {
                    return Err(EngineError::Unsupported(
                        "the model brings no usable chat template; send a text prompt instead".into(),
                    ));
                };
                let offered: &[_] = if *tool_choice == ToolChoice::None { &[] } else { tools };
                let mut rendered = chat.template.render(messages, offered, variables)?;
                let reasoning = chat.formats.reasoning;
                let mut opened = rendered.ends_with(reasoning.open);
                // A grammar holds from the first token on, so nothing may come before the answer.
                if start != Start::Free && opened {
                    rendered.push(&format!("\n{}\n\n", reasoning.close));
                    opened = false;
                } else if start == Start::Answer && chat.formats.has_headers() {
                    rendered.push("<|channel|>final<|message|>");
                }
                let mut tokens = Vec::new();
                for (index, piece) in rendered.0.iter().enumerate() {
                    let add_special = index == 0 && !chat.template.adds_bos(piece);
                    tokens.extend(self.model.tokenize(piece, add_special, true)?);
                }
                Ok((tokens, opened))
            }
            Prompt::Text(text) => Ok((self.model.tokenize(text, true, false)?, false)),
            Prompt::Tokens(tokens) => known(tokens, &self.model).map(|()| (tokens.clone(), false)),
        }
    }
}

/// Refuses tokens that are not in the vocabulary.
fn known(tokens: &[Token], model: &Model) -> Result<(), EngineError> {
    match tokens.iter().find(|token| !model.knows(**token)) {
        Some(token) => Err(EngineError::InvalidRequest(format!(
            "token {token} is not in the vocabulary of {} entries",
            model.n_vocab()
        ))),
        None => Ok(()),
    }
}

/// What the answer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Whatever the model says.
    Free,
    /// The answer itself.
    Answer,
    /// A call.
    Call,
}

fn check_sampling(sampling: &Sampling, model: &Model) -> Result<(), EngineError> {
    let in_range = |name: &str, value: f32, low: f32, high: f32| {
        if value.is_finite() && (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(EngineError::InvalidRequest(format!("{name} is {value}, allowed is {low} to {high}")))
        }
    };
    in_range("temperature", sampling.temperature, 0.0, 5.0)?;
    in_range("top_p", sampling.top_p, 0.0, 1.0)?;
    in_range("min_p", sampling.min_p, 0.0, 1.0)?;
    in_range("repeat_penalty", sampling.repeat_penalty, 0.01, 10.0)?;
    in_range("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0)?;
    in_range("presence_penalty", sampling.presence_penalty, -2.0, 2.0)?;
    for &(token, bias) in &sampling.logit_bias {
        if !model.knows(token) {
            return Err(EngineError::InvalidRequest(format!(
                "logit_bias names token {token}, the vocabulary has {} entries",
                model.n_vocab()
            )));
        }
        if bias.is_nan() {
            return Err(EngineError::InvalidRequest(format!("the logit_bias of token {token} is not a number")));
        }
    }
    Ok(())
}

fn check_stops(stops: &[String]) -> Result<(), EngineError> {
    if stops.len() > MAX_STOPS {
        return Err(EngineError::InvalidRequest(format!("{} stop strings, at most {MAX_STOPS}", stops.len())));
    }
    match stops.iter().find(|stop| stop.len() > MAX_STOP_BYTES) {
        Some(stop) => {
            Err(EngineError::InvalidRequest(format!("a stop string of {} bytes, at most {MAX_STOP_BYTES}", stop.len())))
        }
        None => Ok(()),
    }
}
