//! One conversation: its history, which the host keeps, and its session in the engine, which comes when it is needed.
//!
//! The engine gets the whole history with every request and reuses what its session has already computed of it. So a
//! model may be unloaded between two requests, and nothing of a conversation is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use locara_engine::api::{Completion, EngineError, Message, Reply, Request, SessionId, SharedEngine};
use tokio::task::JoinHandle;

use super::convert::{engine_error, model_error};
use super::pump::Started;
use crate::bindings::types::Error;
use crate::models::Models;
use crate::usage::UsageGauge;

/// All conversations of one run, and what they share.
pub(crate) struct Conversations {
    app: Arc<str>,
    models: Arc<dyn Models>,
    usage: UsageGauge,
    /// Those that the guest still holds or that still answer; others are swept out when one is added.
    all: Mutex<Vec<Weak<Inner>>>,
}

impl Conversations {
    pub(crate) fn new(app: Arc<str>, models: Arc<dyn Models>, usage: UsageGauge) -> Arc<Self> {
        Arc::new(Self { app, models, usage, all: Mutex::default() })
    }

    pub(crate) fn usage(&self) -> &UsageGauge {
        &self.usage
    }

    /// Gives up the session of every conversation that is not answering. Returns how many that were.
    pub(crate) fn drop_caches(&self) -> u32 {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.iter().filter_map(Weak::upgrade).map(|conversation| u32::from(conversation.give_up())).sum()
    }

    fn add(&self, conversation: &Arc<Inner>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|conversation| conversation.strong_count() > 0);
        all.push(Arc::downgrade(conversation));
    }
}

/// The host's half of a `session` resource. Clones are the same conversation.
#[derive(Clone)]
pub(crate) struct Conversation(Arc<Inner>);

struct Inner {
    role: Arc<str>,
    run: Arc<Conversations>,
    history: Mutex<Vec<Message>>,
    /// An answer is being made.
    busy: AtomicBool,
    seat: Mutex<Option<Arc<Seat>>>,
    /// On its way from the parent's engine when this is a fork.
    forked: Mutex<Option<Opening>>,
}

impl Inner {
    /// Closes the session in the engine, or the one on its way, unless an answer is being made. A request that begins at
    /// the same time opens another.
    fn give_up(&self) -> bool {
        let mut seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner);
        let mut forked = self.forked.lock().unwrap_or_else(PoisonError::into_inner);
        !self.busy.load(Ordering::Acquire) && (seat.take().is_some() | forked.take().is_some())
    }
}

/// A session in an engine. Dropping it closes the session.
pub(super) struct Seat {
    pub(super) engine: SharedEngine,
    pub(super) id: SessionId,
    usage: UsageGauge,
    /// Tokens that it holds in KV, as the gauge knows them.
    tokens: AtomicU64,
}

impl Seat {
    /// Notes what an answer left in the session.
    pub(super) fn holds(&self, made: &Completion) {
        let tokens = u64::from(made.usage.prompt_tokens) + u64::from(made.usage.output_tokens);
        self.usage.session(self.tokens.swap(tokens, Ordering::Relaxed), tokens);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.engine.close(self.id);
        self.usage.session(*self.tokens.get_mut(), 0);
    }
}

/// A session that an engine was asked for. Who gives it up does not leak it: the task goes on, and closes what comes.
type Opening = JoinHandle<Result<Seat, EngineError>>;

fn opening(engine: SharedEngine, reply: Reply<SessionId>, usage: UsageGauge) -> Opening {
    tokio::spawn(async move {
        let id = reply.await.unwrap_or(Err(EngineError::Stopped))?;
        Ok(Seat { engine, id, usage, tokens: AtomicU64::new(0) })
    })
}

impl Conversation {
    /// An empty conversation. Nothing is loaded or asked of an engine yet.
    pub(super) fn new(role: Arc<str>, run: Arc<Conversations>) -> Self {
        Self::with(role, run, Vec::new(), None)
    }

    fn with(role: Arc<str>, run: Arc<Conversations>, history: Vec<Message>, forked: Option<Opening>) -> Self {
        let inner = Arc::new(Inner {
            role,
            run,
            history: Mutex::new(history),
            busy: AtomicBool::new(false),
            seat: Mutex::new(None),
            forked: Mutex::new(forked),
        });
        inner.run.add(&inner);
        Self(inner)
    }

