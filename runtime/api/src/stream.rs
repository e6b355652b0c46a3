//! Streams of events to clients: server-sent events, or lines of JSON.
//!
//! A task owns the [`Answering`] and ends when hyper drops the body because the client went away; that frees the place in
//! the batch. A client that reads slowly is waited for and holds up nobody else; one that does not read at all is let go.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, stream};
use serde::Serialize;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    answering::{Answering, Piece},
    fault::Fault,
};

/// Writes that a client may leave unread before its engine is made to wait, beside what the system buffers.
const FRAMES_AHEAD: usize = 4;

/// Pieces that go into one write when they are ready together.
const MAX_TOGETHER: usize = 32;

/// How long a stream waits for its first piece before it sends its headers: until then a refusal has a status of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What is written to the client, frame by frame.
#[derive(Debug, Default)]
pub(crate) struct Frames(BytesMut);

impl Frames {
    /// `data: …`, as OpenAI's clients read it.
    pub(crate) fn data(&mut self, value: &impl Serialize) {
        self.0.put_slice(b"data: ");
        self.json(value);
        self.0.put_slice(b"\n\n");
    }

    /// `data: [DONE]`.
    pub(crate) fn done(&mut self) {
        self.0.put_slice(b"data: [DONE]\n\n");
    }

    /// `event: …` and `data: …`.
    pub(crate) fn event(&mut self, name: &str, value: &impl Serialize) {
        self.0.put_slice(b"event: ");
        self.0.put_slice(name.as_bytes());
        self.0.put_slice(b"\n");
        self.data(value);
    }

    /// A comment, which clients pass over.
    pub(crate) fn comment(&mut self, text: &str) {
        self.0.put_slice(b": ");
        self.0.put_slice(text.as_bytes());
        self.0.put_slice(b"\n\n");
    }

    /// What is written, to be sent.
    pub(crate) fn take(self) -> Bytes {
        self.0.freeze()
    }

    /// A line of JSON.
    pub(crate) fn line(&mut self, value: &impl Serialize) {
        self.json(value);
        self.0.put_slice(b"\n");
    }

    fn json(&mut self, value: &impl Serialize) {
        // Our own types: keys are strings and writing into memory does not fail.
        if let Err(error) = serde_json::to_writer((&mut self.0).writer(), value) {
            tracing::error!(%error, "a frame could not be written");
        }
    }
}

/// How a dialect writes a stream of answers.
pub(crate) trait Encoder: Send + 'static {
    /// Before the first piece; `prompt_tokens` where it is known by then.
    fn begin(&mut self, prompt_tokens: Option<u32>, out: &mut Frames);
    /// A piece of the answer with this number. Never [`Piece::Prefill`].
    fn piece(&mut self, choice: usize, piece: Piece, out: &mut Frames);
    /// Nothing was said for a while; `progress` is how far the prompt is computed, in tokens.
    fn idle(&mut self, progress: Option<(u32, u32)>, out: &mut Frames);
    /// After the last piece.
    fn end(&mut self, out: &mut Frames);
    /// In place of the rest: it broke in the middle.
    fn fail(&mut self, fault: &Fault, out: &mut Frames);
}

/// Which wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    ServerSentEvents,
    JsonLines,
}

impl Format {
    const fn content_type(self) -> &'static str {
        match self {
            Self::ServerSentEvents => "text/event-stream",
            Self::JsonLines => "application/x-ndjson",
        }
    }
}

struct Running<E> {
    answering: Answering,
    encoder: E,
    times: Times,
    begun: bool,
    ended: bool,
}

/// What a stream waits for, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// For something to say, before it says that it is alive.
    pub(crate) keep_alive: Duration,
    /// For the client to read anything.
    pub(crate) write_timeout: Duration,
}

/// The response that streams the answers.
pub(crate) fn respond<E: Encoder>(answering: Answering, encoder: E, format: Format, times: Times) -> Response {
    let (frames, body) = mpsc::channel(FRAMES_AHEAD);
    tokio::spawn(Running { answering, encoder, times, begun: false, ended: false }.pump(frames));
    let body = stream::unfold(body, |mut body| async move {
        let frames: Bytes = body.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(frames), body))
    });
    response(Body::from_stream(body), format)
}

/// A streamed body with its headers.
pub(crate) fn response(body: Body, format: Format) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would collect the stream otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<E: Encoder> Running<E> {
    /// Writes until the end, or until nobody reads any more.
    async fn pump(mut self, body: mpsc::Sender<Bytes>) {
        loop {
            let frames = tokio::select! {
                frames = self.frames() => frames,
                () = body.closed() => return,
            };
            let Some(frames) = frames else { return };
            if body.send_timeout(frames, self.times.write_timeout).await.is_err() {
                tracing::debug!(model = self.answering.model, "a client does not read its stream and is let go");
                return;
            }
        }
    }

    /// What is to be written next; `None` at the end.
    async fn frames(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = Frames::default();
        if !self.begun {
            self.begun = true;
            self.encoder.begin(self.answering.progress.map(|(_, total)| total), &mut out);
        }
        let deadline = Instant::now() + self.times.keep_alive;
        let mut together = 0;
        while !self.ended && together < MAX_TOGETHER {
            let next = if out.0.is_empty() {
                match tokio::time::timeout_at(deadline, self.answering.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.encoder.idle(self.answering.progress, &mut out);
                        break;
                    }
                }
            } else {
                // What is ready goes with it; nothing is waited for.
                match self.answering.next().now_or_never() {
                    Some(next) => next,
                    None => break,
                }
            };
            // Progress alone writes nothing, and must not put off the word that the stream is alive.
            together += usize::from(!out.0.is_empty());
            self.encode(next, &mut out);
        }
        Some(out.take())
    }

    fn encode(&mut self, next: Option<Result<(usize, Piece), locara_engine::EngineError>>, out: &mut Frames) {
        match next {
            Some(Ok((_, Piece::Prefill { .. }))) => {}
            Some(Ok((choice, piece))) => self.encoder.piece(choice, piece, out),
            Some(Err(error)) => {
                self.ended = true;
                let fault = self.answering.fail(error);
                self.encoder.fail(&fault, out);
            }
            None => {
                self.ended = true;
                self.encoder.end(out);
            }
        }
    }
}
