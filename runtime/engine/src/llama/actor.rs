//! The actor: the one thread that owns the context.
//!
//! Each step takes one token of every sequence that decodes and fills the rest of the batch with prompt tokens
//! (continuous batching). A request is admitted only when its cells are free for prompt and longest answer together, so a
//! sequence never runs out of cells in the middle. A sequence whose reader does not read is left out of the batch; a
//! request that fails is taken out and its neighbours are computed again without it.
//!
//! [`admission`] says who is next, [`pool`] makes the pool of cells larger and smaller and gives memory back.

mod admission;
mod pool;

use std::{
    collections::{HashMap, VecDeque},
    ops::RangeInclusive,
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
    cache::StateCache,
    constraint::ActiveConstraint,
    context::{Context, DecodeError},
    embed,
    likely::Likely,
    log,
    model::Model,
    sequence::{Flow, Sequence},
    sessions::Sessions,
};
use crate::{
    api::{EngineError, EngineMemory, EngineStats, Event, RequestId, Sampling, SessionId, Token},
    output::OutputParser,
    reclaim::{Admit, Class, Reclaim, Reclaimed, Throttle},
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
    Reclaim(Reclaim, Instant, oneshot::Sender<Result<Reclaimed, EngineError>>),
    Resize(u32, oneshot::Sender<Result<EngineMemory, EngineError>>),
    Throttle(Throttle),
    Resume,
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
    pub(super) parser: OutputParser,
    pub(super) ignore_eos: bool,
    pub(super) class: Class,
    pub(super) reuse: Option<u64>,
    pub(super) logprobs: Option<u32>,
    pub(super) thinking_tokens: Option<u32>,
    pub(super) stops_repetition: bool,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) armed: Arc<AtomicBool>,
    pub(super) submitted: Instant,
}

/// Bounds that were fixed with the load.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Tokens that prompt and answer of one sequence may take together.
    pub(super) n_ctx: u32,
    /// Sizes that the pool may be given, in cells.
    pub(super) pool: RangeInclusive<u32>,
}

/// A request in the queue.
struct Waiting {
    session: SessionId,
    /// The session ends with the request.
    ephemeral: bool,
    prepared: Prepared,
}

pub(super) struct Actor {
    model: Arc<Model>,
    context: Context,
    options: LoadOptions,
    limits: Limits,
    /// The size of the pool at the load, cells.
    loaded_cells: u32,
    commands: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
    abort: Arc<AtomicBool>,
    sessions: Sessions,
    waiting: VecDeque<Waiting>,
    /// Requests in the batch, set aside, or parked.
    running: Vec<Sequence>,
    batch: Batch,
    throttle: Throttle,
    /// Background requests were parked and are not to go on yet.
    background_held: bool,
    /// Interactive requests admitted while a background request waited.
    passed_over: u32,
    /// When those who ask were admitted last, by [`Request::reuse`](crate::Request::reuse), counted in turns.
    turns: HashMap<Option<u64>, u64>,
    turn: u64,
    stats: EngineStats,
    /// The watchers have not heard of the last change.
    changed: bool,
    stopped: bool,
}

impl Actor {
    pub(super) fn new(
        model: Arc<Model>,
        context: Context,
        options: LoadOptions,
        limits: Limits,
        cache: StateCache,
        commands: mpsc::UnboundedReceiver<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        let abort = context.abort_flag();
        let sessions = Sessions::new(&context, cache);
        let batch = Batch::new(options.n_batch.max(options.n_seq_max) as usize);
        let loaded_cells = context.kv_cells();
        Self {
            model,
            context,
            options,
            limits,
            loaded_cells,
            commands,
            shared,
            abort,
            sessions,
            waiting: VecDeque::new(),
            running: Vec::new(),
            batch,
            throttle: Throttle::default(),
            background_held: false,
            passed_over: 0,
            turns: HashMap::new(),
            turn: 0,
            stats: EngineStats { kv_cells: loaded_cells, ..EngineStats::default() },
            changed: true,
            stopped: false,
        }
    }

