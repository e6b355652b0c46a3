//! One answer that a client wants, whatever its dialect, and how it becomes a request to an engine.
//!
//! The dialects fill a [`Wish`]; everything that is decided for all of them alike is decided here: defaults, bounds, the
//! hard cap, seeds. Whoever adds a sampling parameter adds it here once.

use std::collections::BTreeMap;

use locara_engine::{Constraint, MAX_LOGPROBS, Message, Prompt, Request, Sampling, Token, Tool, ToolChoice};
use serde_json::Value;

use crate::{access::Caller, config::Defaults, fault::Fault};

/// Answers to one prompt.
pub(crate) const MAX_CHOICES: u32 = 8;
/// Prompts times answers in one request.
const MAX_ANSWERS: usize = 32;
/// Stop strings.
const MAX_STOPS: usize = 16;
/// Turns of a conversation.
const MAX_MESSAGES: usize = 4096;
/// Tools offered.
const MAX_TOOLS: usize = 256;
/// Biased tokens.
const MAX_BIASES: usize = 1024;

/// What a client wants to have answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// What to continue; each of them is answered `n` times.
    pub(crate) prompts: Vec<Prompt>,
    /// Answers to each prompt; `None` is one.
    pub(crate) n: Option<u32>,
    /// Bound of an answer, tokens.
    pub(crate) max_tokens: Option<u32>,
    pub(crate) stop: Vec<String>,
    pub(crate) sampling: SamplingWish,
    pub(crate) constraint: Option<Constraint>,
    /// Alternatives to be told with each token.
    pub(crate) logprobs: Option<u32>,
    /// Tokens of reasoning before the answer has to begin; 0 is no reasoning.
    pub(crate) thinking_tokens: Option<u32>,
    /// End an answer after its first tool call.
    pub(crate) one_call: bool,
}

/// Sampling parameters that a request may set. What is `None` is the host's default.
#[derive(Debug, Clone, Default)]
pub(crate) struct SamplingWish {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repeat_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) seed: Option<i64>,
    pub(crate) logit_bias: Vec<(Token, f32)>,
}

/// How a client wants the model to reason. What is `None` is left to the model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Thinking {
    pub(crate) on: Option<bool>,
    /// A word that some templates know: `low`, `medium`, `high`.
    pub(crate) effort: Option<String>,
    /// Tokens before the answer has to begin.
    pub(crate) tokens: Option<u32>,
}

impl Thinking {
    /// `none` is no reasoning.
    pub(crate) fn with_effort(effort: Option<String>) -> Self {
        match effort {
            Some(word) if word == "none" => Self { on: Some(false), ..Self::default() },
            effort => Self { effort, ..Self::default() },
        }
    }
}

/// What the fields are called in the dialect at hand, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// Before the sampling parameters: `""`, or `options.`.
    pub(crate) prefix: &'static str,
    pub(crate) max_tokens: &'static str,
    pub(crate) stop: &'static str,
    pub(crate) messages: &'static str,
    pub(crate) repeat_penalty: &'static str,
    pub(crate) logprobs: &'static str,
}

impl Wish {
    /// A conversation to be continued.
    pub(crate) fn chat(messages: Vec<Message>, tools: Vec<Tool>, tool_choice: ToolChoice) -> Self {
        Self {
            prompts: vec![Prompt::Chat { messages, tools, tool_choice, template: BTreeMap::new() }],
            ..Self::default()
        }
    }

    /// Tells the template of the model what it may ask for besides the conversation; text without a template has no use for it.
    pub(crate) fn tell_template(&mut self, variables: BTreeMap<String, Value>) {
        for prompt in &mut self.prompts {
            if let Prompt::Chat { template, .. } = prompt {
                template.extend(variables.clone());
            }
        }
    }

    /// Whether the model is to reason, and how much: a template that knows a switch for it turns it, and the engine keeps
    /// the bound whatever the template does.
    pub(crate) fn think(&mut self, thinking: Thinking) {
        let mut variables = BTreeMap::new();
        if let Some(on) = thinking.on {
            variables.insert("enable_thinking".to_owned(), on.into());
        }
        if let Some(effort) = thinking.effort {
            variables.insert("reasoning_effort".to_owned(), effort.into());
        }
        self.thinking_tokens = if thinking.on == Some(false) { Some(0) } else { thinking.tokens };
        self.tell_template(variables);
    }

