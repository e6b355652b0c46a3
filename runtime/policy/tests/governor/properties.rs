//! Generated histories: what must be true whatever happens. [`World`] checks the account, the guarantees, one load at a time,
//! no load beside an unload, one load per cool-down and one answer per ticket after every event.

use locara_policy::{
    Bytes, Kind,
    governor::{
        Activity, Answer, AppStart, Class, Event, KernelLevel, Level, LoadRequest, ModelUse, ModelView, Need, Sample,
        Stall, StepId, Thermal, TicketId, record,
    },
};
use proptest::{prelude::*, sample::select};

use super::world::{MINUTE, SECOND, World, app, config, digest};

/// Something that happens to a host whose daemon keeps its word, or loses one now and then.
#[derive(Debug, Clone)]
enum Op {
    Load { model: usize, weights: u64, kv: u64, class: Class, keep: bool, of: Option<usize> },
    Use { model: usize, interactive: u32, background: u32, idle_kv: u64, cache: u64 },
    Grow { model: usize, kv: u64 },
    Others { mib: u64 },
    Kernel(KernelLevel),
    Weather { stall: Option<u32>, thermal: Option<Thermal>, saver: bool, disk: Option<u64>, swap: u64 },
    Start { of: usize, floor: u64, ceiling: u64, visible: bool },
    Stop { of: usize },
    Guest { of: usize, mib: u64 },
    Sessions { of: usize, mib: u64 },
    Answer { of: usize, newest: bool, answer: Answer },
    Lost { model: usize },
    Deaf(bool),
    Slow { load: u64, step: u64 },
    Run { ms: u64 },
    Jump { back: bool, ms: u64 },
}

fn class() -> impl Strategy<Value = Class> {
    select(vec![Class::Interactive, Class::Background])
}
fn kernel() -> impl Strategy<Value = KernelLevel> {
    select(vec![KernelLevel::Normal, KernelLevel::Stalled, KernelLevel::Warning, KernelLevel::Critical])
}
fn thermal() -> impl Strategy<Value = Option<Thermal>> {
    select(vec![None, Some(Thermal::Nominal), Some(Thermal::Fair), Some(Thermal::Serious), Some(Thermal::Critical)])
}
fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        (0..2_000u64, any::<u32>()).prop_map(|(mib, eta_ms)| Answer::Pledge { release: Bytes::mib(mib), eta_ms }),
        (0..2_000u64).prop_map(|mib| Answer::Done(Bytes::mib(mib))),
        any::<u32>().prop_map(Answer::Defer),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..5usize, 50..9_000u64, 0..2_000u64, class(), any::<bool>(), prop::option::of(0..3usize))
            .prop_map(|(model, weights, kv, class, keep, of)| Op::Load { model, weights, kv, class, keep, of }),
        5 => (0..5usize, 0..3u32, 0..2u32, 0..800u64, 0..800u64)
            .prop_map(|(model, interactive, background, idle_kv, cache)| Op::Use { model, interactive, background, idle_kv, cache }),
        1 => (0..5usize, 0..3_000u64).prop_map(|(model, kv)| Op::Grow { model, kv }),
        4 => (0..16_384u64).prop_map(|mib| Op::Others { mib }),
        1 => kernel().prop_map(Op::Kernel),
        1 => (prop::option::of(0..9_000u32), thermal(), any::<bool>(), prop::option::of(0..20_000u64), 0..500u64)
            .prop_map(|(stall, thermal, saver, disk, swap)| Op::Weather { stall, thermal, saver, disk, swap }),
        2 => (0..3usize, 0..1_500u64, 0..4_000u64, any::<bool>())
            .prop_map(|(of, floor, ceiling, visible)| Op::Start { of, floor, ceiling, visible }),
        1 => (0..3usize).prop_map(|of| Op::Stop { of }),
        3 => (0..3usize, 0..3_000u64).prop_map(|(of, mib)| Op::Guest { of, mib }),
        2 => (0..3usize, 0..2_000u64).prop_map(|(of, mib)| Op::Sessions { of, mib }),
        2 => (0..3usize, any::<bool>(), answer()).prop_map(|(of, newest, answer)| Op::Answer { of, newest, answer }),
        1 => (0..5usize).prop_map(|model| Op::Lost { model }),
        1 => any::<bool>().prop_map(Op::Deaf),
        1 => (1..20_000u64, 1..8_000u64).prop_map(|(load, step)| Op::Slow { load, step }),
        8 => (1..30_000u64).prop_map(|ms| Op::Run { ms }),
        1 => (any::<bool>(), 0..10_000_000u64).prop_map(|(back, ms)| Op::Jump { back, ms }),
    ]
}

