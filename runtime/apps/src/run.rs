//! One run: a store, the task that owns it, and what the caller holds of it.
//!
//! Deadlines and cancelling are outside of the store: nothing inside it makes progress while its guest computes. The
//! only sure way to stop a guest is to drop its store, and after a trap the store is dropped too.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::{Either, select};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::{ResourceTable, StreamReader};
use wasmtime::{Result, Store};

use crate::capability::budget::{BudgetHeld, BudgetPolicy};
use crate::capability::files::{FilesPolicy, FilesState};
use crate::capability::http::{HttpPolicy, HttpState};
use crate::capability::inference::{Conversations, InferencePolicy, InferenceState};
use crate::capability::input::{Input, IoPolicy, IoState};
use crate::capability::log::{LogPolicy, LogState, QUEUE as LOG_QUEUE};
use crate::capability::output::{OutputCount, OutputPolicy, OutputState};
use crate::capability::progress::{Progress, ProgressPolicy, ProgressState};
use crate::capability::storage::{StoragePolicy, StorageState};
use crate::capability::system::{SystemPolicy, SystemState};
use crate::capability::{Capability, DeniedLog, Orderly, Shared};
use crate::control::{RunControl, Suspension, Wish, steer};
use crate::cpu::{CpuTime, Metered};
use crate::ctx::Ctx;
use crate::deliver::deliver;
use crate::error::{RunError, RunFailure};
use crate::host::{Entry, Inner, Prepared};
use crate::lease::LeaseEnd;
use crate::limiter::GuestMemory;
use crate::meter::Meter;
use crate::relay::{ByteSource, QUEUE};
use crate::report::{LogLine, RunReport, presentable};
use crate::usage::UsageGauge;
use crate::verdict::{Phase, classify};

/// Bytes that a guest may hand over in one host call: strings, lists and records of one call together.
const HOSTCALL_BYTES: usize = 4 << 20;
/// Resources, streams, futures and tasks that one instance may hold at once.
const MAX_HANDLES: usize = 4096;
/// Longest error text of an app.
const MAX_APP_ERROR: usize = 4096;

/// What an app is started with.
pub struct Invocation {
    /// Like those of a program, without its name.
    pub arguments: Vec<String>,
    /// Bytes to read; [`tokio::io::empty`] for none.
    pub input: Input,
    /// What it may hold, see [`crate::Lease`].
    pub lease: LeaseEnd,
}

/// A run that was started. Dropping it stops the run.
#[derive(Debug)]
pub struct RunHandle {
    /// Output as it is written. Bounded: an app waits while it is full.
    pub output: mpsc::Receiver<Bytes>,
    /// How far it has come.
    pub progress: watch::Receiver<Progress>,
    /// Log lines as they are written; lines that find it full are dropped here and kept in the report.
    pub logs: mpsc::Receiver<LogLine>,
    control: RunControl,
    task: Task,
}

impl RunHandle {
    /// Stops the run at once.
    pub fn cancel(&self, reason: impl Into<String>) {
        self.control.cancel(reason);
    }

    /// Steers the run from elsewhere; it does not keep the run alive.
    #[must_use]
    pub fn control(&self) -> RunControl {
        self.control.clone()
    }

    /// Waits for the end. The guest's memory is given back by then. Output that was not read is lost, and an app that
    /// writes more is told that nobody reads it; see [`Self::collect`] for the other way.
    ///
    /// # Errors
    /// Why the run did not end well, with its report.
    pub async fn outcome(self) -> std::result::Result<RunReport, RunFailure> {
        // The app shall hear that instead of waiting for a reader.
        drop(self.output);
        finished(self.task).await
    }

    /// Waits for the end and returns all output that came before it, also of a run that failed.
    pub async fn collect(mut self) -> (Vec<u8>, std::result::Result<RunReport, RunFailure>) {
        let mut output = Vec::new();
        while let Some(chunk) = self.output.recv().await {
            output.extend_from_slice(&chunk);
        }
        (output, finished(self.task).await)
    }
}

type Task = AbortOnDropHandle<std::result::Result<RunReport, RunFailure>>;

async fn finished(task: Task) -> std::result::Result<RunReport, RunFailure> {
    match task.await {
        Ok(outcome) => outcome,
        Err(error) => {
            let error = RunError::Host { reason: format!("the task of the run ended: {error}") };
            Err(RunFailure { error, report: RunReport::default() })
        }
    }
}

