//! A file before it is written: keys and tensors in order. The layout follows from them.

use std::io::{self, Write};
use std::path::Path;

use locara_gguf::{GgmlType, MAGIC, ValueType, limits};

use crate::ZooError;
use crate::rng::Rng;
use crate::weights::{self, Fill};

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is named after the type that it writes")]
pub enum Meta {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(String),
    U32s(Vec<u32>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    Strs(Vec<String>),
}

macro_rules! meta_from {
    ($($from:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$from> for Meta {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })+
    };
}
meta_from!(u32 => U32, f32 => F32, bool => Bool, &str => Str, String => Str, Vec<u32> => U32s, Vec<i32> => I32s,
    Vec<f32> => F32s, Vec<bool> => Bools, Vec<String> => Strs);

impl Meta {
    /// Appends type and value as they stand in a file.
    fn put(&self, out: &mut Vec<u8>) {
        fn array<T>(out: &mut Vec<u8>, element: ValueType, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
            put_u32(out, ValueType::Array.id());
            put_u32(out, element.id());
            put_u64(out, items.len() as u64);
            items.iter().for_each(|item| put(out, item));
        }
        fn scalar(out: &mut Vec<u8>, kind: ValueType, bytes: &[u8]) {
            put_u32(out, kind.id());
            out.extend_from_slice(bytes);
        }
        match self {
            Self::U8(value) => scalar(out, ValueType::U8, &value.to_le_bytes()),
            Self::I8(value) => scalar(out, ValueType::I8, &value.to_le_bytes()),
            Self::U16(value) => scalar(out, ValueType::U16, &value.to_le_bytes()),
            Self::I16(value) => scalar(out, ValueType::I16, &value.to_le_bytes()),
            Self::U32(value) => scalar(out, ValueType::U32, &value.to_le_bytes()),
            Self::I32(value) => scalar(out, ValueType::I32, &value.to_le_bytes()),
            Self::U64(value) => scalar(out, ValueType::U64, &value.to_le_bytes()),
            Self::I64(value) => scalar(out, ValueType::I64, &value.to_le_bytes()),
            Self::F32(value) => scalar(out, ValueType::F32, &value.to_le_bytes()),
            Self::F64(value) => scalar(out, ValueType::F64, &value.to_le_bytes()),
            Self::Bool(value) => scalar(out, ValueType::Bool, &[u8::from(*value)]),
            Self::Str(value) => {
                put_u32(out, ValueType::Str.id());
                put_str(out, value);
            }
            Self::U32s(items) => {
                array(out, ValueType::U32, items, |out, item| out.extend_from_slice(&item.to_le_bytes()));
            }
            Self::I32s(items) => {
                array(out, ValueType::I32, items, |out, item| out.extend_from_slice(&item.to_le_bytes()));
            }
            Self::F32s(items) => {
                array(out, ValueType::F32, items, |out, item| out.extend_from_slice(&item.to_le_bytes()));
            }
            Self::Bools(items) => array(out, ValueType::Bool, items, |out, item| out.push(u8::from(*item))),
            Self::Strs(items) => array(out, ValueType::Str, items, |out, item| put_str(out, item)),
        }
    }
}

/// A tensor before it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorDraft {
    /// Its name.
    pub name: String,
    /// Dimensions in elements, innermost first.
    pub dims: Vec<u64>,
    /// Its number format: F32, F16, BF16, Q4_0, Q8_0, Q4_K or Q6_K.
    pub kind: GgmlType,
    /// What it holds.
    pub fill: Fill,
}

impl TensorDraft {
    /// Bytes of its data, without padding.
    ///
    /// # Errors
    /// [`ZooError::Tensor`]: no such tensor can exist.
    pub fn bytes(&self) -> Result<u64, ZooError> {
        let wrong = |why: &str| ZooError::Tensor { name: self.name.clone(), why: why.to_owned() };
        if !weights::is_writable(self.kind) {
            return Err(wrong(&format!("{} weights cannot be made", self.kind)));
        }
        if matches!(self.fill, Fill::Constant(_)) && self.kind.block_elements() != 1 {
            return Err(wrong(&format!("{} weights cannot be constant", self.kind)));
        }
        let elements = self.dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        let bytes = elements.filter(|&elements| elements != 0).and_then(|elements| self.kind.row_bytes(elements));
        let row = self.dims.first().copied().unwrap_or(1);
        match bytes {
            Some(bytes) if row.is_multiple_of(self.kind.block_elements()) => Ok(bytes),
            _ => Err(wrong(&format!("{} does not fit the shape {:?}", self.kind, self.dims))),
        }
    }
}

