//! A daemon and a machine made of numbers: it carries out what the governor asks for, after a delay, and checks after every
//! event what must always be true.

use std::collections::{BTreeMap, BTreeSet};

use locara_policy::{
    Bytes, Governor, Kind, Machine, Owner, defaults,
    governor::{
        Action, Activity, AppStart, Class, Config, Event, Level, LoadRequest, ModelUse, Need, Refusal, Rung, Sample,
        StepId, TicketId, Tightening, record,
    },
    ledger::{AppId, ModelDigest},
};

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;

pub(crate) fn digest(name: &str) -> ModelDigest {
    ModelDigest(name.to_owned())
}
pub(crate) fn app(name: &str) -> AppId {
    AppId(name.to_owned())
}

/// A laptop with 16 GiB and no GPU: the cap is 12 GiB, `elevated` begins below 1.6 GiB.
pub(crate) fn config() -> Config {
    let machine = Machine::cpu("test", Bytes::gib(16), 4);
    Config::new(&machine, &defaults(&machine, None))
}

/// A model as the fake daemon holds it.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) holds: BTreeMap<Kind, Bytes>,
    pub(crate) pages: Bytes,
    pub(crate) activity: Activity,
    /// The unload that waits for the end of its answers.
    leaving: Option<StepId>,
}

impl Fake {
    fn anonymous(&self) -> Bytes {
        self.holds.iter().filter(|(kind, _)| !kind.is_file_backed()).map(|(_, bytes)| *bytes).sum()
    }
    fn total(&self) -> Bytes {
        self.holds.values().copied().sum()
    }
}

