//! The governor of `locara-policy`, driven as the daemon drives it: one ticket for each app that waits for a model, samples
//! and activity in, actions out. It keeps a log that [`record::replay_log`] takes.

use std::collections::BTreeMap;

use locara_policy::{
    Bytes, Governor, Kind, Machine, defaults,
    governor::{
        self, Action, Activity, AppStart, Class, Config, Consequence, Event, KernelLevel, Level, LoadRequest, ModelUse,
        Need, Stall, StepId, Thermal, TicketId, record,
    },
    ledger::{AppId, ModelDigest},
};

use crate::{
    fleet::{Kind as AppKind, Laptop},
    host::{Host, Phase},
    memory::Warning,
    policy::{Answer, Cause, Command, Gate, Happened, Policy, Rules, Rung, Sample},
    trace::Heat,
};

/// Free bytes of the disk: enough on every laptop.
const DISK_FREE: Bytes = Bytes::gb(50);
/// Heap of the daemon itself, which is never without. It is part of what the kernel is taken to keep.
const HEAP: Bytes = Bytes::mb(40);
/// A growth of a pool that was refused is asked for again after so long, ms.
const ASK_AGAIN_MS: u64 = 5_000;

/// What a ticket was given for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ticket {
    /// An app waits for a model with these requests.
    Load { app: usize, model: usize, requests: Vec<usize> },
    /// A pool wants to be so large.
    Grow { model: usize, kv: u64 },
    /// A run begins and wants to hold so many bytes.
    Start { app: usize, bytes: u64 },
    /// A guest wants to hold so many bytes.
    Guest { app: usize, bytes: u64 },
}

/// See the module.
#[derive(Debug)]
pub struct Locara {
    config: Config,
    governor: Governor,
    tickets: BTreeMap<TicketId, Ticket>,
    next_ticket: u64,
    /// When each model was told to load, ms.
    loading_since: Vec<u64>,
    /// The steps that unload.
    leaving: BTreeMap<usize, StepId>,
    /// What was told last.
    activity: Vec<Activity>,
    conversations: Vec<Bytes>,
    ask_again: Vec<u64>,
    /// Apps with a run.
    runs: Vec<bool>,
    wrong: Option<String>,
    log: Option<Vec<String>>,
}

