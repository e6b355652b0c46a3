//! Conversations and the KV cells they keep warm.
//!
//! A session owns at most one llama.cpp sequence id: a working id while it answers, a resting id while it is idle (recurrent
//! models know working ids only). Idle sessions keep their cells until a request needs them; then the
//! state of the one that was used longest ago goes into the cache, and comes back from there with its next request. What
//! the cache has no place for is computed again.

use std::collections::HashMap;

use super::{cache::StateCache, context::Context};
use crate::api::{EngineError, SessionId, Token};

/// Sessions that may exist at once in one engine.
const MAX_SESSIONS: usize = 4096;

/// One conversation.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// What the cells of `seq` hold; empty without cells.
    pub(super) tokens: Vec<Token>,
    /// The sequence id, while warm.
    pub(super) seq: Option<i32>,
    /// A request of it is queued or running.
    pub(super) busy: bool,
    /// To be removed when its request ends.
    pub(super) closed: bool,
    /// It was opened for a request without a session: later requests of the same number may take it over.
    left_for: Option<u64>,
    last_used: u64,
}

/// Sessions that wait to be taken over; the one that was used longest ago is closed for the next.
const MAX_LEFT: usize = 64;
/// A beginning shorter than this is computed again: taking it over costs as much, tokens.
pub(super) const MIN_SHARED: usize = 16;

/// Tokens that two histories have in common at their beginnings.
pub(super) fn shared(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// All sessions of an engine, and its free sequence ids.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions: HashMap<SessionId, Session>,
    /// Ids that can be decoded.
    free_working: Vec<i32>,
    /// Ids under which cells can only be kept.
    free_resting: Vec<i32>,
    next_id: u64,
    clock: u64,
    /// What went out of the cells. A session with a saved state has no cells.
    pub(super) cache: StateCache,
}

