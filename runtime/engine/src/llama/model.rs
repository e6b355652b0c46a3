//! A loaded model: a shared read-only mapping of the weights, and its vocabulary.

use std::{
    ffi::{CString, c_void},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    LoadError,
    backend::Backend,
    ffi::{self, sys},
    log,
};
use crate::api::{EngineError, Token};

/// How a model is loaded. There is no switch for `mlock` or for reading without mmap: weights enter memory one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ModelParams {
    /// Layers on the GPU; -1 offloads all.
    pub(super) n_gpu_layers: i32,
    /// Copy weights into a layout that some CPUs read faster (+445 MiB anonymous memory on a 1B model). The owner's wish only.
    pub(super) repack: bool,
    /// Allocate nothing: sizes are computed as if. For the planner's dry run.
    pub(super) no_alloc: bool,
}

/// A loaded model. Immutable, so it is shared between threads; contexts and samplers hold it.
#[derive(Debug)]
pub(super) struct Model {
    raw: *mut sys::llama_model,
    vocab: *const sys::llama_vocab,
    path: PathBuf,
}

// SAFETY: llama_model and its vocabulary are immutable after the load; all functions used here take them const and are
// documented as thread-safe. Contexts (which mutate the model while they are made) are created by `Context::new` under a lock.
unsafe impl Send for Model {}
// SAFETY: see above.
unsafe impl Sync for Model {}

/// Told how far a load has come; returning false stops it.
pub(super) type Progress<'a> = &'a mut dyn FnMut(f32) -> bool;

