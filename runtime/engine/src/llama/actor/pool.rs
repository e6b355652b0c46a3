//! The pool of KV cells, larger and smaller, and everything else that gives memory back.
//!
//! Cells are one allocation that is committed whole: forgetting a sequence frees nothing. To give cells back, every state
//! is saved, the context is made again with fewer cells, and the states are put back. That happens between two steps, so
//! running requests go on with the same tokens. While it lasts, the cells in use are held once more.

use std::{sync::PoisonError, time::Instant};

use locara_platform::Platform;

use super::{Actor, Class, EngineError, EngineMemory, Reclaim, Reclaimed};

/// llama.cpp rounds the number of cells up to a multiple of this.
const CELL_STEP: u32 = 256;

/// The smallest pool that a reclaim leaves, in cells: room for one small request.
const MIN_POOL: u32 = 2 * CELL_STEP;

impl Actor {
    /// See [`crate::Engine::reclaim`].
    pub(super) fn reclaim(&mut self, what: Reclaim, asked: Instant) -> Result<Reclaimed, EngineError> {
        if self.context.is_lost() {
            return Err(self.lost());
        }
        let rss_before = rss_bytes();
        let (expected_bytes, freed_bytes, sessions) = match what {
            Reclaim::PromptCache { spill } => {
                let held = self.sessions.cache.memory_bytes();
                let sessions = self.sessions.cache.empty_memory(spill);
                (held, held - self.sessions.cache.memory_bytes(), sessions)
            }
            Reclaim::IdleSessions { spill } => {
                let idle = self.sessions.idle();
                for session in &idle {
                    self.sessions.evict_to_disk(*session, spill, &mut self.context);
                }
                let (expected, freed) = self.shrink()?;
                (expected, freed, u32::try_from(idle.len()).unwrap_or(u32::MAX))
            }
            Reclaim::Background { spill } => {
                let sessions = self.park(spill);
                let (expected, freed) = self.shrink()?;
                (expected, freed, sessions)
            }
            Reclaim::Weights => {
                // The model is loaded, so its mappings stay until the call returns.
                let evicted = locara_platform::host()
                    .evict(self.model.path())
                    .map_err(|error| EngineError::Failed(format!("the weights stay in memory: {error}")))?;
                (evicted.before_bytes, evicted.freed_bytes(), 0)
            }
        };
        locara_platform::host().release_heap();
        Ok(Reclaimed {
            expected_bytes,
            freed_bytes,
            rss_before,
            rss_after: rss_bytes(),
            sessions,
            took_ms: asked.elapsed().as_secs_f64() * 1e3,
        })
    }

    /// See [`crate::Engine::resize`].
    pub(super) fn resize(&mut self, kv_cells: u32) -> Result<EngineMemory, EngineError> {
        let target = self.allowed(kv_cells);
        let now = self.context.kv_cells();
        if target > now {
            self.check_growth(target - now)?;
        }
        while self.held_cells() + self.sessions.idle_cells(super::SessionId(0)) > target as usize
            && self.sessions.evict_one(&mut self.context, super::SessionId(0))
        {}
        if target != now {
            self.remake(target)?;
            locara_platform::host().release_heap();
        }
        Ok(self.memory())
    }

    /// Why nothing can be computed.
    #[expect(clippy::unused_self, reason = "it is about this actor's context")]
    pub(super) fn lost(&self) -> EngineError {
        EngineError::Failed(
            "the system gave no memory for the KV cells, not even for as many as there were; make the pool again in \
             another size, or load the model again"
                .to_owned(),
        )
    }

    /// The size that the pool may be given: whole steps, never less than running requests hold.
    fn allowed(&self, kv_cells: u32) -> u32 {
        let held = u32::try_from(self.held_cells()).unwrap_or(u32::MAX);
        let low = self.limits.pool.start().div_ceil(CELL_STEP).max(1);
        let high = (self.limits.pool.end() / CELL_STEP).max(low);
        kv_cells.max(held).div_ceil(CELL_STEP).clamp(low, high) * CELL_STEP
    }

