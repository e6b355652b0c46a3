//! One answer on its way from the engine to the guest.
//!
//! The guest holds two ends: the stream of events and the future of the outcome. Both poll the same [`Pump`], which reads
//! the engine's channel directly: no task and no queue in between. Whoever polls moves events on, so an outcome resolves
//! even when the last events were not read, and each end wakes the other.
//!
//! - The stream end is dropped → the engine is told to cancel; the outcome still resolves, with what was made.
//! - Both ends are dropped → the [`Pump`] is dropped, and with it the engine's channel, which cancels as well.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;
use locara_engine::api::{self, EVENT_QUEUE, EngineError, Generation, Message};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

use super::Counters;
use super::conversation::{Conversation, Seat, Turn};
use super::convert::{completion, engine_error, prefill_event, tool_call_event};
use crate::bindings::inference as wit;
use crate::bindings::types::Error;

/// Events that wait for the guest; as many again wait in the engine's channel.
const READY: usize = EVENT_QUEUE;

/// An admitted request.
pub(super) struct Started {
    pub(super) seat: Arc<Seat>,
    pub(super) generation: Generation,
}

/// The model is loaded, the session opened, the request submitted: by a task, so that it happens before anybody reads.
pub(super) type Starting = AbortOnDropHandle<Result<Started, Error>>;

/// Starts a request.
pub(super) type Start = Box<dyn Fn() -> Starting + Send>;

enum State {
    Starting(Starting),
    Running(Started),
    Ended,
}

/// Which end polls.
#[derive(Clone, Copy)]
pub(super) enum End {
    Stream = 0,
    Outcome = 1,
}

/// What an answer does to its conversation when it ends.
pub(super) struct Effect {
    pub(super) conversation: Conversation,
    pub(super) turn: Turn,
    /// The messages of the request, for the history.
    pub(super) said: Vec<Message>,
}

/// See the module.
pub(crate) struct Pump {
    state: State,
    ready: VecDeque<wit::Event>,
    outcome: Option<Result<wit::Completion, Error>>,
    /// Nobody reads events any more.
    discard: bool,
    cancelled: bool,
    effect: Option<Effect>,
    /// For an engine that stops before it has said anything: the request is submitted once more. Gone with the first event.
    again: Option<Start>,
    tool_calls: u32,
    /// Pieces that were streamed, for the report of an answer that nobody waited for.
    pieces: u64,
    counters: Arc<Counters>,
    ends: Arc<Ends>,
    waker: Waker,
    _place: Option<OwnedSemaphorePermit>,
}

/// A pump that both ends share. The lock is held for one poll, never across an await.
pub(crate) type SharedPump = Arc<Mutex<Pump>>;

pub(super) fn lock(pump: &SharedPump) -> MutexGuard<'_, Pump> {
    pump.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wakers of both ends. The engine's channel remembers one waker: this one wakes both.
#[derive(Default)]
struct Ends([AtomicWaker; 2]);

impl Wake for Ends {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.iter().for_each(AtomicWaker::wake);
    }
}

impl Pump {
    /// An answer that begins when `start` has resolved.
    pub(super) fn new(
        start: Start,
        effect: Effect,
        counters: Arc<Counters>,
        place: OwnedSemaphorePermit,
    ) -> SharedPump {
        let pump = Self::with(State::Starting(start()), None, Some(effect), counters, Some(place));
        lock(&pump).again = Some(start);
        pump
    }

    /// A refusal: no events, the outcome at once.
    pub(super) fn refused(error: Error, counters: Arc<Counters>) -> SharedPump {
        Self::with(State::Ended, Some(Err(error)), None, counters, None)
    }

    fn with(
        state: State,
        outcome: Option<Result<wit::Completion, Error>>,
        effect: Option<Effect>,
        counters: Arc<Counters>,
        place: Option<OwnedSemaphorePermit>,
    ) -> SharedPump {
        let ends = Arc::new(Ends::default());
        Arc::new(Mutex::new(Self {
            state,
            ready: VecDeque::new(),
            outcome,
            discard: false,
            cancelled: false,
            effect,
            again: None,
            tool_calls: 0,
            pieces: 0,
            counters,
            waker: Waker::from(ends.clone()),
            ends,
            _place: place,
        }))
    }

    /// Up to `max` events that are ready, without waiting if there is one. Empty is the end.
    pub(super) fn poll_events(&mut self, end: End, cx: &mut Context<'_>, max: usize) -> Poll<Vec<wit::Event>> {
        self.advance(end, cx);
        if self.ready.is_empty() && !matches!(self.state, State::Ended) {
            return Poll::Pending;
        }
        let n = self.ready.len().min(max);
        let taken: Vec<_> = self.ready.drain(..n).collect();
        self.pieces += taken.len() as u64;
        Poll::Ready(taken)
    }

    /// Whether nothing will come after the events that are ready.
    pub(super) fn at_end(&self) -> bool {
        self.ready.is_empty() && matches!(self.state, State::Ended)
    }

