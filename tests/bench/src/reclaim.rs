//! What giving memory back costs, and how soon it is back: on the engine's own border, with the large model.
//!
//! Quiet rounds measure what a session or the weights pay when they are wanted again. Busy rounds measure how long the bytes
//! take while another answer is being computed, which is when the host asks for them.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use locara_engine::llama::{CacheOptions, LlamaEngine, LoadOptions, SpillOptions};
use locara_engine::{Class, Completion, Engine, Event, Reclaim, Reclaimed, Request, SessionId};
use locara_platform::{Host, Platform};
use locara_policy::{Kind, Plan};
use tokio::runtime::Runtime;

use crate::model::ModelFile;
use crate::report::{Section, bytes};
use crate::speed::{request, tokens};
use crate::stats::{Spread, quantile};

/// Tokens of the session that gives way.
const HISTORY: usize = 512;
/// Room for every saved state.
const PLENTY: u64 = 1 << 30;

/// What was asked for while another answer was computed.
const BUSY: [(&str, Reclaim); 5] = [
    ("idle sessions, to disk", Reclaim::IdleSessions { spill: true }),
    ("idle sessions, forgotten", Reclaim::IdleSessions { spill: false }),
    ("a background answer, to memory", Reclaim::Background { spill: false }),
    ("prompt cache, to disk", Reclaim::PromptCache { spill: true }),
    ("pages of weights", Reclaim::Weights),
];

/// The ledger's sum beside what the system counts.
struct Account {
    when: &'static str,
    ledger: u64,
    measured: u64,
}

/// All measurements of this module. Times in ms.
#[derive(Default)]
pub(crate) struct Reclaiming {
    busy: Vec<(&'static str, Vec<Reclaimed>)>,
    /// Time to the first token of a session: its history computed, or back from disk.
    computed_ms: Vec<f64>,
    restored_ms: Vec<f64>,
    /// A token with the weights in memory, and the first one after their pages were dropped.
    token_ms: Vec<f64>,
    cold_token_ms: Vec<f64>,
    evicted: Vec<Reclaimed>,
    accounts: Vec<Account>,
}

/// `n` rounds of each.
pub(crate) fn measure(
    runtime: &Runtime,
    host: &Host,
    model: &ModelFile,
    options: LoadOptions,
    planned: &Plan,
    n: usize,
) -> Result<Reclaiming> {
    eprintln!("giving memory back");
    let folder = tempfile::tempdir()?;
    let cache = CacheOptions {
        prompt_cache_bytes: PLENTY,
        spill: Some(SpillOptions { dir: folder.path().to_owned(), max_bytes: PLENTY }),
    };
    // What this process holds beside the model: it has measured others before.
    let before = host.process()?;
    let engine = LlamaEngine::load_with_cache(&model.path, &model.digest, options, &cache, |_| true)?;
    let (engine, cells) = (Arc::new(engine), options.kv_cells);
    let mut found = Reclaiming { busy: BUSY.map(|(name, _)| (name, Vec::new())).into(), ..Reclaiming::default() };
    let account = |when| {
        let held = engine.memory();
        let tables = planned.of_kind(Kind::Tables).get();
        let saved = engine.watch().borrow().prompt_cache_bytes;
        let process = host.process()?;
        let measured = process.footprint_bytes.context("the system does not say what the process takes")?;
        let at_start = before.footprint_bytes.unwrap_or(0);
        let ledger =
            held.weights_mapped + held.weights_resident + held.kv + held.compute + held.output + tables + saved;
        anyhow::Ok(Account { when, ledger, measured: measured.saturating_sub(at_start) })
    };
    runtime.block_on(async {
        for round in 0..n {
            found.quiet(&engine, cells).await?;
            if round == 0 {
                found.accounts.push(account("after an answer")?);
            }
            found.busy_round(&engine, cells).await?;
            if round == 0 {
                // The round dropped the weights last; an answer brings them back.
                answer(&engine, request(&tokens(HISTORY), 1)).await?;
                give(&engine, Reclaim::IdleSessions { spill: true }).await?;
                found.accounts.push(account("idle sessions given back, their pool too")?);
                give(&engine, Reclaim::Weights).await?;
                let mut weightless = account("pages of weights dropped too")?;
                weightless.ledger -= engine.memory().weights_mapped;
                found.accounts.push(weightless);
            }
        }
        anyhow::Ok(())
    })?;
    Ok(found)
}

impl Reclaiming {
    /// A session gives way and comes back; the weights too.
    async fn quiet(&mut self, engine: &LlamaEngine, cells: u32) -> Result<()> {
        grow(engine, cells).await?;
        let session = engine.open().await??;
        let ask = |n| Request { session: Some(session), ..request(&tokens(HISTORY), n) };
        let first = answer(engine, ask(1)).await?;
        ensure!(first.usage.cached_tokens == 0, "a new session has cells: {:?}", first.usage);
        self.computed_ms.push(first.usage.ttft_ms);
        give(engine, Reclaim::IdleSessions { spill: true }).await?;
        grow(engine, cells).await?;
        let again = answer(engine, ask(1)).await?;
        ensure!(again.usage.cached_tokens as usize == HISTORY - 1, "the state did not come back: {:?}", again.usage);
        self.restored_ms.push(again.usage.ttft_ms);
        // One token of a warm session is one step: the time to it is that of the step.
        self.token_ms.push(answer(engine, ask(1)).await?.usage.ttft_ms);
        self.evicted.push(give(engine, Reclaim::Weights).await?);
        self.cold_token_ms.push(answer(engine, ask(1)).await?.usage.ttft_ms);
        engine.close(session);
        Ok(())
    }

