//! Every refusal names a way out, and whoever takes it gets through.

use locara_policy::{
    Bytes,
    governor::{Action, Class, Recovery, TicketId},
};
use proptest::{prelude::*, sample::select};

use super::world::{MINUTE, SECOND, World};

/// What others leave, what is resident and whether it is used, and what is asked for; in MiB.
#[derive(Debug, Clone)]
struct Scene {
    left: u64,
    residents: Vec<(u64, u64, bool)>,
    floor: u64,
    weights: u64,
    kv: u64,
}

fn scene() -> impl Strategy<Value = Scene> {
    let resident = (100..5_000u64, 10..1_500u64, any::<bool>());
    (200..16_000u64, prop::collection::vec(resident, 0..3), 0..2_000u64, 100..14_000u64, 0..3_000u64)
        .prop_map(|(left, residents, floor, weights, kv)| Scene { left, residents, floor, weights, kv })
}

fn set(scene: &Scene) -> World {
    let mut world = World::new();
    world.start("app", Bytes::mib(scene.floor), Bytes::gib(4), Class::Interactive, true);
    for (at, (weights, kv, _)) in scene.residents.iter().enumerate() {
        world.load(&format!("r{at}"), Bytes::mib(*weights), Bytes::mib(*kv));
        world.run(3 * SECOND);
        world.answer_once(&format!("r{at}"));
    }
    world.run(61 * SECOND);
    for (at, (_, _, busy)) in scene.residents.iter().enumerate() {
        world.active(&format!("r{at}"), |activity| activity.interactive = u32::from(*busy));
    }
    world.leave(Bytes::mib(scene.left));
    world.run(15 * SECOND);
    world
}

/// Asks, and waits until there is an answer.
fn asked(world: &mut World, name: &str, weights: Bytes, kv: Bytes) -> TicketId {
    let ticket = world.load(name, weights, kv);
    world.run(world.governor.config().longest_wait_ms + SECOND);
    assert!(world.answers.contains_key(&ticket), "answered within the longest wait");
    ticket
}

/// What runs ends.
fn end_everything(world: &mut World) {
    for name in world.models.keys().map(|model| model.0.clone()).collect::<Vec<_>>() {
        world.active(&name, |activity| activity.interactive = 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_way_out_of_a_refused_load_leads_out(scene in scene()) {
        let mut world = set(&scene);
        let (weights, kv) = (Bytes::mib(scene.weights), Bytes::mib(scene.kv));
        let ticket = asked(&mut world, "new", weights, kv);
        let Some(Action::Refuse { refusal, .. }) = world.answers.get(&ticket).cloned() else { return Ok(()) };
        match refusal.recovery {
            Recovery::Free { bytes } => {
                prop_assert!(!bytes.is_zero());
                prop_assert!(world.others >= bytes, "others hold {} and should give {bytes}: {refusal}", world.others);
                world.others = world.others.saturating_sub(bytes);
                end_everything(&mut world);
                // Until it is normal again.
                world.run(30 * SECOND);
                let again = asked(&mut world, "new", weights, kv);
                prop_assert!(world.is_admitted(again), "{refusal}; then {:?}", world.answers.get(&again));
            }
            Recovery::Smaller { at_most } => {
                prop_assert!(at_most < refusal.needs);
                world.others = Bytes::ZERO;
                end_everything(&mut world);
                world.run(30 * SECOND);
                let again = asked(&mut world, "new", at_most, Bytes::ZERO);
                prop_assert!(world.is_admitted(again), "{refusal}; then {:?}", world.answers.get(&again));
            }
            Recovery::Retry { after_ms } => {
                end_everything(&mut world);
                world.others = Bytes::ZERO;
                world.run(u64::from(after_ms) + 20 * SECOND);
                let again = asked(&mut world, "new", weights, kv);
                prop_assert!(world.is_admitted(again), "{refusal}; then {:?}", world.answers.get(&again));
            }
        }
    }

    #[test]
    fn the_way_out_of_a_refused_guest_leads_out(scene in scene(), bytes in 1..6_000u64, critical in select(vec![true, false])) {
        let mut world = set(&scene);
        if critical {
            world.leave(Bytes::mib(200));
            world.run(SECOND);
        }
        let bytes = Bytes::mib(bytes);
        // The app itself may not have fitted.
        let Err(refusal) = world.guest("app", bytes) else { return Ok(()) };
        if refusal.bound == "the app does not run" {
            return Ok(());
        }
        match refusal.recovery {
            Recovery::Free { bytes: missing } => {
                prop_assert!(!missing.is_zero());
                world.others = world.others.saturating_sub(missing);
                end_everything(&mut world);
                world.run(30 * SECOND);
                if let Err(second) = world.guest("app", bytes) {
                    // Idle models may have to go first.
                    prop_assert!(matches!(second.recovery, Recovery::Retry { .. }), "{refusal}; then {second}");
                    world.run(2 * MINUTE);
                    prop_assert_eq!(world.guest("app", bytes), Ok(()));
                }
            }
            Recovery::Smaller { at_most } => {
                world.others = Bytes::ZERO;
                end_everything(&mut world);
                world.run(4 * MINUTE);
                prop_assert_eq!(world.guest("app", at_most), Ok(()), "{}", refusal);
            }
            Recovery::Retry { after_ms } => {
                world.others = Bytes::ZERO;
                end_everything(&mut world);
                world.run(u64::from(after_ms) + 4 * MINUTE);
                prop_assert_eq!(world.guest("app", bytes), Ok(()), "{}", refusal);
            }
        }
    }
}
