//! `inference`: conversations with the models behind the roles that the app was granted.
//!
//! The host keeps histories and KV state; an app holds handles. `generate` returns at once, every outcome comes through
//! its future. This module must never wait for a model inside a host call of the asynchronous world.

mod conversation;
mod convert;
mod pump;
mod synchronous;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures::FutureExt;
use locara_engine::api::{self, Prompt, Usage};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::{
    Access as StoreAccess, Destination, FutureReader, HasData, Resource, StreamProducer, StreamReader, StreamResult,
    VecBuffer,
};
use wasmtime::{Result, StoreContextMut};

use self::conversation::Conversation;
pub(crate) use self::conversation::Conversations;
use self::convert::{DEFAULT_MAX_TOKENS, engine_error};
use self::pump::{Effect, End, Pump, SharedPump, Start, lock};
use super::{Access, DeniedLog};
use crate::allow::Allowed;
use crate::bindings::inference as wit;
use crate::bindings::types::{Busy, Error};
use crate::report::TokenCounts;

/// Questions (`count-tokens`, `embed`) of one app that wait at once. Each may hold a host call's worth of text.
const MAX_QUESTIONS: usize = 8;
/// Texts in one `embed`.
const MAX_TEXTS: usize = 256;

/// The host's half of the `session` resource.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Session(Conversation);

/// The host's half of the `answer` resource of the synchronous world.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Answer(SharedPump);

/// What the app may ask of models.
pub(crate) struct InferencePolicy {
    pub(crate) allowed: Arc<Allowed>,
}

/// The models, and what the app has of them.
pub(crate) struct InferenceState {
    conversations: Arc<Conversations>,
    sessions: u32,
    generations: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl InferenceState {
    pub(crate) fn new(conversations: Arc<Conversations>, allowed: &Allowed) -> Self {
        Self {
            conversations,
            sessions: 0,
            generations: Arc::new(Semaphore::new(allowed.limits.generations as usize)),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            counters: Arc::default(),
        }
    }

    /// Counters that outlive the store: the last answers end when it is dropped.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

/// Work of models for one run.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    answers: AtomicU64,
    prompt: AtomicU64,
    cached: AtomicU64,
    output: AtomicU64,
    /// Microseconds; the first answer's, and the sum of all from first token to end.
    first_token_us: AtomicU64,
    decode_us: AtomicU64,
}

impl Counters {
    fn add(&self, usage: &Usage) {
        let micros = |ms: f64| (ms.max(0.0) * 1e3) as u64;
        // Only the first answer finds it unset; a time to the first token is never 0 µs.
        let _ = self.first_token_us.compare_exchange(0, micros(usage.ttft_ms), Relaxed, Relaxed);
        self.decode_us.fetch_add(micros(usage.total_ms - usage.ttft_ms), Relaxed);
        self.prompt.fetch_add(usage.prompt_tokens.into(), Relaxed);
        self.cached.fetch_add(usage.cached_tokens.into(), Relaxed);
        self.output.fetch_add(usage.output_tokens.into(), Relaxed);
    }

    pub(crate) fn counts(&self) -> TokenCounts {
        TokenCounts {
            answers: self.answers.load(Relaxed),
            prompt: self.prompt.load(Relaxed),
            cached: self.cached.load(Relaxed),
            output: self.output.load(Relaxed),
            first_token_ms: self.first_token_us.load(Relaxed) as f64 / 1e3,
            decode_ms: self.decode_us.load(Relaxed) as f64 / 1e3,
        }
    }
}

/// `inference` of one host call.
pub(crate) type InferenceAccess<'a> = Access<'a, InferenceState, InferencePolicy>;

/// Names [`InferenceAccess`] to wasmtime.
pub(crate) struct HasInference;

impl HasData for HasInference {
    type Data<'a> = InferenceAccess<'a>;
}

fn session_busy() -> Error {
    Error::Busy(Busy { retry_after_ms: 0, waiting: 1 })
}

impl InferenceAccess<'_> {
    fn denied(&self) -> &DeniedLog {
        &self.shared.denied
    }

    fn conversation(&self, session: &Resource<Session>) -> Result<Conversation> {
        Ok(self.shared.table.get(session)?.0.clone())
    }

