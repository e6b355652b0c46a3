//! What a running app has in its hands: arguments, input, output.

use std::fmt::Display;

use crate::{Error, host};

/// One run of an app.
///
/// The fields can be borrowed apart: `app.input.chunk().await` while a stream writes to `app.output`.
#[derive(Debug)]
#[non_exhaustive]
pub struct App {
    /// The arguments after the name of the app.
    pub args: Vec<String>,
    /// What is piped or written into the app.
    pub input: Input,
    /// What the person sees.
    pub output: Output,
}

impl App {
    pub(crate) fn new(args: Vec<String>, input: host::ByteReader) -> Self {
        let (writer, done) = host::output();
        Self { args, input: Input::new(input), output: Output { writer: Some(writer), done: Some(done) } }
    }

    /// Closes the output and waits until the host has taken all of it.
    pub(crate) async fn finish(self) -> Result<(), Error> {
        let Output { writer, done } = self.output;
        drop(writer);
        match done {
            Some(done) => done.wait().await,
            None => Ok(()),
        }
    }
}

/// Bytes that come in: the input of the app, a file, the body of an HTTP response.
#[derive(Debug)]
pub struct Input {
    reader: host::ByteReader,
    /// Whether the bytes came whole is known at their end.
    done: Option<host::Done>,
    /// Bytes that were read and not yet given out by [`line`](Self::line).
    rest: Vec<u8>,
}

/// How many bytes one read asks for.
const READ: usize = 64 * 1024;

impl Input {
    pub(crate) fn new(reader: host::ByteReader) -> Self {
        Self { reader, done: None, rest: Vec::new() }
    }

    pub(crate) fn with_end(reader: host::ByteReader, done: host::Done) -> Self {
        Self { reader, done: Some(done), rest: Vec::new() }
    }

    /// The next bytes, as they come; `None` at the end.
    ///
    /// # Errors
    /// What the host says at the end of a file or a response that did not come whole.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        if let Some(bytes) = self.reader.read(READ).await {
            return Ok(Some(bytes));
        }
        if let Some(done) = self.done.take() {
            done.wait().await?;
        }
        Ok(None)
    }

    /// Everything until the end.
    ///
    /// # Errors
    /// Those of [`chunk`](Self::chunk).
    pub async fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Everything until the end, as text.
    ///
    /// # Errors
    /// Those of [`chunk`](Self::chunk), and [`Error::Malformed`] with the place of the first byte that is no UTF-8.
    pub async fn text(&mut self) -> Result<String, Error> {
        utf8(self.bytes().await?)
    }

    /// The next line without its end (`\n` or `\r\n`); `None` at the end.
    ///
    /// # Errors
    /// Those of [`text`](Self::text).
    pub async fn line(&mut self) -> Result<Option<String>, Error> {
        let mut line = Vec::new();
        while let Some(mut chunk) = self.chunk().await? {
            if let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
                self.rest = chunk.split_off(end + 1);
                chunk.pop();
                line.append(&mut chunk);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return utf8(line).map(Some);
            }
            line.append(&mut chunk);
        }
        if line.is_empty() { Ok(None) } else { utf8(line).map(Some) }
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Error::Malformed(format!("not UTF-8 text: byte 0x{:02x} at offset {place}", error.as_bytes()[place]))
    })
}

/// Bytes that go out to the person. Each piece is handed over at once.
#[derive(Debug)]
pub struct Output {
    writer: Option<host::ByteWriter>,
    done: Option<host::Done>,
}

impl Output {
    /// Writes a text: a `&str`, a `String`, `format_args!("…")`, anything that displays.
    ///
    /// Waits while the reader on the other side is slower than the app.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] when the app has written more than its manifest's limit, [`Error::Interrupted`] when
    /// nobody reads any more.
    pub async fn write(&mut self, text: impl Display) -> Result<(), Error> {
        self.write_bytes(text.to_string().into_bytes()).await
    }

    /// Writes a text and an end of line.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub async fn write_line(&mut self, text: impl Display) -> Result<(), Error> {
        self.write(format_args!("{text}\n")).await
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub async fn write_bytes(&mut self, bytes: impl Into<Vec<u8>>) -> Result<(), Error> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(writer) = &mut self.writer
            && writer.write(bytes).await
        {
            return Ok(());
        }
        // The host does not take any more; the end of the stream says why.
        self.writer = None;
        match self.done.take() {
            Some(done) => done.wait().await.and(Err(Error::Interrupted("nobody reads the output any more".into()))),
            None => Err(Error::Interrupted("the output was closed before".into())),
        }
    }
}
