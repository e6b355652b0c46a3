//! Bytes by kind for (model, context, sequences, KV types, device), before anything is loaded.
//!
//! [`plan`] is a function of its arguments and takes microseconds. Each [`Item`] says how its figure came about and
//! whether that formula was compared with the engine's own allocation (`exact`) or is an estimate. A plan never says
//! whether it fits: that is `verdict`'s question.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Bytes,
    compute::{self, ComputeLayout, Derived},
    kv::{Cells, KvError, KvLayout, KvType, kv_bytes},
    ledger::Kind,
    shape::{ArchClass, MAX_LAYERS, ModelShape},
};

/// Where the model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// On the processor; weights stay clean pages of the file.
    Cpu,
    /// On a GPU that shares the machine's memory (Apple silicon): the mapped weights are wired while it works.
    UnifiedGpu,
    /// On a GPU with memory of its own: the weights are copied there.
    DiscreteGpu,
}

impl Device {
    /// Whether it is a GPU.
    #[must_use]
    pub const fn is_gpu(self) -> bool {
        matches!(self, Self::UnifiedGpu | Self::DiscreteGpu)
    }
}

/// What memory an item takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    /// Pages of a file: clean, dropped by the OS without writing.
    File,
    /// Anonymous memory of the machine: only compression or swap gets it back.
    Anonymous,
    /// Memory of a discrete GPU.
    Device,
}

/// Which model of a speculative pair an item belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The model that answers.
    Main,
    /// The small model that guesses ahead.
    Draft,
    /// Neither: guests and caches of the host.
    Host,
}

/// A draft model that guesses ahead of the main one. It gets the same context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// Its shape.
    pub shape: ModelShape,
    /// Type of its keys.
    pub type_k: KvType,
    /// Type of its values.
    pub type_v: KvType,
    /// Tokens it guesses at most; the main model verifies them in one batch and needs logits for each and one more.
    pub n_draft_max: u32,
}

/// What a context is asked to be. Field names are llama.cpp's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanRequest {
    /// Tokens of the context, over all sequences when unified; never 0 (llama.cpp would take the trained length).
    pub n_ctx: u32,
    /// Sequences that are decoded in one batch.
    pub n_seq_max: u32,
    /// One pool of cells for all sequences. The host always asks for it: only then are prefixes shared.
    pub kv_unified: bool,
    /// Layers with a window keep cells for the whole context. The engine asks for it: only then can a sequence be cut back to
    /// any prefix and be continued from there.
    pub swa_full: bool,
    /// Type of the keys.
    pub type_k: KvType,
    /// Type of the values. A quantised one needs `flash_attention`.
    pub type_v: KvType,
    /// Tokens handed to the engine at once.
    pub n_batch: u32,
    /// Tokens computed at once; capped by `n_batch` and `n_ctx`.
    pub n_ubatch: u32,
    /// Tokens of a batch whose logits are wanted; 0 is all of `n_batch`, which costs hundreds of MB with a large vocabulary.
    pub n_outputs_max: u32,
    /// FlashAttention on.
    pub flash_attention: bool,
    /// Where it computes.
    pub device: Device,
    /// Memory of guests to be charged with this model.
    pub guest_memory: Bytes,
    /// Bytes set aside for saved prefixes.
    pub prompt_cache: Bytes,
    /// A draft model.
    pub draft: Option<Box<Draft>>,
}

