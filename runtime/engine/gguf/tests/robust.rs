//! Whatever the bytes: an answer or an error, never a panic.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use locara_gguf::{Gguf, GgufError};
use proptest::prelude::*;

/// Its header is short enough to try every bit.
fn every_type() -> Vec<u8> {
    locara_zoo::one_of_each().to_bytes().unwrap()
}

fn header_len(file: &[u8]) -> usize {
    usize::try_from(Gguf::parse(file).unwrap().data_offset()).unwrap()
}

#[test]
fn every_cut_is_noticed() {
    let file = every_type();
    let gguf = Gguf::parse(&file).unwrap();
    let last = gguf.tensors().last().unwrap();
    // Only the padding behind the last tensor may be missing.
    let end = usize::try_from(last.offset() + last.bytes()).unwrap();
    for len in 0..end {
        let error = Gguf::parse(&file[..len]).expect_err("cut");
        let noticed = matches!(error, GgufError::Truncated { .. } | GgufError::BeyondFile { .. });
        assert!(noticed, "cut at {len}: {error:?}");
    }
    assert!(Gguf::parse(&file[..end]).is_ok());
}

#[test]
fn no_bit_of_the_header_panics_when_flipped() {
    let file = every_type();
    let mut accepted = 0;
    for at in 0..header_len(&file) {
        for bit in 0..8 {
            let mut file = file.clone();
            file[at] ^= 1 << bit;
            accepted += u32::from(Gguf::parse(&file).is_ok());
        }
    }
    // Flips in numbers, texts and padding are as good as the original; the rest must be refused.
    assert!(accepted > 0);
}

#[test]
fn no_byte_of_the_header_panics_when_replaced() {
    let file = every_type();
    for at in 0..header_len(&file) {
        for byte in [0, 1, 9, 12, 13, 0x7f, 0x80, 0xfe, 0xff] {
            let mut file = file.clone();
            file[at] = byte;
            let _ = Gguf::parse(&file);
        }
    }
}

#[test]
fn no_8_bytes_of_the_header_panic_when_replaced_by_an_extreme_number() {
    let file = every_type();
    for at in 0..header_len(&file) - 8 {
        for number in [0, 1, u64::MAX, 1 << 63, 1 << 62, 1 << 40, 1 << 32, (1 << 32) - 1, 1 << 20, file.len() as u64] {
            let mut file = file.clone();
            file[at..at + 8].copy_from_slice(&number.to_le_bytes());
            let _ = Gguf::parse(&file);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Gguf::parse(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_valid_start_never_panic(
        tensors in 0_u64..4,
        keys in 0_u64..4,
        bytes in proptest::collection::vec(any::<u8>(), 0..512),
    ) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(tensors.to_le_bytes());
        file.extend(keys.to_le_bytes());
        file.extend(bytes);
        let _ = Gguf::parse(&file);
    }

    #[test]
    fn whatever_is_accepted_is_consistent(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut file = every_type();
        let header = header_len(&file);
        for (at, byte) in flips {
            file[at.index(header)] = byte;
        }
        if let Ok(gguf) = Gguf::parse(&file) {
            locara_zoo::interrogate(&gguf);
        }
    }
}
