//! What clients ask for. Everything is drawn from a seed.

use std::time::Duration;

use locara_zoo::Rng;
use serde_json::{Value, json};

use crate::tally::{Class, Dialect};

/// Longest answer that is asked for, tokens: the storm is about many requests, not about long ones.
pub(crate) const MAX_TOKENS: u32 = 96;

/// Words of a long prompt.
const LONG: usize = 400;
/// Words of prompts.
const WORDS: [&str; 16] = [
    "the", "host", "owns", "models", "apps", "ask", "for", "tokens", "memory", "never", "swaps", "because", "of", "it",
    "Oslo", "weather",
];

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) dialect: Dialect,
    pub(crate) class: Class,
    pub(crate) path: &'static str,
    pub(crate) body: Value,
    pub(crate) stream: bool,
    /// Answers, 1 or more.
    pub(crate) answers: usize,
    /// The prompt is longer than the context: the only right answer is 400.
    pub(crate) too_long: bool,
    /// An answer that ends by itself must be a JSON object.
    pub(crate) json: bool,
    /// The client goes away after so many events of the stream.
    pub(crate) leave_after: Option<usize>,
}

impl Ask {
    /// Whether the client may go away before it is answered. One answer only: of several, some might be counted.
    pub(crate) fn may_leave(&self) -> bool {
        self.answers == 1 && !self.too_long
    }
}

/// Draws requests.
#[derive(Debug)]
pub(crate) struct Asker {
    rng: Rng,
    context_tokens: usize,
}

impl Asker {
    pub(crate) fn new(rng: Rng, context_tokens: usize) -> Self {
        Self { rng, context_tokens }
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.rng.below(n) == 0
    }

    /// A while in which an answer can be anywhere.
    pub(crate) fn moment(&mut self) -> Duration {
        Duration::from_millis(self.rng.below(400) as u64)
    }

    /// The next request.
    pub(crate) fn next(&mut self) -> Ask {
        let class = if self.one_in(3) { Class::Batch } else { Class::Interactive };
        let stream = !self.one_in(3);
        let too_long = self.one_in(12);
        let prompt = self.prompt(too_long);
        let mut ask = match self.rng.below(6) {
            0..=2 => self.openai_chat(&prompt, stream),
            3 => self.openai_completion(&prompt, stream),
            4 => self.anthropic(&prompt, stream),
            _ => self.ollama(&prompt, stream),
        };
        ask.class = class;
        ask.too_long = too_long;
        if stream && ask.may_leave() && self.one_in(4) {
            ask.leave_after = Some(1 + self.rng.below(24));
        }
        ask
    }

    fn prompt(&mut self, too_long: bool) -> String {
        let words = match self.rng.below(8) {
            // At least one token a word.
            _ if too_long => self.context_tokens + 1,
            0 => LONG.min(self.context_tokens / 4),
            few => 3 * few,
        };
        (0..words).map(|_| WORDS[self.rng.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
    }

    fn max_tokens(&mut self) -> u32 {
        // The cast is of a number below `MAX_TOKENS`.
        1 + self.rng.below(MAX_TOKENS as usize) as u32
    }

    fn openai_chat(&mut self, prompt: &str, stream: bool) -> Ask {
        let mut body = json!({"model": "default", "messages": [{"role": "user", "content": prompt}], "stream": stream,
            "max_tokens": self.max_tokens(), "temperature": 0.9});
        let mut json = false;
        match self.rng.below(6) {
            0 => {
                json = true;
                body["max_tokens"] = MAX_TOKENS.into();
                body["response_format"] =
                    json!({"type": "json_schema", "json_schema": {"name": "weather", "schema": weather()}});
            }
            1 => body["structured_outputs"] = json!({"regex": "[a-z]{3,12}( [a-z]{3,12}){1,4}"}),
            2 => {
                body["max_tokens"] = MAX_TOKENS.into();
                body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": weather()}}]);
                body["tool_choice"] = json!("required");
                body["parallel_tool_calls"] = json!(self.one_in(2));
            }
            _ => {}
        }
        let answers = self.openai_extras(&mut body, stream);
        if self.one_in(3) {
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(self.rng.below(4));
        }
        self.of(Dialect::OpenAi, "/v1/chat/completions", body, stream, answers, json)
    }

    fn openai_completion(&mut self, prompt: &str, stream: bool) -> Ask {
        let mut body = json!({"model": "default", "prompt": prompt, "stream": stream, "max_tokens": self.max_tokens()});
        let answers = self.openai_extras(&mut body, stream);
        self.of(Dialect::OpenAi, "/v1/completions", body, stream, answers, false)
    }

    /// Penalties, seeds, biases, stop strings and several answers, now and then.
    fn openai_extras(&mut self, body: &mut Value, stream: bool) -> usize {
        if self.one_in(2) {
            body["presence_penalty"] = json!(0.5);
            body["frequency_penalty"] = json!(0.5);
            body["repetition_penalty"] = json!(1.1);
        }
        if self.one_in(2) {
            body["seed"] = json!(self.rng.below(1000));
        }
        if self.one_in(4) {
            body["logit_bias"] = json!({"300": -100, "301": 5});
        }
        if self.one_in(4) {
            body["stop"] = json!(["\n\n", "zebra"]);
        }
        let answers = if self.one_in(5) { 2 + self.rng.below(2) } else { 1 };
        if answers > 1 {
            body["n"] = json!(answers);
        }
        if stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        answers
    }

    fn anthropic(&mut self, prompt: &str, stream: bool) -> Ask {
        let mut body = json!({"model": "default", "messages": [{"role": "user", "content": prompt}], "stream": stream,
            "max_tokens": self.max_tokens(), "temperature": 0.8, "system": "Be brief."});
        match self.rng.below(4) {
            0 => {
                body["max_tokens"] = MAX_TOKENS.into();
                body["tools"] = json!([{"name": "weather", "input_schema": weather()}]);
                body["tool_choice"] = json!({"type": "any"});
            }
            1 => body["stop_sequences"] = json!(["e"]),
            _ => {}
        }
        self.of(Dialect::Anthropic, "/v1/messages", body, stream, 1, false)
    }

    fn ollama(&mut self, prompt: &str, stream: bool) -> Ask {
        let mut body = json!({"model": "default", "stream": stream,
            "options": {"num_predict": self.max_tokens(), "seed": self.rng.below(1000), "repeat_penalty": 1.1}});
        if self.one_in(3) {
            body["prompt"] = json!(prompt);
            return self.of(Dialect::Ollama, "/api/generate", body, stream, 1, false);
        }
        body["messages"] = json!([{"role": "user", "content": prompt}]);
        let json = self.one_in(3);
        if json {
            body["options"]["num_predict"] = MAX_TOKENS.into();
            body["format"] = weather();
        }
        self.of(Dialect::Ollama, "/api/chat", body, stream, 1, json)
    }

    fn of(&self, dialect: Dialect, path: &'static str, body: Value, stream: bool, answers: usize, json: bool) -> Ask {
        let class = Class::Interactive;
        Ask { dialect, class, path, body, stream, answers, too_long: false, json, leave_after: None }
    }
}

/// A schema with an end: no answer can go on for ever.
fn weather() -> Value {
    json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": false,
    })
}
