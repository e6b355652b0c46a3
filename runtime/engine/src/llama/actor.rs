//! The actor: the one thread that owns the context.
//!
//! Each step takes one token of every sequence that decodes and fills the rest of the batch with prompt tokens
//! (continuous batching). A request is admitted only when its cells are free for prompt and longest answer together, so a
//! sequence never runs out of cells in the middle. A sequence whose reader does not read is left out of the batch; a
//! request that fails is taken out and its neighbours are computed again without it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use futures::{FutureExt, future::select_all, pin_mut};
use tokio::sync::{mpsc, oneshot};

use super::{
    LoadOptions, Shared,
    batch::Batch,
    constraint::ActiveConstraint,
    context::{Context, DecodeError},
    embed,
    model::Model,
    sequence::{Flow, Sequence},
    sessions::Sessions,
};
use crate::api::{
    Completion, EngineError, EngineStats, Event, Message, RequestId, Sampling, SessionId, Speaker, StopReason, Token,
    Usage,
};

/// Prompt tokens in one step while other sequences decode: bounds the gap between their tokens.
const PREFILL_BESIDE_DECODE: usize = 128;

/// Embeddings asked for in one call.
pub(super) type Embeddings = Result<Vec<Vec<f32>>, EngineError>;

/// What the actor is told. The queue is unbounded in type and bounded in fact: submits and embeds come through the bounded
/// front, everything else is at most once per open session or running request.
#[derive(Debug)]
pub(super) enum Command {
    Open(oneshot::Sender<Result<SessionId, EngineError>>),
    Fork(SessionId, oneshot::Sender<Result<SessionId, EngineError>>),
    Close(SessionId),
    Run(Box<Prepared>),
    Cancel(RequestId),
    Embed(Vec<Vec<Token>>, oneshot::Sender<Embeddings>),
    Stats(oneshot::Sender<Result<EngineStats, EngineError>>),
    Stop,
}

/// A request as the front hands it over: checked, tokenised, within the context.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: RequestId,
    pub(super) session: Option<SessionId>,
    pub(super) tokens: Vec<Token>,
    pub(super) max_tokens: u32,
    pub(super) stop: Vec<String>,
    pub(super) sampling: Sampling,
    pub(super) constraint: Option<ActiveConstraint>,
    pub(super) offers_tools: bool,
    pub(super) splits_thinking: bool,
    pub(super) ignore_eos: bool,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) armed: Arc<AtomicBool>,
    pub(super) submitted: Instant,
}

pub(super) struct Actor {
    model: Arc<Model>,
    context: Context,
    options: LoadOptions,
    n_ctx: u32,
    embeddings: bool,
    commands: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
    abort: Arc<AtomicBool>,
    sessions: Sessions,
    waiting: VecDeque<(SessionId, bool, Prepared)>,
    running: Vec<Sequence>,
    batch: Batch,
    stats: EngineStats,
    stopped: bool,
}

impl Actor {
    pub(super) fn new(
        model: Arc<Model>,
        context: Context,
        options: LoadOptions,
        n_ctx: u32,
        commands: mpsc::UnboundedReceiver<Command>,
        shared: Arc<Shared>,
        embeddings: bool,
    ) -> Self {
        let abort = context.abort_flag();
        let sessions = Sessions::new(context.n_seq_ids());
        let batch = Batch::new(options.n_batch.max(options.n_seq_max) as usize);
        let stats = EngineStats { kv_cells: context.kv_cells(), ..EngineStats::default() };
        Self {
            model,
            context,
            options,
            n_ctx,
            embeddings,
            commands,
            shared,
            abort,
            sessions,
            waiting: VecDeque::new(),
            running: Vec::new(),
            batch,
            stats,
            stopped: false,
        }
    }

