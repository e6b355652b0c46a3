//! Leases: tightening, deadlines, trust, the floor, and apps that do not play along.

use locara_policy::{
    Bytes, Kind,
    governor::{Action, Answer, Class, Consequence, Event, KernelLevel, Level, Recovery},
};

use super::world::{SECOND, World, app, digest, tightening};

/// Two apps that hold 600 MiB of conversations each above floors of 100 MiB.
fn two_apps() -> World {
    let mut world = World::new();
    world.start("seen", Bytes::mib(100), Bytes::gib(2), Class::Interactive, true);
    world.start("batch", Bytes::mib(100), Bytes::gib(2), Class::Background, false);
    for name in ["seen", "batch"] {
        world.sessions(name, Bytes::mib(600));
    }
    world.run(SECOND);
    world
}

fn answer(world: &mut World, name: &str, epoch: u32, answer: Answer) -> Vec<Action> {
    world.send(Event::Answer { app: app(name), epoch, answer })
}

fn enforced(actions: &[Action]) -> Vec<(String, Consequence)> {
    let what = |action: &Action| match action {
        Action::Enforce { app, consequence, .. } => Some((app.0.clone(), *consequence)),
        _ => None,
    };
    actions.iter().filter_map(what).collect()
}

fn trust(world: &World, name: &str) -> u32 {
    world.governor.snapshot().apps.iter().find(|view| view.app == name).unwrap().trust_percent
}

#[test]
fn elevated_freezes_limits_and_asks_for_nothing() {
    let mut world = two_apps();
    let below = world.governor.config().elevated_below;
    let seen = world.leave_calmly(below.saturating_sub(Bytes::mib(1)));
    assert_eq!(world.level(), Level::Elevated);
    let told = tightening(&seen, "batch").unwrap();
    assert_eq!((told.release, told.limit, told.usage), (Bytes::ZERO, Bytes::mib(600), Bytes::mib(600)));
    assert_eq!(told.on_deadline, Consequence::Nothing);
    let more = world.run(20 * SECOND);
    assert_eq!(tightening(&more, "batch"), None, "no epoch without a change");
}

#[test]
fn tight_asks_the_background_first_and_keeps_the_floor() {
    let mut world = two_apps();
    let tight = world.governor.config().tight_below;
    let seen = world.leave_calmly(tight.saturating_sub(Bytes::mib(20)));
    assert_eq!(world.level(), Level::Tight);
    let (batch, seen_app) = (tightening(&seen, "batch").unwrap(), tightening(&seen, "seen").unwrap());
    assert_eq!(batch.release, Bytes::mib(500), "everything above its floor");
    assert_eq!((batch.deadline_ms, batch.on_deadline), (3_000, Consequence::Suspend));
    assert!(seen_app.release <= Bytes::mib(500) && seen_app.limit >= Bytes::mib(100));
    assert_eq!(seen_app.on_deadline, Consequence::DropCaches);
}

#[test]
fn what_was_asked_for_is_not_asked_for_again_of_somebody_else() {
    let mut world = two_apps();
    world.start("hoard", Bytes::ZERO, Bytes::gib(4), Class::Background, false);
    world.sessions("hoard", Bytes::gib(3));
    world.leave_calmly(world.governor.config().tight_below.saturating_sub(Bytes::mib(20)));
    let demands = |world: &World| -> Vec<String> {
        let of = |(_, action): &(u64, Action)| match action {
            Action::Tighten { app, tightening } if !tightening.release.is_zero() => Some(app.0.clone()),
            _ => None,
        };
        world.actions.iter().filter_map(of).collect()
    };
    assert_eq!(demands(&world), ["hoard"], "it can give all that is wanted");
    for _ in 0..50 {
        world.send(Event::Visible { app: app("seen"), visible: true });
        world.read_after(10);
    }
    assert_eq!(demands(&world), ["hoard"], "it has three seconds to do so");
}

#[test]
fn a_model_that_turns_out_larger_does_not_eat_a_guarantee() {
    let mut world = World::new();
    world.others = Bytes::ZERO;
    world.read_after(40 * SECOND);
    world.start("app", Bytes::gib(1), Bytes::gib(2), Class::Background, false);
    world.load("liar", Bytes::gib(10), Bytes::gib(1));
    let holds = vec![(Kind::WeightsMapped, Bytes::gib(10)), (Kind::Kv, Bytes::mib(1_500))];
    world.load_ends_with(Event::Loaded { model: digest("liar"), holds, took_ms: 9 });
    let seen = world.run(3 * SECOND);
    assert!(seen.iter().any(|action| matches!(action, Action::Unload { .. })), "the model goes, not the guarantee");
    assert_eq!(world.guest("app", Bytes::gib(1)), Ok(()));
}