impl PlanRequest {
    /// The host's defaults for a device: 8192 tokens, 4 sequences, unified, batches of 512, logits for one token of each
    /// sequence. GPU: q8_0/q8_0 with FlashAttention. CPU: K q8_0, V f16, FlashAttention off (q8_0 for both would cost 2.6×
    /// prefill there).
    #[must_use]
    pub fn new(device: Device) -> Self {
        let gpu = device.is_gpu();
        Self {
            n_ctx: 8192,
            n_seq_max: 4,
            kv_unified: true,
            swa_full: true,
            type_k: KvType::Q8_0,
            type_v: if gpu { KvType::Q8_0 } else { KvType::F16 },
            n_batch: 512,
            n_ubatch: 512,
            n_outputs_max: 4,
            flash_attention: gpu,
            device,
            guest_memory: Bytes::ZERO,
            prompt_cache: Bytes::ZERO,
            draft: None,
        }
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What it is, in a few words.
    pub label: String,
    /// The ledger's kind.
    pub kind: Kind,
    /// Which model it belongs to.
    pub part: Part,
    /// What memory it takes.
    pub backing: Backing,
    /// How much.
    pub bytes: Bytes,
    /// The formula with its numbers.
    pub derivation: String,
    /// `true`: the engine's own formula, compared with it on a CPU. `false`: an estimate.
    pub exact: bool,
}

/// Bytes by kind. `total` is Σ items; `file_backed + anonymous + device` is `total` too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// `general.architecture` of the main model.
    pub architecture: String,
    /// The class whose formulas were used.
    pub class: ArchClass,
    /// Tokens over all sequences, after padding.
    pub n_ctx: u32,
    /// Tokens that one sequence may take, after padding.
    pub n_ctx_seq: u32,
    /// Where it computes.
    pub device: Device,
    /// The lines.
    pub items: Vec<Item>,
    /// Everything.
    pub total: Bytes,
    /// Pages of model files.
    pub file_backed: Bytes,
    /// Anonymous memory of the machine.
    pub anonymous: Bytes,
    /// Memory of a discrete GPU.
    pub on_device: Bytes,
    /// The most that is held at any moment of this model's life: `total` and, while the exact dry run of the engine runs, its
    /// second set of tables. Loading takes nothing beside: weights are mapped, buffers are made once and whole. A load beside
    /// an unload holds the sum of both until the unload has settled; who lets them overlap reserves this peak **and** what
    /// the other model holds.
    pub peak: Bytes,
    /// KV bytes of one more token of context, in the layers that see all of it.
    pub kv_per_token: Bytes,
}

