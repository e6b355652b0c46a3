//! The models are what they say, the same every time, and cheap to make.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashSet;

use locara_gguf::{GgmlType, Gguf};
use locara_zoo::{Arch, Class, Draft, Fill, Quant, Spec, TensorDraft, Vocab, ZooError, catalogue, draft, find, header};

/// FNV-1a of a file: enough to see that it changed.
fn fingerprint(file: &[u8]) -> u64 {
    file.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn bytes(spec: &Spec) -> Vec<u8> {
    draft(spec).unwrap().to_bytes().unwrap()
}

#[test]
fn every_class_and_every_architecture_has_a_tiny_model_of_at_most_3_mb() {
    let tiny: Vec<_> = catalogue().iter().filter(|entry| entry.name.starts_with("tiny-")).collect();
    for entry in &tiny {
        let (_, len) = header(&entry.spec).unwrap();
        assert!(len <= 3_000_000, "{}: {len}", entry.name);
    }
    for &arch in Arch::ALL {
        assert!(tiny.iter().any(|entry| entry.spec.arch == arch), "{arch}");
    }
    let classes: HashSet<Class> = tiny.iter().map(|entry| entry.class).collect();
    assert_eq!(classes.len(), 9);
    let names: HashSet<&str> = catalogue().iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), catalogue().len());
}

/// The benchmarks compare files of different days and machines: these bytes must not change by accident. After an
/// intended change put the new number here.
#[test]
fn the_same_seed_gives_the_same_bytes() {
    let spec = &find("tiny-llama").unwrap().spec;
    let file = bytes(spec);
    assert_eq!(fingerprint(&file), TINY_LLAMA);
    assert_ne!(fingerprint(&bytes(&Spec { seed: 2, ..spec.clone() })), TINY_LLAMA);
}

const TINY_LLAMA: u64 = 7_202_924_894_589_453_567;

/// A tensor's bytes depend on the seed and its name only, so a model with more layers begins with the same ones.
#[test]
fn weights_do_not_depend_on_what_else_is_in_the_file() {
    let small = Spec::tiny(Arch::Llama);
    let large = Spec { layers: 6, ..small.clone() };
    let weights = |spec: &Spec| {
        let file = bytes(spec);
        let gguf = Gguf::parse(&file).unwrap();
        let tensor = gguf.tensor("blk.3.ffn_up.weight").unwrap();
        let at = usize::try_from(tensor.offset()).unwrap();
        file[at..at + usize::try_from(tensor.bytes()).unwrap()].to_vec()
    };
    assert_eq!(weights(&small), weights(&large));
}

#[test]
fn the_header_is_the_start_of_the_file() {
    for entry in catalogue().iter().filter(|entry| entry.name.starts_with("tiny-")) {
        let file = bytes(&entry.spec);
        let (header, len) = header(&entry.spec).unwrap();
        assert_eq!(file.len() as u64, len, "{}", entry.name);
        assert!(file.starts_with(&header), "{}", entry.name);
    }
}

/// 805 MB and 1.3 GB in the catalogue's words; the tensor types are those of the file that people download.
#[test]
fn the_1b_shape_has_the_mix_of_q4_k_m() {
    let entry = find("llama-1b-q4_k_m").unwrap();
    let draft = draft(&entry.spec).unwrap();
    let with = |kind| draft.tensors.iter().filter(|tensor| tensor.kind == kind).count();
    // 16 layers of 7 matrices; attn_v and ffn_down of 8 layers, and the embedding, have six bits.
    assert_eq!((with(GgmlType::Q4K), with(GgmlType::Q6K), with(GgmlType::F32)), (96, 17, 33));
    assert_eq!(header(&entry.spec).unwrap().1, 804_773_248);
}

/// Values of mean 0 and the deviation that was asked for, in every format. Decoded here by the layouts of ggml.
#[test]
fn weights_have_the_deviation_that_was_asked_for() {
    for kind in
        [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::Q4K, GgmlType::Q6K]
    {
        let tensor = TensorDraft { name: "t".into(), dims: vec![256, 256], kind, fill: Fill::Random(0.05) };
        let file = Draft { tensors: vec![tensor], ..Draft::new(3) }.to_bytes().unwrap();
        let gguf = Gguf::parse(&file).unwrap();
        let data = &file[usize::try_from(gguf.data_offset()).unwrap()..];
        let block = usize::try_from(kind.block_bytes()).unwrap();
        let values: Vec<f64> = data.chunks_exact(block).flat_map(|block| decode(kind, block)).collect();
        assert_eq!(values.len(), 256 * 256, "{kind}");
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        // Q4_0 and Q6_K lie around -0.5 of a step, not around 0.
        assert!(mean.abs() < 0.006, "{kind}: mean {mean}");
        assert!((deviation / 0.05 - 1.0).abs() < 0.03, "{kind}: deviation {deviation}");
    }
}

fn half(bytes: &[u8]) -> f64 {
    let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    sign * if exponent == 0 { mantissa * 2_f64.powi(-24) } else { (1024.0 + mantissa) * 2_f64.powi(exponent - 25) }
}