    /// Works until it is told to stop or the handle is gone.
    pub(super) fn run(mut self) {
        log::expect_interrupts(&self.abort);
        while !self.stopped {
            // A cancel that raised the flag is in the queue by now; the flag is for the step after it.
            self.abort.store(false, Ordering::Relaxed);
            self.take_commands();
            self.flush();
            self.admit();
            self.publish();
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
        for waiting in self.waiting.drain(..) {
            let _ = waiting.prepared.events.try_send(Event::Done(Err(EngineError::Stopped)));
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
        let paused = self.is_paused();
        let command = {
            let running = self.running.iter().map(|sequence| {
                let sender = sequence.sender();
                if (sequence.parked || paused) && !sequence.is_blocked() {
                    async move { sender.closed().await }.boxed_local()
                } else {
                    // `reserve` also resolves, with an error, when the reader goes away.
                    async move { drop(sender.reserve().await) }.boxed_local()
                }
            });
            let waiting = self.waiting.iter().map(|waiting| waiting.prepared.events.closed().boxed_local());
            let readers: Vec<_> = running.chain(waiting).collect();
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
        self.changed = true;
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
                if let Some(at) = self.waiting.iter().position(|waiting| waiting.session == session) {
                    self.drop_waiting(at, Ok(()));
                }
                self.sessions.close(session, &mut self.context);
            }
            Command::Run(prepared) => self.enqueue(*prepared),
            Command::Cancel(request) => {
                if let Some(sequence) = self.running.iter_mut().find(|s| s.id == request) {
                    sequence.cancel();
                } else if let Some(at) = self.waiting.iter().position(|waiting| waiting.prepared.id == request) {
                    self.drop_waiting(at, Ok(()));
                }
            }
            Command::Embed(texts, reply) => {
                let result = if self.context.embeds() {
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
            Command::Reclaim(what, asked, reply) => {
                let result = self.reclaim(what, asked);
                // Who asked must not find older figures in the watch.
                self.publish();
                let _ = reply.send(result);
            }
            Command::Resize(kv_cells, reply) => {
                let result = self.resize(kv_cells);
                self.publish();
                let _ = reply.send(result);
            }
            Command::Throttle(throttle) => self.set_throttle(throttle),
            Command::Resume => self.background_held = false,
            Command::Stop => self.stopped = true,
        }
    }

    fn now(&self) -> EngineStats {
        let none = SessionId(0);
        let in_cells = self.running.iter().filter(|s| !s.parked).map(|s| s.n_past).sum::<usize>();
        let to_u32 = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let active = || self.running.iter().filter(|s| s.is_active());
        let background = || active().filter(|s| s.class == Class::Background);
        EngineStats {
            sessions: to_u32(self.sessions.len()),
            running: to_u32(active().count()),
            running_background: to_u32(background().count()),
            kv_cells_idle: self.idle_pool(),
            kv_cells_background: to_u32(background().map(|s| s.reserved).sum()),
            waiting: self.shared.waiting.load(Ordering::Relaxed),
            parked: to_u32(self.running.iter().filter(|s| s.parked && !s.has_ended()).count()),
            idle_sessions: to_u32(self.sessions.n_idle()),
            kv_cells_used: to_u32(self.sessions.idle_cells(none) + in_cells),
            kv_cells: self.context.kv_cells(),
            cells_wanted: self.cells_wanted(),
            prompt_cache_bytes: self.sessions.cache.memory_bytes(),
            spilled_bytes: self.sessions.cache.disk_bytes(),
            ..self.stats
        }
    }

    /// Tells the watchers, if something has changed that they want to hear of.
    fn publish(&mut self) {
        if std::mem::take(&mut self.changed) {
            self.shared.stats.send_replace(self.now());
        }
    }

    fn set_throttle(&mut self, throttle: Throttle) {
        self.throttle = throttle;
        self.context.set_threads(throttle.n_threads.map_or(self.options.n_threads, |n| n.min(self.options.n_threads)));
        if let Admit::Nothing { retry_after_ms } = throttle.admit {
            while !self.waiting.is_empty() {
                self.drop_waiting(0, Err(EngineError::Throttled { retry_after_ms }));
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.throttle.n_seq == Some(0)
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
                Flow::Blocked if sequence.has_ended() && !sequence.parked => {
                    // Its reader may take its time; the working id is for those who still compute.
                    if let Some(seq) = self.sessions.stand_back(sequence.session, &mut self.context) {
                        sequence.seq = seq;
                    }
                    at += 1;
                }
                Flow::Open | Flow::Blocked => at += 1,
            }
        }
    }

    fn retire(&mut self, at: usize) {
        let mut sequence = self.running.swap_remove(at);
        self.changed = true;
        self.stats.finished += 1;
        self.stats.tool_call_failures += sequence.tool_call_failures();
        self.shared.finished.fetch_add(1, Ordering::Relaxed);
        self.shared.busy_ms.fetch_add(sequence.age_ms(), Ordering::Relaxed);
        if sequence.parked {
            // It has no cells; its saved state stays that of the session.
            self.sessions.unqueue(sequence.session, &mut self.context);
        } else {
            sequence.tokens.truncate(sequence.n_past);
            self.sessions.rest(sequence.session, sequence.tokens, &mut self.context);
        }
        if sequence.ephemeral {
            self.sessions.close(sequence.session, &mut self.context);
        }
    }

    /// One batch for all sequences that can go on. False if there is none.
    fn step(&mut self) -> bool {
        if self.is_paused() {
            return false;
        }
        let ready: Vec<usize> = (0..self.running.len())
            .filter(|&at| self.running[at].is_active() && self.running[at].sender().capacity() > 0)
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
                self.stats.steps += 1;
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
        let throttled = self.throttle.n_batch.map_or(usize::MAX, |n| n as usize);
        let mut room = throttled.max(ready.len()).min(self.batch.room());
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
                let mut n = sequence.remaining().min(room);
                if prefill {
                    n = n.min(prefill_room);
                    prefill_room -= n;
                }
                room -= n;
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
        let likely = sequence.logprobs.and_then(|n| Some(Likely::of(self.context.logits(row)?, n as usize)));
        let forced = sequence.forced.pop_front();
        let drawn = match forced {
            Some(token) => {
                sequence.sampler.accept(token);
                Ok(token)
            }
            None => {
                if let Err(error) = mask(sequence, &mut self.context, row) {
                    return sequence.fail(error);
                }
                self.context.sample(&mut sequence.sampler, row)
            }
        };
        match drawn {
            Ok(token) => {
                self.stats.decoded += 1;
                if let Some(likely) = likely {
                    sequence.tell(likely.event(token, &self.model));
                }
                sequence.accept(token, forced.is_some(), &self.model);
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

/// Leaves only what the constraint of the sequence allows next, if it has one that holds by now.
fn mask(sequence: &mut Sequence, context: &mut Context, row: usize) -> Result<(), EngineError> {
    let Some(constraint) = sequence.constraint_now() else { return Ok(()) };
    match context.logits(row) {
        Some(logits) => constraint.mask(logits),
        None => Err(EngineError::Failed(format!("row {row} has no logits"))),
    }
}
