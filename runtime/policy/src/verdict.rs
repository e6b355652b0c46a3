//! Does it fit, and if not, what would? Answers always carry the numbers and, where there is one, the way out.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Bytes,
    kv::KvType,
    machine::Machine,
    plan::{Device, Plan, PlanError, PlanRequest, plan},
    shape::ModelShape,
};

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Fits with a tenth to spare.
    Fit,
    /// Fits, but less than a tenth is left, or it fits only after something else was given back.
    Tight,
    /// Does not fit, whatever is given back.
    NoFit,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fit => "FIT",
            Self::Tight => "TIGHT",
            Self::NoFit => "NO-FIT",
        })
    }
}

/// One bound that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// What is bounded: `memory`, `GPU`, `memory now`.
    pub name: String,
    /// What the plans need of it.
    pub needs: Bytes,
    /// What there is.
    pub room: Bytes,
    /// How `room` came about.
    pub why: String,
}

impl Bound {
    /// What is missing.
    #[must_use]
    pub const fn short_by(&self) -> Bytes {
        self.needs.saturating_sub(self.room)
    }
    fn is_exceeded(&self) -> bool {
        self.needs > self.room
    }
    fn is_tight(&self) -> bool {
        self.room.saturating_sub(self.needs) < self.room.fraction(1, 10)
    }
}

/// Something that would make it fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum WayOut {
    /// A smaller context.
    Context {
        /// Tokens.
        n_ctx: u32,
        /// What is needed then.
        needs: Bytes,
    },
    /// Smaller KV types.
    Kv {
        /// Of the keys.
        type_k: KvType,
        /// Of the values.
        type_v: KvType,
        /// What is needed then.
        needs: Bytes,
        /// What it costs.
        cost: String,
    },
    /// The same model in a smaller quantisation.
    Quantisation {
        /// llama.cpp's name.
        name: String,
        /// Size of its file, about.
        weights: Bytes,
        /// What is needed then, about.
        needs: Bytes,
    },
    /// A smaller model.
    SmallerModel {
        /// What suits this machine.
        suggestion: String,
    },
    /// Something else must go first; nothing about the model has to change.
    FreeMemory {
        /// How much.
        bytes: Bytes,
    },
}

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context { n_ctx, needs } => write!(f, "a context of {n_ctx} tokens needs {needs}"),
            Self::Kv { type_k, type_v, needs, cost } => write!(f, "KV as {type_k}/{type_v} needs {needs} ({cost})"),
            Self::Quantisation { name, weights, needs } => {
                write!(f, "the same model as {name}, a file of about {weights}, needs about {needs}")
            }
            Self::SmallerModel { suggestion } => write!(f, "a smaller model: {suggestion}"),
            Self::FreeMemory { bytes } => write!(f, "free {bytes} first, by unloading a model or closing programs"),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// In one word.
    pub fit: Fit,
    /// The machine that was asked about.
    pub machine: String,
    /// Every bound that was checked; the one that decided comes first.
    pub bounds: Vec<Bound>,
    /// What would make it fit, least invasive first. Empty when it does.
    pub ways_out: Vec<WayOut>,
}

/// One line: word, numbers, ways out.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.fit, self.machine)?;
        let Some(Bound { name, needs, room, why }) = self.bounds.first() else { return Ok(()) };
        write!(f, ": needs {needs} of {name}, {room} can be made free ({why})")?;
        match (needs.checked_sub(*room), room.checked_sub(*needs)) {
            (Some(short), _) if !short.is_zero() => write!(f, ", short by {short}")?,
            (_, Some(spare)) => write!(f, ", {spare} to spare")?,
            _ => {}
        }
        for (index, way) in self.ways_out.iter().enumerate() {
            write!(f, "{} {way}", if index == 0 { "; way out:" } else { ", or" })?;
        }
        Ok(())
    }
}

/// Judges models that are to be resident together. `available_now` is what the system says can be taken at this moment; leave
/// it out for a machine that is not at hand.
///
/// Without ways out: those need the shapes, see [`judge`].
#[must_use]
pub fn verdict(plans: &[Plan], machine: &Machine, available_now: Option<Bytes>) -> Verdict {
    let host = |plan: &Plan| plan.peak.saturating_sub(plan.on_device);
    let needs: Bytes = plans.iter().map(host).sum();
    let room = machine.room();
    let mut bounds = vec![Bound { name: "memory".to_owned(), needs, room: room.bytes, why: room.why }];
    if let Some(room) = machine.gpu_room() {
        let needs = plans.iter().map(Plan::gpu_working_set).sum();
        bounds.push(Bound { name: "GPU memory".to_owned(), needs, room: room.bytes, why: room.why });
    }
    let never = bounds.iter().any(Bound::is_exceeded);
    if let Some(room) = available_now {
        let why = "available without swapping".to_owned();
        bounds.push(Bound { name: "memory now".to_owned(), needs, room, why });
    }
    let fit = if never {
        Fit::NoFit
    } else if bounds.iter().any(|bound| bound.is_exceeded() || bound.is_tight()) {
        Fit::Tight
    } else {
        Fit::Fit
    };
    // Of two exceeded bounds the one that nothing can move decides; else the one with the least left.
    bounds.sort_by_key(|bound| {
        let movable = bound.name == "memory now";
        (if bound.is_exceeded() { u8::from(movable) } else { 2 }, bound.room.saturating_sub(bound.needs))
    });
    Verdict { fit, machine: machine.name.clone(), bounds, ways_out: Vec::new() }
}

