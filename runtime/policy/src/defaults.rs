//! What the host chooses when nobody says. Nothing here is a constant of taste: each value follows from the machine (and the
//! model, where one is known) and carries its derivation, so that `locara doctor` can print why.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Bytes,
    kv::{Cells, KvBytes, KvError, KvLayout, KvType, kv_bytes},
    machine::Machine,
    plan::{Device, PlanRequest},
    shape::ModelShape,
};

/// Tokens of context where nothing speaks against it. The strongest lever on memory, so never more without being asked.
const CONTEXT: u32 = 8192;
/// The context is not made smaller than this to meet the KV budget.
const LEAST_CONTEXT: u32 = 2048;
/// Sequences decoded together. More than 8 need an explicit choice: each one slows the others.
const SEQUENCES: u32 = 4;
/// KV never takes more than this by default, however large the machine.
const KV_MOST: Bytes = Bytes::gb(8);
/// KV never takes more than this part of memory by default.
const KV_SHARE: (u64, u64) = (1, 8);
/// Saved states of sessions whose cells others needed: half as many as there are cells, so that a second set of conversations
/// stays warm, and never more than this. Beyond it they go to disk.
const PROMPT_CACHE_MOST: Bytes = Bytes::mib(256);
/// Seconds without a request after which a model is unloaded; pressure overrides it.
const IDLE_UNLOAD: u32 = 180;

/// A value and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// How it came about.
    pub why: String,
}

impl<T> Setting<T> {
    fn new(value: T, why: impl Into<String>) -> Self {
        Self { value, why: why.into() }
    }
}

/// The defaults of a machine, for one model where it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// Bytes the host may hold in all: the ledger's cap.
    pub memory_cap: Setting<Bytes>,
    /// Bytes of KV cells.
    pub kv_budget: Setting<Bytes>,
    /// Tokens of context.
    pub n_ctx: Setting<u32>,
    /// Sequences decoded together.
    pub max_sequences: Setting<u32>,
    /// Type of the keys.
    pub type_k: Setting<KvType>,
    /// Type of the values.
    pub type_v: Setting<KvType>,
    /// FlashAttention.
    pub flash_attention: Setting<bool>,
    /// Tokens handed to the engine at once.
    pub n_batch: Setting<u32>,
    /// Tokens of one batch whose logits are kept.
    pub n_outputs_max: Setting<u32>,
    /// Threads of the engine.
    pub n_threads: Setting<u32>,
    /// Bytes of saved session states in memory.
    pub prompt_cache: Setting<Bytes>,
    /// Seconds without a request after which a model is unloaded; 0 would be never.
    pub idle_unload_seconds: Setting<u32>,
    /// Chat models resident together.
    pub resident_chat_models: Setting<u32>,
    /// Whether a draft model is used without having won a measurement.
    pub speculative: Setting<bool>,
    /// The size of model that suits the machine.
    pub suggested_model: Setting<String>,
    device: Device,
}

impl Defaults {
    /// The plan that these defaults ask for.
    #[must_use]
    pub fn request(&self) -> PlanRequest {
        PlanRequest {
            n_ctx: self.n_ctx.value,
            n_seq_max: self.max_sequences.value,
            type_k: self.type_k.value,
            type_v: self.type_v.value,
            flash_attention: self.flash_attention.value,
            n_batch: self.n_batch.value,
            n_ubatch: self.n_batch.value,
            n_outputs_max: self.n_outputs_max.value,
            prompt_cache: self.prompt_cache.value,
            ..PlanRequest::new(self.device)
        }
    }
}