#[test]
fn an_app_that_ignores_it_is_acted_upon_at_the_deadline_once_and_resumed() {
    let mut world = two_apps();
    world.send(Event::Kernel { level: KernelLevel::Warning });
    let early = world.run(2 * SECOND);
    assert_eq!(enforced(&early), []);
    let seen = world.run(2 * SECOND);
    assert_eq!(enforced(&seen), [("batch".to_owned(), Consequence::Suspend)]);
    let later = world.run(6 * SECOND);
    assert_eq!(enforced(&later), [], "what computes nothing can release nothing");
    let calm = world.run(30 * SECOND);
    assert!(calm.contains(&Action::Resume { app: app("batch") }));
    assert_eq!(trust(&world, "batch"), 100, "it promised nothing");
}

#[test]
fn an_app_that_delivers_is_measured_and_left_alone() {
    let mut world = two_apps();
    let seen = world.send(Event::Kernel { level: KernelLevel::Warning });
    let told = tightening(&seen, "batch").unwrap();
    answer(&mut world, "batch", told.epoch, Answer::Pledge { release: told.release, eta_ms: 500 });
    world.sessions("batch", Bytes::mib(600).saturating_sub(told.release));
    answer(&mut world, "batch", told.epoch, Answer::Done(told.release));
    let seen = world.run(10 * SECOND);
    assert_eq!(enforced(&seen), []);
    assert!(world.governor.snapshot().decisions.iter().any(|decision| decision.what == "app batch gave back"));
}

#[test]
fn a_word_is_no_deed_and_an_early_word_is_not_punished_early() {
    let mut world = two_apps();
    let seen = world.send(Event::Kernel { level: KernelLevel::Warning });
    let told = tightening(&seen, "batch").unwrap();
    answer(&mut world, "batch", told.epoch, Answer::Pledge { release: told.release, eta_ms: 500 });
    let seen = answer(&mut world, "batch", told.epoch, Answer::Done(told.release));
    assert_eq!(enforced(&seen), [], "the deadline has not passed");
    let seen = world.run(4 * SECOND);
    assert_eq!(enforced(&seen), [("batch".to_owned(), Consequence::Suspend)], "nothing was measured");
    assert_eq!(trust(&world, "batch"), 50, "it pledged and did not deliver");
}

#[test]
fn trust_lost_lowers_the_burst_and_is_earned_back() {
    let mut world = two_apps();
    for round in 0..4 {
        let seen = world.send(Event::Kernel { level: KernelLevel::Warning });
        let told = tightening(&seen, "batch").unwrap();
        answer(&mut world, "batch", told.epoch, Answer::Pledge { release: told.release, eta_ms: 1 });
        if round == 3 {
            world.sessions("batch", Bytes::ZERO);
            answer(&mut world, "batch", told.epoch, Answer::Done(told.release));
        }
        world.run(200 * SECOND);
        let (floor, above) = (Bytes::mib(100), Bytes::mib(1948));
        let view = world.governor.snapshot().apps.into_iter().find(|view| view.app == "batch").unwrap();
        assert!(view.limit <= floor.saturating_add(above.fraction(u64::from(view.trust_percent) + 1, 100)));
    }
    assert_eq!(trust(&world, "batch"), 15, "halved thrice, then a quarter more");
    let refusal = world.guest("batch", Bytes::mib(1_500)).unwrap_err();
    let Recovery::Smaller { at_most } = refusal.recovery else { panic!("{refusal}") };
    assert_eq!(world.guest("batch", at_most), Ok(()), "the way out holds");
}

#[test]
fn a_deadline_is_put_off_once_and_at_most_by_as_much_again() {
    let mut world = two_apps();
    let seen = world.send(Event::Kernel { level: KernelLevel::Warning });
    let told = tightening(&seen, "batch").unwrap();
    for _ in 0..5 {
        answer(&mut world, "batch", told.epoch, Answer::Defer(u32::MAX));
    }
    assert_eq!(enforced(&world.run(5 * SECOND)), []);
    world.send(Event::Kernel { level: KernelLevel::Warning });
    assert_eq!(enforced(&world.run(2 * SECOND)).len(), 1);
}