pub(crate) struct World {
    pub(crate) governor: Governor,
    pub(crate) now: u64,
    /// What other programs hold.
    pub(crate) others: Bytes,
    /// What the next readings say beside memory.
    pub(crate) sample: Sample,
    pub(crate) models: BTreeMap<ModelDigest, Fake>,
    pub(crate) guests: BTreeMap<AppId, Bytes>,
    floors: BTreeMap<AppId, Bytes>,
    /// What the daemon will report, and when.
    pending: Vec<(u64, Event)>,
    pub(crate) loads: BTreeMap<TicketId, LoadRequest>,
    pub(crate) loading: Option<ModelDigest>,
    loaded_at: BTreeMap<ModelDigest, [Option<u64>; 2]>,
    /// Tickets that have their answer.
    pub(crate) answers: BTreeMap<TicketId, Action>,
    /// Tickets that wait for one, and since when.
    pub(crate) open: BTreeMap<TicketId, u64>,
    /// Unloads under way: model and when it was asked for.
    unloads: BTreeMap<StepId, (ModelDigest, u64)>,
    steps: BTreeSet<StepId>,
    /// Every action, with its time.
    pub(crate) actions: Vec<(u64, Action)>,
    pub(crate) log: String,
    next_ticket: u64,
    pub(crate) load_ms: u64,
    pub(crate) step_ms: u64,
    /// What the last reading said to be available.
    seen: Bytes,
    /// Models that were told to pause.
    pub(crate) held: BTreeSet<ModelDigest>,
    /// Steps are not answered.
    pub(crate) deaf: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut world = Self {
            governor: Governor::new(config),
            now: 0,
            others: Bytes::gib(4),
            sample: Sample { swap_total: Bytes::gib(2), disk_free: Some(Bytes::gib(100)), ..Sample::default() },
            models: BTreeMap::new(),
            guests: BTreeMap::new(),
            floors: BTreeMap::new(),
            pending: Vec::new(),
            loads: BTreeMap::new(),
            loading: None,
            loaded_at: BTreeMap::new(),
            answers: BTreeMap::new(),
            open: BTreeMap::new(),
            unloads: BTreeMap::new(),
            steps: BTreeSet::new(),
            actions: Vec::new(),
            log: String::new(),
            next_ticket: 1,
            load_ms: 2 * SECOND,
            step_ms: 100,
            seen: Bytes::ZERO,
            held: BTreeSet::new(),
            deaf: false,
        };
        world.read();
        world
    }

    pub(crate) fn level(&self) -> Level {
        self.governor.level()
    }

    /// What the system has available: everything but others' memory and our anonymous bytes.
    pub(crate) fn available(&self) -> Bytes {
        let own: Bytes = self.models.values().map(Fake::anonymous).sum();
        let guests: Bytes = self.guests.values().copied().sum();
        let taken = [self.others, own, guests].into_iter().sum();
        self.governor.config().ram.saturating_sub(taken)
    }

    /// Others take so much that this is available.
    pub(crate) fn leave(&mut self, available: Bytes) {
        self.others = Bytes::ZERO;
        self.others = self.available().saturating_sub(available);
    }

    /// The same a while ago, so that it is no fall.
    pub(crate) fn leave_calmly(&mut self, available: Bytes) -> Vec<Action> {
        self.leave(available);
        self.now += 40 * SECOND;
        self.read()
    }

    pub(crate) fn reading(&self) -> Sample {
        let own: Bytes = self.models.values().map(Fake::anonymous).sum();
        let guests: Bytes = self.guests.values().copied().sum();
        Sample {
            available: self.available(),
            own_file: self.models.values().map(|model| model.pages).sum(),
            own_anonymous: [own, guests, Bytes::mb(40)].into_iter().sum(),
            ..self.sample.clone()
        }
    }

    /// Reads the sensors now.
    pub(crate) fn read(&mut self) -> Vec<Action> {
        self.send(Event::Sample(self.reading()))
    }

    /// Time passes: what is due is reported, and sensors are read every second.
    pub(crate) fn run(&mut self, ms: u64) -> Vec<Action> {
        let end = self.now + ms;
        let mut all = Vec::new();
        loop {
            let next_read = (self.now / SECOND + 1) * SECOND;
            let due = self
                .pending
                .iter()
                .enumerate()
                .min_by_key(|(at, (due, _))| (*due, *at))
                .map(|(at, (due, _))| (at, *due));
            match due {
                Some((at, due)) if due <= next_read.min(end) => {
                    self.now = self.now.max(due);
                    let (_, event) = self.pending.remove(at);
                    all.extend(self.report(event));
                }
                _ if next_read <= end => {
                    self.now = next_read;
                    all.extend(self.read());
                }
                _ => break,
            }
        }
        self.now = end;
        all
    }

    /// Carries a pending report out on the fake machine, and sends it.
    fn report(&mut self, event: Event) -> Vec<Action> {
        match &event {
            Event::Loaded { model, holds, .. } => {
                self.loading = None;
                let last = self.loaded_at.get(model).and_then(|[last, _]| *last);
                self.loaded_at.insert(model.clone(), [Some(self.now), last]);
                let holds: BTreeMap<_, _> = holds.iter().copied().collect();
                let pages = holds.iter().filter(|(kind, _)| kind.is_file_backed()).map(|(_, bytes)| *bytes).sum();
                let fake = Fake { holds, pages, activity: Activity::default(), leaving: None };
                self.models.insert(model.clone(), fake);
            }
            Event::Done { step, holds: None, .. } => {
                if let Some((model, _)) = self.unloads.remove(step) {
                    self.models.remove(&model);
                    self.held.remove(&model);
                }
            }
            Event::LoadFailed { .. } => self.loading = None,
            // Answers were ended for an unload.
            Event::Active { model, .. } => {
                let name = model.0.clone();
                return self.active(&name, |activity| (activity.interactive, activity.background) = (0, 0));
            }
            _ => {}
        }
        self.send(event)
    }

    /// Hands an event in, as a daemon would, and carries out what comes of it.
    pub(crate) fn send(&mut self, event: Event) -> Vec<Action> {
        self.log.push_str(&record::line(self.now, &event));
        self.log.push('\n');
        match &event {
            Event::Load(LoadRequest { ticket, .. })
            | Event::Grow { ticket, .. }
            | Event::Guest { ticket, .. }
            | Event::AppStart(AppStart { ticket, .. }) => {
                self.open.insert(*ticket, self.now);
            }
            Event::Cancel { ticket } => {
                self.open.remove(ticket);
            }
            Event::Done { step, .. } | Event::Failed { step, .. } | Event::Kept { step } => {
                self.unloads.remove(step);
            }
            Event::Lost { model } => {
                self.unloads.retain(|_, (leaving, _)| leaving != model);
                self.models.remove(model);
                self.held.remove(model);
            }
            _ => {}
        }
        if let Event::Load(request) = &event {
            self.loads.insert(request.ticket, request.clone());
        }
        let is_reading = matches!(event, Event::Sample(_));
        if let Event::Sample(sample) = &event {
            self.seen = sample.available;
        }
        let actions = self.governor.handle(self.now, event);
        for action in &actions {
            self.actions.push((self.now, action.clone()));
            self.carry_out(action);
        }
        self.check();
        if is_reading && !self.governor.config().wires_weights {
            self.check_that_what_computes_fits();
        }
        actions
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Admit { ticket } | Action::Join { ticket } | Action::Refuse { ticket, .. } => {
                assert!(
                    self.open.remove(ticket).is_some(),
                    "{ticket:?} is answered twice or was never asked: {action:?}"
                );
                self.answers.insert(*ticket, action.clone());
            }
            _ => {}
        }
        match action {
            Action::Admit { ticket } => {
                if let Some(request) = self.loads.get(ticket).cloned() {
                    self.begin_load(&request);
                }
            }
            Action::Reclaim { step, model, rung, .. } => {
                assert!(self.steps.insert(*step), "{step:?} is used twice");
                if !self.deaf {
                    let event = self.reclaim(*step, model, *rung);
                    self.pending.push((self.now + self.step_ms, event));
                }
            }
            Action::Keep { step, model } if !self.deaf => {
                if let Some(fake) = self.models.get_mut(model).filter(|fake| fake.leaving == Some(*step)) {
                    fake.leaving = None;
                    self.pending.push((self.now + self.step_ms, Event::Kept { step: *step }));
                }
            }
            Action::Hurry { model, .. } if !self.deaf => {
                let ended = Event::Active { model: model.clone(), activity: Activity::default() };
                self.pending.push((self.now + self.step_ms, ended));
            }
            Action::Throttle { model, throttle } => {
                self.held.remove(model);
                if throttle.n_seq == Some(0) {
                    self.held.insert(model.clone());
                }
            }
            Action::Unload { step, model, .. } => {
                assert!(self.steps.insert(*step), "{step:?} is used twice");
                assert!(
                    self.unloads.values().all(|(leaving, since)| leaving != model || self.now - since > 30 * SECOND),
                    "{model} is unloaded twice at once"
                );
                self.unloads.insert(*step, (model.clone(), self.now));
                if let Some(fake) = self.models.get_mut(model) {
                    fake.leaving = Some(*step);
                }
                self.leave_if_idle(model);
            }
            _ => {}
        }
    }

    fn begin_load(&mut self, request: &LoadRequest) {
        assert_eq!(self.loading, None, "one load at a time");
        let limit = self.governor.config().step_limit_ms;
        let under_way = self.unloads.values().find(|(_, since)| self.now - since <= limit);
        assert_eq!(under_way, None, "{} is admitted while another is unloaded", request.name);
        self.check_cool_down(request);
        self.loading = Some(request.model.clone());
        let loaded = Event::Loaded {
            model: request.model.clone(),
            holds: request.need.parts.clone(),
            took_ms: u32::try_from(self.load_ms).unwrap(),
        };
        self.pending.push((self.now + self.load_ms, loaded));
    }

    /// A model comes back within its cool-down only where memory is plenty, and no second time: it does not swing.
    fn check_cool_down(&self, request: &LoadRequest) {
        let config = self.governor.config();
        let within = |at: Option<u64>| at.is_some_and(|at| self.now - at < config.cool_down_ms);
        let Some([last, before]) = self.loaded_at.get(&request.model).copied() else { return };
        assert!(!within(before), "{} is loaded three times in a cool-down", request.name);
        if within(last) {
            let clean: Bytes = self.models.values().map(|model| model.pages).sum();
            let left = self.seen.saturating_sub(clean).saturating_sub(request.need.peak());
            assert_eq!(self.level(), Level::Normal, "{} comes back early", request.name);
            assert!(left >= config.elevated_below, "{} comes back early and leaves {left}", request.name);
        }
    }

    /// Replaces what the load under way will report.
    pub(crate) fn load_ends_with(&mut self, event: Event) {
        let at = self.pending.iter().position(|(_, event)| matches!(event, Event::Loaded { .. })).unwrap();
        self.pending[at].1 = event;
    }

    fn leave_if_idle(&mut self, model: &ModelDigest) {
        let Some(fake) = self.models.get_mut(model).filter(|fake| !fake.activity.is_busy()) else { return };
        let Some(step) = fake.leaving.take() else { return };
        let freed = fake.total();
        if !self.deaf {
            self.pending.push((self.now + self.step_ms, Event::Done { step, freed, holds: None }));
        }
    }

    fn reclaim(&mut self, step: StepId, model: &ModelDigest, rung: Rung) -> Event {
        let Some(fake) = self.models.get_mut(model) else {
            return Event::Failed { step, reason: "the model is gone".to_owned() };
        };
        let mut take = |kind: Kind, bytes: Bytes| {
            let held = fake.holds.entry(kind).or_default();
            let freed = bytes.min(*held);
            *held = held.saturating_sub(freed);
            freed
        };
        let freed = match rung {
            Rung::PromptCache => take(Kind::PrefixCache, std::mem::take(&mut fake.activity.prompt_cache)),
            Rung::IdleSessions => take(Kind::Kv, std::mem::take(&mut fake.activity.idle_kv)),
            Rung::Background => take(Kind::Kv, std::mem::take(&mut fake.activity.background_kv)),
            Rung::Weights => std::mem::take(&mut fake.pages),
        };
        let holds = fake.holds.iter().map(|(kind, bytes)| (*kind, *bytes)).collect();
        Event::Done { step, freed, holds: Some(holds) }
    }

    /// What must be true after every event.
    fn check(&self) {
        let ledger = self.governor.ledger();
        assert!(ledger.held() <= ledger.cap(), "{} of {} are promised", ledger.held(), ledger.cap());
        let sum: u128 = ledger.entries().map(|(_, entry)| u128::from(entry.bytes.get())).sum();
        assert_eq!(sum, u128::from(ledger.held().get()), "the account adds up");
        let guaranteed = self.floors.iter().map(|(id, floor)| {
            u128::from(floor.saturating_sub(ledger.of(&Owner::App(id.clone()), Kind::GuestMemory)).get())
        });
        assert!(sum + guaranteed.sum::<u128>() <= u128::from(ledger.cap().get()), "guarantees are covered");
    }

    /// No page of weights that are read for each token has to be read from disk again, or pushes others into swap.
    fn check_that_what_computes_fits(&self) {
        let computes = |(digest, fake): &(&ModelDigest, &Fake)| fake.activity.is_busy() && !self.held.contains(*digest);
        let of = |fake: &Fake| fake.holds.get(&Kind::WeightsMapped).copied().unwrap_or_default();
        let read: Bytes = self.models.iter().filter(computes).map(|(_, fake)| of(fake)).sum();
        let available = self.available();
        assert!(read <= available, "{read} of weights are computed with, {available} are available");
    }

    pub(crate) fn ticket(&mut self) -> TicketId {
        self.next_ticket += 1;
        TicketId(self.next_ticket)
    }

    pub(crate) fn request(&mut self, name: &str, weights: Bytes, kv: Bytes) -> LoadRequest {
        LoadRequest {
            ticket: self.ticket(),
            model: digest(name),
            name: name.to_owned(),
            used_as: ModelUse::Chat,
            need: Need {
                parts: vec![(Kind::WeightsMapped, weights), (Kind::Kv, kv), (Kind::PrefixCache, Bytes::ZERO)],
                transient: Bytes::ZERO,
                gpu: Bytes::ZERO,
            },
            reload_ms: 4_000,
            keep_loaded: false,
            app: None,
            class: Class::Interactive,
        }
    }

    /// Asks for a model.
    pub(crate) fn load(&mut self, name: &str, weights: Bytes, kv: Bytes) -> TicketId {
        let request = self.request(name, weights, kv);
        self.ask(request)
    }

    pub(crate) fn ask(&mut self, request: LoadRequest) -> TicketId {
        let ticket = request.ticket;
        self.send(Event::Load(request));
        ticket
    }

    /// A model that is there, was answered from once, and whose cool-down is over.
    pub(crate) fn settled(&mut self, name: &str, weights: Bytes, kv: Bytes) {
        let ticket = self.load(name, weights, kv);
        self.run(3 * SECOND);
        assert!(
            matches!(self.answers.get(&ticket), Some(Action::Admit { .. })),
            "{name}: {:?}",
            self.answers.get(&ticket)
        );
        self.answer_once(name);
        self.run(62 * SECOND);
    }

    pub(crate) fn answer_once(&mut self, name: &str) {
        self.active(name, |activity| activity.interactive = 1);
        self.run(SECOND);
        self.active(name, |activity| activity.interactive = 0);
    }

    /// A model is used differently.
    pub(crate) fn active(&mut self, name: &str, change: impl FnOnce(&mut Activity)) -> Vec<Action> {
        let model = digest(name);
        let Some(fake) = self.models.get_mut(&model) else { return Vec::new() };
        change(&mut fake.activity);
        if fake.activity.is_busy() {
            fake.pages = fake.holds.iter().filter(|(kind, _)| kind.is_file_backed()).map(|(_, bytes)| *bytes).sum();
        }
        let cached = fake.activity.prompt_cache;
        fake.holds.insert(Kind::PrefixCache, cached);
        let activity = fake.activity;
        let actions = self.send(Event::Active { model: model.clone(), activity });
        self.leave_if_idle(&model);
        actions
    }

    pub(crate) fn start(&mut self, name: &str, floor: Bytes, ceiling: Bytes, class: Class, visible: bool) -> TicketId {
        let ticket = self.ticket();
        let start = AppStart { ticket, app: app(name), floor, ceiling, class, visible };
        let actions = self.send(Event::AppStart(start));
        if actions.contains(&Action::Admit { ticket }) {
            self.floors.entry(app(name)).or_insert(floor.min(ceiling));
        }
        ticket
    }

    pub(crate) fn stop(&mut self, name: &str) {
        self.floors.remove(&app(name));
        self.guests.remove(&app(name));
        self.send(Event::AppStop { app: app(name) });
    }

    /// The guest memory of an app becomes `bytes`; says the refusal if there is one.
    pub(crate) fn guest(&mut self, name: &str, bytes: Bytes) -> Result<(), Refusal> {
        let ticket = self.ticket();
        self.send(Event::Guest { ticket, app: app(name), bytes });
        match self.answers.get(&ticket) {
            Some(Action::Refuse { refusal, .. }) => Err(refusal.clone()),
            Some(_) => {
                self.guests.insert(app(name), bytes);
                Ok(())
            }
            None => panic!("growth is answered at once"),
        }
    }

    pub(crate) fn sessions(&mut self, name: &str, kv: Bytes) -> Vec<Action> {
        self.send(Event::Sessions { app: app(name), kv })
    }

    pub(crate) fn refusal(&self, ticket: TicketId) -> &Refusal {
        match self.answers.get(&ticket) {
            Some(Action::Refuse { refusal, .. }) => refusal,
            other => panic!("{ticket:?} was not refused: {other:?}"),
        }
    }

    pub(crate) fn is_admitted(&self, ticket: TicketId) -> bool {
        matches!(self.answers.get(&ticket), Some(Action::Admit { .. }))
    }

    pub(crate) fn is_joined(&self, ticket: TicketId) -> bool {
        matches!(self.answers.get(&ticket), Some(Action::Join { .. }))
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        self.models.contains_key(&digest(name))
    }
}

