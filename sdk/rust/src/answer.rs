//! An answer that is being made, and one that is done.

use std::fmt::Write as _;

use futures::Stream;

use crate::message::{Completion, Event};
use crate::{Error, Output, host};

/// An answer that is being made. Dropping it cancels the work within one token.
///
/// Only an answer that came to its end is part of the history; a cancelled or failed one leaves it as it was.
///
/// A slow reader slows its own answer and nothing else. Events that a dropped [`next`](Self::next) future had already
/// taken are lost with it, so poll one to its end.
///
/// ```
/// # use locara::{App, Event, Failure, Session, testing::{self, Script}};
/// # async fn app(app: &mut App) -> Result<(), Failure> {
/// let mut session = Session::open("default")?;
/// let mut answer = session.ask("Why is the sky blue?").max_tokens(200).stream();
/// while let Some(event) = answer.next().await? {
///     if let Event::Text(text) = event {
///         app.output.write(text).await?;
///     }
/// }
/// # Ok(()) }
/// # testing::run(app, Script::new().reply("Rayleigh.")).expect_output("Rayleigh.");
/// ```
#[derive(Debug)]
#[must_use = "dropping an answer cancels it"]
pub struct Answer<'s> {
    events: host::Events,
    progress: Progress,
    /// The session answers one question at a time.
    _session: std::marker::PhantomData<&'s mut crate::Session>,
}

/// How far the outcome of an answer is known.
#[derive(Debug)]
enum Progress {
    Running(host::Outcome),
    Done(Completion),
    Failed(Error),
    /// While the outcome is being awaited; stays if that future is dropped.
    Lost,
}

impl Answer<'_> {
    pub(crate) fn new(events: host::Events, outcome: host::Outcome) -> Self {
        Self { events, progress: Progress::Running(outcome), _session: std::marker::PhantomData }
    }

    /// The next piece; `None` when the answer ended well. Refusals and failures come here too, after all pieces.
    ///
    /// # Errors
    /// Every refusal and failure of the host.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        if let Some(event) = self.events.next().await {
            return Ok(Some(event));
        }
        self.completion().await.map(|_| None)
    }

    /// The next piece of text, without reasoning and tool calls.
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    pub async fn next_text(&mut self) -> Result<Option<String>, Error> {
        while let Some(event) = self.next().await? {
            if let Event::Text(text) = event {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// Writes the text to the output while it is made, and returns the whole answer.
    ///
    /// # Errors
    /// Those of [`next`](Self::next) and of [`Output::write`].
    pub async fn write_to(mut self, output: &mut Output) -> Result<Reply, Error> {
        let mut parts = Parts::default();
        while let Some(event) = self.next().await? {
            if let Event::Text(text) = &event {
                output.write(text).await?;
            }
            parts.push(event);
        }
        Ok(parts.finish(self.completion().await?))
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    pub async fn reply(mut self) -> Result<Reply, Error> {
        let mut parts = Parts::default();
        while let Some(event) = self.next().await? {
            parts.push(event);
        }
        Ok(parts.finish(self.completion().await?))
    }

    /// The answer as a [`futures::Stream`], for combinators. An error is its last item.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Error>> {
        futures::stream::unfold(Some(self), async |answer| {
            let mut answer = answer?;
            match answer.next().await {
                Ok(Some(event)) => Some((Ok(event), Some(answer))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// How the answer ended: counts, times, tool calls, the model. Pieces that were not read are discarded.
    ///
    /// # Errors
    /// Those of [`next`](Self::next), every time it is called.
    pub async fn completion(&mut self) -> Result<Completion, Error> {
        while self.events.next().await.is_some() {}
        self.progress = match std::mem::replace(&mut self.progress, Progress::Lost) {
            Progress::Running(outcome) => match outcome.wait().await {
                Ok(completion) => Progress::Done(completion),
                Err(error) => Progress::Failed(error),
            },
            known => known,
        };
        match &self.progress {
            Progress::Done(completion) => Ok(completion.clone()),
            Progress::Failed(error) => Err(error.clone()),
            Progress::Running(_) | Progress::Lost => {
                Err(Error::Interrupted("the future that waited for the end of this answer was dropped".into()))
            }
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// The text.
    pub text: String,
    /// The reasoning, empty if the model shows none.
    pub thinking: String,
    /// How the answer ended: counts, times, tool calls, the model.
    pub completion: Completion,
}

impl Reply {
    /// The text as a type of the app.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the text is not JSON of that type.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.text).map_err(|error| {
            let mut reason = format!("the answer is not the JSON asked for: {error}");
            if self.completion.stop == crate::StopReason::MaxTokens {
                let tokens = self.completion.usage.output_tokens;
                write!(reason, "; it was cut off after {tokens} tokens, raise max_tokens").expect("a String takes all");
            }
            Error::Malformed(reason)
        })
    }
}

/// The text of an answer that is being collected.
#[derive(Default)]
struct Parts {
    text: String,
    thinking: String,
}

impl Parts {
    fn push(&mut self, event: Event) {
        match event {
            Event::Text(text) => self.text.push_str(&text),
            Event::Thinking(text) => self.thinking.push_str(&text),
            Event::ToolCall { .. } | Event::Other(_) => {}
        }
    }

    fn finish(self, completion: Completion) -> Reply {
        Reply { text: self.text, thinking: self.thinking, completion }
    }
}
