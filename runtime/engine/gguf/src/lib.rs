//! Reads what a GGUF file says about its model: metadata and tensor table, without loading it.
//!
//! A model file is hostile until it is parsed (invariant 15), and llama.cpp aborts the process on some malformed files.
//! So the host opens every file here first, and llama.cpp only sees files that [`Gguf::open`] accepted. The reader is
//! at least as strict as llama.cpp about everything it looks at, reads each byte of the header once, keeps at most
//! [`limits::MAX_KEPT_BYTES`], and answers a bad file with a [`GgufError`] that names the place and the numbers.
//!
//! ```no_run
//! let model = locara_gguf::Gguf::open("model.gguf")?;
//! println!("{}: {} bytes of weights", model.architecture()?, model.weights_bytes());
//! let layers = model.need_u32(&model.arch_key("block_count")?)?;
//! let kv_heads = model.per_layer_u32(&model.arch_key("attention.head_count_kv")?, layers)?;
//! # Ok::<(), locara_gguf::GgufError>(())
//! ```
//!
//! This crate must never map or read weights, never know llama.cpp or the planner, and never panic or allocate more
//! than about 4 MB, whatever the file says.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod error;
mod getters;
mod ggml_type;
pub mod limits;
mod metadata;
mod model;
mod source;
mod tensors;
mod tokens;
mod value;

use std::fmt;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

pub use error::GgufError;
pub use ggml_type::GgmlType;
pub use tensors::Tensor;
pub use value::{Array, Value, ValueType};

/// The first four bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// What a GGUF file says about its model.
#[derive(Clone)]
pub struct Gguf {
    version: u32,
    file_len: u64,
    alignment: u64,
    metadata: metadata::Metadata,
    tensors: Vec<Tensor>,
    by_name: Vec<u16>,
    data_offset: u64,
    data_bytes: u64,
}

impl Gguf {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// [`GgufError`]: the file cannot be read, or llama.cpp should not see it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        let path = path.as_ref();
        let failed = |source| GgufError::Open { path: path.to_owned(), source };
        // Asked before it is opened: opening a pipe would wait for a writer.
        if !fs_err::metadata(path).map_err(failed)?.is_file() {
            return Err(GgufError::NotAFile { path: path.to_owned() });
        }
        let file = fs_err::File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        Self::read(file, len)
    }

    /// Reads the header of a file that is in memory.
    ///
    /// # Errors
    /// [`GgufError`]: llama.cpp should not see these bytes.
    pub fn parse(file: &[u8]) -> Result<Self, GgufError> {
        Self::read(Cursor::new(file), file.len() as u64)
    }

    /// Reads the header from the start of `reader`, which holds `len` bytes. Reads ahead by at most 32 KiB.
    ///
    /// # Errors
    /// [`GgufError`]: `reader` fails, or llama.cpp should not see this file.
    pub fn read(reader: impl Read + Seek, len: u64) -> Result<Self, GgufError> {
        let mut source = source::Source::new(reader, len)?;
        let found = source.bytes(&|| "the magic number".to_owned())?;
        if found != MAGIC {
            return Err(GgufError::Magic { found });
        }
        let version = source.u32(&|| "the version".to_owned())?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 1..=3) => {
                return Err(GgufError::BigEndian { version });
            }
            _ => return Err(GgufError::Version { version }),
        }
        let tensors_at = source.pos();
        let n_tensors = source.u64(&|| "the number of tensors".to_owned())?;
        let keys_at = source.pos();
        let n_keys = source.u64(&|| "the number of keys".to_owned())?;
        // Both counts are checked before anything is read that they announce.
        tensors::check_count(&source, n_tensors, tensors_at)?;
        let metadata = metadata::read(&mut source, n_keys, keys_at)?;
        let alignment = metadata::alignment(&metadata, source.pos())?;
        let table = tensors::read(&mut source, n_tensors, tensors_at, alignment)?;
        Ok(Self {
            version,
            file_len: source.len(),
            alignment,
            metadata,
            tensors: table.tensors,
            by_name: table.by_name,
            data_offset: table.data_offset,
            data_bytes: table.data_bytes,
        })
    }

    /// GGUF version of the file: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Length of the file, bytes.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Alignment of the tensors in the file, bytes.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the tensor data starts in the file, bytes; the header is before it.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// The tensors, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let at = self.by_name.binary_search_by(|&index| self.tensors[usize::from(index)].name().cmp(name));
        at.ok().map(|at| &self.tensors[usize::from(self.by_name[at])])
    }

    /// Bytes of the data section: all tensors, each padded to the alignment.
    ///
    /// This is what the weights take in memory: llama.cpp's mapped buffer covers the data section from the first byte
    /// of the first tensor to the last byte of the last one, so it is smaller by the padding of the last tensor only,
    /// and a buffer that it allocates pads every tensor. Of a split model (`split.count` above 1) it is the part in
    /// this file.
    #[must_use]
    pub fn weights_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes of all tensors without padding: what llama.cpp reports as the size of the model (`llama_model_size`).
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        // Cannot overflow: the tensors lie side by side in a file.
        self.tensors.iter().map(Tensor::bytes).sum()
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version)
            .field("file_len", &self.file_len)
            .field("keys", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .field("weights_bytes", &self.data_bytes)
            .finish_non_exhaustive()
    }
}
