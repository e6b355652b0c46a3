//! The border between a laptop and whoever decides about its models: what happened goes in, commands come out.
//!
//! Every policy sees the same [`Host`] and the same samples at the same times, and its commands take the same time.

use crate::{
    fleet::Laptop,
    host::Host,
    memory::Warning,
    trace::{Heat, Power},
};

/// What a policy fixes once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Sequences that one model decodes together.
    pub slots: usize,
    /// Bytes of saved states that each model keeps in memory; 0 is none.
    pub prompt_cache: u64,
    /// Sessions that lose their cells are written to disk and come back from there.
    pub spills: bool,
    /// Interactive requests begin before background ones.
    pub by_class: bool,
    /// Each model is a process of its own, so the kernel kills only the largest.
    pub process_per_model: bool,
    /// The memory of apps is the host's. Else apps are ordinary programs and nobody is charged for them.
    pub owns_apps: bool,
}

/// One reading of the sensors, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// What the system calls available; see [`crate::memory::Memory::available`].
    pub available: u64,
    /// Swap space in all.
    pub swap_total: u64,
    /// Swap space in use.
    pub swap_used: u64,
    /// Written to swap since the laptop was started.
    pub swapped_out: u64,
    /// Resident clean pages of the models.
    pub own_file: u64,
    /// Anonymous memory of the host.
    pub own_anonymous: u64,
    /// What the kernel says (macOS).
    pub warning: Option<Warning>,
    /// Share of the last ten seconds in which somebody waited for memory, hundredths of a percent (Linux).
    pub stall: Option<u32>,
    /// How hot it is.
    pub heat: Heat,
    /// Where the power comes from.
    pub power: Power,
}

/// How an app answers a tightening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Will release so many bytes.
    Pledge(u64),
    /// Has released so many bytes.
    Done(u64),
    /// Needs so many milliseconds more.
    Defer(u32),
}

/// What happened. Indices are those of [`Laptop`] and of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// The sensors were read.
    Sampled(Sample),
    /// A request came; it is answered by `Queue` or `Refuse`, now or later.
    Arrived(usize),
    /// A request was answered to its end.
    Finished(usize),
    /// A request has ended otherwise: aborted, or nobody wants it any more.
    Ended(usize),
    /// A model is there.
    Loaded(usize),
    /// A model is gone as it was told; so many bytes are free.
    Unloaded(usize, u64),
    /// A reclaim has ended.
    Reclaimed {
        /// As it was named.
        step: u64,
        /// The model.
        model: usize,
        /// What was measured to be free.
        freed: u64,
    },
    /// What runs or waits on a model has changed.
    Changed(usize),
    /// An app wants to hold so many bytes of guest memory; 0 is the end of its run.
    GuestWants(usize, u64),
    /// An app has shrunk by itself to so many bytes.
    GuestShrank(usize, u64),
    /// An app answers an epoch.
    Answered(usize, u32, Answer),
    /// A person looks at an app, or no longer.
    Looked(usize, bool),
    /// The kernel killed models; they are gone and so is what ran on them.
    Killed(usize),
    /// The kernel killed the whole host, its guests too.
    HostKilled,
}

/// Why a model is unloaded: only the first two count as evictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Memory is short.
    Pressure,
    /// Another model needs the place.
    Room,
    /// Nobody used it.
    Idle,
}

/// A part of a model's memory that is given back alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Saved states in memory.
    PromptCache,
    /// Cells of sessions that nobody is answering; the pool shrinks.
    IdleSessions,
    /// Clean pages of the weights.
    Weights,
    /// Cells of background requests; they go on when there is room.
    Background,
}

/// Who may begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gate {
    /// Everybody.
    #[default]
    All,
    /// Requests that a person waits for.
    Interactive,
    /// Nobody: what waits waits, what comes is refused.
    Nobody,
}

/// What a policy wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Begin as soon as the model has a place.
    Queue(usize),
    /// Answer with an error. What nobody waits for is asked again while it has patience.
    Refuse(usize),
    /// Stop a request that was accepted, running or not.
    Abort(usize),
    /// Load a model with its whole context.
    Load(usize),
    /// Unload a model once nothing runs on it; nothing new begins.
    Unload(usize, Cause),
    /// Do not unload it after all, if it still answers.
    Stay(usize),
    /// Give back a part.
    Reclaim {
        /// Names it in the answer.
        step: u64,
        /// The model.
        model: usize,
        /// The part.
        rung: Rung,
        /// States go to disk; else they are forgotten.
        spill: bool,
    },
    /// Give the pool of a model so many bytes of cells.
    Grow(usize, u64),
    /// Who may begin on a model, with what length of answer at most.
    Throttle {
        /// The model.
        model: usize,
        /// Who may begin.
        gate: Gate,
        /// Tokens of an answer.
        max_tokens: Option<u64>,
        /// Sequences together. Zero: what runs keeps its cells and does not compute.
        slots: Option<usize>,
    },
    /// The guest memory of an app is so large now.
    Guest(usize, u64),
    /// Ask an app to release.
    Tighten {
        /// The app.
        app: usize,
        /// Names it in the answer.
        epoch: u32,
        /// Bytes to release.
        release: u64,
    },
    /// The app computes nothing until it may again.
    Suspend(usize, bool),
    /// Forget the idle conversations of an app.
    Forget(usize),
    /// Stop the app's run.
    Stop(usize),
}

/// Who decides.
pub trait Policy {
    /// What it fixes once.
    fn rules(&self) -> Rules;
    /// Decides. Commands are carried out in order.
    fn handle(&mut self, host: &Host<'_>, happened: &Happened) -> Vec<Command>;
    /// What must be true and is not; asked after every step.
    fn violation(&mut self, _host: &Host<'_>) -> Option<String> {
        None
    }
    /// Keeps a log from now on, where it can.
    fn start_record(&mut self) {}
    /// The log of what it was told, one JSON object a line; empty where it keeps none.
    fn record(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Makes a policy for a laptop.
pub type Make = fn(&Laptop) -> Box<dyn Policy>;
