//! A context: KV cells, compute buffers and a threadpool, owned by one thread.
//!
//! Every call that llama.cpp answers with `abort()` on misuse is checked here first.

use std::{
    ffi::c_void,
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
pub(super) const MAX_SEQ_IDS: u32 = 256;

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

impl Context {
    /// Allocates KV cells and compute buffers. The cells are committed whole.
    pub(super) fn new(model: Arc<Model>, params: ContextParams) -> Result<Self, LoadError> {
        let refuse = |reason: String| LoadError::Context { path: model.path().to_owned(), reason };
        if params.kv_cells == 0 || params.n_batch == 0 || params.n_ubatch == 0 || params.n_seq_max == 0 {
            // n_ctx = 0 would mean the trained length: gigabytes of KV.
            return Err(refuse(format!("a context needs cells, a batch and sequences, got {params:?}")));
        }
        if params.n_seq_max > MAX_SEQ_IDS {
            return Err(refuse(format!("{} sequences, at most {MAX_SEQ_IDS}", params.n_seq_max)));
        }
        if !params.flash_attention && params.type_v.is_quantised() {
            return Err(refuse(format!("V cells of type {} need FlashAttention", params.type_v)));
        }
        let abort = Arc::new(AtomicBool::new(false));
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
        raw_params.flash_attn_type = if params.flash_attention {
            sys::LLAMA_FLASH_ATTN_TYPE_ENABLED
        } else {
            sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
        };
        raw_params.kv_unified = true;
        // Cells of the whole context in layers with a window too: a sequence can then be cut back to any prefix.
        raw_params.swa_full = true;
        raw_params.no_perf = false;
        raw_params.embeddings = params.embeddings;
        raw_params.abort_callback = Some(should_abort);
        raw_params.abort_callback_data = Arc::as_ptr(&abort).cast_mut().cast();
        let _ = log::take_last();
        let raw = {
            let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the model is live and outlives the context (`model` is dropped after `raw`); parameters are checked.
            unsafe { ffi::locara_context_new(model.as_ptr(), raw_params) }
        };
        if raw.is_null() {
            return Err(refuse(failure()));
        }
        // Without OpenMP and without a pool ggml starts threads for every graph: 20 times slower on small models.
        // SAFETY: parameters are valid; the pool is freed after the context.
        let threadpool = unsafe {
            let mut pool_params = sys::ggml_threadpool_params_default(n_threads);
            sys::ggml_threadpool_new(&raw mut pool_params)
        };
        if threadpool.is_null() {
            // SAFETY: the context was just made and is used nowhere else.
            unsafe { sys::llama_free(raw) };
            return Err(refuse(format!("no threadpool of {n_threads} threads")));
        }
        // SAFETY: both are live; the pool outlives the context.
        unsafe { sys::llama_attach_threadpool(raw, threadpool, threadpool) };
        Ok(Self { raw, threadpool, model, abort, params, rows: Vec::new() })
    }

    pub(super) fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.abort)
    }

    /// Cells in all, after llama.cpp's padding.
    pub(super) fn kv_cells(&self) -> u32 {
        // SAFETY: the context is live.
        unsafe { sys::llama_n_ctx(self.raw) }
    }

    /// Sequence ids that may be used.
    pub(super) fn n_seq_ids(&self) -> u32 {
        // Recurrent state is laid out for n_seq_max sequences; cells of a unified cache know all ids.
        if self.model.is_recurrent() { self.params.n_seq_max } else { MAX_SEQ_IDS }
    }

    fn check(&self, batch: &Batch) -> Result<(), DecodeError> {
        let invalid = |reason: String| Err(DecodeError::Invalid(reason));
        if batch.is_empty() || batch.len() > self.params.n_batch as usize {
            return invalid(format!("a batch of {} tokens, allowed are 1 to {}", batch.len(), self.params.n_batch));
        }
        if let Some(token) = batch.tokens().iter().find(|token| !self.model.knows(**token)) {
            return invalid(format!("token {token} is not in the vocabulary of {}", self.model.n_vocab()));
        }
        let n_seq_ids = self.n_seq_ids();
        if let Some(seq) =
            batch.seq_ids().iter().find(|seq| u32::try_from(**seq).is_ok_and(|s| s < n_seq_ids).eq(&false))
        {
            return invalid(format!("sequence {seq}, allowed are 0 to {}", n_seq_ids - 1));
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
        // SAFETY: llama.cpp returns null for a sequence without an embedding, else n_embd floats.
        unsafe {
            let pointer = sys::llama_get_embeddings_seq(self.raw, seq_id);
            (!pointer.is_null()).then(|| std::slice::from_raw_parts(pointer, self.model.n_embd()).to_vec())
        }
    }

    fn memory(&self) -> Option<sys::llama_memory_t> {
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

    /// Lets `to` share all cells of `from`. `to` must be empty.
    pub(super) fn share(&mut self, from: i32, to: i32) {
        if let (true, true, Some(memory)) = (self.knows_seq(from), self.knows_seq(to), self.memory()) {
            // SAFETY: both ids are in range; the cache is unified, where a copy is metadata only.
            unsafe { sys::llama_memory_seq_cp(memory, from, to, -1, -1) };
        }
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
        // SAFETY: nothing else uses the context; the pool is freed after it, as ggml requires.
        unsafe {
            sys::llama_free(self.raw);
            sys::ggml_threadpool_free(self.threadpool);
        }
    }
}
