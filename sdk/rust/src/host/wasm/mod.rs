//! The host of a component: its WIT imports (`sdk/wit`), and the exports that the host calls.

mod convert;
mod exports;

use std::collections::VecDeque;
use std::time::Duration;

use crate::bindings::locara::app::{self as wit, inference};
use convert::{byte_count, millis, wit_bytes};
use wit_bindgen::{FutureReader, StreamReader, StreamResult, StreamWriter};

use crate::message::{Completion, Event, Message, Request};
use crate::{Budget, Error, Release, log::Level};

/// How many events one read takes at most: at 16 a token costs a tenth of what it costs alone, more gains little.
const EVENTS_AT_ONCE: usize = 64;

/// The `session` resource.
#[derive(Debug)]
pub(crate) struct Session(inference::Session);

impl Session {
    pub(crate) fn open(role: &str) -> Result<Self, Error> {
        Ok(Self(inference::Session::open(role)?))
    }

    pub(crate) fn generate(&self, request: &Request) -> (Events, Outcome) {
        let (reader, outcome) = self.0.generate(&request.into());
        let reader = Reader::new(reader);
        (Events { reader, ready: VecDeque::new(), space: Vec::with_capacity(EVENTS_AT_ONCE) }, Outcome(outcome))
    }

    pub(crate) fn fork(&self) -> Result<Self, Error> {
        Ok(Self(self.0.fork()?))
    }

    pub(crate) fn rewind(&self, messages: u32) -> Result<(), Error> {
        Ok(self.0.rewind(messages)?)
    }

    pub(crate) fn length(&self) -> u32 {
        self.0.length()
    }

    pub(crate) async fn count_tokens(&self, messages: &[Message]) -> Result<u32, Error> {
        let messages: Vec<inference::Message> = messages.iter().map(Into::into).collect();
        Ok(self.0.count_tokens(&messages).await?)
    }

    pub(crate) async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        Ok(self.0.embed(texts).await?)
    }

    pub(crate) fn context_tokens(&self) -> u32 {
        self.0.context_tokens()
    }
}

/// The reading end of a stream. It is let go at the end: to read on after that would be a trap.
#[derive(Debug)]
struct Reader<T: 'static>(Option<StreamReader<T>>);

impl<T> Reader<T> {
    fn new(reader: StreamReader<T>) -> Self {
        Self(Some(reader))
    }

    /// Waits for items and reads as many into `buffer` as it has capacity for. None are the end.
    async fn read(&mut self, mut buffer: Vec<T>) -> Vec<T> {
        while let Some(reader) = &mut self.0 {
            let (result, items) = reader.read(buffer).await;
            buffer = items;
            if !buffer.is_empty() {
                break;
            }
            if result != StreamResult::Complete(0) {
                self.0 = None;
            }
        }
        buffer
    }
}

/// The events of an answer. Dropping them cancels the work behind.
#[derive(Debug)]
pub(crate) struct Events {
    reader: Reader<inference::Event>,
    ready: VecDeque<inference::Event>,
    /// The empty buffer of the next read.
    space: Vec<inference::Event>,
}

impl Events {
    pub(crate) async fn next(&mut self) -> Option<Event> {
        if self.ready.is_empty() {
            let mut events = self.reader.read(std::mem::take(&mut self.space)).await;
            self.ready.extend(events.drain(..));
            self.space = events;
        }
        self.ready.pop_front().map(Into::into)
    }
}

/// How an answer will have ended.
#[derive(Debug)]
pub(crate) struct Outcome(FutureReader<Result<inference::Completion, wit::types::Error>>);

impl Outcome {
    pub(crate) async fn wait(self) -> Result<Completion, Error> {
        Ok(self.0.await?.into())
    }
}

/// The reading end of a stream of bytes.
#[derive(Debug)]
pub(crate) struct ByteReader(Reader<u8>);

impl ByteReader {
    pub(crate) fn new(reader: StreamReader<u8>) -> Self {
        Self(Reader::new(reader))
    }

    /// At least one byte and at most `max`; `None` is the end.
    pub(crate) async fn read(&mut self, max: usize) -> Option<Vec<u8>> {
        Some(self.0.read(Vec::with_capacity(max)).await).filter(|bytes| !bytes.is_empty())
    }
}

