//! One conversation: its history, which the host keeps, and its session in the engine, which comes when it is needed.
//!
//! The engine gets the whole history with every request and reuses what its session has already computed of it. So a
//! model may be unloaded between two requests, and nothing of a conversation is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use locara_engine::api::{EngineError, Message, Reply, SessionId, SharedEngine};
use tokio::task::JoinHandle;

use super::convert::{engine_error, model_error};
use crate::bindings::types::Error;
use crate::models::Models;

/// The host's half of a `session` resource. Clones are the same conversation.
#[derive(Clone)]
pub(crate) struct Conversation(Arc<Inner>);

struct Inner {
    role: Arc<str>,
    models: Arc<dyn Models>,
    history: Mutex<Vec<Message>>,
    /// An answer is being made.
    busy: AtomicBool,
    seat: Mutex<Option<Arc<Seat>>>,
    /// On its way from the parent's engine when this is a fork.
    forked: Mutex<Option<Opening>>,
}

/// A session in an engine. Dropping it closes the session.
pub(super) struct Seat {
    pub(super) engine: SharedEngine,
    pub(super) id: SessionId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.engine.close(self.id);
    }
}

/// A session that an engine was asked for. Who gives it up does not leak it: the task goes on, and closes what comes.
type Opening = JoinHandle<Result<Seat, Error>>;

fn opening(engine: SharedEngine, reply: Reply<SessionId>) -> Opening {
    tokio::spawn(async move {
        match reply.await {
            Ok(Ok(id)) => Ok(Seat { engine, id }),
            Ok(Err(error)) => Err(engine_error(error)),
            Err(_) => Err(Error::Interrupted("the model was stopped".to_owned())),
        }
    })
}

impl Conversation {
    /// An empty conversation. Nothing is loaded or asked of an engine yet.
    pub(super) fn new(role: Arc<str>, models: Arc<dyn Models>) -> Self {
        Self::with(role, models, Vec::new(), None)
    }

    fn with(role: Arc<str>, models: Arc<dyn Models>, history: Vec<Message>, forked: Option<Opening>) -> Self {
        Self(Arc::new(Inner {
            role,
            models,
            history: Mutex::new(history),
            busy: AtomicBool::new(false),
            seat: Mutex::new(None),
            forked: Mutex::new(forked),
        }))
    }

    /// A second conversation with this history. Where the engine already knows this one, the KV cells are shared: the
    /// question goes into the engine's queue now, before anything that comes later on either conversation.
    pub(super) fn fork(&self) -> Self {
        let forked = self.seated().map(|seat| opening(seat.engine.clone(), seat.engine.fork(seat.id)));
        let history = self.history().clone();
        Self::with(self.0.role.clone(), self.0.models.clone(), history, forked)
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
            None => self.0.models.context_tokens(&self.0.role).unwrap_or(0),
        }
    }

    /// The model behind the role, loaded if need be.
    pub(super) async fn model(&self) -> Result<SharedEngine, Error> {
        match self.seated() {
            Some(seat) => Ok(seat.engine.clone()),
            None => self.0.models.engine(&self.0.role).await.map_err(model_error),
        }
    }

    fn seated(&self) -> Option<Arc<Seat>> {
        self.0.seat.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The engine and the session in it, opened if need be. Only the holder of the [`Turn`] calls it.
    pub(super) async fn seat(&self) -> Result<Arc<Seat>, Error> {
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
        {
            return Ok(seat);
        }
        // Not a fork, or its parent was gone by then: the history is computed anew.
        let engine = self.model().await?;
        let reply = engine.open();
        let opened = opening(engine, reply).await;
        opened.unwrap_or_else(|error| Err(Error::Internal(format!("opening a session failed: {error}"))))
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
