//! What is given back, in which order, and what is left alone.

use locara_policy::{
    Bytes, Kind,
    governor::{Action, Event, Gate, KernelLevel, Level, ModelUse},
};

use super::world::{MINUTE, SECOND, World, digest, given_back};

/// A chat model with a prompt cache, idle conversations and background work, and an idle embedder.
fn furnished() -> World {
    let mut world = World::new();
    let mut embedder = world.request("embedder", Bytes::mib(600), Bytes::mib(20));
    embedder.used_as = ModelUse::Secondary;
    embedder.reload_ms = 500;
    world.ask(embedder);
    world.run(3 * SECOND);
    world.answer_once("embedder");
    world.load("chat", Bytes::gib(3), Bytes::gib(1));
    world.run(3 * SECOND);
    world.answer_once("chat");
    world.active("chat", |activity| {
        activity.prompt_cache = Bytes::mib(400);
        activity.idle_kv = Bytes::mib(300);
    });
    world.run(62 * SECOND);
    world.use_all();
    world.run(6 * SECOND);
    world
}

/// Everything given back in half a minute when others leave so much.
fn everything(world: &mut World, available: Bytes) -> Vec<String> {
    let mut seen = world.leave_calmly(available);
    seen.extend(world.run(30 * SECOND));
    given_back(&seen)
}

#[test]
fn elevated_takes_the_prompt_cache_and_idle_conversations_and_nothing_else() {
    let mut world = furnished();
    let begins = world.governor.config().elevated_below;
    let clean = Bytes::mib(3 * 1024 + 600);
    let seen = everything(&mut world, clean.saturating_add(begins).saturating_sub(Bytes::mib(300)));
    assert_eq!(world.level(), Level::Elevated);
    assert_eq!(seen, ["prompt cache of chat", "KV of idle sessions of chat"]);
    assert!(world.holds("chat") && world.holds("embedder"));
}

#[test]
fn elevated_forgets_no_conversation_when_the_disk_is_full() {
    let mut world = furnished();
    world.sample.disk_free = Some(Bytes::mib(500));
    let begins = world.governor.config().elevated_below;
    let seen = everything(&mut world, Bytes::mib(3 * 1024 + 300).saturating_add(begins));
    assert_eq!(seen, ["prompt cache of chat"]);
}

#[test]
fn tight_takes_pages_of_idle_weights_the_idle_embedder_and_background_work() {
    let mut world = furnished();
    world.active("chat", |activity| {
        activity.background = 1;
        activity.background_kv = Bytes::mib(500);
    });
    let seen = everything(&mut world, Bytes::mib(600));
    assert_eq!(world.level(), Level::Tight);
    for expected in ["prompt cache of chat", "KV of idle sessions of chat", "KV of background requests of chat"] {
        assert!(seen.iter().any(|line| line == expected), "{expected} in {seen:?}");
    }
    assert!(!world.holds("embedder"), "{seen:?}");
    assert!(world.holds("chat"), "somebody is being answered");
    assert!(!seen.contains(&"pages of the weights of chat".to_owned()), "a busy model needs its pages: {seen:?}");
}

#[test]
fn pages_of_idle_weights_go_before_their_model() {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(3), Bytes::mib(200));
    let seen = world.leave_calmly(Bytes::gib(3));
    assert_eq!(world.level(), Level::Tight);
    assert_eq!(given_back(&seen), ["pages of the weights of chat"]);
    world.run(20 * SECOND);
    assert!(world.holds("chat"), "that was enough");
}

#[test]
fn keep_loaded_is_honoured_at_tight_and_overridden_at_critical() {
    let mut world = World::new();
    let mut request = world.request("kept", Bytes::gib(1), Bytes::gib(2));
    request.keep_loaded = true;
    world.ask(request);
    world.run(3 * SECOND);
    world.answer_once("kept");
    world.run(10 * MINUTE);
    assert!(world.holds("kept"), "not even the idle rule takes it");
    world.answer_once("kept");
    everything(&mut world, Bytes::mib(600));
    assert_eq!(world.level(), Level::Tight);
    assert!(world.holds("kept"));
    everything(&mut world, Bytes::mib(300));
    assert!(!world.holds("kept"));
}

#[test]
fn critical_takes_all_that_is_idle_and_lets_answers_finish() {
    let mut world = furnished();
    world.active("chat", |activity| activity.interactive = 1);
    let seen = given_back(&world.leave_calmly(Bytes::mib(300)));
    assert!(seen.contains(&"unload embedder".to_owned()), "{seen:?}");
    assert!(seen.contains(&"unload chat".to_owned()), "it goes when it has finished: {seen:?}");
    assert!(seen.contains(&"prompt cache of chat".to_owned()), "its rungs do not wait for the answer: {seen:?}");
    world.run(20 * SECOND);
    assert!(world.holds("chat") && !world.holds("embedder"));
    world.active("chat", |activity| activity.interactive = 0);
    world.run(SECOND);
    assert!(!world.holds("chat"));
    assert_eq!(world.governor.ledger().held(), Bytes::ZERO);
}