    /// Everything in [`BUSY`], once each, beside an answer that goes on through all of it.
    async fn busy_round(&mut self, engine: &Arc<LlamaEngine>, cells: u32) -> Result<()> {
        let (mut running, reader) = begun(engine, Request { max_tokens: cells / 4, ..request(&tokens(16), 0) }).await?;
        for (at, &(name, what)) in BUSY.iter().enumerate() {
            grow(engine, cells).await?;
            let session = idle_session(engine).await?;
            let background = match what {
                Reclaim::Background { .. } | Reclaim::PromptCache { .. } => {
                    let ask = Request { class: Class::Background, ..request(&tokens(64), cells / 8) };
                    Some(begun(engine, ask).await?)
                }
                _ => None,
            };
            if matches!(what, Reclaim::PromptCache { .. }) {
                give(engine, Reclaim::Background { spill: false }).await?;
            }
            if running.is_finished() {
                // A machine that was quick: the next one takes its place.
                running = begun(engine, Request { max_tokens: cells / 4, ..request(&tokens(16), 0) }).await?.0;
            }
            let reclaimed = give(engine, what).await?;
            ensure!(reclaimed.freed_bytes > 0, "{name}: nothing was given back");
            self.busy[at].1.push(reclaimed);
            if let Some((task, id)) = background {
                engine.cancel(id);
                task.await?;
                engine.resume();
            }
            engine.close(session);
        }
        engine.cancel(reader);
        running.abort();
        Ok(())
    }

    /// From the question to the measured end, over everything that was asked beside an answer: p50 and p99, ms.
    pub(crate) fn freed_ms(&self) -> (f64, f64) {
        let all: Vec<f64> = self.busy.iter().flat_map(|(_, times)| times.iter().map(|r| r.took_ms)).collect();
        (quantile(&all, 0.5), quantile(&all, 0.99))
    }

    /// Time to the first token when the state comes from disk, as a share of computing it again; pairs of one round.
    pub(crate) fn restore_ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.restored_ms.iter().zip(&self.computed_ms).map(|(back, anew)| back / anew).collect();
        Spread::of(&ratios).median
    }

    /// The largest difference between ledger and system, as a share of the ledger.
    pub(crate) fn ledger_error(&self) -> f64 {
        self.accounts.iter().map(|a| a.measured.abs_diff(a.ledger) as f64 / a.ledger as f64).fold(0.0, f64::max)
    }

