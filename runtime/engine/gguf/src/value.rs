//! Metadata values.

use std::fmt;

/// The type of a metadata value (`enum gguf_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    /// 8 bits, unsigned.
    U8 = 0,
    /// 8 bits, signed.
    I8 = 1,
    /// 16 bits, unsigned.
    U16 = 2,
    /// 16 bits, signed.
    I16 = 3,
    /// 32 bits, unsigned.
    U32 = 4,
    /// 32 bits, signed.
    I32 = 5,
    /// 32-bit float.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// UTF-8 text.
    Str = 8,
    /// Elements of one type.
    Array = 9,
    /// 64 bits, unsigned.
    U64 = 10,
    /// 64 bits, signed.
    I64 = 11,
    /// 64-bit float.
    F64 = 12,
}

impl ValueType {
    /// The type with this id in a file.
    #[must_use]
    pub const fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Str,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// The id in a file.
    #[must_use]
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; for strings and arrays the least they take (their length fields).
    #[must_use]
    pub const fn min_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Str => 8,
            Self::Array => 12,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "a u8",
            Self::I8 => "an i8",
            Self::U16 => "a u16",
            Self::I16 => "an i16",
            Self::U32 => "a u32",
            Self::I32 => "an i32",
            Self::F32 => "an f32",
            Self::Bool => "a bool",
            Self::Str => "a string",
            Self::Array => "an array",
            Self::U64 => "a u64",
            Self::I64 => "an i64",
            Self::F64 => "an f64",
        })
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An unsigned integer of the given type.
    Unsigned(ValueType, u64),
    /// A signed integer of the given type.
    Signed(ValueType, i64),
    /// A float of the given type; may be infinite or not a number.
    Float(ValueType, f64),
    /// A bool.
    Bool(bool),
    /// UTF-8 text without zero bytes.
    Str(Box<str>),
    /// An array.
    Array(Box<Array>),
}

impl Value {
    /// The type that the file gives.
    #[must_use]
    pub const fn kind(&self) -> ValueType {
        match self {
            Self::Unsigned(kind, _) | Self::Signed(kind, _) | Self::Float(kind, _) => *kind,
            Self::Bool(_) => ValueType::Bool,
            Self::Str(_) => ValueType::Str,
            Self::Array(_) => ValueType::Array,
        }
    }
}

/// An array. Short arrays of numbers and bools are kept; of the others (the tokenizer's) only what is said here.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Type of the elements; never [`ValueType::Array`].
    pub element: ValueType,
    /// Number of elements.
    pub len: u64,
    /// Where the first element starts in the file, bytes.
    pub offset: u64,
    /// The elements: present for numbers and bools up to [`crate::limits::MAX_KEPT_ELEMENTS`]. The bytes of other
    /// arrays are skipped and not looked at.
    pub elements: Option<Box<[Value]>>,
}
