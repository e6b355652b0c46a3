//! What happens to a laptop in its week, whatever the host does: other programs, requests, guests, sleep, heat, power.
//!
//! # Assumptions
//! - Other programs are a sum of straight lines in time. Steepest: a browser 250 MB/s, a virtual machine or a photo editor
//!   400 MB/s, a linker 500 MB/s. What is closed is gone within a second.
//! - A laptop in use holds about half of what the kernel leaves before anything special happens: the system, messengers, mail
//!   and an editor that are opened in the morning, and a browser that collects tabs. Compilers, calls and heavy programs come
//!   on top.
//! - A person who has no swap keeps other programs below 92 % of what the kernel leaves; one who has it lets them grow to
//!   105 %, on a Mac to 115 %. So some laptops swap or compress by themselves, and no policy is charged for that.
//! - Requests come at given times (open loop): a slow host does not make people ask less.
//! - The day has a morning, an afternoon and an evening with a person at the machine, weekends half of them.

use crate::{
    fleet::{App, Kind, Laptop, N_CTX},
    memory::Swap,
    rng::Rng,
};

const MB: u64 = 1_000_000;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// A day, ms.
pub const DAY: u64 = 24 * HOUR;

/// How hot it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Heat {
    /// Cool.
    #[default]
    Nominal,
    /// Warm: a tenth slower.
    Fair,
    /// The system slows down: a third slower.
    Serious,
}

impl Heat {
    /// What is left of the speed, per mille.
    #[must_use]
    pub const fn speed(self) -> u64 {
        match self {
            Self::Nominal => 1000,
            Self::Fair => 900,
            Self::Serious => 660,
        }
    }
}

/// Where the power comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Power {
    /// From the battery.
    pub battery: bool,
    /// The owner asked to save energy.
    pub saver: bool,
}

/// One request of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// When, ms.
    pub at: u64,
    /// Index of the app.
    pub app: usize,
    /// Index of the model.
    pub model: usize,
    /// The conversation.
    pub session: u64,
    /// A person waits.
    pub interactive: bool,
    /// Tokens that the conversation has already.
    pub history: u64,
    /// Tokens that are new.
    pub prompt: u64,
    /// Tokens of the answer.
    pub answer: u64,
    /// After so long without a first step nobody wants it any more, ms.
    pub patience: u64,
}

impl Request {
    /// Cells that it needs, tokens.
    #[must_use]
    pub const fn cells(&self) -> u64 {
        self.history + self.prompt + self.answer
    }
}

/// A week.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Length, ms.
    pub length: u64,
    /// Anonymous memory of other programs, bytes; straight lines between the points.
    pub others: Vec<(u64, u64)>,
    /// Requests by time.
    pub requests: Vec<Request>,
    /// What guests want to hold from a moment on: ms, app, bytes. 0 is the end of the run.
    pub guests: Vec<(u64, usize, u64)>,
    /// Whether a person looks at an app from a moment on.
    pub visible: Vec<(u64, usize, bool)>,
    /// How hot it is from a moment on.
    pub heat: Vec<(u64, Heat)>,
    /// Where the power comes from, from a moment on.
    pub power: Vec<(u64, Power)>,
    /// Asleep, from and to, ms.
    pub sleeps: Vec<(u64, u64)>,
}