const MODELS: [&str; 5] = ["a", "b", "c", "d", "e"];
const APPS: [&str; 3] = ["x", "y", "z"];

fn apply(world: &mut World, op: &Op, jumps: bool) {
    match op.clone() {
        Op::Load { model, weights, kv, class, keep, of } => {
            let mut request = world.request(MODELS[model], Bytes::mib(weights), Bytes::mib(kv));
            (request.class, request.keep_loaded, request.app) = (class, keep, of.map(|of| app(APPS[of])));
            request.used_as = if model == 4 { ModelUse::Secondary } else { ModelUse::Chat };
            world.ask(request);
        }
        Op::Use { model, interactive, background, idle_kv, cache } => {
            world.active(MODELS[model], |activity| {
                *activity = Activity {
                    interactive,
                    background,
                    idle_kv: Bytes::mib(idle_kv),
                    background_kv: Bytes::mib(if background > 0 { idle_kv } else { 0 }),
                    prompt_cache: Bytes::mib(cache),
                    waiting: 0,
                };
            });
        }
        Op::Grow { model, kv } => {
            let ticket = world.ticket();
            world.send(Event::Grow { ticket, model: digest(MODELS[model]), kv: Bytes::mib(kv) });
        }
        Op::Others { mib } => world.others = Bytes::mib(mib),
        Op::Kernel(level) => {
            world.send(Event::Kernel { level });
        }
        Op::Weather { stall, thermal, saver, disk, swap } => {
            world.sample.stall = stall.map(|full| Stall { some: full, full: full / 2 });
            world.sample.thermal = thermal;
            world.sample.saver = saver;
            world.sample.disk_free = disk.map(Bytes::mib);
            world.sample.swapped_out = world.sample.swapped_out.saturating_add(Bytes::mib(swap));
        }
        Op::Start { of, floor, ceiling, visible } => {
            // One run at a time: the guarantee of the first run holds for all.
            if world.governor.snapshot().apps.iter().all(|view| view.app != APPS[of]) {
                let class = if visible { Class::Interactive } else { Class::Background };
                world.start(APPS[of], Bytes::mib(floor), Bytes::mib(ceiling), class, visible);
            }
        }
        Op::Stop { of } => world.stop(APPS[of]),
        Op::Guest { of, mib } => {
            let view = world.governor.snapshot().apps.into_iter().find(|view| view.app == APPS[of]);
            let refused = world.guest(APPS[of], Bytes::mib(mib));
            if let Some(view) = view {
                let kv = view.own.saturating_sub(
                    world.governor.ledger().of(&locara_policy::Owner::app(APPS[of]), Kind::GuestMemory),
                );
                let within = Bytes::mib(mib).saturating_add(kv) <= view.floor;
                assert!(!within || refused.is_ok(), "the floor of {} is kept: {refused:?}", view.floor);
            }
        }
        Op::Sessions { of, mib } => {
            world.sessions(APPS[of], Bytes::mib(mib));
        }
        Op::Answer { of, newest, answer } => {
            let view = world.governor.snapshot().apps.into_iter().find(|view| view.app == APPS[of]);
            let epoch = view.map_or(7, |view| if newest { view.epoch } else { view.epoch.wrapping_sub(1) });
            world.send(Event::Answer { app: app(APPS[of]), epoch, answer });
        }
        Op::Lost { model } => {
            if world.loading.as_ref() != Some(&digest(MODELS[model])) {
                world.send(Event::Lost { model: digest(MODELS[model]) });
            }
        }
        Op::Deaf(deaf) => world.deaf = deaf,
        Op::Slow { load, step } => (world.load_ms, world.step_ms) = (load, step),
        Op::Run { ms } => {
            world.run(ms);
        }
        Op::Jump { back, ms } if jumps => {
            world.now = if back { world.now.saturating_sub(ms) } else { world.now + ms };
            world.read();
        }
        Op::Jump { .. } => {}
    }
}

