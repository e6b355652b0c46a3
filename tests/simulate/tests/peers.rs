//! Each peer does what its documentation says, on a day that was written for the rule.

mod common;

use common::{GIB, MINUTE, Spy, day, laptop, model, steady};
use locara_simulate::{
    figures::Figures,
    fleet::Laptop,
    peers::{LlamaServer, Naive, Ollama, Omlx},
    policy::{Cause, Command, Policy},
    sim,
    trace::Trace,
};

fn run<P: Policy>(laptop: &Laptop, day: &Trace, policy: P) -> (Spy<P>, Figures) {
    let mut spy = Spy::new(policy);
    let figures = sim::run(laptop, day, &mut spy);
    (spy, figures)
}

#[test]
fn llama_server_keeps_four_models_and_evicts_the_least_recently_used() {
    let laptop = laptop(64, (0..5).map(|_| model("m", 2)).collect());
    // 0 is asked again after the others, so 1 is the least recently used when 4 comes.
    let asked = [(1, 0), (2, 1), (3, 2), (4, 3), (5, 0), (20, 4)].map(|(minute, model)| (minute * MINUTE, model));
    let (spy, figures) = run(&laptop, &day(&steady(4), &asked), LlamaServer::new());
    assert_eq!(spy.moves(), [(0, true), (1, true), (2, true), (3, true), (1, false), (4, true)]);
    assert_eq!((figures.answered, figures.evictions), (6, 1));
}

#[test]
fn llama_server_never_evicts_a_busy_model() {
    let laptop = laptop(64, vec![model("a", 2), model("b", 2)]);
    let mut day = day(&steady(4), &[(MINUTE, 0), (MINUTE + 5_000, 1)]);
    day.requests[0].answer = 2_000;
    let (spy, figures) = run(&laptop, &day, LlamaServer::with_models_max(1));
    assert_eq!(spy.moves(), [(0, true), (0, false), (1, true)]);
    let evicted = spy.first(|command| matches!(command, Command::Unload(0, Cause::Room)));
    // 2000 tokens of 2 GiB at 40 GB/s take 107 s.
    assert!(evicted.is_some_and(|at| at > MINUTE + 100_000), "evicted at {evicted:?}");
    assert_eq!((figures.answered, figures.aborted), (2, 0));
}

#[test]
fn llama_server_does_not_look_at_memory_and_saves_idle_conversations() {
    let laptop = laptop(16, vec![model("a", 4)]);
    // Other programs take everything but half a GiB half an hour later.
    let others = [(0, 4 * GIB), (30 * MINUTE, 4 * GIB), (31 * MINUTE, 12 * GIB + GIB / 2), (24 * 60 * MINUTE, 4 * GIB)];
    let asked: Vec<_> = (1..40).map(|at| (at * MINUTE / 2, 0)).collect();
    let mut day = day(&others, &asked);
    day.requests.iter_mut().for_each(|request| request.prompt = 400);
    let (spy, figures) = run(&laptop, &day, LlamaServer::new());
    assert_eq!(spy.moves(), [(0, true)], "it stays whatever happens");
    assert!(spy.most_saved > 30 * 400 * (64 << 10), "{} bytes are saved", spy.most_saved);
    assert!(figures.kills > 0, "saved states are what there was no room for");
}

#[test]
fn saved_conversations_stay_below_eight_gib() {
    let laptop = laptop(64, vec![model("a", 2)]);
    let asked: Vec<_> = (1..400).map(|at| (at * MINUTE, 0)).collect();
    let mut day = day(&steady(4), &asked);
    day.requests.iter_mut().for_each(|request| request.prompt = 1_000);
    let (spy, _) = run(&laptop, &day, LlamaServer::new());
    assert!(spy.most_saved <= 8 * GIB && spy.most_saved > 8 * GIB - 1_020 * 65_536, "{}", spy.most_saved);
}

#[test]
fn ollama_unloads_after_five_minutes() {
    let laptop = laptop(32, vec![model("a", 2)]);
    let (spy, figures) = run(&laptop, &day(&steady(4), &[(MINUTE, 0)]), Ollama::default());
    let unloaded = spy.first(|command| matches!(command, Command::Unload(0, Cause::Idle)));
    assert!(unloaded.is_some_and(|at| (6 * MINUTE..7 * MINUTE).contains(&at)), "unloaded at {unloaded:?}");
    assert_eq!((figures.idle_unloads, figures.evictions), (1, 0));
}