impl Trace {
    /// What happens to `laptop` in `days` days.
    #[must_use]
    pub fn new(seed: u64, laptop: &Laptop, days: u64) -> Self {
        let mut rng = Rng::new(seed, laptop.id, "week");
        let mut trace = Self { length: days * DAY, ..Self::default() };
        let mut programs = Programs::default();
        let mut session = 1;
        for day in 0..days {
            let midnight = day * DAY;
            let weekend = day % 7 >= 5;
            let windows = windows(midnight, weekend, &mut rng);
            trace.sleep(laptop, midnight, &windows, &mut rng);
            if let (Some(&(from, _)), Some(&(_, to))) = (windows.first(), windows.last()) {
                programs.desk(laptop, from, to, &mut rng);
            }
            for (index, &(from, to)) in windows.iter().enumerate() {
                programs.window(laptop, from, to, index == 0, weekend, &mut rng);
                trace.outlets(from, to, &mut rng);
                for (app, installed) in laptop.apps.iter().enumerate() {
                    trace.foreground(app, installed, (from, to), &mut session, &mut rng);
                }
            }
            for (app, installed) in laptop.apps.iter().enumerate() {
                trace.background(app, installed, laptop.overnight, midnight, &windows, &mut session, &mut rng);
            }
        }
        let room = laptop.ram.saturating_sub(laptop.kernel + laptop.page_cache);
        let most = match laptop.swap {
            Swap::None => room * 92 / 100,
            Swap::Disk(_) | Swap::Zram(_) => room * 105 / 100,
            Swap::Compressor => room * 115 / 100,
        };
        trace.others = programs.sum(laptop.ram / 25 + 700 * MB, most, trace.length);
        trace.heat.extend(programs.heat);
        trace.finish();
        trace
    }

    /// Puts everything in order and leaves out what falls into a sleep or after the end.
    fn finish(&mut self) {
        let sleeps = std::mem::take(&mut self.sleeps);
        let awake = |at: u64| !sleeps.iter().any(|&(from, to)| from <= at && at < to);
        let length = self.length;
        self.requests.retain(|request| awake(request.at) && request.at < length);
        self.requests.sort_by_key(|request| (request.at, request.session));
        self.guests.sort_by_key(|&(at, app, _)| (at, app));
        self.visible.sort_by_key(|&(at, app, _)| (at, app));
        self.heat.sort_by_key(|&(at, _)| at);
        self.power.sort_by_key(|&(at, _)| at);
        self.sleeps = sleeps;
    }

    /// Asleep from the last window of a day to the first of the next, and often at noon.
    fn sleep(&mut self, laptop: &Laptop, midnight: u64, windows: &[(u64, u64)], rng: &mut Rng) {
        let first = windows.first().map_or(midnight + 12 * HOUR, |&(from, _)| from);
        let last = windows.last().map_or(midnight + 12 * HOUR, |&(_, to)| to);
        let naps: Vec<(u64, u64)> = windows.windows(2).map(|pair| (pair[0].1, pair[1].0)).collect();
        if !laptop.overnight {
            self.sleeps.push((midnight, first.saturating_sub(MINUTE)));
        }
        for (from, to) in naps {
            if rng.chance(40) {
                self.sleeps.push((from + 5 * MINUTE, to.saturating_sub(MINUTE)));
            }
        }
        if !laptop.overnight {
            self.sleeps.push((last + 10 * MINUTE, midnight + DAY));
        }
    }

    /// On battery in a third of the windows; the saver comes on towards the end of long ones.
    fn outlets(&mut self, from: u64, to: u64, rng: &mut Rng) {
        if rng.chance(33) {
            self.power.push((from, Power { battery: true, saver: false }));
            if to - from > 3 * HOUR && rng.chance(50) {
                self.power.push((from + 2 * HOUR, Power { battery: true, saver: true }));
            }
            self.power.push((to, Power::default()));
        }
    }