#[test]
fn a_storm_of_answers_changes_nothing_and_stale_epochs_count_for_nothing() {
    let mut world = two_apps();
    let seen = world.send(Event::Kernel { level: KernelLevel::Warning });
    let told = tightening(&seen, "batch").unwrap();
    let decisions = world.governor.snapshot().decisions.len();
    for n in 0..10_000 {
        answer(&mut world, "batch", told.epoch, Answer::Pledge { release: Bytes(n), eta_ms: 0 });
        answer(&mut world, "batch", told.epoch.wrapping_sub(1), Answer::Defer(60_000));
        answer(&mut world, "batch", u32::MAX, Answer::Defer(60_000));
        answer(&mut world, "nobody", 1, Answer::Defer(60_000));
    }
    assert_eq!(world.governor.snapshot().decisions.len(), decisions);
    assert_eq!(enforced(&world.run(4 * SECOND)).len(), 1);
}

#[test]
fn a_newer_limit_repeats_what_is_still_to_be_released() {
    let mut world = two_apps();
    world.send(Event::Kernel { level: KernelLevel::Warning });
    let first = tightening(&world.last_actions(), "batch").unwrap();
    world.now += 500;
    let seen = world.send(Event::Kernel { level: KernelLevel::Critical });
    let of_batch = seen.iter().filter_map(|action| match action {
        Action::Tighten { app: of, tightening } if *of == app("batch") => Some(tightening.release),
        _ => None,
    });
    assert!(of_batch.clone().count() == 2 && of_batch.clone().all(|release| !release.is_zero()), "limit, then demand");
    let second = tightening(&seen, "batch").unwrap();
    assert!(second.epoch > first.epoch && !second.release.is_zero());
    assert_eq!((second.on_deadline, second.deadline_ms), (Consequence::Stop, 250), "it has become urgent");
    let epochs = |world: &World| world.governor.snapshot().apps.iter().map(|view| view.epoch).sum::<u32>();
    let before = epochs(&world);
    for _ in 0..100 {
        world.read();
    }
    assert_eq!(epochs(&world), before, "no epoch at every reading");
}

#[test]
fn critical_may_go_below_the_floor_and_a_visible_app_is_not_stopped() {
    let mut world = two_apps();
    world.leave(Bytes::mib(300));
    let seen = world.read();
    let (batch, visible) = (tightening(&seen, "batch").unwrap(), tightening(&seen, "seen").unwrap());
    assert_eq!((batch.release, batch.on_deadline), (Bytes::mib(600), Consequence::Stop));
    assert_eq!(visible.on_deadline, Consequence::DropCaches);
    assert!(enforced(&world.run(SECOND)).contains(&("batch".to_owned(), Consequence::Stop)));
}

#[test]
fn a_demand_whose_cause_is_gone_has_no_consequence() {
    let mut world = two_apps();
    let seen = world.send(Event::Kernel { level: KernelLevel::Warning });
    let told = tightening(&seen, "batch").unwrap();
    world.send(Event::Kernel { level: KernelLevel::Normal });
    answer(&mut world, "batch", told.epoch, Answer::Defer(60_000));
    let seen = world.run(30 * SECOND);
    assert_eq!(world.level(), Level::Normal);
    assert_eq!(enforced(&seen), [], "it was tight for five seconds and the app had six");
    assert!(world.governor.snapshot().apps.iter().all(|view| !view.suspended));
}

