//! `POST /v1/completions`: text without a template.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Extension, State},
    response::{IntoResponse, Response},
};
use locara_engine::{Prompt, Token, TokenLogprobs};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Note, Usage,
    chat::StreamOptions,
    finish_reason, logit_bias,
    message::{Biases, ResponseFormat, StructuredOutputs, constraint},
    note,
};
use crate::{
    Api,
    access::Caller,
    answering::{Answer, Answering, Ending, Piece},
    body::{Body, OneOrMany},
    fault::{Dialect, Fault},
    logprobs::finite,
    stream::{self, Encoder, Format, Frames},
    text::{fresh_id, now_s},
    wish::{Names, SamplingWish, Wish},
};

/// This older interface asks for the alternatives in one field.
const NAMES: Names = Names { logprobs: "logprobs", ..super::NAMES };

/// Text to be continued. Fields that are not listed are accepted and have no effect.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CompletionRequest {
    /// A model or a role.
    model: String,
    /// A text, several texts, tokens, or several lists of tokens.
    #[schema(value_type = Value)]
    prompt: OneOrMany<PromptItem>,
    /// Server-sent events instead of one answer.
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Bound of an answer, tokens. What the prompt leaves of the context is a bound too.
    max_tokens: Option<u32>,
    /// Answers to each prompt, 1 to 8.
    n: Option<u32>,
    /// As many as `n`: the best of more are not picked.
    best_of: Option<u32>,
    /// A text or several, at most 16.
    #[schema(value_type = Option<Value>)]
    stop: Option<OneOrMany<String>>,
    /// Put the prompt before the answer.
    echo: Option<bool>,
    suffix: Option<String>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    /// Multiplicative; 1 is off.
    repetition_penalty: Option<f32>,
    seed: Option<i64>,
    /// Token ids to values from -100 to 100.
    logit_bias: Option<Biases>,
    /// Tell how likely each token was, with as many alternatives.
    logprobs: Option<u32>,
    response_format: Option<ResponseFormat>,
    structured_outputs: Option<StructuredOutputs>,
}

/// One prompt of several, or one token of one prompt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum PromptItem {
    Token(Token),
    Text(String),
    Tokens(Vec<Token>),
}

/// Answers, whole.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completion {
    id: String,
    /// `text_completion`.
    object: &'static str,
    created: i64,
    /// The physical model.
    model: String,
    /// Names the weights.
    system_fingerprint: String,
    choices: Vec<TextChoice>,
    usage: Usage,
}

/// One of the answers.
#[derive(Debug, Serialize, ToSchema)]
struct TextChoice {
    index: usize,
    text: String,
    logprobs: Option<TextLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locara: Option<Note>,
}

/// How likely tokens were, in the form of this older interface.
#[derive(Debug, Serialize, ToSchema)]
struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

impl TextLogprobs {
    /// `offset` is where the first token begins; it is moved behind the last one.
    fn of(tokens: &[TokenLogprobs], offset: &mut usize) -> Option<Self> {
        if tokens.is_empty() {
            return None;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut all = Self { tokens: vec![], token_logprobs: vec![], top_logprobs: vec![], text_offset: vec![] };
        for token in tokens {
            let drawn = text(&token.drawn.bytes);
            all.text_offset.push(*offset);
            *offset += drawn.chars().count();
            all.tokens.push(drawn);
            all.token_logprobs.push(finite(token.drawn.logprob));
            all.top_logprobs.push(token.top.iter().map(|top| (text(&top.bytes), finite(top.logprob))).collect());
        }
        Some(all)
    }
}

fn prompts(prompt: OneOrMany<PromptItem>) -> Result<Vec<Prompt>, Fault> {
    let items = match prompt {
        OneOrMany::One(text) => return Ok(vec![Prompt::Text(text)]),
        OneOrMany::Many(items) => items,
    };
    if items.is_empty() {
        return Err(Fault::field("prompt", "there is none"));
    }
    if items.iter().all(|item| matches!(item, PromptItem::Token(_))) {
        let tokens =
            items.into_iter().filter_map(|item| if let PromptItem::Token(token) = item { Some(token) } else { None });
        return Ok(vec![Prompt::Tokens(tokens.collect())]);
    }
    items
        .into_iter()
        .enumerate()
        .map(|(at, item)| match item {
            PromptItem::Text(text) => Ok(Prompt::Text(text)),
            PromptItem::Tokens(tokens) => Ok(Prompt::Tokens(tokens)),
            PromptItem::Token(_) => Err(Fault::field(format!("prompt[{at}]"), "a token among texts")),
        })
        .collect()
}

impl CompletionRequest {
    /// What is wanted, the name of the model, and for each answer the text to put before it.
    fn wish(self) -> Result<(String, Wish, Vec<String>), Fault> {
        if self.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Fault::not_offered("suffix", "text is not filled in between a prompt and a suffix"));
        }
        let n = self.n.unwrap_or(1);
        if self.best_of.is_some_and(|best_of| best_of > n) {
            return Err(Fault::not_offered("best_of", "the best of more answers than n are not picked"));
        }
        let wish = Wish {
            prompts: prompts(self.prompt)?,
            n: self.n,
            max_tokens: self.max_tokens,
            stop: self.stop.map(OneOrMany::into_vec).unwrap_or_default(),
            sampling: SamplingWish {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repeat_penalty: self.repetition_penalty,
                frequency_penalty: self.frequency_penalty,
                presence_penalty: self.presence_penalty,
                seed: self.seed,
                logit_bias: logit_bias(&self.logit_bias.unwrap_or_default())?,
            },
            constraint: constraint(self.response_format, self.structured_outputs)?,
            logprobs: self.logprobs,
            ..Wish::default()
        };
        wish.check(NAMES)?;
        let mut before = vec![String::new(); wish.answers()];
        if self.echo == Some(true) {
            for (at, before) in before.iter_mut().enumerate() {
                match wish.prompts.get(at / (n.max(1) as usize)) {
                    Some(Prompt::Text(text)) => before.clone_from(text),
                    _ => {
                        return Err(Fault::not_offered("echo", "tokens are not repeated before the answer, only text"));
                    }
                }
            }
        }
        Ok((self.model, wish, before))
    }
}

