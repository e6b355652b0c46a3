//! The files that are measured, and how they are loaded.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use locara_engine::llama::LoadOptions;
use locara_models::digest_of;
use locara_platform::MachineFacts;
use locara_policy::{Device, PlanRequest};

/// The zoo's name of the large model: the shape of Llama 3.2 1B in `Q4_K_M`, random weights, 805 MB.
pub(crate) const LARGE: &str = "llama-1b-q4_k_m";
/// Tokens of the context that speed is measured in.
const CONTEXT: u32 = 1024;
/// Sequences of it.
pub(crate) const SEQUENCES: u32 = 8;

/// A model file that is there and whole.
#[derive(Debug, Clone)]
pub(crate) struct ModelFile {
    /// Absolute and without links, as the kernel names mappings of it.
    pub(crate) path: PathBuf,
    /// SHA-256, lower-case hex.
    pub(crate) digest: String,
}

/// The embedded model.
pub(crate) fn tiny() -> Result<ModelFile> {
    let path = locara_tiny("locara-tiny.gguf");
    let path = fs_err::canonicalize(path)?;
    Ok(ModelFile { digest: digest_of(&path)?, path })
}

/// A file in the folder of the embedded model.
pub(crate) fn locara_tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny").join(name)
}

/// The large model. It is written once, into the cache folder of the user.
pub(crate) fn large() -> Result<ModelFile> {
    let entry = locara_zoo::find(LARGE).with_context(|| format!("the zoo has no {LARGE}"))?;
    let folder = cache_folder()?;
    fs_err::create_dir_all(&folder)?;
    let path = fs_err::canonicalize(&folder)?.join(format!("{LARGE}.gguf"));
    let (header, len) = locara_zoo::header(&entry.spec)?;
    if let Some(digest) = whole(&path, &header, len) {
        return Ok(ModelFile { path, digest });
    }
    eprintln!("writing {} ({} MB), once", path.display(), len / 1_000_000);
    let unfinished = path.with_extension("unfinished");
    locara_zoo::write(&entry.spec, &unfinished)?;
    // Pages that wait to be written count as dirty wherever the file is mapped.
    fs_err::File::open(&unfinished)?.sync_all()?;
    let digest = digest_of(&unfinished)?;
    fs_err::write(sidecar(&path), &digest)?;
    fs_err::rename(&unfinished, &path)?;
    Ok(ModelFile { path, digest })
}

/// The digest of the file if it has this header, this length, and the bytes that were once written.
fn whole(path: &Path, header: &[u8], len: u64) -> Option<String> {
    let mut file = fs_err::File::open(path).ok()?;
    if file.metadata().ok()?.len() != len {
        return None;
    }
    let mut found = vec![0; header.len()];
    file.read_exact(&mut found).ok()?;
    let noted = fs_err::read_to_string(sidecar(path)).ok()?;
    let digest = digest_of(path).ok()?;
    (found == header && noted == digest).then_some(digest)
}

fn sidecar(path: &Path) -> PathBuf {
    path.with_extension("gguf.sha256")
}

fn cache_folder() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME says where the model can be kept")?.join("locara/bench"))
}

/// How both the engine and llama.cpp's own loop load the large model: the host's defaults, a shorter context.
pub(crate) fn options(facts: &MachineFacts) -> LoadOptions {
    let defaults = PlanRequest::new(device(facts));
    LoadOptions {
        n_ctx: CONTEXT,
        kv_cells: CONTEXT,
        n_seq_max: SEQUENCES,
        n_batch: defaults.n_batch,
        n_ubatch: defaults.n_ubatch,
        type_k: defaults.type_k,
        type_v: defaults.type_v,
        flash_attention: defaults.flash_attention,
        n_threads: facts.performance_cores,
        n_gpu_layers: -1,
        repack: false,
        queue_max: 64,
    }
}

/// Where this machine computes.
pub(crate) fn device(facts: &MachineFacts) -> Device {
    if facts.gpu.is_some() { Device::UnifiedGpu } else { Device::Cpu }
}
