//! The thread that interrupts computing guests.
//!
//! A thread of its own, not a timer of the async runtime: a runtime whose workers all run busy guests fires no timers. It
//! sleeps while no app runs: a machine on battery must not be woken 200 times a second for nothing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::Engine;

/// How often a computing guest is interrupted.
const TICK: Duration = Duration::from_millis(5);

/// The thread's end of the host. Dropping it ends the thread.
pub(crate) struct Ticker(Arc<Shared>);

/// The wish that guests are interrupted, as long as it lives.
pub(crate) struct Ticking(Arc<Shared>);

#[derive(Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    runs: usize,
    over: bool,
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until some app runs. False when the host is gone.
    fn awaited(&self) -> bool {
        let idle = |wanted: &mut Wanted| wanted.runs == 0 && !wanted.over;
        let wanted = self.changed.wait_while(self.wanted(), idle).unwrap_or_else(PoisonError::into_inner);
        !wanted.over
    }
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        // Weak: the thread must not keep the engine of a host that is gone.
        let (engine, of_thread) = (engine.weak(), shared.clone());
        std::thread::Builder::new().name("locara-ticker".to_owned()).spawn(move || {
            while of_thread.awaited() {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })?;
        Ok(Self(shared))
    }

    pub(crate) fn ticking(&self) -> Ticking {
        self.0.wanted().runs += 1;
        self.0.changed.notify_one();
        Ticking(self.0.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.wanted().over = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.wanted().runs -= 1;
    }
}