/// Everything ends, memory is plenty: whoever waits is answered, and nothing stays as it was only because it was tight.
fn calm_down(world: &mut World) {
    world.deaf = false;
    (world.load_ms, world.step_ms) = (SECOND, 100);
    world.others = Bytes::gib(1);
    world.sample = Sample { swap_total: Bytes::gib(2), swapped_out: world.sample.swapped_out, ..Sample::default() };
    for name in MODELS {
        world.active(name, |activity| *activity = Activity::default());
    }
    world.run(4 * MINUTE);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_account_holds_and_everybody_is_answered(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            let before = world.level();
            apply(&mut world, op, false);
            // Fast up, slow down.
            if !matches!(op, Op::Run { .. }) {
                prop_assert!(world.level() >= before, "{op:?} lowers the level");
            }
            let longest = world.governor.config().longest_wait_ms;
            for (ticket, since) in &world.open {
                prop_assert!(world.now - since <= longest + SECOND, "{ticket:?} waits since {since}, now {}", world.now);
            }
        }
        calm_down(&mut world);
        prop_assert!(world.open.is_empty(), "{:?} still wait", world.open);
        prop_assert_eq!(world.level(), Level::Normal);
        let snapshot = world.governor.snapshot();
        prop_assert!(snapshot.apps.iter().all(|view| !view.suspended));
        let as_it_should = |model: &ModelView| model.state == "resident" || model.idle_ms >= 180_000;
        prop_assert!(snapshot.models.iter().all(as_it_should), "{:?}", snapshot.models);
        prop_assert!(snapshot.decisions.len() <= 64);
    }

    #[test]
    fn clocks_that_jump_lose_nobody(ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new();
        for op in &ops {
            // The daemon's own timers live on the same clock; only what the governor promises is checked.
            if matches!(op, Op::Load { .. } | Op::Lost { .. }) && world.loading.is_some() {
                continue;
            }
            apply(&mut world, op, !matches!(op, Op::Jump { back: true, .. }));
        }
        calm_down(&mut world);
        prop_assert!(world.open.is_empty(), "{:?} still wait", world.open);
    }

    #[test]
    fn nonsense_does_no_harm_and_replays_byte_for_byte(events in prop::collection::vec((any::<u16>(), nonsense()), 1..80)) {
        let mut governor = locara_policy::Governor::new(config());
        let (mut now, mut log, mut said) = (0u64, String::new(), Vec::new());
        for (step, event) in events {
            // Forwards by up to a minute, now and then a long way back or ahead.
            now = match step % 100 {
                0 => now.saturating_sub(u64::from(step) * 1_000),
                1 => now.saturating_add(u64::from(step) * 100_000),
                _ => now + u64::from(step),
            };
            log.push_str(&record::line(now, &event));
            log.push('\n');
            said.push(governor.handle(now, event));
            let ledger = governor.ledger();
            prop_assert!(ledger.held() <= ledger.cap());
            let sum: u128 = ledger.entries().map(|(_, entry)| u128::from(entry.bytes.get())).sum();
            prop_assert_eq!(sum, u128::from(ledger.held().get()));
            let snapshot = governor.snapshot();
            prop_assert!(snapshot.waiting <= 64 && snapshot.decisions.len() <= 64);
            prop_assert!(snapshot.models.iter().filter(|model| model.state == "loading").count() <= 1);
        }
        let replayed = record::replay(config(), &log).unwrap();
        prop_assert_eq!(serde_json::to_string(&replayed).unwrap(), serde_json::to_string(&said).unwrap());
    }
}