/// A file before it is written. All parts are public, so tests can bend what they like.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Seed of all weights.
    pub seed: u64,
    /// Keys and values in the order of the file.
    pub keys: Vec<(String, Meta)>,
    /// Tensors in the order of the file.
    pub tensors: Vec<TensorDraft>,
}

impl Draft {
    /// A file without anything.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, keys: Vec::new(), tensors: Vec::new() }
    }

    /// Appends a key.
    pub fn key(&mut self, key: impl Into<String>, value: impl Into<Meta>) {
        self.keys.push((key.into(), value.into()));
    }

    /// Everything before the tensor data, padding included.
    ///
    /// # Errors
    /// [`ZooError::Tensor`].
    pub fn header(&self) -> Result<Vec<u8>, ZooError> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        put_u32(&mut out, 3);
        put_u64(&mut out, self.tensors.len() as u64);
        put_u64(&mut out, self.keys.len() as u64);
        for (key, value) in &self.keys {
            put_str(&mut out, key);
            value.put(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            put_str(&mut out, &tensor.name);
            // The cast cannot truncate: a tensor has a handful of dimensions.
            put_u32(&mut out, tensor.dims.len() as u32);
            tensor.dims.iter().for_each(|&dim| put_u64(&mut out, dim));
            put_u32(&mut out, tensor.kind.id());
            put_u64(&mut out, offset);
            offset += self.padded(tensor.bytes()?);
        }
        out.resize(out.len().next_multiple_of(self.alignment() as usize), 0);
        Ok(out)
    }

    /// Bytes of the tensor data, all padding included.
    ///
    /// # Errors
    /// [`ZooError::Tensor`].
    pub fn data_bytes(&self) -> Result<u64, ZooError> {
        self.tensors.iter().map(|tensor| tensor.bytes().map(|bytes| self.padded(bytes))).sum()
    }

    /// Writes the file. Takes a few hundred kilobytes of memory beside the header, whatever the size of the weights.
    ///
    /// # Errors
    /// [`ZooError::Tensor`], [`ZooError::Io`].
    pub fn write(&self, mut out: impl Write) -> Result<(), ZooError> {
        out.write_all(&self.header()?)?;
        for tensor in &self.tensors {
            let bytes = tensor.bytes()?;
            write_weights(tensor, bytes, Rng::new(self.seed, &tensor.name), &mut out)?;
            // The cast cannot truncate: padding is below the alignment.
            out.write_all(&vec![0; (self.padded(bytes) - bytes) as usize])?;
        }
        out.flush()?;
        Ok(())
    }

    /// The whole file in memory.
    ///
    /// # Errors
    /// [`ZooError::Tensor`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ZooError> {
        let mut out = Vec::new();
        self.write(&mut out)?;
        Ok(out)
    }

    /// Writes the file to `path`.
    ///
    /// # Errors
    /// [`ZooError::Tensor`], [`ZooError::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ZooError> {
        self.write(fs_err::File::create(path.as_ref())?)
    }

    /// Writes the header to `path` and leaves the weights as a hole: the file takes no space on the disk, whatever its
    /// length, and loads like any other. All weights are zero.
    ///
    /// # Errors
    /// [`ZooError::Tensor`], [`ZooError::Io`].
    pub fn save_sparse(&self, path: impl AsRef<Path>) -> Result<(), ZooError> {
        let header = self.header()?;
        let mut file = fs_err::File::create(path.as_ref())?;
        file.write_all(&header)?;
        file.set_len(header.len() as u64 + self.data_bytes()?)?;
        Ok(())
    }

    fn alignment(&self) -> u64 {
        let set = self.keys.iter().find_map(|(key, value)| match value {
            Meta::U32(bytes) if key == "general.alignment" => Some(u64::from(*bytes)),
            _ => None,
        });
        // A broken alignment is somebody's test: lay the file out as if it had not been set.
        set.filter(|bytes| bytes.is_power_of_two()).unwrap_or(limits::DEFAULT_ALIGNMENT)
    }

    fn padded(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(self.alignment())
    }
}

/// Bytes that are made at a time.
const CHUNK: usize = 256 << 10;

fn write_weights(tensor: &TensorDraft, bytes: u64, mut rng: Rng, out: &mut impl Write) -> io::Result<()> {
    // The cast cannot truncate: a block has at most 292 bytes.
    let block = tensor.kind.block_bytes() as usize;
    let mut chunk = vec![0; (CHUNK / block) * block];
    let mut left = bytes;
    while left > 0 {
        // The cast cannot truncate: not more than the chunk.
        let now = left.min(chunk.len() as u64) as usize;
        for out in chunk[..now].chunks_exact_mut(block) {
            weights::block(tensor.kind, tensor.fill, &mut rng, out);
        }
        out.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    Ok(())
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
