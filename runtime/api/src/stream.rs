//! Streams of events to clients: server-sent events, or lines of JSON.
//!
//! The body owns the [`Answering`]: hyper drops it when the client goes away, which frees the place in the batch. A client
//! that reads slowly is waited for, and nobody else is.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, stream};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    answering::{Answering, Piece},
    fault::Fault,
};

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
    keep_alive: Duration,
    begun: bool,
    ended: bool,
}

/// The response that streams the answers.
pub(crate) fn respond<E: Encoder>(answering: Answering, encoder: E, format: Format, keep_alive: Duration) -> Response {
    let running = Running { answering, encoder, keep_alive, begun: false, ended: false };
    let frames = stream::unfold(running, |mut running| async move {
        let frames = running.frames().await?;
        Some((Ok::<_, std::convert::Infallible>(frames), running))
    });
    response(Body::from_stream(frames), format)
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
        let deadline = Instant::now() + self.keep_alive;
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
