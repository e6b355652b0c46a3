//! The items of a response while it is made, and the events that tell of them.
//!
//! One writer for both ways: a client that does not stream gets what stands at the end, and its events go nowhere.

use std::sync::Arc;

use locara_engine::{Message, ToolCall};
use serde_json::{Map, Value, json};

use super::{request::Plan, store::Stored};
use crate::{
    Api,
    answering::{Ending, Piece, Reason},
    fault::Fault,
    host::ClientId,
    stream::{Encoder, Frames},
    text::{fresh_id, now_s},
};

/// The item that is being written.
#[derive(Debug)]
struct Open {
    kind: Kind,
    id: String,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
}

impl Kind {
    fn part(self, text: &str) -> Value {
        match self {
            Self::Message => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
            Self::Reasoning => json!({"type": "reasoning_text", "text": text}),
        }
    }

    fn item(self, id: &str, status: &str, content: &[Value]) -> Value {
        match self {
            Self::Message => {
                json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content})
            }
            Self::Reasoning => {
                json!({"type": "reasoning", "id": id, "status": status, "summary": [], "content": content})
            }
        }
    }

    const fn event(self) -> &'static str {
        match self {
            Self::Message => "response.output_text",
            Self::Reasoning => "response.reasoning_text",
        }
    }
}

/// Writes a response.
pub(super) struct ResponseWriter {
    api: Api,
    client: ClientId,
    pub(super) id: String,
    created_at: i64,
    model: String,
    stores: bool,
    turns: Vec<Arc<Message>>,
    input: Vec<Value>,
    echo: Map<String, Value>,
    output: Vec<Value>,
    open: Option<Open>,
    /// What the model said, for the turn that is stored.
    said: String,
    calls: Vec<ToolCall>,
    ending: Option<Ending>,
    sequence: u64,
}

impl ResponseWriter {
    /// `plan` has given its wish away by now.
    pub(super) fn new(api: Api, client: ClientId, model: String, plan: Plan) -> Self {
        Self {
            api,
            client,
            id: fresh_id("resp"),
            created_at: now_s(),
            model,
            stores: plan.stores,
            turns: plan.turns,
            input: plan.input,
            echo: plan.echo,
            output: Vec::new(),
            open: None,
            said: String::new(),
            calls: Vec::new(),
            ending: None,
            sequence: 0,
        }
    }