    /// The caller has reserved the bytes. If the system does not have them all the same, nothing is touched.
    fn check_growth(&self, cells: u32) -> Result<(), EngineError> {
        let Ok(memory) = locara_platform::host().memory() else { return Ok(()) };
        let bytes = u64::from(cells).saturating_mul(self.cell_bytes());
        if bytes <= memory.available_bytes {
            return Ok(());
        }
        Err(EngineError::Failed(format!(
            "{cells} more KV cells take {bytes} bytes, the system has {} left; the pool keeps its {} cells",
            memory.available_bytes,
            self.context.kv_cells()
        )))
    }

    /// Takes every background request out of the batch and gives its cells back. Returns how many there were.
    fn park(&mut self, spill: bool) -> u32 {
        self.background_held = true;
        let mut n = 0;
        for sequence in self.running.iter_mut().filter(|s| s.is_active() && s.class == Class::Background) {
            self.sessions.park(sequence.session, &sequence.tokens[..sequence.n_past], spill, &mut self.context);
            sequence.parked = true;
            n += 1;
        }
        n
    }

    /// The smallest pool for what runs and `warm` cells of sessions that rest.
    fn least_pool(&self, warm: usize) -> u32 {
        let needed = u32::try_from(self.held_cells().saturating_add(warm)).unwrap_or(u32::MAX);
        self.allowed(needed.max(MIN_POOL))
    }

    /// Cells that the pool would give back if no session rested in it.
    pub(super) fn idle_pool(&self) -> u32 {
        self.context.kv_cells().saturating_sub(self.least_pool(0))
    }

    /// Makes the pool as small as running requests and warm sessions allow. Returns the bytes expected and freed.
    fn shrink(&mut self) -> Result<(u64, u64), EngineError> {
        let now = self.context.kv_cells();
        let target = self.least_pool(self.sessions.idle_cells(super::SessionId(0)));
        if target >= now {
            return Ok((0, 0));
        }
        let expected = u64::from(now - target) * self.cell_bytes();
        let before = self.memory().kv;
        self.remake(target)?;
        Ok((expected, before.saturating_sub(self.memory().kv)))
    }

    fn memory(&self) -> EngineMemory {
        *self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell_bytes(&self) -> u64 {
        self.memory().kv / u64::from(self.context.kv_cells().max(1))
    }

    /// Makes the context again with `cells` cells. Everything in the cells is put back; what llama.cpp does not take back
    /// is computed again.
    fn remake(&mut self, cells: u32) -> Result<(), EngineError> {
        let mut running = Vec::new();
        for at in 0..self.running.len() {
            let sequence = &self.running[at];
            if !sequence.parked && sequence.n_past > 0 {
                running.push((at, self.context.save(sequence.seq)));
            }
        }
        let mut idle = Vec::new();
        for (session, seq, n_tokens) in self.sessions.idle_seqs() {
            idle.push((session, seq, n_tokens, self.context.save(seq)));
        }
        let made = self.context.remake(cells);
        for (at, state) in running {
            let sequence = &mut self.running[at];
            if !state.is_some_and(|state| self.context.restore(sequence.seq, &state, sequence.n_past)) {
                tracing::debug!(request = sequence.id.0, "the cells did not survive a new pool; computing them again");
                sequence.n_past = 0;
            }
        }
        for (session, seq, n_tokens, state) in idle {
            if !state.is_some_and(|state| self.context.restore(seq, &state, n_tokens)) {
                self.sessions.lost_cells(session);
            }
        }
        self.changed = true;
        *self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner) = self.context.measure();
        if self.context.is_lost() {
            self.fail_all();
        }
        made.map_err(|error| {
            EngineError::Failed(format!(
                "no pool of {cells} KV cells: {error}; there are {} now",
                self.context.kv_cells()
            ))
        })
    }

    /// There is no context any more. Parked requests keep what they have.
    fn fail_all(&mut self) {
        let error = self.lost();
        for sequence in self.running.iter_mut().filter(|s| s.is_active()) {
            sequence.fail(error.clone());
        }
        while !self.waiting.is_empty() {
            self.drop_waiting(0, Err(error.clone()));
        }
    }
}

/// Resident bytes of this process; 0 where the system does not tell.
fn rss_bytes() -> u64 {
    locara_platform::host().process().map_or(0, |process| process.rss_bytes())
}
