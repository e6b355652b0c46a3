//! Finds tokens that occur twice: llama.cpp aborts the process on such a vocabulary, and it is what a damaged or a
//! badly converted file most often has.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Seek};

use crate::GgufError;
use crate::source::{Source, What};

/// The key of the vocabulary.
pub(crate) const KEY: &str = "tokenizer.ggml.tokens";

/// Hashes that are held at a time: 1 MiB. A larger vocabulary is read once for each such share of it.
const SHARE: u64 = 128 << 10;

/// Room for the shares' sizes to differ: they are those of random hashes, so by a fraction of a percent.
const SPARE: u64 = SHARE / 8;

/// Passes over `len` strings and fails if two of them are the same token for llama.cpp.
pub(crate) fn distinct<R: Read + Seek>(source: &mut Source<R>, len: u64, what: What<'_>) -> Result<(), GgufError> {
    let start = source.pos();
    // Keyed with random numbers: nobody can write a vocabulary whose hashes meet.
    let state = RandomState::new();
    let shares = len.div_ceil(SHARE).max(1);
    // The cast cannot truncate: a little above `SHARE`.
    let mut hashes: Vec<u64> = Vec::with_capacity(len.min(SHARE + SPARE) as usize);
    for share in 0..shares {
        source.rewind(start)?;
        hashes.clear();
        for _ in 0..len {
            if let Some(hash) = token(source, &state, what)?
                && hash % shares == share
                && hashes.len() < hashes.capacity()
            {
                hashes.push(hash);
            }
        }
        hashes.sort_unstable();
        if let Some(twice) = hashes.windows(2).find(|pair| pair[0] == pair[1]) {
            source.rewind(start)?;
            return Err(duplicate(source, len, &state, twice[0], what)?);
        }
    }
    Ok(())
}

/// The hash of the next token; `None` for an empty one, which llama.cpp names after its number.
fn token<R: Read + Seek>(
    source: &mut Source<R>,
    state: &RandomState,
    what: What<'_>,
) -> Result<Option<u64>, GgufError> {
    let mut left = source.u64(what)?;
    source.expect(left, what)?;
    let mut hasher = state.build_hasher();
    let mut empty = true;
    let mut buffer = [0; 64];
    while left > 0 {
        // The cast cannot truncate: not more than the buffer.
        let piece = &mut buffer[..left.min(64) as usize];
        source.fill(piece, what)?;
        left -= piece.len() as u64;
        // llama.cpp takes tokens as C strings: they end at a zero byte.
        let end = piece.iter().position(|&byte| byte == 0);
        let text = &piece[..end.unwrap_or(piece.len())];
        empty &= text.is_empty();
        hasher.write(text);
        if end.is_some() {
            source.skip(left, what)?;
            break;
        }
    }
    Ok(if empty { None } else { Some(hasher.finish()) })
}

/// The error about the tokens with this hash.
fn duplicate<R: Read + Seek>(
    source: &mut Source<R>,
    len: u64,
    state: &RandomState,
    twice: u64,
    what: What<'_>,
) -> Result<GgufError, GgufError> {
    let mut first = None;
    for index in 0..len {
        let offset = source.pos();
        if token(source, state, what)? == Some(twice) {
            match first {
                None => first = Some(index),
                Some(first) => return Ok(GgufError::DuplicateToken { offset, first, second: index }),
            }
        }
    }
    // Only a file that changes while it is read has a duplicate on one pass and not on the next.
    Ok(GgufError::DuplicateToken { offset: source.pos(), first: first.unwrap_or(len), second: len })
}