    /// Puts a session into the table, within the app's limit.
    fn seat(&mut self, conversation: Conversation) -> Result<std::result::Result<Resource<Session>, Error>> {
        let limit = self.policy.allowed.limits.sessions;
        if self.state.sessions >= limit {
            return Ok(Err(Error::QuotaExceeded(format!(
                "{limit} sessions are open, which is all that `limits.sessions` allows; drop one first"
            ))));
        }
        let session = self.shared.table.push(Session(conversation))?;
        self.state.sessions += 1;
        Ok(Ok(session))
    }

    /// Makes the answer; everything that takes time happens when it is polled.
    fn answer(&mut self, session: &Resource<Session>, request: wit::Request) -> Result<SharedPump> {
        let conversation = self.conversation(session)?;
        let counters = self.state.counters.clone();
        Ok(match self.admit(&conversation, request) {
            Ok(start) => start,
            Err(error) => Pump::refused(error, counters),
        })
    }

    fn admit(&mut self, conversation: &Conversation, request: wit::Request) -> std::result::Result<SharedPump, Error> {
        let (said, ask) = convert::request(request)?;
        for tool in &ask.tools {
            self.policy.allowed.check_tool(&tool.name).map_err(|denied| self.denied().refuse(denied))?;
        }
        if said.is_empty() && conversation.history().is_empty() {
            return Err(Error::InvalidRequest(
                "the conversation is empty: a request needs at least one message".to_owned(),
            ));
        }
        let limit = self.policy.allowed.limits.generations;
        let place = self.state.generations.clone().try_acquire_owned().map_err(|_| {
            // The number is the app's own limit: it is free when the app reads one of its answers to the end.
            Error::Busy(Busy { retry_after_ms: 0, waiting: limit })
        })?;
        let turn = conversation.begin().ok_or_else(session_busy)?;
        let mut messages = conversation.history().clone();
        messages.extend(said.iter().cloned());
        let max_tokens = ask
            .max_tokens
            .or_else(|| self.policy.allowed.max_tokens(conversation.role()))
            .unwrap_or(DEFAULT_MAX_TOKENS);
        let request = api::Request {
            max_tokens,
            stop: ask.stop,
            sampling: ask.sampling,
            constraint: ask.constraint,
            class: convert::class(self.policy.allowed.class),
            ..api::Request::new(Prompt::Chat {
                messages,
                tools: ask.tools,
                tool_choice: ask.tool_choice,
                template: BTreeMap::new(),
            })
        };
        let talk = conversation.clone();
        let start: Start = Box::new(move || {
            let (talk, request) = (talk.clone(), request.clone());
            AbortOnDropHandle::new(tokio::spawn(async move { talk.submit(request).await }))
        });
        let effect = Effect { conversation: conversation.clone(), turn, said };
        Ok(Pump::new(start, effect, self.state.counters.clone(), place))
    }

    /// What `count-tokens` resolves to.
    fn count(
        &mut self,
        session: &Resource<Session>,
        messages: Vec<wit::Message>,
    ) -> Result<impl Future<Output = std::result::Result<u32, Error>> + Send + 'static> {
        let conversation = self.conversation(session)?;
        let place = self.state.questions.clone().try_acquire_owned();
        Ok(async move {
            let _place = place.map_err(|_| too_many_questions())?;
            let mut all = conversation.history().clone();
            all.extend(convert::messages(messages)?);
            let engine = conversation.model().await?;
            let prompt = api::Request::chat(all).prompt;
            reply(engine.tokenize(prompt)).await.map(|tokens| u32::try_from(tokens.len()).unwrap_or(u32::MAX))
        })
    }

    /// What `embed` resolves to.
    fn embeddings(
        &mut self,
        session: &Resource<Session>,
        texts: Vec<String>,
    ) -> Result<impl Future<Output = std::result::Result<Vec<Vec<f32>>, Error>> + Send + 'static> {
        let conversation = self.conversation(session)?;
        let place = self.state.questions.clone().try_acquire_owned();
        Ok(async move {
            let _place = place.map_err(|_| too_many_questions())?;
            if texts.len() > MAX_TEXTS {
                return Err(Error::InvalidRequest(format!("{} texts; at most {MAX_TEXTS} in one call", texts.len())));
            }
            reply(conversation.model().await?.embed(texts)).await
        })
    }
}

fn too_many_questions() -> Error {
    Error::Busy(Busy { retry_after_ms: 0, waiting: MAX_QUESTIONS as u32 })
}

async fn reply<T>(reply: api::Reply<T>) -> std::result::Result<T, Error> {
    match reply.await {
        Ok(answer) => answer.map_err(engine_error),
        Err(_) => Err(Error::Interrupted("the model was stopped".to_owned())),
    }
}