    pub(crate) fn sections(&self) -> [Section; 3] {
        let busy = self.busy.iter().map(|(name, all)| {
            let took: Vec<f64> = all.iter().map(|r| r.took_ms).collect();
            let freed: Vec<f64> = all.iter().map(|r| r.freed_bytes as f64).collect();
            vec![
                (*name).to_owned(),
                format!("{:.1}", quantile(&took, 0.5)),
                format!("{:.1}", quantile(&took, 0.99)),
                bytes(Spread::of(&freed).median as u64),
            ]
        });
        let cost = |what: &str, values: &[f64]| {
            let Spread { min, median, max } = Spread::of(values);
            vec![what.to_owned(), format!("{min:.1}"), format!("{median:.1}"), format!("{max:.1}")]
        };
        let (evict_ms, gone): (Vec<f64>, Vec<f64>) =
            self.evicted.iter().map(|r| (r.took_ms, r.rss_before.saturating_sub(r.rss_after) as f64 / 1e6)).unzip();
        let accounts = self.accounts.iter().map(|a| {
            let error = (a.measured as f64 - a.ledger as f64) / a.ledger as f64 * 100.0;
            vec![a.when.to_owned(), bytes(a.ledger), bytes(a.measured), format!("{error:+.2}")]
        });
        [
            Section {
                title: "Giving memory back beside an answer".to_owned(),
                about: "From the question to the engine to the end of the action, while another answer is computed: the step \
                    that runs is stopped, the action is done, the bytes are free. The idle session and the background \
                    answer have some hundred tokens."
                    .to_owned(),
                header: &["what", "p50, ms", "p99, ms", "freed, median"],
                rows: busy.collect(),
            },
            Section {
                title: "What it costs to come back".to_owned(),
                about: format!(
                    "A session of {HISTORY} tokens computed anew, or its state from disk (verified); one token with all \
                     weights in memory, and the first one after their pages were dropped with the context kept. The file is \
                     in the system's cache or on disk, as the system chose. From disk takes {:.3} of computing it again.",
                    self.restore_ratio()
                ),
                header: &["what", "min", "median", "max"],
                rows: vec![
                    cost("first token, history computed again, ms", &self.computed_ms),
                    cost("first token, history from disk, ms", &self.restored_ms),
                    cost("one token, weights in memory, ms", &self.token_ms),
                    cost("one token, pages of weights dropped before, ms", &self.cold_token_ms),
                    cost("dropping the pages, ms", &evict_ms),
                    cost("dropping the pages, MB that left the process", &gone),
                ],
            },
            Section {
                title: "Ledger against the system".to_owned(),
                about: "What the ledger says that one engine holds, and by how much `smaps_rollup` (proportional set size) has \
                    grown since before the load. Buffers that were never touched are in the ledger alone."
                    .to_owned(),
                header: &["when", "ledger", "smaps_rollup", "difference, %"],
                rows: accounts.collect(),
            },
        ]
    }
}

async fn answer(engine: &LlamaEngine, request: Request) -> Result<Completion> {
    Ok(engine.submit(request).collect().await?.1)
}

async fn give(engine: &LlamaEngine, what: Reclaim) -> Result<Reclaimed> {
    Ok(engine.reclaim(what).await??)
}

/// The pool as it was loaded.
async fn grow(engine: &LlamaEngine, cells: u32) -> Result<()> {
    engine.resize(cells).await??;
    Ok(())
}

/// A session that nobody asks anything, with cells.
async fn idle_session(engine: &LlamaEngine) -> Result<SessionId> {
    let session = engine.open().await??;
    answer(engine, Request { session: Some(session), ..request(&tokens(HISTORY / 2), 1) }).await?;
    Ok(session)
}

/// An answer that has begun and is read to its end by a task.
async fn begun(
    engine: &LlamaEngine,
    request: Request,
) -> Result<(tokio::task::JoinHandle<()>, locara_engine::RequestId)> {
    let mut generation = engine.submit(request);
    let id = generation.id;
    loop {
        match generation.events.recv().await.context("the engine went away")? {
            Event::Prefill { .. } => {}
            Event::Done(outcome) => {
                outcome?;
                anyhow::bail!("an answer ended before it began");
            }
            _ => break,
        }
    }
    Ok((tokio::spawn(async move { while generation.events.recv().await.is_some() {} }), id))
}
