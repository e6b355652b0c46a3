//! How much of a file is believed. Every limit is far above what published models need and low enough that a hostile
//! file costs microseconds and never more than about 4 MB of memory.

/// Bytes from the start of the file to the end of the tensor table.
///
/// Most of a real header is the tokenizer: 262,144 tokens with 514,906 merges (Gemma 3) take about 20 MB. llama.cpp
/// reads all of it into memory, so this also bounds what the engine allocates for a file that was accepted here.
pub const MAX_HEADER_BYTES: u64 = 64 << 20;

/// Key-value pairs. Real files have 20 to 100.
pub const MAX_KEYS: u64 = 4_096;

/// Tensors of one file. The largest published models have fewer than 3,000 (experts are stacked into one tensor).
pub const MAX_TENSORS: u64 = 16_384;

/// Bytes of a key. The specification allows 65,535; the longest key that llama.cpp knows has 50, architecture included.
pub const MAX_KEY_BYTES: u64 = 256;

/// Bytes of a tensor's name: ggml keeps 64 with the closing zero (`GGML_MAX_NAME`).
pub const MAX_TENSOR_NAME_BYTES: u64 = 63;

/// Bytes of a string value. The longest real ones are chat templates (up to 30 kB) and licence texts (up to 100 kB).
pub const MAX_STRING_BYTES: u64 = 1 << 20;

/// Longest array of numbers whose elements are kept. Per-layer arrays have at most 512 elements (`LLAMA_MAX_LAYERS`);
/// longer arrays belong to the tokenizer and only their type, count and place are kept.
pub const MAX_KEPT_ELEMENTS: u64 = 1_024;

/// Bytes of everything that is kept of one file: keys, values, tensor records. As many tensors as are accepted, with
/// the longest names, take 2.4 MB. Looking for duplicate tokens takes another megabyte for the moment.
pub const MAX_KEPT_BYTES: u64 = 5 << 19;

/// Dimensions of a tensor (`GGML_MAX_DIMS`).
pub const MAX_DIMS: u32 = 4;

/// Alignment where the file does not set `general.alignment`, bytes (`GGUF_DEFAULT_ALIGNMENT`).
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Least alignment, bytes: the specification asks for a multiple of 8, and ggml reads the mapped tensors in place.
pub const MIN_ALIGNMENT: u64 = 8;

/// Largest alignment, bytes: four times the largest page in use.
pub const MAX_ALIGNMENT: u64 = 64 << 10;

/// Bytes read ahead of the parser.
pub(crate) const BUFFER_BYTES: usize = 32 << 10;