/// What of the actions gives memory back: `rung of model`, in order.
pub(crate) fn given_back(actions: &[Action]) -> Vec<String> {
    let line = |action: &Action| match action {
        Action::Reclaim { model, rung, .. } => Some(format!("{rung} of {model}")),
        Action::Unload { model, .. } => Some(format!("unload {model}")),
        _ => None,
    };
    actions.iter().filter_map(line).collect()
}

/// The newest epoch that an app was told.
pub(crate) fn tightening(actions: &[Action], name: &str) -> Option<Tightening> {
    actions.iter().rev().find_map(|action| match action {
        Action::Tighten { app: of, tightening } if *of == app(name) => Some(tightening.clone()),
        _ => None,
    })
}

impl World {
    /// What the last event led to.
    pub(crate) fn last_actions(&self) -> Vec<Action> {
        self.actions.iter().filter(|(at, _)| *at == self.now).map(|(_, action)| action.clone()).collect()
    }

    /// The sensors are read once, `ms` later.
    pub(crate) fn read_after(&mut self, ms: u64) -> Vec<Action> {
        self.now += ms;
        self.read()
    }

    /// Models that are there are used now and then, so that the idle rule lets them stay.
    pub(crate) fn use_all(&mut self) {
        for name in self.models.keys().map(|model| model.0.clone()).collect::<Vec<_>>() {
            self.answer_once(&name);
        }
    }
}
