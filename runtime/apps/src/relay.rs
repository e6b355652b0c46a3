//! Bytes and items between the host's channels and a guest's streams. Every queue here is bounded.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::sync::PollSender;
use wasmtime::component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult, VecBuffer};
use wasmtime::{Result, StoreContextMut};

use crate::bindings::types::Error;
use crate::capability::Orderly;

/// Most bytes that are taken from a guest or given to it in one step.
pub(crate) const CHUNK: usize = 64 << 10;

/// Chunks that wait between a guest's stream and whoever reads it.
pub(crate) const QUEUE: usize = 8;

/// The outcome of a stream, sent once, when it has ended.
pub(crate) type Outcome = oneshot::Sender<std::result::Result<(), Error>>;

/// Items that the guest reads, from any Rust stream.
pub(crate) struct Items<T>(pub(crate) BoxStream<'static, T>);

impl<D, T: Send + Sync + 'static> StreamProducer<D> for Items<T> {
    type Item = T;
    type Buffer = VecBuffer<T>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, T, VecBuffer<T>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match self.0.as_mut().poll_next(cx) {
            Poll::Ready(Some(item)) => {
                destination.set_buffer(vec![item].into());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(None) => Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Bytes that the guest reads. `ended` hears how it went when the source is at its end or breaks.
pub(crate) struct ByteSource<R> {
    pub(crate) reader: R,
    pub(crate) ended: Option<Outcome>,
}

impl<D: 'static, R: AsyncRead + Send + Unpin + 'static> StreamProducer<D> for ByteSource<R> {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        destination: Destination<'a, u8, VecBuffer<u8>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        let mut direct = destination.as_direct(store, CHUNK);
        let room = direct.remaining().len().min(CHUNK);
        if room == 0 {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut buffer = ReadBuf::new(&mut direct.remaining()[..room]);
        let read = Pin::new(&mut self.reader).poll_read(cx, &mut buffer);
        let filled = buffer.filled().len();
        match read {
            Poll::Ready(Ok(())) if filled > 0 => {
                direct.mark_written(filled);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(outcome) => {
                if let Some(ended) = self.ended.take() {
                    // Nobody listens any more: then nobody misses it.
                    let _ = ended.send(outcome.map_err(|error| io_error(&error)));
                }
                Poll::Ready(Ok(StreamResult::Dropped))
            }
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What [`ByteSink`] asks about each chunk before it is taken.
pub(crate) type Admit = Box<dyn FnMut(usize) -> std::result::Result<(), Error> + Send>;

/// Bytes that the guest writes, handed on in chunks. A slow reader holds the guest back, nothing else.
///
/// The channel closes when the guest closes its stream, when a chunk is refused, or when the store is dropped. `ended`
/// is told which; a dropped store looks like a closed stream from here, so the run says which it is ([`Orderly`]).
pub(crate) struct ByteSink {
    sender: PollSender<Bytes>,
    admit: Admit,
    ended: Option<Outcome>,
    orderly: Orderly,
}

impl ByteSink {
    pub(crate) fn new(
        sender: tokio::sync::mpsc::Sender<Bytes>,
        admit: Admit,
        ended: Outcome,
        orderly: Orderly,
    ) -> Self {
        Self { sender: PollSender::new(sender), admit, ended: Some(ended), orderly }
    }

    fn end(&mut self, error: Error) -> Poll<Result<StreamResult>> {
        self.tell(Err(error));
        self.sender.close();
        Poll::Ready(Ok(StreamResult::Dropped))
    }

    fn tell(&mut self, outcome: std::result::Result<(), Error>) {
        if let Some(ended) = self.ended.take() {
            // Nobody listens any more: then nobody misses it.
            let _ = ended.send(outcome);
        }
    }
}

impl Drop for ByteSink {
    fn drop(&mut self) {
        let whole = self.orderly.holds();
        self.tell(if whole {
            Ok(())
        } else {
            Err(Error::Interrupted("the run ended before the stream did".to_owned()))
        });
    }
}

impl<D: 'static> StreamConsumer<D> for ByteSink {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        let reserved = match self.sender.poll_reserve(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            other => ready!(other),
        };
        if reserved.is_err() {
            return self.end(Error::Interrupted("nobody reads this any more".to_owned()));
        }
        let mut direct = source.as_direct(store);
        let taken = direct.remaining().len().min(CHUNK);
        if taken == 0 {
            self.sender.abort_send();
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        if let Err(error) = (self.admit)(taken) {
            return self.end(error);
        }
        let chunk = Bytes::copy_from_slice(&direct.remaining()[..taken]);
        direct.mark_read(taken);
        // A place was reserved above; a reader that went away since then is found at the next chunk.
        let _ = self.sender.send_item(chunk);
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// What a guest hears of a failed read or write. The texts of the operating system name no paths.
pub(crate) fn io_error(error: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => Error::NotFound("there is no such file or folder".to_owned()),
        ErrorKind::QuotaExceeded => Error::QuotaExceeded(error.to_string()),
        ErrorKind::TimedOut | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => {
            Error::Interrupted(error.to_string())
        }
        ErrorKind::PermissionDenied
        | ErrorKind::InvalidInput
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::AlreadyExists => Error::InvalidRequest(error.to_string()),
        _ => Error::Internal(error.to_string()),
    }
}
