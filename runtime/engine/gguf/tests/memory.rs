//! A file chooses what is read, not how much memory that takes.
//!
//! One test in a process of its own: the allocator counts everything that the process does.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::alloc::System;
use std::io::Cursor;

use cap::Cap;
use locara_gguf::{GgmlType, Gguf, GgufError, limits};
use locara_zoo::{Draft, Fill, Meta, TensorDraft};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What reading a header may take, bytes.
const LIMIT: usize = 4 << 20;

/// Reads with at most [`LIMIT`] bytes of memory: one byte more and the allocation fails, which ends the process with
/// "memory allocation of N bytes failed".
fn read_within_limit(file: &[u8]) -> Result<Gguf, GgufError> {
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + LIMIT).unwrap();
    let outcome = Gguf::read(Cursor::new(file), file.len() as u64);
    ALLOCATOR.set_limit(usize::MAX).unwrap();
    outcome
}

fn tensor(name: String) -> TensorDraft {
    TensorDraft { name, dims: vec![1], kind: GgmlType::F32, fill: Fill::Constant(0.0) }
}

/// As many tensors as are accepted, with the longest names.
fn most_tensors() -> Draft {
    let mut draft = Draft::new(1);
    draft.tensors = (0..limits::MAX_TENSORS).map(|index| tensor(format!("{index:063}"))).collect();
    draft
}

/// As many keys as are accepted, as long as the budget lasts.
fn most_keys(value: Meta) -> Draft {
    let mut draft = Draft::new(1);
    for index in 0..limits::MAX_KEYS {
        draft.key(format!("{index:0200}"), value.clone());
    }
    draft
}

/// A tokenizer larger than Gemma's 262 thousand tokens.
fn largest_tokenizer() -> Draft {
    let mut draft = Draft::new(1);
    let tokens: Vec<String> = (0..300_000).map(|token| format!("a long token {token}")).collect();
    draft.key("tokenizer.ggml.scores", vec![0.5_f32; tokens.len()]);
    draft.key("tokenizer.ggml.token_type", vec![1_i32; tokens.len()]);
    draft.key("tokenizer.ggml.merges", tokens.clone());
    draft.key("tokenizer.ggml.tokens", tokens);
    draft
}

#[test]
fn reading_takes_at_most_4_mib() {
    for (name, draft) in [
        ("most tensors", most_tensors()),
        ("most keys", most_keys(Meta::Str("x".repeat(300)))),
        ("largest tokenizer", largest_tokenizer()),
    ] {
        let file = draft.to_bytes().unwrap();
        let gguf = read_within_limit(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(gguf.tensors().len(), draft.tensors.len(), "{name}");
        assert_eq!(gguf.metadata().count(), draft.keys.len(), "{name}");
    }
    for (name, draft) in [
        ("keys beyond the budget", most_keys(Meta::Str("x".repeat(1_000)))),
        ("arrays beyond the budget", most_keys(Meta::Bools(vec![true; 1_024]))),
    ] {
        let error = read_within_limit(&draft.to_bytes().unwrap()).expect_err(name);
        assert!(matches!(error, GgufError::MetadataTooLarge { .. }), "{name}: {error}");
    }
    for broken in locara_zoo::broken() {
        assert!(read_within_limit(&broken.file).is_err(), "{}", broken.name);
    }
}