    /// Sessions that a person waits for.
    fn foreground(&mut self, app: usize, installed: &App, (from, to): (u64, u64), session: &mut u64, rng: &mut Rng) {
        let (sessions, requests, gap, prompt, answer) = match installed.kind {
            Kind::Chat => ((0, 3), (2, 12), (20, 180), (20, 400), (50, 600)),
            Kind::Agent => ((0, 1), (5, 30), (3, 20), (200, 1500), (30, 300)),
            Kind::Complete => ((0, 2), (20, 80), (10, 60), (300, 1200), (10, 60)),
            Kind::Voice => ((0, 3), (1, 5), (8, 40), (40, 200), (20, 120)),
            Kind::Summarise | Kind::Index => return,
        };
        for _ in 0..rng.within(sessions.0, sessions.1) {
            let mut at = rng.within(from, to);
            let start = at;
            let mut history = 0;
            *session += 1;
            let level = rng.within(installed.floor, installed.ceiling);
            self.guests.push((at.saturating_sub(10 * SECOND), app, installed.floor.max(level / 3)));
            self.visible.push((at.saturating_sub(5 * SECOND), app, true));
            for _ in 0..rng.within(requests.0, requests.1) {
                if at >= to {
                    break;
                }
                let pasted = installed.kind == Kind::Chat && rng.chance(15);
                let prompt = if pasted { rng.within(1000, 4000) } else { rng.mostly_small(prompt.0, prompt.1) };
                let answer = rng.mostly_small(answer.0, answer.1);
                // Completions send what is around the cursor, each time anew.
                if installed.kind == Kind::Complete {
                    history = 0;
                } else if history + prompt + answer > N_CTX {
                    history = (N_CTX / 2).saturating_sub(prompt);
                }
                self.request(app, installed, *session, at, (history, prompt, answer));
                history += prompt + answer;
                at += rng.within(gap.0, gap.1) * SECOND;
            }
            self.guests.push((start + (at - start) / 2, app, level));
            let close = at + rng.within(2, 25) * MINUTE;
            self.visible.push((at + 30 * SECOND, app, false));
            self.guests.push((close, app, 0));
        }
    }

    /// Work that nobody waits for: by day beside the person, by night when the lid is open.
    #[expect(clippy::too_many_arguments, reason = "the parts of one day, used once")]
    fn background(
        &mut self,
        app: usize,
        installed: &App,
        overnight: bool,
        midnight: u64,
        windows: &[(u64, u64)],
        session: &mut u64,
        rng: &mut Rng,
    ) {
        let (runs, requests, gap, prompt, answer) = match installed.kind {
            Kind::Summarise => ((1, 4), (1, 6), (5, 60), (1500, 6000), (150, 500)),
            Kind::Index => ((1, 4), (10, 80), (1, 3), (150, 500), (1, 1)),
            Kind::Chat | Kind::Agent | Kind::Complete | Kind::Voice => return,
        };
        let mut starts = Vec::new();
        for &(from, to) in windows {
            starts.extend((0..rng.within(0, runs.1 / 2)).map(|_| (rng.within(from, to), 1)));
        }
        if overnight {
            starts.extend((0..rng.within(runs.0, runs.1)).map(|_| (midnight + rng.within(HOUR, 6 * HOUR), 4)));
        }
        for (start, factor) in starts {
            let mut at = start;
            let level = rng.within(installed.floor, installed.ceiling);
            self.guests.push((at.saturating_sub(5 * SECOND), app, level));
            for _ in 0..rng.within(requests.0, requests.1 * factor) {
                *session += 1;
                let tokens = (0, rng.within(prompt.0, prompt.1), rng.within(answer.0, answer.1));
                self.request(app, installed, *session, at, tokens);
                at += rng.within(gap.0, gap.1) * SECOND;
            }
            self.guests.push((at + rng.within(1, 10) * MINUTE, app, 0));
        }
    }

    fn request(&mut self, app: usize, installed: &App, session: u64, at: u64, tokens: (u64, u64, u64)) {
        let interactive = !matches!(installed.kind, Kind::Summarise | Kind::Index);
        let (history, prompt, answer) = tokens;
        let patience = if interactive { 90 * SECOND } else { 30 * MINUTE };
        let model = installed.model;
        self.requests.push(Request { at, app, model, session, interactive, history, prompt, answer, patience });
    }

    /// The most that other programs hold between two moments, bytes.
    #[must_use]
    pub fn most_between(&self, from: u64, to: u64) -> u64 {
        let first = self.others.partition_point(|&(at, _)| at <= from);
        let inside = self.others[first..].iter().take_while(|&&(at, _)| at < to).map(|&(_, bytes)| bytes).max();
        inside.unwrap_or(0).max(self.at(from)).max(self.at(to))
    }

