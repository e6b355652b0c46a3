//! The table, and the line of figures.

use crate::{
    log::{Told, percentile},
    run::{Outcome, Part},
    watch::Look,
};

/// All runs.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: Vec<Outcome>,
}

impl Report {
    fn find(&self, part: Part, swap: bool) -> Option<&Outcome> {
        self.runs.iter().find(|run| run.part == part && run.swap == swap)
    }

    fn calm(&self) -> Option<&Outcome> {
        self.runs.iter().find(|run| run.part == Part::Calm)
    }

    /// Swap beyond what the neighbour alone caused, bytes.
    fn caused(&self, part: Part) -> u64 {
        let peak = |part| self.find(part, true).map_or(0, Outcome::swap_peak);
        peak(part).saturating_sub(peak(Part::Alone))
    }

    /// Whether the answer in flight is the one of the calm run.
    fn same(&self, run: &Outcome) -> bool {
        let calm = self.calm().and_then(|calm| calm.in_flight.as_ref().ok());
        let same = |a: &crate::host::Answer, b: &crate::host::Answer| a.tokens == b.tokens && a.text == b.text;
        calm.is_some_and(|calm| run.in_flight.as_ref().is_ok_and(|answer| same(answer, calm)))
    }

    /// Whether every conversation went on as in the calm run. Not promised: what was computed token by token and is computed
    /// anew as one prompt rounds differently.
    fn same_afterwards(&self, run: &Outcome) -> bool {
        let calm = self.calm().and_then(|calm| calm.afterwards.as_ref().ok());
        let texts = |answers: &[crate::host::Answer]| {
            answers.iter().map(|answer| (answer.tokens, answer.text.clone())).collect::<Vec<_>>()
        };
        calm.is_some_and(|calm| run.afterwards.as_ref().is_ok_and(|answers| texts(answers) == texts(calm)))
    }

    fn governed(&self) -> impl Iterator<Item = &Outcome> {
        self.runs.iter().filter(|run| run.part == Part::Governed)
    }

    fn told(&self) -> impl Iterator<Item = &Told> {
        self.governed().filter_map(|run| run.told.as_ref()?.as_ref().ok())
    }

    fn signal_to_freed(&self, percent: usize) -> Option<u64> {
        // A step that freed nothing has no such time.
        let given = self.told().flat_map(|told| &told.given).filter(|given| given.freed > 0);
        let took: Vec<u64> = given.map(|given| given.took_ms).collect();
        percentile(&took, percent)
    }

    fn kills(&self) -> u64 {
        self.governed().map(|run| run.kills).sum()
    }

