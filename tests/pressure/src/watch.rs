//! Looks at a group and at the host in it every 50 ms.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    group::{Group, Usage},
    parse::status_bytes,
};

const LOOK: Duration = Duration::from_millis(50);

/// One look, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    pub(crate) group: Usage,
    /// The host's own; zero before it starts and after it has ended.
    pub(crate) anonymous: u64,
    pub(crate) file: u64,
    pub(crate) swapped: u64,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    host: Arc<AtomicU32>,
    looks: Arc<Mutex<Vec<Look>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(group: Arc<Group>) -> Self {
        let (stop, host, looks) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<Look>>>::default());
        let (stopped, pid, seen) = (stop.clone(), host.clone(), looks.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let look = look(&group, pid.load(Ordering::Acquire));
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                std::thread::sleep(LOOK);
            }
        });
        Self { stop, host, looks, thread: Some(thread) }
    }

    /// The host to look at.
    pub(crate) fn host(&self, pid: u32) {
        self.host.store(pid, Ordering::Release);
    }

    /// The last look.
    pub(crate) fn now(&self) -> Look {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).last().copied().unwrap_or_default()
    }

    /// All of them, in order.
    pub(crate) fn looks(&self) -> Vec<Look> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(group: &Group, pid: u32) -> Look {
    let status = match pid {
        0 => String::new(),
        pid => fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(),
    };
    let bytes = |key| status_bytes(&status, key).unwrap_or(0);
    Look {
        group: group.usage().unwrap_or_default(),
        anonymous: bytes("RssAnon"),
        file: bytes("RssFile"),
        swapped: bytes("VmSwap"),
    }
}
