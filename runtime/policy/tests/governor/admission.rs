//! Who may load or grow: now, later or never.

use locara_policy::{
    Bytes, Kind,
    governor::{Action, Class, Event, KernelLevel, Level, Need, Recovery},
};

use super::world::{MINUTE, SECOND, World, app, digest, given_back};

#[test]
fn what_fits_is_admitted_at_once_and_what_never_fits_is_refused_with_the_numbers() {
    let mut world = World::new();
    let fits = world.load("small", Bytes::gib(4), Bytes::mib(500));
    assert!(world.is_admitted(fits));
    let huge = world.load("huge", Bytes::gib(40), Bytes::gib(1));
    let refusal = world.refusal(huge).clone();
    assert_eq!(refusal.recovery, Recovery::Smaller { at_most: world.governor.config().cap });
    assert_eq!(
        refusal.to_string(),
        "huge needs 44.0 GB, 7.2 GB can be had (the cap of the host is 12.9 GB); biggest holder: small with 4.8 GB; \
         take a model or a context that needs at most 12.9 GB"
    );
}

#[test]
fn a_model_is_loaded_once_for_everybody_who_asks() {
    let mut world = World::new();
    let first = world.load("chat", Bytes::gib(4), Bytes::mib(500));
    let during = world.load("chat", Bytes::gib(4), Bytes::mib(500));
    assert!(world.is_admitted(first) && world.is_joined(during));
    world.run(3 * SECOND);
    let after = world.load("chat", Bytes::gib(4), Bytes::mib(500));
    assert!(world.is_joined(after));
    assert_eq!(world.governor.ledger().held(), Bytes::gib(4).saturating_add(Bytes::mib(500)));
}

#[test]
fn two_who_wait_for_the_same_model_share_it_in_the_same_moment() {
    let mut world = World::new();
    world.load("other", Bytes::gib(1), Bytes::mib(100));
    let one = world.load("chat", Bytes::gib(2), Bytes::mib(100));
    let two = world.load("chat", Bytes::gib(2), Bytes::mib(100));
    world.run(3 * SECOND);
    assert!(world.is_admitted(one) && world.is_joined(two));
}

#[test]
fn one_load_at_a_time() {
    let mut world = World::new();
    world.load("first", Bytes::gib(2), Bytes::mib(100));
    let second = world.load("second", Bytes::gib(2), Bytes::mib(100));
    assert!(world.open.contains_key(&second));
    assert!(matches!(
        world.actions.last(),
        Some((_, Action::Wait { why, .. })) if why == "first is being loaded"
    ));
    world.run(3 * SECOND);
    assert!(world.is_admitted(second));
}

#[test]
fn the_least_valuable_idle_model_makes_room() {
    let mut world = World::new();
    for name in ["rare", "loved"] {
        world.use_all();
        world.settled(name, Bytes::gib(3), Bytes::mib(200));
    }
    for _ in 0..5 {
        world.answer_once("loved");
    }
    let ticket = world.load("new", Bytes::gib(6), Bytes::mib(200));
    let seen = world.run(5 * SECOND);
    assert!(world.is_admitted(ticket), "{seen:?}");
    assert!(!world.holds("rare") && world.holds("loved"));
}

#[test]
fn a_prompt_cache_goes_before_a_model() {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(4), Bytes::mib(200));
    world.active("chat", |activity| activity.prompt_cache = Bytes::gib(2));
    world.read();
    let ticket = world.load("new", Bytes::gib(5), Bytes::mib(100));
    assert_eq!(given_back(&world.last_actions()), ["prompt cache of chat"]);
    world.run(3 * SECOND);
    assert!(world.is_admitted(ticket) && world.holds("chat"));
}

#[test]
fn needless_victims_are_spared() {
    let mut world = World::new();
    world.use_all();
    world.settled("tiny", Bytes::mib(300), Bytes::mib(50));
    world.settled("large", Bytes::gib(5), Bytes::mib(200));
    // Often used, so the tiny one comes first among the victims; but the large one alone is enough.
    for _ in 0..3 {
        world.answer_once("large");
    }
    let ticket = world.load("new", Bytes::gib(6), Bytes::mib(200));
    world.run(5 * SECOND);
    assert!(world.is_admitted(ticket));
    assert!(world.holds("tiny") && !world.holds("large"));
}

