//! The host of a test: follows the script of [`testing`](crate::testing), in memory, on one thread.
//!
//! It keeps what the real host promises where an app could trip over it: contexts are finite, answers are cut at
//! `max_tokens`, what was not allowed is denied, a dropped answer is a cancelled one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::message::{Completion, Event, Message, Request};
use crate::testing::world::{self, EventsInWorld, SessionInWorld, Sink, World};
use crate::{Budget, Error, Release, log::Level};

/// The world of the test that runs on this thread.
///
/// # Errors
/// When there is none: the app's code was called outside [`testing::run`](crate::testing::run).
fn world() -> Result<Rc<World>, Error> {
    world::current().ok_or_else(|| {
        Error::Internal(
            "there is no host here: call the app through locara::testing::run, or build it for wasm32".into(),
        )
    })
}

/// For calls that cannot fail on the other side of the wall.
///
/// # Panics
/// Outside a test run, where there is nobody to answer.
fn expect_world() -> Rc<World> {
    world().unwrap_or_else(|error| panic!("{error}"))
}

#[derive(Debug)]
pub(crate) struct Session(SessionInWorld);

impl Session {
    pub(crate) fn open(role: &str) -> Result<Self, Error> {
        world()?.open_session(role).map(Self)
    }

    pub(crate) fn generate(&self, request: &Request) -> (Events, Outcome) {
        let (events, outcome) = self.0.generate(request);
        (Events(events), Outcome(outcome))
    }

    pub(crate) fn fork(&self) -> Result<Self, Error> {
        Ok(Self(self.0.fork()))
    }

    pub(crate) fn rewind(&self, messages: u32) -> Result<(), Error> {
        self.0.rewind(messages)
    }

    pub(crate) fn length(&self) -> u32 {
        self.0.length()
    }

    pub(crate) async fn count_tokens(&self, messages: &[Message]) -> Result<u32, Error> {
        world::breathe().await;
        Ok(self.0.count_tokens(messages))
    }

    pub(crate) async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        world::breathe().await;
        self.0.embed(texts)
    }

    pub(crate) fn context_tokens(&self) -> u32 {
        self.0.context_tokens()
    }
}

#[derive(Debug)]
pub(crate) struct Events(EventsInWorld);

impl Events {
    pub(crate) async fn next(&mut self) -> Option<Event> {
        // Other tasks get a turn between two tokens, as they do in a component.
        world::breathe().await;
        self.0.next()
    }
}

#[derive(Debug)]
pub(crate) struct Outcome(Result<Completion, Error>);

impl Outcome {
    pub(crate) async fn wait(self) -> Result<Completion, Error> {
        world::breathe().await;
        self.0
    }
}

/// Bytes that are all there, in the pieces in which they come.
#[derive(Debug)]
pub(crate) struct ByteReader(VecDeque<Vec<u8>>);

impl ByteReader {
    pub(crate) fn new(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(pieces.into_iter().filter(|piece| !piece.is_empty()).collect())
    }

    pub(crate) async fn read(&mut self, max: usize) -> Option<Vec<u8>> {
        world::breathe().await;
        let mut piece = self.0.pop_front()?;
        if piece.len() > max {
            self.0.push_front(piece.split_off(max));
        }
        Some(piece)
    }
}

/// Where bytes go, with an end that says how it went.
#[derive(Debug)]
pub(crate) struct ByteWriter(Rc<RefCell<Sink>>);

impl ByteWriter {
    pub(crate) async fn write(&mut self, bytes: Vec<u8>) -> bool {
        world::breathe().await;
        self.0.borrow_mut().write(&bytes)
    }
}

/// How a transfer ends.
#[derive(Debug)]
pub(crate) enum Done {
    Known(Result<(), Error>),
    /// Asks the sink once its writer is gone.
    Sink(Rc<RefCell<Sink>>),
}

impl Done {
    pub(crate) async fn wait(self) -> Result<(), Error> {
        world::breathe().await;
        match self {
            Self::Known(outcome) => outcome,
            Self::Sink(sink) => sink.borrow_mut().finish(),
        }
    }
}

