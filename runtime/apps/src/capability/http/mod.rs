//! `http`: requests to the granted hosts, and to nothing else. Redirects are checked like requests; names are not
//! connected to private addresses unless the grant says that they are local; size, time and number are bounded.

mod address;
mod client;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::{Access as StoreAccess, FutureProducer, FutureReader, HasData, StreamReader};
use wasmtime::{Result, StoreContextMut};

use self::client::{Fetched, Job};
use super::Access;
use crate::allow::Allowed;
use crate::bindings::http as wit;
use crate::bindings::types::{Busy, Error};
use crate::relay::ByteSource;

pub(crate) use self::client::Clients;

/// Requests of one app at once, their bodies included.
const MAX_REQUESTS: usize = 8;

/// What the app has under way.
pub(crate) struct HttpState {
    clients: Clients,
    places: Arc<Semaphore>,
}

impl HttpState {
    pub(crate) fn new(clients: Clients) -> Self {
        Self { clients, places: Arc::new(Semaphore::new(MAX_REQUESTS)) }
    }
}

/// Which hosts it may reach.
pub(crate) struct HttpPolicy {
    pub(crate) allowed: Arc<Allowed>,
}

/// `http` of one host call.
pub(crate) type HttpAccess<'a> = Access<'a, HttpState, HttpPolicy>;

/// Names [`HttpAccess`] to wasmtime.
pub(crate) struct HasHttp;

impl HasData for HasHttp {
    type Data<'a> = HttpAccess<'a>;
}

impl HttpAccess<'_> {
    fn start(&self, request: wit::Request) -> Fetching {
        let Ok(place) = self.state.places.clone().try_acquire_owned() else {
            let busy = Error::Busy(Busy { retry_after_ms: 0, waiting: MAX_REQUESTS as u32 });
            return Fetching::Refused(Some(busy));
        };
        let job = Job {
            clients: self.state.clients.clone(),
            allowed: self.policy.allowed.clone(),
            denied: self.shared.denied.clone(),
            place,
        };
        Fetching::Running(AbortOnDropHandle::new(tokio::spawn(job.run(request))))
    }
}

impl wit::Host for HttpAccess<'_> {}

impl<T: 'static> wit::HostWithStore<T> for HasHttp {
    fn fetch(
        mut store: StoreAccess<'_, T, Self>,
        request: wit::Request,
    ) -> Result<FutureReader<std::result::Result<wit::Response, Error>>> {
        let mut access = store.get();
        access.charge()?;
        let fetching = access.start(request);
        FutureReader::new(&mut store, fetching)
    }
}

/// A request under way. Dropping it gives the request up.
enum Fetching {
    Refused(Option<Error>),
    Running(AbortOnDropHandle<std::result::Result<Fetched, Error>>),
}

impl<D: 'static> FutureProducer<D> for Fetching {
    type Item = std::result::Result<wit::Response, Error>;

    fn poll_produce(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        finish: bool,
    ) -> Poll<Result<Option<Self::Item>>> {
        let outcome = match &mut *self {
            Self::Refused(error) => Err(error.take().unwrap_or_else(|| Error::Internal("polled twice".to_owned()))),
            Self::Running(task) => match Pin::new(task).poll(cx) {
                Poll::Pending if finish => return Poll::Ready(Ok(None)),
                done => {
                    ready!(done).unwrap_or_else(|error| Err(Error::Internal(format!("the request failed: {error}"))))
                }
            },
        };
        Poll::Ready(match outcome {
            Ok(fetched) => respond(store, fetched).map(|response| Some(Ok(response))),
            Err(error) => Ok(Some(Err(error))),
        })
    }
}

/// Gives the guest the head and the two ends of the body.
fn respond<D: 'static>(mut store: StoreContextMut<'_, D>, fetched: Fetched) -> Result<wit::Response> {
    let mut body = fetched.body;
    let chunks = futures::stream::poll_fn(move |cx| body.poll_recv(cx));
    let (ended, end) = oneshot::channel();
    let reader = tokio_util::io::StreamReader::new(chunks);
    let end = async move { Ok::<_, wasmtime::Error>(end.await.unwrap_or(Ok(()))) };
    Ok(wit::Response {
        status: fetched.status,
        headers: fetched.headers,
        body: StreamReader::new(&mut store, ByteSource { reader, ended: Some(ended) })?,
        end: FutureReader::new(&mut store, end)?,
    })
}
