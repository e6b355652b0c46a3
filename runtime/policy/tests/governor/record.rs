//! A recorded log decides the same again.

use locara_policy::{
    Bytes,
    governor::{Config, Event, KernelLevel, record},
};

use super::world::{MINUTE, SECOND, World, config};

#[test]
fn a_log_replays_to_the_same_actions_byte_for_byte() {
    let mut world = World::new();
    world.settled("a", Bytes::gib(4), Bytes::mib(500));
    world.start("app", Bytes::mib(100), Bytes::gib(1), locara_policy::governor::Class::Interactive, true);
    world.sessions("app", Bytes::mib(700));
    world.load("b", Bytes::gib(7), Bytes::mib(500));
    world.send(Event::Kernel { level: KernelLevel::Warning });
    world.run(2 * MINUTE);
    world.leave(Bytes::mib(300));
    world.run(30 * SECOND);
    let replayed = record::replay(config(), &world.log).unwrap();
    let of = |actions: Vec<_>| serde_json::to_string(&actions).unwrap();
    assert_eq!(
        of(replayed.into_iter().flatten().collect::<Vec<_>>()),
        of(world.actions.into_iter().map(|(_, action)| action).collect::<Vec<_>>())
    );
}

#[test]
fn a_broken_line_is_named() {
    let good = record::line(1, &Event::Kernel { level: KernelLevel::Normal });
    let error = record::replay(config(), &format!("{good}\n\n{{\"event\":\"no\"}}\n")).unwrap_err();
    assert_eq!(error.line, 3);
}

#[test]
fn a_log_with_its_header_is_decided_with_the_configuration_that_it_was_written_with() {
    let small = Config { cap: Bytes::gib(3), ..config() };
    let mut world = World::with(small.clone());
    world.load("chat", Bytes::gib(4), Bytes::mib(500));
    world.run(5 * SECOND);
    let log = format!("{}\n{}", record::header(&small), world.log);
    let of = |actions: &Vec<Vec<_>>| serde_json::to_string(actions).unwrap();
    let replayed = record::replay_log(&log).unwrap();
    assert_eq!(of(&replayed), of(&record::replay(small, &world.log).unwrap()));
    assert_ne!(of(&replayed), of(&record::replay(config(), &world.log).unwrap()), "the cap matters");
}

#[test]
fn a_broken_header_is_line_one_and_lines_after_it_are_counted_with_it() {
    let good = record::line(1, &Event::Kernel { level: KernelLevel::Normal });
    assert_eq!(record::replay_log(&good).unwrap_err().line, 1, "an event is no header");
    assert_eq!(record::replay_log("").unwrap_err().line, 1);
    let log = format!("{}\n{good}\nnonsense\n", record::header(&config()));
    assert_eq!(record::replay_log(&log).unwrap_err().line, 3);
    assert_eq!(record::replay_log(&record::header(&config())).unwrap(), Vec::<Vec<_>>::new());
}
