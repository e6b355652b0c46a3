//! Files that must be refused: one for each way to lie.

use locara_gguf::{GgmlType, MAGIC, ValueType};

/// A file that must be refused.
#[derive(Debug, Clone)]
pub struct Broken {
    /// What is wrong with it.
    pub name: &'static str,
    /// The file.
    pub file: Vec<u8>,
}

/// All of them. Each is a small valid file with one lie.
#[must_use]
pub fn broken() -> Vec<Broken> {
    let mut all = frame();
    all.extend(metadata());
    all.extend(tensors());
    all
}

/// Counts that no file can serve.
const ABSURD: u64 = 1 << 60;

fn broken_file(name: &'static str, raw: Raw) -> Broken {
    Broken { name, file: raw.0 }
}

/// Lies about the file as a whole.
fn frame() -> Vec<Broken> {
    let valid = Raw::valid();
    let patched = |name, at: usize, bytes: &[u8]| {
        let mut raw = valid.clone();
        raw.0[at..at + bytes.len()].copy_from_slice(bytes);
        broken_file(name, raw)
    };
    let cut = |name, len| broken_file(name, Raw(valid.0[..len].to_vec()));
    vec![
        broken_file("empty", Raw(Vec::new())),
        patched("magic", 0, b"GGUM"),
        patched("git-lfs-pointer", 0, b"vers"),
        patched("web-page", 0, b"<!DO"),
        patched("older-than-gguf", 0, b"tjgg"),
        patched("version-1", 4, &1_u32.to_le_bytes()),
        patched("version-4", 4, &4_u32.to_le_bytes()),
        patched("big-endian", 4, &3_u32.to_be_bytes()),
        patched("absurd-tensor-count", 8, &ABSURD.to_le_bytes()),
        patched("tensor-count-beyond-file", 8, &9_000_u64.to_le_bytes()),
        patched("negative-tensor-count", 8, &(-1_i64).to_le_bytes()),
        patched("absurd-key-count", 16, &ABSURD.to_le_bytes()),
        patched("key-count-beyond-file", 16, &4_000_u64.to_le_bytes()),
        cut("cut-in-counts", 20),
        cut("cut-in-key", 30),
        cut("cut-in-tensor-table", valid.0.len() - 2 * TENSOR_BYTES as usize - 40),
        cut("cut-in-weights", valid.0.len() - 1),
    ]
}

/// Lies in keys and values.
fn metadata() -> Vec<Broken> {
    let one = |name, key: &str, kind: ValueType, value: &[u8]| {
        broken_file(name, Raw::new(0, 1).key(key.as_bytes(), kind.id(), value))
    };
    let text = |len: u64, text: &[u8]| [&len.to_le_bytes()[..], text].concat();
    let array = |element: u32, len: u64, items: &[u8]| [&element.to_le_bytes()[..], &len.to_le_bytes(), items].concat();
    let tokens = |items: &[&[u8]]| {
        let bytes: Vec<u8> = items.iter().flat_map(|item| text(item.len() as u64, item)).collect();
        array(ValueType::Str.id(), items.len() as u64, &bytes)
    };
    let u8s = ValueType::U8.id();
    vec![
        broken_file("empty-key", Raw::new(0, 1).key(b"", ValueType::U32.id(), &[1; 4])),
        broken_file("long-key", Raw::new(0, 1).key(&[b'k'; 257], u8s, &[1])),
        broken_file("key-not-utf8", Raw::new(0, 1).key(b"a\xffb", u8s, &[1])),
        broken_file("key-with-zero", Raw::new(0, 1).key(b"a\0b", u8s, &[1])),
        broken_file("duplicate-key", Raw::new(0, 2).key(b"twice", u8s, &[1]).key(b"twice", u8s, &[1])),
        broken_file("unknown-value-type", Raw::new(0, 1).key(b"key", 13, &[1])),
        one("bool-of-2", "key", ValueType::Bool, &[2]),
        one("string-not-utf8", "key", ValueType::Str, &text(3, b"a\xc3b")),
        one("string-with-zero", "general.architecture", ValueType::Str, &text(7, b"llama\0x")),
        one("string-beyond-file", "key", ValueType::Str, &text(ABSURD, b"text")),
        one("string-of-negative-length", "key", ValueType::Str, &text(u64::MAX, b"text")),
        one("giant-string", "key", ValueType::Str, &text((1 << 20) + 1, &vec![b'x'; (1 << 20) + 1])),
        one("array-beyond-file", "key", ValueType::Array, &array(4, ABSURD, &[0; 16])),
        one("array-of-strings-beyond-file", "key", ValueType::Array, &array(8, ABSURD, &[0; 16])),
        one("string-in-array-beyond-file", "key", ValueType::Array, &array(8, 1, &ABSURD.to_le_bytes())),
        one("duplicate-token", "tokenizer.ggml.tokens", ValueType::Array, &tokens(&[b"a", b"b", b"a"])),
        one("duplicate-token-for-c", "tokenizer.ggml.tokens", ValueType::Array, &tokens(&[b"a", b"\0", b"", b"a\0b"])),
        one("array-of-arrays", "key", ValueType::Array, &array(9, 1, &array(4, 1, &[0; 4]))),
        one("array-of-unknown-type", "key", ValueType::Array, &array(99, 1, &[0; 4])),
        one("array-with-bool-of-3", "key", ValueType::Array, &array(7, 2, &[1, 3])),
        broken_file("too-much-metadata", {
            let long = text(1 << 20, &vec![b'x'; 1 << 20]);
            ["a", "b", "c"].iter().fold(Raw::new(0, 3), |raw, key| raw.key(key.as_bytes(), ValueType::Str.id(), &long))
        }),
        one("alignment-of-0", "general.alignment", ValueType::U32, &0_u32.to_le_bytes()),
        one("alignment-of-48", "general.alignment", ValueType::U32, &48_u32.to_le_bytes()),
        one("alignment-of-1", "general.alignment", ValueType::U32, &1_u32.to_le_bytes()),
        one("alignment-of-2-gib", "general.alignment", ValueType::U32, &(1_u32 << 31).to_le_bytes()),
        one("alignment-as-u64", "general.alignment", ValueType::U64, &32_u64.to_le_bytes()),
    ]
}

