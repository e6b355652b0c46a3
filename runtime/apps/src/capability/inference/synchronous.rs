//! `inference-sync`: the same conversations for guests without async. A call waits in its fibre; the guest stands still,
//! the host does not.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::pump::{End, lock};
use super::{Answer, InferenceAccess, Session};
use crate::bindings::inference::{Completion, Event, Message, Request};
use crate::bindings::inference_sync as wit;
use crate::bindings::types::Error;

impl wit::Host for InferenceAccess<'_> {}

impl wit::HostAnswer for InferenceAccess<'_> {
    async fn next(&mut self, answer: Resource<Answer>, max: u32) -> Result<Vec<Event>> {
        self.charge()?;
        let pump = self.shared.table.get(&answer)?.0.clone();
        let max = (max as usize).max(1);
        Ok(std::future::poll_fn(|cx| lock(&pump).poll_events(End::Stream, cx, max)).await)
    }

    async fn finish(&mut self, answer: Resource<Answer>) -> Result<std::result::Result<Completion, Error>> {
        self.charge()?;
        let pump = self.shared.table.get(&answer)?.0.clone();
        lock(&pump).discard_events();
        Ok(std::future::poll_fn(|cx| lock(&pump).poll_outcome(cx)).await)
    }

    fn drop(&mut self, answer: Resource<Answer>) -> Result<()> {
        let answer = self.shared.table.delete(answer)?;
        lock(&answer.0).cancel();
        Ok(())
    }
}

impl wit::HostSession for InferenceAccess<'_> {
    fn open(&mut self, role: String) -> Result<std::result::Result<Resource<Session>, Error>> {
        crate::bindings::inference::HostSession::open(self, role)
    }

    fn generate(&mut self, session: Resource<Session>, request: Request) -> Result<Resource<Answer>> {
        self.charge()?;
        let pump = self.answer(&session, request)?;
        Ok(self.shared.table.push(Answer(pump))?)
    }

    fn fork(&mut self, session: Resource<Session>) -> Result<std::result::Result<Resource<Session>, Error>> {
        crate::bindings::inference::HostSession::fork(self, session)
    }

    fn rewind(&mut self, session: Resource<Session>, messages: u32) -> Result<std::result::Result<(), Error>> {
        crate::bindings::inference::HostSession::rewind(self, session, messages)
    }

    fn length(&mut self, session: Resource<Session>) -> Result<u32> {
        crate::bindings::inference::HostSession::length(self, session)
    }

    async fn count_tokens(
        &mut self,
        session: Resource<Session>,
        messages: Vec<Message>,
    ) -> Result<std::result::Result<u32, Error>> {
        self.charge()?;
        let count = self.count(&session, messages)?;
        Ok(count.await)
    }

    async fn embed(
        &mut self,
        session: Resource<Session>,
        texts: Vec<String>,
    ) -> Result<std::result::Result<Vec<Vec<f32>>, Error>> {
        self.charge()?;
        let vectors = self.embeddings(&session, texts)?;
        Ok(vectors.await)
    }

    fn context_tokens(&mut self, session: Resource<Session>) -> Result<u32> {
        crate::bindings::inference::HostSession::context_tokens(self, session)
    }

    fn drop(&mut self, session: Resource<Session>) -> Result<()> {
        crate::bindings::inference::HostSession::drop(self, session)
    }
}