impl Plan {
    /// What is planned for one kind.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> Bytes {
        self.items.iter().filter(|item| item.kind == kind).map(|item| item.bytes).sum()
    }
    /// Weights of all models, however they are held.
    #[must_use]
    pub fn weights(&self) -> Bytes {
        [Kind::WeightsMapped, Kind::WeightsWired, Kind::WeightsCopied].map(|kind| self.of_kind(kind)).into_iter().sum()
    }
    /// What counts against the working set of a GPU: all but guests, host caches and tables.
    #[must_use]
    pub fn gpu_working_set(&self) -> Bytes {
        let counted = |item: &&Item| match self.device {
            Device::Cpu => false,
            Device::UnifiedGpu => item.part != Part::Host && item.kind != Kind::Tables,
            Device::DiscreteGpu => item.backing == Backing::Device,
        };
        self.items.iter().filter(counted).map(|item| item.bytes).sum()
    }
    /// Whether every line equals the engine's own figure.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.items.iter().all(|item| item.exact)
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PlanError {
    /// A figure of the request that must not be zero.
    #[error("{0} is 0; give the number of tokens or sequences that are really wanted")]
    Zero(&'static str),
    /// No layers, or more than llama.cpp takes.
    #[error("the model has {layers} layers; between 1 and {MAX_LAYERS} are possible")]
    Layers {
        /// Layers of the shape.
        layers: usize,
    },
    /// V is stored transposed without FlashAttention, which a block type cannot be.
    #[error("values kept as {type_v} need FlashAttention; turn it on, or use f16 for V")]
    QuantisedValues {
        /// The type asked for.
        type_v: KvType,
    },
    /// Padding would leave 32 bits.
    #[error("a context of {n_ctx} tokens for {n_seq_max} sequences is more than llama.cpp can count; lower n_ctx")]
    Context {
        /// Tokens asked for.
        n_ctx: u32,
        /// Sequences.
        n_seq_max: u32,
    },
    /// The state cannot be sized.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A figure or the sum does not fit 64 bits.
    #[error("{what} takes more bytes than can be counted; the model's dimensions or the request are not plausible")]
    Overflow {
        /// Which figure.
        what: &'static str,
    },
}

/// Predicts the bytes of a model in a context.
///
/// # Errors
/// [`PlanError`] when the request contradicts itself or the figures are absurd.
pub fn plan(shape: &ModelShape, request: &PlanRequest) -> Result<Plan, PlanError> {
    let mut items = Vec::with_capacity(12);
    let main = Planned {
        shape,
        part: Part::Main,
        type_k: request.type_k,
        type_v: request.type_v,
        outputs: outputs(request)?,
        // A rejected guess is taken back, which a recurrent state can only do from a snapshot.
        rollback: request.draft.as_ref().map_or(0, |draft| draft.n_draft_max),
    };
    let (cells, kv_per_token) = main.items(request, &mut items)?;
    if let Some(draft) = &request.draft {
        let guessing = Planned {
            shape: &draft.shape,
            part: Part::Draft,
            type_k: draft.type_k,
            type_v: draft.type_v,
            outputs: request.n_seq_max,
            rollback: 0,
        };
        guessing.items(request, &mut items)?;
    }
    for (label, kind, bytes, why) in [
        ("prompt cache", Kind::PrefixCache, request.prompt_cache, "as asked"),
        ("guest memory", Kind::GuestMemory, request.guest_memory, "linear memory cap of the guests, as asked"),
    ] {
        if !bytes.is_zero() {
            items.push(Item {
                label: label.to_owned(),
                kind,
                part: Part::Host,
                backing: Backing::Anonymous,
                bytes,
                derivation: why.to_owned(),
                exact: true,
            });
        }
    }
    finish(shape, request, cells, kv_per_token, items)
}

/// Tokens of one batch of the main model whose logits are kept.
fn outputs(request: &PlanRequest) -> Result<u32, PlanError> {
    let asked = if request.n_outputs_max == 0 { request.n_batch } else { request.n_outputs_max };
    let verified = match &request.draft {
        Some(draft) => draft.n_draft_max.checked_add(1).and_then(|tokens| tokens.checked_mul(request.n_seq_max)),
        None => Some(0),
    };
    let verified = verified.ok_or(PlanError::Overflow { what: "the batch that verifies a draft" })?;
    Ok(asked.max(verified))
}

fn finish(
    shape: &ModelShape,
    request: &PlanRequest,
    cells: Cells,
    kv_per_token: Bytes,
    items: Vec<Item>,
) -> Result<Plan, PlanError> {
    let overflow = PlanError::Overflow { what: "the whole plan" };
    let total = Bytes::checked_sum(items.iter().map(|item| item.bytes)).ok_or(overflow.clone())?;
    let backed = |backing| items.iter().filter(|item| item.backing == backing).map(|item| item.bytes).sum();
    let tables: Bytes = items.iter().filter(|item| item.kind == Kind::Tables).map(|item| item.bytes).sum();
    Ok(Plan {
        architecture: shape.architecture.clone(),
        class: shape.class(),
        n_ctx: cells.n_ctx,
        n_ctx_seq: cells.n_ctx_seq,
        device: request.device,
        total,
        file_backed: backed(Backing::File),
        anonymous: backed(Backing::Anonymous),
        on_device: backed(Backing::Device),
        peak: total.checked_add(tables).ok_or(overflow)?,
        kv_per_token,
        items,
    })
}

/// Tokens of a batch of whole texts: equal parts for all sequences.
fn whole_batch(request: &PlanRequest) -> Result<u32, PlanError> {
    let PlanRequest { n_ctx, n_seq_max, n_batch, .. } = *request;
    n_batch.checked_next_multiple_of(n_seq_max).ok_or(PlanError::Context { n_ctx, n_seq_max })
}

/// One model of the plan.
struct Planned<'a> {
    shape: &'a ModelShape,
    part: Part,
    type_k: KvType,
    type_v: KvType,
    outputs: u32,
    rollback: u32,
}

