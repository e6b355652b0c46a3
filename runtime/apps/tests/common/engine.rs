//! An engine of known behaviour: token `i` of an answer to `n` messages is ` n.i`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locara_engine::api::{
    Completion, EVENT_QUEUE, Engine, EngineError, EngineMemory, EngineStats, Event, Generation, Message, ModelInfo,
    Prompt, Reply, Request, RequestId, SessionId, StopReason, Token, Usage,
};
use tokio::sync::{mpsc, oneshot, watch};

/// What an engine holds that a test waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    pub sessions: HashSet<u64>,
    pub running: HashSet<u64>,
}

/// See the module.
pub struct Scripted {
    info: ModelInfo,
    next: AtomicU64,
    held: watch::Sender<Held>,
    cancelled: Arc<Mutex<HashSet<u64>>>,
    stopped: AtomicBool,
    gone: AtomicBool,
    /// Every request that came.
    pub requests: Mutex<Vec<Request>>,
    /// Requests fail with this after two tokens.
    pub fails: Mutex<Option<EngineError>>,
}

impl Scripted {
    pub fn new() -> Arc<Self> {
        let info = ModelInfo {
            name: "scripted".to_owned(),
            digest: "0123456789abcdef".to_owned(),
            architecture: "none".to_owned(),
            n_ctx: 2048,
            n_seq_max: 4,
            n_vocab: 1,
            n_embd: 2,
            has_chat_template: true,
            tool_format: "none".to_owned(),
            reasoning_format: "none".to_owned(),
        };
        Arc::new(Self {
            info,
            next: AtomicU64::new(1),
            held: watch::Sender::new(Held::default()),
            cancelled: Arc::default(),
            stopped: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            requests: Mutex::default(),
            fails: Mutex::default(),
        })
    }

    /// Unloads it: it says that it is gone.
    pub fn unload(&self) {
        self.stop();
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Stops it, as a crash would: nobody knows before the next request.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.held.borrow().sessions.len()
    }

    /// Waits until no request runs and no session is open. Fails the test instead of hanging it.
    pub async fn idle(&self) {
        let mut held = self.held.subscribe();
        let idle = held.wait_for(|held| *held == Held::default());
        let waited = tokio::time::timeout(Duration::from_secs(20), idle).await;
        assert!(waited.is_ok(), "the engine still holds {:?}", *self.held.borrow());
    }

    /// Waits until this many requests run.
    pub async fn running(&self, n: usize) {
        let mut held = self.held.subscribe();
        tokio::time::timeout(Duration::from_secs(20), held.wait_for(|held| held.running.len() == n))
            .await
            .unwrap()
            .unwrap();
    }

    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn opened(&self) -> Reply<SessionId> {
        if self.stopped.load(Ordering::Relaxed) {
            return answered(Err(EngineError::Stopped));
        }
        let id = self.id();
        self.held.send_modify(|held| {
            held.sessions.insert(id);
        });
        answered(Ok(SessionId(id)))
    }
}

fn answered<T>(value: Result<T, EngineError>) -> Reply<T> {
    let (sender, reply) = oneshot::channel();
    let _ = sender.send(value);
    reply
}

fn messages(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Chat { messages, .. } => messages.len(),
        Prompt::Text(_) | Prompt::Tokens(_) => 1,
    }
}

impl Engine for Scripted {
    fn model(&self) -> &ModelInfo {
        &self.info
    }
    fn memory(&self) -> EngineMemory {
        EngineMemory::default()
    }
    fn open(&self) -> Reply<SessionId> {
        self.opened()
    }
    fn fork(&self, _session: SessionId) -> Reply<SessionId> {
        self.opened()
    }
    fn close(&self, session: SessionId) {
        self.held.send_modify(|held| {
            held.sessions.remove(&session.0);
        });
    }

    fn submit(&self, request: Request) -> Generation {
        let id = self.id();
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let prompt_tokens = messages(&request.prompt);
        let max_tokens = request.max_tokens;
        self.requests.lock().unwrap().push(request);
        if self.stopped.load(Ordering::Relaxed) {
            let _ = sender.try_send(Event::Done(Err(EngineError::Stopped)));
            return Generation::new(RequestId(id), events);
        }
        self.held.send_modify(|held| {
            held.running.insert(id);
        });
        let (held, cancelled) = (self.held.clone(), self.cancelled.clone());
        let fails = self.fails.lock().unwrap().clone();
        tokio::spawn(async move {
            let mut text = String::new();
            let mut stop = StopReason::MaxTokens;
            let mut output_tokens = 0;
            for i in 0..max_tokens {
                if cancelled.lock().unwrap().contains(&id) {
                    stop = StopReason::Cancelled;
                    break;
                }
                if let (2, Some(error)) = (i, fails.clone()) {
                    let _ = sender.send(Event::Done(Err(error))).await;
                    held.send_modify(|held| {
                        held.running.remove(&id);
                    });
                    return;
                }
                let piece = format!(" {prompt_tokens}.{i}");
                text.push_str(&piece);
                if sender.send(Event::Text(piece)).await.is_err() {
                    break;
                }
                output_tokens += 1;
                tokio::task::yield_now().await;
            }
            let usage = Usage { prompt_tokens: prompt_tokens as u32, output_tokens, ..Usage::default() };
            let done = Completion { stop, usage, message: Message::assistant(text), tokens: Vec::new() };
            let _ = sender.send(Event::Done(Ok(done))).await;
            held.send_modify(|held| {
                held.running.remove(&id);
            });
        });
        Generation::new(RequestId(id), events)
    }

    fn cancel(&self, request: RequestId) {
        self.cancelled.lock().unwrap().insert(request.0);
    }
    fn tokenize(&self, prompt: Prompt) -> Reply<Vec<Token>> {
        answered(Ok(vec![0; messages(&prompt)]))
    }
    fn detokenize(&self, tokens: Vec<Token>) -> Reply<String> {
        answered(Ok("0".repeat(tokens.len())))
    }
    fn embed(&self, texts: Vec<String>) -> Reply<Vec<Vec<f32>>> {
        answered(Ok(texts.iter().map(|_| vec![1.0, 0.0]).collect()))
    }
    fn stats(&self) -> Reply<EngineStats> {
        answered(Ok(EngineStats::default()))
    }
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}
