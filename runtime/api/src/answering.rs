//! From a [`Wish`] to pieces of answers: what all dialects share while an engine works.
//!
//! An [`Answering`] owns its generations. Dropping it, as a body is dropped when its client goes away, cancels them within
//! one token. This module must never know a dialect.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use locara_engine::{
    EngineError, Event, Generation, Prompt, Reply, SharedEngine, StopReason, TokenLogprobs, ToolCall, Usage,
};

use crate::{
    Api,
    access::Caller,
    config::Defaults,
    fault::Fault,
    host::{Ask, ModelState, Refusal, Served},
    meters::{Outcome, Tracked},
    wish::Wish,
};

/// Names that are suggested for one that is not known.
const MAX_SUGGESTIONS: usize = 3;

/// A piece of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// The prompt is computed this far, in tokens.
    Prefill {
        done: u32,
        total: u32,
    },
    /// Text, and the tokens that it is made of if logprobs were asked for.
    Text(String, Vec<TokenLogprobs>),
    Thinking(String),
    Call(ToolCall),
    /// The last piece of an answer.
    End(Ending),
}

/// How an answer ended.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(crate) reason: Reason,
    pub(crate) usage: Usage,
    /// The whole length went into reasoning: there is no text.
    pub(crate) thinking_exhausted: bool,
    /// The bound that was reached is the context's, not the request's.
    pub(crate) context_exhausted: bool,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    End,
    MaxTokens,
    StopSequence(String),
    ToolCalls,
    /// It ran into a loop and was stopped.
    Repetition,
}

/// One of the answers.
struct Choice {
    /// `None` once it has ended.
    generation: Option<Generation>,
    /// It has called a tool and may not call another one: it was cancelled, and what still comes is not passed on.
    cut: bool,
    /// The bound was lowered to what the context leaves.
    shrunk: bool,
    /// Tokens whose text has not come yet.
    tokens: Vec<TokenLogprobs>,
    /// It said something beside its reasoning.
    spoke: bool,
}

/// Answers that are being made.
pub(crate) struct Answering {
    /// The physical model.
    pub(crate) model: String,
    /// Names the weights.
    pub(crate) fingerprint: String,
    engine: SharedEngine,
    wish: Wish,
    defaults: Defaults,
    caller: Caller,
    choices: Vec<Choice>,
    /// The answer to look at first, so that none waits for the others.
    turn: usize,
    /// How far the first prompt is computed, in tokens.
    pub(crate) progress: Option<(u32, u32)>,
    /// Pieces that came while [`Api::answer`] looked how it goes.
    early: VecDeque<(usize, Piece)>,
    tracked: Tracked,
}

/// All that was said, for clients that do not stream.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) thinking: String,
    pub(crate) calls: Vec<ToolCall>,
    /// Empty unless logprobs were asked for.
    pub(crate) tokens: Vec<TokenLogprobs>,
    /// There is one in what [`Answering::collect`] returns.
    pub(crate) ending: Option<Ending>,
}

impl Api {
    /// The engine of a model or role, or why there is none; an unknown name is answered with those that are like it.
    pub(crate) async fn engine(&self, caller: &Caller, model: &str) -> Result<Served, Fault> {
        let ask = Ask { model: model.to_owned(), client: caller.client.clone(), class: caller.class };
        match self.host().engine(ask).await {
            Ok(served) => Ok(served),
            Err(Refusal::Unknown(name)) => Err(self.unknown(&name).await),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// No model has this name; those that are like it are named.
    pub(crate) async fn unknown(&self, name: &str) -> Fault {
        let mut fault = Fault::from(Refusal::Unknown(name.to_owned()));
        fault.message.push_str(&match self.names_like(name).await.as_slice() {
            [] => "; no model is installed yet".to_owned(),
            some => format!("; there is {}", some.join(", ")),
        });
        fault
    }

    /// Models and roles that are there, those most like `wanted` first.
    async fn names_like(&self, wanted: &str) -> Vec<String> {
        let models = self.host().models().await.into_iter().filter(|model| model.state != ModelState::Disabled);
        let mut names: Vec<String> = models.flat_map(|model| [vec![model.name], model.roles].concat()).collect();
        names.sort_by_cached_key(|name| {
            let distance = strsim::damerau_levenshtein(&clipped(wanted), &clipped(name));
            (distance, name.clone())
        });
        names.dedup();
        names.truncate(MAX_SUGGESTIONS);
        names
    }

    /// Starts the answers, and waits until the first of them shows how it goes: a refusal then still has its own status.
    ///
    /// After `patience` it is taken to go well; a client that streams should not wait for long without a word.
    pub(crate) async fn answer(
        &self,
        caller: &Caller,
        model: &str,
        wish: Wish,
        patience: Option<Duration>,
    ) -> Result<Answering, Fault> {
        let mut wish = wish;
        let mut first_try = true;
        loop {
            let served = self.engine(caller, model).await?;
            let mut answering = Answering::start(self, served, caller, wish);
            match answering.settle(patience).await {
                Ok(()) => return Ok(answering),
                // The model was taken away between the question and the request: its name is resolved once more.
                Err(EngineError::Stopped) if first_try => {
                    first_try = false;
                    wish = answering.abandon();
                }
                Err(error) => return Err(answering.fail(error)),
            }
        }
    }
}

/// What an engine answers; one that stops first is said to have stopped.
pub(crate) async fn reply<T>(reply: Reply<T>) -> Result<T, Fault> {
    Ok(reply.await.unwrap_or(Err(EngineError::Stopped))?)
}

/// Tokens of a prompt, template included.
pub(crate) async fn count(served: &Served, prompt: Prompt) -> Result<u32, Fault> {
    let tokens = reply(served.engine.tokenize(prompt)).await?;
    Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX))
}

