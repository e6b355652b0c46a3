//! One run: a host that streams an answer, a neighbour that takes more than what is left, and everything after it.

use std::{
    fmt,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::channel},
    time::{Duration, Instant},
};

use anyhow::{Error, Result, anyhow};
use rustix::fs::{Advice, fadvise};

use crate::{
    group::Group,
    host::{Answer, Heard, Host, Setup, ms},
    log::{self, Told},
    neighbour::{Appetite, Neighbour},
    place::Place,
    watch::{Look, Watch},
};

/// The group's limit. A host promises nothing below 2 GiB of memory, which it leaves to the system.
pub(crate) const LIMIT: u64 = 3 << 30;
/// What the neighbour leaves to the host. Less than what the host holds in anonymous memory when it is at ease, so that one
/// that gives nothing back swaps whatever the kernel does with its weights; more than what one that does needs in all.
const LEFT: u64 = 320 << 20;
/// Some 300 MiB a second, as fast as a build grows or a game loads.
const STEP_MIB: u64 = 64;
const PAUSE_MS: u64 = 120;
/// The neighbour holds all of it for so long.
const HOLDS: Duration = Duration::from_secs(3);
/// Nothing that is answered takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// An answer in flight lasts about so long when nothing presses.
const IN_FLIGHT: Duration = Duration::from_secs(15);
/// Within this every refusal has come to its end: the level falls by a step in five seconds.
const RECOVERS: Duration = Duration::from_secs(30);
/// Conversations that are idle when the neighbour comes.
const IDLE: [&str; 2] = ["anna", "ben"];
/// With [`PROMPT`] an idle conversation takes 128 cells. A pool that is made again moves the cells of the answer in flight to
/// its front, and the kernels of a CPU add up as many as 64 cells at a time: moved by anything but a multiple of that, the same numbers
/// round differently, and with random weights the answer soon is another one although nothing is wrong. Moved by one, an
/// answer that differs shows a state that is wrong.
const IDLE_TOKENS: u32 = 63;
const PROMPT: &str = "Tell me everything that you know about the sea, the wind and the weather of the coast.";
const AGAIN: &str = "And what else?";
const AGAIN_TOKENS: u32 = 16;

/// Which run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A host and nobody else.
    Calm,
    /// The neighbour and nobody else.
    Alone,
    /// Both.
    Governed,
    /// Both, with the governor switched off.
    Naive,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Calm => "no neighbour",
            Self::Alone => "neighbour alone",
            Self::Governed => "governed",
            Self::Naive => "naive",
        })
    }
}

/// What a run showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) part: Part,
    pub(crate) swap: bool,
    pub(crate) looks: Vec<Look>,
    pub(crate) before: Look,
    pub(crate) during: Look,
    pub(crate) after: Look,
    pub(crate) kills: u64,
    /// Who was killed.
    pub(crate) killed: Vec<&'static str>,
    /// The answer in flight, or why there is none.
    pub(crate) in_flight: Result<Answer, String>,
    /// The answers after the neighbour had gone.
    pub(crate) afterwards: Result<Vec<Answer>, String>,
    /// From the end of the neighbour to the first of them, ms: what had to be loaded was.
    pub(crate) back_ms: f64,
    pub(crate) heard: Vec<Heard>,
    pub(crate) told: Option<Result<Told, String>>,
}

impl Outcome {
    fn new(part: Part, swap: bool) -> Self {
        Self {
            part,
            swap,
            looks: Vec::new(),
            before: Look::default(),
            during: Look::default(),
            after: Look::default(),
            kills: 0,
            killed: Vec::new(),
            in_flight: Err("was not asked".to_owned()),
            afterwards: Err("was not asked".to_owned()),
            back_ms: 0.0,
            heard: Vec::new(),
            told: None,
        }
    }

    /// The most swap that the group held, bytes.
    pub(crate) fn swap_peak(&self) -> u64 {
        self.looks.iter().map(|look| look.group.swap).max().unwrap_or(0)
    }

    /// The most swap that the host itself held, bytes.
    pub(crate) fn host_swap_peak(&self) -> u64 {
        self.looks.iter().map(|look| look.swapped).max().unwrap_or(0)
    }
}

/// Everything that the runs share.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) place: Place,
    pub(crate) setup: Setup,
    /// Where the logs of the governor, what the hosts said and the answers in flight stay, to be looked at.
    pub(crate) logs: PathBuf,
    /// Length of the answer in flight; known after the calm run.
    pub(crate) tokens: Option<u32>,
}

impl Stage {
    /// Runs one part. The group is gone when it returns.
    pub(crate) fn run(&mut self, part: Part, swap: bool) -> Result<Outcome> {
        drop_cache(&self.setup.model)?;
        let group = Arc::new(Group::new(&self.place, LIMIT)?);
        let watch = Watch::start(group.clone());
        let mut outcome = Outcome::new(part, swap);
        let played = match part {
            Part::Alone => alone(&group, &mut outcome),
            Part::Calm | Part::Governed | Part::Naive => self.play(&group, &watch, &mut outcome),
        };
        outcome.looks = watch.looks();
        outcome.kills = group.kills()?;
        played.map(|()| outcome)
    }

