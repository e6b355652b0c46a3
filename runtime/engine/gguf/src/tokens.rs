//! Finds tokens that occur twice: llama.cpp aborts the process on such a vocabulary, and it is what a damaged or a
//! badly converted file most often has.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Seek};

use crate::GgufError;
use crate::source::{Source, What};

/// The key of the vocabulary.
pub(crate) const KEY: &str = "tokenizer.ggml.tokens";

/// Places of the table: 1 MiB.
const PLACES: usize = 1 << 18;

/// Tokens that are held at a time: half of the places, so that a search in the table is short. A larger vocabulary is read
/// once for each such share of it.
const SHARE: u64 = PLACES as u64 / 2;

/// Room for the shares' sizes to differ: they are those of random hashes, so by a fraction of a percent.
const SPARE: u64 = SHARE / 8;

/// Passes over `len` strings and fails if two of them are the same token for llama.cpp.
pub(crate) fn distinct<R: Read + Seek>(source: &mut Source<R>, len: u64, what: What<'_>) -> Result<(), GgufError> {
    let start = source.pos();
    // Keyed with random numbers: nobody can write a vocabulary whose hashes meet.
    let state = RandomState::new();
    let shares = len.div_ceil(SHARE).max(1);
    let mut seen = Seen::default();
    for share in 0..shares {
        source.rewind(start)?;
        seen.clear();
        for _ in 0..len {
            if let Some(hash) = token(source, &state, what)?
                && (shares == 1 || hash % shares == share)
                && !seen.insert(hash)
            {
                let here = source.pos();
                source.rewind(start)?;
                if let Some(error) = duplicate(source, len, &state, hash, what)? {
                    return Err(error);
                }
                // Two tokens whose hashes are alike by half.
                source.rewind(here)?;
            }
        }
    }
    Ok(())
}

/// A set of hashes that keeps half of each: the lower bits choose the place, the upper ones stand in it. It may take two
/// hashes for one, about once in 10,000 vocabularies, and never misses two that are the same.
struct Seen {
    /// 0 is free.
    places: Box<[u32]>,
    held: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { places: vec![0; PLACES].into_boxed_slice(), held: 0 }
    }
}

impl Seen {
    fn clear(&mut self) {
        if self.held > 0 {
            self.places.fill(0);
            self.held = 0;
        }
    }

    /// False if it seems to be there.
    fn insert(&mut self, hash: u64) -> bool {
        let upper = ((hash >> 32) as u32).max(1);
        let mut at = hash as usize % PLACES;
        while self.places[at] != 0 {
            if self.places[at] == upper {
                return false;
            }
            at = (at + 1) % PLACES;
        }
        if self.held < SHARE + SPARE {
            self.places[at] = upper;
            self.held += 1;
        }
        true
    }
}

/// The hash of the next token; `None` for an empty one, which llama.cpp names after its number.
fn token<R: Read + Seek>(
    source: &mut Source<R>,
    state: &RandomState,
    what: What<'_>,
) -> Result<Option<u64>, GgufError> {
    if let Some(text) = source.ahead() {
        let bytes = text.len();
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(bytes);
        let hash = (end > 0).then(|| hash(state, &text[..end]));
        source.pass(bytes);
        return Ok(hash);
    }
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

/// The hash of a token that lies in one piece.
fn hash(state: &RandomState, text: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(text);
    hasher.finish()
}

/// The error about the tokens with this hash, if there are two.
fn duplicate<R: Read + Seek>(
    source: &mut Source<R>,
    len: u64,
    state: &RandomState,
    twice: u64,
    what: What<'_>,
) -> Result<Option<GgufError>, GgufError> {
    let mut first = None;
    for index in 0..len {
        let offset = source.pos();
        if token(source, state, what)? == Some(twice) {
            match first {
                None => first = Some(index),
                Some(first) => return Ok(Some(GgufError::DuplicateToken { offset, first, second: index })),
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_never_misses_a_hash_and_may_take_two_for_one() {
        let mut seen = Seen::default();
        // The same place, again and again: they stand one behind the other.
        let hashes = || (1..200u64).map(|n| (n << 32) | (PLACES as u64 - 3));
        assert!(hashes().all(|hash| seen.insert(hash)));
        assert!(hashes().all(|hash| !seen.insert(hash)));
        // The upper half and the place are the same, the bits between are not.
        assert!(!seen.insert((5 << 32) | (1 << 20) | (PLACES as u64 - 3)));
        seen.clear();
        assert!(hashes().all(|hash| seen.insert(hash)));
    }

    #[test]
    fn a_token_has_one_hash_however_it_is_read() {
        let state = RandomState::new();
        let text: Vec<u8> = (1..=200).collect();
        let bytes = [&200u64.to_le_bytes()[..], &text].concat();
        let whole = hash(&state, &text);
        // The slow way reads the token in pieces: here the buffer is empty at first.
        let mut source = Source::new(std::io::Cursor::new(&bytes), bytes.len() as u64).unwrap();
        assert!(source.ahead().is_none());
        assert_eq!(token(&mut source, &state, &|| "a token".to_owned()).unwrap(), Some(whole));
        // Now it has been read ahead.
        source.rewind(0).unwrap();
        assert_eq!(source.ahead(), Some(&text[..]));
        assert_eq!(token(&mut source, &state, &|| "a token".to_owned()).unwrap(), Some(whole));
    }
}
