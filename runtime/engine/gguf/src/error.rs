//! Why a file is refused. Every message says where in the file, what, and the numbers.

use std::io;
use std::path::PathBuf;

use crate::{ValueType, limits};

/// Why a file is refused, or why a getter cannot answer.
///
/// Names that come from the file are quoted and escaped in messages, so they are safe to print on a terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What was to be read.
        path: PathBuf,
    },
    /// The system failed to read what should be there.
    #[error("cannot read at offset {offset}")]
    Read {
        /// Offset in the file, bytes.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with \"{}\" instead of \"GGUF\"{}", found.escape_ascii(), guess(*found))]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// Written for a big-endian machine.
    #[error(
        "offset 4: the file is big-endian (version field {version:#010x}); get the little-endian file of this model"
    )]
    BigEndian {
        /// The version field, read as little-endian.
        version: u32,
    },
    /// Neither version 2 nor 3.
    #[error(
        "offset 4: GGUF version {version} is not supported, only 2 and 3; convert the model again with a current llama.cpp"
    )]
    Version {
        /// The version field.
        version: u32,
    },
    /// The file ends inside its header.
    #[error(
        "offset {offset}: the file ends inside {what}: {needs} bytes needed, {left} left; the file is incomplete or damaged, fetch it again"
    )]
    Truncated {
        /// Offset in the file, bytes.
        offset: u64,
        /// What was being read.
        what: String,
        /// Bytes that the file says are there.
        needs: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// The header is larger than any real one.
    #[error(
        "offset {offset}: {what} would end {end} bytes into the file, a header may take {}",
        limits::MAX_HEADER_BYTES
    )]
    HeaderTooLarge {
        /// Offset in the file, bytes.
        offset: u64,
        /// What was being read.
        what: String,
        /// Where it would end, bytes.
        end: u64,
    },
    /// A count is above its limit.
    #[error("offset {offset}: {count} {what}, at most {limit} are accepted")]
    TooMany {
        /// Offset in the file, bytes.
        offset: u64,
        /// What is counted.
        what: &'static str,
        /// What the file says.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// A string is longer than its limit.
    #[error("offset {offset}: {what} has {bytes} bytes, at most {limit} are accepted")]
    StringTooLong {
        /// Offset in the file, bytes.
        offset: u64,
        /// What was being read.
        what: String,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Keys, values and tensor records together are larger than any real ones.
    #[error(
        "offset {offset}: {what} brings the metadata to {bytes} bytes, at most {} are kept",
        limits::MAX_KEPT_BYTES
    )]
    MetadataTooLarge {
        /// Offset in the file, bytes.
        offset: u64,
        /// What was being read.
        what: String,
        /// Sum with it.
        bytes: u64,
    },
    /// A string is not UTF-8.
    #[error("offset {offset}: {what} is not UTF-8 from its byte {valid} on")]
    Utf8 {
        /// Offset of the string's text in the file, bytes.
        offset: u64,
        /// What was being read.
        what: String,
        /// Bytes that are valid.
        valid: usize,
    },
    /// A string holds a zero byte: C code would see a shorter one.
    #[error("offset {offset}: {what} holds a zero byte")]
    NulByte {
        /// Offset of the string's text in the file, bytes.
        offset: u64,
        /// What was being read.
        what: String,
    },
    /// A key or a tensor name is empty.
    #[error("offset {offset}: {what} is empty")]
    EmptyName {
        /// Offset in the file, bytes.
        offset: u64,
        /// What was being read.
        what: String,
    },
    /// A key occurs twice.
    #[error("offset {offset}: key {key:?} occurs a second time")]
    DuplicateKey {
        /// Offset of the second one in the file, bytes.
        offset: u64,
        /// The key.
        key: String,
    },
    /// Two tokens of the vocabulary are the same: llama.cpp would end the process.
    #[error(
        "offset {offset}: tokens number {first} and {second} of the vocabulary are the same; convert the model again"
    )]
    DuplicateToken {
        /// Offset of the second one in the file, bytes.
        offset: u64,
        /// Index of the first one.
        first: u64,
        /// Index of the second one.
        second: u64,
    },
    /// A value has a type that GGUF does not define.
    #[error("offset {offset}: key {key:?} has value type {id}, only 0 to 12 are defined")]
    UnknownValueType {
        /// Offset of the type in the file, bytes.
        offset: u64,
        /// The key.
        key: String,
        /// The type.
        id: u32,
    },
    /// An array of arrays: llama.cpp does not read them.
    #[error("offset {offset}: key {key:?} is an array of arrays, which llama.cpp does not read")]
    NestedArray {
        /// Offset of the inner type in the file, bytes.
        offset: u64,
        /// The key.
        key: String,
    },
    /// A bool is neither 0 nor 1.
    #[error("offset {offset}: key {key:?} holds a bool of {byte}, only 0 and 1 are defined")]
    BadBool {
        /// Offset in the file, bytes.
        offset: u64,
        /// The key.
        key: String,
        /// The byte.
        byte: u8,
    },
    /// `general.alignment` is no usable alignment.
    #[error(
        "offset {offset}: general.alignment is {found}; it must be a u32, a power of two, and between {} and {}",
        limits::MIN_ALIGNMENT,
        limits::MAX_ALIGNMENT
    )]
    Alignment {
        /// Offset of the end of the metadata in the file, bytes.
        offset: u64,
        /// What the file says.
        found: String,
    },
    /// A tensor has more dimensions than ggml.
    #[error("offset {offset}: tensor {tensor:?} has {n_dims} dimensions, at most {} are defined", limits::MAX_DIMS)]
    TooManyDims {
        /// Offset in the file, bytes.
        offset: u64,
        /// Name of the tensor.
        tensor: String,
        /// What the file says.
        n_dims: u32,
    },
    /// A dimension is zero, or the product of all does not fit 63 bits.
    #[error(
        "offset {offset}: tensor {tensor:?} has the shape {dims:?}: every dimension must be at least 1 and the tensor below 2^63 elements and bytes"
    )]
    BadShape {
        /// Offset of the dimensions in the file, bytes.
        offset: u64,
        /// Name of the tensor.
        tensor: String,
        /// What the file says, innermost first.
        dims: Vec<u64>,
    },
    /// A type that this build of ggml does not know, or that was removed from it.
    #[error(
        "offset {offset}: tensor {tensor:?} has ggml type {id}, which llama.cpp {why}; get the model in another quantisation"
    )]
    UnknownTensorType {
        /// Offset of the type in the file, bytes.
        offset: u64,
        /// Name of the tensor.
        tensor: String,
        /// The type.
        id: u32,
        /// `does not know` or `no longer reads`.
        why: &'static str,
    },
    /// A row does not consist of whole blocks.
    #[error(
        "offset {offset}: tensor {tensor:?} has rows of {row} elements, not a multiple of the {block} of a {kind} block"
    )]
    PartialBlock {
        /// Offset of the type in the file, bytes.
        offset: u64,
        /// Name of the tensor.
        tensor: String,
        /// Name of the type.
        kind: &'static str,
        /// Elements of a row.
        row: u64,
        /// Elements of a block.
        block: u64,
    },
    /// A tensor name occurs twice.
    #[error("tensor {tensor:?} occurs twice, as number {first} and number {second} of the table")]
    DuplicateTensor {
        /// Name of the tensor.
        tensor: String,
        /// Index of the first one, from 0.
        first: usize,
        /// Index of the second one, from 0.
        second: usize,
    },
    /// A tensor starts off the alignment.
    #[error("tensor {tensor:?} starts at {start} of the data, not a multiple of the alignment {alignment}")]
    Unaligned {
        /// Name of the tensor.
        tensor: String,
        /// What the file says, bytes from the start of the data.
        start: u64,
        /// The alignment, bytes.
        alignment: u64,
    },
    /// A tensor starts inside an earlier one.
    #[error(
        "tensor {tensor:?} starts at {start} of the data, inside what comes before it: the earlier tensors take {taken} bytes"
    )]
    Overlap {
        /// Name of the tensor.
        tensor: String,
        /// What the file says, bytes from the start of the data.
        start: u64,
        /// Where it may start, bytes from the start of the data.
        taken: u64,
    },
    /// A tensor leaves a hole before it: llama.cpp refuses such files.
    #[error("tensor {tensor:?} starts at {start} of the data and leaves a hole: the earlier tensors end at {taken}")]
    Gap {
        /// Name of the tensor.
        tensor: String,
        /// What the file says, bytes from the start of the data.
        start: u64,
        /// Where it should start, bytes from the start of the data.
        taken: u64,
    },
    /// A tensor ends behind the end of the file.
    #[error(
        "tensor {tensor:?} takes the bytes {start} to {end} of a file of {file_len}; the file is incomplete or damaged, fetch it again"
    )]
    BeyondFile {
        /// Name of the tensor.
        tensor: String,
        /// Where it starts in the file, bytes.
        start: u64,
        /// Where it ends in the file, bytes. Saturated.
        end: u64,
        /// Length of the file, bytes.
        file_len: u64,
    },
    /// A key that was asked for is not in the file.
    #[error("the file has no key {key:?}")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A value is of another type than was asked for.
    #[error("key {key:?} is {found}, not {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// What the file has.
        found: ValueType,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A number does not fit what was asked for.
    #[error("key {key:?} is {found}, not {wanted}")]
    OutOfRange {
        /// The key.
        key: String,
        /// What the file has.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The elements of an array were not kept.
    #[error("key {key:?} is an array of {len} elements, of which only the count was kept")]
    NotKept {
        /// The key.
        key: String,
        /// Elements.
        len: u64,
    },
    /// A per-layer array has another length than the model has layers.
    #[error("key {key:?} has {len} elements for {layers} layers")]
    WrongLength {
        /// The key.
        key: String,
        /// Elements.
        len: u64,
        /// Layers.
        layers: u32,
    },
    /// A per-layer question about more layers than llama.cpp has room for.
    #[error("key {key:?}: {layers} layers, at most {} are possible", limits::MAX_KEPT_ELEMENTS)]
    TooManyLayers {
        /// The key.
        key: String,
        /// Layers.
        layers: u32,
    },
    /// A number on which llama.cpp would abort the process.
    #[error("key {key:?} is {found}; it must be {rule}")]
    Unloadable {
        /// The key.
        key: String,
        /// What the file has.
        found: String,
        /// What llama.cpp asserts.
        rule: String,
    },
}

/// What a file that is no GGUF file probably is, as the end of a sentence.
fn guess(start: [u8; 4]) -> &'static str {
    match &start {
        b"vers" => "; it looks like a Git LFS pointer: fetch the file that it stands for",
        b"<!DO" | b"<!do" | b"<htm" | b"<HTM" => "; it looks like a web page: the download link was not the file's",
        b"PK\x03\x04" => "; it looks like a PyTorch or zip archive: get the GGUF file of this model",
        b"ggml" | b"ggmf" | b"ggjt" | b"lmgg" | b"fmgg" | b"tjgg" => {
            "; it is older than GGUF: get a current file of this model"
        }
        [_, _, _, 0] => "; it may be a safetensors file: get the GGUF file of this model",
        _ => "",
    }
}