#[test]
fn a_model_that_was_just_loaded_is_not_evicted_and_one_that_went_does_not_come_back_at_once() {
    let mut world = World::new();
    let a = world.load("a", Bytes::gib(6), Bytes::mib(500));
    world.run(4 * SECOND);
    assert!(world.is_admitted(a));
    world.answer_once("a");
    let b = world.load("b", Bytes::gib(6), Bytes::mib(500));
    world.run(20 * SECOND);
    assert!(world.holds("a") && world.open.contains_key(&b), "the cool-down protects it");
    world.run(45 * SECOND);
    assert!(world.is_admitted(b) && !world.holds("a"));
    // `a` has cooled down, `b` has not: two clients in turn get one swap a minute, not one a second.
    world.run(5 * SECOND);
    let again = world.load("a", Bytes::gib(6), Bytes::mib(500));
    world.run(20 * SECOND);
    assert!(world.holds("b") && world.open.contains_key(&again));
}

#[test]
fn who_waits_too_long_is_refused_with_the_numbers() {
    let mut world = World::new();
    world.settled("busy", Bytes::gib(6), Bytes::mib(500));
    world.active("busy", |activity| activity.interactive = 1);
    let ticket = world.load("new", Bytes::gib(5), Bytes::mib(100));
    world.run(74 * SECOND);
    assert!(world.open.contains_key(&ticket));
    world.run(2 * SECOND);
    let refusal = world.refusal(ticket);
    assert!(refusal.bound.starts_with("waited 75 s: short by"), "{}", refusal.bound);
    assert!(world.holds("busy"), "answers in flight finish");
}

#[test]
fn a_small_one_overtakes_a_large_one_that_waits_but_only_so_often() {
    let mut world = World::new();
    world.load_ms = 100;
    world.settled("busy", Bytes::gib(6), Bytes::mib(500));
    world.active("busy", |activity| activity.interactive = 1);
    let large = world.load("large", Bytes::gib(5), Bytes::mib(100));
    let mut admitted = 0;
    for n in 0..12 {
        let small = world.load(&format!("small-{n}"), Bytes::mib(50), Bytes::mib(1));
        world.run(2 * SECOND);
        admitted += u32::from(world.is_admitted(small));
    }
    assert!(world.open.contains_key(&large));
    assert_eq!(admitted, 8, "the ninth waits behind it");
}

#[test]
fn a_model_in_its_cool_down_holds_up_nobody_else() {
    let mut world = World::new();
    world.load("crashed", Bytes::gib(2), Bytes::mib(100));
    world.run(3 * SECOND);
    world.send(Event::Lost { model: digest("crashed") });
    let again = world.load("crashed", Bytes::gib(2), Bytes::mib(100));
    let other = world.load("other", Bytes::gib(2), Bytes::mib(100));
    world.run(SECOND);
    assert!(world.is_admitted(other) && world.open.contains_key(&again));
    world.run(60 * SECOND);
    assert!(world.is_admitted(again));
}

#[test]
fn a_model_that_its_owner_took_away_comes_back_at_once() {
    let mut world = World::new();
    world.load("chat", Bytes::gib(2), Bytes::mib(100));
    world.run(3 * SECOND);
    world.send(Event::Released { model: digest("chat") });
    let again = world.load("chat", Bytes::gib(2), Bytes::mib(100));
    world.run(SECOND);
    assert!(world.is_admitted(again));
}

#[test]
fn nothing_is_admitted_at_critical_and_all_of_it_afterwards() {
    let mut world = World::new();
    world.send(Event::Kernel { level: KernelLevel::Critical });
    let ticket = world.load("chat", Bytes::gib(2), Bytes::mib(100));
    world.run(12 * SECOND);
    assert!(world.open.contains_key(&ticket));
    world.run(10 * SECOND);
    assert!(world.is_admitted(ticket));
}

#[test]
fn memory_that_falls_delays_a_load_but_neither_refuses_nor_evicts() {
    let mut world = World::new();
    world.settled("idle", Bytes::gib(2), Bytes::mib(100));
    world.others = world.others.saturating_add(Bytes::gib(2));
    world.read_after(SECOND);
    let ticket = world.load("new", Bytes::gib(4), Bytes::mib(100));
    assert!(world.open.contains_key(&ticket));
    world.run(10 * SECOND);
    assert!(world.is_admitted(ticket) && world.holds("idle"));
}

#[test]
fn a_load_that_fails_gives_its_promise_back() {
    let mut world = World::new();
    world.load("broken", Bytes::gib(4), Bytes::mib(500));
    world.load_ends_with(Event::LoadFailed { model: digest("broken") });
    world.run(3 * SECOND);
    assert_eq!(world.governor.ledger().held(), Bytes::ZERO);
    let again = world.load("broken", Bytes::gib(4), Bytes::mib(500));
    assert!(world.is_admitted(again), "a failed load has no cool-down: nothing was there to thrash");
}

