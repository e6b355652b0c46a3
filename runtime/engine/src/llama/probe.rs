//! Opening a file that nobody has opened before, where it can do no harm: in a child process.
//!
//! The GGUF reader refuses what it can recognise. What is left can still make llama.cpp abort the process, so an unknown
//! file is first loaded by a child that may die. [`dry_run`] asks llama.cpp what it would allocate, without allocating.

use std::{
    ffi::OsStr,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    LoadError, LoadOptions, checked,
    context::Context,
    context_params, embed,
    model::{Model, ModelParams},
};
use crate::api::EngineMemory;

/// Bytes of the child's report and error output that are read.
const MAX_REPORT: u64 = 64 * 1024;

/// What the child found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What a context of the options holds.
    pub memory: EngineMemory,
    /// Entries of the vocabulary.
    pub n_vocab: u32,
}

/// Why a file was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The child cannot be started or read.
    #[error("cannot open the model in a child process")]
    Child(#[source] std::io::Error),
    /// The child died: the file makes llama.cpp abort.
    #[error("the file makes llama.cpp crash ({status}); it is damaged or made for another version: {output}")]
    Crashed {
        /// How the child ended.
        status: String,
        /// The end of its error output.
        output: String,
    },
    /// The child says no.
    #[error("{0}")]
    Refused(String),
    /// The child does not end.
    #[error("opening the model took longer than {0:?}")]
    TimedOut(Duration),
}

/// Loads the file, mapped, makes a small context, and drops both. To be called in a process that may die.
///
/// # Errors
/// [`LoadError`] if llama.cpp refuses the file without dying.
pub fn probe(path: &Path, options: LoadOptions) -> Result<ProbeReport, LoadError> {
    let small =
        LoadOptions { n_ctx: 256, kv_cells: 256, n_batch: 32, n_ubatch: 32, n_seq_max: 1, n_threads: 1, ..options };
    measure(path, small, false)
}

/// What llama.cpp would hold for this file and these options; nothing of that size is allocated. About 0.2 s for a
/// vocabulary of 128k tokens.
///
/// # Errors
/// [`LoadError`] if llama.cpp refuses the file or the options.
pub fn dry_run(path: &Path, options: LoadOptions) -> Result<EngineMemory, LoadError> {
    measure(path, options, true).map(|report| report.memory)
}

fn measure(path: &Path, options: LoadOptions, no_alloc: bool) -> Result<ProbeReport, LoadError> {
    let gguf = locara_gguf::Gguf::open(path)
        .and_then(checked)
        .map_err(|source| LoadError::Gguf { path: path.to_owned(), source })?;
    let params = ModelParams { n_gpu_layers: options.n_gpu_layers, repack: options.repack, no_alloc };
    let model = Model::load(path, params, &mut |_| true)?;
    let embeddings = model.is_encoder_only() || embed::pools(&gguf);
    let n_vocab = u32::try_from(model.n_vocab()).unwrap_or(u32::MAX);
    let memory = Context::new(model, context_params(&options, embeddings))?.measure();
    Ok(ProbeReport { memory, n_vocab })
}

/// Runs `program arguments… path` as a child that calls [`probe`] and prints its report as JSON, or prints an error and
/// exits with a code.
///
/// # Errors
/// [`ProbeError`]; the calling process is unharmed in every case.
pub fn probe_in_child(
    program: &OsStr,
    arguments: &[&str],
    path: &Path,
    limit: Duration,
) -> Result<ProbeReport, ProbeError> {
    let mut child = Command::new(program)
        .args(arguments)
        .arg(path)
        // ggml would fork a debugger on a failed assertion.
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ProbeError::Child)?;
    let read = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(stream) = stream {
                // A child that floods is killed at the time limit; what is read stays bounded.
                let _ = stream.take(MAX_REPORT).read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = read(child.stderr.take().map(|s| Box::new(s) as _));
    let started = Instant::now();
    let status = loop {
        match child.try_wait().map_err(ProbeError::Child)? {
            Some(status) => break status,
            None if started.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(ProbeError::TimedOut(limit));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if status.success() {
        return serde_json::from_str(stdout.trim())
            .map_err(|error| ProbeError::Refused(format!("the child's report does not parse ({error}): {stdout}")));
    }
    let tail: String = {
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(5)..].join("; ")
    };
    match status.code() {
        Some(_) => Err(ProbeError::Refused(tail)),
        None => Err(ProbeError::Crashed { status: status.to_string(), output: tail }),
    }
}
