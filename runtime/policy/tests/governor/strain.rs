//! A model computes only while all its weights fit into memory.

use locara_policy::{
    Bytes, Machine, defaults,
    governor::{Action, Config},
};

use super::world::{SECOND, World, config, digest};

/// Whether each model that was told something was held back by it, in order.
fn held(seen: &[Action]) -> Vec<(String, bool)> {
    let of = |action: &Action| match action {
        Action::Throttle { model, throttle } => Some((model.0.clone(), throttle.n_seq == Some(0))),
        _ => None,
    };
    seen.iter().filter_map(of).collect()
}

fn is_held(world: &World, name: &str) -> bool {
    world.held.contains(&digest(name))
}

/// Two models of 4 and 2 GiB answer; a person waits for the first one only.
fn answering() -> World {
    let mut world = World::new();
    world.others = Bytes::gib(1);
    for (name, gib) in [("chat", 4), ("index", 2)] {
        world.load(name, Bytes::gib(gib), Bytes::mib(100));
        world.run(3 * SECOND);
    }
    world.active("chat", |activity| activity.interactive = 1);
    world.active("index", |activity| activity.background = 1);
    world
}

/// What must be available for so many GiB of weights to be read again and again.
fn enough(world: &World, gib: u64) -> Bytes {
    Bytes::gib(gib).saturating_add(world.governor.config().critical_below)
}

#[test]
fn weights_that_do_not_fit_are_not_computed_with_and_nobody_waits_for_those_that_pause_first() {
    let mut world = answering();
    let both = enough(&world, 6);
    world.leave_calmly(both);
    assert!(!is_held(&world, "chat") && !is_held(&world, "index"), "they just fit");
    world.leave_calmly(both.saturating_sub(Bytes(1)));
    assert!(!is_held(&world, "chat") && is_held(&world, "index"));
    let one = enough(&world, 4);
    world.leave_calmly(one.saturating_sub(Bytes(1)));
    assert!(is_held(&world, "chat") && is_held(&world, "index"));
}

#[test]
fn what_pauses_goes_on_when_it_fits_with_a_margin_and_has_done_so_for_a_while() {
    let mut world = answering();
    world.leave_calmly(enough(&world, 6).saturating_sub(Bytes(1)));
    assert!(is_held(&world, "index"));
    let margin = world.governor.config().critical_below.fraction(1, 4);
    world.leave(enough(&world, 6).saturating_add(margin));
    world.run(4 * SECOND);
    assert!(is_held(&world, "index"));
    world.run(2 * SECOND);
    assert!(!is_held(&world, "index"));
}

#[test]
fn what_fits_without_a_margin_goes_on_too_after_a_longer_while() {
    let mut world = answering();
    world.leave_calmly(enough(&world, 6).saturating_sub(Bytes(1)));
    assert!(is_held(&world, "index"));
    world.leave(enough(&world, 6));
    world.run(9 * SECOND);
    assert!(is_held(&world, "index"));
    world.run(3 * SECOND);
    assert!(!is_held(&world, "index"), "it may be all the room that there will be");
}

#[test]
fn a_fast_fall_pauses_before_the_last_byte_is_gone() {
    let mut world = answering();
    world.leave(enough(&world, 6).saturating_add(Bytes::gib(2)));
    world.run(40 * SECOND);
    assert!(!is_held(&world, "index"));
    let mut seen = Vec::new();
    for step in 1..=5 {
        world.leave(enough(&world, 6).saturating_add(Bytes::mib(2048 - 400 * step)));
        seen.extend(world.run(SECOND));
    }
    assert!(world.available() > enough(&world, 6), "they fit still");
    assert!(held(&seen).contains(&("index".to_owned(), true)), "{seen:?}");
}

#[test]
fn a_model_that_begins_where_it_does_not_fit_pauses_at_once() {
    let mut world = answering();
    world.active("index", |activity| activity.background = 0);
    world.leave_calmly(enough(&world, 5));
    let seen = world.active("index", |activity| activity.background = 1);
    assert_eq!(held(&seen), [("index".to_owned(), true)]);
    let seen = world.active("index", |activity| activity.background = 0);
    assert_eq!(held(&seen), [("index".to_owned(), false)], "nothing is left to hold back");
}

#[test]
fn what_a_gpu_wires_is_not_held_back() {
    let machine = Machine::unified_gpu("test", Bytes::gib(16), 8, Bytes::gib(11));
    let mut world = World::with(Config::new(&machine, &defaults(&machine, None)));
    world.load("chat", Bytes::gib(4), Bytes::mib(100));
    world.run(3 * SECOND);
    world.active("chat", |activity| activity.interactive = 1);
    world.leave_calmly(Bytes::gib(2));
    assert!(!is_held(&world, "chat"), "its pages are not part of what is available");
}

#[test]
fn swap_that_is_written_while_little_is_spare_is_written_because_of_what_computes() {
    let swaps = |spare: Bytes| {
        let mut world = answering();
        world.leave_calmly(Bytes::gib(6).saturating_add(spare));
        for _ in 0..4 {
            world.sample.swapped_out = world.sample.swapped_out.saturating_add(Bytes::mib(50));
            world.run(SECOND);
        }
        is_held(&world, "chat")
    };
    let little = config().elevated_below;
    assert!(swaps(little.saturating_sub(Bytes(1))), "their pages fit by the figures and not in fact");
    assert!(!swaps(little.saturating_add(Bytes::mib(1))), "others swap by themselves");
}
