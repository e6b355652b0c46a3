//! A loaded engine that can be taken away.
//!
//! Apps hold their engine for as long as a conversation lasts. A [`Tenure`] is what they get instead: while it lasts it
//! passes everything on; when the model has to go, what is being answered ends, nothing new begins, and then the engine is
//! dropped under everybody who still holds the tenure. They find it gone and ask for the role again.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use locara_engine::{
    Engine,
    api::{
        EngineError, EngineMemory, EngineStats, Event, Generation, ModelInfo, Prompt, Reply, Request, RequestId,
        SessionId, Token,
    },
    llama::LlamaEngine,
    reclaim::{Reclaim, Reclaimed, Throttle},
};
use tokio::sync::{mpsc, oneshot, watch};

/// See the module.
pub(crate) struct Tenure {
    model: ModelInfo,
    engine: Mutex<Option<Arc<LlamaEngine>>>,
    /// Nothing new begins.
    leaving: AtomicBool,
}

impl std::fmt::Debug for Tenure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenure").field("model", &self.model.label()).finish_non_exhaustive()
    }
}

impl Tenure {
    pub(crate) fn new(engine: LlamaEngine) -> Self {
        Self {
            model: engine.model().clone(),
            engine: Mutex::new(Some(Arc::new(engine))),
            leaving: AtomicBool::new(false),
        }
    }

    fn engine(&self) -> Option<Arc<LlamaEngine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing new begins from now on; resolves when the last answer has ended.
    pub(crate) async fn drain(&self) {
        self.leaving.store(true, Ordering::Release);
        let Some(mut stats) = self.engine().map(|engine| engine.watch()) else { return };
        // The channel closes when the engine stops by itself.
        let _ = stats.wait_for(|stats| stats.running == 0).await;
    }

    /// Takes requests again: [`Self::drain`] was for nothing.
    pub(crate) fn stay(&self) {
        self.leaving.store(false, Ordering::Release);
    }

    /// Drops the engine and all it holds. Requests that wait in its queue, or were taken out of the batch, hear that it
    /// stopped and are asked anew.
    pub(crate) async fn end(&self) {
        self.leaving.store(true, Ordering::Release);
        let Some(mut engine) = self.engine.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        // Dropping an engine waits for its threads.
        let dropped = tokio::task::spawn_blocking(move || {
            // Calls that are being passed on hold it for microseconds.
            while let Err(held) = Arc::try_unwrap(engine) {
                engine = held;
                std::thread::yield_now();
            }
        });
        if let Err(error) = dropped.await {
            tracing::error!(model = self.model.label(), %error, "an engine did not end");
        }
    }

    fn pass<T>(&self, call: impl FnOnce(&dyn Engine) -> Reply<T>) -> Reply<T> {
        match self.engine() {
            Some(engine) => call(&*engine),
            // A reply whose sender is gone is read as `Stopped`.
            None => oneshot::channel().1,
        }
    }
}

impl Engine for Tenure {
    fn model(&self) -> &ModelInfo {
        &self.model
    }
    fn memory(&self) -> EngineMemory {
        self.engine().map(|engine| engine.memory()).unwrap_or_default()
    }
    fn open(&self) -> Reply<SessionId> {
        self.pass(|engine| engine.open())
    }
    fn fork(&self, session: SessionId) -> Reply<SessionId> {
        self.pass(|engine| engine.fork(session))
    }
    fn close(&self, session: SessionId) {
        if let Some(engine) = self.engine() {
            engine.close(session);
        }
    }
    fn submit(&self, request: Request) -> Generation {
        match self.engine().filter(|_| !self.is_gone()) {
            Some(engine) => engine.submit(request),
            None => {
                let (events, receiver) = mpsc::channel(1);
                // The channel has room for one.
                let _ = events.try_send(Event::Done(Err(EngineError::Stopped)));
                Generation::new(RequestId(0), receiver)
            }
        }
    }
    fn cancel(&self, request: RequestId) {
        if let Some(engine) = self.engine() {
            engine.cancel(request);
        }
    }
    fn tokenize(&self, prompt: Prompt) -> Reply<Vec<Token>> {
        self.pass(|engine| engine.tokenize(prompt))
    }
    fn detokenize(&self, tokens: Vec<Token>) -> Reply<String> {
        self.pass(|engine| engine.detokenize(tokens))
    }
    fn embed(&self, texts: Vec<String>) -> Reply<Vec<Vec<f32>>> {
        self.pass(|engine| engine.embed(texts))
    }
    fn stats(&self) -> Reply<EngineStats> {
        self.pass(|engine| engine.stats())
    }
    fn watch(&self) -> watch::Receiver<EngineStats> {
        self.engine().map_or_else(|| watch::channel(EngineStats::default()).1, |engine| engine.watch())
    }
    fn reclaim(&self, what: Reclaim) -> Reply<Reclaimed> {
        self.pass(|engine| engine.reclaim(what))
    }
    fn resume(&self) {
        if let Some(engine) = self.engine() {
            engine.resume();
        }
    }
    fn resize(&self, kv_cells: u32) -> Reply<EngineMemory> {
        self.pass(|engine| engine.resize(kv_cells))
    }
    fn throttle(&self, throttle: Throttle) {
        if let Some(engine) = self.engine() {
            engine.throttle(throttle);
        }
    }
    fn is_gone(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }
}
