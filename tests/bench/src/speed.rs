//! Prefill, decode and batches against llama.cpp's own loop: same file, same options, same process, in turn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use locara_engine::llama::{LlamaEngine, LoadOptions, ReferenceLoop};
use locara_engine::{Completion, Engine, EngineStats, Prompt, Request, Sampling, Token};
use tokio::runtime::Runtime;

use crate::model::ModelFile;
use crate::report::{Section, cells};
use crate::stats::{Pairs, Spread};

/// Tokens of the prompt when prefill is measured: one batch.
const LONG_PROMPT: usize = 512;
/// Tokens of the prompt when decode is measured.
const SHORT_PROMPT: usize = 16;
/// Tokens of one answer.
const ANSWER: u32 = 48;

/// Speeds in tokens per second.
pub(crate) struct Speed {
    pub(crate) prefill: Pairs,
    pub(crate) decode: Pairs,
    pub(crate) batch4: Pairs,
    pub(crate) batch8: Pairs,
}

/// Measures `n` pairs of each.
pub(crate) fn measure(
    runtime: &Runtime,
    engine: &LlamaEngine,
    model: &ModelFile,
    options: LoadOptions,
    n: usize,
) -> Result<Speed> {
    let mut reference = ReferenceLoop::load(&model.path, options)?;
    let (long, short) = (tokens(LONG_PROMPT), tokens(SHORT_PROMPT));
    let prefill = paired(
        "prefill",
        n,
        || {
            let usage = runtime.block_on(answer(engine, &long, 1))?.usage;
            Ok(long.len() as f64 / (usage.ttft_ms - usage.wait_ms) * 1e3)
        },
        || Ok(long.len() as f64 / reference.run(&long, 1, 0)?.prefill_ms * 1e3),
    )?;
    // The first token belongs to the prefill.
    let steps = ANSWER - 1;
    let decode = paired(
        "decode",
        n,
        || {
            let usage = runtime.block_on(answer(engine, &short, ANSWER))?.usage;
            Ok(f64::from(steps) / (usage.total_ms - usage.ttft_ms) * 1e3)
        },
        || Ok(f64::from(steps) / reference.run(&short, 1, steps)?.decode_ms * 1e3),
    )?;
    let mut batch = |sequences: u32| {
        paired(
            &format!("{sequences} sequences"),
            n,
            || runtime.block_on(together(engine, &short, sequences)),
            || Ok(f64::from(sequences * steps) / reference.run(&short, sequences, steps)?.decode_ms * 1e3),
        )
    };
    Ok(Speed { prefill, decode, batch4: batch(4)?, batch8: batch(8)? })
}

/// Tokens without a meaning, the same ones every time.
pub(crate) fn tokens(n: usize) -> Vec<Token> {
    // Ordinary tokens of every vocabulary of 1000 or more: behind the bytes, before the markers at the end.
    (0..n).map(|i| 256 + Token::try_from(i * 37 % 700).unwrap_or_default()).collect()
}

/// Measures two things in turn, `n` times each, after one turn of each that is not counted. Who is first changes with
/// every pair, so that neither has the machine after the other every time.
pub(crate) fn paired(
    what: &str,
    n: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut theirs: impl FnMut() -> Result<f64>,
) -> Result<Pairs> {
    eprint!("{what}:");
    rested(&mut ours)?;
    rested(&mut theirs)?;
    let mut pairs = Pairs::default();
    for turn in 0..n {
        let (our, their) = if turn % 2 == 0 {
            let our = rested(&mut ours)?;
            (our, rested(&mut theirs)?)
        } else {
            let their = rested(&mut theirs)?;
            (rested(&mut ours)?, their)
        };
        eprint!(" {our:.2}/{their:.2}");
        pairs.ours.push(our);
        pairs.theirs.push(their);
    }
    eprintln!(" ratio {:.3}", pairs.ratio().median);
    Ok(pairs)
}

