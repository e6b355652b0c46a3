//! What the engine gives back under memory pressure, and that nobody's answer changes by it.
//!
//! The model is trained anew now and then, so no test asserts words: an answer is compared with that of an engine that was
//! left in peace. A reader that does not read holds its request in the middle of the answer, so no test depends on time.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod park;
mod pool;
mod saved;
mod spill;
mod throttle;
mod zoo;

use std::path::{Path, PathBuf};

use locara_engine::{
    Completion, EVENT_QUEUE, Engine, EngineError, EngineStats, Event, Generation, Prompt, Request, Sampling, SessionId,
    Token,
    llama::{CacheOptions, LlamaEngine, LoadOptions, SpillOptions},
};
use locara_policy::KvType;

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf")
}

/// FlashAttention over q8_0 keys takes the cells of a sequence one by one, so its results do not depend, down to the last
/// bit, on where in the pool they lie. Without it sums are taken in another order after a move, and two tokens that are
/// almost equally likely may change places.
fn options() -> LoadOptions {
    LoadOptions {
        n_ctx: 1024,
        kv_cells: 4096,
        n_seq_max: 4,
        n_batch: 256,
        n_ubatch: 256,
        type_k: KvType::Q8_0,
        type_v: KvType::F16,
        flash_attention: true,
        n_threads: 1,
        n_gpu_layers: 0,
        repack: false,
        queue_max: 32,
    }
}

fn engine_with(options: LoadOptions, cache: &CacheOptions) -> LlamaEngine {
    LlamaEngine::load_with_cache(&tiny(), "test", options, cache, |_| true).unwrap()
}

/// Room for every state of a test.
const PLENTY: u64 = 1 << 30;

fn in_memory() -> CacheOptions {
    CacheOptions { prompt_cache_bytes: PLENTY, spill: None }
}

fn on_disk(dir: &Path) -> CacheOptions {
    CacheOptions { prompt_cache_bytes: 0, spill: Some(SpillOptions { dir: dir.to_owned(), max_bytes: PLENTY }) }
}

/// `n` tokens that mean nothing; another `salt` gives others from the first on.
fn words(salt: u32, n: usize) -> Vec<Token> {
    (0..).map(|i: i32| 300 + (i * 7 + i * i * 3 + i32::try_from(salt).unwrap() * 131) % 500).take(n).collect()
}

/// A greedy request that goes on to its bound.
fn request(prompt: Vec<Token>, max_tokens: u32) -> Request {
    Request { sampling: Sampling::greedy(), max_tokens, ignore_eos: true, ..Request::new(Prompt::Tokens(prompt)) }
}

fn sampled(prompt: Vec<Token>, max_tokens: u32) -> Request {
    let sampling =
        Sampling { temperature: 1.2, top_k: 0, top_p: 1.0, min_p: 0.0, seed: Some(11), ..Sampling::default() };
    Request { sampling, ..request(prompt, max_tokens) }
}

fn of(session: SessionId, request: Request) -> Request {
    Request { session: Some(session), ..request }
}

async fn outcome(generation: Generation) -> Result<Completion, EngineError> {
    generation.collect().await.map(|(_, completion)| completion)
}

async fn answer(engine: &LlamaEngine, request: Request) -> Completion {
    outcome(engine.submit(request)).await.unwrap()
}

async fn open(engine: &LlamaEngine) -> SessionId {
    engine.open().await.unwrap().unwrap()
}

async fn stats(engine: &LlamaEngine) -> EngineStats {
    engine.stats().await.unwrap().unwrap()
}

/// Starts a request, reads until the answer has begun, and then lets it run until it is held by its reader, who does not
/// read on. What it computes afterwards it computes without neighbours in the batch, whose size changes last bits.
async fn begun(engine: &LlamaEngine, request: Request) -> Generation {
    let mut generation = engine.submit(request);
    loop {
        match generation.events.recv().await.unwrap() {
            Event::Prefill { .. } => {}
            Event::Done(outcome) => panic!("it ended before it began: {outcome:?}"),
            _ => break,
        }
    }
    while generation.events.len() < EVENT_QUEUE && !generation.events.is_closed() {
        stats(engine).await;
    }
    generation
}