/// Continues text.
#[utoipa::path(post, path = "/v1/completions", tag = "openai", request_body = CompletionRequest,
    responses((status = 200, description = "The answers, or server-sent events", body = Completion),
        (status = 400), (status = 404), (status = 429), (status = 503), (status = 507)))]
pub(crate) async fn completions(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CompletionRequest>,
) -> Result<Response, Fault> {
    let streams = request.stream == Some(true);
    let include_usage = request.stream_options.is_some_and(StreamOptions::include_usage);
    let (model, wish, before) = request.wish()?;
    let n = wish.n.unwrap_or(1) as usize;
    let answering = api.answer(&caller, &model, wish, streams.then_some(stream::PATIENCE)).await?;
    if streams {
        let encoder = TextEncoder::new(&answering, before, n, include_usage);
        return Ok(stream::respond(answering, encoder, Format::ServerSentEvents, api.stream_times()));
    }
    let (model, system_fingerprint) = (answering.model.clone(), answering.fingerprint.clone());
    let answers = answering.collect().await?;
    let usage = Usage::of_answers(&answers, n);
    let choices = answers.into_iter().zip(before).enumerate();
    let choices = choices.map(|(index, (answer, before))| TextChoice::whole(index, answer, before));
    let completion = Completion {
        id: fresh_id("cmpl"),
        object: "text_completion",
        created: now_s(),
        model,
        system_fingerprint,
        choices: choices.collect::<Result<_, _>>()?,
        usage,
    };
    Ok(Json(completion).into_response())
}

impl TextChoice {
    fn whole(index: usize, answer: Answer, mut before: String) -> Result<Self, Fault> {
        let ending = answer.ending()?;
        let (finish_reason, locara) = (Some(finish_reason(&ending.reason)), note(ending));
        let logprobs = TextLogprobs::of(&answer.tokens, &mut before.chars().count());
        before.push_str(&answer.text);
        Ok(Self { index, text: before, logprobs, finish_reason, locara })
    }
}

/// Writes `text_completion` chunks.
struct TextEncoder {
    id: String,
    created: i64,
    model: String,
    fingerprint: String,
    n: usize,
    include_usage: bool,
    /// What goes before each answer.
    before: Vec<String>,
    /// Where the next token of each answer begins, in characters.
    offsets: Vec<usize>,
    /// By the number of the answer: they end in any order.
    endings: BTreeMap<usize, Ending>,
}

impl TextEncoder {
    fn new(answering: &Answering, before: Vec<String>, n: usize, include_usage: bool) -> Self {
        Self {
            id: fresh_id("cmpl"),
            created: now_s(),
            model: answering.model.clone(),
            fingerprint: answering.fingerprint.clone(),
            n,
            include_usage,
            offsets: before.iter().map(|before| before.chars().count()).collect(),
            before,
            endings: BTreeMap::new(),
        }
    }

    fn chunk(&self, choices: &[TextChoice], usage: Option<&Usage>, out: &mut Frames) {
        let mut chunk = serde_json::json!({"id": self.id, "object": "text_completion", "created": self.created,
            "model": self.model, "system_fingerprint": self.fingerprint, "choices": choices});
        if self.include_usage {
            chunk["usage"] = serde_json::json!(usage);
        }
        out.data(&chunk);
    }

    fn text(
        &mut self,
        index: usize,
        text: String,
        tokens: &[TokenLogprobs],
        ending: Option<&Ending>,
        out: &mut Frames,
    ) {
        let logprobs = TextLogprobs::of(tokens, &mut self.offsets[index]);
        let finish_reason = ending.map(|ending| finish_reason(&ending.reason));
        self.chunk(&[TextChoice { index, text, logprobs, finish_reason, locara: ending.and_then(note) }], None, out);
    }
}

impl Encoder for TextEncoder {
    fn begin(&mut self, _prompt_tokens: Option<u32>, out: &mut Frames) {
        for index in 0..self.before.len() {
            let before = std::mem::take(&mut self.before[index]);
            if !before.is_empty() {
                self.text(index, before, &[], None, out);
            }
        }
    }

    fn piece(&mut self, index: usize, piece: Piece, out: &mut Frames) {
        match piece {
            // Text without a template is not split: there are no calls and no reasoning in it.
            Piece::Prefill { .. } | Piece::Thinking(_) | Piece::Call(_) => {}
            Piece::Text(text, tokens) => self.text(index, text, &tokens, None, out),
            Piece::End(ending) => {
                self.text(index, String::new(), &[], Some(&ending), out);
                self.endings.insert(index, ending);
            }
        }
    }

    fn idle(&mut self, _progress: Option<(u32, u32)>, out: &mut Frames) {
        out.comment("waiting");
    }

    fn end(&mut self, out: &mut Frames) {
        if self.include_usage {
            self.chunk(&[], Some(&Usage::of(self.endings.values(), self.n)), out);
        }
        out.done();
    }

    fn fail(&mut self, fault: &Fault, out: &mut Frames) {
        out.data(&fault.body(Dialect::OpenAi));
    }
}
