//! A conversation with a model: ask, fork, rewind.

use serde_json::Value;

use crate::message::{Constraint, Message, Request, Tool, ToolChoice, schema_of};
use crate::{Answer, Error, Reply, host};

/// One conversation with the model behind a role. The host keeps the history and the model's state of it.
///
/// A session answers one question at a time, which the borrow of [`Ask`] and [`Answer`] makes sure of. For two at once,
/// [`fork`](Self::fork).
#[derive(Debug)]
pub struct Session {
    host: host::Session,
}

impl Session {
    /// Opens an empty conversation with `role`, one of the manifest's `models`. Does not wait for the model to load.
    ///
    /// # Errors
    /// [`Error::Denied`] when the manifest does not name the role or the owner did not grant it.
    pub fn open(role: &str) -> Result<Self, Error> {
        host::Session::open(role).map(|host| Self { host })
    }

    /// Asks something: a text (the user's turn) or a [`Message`]. Nothing is sent before the [`Ask`] is awaited or
    /// streamed.
    pub fn ask(&mut self, message: impl Into<Message>) -> Ask<'_> {
        self.send([message.into()])
    }

    /// Like [`ask`](Self::ask), with any number of messages: instructions and question, the results of tools.
    pub fn send(&mut self, messages: impl IntoIterator<Item = Message>) -> Ask<'_> {
        let request = Request { messages: messages.into_iter().collect(), ..Request::default() };
        Ask { session: self, request }
    }

    /// A second conversation with the same history. The model's state is shared, not computed again.
    ///
    /// # Errors
    /// [`Error::Busy`] or [`Error::OverBudget`] when there is no place for it.
    pub fn fork(&self) -> Result<Self, Error> {
        self.host.fork().map(|host| Self { host })
    }

    /// Forgets all but the first `messages` messages (answers count as messages).
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when the history is shorter.
    pub fn rewind(&mut self, messages: u32) -> Result<(), Error> {
        self.host.rewind(messages)
    }

    /// Messages in the history.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.host.length()
    }

    /// Tokens that the history and these messages make, template included.
    ///
    /// # Errors
    /// [`Error::ModelUnavailable`] when the model does not load.
    pub async fn count_tokens(&self, messages: &[Message]) -> Result<u32, Error> {
        self.host.count_tokens(messages).await
    }

    /// One unit vector for each text. The role must resolve to an embedding model.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] when the model does not embed.
    pub async fn embed<T: Into<String>>(&self, texts: impl IntoIterator<Item = T>) -> Result<Vec<Vec<f32>>, Error> {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        self.host.embed(&texts).await
    }

    /// Tokens that prompt and answer may take together.
    #[must_use]
    pub fn context_tokens(&self) -> u32 {
        self.host.context_tokens()
    }
}

/// A question that is being written. Await it for the whole [`Reply`], or [`stream`](Self::stream) it.
#[derive(Debug)]
#[must_use = "nothing is asked until this is awaited or streamed"]
pub struct Ask<'s> {
    session: &'s mut Session,
    request: Request,
}

impl<'s> Ask<'s> {
    /// Puts instructions before the question. They stay in the history, so say them once.
    pub fn system(mut self, instructions: impl Into<String>) -> Self {
        self.request.messages.insert(0, Message::system(instructions));
        self
    }

    /// Upper bound of the answer, in tokens.
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.request.max_tokens = Some(tokens);
        self
    }

    /// The answer ends before this string. May be called several times.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.request.stop.push(text.into());
        self
    }

    /// 0 always takes the likeliest token; higher is more varied.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.request.sampling.temperature = Some(temperature);
        self
    }

    /// Only the `top_k` likeliest tokens.
    pub fn top_k(mut self, top_k: u32) -> Self {
        self.request.sampling.top_k = Some(top_k);
        self
    }

    /// Only the likeliest tokens that sum up to this probability.
    pub fn top_p(mut self, top_p: f32) -> Self {
        self.request.sampling.top_p = Some(top_p);
        self
    }

    /// Only tokens with at least this share of the likeliest token's probability.
    pub fn min_p(mut self, min_p: f32) -> Self {
        self.request.sampling.min_p = Some(min_p);
        self
    }

    /// Divides the logits of tokens that were used already; 1 is off.
    pub fn repeat_penalty(mut self, penalty: f32) -> Self {
        self.request.sampling.repeat_penalty = Some(penalty);
        self
    }

    /// Taken from a logit for each use of its token.
    pub fn frequency_penalty(mut self, penalty: f32) -> Self {
        self.request.sampling.frequency_penalty = Some(penalty);
        self
    }

    /// Taken from a logit once its token was used.
    pub fn presence_penalty(mut self, penalty: f32) -> Self {
        self.request.sampling.presence_penalty = Some(penalty);
        self
    }

    /// The same seed and the same prompt give the same answer.
    pub fn seed(mut self, seed: u32) -> Self {
        self.request.sampling.seed = Some(seed);
        self
    }

    /// Adds `bias` to the logit of a token. May be called several times.
    pub fn logit_bias(mut self, token: u32, bias: f32) -> Self {
        self.request.sampling.logit_bias.push((token, bias));
        self
    }

    /// The answer is JSON that follows this schema. [`parse`](Self::parse) does it from a type.
    pub fn json_schema(mut self, schema: &Value) -> Self {
        self.request.constraint = Some(Constraint::JsonSchema(schema.to_string()));
        self
    }

    /// The whole answer matches this regular expression.
    pub fn regex(mut self, pattern: impl Into<String>) -> Self {
        self.request.constraint = Some(Constraint::Regex(pattern.into()));
        self
    }

    /// The answer follows this Lark grammar (llguidance's dialect).
    pub fn grammar(mut self, grammar: impl Into<String>) -> Self {
        self.request.constraint = Some(Constraint::Grammar(grammar.into()));
        self
    }

    /// The model may ask for this tool; the manifest names it in `capabilities.tools`. May be called several times.
    pub fn tool(mut self, tool: Tool) -> Self {
        self.request.tools.push(tool);
        self
    }

    /// Whether the model may, must or must not ask for a tool.
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.request.tool_choice = choice;
        self
    }

    /// Sends the question. The answer comes piece by piece; dropping it cancels the work behind it.
    pub fn stream(self) -> Answer<'s> {
        let (events, outcome) = self.session.host.generate(&self.request);
        Answer::new(events, outcome)
    }

    /// Sends the question and waits for the text of the answer.
    ///
    /// # Errors
    /// Every refusal and failure of the host.
    pub async fn text(self) -> Result<String, Error> {
        self.await.map(|reply| reply.text)
    }

    /// Sends the question and waits for an answer that is a `T`: the model can write nothing else.
    ///
    /// # Errors
    /// Those of the host, and [`Error::Malformed`] when the answer is not whole (`max_tokens` was reached).
    pub async fn parse<T: serde::de::DeserializeOwned + schemars::JsonSchema>(mut self) -> Result<T, Error> {
        self.request.constraint = Some(Constraint::JsonSchema(schema_of::<T>()));
        self.await?.parse()
    }
}

impl<'s> IntoFuture for Ask<'s> {
    type Output = Result<Reply, Error>;
    type IntoFuture = futures::future::LocalBoxFuture<'s, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.stream().reply())
    }
}