/// The writing end of a stream of bytes.
#[derive(Debug)]
pub(crate) struct ByteWriter(StreamWriter<u8>);

impl ByteWriter {
    /// Waits until the host has taken the bytes; `false` if it does not take them all.
    pub(crate) async fn write(&mut self, bytes: Vec<u8>) -> bool {
        self.0.write_all(bytes).await.is_empty()
    }
}

/// How a transfer of bytes will have ended.
#[derive(Debug)]
pub(crate) struct Done(FutureReader<Result<(), wit::types::Error>>);

impl Done {
    pub(crate) async fn wait(self) -> Result<(), Error> {
        Ok(self.0.await?)
    }
}

/// Attaches the output of this run.
pub(crate) fn output() -> (ByteWriter, Done) {
    let (writer, reader) = crate::bindings::wit_stream::new();
    (ByteWriter(writer), Done(wit::output::attach(reader)))
}

pub(crate) fn budget() -> Budget {
    wit::budget::current().into()
}

pub(crate) fn answer_epoch(epoch: u32, release: Release) {
    wit::budget::answer_epoch(epoch, &convert::answer(release));
}

/// The stream of lease changes.
#[derive(Debug)]
pub(crate) struct BudgetChanges(Reader<wit::budget::State>);

impl BudgetChanges {
    pub(crate) fn new() -> Self {
        Self(Reader::new(wit::budget::changes()))
    }

    pub(crate) async fn next(&mut self) -> Option<Budget> {
        self.0.read(Vec::with_capacity(1)).await.pop().map(Into::into)
    }
}

/// The `pool` resource.
pub(crate) struct Pool(wit::budget::Pool);

impl Pool {
    pub(crate) fn new(name: &str, priority: u32) -> Self {
        Self(wit::budget::Pool::new(name, priority))
    }

    pub(crate) fn set_reclaimable(&self, bytes: u64) {
        self.0.set_reclaimable(wit_bytes(bytes));
    }
}

pub(crate) mod storage {
    use super::{byte_count, wit::storage as wit};
    use crate::Error;

    pub(crate) fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(wit::get(key)?)
    }

    pub(crate) fn set(key: &str, value: &[u8]) -> Result<(), Error> {
        Ok(wit::set(key, value)?)
    }

    pub(crate) fn delete(key: &str) -> Result<bool, Error> {
        Ok(wit::delete(key)?)
    }

    pub(crate) fn keys(prefix: &str) -> Result<Vec<String>, Error> {
        Ok(wit::keys(prefix)?)
    }

    pub(crate) fn usage() -> (u64, u64) {
        let (used, quota) = wit::usage();
        (byte_count(used), byte_count(quota))
    }
}

pub(crate) mod files {
    use super::{ByteReader, ByteWriter, Done, wit::files as wit};
    use crate::{Error, files::Entry};

    pub(crate) fn folders() -> Vec<(String, bool)> {
        wit::folders()
    }

    pub(crate) fn read(path: &str) -> (ByteReader, Done) {
        let (reader, done) = wit::read(path);
        (ByteReader::new(reader), Done(done))
    }

    pub(crate) fn write(path: &str) -> (ByteWriter, Done) {
        let (writer, reader) = crate::bindings::wit_stream::new();
        (ByteWriter(writer), Done(wit::write(path, reader)))
    }

    pub(crate) fn entries(path: &str) -> Result<Vec<Entry>, Error> {
        Ok(wit::entries(path)?.into_iter().map(Into::into).collect())
    }
}

/// Status, headers, body and how the body ended.
pub(crate) type Fetched = (u16, Vec<(String, String)>, ByteReader, Done);

pub(crate) async fn fetch(request: &crate::http::Request) -> Result<Fetched, Error> {
    let response = wit::http::fetch(&request.into()).await?;
    Ok((response.status, response.headers, ByteReader::new(response.body), Done(response.end)))
}

pub(crate) fn log(level: Level, message: &str) {
    wit::log::write(level.into(), message);
}

pub(crate) fn progress(fraction: Option<f32>, message: &str) {
    wit::progress::report(fraction, message);
}

pub(crate) fn now() -> Duration {
    millis(wit::system::now_ms())
}

pub(crate) fn monotonic() -> Duration {
    millis(wit::system::monotonic_ms())
}

pub(crate) fn random(len: u32) -> Vec<u8> {
    wit::system::random(len)
}
