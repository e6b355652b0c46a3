//! Conversations and the KV cells they keep warm.
//!
//! A session owns at most one llama.cpp sequence id. Idle sessions keep their cells until a request needs them; then the
//! one that was used longest ago is dropped, and is computed again when it comes back.

use std::collections::HashMap;

use super::context::Context;
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
    last_used: u64,
}

/// All sessions of an engine, and its free sequence ids.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions: HashMap<SessionId, Session>,
    free_seqs: Vec<i32>,
    next_id: u64,
    clock: u64,
}

impl Sessions {
    pub(super) fn new(n_seq_ids: u32) -> Self {
        let free_seqs = (0..i32::try_from(n_seq_ids).unwrap_or(i32::MAX)).rev().collect();
        Self { sessions: HashMap::new(), free_seqs, next_id: 1, clock: 0 }
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

    /// A second session over the same cells. Without a free sequence id it starts cold.
    pub(super) fn fork(&mut self, id: SessionId, context: &mut Context) -> Result<SessionId, EngineError> {
        let parent = self.get_mut(id)?;
        if parent.busy {
            return Err(EngineError::SessionBusy(id.0));
        }
        let (seq, tokens) = (parent.seq, parent.tokens.clone());
        let child = self.open()?;
        if let (Some(from), Some(to)) = (seq, self.free_seqs.last().copied()) {
            self.free_seqs.pop();
            context.share(from, to);
            self.clock += 1;
            let last_used = self.clock;
            self.sessions.insert(child, Session { tokens, seq: Some(to), busy: false, closed: false, last_used });
        }
        Ok(child)
    }

    /// Ends a session now, or when its request has ended.
    pub(super) fn close(&mut self, id: SessionId, context: &mut Context) {
        match self.sessions.get_mut(&id) {
            Some(session) if session.busy => session.closed = true,
            Some(_) => {
                if let Some(seq) = self.sessions.remove(&id).and_then(|session| session.seq) {
                    context.clear(seq);
                    self.free_seqs.push(seq);
                }
            }
            None => {}
        }
    }

    /// Cells that idle sessions keep, `except` one. Cells that two sessions share count twice: the estimate is never too low.
    pub(super) fn idle_cells(&self, except: SessionId) -> usize {
        self.sessions.iter().filter(|(id, s)| **id != except && !s.busy).map(|(_, s)| s.tokens.len()).sum()
    }

    /// Drops the cells of the idle session that was used longest ago. False if no idle session has any.
    pub(super) fn evict_one(&mut self, context: &mut Context, except: SessionId) -> bool {
        let victim = self
            .sessions
            .iter_mut()
            .filter(|(id, session)| **id != except && !session.busy && session.seq.is_some())
            .min_by_key(|(_, session)| session.last_used);
        let Some((_, session)) = victim else { return false };
        if let Some(seq) = session.seq.take() {
            context.clear(seq);
            session.tokens = Vec::new();
            self.free_seqs.push(seq);
        }
        true
    }

    /// A sequence id for the session, its own if it is warm.
    pub(super) fn seq_for(&mut self, id: SessionId) -> Option<i32> {
        let session = self.sessions.get_mut(&id)?;
        if session.seq.is_none() {
            session.seq = self.free_seqs.pop();
            session.tokens = Vec::new();
        }
        session.seq
    }

    /// The request of the session has ended and left `tokens` in its cells.
    pub(super) fn rest(&mut self, id: SessionId, tokens: Vec<Token>, context: &mut Context) {
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
    }

    /// The request of the session ended before it was admitted.
    pub(super) fn unqueue(&mut self, id: SessionId, context: &mut Context) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.busy = false;
            if session.closed {
                self.close(id, context);
            }
        }
    }
}