fn digest(model: usize) -> ModelDigest {
    ModelDigest(format!("{model:064}"))
}
fn app_id(app: usize) -> AppId {
    AppId(format!("app-{app}"))
}
/// The index in a name that was made above.
fn index(name: &str) -> usize {
    name.trim_start_matches("app-").parse().unwrap_or_default()
}
fn ms(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Locara {
    /// For one laptop, with the defaults that follow from it.
    #[must_use]
    pub fn new(laptop: &Laptop) -> Self {
        let ram = Bytes(laptop.ram);
        let machine = match laptop.gpu {
            Some(working_set) => Machine::unified_gpu("simulated", ram, 8, Bytes(working_set)),
            None => Machine::cpu("simulated", ram, 8),
        };
        let config = Config::new(&machine, &defaults(&machine, None));
        let models = laptop.models.len();
        Self {
            governor: Governor::new(config.clone()),
            config,
            tickets: BTreeMap::new(),
            next_ticket: 1,
            loading_since: vec![0; models],
            leaving: BTreeMap::new(),
            activity: vec![Activity::default(); models],
            conversations: vec![Bytes::ZERO; laptop.apps.len()],
            ask_again: vec![0; models],
            runs: vec![false; laptop.apps.len()],
            wrong: None,
            log: None,
        }
    }

    fn ticket(&mut self, ticket: Ticket) -> TicketId {
        let id = TicketId(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(id, ticket);
        id
    }

    /// Tells the governor and carries its answers over.
    fn tell(&mut self, host: &Host<'_>, event: Event, out: &mut Vec<Command>) {
        if let Some(log) = &mut self.log {
            log.push(record::line(host.now, &event));
        }
        for action in self.governor.handle(host.now, event) {
            self.act(host, action, out);
        }
    }

    fn act(&mut self, host: &Host<'_>, action: Action, out: &mut Vec<Command>) {
        match action {
            Action::Admit { ticket } => self.admitted(host, ticket, true, out),
            Action::Join { ticket } => self.admitted(host, ticket, false, out),
            Action::Refuse { ticket, .. } => self.refused(host, ticket, out),
            Action::Reclaim { step, model, rung, spill, .. } => {
                let rung = match rung {
                    governor::Rung::PromptCache => Rung::PromptCache,
                    governor::Rung::IdleSessions => Rung::IdleSessions,
                    governor::Rung::Weights => Rung::Weights,
                    governor::Rung::Background => Rung::Background,
                };
                out.push(Command::Reclaim { step: step.0, model: index(&model.0), rung, spill });
            }
            Action::Unload { step, model, .. } => self.unload(host, step, index(&model.0), out),
            Action::Keep { step, model } => {
                let model = index(&model.0);
                // What waits for answers has freed nothing yet.
                if host.models[model].phase == Phase::Loaded {
                    self.leaving.remove(&model);
                    out.push(Command::Stay(model));
                    self.tell(host, Event::Kept { step }, out);
                }
            }
            Action::Hurry { model, .. } => {
                let running = &host.models[index(&model.0)].running;
                out.extend(running.iter().map(|job| Command::Abort(job.request)));
            }
            Action::Throttle { model, throttle } => out.push(Command::Throttle {
                model: index(&model.0),
                gate: match throttle.gate {
                    governor::Gate::All => Gate::All,
                    governor::Gate::Interactive => Gate::Interactive,
                    governor::Gate::Nobody { .. } => Gate::Nobody,
                },
                max_tokens: throttle.max_tokens.map(u64::from),
                slots: throttle.n_seq.and_then(|slots| usize::try_from(slots).ok()),
            }),
            Action::Tighten { app, tightening } => {
                let app = index(&app.0);
                let floor = Bytes(host.laptop.apps[app].floor);
                if tightening.limit < floor && tightening.level != Level::Critical {
                    self.wrong = Some(format!("app {app} got {} below its floor of {floor}", tightening.limit));
                }
                if !tightening.release.is_zero() {
                    out.push(Command::Tighten { app, epoch: tightening.epoch, release: tightening.release.get() });
                }
            }
            Action::Enforce { app, consequence, .. } => {
                let app = index(&app.0);
                match consequence {
                    Consequence::Nothing => {}
                    Consequence::DropCaches => out.push(Command::Forget(app)),
                    Consequence::Suspend => out.push(Command::Suspend(app, true)),
                    Consequence::Stop => {
                        out.push(Command::Stop(app));
                        self.end(host, app, out);
                    }
                }
            }
            Action::Resume { app } => out.push(Command::Suspend(index(&app.0), false)),
            Action::Wait { .. } | Action::Tell { .. } | Action::Advise { .. } => {}
        }
    }

    fn admitted(&mut self, host: &Host<'_>, ticket: TicketId, first: bool, out: &mut Vec<Command>) {
        match self.tickets.remove(&ticket) {
            Some(Ticket::Load { model, requests, .. }) => {
                if first {
                    self.loading_since[model] = host.now;
                    out.push(Command::Load(model));
                }
                out.extend(requests.into_iter().map(Command::Queue));
            }
            Some(Ticket::Grow { model, kv }) => out.push(Command::Grow(model, kv)),
            Some(Ticket::Start { app, bytes }) => {
                self.runs[app] = true;
                self.guest(host, app, bytes, out);
            }
            Some(Ticket::Guest { app, bytes }) => out.push(Command::Guest(app, bytes)),
            None => self.wrong = Some(format!("{ticket:?} was answered twice")),
        }
    }

    fn refused(&mut self, host: &Host<'_>, ticket: TicketId, out: &mut Vec<Command>) {
        match self.tickets.remove(&ticket) {
            Some(Ticket::Load { requests, .. }) => out.extend(requests.into_iter().map(Command::Refuse)),
            Some(Ticket::Grow { model, .. }) => self.ask_again[model] = host.now + ASK_AGAIN_MS,
            Some(Ticket::Start { app, .. }) => out.push(Command::Stop(app)),
            // The guest's `memory.grow` fails and it goes on with what it has.
            Some(Ticket::Guest { .. }) => {}
            None => self.wrong = Some(format!("{ticket:?} was answered twice")),
        }
    }

    fn unload(&mut self, host: &Host<'_>, step: StepId, model: usize, out: &mut Vec<Command>) {
        let resident = &host.models[model];
        let idle_ms = host.now.saturating_sub(resident.last_used);
        let idle = !resident.is_busy() && idle_ms >= self.config.idle_unload_ms / 3;
        let cause = match self.governor.level() {
            _ if idle => Cause::Idle,
            Level::Normal => Cause::Room,
            Level::Elevated | Level::Tight | Level::Critical => Cause::Pressure,
        };
        self.leaving.insert(model, step);
        out.push(Command::Unload(model, cause));
    }

    /// A request came, or what it was queued on is going: it needs its model, whatever that takes.
    fn want(&mut self, host: &Host<'_>, request: usize, out: &mut Vec<Command>) {
        let (app, model) = (host.request(request).app, host.request(request).model);
        let same =
            |ticket: &&mut Ticket| matches!(ticket, Ticket::Load { app: a, model: m, .. } if *a == app && *m == model);
        if let Some(Ticket::Load { requests, .. }) = self.tickets.values_mut().find(same) {
            requests.push(request);
            return;
        }
        let file = &host.laptop.models[model];
        let ticket = self.ticket(Ticket::Load { app, model, requests: vec![request] });
        let load = LoadRequest {
            ticket,
            model: digest(model),
            name: file.name.to_owned(),
            used_as: if file.secondary { ModelUse::Secondary } else { ModelUse::Chat },
            need: Need {
                parts: vec![
                    (self.weights_kind(), Bytes(file.weights)),
                    (Kind::Kv, Bytes(file.kv())),
                    (Kind::Compute, Bytes(file.compute)),
                ],
                transient: Bytes::ZERO,
                gpu: if host.laptop.gpu.is_some() { Bytes(file.total()) } else { Bytes::ZERO },
            },
            reload_ms: ms(host.load_ms(model)),
            keep_loaded: false,
            app: Some(app_id(app)),
            class: class(host.laptop.apps[app].kind),
        };
        self.tell(host, Event::Load(load), out);
    }

    const fn weights_kind(&self) -> Kind {
        if self.config.wires_weights { Kind::WeightsWired } else { Kind::WeightsMapped }
    }

    fn holds(&self, host: &Host<'_>, model: usize) -> Vec<(Kind, Bytes)> {
        let file = &host.laptop.models[model];
        vec![
            (self.weights_kind(), Bytes(file.weights)),
            (Kind::Kv, Bytes(host.models[model].kv)),
            (Kind::Compute, Bytes(file.compute)),
        ]
    }

    fn arrived(&mut self, host: &Host<'_>, request: usize, out: &mut Vec<Command>) {
        let app = host.request(request).app;
        if !self.runs[app] {
            self.start(host, app, host.laptop.apps[app].floor, out);
        }
        let resident = &host.models[host.request(request).model];
        match resident.phase {
            _ if resident.draining => self.want(host, request, out),
            Phase::Loaded if resident.gate == Gate::Nobody => out.push(Command::Refuse(request)),
            Phase::Loaded => out.push(Command::Queue(request)),
            Phase::Unloaded | Phase::Loading(_) | Phase::Unloading => self.want(host, request, out),
        }
    }

    /// Nobody waits for it any more: a ticket for it alone is withdrawn.
    fn gone(&mut self, host: &Host<'_>, request: usize, out: &mut Vec<Command>) {
        let mut empty = None;
        for (id, ticket) in &mut self.tickets {
            if let Ticket::Load { requests, .. } = ticket {
                let before = requests.len();
                requests.retain(|&waiting| waiting != request);
                if requests.is_empty() && before > 0 {
                    empty = Some(*id);
                }
            }
        }
        if let Some(ticket) = empty {
            self.tickets.remove(&ticket);
            self.tell(host, Event::Cancel { ticket }, out);
        }
    }

    fn changed(&mut self, host: &Host<'_>, model: usize, out: &mut Vec<Command>) {
        let resident = &host.models[model];
        if resident.phase != Phase::Loaded {
            return;
        }
        let interactive = resident.running.iter().filter(|job| host.request(job.request).interactive).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let activity = Activity {
            interactive: count(interactive),
            background: count(resident.running.len() - interactive),
            waiting: count(resident.queue.len() + resident.parked.len()),
            idle_kv: Bytes(host.idle_kv(model)),
            background_kv: Bytes(host.background_kv(model)),
            prompt_cache: Bytes(host.prompt_cache(model)),
        };
        if self.activity[model] != activity {
            self.activity[model] = activity;
            self.tell(host, Event::Active { model: digest(model), activity }, out);
            self.conversations(host, out);
        }
        self.grow(host, model, out);
    }

    /// Asks for the cells that the oldest waiting request needs.
    fn grow(&mut self, host: &Host<'_>, model: usize, out: &mut Vec<Command>) {
        let Some(kv) = host.models[model].wants_kv.filter(|_| host.models[model].is_ready()) else { return };
        let asked = |ticket: &Ticket| matches!(ticket, Ticket::Grow { model: m, .. } if *m == model);
        if host.now < self.ask_again[model] || self.tickets.values().any(asked) {
            return;
        }
        let ticket = self.ticket(Ticket::Grow { model, kv });
        self.tell(host, Event::Grow { ticket, model: digest(model), kv: Bytes(kv) }, out);
    }

    /// What the conversations of each app hold in cells.
    fn conversations(&mut self, host: &Host<'_>, out: &mut Vec<Command>) {
        for app in 0..self.runs.len() {
            let mut kv = 0;
            for (resident, file) in host.models.iter().zip(&host.laptop.models) {
                let idle = resident.idle.iter().filter(|kept| kept.app == app).map(|kept| kept.tokens);
                let runs = resident.running.iter().filter(|job| host.request(job.request).app == app);
                kv += (idle.sum::<u64>() + runs.map(|job| job.cells).sum::<u64>()) * file.kv_token;
            }
            if self.conversations[app] != Bytes(kv) {
                self.conversations[app] = Bytes(kv);
                self.tell(host, Event::Sessions { app: app_id(app), kv: Bytes(kv) }, out);
            }
        }
    }

    fn start(&mut self, host: &Host<'_>, app: usize, bytes: u64, out: &mut Vec<Command>) {
        let installed = &host.laptop.apps[app];
        let asked = |ticket: &Ticket| matches!(ticket, Ticket::Start { app: a, .. } if *a == app);
        if self.tickets.values().any(asked) {
            return;
        }
        let ticket = self.ticket(Ticket::Start { app, bytes });
        // What an author declares covers the memory of the app and one whole context.
        let ceiling = installed.ceiling + host.laptop.models[installed.model].kv();
        let start = AppStart {
            ticket,
            app: app_id(app),
            floor: Bytes(installed.floor),
            ceiling: Bytes(ceiling),
            class: class(installed.kind),
            visible: false,
        };
        self.tell(host, Event::AppStart(start), out);
    }

    fn guest(&mut self, host: &Host<'_>, app: usize, bytes: u64, out: &mut Vec<Command>) {
        let ticket = self.ticket(Ticket::Guest { app, bytes });
        self.tell(host, Event::Guest { ticket, app: app_id(app), bytes: Bytes(bytes) }, out);
    }

    fn end(&mut self, host: &Host<'_>, app: usize, out: &mut Vec<Command>) {
        if std::mem::take(&mut self.runs[app]) {
            self.tell(host, Event::AppStop { app: app_id(app) }, out);
        }
        out.extend([Command::Guest(app, 0), Command::Suspend(app, false)]);
    }

    fn finished(&mut self, host: &Host<'_>, request: usize, out: &mut Vec<Command>) {
        let asked = *host.request(request);
        let device = host.work(asked.model, &asked, asked.answer) / 1000;
        let kv = (asked.cells() * host.laptop.models[asked.model].kv_token) >> 20;
        let used = Event::Used {
            app: app_id(asked.app),
            model: digest(asked.model),
            device_ms: ms(device),
            kv_mb_s: ms(kv * device / 1000),
            ttft_ms: ms((host.now - asked.at).saturating_sub(device)),
        };
        self.tell(host, used, out);
    }

    /// A process that was killed is started again and knows nothing.
    fn killed(&mut self, host: &Host<'_>, out: &mut Vec<Command>) {
        self.governor = Governor::new(self.config.clone());
        self.tickets.clear();
        self.leaving.clear();
        self.activity.fill(Activity::default());
        self.conversations.fill(Bytes::ZERO);
        self.runs.fill(false);
        self.tell(host, Event::Killed { unix_s: host.now / 1000 }, out);
    }
}

fn class(kind: AppKind) -> Class {
    match kind {
        AppKind::Chat | AppKind::Agent | AppKind::Complete | AppKind::Voice => Class::Interactive,
        AppKind::Summarise | AppKind::Index => Class::Background,
    }
}

fn sample(sample: &Sample) -> governor::Sample {
    governor::Sample {
        available: Bytes(sample.available),
        swap_total: Bytes(sample.swap_total),
        swap_used: Bytes(sample.swap_used),
        swapped_out: Bytes(sample.swapped_out),
        own_file: Bytes(sample.own_file),
        own_anonymous: HEAP.saturating_add(Bytes(sample.own_anonymous)),
        own_swapped: Bytes::ZERO,
        kernel: sample.warning.map(|warning| match warning {
            Warning::Normal => KernelLevel::Normal,
            Warning::Warning => KernelLevel::Warning,
            Warning::Critical => KernelLevel::Critical,
        }),
        stall: sample.stall.map(|some| Stall { some, full: some / 4 }),
        thermal: Some(match sample.heat {
            Heat::Nominal => Thermal::Nominal,
            Heat::Fair => Thermal::Fair,
            Heat::Serious => Thermal::Serious,
        }),
        on_battery: sample.power.battery,
        saver: sample.power.saver,
        disk_free: Some(DISK_FREE),
    }
}

impl Policy for Locara {
    fn rules(&self) -> Rules {
        Rules { slots: 4, prompt_cache: 0, spills: true, by_class: true, process_per_model: false, owns_apps: true }
    }

    fn handle(&mut self, host: &Host<'_>, happened: &Happened) -> Vec<Command> {
        let mut out = Vec::new();
        match *happened {
            Happened::Sampled(ref seen) => {
                self.tell(host, Event::Sample(sample(seen)), &mut out);
                for model in 0..host.models.len() {
                    self.grow(host, model, &mut out);
                }
            }
            Happened::Arrived(request) => self.arrived(host, request, &mut out),
            Happened::Finished(request) => self.finished(host, request, &mut out),
            Happened::Ended(request) => self.gone(host, request, &mut out),
            Happened::Loaded(model) => {
                let took_ms = ms(host.now - self.loading_since[model]);
                let holds = self.holds(host, model);
                self.activity[model] = Activity::default();
                self.tell(host, Event::Loaded { model: digest(model), holds, took_ms }, &mut out);
                self.changed(host, model, &mut out);
            }
            Happened::Unloaded(model, freed) => {
                if let Some(step) = self.leaving.remove(&model) {
                    self.tell(host, Event::Done { step, freed: Bytes(freed), holds: None }, &mut out);
                }
                for request in host.models[model].queue.clone() {
                    self.want(host, request, &mut out);
                }
            }
            Happened::Reclaimed { step, model, freed } => {
                let holds = Some(self.holds(host, model));
                self.tell(host, Event::Done { step: StepId(step), freed: Bytes(freed), holds }, &mut out);
                self.changed(host, model, &mut out);
            }
            Happened::Changed(model) => self.changed(host, model, &mut out),
            Happened::GuestWants(app, 0) => self.end(host, app, &mut out),
            Happened::GuestWants(app, bytes) if self.runs[app] => self.guest(host, app, bytes, &mut out),
            Happened::GuestWants(app, bytes) => self.start(host, app, bytes, &mut out),
            Happened::GuestShrank(app, bytes) if self.runs[app] => self.guest(host, app, bytes, &mut out),
            Happened::Answered(app, epoch, answer) => {
                let answer = match answer {
                    Answer::Pledge(bytes) => governor::Answer::Pledge { release: Bytes(bytes), eta_ms: 2_000 },
                    Answer::Done(bytes) => governor::Answer::Done(Bytes(bytes)),
                    Answer::Defer(more) => governor::Answer::Defer(more),
                };
                self.tell(host, Event::Answer { app: app_id(app), epoch, answer }, &mut out);
            }
            Happened::Looked(app, visible) => {
                self.tell(host, Event::Visible { app: app_id(app), visible }, &mut out);
            }
            Happened::HostKilled => self.killed(host, &mut out),
            Happened::GuestShrank(..) | Happened::Killed(_) => {}
        }
        out
    }

    fn violation(&mut self, host: &Host<'_>) -> Option<String> {
        if let Some(wrong) = self.wrong.take() {
            return Some(wrong);
        }
        let ledger = self.governor.ledger();
        let (mut sum, mut anonymous) = (Bytes::ZERO, Bytes::ZERO);
        for (_, entry) in ledger.entries() {
            sum = sum.saturating_add(entry.bytes);
            if !entry.kind.is_file_backed() {
                anonymous = anonymous.saturating_add(entry.bytes);
            }
        }
        if ledger.held() > ledger.cap() {
            return Some(format!("{} are promised of {}", ledger.held(), ledger.cap()));
        }
        if sum != ledger.held() {
            return Some(format!("the ledger says {} and its lines {sum}", ledger.held()));
        }
        let held = Bytes(host.anonymous());
        (held > anonymous).then(|| format!("{held} of anonymous memory are held and {anonymous} promised"))
    }

    fn start_record(&mut self) {
        self.log = Some(vec![record::header(&self.config)]);
    }

    fn record(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }
}
