//! A context: KV cells, compute buffers and a threadpool, owned by one thread.
//!
//! Every call that llama.cpp answers with `abort()` on misuse is checked here first.

use std::{
    ffi::c_void,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use locara_policy::KvType;

use super::{
    LoadError,
    batch::Batch,
    ffi::{self, MemoryRow, sys},
    log,
    model::{Model, failure},
    sampler::Sampler,
};
use crate::api::{EngineMemory, Token};

/// Highest number of sequence ids that llama.cpp knows in a unified cache (`LLAMA_MAX_SEQ`).
const MAX_SEQ_IDS: u32 = 256;

/// The resting id that no session gets: the sequence with the first working id stands back there while another is saved.
const SCRATCH_SEQ: i32 = 255;

/// How a context is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ContextParams {
    /// KV cells in all; one pool for all sequences.
    pub(super) kv_cells: u32,
    /// Tokens of one batch; also the latency of an abort on GPUs.
    pub(super) n_batch: u32,
    /// Tokens computed at once.
    pub(super) n_ubatch: u32,
    /// Sequences in one batch. Outputs are bounded by it: the default bound costs 300–500 MB with large vocabularies.
    pub(super) n_seq_max: u32,
    /// Type of K cells.
    pub(super) type_k: KvType,
    /// Type of V cells. A quantised V needs FlashAttention.
    pub(super) type_v: KvType,
    /// FlashAttention on or off; never left to a guess.
    pub(super) flash_attention: bool,
    /// Threads of the pool.
    pub(super) n_threads: u32,
    /// Make pooled embeddings instead of logits.
    pub(super) embeddings: bool,
}

/// Why a step did not compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// The abort flag was raised. Sequences may hold some of the batch's tokens: cut them back.
    Aborted,
    /// No cells left for the batch.
    NoCells,
    /// The batch breaks a rule; nothing was computed.
    Invalid(String),
    /// llama.cpp failed.
    Failed(String),
}

/// A context over a model.
#[derive(Debug)]
pub(super) struct Context {
    raw: *mut sys::llama_context,
    threadpool: *mut sys::ggml_threadpool,
    model: Arc<Model>,
    abort: Arc<AtomicBool>,
    params: ContextParams,
    /// Rows of the last batch that have logits.
    rows: Vec<usize>,
}

// SAFETY: a context may move between threads; it has no thread-local state. It is used by one thread at a time: no method
// takes `&self` for a call that writes.
unsafe impl Send for Context {}

