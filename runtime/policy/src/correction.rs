//! What measuring teaches about predicting: a factor for each (model, context, engine build), and the error as a metric.
//!
//! A plan says what is allocated; the operating system says what is resident, and the two differ by what no formula knows
//! (tables of the engine, pages never touched). After a load the host hands both figures to [`Corrections::observe`]; before
//! the next one [`Corrections::apply`] gives the corrected ones. A correction never goes below what is known to be allocated.
//!
//! Everything is integers, so that a recorded sequence of observations replays to the same factors on every machine and a
//! state that was written as JSON is the state that is read. This module **never reads or writes a file**.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Bytes,
    ledger::Kind,
    plan::{Backing, Plan},
};

/// Factors and errors are counted in millionths.
pub const ONE: u32 = 1_000_000;
/// The smallest factor: below half of the plan something else was measured than what was planned.
pub const MIN_FACTOR: u32 = ONE / 2;
/// The largest factor. Beyond it the model was not predicted at all, and loading it blindly would be a guess.
pub const MAX_FACTOR: u32 = 2 * ONE;
/// An observation moves the factor by at most one part in so many of the way. The first ones move it further, as a mean
/// does in which the prediction itself counts as one observation.
const STEADY: u32 = 4;
/// Entries that are kept; the one that was not used for longest goes first.
pub const MAX_ENTRIES: usize = 256;
/// Bytes that each text of a key may have. A digest has 64, a build line of the engine about 300.
pub const MAX_TEXT: usize = 1024;
/// Observations of each kind that the error is taken over.
pub const WINDOW: usize = 256;

/// What a correction is valid for. Another build of the engine allocates differently.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CorrectionKey {
    /// SHA-256 of the model's file, lower-case hex.
    pub model: String,
    /// Tokens of the context.
    pub n_ctx: u32,
    /// The engine's own description of its build.
    pub engine: String,
}

/// Bytes of a model by what gets them back: a page of a file is dropped, an anonymous one is swapped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Pages of model files.
    pub file_backed: Bytes,
    /// Anonymous memory of the machine.
    pub anonymous: Bytes,
}

impl Footprint {
    /// What the plan promises. Memory of a discrete GPU is not among it.
    #[must_use]
    pub const fn planned(plan: &Plan) -> Self {
        Self { file_backed: plan.file_backed, anonymous: plan.anonymous }
    }

    /// The part of the plan that the engine is known to allocate, byte by byte. No measurement corrects that downwards.
    #[must_use]
    pub fn certain(plan: &Plan) -> Self {
        let of = |backing| {
            plan.items.iter().filter(|item| item.exact && item.backing == backing).map(|item| item.bytes).sum()
        };
        Self { file_backed: of(Backing::File), anonymous: of(Backing::Anonymous) }
    }
}

/// What was learned of one group of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// Measured by predicted, in millionths; between [`MIN_FACTOR`] and [`MAX_FACTOR`].
    pub factor: u32,
    /// Observations. Saturates.
    pub count: u32,
    /// How far the last prediction was off, before correction: measured less predicted by predicted, in millionths.
    pub last_error: i64,
}

impl Default for Learned {
    fn default() -> Self {
        Self { factor: ONE, count: 0, last_error: 0 }
    }
}

impl Learned {
    fn observe(&mut self, predicted: Bytes, measured: Bytes) {
        // Nothing was predicted, so there is nothing to multiply.
        if predicted.is_zero() {
            return;
        }
        self.last_error = error_of(predicted, measured);
        let seen = self.last_error.saturating_add(i64::from(ONE)).clamp(MIN_FACTOR.into(), MAX_FACTOR.into());
        self.count = self.count.saturating_add(1);
        let parts = i64::from(self.count.saturating_add(1).min(STEADY));
        let factor = i64::from(self.factor) + (seen - i64::from(self.factor)) / parts;
        // Between two values that fit; the fallback is never used.
        self.factor = u32::try_from(factor).unwrap_or(ONE);
    }

