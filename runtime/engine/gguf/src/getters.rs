//! Typed questions to the metadata.
//!
//! Integers are converted between widths when the number fits: converters disagree about widths, and what llama.cpp
//! insists on it checks itself, with a clean error.

use crate::value::{Array, Value, ValueType};
use crate::{Gguf, GgufError, tokens};

impl Gguf {
    /// The value of `key` as the file gives it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// All keys and values, sorted by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.metadata.iter().map(|(key, value)| (&**key, value))
    }

    /// `general.architecture`, e.g. `llama`.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn architecture(&self) -> Result<&str, GgufError> {
        let key = "general.architecture";
        self.str(key)?.ok_or_else(|| missing(key))
    }

    /// `suffix` under the file's architecture: `block_count` is `llama.block_count` in a llama file.
    ///
    /// # Errors
    /// As [`Self::architecture`].
    pub fn arch_key(&self, suffix: &str) -> Result<String, GgufError> {
        Ok(format!("{}.{suffix}", self.architecture()?))
    }

    /// A non-negative integer below 2^32. `None` if the key is not there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`], [`GgufError::OutOfRange`].
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.get(key).map(|value| to_u32(key, value)).transpose()
    }

    /// A non-negative integer. `None` if the key is not there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`], [`GgufError::OutOfRange`].
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.get(key).map(|value| to_u64(key, value)).transpose()
    }

    /// As [`Self::u32`], for keys that must be there.
    ///
    /// # Errors
    /// As [`Self::u32`], and [`GgufError::MissingKey`].
    pub fn need_u32(&self, key: &str) -> Result<u32, GgufError> {
        self.u32(key)?.ok_or_else(|| missing(key))
    }

    /// A finite float, rounded to 32 bits. `None` if the key is not there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`], [`GgufError::OutOfRange`] when it is infinite (also after rounding) or not a number.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::Float(_, number)) => {
                // Rounding is what is asked for; what does not fit becomes infinite and is refused.
                let rounded = number as f32;
                if rounded.is_finite() { Ok(Some(rounded)) } else { Err(out_of_range(key, number, "a finite f32")) }
            }
            Some(other) => Err(wrong_type(key, other, "a float")),
        }
    }

    /// A bool. `None` if the key is not there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(key, other, "a bool")),
        }
    }

    /// A string. `None` if the key is not there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Str(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(key, other, "a string")),
        }
    }

    /// An array: its type, its length and, if it is short, its elements. `None` if the key is not there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn array(&self, key: &str) -> Result<Option<&Array>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(key, other, "an array")),
        }
    }

    /// One number for each of `layers` layers: an array of that length, or one number that holds for all. Bools count
    /// as 0 and 1. `None` if the key is not there.
    ///
    /// Examples: `attention.head_count_kv`, `feed_forward_length`, `attention.sliding_window_pattern`. Do not use it
    /// where a single number means something else than "the same for all layers" (a sliding-window pattern of 6 means
    /// "every sixth layer"): ask [`Self::get`] first.
    ///
    /// # Errors
    /// [`GgufError::WrongLength`], [`GgufError::WrongType`], [`GgufError::OutOfRange`], [`GgufError::NotKept`];
    /// [`GgufError::TooManyLayers`].
    pub fn per_layer_u32(&self, key: &str, layers: u32) -> Result<Option<Vec<u32>>, GgufError> {
        if u64::from(layers) > crate::limits::MAX_KEPT_ELEMENTS {
            // The count of layers comes from the file as well: without a limit the file would choose an allocation.
            return Err(GgufError::TooManyLayers { key: key.to_owned(), layers });
        }
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.len != u64::from(layers) => {
                Err(GgufError::WrongLength { key: key.to_owned(), len: array.len, layers })
            }
            Some(Value::Array(_)) => self.u32s(key),
            Some(value) => Ok(Some(vec![to_u32(key, value)?; layers as usize])),
        }
    }

    /// The elements of a short array of integers or bools (as 0 and 1). `None` if the key is not there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`], [`GgufError::OutOfRange`]; [`GgufError::NotKept`] above
    /// [`crate::limits::MAX_KEPT_ELEMENTS`] elements.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        let Some(array) = self.array(key)? else {
            return Ok(None);
        };
        if array.element == ValueType::Str {
            return Err(GgufError::WrongType { key: key.to_owned(), found: array.element, wanted: "a number" });
        }
        let Some(elements) = &array.elements else {
            return Err(GgufError::NotKept { key: key.to_owned(), len: array.len });
        };
        elements.iter().map(|value| to_u32(key, value)).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Entries of the vocabulary: the tokens of the tokenizer or, in files without one, `vocab_size` of the
    /// architecture. `None` where the file has neither.
    ///
    /// # Errors
    /// The key is of another type.
    pub fn n_vocab(&self) -> Result<Option<u32>, GgufError> {
        if let Some(tokens) = self.array(tokens::KEY)? {
            return match u32::try_from(tokens.len) {
                Ok(len) => Ok(Some(len)),
                Err(_) => Err(out_of_range(tokens::KEY, tokens.len, "a count below 2^32")),
            };
        }
        self.u32(&self.arch_key("vocab_size")?)
    }

    /// The chat template that the file brings.
    ///
    /// # Errors
    /// [`GgufError::WrongType`].
    pub fn chat_template(&self) -> Result<Option<&str>, GgufError> {
        self.str("tokenizer.chat_template")
    }
}

fn to_u64(key: &str, value: &Value) -> Result<u64, GgufError> {
    match *value {
        Value::Unsigned(_, number) => Ok(number),
        Value::Signed(_, number) => {
            u64::try_from(number).map_err(|_| out_of_range(key, number, "a non-negative integer"))
        }
        Value::Bool(value) => Ok(value.into()),
        _ => Err(wrong_type(key, value, "an integer")),
    }
}

fn to_u32(key: &str, value: &Value) -> Result<u32, GgufError> {
    let number = to_u64(key, value)?;
    u32::try_from(number).map_err(|_| out_of_range(key, number, "an integer below 2^32"))
}

fn missing(key: &str) -> GgufError {
    GgufError::MissingKey { key: key.to_owned() }
}

fn wrong_type(key: &str, value: &Value, wanted: &'static str) -> GgufError {
    GgufError::WrongType { key: key.to_owned(), found: value.kind(), wanted }
}

fn out_of_range(key: &str, found: impl ToString, wanted: &'static str) -> GgufError {
    GgufError::OutOfRange { key: key.to_owned(), found: found.to_string(), wanted }
}
