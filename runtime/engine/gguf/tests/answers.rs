//! What the reader says about files that are right: all models of the zoo.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Cursor;

use locara_gguf::{GgmlType, Gguf, GgufError, ValueType};
use locara_zoo::{Arch, Draft, Meta, Quant, Spec};

/// Reads the header alone: no weights have to be made for it.
fn read(spec: &Spec) -> Gguf {
    let (header, len) = locara_zoo::header(spec).unwrap();
    Gguf::read(Cursor::new(header), len).unwrap()
}

fn named(name: &str) -> Gguf {
    read(&locara_zoo::find(name).unwrap().spec)
}

/// A file with these keys and no tensors.
fn keys<const N: usize>(keys: [(&str, Meta); N]) -> Gguf {
    let mut draft = Draft::new(1);
    keys.into_iter().for_each(|(key, value)| draft.key(key, value));
    Gguf::parse(&draft.to_bytes().unwrap()).unwrap()
}

#[test]
fn every_model_of_the_zoo_is_read_and_passes_the_model_check() {
    for entry in locara_zoo::catalogue() {
        let (name, spec) = (entry.name, &entry.spec);
        let gguf = read(spec);
        gguf.check_model().unwrap();
        assert_eq!(gguf.architecture().unwrap(), spec.arch.name(), "{name}");
        assert_eq!(gguf.need_u32(&gguf.arch_key("block_count").unwrap()).unwrap(), spec.layers, "{name}");
        assert_eq!(gguf.n_vocab().unwrap(), Some(spec.vocab), "{name}");
        assert_eq!(gguf.data_offset() + gguf.weights_bytes(), gguf.file_len(), "{name}");
        assert!(gguf.tensor_bytes() <= gguf.weights_bytes(), "{name}");
        let has_template = gguf.chat_template().unwrap().is_some();
        assert_eq!(has_template, entry.class != locara_zoo::Class::Encoder, "{name}");
    }
}

/// llama.cpp reports 762.81 MiB for this file, both as the size of the model and as its mapped buffer.
#[test]
fn weights_of_the_1b_shape_are_what_llama_cpp_counts() {
    let gguf = named("llama-1b-q4_k_m");
    assert_eq!(gguf.tensor_bytes(), 799_862_784);
    assert_eq!(gguf.weights_bytes(), 799_862_784);
    let embedding = gguf.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.kind(), embedding.dims()), (GgmlType::Q6K, &[2048, 128_256][..]));
    assert_eq!(embedding.bytes(), 2048 / 256 * 210 * 128_256);
    assert_eq!(embedding.elements(), 2048 * 128_256);
    assert_eq!(gguf.tensor("blk.16.attn_q.weight"), None);
}

/// llama.cpp reports 892,784 bytes as the size of this model; tensors of 16 bytes are padded to 32 in the file.
#[test]
fn padding_is_in_weights_and_not_in_tensors() {
    let gguf = named("tiny-granitehybrid");
    assert_eq!(gguf.tensor_bytes(), 892_784);
    let padding: u64 = gguf.tensors().iter().map(|tensor| tensor.bytes().next_multiple_of(32) - tensor.bytes()).sum();
    assert_eq!(gguf.weights_bytes(), 892_784 + padding);
    assert!(padding > 0);
}