    /// Rounded up: a byte too much is no surprise.
    fn apply(self, predicted: Bytes, floor: Bytes) -> Bytes {
        let product = u128::from(predicted.get()) * u128::from(self.factor);
        let corrected = product.div_ceil(u128::from(ONE));
        Bytes(u64::try_from(corrected).unwrap_or(u64::MAX)).max(floor)
    }
}

/// Measured less predicted by predicted, in millionths; saturates. `predicted` is not zero.
fn error_of(predicted: Bytes, measured: Bytes) -> i64 {
    let difference = i128::from(measured.get()) - i128::from(predicted.get());
    let error = difference * i128::from(ONE) / i128::from(predicted.get().max(1));
    i64::try_from(error).unwrap_or(i64::MAX)
}

/// What was learned for one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// What it is valid for.
    pub key: CorrectionKey,
    /// Pages of model files.
    pub file_backed: Learned,
    /// Anonymous memory.
    pub anonymous: Learned,
}

/// Every correction, the one used last at the end. Serialises as a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Correction>", try_from = "Vec<Correction>")]
pub struct Corrections(VecDeque<Correction>);

impl Corrections {
    /// Takes in what a load that was predicted really took.
    ///
    /// # Errors
    /// [`CorrectionError::Text`] when a text of the key is too long to be kept; nothing was learned.
    pub fn observe(
        &mut self,
        key: &CorrectionKey,
        predicted: Footprint,
        measured: Footprint,
    ) -> Result<(), CorrectionError> {
        check_key(key)?;
        let known = self.0.iter().position(|entry| entry.key == *key).and_then(|at| self.0.remove(at));
        let mut entry = known.unwrap_or_else(|| Correction {
            key: key.clone(),
            file_backed: Learned::default(),
            anonymous: Learned::default(),
        });
        entry.file_backed.observe(predicted.file_backed, measured.file_backed);
        entry.anonymous.observe(predicted.anonymous, measured.anonymous);
        if self.0.len() >= MAX_ENTRIES {
            self.0.pop_front();
        }
        self.0.push_back(entry);
        Ok(())
    }

    /// The plan's bytes as experience corrects them; unchanged where there is none. Never less than what the plan knows
    /// exactly, nor than `allocated`, what the engine says that it allocated or would (zero when it was not asked).
    #[must_use]
    pub fn apply(&self, key: &CorrectionKey, plan: &Plan, allocated: Footprint) -> Footprint {
        let predicted = Footprint::planned(plan);
        let certain = Footprint::certain(plan);
        let (file_backed, anonymous) =
            self.get(key).map_or_else(Default::default, |entry| (entry.file_backed, entry.anonymous));
        Footprint {
            file_backed: file_backed.apply(predicted.file_backed, certain.file_backed.max(allocated.file_backed)),
            anonymous: anonymous.apply(predicted.anonymous, certain.anonymous.max(allocated.anonymous)),
        }
    }

    /// What was learned for the key.
    #[must_use]
    pub fn get(&self, key: &CorrectionKey) -> Option<&Correction> {
        self.0.iter().find(|entry| entry.key == *key)
    }

    /// Every correction, the one used last at the end.
    pub fn iter(&self) -> impl Iterator<Item = &Correction> {
        self.0.iter()
    }
}

impl From<Corrections> for Vec<Correction> {
    fn from(corrections: Corrections) -> Self {
        corrections.0.into()
    }
}

impl TryFrom<Vec<Correction>> for Corrections {
    type Error = CorrectionError;

