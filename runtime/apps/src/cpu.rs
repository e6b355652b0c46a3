//! CPU time of a guest between two awaits.
//!
//! A guest that computes is interrupted at every tick of the epoch: it yields to the other tasks of its worker thread,
//! and traps when it has computed longer than its manifest allows without awaiting anything. CPU time of the thread is
//! measured, not wall time: a machine that is busy with a model must not trap an app that was merely not scheduled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use wasmtime::UpdateDeadline;

use crate::error::Stop;

/// CPU time of one instance. Written by the one task that owns its store; atomics only because the store must be `Sync`.
#[derive(Debug)]
pub(crate) struct CpuTime {
    limit_us: u64,
    /// Earlier polls of the slice that now runs.
    slice_us: AtomicU64,
    total_us: AtomicU64,
    poll_began_us: AtomicU64,
    /// The guest gave way during this poll although it had more to compute.
    interrupted: AtomicBool,
}

impl CpuTime {
    /// `limit`: what one slice may take.
    pub(crate) fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            limit_us: u64::try_from(limit.as_micros()).unwrap_or(u64::MAX),
            slice_us: AtomicU64::new(0),
            total_us: AtomicU64::new(0),
            poll_began_us: AtomicU64::new(0),
            interrupted: AtomicBool::new(false),
        })
    }

    /// CPU time of all slices that have ended.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_micros(self.total_us.load(Relaxed))
    }

    /// What happens at an epoch tick while the guest computes.
    pub(crate) fn tick(&self) -> wasmtime::Result<UpdateDeadline> {
        let used = self.slice_us.load(Relaxed) + thread_cpu_us().saturating_sub(self.poll_began_us.load(Relaxed));
        if used > self.limit_us {
            return Err(wasmtime::Error::new(Stop::Cpu { used_ms: used / 1000, limit_ms: self.limit_us / 1000 }));
        }
        self.interrupted.store(true, Relaxed);
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    }

    fn begin(&self, now_us: u64) {
        self.poll_began_us.store(now_us, Relaxed);
        self.interrupted.store(false, Relaxed);
    }

    fn end(&self, now_us: u64) {
        let spent = now_us.saturating_sub(self.poll_began_us.load(Relaxed));
        self.total_us.fetch_add(spent, Relaxed);
        if self.interrupted.load(Relaxed) {
            self.slice_us.fetch_add(spent, Relaxed);
        } else {
            // It awaits something: the next time it computes is a new slice.
            self.slice_us.store(0, Relaxed);
        }
    }
}

/// Measures every poll of `inner`, the future that runs a guest.
pub(crate) struct Metered<F> {
    inner: Pin<Box<F>>,
    cpu: Arc<CpuTime>,
}

impl<F: Future> Metered<F> {
    pub(crate) fn new(cpu: Arc<CpuTime>, inner: F) -> Self {
        Self { inner: Box::pin(inner), cpu }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.cpu.begin(thread_cpu_us());
        let result = self.inner.as_mut().poll(cx);
        self.cpu.end(thread_cpu_us());
        result
    }
}

/// CPU time of this thread, µs.
fn thread_cpu_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_polls_add_up_and_an_await_starts_anew() {
        let cpu = CpuTime::new(Duration::from_millis(10));
        cpu.begin(0);
        cpu.interrupted.store(true, Relaxed);
        cpu.end(4000);
        assert_eq!(cpu.slice_us.load(Relaxed), 4000);
        cpu.begin(9000);
        cpu.interrupted.store(true, Relaxed);
        cpu.end(12000);
        assert_eq!(cpu.slice_us.load(Relaxed), 7000);
        cpu.begin(20000);
        cpu.end(21000);
        assert_eq!(cpu.slice_us.load(Relaxed), 0);
        assert_eq!(cpu.total(), Duration::from_millis(8));
    }

    #[test]
    fn a_slice_over_the_limit_traps_with_the_numbers() {
        let cpu = CpuTime::new(Duration::from_millis(10));
        cpu.slice_us.store(11_000, Relaxed);
        cpu.begin(thread_cpu_us());
        let stop = cpu.tick().err().and_then(|error| error.downcast::<Stop>().ok());
        assert!(matches!(stop, Some(Stop::Cpu { used_ms: 11.., limit_ms: 10 })), "{stop:?}");
        cpu.slice_us.store(0, Relaxed);
        assert!(cpu.tick().is_ok());
    }
}