#[test]
fn numbers_per_layer_come_from_an_array_or_from_one_number() {
    let jamba = named("tiny-jamba");
    assert_eq!(jamba.per_layer_u32("jamba.attention.head_count_kv", 4).unwrap(), Some(vec![0, 0, 0, 2]));
    assert_eq!(jamba.per_layer_u32("jamba.attention.head_count", 4).unwrap(), Some(vec![4; 4]));
    assert_eq!(jamba.per_layer_u32("jamba.nothing", 4).unwrap(), None);
    let wrong = jamba.per_layer_u32("jamba.attention.head_count_kv", 5).unwrap_err();
    assert_eq!(wrong.to_string(), r#"key "jamba.attention.head_count_kv" has 4 elements for 5 layers"#);
    let absurd = jamba.per_layer_u32("jamba.attention.head_count", u32::MAX).unwrap_err();
    assert!(matches!(absurd, GgufError::TooManyLayers { layers: u32::MAX, .. }));

    let gemma = named("tiny-gemma4");
    let pattern = gemma.per_layer_u32("gemma4.attention.sliding_window_pattern", 6).unwrap();
    assert_eq!(pattern, Some(vec![1, 0, 1, 0, 1, 0]));
}

#[test]
fn getters_convert_what_fits_and_refuse_the_rest() {
    let gguf = keys([
        ("u8", Meta::U8(7)),
        ("u64", Meta::U64(1 << 40)),
        ("i32", Meta::I32(7)),
        ("negative", Meta::I32(-1)),
        ("f64", Meta::F64(0.5)),
        ("nan", Meta::F32(f32::NAN)),
        ("huge", Meta::F64(1e300)),
        ("bool", Meta::Bool(true)),
        ("str", Meta::Str("text".into())),
        ("strs", Meta::Strs(vec!["a".into()])),
        ("f32s", Meta::F32s(vec![1.0])),
    ]);
    assert_eq!(gguf.u32("u8").unwrap(), Some(7));
    assert_eq!(gguf.u32("i32").unwrap(), Some(7));
    assert_eq!(gguf.u64("u64").unwrap(), Some(1 << 40));
    assert_eq!(gguf.f32("f64").unwrap(), Some(0.5));
    assert_eq!(gguf.bool("bool").unwrap(), Some(true));
    assert_eq!(gguf.str("str").unwrap(), Some("text"));
    assert_eq!(gguf.u32("nothing").unwrap(), None);
    let message = |error: GgufError| error.to_string();
    assert_eq!(message(gguf.need_u32("nothing").unwrap_err()), r#"the file has no key "nothing""#);
    assert_eq!(message(gguf.u32("u64").unwrap_err()), r#"key "u64" is 1099511627776, not an integer below 2^32"#);
    assert_eq!(message(gguf.u32("negative").unwrap_err()), r#"key "negative" is -1, not a non-negative integer"#);
    assert_eq!(message(gguf.u32("str").unwrap_err()), r#"key "str" is a string, not an integer"#);
    assert_eq!(message(gguf.str("u8").unwrap_err()), r#"key "u8" is a u8, not a string"#);
    assert_eq!(message(gguf.bool("u8").unwrap_err()), r#"key "u8" is a u8, not a bool"#);
    assert_eq!(message(gguf.f32("nan").unwrap_err()), r#"key "nan" is NaN, not a finite f32"#);
    assert!(matches!(gguf.f32("huge"), Err(GgufError::OutOfRange { .. })));
    assert!(matches!(gguf.u32s("strs"), Err(GgufError::WrongType { found: ValueType::Str, .. })));
    assert!(matches!(gguf.u32s("f32s"), Err(GgufError::WrongType { found: ValueType::F32, .. })));
}

#[test]
fn long_arrays_leave_their_type_count_and_place() {
    let tokens: Vec<String> = (0..3_000).map(|token| token.to_string()).collect();
    let mut draft = Draft::new(1);
    draft.key("general.architecture", "llama");
    draft.key("tokenizer.ggml.tokens", tokens);
    draft.key("tokenizer.ggml.scores", vec![0.5_f32; 3_000]);
    let file = draft.to_bytes().unwrap();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.n_vocab().unwrap(), Some(3_000));
    let scores = gguf.array("tokenizer.ggml.scores").unwrap().unwrap();
    assert_eq!((scores.element, scores.len, &scores.elements), (ValueType::F32, 3_000, &None));
    let at = usize::try_from(scores.offset).unwrap();
    assert_eq!(file[at..at + 4], 0.5_f32.to_le_bytes());
    assert!(matches!(gguf.u32s("tokenizer.ggml.scores"), Err(GgufError::NotKept { len: 3_000, .. })));
}

/// A vocabulary that is looked through in shares: the same token far apart is still found, different ones are not.
#[test]
fn a_duplicate_token_is_found_in_a_vocabulary_of_any_size() {
    let file = |twice: Option<usize>| {
        let mut tokens: Vec<String> = (0..140_000).map(|token| format!("t{token}")).collect();
        if let Some(at) = twice {
            tokens[at] = "t17".to_owned();
        }
        let mut draft = Draft::new(1);
        draft.key("general.architecture", "llama");
        draft.key("tokenizer.ggml.tokens", tokens);
        draft.key("last", 5_u32);
        draft.to_bytes().unwrap()
    };
    let gguf = Gguf::parse(&file(None)).unwrap();
    assert_eq!((gguf.n_vocab().unwrap(), gguf.u32("last").unwrap()), (Some(140_000), Some(5)));
    for at in [18, 70_000, 139_999] {
        let error = Gguf::parse(&file(Some(at))).unwrap_err();
        assert!(matches!(error, GgufError::DuplicateToken { first: 17, second, .. } if second == at as u64), "{error}");
    }
}

/// llama.cpp gives empty tokens names of their own, so there may be several.
#[test]
fn empty_tokens_are_no_duplicates() {
    let gguf = keys([("tokenizer.ggml.tokens", Meta::Strs(vec!["".into(), "a".into(), "".into(), "b".into()]))]);
    assert_eq!(gguf.n_vocab().unwrap(), Some(4));
}

#[test]
fn files_without_a_tokenizer_have_the_vocabulary_of_their_architecture() {
    let gguf = keys([("general.architecture", "t5encoder".into()), ("t5encoder.vocab_size", 99_u32.into())]);
    assert_eq!(gguf.n_vocab().unwrap(), Some(99));
    assert_eq!(gguf.chat_template().unwrap(), None);
    assert!(matches!(keys([]).architecture(), Err(GgufError::MissingKey { .. })));
}

#[test]
fn alignment_moves_the_data() {
    let mut draft = locara_zoo::draft(&Spec { quant: Quant::F16, ..Spec::tiny(Arch::Llama) }).unwrap();
    draft.key("general.alignment", 4_096_u32);
    let gguf = Gguf::parse(&draft.to_bytes().unwrap()).unwrap();
    assert_eq!((gguf.alignment(), gguf.data_offset() % 4_096), (4_096, 0));
    assert!(gguf.tensors().iter().all(|tensor| tensor.offset() % 4_096 == 0));
}

#[test]
fn version_2_reads_like_version_3() {
    let mut file = locara_zoo::draft(&Spec::tiny(Arch::Llama)).unwrap().to_bytes().unwrap();
    file[4] = 2;
    assert_eq!(Gguf::parse(&file).unwrap().version(), 2);
}

#[test]
fn a_sparse_file_reads_like_the_written_one() {
    let folder = tempfile::tempdir().unwrap();
    let draft = locara_zoo::draft(&Spec::tiny(Arch::Qwen3)).unwrap();
    draft.save(folder.path().join("written")).unwrap();
    draft.save_sparse(folder.path().join("sparse")).unwrap();
    let open = |name| Gguf::open(folder.path().join(name)).unwrap();
    assert_eq!(open("written").tensors(), open("sparse").tensors());
    assert_eq!(open("written").file_len(), open("sparse").file_len());
}

/// llama.cpp ends the process on each of these.
#[test]
fn numbers_that_abort_llama_cpp_are_refused() {
    let check = |key: &str, value: Meta| {
        let mut draft = locara_zoo::draft(&Spec::tiny(Arch::Qwen3Moe)).unwrap();
        draft.keys.retain(|(existing, _)| existing != key);
        draft.key(key, value);
        Gguf::parse(&draft.to_bytes().unwrap()).unwrap().check_model()
    };
    for (key, value, message) in [
        ("block_count", Meta::U32(0), "is 0; it must be 1 to 512"),
        ("block_count", Meta::U32(513), "is 513; it must be 1 to 512"),
        ("embedding_length", Meta::U32(0), "is 0; it must be 1 to 4294967295"),
        ("nextn_predict_layers", Meta::U32(5), "is 5; it must be at most the 4 of block_count"),
        ("expert_count", Meta::U32(2_000), "is 2000; it must be at most 1024"),
        ("expert_used_count", Meta::U32(5), "is 5; it must be 1 to the 4 of expert_count"),
        ("expert_used_count", Meta::U32s(vec![1, 2, 3, 9]), "is 9; it must be 1 to the 4 of expert_count"),
        ("expert_used_count", Meta::U32(0), "is 0; it must be 1 to the 4 of expert_count"),
        ("expert_group_count", Meta::U32(4), "is 4; it must be below the 4 of expert_count"),
        ("expert_group_count", Meta::U32(3), "is 3; it must be a divisor of the 4 of expert_count"),
        (
            "rope.scaling.type",
            Meta::Str("magic".into()),
            r#"is "magic"; it must be one of none, linear, yarn, longrope"#,
        ),
    ] {
        let key = format!("qwen3moe.{key}");
        let error = check(&key, value).unwrap_err();
        assert_eq!(error.to_string(), format!("key {key:?} {message}"));
    }
    assert!(matches!(check("qwen3moe.expert_group_count", Meta::U32(2)), Err(GgufError::Unloadable { .. })));
    check("qwen3moe.rope.scaling.type", Meta::Str("yarn".into())).unwrap();
    check("qwen3moe.expert_used_count", Meta::U32s(vec![1, 2, 3, 4])).unwrap();
}