unsafe extern "C" fn on_progress(fraction: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` is the `Progress` on the stack of `Model::load`, alive for the whole call and used by one thread.
    let progress = unsafe { &mut *data.cast::<Progress<'_>>() };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| progress(fraction))).unwrap_or(false)
}

impl Model {
    /// Maps the file and builds the vocabulary. `path` must have passed the GGUF reader.
    pub(super) fn load(path: &Path, params: ModelParams, mut progress: Progress<'_>) -> Result<Arc<Self>, LoadError> {
        let _backend = Backend::start();
        let c_path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| LoadError::Path(path.to_owned()))?;
        // SAFETY: fills a struct by value.
        let mut raw_params = unsafe { sys::llama_model_default_params() };
        raw_params.n_gpu_layers = params.n_gpu_layers;
        raw_params.load_mode = if params.no_alloc { sys::LLAMA_LOAD_MODE_NONE } else { sys::LLAMA_LOAD_MODE_MMAP };
        raw_params.use_extra_bufts = params.repack;
        raw_params.no_alloc = params.no_alloc;
        raw_params.progress_callback = Some(on_progress);
        raw_params.progress_callback_user_data = (&raw mut progress).cast();
        let _ = log::take_last();
        // SAFETY: the path is NUL-terminated, the parameters are valid, `progress` outlives the call.
        let raw = unsafe { ffi::locara_model_load(c_path.as_ptr(), raw_params) };
        if raw.is_null() {
            return Err(LoadError::Load { path: path.to_owned(), reason: failure() });
        }
        // SAFETY: the model is live; the vocabulary belongs to it.
        let vocab = unsafe { sys::llama_model_get_vocab(raw) };
        Ok(Arc::new(Self { raw, vocab, path: path.to_owned() }))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.raw
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Entries of the vocabulary.
    pub(super) fn n_vocab(&self) -> usize {
        // SAFETY: the vocabulary is live as long as `self`.
        usize::try_from(unsafe { sys::llama_vocab_n_tokens(self.vocab) }).unwrap_or(0)
    }

    /// Width of an embedding.
    pub(super) fn n_embd(&self) -> usize {
        // SAFETY: the model is live.
        usize::try_from(unsafe { sys::llama_model_n_embd(self.raw) }).unwrap_or(0)
    }

    /// Whether sequences have a state that cannot be cut at a position.
    pub(super) fn is_recurrent(&self) -> bool {
        // SAFETY: the model is live.
        unsafe { sys::llama_model_is_recurrent(self.raw) || sys::llama_model_is_hybrid(self.raw) }
    }

    /// Whether the model encodes (BERT-like) and cannot decode.
    pub(super) fn is_encoder_only(&self) -> bool {
        // SAFETY: the model is live.
        unsafe { sys::llama_model_has_encoder(self.raw) && !sys::llama_model_has_decoder(self.raw) }
    }

    /// Whether the token ends the turn.
    pub(super) fn is_end_of_generation(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is live and checks the id.
        self.knows(token) && unsafe { sys::llama_vocab_is_eog(self.vocab, token) }
    }

    /// Whether the token is a control token: it has no text in an answer.
    pub(super) fn is_control(&self, token: Token) -> bool {
        // SAFETY: the id is in range.
        self.knows(token) && unsafe { sys::llama_vocab_is_control(self.vocab, token) }
    }

    /// Whether the id is in the vocabulary.
    pub(super) fn knows(&self, token: Token) -> bool {
        usize::try_from(token).is_ok_and(|id| id < self.n_vocab())
    }

    /// The token that ends a sequence, and the one that ends a turn.
    pub(super) fn eos_and_eot(&self) -> (Token, Token) {
        // SAFETY: the vocabulary is live.
        unsafe { (sys::llama_vocab_eos(self.vocab), sys::llama_vocab_eot(self.vocab)) }
    }

    /// The text of a special token as the template sees it; empty if the model has none.
    pub(super) fn special_text(&self, token: Token) -> String {
        if !self.knows(token) {
            return String::new();
        }
        String::from_utf8_lossy(&self.piece(token, true)).into_owned()
    }

    /// The begin-of-sequence token, negative if there is none.
    pub(super) fn bos(&self) -> Token {
        // SAFETY: the vocabulary is live.
        unsafe { sys::llama_vocab_bos(self.vocab) }
    }

    /// Text to tokens. `special` parses special tokens in the text and adds those that the model wants at the borders.
    pub(super) fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, EngineError> {
        let text_len = i32::try_from(text.len()).map_err(|_| {
            EngineError::InvalidRequest(format!("a text of {} bytes is too long to tokenise", text.len()))
        })?;
        // A token covers at least one byte, but special tokens may be added at both ends.
        let mut tokens = vec![0; text.len() + 4];
        let room = i32::try_from(tokens.len()).map_err(|_| {
            EngineError::InvalidRequest(format!("a text of {} bytes is too long to tokenise", text.len()))
        })?;
        // SAFETY: the pointers are valid for the lengths given; the text need not be NUL-terminated.
        let n = unsafe {
            ffi::locara_tokenize(
                self.vocab,
                text.as_ptr().cast(),
                text_len,
                tokens.as_mut_ptr(),
                room,
                add_special,
                parse_special,
            )
        };
        let n = usize::try_from(n).map_err(|_| EngineError::Failed(format!("tokenise: {}", failure())))?;
        tokens.truncate(n);
        Ok(tokens)
    }

    /// The bytes of a token; not always valid UTF-8 by itself. Control tokens have none unless `special`.
    pub(super) fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        if !self.knows(token) {
            return Vec::new();
        }
        let mut bytes = vec![0u8; 64];
        loop {
            let room = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            // SAFETY: the buffer is valid for `room` bytes and the id is in range.
            let n =
                unsafe { sys::llama_token_to_piece(self.vocab, token, bytes.as_mut_ptr().cast(), room, 0, special) };
            if let Ok(n) = usize::try_from(n) {
                bytes.truncate(n);
                return bytes;
            }
            // A negative count is the size that it needs.
            bytes.resize(n.unsigned_abs() as usize, 0);
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts and samplers hold an Arc of the model, so none is left.
        unsafe { sys::llama_model_free(self.raw) };
    }
}

/// Why the last call of this thread failed: the exception, and the last lines of the log.
pub(super) fn failure() -> String {
    let (exception, lines) = (ffi::last_exception(), log::take_last());
    match (exception.is_empty(), lines.is_empty()) {
        (true, true) => "llama.cpp gave no reason".to_owned(),
        (false, true) => exception,
        (true, false) => lines,
        (false, false) => format!("{exception} ({lines})"),
    }
}