    /// What other programs hold at one moment, bytes.
    #[must_use]
    pub fn at(&self, at: u64) -> u64 {
        let next = self.others.partition_point(|&(time, _)| time <= at);
        let before = next.checked_sub(1).and_then(|index| self.others.get(index));
        match (before, self.others.get(next)) {
            (Some(&from), Some(&to)) => between(from, to, at),
            (Some(&(_, bytes)), None) | (None, Some(&(_, bytes))) => bytes,
            (None, None) => 0,
        }
    }
}

/// A point on the line between two others.
pub(crate) fn between(from: (u64, u64), to: (u64, u64), at: u64) -> u64 {
    let span = u128::from((to.0 - from.0).max(1));
    let done = u128::from(at.saturating_sub(from.0)).min(span);
    // The sum is a weighted mean of two `u64`, so it fits again.
    ((u128::from(from.1) * (span - done) + u128::from(to.1) * done) / span) as u64
}

/// Times of a day at which a person is at the machine.
fn windows(midnight: u64, weekend: bool, rng: &mut Rng) -> Vec<(u64, u64)> {
    let shift = rng.within(0, HOUR);
    let day = [(8 * HOUR, 12 * HOUR), (13 * HOUR, 17 * HOUR + HOUR / 2), (20 * HOUR, 22 * HOUR + HOUR / 2)];
    let mut windows = Vec::new();
    for (from, to) in day {
        if rng.chance(if weekend { 50 } else { 92 }) {
            windows.push((midnight + from + shift, midnight + to + rng.within(0, HOUR)));
        }
    }
    windows
}

/// Programs while the week is made: each a line of its own.
#[derive(Debug, Default)]
struct Programs {
    browser: Vec<(u64, u64)>,
    jobs: Vec<Vec<(u64, u64)>>,
    heat: Vec<(u64, Heat)>,
}

impl Programs {
    fn window(&mut self, laptop: &Laptop, from: u64, to: u64, first: bool, weekend: bool, rng: &mut Rng) {
        self.browser(laptop, from, to, first, rng);
        if laptop.develops && !weekend {
            for _ in 0..rng.within(1, 5) {
                self.compile(laptop, rng.within(from, to), rng);
            }
        }
        if !weekend && rng.chance(40) {
            let start = rng.within(from, to);
            let size = rng.within(600, 1_400) * MB;
            self.jobs.push(block(start, 10 * SECOND, size, rng.within(20, 60) * MINUTE));
        }
        if laptop.heavy && rng.chance(50) {
            let size = laptop.ram / 100 * rng.within(10, 30);
            let ramp = (size / (400 * MB / SECOND)).max(rng.within(5, 90) * SECOND);
            self.jobs.push(block(rng.within(from, to), ramp, size, rng.within(20, 120) * MINUTE));
        }
    }

    /// Messengers, mail, an editor: opened in the morning, closed in the evening.
    fn desk(&mut self, laptop: &Laptop, from: u64, to: u64, rng: &mut Rng) {
        let size = (laptop.ram / 100 * rng.within(12, 28)).min(6_000 * MB);
        let start = from + rng.within(5, 120) * SECOND;
        self.jobs.push(block(start, rng.within(30, 120) * SECOND, size, to.saturating_sub(start) + 5 * MINUTE));
    }