fn into_sink(sink: Sink) -> (ByteWriter, Done) {
    let sink = Rc::new(RefCell::new(sink));
    (ByteWriter(Rc::clone(&sink)), Done::Sink(sink))
}

pub(crate) fn output() -> (ByteWriter, Done) {
    into_sink(expect_world().output())
}

pub(crate) fn budget() -> Budget {
    expect_world().budget()
}

pub(crate) fn answer_epoch(epoch: u32, release: Release) {
    expect_world().answer_epoch(epoch, release);
}

#[derive(Debug)]
pub(crate) struct BudgetChanges {
    world: Rc<World>,
    seen: Option<u32>,
}

impl BudgetChanges {
    pub(crate) fn new() -> Self {
        Self { world: expect_world(), seen: None }
    }

    pub(crate) async fn next(&mut self) -> Option<Budget> {
        let budget = self.world.budget_after(self.seen).await;
        self.seen = Some(budget.epoch);
        Some(budget)
    }
}

pub(crate) struct Pool {
    world: Rc<World>,
    name: String,
}

impl Pool {
    pub(crate) fn new(name: &str, _priority: u32) -> Self {
        Self { world: expect_world(), name: name.to_owned() }
    }

    pub(crate) fn set_reclaimable(&self, bytes: u64) {
        self.world.set_reclaimable(&self.name, bytes);
    }
}

pub(crate) mod storage {
    use super::{expect_world, world};
    use crate::Error;

    pub(crate) fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        world()?.storage(|storage| Ok(storage.get(key)))
    }

    pub(crate) fn set(key: &str, value: &[u8]) -> Result<(), Error> {
        world()?.storage(|storage| storage.set(key, value))
    }

    pub(crate) fn delete(key: &str) -> Result<bool, Error> {
        world()?.storage(|storage| Ok(storage.delete(key)))
    }

    pub(crate) fn keys(prefix: &str) -> Result<Vec<String>, Error> {
        world()?.storage(|storage| Ok(storage.keys(prefix)))
    }

    pub(crate) fn usage() -> (u64, u64) {
        expect_world().storage(|storage| Ok(storage.usage())).unwrap_or_default()
    }
}

pub(crate) mod files {
    use super::{ByteReader, ByteWriter, Done, expect_world, into_sink, world};
    use crate::{Error, files::Entry};

    pub(crate) fn folders() -> Vec<(String, bool)> {
        expect_world().folders()
    }

    pub(crate) fn read(path: &str) -> (ByteReader, Done) {
        match world().and_then(|world| world.read_file(path)) {
            Ok(content) => (ByteReader::new([content]), Done::Known(Ok(()))),
            Err(error) => (ByteReader::new([]), Done::Known(Err(error))),
        }
    }

    pub(crate) fn write(path: &str) -> (ByteWriter, Done) {
        into_sink(expect_world().write_file(path))
    }

    pub(crate) fn entries(path: &str) -> Result<Vec<Entry>, Error> {
        world()?.entries(path)
    }
}

pub(crate) type Fetched = (u16, Vec<(String, String)>, ByteReader, Done);

pub(crate) async fn fetch(request: &crate::http::Request) -> Result<Fetched, Error> {
    world::breathe().await;
    let (status, body) = world()?.fetch(request)?;
    Ok((status, Vec::new(), ByteReader::new([body]), Done::Known(Ok(()))))
}

pub(crate) fn log(level: Level, message: &str) {
    match world() {
        Ok(world) => world.log(level, message),
        // Helpers of an app may log in plain unit tests.
        Err(_) => eprintln!("{level:?}: {message}"),
    }
}

pub(crate) fn progress(fraction: Option<f32>, message: &str) {
    if let Ok(world) = world() {
        world.progress(fraction, message);
    }
}

pub(crate) fn now() -> Duration {
    expect_world().now()
}

pub(crate) fn monotonic() -> Duration {
    expect_world().monotonic()
}

pub(crate) fn random(len: u32) -> Vec<u8> {
    expect_world().random(len)
}