#[test]
fn what_the_governor_remembers_is_bounded() {
    let mut governor = locara_policy::Governor::new(config());
    let mut size = |rounds: std::ops::Range<u64>| {
        for n in rounds {
            let (id, model) = (app(&format!("{n:08}")), digest(&format!("{n:08}")));
            let events = [
                Event::Used { app: id.clone(), model: model.clone(), device_ms: 9, kv_mb_s: 9, ttft_ms: 9 },
                Event::Load(LoadRequest {
                    ticket: TicketId(n),
                    model: model.clone(),
                    name: "model".to_owned(),
                    used_as: ModelUse::Chat,
                    need: Need { parts: vec![(Kind::Kv, Bytes::gib(99))], transient: Bytes::ZERO, gpu: Bytes::ZERO },
                    reload_ms: 9,
                    keep_loaded: false,
                    app: Some(id.clone()),
                    class: Class::Interactive,
                }),
                Event::Lost { model: model.clone() },
                Event::Guest { ticket: TicketId(n), app: id.clone(), bytes: Bytes::MAX },
                Event::Sessions { app: id.clone(), kv: Bytes::MAX },
                Event::Answer { app: id.clone(), epoch: 1, answer: Answer::Done(Bytes::MAX) },
                Event::Done { step: StepId(n), freed: Bytes::MAX, holds: None },
                Event::Killed { unix_s: n },
                Event::AppStop { app: id },
                Event::Sample(Sample { available: Bytes::gib(9), ..Sample::default() }),
            ];
            for event in events {
                governor.handle(n * SECOND, event);
            }
        }
        format!("{governor:?}").len()
    };
    let (early, late) = (size(0..2_000), size(2_000..6_000));
    assert!(late <= early + early / 50, "{early} characters after 2,000 rounds, {late} after 6,000");
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => (0..8_000u64).prop_map(Bytes::mib),
        1 => select(vec![Bytes::ZERO, Bytes(1), Bytes::MAX, Bytes(u64::MAX - 1), Bytes(u64::MAX / 2)]),
    ]
}
fn model() -> impl Strategy<Value = locara_policy::ledger::ModelDigest> {
    select(vec!["a", "b", "c", "unknown"]).prop_map(digest)
}
fn of() -> impl Strategy<Value = locara_policy::ledger::AppId> {
    select(vec!["x", "y", "unknown"]).prop_map(app)
}
fn ticket() -> impl Strategy<Value = TicketId> {
    (0..40u64).prop_map(TicketId)
}
fn parts() -> impl Strategy<Value = Vec<(Kind, Bytes)>> {
    prop::collection::vec((select(Kind::ALL.to_vec()), bytes()), 0..5)
}
fn step() -> impl Strategy<Value = StepId> {
    prop_oneof![(0..30u64).prop_map(StepId), any::<u64>().prop_map(StepId)]
}

prop_compose! {
    fn sample()(
        numbers in prop::collection::vec(bytes(), 8),
        kernel in prop::option::of(kernel()),
        stall in prop::option::of((any::<u32>(), any::<u32>())),
        thermal in thermal(),
        (on_battery, saver) in any::<(bool, bool)>(),
    ) -> Sample {
        Sample {
            available: numbers[0],
            swap_total: numbers[1],
            swap_used: numbers[2],
            swapped_out: numbers[3],
            own_file: numbers[4],
            own_anonymous: numbers[5],
            own_swapped: numbers[6],
            disk_free: Some(numbers[7]),
            kernel,
            stall: stall.map(|(some, full)| Stall { some, full }),
            thermal,
            on_battery,
            saver,
        }
    }
}