/// Plans one model for a machine and judges it, with ways out where it does not fit.
///
/// # Errors
/// [`PlanError`] when the request itself is impossible.
pub fn judge(
    shape: &ModelShape,
    request: &PlanRequest,
    machine: &Machine,
    available_now: Option<Bytes>,
) -> Result<(Plan, Verdict), PlanError> {
    let planned = plan(shape, request)?;
    let mut answer = verdict(std::slice::from_ref(&planned), machine, available_now);
    let exceeded = answer.bounds.first().filter(|bound| bound.is_exceeded()).cloned();
    if let Some(bound) = exceeded {
        let movable = answer.fit == Fit::Tight;
        let search = Search { machine, available_now: available_now.filter(|_| movable), bound: &bound.name };
        let mut ways = search.smaller(shape, request);
        if movable {
            ways.push(WayOut::FreeMemory { bytes: bound.short_by() });
        } else {
            ways.extend(search.requantised(shape, request));
        }
        if ways.is_empty() {
            ways.push(WayOut::SmallerModel { suggestion: suited_to(machine.ram).to_owned() });
        }
        answer.ways_out = ways;
    }
    Ok((planned, answer))
}

/// The smallest context worth offering.
const LEAST_CONTEXT: u32 = 2048;

/// Quantisations of llama.cpp, largest first: bits per weight in thousandths, over a whole 8B model.
/// Source: `tools/quantize/README.md` of llama.cpp (Llama-3.1-8B).
pub const QUANTISATIONS: [(&str, u64); 8] = [
    ("Q8_0", 8501),
    ("Q6_K", 6563),
    ("Q5_K_M", 5704),
    ("Q4_K_M", 4894),
    ("IQ4_XS", 4460),
    ("Q3_K_S", 3643),
    ("Q2_K", 3159),
    ("IQ2_M", 2929),
];

/// What is asked again with a changed request.
struct Search<'a> {
    machine: &'a Machine,
    available_now: Option<Bytes>,
    /// The bound that was exceeded; what is needed of it is what a way out reports.
    bound: &'a str,
}

impl Search<'_> {
    /// What a changed request needs of the exceeded bound, if it keeps within every bound.
    fn fitting(&self, shape: &ModelShape, request: &PlanRequest) -> Option<Bytes> {
        let planned = plan(shape, request).ok()?;
        let answer = verdict(&[planned], self.machine, self.available_now);
        if answer.bounds.iter().any(Bound::is_exceeded) {
            return None;
        }
        answer.bounds.into_iter().find(|bound| bound.name == self.bound).map(|bound| bound.needs)
    }

    /// Changes to the context that keep the model as it is.
    fn smaller(&self, shape: &ModelShape, request: &PlanRequest) -> Vec<WayOut> {
        let mut ways = Vec::new();
        let halves = std::iter::successors(Some(request.n_ctx / 2), |n_ctx| Some(n_ctx / 2));
        for n_ctx in halves.take_while(|n_ctx| *n_ctx >= LEAST_CONTEXT) {
            let smaller = PlanRequest { n_ctx, ..request.clone() };
            if let Some(needs) = self.fitting(shape, &smaller) {
                ways.push(WayOut::Context { n_ctx, needs });
                break;
            }
        }
        let (kind, cost) = match request.device {
            // FlashAttention comes along; the price was measured at 4k tokens.
            Device::Cpu => (KvType::Q8_0, "on a CPU prefill takes 2.6 and decoding 1.7 times as long"),
            Device::UnifiedGpu | Device::DiscreteGpu => (KvType::Q4_0, "some quality is lost; check it on this model"),
        };
        let now = request.type_k.row(32).zip(request.type_v.row(32)).and_then(|(k, v)| k.checked_add(v));
        let then = kind.row(32).and_then(|row| row.checked_mul(2));
        if then < now {
            let smaller = PlanRequest { type_k: kind, type_v: kind, flash_attention: true, ..request.clone() };
            if let Some(needs) = self.fitting(shape, &smaller) {
                ways.push(WayOut::Kv { type_k: kind, type_v: kind, needs, cost: cost.to_owned() });
            }
        }
        ways
    }

    /// The best quantisation below the present size that fits.
    fn requantised(&self, shape: &ModelShape, request: &PlanRequest) -> Option<WayOut> {
        let present = shape.weights.bytes;
        QUANTISATIONS.into_iter().find_map(|(name, millibits)| {
            let weights = Bytes(shape.parameters).fraction(millibits, 8000);
            if weights >= present || weights.is_zero() {
                return None;
            }
            let mut smaller = shape.clone();
            smaller.weights.bytes = weights;
            let needs = self.fitting(&smaller, request)?;
            Some(WayOut::Quantisation { name: name.to_owned(), weights, needs })
        })
    }
}

/// What suits a machine with so much memory, at 8192 tokens with the defaults.
#[must_use]
pub fn suited_to(ram: Bytes) -> &'static str {
    const TIERS: [(u64, &str); 6] = [
        (8, "1B to 3B parameters as Q4_K_M"),
        (16, "7B to 8B parameters as Q4_K_M"),
        (24, "7B to 8B parameters as Q6_K, or 14B as Q4_K_M"),
        (36, "14B parameters as Q6_K, or 7B as Q6_K and 14B as Q4_K_M together"),
        (64, "32B parameters as Q6_K, or 70B as Q4_K_M"),
        (128, "70B parameters as Q6_K"),
    ];
    let tier = TIERS.into_iter().rev().find(|(gib, _)| ram >= Bytes::gib(*gib).fraction(9, 10));
    tier.map_or("below 1B parameters as Q4_K_M", |(_, suggestion)| suggestion)
}
