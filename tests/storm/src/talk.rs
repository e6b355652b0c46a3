//! One client: sends a request, reads what comes, counts it.

use std::time::Duration;

use anyhow::{Result, bail};
use reqwest::{Response, header};
use tokio::time::timeout;

use crate::{
    ask::Ask,
    read::{Answer, counted},
    server::Server,
    tally::{Class, Dialect, Ended, Tally},
};

/// Without a byte for so long a request hangs. The host itself says every ten seconds that a stream is alive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A client that is told to try again later waits no longer than this: it is a storm.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A client with connections and counts of its own.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) name: String,
    pub(crate) tally: Tally,
}

impl Client {
    pub(crate) fn new(server: &Server, name: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { http, base: server.base().to_owned(), name: name.to_owned(), tally: Tally::default() })
    }

    /// The body of a GET that is answered with 200.
    pub(crate) async fn get(&mut self, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.base);
        let request = async {
            let response = self.http.get(&url).send().await?;
            let status = response.status().as_u16();
            Ok::<_, reqwest::Error>((status, response.text().await?))
        };
        let Ok(answer) = timeout(PATIENCE, request).await else {
            self.tally.hung += 1;
            bail!("GET {path}: no answer for {} s", PATIENCE.as_secs());
        };
        let (status, text) = answer?;
        self.tally.response(Dialect::OpenAi, status);
        if status != 200 {
            bail!("GET {path}: status {status}: {text}");
        }
        Ok(text)
    }

    /// Asks, reads the answer as far as the client wants it, and waits where the host says so.
    pub(crate) async fn ask(&mut self, ask: &Ask) {
        let request = self
            .http
            .post(format!("{}{}", self.base, ask.path))
            .header("content-type", "application/json")
            .header("x-locara-client", &self.name)
            .header("x-locara-class", ask.class.word())
            .body(ask.body.to_string());
        match timeout(PATIENCE, request.send()).await {
            Err(_) => self.hung(ask, false),
            Ok(Err(error)) => self.broken(ask, &format!("{error:#}")),
            Ok(Ok(response)) => {
                let status = response.status().as_u16();
                self.tally.response(ask.dialect, status);
                match status {
                    200 => self.answered(ask, response).await,
                    _ => self.refused(ask, status, response).await,
                }
            }
        }
    }

    async fn answered(&mut self, ask: &Ask, mut response: Response) {
        let mut answer = Answer::default();
        let mut whole = Vec::new();
        loop {
            let chunk = match timeout(PATIENCE, response.chunk()).await {
                Err(_) => return self.hung(ask, true),
                Ok(Err(error)) => return self.broken(ask, &format!("the answer broke off: {error:#}")),
                Ok(Ok(chunk)) => chunk,
            };
            let Some(bytes) = chunk else { break };
            if !ask.stream {
                whole.extend_from_slice(&bytes);
            } else if let Err(error) = answer.bytes(ask.dialect, &bytes) {
                return self.broken(ask, &format!("{error:#}"));
            }
            if ask.leave_after.is_some_and(|events| answer.events >= events) && !answer.is_whole() {
                *self.tally.left.entry(ask.class).or_default() += 1;
                return;
            }
        }
        if ask.stream {
            if !answer.is_whole() {
                self.broken(ask, "the stream has no end");
            }
        } else if let Err(error) = answer.json(ask.dialect, &String::from_utf8_lossy(&whole)) {
            return self.broken(ask, &format!("{error:#}"));
        }
        self.count(ask, &answer);
    }

    fn count(&mut self, ask: &Ask, answer: &Answer) {
        self.tally.output_tokens += answer.output_tokens;
        for ended in &answer.endings {
            self.tally.answer(ask.class, *ended);
        }
        if let Some(code) = &answer.error {
            return self.tally.answer(ask.class, counted(code));
        }
        if answer.endings.len() != ask.answers {
            self.broken(ask, &format!("{} answers ended, {} were asked for", answer.endings.len(), ask.answers));
        }
        if ask.too_long {
            self.broken(ask, "a prompt that is longer than the context was answered");
        }
        let object = |text| serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| value.is_object());
        if ask.json && answer.endings == [Ended::Whole] && !object(&answer.text) {
            self.broken(ask, &format!("the schema does not hold: {:?}", answer.text));
        }
    }

    async fn refused(&mut self, ask: &Ask, status: u16, response: Response) {
        let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let text = match timeout(PATIENCE, response.text()).await {
            Err(_) => return self.hung(ask, true),
            Ok(text) => text.unwrap_or_default(),
        };
        let mut answer = Answer::default();
        if answer.json(ask.dialect, &text).is_err() || answer.error.as_deref().is_none_or(str::is_empty) {
            self.broken(ask, &format!("status {status} without an error in its dialect: {text}"));
        }
        match status {
            400 if ask.too_long => self.tally.answer(ask.class, Ended::Refused),
            429 => self.tally.answer(ask.class, Ended::Refused),
            503 => *self.tally.unavailable.entry(ask.class).or_default() += 1,
            _ => self.broken(ask, &format!("status {status}: {text}")),
        }
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds).min(LONGEST_WAIT)).await,
            None if matches!(status, 429 | 503) => self.broken(ask, &format!("status {status} without Retry-After")),
            None => {}
        }
    }

    pub(crate) fn left_early(&mut self, dialect: Dialect, class: Class) {
        *self.tally.left_early.entry((dialect, class)).or_default() += 1;
    }

    /// Nothing came, or nothing more after the status; the host may be anywhere with the request.
    pub(crate) fn hung(&mut self, ask: &Ask, answered: bool) {
        self.tally.hung += 1;
        if answered {
            *self.tally.left.entry(ask.class).or_default() += 1;
        } else {
            self.left_early(ask.dialect, ask.class);
        }
        let stream = if ask.stream { "stream" } else { "whole" };
        let (word, seconds) = (ask.class.word(), PATIENCE.as_secs());
        self.tally.stuck.push(format!("{}: {} {word} {stream}: no byte for {seconds} s", self.name, ask.path));
    }

    pub(crate) fn broken(&mut self, ask: &Ask, what: &str) {
        let mut body = ask.body.to_string();
        // A prompt may be long, and its end says nothing.
        body.truncate(body.floor_char_boundary(400));
        self.tally.broken.push(format!("{}: {} {body}: {what}", self.name, ask.path));
    }
}
