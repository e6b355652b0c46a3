//! The fleet as a whole: the same figures for the same seed, a host that holds nothing causes nothing, and ours causes no swap.

mod common;

use common::{GIB, MINUTE, day, laptop, model};
use locara_policy::governor::record;
use locara_simulate::{
    POLICIES,
    figures::Figures,
    fleet::Laptop,
    host::Host,
    memory::Swap,
    policy,
    policy::{Command, Happened, Policy, Rules},
    sim,
    trace::{DAY, Trace},
};

/// Refuses everything.
struct Nothing;

impl Policy for Nothing {
    fn rules(&self) -> Rules {
        Rules { slots: 1, prompt_cache: 0, spills: false, by_class: false, process_per_model: false, owns_apps: true }
    }
    fn handle(&mut self, _: &Host<'_>, happened: &Happened) -> Vec<Command> {
        match *happened {
            Happened::Arrived(request) => vec![Command::Refuse(request)],
            _ => Vec::new(),
        }
    }
}

fn run(name: &str, seed: u64, id: u64, days: u64) -> Figures {
    let laptop = Laptop::new(seed, id);
    let trace = Trace::new(seed, &laptop, days);
    let mut policy = policy(name, &laptop).expect("the name is one of the list");
    sim::run(&laptop, &trace, policy.as_mut())
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    for (name, _) in POLICIES {
        for id in 0..3 {
            let figures = run(name, 7, id, 2);
            assert_eq!(figures, run(name, 7, id, 2), "{name} on laptop {id}");
            assert!(figures.requests > 0);
        }
    }
    assert_ne!(Trace::new(7, &Laptop::new(7, 0), 1), Trace::new(8, &Laptop::new(8, 0), 1));
}

#[test]
fn a_host_that_holds_nothing_causes_nothing_on_laptops_that_swap_by_themselves() {
    let mut by_themselves = 0;
    for id in 0..40 {
        let mut laptop = Laptop::new(3, id);
        // As little memory as its owner can bear.
        laptop.ram = 8 * GIB;
        laptop.heavy = true;
        laptop.develops = true;
        let trace = Trace::new(3, &laptop, 2);
        let most = trace.others.iter().map(|&(_, bytes)| bytes).max().unwrap();
        by_themselves += u32::from(most > laptop.ram - laptop.kernel - laptop.page_cache);
        let figures = sim::run(&laptop, &trace, &mut Nothing);
        assert_eq!((figures.swap_caused, figures.compressed_caused, figures.kills), (0, 0, 0), "laptop {id}");
        assert_eq!(figures.answered, 0);
    }
    assert!(by_themselves > 5, "only {by_themselves} laptops swap by themselves");
}

#[test]
fn every_request_ends_in_one_way() {
    for (name, _) in POLICIES {
        for id in 0..6 {
            let figures = run(name, 5, id, 2);
            let ended = figures.answered + figures.refused + figures.gave_up + figures.aborted;
            // What runs or waits at the end of the last day has not ended.
            assert!(ended <= figures.requests && ended + 8 >= figures.requests, "{name} on laptop {id}: {figures:?}");
            let began = (figures.waits.len() + figures.background_waits.len()) as u64;
            assert!(began >= figures.answered && figures.false_refusals <= figures.refused + figures.gave_up);
        }
    }
}

#[test]
fn a_week_has_its_days_and_nights() {
    let laptop = Laptop { overnight: false, ..Laptop::new(1, 0) };
    let trace = Trace::new(1, &laptop, 7);
    assert!(trace.others.is_sorted_by(|a, b| a.0 < b.0), "time goes on");
    let inside = |at: u64| trace.sleeps.iter().any(|&(from, to)| from <= at && at < to);
    for day in 0..7 {
        assert!(inside(day * DAY + 3 * 60 * MINUTE), "asleep at three in the night of day {day}");
    }
    assert!(trace.requests.iter().all(|request| !inside(request.at)), "nobody asks a sleeping laptop");
    assert!(trace.requests.iter().all(|request| request.cells() <= locara_simulate::fleet::N_CTX));
    let peak = trace.most_between(0, trace.length);
    assert!(trace.others.iter().all(|&(at, bytes)| bytes <= peak && trace.at(at) == bytes));
}

