//! Rows 144 to 147 of the playbook: each speaks once per episode.

use locara_policy::{
    Bytes,
    governor::{Action, Event, Gate, Rule},
};

use super::world::{MINUTE, SECOND, World, app, digest};

fn advised(seen: &[Action]) -> Vec<Rule> {
    let of = |action: &Action| match action {
        Action::Advise { rule, .. } => Some(*rule),
        _ => None,
    };
    seen.iter().filter_map(of).collect()
}

/// The process holds so much, whatever the account says.
fn holding(world: &mut World, bytes: Bytes, ms: u64) -> Vec<Action> {
    let mut seen = Vec::new();
    for _ in 0..ms / SECOND {
        let mut reading = world.reading();
        reading.own_file = bytes;
        world.now += SECOND;
        seen.extend(world.send(Event::Sample(reading)));
    }
    seen
}

#[test]
fn rss_high_speaks_after_ten_minutes_and_runs_fewer_sequences() {
    let mut world = World::new();
    world.load("chat", Bytes::gib(1), Bytes::mib(100));
    world.run(3 * SECOND);
    world.active("chat", |activity| activity.interactive = 1);
    let high = Bytes::gib(16).fraction(83, 100);
    assert_eq!(advised(&holding(&mut world, high, 9 * MINUTE)), []);
    let seen = holding(&mut world, high, 15 * MINUTE);
    assert_eq!(advised(&seen), [Rule::RssHigh], "once");
    assert!(seen.iter().any(|action| matches!(action, Action::Throttle { throttle, .. } if throttle.n_seq == Some(2))));
    assert_eq!(advised(&holding(&mut world, Bytes::gib(1), MINUTE)), []);
    assert_eq!(advised(&holding(&mut world, high, 11 * MINUTE)), [Rule::RssHigh], "a new episode");
}

#[test]
fn swap_growth_speaks_after_ninety_seconds_and_holds_the_background() {
    let mut world = World::new();
    world.sample.swap_used = Bytes::mib(300);
    world.load("chat", Bytes::gib(1), Bytes::mib(100));
    world.run(3 * SECOND);
    world.active("chat", |activity| activity.interactive = 1);
    world.sample.swap_used = Bytes::mib(300 + 768);
    assert_eq!(advised(&world.run(3 * MINUTE)), [], "growth, not use: exactly 768 MiB are allowed");
    world.sample.swap_used = Bytes::mib(300 + 769);
    assert_eq!(advised(&world.run(85 * SECOND)), []);
    let seen = world.run(5 * MINUTE);
    assert_eq!(advised(&seen), [Rule::SwapGrowth]);
    assert!(
        seen.iter().any(|action| {
            matches!(action, Action::Throttle { throttle, .. } if throttle.gate == Gate::Interactive)
        })
    );
}

#[test]
fn ttft_spread_needs_twenty_answers_and_speaks_once() {
    let mut world = World::new();
    let mut seen = Vec::new();
    let used = |world: &mut World, ttft_ms| {
        let event = Event::Used { app: app("a"), model: digest("m"), device_ms: 1, kv_mb_s: 0, ttft_ms };
        advised(&world.send(event))
    };
    for n in 0..19 {
        seen.extend(used(&mut world, if n % 5 == 0 { 900 } else { 100 }));
    }
    assert_eq!(seen, [], "19 answers say nothing about one in twenty");
    for n in 0..40 {
        seen.extend(used(&mut world, if n % 5 == 0 { 900 } else { 100 }));
    }
    assert_eq!(seen, [Rule::TtftSpread]);
    for _ in 0..200 {
        seen.extend(used(&mut world, 100));
    }
    assert_eq!(seen.len(), 1);
    for n in 0..200 {
        seen.extend(used(&mut world, if n % 5 == 0 { 281 } else { 100 }));
    }
    assert_eq!(seen.len(), 2, "a new episode, just above 2.8 times");
}

#[test]
fn two_kills_within_a_week_speak_once() {
    const DAY: u64 = 86_400;
    let mut world = World::new();
    let mut killed = |day: u64| advised(&world.send(Event::Killed { unix_s: 1_800_000_000 + day * DAY }));
    assert_eq!(killed(0), []);
    assert_eq!(killed(8), [], "more than a week apart");
    assert_eq!(killed(14), [Rule::Kills]);
    assert_eq!(killed(15), [], "the same episode");
    assert_eq!(killed(60), []);
    assert_eq!(killed(61), [Rule::Kills]);
}