#[test]
fn ollama_never_refuses_the_first_model_and_lets_the_name_choose_the_victim() {
    // 14 GiB less 8 GiB of others do not hold 7; the first is loaded all the same.
    let tight = laptop(16, vec![model("a", 7)]);
    let (spy, figures) = run(&tight, &day(&steady(8), &[(MINUTE, 0)]), Ollama::default());
    assert_eq!((spy.moves().first(), figures.refused), (Some(&(0, true)), 0));

    // 0.8 × what is available beside two models of 4 GiB does not hold a third. "a" goes although "b" is the older one.
    let laptop = laptop(16, vec![model("b", 4), model("a", 4), model("c", 9)]);
    let asked = [(MINUTE, 0), (2 * MINUTE, 1), (3 * MINUTE, 2)];
    let (spy, _) = run(&laptop, &day(&steady(2), &asked), Ollama::default());
    assert_eq!(spy.moves()[..3], [(0, true), (1, true), (1, false)]);
}

#[test]
fn ollama_answers_one_request_of_a_model_at_a_time() {
    let laptop = laptop(32, vec![model("a", 2)]);
    let day = day(&steady(4), &[(MINUTE, 0), (MINUTE, 0)]);
    let waits = |policy: &mut dyn Policy| sim::run(&laptop, &day, policy).waits;
    let (one, four) = (waits(&mut Ollama::default()), waits(&mut LlamaServer::new()));
    assert_eq!(four[0], four[1]);
    assert!(one[1] > one[0], "{one:?}");
}

#[test]
fn omlx_refuses_what_does_not_fit_under_its_ceiling_and_unloads_for_what_does() {
    // 16 GiB less a reserve of 8 GB leaves 8 GiB: 9 never fit, and of two of 5 one has to go.
    let laptop = laptop(16, vec![model("a", 5), model("b", 5), model("c", 9)]);
    let asked = [(MINUTE, 0), (2 * MINUTE, 1), (3 * MINUTE, 2)];
    let (spy, figures) = run(&laptop, &day(&steady(2), &asked), Omlx::default());
    assert_eq!(spy.moves(), [(0, true), (0, false), (1, true), (1, false)]);
    assert_eq!((figures.answered, figures.refused), (2, 1));
}

#[test]
fn omlx_evicts_above_its_soft_mark_and_aborts_above_its_hard_one() {
    // The ceiling is 24 GiB. 21.3 are above the soft mark of 20.4: the model that nobody uses goes, the other one answers.
    let soft = laptop(32, vec![model("a", 12), model("b", 8)]);
    let mut two = day(&steady(4), &[(MINUTE, 1), (3 * MINUTE, 0)]);
    two.requests[1].answer = 400;
    let (spy, figures) = run(&soft, &two, Omlx::default());
    let evicted = spy.first(|command| matches!(command, Command::Unload(1, Cause::Pressure)));
    assert!(evicted.is_some_and(|at| at > 3 * MINUTE), "evicted at {evicted:?}");
    assert_eq!((figures.answered, figures.aborted), (2, 0));

    // 23.3 are above the hard mark of 22.8, and both models are busy.
    let hard = laptop(32, vec![model("a", 13), model("b", 9)]);
    let mut both = day(&steady(4), &[(MINUTE, 1), (MINUTE + 10_000, 0)]);
    both.requests.iter_mut().for_each(|request| request.answer = 2_000);
    let (_, figures) = run(&hard, &both, Omlx::default());
    assert_eq!((figures.answered, figures.aborted), (0, 2));
}

#[test]
fn the_host_without_a_governor_loads_everything_and_unloads_after_five_minutes() {
    let laptop = laptop(16, vec![model("a", 5), model("b", 5), model("c", 9)]);
    let asked = [(MINUTE, 0), (2 * MINUTE, 1), (3 * MINUTE, 2)];
    let (spy, figures) = run(&laptop, &day(&steady(2), &asked), Naive);
    assert_eq!(spy.moves()[..3], [(0, true), (1, true), (2, true)]);
    assert_eq!((figures.refused, figures.idle_unloads), (0, 3));
}