/// Threads of a ggml pool spin for up to half a second after their last graph: whoever is next waits until they sleep.
fn rested(measured: &mut impl FnMut() -> Result<f64>) -> Result<f64> {
    std::thread::sleep(Duration::from_millis(500));
    measured()
}

/// A request for exactly `max_tokens` likeliest tokens after `prompt`.
pub(crate) fn request(prompt: &[Token], max_tokens: u32) -> Request {
    Request {
        max_tokens,
        sampling: Sampling::greedy(),
        ignore_eos: true,
        ..Request::new(Prompt::Tokens(prompt.to_vec()))
    }
}

async fn answer(engine: &LlamaEngine, prompt: &[Token], max_tokens: u32) -> Result<Completion> {
    let (_, completion) = engine.submit(request(prompt, max_tokens)).collect().await?;
    ensure!(completion.usage.output_tokens == max_tokens, "{max_tokens} tokens were asked for: {:?}", completion.usage);
    ensure!(completion.usage.cached_tokens == 0, "a new session has cells: {:?}", completion.usage);
    Ok(completion)
}

/// Tokens per second of `n` answers that are made together: from the step at which all of them decode to the step before
/// the first one ends. The engine answers a question about its counters between two steps.
async fn together(engine: &LlamaEngine, prompt: &[Token], n: u32) -> Result<f64> {
    let before = counters(engine).await?;
    let prefilled = before.prefilled + u64::from(n) * prompt.len() as u64;
    let readers: Vec<_> = (0..n).map(|_| tokio::spawn(engine.submit(request(prompt, ANSWER)).collect())).collect();
    let (mut first, mut last) = (None, None);
    loop {
        let now = counters(engine).await?;
        let at = Instant::now();
        if now.finished > before.finished {
            break;
        }
        if now.prefilled == prefilled && now.running == n {
            first.get_or_insert((at, now.decoded));
            last = Some((at, now.decoded));
        }
    }
    for reader in readers {
        reader.await??;
    }
    let (Some((began, from)), Some((ended, to))) = (first, last) else {
        bail!("{n} sequences never decoded together");
    };
    ensure!(to - from >= u64::from(n) * u64::from(ANSWER / 2), "only {} tokens were made together", to - from);
    Ok((to - from) as f64 / (ended - began).as_secs_f64())
}

async fn counters(engine: &LlamaEngine) -> Result<EngineStats> {
    engine.stats().await.context("the engine stopped")?.context("the engine does not tell its counters")
}

impl Speed {
    pub(crate) fn section(&self) -> Section {
        let rows = [
            ("prefill of 512 tokens", &self.prefill),
            ("decode, 1 sequence", &self.decode),
            ("decode, 4 sequences together", &self.batch4),
            ("decode, 8 sequences together", &self.batch8),
        ];
        Section {
            title: "Speed against llama.cpp's own loop".to_owned(),
            about: "Tokens per second of the engine (queue, scheduler, sampler, text and all) and of a plain C++ loop \
                over the same llama.cpp, same file, same options, same process, measured in turn. The ratio is taken \
                within each pair; 1 is as fast."
                .to_owned(),
            header: &["what", "Locara, median", "llama.cpp, median", "ratio: min", "median", "max", "at least"],
            rows: rows.map(|(what, pairs)| compared(what, pairs, 0.98)).to_vec(),
        }
    }
}

/// A row of two medians, the ratio and what it shall be.
pub(crate) fn compared(what: &str, pairs: &Pairs, least: f64) -> Vec<String> {
    let ratio = pairs.ratio();
    let median = |values: &[f64]| format!("{:.1}", Spread::of(values).median);
    let verdict = if ratio.median >= least { "met" } else { "missed" };
    let mut row = vec![what.to_owned(), median(&pairs.ours), median(&pairs.theirs)];
    row.extend(cells(ratio, 3));
    row.push(format!("{least}: {verdict}"));
    row
}