#[test]
fn a_load_that_holds_more_than_it_promised_goes_if_there_is_no_room() {
    let mut world = World::new();
    world.load("liar", Bytes::gib(4), Bytes::mib(500));
    let holds = vec![(Kind::WeightsMapped, Bytes::gib(4)), (Kind::Kv, Bytes::gib(9))];
    world.load_ends_with(Event::Loaded { model: digest("liar"), holds, took_ms: 2_000 });
    let seen = world.run(3 * SECOND);
    assert_eq!(given_back(&seen), ["unload liar"]);
}

#[test]
fn parts_that_shrink_make_room_for_parts_that_grow() {
    let mut world = World::new();
    world.others = Bytes::ZERO;
    world.read_after(20 * SECOND);
    // Fills the cap to the last byte.
    world.load("exact", Bytes::gib(10), Bytes::gib(2));
    let holds = vec![(Kind::WeightsMapped, Bytes::gib(9)), (Kind::Kv, Bytes::gib(3))];
    world.load_ends_with(Event::Loaded { model: digest("exact"), holds, took_ms: 2_000 });
    let seen = world.run(3 * SECOND);
    assert_eq!(given_back(&seen), Vec::<String>::new());
    assert_eq!(world.governor.ledger().held(), Bytes::gib(12));
}

#[test]
fn a_kind_that_is_named_twice_is_one_part() {
    let mut world = World::new();
    let mut request = world.request("twice", Bytes::gib(1), Bytes::mib(100));
    request.need = Need {
        parts: vec![(Kind::Kv, Bytes::mib(100)), (Kind::Kv, Bytes::mib(200))],
        transient: Bytes::mib(50),
        gpu: Bytes::ZERO,
    };
    world.ask(request);
    assert_eq!(world.governor.ledger().held(), Bytes::mib(350));
    world.load_ends_with(Event::Loaded {
        model: digest("twice"),
        holds: vec![(Kind::Kv, Bytes::mib(300))],
        took_ms: 9,
    });
    world.run(3 * SECOND);
    assert_eq!(world.governor.ledger().held(), Bytes::mib(300));
    assert!(world.governor.ledger().entries().all(|(_, entry)| entry.committed), "nothing stays promised");
}

#[test]
fn a_pool_that_was_shrunk_grows_again() {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(2), Bytes::mib(100));
    let ticket = world.ticket();
    world.send(Event::Grow { ticket, model: digest("chat"), kv: Bytes::mib(400) });
    assert!(world.is_admitted(ticket));
    assert_eq!(world.governor.ledger().of_kind(Kind::Kv), Bytes::mib(400));
    let enough = world.ticket();
    world.send(Event::Grow { ticket: enough, model: digest("chat"), kv: Bytes::mib(300) });
    assert!(world.is_joined(enough));
    let gone = world.ticket();
    world.send(Event::Grow { ticket: gone, model: digest("nobody"), kv: Bytes::mib(300) });
    assert!(matches!(world.refusal(gone).recovery, Recovery::Retry { .. }));
}

#[test]
fn a_model_without_a_pool_may_get_one() {
    let mut world = World::new();
    let mut request = world.request("embedder", Bytes::gib(1), Bytes::ZERO);
    request.need.parts = vec![(Kind::WeightsMapped, Bytes::gib(1))];
    world.ask(request);
    world.run(3 * SECOND);
    let ticket = world.ticket();
    world.send(Event::Grow { ticket, model: digest("embedder"), kv: Bytes::mib(64) });
    assert!(world.is_admitted(ticket), "it must not wait for nothing");
}

#[test]
fn growth_between_two_readings_is_not_promised_twice() {
    let mut world = World::new();
    world.settled("a", Bytes::gib(1), Bytes::mib(10));
    world.leave(Bytes::gib(4));
    world.run(30 * SECOND);
    let room = world.governor.snapshot().room;
    let (one, two) = (world.ticket(), world.ticket());
    let kv = room.fraction(2, 3);
    world.send(Event::Grow { ticket: one, model: digest("a"), kv });
    world.send(Event::Grow { ticket: two, model: digest("a"), kv: kv.fraction(2, 1) });
    assert!(world.is_admitted(one));
    assert!(!world.is_admitted(two), "the last reading does not show what the first one took");
}

#[test]
fn whoever_is_told_that_a_model_is_there_finds_it() {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(2), Bytes::mib(100));
    // The idle rule would be due at the very event that asks for it.
    let idle = world.governor.config().idle_unload_ms;
    world.now += idle;
    let ticket = world.load("chat", Bytes::gib(2), Bytes::mib(100));
    assert!(world.is_joined(ticket));
    world.run(3 * SECOND);
    assert!(world.holds("chat"));
}