    /// The outcome, once.
    pub(super) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<wit::Completion, Error>> {
        self.advance(End::Outcome, cx);
        match self.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None if matches!(self.state, State::Ended) => {
                Poll::Ready(Err(Error::InvalidRequest("the outcome of this answer was already taken".to_owned())))
            }
            None => Poll::Pending,
        }
    }

    /// From now on events are read and thrown away, so that the outcome comes without a reader.
    pub(super) fn discard_events(&mut self) {
        self.discard = true;
        self.ready.clear();
    }

    /// The reader went away.
    pub(super) fn cancel(&mut self) {
        if self.cancelled || matches!(self.state, State::Ended) {
            return;
        }
        self.cancelled = true;
        self.discard_events();
        // The conversation is free for the next request at once: the engine handles its messages in order.
        if let Some(effect) = &mut self.effect {
            effect.turn.release();
        }
        match &self.state {
            State::Starting(_) => self.end(Ok(cancelled_early())),
            State::Running(started) => started.seat.engine.cancel(started.generation.id),
            State::Ended => {}
        }
        self.ends.wake_by_ref();
    }

    /// Moves on as far as it goes without waiting.
    fn advance(&mut self, end: End, cx: &mut Context<'_>) {
        self.ends.0[end as usize].register(cx.waker());
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        loop {
            match &mut self.state {
                State::Ended => return,
                State::Starting(start) => match Pin::new(start).poll(&mut cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(Ok(started))) => {
                        self.counters.answers.fetch_add(1, Relaxed);
                        self.state = State::Running(started);
                    }
                    // While a request is on its way, only an engine that stopped interrupts it.
                    Poll::Ready(Ok(Err(Error::Interrupted(_)))) if self.again.is_some() => self.start_again(),
                    Poll::Ready(Ok(Err(error))) => self.end(Err(error)),
                    Poll::Ready(Err(error)) => self.end(Err(Error::Internal(format!("the request failed: {error}")))),
                },
                State::Running(_) if self.ready.len() >= READY => return,
                State::Running(started) => match started.generation.events.poll_recv(&mut cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(event)) => self.take(event),
                    Poll::Ready(None) => self.take(api::Event::Done(Err(EngineError::Stopped))),
                },
            }
        }
    }

    /// Submits the request once more, to the engine that the role resolves to now.
    fn start_again(&mut self) {
        if let Some(start) = self.again.take() {
            self.state = State::Starting(start());
        }
    }

    fn take(&mut self, event: api::Event) {
        if !matches!(event, api::Event::Done(_)) {
            self.again = None;
        }
        let event = match event {
            api::Event::Text(text) => wit::Event::Text(text),
            api::Event::Thinking(text) => wit::Event::Thinking(text),
            api::Event::Prefill { done, total } => prefill_event(done, total),
            // Apps cannot ask for it.
            api::Event::Token(_) => return,
            api::Event::ToolCall(call) => {
                self.tool_calls += 1;
                tool_call_event(self.tool_calls - 1, call)
            }
            api::Event::Done(outcome) => return self.done(outcome),
        };
        if !self.discard {
            self.ready.push_back(event);
        }
    }

    fn done(&mut self, outcome: Result<api::Completion, EngineError>) {
        let State::Running(started) = &self.state else { return };
        let label = started.seat.engine.model().label();
        match outcome {
            Ok(made) => {
                started.seat.holds(&made);
                self.counters.add(&made.usage);
                self.pieces = 0;
                let told = completion(&made, label);
                // A cancelled answer leaves the history as it was: the guest did not see all of it.
                if !self.cancelled
                    && made.stop != api::StopReason::Cancelled
                    && let Some(effect) = &mut self.effect
                {
                    effect.turn.commit(std::mem::take(&mut effect.said), made.message);
                }
                self.end(Ok(told));
            }
            Err(error) => {
                if let Some(effect) = &self.effect {
                    effect.conversation.leave_if_gone(&error);
                }
                if error == EngineError::Stopped && self.again.is_some() && !self.cancelled {
                    // It is one answer, however often it begins.
                    self.counters.answers.fetch_sub(1, Relaxed);
                    return self.start_again();
                }
                self.end(Err(engine_error(error)));
            }
        }
    }

    fn end(&mut self, outcome: Result<wit::Completion, Error>) {
        self.state = State::Ended;
        self.effect = None;
        self.again = None;
        self._place = None;
        self.outcome = Some(outcome);
        self.ends.wake_by_ref();
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let State::Running(_) = self.state {
            // Nobody waited for the usage: what was streamed is what is known.
            self.counters.output.fetch_add(self.pieces, Relaxed);
        }
    }
}

/// The outcome of an answer that was cancelled before the engine had it.
fn cancelled_early() -> wit::Completion {
    wit::Completion {
        stop: wit::StopReason::Cancelled,
        usage: wit::Usage { prompt_tokens: 0, cached_tokens: 0, output_tokens: 0, ttft_ms: 0.0, total_ms: 0.0 },
        tool_calls: Vec::new(),
        model: String::new(),
        extensions: Vec::new(),
    }
}