#[test]
fn limits_come_back_by_tenths() {
    let mut world = two_apps();
    let below = world.governor.config().elevated_below;
    world.leave_calmly(below.saturating_sub(Bytes::mib(1)));
    world.leave(Bytes::gib(10));
    let mut limits = Vec::new();
    for _ in 0..150 {
        let seen = world.run(SECOND);
        limits.extend(tightening(&seen, "batch").map(|told| told.limit));
    }
    assert_eq!(limits.len(), 10, "{limits:?}");
    assert!(limits.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(limits.last(), Some(&Bytes::gib(2)));
}

#[test]
fn growth_within_the_floor_is_kept_whatever_the_system_says() {
    let mut world = World::new();
    world.start("app", Bytes::mib(500), Bytes::gib(1), Class::Background, false);
    world.settled("chat", Bytes::gib(7), Bytes::gib(1));
    world.active("chat", |activity| activity.interactive = 1);
    world.leave(Bytes::mib(600));
    world.read();
    assert_eq!(world.guest("app", Bytes::mib(500)), Ok(()));
    assert!(world.guest("app", Bytes::mib(501)).is_err(), "beyond it, nothing is free");
}

#[test]
fn what_is_guaranteed_is_not_lent_to_models() {
    let mut world = World::new();
    world.others = Bytes::ZERO;
    world.read_after(20 * SECOND);
    world.start("app", Bytes::gib(1), Bytes::gib(2), Class::Background, false);
    let mut request = world.request("all", Bytes::gib(11), Bytes::mib(500));
    request.app = Some(app("app"));
    let ticket = world.ask(request);
    assert_eq!(world.refusal(ticket).recovery, Recovery::Smaller { at_most: Bytes::gib(11) });
}

#[test]
fn nothing_starts_or_grows_at_critical_beyond_its_floor() {
    let mut world = World::new();
    world.start("app", Bytes::mib(100), Bytes::gib(1), Class::Interactive, true);
    world.send(Event::Kernel { level: KernelLevel::Critical });
    assert_eq!(world.guest("app", Bytes::mib(100)), Ok(()));
    let refusal = world.guest("app", Bytes::mib(200)).unwrap_err();
    assert!(matches!(refusal.recovery, Recovery::Retry { .. }), "{refusal}");
    let late = world.start("late", Bytes::mib(100), Bytes::gib(1), Class::Interactive, true);
    assert!(matches!(world.refusal(late).recovery, Recovery::Retry { .. }));
}

#[test]
fn a_guest_that_finds_no_room_finds_it_after_the_retry() {
    let mut world = World::new();
    world.start("app", Bytes::mib(10), Bytes::gib(4), Class::Interactive, true);
    world.settled("idle", Bytes::gib(4), Bytes::mib(500));
    world.leave(Bytes::gib(6));
    world.run(20 * SECOND);
    let refusal = world.guest("app", Bytes::gib(2)).unwrap_err();
    let Recovery::Retry { after_ms } = refusal.recovery else { panic!("{refusal}") };
    world.run(u64::from(after_ms) + 2 * SECOND);
    assert_eq!(world.guest("app", Bytes::gib(2)), Ok(()));
}

#[test]
fn an_app_that_does_not_run_is_answered_too() {
    let mut world = World::new();
    assert!(world.guest("nobody", Bytes::mib(1)).is_err());
}

#[test]
fn several_runs_share_a_lease_and_the_last_one_gives_it_back() {
    let mut world = World::new();
    world.start("app", Bytes::mib(100), Bytes::gib(1), Class::Background, false);
    world.start("app", Bytes::mib(100), Bytes::gib(1), Class::Interactive, true);
    world.guest("app", Bytes::mib(80)).unwrap();
    world.send(Event::AppStop { app: app("app") });
    assert_eq!(world.governor.snapshot().apps.len(), 1);
    world.stop("app");
    assert_eq!(world.governor.snapshot().apps.len(), 0);
    assert_eq!(world.governor.ledger().held(), Bytes::ZERO);
}

#[test]
fn the_person_is_told_once_that_an_app_exceeds_what_it_declared() {
    let mut world = World::new();
    world.start("app", Bytes::mib(10), Bytes::gib(1), Class::Interactive, true);
    let mut request = world.request("chat", Bytes::gib(3), Bytes::mib(100));
    request.app = Some(app("app"));
    world.ask(request);
    world.run(3 * SECOND);
    for mb in 1..50 {
        world.guest("app", Bytes::mb(mb)).unwrap();
    }
    let told: Vec<_> = world
        .actions
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Tell { message } => Some(message.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("declared 1.1 GB (requires.memoryGB"), "{}", told[0]);
}

#[test]
fn who_uses_a_model_is_forgotten_with_it() {
    let mut world = World::new();
    world.start("app", Bytes::ZERO, Bytes::gib(8), Class::Interactive, true);
    let mut request = world.request("chat", Bytes::gib(1), Bytes::mib(100));
    request.app = Some(app("app"));
    let model = request.model.clone();
    world.ask(request);
    world.run(3 * SECOND);
    assert_eq!(world.governor.ledger().users(&model), 1);
    world.send(Event::Lost { model: model.clone() });
    assert_eq!(world.governor.ledger().users(&model), 0);
    let mut stray = world.request("other", Bytes::gib(30), Bytes::mib(100));
    stray.app = Some(app("nobody"));
    let other = stray.model.clone();
    world.ask(stray);
    assert_eq!(world.governor.ledger().users(&other), 0, "a refused load has no users");
}

#[test]
fn an_app_cannot_flush_the_decisions_with_refusals() {
    let mut world = World::new();
    world.start("app", Bytes::ZERO, Bytes::mib(1), Class::Interactive, true);
    for mb in 2..500 {
        assert!(world.guest("app", Bytes::mb(mb)).is_err());
    }
    assert_eq!(world.governor.snapshot().decisions.len(), 2);
}

#[test]
fn the_time_of_a_demand_does_not_run_out_while_the_machine_sleeps() {
    let mut world = two_apps();
    world.send(Event::Kernel { level: KernelLevel::Warning });
    world.now += 3_600 * SECOND;
    let seen = world.read();
    assert_eq!(enforced(&seen), [], "nobody could answer in his sleep");
}

/// Demands for bytes that an app hears in `seconds` at critical, to each of which it says that it has nothing to give.
fn demands(world: &mut World, name: &str, seconds: u64) -> usize {
    let mut demands = 0;
    for _ in 0..seconds * 2 {
        let mut seen = world.run(SECOND / 2);
        seen.extend(world.send(Event::Kernel { level: KernelLevel::Critical }));
        if let Some(asked) = tightening(&seen, name).filter(|asked| !asked.release.is_zero()) {
            demands += 1;
            world.send(Event::Answer { app: app(name), epoch: asked.epoch, answer: Answer::Done(Bytes::ZERO) });
        }
    }
    demands
}

#[test]
fn an_app_that_has_nothing_to_give_is_asked_less_and_less_often_until_it_holds_more() {
    let mut world = World::new();
    world.start("app", Bytes::mib(9), Bytes::gib(1), Class::Interactive, true);
    world.guest("app", Bytes::mib(9)).unwrap();
    world.leave_calmly(Bytes::mib(300));
    let minute = demands(&mut world, "app", 60);
    assert!((4..=8).contains(&minute), "{minute} demands: after 1, 2, 4, 8, 16 and 32 s");
    assert!(demands(&mut world, "app", 60) <= 2);
    world.sessions("app", Bytes::mib(50));
    assert!(demands(&mut world, "app", 4) >= 2, "there is something new to ask for");
}

/// An app that holds 600 MiB of guest memory and pledges all that it is asked for, of which nothing is seen.
fn pledges_heap(world: &mut World, pools: Option<[Bytes; 2]>) {
    if let Some([before, _]) = pools {
        world.send(Event::Pools { app: app("heap"), reclaimable: before });
    }
    let seen = world.send(Event::Kernel { level: KernelLevel::Warning });
    let told = tightening(&seen, "heap").unwrap();
    assert!(!told.release.is_zero());
    answer(world, "heap", told.epoch, Answer::Pledge { release: told.release, eta_ms: 500 });
    if let Some([_, after]) = pools {
        world.send(Event::Pools { app: app("heap"), reclaimable: after });
    }
    answer(world, "heap", told.epoch, Answer::Done(told.release));
    world.run(200 * SECOND);
}

fn holds_heap() -> World {
    let mut world = World::new();
    world.start("heap", Bytes::mib(100), Bytes::gib(2), Class::Background, false);
    world.guest("heap", Bytes::mib(700)).unwrap();
    world.run(20 * SECOND);
    world
}

#[test]
fn heap_that_was_freed_and_stays_committed_breaks_no_pledge_if_the_pools_agree() {
    let mut world = holds_heap();
    for _ in 0..3 {
        pledges_heap(&mut world, Some([Bytes::mib(650), Bytes::ZERO]));
        assert_eq!(trust(&world, "heap"), 100);
    }
}

#[test]
fn a_pledge_of_heap_that_nothing_shows_is_believed_once() {
    let mut world = holds_heap();
    pledges_heap(&mut world, None);
    assert_eq!(trust(&world, "heap"), 100);
    pledges_heap(&mut world, None);
    assert_eq!(trust(&world, "heap"), 50);
}