/// The host's ends of what a [`RunHandle`] holds.
struct Wires {
    output: mpsc::Sender<Bytes>,
    progress: watch::Sender<Progress>,
    logs: mpsc::Sender<LogLine>,
    wish: watch::Receiver<Wish>,
    conversations: Arc<Conversations>,
}

pub(crate) fn start(host: Arc<Inner>, app: Arc<Prepared>, invocation: Invocation) -> RunHandle {
    let (output_tx, output) = mpsc::channel(QUEUE);
    let (progress_tx, progress) = watch::channel(Progress::default());
    let (logs_tx, logs) = mpsc::channel(LOG_QUEUE);
    let conversations = Conversations::new(app.allowed.app.clone(), host.models.clone(), UsageGauge::default());
    let (control, wish) = RunControl::new(&conversations);
    let wires = Wires { output: output_tx, progress: progress_tx, logs: logs_tx, wish, conversations };
    let task = AbortOnDropHandle::new(tokio::spawn(drive(host, app, invocation, wires)));
    RunHandle { output, progress, logs, control, task }
}

/// How the waiting ended.
enum End {
    Guest(Result<std::result::Result<(), String>, (Phase, wasmtime::Error)>),
    Wall,
    Cancelled(String),
}

/// Revokes [`Orderly`] before the store is dropped, also when the task is aborted.
struct Revoke(Orderly);

impl Drop for Revoke {
    fn drop(&mut self) {
        self.0.revoke();
    }
}

