//! A model that was asked to go and still answers.

use locara_policy::{
    Bytes,
    governor::{Action, Event, KernelLevel, Level},
};

use super::world::{MINUTE, SECOND, World, digest};

/// A model that answers and was asked to go because the kernel said critical.
fn leaving() -> World {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(2), Bytes::mib(500));
    world.active("chat", |activity| activity.interactive = 1);
    let seen = world.send(Event::Kernel { level: KernelLevel::Critical });
    assert!(seen.iter().any(|action| matches!(action, Action::Unload { .. })), "{seen:?}");
    assert_eq!(state(&world), "leaving");
    world
}

fn state(world: &World) -> String {
    world.governor.snapshot().models.first().map_or_else(String::new, |model| model.state.clone())
}

fn is_keep(action: &Action) -> bool {
    matches!(action, Action::Keep { .. })
}
fn is_hurry(action: &Action) -> bool {
    matches!(action, Action::Hurry { .. })
}

#[test]
fn an_unload_that_freed_nothing_is_withdrawn_when_memory_is_free_again_and_who_waits_for_it_joins() {
    let mut world = leaving();
    let ticket = world.load("chat", Bytes::gib(2), Bytes::mib(500));
    assert!(!world.answers.contains_key(&ticket), "it waits while the model leaves");
    let seen = world.run(20 * SECOND);
    assert_eq!(seen.iter().filter(|action| is_keep(action)).count(), 1, "once");
    assert!(world.is_joined(ticket));
    assert_eq!(state(&world), "resident");
    world.active("chat", |activity| activity.interactive = 0);
    world.run(10 * SECOND);
    assert!(world.holds("chat"), "the end of the answer is not its end any more");
}

#[test]
fn an_unload_that_is_done_before_it_can_be_withdrawn_stays_done() {
    let mut world = leaving();
    world.active("chat", |activity| activity.interactive = 0);
    let seen = world.run(20 * SECOND);
    assert!(!seen.iter().any(is_keep), "it frees already");
    assert!(!world.holds("chat") && world.governor.ledger().held().is_zero());
}

#[test]
fn an_answer_that_never_ends_is_ended_after_a_minute_at_critical() {
    let mut world = leaving();
    let mut seen = Vec::new();
    for _ in 0..59 {
        seen.extend(world.run(SECOND));
        world.send(Event::Kernel { level: KernelLevel::Critical });
    }
    assert!(!seen.iter().any(is_hurry), "it may take its minute");
    let waits = world.load("other", Bytes::mib(500), Bytes::mib(10));
    seen = world.run(3 * SECOND);
    assert_eq!(seen.iter().filter(|action| is_hurry(action)).count(), 1, "{seen:?}");
    assert!(!world.holds("chat"));
    world.run(30 * SECOND);
    assert!(world.is_admitted(waits), "the load that waited for it goes on");
}

#[test]
fn what_would_push_others_into_swap_does_not_wait_for_the_end_of_an_answer() {
    let mut world = leaving();
    world.leave(world.governor.config().critical_below.fraction(1, 5));
    let seen = world.read_after(SECOND);
    assert!(seen.iter().any(is_hurry), "{seen:?}");
    world.run(SECOND);
    assert!(!world.holds("chat"));
}

#[test]
fn a_model_that_pauses_for_a_minute_is_unloaded_and_its_answers_end() {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(4), Bytes::mib(500));
    world.active("chat", |activity| activity.interactive = 1);
    world.leave_calmly(Bytes::gib(3));
    assert!(world.held.contains(&digest("chat")) && world.level() == Level::Tight);
    let seen = world.run(MINUTE - SECOND);
    assert!(!seen.iter().any(is_hurry), "memory may come back");
    let seen = world.run(3 * SECOND);
    assert!(seen.iter().any(is_hurry), "{seen:?}");
    assert!(!world.holds("chat"));
}

#[test]
fn a_model_that_holds_more_than_there_is_room_for_is_not_kept() {
    let mut world = World::new();
    let request = world.request("chat", Bytes::gib(2), Bytes::mib(500));
    world.ask(request);
    let cap = world.governor.config().cap;
    let holds = vec![(locara_policy::Kind::WeightsMapped, Bytes::gib(2)), (locara_policy::Kind::Kv, cap)];
    world.load_ends_with(Event::Loaded { model: digest("chat"), holds, took_ms: 2_000 });
    world.others = Bytes::ZERO;
    world.run(2 * SECOND);
    world.active("chat", |activity| activity.interactive = 1);
    let seen = world.run(30 * SECOND);
    assert!(!seen.iter().any(is_keep), "{seen:?}");
}
