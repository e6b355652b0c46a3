//! Heat and an energy saver: less at a time, and nothing that nobody waits for.

use locara_policy::{
    Bytes,
    governor::{Action, Gate, Thermal, Throttle},
};

use super::world::{MINUTE, SECOND, World};

fn resident() -> World {
    let mut world = World::new();
    world.load("chat", Bytes::gib(1), Bytes::mib(100));
    world.run(3 * SECOND);
    world.active("chat", |activity| activity.interactive = 1);
    world
}

fn throttles(seen: &[Action]) -> Vec<Throttle> {
    let of = |action: &Action| match action {
        Action::Throttle { throttle, .. } => Some(*throttle),
        _ => None,
    };
    seen.iter().filter_map(of).collect()
}

#[test]
fn heat_makes_steps_smaller_and_holds_the_background() {
    let mut world = resident();
    world.sample.thermal = Some(Thermal::Fair);
    assert_eq!(throttles(&world.run(SECOND)), [], "fans alone change nothing");
    world.sample.thermal = Some(Thermal::Serious);
    let hot = Throttle {
        n_batch: Some(128),
        max_tokens: Some(1024),
        n_seq: Some(1),
        fewer_threads: 2,
        gate: Gate::Interactive,
    };
    assert_eq!(throttles(&world.run(5 * SECOND)), [hot], "once, not with every reading");
    world.sample.thermal = None;
    assert_eq!(throttles(&world.run(SECOND)), [Throttle::default()]);
}

#[test]
fn a_saver_holds_the_background_and_lets_models_go_earlier() {
    let mut world = resident();
    world.sample.saver = true;
    let seen = throttles(&world.run(SECOND));
    assert_eq!(seen, [Throttle { gate: Gate::Interactive, ..Throttle::default() }]);
    world.active("chat", |activity| activity.interactive = 0);
    world.run(MINUTE + SECOND);
    assert!(!world.holds("chat"), "a third of three minutes");
}

#[test]
fn a_model_that_comes_later_is_throttled_too() {
    let mut world = resident();
    world.sample.saver = true;
    world.run(SECOND);
    world.load("second", Bytes::mib(100), Bytes::mib(10));
    let seen = throttles(&world.run(4 * SECOND));
    assert_eq!(seen, [Throttle { gate: Gate::Interactive, ..Throttle::default() }]);
}

#[test]
fn critical_heat_lets_end_what_somebody_waits_for_and_begins_nothing() {
    let mut world = resident();
    world.sample.thermal = Some(Thermal::Critical);
    let told = throttles(&world.run(5 * SECOND));
    assert!(matches!(told[..], [Throttle { n_seq: Some(1), gate: Gate::Nobody { .. }, .. }]), "{told:?}");
    world.active("chat", |activity| activity.background = 1);
    let told = throttles(&world.active("chat", |activity| activity.interactive = 0));
    assert!(matches!(told[..], [Throttle { n_seq: Some(0), .. }]), "nobody waits for the rest: {told:?}");
    let ticket = world.load("second", Bytes::mib(100), Bytes::mib(10));
    world.run(10 * SECOND);
    assert!(world.open.contains_key(&ticket), "loading makes heat");
    world.sample.thermal = Some(Thermal::Fair);
    let told = throttles(&world.run(5 * SECOND));
    assert!(told.contains(&Throttle::default()), "{told:?}");
    assert!(world.is_admitted(ticket));
}
