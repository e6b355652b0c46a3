//! `io-sync`: input and output of a run for guests without async. The asynchronous world gets its input as an argument
//! of `run` and its output through [`super::output`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use wasmtime::Result;
use wasmtime::component::HasData;

use super::Access;
use super::output::OutputCount;
use crate::bindings::io_sync as wit;
use crate::bindings::types::Error;
use crate::relay::CHUNK;

/// Whatever the caller gives an app to read.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;

/// Both ways of a synchronous run.
pub(crate) struct IoState {
    pub(crate) input: Input,
    pub(crate) output: mpsc::Sender<Bytes>,
    pub(crate) count: Arc<OutputCount>,
}

/// Every app may read its input and write its output.
pub(crate) struct IoPolicy;

/// `io-sync` of one host call.
pub(crate) type IoAccess<'a> = Access<'a, Option<IoState>, IoPolicy>;

/// Names [`IoAccess`] to wasmtime.
pub(crate) struct HasIo;

impl HasData for HasIo {
    type Data<'a> = IoAccess<'a>;
}

impl wit::Host for IoAccess<'_> {
    async fn read(&mut self, max: u32) -> Result<Vec<u8>> {
        self.charge()?;
        let Some(io) = self.state.as_mut() else { return Ok(Vec::new()) };
        let mut bytes = vec![0; (max as usize).clamp(1, CHUNK)];
        // An input that breaks is an input that ends: this world has no place for the error.
        let n = io.input.read(&mut bytes).await.unwrap_or(0);
        bytes.truncate(n);
        Ok(bytes)
    }

    async fn write(&mut self, content: Vec<u8>) -> Result<std::result::Result<(), Error>> {
        self.charge()?;
        let Some(io) = self.state.as_mut() else { return Ok(Ok(())) };
        if let Err(error) = io.count.admit(content.len()) {
            return Ok(Err(error));
        }
        if content.is_empty() {
            return Ok(Ok(()));
        }
        Ok(io
            .output
            .send(content.into())
            .await
            .map_err(|_| Error::Interrupted("nobody reads the output any more".to_owned())))
    }
}