    /// Works until it is told to stop or the handle is gone.
    pub(super) fn run(mut self) {
        while !self.stopped {
            // A cancel that raised the flag is in the queue by now; the flag is for the step after it.
            self.abort.store(false, Ordering::Relaxed);
            self.take_commands();
            self.flush();
            self.admit();
            if !self.step() && !self.stopped {
                self.wait();
            }
        }
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Run(prepared) = command {
                let _ = prepared.events.try_send(Event::Done(Err(EngineError::Stopped)));
            }
        }
        for sequence in &mut self.running {
            sequence.fail(EngineError::Stopped);
            let _ = sequence.flush();
        }
        for (_, _, prepared) in self.waiting.drain(..) {
            let _ = prepared.events.try_send(Event::Done(Err(EngineError::Stopped)));
        }
    }

    fn take_commands(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.stopped = true;
                    return;
                }
            }
        }
    }

    /// Nothing can be computed: sleeps until a command comes or a reader makes room or goes away.
    fn wait(&mut self) {
        let command = {
            let readers: Vec<_> = self
                .running
                .iter()
                .map(|sequence| {
                    let sender = sequence.sender();
                    // `reserve` also resolves, with an error, when the reader goes away.
                    async move { drop(sender.reserve().await) }.boxed_local()
                })
                .collect();
            let commands = &mut self.commands;
            futures::executor::block_on(async {
                let next = commands.recv();
                pin_mut!(next);
                if readers.is_empty() {
                    return Some(next.await);
                }
                let ready = select_all(readers);
                match futures::future::select(next, ready).await {
                    futures::future::Either::Left((command, _)) => Some(command),
                    futures::future::Either::Right(_) => None,
                }
            })
        };
        match command {
            Some(Some(command)) => self.obey(command),
            Some(None) => self.stopped = true,
            None => {}
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open(reply) => {
                if let Err(Ok(orphan)) = reply.send(self.sessions.open()) {
                    self.sessions.close(orphan, &mut self.context);
                }
            }
            Command::Fork(session, reply) => {
                if let Err(Ok(orphan)) = reply.send(self.sessions.fork(session, &mut self.context)) {
                    self.sessions.close(orphan, &mut self.context);
                }
            }
            Command::Close(session) => {
                if let Some(sequence) = self.running.iter_mut().find(|s| s.session == session) {
                    sequence.cancel();
                }
                if let Some(at) = self.waiting.iter().position(|(id, ..)| *id == session) {
                    self.drop_waiting(at, Ok(()));
                }
                self.sessions.close(session, &mut self.context);
            }
            Command::Run(prepared) => self.enqueue(*prepared),
            Command::Cancel(request) => {
                if let Some(sequence) = self.running.iter_mut().find(|s| s.id == request) {
                    sequence.cancel();
                } else if let Some(at) = self.waiting.iter().position(|(.., p)| p.id == request) {
                    self.drop_waiting(at, Ok(()));
                }
            }
            Command::Embed(texts, reply) => {
                let result = if self.embeddings {
                    embed::embed(&mut self.context, &mut self.batch, &texts, self.options.n_seq_max)
                } else {
                    Err(EngineError::Unsupported(format!(
                        "{} makes text, not embeddings; give the role a model with a pooling type",
                        self.model.path().file_name().unwrap_or_default().to_string_lossy()
                    )))
                };
                let _ = reply.send(result);
            }
            Command::Stats(reply) => {
                let _ = reply.send(Ok(self.now()));
            }
            Command::Stop => self.stopped = true,
        }
    }

    fn now(&self) -> EngineStats {
        let none = SessionId(0);
        let used = self.sessions.idle_cells(none) + self.running.iter().map(|s| s.n_past).sum::<usize>();
        let to_u32 = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        EngineStats {
            sessions: to_u32(self.sessions.len()),
            running: to_u32(self.running.iter().filter(|s| !s.has_ended()).count()),
            waiting: self.shared.waiting.load(Ordering::Relaxed),
            kv_cells_used: to_u32(used),
            ..self.stats
        }
    }

    fn enqueue(&mut self, prepared: Prepared) {
        let refuse = |prepared: &Prepared, shared: &Shared, error| {
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
            let _ = prepared.events.try_send(Event::Done(Err(error)));
        };
        if self.embeddings {
            let error = EngineError::Unsupported("the model makes embeddings, not text".into());
            return refuse(&prepared, &self.shared, error);
        }
        let (session, ephemeral) = match prepared.session {
            Some(id) => (id, false),
            None => match self.sessions.open() {
                Ok(id) => (id, true),
                Err(error) => return refuse(&prepared, &self.shared, error),
            },
        };
        match self.sessions.get_mut(session) {
            Ok(state) if state.busy => refuse(&prepared, &self.shared, EngineError::SessionBusy(session.0)),
            Ok(state) => {
                state.busy = true;
                self.waiting.push_back((session, ephemeral, prepared));
            }
            Err(error) => refuse(&prepared, &self.shared, error),
        }
    }

    /// Takes a request out of the queue; `Ok` means that it was cancelled.
    fn drop_waiting(&mut self, at: usize, why: Result<(), EngineError>) {
        let Some((session, ephemeral, prepared)) = self.waiting.remove(at) else { return };
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        self.stats.finished += 1;
        let outcome = why.map(|()| Completion {
            stop: StopReason::Cancelled,
            usage: Usage {
                prompt_tokens: u32::try_from(prepared.tokens.len()).unwrap_or(u32::MAX),
                ..Usage::default()
            },
            message: Message::new(Speaker::Assistant, ""),
            tokens: Vec::new(),
        });
        let _ = prepared.events.try_send(Event::Done(outcome));
        self.sessions.unqueue(session, &mut self.context);
        if ephemeral {
            self.sessions.close(session, &mut self.context);
        }
    }

    /// Moves requests from the queue into the batch, in order, while places and cells last.
    fn admit(&mut self) {
        while let Some(at) = self.waiting.iter().position(|(.., prepared)| prepared.events.is_closed()) {
            self.drop_waiting(at, Ok(()));
        }
        while let Some((session, _, prepared)) = self.waiting.front() {
            let session = *session;
            let places = self.running.iter().filter(|s| !s.has_ended()).count();
            if places >= self.options.n_seq_max as usize {
                return;
            }
            let need = (prepared.tokens.len() + prepared.max_tokens as usize).min(self.n_ctx as usize);
            if !self.make_room(session, need) {
                return;
            }
            let Some(seq) = self.sessions.seq_for(session) else { return };
            let Some((session, ephemeral, prepared)) = self.waiting.pop_front() else { return };
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            let n_past = self.reuse(session, seq, &prepared.tokens);
            match Sequence::new(prepared, session, ephemeral, seq, n_past, &self.model) {
                Some(sequence) => self.running.push(sequence),
                None => self.sessions.rest(session, Vec::new(), &mut self.context),
            }
        }
    }

    /// Frees cells and a sequence id for a request, from idle sessions. False if running requests hold too many.
    fn make_room(&mut self, session: SessionId, need: usize) -> bool {
        let reserved: usize = self.running.iter().filter(|s| !s.has_ended()).map(|s| s.reserved).sum();
        let cells = self.context.kv_cells() as usize;
        if reserved + need > cells {
            return false;
        }
        while reserved + need + self.sessions.idle_cells(session) > cells {
            if !self.sessions.evict_one(&mut self.context, session) {
                return false;
            }
        }
        while self.sessions.seq_for(session).is_none() {
            if !self.sessions.evict_one(&mut self.context, session) {
                return false;
            }
        }
        true
    }

    /// Cuts the session's cells back to what the prompt shares with them and returns how many tokens that is.
    fn reuse(&mut self, session: SessionId, seq: i32, prompt: &[Token]) -> usize {
        let held = self.sessions.get_mut(session).map(|s| std::mem::take(&mut s.tokens)).unwrap_or_default();
        let shared = held.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // The last prompt token is always computed: its logits are wanted.
        let keep = shared.min(prompt.len() - 1);
        if keep == held.len() || self.context.truncate(seq, keep) {
            return keep;
        }
        self.context.clear(seq);
        0
    }

    /// Delivers events and retires what has ended.
    fn flush(&mut self) {
        let mut at = 0;
        while let Some(sequence) = self.running.get_mut(at) {
            if sequence.reader_is_gone() {
                sequence.cancel();
            }
            match sequence.flush() {
                Flow::Closed => self.retire(at),
                Flow::Open | Flow::Blocked => at += 1,
            }
        }
    }

    fn retire(&mut self, at: usize) {
        let mut sequence = self.running.swap_remove(at);
        self.stats.finished += 1;
        self.shared.finished.fetch_add(1, Ordering::Relaxed);
        self.shared.busy_ms.fetch_add(sequence.age_ms(), Ordering::Relaxed);
        sequence.tokens.truncate(sequence.n_past);
        self.sessions.rest(sequence.session, sequence.tokens, &mut self.context);
        if sequence.ephemeral {
            self.sessions.close(sequence.session, &mut self.context);
        }
    }

    /// One batch for all sequences that can go on. False if there is none.
    fn step(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.running.len())
            .filter(|&at| !self.running[at].has_ended() && self.running[at].sender().capacity() > 0)
            .collect();
        if ready.is_empty() {
            return false;
        }
        self.compute(&ready);
        self.flush();
        true
    }

    /// Computes the sequences at `ready` in one batch and takes one token for each that is due.
    fn compute(&mut self, ready: &[usize]) {
        self.fill(ready);
        match self.context.decode(&mut self.batch) {
            Ok(()) => {
                for &at in ready {
                    self.advance(at);
                }
            }
            Err(DecodeError::Aborted) => self.cut_back(ready),
            Err(error) => {
                self.cut_back(ready);
                let out_of_cells = error == DecodeError::NoCells;
                if out_of_cells && self.sessions.evict_one(&mut self.context, SessionId(0)) {
                    return;
                }
                if let [only] = ready {
                    let reason = match error {
                        DecodeError::NoCells => "no KV cells are left".to_owned(),
                        DecodeError::Invalid(reason) | DecodeError::Failed(reason) => reason,
                        DecodeError::Aborted => return,
                    };
                    self.running[*only].fail(EngineError::Failed(reason));
                } else {
                    // One of them is at fault: alone, the others go on.
                    for at in ready {
                        self.compute(std::slice::from_ref(at));
                    }
                }
            }
        }
    }

    /// Decoding sequences first, one token each; prompts share the rest of the batch in the order of arrival.
    fn fill(&mut self, ready: &[usize]) {
        self.batch.clear();
        for &at in ready {
            self.running[at].in_batch = 0;
            self.running[at].row = None;
        }
        let decoding = ready.iter().filter(|&&at| !self.running[at].in_prefill()).count();
        let mut prefill_room = if decoding > 0 { PREFILL_BESIDE_DECODE } else { usize::MAX };
        for prefill in [false, true] {
            for &at in ready {
                let sequence = &mut self.running[at];
                if sequence.in_prefill() != prefill {
                    continue;
                }
                let mut n = sequence.remaining().min(self.batch.room());
                if prefill {
                    n = n.min(prefill_room);
                    prefill_room -= n;
                }
                for offset in 0..n {
                    let index = sequence.n_past + offset;
                    let last = index + 1 == sequence.tokens.len();
                    let position = i32::try_from(index).unwrap_or(i32::MAX);
                    let row = self.batch.push(sequence.tokens[index], position, sequence.seq, last);
                    if last {
                        sequence.row = row;
                    }
                }
                sequence.in_batch = n;
            }
        }
    }

    /// The batch was computed: notes what is in the cells and draws the next token where logits came.
    fn advance(&mut self, at: usize) {
        let sequence = &mut self.running[at];
        let was_prefill = sequence.in_prefill();
        sequence.n_past += sequence.in_batch;
        if was_prefill {
            self.stats.prefilled += sequence.in_batch as u64;
            sequence.report_prefill();
        }
        let Some(row) = sequence.row.take() else { return };
        if let Some(constraint) = &mut sequence.constraint {
            let masked = match self.context.logits(row) {
                Some(logits) => constraint.mask(logits),
                None => Err(EngineError::Failed(format!("row {row} has no logits"))),
            };
            if let Err(error) = masked {
                return sequence.fail(error);
            }
        }
        match self.context.sample(&mut sequence.sampler, row) {
            Ok(token) => {
                self.stats.decoded += 1;
                sequence.accept(token, &self.model);
            }
            Err(DecodeError::Invalid(reason) | DecodeError::Failed(reason)) => {
                sequence.fail(EngineError::Failed(reason));
            }
            Err(DecodeError::Aborted | DecodeError::NoCells) => {}
        }
    }

    /// A batch was not computed as a whole: forgets the part of it that may be in the cells.
    fn cut_back(&mut self, ready: &[usize]) {
        for &at in ready {
            let sequence = &mut self.running[at];
            if !self.context.truncate(sequence.seq, sequence.n_past) {
                self.context.clear(sequence.seq);
                sequence.n_past = 0;
            }
        }
    }
}