async fn drive(
    host: Arc<Inner>,
    app: Arc<Prepared>,
    invocation: Invocation,
    wires: Wires,
) -> std::result::Result<RunReport, RunFailure> {
    let started = Instant::now();
    let limits = app.allowed.limits;
    let Invocation { arguments, input, lease } = invocation;
    let count = OutputCount::new(limits.output_bytes);
    let orderly = Orderly::new();
    let (ctx, input) = ctx(&host, &app, input, lease.clone(), &wires, &count, &orderly, started);
    let denied = ctx.shared.denied.clone();
    let tokens = ctx.inference.state.counters();
    let cpu = CpuTime::new(limits.cpu_slice);
    drop((wires.output, wires.logs, wires.progress, wires.conversations));

    let mut store = Store::new(&host.sandbox.engine, ctx);
    harden(&mut store, &cpu);
    let mut start = None;
    let mut suspension = Suspension::default();
    let end = {
        let ready = || start = Some(started.elapsed());
        let guest = pin!(Metered::new(cpu.clone(), guest(&mut store, &app, arguments, input, lease, ready)));
        let _revoke = Revoke(orderly);
        tokio::select! {
            biased;
            ended = steer(guest, wires.wish, &mut suspension, || host.sandbox.ticking()) => match ended {
                Ok(ended) => End::Guest(ended),
                Err(reason) => End::Cancelled(reason),
            },
            () = tokio::time::sleep(limits.wall) => End::Wall,
        }
    };

    let data = store.data_mut();
    let (logs, dropped_log_lines) = data.log.state.take();
    let mut report = RunReport {
        app: app.app().to_owned(),
        peak_guest_bytes: data.memory.peak(),
        host_calls: data.shared.meter.total(),
        logs,
        dropped_log_lines,
        ..RunReport::default()
    };
    let error = match end {
        End::Guest(Ok(Ok(()))) => None,
        End::Guest(Ok(Err(message))) => Some(RunError::App { message: presentable(&message, MAX_APP_ERROR) }),
        End::Guest(Err((phase, error))) => Some(classify(&error, phase, data.memory.denial())),
        End::Wall => Some(RunError::Wall { limit_s: limits.wall.as_secs() }),
        End::Cancelled(reason) => Some(RunError::Cancelled { reason }),
    };
    // Gives back the guest's memory, closes its sessions, cancels its answers.
    drop(store);
    report.wall = started.elapsed();
    report.start = start.unwrap_or_default();
    report.suspended = suspension.total();
    report.cpu = cpu.total();
    report.tokens = tokens.counts();
    report.output_bytes = count.taken();
    report.denied = denied.take();
    // An app that ran into its output limit did not do its work, whatever it says.
    match count.exceeded().map(|limit| RunError::Output { limit }).or(error) {
        None => Ok(report),
        Some(error) => {
            tracing::info!(app = report.app, %error, "a run ended with an error");
            Err(RunFailure { error, report })
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller; a struct of the same eight things would say it twice")]
fn ctx(
    host: &Inner,
    app: &Prepared,
    input: Input,
    lease: LeaseEnd,
    wires: &Wires,
    count: &Arc<OutputCount>,
    orderly: &Orderly,
    started: Instant,
) -> (Ctx, Option<Input>) {
    let allowed = &app.allowed;
    let limits = &allowed.limits;
    let mut table = ResourceTable::new();
    table.set_max_capacity(MAX_HANDLES);
    let (input, io, output) = match app.entry {
        Entry::Async { .. } => (Some(input), None, Some(wires.output.clone())),
        Entry::Sync { .. } => (None, Some(IoState { input, output: wires.output.clone(), count: count.clone() }), None),
    };
    let ctx = Ctx {
        memory: GuestMemory::new(
            allowed.app.clone(),
            host.ledger.clone(),
            wires.conversations.usage().clone(),
            limits.memory_bytes,
            limits.table_elements.into(),
        ),
        shared: Shared {
            meter: Meter::new(limits.host_calls_per_second, started),
            table,
            denied: DeniedLog::default(),
            orderly: orderly.clone(),
        },
        inference: Capability::new(
            InferenceState::new(wires.conversations.clone(), allowed),
            InferencePolicy { allowed: allowed.clone() },
        ),
        budget: Capability::new(BudgetHeld::new(lease), BudgetPolicy),
        storage: Capability::new(StorageState(app.storage.clone()), StoragePolicy),
        files: Capability::new(
            FilesState::new(),
            FilesPolicy { folders: app.folders.clone(), allowed: allowed.clone() },
        ),
        http: Capability::new(HttpState::new(host.clients.clone()), HttpPolicy { allowed: allowed.clone() }),
        log: Capability::new(LogState::new(started, wires.logs.clone()), LogPolicy { app: allowed.app.clone() }),
        progress: Capability::new(ProgressState(wires.progress.clone()), ProgressPolicy),
        system: Capability::new(SystemState { origin: host.origin }, SystemPolicy),
        output: Capability::new(OutputState { sender: output, count: count.clone() }, OutputPolicy),
        io: Capability::new(io, IoPolicy),
    };
    (ctx, input)
}

fn harden(store: &mut Store<Ctx>, cpu: &Arc<CpuTime>) {
    store.limiter(|ctx| &mut ctx.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(MAX_HANDLES);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(MAX_HANDLES);
    }
    store.set_epoch_deadline(1);
    let cpu = cpu.clone();
    store.epoch_deadline_callback(move |_| cpu.tick());
}

/// Instantiates, calls `ready`, and runs. Every poll of this is measured, see [`crate::cpu`].
async fn guest(
    store: &mut Store<Ctx>,
    app: &Prepared,
    arguments: Vec<String>,
    input: Option<Input>,
    lease: LeaseEnd,
    ready: impl FnOnce() + Send,
) -> std::result::Result<std::result::Result<(), String>, (Phase, wasmtime::Error)> {
    let start = |error| (Phase::Start, error);
    let run = |error| (Phase::Run, error);
    let instance = app.pre.instantiate_async(&mut *store).await.map_err(start)?;
    ready();
    match &app.entry {
        Entry::Sync { run: entry } => {
            let guest = entry.load(&mut *store, &instance).map_err(start)?;
            guest.call_run(store, &arguments).await.map_err(run)
        }
        Entry::Async { run: entry, events } => {
            let guest = entry.load(&mut *store, &instance).map_err(start)?;
            let listener =
                events.as_ref().map(|events| events.load(&mut *store, &instance)).transpose().map_err(start)?;
            let reader = input.unwrap_or_else(|| Box::new(tokio::io::empty()));
            let ran = store.run_concurrent(async |accessor| {
                let source = ByteSource { reader, ended: None };
                let input = accessor.with(|access| StreamReader::new(access, source))?;
                let run = pin!(guest.call_run(accessor, arguments, input));
                let Some(listener) = &listener else { return run.await };
                match select(run, pin!(deliver(accessor, listener, &lease))).await {
                    Either::Left((ran, _)) => ran,
                    Either::Right((trapped, _)) => trapped.map(|never| match never {}),
                }
            });
            ran.await.flatten().map_err(run)
        }
    }
}