/// Names longer than this are like no other, and comparing them takes quadratic time.
fn clipped(name: &str) -> String {
    name.chars().take(128).collect::<String>().to_lowercase()
}

impl Answering {
    fn start(api: &Api, served: Served, caller: &Caller, wish: Wish) -> Self {
        let digest: String = served.engine.model().digest.chars().take(12).collect();
        let mut answering = Self {
            fingerprint: format!("fp_{digest}"),
            tracked: api.meters().track(&served.model, caller.class),
            model: served.model,
            engine: served.engine,
            defaults: api.config().defaults.clone(),
            caller: caller.clone(),
            choices: Vec::new(),
            turn: 0,
            progress: None,
            early: VecDeque::new(),
            wish,
        };
        for index in 0..answering.wish.answers() {
            let request = answering.wish.request(index, &answering.defaults, &answering.caller);
            answering.choices.push(Choice {
                generation: Some(answering.engine.submit(request)),
                cut: false,
                shrunk: false,
                tokens: Vec::new(),
                spoke: false,
            });
        }
        answering
    }

    async fn settle(&mut self, patience: Option<Duration>) -> Result<(), EngineError> {
        let first = match patience {
            None => self.next().await,
            Some(patience) => match tokio::time::timeout(patience, self.next()).await {
                Ok(first) => first,
                Err(_) => return Ok(()),
            },
        };
        match first {
            Some(Ok(piece)) => {
                self.early.push_back(piece);
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Gives the wish back.
    fn abandon(mut self) -> Wish {
        self.tracked.outcome(Outcome::Retried);
        self.wish
    }

    /// Counts the failure and says it to the client.
    pub(crate) fn fail(&mut self, error: EngineError) -> Fault {
        let fault = Fault::from(error);
        let ours = fault.kind.status().is_server_error();
        self.tracked.outcome(if ours { Outcome::Failed } else { Outcome::Refused });
        fault
    }

    /// The next piece of any answer, with the number of the answer. `None` after all have ended.
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, Piece), EngineError>> {
        if let Some(early) = self.early.pop_front() {
            return Some(Ok(early));
        }
        let _waiting = self.tracked.waiting();
        poll_fn(|context| {
            Self::poll(&mut self.choices, &mut self.turn, context, &mut |at, choice, event| {
                take(at, choice, event, &self.engine, &self.wish, &self.defaults, &self.caller)
            })
        })
        .await
        .inspect(|next| match next {
            Ok((_, Piece::End(ending))) => self.tracked.ended(ending),
            Ok((0, Piece::Prefill { done, total })) => self.progress = Some((*done, *total)),
            _ => {}
        })
    }

    fn poll(
        choices: &mut [Choice],
        turn: &mut usize,
        context: &mut Context<'_>,
        take: &mut impl FnMut(usize, &mut Choice, Event) -> Option<Result<Piece, EngineError>>,
    ) -> Poll<Option<Result<(usize, Piece), EngineError>>> {
        let n = choices.len();
        let mut open = false;
        for at in (0..n).map(|step| (*turn + step) % n) {
            let choice = &mut choices[at];
            while let Some(generation) = &mut choice.generation {
                open = true;
                let event = match generation.events.poll_recv(context) {
                    Poll::Pending => break,
                    Poll::Ready(None) => return Poll::Ready(Some(Err(EngineError::Stopped))),
                    Poll::Ready(Some(event)) => event,
                };
                if let Some(piece) = take(at, choice, event) {
                    *turn = at + 1;
                    return Poll::Ready(Some(piece.map(|piece| (at, piece))));
                }
            }
        }
        if open { Poll::Pending } else { Poll::Ready(None) }
    }

    /// Reads all answers to their ends.
    pub(crate) async fn collect(mut self) -> Result<Vec<Answer>, Fault> {
        let mut answers: Vec<Answer> = self.choices.iter().map(|_| Answer::default()).collect();
        while let Some(next) = self.next().await {
            let (at, piece) = match next {
                Ok(next) => next,
                Err(error) => return Err(self.fail(error)),
            };
            answers[at].push(piece);
        }
        Ok(answers)
    }
}

impl Answer {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Prefill { .. } => {}
            Piece::Text(text, tokens) => {
                self.text.push_str(&text);
                self.tokens.extend(tokens);
            }
            Piece::Thinking(text) => self.thinking.push_str(&text),
            Piece::Call(call) => self.calls.push(call),
            Piece::End(ending) => self.ending = Some(ending),
        }
    }