impl wit::Host for InferenceAccess<'_> {}

impl wit::HostSession for InferenceAccess<'_> {
    fn open(&mut self, role: String) -> Result<std::result::Result<Resource<Session>, Error>> {
        self.charge()?;
        match self.policy.allowed.check_role(&role) {
            Ok(()) => self.seat(Conversation::new(role.into(), self.state.conversations.clone())),
            Err(denied) => Ok(Err(self.denied().refuse(denied))),
        }
    }

    fn fork(&mut self, session: Resource<Session>) -> Result<std::result::Result<Resource<Session>, Error>> {
        self.charge()?;
        let conversation = self.conversation(&session)?;
        // The limit is checked before the engine is asked for anything.
        if self.state.sessions >= self.policy.allowed.limits.sessions {
            return self.seat(conversation);
        }
        self.seat(conversation.fork())
    }

    fn rewind(&mut self, session: Resource<Session>, messages: u32) -> Result<std::result::Result<(), Error>> {
        self.charge()?;
        let conversation = self.conversation(&session)?;
        let mut history = conversation.history();
        if messages as usize > history.len() {
            let length = history.len();
            return Ok(Err(Error::InvalidRequest(format!("cannot rewind to {messages} messages: there are {length}"))));
        }
        history.truncate(messages as usize);
        Ok(Ok(()))
    }

    fn length(&mut self, session: Resource<Session>) -> Result<u32> {
        self.charge()?;
        let length = self.conversation(&session)?.history().len();
        Ok(u32::try_from(length).unwrap_or(u32::MAX))
    }

    fn context_tokens(&mut self, session: Resource<Session>) -> Result<u32> {
        self.charge()?;
        Ok(self.conversation(&session)?.context_tokens())
    }

    fn drop(&mut self, session: Resource<Session>) -> Result<()> {
        self.shared.table.delete(session)?;
        self.state.sessions = self.state.sessions.saturating_sub(1);
        Ok(())
    }
}

impl<T: 'static> wit::HostSessionWithStore<T> for HasInference {
    fn generate(
        mut store: StoreAccess<'_, T, Self>,
        session: Resource<Session>,
        request: wit::Request,
    ) -> Result<(StreamReader<wit::Event>, FutureReader<std::result::Result<wit::Completion, Error>>)> {
        let mut access = store.get();
        access.charge()?;
        let pump = access.answer(&session, request)?;
        let events = StreamReader::new(&mut store, Events(pump.clone()))?;
        let outcome = std::future::poll_fn(move |cx| lock(&pump).poll_outcome(cx).map(Ok::<_, wasmtime::Error>));
        Ok((events, FutureReader::new(&mut store, outcome)?))
    }

    fn count_tokens(
        mut store: StoreAccess<'_, T, Self>,
        session: Resource<Session>,
        messages: Vec<wit::Message>,
    ) -> Result<FutureReader<std::result::Result<u32, Error>>> {
        let mut access = store.get();
        access.charge()?;
        let count = access.count(&session, messages)?;
        FutureReader::new(&mut store, count.map(Ok::<_, wasmtime::Error>))
    }

    fn embed(
        mut store: StoreAccess<'_, T, Self>,
        session: Resource<Session>,
        texts: Vec<String>,
    ) -> Result<FutureReader<std::result::Result<Vec<Vec<f32>>, Error>>> {
        let mut access = store.get();
        access.charge()?;
        let vectors = access.embeddings(&session, texts)?;
        FutureReader::new(&mut store, vectors.map(Ok::<_, wasmtime::Error>))
    }
}

/// The stream end of an answer.
struct Events(SharedPump);

impl<D> StreamProducer<D> for Events {
    type Item = wit::Event;
    type Buffer = VecBuffer<wit::Event>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, wit::Event, VecBuffer<wit::Event>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        let room = destination.remaining(&mut store).unwrap_or(api::EVENT_QUEUE).min(api::EVENT_QUEUE);
        let mut pump = lock(&self.0);
        match pump.poll_events(End::Stream, cx, room) {
            Poll::Ready(events) => {
                let result = if pump.at_end() { StreamResult::Dropped } else { StreamResult::Completed };
                if !events.is_empty() {
                    destination.set_buffer(events.into());
                }
                Poll::Ready(Ok(result))
            }
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        lock(&self.0).cancel();
    }
}