    fn event(&mut self, name: &str, mut value: Value, out: &mut Frames) {
        value["type"] = json!(name);
        value["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        out.event(name, &value);
    }

    /// The response as it stands.
    pub(super) fn response(&self) -> Value {
        self.in_state(match &self.ending {
            None => "in_progress",
            Some(ending) if cut_off(ending) => "incomplete",
            Some(_) => "completed",
        })
    }

    fn in_state(&self, status: &str) -> Value {
        let ending = self.ending.as_ref();
        let mut response = json!({
            "id": self.id, "object": "response", "created_at": self.created_at, "status": status, "model": self.model,
            "output": self.output, "error": null, "background": false,
            "incomplete_details": ending.filter(|ending| cut_off(ending)).map(|_| json!({"reason": "max_output_tokens"})),
            "usage": ending.map(usage),
        });
        if let Some(fields) = response.as_object_mut() {
            fields.extend(self.echo.clone());
        }
        response
    }

    /// Makes an item of this kind the one that is written.
    fn turn_to(&mut self, kind: Kind, out: &mut Frames) {
        if self.open.as_ref().is_some_and(|open| open.kind == kind) {
            return;
        }
        self.close(out);
        let id = fresh_id(if kind == Kind::Message { "msg" } else { "rs" });
        let index = self.output.len();
        let item = kind.item(&id, "in_progress", &[]);
        self.event("response.output_item.added", json!({"output_index": index, "item": item}), out);
        let part = json!({"item_id": id, "output_index": index, "content_index": 0, "part": kind.part("")});
        self.event("response.content_part.added", part, out);
        self.open = Some(Open { kind, id, text: String::new() });
    }

    fn say(&mut self, kind: Kind, text: &str, out: &mut Frames) {
        self.turn_to(kind, out);
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let mut delta =
            json!({"item_id": open.id, "output_index": self.output.len(), "content_index": 0, "delta": text});
        if kind == Kind::Message {
            self.said.push_str(text);
            delta["logprobs"] = json!([]);
        }
        self.event(&format!("{}.delta", kind.event()), delta, out);
    }

    /// Ends the item that is being written.
    fn close(&mut self, out: &mut Frames) {
        let Some(Open { kind, id, text }) = self.open.take() else { return };
        let index = self.output.len();
        let mut done = json!({"item_id": id, "output_index": index, "content_index": 0, "text": text});
        if kind == Kind::Message {
            done["logprobs"] = json!([]);
        }
        self.event(&format!("{}.done", kind.event()), done, out);
        let part = kind.part(&text);
        let done = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
        self.event("response.content_part.done", done, out);
        let status = if self.ending.as_ref().is_some_and(cut_off) { "incomplete" } else { "completed" };
        self.finish_item(kind.item(&id, status, &[part]), out);
    }

    fn finish_item(&mut self, item: Value, out: &mut Frames) {
        let index = self.output.len();
        self.event("response.output_item.done", json!({"output_index": index, "item": item}), out);
        self.output.push(item);
    }

    fn call(&mut self, call: ToolCall, out: &mut Frames) {
        self.close(out);
        let (id, index) = (fresh_id("fc"), self.output.len());
        let item = |arguments: &str, status| {
            json!({"type": "function_call", "id": id, "call_id": call.id, "name": call.name, "arguments": arguments,
                "status": status})
        };
        let (begun, whole) = (item("", "in_progress"), item(&call.arguments, "completed"));
        self.event("response.output_item.added", json!({"output_index": index, "item": begun}), out);
        let delta = json!({"item_id": id, "output_index": index, "delta": call.arguments});
        self.event("response.function_call_arguments.delta", delta, out);
        let done = json!({"item_id": id, "output_index": index, "name": call.name, "arguments": call.arguments});
        self.event("response.function_call_arguments.done", done, out);
        self.finish_item(whole, out);
        self.calls.push(call);
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self, piece: Piece, out: &mut Frames) {
        match piece {
            Piece::Prefill { .. } => {}
            Piece::Text(text, _) => self.say(Kind::Message, &text, out),
            Piece::Thinking(text) => self.say(Kind::Reasoning, &text, out),
            Piece::Call(call) => self.call(call, out),
            Piece::End(ending) => {
                self.ending = Some(ending);
                self.close(out);
            }
        }
    }

    /// Keeps the response, if that is wanted.
    pub(super) fn store(&mut self) {
        if !self.stores {
            return;
        }
        let mut turns = std::mem::take(&mut self.turns);
        let said = Message::assistant(std::mem::take(&mut self.said));
        turns.push(Arc::new(Message { tool_calls: std::mem::take(&mut self.calls), ..said }));
        let input = std::mem::take(&mut self.input);
        let stored = Stored { client: self.client.clone(), response: self.response(), input, turns };
        self.api.responses().put(self.id.clone(), stored);
    }
}

fn cut_off(ending: &Ending) -> bool {
    matches!(ending.reason, Reason::MaxTokens | Reason::Repetition)
}

fn usage(ending: &Ending) -> Value {
    let usage = &ending.usage;
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.prompt_tokens.saturating_add(usage.output_tokens),
    })
}

impl Encoder for ResponseWriter {
    fn begin(&mut self, _prompt_tokens: Option<u32>, out: &mut Frames) {
        let response = self.response();
        self.event("response.created", json!({ "response": response }), out);
        self.event("response.in_progress", json!({ "response": response }), out);
    }

    fn piece(&mut self, _choice: usize, piece: Piece, out: &mut Frames) {
        self.take(piece, out);
    }

    fn idle(&mut self, progress: Option<(u32, u32)>, out: &mut Frames) {
        match progress {
            Some((done, total)) => out.comment(&format!("{done} of {total} prompt tokens")),
            None => out.comment("waiting"),
        }
    }

    fn end(&mut self, out: &mut Frames) {
        // Kept before the client can know its id.
        self.store();
        let response = self.response();
        let name = if response["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
        self.event(name, json!({ "response": response }), out);
    }

    fn fail(&mut self, fault: &Fault, out: &mut Frames) {
        let mut response = self.in_state("failed");
        response["error"] = json!({"code": fault.kind.code(), "message": fault.message});
        self.event("response.failed", json!({ "response": response }), out);
    }
}
