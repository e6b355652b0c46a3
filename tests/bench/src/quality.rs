//! What a KV type costs in quality: perplexity of the embedded model on text that it was not trained on.

use anyhow::Result;
use locara_engine::llama::{LoadOptions, Perplexity, perplexity};
use locara_policy::KvType;

use crate::model::{ModelFile, locara_tiny};
use crate::report::Section;

/// Tokens of a window; the second half of each is scored.
const WINDOW: u32 = 1024;

/// Types of K and V with FlashAttention; the first is what the others are compared with.
const TYPES: [(KvType, KvType, bool); 4] = [
    (KvType::F16, KvType::F16, false),
    (KvType::Q8_0, KvType::F16, false),
    (KvType::Q8_0, KvType::Q8_0, true),
    (KvType::Q4_0, KvType::Q4_0, true),
];

/// See the module.
pub(crate) struct Quality(Vec<(String, Perplexity)>);

/// Measures every combination on the held-out text.
pub(crate) fn measure(model: &ModelFile, options: LoadOptions) -> Result<Quality> {
    let text = fs_err::read_to_string(locara_tiny("heldout.txt"))?;
    let mut all = Vec::new();
    for (type_k, type_v, flash_attention) in TYPES {
        eprintln!("perplexity: {type_k}/{type_v}");
        let options = LoadOptions { n_ctx: WINDOW, kv_cells: WINDOW, type_k, type_v, flash_attention, ..options };
        let with = if flash_attention { ", FlashAttention" } else { "" };
        all.push((format!("K {type_k}, V {type_v}{with}"), perplexity(&model.path, options, &text)?));
    }
    Ok(Quality(all))
}

impl Quality {
    pub(crate) fn section(&self) -> Section {
        let base = self.0.first().map_or(f64::NAN, |(_, first)| first.ppl);
        let row = |(what, found): &(String, Perplexity)| {
            vec![
                what.clone(),
                format!("{:.4}", found.ppl),
                format!("{:+.3} %", (found.ppl / base - 1.0) * 100.0),
                found.tokens.to_string(),
            ]
        };
        Section {
            title: "Perplexity by KV type".to_owned(),
            about: format!(
                "`locara-tiny` on `models/locara-tiny/heldout.txt`: windows of {WINDOW} tokens, the second half scored."
            ),
            header: &["KV", "perplexity", "against f16", "tokens scored"],
            rows: self.0.iter().map(row).collect(),
        }
    }
}
