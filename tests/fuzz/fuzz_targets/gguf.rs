//! Any bytes as a model file.
#![no_main]

use std::io::Cursor;

use locara_gguf::Gguf;

/// Room for the weights of any header in the corpus, bytes.
const BEHIND: u64 = 1 << 40;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    // As they are, and as the start of a long file: a header then needs no weights to be accepted.
    for len in [file.len() as u64, BEHIND] {
        if let Ok(gguf) = Gguf::read(Cursor::new(file), len) {
            locara_zoo::interrogate(&gguf);
        }
    }
});
