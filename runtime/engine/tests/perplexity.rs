//! Perplexity of the embedded model: a figure that means something.

use std::path::PathBuf;

use locara_engine::llama::{LoadOptions, PerplexityError, perplexity};
use locara_policy::KvType;

/// Text that the model was not trained on.
const HELD_OUT: &str = include_str!("../../../models/locara-tiny/heldout.txt");

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/locara-tiny/locara-tiny.gguf")
}

fn options(type_k: KvType, type_v: KvType, flash_attention: bool) -> LoadOptions {
    LoadOptions {
        n_ctx: 256,
        kv_cells: 256,
        n_seq_max: 1,
        n_batch: 256,
        n_ubatch: 256,
        type_k,
        type_v,
        flash_attention,
        n_threads: 1,
        n_gpu_layers: 0,
        repack: false,
        queue_max: 1,
    }
}

#[test]
fn held_out_text_is_predicted_and_shuffled_text_is_not() {
    let text: String = HELD_OUT.chars().take(8000).collect();
    let mut words: Vec<&str> = text.split_inclusive(' ').collect();
    words.sort_unstable_by_key(|word| word.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(byte)));

    let plain = options(KvType::F16, KvType::F16, false);
    let model = tiny();
    let right = perplexity(&model, plain, &text).unwrap();
    let shuffled = perplexity(&model, plain, &words.concat()).unwrap();
    assert!(right.ppl > 1.0 && right.ppl * 3.0 < shuffled.ppl, "{right:?}, shuffled {shuffled:?}");
    // The second half of each window of 256, less the last token, which predicts nothing that is scored.
    assert_eq!(right.tokens % 127, 0, "{right:?}");

    let compact = perplexity(&model, options(KvType::Q8_0, KvType::Q8_0, true), &text).unwrap();
    assert_eq!(compact.tokens, right.tokens);
    assert!((compact.ppl / right.ppl - 1.0).abs() < 0.01, "q8_0 {compact:?}, f16 {right:?}");
}

#[test]
fn a_text_shorter_than_a_window_has_none() {
    let error = perplexity(&tiny(), options(KvType::F16, KvType::F16, false), "too short").unwrap_err();
    assert!(matches!(error, PerplexityError::TooShort { tokens: 1..256, window: 256 }), "{error}");
}
