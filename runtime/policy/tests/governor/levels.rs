//! The pressure level: what raises it, what lowers it, and what a broken clock or sensor does to it.

use locara_policy::{
    Bytes, Kind, Machine, defaults,
    governor::{Config, Event, KernelLevel, Level, Stall},
};

use super::world::{SECOND, World};

#[test]
fn the_level_rises_at_once_and_falls_one_step_after_calm() {
    let mut world = World::new();
    world.leave(Bytes::mib(300));
    world.read();
    assert_eq!(world.level(), Level::Critical);
    world.leave(Bytes::gib(10));
    world.run(4 * SECOND);
    assert_eq!(world.level(), Level::Critical, "four seconds of calm are not enough");
    let mut seen = vec![world.level()];
    for _ in 0..20 {
        world.run(SECOND);
        if seen.last() != Some(&world.level()) {
            seen.push(world.level());
        }
    }
    assert_eq!(seen, [Level::Critical, Level::Tight, Level::Elevated, Level::Normal]);
}

#[test]
fn a_level_is_left_only_clearly_above_where_it_begins() {
    let mut world = World::new();
    let begins = world.governor.config().elevated_below;
    world.leave(begins.saturating_sub(Bytes(1)));
    world.read();
    assert_eq!(world.level(), Level::Elevated);
    world.leave(begins.saturating_add(Bytes::mib(50)));
    world.run(60 * SECOND);
    assert_eq!(world.level(), Level::Elevated, "just above the threshold is within the noise");
    world.leave(begins.fraction(5, 4));
    world.run(7 * SECOND);
    assert_eq!(world.level(), Level::Normal);
}

#[test]
fn the_kernel_only_raises() {
    let mut world = World::new();
    world.send(Event::Kernel { level: KernelLevel::Warning });
    assert_eq!(world.level(), Level::Tight);
    world.send(Event::Kernel { level: KernelLevel::Normal });
    assert_eq!(world.level(), Level::Tight, "calm is measured, not announced");
    world.leave(Bytes::mib(300));
    world.sample.kernel = Some(KernelLevel::Normal);
    world.read();
    assert_eq!(world.level(), Level::Critical, "a kernel that says normal does not hide what is measured");
}

#[test]
fn a_warning_does_not_prolong_critical() {
    let mut world = World::new();
    world.send(Event::Kernel { level: KernelLevel::Critical });
    for _ in 0..8 {
        world.run(4 * SECOND);
        world.send(Event::Kernel { level: KernelLevel::Warning });
    }
    assert_eq!(world.level(), Level::Tight, "the kernel has only warned for half a minute");
}

#[test]
fn a_forecast_raises_by_one_step_only() {
    let mut world = World::new();
    world.run(3 * SECOND);
    for _ in 0..4 {
        world.others = world.others.saturating_add(Bytes::gib(2));
        world.run(SECOND);
    }
    assert!(world.available() > world.governor.config().elevated_below, "still plenty: {}", world.available());
    assert_eq!(world.level(), Level::Elevated);
    assert!(world.governor.snapshot().cause.contains("falling by"), "{}", world.governor.snapshot().cause);
}

#[test]
fn what_the_host_itself_takes_is_no_trend() {
    let mut world = World::new();
    world.load_ms = SECOND;
    world.load("a", Bytes::gib(1), Bytes::gib(5));
    world.run(10 * SECOND);
    assert!(world.holds("a"));
    assert_eq!(world.level(), Level::Normal, "{}", world.governor.snapshot().cause);
    let levels = world.governor.snapshot().decisions.into_iter().filter(|decision| decision.what.starts_with("level"));
    assert_eq!(levels.count(), 0, "not even for a moment");
}

#[test]
fn one_noisy_millisecond_is_no_trend() {
    let mut world = World::new();
    world.run(3 * SECOND);
    world.others = world.others.saturating_add(Bytes::mib(20));
    world.now += 1;
    world.read();
    assert_eq!(world.level(), Level::Normal, "20 MiB in 1 ms are not 20 GiB in a second");
}

#[test]
fn a_clock_that_jumps_back_goes_on_from_there() {
    let mut world = World::new();
    world.now = 3_600 * SECOND;
    world.leave(Bytes::mib(300));
    world.read();
    assert_eq!(world.level(), Level::Critical);
    world.now = 0;
    world.leave(Bytes::gib(10));
    world.run(20 * SECOND);
    assert_eq!(world.level(), Level::Normal, "an hour back must not freeze it for an hour");
}