#[test]
fn an_unload_that_never_ends_lets_others_load_again() {
    let mut world = World::new();
    world.settled("stuck", Bytes::gib(2), Bytes::mib(100));
    world.deaf = true;
    world.run(200 * SECOND);
    let unloads = world.actions.iter().filter(|(_, action)| matches!(action, Action::Unload { .. })).count();
    assert!((1..=3).contains(&unloads), "asked for {unloads} times in 200 s");
    let ticket = world.load("new", Bytes::gib(1), Bytes::mib(100));
    world.run(60 * SECOND);
    assert!(world.is_admitted(ticket));
}

#[test]
fn a_late_answer_of_a_lost_unload_still_counts() {
    let mut world = World::new();
    world.settled("slow", Bytes::gib(2), Bytes::mib(100));
    world.step_ms = 40 * SECOND;
    world.run(118 * SECOND);
    assert!(world.holds("slow"));
    world.run(45 * SECOND);
    assert!(!world.holds("slow"));
    assert_eq!(world.governor.ledger().held(), Bytes::ZERO, "what is gone is not accounted for");
}

#[test]
fn an_answer_of_the_wrong_kind_loses_no_model() {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(2), Bytes::mib(100));
    world.deaf = true;
    world.active("chat", |activity| activity.prompt_cache = Bytes::mib(500));
    world.leave(Bytes::gib(1));
    let seen = world.read();
    let step = seen.iter().find_map(|action| match action {
        Action::Reclaim { step, .. } => Some(*step),
        _ => None,
    });
    world.send(Event::Done { step: step.unwrap(), freed: Bytes::mib(500), holds: None });
    assert_eq!(world.governor.snapshot().models.len(), 1);
}

#[test]
fn a_full_queue_refuses_the_newest_with_a_time() {
    let mut world = World::new();
    world.load("first", Bytes::gib(1), Bytes::mib(1));
    let mut last = None;
    for n in 0..65 {
        last = Some(world.load(&format!("m{n}"), Bytes::mib(10), Bytes::mib(1)));
    }
    assert!(matches!(world.refusal(last.unwrap()).recovery, Recovery::Retry { after_ms: 1.. }));
    assert_eq!(world.governor.snapshot().waiting, 64);
}

#[test]
fn nobody_waits_for_a_cancelled_ticket() {
    let mut world = World::new();
    world.load("first", Bytes::gib(1), Bytes::mib(1));
    let ticket = world.load("second", Bytes::gib(1), Bytes::mib(1));
    world.send(Event::Cancel { ticket });
    world.run(10 * SECOND);
    assert!(!world.answers.contains_key(&ticket) && !world.holds("second"));
}

#[test]
fn the_gpu_is_a_bound_of_its_own() {
    let mut config = super::world::config();
    config.gpu_cap = Some(Bytes::gib(4));
    let mut world = World::with(config);
    let on_gpu = |world: &mut World, name: &str, gib: u64| {
        let mut request = world.request(name, Bytes::gib(gib), Bytes::mib(100));
        request.need.gpu = Bytes::gib(gib);
        world.ask(request)
    };
    let never = on_gpu(&mut world, "never", 5);
    assert_eq!(world.refusal(never).recovery, Recovery::Smaller { at_most: Bytes::gib(4) });
    on_gpu(&mut world, "a", 3);
    world.run(3 * SECOND);
    world.answer_once("a");
    world.run(62 * SECOND);
    let b = on_gpu(&mut world, "b", 2);
    world.run(3 * SECOND);
    assert!(world.is_admitted(b) && !world.holds("a"), "both fit into memory, not into the working set");
}

