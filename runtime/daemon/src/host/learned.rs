//! What loads have taught about predictions, kept in a file of the state folder.
//!
//! The file is worth a better guess and nothing more: one that cannot be read is left aside with a warning, and a new one
//! is begun.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::load;
use locara_engine::{EngineMemory, llama::build_info};
use locara_policy::{
    Bytes, Kind, Plan,
    correction::{CorrectionKey, Corrections, ErrorSummary, Footprint, PredictionError},
    governor::Need,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Learned {
    path: PathBuf,
    corrections: Mutex<Corrections>,
    /// How far the predictions of this host were off.
    error: Mutex<PredictionError>,
}

/// Factors by model, context and build; none when nothing was learned, or when the file is damaged.
fn read(path: &Path) -> Corrections {
    let text = match fs_err::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Corrections::default(),
        Err(error) => {
            tracing::warn!(%error, "what was learned about predictions cannot be read");
            return Corrections::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "what was learned about predictions is damaged; it is begun anew");
        Corrections::default()
    })
}

impl Learned {
    pub(crate) fn open(path: PathBuf) -> Self {
        let corrections = Mutex::new(read(&path));
        Self { path, corrections, error: Mutex::default() }
    }

    /// What a plan asks of the governor, corrected by what was learned. What is not known by kind is entered as tables.
    pub(crate) fn need(&self, digest: &str, plan: &Plan) -> Need {
        let mut need = load::need(plan);
        let corrections = self.corrections.lock().unwrap_or_else(PoisonError::into_inner);
        let corrected = corrections.apply(&key(digest, plan), plan, Footprint::default());
        let planned = plan.anonymous;
        let tables = plan.of_kind(Kind::Tables).saturating_add(corrected.anonymous).saturating_sub(planned);
        need.parts.retain(|(kind, _)| *kind != Kind::Tables);
        if !tables.is_zero() {
            need.parts.push((Kind::Tables, tables));
        }
        need
    }

    /// A load that was predicted took this.
    pub(crate) fn observe(&self, digest: &str, plan: &Plan, memory: &EngineMemory, measured: Footprint) {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, bytes) in load::holds(plan, memory) {
            if !matches!(kind, Kind::Tables | Kind::PrefixCache) {
                error.record(kind, plan.of_kind(kind), bytes);
            }
        }
        let mut corrections = self.corrections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = corrections.observe(&key(digest, plan), Footprint::planned(plan), measured) {
            tracing::warn!(%error, "nothing was learned from a load");
        }
        if let Err(error) = write(&self.path, &corrections) {
            tracing::warn!(%error, "what was learned about predictions cannot be kept");
        }
    }

    /// How far predictions of kinds of bytes were off, in this host.
    pub(crate) fn error(&self) -> Vec<(Kind, ErrorSummary)> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).iter().collect()
    }
}

fn key(digest: &str, plan: &Plan) -> CorrectionKey {
    CorrectionKey { model: digest.to_owned(), n_ctx: plan.n_ctx, engine: build_info() }
}

/// Whole or not at all: a temporary file, synced, renamed.
fn write(path: &Path, corrections: &Corrections) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder)?;
    }
    let mut file = fs_err::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(corrections)?)?;
    file.sync_all()?;
    fs_err::rename(&temporary, path)
}

/// What a load changed in this process, from readings before and after.
pub(crate) fn grown(before: (Bytes, Bytes), after: (Bytes, Bytes)) -> Footprint {
    Footprint { file_backed: after.0.saturating_sub(before.0), anonymous: after.1.saturating_sub(before.1) }
}
