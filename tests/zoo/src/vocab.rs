//! Synthetic tokenizers that llama.cpp accepts and that round-trip any text.

use std::collections::HashSet;

use crate::ZooError;
use crate::draft::{Draft, Meta};
use crate::rng::Rng;

/// Token types (`enum llama_token_type`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// Which tokenizer and which chat template a file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vocab {
    /// Byte-level BPE with the markers of Llama 3.
    Llama3,
    /// Byte-level BPE with the markers of ChatML.
    ChatMl,
    /// WordPiece, for encoders; no chat template.
    WordPiece,
}

/// A conversation in the markers of Llama 3.
const LLAMA3_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}\
<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

/// A conversation in ChatML.
const CHATML_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}\
<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const LLAMA3_MARKERS: [&str; 5] =
    ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];
const CHATML_MARKERS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const WORDPIECE_MARKERS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Letters by frequency: the first merges are the ones that English text would give.
const LETTERS: &str = "etaoinshrdlcumwfgypbvkjxqz";

impl Vocab {
    /// The fewest tokens that it works with.
    #[must_use]
    pub fn least(self) -> u32 {
        match self {
            // All bytes, one merge (llama.cpp wants the merges to be there), the markers.
            Self::Llama3 => 256 + 1 + LLAMA3_MARKERS.len() as u32,
            Self::ChatMl => 256 + 1 + CHATML_MARKERS.len() as u32,
            // Markers, letters at the start of a word and inside.
            Self::WordPiece => WORDPIECE_MARKERS.len() as u32 + 2 * LETTERS.len() as u32,
        }
    }

    /// Appends the tokenizer's keys, `size` tokens in all.
    ///
    /// # Errors
    /// [`ZooError::Spec`] when `size` is below [`Self::least`].
    pub(crate) fn put(self, draft: &mut Draft, size: u32) -> Result<(), ZooError> {
        if size < self.least() {
            return Err(ZooError::Spec(format!(
                "a vocabulary of {size} tokens; {self:?} needs at least {}",
                self.least()
            )));
        }
        match self {
            Self::Llama3 => {
                let markers = bpe(draft, size, "llama-bpe", &LLAMA3_MARKERS);
                draft.key("tokenizer.ggml.bos_token_id", markers);
                draft.key("tokenizer.ggml.eos_token_id", markers + 4);
                draft.key("tokenizer.ggml.add_bos_token", true);
                draft.key("tokenizer.chat_template", LLAMA3_TEMPLATE);
            }
            Self::ChatMl => {
                let markers = bpe(draft, size, "qwen2", &CHATML_MARKERS);
                draft.key("tokenizer.ggml.bos_token_id", markers);
                draft.key("tokenizer.ggml.eos_token_id", markers + 2);
                draft.key("tokenizer.ggml.padding_token_id", markers);
                draft.key("tokenizer.ggml.add_bos_token", false);
                draft.key("tokenizer.chat_template", CHATML_TEMPLATE);
            }
            Self::WordPiece => wordpiece(draft, size),
        }
        Ok(())
    }
}

/// Byte-level BPE: all bytes, merges, markers. Returns the id of the first marker.
fn bpe(draft: &mut Draft, size: u32, pre: &str, markers: &[&str]) -> u32 {
    let plain = size as usize - markers.len();
    let bytes = byte_letters();
    let space = bytes[usize::from(b' ')].to_string();
    let letters: Vec<String> = LETTERS.chars().map(String::from).collect();
    let mut words = Merges { tokens: bytes.iter().map(char::to_string).collect(), merges: Vec::new(), limit: plain };
    let mut seen: HashSet<String> = words.tokens.iter().cloned().collect();
    for letter in &letters {
        words.add(&mut seen, &space, letter);
    }
    for first in &letters {
        for second in &letters {
            words.add(&mut seen, first, second);
        }
    }
    // Longer tokens are made of two existing ones, so every token can be reached by merges.
    let mut rng = Rng::new(draft.seed, "merges");
    while words.tokens.len() < plain {
        let first = words.tokens[256 + rng.below(words.tokens.len() - 256)].clone();
        let second =
            if rng.below(2) == 0 { &letters[rng.below(letters.len())] } else { &words.tokens[282 + rng.below(676)] };
        let second = second.clone();
        if first.chars().count() + second.chars().count() <= 12 {
            words.add(&mut seen, &first, &second);
        }
    }
    let mut types = vec![NORMAL; plain];
    types.extend(vec![CONTROL; markers.len()]);
    words.tokens.extend(markers.iter().map(|&marker| marker.to_owned()));
    draft.key("tokenizer.ggml.model", "gpt2");
    draft.key("tokenizer.ggml.pre", pre);
    draft.key("tokenizer.ggml.tokens", words.tokens);
    draft.key("tokenizer.ggml.token_type", types);
    draft.key("tokenizer.ggml.merges", words.merges);
    // The cast cannot truncate: below `size`.
    plain as u32
}

struct Merges {
    tokens: Vec<String>,
    merges: Vec<String>,
    limit: usize,
}

impl Merges {
    fn add(&mut self, seen: &mut HashSet<String>, first: &str, second: &str) {
        let token = format!("{first}{second}");
        if self.tokens.len() < self.limit && seen.insert(token.clone()) {
            self.tokens.push(token);
            self.merges.push(format!("{first} {second}"));
        }
    }
}

/// The letter that stands for each byte in byte-level BPE (GPT-2): printable bytes stand for themselves, the others
/// for the letters from U+0100 on.
fn byte_letters() -> [char; 256] {
    let mut free = 0x100..;
    std::array::from_fn(|byte| {
        let code = match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte as u32,
            _ => free.next().expect("an endless range"),
        };
        char::from_u32(code).expect("all codes here are below U+0200 and no surrogates")
    })
}

/// WordPiece: markers, single letters, then words. `▁` marks the start of a word, as llama.cpp wants it.
fn wordpiece(draft: &mut Draft, size: u32) {
    let mut tokens: Vec<String> = WORDPIECE_MARKERS.iter().map(|&marker| marker.to_owned()).collect();
    for letter in LETTERS.chars() {
        tokens.push(format!("\u{2581}{letter}"));
        tokens.push(letter.to_string());
    }
    let mut seen: HashSet<String> = tokens.iter().cloned().collect();
    let letters: Vec<char> = LETTERS.chars().collect();
    let mut rng = Rng::new(draft.seed, "words");
    while tokens.len() < size as usize {
        let word: String = (0..2 + rng.below(6)).map(|_| letters[rng.below(letters.len())]).collect();
        let word = if rng.below(2) == 0 { word } else { format!("\u{2581}{word}") };
        if seen.insert(word.clone()) {
            tokens.push(word);
        }
    }
    let types: Vec<i32> =
        (0..tokens.len()).map(|id| if id < WORDPIECE_MARKERS.len() { CONTROL } else { NORMAL }).collect();
    draft.key("tokenizer.ggml.model", "bert");
    draft.key("tokenizer.ggml.pre", "jina-v2-en");
    draft.key("tokenizer.ggml.token_type_count", 2_u32);
    draft.key("tokenizer.ggml.tokens", tokens);
    draft.key("tokenizer.ggml.token_type", types);
    for (name, id) in
        [("padding", 0_u32), ("unknown", 1), ("bos", 2), ("cls", 2), ("eos", 3), ("seperator", 3), ("mask", 4)]
    {
        // `seperator` is how the key is spelt.
        draft.key(format!("tokenizer.ggml.{name}_token_id"), Meta::U32(id));
    }
}
