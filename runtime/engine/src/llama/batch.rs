//! The tokens of one step, for one or more sequences. Bounds are checked here: llama.cpp aborts the process on a bad batch.

use super::ffi::sys;
use crate::api::Token;

/// A batch of at most `capacity` tokens, each of one sequence.
#[derive(Debug)]
pub(super) struct Batch {
    capacity: usize,
    tokens: Vec<Token>,
    positions: Vec<i32>,
    /// One sequence id per token; `seq_pointers` points into it.
    seq_ids: Vec<i32>,
    n_seq_ids: Vec<i32>,
    seq_pointers: Vec<*mut i32>,
    wants_output: Vec<i8>,
}

// SAFETY: `seq_pointers` points into `seq_ids` of the same batch, is rebuilt before every use, and is never shared.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            tokens: Vec::with_capacity(capacity),
            positions: Vec::with_capacity(capacity),
            seq_ids: Vec::with_capacity(capacity),
            n_seq_ids: vec![1; capacity],
            seq_pointers: Vec::with_capacity(capacity),
            wants_output: Vec::with_capacity(capacity),
        }
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.seq_ids.clear();
        self.wants_output.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens that still fit.
    pub(super) fn room(&self) -> usize {
        self.capacity - self.tokens.len()
    }

    /// Adds a token and returns its row, or `None` when the batch is full.
    pub(super) fn push(&mut self, token: Token, position: i32, seq_id: i32, wants_output: bool) -> Option<usize> {
        if self.room() == 0 {
            return None;
        }
        self.tokens.push(token);
        self.positions.push(position);
        self.seq_ids.push(seq_id);
        self.wants_output.push(i8::from(wants_output));
        Some(self.tokens.len() - 1)
    }

    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(super) fn seq_ids(&self) -> &[i32] {
        &self.seq_ids
    }

    /// Rows whose logits were asked for.
    pub(super) fn output_rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.wants_output.iter().enumerate().filter(|(_, wants)| **wants != 0).map(|(row, _)| row)
    }

    /// The C view; valid until the batch is changed or dropped.
    pub(super) fn as_raw(&mut self) -> sys::llama_batch {
        self.seq_pointers.clear();
        self.seq_pointers.extend(self.seq_ids.iter_mut().map(std::ptr::from_mut));
        sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.n_seq_ids.as_mut_ptr(),
            seq_id: self.seq_pointers.as_mut_ptr(),
            logits: self.wants_output.as_mut_ptr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_refuses_instead_of_overflowing() {
        let mut batch = Batch::new(2);
        assert_eq!(batch.push(1, 0, 0, false), Some(0));
        assert_eq!(batch.push(2, 1, 0, true), Some(1));
        assert_eq!(batch.push(3, 2, 0, true), None);
        assert_eq!(batch.len(), 2);
        assert_eq!(batch.output_rows().collect::<Vec<_>>(), [1]);
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.room(), 2);
    }
}