    /// Answers in all.
    pub(crate) fn answers(&self) -> usize {
        self.prompts.len() * self.n.unwrap_or(1) as usize
    }

    /// Everything that can be found wrong without an engine.
    pub(crate) fn check(&self, names: Names) -> Result<(), Fault> {
        let prefixed = |name: &str| format!("{}{name}", names.prefix);
        if self.n.is_some_and(|n| n == 0 || n > MAX_CHOICES) {
            return Err(Fault::field("n", format!("{} answers, allowed are 1 to {MAX_CHOICES}", self.n.unwrap_or(0))));
        }
        if self.answers() > MAX_ANSWERS {
            return Err(Fault::field(
                "prompt",
                format!("{} prompts times answers, at most {MAX_ANSWERS}", self.answers()),
            ));
        }
        if let Some(n) = self.logprobs.filter(|n| *n > MAX_LOGPROBS) {
            return Err(Fault::field(names.logprobs, format!("{n} alternatives, at most {MAX_LOGPROBS} are told")));
        }
        if self.max_tokens == Some(0) {
            return Err(Fault::field(names.max_tokens, "0 tokens; ask for at least 1"));
        }
        if self.stop.len() > MAX_STOPS {
            return Err(Fault::field(names.stop, format!("{} stop strings, at most {MAX_STOPS}", self.stop.len())));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Fault::field(names.stop, "an empty stop string would end every answer before it begins"));
        }
        for prompt in &self.prompts {
            let Prompt::Chat { messages, tools, .. } = prompt else { continue };
            if messages.is_empty() {
                return Err(Fault::field(names.messages, "the conversation is empty"));
            }
            if messages.len() > MAX_MESSAGES {
                return Err(Fault::field(
                    names.messages,
                    format!("{} messages, at most {MAX_MESSAGES}", messages.len()),
                ));
            }
            if tools.len() > MAX_TOOLS {
                return Err(Fault::field("tools", format!("{} tools, at most {MAX_TOOLS}", tools.len())));
            }
        }
        let wish = &self.sampling;
        // The ranges of the engine, which are the widest of the three dialects.
        for (name, value, low, high) in [
            ("temperature", wish.temperature, 0.0, 5.0),
            ("top_p", wish.top_p, 0.0, 1.0),
            ("min_p", wish.min_p, 0.0, 1.0),
            (names.repeat_penalty, wish.repeat_penalty, 0.01, 10.0),
            ("frequency_penalty", wish.frequency_penalty, -2.0, 2.0),
            ("presence_penalty", wish.presence_penalty, -2.0, 2.0),
        ] {
            if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
                return Err(Fault::field(prefixed(name), format!("{value} is not between {low} and {high}")));
            }
        }
        if wish.logit_bias.len() > MAX_BIASES {
            return Err(Fault::field("logit_bias", format!("{} tokens, at most {MAX_BIASES}", wish.logit_bias.len())));
        }
        Ok(())
    }

    /// The request for one answer; `index` counts the answers of all prompts.
    pub(crate) fn request(&self, index: usize, defaults: &Defaults, caller: &Caller) -> Request {
        let n = self.n.unwrap_or(1).max(1) as usize;
        let prompt = self.prompts.get(index / n).cloned().unwrap_or_else(|| Prompt::Text(String::new()));
        let max_tokens = self.max_tokens.unwrap_or(defaults.max_tokens).clamp(1, defaults.max_tokens_cap.max(1));
        Request {
            session: None,
            prompt,
            max_tokens,
            stop: self.stop.clone(),
            sampling: self.sampling.over(&defaults.sampling, index % n),
            constraint: self.constraint.clone(),
            ignore_eos: false,
            class: caller.class,
            // What one client has computed is neither shown nor timed to another one.
            reuse: Some(caller.client.number()),
            logprobs: self.logprobs,
            thinking_tokens: self.thinking_tokens.or(defaults.thinking_tokens),
            stop_repetition: true,
        }
    }
}

impl SamplingWish {
    fn over(&self, defaults: &Sampling, choice: usize) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(defaults.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            // Answers of one request must differ from each other, and repeat when the request is repeated.
            seed: self.seed.map(|seed| fold(seed).wrapping_add(u32::try_from(choice).unwrap_or(0))).or(defaults.seed),
            logit_bias: if self.logit_bias.is_empty() { defaults.logit_bias.clone() } else { self.logit_bias.clone() },
        }
    }
}

