//! What a test says before the run: the model's answers, the person's input, the host's grants.

use std::collections::{BTreeMap, VecDeque};

use crate::message::{Event, Message, Request, ToolCall};
use crate::{Budget, Error};

/// What the scripted model does with one question.
#[derive(Debug, Clone)]
pub struct Turn {
    pub(super) events: Vec<Event>,
    pub(super) tool_calls: Vec<ToolCall>,
    pub(super) error: Option<Error>,
}

impl Turn {
    /// Answers with a text, streamed four characters at a time.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { events: vec![Event::Text(text.into())], tool_calls: Vec::new(), error: None }
    }

    /// Reasons first.
    #[must_use]
    pub fn thinking(mut self, text: impl Into<String>) -> Self {
        self.events.insert(0, Event::Thinking(text.into()));
        self
    }

    /// Asks for a tool. `arguments` is a JSON object.
    #[must_use]
    pub fn tool_call(name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { events: Vec::new(), tool_calls: Vec::new(), error: None }.and_tool_call(name, arguments)
    }

    /// Asks for one more tool.
    #[must_use]
    pub fn and_tool_call(mut self, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        let index = self.tool_calls.len();
        let call = ToolCall::new(format!("call-{index}"), name, arguments);
        self.events.push(Event::ToolCall {
            index: u32::try_from(index).expect("a script has few tool calls"),
            id: Some(call.id.clone()),
            name: Some(call.name.clone()),
            arguments: call.arguments.clone(),
        });
        self.tool_calls.push(call);
        self
    }

    /// Answers nothing but this error.
    #[must_use]
    pub fn refuse(error: Error) -> Self {
        Self { events: Vec::new(), tool_calls: Vec::new(), error: Some(error) }
    }

    /// Fails after what it said so far, as an interruption by the host does.
    #[must_use]
    pub fn then_fail(mut self, error: Error) -> Self {
        self.error = Some(error);
        self
    }
}

impl<T: Into<String>> From<T> for Turn {
    fn from(text: T) -> Self {
        Self::text(text)
    }
}

/// A question that the model was asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Question {
    /// The role of the session.
    pub role: String,
    /// What the session held before.
    pub history: Vec<Message>,
    /// What was asked, with all settings.
    pub request: Request,
    /// Tokens of history and request.
    pub prompt_tokens: u32,
    /// How the answer ended.
    pub ended: Ended,
}

impl Question {
    /// The text of the last message.
    #[must_use]
    pub fn prompt(&self) -> &str {
        self.request.messages.last().map_or("", |message| &message.content)
    }
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// Not yet.
    Running,
    /// The app read all of it.
    Answered,
    /// The app dropped it before.
    Cancelled,
    /// The host refused or broke it off.
    Failed(Error),
}

type Rule = (Box<dyn Fn(&Question) -> bool>, Turn);
type Answerer = Box<dyn Fn(&Question) -> Turn>;

/// The script of one run. Without a line it grants nothing, and a question is an error.
pub struct Script {
    pub(super) args: Vec<String>,
    pub(super) input: Vec<Vec<u8>>,
    pub(super) roles: Vec<String>,
    pub(super) context_tokens: u32,
    pub(super) rules: Vec<Rule>,
    pub(super) replies: VecDeque<Turn>,
    pub(super) answer: Option<Answerer>,
    pub(super) budget: Budget,
    pub(super) budget_changes: Vec<(usize, Budget)>,
    pub(super) output_limit: Option<u64>,
    pub(super) storage_quota: Option<u64>,
    pub(super) folders: Vec<(String, bool)>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) responses: BTreeMap<(String, String), (u16, Vec<u8>)>,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("args", &self.args).field("replies", &self.replies).finish_non_exhaustive()
    }
}

impl Script {
    /// No arguments, no input, the role `default` with a context of 8192 tokens (as in a manifest), 1 GB of lease.
    #[must_use]
    pub fn new() -> Self {
        Self {
            args: Vec::new(),
            input: Vec::new(),
            roles: vec!["default".into()],
            context_tokens: 8192,
            rules: Vec::new(),
            replies: VecDeque::new(),
            answer: None,
            budget: Budget::of(1_000_000_000),
            budget_changes: Vec::new(),
            output_limit: None,
            storage_quota: None,
            folders: Vec::new(),
            files: BTreeMap::new(),
            responses: BTreeMap::new(),
        }
    }

    /// The arguments after the name of the app.
    #[must_use]
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A piece of input. Several come one after the other.
    #[must_use]
    pub fn input(mut self, piece: impl Into<Vec<u8>>) -> Self {
        self.input.push(piece.into());
        self
    }

    /// A further role that the app may open.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.roles.push(role.into());
        self
    }

    /// Tokens that prompt and answer may take together; a token is four characters, a message costs four more.
    #[must_use]
    pub fn context_tokens(mut self, tokens: u32) -> Self {
        self.context_tokens = tokens;
        self
    }

    /// The next answer that no rule gives.
    #[must_use]
    pub fn reply(mut self, turn: impl Into<Turn>) -> Self {
        self.replies.push_back(turn.into());
        self
    }

    /// A rule: questions that fit are answered like this, every time. The first rule that fits wins.
    #[must_use]
    pub fn when(mut self, fits: impl Fn(&Question) -> bool + 'static, turn: impl Into<Turn>) -> Self {
        self.rules.push((Box::new(fits), turn.into()));
        self
    }

    /// What answers when neither a rule nor a reply is left.
    #[must_use]
    pub fn answer<T: Into<Turn>>(mut self, answer: impl Fn(&Question) -> T + 'static) -> Self {
        self.answer = Some(Box::new(move |question| answer(question).into()));
        self
    }

    /// The lease at the start.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Changes the lease while the `question`th question (from 1) is being asked; 0 is when the app first waits for
    /// anything. [`Run::releases`](super::Run::releases) has what the app answered.
    #[must_use]
    pub fn budget_at(mut self, question: usize, budget: Budget) -> Self {
        self.budget_changes.push((question, budget));
        self
    }

    /// The host takes this many bytes of output and no more.
    #[must_use]
    pub fn output_limit(mut self, bytes: u64) -> Self {
        self.output_limit = Some(bytes);
        self
    }

    /// Grants storage of this many bytes, keys and values together.
    #[must_use]
    pub fn storage(mut self, quota: u64) -> Self {
        self.storage_quota = Some(quota);
        self
    }

    /// Grants a folder, for writing too or for reading only.
    #[must_use]
    pub fn folder(mut self, path: impl Into<String>, writable: bool) -> Self {
        self.folders.push((path.into(), writable));
        self
    }

    /// Puts a file there. Whether the app may read it depends on the granted folders.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }

    /// Grants one request and says what comes back.
    #[must_use]
    pub fn http(
        mut self,
        method: impl Into<String>,
        url: impl Into<String>,
        status: u16,
        body: impl Into<Vec<u8>>,
    ) -> Self {
        self.responses.insert((method.into(), url.into()), (status, body.into()));
        self
    }
}