    /// Tabs come and go, and now and then a page takes much for a while.
    fn browser(&mut self, laptop: &Laptop, from: u64, to: u64, first: bool, rng: &mut Rng) {
        let cap = (laptop.ram / 100 * rng.within(20, 40)).min(14_000 * MB);
        let mut now = self.browser.last().map_or(0, |&(_, bytes)| bytes);
        let mut at = from.max(self.browser.last().map_or(0, |&(at, _)| at + 1));
        self.browser.push((at, now));
        if first {
            now = now.max((laptop.ram / 100 * rng.within(8, 15)).min(4_000 * MB));
            at += 20 * SECOND;
            self.browser.push((at, now));
        }
        loop {
            let quiet = rng.within(2, 15) * MINUTE;
            if at + quiet >= to {
                break;
            }
            at += quiet;
            self.browser.push((at, now));
            match rng.within(0, 99) {
                0..70 => {
                    now = (now + rng.within(30, 250) * MB).min(cap.max(now));
                    at += rng.within(3, 40) * SECOND;
                    self.browser.push((at, now));
                }
                70..85 => {
                    let burst = rng.mostly_small(300, (laptop.ram / 10 / MB).clamp(300, 2_500)) * MB;
                    at += burst / (250 * MB / SECOND);
                    self.browser.push((at, now + burst));
                    at += rng.within(1, 20) * MINUTE;
                    self.browser.push((at, now + burst));
                    at += SECOND;
                    self.browser.push((at, now));
                }
                _ => {
                    now -= now / 100 * rng.within(20, 60);
                    at += SECOND;
                    self.browser.push((at, now));
                }
            }
        }
        let end = at.max(to);
        self.browser.push((end, now));
        if rng.chance(25) {
            self.browser.push((end + SECOND, 0));
        }
    }

    /// Compilers come and go like the teeth of a saw; the linker comes last and takes most.
    fn compile(&mut self, laptop: &Laptop, start: u64, rng: &mut Rng) {
        let peak = laptop.ram / 100 * rng.within(8, 25);
        let mut at = start;
        let mut line = vec![(at, 0)];
        at += rng.within(20, 90) * SECOND;
        line.push((at, peak));
        for _ in 0..rng.within(3, 30) {
            at += rng.within(5, 20) * SECOND;
            line.push((at, peak / 100 * rng.within(60, 80)));
            at += rng.within(5, 20) * SECOND;
            line.push((at, peak / 100 * rng.within(85, 100)));
        }
        if rng.chance(60) {
            let link = laptop.ram / 100 * rng.within(3, 8);
            at += (link / (500 * MB / SECOND)).max(SECOND);
            line.push((at, peak + link));
            at += rng.within(3, 15) * SECOND;
            line.push((at, peak + link));
        }
        at += SECOND;
        line.push((at, 0));
        if rng.chance(15) {
            let heat = if rng.chance(50) { Heat::Serious } else { Heat::Fair };
            self.heat.push((start + MINUTE, heat));
            self.heat.push((at + 3 * MINUTE, Heat::Nominal));
        }
        self.jobs.push(line);
    }

    /// The sum of all lines and of what the system itself needs, not above `most`.
    fn sum(&mut self, system: u64, most: u64, length: u64) -> Vec<(u64, u64)> {
        let mut lines = std::mem::take(&mut self.jobs);
        lines.push(std::mem::take(&mut self.browser));
        lines.sort_by_key(|line| line.first().copied());
        let mut times: Vec<u64> = lines.iter().flatten().map(|&(at, _)| at).chain([0, length]).collect();
        times.sort_unstable();
        times.dedup();
        let mut sums = vec![system; times.len()];
        for line in &lines {
            let (Some(&(first, _)), Some(&(last, end))) = (line.first(), line.last()) else { continue };
            let mut segment = 0;
            let start = times.partition_point(|&at| at < first);
            for (sum, &at) in sums[start..].iter_mut().zip(&times[start..]) {
                if at >= last {
                    // Only the browser is left open: a job ends at 0.
                    if end == 0 {
                        break;
                    }
                    *sum += end;
                    continue;
                }
                while line.get(segment + 1).is_some_and(|&(next, _)| next <= at) {
                    segment += 1;
                }
                if let (Some(&from), Some(&to)) = (line.get(segment), line.get(segment + 1)) {
                    *sum += between(from, to, at);
                }
            }
        }
        times.into_iter().zip(sums).map(|(at, sum)| (at, sum.min(most))).take_while(|&(at, _)| at <= length).collect()
    }
}

/// Up, level, down within a second.
fn block(start: u64, ramp: u64, size: u64, hold: u64) -> Vec<(u64, u64)> {
    let top = start + ramp;
    vec![(start, 0), (top, size), (top + hold, size), (top + hold + SECOND, 0)]
}
