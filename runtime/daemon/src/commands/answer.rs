//! One answer of the running host, as it streams: for `locara chat` and `locara bench`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use crate::{exit::Exit, failure::Failure};

/// Longest line of a stream, bytes: no chunk of an answer comes near.
const LINE_MOST: usize = 4 << 20;

/// What comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Of the answer.
    Text(&'t str),
    /// Of what the model thinks before it.
    Thinking(&'t str),
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The physical model.
    pub(super) model: String,
    pub(super) text: String,
    pub(super) thinking: String,
    /// `stop`, `length`, …; none if the person stopped it.
    pub(super) finish_reason: Option<String>,
    /// Counts of tokens, if it came to its end.
    pub(super) usage: Value,
    /// From the request to the first piece.
    pub(super) first: Option<Duration>,
    /// From the first piece to the last one.
    pub(super) rest: Duration,
}

/// Asks the host what `body` says (`model`, `messages`, …), and hands out the pieces as they come. When `stop` is ready the request is dropped, which ends it in the
/// host too; what had come by then is the answer.
///
/// # Errors
/// No host, or its refusal.
pub(super) async fn answer(
    client: &Client,
    mut body: Value,
    stop: impl Future<Output = ()>,
    mut on_piece: impl FnMut(Piece<'_>),
) -> Result<Answer, Failure> {
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let mut answer = Answer::default();
    let begun = Instant::now();
    let whole = async {
        let mut response = client.stream("/v1/chat/completions", &body).await?;
        let mut lines = Lines::default();
        while let Some(bytes) = response.chunk().await.map_err(|error| client.broken(error))? {
            lines.push(&bytes)?;
            while let Some(line) = lines.next() {
                let Some(data) = line.strip_prefix("data:") else { continue };
                if data.trim() == "[DONE]" {
                    return Ok(());
                }
                let chunk: Value = serde_json::from_str(data).map_err(|error| unreadable().because(error))?;
                take(&mut answer, &chunk, begun, &mut on_piece)?;
            }
        }
        Err(unreadable().help("the host went away in the middle of it; `locara logs` shows what it wrote"))
    };
    tokio::select! {
        biased;
        ended = whole => ended?,
        () = stop => {}
    }
    Ok(answer)
}

fn unreadable() -> Failure {
    Failure::new(Exit::Failure, "the answer of the host breaks off")
}

fn take(
    answer: &mut Answer,
    chunk: &Value,
    begun: Instant,
    on_piece: &mut impl FnMut(Piece<'_>),
) -> Result<(), Failure> {
    if let Some(message) = chunk["error"]["message"].as_str() {
        return Err(Failure::new(Exit::Failure, message));
    }
    if let Some(model) = chunk["model"].as_str() {
        model.clone_into(&mut answer.model);
    }
    if chunk["usage"].is_object() {
        answer.usage = chunk["usage"].clone();
    }
    let choice = &chunk["choices"][0];
    if let Some(reason) = choice["finish_reason"].as_str() {
        answer.finish_reason = Some(reason.to_owned());
    }
    let part = |name: &str| choice["delta"][name].as_str().filter(|text| !text.is_empty());
    let (thinking, text) = (part("reasoning_content"), part("content"));
    if thinking.or(text).is_some() {
        let first = *answer.first.get_or_insert_with(|| begun.elapsed());
        answer.rest = begun.elapsed().saturating_sub(first);
    }
    if let Some(thinking) = thinking {
        answer.thinking.push_str(thinking);
        on_piece(Piece::Thinking(thinking));
    }
    if let Some(text) = text {
        answer.text.push_str(text);
        on_piece(Piece::Text(text));
    }
    Ok(())
}

/// Lines out of bytes that come in any portions.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.extend_from_slice(bytes);
        if self.0.len() > LINE_MOST { Err(unreadable()) } else { Ok(()) }
    }

    fn next(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.0.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = "data: {\"é\": 1}\r\n\r\ndata: [DONE]\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut all = Vec::new();
            for portion in text.as_bytes().chunks(size) {
                lines.push(portion).unwrap();
                all.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(all, ["data: {\"é\": 1}", "", "data: [DONE]"], "cut into {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_for_ever() {
        let mut lines = Lines::default();
        assert!((0..=LINE_MOST / 65_536).any(|_| lines.push(&[b'x'; 65_536]).is_err()));
    }

    #[test]
    fn an_error_in_the_middle_of_a_stream_is_one() {
        let chunk = json!({"error": {"message": "memory is critically short"}});
        let failure = take(&mut Answer::default(), &chunk, Instant::now(), &mut |_| {}).unwrap_err();
        assert_eq!(failure.to_string(), "memory is critically short");
    }
}
