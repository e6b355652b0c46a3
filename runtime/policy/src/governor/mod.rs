//! The governor: one pure state machine that decides who may hold memory, and what is given back when it gets tight.
//!
//! ```text
//! Event ─► Governor::handle(now_ms, event) ─► [Action]
//! ```
//!
//! It holds the ledger, the leases of the apps, the tickets that wait, the pressure level and the steps that were asked for.
//! It **does no I/O, reads no clock and starts no thread**; the daemon carries its actions out and reports what came of
//! them. The same events give the same actions, byte for byte: [`record`] writes a log that [`replay`](record::replay)
//! proves.
//!
//! | module | decides |
//! | --- | --- |
//! | `gauge` | the pressure level, from readings |
//! | `admit` | what may be loaded or grow, what waits, what is refused |
//! | `ladder` | what is given back, cheapest first, and what is left to decay |
//! | `tenants` | the leases of apps: tightening, deadlines, trust |
//! | `climate` | heat and power |
//! | `fair` | whose turn it is |
//! | `rules` | the named rules of the playbook |

mod action;
mod admit;
mod climate;
mod config;
mod event;
mod fair;
mod gauge;
mod ladder;
pub mod record;
mod rules;
mod snapshot;
mod tenants;

use std::collections::{BTreeMap, VecDeque};

pub use self::{
    action::{Action, Consequence, Decision, Gate, Level, Recovery, Refusal, Rule, Rung, Throttle, Tightening},
    climate::may_prefetch,
    config::Config,
    event::{
        Activity, Answer, AppStart, Class, Event, KernelLevel, LoadRequest, ModelUse, Need, Sample, Stall, StepId,
        Thermal, TicketId,
    },
    snapshot::{AppView, HoldView, ModelView, Snapshot},
};
use self::{
    admit::Waiting,
    fair::Fairness,
    gauge::Gauge,
    ladder::{Model, Step},
    rules::Rules,
    tenants::App,
};
use crate::{
    bytes::Bytes,
    ledger::{AppId, Kind, Ledger, ModelDigest},
};

/// Decisions that are kept to be explained.
const DECISIONS_KEPT: usize = 64;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Governor {
    config: Config,
    ledger: Ledger,
    now: u64,
    gauge: Gauge,
    sample: Option<Sample>,
    /// The last reading is older than the last change that it would show.
    stale: bool,
    /// No reading before this shows the last change.
    settle_until: u64,
    models: BTreeMap<ModelDigest, Model>,
    /// When models that are gone were loaded last: they do not come back before their cool-down.
    gone: BTreeMap<ModelDigest, u64>,
    apps: BTreeMap<AppId, App>,
    waiting: Vec<Waiting>,
    steps: BTreeMap<StepId, Step>,
    next_step: u64,
    /// The `L` of `GreedyDual`: the value of the last victim.
    inflation: u64,
    fair: Fairness,
    rules: Rules,
    decisions: VecDeque<Decision>,
}

