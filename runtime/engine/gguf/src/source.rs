//! The only place that reads: a forward cursor that never reads, skips or allocates past what the file can hold.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use crate::{GgufError, limits};

/// What is being read, spelled out only when an error needs it.
pub(crate) type What<'a> = &'a dyn Fn() -> String;

/// A bounded cursor over the header.
pub(crate) struct Source<R> {
    reader: BufReader<R>,
    pos: u64,
    len: u64,
    kept: u64,
}

impl<R: Read + Seek> Source<R> {
    /// A cursor over the first `len` bytes of `reader`, from its start.
    pub(crate) fn new(mut reader: R, len: u64) -> Result<Self, GgufError> {
        reader.seek(SeekFrom::Start(0)).map_err(|source| GgufError::Read { offset: 0, source })?;
        Ok(Self { reader: BufReader::with_capacity(limits::BUFFER_BYTES, reader), pos: 0, len, kept: 0 })
    }

    /// Offset of the next byte.
    pub(crate) fn pos(&self) -> u64 {
        self.pos
    }

    /// Length of the file, bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes between here and the end of the file.
    pub(crate) fn left(&self) -> u64 {
        self.len.saturating_sub(self.pos)
    }

    /// Fails unless `bytes` more are in the file and in the header's limit.
    pub(crate) fn expect(&self, bytes: u64, what: What<'_>) -> Result<(), GgufError> {
        if bytes > self.left() {
            return Err(GgufError::Truncated { offset: self.pos, what: what(), needs: bytes, left: self.left() });
        }
        // Cannot overflow: `bytes` is at most what is left of a `u64` length.
        let end = self.pos + bytes;
        if end > limits::MAX_HEADER_BYTES {
            return Err(GgufError::HeaderTooLarge { offset: self.pos, what: what(), end });
        }
        Ok(())
    }

    /// Counts `bytes` as kept, before they are allocated.
    pub(crate) fn keep(&mut self, bytes: u64, what: What<'_>) -> Result<(), GgufError> {
        let bytes = self.kept.saturating_add(bytes);
        if bytes > limits::MAX_KEPT_BYTES {
            return Err(GgufError::MetadataTooLarge { offset: self.pos, what: what(), bytes });
        }
        self.kept = bytes;
        Ok(())
    }

    /// The next `N` bytes.
    pub(crate) fn bytes<const N: usize>(&mut self, what: What<'_>) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    /// A little-endian `u32`.
    pub(crate) fn u32(&mut self, what: What<'_>) -> Result<u32, GgufError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    /// A little-endian `u64`.
    pub(crate) fn u64(&mut self, what: What<'_>) -> Result<u64, GgufError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A string of at most `limit` bytes: length, then UTF-8 without zero bytes. Its bytes are counted as kept.
    pub(crate) fn string(&mut self, limit: u64, what: What<'_>) -> Result<Box<str>, GgufError> {
        let at = self.pos;
        let bytes = self.u64(what)?;
        self.expect(bytes, what)?;
        if bytes > limit {
            return Err(GgufError::StringTooLong { offset: at, what: what(), bytes, limit });
        }
        self.keep(bytes, what)?;
        let offset = self.pos;
        // The cast cannot truncate: `bytes` is at most `limit`, and every limit is at most 1 MiB.
        let mut text = vec![0; bytes as usize];
        self.fill(&mut text, what)?;
        if text.contains(&0) {
            return Err(GgufError::NulByte { offset, what: what() });
        }
        match String::from_utf8(text) {
            Ok(text) => Ok(text.into_boxed_str()),
            Err(error) => Err(GgufError::Utf8 { offset, what: what(), valid: error.utf8_error().valid_up_to() }),
        }
    }

    /// The next string where it lies, if all of it was read ahead and is inside the limits: the way that nearly every string
    /// of a tokenizer takes. The caller passes over it with [`Self::pass`], or reads it the slow way for the error.
    pub(crate) fn ahead(&self) -> Option<&[u8]> {
        let (len, rest) = self.reader.buffer().split_first_chunk::<8>()?;
        let text = rest.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        // What is read ahead may lie behind the end that was given.
        let end = self.pos + 8 + text.len() as u64;
        (end <= self.len && end <= limits::MAX_HEADER_BYTES).then_some(text)
    }

    /// Passes over a string of `bytes` that [`Self::ahead`] has shown.
    pub(crate) fn pass(&mut self, bytes: usize) {
        self.reader.consume(8 + bytes);
        self.pos += 8 + bytes as u64;
    }

    /// Passes over `bytes` without reading them.
    pub(crate) fn skip(&mut self, bytes: u64, what: What<'_>) -> Result<(), GgufError> {
        self.expect(bytes, what)?;
        // `expect` bounds `bytes` by the 64 MiB of a header.
        let step = i64::try_from(bytes).expect("a header is far below 2^63 bytes");
        self.reader.seek_relative(step).map_err(|source| GgufError::Read { offset: self.pos, source })?;
        self.pos += bytes;
        Ok(())
    }

    /// Goes back to `pos`, which must not be ahead.
    pub(crate) fn rewind(&mut self, pos: u64) -> Result<(), GgufError> {
        // Both are inside the header, so far below 2^63.
        let back = i64::try_from(self.pos.saturating_sub(pos)).expect("a header is far below 2^63 bytes");
        self.reader.seek_relative(-back).map_err(|source| GgufError::Read { offset: pos, source })?;
        self.pos = pos;
        Ok(())
    }

    /// Fills `out` with the next bytes.
    pub(crate) fn fill(&mut self, out: &mut [u8], what: What<'_>) -> Result<(), GgufError> {
        self.expect(out.len() as u64, what)?;
        self.reader.read_exact(out).map_err(|source| GgufError::Read { offset: self.pos, source })?;
        self.pos += out.len() as u64;
        Ok(())
    }
}