impl Sessions {
    pub(super) fn new(context: &Context, cache: StateCache) -> Self {
        Self {
            sessions: HashMap::new(),
            free_working: context.working_ids().rev().collect(),
            free_resting: context.resting_ids().rev().collect(),
            next_id: 1,
            clock: 0,
            cache,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn open(&mut self) -> Result<SessionId, EngineError> {
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(EngineError::InvalidRequest(format!(
                "{MAX_SESSIONS} sessions are open; close some before opening more"
            )));
        }
        let id = SessionId(self.next_id);
        self.next_id += 1;
        self.sessions.insert(id, Session::default());
        Ok(id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Result<&mut Session, EngineError> {
        self.sessions.get_mut(&id).ok_or(EngineError::UnknownSession(id.0))
    }

    /// A second session over the same cells. Without a free sequence id, or when the cells of the first are gone, it starts
    /// cold.
    pub(super) fn fork(&mut self, id: SessionId, context: &mut Context) -> Result<SessionId, EngineError> {
        let parent = self.get_mut(id)?;
        if parent.busy {
            return Err(EngineError::SessionBusy(id.0));
        }
        let (seq, tokens) = (parent.seq, parent.tokens.clone());
        let child = self.open()?;
        let free = if context.is_recurrent() { &mut self.free_working } else { &mut self.free_resting };
        if let Some(from) = seq
            && let Some(to) = free.pop()
        {
            context.share(from, to);
            self.clock += 1;
            let last_used = self.clock;
            self.sessions.insert(child, Session { tokens, seq: Some(to), last_used, ..Session::default() });
        }
        Ok(child)
    }

    /// Lets a session that is about to answer `prompt` take over what an earlier request of the same number left: the idle
    /// session that begins most like the prompt, if the prompt goes on from most of it. Whatever it holds is then the
    /// session's own.
    pub(super) fn take_over(&mut self, id: SessionId, number: u64, prompt: &[Token]) {
        let has_none = |session: &Session| session.seq.is_none() && self.cache.tokens(id).is_none();
        if !self.sessions.get(&id).is_some_and(has_none) {
            return;
        }
        let left = |(id, session): (&SessionId, &Session)| {
            let idle = session.left_for == Some(number) && !session.busy && !session.closed;
            let held = if session.seq.is_some() { Some(session.tokens.as_slice()) } else { self.cache.tokens(*id) };
            let held = held.filter(|_| idle)?;
            let n = shared(held, prompt);
            // A conversation that another one merely begins like stays what it is.
            (n >= MIN_SHARED && 2 * n > held.len()).then_some((n, session.last_used, *id))
        };
        let Some((.., from)) = self.sessions.iter().filter_map(left).max() else { return };
        let Some(from_session) = self.sessions.remove(&from) else { return };
        self.cache.rename(from, id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.seq = from_session.seq;
            session.tokens = from_session.tokens;
            session.last_used = from_session.last_used;
        }
    }

    /// The warm idle session of the same number that begins most like the prompt, if what they share is worth it: its
    /// sequence id and how many tokens that are.
    pub(super) fn begins_alike(&self, except: SessionId, number: u64, prompt: &[Token]) -> Option<(i32, usize)> {
        self.sessions
            .iter()
            .filter(|(id, session)| **id != except && session.left_for == Some(number) && !session.busy)
            .filter_map(|(_, session)| Some((shared(&session.tokens, prompt), session.seq?)))
            .filter(|(n, _)| *n >= MIN_SHARED)
            .max()
            .map(|(n, seq)| (seq, n))
    }

    /// Ends a session now, or when its request has ended.
    pub(super) fn close(&mut self, id: SessionId, context: &mut Context) {
        match self.sessions.get_mut(&id) {
            Some(session) if session.busy => session.closed = true,
            Some(_) => {
                self.cache.forget(id);
                self.release(id, context);
                self.sessions.remove(&id);
            }
            None => {}
        }
    }

    /// Cells that idle sessions keep, `except` one. Cells that two sessions share count twice: the estimate is never too low.
    pub(super) fn idle_cells(&self, except: SessionId) -> usize {
        self.sessions.iter().filter(|(id, s)| **id != except && !s.busy).map(|(_, s)| s.tokens.len()).sum()
    }

    /// Sessions that hold cells or a saved state while no request of theirs is queued or running.
    pub(super) fn n_idle(&self) -> usize {
        let warm = self.sessions.values().filter(|s| !s.busy && !s.tokens.is_empty()).count();
        warm + self.cache.sessions().filter(|id| self.sessions.get(id).is_some_and(|s| !s.busy)).count()
    }

    /// Idle sessions with cells, the one that was used longest ago first.
    pub(super) fn idle(&self) -> Vec<SessionId> {
        let mut idle: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, s)| !s.busy && s.seq.is_some())
            .map(|(id, s)| (s.last_used, *id))
            .collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes the cells of the idle session that was used longest ago; its state goes into the cache. False if no idle
    /// session has any.
    pub(super) fn evict_one(&mut self, context: &mut Context, except: SessionId) -> bool {
        let Some(victim) = self.idle().into_iter().find(|id| *id != except) else { return false };
        let tokens = self.tokens(victim);
        if !tokens.is_empty()
            && let Some(state) = self.saved(victim, context)
        {
            self.cache.put(victim, tokens, state, true);
        }
        self.release(victim, context);
        true
    }

    /// Takes the cells of an idle session; its state goes to disk, or nowhere.
    pub(super) fn evict_to_disk(&mut self, id: SessionId, spill: bool, context: &mut Context) {
        let tokens = self.tokens(id);
        if spill
            && !tokens.is_empty()
            && let Some(state) = self.saved(id, context)
        {
            self.cache.put_on_disk(id, tokens, &state);
        }
        self.release(id, context);
    }

    /// Takes the cells of a session in the middle of an answer, which hold `tokens`. Its state goes to disk, where that is
    /// wanted and has room, or stays in memory.
    pub(super) fn park(&mut self, id: SessionId, tokens: &[Token], spill: bool, context: &mut Context) {
        if !tokens.is_empty()
            && let Some(state) = self.saved(id, context)
            && !(spill && self.cache.put_on_disk(id, tokens.to_vec(), &state))
        {
            self.cache.put(id, tokens.to_vec(), state, spill);
        }
        self.release(id, context);
    }

    /// Puts the saved state of a session, if there is one that is worth it, into its empty cells, and returns the tokens
    /// that they hold then. The state is used up. `useful` says how many of its tokens are wanted; `room` is the number of
    /// free cells.
    pub(super) fn restore(
        &mut self,
        id: SessionId,
        seq: i32,
        context: &mut Context,
        room: usize,
        useful: impl Fn(&[Token]) -> usize,
    ) -> Vec<Token> {
        let Some(tokens) = self.cache.tokens(id).map(<[Token]>::to_vec) else { return Vec::new() };
        let useful = useful(&tokens);
        // Recurrent state cannot be cut back: all or nothing.
        let wanted = useful > 0 && (useful == tokens.len() || !context.is_recurrent()) && tokens.len() <= room;
        if !wanted {
            self.cache.forget(id);
            return Vec::new();
        }
        match self.cache.take(id) {
            Some(state) if context.restore(seq, &state, tokens.len()) => tokens,
            Some(_) => {
                tracing::warn!(
                    session = id.0,
                    "llama.cpp does not take a saved state back; the session is computed again"
                );
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Every sequence of an idle session, with the number of tokens in its cells.
    pub(super) fn idle_seqs(&self) -> Vec<(SessionId, i32, usize)> {
        let idle = self.sessions.iter().filter(|(_, s)| !s.busy && !s.tokens.is_empty());
        idle.filter_map(|(id, s)| s.seq.map(|seq| (*id, seq, s.tokens.len()))).collect()
    }

    /// The cells of the session are gone, its sequence id is not.
    pub(super) fn lost_cells(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.tokens = Vec::new();
        }
    }

    fn tokens(&mut self, id: SessionId) -> Vec<Token> {
        self.sessions.get_mut(&id).map(|session| std::mem::take(&mut session.tokens)).unwrap_or_default()
    }

    fn saved(&self, id: SessionId, context: &mut Context) -> Option<Vec<u8>> {
        let seq = self.sessions.get(&id)?.seq?;
        let has_place = self.cache.has_place_for(context.state_bytes(seq) as u64);
        if has_place { context.save(seq) } else { None }
    }

    fn release(&mut self, id: SessionId, context: &mut Context) {
        if let Some(session) = self.sessions.get_mut(&id)
            && let Some(seq) = session.seq.take()
        {
            session.tokens = Vec::new();
            context.clear(seq);
            let working = context.working_ids().contains(&seq);
            if working { &mut self.free_working } else { &mut self.free_resting }.push(seq);
        }
    }

    /// A working id for the session. `None` while all of them are taken.
    pub(super) fn start(&mut self, id: SessionId, context: &mut Context) -> Option<i32> {
        let session = self.sessions.get_mut(&id)?;
        let old = session.seq;
        if old.is_some_and(|seq| context.working_ids().contains(&seq)) {
            return old;
        }
        let seq = self.free_working.pop()?;
        session.seq = Some(seq);
        match old {
            Some(old) => {
                context.rename(old, seq);
                self.free_resting.push(old);
            }
            None => session.tokens = Vec::new(),
        }
        Some(seq)
    }

    /// The answer of the session is complete: its cells take a resting id, so that the working one is free for others. If
    /// there is none left, another idle session gives way. Returns the id that it has then.
    pub(super) fn stand_back(&mut self, id: SessionId, context: &mut Context) -> Option<i32> {
        let old = self.sessions.get(&id)?.seq?;
        if context.is_recurrent() || !context.working_ids().contains(&old) {
            return Some(old);
        }
        if self.free_resting.is_empty() {
            self.evict_one(context, id);
        }
        let Some(seq) = self.free_resting.pop() else { return Some(old) };
        context.rename(old, seq);
        self.free_working.push(old);
        self.sessions.get_mut(&id)?.seq = Some(seq);
        Some(seq)
    }

    /// The request of the session has ended and left `tokens` in its cells.
    pub(super) fn rest(&mut self, id: SessionId, tokens: Vec<Token>, context: &mut Context) {
        self.stand_back(id, context);
        self.clock += 1;
        let now = self.clock;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.tokens = tokens;
            session.busy = false;
            session.last_used = now;
            if session.closed {
                self.close(id, context);
            }
        }
        let left = self.sessions.iter().filter(|(_, session)| session.left_for.is_some() && !session.busy);
        let mut left: Vec<_> = left.map(|(id, session)| (session.last_used, *id)).collect();
        left.sort_unstable();
        for (_, oldest) in &left[..left.len().saturating_sub(MAX_LEFT)] {
            self.close(*oldest, context);
        }
    }

    /// The session stays when its request has ended, for later requests of the same number.
    pub(super) fn leave_for(&mut self, id: SessionId, number: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.left_for = Some(number);
        }
    }

    /// The request of the session ended before it was admitted.
    pub(super) fn unqueue(&mut self, id: SessionId, context: &mut Context) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.busy = false;
            let leaves_nothing = session.left_for.is_some() && session.seq.is_none() && self.cache.tokens(id).is_none();
            if session.closed || leaves_nothing {
                self.close(id, context);
            }
        }
    }
}