impl Governor {
    /// A governor of a machine on which nothing is held yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            ledger: Ledger::new(config.cap),
            config,
            now: 0,
            gauge: Gauge::new(),
            sample: None,
            stale: false,
            settle_until: 0,
            models: BTreeMap::new(),
            gone: BTreeMap::new(),
            apps: BTreeMap::new(),
            waiting: Vec::new(),
            steps: BTreeMap::new(),
            next_step: 1,
            inflation: 0,
            fair: Fairness::default(),
            rules: Rules::default(),
            decisions: VecDeque::new(),
        }
    }

    /// Its bounds and times.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }
    /// The account of every byte.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }
    /// How tight memory is.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.gauge.level
    }
    /// Everything that explains the state now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        snapshot::take(self)
    }

    /// Takes an event at `now_ms` and says what is to be done. A clock that jumps back stands still; events that name
    /// what is not there (a step that was answered before, an app that has stopped) change nothing.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        self.now = self.now.max(now_ms);
        let mut out = Vec::new();
        self.take(event, &mut out);
        self.expire_steps();
        self.serve(&mut out);
        self.climb(&mut out);
        self.let_go_of_idle(&mut out);
        self.watch_deadlines(&mut out);
        self.restore(&mut out);
        self.set_throttles(&mut out);
        out
    }

    fn take(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Sample(sample) => self.read(sample, out),
            Event::Kernel { level } => {
                let before = self.gauge.level;
                self.gauge.kernel(self.now, level);
                self.level_changed(before, out);
            }
            Event::Load(request) => self.ask_load(request, out),
            Event::Grow { ticket, model, kv } => self.ask_growth(ticket, model, kv, out),
            Event::Cancel { ticket } => self.waiting.retain(|waiting| waiting.ticket != ticket),
            Event::Loaded { model, holds, took_ms } => self.loaded(&model, &holds, took_ms, out),
            Event::LoadFailed { model } => self.load_failed(&model),
            Event::Active { model, activity } => self.active(&model, activity),
            Event::Done { step, freed, holds } => self.done(step, freed, holds.as_deref()),
            Event::Failed { step, reason } => self.failed(step, &reason),
            Event::Lost { model } => self.lost(&model),
            Event::AppStart(start) => self.start_app(start, out),
            Event::AppStop { app } => self.stop_app(&app),
            Event::Visible { app, visible } => {
                if let Some(app) = self.apps.get_mut(&app) {
                    app.visible = visible;
                }
            }
            Event::Guest { ticket, app, bytes } => self.guest(ticket, &app, bytes, out),
            Event::Sessions { app, kv } => {
                if let Some(app) = self.apps.get_mut(&app) {
                    app.kv = kv;
                }
            }
            Event::Pools { app, reclaimable } => {
                if let Some(app) = self.apps.get_mut(&app) {
                    app.reclaimable = reclaimable;
                }
            }
            Event::Answer { app, epoch, answer } => self.answer(&app, epoch, answer),
            Event::Used { app, model, device_ms, kv_mb_s, ttft_ms } => {
                let visible = self.apps.get(&app).is_some_and(|app| app.visible);
                self.fair.charge(&app, visible, device_ms, kv_mb_s);
                self.touch(&model);
                let spoke = self.rules.answered(ttft_ms);
                self.advise(spoke, out);
            }
            Event::Killed { unix_s } => {
                let spoke = self.rules.killed(unix_s);
                self.advise(spoke, out);
            }
        }
    }

    fn read(&mut self, sample: Sample, out: &mut Vec<Action>) {
        let before = self.gauge.level;
        let clean = self.clean().min(sample.own_file);
        let excess = self.models.values().map(|model| model.excess).sum();
        self.gauge.read(self.now, &sample, clean, excess, &self.config);
        let spoke = self.rules.read(self.now, &sample, &self.config);
        self.sample = Some(sample);
        if self.now >= self.settle_until {
            self.stale = false;
        }
        self.advise(spoke, out);
        self.level_changed(before, out);
    }

    fn level_changed(&mut self, before: Level, out: &mut Vec<Action>) {
        let level = self.gauge.level;
        if level == before {
            return;
        }
        let cause =
            if self.gauge.cause.is_empty() { "memory is free again".to_owned() } else { self.gauge.cause.clone() };
        self.decide(format!("level {before} → {level}"), cause);
        self.cut_leases(before, out);
    }

    fn advise(&mut self, spoke: impl IntoIterator<Item = (Rule, String)>, out: &mut Vec<Action>) {
        for (rule, advice) in spoke {
            self.decide(format!("rule {rule}"), advice.clone());
            out.push(Action::Advise { rule, advice });
        }
    }

    fn set_throttles(&mut self, out: &mut Vec<Action>) {
        let fewer = self.rules.holds(Rule::RssHigh);
        let hold = self.rules.holds(Rule::SwapGrowth);
        let wanted = climate::throttle(self.gauge.level, self.sample.as_ref(), fewer, hold, &self.config);
        for (digest, model) in &mut self.models {
            if model.is_resident() && model.throttle != wanted {
                model.throttle = wanted;
                out.push(Action::Throttle { model: digest.clone(), throttle: wanted });
            }
        }
    }

    /// Pages of weights that are part of what the system calls available and are to stay: those of models that were not
    /// evicted softly. While a GPU works on them they are wired, and not available.
    fn clean(&self) -> Bytes {
        let counted = |model: &&Model| {
            model.is_resident() && !model.pages_dropped && !(self.config.wires_weights && model.activity.is_busy())
        };
        let file = |model: &Model| model.held(&self.ledger, Kind::is_file_backed);
        self.models.values().filter(counted).map(file).sum()
    }

    /// Anonymous bytes that were promised and are not allocated yet, so that no reading shows them.
    fn promised(&self) -> Bytes {
        self.ledger.entries().filter(|(_, entry)| !entry.committed).map(|(_, entry)| entry.bytes).sum()
    }

    /// Bytes guaranteed to apps that they do not hold yet, `except` one's.
    fn unused_floors(&self, except: Option<&AppId>) -> Bytes {
        let others = self.apps.iter().filter(|(id, _)| Some(*id) != except);
        others.map(|(_, app)| app.lease.floor().saturating_sub(app.own())).sum()
    }

    /// What may be promised now, and what bounds it. `app`'s own floor does not stand in its way.
    fn room(&self, app: Option<&AppId>) -> (Bytes, &'static str) {
        let floors = self.unused_floors(app);
        let ledger = self.ledger.available().saturating_sub(floors);
        let Some(sample) = &self.sample else { return (ledger, "the cap of the host") };
        let clean = self.clean();
        let outlook = self.gauge.outlook(sample, clean, &self.config);
        let taken = [self.config.reserve, self.promised(), floors, outlook.falling].into_iter().sum();
        let system = outlook.spare.saturating_sub(taken);
        if system < ledger { (system, "available without swapping") } else { (ledger, "the cap of the host") }
    }

    fn decide(&mut self, what: impl Into<String>, why: impl Into<String>) {
        if self.decisions.len() == DECISIONS_KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decision {
            at_ms: self.now,
            level: self.gauge.level,
            what: what.into(),
            why: why.into(),
        });
    }
}