#[test]
fn nothing_is_written_to_disk_at_critical() {
    let mut world = furnished();
    world.active("chat", |activity| activity.interactive = 1);
    world.leave(Bytes::mib(300));
    let seen = world.read();
    let mut reclaims = seen.iter().filter_map(|action| match action {
        Action::Reclaim { spill, .. } => Some(*spill),
        _ => None,
    });
    assert_eq!(reclaims.next(), Some(false));
    assert!(reclaims.all(|spill| !spill));
}

#[test]
fn after_critical_nothing_is_loaded_by_itself() {
    let mut world = furnished();
    everything(&mut world, Bytes::mib(300));
    assert!(world.models.is_empty());
    world.leave(Bytes::gib(12));
    let seen = world.run(5 * MINUTE);
    assert_eq!(world.level(), Level::Normal);
    assert!(seen.iter().all(|action| !matches!(action, Action::Admit { .. } | Action::Unload { .. })));
    let ticket = world.load("chat", Bytes::gib(3), Bytes::mib(200));
    assert!(world.is_admitted(ticket), "the next request loads it");
}

#[test]
fn one_round_at_a_time_and_no_second_one_before_a_fresh_reading() {
    let mut world = furnished();
    world.step_ms = 5 * SECOND;
    world.leave(Bytes::gib(4));
    let first = given_back(&world.read());
    assert!(!first.is_empty());
    let meanwhile = given_back(&world.run(4 * SECOND));
    assert_eq!(meanwhile, Vec::<String>::new(), "the first round is under way");
}

#[test]
fn a_slow_round_does_not_hold_up_a_level_that_became_worse() {
    let mut world = furnished();
    world.deaf = true;
    world.leave(Bytes::gib(4));
    assert!(!given_back(&world.read()).is_empty());
    world.leave(Bytes::mib(300));
    let seen = given_back(&world.read_after(SECOND));
    assert!(seen.iter().any(|line| line.starts_with("unload")), "{seen:?}");
}

#[test]
fn an_alarm_without_figures_is_answered_once_and_not_every_second() {
    let mut world = furnished();
    let mut seen = world.send(Event::Kernel { level: KernelLevel::Warning });
    seen.extend(world.run(9 * SECOND));
    let first = given_back(&seen);
    assert!(!first.is_empty() && first.iter().all(|line| !line.starts_with("unload")), "{first:?}");
    assert!(world.holds("chat") && world.holds("embedder"), "plenty is available: one warning costs no model");
}

#[test]
fn critical_without_any_reading_still_gives_back() {
    let mut world = furnished();
    let config = world.governor.config().clone();
    let mut blind = locara_policy::Governor::new(config);
    let request = world.request("chat", Bytes::gib(1), Bytes::mib(500));
    let holds = request.need.parts.clone();
    blind.handle(0, Event::Load(request));
    blind.handle(9, Event::Loaded { model: digest("chat"), holds, took_ms: 9 });
    let seen: Vec<_> =
        (0..20u64).flat_map(|at| blind.handle(10_000 + at, Event::Kernel { level: KernelLevel::Critical })).collect();
    assert_eq!(given_back(&seen), ["unload chat"]);
}

#[test]
fn a_failed_step_rests_and_the_next_one_is_tried() {
    let mut world = furnished();
    world.deaf = true;
    world.leave(Bytes::mib(4_500));
    let mut tried = Vec::new();
    let mut open = world.read();
    for _ in 0..20 {
        // What a failure leads to at once counts too.
        while let Some(action) = open.pop() {
            let (Action::Reclaim { step, .. } | Action::Unload { step, .. }) = action else { continue };
            tried.extend(given_back(std::slice::from_ref(&action)));
            assert!(tried.len() < 20, "tried again and again: {tried:?}");
            open.extend(world.send(Event::Failed { step, reason: "no".to_owned() }));
        }
        open = world.read_after(SECOND);
    }
    let mut once = tried.clone();
    once.sort();
    once.dedup();
    assert_eq!(tried.len(), once.len(), "nothing is tried twice within its rest: {tried:?}");
    assert!(tried.len() > 1, "{tried:?}");
}

#[test]
fn a_lost_step_does_not_stop_the_ladder() {
    let mut world = furnished();
    world.deaf = true;
    world.leave(Bytes::mib(4_500));
    let first = given_back(&world.read());
    assert!(!first.is_empty());
    let seen = given_back(&world.run(40 * SECOND));
    assert!(!seen.is_empty(), "after 30 s the next ones are tried");
    assert!(seen.iter().all(|line| !first.contains(line)), "{first:?} then {seen:?}");
}

