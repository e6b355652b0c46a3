//! Tokens through a Wasm guest: as fast as without one, and what one token costs on the way.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use locara_engine::llama::LlamaEngine;
use locara_engine::{Engine, Event, Message, Request, Sampling};
use tokio::runtime::Runtime;

use crate::report::{Section, cells};
use crate::sandbox::{Sandbox, Seen};
use crate::scripted::{Pace, Scripted};
use crate::speed::{compared, paired};
use crate::stats::{Pairs, Spread};

/// What both readers ask.
const QUESTION: &str = "Which way does a token take?";
/// Tokens of one answer of the model.
const ANSWER: u32 = 48;
/// Tokens of one scripted answer: all ready, and one at a time.
const SCRIPTED: [(Pace, u32); 2] = [(Pace::Ready, 50_000), (Pace::Alone, 5_000)];
/// Scripted answers of each pace.
const ROUNDS: usize = 9;

/// See the module.
pub(crate) struct Guest {
    /// Tokens per second: the guest's, the engine's.
    pub(crate) speed: Pairs,
    /// One token when all are ready, µs.
    pub(crate) ready_us: Spread,
    /// One token when each comes alone, µs.
    alone_us: Spread,
}

/// Measures `n` pairs and the scripted answers.
pub(crate) fn measure(runtime: &Runtime, engine: &Arc<LlamaEngine>, n: usize) -> Result<Guest> {
    let sandbox = runtime.block_on(Sandbox::new(engine.clone()))?;
    // Both must make the same answer.
    let expected = runtime.block_on(ask(engine.as_ref(), QUESTION, ANSWER))?.tokens;
    let per_second = |seen: Seen| {
        ensure!(seen.tokens == expected && expected > 1, "answers of {} and {expected} tokens", seen.tokens);
        Ok(1.0 / seen.seconds_per_token())
    };
    let speed = paired(
        "through a guest",
        n,
        || per_second(runtime.block_on(sandbox.ask(QUESTION, ANSWER))?),
        || per_second(runtime.block_on(ask(engine.as_ref(), QUESTION, ANSWER))?),
    )?;
    let mut scripted = Vec::new();
    for (pace, tokens) in SCRIPTED {
        eprintln!("scripted tokens, {pace:?}");
        let sandbox = runtime.block_on(Sandbox::new(Arc::new(Scripted::new(pace))))?;
        let one = || anyhow::Ok(runtime.block_on(sandbox.ask(QUESTION, tokens))?.seconds_per_token() * 1e6);
        scripted.push(Spread::of(&(0..ROUNDS).map(|_| one()).collect::<Result<Vec<_>>>()?));
    }
    let [ready_us, alone_us] = scripted[..] else { bail!("{} paces were measured", scripted.len()) };
    Ok(Guest { speed, ready_us, alone_us })
}

/// The same question to the engine, without a guest.
async fn ask(engine: &dyn Engine, question: &str, max_tokens: u32) -> Result<Seen> {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let request = Request { max_tokens, sampling, ..Request::chat(vec![Message::user(question)]) };
    let mut generation = engine.submit(request);
    let mut first = None;
    while let Some(event) = generation.events.recv().await {
        match event {
            Event::Text(_) => {
                first.get_or_insert_with(Instant::now);
            }
            Event::Done(outcome) => {
                let tokens = outcome?.usage.output_tokens;
                let after_first = first.map_or(f64::NAN, |first| first.elapsed().as_secs_f64());
                return Ok(Seen { tokens, after_first });
            }
            _ => {}
        }
    }
    bail!("the engine stopped");
}

impl Guest {
    pub(crate) fn sections(&self) -> [Section; 2] {
        let pieces = |what: &str, spread| {
            let mut row = vec![what.to_owned()];
            row.extend(cells(spread, 3));
            row
        };
        [
            Section {
                title: "Through a Wasm guest".to_owned(),
                about: "Tokens per second of one answer of the large model, from the first piece of text to the outcome: \
                    seen by an app in the sandbox by its own clock, and by a reader of the engine in the host."
                    .to_owned(),
                header: &["what", "guest, median", "engine, median", "ratio: min", "median", "max", "at least"],
                rows: vec![compared("decode, 1 sequence", &self.speed, 0.99)],
            },
            Section {
                title: "One token from host to guest".to_owned(),
                about: "A scripted engine in the place of the model; the guest is written with the Rust SDK and reads up to \
                    64 events at a time. A token that comes alone wakes two tasks, on cores that had gone to sleep."
                    .to_owned(),
                header: &["µs per token", "min", "median", "max"],
                rows: vec![pieces("all tokens ready", self.ready_us), pieces("each token alone", self.alone_us)],
            },
        ]
    }
}
