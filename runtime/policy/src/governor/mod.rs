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
//! | `room` | what can be promised, and what can be made free for it |
//! | `residents` | what the models hold, from their promise to their end; `model` is what is remembered of one |
//! | `ladder` | what is given back, cheapest first, and what is left to decay |
//! | `leave` | which unloads are taken back, and which answers are ended for them |
//! | `tenants` | the leases of apps: tightening, deadlines; `app` is what is remembered of one, and what its word is worth |
//! | `strain` | which models may compute: those whose weights fit into memory |
//! | `climate` | heat and power |
//! | `fair` | whose turn it is |
//! | `rules` | the named rules of the playbook |

mod action;
mod admit;
mod app;
mod climate;
mod config;
mod event;
mod fair;
mod gauge;
mod ladder;
mod leave;
mod model;
pub mod record;
mod residents;
mod room;
mod rules;
mod snapshot;
mod strain;
mod tenants;

use std::collections::{BTreeMap, VecDeque};

pub use self::{
    action::{Action, Consequence, Decision, Gate, Level, Recovery, Refusal, Rule, Rung, Throttle, Tightening},
    config::Config,
    event::{
        Activity, Answer, AppStart, Class, Event, KernelLevel, LoadRequest, ModelUse, Need, Sample, Stall, StepId,
        Thermal, TicketId,
    },
    snapshot::{AppView, HoldView, ModelView, Snapshot},
};
use self::{
    admit::{Waiting, Wish},
    app::App,
    fair::Fairness,
    gauge::Gauge,
    ladder::Step,
    model::{Model, State},
    rules::Rules,
};
use crate::{
    bytes::Bytes,
    ledger::{AppId, Ledger, ModelDigest},
};

/// Decisions that are kept to be explained.
const DECISIONS_KEPT: usize = 64;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Governor {
    config: Config,
    ledger: Ledger,
    /// The time of the last event, as it was said.
    clock: u64,
    /// The time that has passed: unlike `clock` it never goes back.
    now: u64,
    gauge: Gauge,
    sample: Option<Sample>,
    /// The last reading is older than the last change that it would show.
    stale: bool,
    /// No reading before this shows the last change.
    settle_until: u64,
    /// Bytes taken since the last reading, and between the last two.
    unseen: [Bytes; 2],
    /// Alarms that the ladder has answered.
    answered: u64,
    models: BTreeMap<ModelDigest, Model>,
    /// Models that went within the cool-down of their last load: when that was, and whether it was an early one.
    gone: BTreeMap<ModelDigest, (u64, bool)>,
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
            clock: 0,
            now: 0,
            gauge: Gauge::new(),
            sample: None,
            stale: false,
            settle_until: 0,
            unseen: [Bytes::ZERO; 2],
            answered: 0,
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

    /// Takes an event at `now_ms` and says what is to be done. A clock that jumps back goes on from there; what is waited for
    /// does not run out while the machine sleeps. Events that name what is not there (a step that was answered before, an app
    /// that has stopped) change nothing; tickets are answered all the same.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        self.pass_time(now_ms);
        let mut out = Vec::new();
        // What an app does by itself, however often, costs no look at the whole ladder.
        let look = !matches!(
            event,
            Event::Guest { .. }
                | Event::Sessions { .. }
                | Event::Pools { .. }
                | Event::Used { .. }
                | Event::Answer { .. }
        );
        self.take(event, &mut out);
        self.expire_steps();
        self.expire_loads(&mut out);
        self.serve(&mut out);
        if look {
            self.climb(&mut out);
        }
        self.let_go_of_idle(&mut out);
        self.hold_back();
        self.watch_leaving(&mut out);
        self.watch_deadlines(&mut out);
        self.restore(&mut out);
        self.set_throttles(&mut out);
        out
    }

    fn pass_time(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.clock);
        self.clock = now_ms;
        self.now = self.now.saturating_add(passed);
        if passed > gauge::SLEPT_MS {
            self.gauge.slept();
            // Nobody could answer meanwhile.
            let later = |at: &mut u64| *at = at.saturating_add(passed);
            self.steps.values_mut().for_each(|step| later(&mut step.since));
            self.models.values_mut().filter(|model| model.is_loading()).for_each(|model| later(&mut model.loaded_at));
            self.waiting.iter_mut().for_each(|waiting| later(&mut waiting.since));
            self.apps.values_mut().for_each(|app| app.wait_longer(passed));
        }
    }

    fn take(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Sample(sample) => self.read(sample, out),
            Event::Kernel { level } => {
                let before = self.gauge.level;
                self.gauge.kernel(self.now, level);
                self.level_changed(before, out);
            }
            Event::Load(request) => self.ask(request.ticket, Wish::Load(request), out),
            Event::Grow { ticket, model, kv } => self.ask(ticket, Wish::Grow { model, kv }, out),
            Event::Cancel { ticket } => self.waiting.retain(|waiting| waiting.ticket != ticket),
            Event::Loaded { model, holds, took_ms } => self.loaded(&model, &holds, took_ms, out),
            Event::LoadFailed { model } => self.load_failed(&model),
            Event::Active { model, activity } => self.active(&model, activity),
            Event::Done { step, freed, holds } => self.done(step, freed, holds.as_deref()),
            Event::Kept { step } => self.kept(step),
            Event::Failed { step, reason } => self.failed(step, &reason),
            Event::Lost { model } => self.lost(&model),
            Event::Released { model } => self.release(&model),
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
        self.notice_unwired(&sample);
        let clean = self.clean().min(sample.own_file);
        self.absorb_excess();
        let (wired, excess) = (self.wired(), self.excess());
        self.gauge.read(self.now, &sample, clean, wired, excess, &self.config);
        let spoke = self.rules.read(self.now, &sample, &self.config);
        self.sample = Some(sample);
        self.unseen = [Bytes::ZERO, self.unseen[0]];
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
        let general = climate::throttle(self.gauge.level, self.sample.as_ref(), fewer, hold, &self.config);
        let too_hot = climate::is_critical(self.sample.as_ref());
        for (digest, model) in &mut self.models {
            let pauses = model.held_since.is_some() || too_hot && model.activity.interactive == 0;
            let wanted = Throttle { n_seq: if pauses { Some(0) } else { general.n_seq }, ..general };
            // What leaves takes nothing on any more; whether it computes is still decided here.
            let matters = model.is_resident() || model.state == State::Leaving && model.throttle.n_seq != wanted.n_seq;
            if matters && model.throttle != wanted {
                model.throttle = wanted;
                out.push(Action::Throttle { model: digest.clone(), throttle: wanted });
            }
        }
    }

    /// Bytes that were promised and taken since the last two readings: no reading is sure to show them.
    fn unseen(&self) -> Bytes {
        self.unseen[0].saturating_add(self.unseen[1])
    }

    /// Like [`Self::decide`], for what an app can cause as often as it likes: it is kept once.
    fn decide_again(&mut self, what: String, why: String) {
        self.decisions.retain(|decision| decision.what != what);
        self.decide(what, why);
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
