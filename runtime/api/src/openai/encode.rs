//! Streams of chat completions.

use std::collections::BTreeMap;

use locara_engine::TokenLogprobs;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Note, Usage, finish_reason, message::Call, note};
use crate::{
    answering::{Answering, Ending, Piece},
    fault::{Dialect, Fault},
    logprobs::Logprobs,
    stream::{Encoder, Frames},
    text::now_s,
};

/// One chunk. All chunks of a stream have the same id and time.
#[derive(Debug, Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [ChunkChoice],
    /// `null` until the last chunk, and only there if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<&'a Usage>>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice {
    index: usize,
    delta: Value,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locara: Option<Note>,
}

/// Writes `chat.completion.chunk`s.
pub(super) struct ChatEncoder {
    id: String,
    created: i64,
    model: String,
    fingerprint: String,
    include_usage: bool,
    /// Calls of each answer so far.
    calls: Vec<usize>,
    /// By the number of the answer: they end in any order.
    endings: BTreeMap<usize, Ending>,
}

impl ChatEncoder {
    pub(super) fn new(id: String, answering: &Answering, n: usize, include_usage: bool) -> Self {
        Self {
            id,
            created: now_s(),
            model: answering.model.clone(),
            fingerprint: answering.fingerprint.clone(),
            include_usage,
            calls: vec![0; n],
            endings: BTreeMap::new(),
        }
    }

    fn chunk(&self, choices: &[ChunkChoice], usage: Option<&Usage>, out: &mut Frames) {
        out.data(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices,
            usage: self.include_usage.then_some(usage),
        });
    }

    fn delta(&self, index: usize, delta: Value, tokens: &[TokenLogprobs], out: &mut Frames) {
        let logprobs = Logprobs::of(tokens);
        self.chunk(&[ChunkChoice { index, delta, logprobs, finish_reason: None, locara: None }], None, out);
    }
}

impl Encoder for ChatEncoder {
    fn begin(&mut self, _prompt_tokens: Option<u32>, out: &mut Frames) {
        for index in 0..self.calls.len() {
            self.delta(index, json!({"role": "assistant", "content": ""}), &[], out);
        }
    }

    fn piece(&mut self, index: usize, piece: Piece, out: &mut Frames) {
        match piece {
            Piece::Prefill { .. } => {}
            Piece::Text(text, tokens) => self.delta(index, json!({ "content": text }), &tokens, out),
            Piece::Thinking(text) => self.delta(index, json!({ "reasoning_content": text }), &[], out),
            Piece::Call(call) => {
                let at = self.calls[index];
                self.calls[index] += 1;
                // As OpenAI does it: the name first, then the arguments.
                let mut opening = Call::from(&call);
                let arguments = std::mem::take(&mut opening.function.arguments);
                let mut opening = json!(opening);
                opening["index"] = at.into();
                self.delta(index, json!({ "tool_calls": [opening] }), &[], out);
                let rest = json!({"index": at, "function": {"arguments": arguments}});
                self.delta(index, json!({ "tool_calls": [rest] }), &[], out);
            }
            Piece::End(ending) => {
                let choice = ChunkChoice {
                    index,
                    delta: json!({}),
                    logprobs: None,
                    finish_reason: Some(finish_reason(&ending.reason)),
                    locara: note(&ending),
                };
                self.chunk(&[choice], None, out);
                self.endings.insert(index, ending);
            }
        }
    }

    fn idle(&mut self, progress: Option<(u32, u32)>, out: &mut Frames) {
        match progress {
            Some((done, total)) => out.comment(&format!("{done} of {total} prompt tokens")),
            None => out.comment("waiting"),
        }
    }

    fn end(&mut self, out: &mut Frames) {
        if self.include_usage {
            self.chunk(&[], Some(&Usage::of(self.endings.values(), self.calls.len())), out);
        }
        out.done();
    }

    fn fail(&mut self, fault: &Fault, out: &mut Frames) {
        out.data(&fault.body(Dialect::OpenAi));
    }
}
