//! Reads the tensor table and checks that the data lies as it says.

use std::io::{Read, Seek};

use crate::source::{Source, What};
use crate::{GgmlType, GgufError, limits};

/// One tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    name: Box<str>,
    dims: [u64; limits::MAX_DIMS as usize],
    n_dims: u8,
    kind: GgmlType,
    offset: u64,
    bytes: u64,
}

impl Tensor {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its dimensions in elements, innermost (a row's length) first. Empty for a scalar.
    #[must_use]
    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.n_dims)]
    }

    /// Its number format.
    #[must_use]
    pub fn kind(&self) -> GgmlType {
        self.kind
    }

    /// Where its data starts in the file, bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of its data, without padding (`ggml_nbytes`).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of its elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        // Cannot overflow: checked when the table was read.
        self.dims().iter().product()
    }
}

/// Where the tensors lie in the file.
pub(crate) struct Table {
    /// In the order of the file.
    pub(crate) tensors: Vec<Tensor>,
    /// Indices of `tensors`, sorted by name.
    pub(crate) by_name: Vec<u16>,
    /// Start of the data in the file, bytes.
    pub(crate) data_offset: u64,
    /// Tensors with the padding between and after them, bytes.
    pub(crate) data_bytes: u64,
}

/// Least bytes of a record in a file: length and one byte of name, dimension count, type, offset.
const MIN_RECORD: u64 = 8 + 1 + 4 + 4 + 8;

/// Reads `count` records; `at` is where the count stands in the file.
pub(crate) fn read<R: Read + Seek>(
    source: &mut Source<R>,
    count: u64,
    at: u64,
    alignment: u64,
) -> Result<Table, GgufError> {
    check_count(source, count, at)?;
    let table: What<'_> = &|| format!("the table of {count} tensors");
    source.keep(count * (size_of::<Tensor>() + size_of::<u16>()) as u64, table)?;
    // The cast cannot truncate: `count` is at most `MAX_TENSORS`.
    let mut tensors = Vec::with_capacity(count as usize);
    for index in 0..count {
        tensors.push(record(source, index)?);
    }
    let by_name = sort_by_name(&tensors)?;
    let data_offset = source.pos().next_multiple_of(alignment);
    let data_bytes = place(&mut tensors, data_offset, source.len(), alignment)?;
    Ok(Table { tensors, by_name, data_offset, data_bytes })
}

/// Refuses a count that no file of this length can hold.
pub(crate) fn check_count<R: Read + Seek>(source: &Source<R>, count: u64, at: u64) -> Result<(), GgufError> {
    if count > limits::MAX_TENSORS {
        return Err(GgufError::TooMany { offset: at, what: "tensors", count, limit: limits::MAX_TENSORS });
    }
    source.expect(count * MIN_RECORD, &|| format!("the table of {count} tensors"))
}

/// One record; its offset is still relative to the data.
fn record<R: Read + Seek>(source: &mut Source<R>, index: u64) -> Result<Tensor, GgufError> {
    let at = source.pos();
    let naming: What<'_> = &|| format!("the name of tensor number {index}");
    let name = source.string(limits::MAX_TENSOR_NAME_BYTES, naming)?;
    if name.is_empty() {
        return Err(GgufError::EmptyName { offset: at, what: naming() });
    }
    let what: What<'_> = &|| format!("the record of tensor {name:?}");
    let at = source.pos();
    let n_dims = source.u32(what)?;
    if n_dims > limits::MAX_DIMS {
        return Err(GgufError::TooManyDims { offset: at, tensor: name.into(), n_dims });
    }
    let mut dims = [1; limits::MAX_DIMS as usize];
    let at = source.pos();
    for dim in dims.iter_mut().take(n_dims as usize) {
        *dim = source.u64(what)?;
    }
    let type_at = source.pos();
    let id = source.u32(what)?;
    let offset = source.u64(what)?;

    let elements = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
    let bad_shape = |name: &str| GgufError::BadShape {
        offset: at,
        tensor: name.to_owned(),
        dims: dims[..n_dims as usize].to_vec(),
    };
    let Some(elements) = elements.filter(|&elements| elements != 0 && i64::try_from(elements).is_ok()) else {
        return Err(bad_shape(&name));
    };
    let Some(kind) = GgmlType::from_id(id) else {
        let why = if GgmlType::was_removed(id) { "no longer reads" } else { "does not know" };
        return Err(GgufError::UnknownTensorType { offset: type_at, tensor: name.into(), id, why });
    };
    if !dims[0].is_multiple_of(kind.block_elements()) {
        return Err(GgufError::PartialBlock {
            offset: type_at,
            tensor: name.into(),
            kind: kind.name(),
            row: dims[0],
            block: kind.block_elements(),
        });
    }
    let bytes = kind.row_bytes(elements).filter(|&bytes| i64::try_from(bytes).is_ok());
    let Some(bytes) = bytes else {
        return Err(bad_shape(&name));
    };
    // The cast cannot truncate: at most `MAX_DIMS`.
    Ok(Tensor { name, dims, n_dims: n_dims as u8, kind, offset, bytes })
}

/// Indices in the order of the names; fails when a name occurs twice.
fn sort_by_name(tensors: &[Tensor]) -> Result<Vec<u16>, GgufError> {
    // The cast cannot truncate: there are at most `MAX_TENSORS`.
    let mut order: Vec<u16> = (0..tensors.len() as u16).collect();
    // By index too, so that of two equal names the first one comes first.
    order.sort_unstable_by_key(|&index| (&tensors[usize::from(index)].name, index));
    for pair in order.windows(2) {
        let (first, second) = (usize::from(pair[0]), usize::from(pair[1]));
        if tensors[first].name == tensors[second].name {
            return Err(GgufError::DuplicateTensor { tensor: tensors[first].name.to_string(), first, second });
        }
    }
    Ok(order)
}

/// Turns offsets in the data into offsets in the file and returns the length of the data with all padding.
///
/// llama.cpp reads only files whose tensors follow each other in the order of the table, each padded to the
/// alignment; only the padding of the last one may be missing.
fn place(tensors: &mut [Tensor], data_offset: u64, file_len: u64, alignment: u64) -> Result<u64, GgufError> {
    let mut taken = 0_u64;
    for tensor in tensors {
        let start = tensor.offset;
        let name = || tensor.name.to_string();
        if !start.is_multiple_of(alignment) {
            return Err(GgufError::Unaligned { tensor: name(), start, alignment });
        }
        if start < taken {
            return Err(GgufError::Overlap { tensor: name(), start, taken });
        }
        let in_file = data_offset.checked_add(start);
        let end = in_file.and_then(|start| start.checked_add(tensor.bytes));
        let (Some(in_file), Some(_)) = (in_file, end.filter(|&end| end <= file_len)) else {
            return Err(GgufError::BeyondFile {
                tensor: name(),
                start: in_file.unwrap_or(u64::MAX),
                end: end.unwrap_or(u64::MAX),
                file_len,
            });
        };
        if start > taken {
            return Err(GgufError::Gap { tensor: name(), start, taken });
        }
        tensor.offset = in_file;
        // Cannot overflow: the tensor ends inside the file, and a file is shorter than 2^63 bytes.
        taken = (start + tensor.bytes).next_multiple_of(alignment);
    }
    Ok(taken)
}
