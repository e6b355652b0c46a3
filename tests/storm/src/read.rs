//! Reads answers as they come over the wire: whole, as server-sent events, or as lines of JSON.
//!
//! By hand and not with a client's library: what is tested here is what is on the wire.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tally::{Dialect, Ended};

/// What was read of one response so far.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Bytes of an event that is not whole yet.
    rest: Vec<u8>,
    /// Events so far, keep-alive comments aside.
    pub(crate) events: usize,
    /// How the answers ended.
    pub(crate) endings: Vec<Ended>,
    pub(crate) output_tokens: u64,
    /// Text of the first answer.
    pub(crate) text: String,
    /// The word that says that nothing comes after it was read.
    pub(crate) closed: bool,
    /// The code of an error in place of the rest.
    pub(crate) error: Option<String>,
}

impl Answer {
    /// Takes bytes of a stream.
    pub(crate) fn bytes(&mut self, dialect: Dialect, bytes: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let end: &[u8] = if dialect == Dialect::Ollama { b"\n" } else { b"\n\n" };
        while let Some(at) = self.rest.windows(end.len()).position(|window| window == end) {
            let event: Vec<u8> = self.rest.drain(..at + end.len()).collect();
            let event = std::str::from_utf8(&event).context("a frame is not UTF-8")?;
            for line in event.lines().filter(|line| !line.is_empty()) {
                match (dialect, line.strip_prefix("data: ")) {
                    (Dialect::Ollama, _) => self.json(dialect, line)?,
                    (_, Some("[DONE]")) => self.closed = true,
                    (_, Some(data)) => self.json(dialect, data)?,
                    // The names of events, and comments.
                    (_, None) => {}
                }
            }
        }
        Ok(())
    }

    /// Whether the stream may end here.
    pub(crate) fn is_whole(&self) -> bool {
        self.rest.is_empty() && (self.closed || self.error.is_some())
    }

    /// Takes an answer, or one event of a stream.
    pub(crate) fn json(&mut self, dialect: Dialect, text: &str) -> Result<()> {
        let value: Value = serde_json::from_str(text).with_context(|| format!("no JSON: {text:?}"))?;
        self.events += 1;
        if let Some(error) = value.get("error") {
            self.error = Some(code(&value, error).to_owned());
            return Ok(());
        }
        match dialect {
            Dialect::OpenAi => self.openai(&value),
            Dialect::Anthropic => self.anthropic(&value),
            Dialect::Ollama => self.ollama(&value),
        }
        Ok(())
    }

    fn openai(&mut self, value: &Value) {
        for choice in value["choices"].as_array().into_iter().flatten() {
            if choice["index"] == 0 {
                let texts = [&choice["delta"]["content"], &choice["message"]["content"], &choice["text"]];
                self.text.extend(texts.into_iter().filter_map(Value::as_str));
            }
            if let Some(reason) = choice["finish_reason"].as_str() {
                self.endings.push(ended(reason));
            }
        }
        self.output_tokens += value["usage"]["completion_tokens"].as_u64().unwrap_or(0);
    }

    fn anthropic(&mut self, value: &Value) {
        self.closed |= value["type"] == "message_stop";
        // A whole message has its reason at the top, a stream in its last delta.
        let reason = value["stop_reason"].as_str().or_else(|| value["delta"]["stop_reason"].as_str());
        if let Some(reason) = reason {
            self.endings.push(ended(reason));
            self.output_tokens += value["usage"]["output_tokens"].as_u64().unwrap_or(0);
        }
    }

    fn ollama(&mut self, value: &Value) {
        let texts = [&value["message"]["content"], &value["response"]];
        self.text.extend(texts.into_iter().filter_map(Value::as_str));
        if value["done"] == true {
            self.closed = true;
            self.endings.push(ended(value["done_reason"].as_str().unwrap_or_default()));
            self.output_tokens += value["eval_count"].as_u64().unwrap_or(0);
        }
    }
}

/// The stable code of an error in any dialect.
fn code<'a>(value: &'a Value, error: &'a Value) -> &'a str {
    let places = [&error["code"], &error["details"]["error_code"], &value["code"]];
    places.into_iter().find_map(Value::as_str).unwrap_or("")
}

/// How an answer ended, by the word of any dialect.
fn ended(reason: &str) -> Ended {
    match reason {
        "length" | "max_tokens" | "model_context_window_exceeded" => Ended::Cut,
        _ => Ended::Whole,
    }
}

/// How the host counts an error with this code.
pub(crate) fn counted(code: &str) -> Ended {
    match code {
        "invalid_value" | "context_length_exceeded" | "unsupported_by_model" | "too_many_requests" => Ended::Refused,
        _ => Ended::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: Dialect, text: &str) -> Answer {
        let mut answer = Answer::default();
        // However the network cuts it.
        text.as_bytes().chunks(7).for_each(|chunk| answer.bytes(dialect, chunk).unwrap());
        answer
    }

    #[test]
    fn streams_of_all_dialects_are_read() {
        let openai = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hé\"},\"finish_reason\":null}]}\n\n: waiting\n\n\
            data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";
        let answer = read(Dialect::OpenAi, openai);
        assert_eq!((answer.text.as_str(), answer.events, answer.output_tokens), ("hé", 3, 3));
        assert_eq!(answer.endings, [Ended::Cut]);
        assert!(answer.is_whole());

        let anthropic = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
            \"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let answer = read(Dialect::Anthropic, anthropic);
        assert_eq!((answer.endings.as_slice(), answer.output_tokens), (&[Ended::Whole][..], 2));
        assert!(answer.is_whole());

        let ollama = "{\"message\":{\"content\":\"a\"},\"done\":false}\n\
            {\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"eval_count\":1}\n";
        let answer = read(Dialect::Ollama, ollama);
        assert_eq!((answer.endings.as_slice(), answer.output_tokens), (&[Ended::Whole][..], 1));
        assert!(answer.is_whole());
    }

    #[test]
    fn a_stream_that_stops_anywhere_is_not_whole() {
        let cut = read(Dialect::OpenAi, "data: {\"choices\":[]}\n\ndata: [DO");
        assert!(!cut.is_whole());
        assert!(!read(Dialect::Ollama, "{\"done\":false}\n").is_whole());
    }

    #[test]
    fn errors_have_a_code_in_every_dialect() {
        let code = |dialect, text| read(dialect, text).error;
        assert_eq!(
            code(Dialect::OpenAi, "data: {\"error\":{\"code\":\"unavailable\"}}\n\n").as_deref(),
            Some("unavailable")
        );
        let anthropic = "data: {\"type\":\"error\",\"error\":{\"details\":{\"error_code\":\"too_many_requests\"}}}\n\n";
        assert_eq!(code(Dialect::Anthropic, anthropic).as_deref(), Some("too_many_requests"));
        assert_eq!(
            code(Dialect::Ollama, "{\"error\":\"x\",\"code\":\"internal_error\"}\n").as_deref(),
            Some("internal_error")
        );
        assert_eq!((counted("too_many_requests"), counted("unavailable")), (Ended::Refused, Ended::Failed));
    }
}