    /// How it ended. An answer without an end is a fault of ours: [`Answering::collect`] reads to it.
    pub(crate) fn ending(&self) -> Result<&Ending, Fault> {
        self.ending.as_ref().ok_or_else(|| Fault::internal("the answer has no end"))
    }
}

/// What an event means for its answer; `None` is nothing for the client.
fn take(
    at: usize,
    choice: &mut Choice,
    event: Event,
    engine: &SharedEngine,
    wish: &Wish,
    defaults: &Defaults,
    caller: &Caller,
) -> Option<Result<Piece, EngineError>> {
    let piece = match event {
        Event::Prefill { done, total } => Piece::Prefill { done, total },
        Event::Token(_) | Event::Text(_) | Event::Thinking(_) | Event::ToolCall(_) if choice.cut => return None,
        Event::Token(token) => {
            choice.tokens.push(token);
            return None;
        }
        Event::Text(text) => {
            choice.spoke |= !text.trim().is_empty();
            Piece::Text(text, std::mem::take(&mut choice.tokens))
        }
        // Only tokens of the text are told; those of reasoning, calls and the end of the turn go.
        Event::Thinking(text) => {
            choice.tokens.clear();
            Piece::Thinking(text)
        }
        Event::ToolCall(call) => {
            choice.tokens.clear();
            choice.spoke = true;
            if wish.one_call {
                choice.cut = true;
                // Its end still comes, with the counts.
                choice.generation.iter().for_each(|generation| engine.cancel(generation.id));
            }
            Piece::Call(call)
        }
        // The bound is what the client can bear, not what it needs: the prompt fits, so the answer gets the rest.
        Event::Done(Err(EngineError::ContextOverflow { prompt_tokens, n_ctx, .. }))
            if prompt_tokens < n_ctx && !choice.shrunk =>
        {
            choice.shrunk = true;
            let mut request = wish.request(at, defaults, caller);
            request.max_tokens = n_ctx - prompt_tokens;
            choice.generation = Some(engine.submit(request));
            return None;
        }
        Event::Done(Err(error)) => {
            choice.generation = None;
            return Some(Err(error));
        }
        Event::Done(Ok(completion)) => {
            choice.generation = None;
            let reason = match completion.stop {
                _ if choice.cut => Reason::ToolCalls,
                StopReason::End => Reason::End,
                StopReason::MaxTokens => Reason::MaxTokens,
                StopReason::StopSequence(stop) => Reason::StopSequence(stop),
                StopReason::ToolCalls => Reason::ToolCalls,
                StopReason::Repetition { .. } => Reason::Repetition,
                // Not by us: the host took the answer away.
                StopReason::Cancelled => return Some(Err(EngineError::Stopped)),
            };
            let usage = completion.usage;
            let thinking_exhausted = reason == Reason::MaxTokens && usage.thinking_tokens > 0 && !choice.spoke;
            let context_exhausted = reason == Reason::MaxTokens && choice.shrunk;
            Piece::End(Ending { reason, usage, thinking_exhausted, context_exhausted })
        }
    };
    Some(Ok(piece))
}