#[test]
fn a_refusal_is_false_only_if_everything_would_have_fitted() {
    let small = laptop(16, vec![model("a", 5)]);
    let judged = |others: &[(u64, u64)]| sim::run(&small, &day(others, &[(MINUTE, 0)]), &mut Nothing).false_refusals;
    // 14 GiB less 5.6 GiB.
    assert_eq!(judged(&[(0, 8 * GIB), (DAY, 8 * GIB)]), 1);
    assert_eq!(judged(&[(0, 9 * GIB), (DAY, 9 * GIB)]), 0);
    // It fits when it is asked for and not two seconds later: the load and the answer take longer.
    assert_eq!(judged(&[(0, 4 * GIB), (MINUTE + 1_000, 4 * GIB), (MINUTE + 2_000, 12 * GIB), (DAY, 4 * GIB)]), 0);
}

#[test]
fn without_swap_growth_beside_an_unguarded_host_kills() {
    let small = laptop(16, vec![model("a", 8)]);
    let mut with_swap = small.clone();
    with_swap.swap = Swap::Disk(8 * GIB);
    let others = [(0, 4 * GIB), (30 * MINUTE, 4 * GIB), (31 * MINUTE, 13 * GIB + GIB / 2), (DAY, 13 * GIB + GIB / 2)];
    let mut week = day(&others, &(1..40).map(|at| (at * MINUTE, 0)).collect::<Vec<_>>());
    week.requests.iter_mut().for_each(|request| request.patience = DAY);
    let figures = |laptop: &Laptop, name: &str| {
        let mut policy = policy(name, laptop).unwrap();
        sim::run(laptop, &week, policy.as_mut())
    };
    assert!(figures(&small, "naive").kills > 0);
    assert!(figures(&with_swap, "naive").swap_caused > 0);
    for laptop in [&small, &with_swap] {
        let ours = figures(laptop, "locara");
        assert_eq!((ours.kills, ours.swap_caused), (0, 0), "{ours:?}");
        assert_eq!(ours.violations, Vec::<String>::new());
        assert!(ours.answered > 20);
    }
}

#[test]
fn a_short_fleet_under_the_governor_causes_no_swap_and_breaks_no_invariant() {
    let mut answered = 0;
    for id in 0..20 {
        let figures = run("locara", 1, id, 1);
        assert_eq!(figures.violations, Vec::<String>::new(), "laptop {id}");
        assert_eq!((figures.swap_caused, figures.kills), (0, 0), "laptop {id}");
        answered += figures.answered;
    }
    assert!(answered > 1_000, "{answered} answers");
    let unguarded: u64 = (0..20).map(|id| run("llama-server", 1, id, 1).swap_caused).sum();
    assert!(unguarded > 0, "the same day does not let everybody off");
}

#[test]
fn a_recorded_day_replays_to_the_same_decisions() {
    let laptop = Laptop::new(1, 1);
    let trace = Trace::new(1, &laptop, 1);
    let mut policy = policy("locara", &laptop).unwrap();
    policy.start_record();
    let figures = sim::run(&laptop, &trace, policy.as_mut());
    let log = policy.record();
    let actions = record::replay_log(&(log.join("\n") + "\n")).unwrap();
    assert_eq!(actions.len() + 1, log.len());
    let unloads =
        |action: &&locara_policy::governor::Action| matches!(action, locara_policy::governor::Action::Unload { .. });
    let replayed = actions.iter().flatten().filter(unloads).count() as u64;
    assert_eq!(replayed, figures.evictions + figures.idle_unloads);
    assert!(replayed > 0);
}

#[test]
fn a_model_that_no_longer_fits_pauses_swaps_nobody_out_and_answers_when_it_fits_again() {
    let mut small = laptop(16, vec![model("a", 8)]);
    small.swap = Swap::Disk(8 * GIB);
    // 14 GiB less 8 GiB of weights and their context; the neighbour takes what is left, slowly, and leaves.
    let (grows, holds, leaves) = (9 * MINUTE, 9 * MINUTE + 30_000, 10 * MINUTE);
    let others = [
        (0, 4 * GIB),
        (grows, 4 * GIB),
        (holds, 7 * GIB),
        (leaves, 7 * GIB),
        (leaves + 1_000, 4 * GIB),
        (DAY, 4 * GIB),
    ];
    let mut week = day(&others, &[(8 * MINUTE, 0)]);
    week.requests[0].answer = 4_000;
    let figures = |name: &str| {
        let mut policy = policy(name, &small).unwrap();
        sim::run(&small, &week, policy.as_mut())
    };
    assert!(figures("naive").swap_for_weights > 0, "it computes all the time");
    let ours = figures("locara");
    assert_eq!((ours.swap_caused, ours.answered, ours.aborted), (0, 1, 0), "{ours:?}");
}
