//! Runs of apps, as far as memory goes: their leases, what they answer, and what is done to them at a deadline.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use locara_apps::{BudgetAnswer, BudgetState, Lease, LeaseEnd, RunControl};
use locara_policy::{
    Bytes,
    governor::{Answer, AppStart, Class, Consequence, Event, Refusal, Tightening},
    ledger::AppId,
};
use tokio::task::JoinHandle;

use super::governed::Governed;

/// What an app is promised when it starts.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Its id.
    pub(crate) app: String,
    /// Guaranteed, bytes.
    pub(crate) floor: u64,
    /// Declared, bytes.
    pub(crate) ceiling: u64,
    /// Whether somebody waits for it.
    pub(crate) class: Class,
}

/// One run.
#[derive(Debug)]
struct Run {
    lease: Lease,
    control: Option<RunControl>,
}

/// The runs of this host.
#[derive(Debug)]
pub(crate) struct Tenants {
    governed: Arc<Governed>,
    runs: Mutex<HashMap<String, HashMap<u64, Run>>>,
    next: std::sync::atomic::AtomicU64,
}

/// A run that was let in. Dropping it tells the governor that it has ended.
#[derive(Debug)]
pub(crate) struct Tenancy {
    tenants: Arc<Tenants>,
    app: String,
    id: u64,
    listeners: Vec<JoinHandle<()>>,
}

impl Tenants {
    pub(crate) fn new(governed: Arc<Governed>) -> Arc<Self> {
        Arc::new(Self { governed, runs: Mutex::default(), next: 1.into() })
    }

    /// Lets a run in, or says why not. The lease's end goes into the run's invocation.
    pub(crate) fn admit(self: &Arc<Self>, terms: &Terms) -> Result<(Tenancy, LeaseEnd), Refusal> {
        let Terms { app, floor, ceiling, class } = terms.clone();
        let start = |ticket| {
            Event::AppStart(AppStart {
                ticket,
                app: AppId(app.clone()),
                floor: Bytes(floor),
                ceiling: Bytes(ceiling),
                class,
                visible: class == Class::Interactive,
            })
        };
        self.governed.ask_now(start)?;
        let (lease, end) =
            Lease::new(BudgetState { visible: class == Class::Interactive, ..BudgetState::calm(ceiling) });
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (mut answers, mut pools) = (lease.answers(), lease.pools_changed());
        let run = Run { lease, control: None };
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).entry(app.clone()).or_default().insert(id, run);
        let (governed, of) = (Arc::downgrade(&self.governed), app.clone());
        let heard = tokio::spawn(async move {
            while answers.changed().await.is_ok() {
                let Some(newest) = answers.borrow_and_update().clone() else { continue };
                let Some(governed) = governed.upgrade() else { return };
                let answer = translated(&newest.answer);
                governed.tell(Event::Answer { app: AppId(of.clone()), epoch: newest.epoch, answer });
            }
        });
        let (governed, of) = (Arc::downgrade(&self.governed), app.clone());
        let offered = tokio::spawn(async move {
            while pools.changed().await.is_ok() {
                let reclaimable = pools.borrow_and_update().iter().map(|pool| Bytes(pool.reclaimable)).sum();
                let Some(governed) = governed.upgrade() else { return };
                governed.tell(Event::Pools { app: AppId(of.clone()), reclaimable });
            }
        });
        Ok((Tenancy { tenants: self.clone(), app, id, listeners: vec![heard, offered] }, end))
    }

    /// A new epoch, to every run of the app.
    pub(crate) fn tighten(&self, app: &AppId, tightening: &Tightening) {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        for run in runs.get(&app.0).into_iter().flat_map(HashMap::values) {
            run.lease.tighten(|state| {
                state.epoch = tightening.epoch;
                state.origin_ms = tightening.origin_ms as f64;
                state.level = tightening.level;
                state.cause.clone_from(&tightening.cause);
                state.limit = tightening.limit.get();
                state.usage = tightening.usage.get();
                state.release = tightening.release.get();
                state.deadline_ms = tightening.deadline_ms;
                state.visible = tightening.visible;
                state.on_deadline = tightening.on_deadline;
            });
        }
    }

    /// Does to every run of the app what was announced.
    pub(crate) fn enforce(&self, app: &AppId, what: Consequence, reason: &str) {
        self.each(app, |control| match what {
            Consequence::Nothing => {}
            Consequence::DropCaches => {
                control.drop_caches();
            }
            Consequence::Suspend => {
                control.drop_caches();
                control.suspend();
            }
            Consequence::Stop => control.cancel(format!("the machine ran out of memory: {reason}")),
        });
    }

    /// Lets every run of the app go on.
    pub(crate) fn resume(&self, app: &AppId) {
        self.each(app, RunControl::resume);
    }

    fn each(&self, app: &AppId, act: impl Fn(&RunControl)) {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.get(&app.0).into_iter().flat_map(HashMap::values).filter_map(|run| run.control.as_ref()).for_each(act);
    }
}

impl Tenancy {
    /// The run has begun: from now on it can be suspended and stopped, and what its conversations hold is known.
    pub(crate) fn began(&mut self, control: RunControl, kv_bytes_per_token: impl Fn() -> u64 + Send + 'static) {
        let mut usage = control.usage_changes();
        let (governed, app) = (Arc::downgrade(&self.tenants.governed), AppId(self.app.clone()));
        self.listeners.push(tokio::spawn(async move {
            while usage.changed().await.is_ok() {
                let tokens = usage.borrow_and_update().kv_tokens;
                let Some(governed) = governed.upgrade() else { return };
                let kv = Bytes(tokens.saturating_mul(kv_bytes_per_token()));
                governed.tell(Event::Sessions { app: app.clone(), kv });
            }
        }));
        let mut runs = self.tenants.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = runs.get_mut(&self.app).and_then(|runs| runs.get_mut(&self.id)) {
            run.control = Some(control);
        }
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
        let mut runs = self.tenants.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_app) = runs.get_mut(&self.app) {
            of_app.remove(&self.id);
            if of_app.is_empty() {
                runs.remove(&self.app);
            }
        }
        drop(runs);
        self.tenants.governed.tell(Event::AppStop { app: AppId(self.app.clone()) });
    }
}

/// An answer in the governor's words.
fn translated(answer: &BudgetAnswer) -> Answer {
    match *answer {
        BudgetAnswer::Pledge { release, eta_ms } => Answer::Pledge { release: Bytes(release), eta_ms },
        BudgetAnswer::Done(bytes) => Answer::Done(Bytes(bytes)),
        BudgetAnswer::Defer(ms) => Answer::Defer(ms),
    }
}