impl Planned<'_> {
    fn items(&self, request: &PlanRequest, items: &mut Vec<Item>) -> Result<(Cells, Bytes), PlanError> {
        self.check(request)?;
        let PlanRequest { n_ctx, n_seq_max, n_batch, n_ubatch, .. } = *request;
        // llama.cpp caps the batch by the context as asked for, before padding, and the computed part by both.
        let mut n_ubatch = n_ubatch.min(n_batch).min(n_ctx);
        let refused = PlanError::Context { n_ctx, n_seq_max };
        if self.shape.embeds() {
            // A text is seen as a whole: the engine computes whole batches, in equal parts for the sequences.
            let n_batch = whole_batch(request)?;
            let padded = Cells::new(n_ctx, n_seq_max, request.kv_unified, n_batch).ok_or(refused.clone())?;
            n_ubatch = n_batch.min(if self.shape.encoder { padded.n_ctx } else { n_ctx });
        }
        let cells = Cells::new(n_ctx, n_seq_max, request.kv_unified, n_ubatch).ok_or(refused)?;
        let cells = if request.swa_full { cells.with_full_windows() } else { cells };

        self.weights(request.device, items)?;
        let per_token = self.state(request, cells, items)?;
        self.scratch(request, cells, n_ubatch, items)?;
        Ok((cells, per_token))
    }

    fn check(&self, request: &PlanRequest) -> Result<(), PlanError> {
        for (name, value) in [
            ("n_ctx", request.n_ctx),
            ("n_seq_max", request.n_seq_max),
            ("n_batch", request.n_batch),
            ("n_ubatch", request.n_ubatch),
        ] {
            if value == 0 {
                return Err(PlanError::Zero(name));
            }
        }
        if !(1..=MAX_LAYERS).contains(&self.shape.n_layer()) {
            return Err(PlanError::Layers { layers: self.shape.n_layer() });
        }
        if self.type_v.is_quantised() && !request.flash_attention {
            return Err(PlanError::QuantisedValues { type_v: self.type_v });
        }
        Ok(())
    }

    fn item(&self, label: &str, kind: Kind, backing: Backing, bytes: Bytes, derivation: String, exact: bool) -> Item {
        let label = if self.part == Part::Draft { format!("draft {label}") } else { label.to_owned() };
        Item { label, kind, part: self.part, backing, bytes, derivation, exact }
    }

    fn weights(&self, device: Device, items: &mut Vec<Item>) -> Result<(), PlanError> {
        let crate::shape::Weights { bytes, token_embedding, tied_output } = self.shape.weights;
        let sum = "Σ tensors, padded to the file's alignment";
        let exact = is_checked(self.shape);
        match device {
            Device::Cpu => {
                let why = format!("{sum}; shared read-only mapping, clean pages");
                items.push(self.item("weights", Kind::WeightsMapped, Backing::File, bytes, why, exact));
            }
            Device::UnifiedGpu => {
                let why = format!("{sum}; the same mapping, wired while the GPU works");
                items.push(self.item("weights", Kind::WeightsWired, Backing::File, bytes, why, exact));
            }
            Device::DiscreteGpu => {
                // The embedding table stays on the host; a tied one is the output matrix on the GPU as well.
                let host = token_embedding.min(bytes);
                let copied = if tied_output { bytes } else { bytes.saturating_sub(host) };
                let why = format!("{sum}, all layers offloaded");
                items.push(self.item("weights on the GPU", Kind::WeightsCopied, Backing::Device, copied, why, false));
                let why = "llama.cpp keeps the token embeddings on the host".to_owned();
                items.push(self.item("token embeddings", Kind::WeightsMapped, Backing::File, host, why, false));
            }
        }
        Ok(())
    }

    fn state(&self, request: &PlanRequest, cells: Cells, items: &mut Vec<Item>) -> Result<Bytes, PlanError> {
        let layout = KvLayout {
            cells,
            n_seq_max: request.n_seq_max,
            type_k: self.type_k,
            type_v: self.type_v,
            flash_attention: request.flash_attention,
            rollback: self.rollback,
        };
        let kv = kv_bytes(self.shape, &layout)?;
        let backing = self.scratch_backing(request.device);
        let exact = is_checked(self.shape);
        if !kv.global.is_zero() {
            let why = format!(
                "{per_token} B per token (K {k}, V {v}) × {n} cells × {s} streams; committed whole when the context is made",
                per_token = kv.per_token.get(),
                k = self.type_k,
                v = self.type_v,
                n = cells.n_ctx_seq,
                s = cells.streams,
            );
            items.push(self.item("KV", Kind::Kv, backing, kv.global, why, exact));
        }
        if !kv.window.is_zero() {
            let layers = self.shape.layers.iter().filter(|layer| layer.attention.window().is_some()).count();
            let why = format!(
                "{layers} layers that see a window, {cells} cells each: {rule}",
                cells = self
                    .shape
                    .layers
                    .iter()
                    .filter_map(|layer| layer.attention.window())
                    .map(|w| cells.of_window(w))
                    .max()
                    .unwrap_or(0),
                rule = if request.swa_full {
                    "as many as the context"
                } else {
                    "pad256(min(n_ctx, window·sequences + n_ubatch))"
                },
            );
            items.push(self.item("KV of the windows", Kind::Kv, backing, kv.window, why, exact));
        }
        if !kv.recurrent.is_zero() {
            let layers = self.shape.layers.iter().filter(|layer| layer.recurrent_f32 > 0).count();
            let why = format!(
                "f32 state of {layers} layers × {seqs} sequences × {copies} copies, whatever the context",
                seqs = request.n_seq_max,
                copies = u64::from(self.rollback) + 1,
            );
            items.push(self.item("recurrent state", Kind::Kv, backing, kv.recurrent, why, exact && self.rollback == 0));
        }
        Ok(kv.per_token)
    }

    fn scratch(
        &self,
        request: &PlanRequest,
        cells: Cells,
        n_ubatch: u32,
        items: &mut Vec<Item>,
    ) -> Result<(), PlanError> {
        let n_vocab = u64::from(self.shape.n_vocab);
        // The graph is reserved for whole sequences: the tokens are rounded up to a multiple of them.
        let n_tokens = n_ubatch.checked_next_multiple_of(request.n_seq_max).unwrap_or(n_ubatch);
        let outputs = if self.shape.embeds() { whole_batch(request)? } else { self.outputs };
        let n_outputs = outputs.min(n_ubatch);
        let layout = ComputeLayout {
            cells,
            n_seq_max: request.n_seq_max,
            n_tokens,
            n_outputs,
            type_k: self.type_k,
            type_v: self.type_v,
            flash_attention: request.flash_attention,
        };
        let Derived { bytes, derivation, exact } =
            compute::compute_bytes(self.shape, &layout).ok_or(PlanError::Overflow { what: "the compute buffer" })?;
        // Snapshots for taking tokens back are more outputs of a recurrent layer, which nobody compared.
        let snapshots = self.rollback > 0 && self.shape.layers.iter().any(|layer| layer.recurrent_f32 > 0);
        let exact = exact && !request.device.is_gpu() && !snapshots;
        items.push(self.item("compute", Kind::Compute, self.scratch_backing(request.device), bytes, derivation, exact));

        let rows = u64::from(outputs.max(request.n_seq_max));
        // An embedding model is asked for vectors of all tokens, and llama.cpp makes room for logits all the same.
        let width = n_vocab + if self.shape.embeds() { u64::from(self.shape.n_embd) } else { 0 };
        let output = Bytes::product(&[rows, width, 4]).ok_or(PlanError::Overflow { what: "the output buffer" })?;
        let why = format!("{rows} outputs × {width} values × 4 B");
        items.push(self.item("output", Kind::Output, Backing::Anonymous, output, why, true));

        let tables = Bytes::product(&[n_vocab, compute::TABLE_BYTES_PER_TOKEN])
            .ok_or(PlanError::Overflow { what: "the vocabulary" })?;
        let why = format!("vocabulary of {n_vocab} tokens × about {} B", compute::TABLE_BYTES_PER_TOKEN);
        items.push(self.item("tables", Kind::Tables, Backing::Anonymous, tables, why, false));
        Ok(())
    }

    const fn scratch_backing(&self, device: Device) -> Backing {
        match device {
            Device::Cpu | Device::UnifiedGpu => Backing::Anonymous,
            Device::DiscreteGpu => Backing::Device,
        }
    }
}
/// Whether weights and state of such a model were compared with llama.cpp's own account, byte by byte.
fn is_checked(shape: &ModelShape) -> bool {
    matches!(shape.class(), ArchClass::Dense | ArchClass::MixtureOfExperts | ArchClass::Encoder)
        || (compute::FOLLOWED.contains(&shape.architecture.as_str()) && !shape.graph.unfollowed)
}