#[test]
fn interactive_goes_before_background_and_the_less_served_app_first() {
    let mut world = World::new();
    for name in ["greedy", "modest"] {
        world.start(name, Bytes::ZERO, Bytes::gib(8), Class::Interactive, false);
    }
    world.send(Event::Used { app: app("greedy"), model: digest("x"), device_ms: 60_000, kv_mb_s: 0, ttft_ms: 5 });
    world.load("first", Bytes::gib(1), Bytes::mib(1));
    let mut order = Vec::new();
    for (name, of, class) in [
        ("bg", "modest", Class::Background),
        ("fg-greedy", "greedy", Class::Interactive),
        ("fg-modest", "modest", Class::Interactive),
    ] {
        let mut request = world.request(name, Bytes::mib(100), Bytes::mib(1));
        (request.app, request.class) = (Some(app(of)), class);
        world.ask(request);
        order.push(name);
    }
    let seen = world.run(20 * SECOND);
    let admitted: Vec<_> = seen
        .iter()
        .filter_map(|action| match action {
            Action::Admit { ticket } => Some(world.loads[ticket].name.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(admitted, ["fg-modest", "fg-greedy", "bg"]);
    assert_eq!(world.level(), Level::Normal);
}

#[test]
fn a_load_that_is_never_reported_holds_up_no_other_one_and_keeps_its_bytes() {
    let mut world = World::new();
    world.load_ms = 60 * MINUTE;
    let request = world.request("lost", Bytes::gib(2), Bytes::mib(100));
    let limit = u64::from(request.reload_ms) * 10 + MINUTE;
    world.ask(request);
    let seen = world.run(limit - SECOND);
    assert!(!seen.iter().any(|action| matches!(action, Action::Tell { .. })), "{seen:?}");
    let seen = world.run(2 * SECOND);
    assert_eq!(seen.iter().filter(|action| matches!(action, Action::Tell { .. })).count(), 1, "{seen:?}");
    // The daemon works on something else than the load that is lost.
    world.loading = None;
    world.load_ms = SECOND;
    let other = world.load("other", Bytes::gib(2), Bytes::mib(100));
    assert!(world.is_admitted(other));
    let held = world.governor.ledger().held();
    assert!(held > Bytes::gib(4), "{held}: it may hold its bytes");
    world.run(2 * SECOND);
    let again = world.load("lost", Bytes::gib(2), Bytes::mib(100));
    assert!(!world.answers.contains_key(&again), "it may still end");
    world.send(Event::Loaded { model: digest("lost"), holds: vec![(Kind::WeightsMapped, Bytes::gib(2))], took_ms: 9 });
    assert!(world.is_joined(again), "late, and there");
}

#[test]
fn a_model_comes_back_at_once_where_memory_is_plenty_but_does_not_swing() {
    let mut world = World::new();
    world.load("chat", Bytes::gib(4), Bytes::gib(1));
    world.run(3 * SECOND);
    world.answer_once("chat");
    let squeeze = |world: &mut World| {
        world.leave(Bytes::mib(300));
        world.run(2 * SECOND);
        assert!(!world.holds("chat"));
        world.others = Bytes::gib(2);
        let calm = (0..40).find(|_| {
            world.run(SECOND);
            world.level() == Level::Normal
        });
        assert!(calm.is_some(), "the neighbour has left");
    };
    squeeze(&mut world);
    let back = world.load("chat", Bytes::gib(4), Bytes::gib(1));
    world.run(2 * SECOND);
    assert!(world.is_admitted(back), "nothing has to go for it: {:?}", world.answers.get(&back));
    world.answer_once("chat");
    let loaded_at = world.now;
    squeeze(&mut world);
    assert!(world.now < loaded_at + MINUTE, "the story is short enough");
    let again = world.load("chat", Bytes::gib(4), Bytes::gib(1));
    world.run(2 * SECOND);
    assert!(!world.answers.contains_key(&again), "the neighbour comes and goes");
    world.run(MINUTE);
    assert!(world.is_admitted(again));
}

#[test]
fn a_cool_down_is_kept_where_memory_is_not_plenty() {
    let mut world = World::new();
    world.load("chat", Bytes::gib(4), Bytes::gib(1));
    world.run(3 * SECOND);
    world.answer_once("chat");
    world.leave(Bytes::mib(300));
    world.run(2 * SECOND);
    assert!(!world.holds("chat"));
    // It would fit, and then memory would be short again.
    let config = world.governor.config();
    world.leave(Bytes::gib(5).saturating_add(config.elevated_below).saturating_add(Bytes::mib(100)));
    world.run(20 * SECOND);
    assert_eq!(world.level(), Level::Normal);
    let back = world.load("chat", Bytes::gib(4), Bytes::gib(1));
    world.run(2 * SECOND);
    assert!(!world.answers.contains_key(&back));
}

#[test]
fn who_asks_just_after_another_model_was_loaded_waits_its_cool_down_out_and_gets_its_turn() {
    let mut world = World::new();
    world.load("first", Bytes::gib(6), Bytes::mib(500));
    world.run(3 * SECOND);
    world.answer_once("first");
    let second = world.load("second", Bytes::gib(6), Bytes::mib(500));
    world.run(55 * SECOND);
    assert!(world.holds("first") && world.open.contains_key(&second), "it was just loaded");
    world.run(15 * SECOND);
    assert!(world.is_admitted(second), "{:?}", world.answers.get(&second));
}