    /// Every promise that was not kept.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let caused = self.caused(Part::Governed);
        if caused > 0 {
            broken.push(format!("the governed host caused {} of swap", mib(caused)));
        }
        for run in self.governed() {
            let with = name(run);
            if run.kills > 0 {
                broken.push(format!("{with}: the kernel killed {}", run.killed.join(" and ")));
            }
            if let Err(why) = &run.in_flight {
                broken.push(format!("{with}: the answer in flight did not come to its end: {why}"));
            } else if !self.same(run) {
                broken.push(format!("{with}: the answer in flight is not the one without pressure"));
            }
            if let Err(why) = &run.afterwards {
                broken.push(format!("{with}: no answer after the neighbour had gone: {why}"));
            }
            match &run.told {
                Some(Ok(told)) if told.given.is_empty() => broken.push(format!("{with}: nothing was given back")),
                Some(Ok(_)) => {}
                Some(Err(why)) => broken.push(format!("{with}: {why}")),
                None => broken.push(format!("{with}: the governor wrote no log")),
            }
            match heard_in_time(run) {
                (0, 0) => broken.push(format!("{with}: the app heard of no tightening")),
                (in_time, all) if in_time < all => {
                    broken.push(format!("{with}: the app heard of {} tightenings too late", all - in_time));
                }
                _ => {}
            }
        }
        broken
    }

    /// Prints everything; the line of figures comes last.
    pub(crate) fn print(&self) {
        println!(
            "\n{:<28} {:>10} {:>10} {:>6} {:>21} {:>9} {:>9} {:>7} {:>7}",
            "run", "swap peak", "of it host", "kills", "anon+file MiB b/d/a", "tokens", "longest", "after", "back"
        );
        for run in &self.runs {
            self.row(run);
        }
        for run in self.governed() {
            details(run);
        }
        println!();
        for promise in self.broken() {
            println!("BROKEN: {promise}");
        }
        let number = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
        println!(
            "figures: swap_bytes_caused={} oom_kills={} signal_to_freed_p50_ms={} signal_to_freed_p99_ms={} \
             tokens_identical={} naive_swap_bytes={}",
            self.caused(Part::Governed),
            self.kills(),
            number(self.signal_to_freed(50)),
            number(self.signal_to_freed(99)),
            u8::from(self.governed().all(|run| self.same(run))),
            self.caused(Part::Naive),
        );
    }

    fn row(&self, run: &Outcome) {
        let footprint = |look: &Look| format!("{}+{}", look.anonymous >> 20, look.file >> 20);
        let footprints = [&run.before, &run.during, &run.after].map(footprint).join(" ");
        let kills = if run.killed.is_empty() { run.kills.to_string() } else { format!("{}*", run.kills) };
        let (tokens, longest) = match &run.in_flight {
            Ok(answer) => {
                let same = if self.same(run) { "same" } else { "OTHER" };
                (format!("{} {same}", answer.tokens), format!("{:.0} ms", answer.longest_gap_ms))
            }
            Err(_) => ("none".to_owned(), String::new()),
        };
        let after = match &run.afterwards {
            Ok(_) if self.same_afterwards(run) => "same",
            Ok(_) => "came",
            Err(_) => "none",
        };
        let (swap, of_host) = (mib(run.swap_peak()), mib(run.host_swap_peak()));
        if run.part == Part::Alone {
            println!("{:<28} {swap:>10} {:>10} {kills:>6}", name(run), "");
        } else {
            println!(
                "{:<28} {swap:>10} {of_host:>10} {kills:>6} {footprints:>21} {tokens:>9} {longest:>9} {after:>7} {:>7}",
                name(run),
                format!("{:.1} s", run.back_ms / 1e3)
            );
        }
        for who in &run.killed {
            println!("  * the kernel killed {who}");
        }
        if let (Err(why), true) = (&run.in_flight, run.part != Part::Alone) {
            println!("    answer in flight: {why}");
        }
        if let (Err(why), true) = (&run.afterwards, run.part != Part::Alone) {
            println!("    answers afterwards: {why}");
        }
    }
}

/// What a governed host did.
fn details(run: &Outcome) {
    println!("\n{}:", name(run));
    let (in_time, all) = heard_in_time(run);
    println!("  the app heard of {all} tightenings, {in_time} of them before their deadline");
    for heard in run.heard.iter().filter(|heard| is_tightening(heard)) {
        println!(
            "    epoch {:<3} {:<9} {:>4.0} ms after it began, deadline {:>5.0} ms: limit {}, release {}",
            heard.epoch,
            heard.level,
            heard.heard - heard.since,
            heard.deadline,
            mib(heard.limit),
            mib(heard.release)
        );
    }
    match &run.told {
        Some(Ok(told)) => {
            println!("  worst level {}, {} tightenings sent, given back:", told.worst, told.tightenings);
            for given in &told.given {
                let waited = if given.waited_ms > 0 {
                    format!(" after {} ms for the answer in flight", given.waited_ms)
                } else {
                    String::new()
                };
                println!(
                    "    at {:>6} ms: {} in {} ms{waited}, {} of {} expected",
                    given.at_ms,
                    given.what,
                    given.took_ms,
                    mib(given.freed),
                    mib(given.expected)
                );
            }
            for failed in &told.failed {
                println!("    failed: {failed}");
            }
        }
        Some(Err(why)) => println!("  {why}"),
        None => println!("  no log"),
    }
}

/// How many tightenings the app heard of before their deadline, and of how many it heard.
fn heard_in_time(run: &Outcome) -> (usize, usize) {
    let all = run.heard.iter().filter(|heard| is_tightening(heard));
    let in_time = all.clone().filter(|heard| heard.heard <= heard.since + heard.deadline).count();
    (in_time, all.count())
}

fn is_tightening(heard: &crate::host::Heard) -> bool {
    heard.level != "Normal"
}

fn name(run: &Outcome) -> String {
    format!("{}, {}", run.part, if run.swap { "swap on" } else { "swap off" })
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
