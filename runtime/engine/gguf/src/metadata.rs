//! Reads the key-value pairs.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use crate::source::{Source, What};
use crate::value::{Array, Value, ValueType};
use crate::{GgufError, limits, tokens};

/// Key-value pairs, by key.
pub(crate) type Metadata = BTreeMap<Box<str>, Value>;

/// Bytes that a pair takes in the map beside its text: key, value and its share of a node, rounded up.
const PAIR_BYTES: u64 = 96;

/// Least bytes of a pair in a file: length and one byte of key, type, one byte of value.
const MIN_PAIR: u64 = 8 + 1 + 4 + 1;

/// Reads `count` pairs; `at` is where the count stands in the file.
pub(crate) fn read<R: Read + Seek>(source: &mut Source<R>, count: u64, at: u64) -> Result<Metadata, GgufError> {
    if count > limits::MAX_KEYS {
        return Err(GgufError::TooMany { offset: at, what: "keys", count, limit: limits::MAX_KEYS });
    }
    source.expect(count * MIN_PAIR, &|| format!("the {count} keys and values"))?;
    let mut metadata = Metadata::new();
    for index in 0..count {
        let offset = source.pos();
        let name: What<'_> = &|| format!("key number {index}");
        let key = source.string(limits::MAX_KEY_BYTES, name)?;
        if key.is_empty() {
            return Err(GgufError::EmptyName { offset, what: name() });
        }
        if metadata.contains_key(&key) {
            return Err(GgufError::DuplicateKey { offset, key: key.into() });
        }
        let what: What<'_> = &|| format!("the value of key {key:?}");
        source.keep(PAIR_BYTES, what)?;
        let kind = value_type(source, &key, what)?;
        let value = match kind {
            ValueType::Str => Value::Str(source.string(limits::MAX_STRING_BYTES, what)?),
            ValueType::Array => Value::Array(Box::new(array(source, &key, what)?)),
            _ => scalar(source, kind, &key, what)?,
        };
        metadata.insert(key, value);
    }
    Ok(metadata)
}

/// `general.alignment`, or its default.
pub(crate) fn alignment(metadata: &Metadata, offset: u64) -> Result<u64, GgufError> {
    let found = match metadata.get("general.alignment") {
        None => return Ok(limits::DEFAULT_ALIGNMENT),
        Some(&Value::Unsigned(ValueType::U32, bytes))
            if bytes.is_power_of_two() && (limits::MIN_ALIGNMENT..=limits::MAX_ALIGNMENT).contains(&bytes) =>
        {
            return Ok(bytes);
        }
        Some(Value::Unsigned(ValueType::U32, bytes)) => bytes.to_string(),
        Some(other) => other.kind().to_string(),
    };
    Err(GgufError::Alignment { offset, found })
}

fn value_type<R: Read + Seek>(source: &mut Source<R>, key: &str, what: What<'_>) -> Result<ValueType, GgufError> {
    let offset = source.pos();
    let id = source.u32(what)?;
    ValueType::from_id(id).ok_or_else(|| GgufError::UnknownValueType { offset, key: key.to_owned(), id })
}

/// A value of a type with a fixed size.
fn scalar<R: Read + Seek>(
    source: &mut Source<R>,
    kind: ValueType,
    key: &str,
    what: What<'_>,
) -> Result<Value, GgufError> {
    Ok(match kind {
        ValueType::U8 => Value::Unsigned(kind, u8::from_le_bytes(source.bytes(what)?).into()),
        ValueType::I8 => Value::Signed(kind, i8::from_le_bytes(source.bytes(what)?).into()),
        ValueType::U16 => Value::Unsigned(kind, u16::from_le_bytes(source.bytes(what)?).into()),
        ValueType::I16 => Value::Signed(kind, i16::from_le_bytes(source.bytes(what)?).into()),
        ValueType::U32 => Value::Unsigned(kind, source.u32(what)?.into()),
        ValueType::I32 => Value::Signed(kind, i32::from_le_bytes(source.bytes(what)?).into()),
        ValueType::U64 => Value::Unsigned(kind, source.u64(what)?),
        ValueType::I64 => Value::Signed(kind, i64::from_le_bytes(source.bytes(what)?)),
        ValueType::F32 => Value::Float(kind, f32::from_le_bytes(source.bytes(what)?).into()),
        ValueType::F64 => Value::Float(kind, f64::from_le_bytes(source.bytes(what)?)),
        ValueType::Bool => {
            let offset = source.pos();
            match source.bytes(what)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [byte] => {
                    return Err(GgufError::BadBool { offset, key: key.to_owned(), byte });
                }
            }
        }
        ValueType::Str | ValueType::Array => {
            unreachable!("the callers read strings and arrays themselves")
        }
    })
}

fn array<R: Read + Seek>(source: &mut Source<R>, key: &str, what: What<'_>) -> Result<Array, GgufError> {
    let at = source.pos();
    let element = value_type(source, key, what)?;
    if element == ValueType::Array {
        return Err(GgufError::NestedArray { offset: at, key: key.to_owned() });
    }
    let len = source.u64(what)?;
    source.expect(len.saturating_mul(element.min_bytes()), what)?;
    let offset = source.pos();
    let elements = if element == ValueType::Str && key == tokens::KEY {
        tokens::distinct(source, len, what)?;
        None
    } else if element == ValueType::Str {
        // A string says only where the next one starts, so these have to be walked.
        for _ in 0..len {
            if let Some(bytes) = source.ahead().map(<[u8]>::len) {
                source.pass(bytes);
                continue;
            }
            let bytes = source.u64(what)?;
            source.skip(bytes, what)?;
        }
        None
    } else if len > limits::MAX_KEPT_ELEMENTS {
        source.skip(len * element.min_bytes(), what)?;
        None
    } else {
        source.keep(len * size_of::<Value>() as u64, what)?;
        // The cast cannot truncate: `len` is at most `MAX_KEPT_ELEMENTS`.
        let mut kept = Vec::with_capacity(len as usize);
        for _ in 0..len {
            kept.push(scalar(source, element, key, what)?);
        }
        Some(kept.into_boxed_slice())
    };
    Ok(Array { element, len, offset, elements })
}