prop_compose! {
    fn request()(
        ticket in ticket(), model in model(), parts in parts(), transient in bytes(), gpu in bytes(),
        reload_ms in any::<u32>(), keep_loaded in any::<bool>(), app in prop::option::of(of()), class in class(),
        secondary in any::<bool>(),
    ) -> LoadRequest {
        let used_as = if secondary { ModelUse::Secondary } else { ModelUse::Chat };
        let name = model.0.clone();
        LoadRequest { ticket, model, name, used_as, need: Need { parts, transient, gpu }, reload_ms, keep_loaded, app, class }
    }
}

/// Events that no daemon would send.
fn nonsense() -> impl Strategy<Value = Event> {
    let activity = (any::<[u32; 3]>(), bytes(), bytes(), bytes()).prop_map(
        |([interactive, background, waiting], idle_kv, background_kv, prompt_cache)| Activity {
            interactive: interactive % 3,
            background: background % 3,
            waiting: waiting % 2,
            idle_kv,
            background_kv,
            prompt_cache,
        },
    );
    let answer = prop_oneof![
        (bytes(), any::<u32>()).prop_map(|(release, eta_ms)| Answer::Pledge { release, eta_ms }),
        bytes().prop_map(Answer::Done),
        any::<u32>().prop_map(Answer::Defer),
    ];
    prop_oneof![
        6 => sample().prop_map(Event::Sample),
        1 => kernel().prop_map(|level| Event::Kernel { level }),
        4 => request().prop_map(Event::Load),
        1 => ticket().prop_map(|ticket| Event::Cancel { ticket }),
        3 => (model(), parts(), any::<u32>()).prop_map(|(model, holds, took_ms)| Event::Loaded { model, holds, took_ms }),
        1 => model().prop_map(|model| Event::LoadFailed { model }),
        2 => (model(), activity).prop_map(|(model, activity)| Event::Active { model, activity }),
        1 => (ticket(), model(), bytes()).prop_map(|(ticket, model, kv)| Event::Grow { ticket, model, kv }),
        3 => (step(), bytes(), prop::option::of(parts())).prop_map(|(step, freed, holds)| Event::Done { step, freed, holds }),
        1 => step().prop_map(|step| Event::Kept { step }),
        1 => step().prop_map(|step| Event::Failed { step, reason: "no".to_owned() }),
        1 => model().prop_map(|model| Event::Lost { model }),
        2 => (ticket(), of(), bytes(), bytes(), class(), any::<bool>()).prop_map(
            |(ticket, app, floor, ceiling, class, visible)| {
                Event::AppStart(AppStart { ticket, app, floor, ceiling, class, visible })
            }
        ),
        1 => of().prop_map(|app| Event::AppStop { app }),
        1 => (of(), any::<bool>()).prop_map(|(app, visible)| Event::Visible { app, visible }),
        2 => (ticket(), of(), bytes()).prop_map(|(ticket, app, bytes)| Event::Guest { ticket, app, bytes }),
        1 => (of(), bytes()).prop_map(|(app, kv)| Event::Sessions { app, kv }),
        1 => (of(), bytes()).prop_map(|(app, reclaimable)| Event::Pools { app, reclaimable }),
        2 => (of(), 0..20u32, answer).prop_map(|(app, epoch, answer)| Event::Answer { app, epoch, answer }),
        1 => (of(), model(), any::<[u32; 3]>()).prop_map(|(app, model, [device_ms, kv_mb_s, ttft_ms])| {
            Event::Used { app, model, device_ms, kv_mb_s, ttft_ms }
        }),
        1 => any::<u64>().prop_map(|unix_s| Event::Killed { unix_s }),
    ]
}