fn decode(kind: GgmlType, block: &[u8]) -> Vec<f64> {
    match kind {
        GgmlType::F32 => vec![f64::from(f32::from_le_bytes(block.try_into().unwrap()))],
        GgmlType::BF16 => vec![f64::from(f32::from_le_bytes([0, 0, block[0], block[1]]))],
        GgmlType::F16 => vec![half(block)],
        GgmlType::Q8_0 => block[2..].iter().map(|&q| half(block) * f64::from(q as i8)).collect(),
        GgmlType::Q4_0 => {
            block[2..].iter().flat_map(|&q| [q & 15, q >> 4]).map(|q| half(block) * (f64::from(q) - 8.0)).collect()
        }
        GgmlType::Q4K => {
            let scales = &block[4..16];
            let (low, high) = (f64::from(scales[0] & 63), f64::from(scales[8] & 15 | scales[0] >> 6 << 4));
            assert_eq!((low, high), (32.0, 32.0));
            let (scale, minimum) = (half(block) * low, half(&block[2..]) * low);
            block[16..].iter().flat_map(|&q| [q & 15, q >> 4]).map(|q| scale * f64::from(q) - minimum).collect()
        }
        GgmlType::Q6K => {
            let scale = half(&block[208..]) * f64::from(block[192] as i8);
            let (low, high) = (&block[..128], &block[128..192]);
            // Which two high bits belong to which four low bits does not matter here: all are random.
            (0..256)
                .map(|at| (low[at / 2] >> (4 * (at % 2)) & 15) | (high[at / 4] >> (2 * (at % 4)) & 3) << 4)
                .map(|q| scale * (f64::from(q) - 32.0))
                .collect()
        }
        other => panic!("{other} is not written by the zoo"),
    }
}

/// All tokens differ (llama.cpp aborts otherwise), and every one that is not a byte or a marker is a merge of two others.
#[test]
fn vocabularies_are_consistent_at_every_size() {
    for (vocab, arch) in [(Vocab::Llama3, Arch::Llama), (Vocab::ChatMl, Arch::Qwen2), (Vocab::WordPiece, Arch::Bert)] {
        for size in [vocab.least(), vocab.least() + 1, 300, 960, 5_000] {
            let draft = draft(&Spec { vocab: size, ..Spec::tiny(arch) }).unwrap();
            let strings = |key: &str| {
                draft.keys.iter().find_map(|(name, value)| match value {
                    locara_zoo::Meta::Strs(items) if name == key => Some(items.clone()),
                    _ => None,
                })
            };
            let tokens = strings("tokenizer.ggml.tokens").unwrap();
            let distinct: HashSet<&String> = tokens.iter().collect();
            assert_eq!((tokens.len(), distinct.len()), (size as usize, size as usize), "{vocab:?}");
            let Some(merges) = strings("tokenizer.ggml.merges") else { continue };
            assert!(!merges.is_empty());
            for merge in merges {
                let (first, second) = merge.split_once(' ').unwrap();
                for part in [first.to_owned(), second.to_owned(), format!("{first}{second}")] {
                    assert!(distinct.contains(&part), "{part:?} of {merge:?}");
                }
            }
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let llama = || Spec::tiny(Arch::Llama);
    for (spec, message) in [
        (Spec { layers: 0, ..llama() }, "tiny-llama: layers must be 1 to 512"),
        (Spec { kv_heads: 3, ..llama() }, "tiny-llama: heads must be a multiple of kv_heads"),
        (Spec { experts: 4, ..llama() }, "tiny-llama: experts_used must be 1 to experts"),
        (Spec { vocab: 100, ..llama() }, "a vocabulary of 100 tokens; Llama3 needs at least 262"),
        (Spec { experts: 0, ..Spec::tiny(Arch::Qwen3Moe) }, "tiny-qwen3moe: this architecture needs experts"),
    ] {
        assert_eq!(draft(&spec).unwrap_err().to_string(), message);
    }
    let constant = TensorDraft { name: "t".into(), dims: vec![32], kind: GgmlType::Q8_0, fill: Fill::Constant(1.0) };
    assert!(matches!(constant.bytes(), Err(ZooError::Tensor { .. })));
    let partial = TensorDraft { dims: vec![48, 2], fill: Fill::Random(1.0), ..constant };
    assert_eq!(partial.bytes().unwrap_err().to_string(), r#"tensor "t": q8_0 does not fit the shape [48, 2]"#);
}

/// Rows that are no whole number of blocks fall back to smaller blocks, as llama.cpp's quantiser does.
#[test]
fn formats_fall_back_where_rows_are_short() {
    let kinds = |embd| {
        let spec = Spec { embd, quant: Quant::Q4KM, ..Spec::tiny(Arch::Llama) };
        draft(&spec).unwrap().tensors.into_iter().find(|tensor| tensor.name == "token_embd.weight").unwrap().kind
    };
    assert_eq!((kinds(256), kinds(96), kinds(100)), (GgmlType::Q6K, GgmlType::Q8_0, GgmlType::F16));
}

/// The planner's tests need shapes that no disk here holds.
#[test]
fn the_header_of_a_large_model_costs_no_weights() {
    let spec = Spec {
        layers: 80,
        embd: 8_192,
        heads: 64,
        kv_heads: 8,
        head_dim: 128,
        ff: 28_672,
        vocab: 128_256,
        tied: false,
        quant: Quant::Q4KM,
        ..Spec::tiny(Arch::Llama)
    };
    let (header, len) = header(&spec).unwrap();
    let gguf = Gguf::read(std::io::Cursor::new(header), len).unwrap();
    assert_eq!(gguf.tensors().len(), 80 * 9 + 3);
    assert!((40_000_000_000..45_000_000_000).contains(&gguf.weights_bytes()), "{}", gguf.weights_bytes());
}
