//! `output`: the bytes of a run, on their way to the caller. Bounded in number and in what waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};
use wasmtime::Result;
use wasmtime::component::{Access as StoreAccess, FutureReader, HasData, StreamReader};

use super::Access;
use crate::bindings::output as wit;
use crate::bindings::types::Error;
use crate::relay::{Admit, ByteSink};

/// The way to the caller; gone once it was handed to the guest.
pub(crate) struct OutputState {
    pub(crate) sender: Option<mpsc::Sender<Bytes>>,
    /// Bytes that were taken, and whether more were offered than the app may write.
    pub(crate) count: Arc<OutputCount>,
}

/// Bytes of output of one run. Outlives the store.
#[derive(Debug)]
pub(crate) struct OutputCount {
    limit: u64,
    taken: AtomicU64,
    exceeded: std::sync::atomic::AtomicBool,
}

impl OutputCount {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicU64::new(0), exceeded: std::sync::atomic::AtomicBool::new(false) })
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The limit, if the app went over it.
    pub(crate) fn exceeded(&self) -> Option<u64> {
        self.exceeded.load(Ordering::Relaxed).then_some(self.limit)
    }

    /// Counts bytes, or refuses them.
    pub(crate) fn admit(&self, bytes: usize) -> std::result::Result<(), Error> {
        let bytes = bytes as u64;
        if self.taken() + bytes > self.limit {
            self.exceeded.store(true, Ordering::Relaxed);
            let limit = self.limit;
            return Err(Error::QuotaExceeded(format!(
                "the output is limited to {limit} bytes; `limits.outputMB` raises that"
            )));
        }
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Every app may write output.
pub(crate) struct OutputPolicy;

/// `output` of one host call.
pub(crate) type OutputAccess<'a> = Access<'a, OutputState, OutputPolicy>;

/// Names [`OutputAccess`] to wasmtime.
pub(crate) struct HasOutput;

impl HasData for HasOutput {
    type Data<'a> = OutputAccess<'a>;
}

impl wit::Host for OutputAccess<'_> {}

impl<T: 'static> wit::HostWithStore<T> for HasOutput {
    fn attach(
        mut store: StoreAccess<'_, T, Self>,
        mut content: StreamReader<u8>,
    ) -> Result<FutureReader<std::result::Result<(), Error>>> {
        let mut access = store.get();
        access.charge()?;
        let (count, orderly) = (access.state.count.clone(), access.shared.orderly.clone());
        let Some(sender) = access.state.sender.take() else {
            content.close(&mut store)?;
            let refusal = Err(Error::InvalidRequest("the output of this run is already attached".to_owned()));
            return FutureReader::new(&mut store, std::future::ready(Ok::<_, wasmtime::Error>(refusal)));
        };
        let (ended, end) = oneshot::channel();
        let admit: Admit = Box::new(move |bytes| count.admit(bytes));
        content.pipe(&mut store, ByteSink::new(sender, admit, ended, orderly))?;
        FutureReader::new(&mut store, end.map(|end| Ok::<_, wasmtime::Error>(end.unwrap_or(Ok(())))))
    }
}