#[test]
fn after_sleep_one_reading_is_neither_a_trend_nor_calm() {
    let mut world = World::new();
    world.leave(Bytes::mib(300));
    world.run(2 * SECOND);
    world.leave(Bytes::gib(10));
    world.run(SECOND);
    world.now += 8 * 3_600 * SECOND;
    world.read();
    assert_eq!(world.level(), Level::Critical, "a single reading after sleep");
    world.run(20 * SECOND);
    world.now += 8 * 3_600 * SECOND;
    world.leave(Bytes::gib(3));
    world.read();
    assert_eq!(world.level(), Level::Normal, "7 GiB less over night is no slope");
}

#[test]
fn sensors_may_vanish_and_flap() {
    let mut world = World::new();
    for round in 0..200u32 {
        world.sample.stall = round.is_multiple_of(2).then_some(Stall { some: 50, full: 10 });
        world.sample.kernel = round.is_multiple_of(3).then_some(KernelLevel::Normal);
        world.sample.disk_free = round.is_multiple_of(5).then_some(Bytes::gib(50));
        world.run(SECOND);
        assert_eq!(world.level(), Level::Normal);
    }
    world.sample.stall = Some(Stall { some: 9_000, full: 5_000 });
    world.read();
    assert_eq!(world.level(), Level::Critical);
    world.sample.stall = None;
    world.run(20 * SECOND);
    assert_eq!(world.level(), Level::Normal, "a sensor that is gone holds no level");
}

#[test]
fn swapping_and_a_full_disk_raise_it_too() {
    let mut world = World::new();
    for _ in 0..4 {
        world.sample.swapped_out = world.sample.swapped_out.saturating_add(Bytes::mib(4));
        world.run(SECOND);
    }
    assert_eq!(world.level(), Level::Elevated);
    for _ in 0..4 {
        world.sample.swapped_out = world.sample.swapped_out.saturating_add(Bytes::mib(200));
        world.run(SECOND);
    }
    assert_eq!(world.level(), Level::Tight);
    world.run(60 * SECOND);
    assert_eq!(world.level(), Level::Normal);
    world.sample.disk_free = Some(Bytes::mib(100));
    world.run(SECOND);
    assert_eq!(world.level(), Level::Elevated);
}

#[test]
fn critical_is_left_while_a_busy_model_keeps_its_pages() {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(5), Bytes::mib(100));
    world.active("chat", |activity| activity.interactive = 1);
    world.leave_calmly(Bytes::mib(300));
    assert_eq!(world.level(), Level::Critical);
    // Plenty is available, though less than the weights: that is tight, not critical.
    world.leave(Bytes::gib(5));
    world.run(30 * SECOND);
    assert!(world.holds("chat"), "its answer goes on");
    assert!(world.level() < Level::Critical, "{}", world.governor.snapshot().cause);
}

/// A Mac whose chat model of 4 GiB has just answered, with so much available while it is wired.
fn answered_on_a_gpu(available: Bytes) -> (World, u64) {
    let machine = Machine::unified_gpu("test", Bytes::gib(16), 8, Bytes::gib(11));
    let mut world = World::with(Config::new(&machine, &defaults(&machine, None)));
    world.others = Bytes::gib(4);
    let mut request = world.request("chat", Bytes::ZERO, Bytes::mib(100));
    request.need.parts.push((Kind::WeightsWired, Bytes::gib(4)));
    world.ask(request);
    world.run(3 * SECOND);
    world.active("chat", |activity| activity.interactive = 1);
    world.leave_calmly(available);
    world.run(60 * SECOND);
    assert_eq!(world.level(), Level::Normal);
    world.active("chat", |activity| activity.interactive = 0);
    let unwire_ms = world.governor.config().unwire_ms;
    (world, unwire_ms)
}

#[test]
fn weights_that_a_gpu_has_not_let_go_of_yet_are_no_fall_of_memory() {
    let (mut world, unwire_ms) = answered_on_a_gpu(Bytes::gib(3));
    world.run(SECOND);
    assert_eq!(world.level(), Level::Normal, "{}", world.governor.snapshot().cause);
    // The system has its pages back.
    world.leave(Bytes::gib(7));
    world.run(20 * SECOND);
    assert_eq!(world.level(), Level::Normal, "{}", world.governor.snapshot().cause);
    assert!(unwire_ms >= SECOND);
}

#[test]
fn a_fall_while_a_gpu_lets_go_of_its_weights_is_still_seen() {
    let (mut world, _) = answered_on_a_gpu(Bytes::gib(7));
    // The pages come back, and somebody takes twice as much.
    world.leave(Bytes::gib(3));
    world.run(4 * SECOND);
    assert!(world.level() > Level::Normal, "4 GiB of what is available are the pages of the model");
}
