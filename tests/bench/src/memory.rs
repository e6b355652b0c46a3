//! What the process holds while it generates: weights as clean pages of their file, everything else as planned.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use locara_engine::llama::{LlamaEngine, LoadOptions};
use locara_engine::shape::model_shape;
use locara_engine::{Engine, Event};
use locara_gguf::Gguf;
use locara_platform::{Host, MappingMemory, Platform, ProcessMemory};
use locara_policy::{Bytes, Device, Kind, Plan, plan};
use tokio::runtime::Runtime;

use crate::model::ModelFile;
use crate::report::{Section, bytes};
use crate::speed::{request, tokens};

/// Tokens between two looks at the process.
const LOOK_EVERY: usize = 16;

/// The process before the model came and while it worked.
pub(crate) struct Memory {
    before: ProcessMemory,
    /// The look with the most anonymous memory.
    working: ProcessMemory,
    /// The mapping of the model file at that look.
    mapping: MappingMemory,
    planned: Plan,
}

/// Loads the model into a process that holds no other, generates, and looks. The engine goes on.
pub(crate) fn measure(
    runtime: &Runtime,
    host: &Host,
    model: &ModelFile,
    options: LoadOptions,
    device: Device,
) -> Result<(Arc<LlamaEngine>, Memory)> {
    eprintln!("memory while generating");
    let planned = plan(&model_shape(&Gguf::open(&model.path)?)?, &options.plan_request(device))?;
    let before = host.process()?;
    let engine = Arc::new(LlamaEngine::load(&model.path, &model.digest, options, |_| true)?);
    let looks = runtime.block_on(async {
        // A whole batch of prompt, so that the compute buffer is used as far as it ever is.
        let mut generation = engine.submit(request(&tokens(options.n_batch as usize), 3 * LOOK_EVERY as u32));
        let (mut pieces, mut looks) = (0, Vec::new());
        while let Some(event) = generation.events.recv().await {
            match event {
                Event::Done(outcome) => {
                    outcome?;
                    break;
                }
                Event::Text(_) if pieces % LOOK_EVERY == 0 => {
                    looks.push((host.process()?, host.mapping(&model.path)?));
                    pieces += 1;
                }
                _ => pieces += 1,
            }
        }
        anyhow::Ok(looks)
    })?;
    let (working, mapping) =
        looks.into_iter().max_by_key(|(process, _)| process.rss_anon_bytes).context("nothing was generated")?;
    ensure!(mapping.mapped_bytes > 0, "{} is not mapped", model.path.display());
    Ok((engine, Memory { before, working, mapping, planned }))
}

impl Memory {
    /// Bytes of weights that the system cannot simply drop.
    pub(crate) fn anonymous_weights(&self) -> u64 {
        self.mapping.anonymous_bytes + self.mapping.dirty_bytes
    }

    /// What the planner had said.
    pub(crate) fn planned(&self) -> &Plan {
        &self.planned
    }

    /// What the process holds of the model by group, with the kind that stands for the group, planned and measured.
    pub(crate) fn against_plan(&self) -> [(&'static str, Kind, Bytes, Bytes); 2] {
        let anonymous = self.working.rss_anon_bytes.saturating_sub(self.before.rss_anon_bytes);
        [
            ("weights", Kind::WeightsMapped, self.planned.file_backed, Bytes(self.mapping.resident_bytes)),
            ("anonymous", Kind::Tables, self.planned.anonymous, Bytes(anonymous)),
        ]
    }

    pub(crate) fn section(&self) -> Section {
        let grown = |field: fn(&ProcessMemory) -> u64| bytes(field(&self.working).saturating_sub(field(&self.before)));
        let row = |what: &str, measured: String, planned: Option<Bytes>| {
            vec![what.to_owned(), measured, planned.map_or_else(String::new, |planned| bytes(planned.get()))]
        };
        Section {
            title: "Memory while generating".to_owned(),
            about: "Bytes that one engine with the large model adds to the process, after a prompt of a whole batch, \
                against the ledger's promise. Buffers count as planned when they are made and as resident when they are \
                first touched; tables (vocabulary, graph) are estimated."
                .to_owned(),
            header: &["what", "measured", "planned"],
            rows: vec![
                row("weights: pages of the file in memory", bytes(self.mapping.resident_bytes), Some(self.planned.file_backed)),
                row("weights: copied or dirty pages", bytes(self.anonymous_weights()), Some(Bytes::ZERO)),
                row("weights: locked pages", bytes(self.mapping.locked_bytes), Some(Bytes::ZERO)),
                row("process, file-backed", grown(|process| process.rss_file_bytes), None),
                row("process, anonymous", grown(|process| process.rss_anon_bytes), Some(self.planned.anonymous)),
                row("process, swapped", grown(|process| process.swapped_bytes), Some(Bytes::ZERO)),
            ],
        }
    }
}