/// A seed of 64 bits in 32; small ones stay what they are.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both halves are used")]
fn fold(seed: i64) -> u32 {
    let seed = seed as u64;
    (seed ^ (seed >> 32)) as u32
}

/// A JSON Schema that a request brings, checked against its meta-schema; `path` is where it stands in the request.
pub(crate) fn check_schema(path: &str, schema: &Value) -> Result<(), Fault> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err(Fault::field(path, "a JSON Schema is an object"));
    }
    // `$schema` may name a draft that is not known; the latest one is then as good as any.
    jsonschema::draft202012::meta::validate(schema).map_err(|error| {
        Fault::field(
            format!("{path}{}", dotted(error.instance_path().as_str())),
            format!("no valid JSON Schema: {error}"),
        )
    })
}

/// `/properties/a/0` as `.properties.a[0]`.
fn dotted(pointer: &str) -> String {
    pointer
        .split('/')
        .skip(1)
        .map(|part| {
            let part = part.replace("~1", "/").replace("~0", "~");
            if part.bytes().all(|byte| byte.is_ascii_digit()) { format!("[{part}]") } else { format!(".{part}") }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use locara_engine::Class;
    use serde_json::json;

    use super::*;
    use crate::host::ClientId;

    fn caller() -> Caller {
        Caller { client: ClientId("notes".into()), class: Class::Interactive }
    }

    const NAMES: Names = Names {
        prefix: "",
        max_tokens: "max_tokens",
        stop: "stop",
        messages: "messages",
        repeat_penalty: "repeat_penalty",
        logprobs: "top_logprobs",
    };

    fn wish() -> Wish {
        Wish::chat(vec![Message::user("hi")], Vec::new(), ToolChoice::Auto)
    }

    #[test]
    fn the_cap_is_hard_and_defaults_fill_what_is_missing() {
        let defaults = Defaults { max_tokens: 100, max_tokens_cap: 300, ..Defaults::default() };
        let of = |max_tokens| Wish { max_tokens, ..wish() }.request(0, &defaults, &caller()).max_tokens;
        assert_eq!((of(None), of(Some(200)), of(Some(100_000))), (100, 200, 300));
    }

    #[test]
    fn each_answer_has_a_seed_of_its_own_and_small_seeds_stay() {
        let wish = Wish { n: Some(2), sampling: SamplingWish { seed: Some(7), ..SamplingWish::default() }, ..wish() };
        let seed = |index| wish.request(index, &Defaults::default(), &caller()).sampling.seed;
        assert_eq!((seed(0), seed(1)), (Some(7), Some(8)));
        assert_eq!(fold(-1), 0);
        assert_ne!(fold(1 << 40), fold(1 << 41));
    }

    #[test]
    fn bounds_name_the_field() {
        let param = |wish: Wish| wish.check(NAMES).unwrap_err().param.unwrap();
        assert_eq!(param(Wish { n: Some(9), ..wish() }), "n");
        assert_eq!(param(Wish { n: Some(0), ..wish() }), "n");
        assert_eq!(param(Wish { max_tokens: Some(0), ..wish() }), "max_tokens");
        assert_eq!(param(Wish { stop: vec!["x".into(); 17], ..wish() }), "stop");
        assert_eq!(param(Wish { stop: vec![String::new()], ..wish() }), "stop");
        assert_eq!(param(Wish::chat(Vec::new(), Vec::new(), ToolChoice::Auto)), "messages");
        let hot = SamplingWish { temperature: Some(f32::NAN), ..SamplingWish::default() };
        assert_eq!(param(Wish { sampling: hot, ..wish() }), "temperature");
        assert!(wish().check(NAMES).is_ok());
    }

    #[test]
    fn a_wrong_schema_names_the_place() {
        let fault = check_schema("f.schema", &json!({"properties": {"a": {"type": "strin"}}})).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some("f.schema.properties.a.type"));
        assert_eq!(check_schema("s", &json!(7)).unwrap_err().param.as_deref(), Some("s"));
        check_schema("s", &json!({"$schema": "urn:mine", "type": "object"})).unwrap();
        assert_eq!(dotted("/anyOf/0/a~1b"), ".anyOf[0].a/b");
    }
}