    fn play(&mut self, group: &Group, watch: &Watch, outcome: &mut Outcome) -> Result<()> {
        let part = outcome.part;
        let name = format!("{part}-swap-{}", if outcome.swap { "on" } else { "off" }).replace(' ', "-");
        let (log, said) = (self.logs.join(format!("{name}.jsonl")), self.logs.join(format!("{name}.txt")));
        let mut host = self.setup.start(&group.folders(), &log, part != Part::Naive, &said)?;
        watch.host(host.pid());
        let acted = self.act(group, watch, &mut host, outcome);
        outcome.heard = std::mem::take(&mut host.heard);
        if let Ok(answer) = &outcome.in_flight {
            fs_err::write(self.logs.join(format!("{name}.answer")), &answer.text)?;
        }
        let ended = host.leave();
        let said = fs_err::read_to_string(&said).unwrap_or_default();
        match &ended {
            Ok(status) if status.success() => {}
            Ok(status) => {
                eprintln!("{part}: the host ended with {status}: {}", said.trim());
                outcome.killed.extend(status.signal().is_some().then_some("the host"));
            }
            Err(error) => eprintln!("{part}: {error:#}"),
        }
        if let Err(error) = acted {
            if part == Part::Calm {
                return Err(error.context(format!("the run without a neighbour; the host said: {}", said.trim())));
            }
            // That a host dies is a result too.
            let why = format!("{error:#}");
            if outcome.in_flight.is_err() {
                outcome.in_flight = Err(why.clone());
            }
            outcome.afterwards = Err(why);
        }
        if part == Part::Governed {
            let text = fs_err::read_to_string(&log).unwrap_or_default();
            outcome.told = Some(log::read(&text).map_err(|error| format!("{error:#}")));
        }
        Ok(())
    }

    fn act(&mut self, group: &Group, watch: &Watch, host: &mut Host, outcome: &mut Outcome) -> Result<()> {
        let mut rate = 0.0;
        for session in IDLE {
            host.ask(session, IDLE_TOKENS, PROMPT)?;
            rate = host.answer(PATIENCE, || ())?.map_err(Error::msg)?.tokens_per_second();
        }
        // Every run asks the same: a conversation that only one of them has would lie between the cells of the others.
        let tokens = *self.tokens.get_or_insert((rate * IN_FLIGHT.as_secs_f64()).clamp(60.0, 1500.0) as u32);
        outcome.before = watch.now();
        host.ask("main", tokens, PROMPT)?;
        if outcome.part == Part::Calm {
            outcome.in_flight = host.answer(PATIENCE, || ())?;
            outcome.during = watch.now();
        } else {
            self.press(group, watch, host, outcome)?;
        }
        let gone = Instant::now();
        outcome.afterwards = afterwards(host, gone, &mut outcome.back_ms);
        outcome.after = watch.now();
        Ok(())
    }

    /// The neighbour comes when the answer has begun, and goes when it has held its memory for a while.
    fn press(&self, group: &Group, watch: &Watch, host: &mut Host, outcome: &mut Outcome) -> Result<()> {
        let (begun, begins) = channel::<()>();
        std::thread::scope(|scope| {
            let neighbour = scope.spawn(move || match begins.recv() {
                Ok(()) => visit(group, || watch.now()).map(Some),
                // There will be no answer.
                Err(_) => Ok(None),
            });
            let answer = host.answer(PATIENCE, move || _ = begun.send(()));
            if !neighbour.is_finished() {
                eprintln!("{}: the answer ended before the neighbour had gone", outcome.part);
            }
            let visit = neighbour.join().map_err(|_| anyhow!("the neighbour's thread panicked"))??;
            if let Some((during, killed)) = visit {
                outcome.during = during;
                outcome.killed.extend(killed.then_some("the neighbour"));
            }
            outcome.in_flight = answer?;
            Ok(())
        })
    }
}

/// A neighbour from its coming to its end: what `look` saw while it had everything, and whether it was killed.
fn visit<T>(group: &Group, look: impl Fn() -> T) -> Result<(T, bool)> {
    let steps = (LIMIT - LEFT) / (STEP_MIB << 20);
    let appetite = Appetite { step_mib: STEP_MIB, steps, pause_ms: PAUSE_MS };
    let mut neighbour = Neighbour::start(&group.folders(), appetite)?;
    if neighbour.is_full()? {
        std::thread::sleep(HOLDS);
    }
    let seen = look();
    Ok((seen, !neighbour.leave()?.success()))
}

fn alone(group: &Group, outcome: &mut Outcome) -> Result<()> {
    let ((), killed) = visit(group, || ())?;
    outcome.killed.extend(killed.then_some("the neighbour"));
    Ok(())
}

/// Goes on with every conversation that was idle. A host that still refuses is asked again: it said when.
fn afterwards(host: &mut Host, gone: Instant, back_ms: &mut f64) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    for session in IDLE {
        let answer = loop {
            host.ask(session, AGAIN_TOKENS, AGAIN).map_err(|error| format!("{error:#}"))?;
            match host.answer(PATIENCE, || ()).map_err(|error| format!("{error:#}"))? {
                Ok(answer) => break answer,
                Err(why) if gone.elapsed() > RECOVERS => return Err(why),
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        };
        if answers.is_empty() {
            *back_ms = ms(gone.elapsed());
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// Drops the model's pages from the page cache: they are charged to whoever touches them first.
fn drop_cache(model: &Path) -> Result<()> {
    let file = fs_err::File::open(model)?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}