/// Bytes of a tensor of [`tensors`]: 8 by 4 numbers in F32.
const TENSOR_BYTES: u64 = 128;

/// Lies in the tensor table.
fn tensors() -> Vec<Broken> {
    let f32s = GgmlType::F32.id();
    let one = |name, dims: &[u64], kind: u32| {
        broken_file(name, Raw::new(1, 0).tensor(b"t", dims, kind, 0).data(TENSOR_BYTES))
    };
    let two = |name, second_name: &[u8], offset: u64| {
        let raw = Raw::new(2, 0).tensor(b"first", &[8, 4], f32s, 0).tensor(second_name, &[8, 4], f32s, offset);
        broken_file(name, raw.data(4 * TENSOR_BYTES))
    };
    let named =
        |name, tensor: &[u8]| broken_file(name, Raw::new(1, 0).tensor(tensor, &[8, 4], f32s, 0).data(TENSOR_BYTES));
    vec![
        named("empty-tensor-name", b""),
        named("long-tensor-name", &[b't'; 64]),
        named("tensor-name-not-utf8", b"t\xff"),
        named("tensor-name-with-zero", b"t\0u"),
        two("duplicate-tensor", b"first", TENSOR_BYTES),
        two("overlapping-tensors", b"second", TENSOR_BYTES - 32),
        two("same-offset-twice", b"second", 0),
        two("hole-between-tensors", b"second", TENSOR_BYTES + 32),
        two("unaligned-tensor", b"second", TENSOR_BYTES + 8),
        two("tensor-beyond-file", b"second", 1 << 40),
        two("offset-that-overflows", b"second", u64::MAX - 31),
        one("five-dimensions", &[1, 1, 1, 1, 1], f32s),
        one("absurd-dimensions", &[u32::MAX.into(); 300], f32s),
        one("dimension-of-0", &[8, 0], f32s),
        one("dimensions-that-overflow", &[1 << 32, 1 << 32], f32s),
        one("more-than-2-63-elements", &[1 << 63], f32s),
        one("more-than-2-63-bytes", &[1 << 61, 2], f32s),
        one("unknown-tensor-type", &[32], 999),
        one("removed-tensor-type", &[32], 31),
        one("partial-block", &[48], GgmlType::Q8_0.id()),
        one("tensor-longer-than-file", &[1 << 40], f32s),
    ]
}

/// A file written by hand; nothing is checked.
#[derive(Debug, Clone)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(tensors: u64, keys: u64) -> Self {
        let mut out = MAGIC.to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend(tensors.to_le_bytes());
        out.extend(keys.to_le_bytes());
        Self(out)
    }

    /// Two keys, two tensors, nothing wrong.
    fn valid() -> Self {
        let f32s = GgmlType::F32.id();
        Self::new(2, 2)
            .key(b"general.architecture", ValueType::Str.id(), b"\x05\0\0\0\0\0\0\0llama")
            .key(b"llama.block_count", ValueType::U32.id(), &1_u32.to_le_bytes())
            .tensor(b"first", &[8, 4], f32s, 0)
            .tensor(b"second", &[8, 4], f32s, TENSOR_BYTES)
            .data(2 * TENSOR_BYTES)
    }

    fn text(mut self, text: &[u8]) -> Self {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text);
        self
    }

    fn key(self, key: &[u8], kind: u32, value: &[u8]) -> Self {
        let mut raw = self.text(key);
        raw.0.extend(kind.to_le_bytes());
        raw.0.extend(value);
        raw
    }

    fn tensor(self, name: &[u8], dims: &[u64], kind: u32, offset: u64) -> Self {
        let mut raw = self.text(name);
        // The cast cannot truncate: at most 300.
        raw.0.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| raw.0.extend(dim.to_le_bytes()));
        raw.0.extend(kind.to_le_bytes());
        raw.0.extend(offset.to_le_bytes());
        raw
    }

    /// Pads to the default alignment and appends `bytes` of data.
    fn data(mut self, bytes: u64) -> Self {
        // The cast cannot truncate: a few hundred.
        self.0.resize(self.0.len().next_multiple_of(32) + bytes as usize, 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lies_are_wrong() {
        locara_gguf::Gguf::parse(&Raw::valid().0).unwrap();
    }
}