unsafe extern "C" fn should_abort(data: *mut c_void) -> bool {
    // SAFETY: `data` is the AtomicBool inside the Arc that the context holds until after the context is freed.
    unsafe { &*data.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}

/// Making a context writes into its model, so one is made at a time.
static MAKING: Mutex<()> = Mutex::new(());

fn ggml_type(kv: KvType) -> sys::ggml_type {
    match kv {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q5_1 => sys::GGML_TYPE_Q5_1,
        KvType::Q5_0 => sys::GGML_TYPE_Q5_0,
        KvType::Q4_1 => sys::GGML_TYPE_Q4_1,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
        KvType::Iq4Nl => sys::GGML_TYPE_IQ4_NL,
    }
}

/// Checks what llama.cpp would abort on, and makes a context.
fn make(model: &Model, params: &ContextParams, abort: &Arc<AtomicBool>) -> Result<*mut sys::llama_context, LoadError> {
    let refuse = |reason: String| LoadError::Context { path: model.path().to_owned(), reason };
    if params.kv_cells == 0 || params.n_batch == 0 || params.n_ubatch == 0 || params.n_seq_max == 0 {
        // n_ctx = 0 would mean the trained length: gigabytes of KV.
        return Err(refuse(format!("a context needs cells, a batch and sequences, got {params:?}")));
    }
    if params.n_seq_max >= MAX_SEQ_IDS {
        return Err(refuse(format!("{} sequences, at most {}", params.n_seq_max, MAX_SEQ_IDS - 1)));
    }
    if !params.flash_attention && params.type_v.is_quantised() {
        return Err(refuse(format!("V cells of type {} need FlashAttention", params.type_v)));
    }
    if params.embeddings && !params.n_ubatch.min(params.n_batch).is_multiple_of(params.n_seq_max) {
        // The graph that pools over sequences has a part for each; an uneven one is an assertion in ggml.
        let n = params.n_ubatch.min(params.n_batch);
        return Err(refuse(format!(
            "embeddings of {} sequences in steps of {n} tokens do not divide",
            params.n_seq_max
        )));
    }
    // SAFETY: fills a struct by value.
    let mut raw_params = unsafe { sys::llama_context_default_params() };
    raw_params.n_ctx = params.kv_cells;
    raw_params.n_batch = params.n_batch;
    raw_params.n_ubatch = params.n_ubatch.min(params.n_batch);
    raw_params.n_seq_max = params.n_seq_max;
    raw_params.n_outputs_max = if params.embeddings { 0 } else { params.n_seq_max };
    let n_threads = i32::try_from(params.n_threads.max(1)).unwrap_or(1);
    raw_params.n_threads = n_threads;
    raw_params.n_threads_batch = n_threads;
    raw_params.type_k = ggml_type(params.type_k);
    raw_params.type_v = ggml_type(params.type_v);
    raw_params.flash_attn_type =
        if params.flash_attention { sys::LLAMA_FLASH_ATTN_TYPE_ENABLED } else { sys::LLAMA_FLASH_ATTN_TYPE_DISABLED };
    raw_params.kv_unified = true;
    // Cells of the whole context in layers with a window too: a sequence can then be cut back to any prefix.
    raw_params.swa_full = true;
    raw_params.no_perf = false;
    raw_params.embeddings = params.embeddings;
    raw_params.abort_callback = Some(should_abort);
    raw_params.abort_callback_data = Arc::as_ptr(abort).cast_mut().cast();
    let _ = log::take_last();
    let raw = {
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the model is live and outlives the context (`model` is dropped after `raw`); parameters are checked.
        unsafe { ffi::locara_context_new(model.as_ptr(), raw_params) }
    };
    if raw.is_null() { Err(refuse(failure())) } else { Ok(raw) }
}

impl Context {
    /// Allocates KV cells and compute buffers. The cells are committed whole.
    pub(super) fn new(model: Arc<Model>, params: ContextParams) -> Result<Self, LoadError> {
        let abort = Arc::new(AtomicBool::new(false));
        let raw = make(&model, &params, &abort)?;
        // Without OpenMP and without a pool ggml starts threads for every graph: 20 times slower on small models.
        // SAFETY: parameters are valid; the pool is freed after the context.
        let threadpool = unsafe {
            let n_threads = i32::try_from(params.n_threads.max(1)).unwrap_or(1);
            let mut pool_params = sys::ggml_threadpool_params_default(n_threads);
            sys::ggml_threadpool_new(&raw mut pool_params)
        };
        if threadpool.is_null() {
            // SAFETY: the context was just made and is used nowhere else.
            unsafe { sys::llama_free(raw) };
            let reason = format!("no threadpool of {} threads", params.n_threads);
            return Err(LoadError::Context { path: model.path().to_owned(), reason });
        }
        let mut context = Self { raw, threadpool, model, abort, params, rows: Vec::new() };
        context.attach(raw);
        Ok(context)
    }

    /// Frees the cells and the compute buffers and makes them again for `kv_cells`: that is the only way to give cells back
    /// to the system. All cells are forgotten. What a sequence held must be saved before, and the old cells are freed
    /// before the new ones are made.
    ///
    /// On an error the old size is made again; if that fails too, the context is lost: see [`Context::is_lost`].
    pub(super) fn remake(&mut self, kv_cells: u32) -> Result<(), LoadError> {
        self.free();
        let old = std::mem::replace(&mut self.params.kv_cells, kv_cells);
        let made = make(&self.model, &self.params, &self.abort).map(|raw| self.attach(raw));
        if made.is_err() {
            self.params.kv_cells = old;
            match make(&self.model, &self.params, &self.abort) {
                Ok(raw) => self.attach(raw),
                Err(error) => tracing::error!(%error, "the context could not be made again in its old size"),
            }
        }
        made
    }

    fn attach(&mut self, raw: *mut sys::llama_context) {
        self.raw = raw;
        // SAFETY: both are live; the pool outlives the context.
        unsafe { sys::llama_attach_threadpool(raw, self.threadpool, self.threadpool) };
    }

    fn free(&mut self) {
        self.rows.clear();
        if !self.raw.is_null() {
            // SAFETY: the context is live and used by nothing else; the pointer is forgotten at once.
            unsafe { sys::llama_free(self.raw) };
            self.raw = std::ptr::null_mut();
        }
    }

    /// Whether there is no context any more: [`Context::remake`] failed. Every call then fails or does nothing.
    pub(super) fn is_lost(&self) -> bool {
        self.raw.is_null()
    }

    /// Computes with fewer threads than the pool has, from the next batch on.
    pub(super) fn set_threads(&mut self, n_threads: u32) {
        self.params.n_threads = n_threads.max(1);
        if !self.raw.is_null() {
            let n_threads = i32::try_from(self.params.n_threads).unwrap_or(1);
            // SAFETY: the context is live; ggml bounds the number by its pool.
            unsafe { sys::llama_set_n_threads(self.raw, n_threads, n_threads) };
        }
    }

    /// Whether it makes embeddings instead of logits.
    pub(super) fn embeds(&self) -> bool {
        self.params.embeddings
    }

    pub(super) fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.abort)
    }

    /// Cells in all, after llama.cpp's padding.
    pub(super) fn kv_cells(&self) -> u32 {
        if self.is_lost() {
            return 0;
        }
        // SAFETY: the context is live.
        unsafe { sys::llama_n_ctx(self.raw) }
    }

    /// Sequence ids that llama.cpp takes.
    fn n_seq_ids(&self) -> u32 {
        // Recurrent state is laid out for n_seq_max sequences; cells of a unified cache know all ids.
        if self.model.is_recurrent() { self.params.n_seq_max } else { MAX_SEQ_IDS }
    }

    /// Working ids: only these can be decoded and saved.
    pub(super) fn working_ids(&self) -> Range<i32> {
        0..i32::try_from(self.params.n_seq_max).unwrap_or(0)
    }

    /// Resting ids: sequences may keep their cells under them. Recurrent state is laid out for the working ids and has none.
    pub(super) fn resting_ids(&self) -> Range<i32> {
        self.working_ids().end..if self.model.is_recurrent() { 0 } else { SCRATCH_SEQ }
    }

    /// Whether a sequence's state can only be used as a whole.
    pub(super) fn is_recurrent(&self) -> bool {
        self.model.is_recurrent()
    }

    fn check(&self, batch: &Batch) -> Result<(), DecodeError> {
        let invalid = |reason: String| Err(DecodeError::Invalid(reason));
        if self.is_lost() {
            return invalid("the context is lost".to_owned());
        }
        // SAFETY: the context is live. llama.cpp lowers the bound that it was given to the number of cells.
        let n_batch = unsafe { sys::llama_n_batch(self.raw) };
        if batch.is_empty() || batch.len() > n_batch as usize {
            return invalid(format!("a batch of {} tokens, allowed are 1 to {n_batch}", batch.len()));
        }
        if let Some(token) = batch.tokens().iter().find(|token| !self.model.knows(**token)) {
            return invalid(format!("token {token} is not in the vocabulary of {}", self.model.n_vocab()));
        }
        let ids = self.working_ids();
        if let Some(seq) = batch.seq_ids().iter().find(|seq| !ids.contains(seq)) {
            return invalid(format!("sequence {seq}, allowed are 0 to {}", ids.end - 1));
        }
        let outputs = batch.output_rows().count();
        if !self.params.embeddings && outputs > self.params.n_seq_max as usize {
            return invalid(format!("{outputs} outputs, allowed are {}", self.params.n_seq_max));
        }
        Ok(())
    }

    /// Computes one batch.
    pub(super) fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        self.rows.clear();
        self.check(batch)?;
        let _ = log::take_last();
        // SAFETY: the batch was checked against everything that llama.cpp asserts, and lives through the call.
        let status = unsafe {
            if self.model.is_encoder_only() {
                ffi::locara_encode(self.raw, batch.as_raw())
            } else {
                ffi::locara_decode(self.raw, batch.as_raw())
            }
        };
        match status {
            0 => {
                self.rows.extend(batch.output_rows());
                Ok(())
            }
            1 => Err(DecodeError::NoCells),
            2 => Err(DecodeError::Aborted),
            code => Err(DecodeError::Failed(format!("{} (code {code})", failure()))),
        }
    }

    /// The logits of a row of the last batch, writable so that a constraint can mask them.
    pub(super) fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        if !self.rows.contains(&row) {
            return None;
        }
        // SAFETY: the row has logits (checked above); llama.cpp keeps n_vocab floats for it until the next decode.
        unsafe {
            let pointer = sys::llama_get_logits_ith(self.raw, i32::try_from(row).ok()?);
            (!pointer.is_null()).then(|| std::slice::from_raw_parts_mut(pointer, self.model.n_vocab()))
        }
    }

    /// Draws a token from a row of the last batch; the sampler has then accepted it.
    pub(super) fn sample(&mut self, sampler: &mut Sampler, row: usize) -> Result<Token, DecodeError> {
        if !self.rows.contains(&row) {
            return Err(DecodeError::Invalid(format!("row {row} of the batch has no logits")));
        }
        let index = i32::try_from(row).map_err(|_| DecodeError::Invalid(format!("row {row}")))?;
        // SAFETY: the row has logits; both pointers are live.
        let token = unsafe { ffi::locara_sample(sampler.as_ptr(), self.raw, index) };
        if self.model.knows(token) { Ok(token) } else { Err(DecodeError::Failed(format!("sample: {}", failure()))) }
    }

    /// The pooled embedding of a sequence of the last batch.
    pub(super) fn embedding(&mut self, seq_id: i32) -> Option<Vec<f32>> {
        if self.is_lost() {
            return None;
        }
        // SAFETY: llama.cpp returns null for a sequence without an embedding, else n_embd floats.
        unsafe {
            let pointer = sys::llama_get_embeddings_seq(self.raw, seq_id);
            (!pointer.is_null()).then(|| std::slice::from_raw_parts(pointer, self.model.n_embd()).to_vec())
        }
    }

    fn memory(&self) -> Option<sys::llama_memory_t> {
        if self.is_lost() {
            return None;
        }
        // SAFETY: the context is live; encoders have no memory and return null.
        let memory = unsafe { sys::llama_get_memory(self.raw) };
        (!memory.is_null()).then_some(memory)
    }

    fn knows_seq(&self, seq_id: i32) -> bool {
        u32::try_from(seq_id).is_ok_and(|id| id < self.n_seq_ids())
    }

    /// Forgets the positions of a sequence from `from` on. False if the state cannot be cut there (recurrent models): clear it.
    #[must_use]
    pub(super) fn truncate(&mut self, seq_id: i32, from: usize) -> bool {
        let Ok(from) = i32::try_from(from) else { return true };
        // SAFETY: the id is in range and the range is open-ended.
        self.knows_seq(seq_id)
            && self.memory().is_none_or(|memory| unsafe { sys::llama_memory_seq_rm(memory, seq_id, from, -1) })
    }

    /// Forgets a sequence.
    pub(super) fn clear(&mut self, seq_id: i32) {
        if let (true, Some(memory)) = (self.knows_seq(seq_id), self.memory()) {
            // SAFETY: the id is in range; removing a whole sequence cannot fail.
            let _ = unsafe { sys::llama_memory_seq_rm(memory, seq_id, -1, -1) };
        }
    }

    /// Gives all cells of `from` the sequence id `to`, which must be empty. They stay where they are.
    pub(super) fn rename(&mut self, from: i32, to: i32) {
        self.share(from, to);
        self.clear(from);
    }

    /// Lets `to` share all cells of `from`. `to` must be empty.
    pub(super) fn share(&mut self, from: i32, to: i32) {
        if let (true, true, Some(memory)) = (self.knows_seq(from), self.knows_seq(to), self.memory()) {
            // SAFETY: both ids are in range; the cache is unified, where a copy is metadata only.
            unsafe { sys::llama_memory_seq_cp(memory, from, to, -1, -1) };
        }
    }

    /// Bytes of the saved state of a sequence; 0 when there is none. Costs a pass over the cells' metadata.
    pub(super) fn state_bytes(&mut self, seq_id: i32) -> usize {
        self.as_working(seq_id, |context, id| {
            // SAFETY: the context is live and the id a working one; nothing is written.
            unsafe { ffi::locara_state_size(context.raw, id) }
        })
        .unwrap_or(0)
    }

    /// A copy of everything that a sequence holds; `None` when llama.cpp cannot make one. Holds as long as the file, the KV
    /// types and this build of llama.cpp are the same; the number of cells may differ.
    pub(super) fn save(&mut self, seq_id: i32) -> Option<Vec<u8>> {
        let bytes = self.state_bytes(seq_id);
        let mut state = Vec::new();
        // Memory may be short: that is when states are saved. Without a copy the sequence is computed again.
        state.try_reserve_exact(bytes).ok()?;
        state.resize(bytes, 0);
        let written = self.as_working(seq_id, |context, id| {
            // SAFETY: the context is live, the id a working one, and the buffer as long as said.
            unsafe { ffi::locara_state_get(context.raw, id, state.as_mut_ptr(), bytes) }
        });
        (bytes > 0 && written == Some(bytes)).then_some(state)
    }

    /// Puts a saved state of `n_tokens` tokens into an empty sequence. False if it does not fit or is not whole; the
    /// sequence is then empty. The state must be one that [`Context::save`] made: llama.cpp does not check its contents.
    #[must_use]
    pub(super) fn restore(&mut self, seq_id: i32, state: &[u8], n_tokens: usize) -> bool {
        let whole = self.as_working(seq_id, |context, id| {
            let Some(memory) = context.memory() else { return false };
            // SAFETY: the context is live, the id a working one, the buffer as long as said; lengths inside it are checked
            // by llama.cpp, and its exceptions are caught by the shim.
            let (read, last) = unsafe {
                let read = ffi::locara_state_set(context.raw, id, state.as_ptr(), state.len());
                (read, sys::llama_memory_seq_pos_max(memory, id))
            };
            read == state.len() && usize::try_from(last + 1).is_ok_and(|n| n == n_tokens)
        });
        if whole != Some(true) {
            self.clear(seq_id);
        }
        whole == Some(true)
    }

    /// llama.cpp saves and restores under working ids only. A sequence with a resting id takes the first working id for the
    /// time of the call, and whoever has that stands back. Cells stay where they are; only their metadata changes.
    fn as_working<T>(&mut self, seq_id: i32, call: impl FnOnce(&mut Self, i32) -> T) -> Option<T> {
        if self.memory().is_none() || !self.knows_seq(seq_id) {
            return None;
        }
        let ids = self.working_ids();
        if ids.contains(&seq_id) {
            return Some(call(self, seq_id));
        }
        self.rename(ids.start, SCRATCH_SEQ);
        self.rename(seq_id, ids.start);
        let result = call(self, ids.start);
        self.rename(ids.start, seq_id);
        self.rename(SCRATCH_SEQ, ids.start);
        Some(result)
    }

    /// Runs llama.cpp's own generation loop on this context: (prefill, decode) in ms. Everything in the cells is forgotten.
    pub(super) fn reference_loop(
        &mut self,
        prompt: &[Token],
        n_seq: u32,
        n_decode: u32,
    ) -> Result<(f64, f64), DecodeError> {
        self.rows.clear();
        let cells = u64::from(n_seq) * (prompt.len() as u64 + u64::from(n_decode));
        let known = prompt.iter().all(|token| self.model.knows(*token));
        if prompt.is_empty()
            || !known
            || n_seq == 0
            || n_seq > self.params.n_seq_max
            || cells > u64::from(self.kv_cells())
        {
            return Err(DecodeError::Invalid(format!("{} tokens, {n_seq} sequences, {cells} cells", prompt.len())));
        }
        let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
        let (mut prefill, mut decode) = (0.0, 0.0);
        // SAFETY: tokens, sequences and cells are within bounds; the pointers are valid for the call.
        let status = unsafe {
            ffi::locara_reference_loop(
                self.raw,
                prompt.as_ptr(),
                count(prompt.len() as u64),
                count(u64::from(self.params.n_batch)),
                count(u64::from(n_seq)),
                count(u64::from(n_decode)),
                &raw mut prefill,
                &raw mut decode,
            )
        };
        match status {
            0 => Ok((prefill, decode)),
            code => Err(DecodeError::Failed(format!("the reference loop ended with {code}"))),
        }
    }

    /// What llama.cpp says it holds, by kind. Under `no_alloc`: what it would hold.
    pub(super) fn measure(&self) -> EngineMemory {
        if self.is_lost() {
            return EngineMemory::default();
        }
        let mut rows = [MemoryRow { buffer: [0; 64], host: 0, model: 0, context: 0, compute: 0 }; 32];
        // SAFETY: the array has the length given; the context is live.
        let n = unsafe { ffi::locara_memory_breakdown(self.raw, rows.as_mut_ptr(), 32) };
        let mut memory = EngineMemory::default();
        for row in rows.iter().take(usize::try_from(n).unwrap_or(0)) {
            // Metal wraps the mapping itself (shared storage); other GPUs hold a copy.
            if row.host != 0 || row.buffer.starts_with(b"MTL") || row.buffer.starts_with(b"Metal") {
                memory.weights_mapped += row.model;
            } else {
                memory.weights_resident += row.model;
            }
            memory.kv += row.context;
            memory.compute += row.compute;
        }
        // For vectors llama.cpp makes room for logits all the same, and grows with the tokens of a batch.
        let (rows, width) = if self.params.embeddings {
            (self.params.n_batch.max(self.params.n_seq_max), self.model.n_vocab() + self.model.n_embd())
        } else {
            (self.params.n_seq_max, self.model.n_vocab())
        };
        memory.output = u64::from(rows) * width as u64 * 4;
        memory
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.free();
        // SAFETY: nothing uses the pool any more; it is freed after the context, as ggml requires.
        unsafe { sys::ggml_threadpool_free(self.threadpool) };
    }
}