    /// A second conversation with this history. Where the engine already knows this one, the KV cells are shared: the
    /// question goes into the engine's queue now, before anything that comes later on either conversation.
    pub(super) fn fork(&self) -> Self {
        let run = &self.0.run;
        let forked = self.seated();
        let forked = forked.map(|seat| opening(seat.engine.clone(), seat.engine.fork(seat.id), run.usage.clone()));
        let history = self.history().clone();
        Self::with(self.0.role.clone(), run.clone(), history, forked)
    }

    pub(super) fn role(&self) -> &Arc<str> {
        &self.0.role
    }

    pub(super) fn history(&self) -> MutexGuard<'_, Vec<Message>> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens that prompt and answer may take together: of the engine if it is there, else as planned.
    pub(super) fn context_tokens(&self) -> u32 {
        match self.seated() {
            Some(seat) => seat.engine.model().n_ctx,
            None => self.0.run.models.context_tokens(&self.0.role).unwrap_or(0),
        }
    }

    /// The model behind the role, loaded if need be.
    pub(super) async fn model(&self) -> Result<SharedEngine, Error> {
        match self.seated() {
            Some(seat) => Ok(seat.engine.clone()),
            None => {
                let run = &self.0.run;
                run.models.engine(&run.app, &self.0.role).await.map_err(model_error)
            }
        }
    }

    /// The session in the engine, if there is one and the engine is still there.
    fn seated(&self) -> Option<Arc<Seat>> {
        let mut seat = self.0.seat.lock().unwrap_or_else(PoisonError::into_inner);
        if seat.as_ref().is_some_and(|seat| seat.engine.is_gone()) {
            *seat = None;
        }
        seat.clone()
    }

    /// Submits a request to the engine. Only the holder of the [`Turn`] calls it.
    pub(super) async fn submit(&self, request: Request) -> Result<Started, Error> {
        let seat = self.seat().await?;
        let generation = seat.engine.submit(Request { session: Some(seat.id), ..request });
        Ok(Started { seat, generation })
    }

    /// The engine and the session in it, opened if need be.
    async fn seat(&self) -> Result<Arc<Seat>, Error> {
        if let Some(seat) = self.seated() {
            return Ok(seat);
        }
        let seat = Arc::new(self.open().await?);
        *self.0.seat.lock().unwrap_or_else(PoisonError::into_inner) = Some(seat.clone());
        Ok(seat)
    }

    /// After a failure that says that the engine or the session in it is gone: the next request opens a new one.
    pub(super) fn leave_if_gone(&self, error: &EngineError) {
        if matches!(error, EngineError::Stopped | EngineError::UnknownSession(_)) {
            *self.0.seat.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    async fn open(&self) -> Result<Seat, Error> {
        let forked = self.0.forked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(forked) = forked
            && let Ok(Ok(seat)) = forked.await
            && !seat.engine.is_gone()
        {
            return Ok(seat);
        }
        // Not a fork, or its parent was gone by then: the history is computed anew.
        let engine = self.model().await?;
        let reply = engine.open();
        let opened = opening(engine, reply, self.0.run.usage.clone()).await;
        let failed = |error| Err(EngineError::Failed(format!("opening a session ended unexpectedly: {error}")));
        opened.unwrap_or_else(failed).map_err(engine_error)
    }

    /// Begins an answer. `None` while another one is being made.
    pub(super) fn begin(&self) -> Option<Turn> {
        let free = self.0.busy.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        free.then(|| Turn(Some(self.clone())))
    }
}

/// The right to answer. The conversation is free again when it is released or dropped.
pub(super) struct Turn(Option<Conversation>);

impl Turn {
    /// Appends what was said and what was answered.
    pub(super) fn commit(&mut self, said: Vec<Message>, answer: Message) {
        if let Some(conversation) = &self.0 {
            let mut history = conversation.history();
            history.extend(said);
            history.push(answer);
        }
        self.release();
    }

    /// Leaves the history as it was.
    pub(super) fn release(&mut self) {
        if let Some(conversation) = self.0.take() {
            conversation.0.busy.store(false, Ordering::Release);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.release();
    }
}
