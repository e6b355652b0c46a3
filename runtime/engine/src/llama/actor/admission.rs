//! Admission: which request is next, and whether there are a place and cells for it.

use std::sync::atomic::Ordering;

use super::{Actor, Admit, Class, EngineError, Event, Prepared, Sequence, SessionId, Token, Waiting};
use crate::{
    api::{Completion, Message, Speaker, StopReason, Usage},
    llama::sessions::{MIN_SHARED, shared},
};

/// Interactive requests that may be admitted before a background request that waits. Then it is its turn.
const AGING: u32 = 8;

/// Askers whose last turn is remembered; more than can wait.
const MAX_TURNS: usize = 1024;

/// Who is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A request in the queue, by its place there.
    Waiting(usize),
    /// A parked request, by its place among the running ones.
    Parked(usize),
}

impl Actor {
    /// Puts a request into the queue, or refuses it.
    pub(super) fn enqueue(&mut self, prepared: Prepared) {
        match self.seat(&prepared) {
            Ok((session, ephemeral)) => self.waiting.push_back(Waiting { session, ephemeral, prepared }),
            Err(error) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                let _ = prepared.events.try_send(Event::Done(Err(error)));
            }
        }
    }

    /// The session of a new request, and whether it ends with it.
    fn seat(&mut self, prepared: &Prepared) -> Result<(SessionId, bool), EngineError> {
        if self.context.embeds() {
            return Err(EngineError::Unsupported("the model makes embeddings, not text".into()));
        }
        if self.context.is_lost() {
            return Err(self.lost());
        }
        if let Admit::Nothing { retry_after_ms } = self.throttle.admit {
            return Err(EngineError::Throttled { retry_after_ms });
        }
        let (id, ephemeral) = match prepared.session {
            Some(id) => (id, false),
            None => {
                let id = self.sessions.open()?;
                if let Some(number) = prepared.reuse {
                    self.sessions.leave_for(id, number);
                }
                (id, prepared.reuse.is_none())
            }
        };
        let session = self.sessions.get_mut(id)?;
        if session.busy {
            return Err(EngineError::SessionBusy(id.0));
        }
        session.busy = true;
        Ok((id, ephemeral))
    }

    /// Takes a request out of the queue; `Ok` means that it was cancelled.
    pub(super) fn drop_waiting(&mut self, at: usize, why: Result<(), EngineError>) {
        let Some(Waiting { session, ephemeral, prepared }) = self.waiting.remove(at) else { return };
        self.changed = true;
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

    /// Moves requests into the batch while places and cells last.
    pub(super) fn admit(&mut self) {
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.prepared.events.is_closed()) {
            self.drop_waiting(at, Ok(()));
        }
        while self.has_place() {
            let pool = self.context.kv_cells() as usize;
            let started = match self.next(pool) {
                Some(Next::Waiting(at)) => self.start(at),
                Some(Next::Parked(at)) => self.go_on(at),
                None => false,
            };
            if !started {
                return;
            }
            self.changed = true;
        }
    }

    /// Cells that the next request lacks in the pool; see [`crate::EngineStats::cells_wanted`].
    pub(super) fn cells_wanted(&self) -> u32 {
        let need = match self.next(usize::MAX) {
            Some(Next::Waiting(at)) => self.need(&self.waiting[at].prepared),
            Some(Next::Parked(at)) => self.running[at].reserved,
            None => return 0,
        };
        // Without a place it will not run beside the others.
        let beside = if self.has_place() { self.held_cells() } else { 0 };
        let wanted = u32::try_from(beside + need).unwrap_or(u32::MAX).min(self.loaded_cells);
        wanted.saturating_sub(self.context.kv_cells())
    }

    /// Cells that running requests hold or may still take.
    pub(super) fn held_cells(&self) -> usize {
        self.running.iter().map(Sequence::held_cells).sum()
    }

    fn has_place(&self) -> bool {
        let places = self.throttle.n_seq.map_or(self.options.n_seq_max, |n| n.min(self.options.n_seq_max));
        self.running.iter().filter(|s| s.is_active()).count() < places as usize
    }

    /// Interactive before background, parked before queued. Within a class those who ask take turns: whoever was admitted
    /// longest ago comes first, and one asker's requests in order of arrival. After [`AGING`] interactive requests it is the
    /// turn of a background request. What is larger than `pool` waits for a larger pool and holds up nobody.
    fn next(&self, pool: usize) -> Option<Next> {
        let of_class = |class| {
            let fits = |waiting: &Waiting| waiting.prepared.class == class && self.need(&waiting.prepared) <= pool;
            let candidates = self.waiting.iter().enumerate().filter(|(_, waiting)| fits(waiting));
            let turn = |waiting: &Waiting| self.turns.get(&waiting.prepared.reuse).copied().unwrap_or(0);
            candidates.min_by_key(|(at, waiting)| (turn(waiting), *at)).map(|(at, _)| Next::Waiting(at))
        };
        let interactive = of_class(Class::Interactive);
        let background = self.takes_background().then(|| {
            let parked = self.running.iter().enumerate().filter(|(_, s)| s.parked && !s.has_ended());
            let oldest = parked.filter(|(_, s)| s.reserved <= pool).min_by_key(|(_, s)| s.id);
            oldest.map(|(at, _)| Next::Parked(at)).or_else(|| of_class(Class::Background))
        });
        match (interactive, background.flatten()) {
            (Some(interactive), Some(background)) => {
                Some(if self.passed_over < AGING { interactive } else { background })
            }
            (interactive, background) => interactive.or(background),
        }
    }

    fn takes_background(&self) -> bool {
        self.throttle.admit == Admit::All && !self.background_held
    }

    /// Bound of the answer, as throttled now.
    fn max_tokens(&self, prepared: &Prepared) -> u32 {
        prepared.max_tokens.min(self.throttle.max_tokens.unwrap_or(u32::MAX).max(1))
    }

    /// Cells for prompt and longest answer.
    fn need(&self, prepared: &Prepared) -> usize {
        (prepared.tokens.len() + self.max_tokens(prepared) as usize).min(self.limits.n_ctx as usize)
    }

    /// Keeps the account of turns: one of `class` was admitted.
    fn took(&mut self, class: Class) {
        let somebody_waits = self.takes_background()
            && (self.waiting.iter().any(|waiting| waiting.prepared.class == Class::Background)
                || self.running.iter().any(|s| s.parked && !s.has_ended()));
        self.passed_over = if class == Class::Interactive && somebody_waits { self.passed_over + 1 } else { 0 };
    }

    /// Whoever this is comes after the others that wait.
    fn took_turn(&mut self, asker: Option<u64>) {
        self.turn += 1;
        // Those who neither wait nor run have no claim that must be remembered.
        if self.turns.len() >= MAX_TURNS {
            let waiting = &self.waiting;
            self.turns.retain(|asker, _| waiting.iter().any(|waiting| waiting.prepared.reuse == *asker));
        }
        self.turns.insert(asker, self.turn);
    }

    /// Admits a request of the queue. False if there is no room for it yet.
    fn start(&mut self, at: usize) -> bool {
        let (session, need) = (self.waiting[at].session, self.need(&self.waiting[at].prepared));
        if self.held_cells() + need > self.context.kv_cells() as usize {
            return false;
        }
        let prepared = &self.waiting[at].prepared;
        if let (Some(number), None) = (prepared.reuse, prepared.session) {
            // Before room is made: what is taken over need not give way, and is not counted twice.
            self.sessions.take_over(session, number, &prepared.tokens);
        }
        let Some(seq) = self.make_room(session, need) else { return false };
        let Some(Waiting { session, ephemeral, mut prepared }) = self.waiting.remove(at) else { return false };
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        prepared.max_tokens = self.max_tokens(&prepared);
        self.took(prepared.class);
        self.took_turn(prepared.reuse);
        let own = prepared.session.is_none().then_some(prepared.reuse).flatten();
        let n_past = match (self.reuse(session, seq, &prepared.tokens), own) {
            (0, Some(number)) => self.begin_alike(session, seq, number, &prepared.tokens),
            (n, _) => n,
        };
        match Sequence::new(prepared, session, ephemeral, seq, n_past, &self.model) {
            Some(sequence) => self.running.push(sequence),
            None => {
                // The reader is gone.
                self.context.clear(seq);
                self.sessions.rest(session, Vec::new(), &mut self.context);
                if ephemeral {
                    self.sessions.close(session, &mut self.context);
                }
            }
        }
        true
    }

    /// Lets a parked request go on where it was. False if there is no room for it yet.
    fn go_on(&mut self, at: usize) -> bool {
        let (session, need) = (self.running[at].session, self.running[at].reserved);
        let Some(seq) = self.make_room(session, need) else { return false };
        self.took(self.running[at].class);
        let room = self.free_cells(session);
        let sequence = &mut self.running[at];
        let computed = &sequence.tokens[..sequence.n_past];
        let all = |saved: &[Token]| if saved == computed { saved.len() } else { 0 };
        let held = self.sessions.restore(session, seq, &mut self.context, room, all);
        // What did not come back is computed again, the tokens of the answer too.
        sequence.n_past = held.len();
        sequence.seq = seq;
        sequence.parked = false;
        self.stats.restored_tokens += held.len() as u64;
        true
    }

    /// Frees cells and a working sequence id for a request, from idle sessions. `None` if running requests hold too many.
    fn make_room(&mut self, session: SessionId, need: usize) -> Option<i32> {
        let cells = self.context.kv_cells() as usize;
        let held = self.held_cells();
        if held + need > cells {
            return None;
        }
        while held + need + self.sessions.idle_cells(session) > cells {
            if !self.sessions.evict_one(&mut self.context, session) {
                return None;
            }
        }
        loop {
            let seq = self.sessions.start(session, &mut self.context);
            // Idle sessions of recurrent models keep working ids.
            if seq.is_some() || !self.context.is_recurrent() || !self.sessions.evict_one(&mut self.context, session) {
                return seq;
            }
        }
    }

    /// Cells that nobody but `session` has a claim to.
    fn free_cells(&self, session: SessionId) -> usize {
        let taken = self.held_cells() + self.sessions.idle_cells(session);
        (self.context.kv_cells() as usize).saturating_sub(taken)
    }

    /// Shares the cells of the session or running request of the same number that begins most like the prompt, and returns
    /// how many tokens that are.
    fn begin_alike(&mut self, session: SessionId, seq: i32, number: u64, prompt: &[Token]) -> usize {
        if self.context.is_recurrent() {
            // Its state is that of the end, and cannot be cut back to the part that is shared.
            return 0;
        }
        let running = self.running.iter().filter(|s| s.reuse == Some(number) && !s.parked && s.session != session);
        let running = running.map(|s| (s.seq, shared(&s.tokens[..s.n_past], prompt)));
        let idle = self.sessions.begins_alike(session, number, prompt);
        let most = prompt.len().saturating_sub(1);
        let Some((from, n)) = running.chain(idle).max_by_key(|(_, n)| *n).filter(|(_, n)| *n >= MIN_SHARED) else {
            return 0;
        };
        let n = n.min(most);
        self.context.share(from, seq);
        if self.context.truncate(seq, n) {
            return n;
        }
        self.context.clear(seq);
        0
    }

    /// Brings back what the session had computed, cuts it back to what the prompt shares with it, and returns how many
    /// tokens that is.
    fn reuse(&mut self, session: SessionId, seq: i32, prompt: &[Token]) -> usize {
        // The last prompt token is always computed: its logits are wanted.
        let shared = |held: &[Token]| shared(held, prompt).min(prompt.len().saturating_sub(1));
        let mut held = self.sessions.get_mut(session).map(|s| std::mem::take(&mut s.tokens)).unwrap_or_default();
        let restores = held.is_empty();
        if restores {
            let room = self.free_cells(session);
            held = self.sessions.restore(session, seq, &mut self.context, room, shared);
        }
        let mut keep = shared(&held);
        if keep < held.len() && !self.context.truncate(seq, keep) {
            self.context.clear(seq);
            keep = 0;
        }
        if restores {
            self.stats.restored_tokens += keep as u64;
        }
        keep
    }
}
