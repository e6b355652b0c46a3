//! Laptops and weeks written by hand, and a policy that notes what another one commands.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test takes what it needs of it")]

use locara_simulate::{
    fleet::{App, Kind, Laptop, Manners, Model},
    host::Host,
    memory::Swap,
    policy::{Command, Happened, Policy, Rules},
    trace::{Request, Trace},
};

pub const GIB: u64 = 1 << 30;
pub const MINUTE: u64 = 60_000;

/// A command and when it was given, ms.
pub type Log = Vec<(u64, Command)>;

/// Notes the commands of another policy, and the most that saved states took.
#[derive(Debug)]
pub struct Spy<P> {
    pub inner: P,
    pub log: Log,
    pub most_saved: u64,
}

impl<P: Policy> Spy<P> {
    pub fn new(inner: P) -> Self {
        Self { inner, log: Vec::new(), most_saved: 0 }
    }

    /// Loads and unloads in order: the model, and true for a load.
    pub fn moves(&self) -> Vec<(usize, bool)> {
        let moves = self.log.iter().filter_map(|(_, command)| match *command {
            Command::Load(model) => Some((model, true)),
            Command::Unload(model, _) => Some((model, false)),
            _ => None,
        });
        moves.collect()
    }

    /// When the first command came for which `is` holds.
    pub fn first(&self, is: impl Fn(&Command) -> bool) -> Option<u64> {
        self.log.iter().find(|(_, command)| is(command)).map(|(at, _)| *at)
    }
}

impl<P: Policy> Policy for Spy<P> {
    fn rules(&self) -> Rules {
        self.inner.rules()
    }
    fn handle(&mut self, host: &Host<'_>, happened: &Happened) -> Vec<Command> {
        let saved = (0..host.models.len()).map(|model| host.prompt_cache(model)).max();
        self.most_saved = self.most_saved.max(saved.unwrap_or(0));
        let commands = self.inner.handle(host, happened);
        self.log.extend(commands.iter().map(|command| (host.now, *command)));
        commands
    }
    fn violation(&mut self, host: &Host<'_>) -> Option<String> {
        self.inner.violation(host)
    }
}

/// A model of so many GiB of weights.
pub fn model(name: &'static str, gib: u64) -> Model {
    Model { name, weights: gib * GIB, kv_token: 64 << 10, compute: GIB / 8, parameters: gib * 1700, secondary: false }
}

/// A Linux laptop without a GPU and without swap, with one chatting app for each model.
pub fn laptop(ram_gib: u64, models: Vec<Model>) -> Laptop {
    let app = |model| App { kind: Kind::Chat, model, floor: 0, ceiling: 0, manners: Manners::Obeys };
    Laptop {
        id: 0,
        ram: ram_gib * GIB,
        kernel: GIB,
        page_cache: GIB,
        swap: Swap::None,
        gpu: None,
        disk: 3_000_000,
        bandwidth: 60_000_000,
        compute: 400,
        apps: (0..models.len()).map(app).collect(),
        models,
        develops: false,
        heavy: false,
        overnight: true,
    }
}

/// A day on which other programs follow `others` (ms, bytes) and each model is asked at given times (ms).
pub fn day(others: &[(u64, u64)], asked: &[(u64, usize)]) -> Trace {
    let request = |(index, &(at, model)): (usize, &(u64, usize))| Request {
        at,
        app: model,
        model,
        session: index as u64,
        interactive: true,
        history: 0,
        prompt: 50,
        answer: 20,
        patience: 5 * MINUTE,
    };
    Trace {
        length: 24 * 60 * MINUTE,
        others: others.to_vec(),
        requests: asked.iter().enumerate().map(request).collect(),
        ..Trace::default()
    }
}

/// Other programs that hold the same all day.
pub fn steady(gib: u64) -> [(u64, u64); 2] {
    [(0, gib * GIB), (24 * 60 * MINUTE, gib * GIB)]
}