    /// Checks what somebody else may have written. A list that is too long loses its oldest entries.
    fn try_from(entries: Vec<Correction>) -> Result<Self, CorrectionError> {
        let mut seen = std::collections::BTreeSet::new();
        for entry in &entries {
            check_key(&entry.key)?;
            for learned in [entry.file_backed, entry.anonymous] {
                if !(MIN_FACTOR..=MAX_FACTOR).contains(&learned.factor) {
                    return Err(CorrectionError::Factor { factor: learned.factor });
                }
            }
            if !seen.insert(&entry.key) {
                return Err(CorrectionError::Twice { model: entry.key.model.clone(), n_ctx: entry.key.n_ctx });
            }
        }
        let surplus = entries.len().saturating_sub(MAX_ENTRIES);
        Ok(Self(entries.into_iter().skip(surplus).collect()))
    }
}

fn check_key(key: &CorrectionKey) -> Result<(), CorrectionError> {
    match [&key.model, &key.engine].into_iter().map(String::len).max() {
        Some(length) if length > MAX_TEXT => Err(CorrectionError::Text { length }),
        _ => Ok(()),
    }
}

/// Why a correction is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorrectionError {
    /// A factor out of bounds cannot have been learned.
    #[error(
        "a correction multiplies by {factor} millionths; learned factors are {MIN_FACTOR} to {MAX_FACTOR}: the file was changed, delete it to learn anew"
    )]
    Factor {
        /// The factor in millionths.
        factor: u32,
    },
    /// Two entries claim the same key.
    #[error("two corrections for model {model} with {n_ctx} tokens; the file was changed, delete it to learn anew")]
    Twice {
        /// Digest of the model.
        model: String,
        /// Tokens of the context.
        n_ctx: u32,
    },
    /// A key that is too long to be kept.
    #[error("a text of {length} bytes names a model or an engine; at most {MAX_TEXT} are kept")]
    Text {
        /// Bytes of the longer text.
        length: usize,
    },
}

/// How well predictions were met, by kind, over the last [`WINDOW`] observations of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PredictionError(BTreeMap<Kind, VecDeque<i64>>);

/// The error of one kind. Millionths of the prediction; positive where more was held than predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorSummary {
    /// Observations that it is taken over.
    pub count: usize,
    /// The middle one, without sign.
    pub median: u64,
    /// 95 of 100 are not larger, without sign.
    pub p95: u64,
    /// The one furthest from zero, with its sign; of two equally far the one where more was held.
    pub worst: i64,
}

impl PredictionError {
    /// Takes in one figure. Nothing predicted and nothing held is no observation; bytes that nobody predicted count as an
    /// error of the whole.
    pub fn record(&mut self, kind: Kind, predicted: Bytes, measured: Bytes) {
        let error = match (predicted.is_zero(), measured.is_zero()) {
            (true, true) => return,
            (true, false) => i64::from(ONE),
            (false, _) => error_of(predicted, measured),
        };
        let window = self.0.entry(kind).or_default();
        if window.len() >= WINDOW {
            window.pop_front();
        }
        window.push_back(error);
    }

    /// The error of one kind; `None` when it was never observed.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> Option<ErrorSummary> {
        self.0.get(&kind).and_then(|window| summary(window.iter().copied()))
    }

    /// The error over all kinds; `None` when nothing was observed.
    #[must_use]
    pub fn overall(&self) -> Option<ErrorSummary> {
        summary(self.0.values().flatten().copied())
    }

    /// Kinds that were observed, with their errors.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, ErrorSummary)> {
        self.0.iter().filter_map(|(kind, window)| Some((*kind, summary(window.iter().copied())?)))
    }
}

fn summary(errors: impl Iterator<Item = i64>) -> Option<ErrorSummary> {
    let errors: Vec<i64> = errors.collect();
    let worst = errors.iter().copied().max_by_key(|error| (error.unsigned_abs(), *error))?;
    let mut sizes: Vec<u64> = errors.iter().map(|error| error.unsigned_abs()).collect();
    sizes.sort_unstable();
    // The smallest observation that so many of a hundred do not exceed.
    let rank = |percent: usize| sizes[(sizes.len() * percent).div_ceil(100).max(1) - 1];
    Some(ErrorSummary { count: sizes.len(), median: rank(50), p95: rank(95), worst })
}