/// Derives the defaults of `machine`, and for `shape` where it is known.
#[must_use]
pub fn defaults(machine: &Machine, shape: Option<&ModelShape>) -> Defaults {
    let device = machine.device;
    let mut template = PlanRequest::new(device);
    let refused = shape.and_then(|shape| kv(shape, &template, CONTEXT).err());
    let (kv_why, attention_why) = if let Some(KvError::Block { .. } | KvError::Mixed { .. }) = refused {
        // Whatever the reason, f16 is what every model can be kept as.
        (template.type_k, template.type_v) = (KvType::F16, KvType::F16);
        ("the model cannot be kept in the types of the default", "as the default has it")
    } else if device.is_gpu() {
        (
            "on a GPU q8_0 with FlashAttention halves the KV with negligible loss of quality",
            "quantised values need it, and a GPU is faster with it",
        )
    } else {
        (
            "on a CPU K as q8_0 with V as f16 costs nothing; q8_0 for both takes 2.6 times the prefill",
            "with K as q8_0 and V as f16 a CPU is faster without it",
        )
    };
    let kv_budget = kv_budget(machine);
    let batch_why = if device.is_gpu() {
        "a GPU cannot be interrupted within a batch, so the batch is the latency of a cancel"
    } else {
        "larger batches need more scratch memory and are not faster"
    };
    let room = machine.room();
    let cap = match machine.gpu_room() {
        Some(gpu) if device == Device::UnifiedGpu && gpu.bytes < room.bytes => gpu,
        _ => room,
    };
    let n_ctx = context(machine, shape, &template, kv_budget.value);
    Defaults {
        prompt_cache: prompt_cache(shape, n_ctx.value, &template),
        n_ctx,
        memory_cap: Setting::new(cap.bytes, cap.why),
        kv_budget,
        max_sequences: Setting::new(SEQUENCES, "a few conversations at once; more would slow each of them"),
        type_k: Setting::new(template.type_k, kv_why),
        type_v: Setting::new(template.type_v, kv_why),
        flash_attention: Setting::new(template.flash_attention, attention_why),
        n_batch: Setting::new(template.n_batch, batch_why),
        n_outputs_max: Setting::new(SEQUENCES, "one token of each sequence is sampled at a time"),
        n_threads: Setting::new(
            machine.performance_cores.max(1),
            format!("{} performance cores; slower cores hold the faster ones up", machine.performance_cores),
        ),
        idle_unload_seconds: Setting::new(
            IDLE_UNLOAD,
            "3 minutes without a request; apps may ask to keep a model loaded",
        ),
        resident_chat_models: Setting::new(1, "swapping models is the slowest thing a host can do"),
        speculative: Setting::new(false, "off until a measurement on this machine and model says that it wins"),
        suggested_model: Setting::new(
            crate::verdict::suited_to(machine.ram).to_owned(),
            format!("for {} of memory", machine.ram),
        ),
        device,
    }
}

fn kv_budget(machine: &Machine) -> Setting<Bytes> {
    let share = machine.ram.fraction(KV_SHARE.0, KV_SHARE.1);
    if share < KV_MOST {
        Setting::new(share, format!("an eighth of {} of memory", machine.ram))
    } else {
        Setting::new(KV_MOST, format!("never more than {KV_MOST} unless the owner says so"))
    }
}

fn context(machine: &Machine, shape: Option<&ModelShape>, template: &PlanRequest, budget: Bytes) -> Setting<u32> {
    let Some(shape) = shape else { return Setting::new(CONTEXT, "the default; no model is known yet") };
    let (mut n_ctx, mut why) = (CONTEXT, "the default".to_owned());
    if shape.n_ctx_train > 0 && shape.n_ctx_train < CONTEXT {
        n_ctx = shape.n_ctx_train;
        why = format!("the model was trained on {n_ctx} tokens");
    }
    let bytes = |n_ctx: u32| kv_total(shape, template, n_ctx);
    let wanted = n_ctx;
    while n_ctx / 2 >= LEAST_CONTEXT && bytes(n_ctx).is_some_and(|bytes| bytes > budget) {
        n_ctx /= 2;
    }
    if n_ctx < wanted {
        why = format!("halved from {wanted} until the KV fits into {budget} on {}", machine.name);
    }
    Setting::new(n_ctx, why)
}

fn prompt_cache(shape: Option<&ModelShape>, n_ctx: u32, template: &PlanRequest) -> Setting<Bytes> {
    let Some(shape) = shape else { return Setting::new(Bytes::ZERO, "half of the KV cells; no model is known yet") };
    let half = kv_total(shape, template, n_ctx).unwrap_or(Bytes::ZERO).fraction(1, 2);
    if half < PROMPT_CACHE_MOST {
        Setting::new(half, "half of the KV cells: as many conversations again stay warm")
    } else {
        Setting::new(PROMPT_CACHE_MOST, format!("never more than {PROMPT_CACHE_MOST}; what is beyond goes to disk"))
    }
}

/// Bytes of the state of so many tokens; `None` when they cannot be counted.
fn kv_total(shape: &ModelShape, template: &PlanRequest, n_ctx: u32) -> Option<Bytes> {
    let kv = kv(shape, template, n_ctx).ok()?;
    Bytes::checked_sum([kv.global, kv.window, kv.recurrent])
}

/// The state of so many tokens, kept as the template says.
fn kv(shape: &ModelShape, template: &PlanRequest, n_ctx: u32) -> Result<KvBytes, KvError> {
    let overflow = KvError::Overflow { layer: 0, cells: n_ctx, streams: 1 };
    let cells = Cells::new(n_ctx, SEQUENCES, true, template.n_ubatch).ok_or(overflow)?;
    let layout = KvLayout {
        cells: if template.swa_full { cells.with_full_windows() } else { cells },
        n_seq_max: SEQUENCES,
        type_k: template.type_k,
        type_v: template.type_v,
        flash_attention: template.flash_attention,
        rollback: 0,
    };
    kv_bytes(shape, &layout)
}
