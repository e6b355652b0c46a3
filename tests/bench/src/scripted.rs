//! An engine without a model: every answer is `max_tokens` times the same word.

use std::sync::atomic::{AtomicU64, Ordering};

use locara_engine::{
    Completion, Engine, EngineError, EngineMemory, EngineStats, Event, Generation, Message, ModelInfo, Prompt, Reply,
    Request, RequestId, SessionId, StopReason, Token, Usage,
};
use tokio::sync::{mpsc, oneshot};

/// When the tokens of an answer come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All are there before the first is read: what is measured is the way, not the waiting.
    Ready,
    /// Each comes when the one before was taken, as from a model that is slower than its reader.
    Alone,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Scripted {
    info: ModelInfo,
    pace: Pace,
    next: AtomicU64,
}

impl Scripted {
    pub(crate) fn new(pace: Pace) -> Self {
        let info = ModelInfo {
            name: "scripted".to_owned(),
            digest: "0".repeat(64),
            architecture: "none".to_owned(),
            n_ctx: u32::MAX,
            n_seq_max: 1,
            n_vocab: 1,
            n_embd: 1,
            has_chat_template: true,
            tool_format: "none".to_owned(),
            reasoning_format: "none".to_owned(),
        };
        Self { info, pace, next: AtomicU64::new(1) }
    }

    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

fn answered<T>(value: Result<T, EngineError>) -> Reply<T> {
    let (sender, reply) = oneshot::channel();
    // The receiver is in our hands: it is there.
    let _ = sender.send(value);
    reply
}

fn token() -> Event {
    Event::Text(" token".to_owned())
}

fn done(output_tokens: u32) -> Event {
    Event::Done(Ok(Completion {
        stop: StopReason::MaxTokens,
        usage: Usage { output_tokens, ..Usage::default() },
        message: Message::assistant(""),
        tokens: Vec::new(),
    }))
}

impl Engine for Scripted {
    fn model(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self) -> EngineMemory {
        EngineMemory::default()
    }

    fn open(&self) -> Reply<SessionId> {
        answered(Ok(SessionId(self.id())))
    }

    fn fork(&self, _session: SessionId) -> Reply<SessionId> {
        self.open()
    }

    fn close(&self, _session: SessionId) {}

    fn submit(&self, request: Request) -> Generation {
        let n = request.max_tokens;
        let events = match self.pace {
            Pace::Ready => {
                let (sender, events) = mpsc::channel(n as usize + 1);
                // There is room for all of them.
                (0..n).for_each(|_| drop(sender.try_send(token())));
                drop(sender.try_send(done(n)));
                events
            }
            Pace::Alone => {
                let (sender, events) = mpsc::channel(1);
                tokio::spawn(async move {
                    for _ in 0..n {
                        if sender.send(token()).await.is_err() {
                            return;
                        }
                    }
                    drop(sender.send(done(n)).await);
                });
                events
            }
        };
        Generation::new(RequestId(self.id()), events)
    }

    fn cancel(&self, _request: RequestId) {}

    fn tokenize(&self, _prompt: Prompt) -> Reply<Vec<Token>> {
        answered(Ok(vec![0]))
    }

    fn detokenize(&self, _tokens: Vec<Token>) -> Reply<String> {
        answered(Ok(String::new()))
    }

    fn embed(&self, _texts: Vec<String>) -> Reply<Vec<Vec<f32>>> {
        answered(Err(EngineError::Unsupported("the scripted engine does not embed".to_owned())))
    }

    fn stats(&self) -> Reply<EngineStats> {
        answered(Ok(EngineStats::default()))
    }
}