#[test]
fn an_unused_model_goes_after_three_minutes() {
    let mut world = World::new();
    world.load("chat", Bytes::gib(3), Bytes::mib(200));
    world.run(3 * SECOND);
    world.answer_once("chat");
    world.run(179 * SECOND);
    assert!(world.holds("chat"));
    world.run(2 * SECOND);
    assert!(!world.holds("chat"));
}

#[test]
fn a_model_that_somebody_waits_for_is_not_idle() {
    let mut world = World::new();
    world.load("chat", Bytes::gib(3), Bytes::mib(200));
    world.run(3 * SECOND);
    world.active("chat", |activity| activity.waiting = 1);
    world.run(10 * MINUTE);
    assert!(world.holds("chat"));
}

#[test]
fn excess_is_entered_when_there_is_room_again() {
    let mut world = World::new();
    world.others = Bytes::ZERO;
    world.read_after(20 * SECOND);
    world.settled("a", Bytes::gib(6), Bytes::gib(1));
    world.load("b", Bytes::gib(4), Bytes::mib(800));
    world.run(3 * SECOND);
    world.active("b", |activity| activity.prompt_cache = Bytes::gib(1));
    world.deaf = true;
    let seen = world.leave_calmly(Bytes::mib(11_470));
    let step = seen
        .iter()
        .find_map(|action| match action {
            Action::Reclaim { step, model, .. } if *model == digest("b") => Some(*step),
            _ => None,
        })
        .unwrap();
    // It freed nothing and holds more than before: more than the cap has left.
    let holds = vec![
        (locara_policy::Kind::WeightsMapped, Bytes::gib(4)),
        (locara_policy::Kind::Kv, Bytes::gib(2)),
        (locara_policy::Kind::PrefixCache, Bytes::gib(1)),
    ];
    world.send(Event::Done { step, freed: Bytes::ZERO, holds: Some(holds) });
    world.leave(Bytes::gib(12));
    world.run(2 * SECOND);
    assert!(world.level() >= Level::Tight, "{}", world.governor.snapshot().cause);
    world.send(Event::Lost { model: digest("a") });
    world.run(30 * SECOND);
    assert_eq!(world.level(), Level::Normal, "{}", world.governor.snapshot().cause);
    assert_eq!(world.governor.ledger().held(), Bytes::gib(7));
}

#[test]
fn the_gate_follows_the_level() {
    let mut world = furnished();
    world.active("chat", |activity| activity.interactive = 1);
    let gate = |seen: &[Action]| {
        seen.iter().rev().find_map(|action| match action {
            Action::Throttle { throttle, .. } => Some((throttle.gate, throttle.max_tokens, throttle.n_batch)),
            _ => None,
        })
    };
    world.leave(Bytes::mib(600));
    assert_eq!(gate(&world.read()), Some((Gate::Interactive, Some(512), Some(128))));
    world.leave(Bytes::gib(12));
    let seen = world.run(30 * SECOND);
    assert_eq!(gate(&seen), Some((Gate::All, None, None)), "as it was loaded");
}

#[test]
fn asking_again_and_again_without_use_keeps_no_model() {
    let mut world = World::new();
    world.settled("chat", Bytes::gib(3), Bytes::gib(1));
    world.leave_calmly(Bytes::mib(600));
    for _ in 0..20 {
        world.load("chat", Bytes::gib(3), Bytes::gib(1));
        world.run(SECOND);
    }
    assert!(!world.holds("chat"), "a claim is for whoever begins");
}

#[test]
fn an_unload_expects_what_is_in_memory_and_not_what_is_promised() {
    let mut world = World::new();
    let mut request = world.request("chat", Bytes::gib(2), Bytes::mib(100));
    request.need.parts.retain(|(kind, _)| *kind != Kind::PrefixCache);
    request.need.parts.push((Kind::PrefixCache, Bytes::mib(230)));
    world.ask(request);
    world.run(3 * SECOND);
    let fake = world.models.get_mut(&digest("chat")).unwrap();
    fake.pages = Bytes::mib(700);
    fake.activity.prompt_cache = Bytes::mib(30);
    let activity = fake.activity;
    world.send(Event::Active { model: digest("chat"), activity });
    let seen = world.run(4 * MINUTE);
    let expected = seen.iter().find_map(|action| match action {
        Action::Unload { expected, .. } => Some(*expected),
        _ => None,
    });
    assert_eq!(expected, Some(Bytes::mib(100 + 700 + 30)), "KV, resident pages, and the filled part of the cache");
}
