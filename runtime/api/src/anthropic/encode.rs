//! Streams of messages.

use serde_json::{Value, json};

use super::{Usage, stop};
use crate::{
    answering::{Answering, Piece},
    fault::{Dialect, Fault},
    stream::{Encoder, Frames},
};

/// The block that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
}

/// Writes `message_start` to `message_stop`.
pub(super) struct MessageEncoder {
    id: String,
    model: String,
    open: Option<Open>,
    /// Number of the next block.
    next: usize,
}

impl MessageEncoder {
    pub(super) fn new(id: String, answering: &Answering) -> Self {
        Self { id, model: answering.model.clone(), open: None, next: 0 }
    }

    fn close(&mut self, out: &mut Frames) {
        if self.open.take().is_some() {
            self.stop_block(out);
        }
    }

    fn start_block(&self, block: &Value, out: &mut Frames) {
        let start = json!({"type": "content_block_start", "index": self.next, "content_block": block});
        out.event("content_block_start", &start);
    }

    fn delta(&self, delta: &Value, out: &mut Frames) {
        out.event("content_block_delta", &json!({"type": "content_block_delta", "index": self.next, "delta": delta}));
    }

    fn stop_block(&mut self, out: &mut Frames) {
        out.event("content_block_stop", &json!({"type": "content_block_stop", "index": self.next}));
        self.next += 1;
    }

    /// Makes the block of this kind the one that is written.
    fn turn_to(&mut self, kind: Open, out: &mut Frames) {
        if self.open != Some(kind) {
            self.close(out);
            let block = match kind {
                Open::Text => json!({"type": "text", "text": ""}),
                Open::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
            };
            self.start_block(&block, out);
            self.open = Some(kind);
        }
    }
}

impl Encoder for MessageEncoder {
    fn begin(&mut self, prompt_tokens: Option<u32>, out: &mut Frames) {
        // What of it was cached is known at the end, and said there.
        let usage = Usage { input_tokens: prompt_tokens.unwrap_or(0), ..Usage::default() };
        let message = json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage});
        out.event("message_start", &json!({"type": "message_start", "message": message}));
    }

    fn piece(&mut self, _choice: usize, piece: Piece, out: &mut Frames) {
        match piece {
            Piece::Prefill { .. } => {}
            Piece::Text(text, _) => {
                self.turn_to(Open::Text, out);
                self.delta(&json!({"type": "text_delta", "text": text}), out);
            }
            Piece::Thinking(text) => {
                self.turn_to(Open::Thinking, out);
                self.delta(&json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Piece::Call(call) => {
                self.close(out);
                self.start_block(&json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}), out);
                self.delta(&json!({"type": "input_json_delta", "partial_json": call.arguments}), out);
                self.stop_block(out);
            }
            Piece::End(ending) => {
                self.close(out);
                let (stop_reason, stop_sequence) = stop(&ending);
                let delta = json!({"stop_reason": stop_reason, "stop_sequence": stop_sequence});
                let end = json!({"type": "message_delta", "delta": delta, "usage": Usage::of(&ending)});
                out.event("message_delta", &end);
            }
        }
    }

    fn idle(&mut self, _progress: Option<(u32, u32)>, out: &mut Frames) {
        out.event("ping", &json!({"type": "ping"}));
    }

    fn end(&mut self, out: &mut Frames) {
        out.event("message_stop", &json!({"type": "message_stop"}));
    }

    fn fail(&mut self, fault: &Fault, out: &mut Frames) {
        out.event("error", &fault.body(Dialect::Anthropic));
    }
}
