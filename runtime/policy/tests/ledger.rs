//! The ledger: what must never happen, and what its refusals say.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

use std::collections::BTreeMap;

use locara_policy::{
    Bytes, Kind, Ledger, LedgerError, Owner, ReservationId,
    ledger::{AppId, Difference, Measured, ModelDigest},
};
use proptest::{prelude::*, sample::select};

fn digest(name: &str) -> ModelDigest {
    ModelDigest(name.to_owned())
}
fn app(name: &str) -> AppId {
    AppId(name.to_owned())
}

#[test]
fn a_reservation_counts_until_it_is_released() {
    let mut ledger = Ledger::new(Bytes::gb(8));
    let id = ledger.reserve(Owner::model("a"), Kind::Kv, Bytes::gb(3)).unwrap();
    assert_eq!((ledger.held(), ledger.available()), (Bytes::gb(3), Bytes::gb(5)));

    ledger.commit(id, Bytes::gb(2)).unwrap();
    assert_eq!(ledger.held(), Bytes::gb(2), "what was not needed is given back");
    assert!(ledger.entry(id).unwrap().committed);

    let entry = ledger.release(id).unwrap();
    assert_eq!((entry.kind, entry.bytes), (Kind::Kv, Bytes::gb(2)));
    assert_eq!((ledger.held(), ledger.entries().count()), (Bytes::ZERO, 0));
}

#[test]
fn a_refusal_has_the_numbers_and_changes_nothing() {
    let mut ledger = Ledger::new(Bytes::mb(8_000));
    ledger.reserve(Owner::model("0123456789abcdef"), Kind::WeightsMapped, Bytes::mb(4_600)).unwrap();
    ledger.reserve(Owner::app("notes"), Kind::GuestMemory, Bytes::mb(64)).unwrap();
    let before = ledger.clone();

    let error = ledger.reserve(Owner::session("mail", 7), Kind::Kv, Bytes::mb(5_100)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "session 7 of app mail needs 5.1 GB for KV, 3.3 GB of 8.0 GB are not promised, short by 1.8 GB; \
         biggest holder: model 0123456789ab with 4.6 GB"
    );
    assert_eq!(ledger, before);
}

#[test]
fn a_group_is_reserved_whole_or_not_at_all() {
    let mut ledger = Ledger::new(Bytes(100));
    let owner = Owner::model("a");
    let parts = [(Kind::WeightsMapped, Bytes(60)), (Kind::Kv, Bytes(41))];
    let error = ledger.reserve_all(&owner, &parts).unwrap_err();
    assert!(matches!(error, LedgerError::OverCap { wanted: Bytes(101), available: Bytes(100), .. }), "{error}");
    assert_eq!(ledger.held(), Bytes::ZERO);

    let overflowing = [(Kind::Kv, Bytes::MAX), (Kind::Kv, Bytes(2))];
    assert!(ledger.reserve_all(&owner, &overflowing).is_err());

    let ids = ledger.reserve_all(&owner, &[(Kind::WeightsMapped, Bytes(60)), (Kind::Kv, Bytes(40))]).unwrap();
    assert_eq!((ids.len(), ledger.available()), (2, Bytes::ZERO));
}

#[test]
fn nothing_is_committed_or_released_twice() {
    let mut ledger = Ledger::new(Bytes(10));
    let id = ledger.reserve(Owner::Host, Kind::Tables, Bytes(4)).unwrap();
    ledger.commit(id, Bytes(4)).unwrap();
    assert!(matches!(ledger.commit(id, Bytes(4)), Err(LedgerError::AlreadyCommitted { .. })));
    ledger.release(id).unwrap();
    assert_eq!(ledger.release(id), Err(LedgerError::Unknown(id)));
    assert_eq!(ledger.commit(id, Bytes(1)), Err(LedgerError::Unknown(id)));
    assert_eq!(ledger.resize(id, Bytes(1)), Err(LedgerError::Unknown(id)));
    let next = ledger.reserve(Owner::Host, Kind::Tables, Bytes(4)).unwrap();
    assert_ne!(next, id, "ids are never used again");
}

#[test]
fn more_than_promised_is_committed_only_if_it_fits() {
    let mut ledger = Ledger::new(Bytes(10));
    let id = ledger.reserve(Owner::model("a"), Kind::Compute, Bytes(6)).unwrap();
    let error = ledger.commit(id, Bytes(11)).unwrap_err();
    assert!(matches!(error, LedgerError::OverCap { wanted: Bytes(5), available: Bytes(4), .. }), "{error}");
    assert!(!ledger.entry(id).unwrap().committed);
    ledger.commit(id, Bytes(10)).unwrap();
    assert_eq!(ledger.available(), Bytes::ZERO);
}

#[test]
fn a_lowered_cap_stops_growth_and_nothing_else() {
    let mut ledger = Ledger::new(Bytes(10));
    let id = ledger.reserve(Owner::app("a"), Kind::GuestMemory, Bytes(8)).unwrap();
    ledger.set_cap(Bytes(5));
    assert_eq!((ledger.held(), ledger.available()), (Bytes(8), Bytes::ZERO));
    assert!(ledger.resize(id, Bytes(9)).is_err());
    ledger.resize(id, Bytes(3)).unwrap();
    assert_eq!(ledger.available(), Bytes(2));
}

#[test]
fn an_owner_that_is_gone_gives_everything_back() {
    let mut ledger = Ledger::new(Bytes(100));
    for bytes in [10, 20] {
        ledger.reserve(Owner::app("a"), Kind::GuestMemory, Bytes(bytes)).unwrap();
    }
    ledger.reserve(Owner::app("b"), Kind::GuestMemory, Bytes(5)).unwrap();
    assert_eq!(ledger.release_owner(&Owner::app("a")), Bytes(30));
    assert_eq!(ledger.release_owner(&Owner::app("a")), Bytes::ZERO);
    assert_eq!(ledger.held(), Bytes(5));
}

#[test]
fn a_shared_model_is_charged_in_equal_parts_that_add_up() {
    let mut ledger = Ledger::new(Bytes::gb(8));
    ledger.reserve(Owner::Model(digest("m")), Kind::WeightsMapped, Bytes(1_000)).unwrap();
    ledger.reserve(Owner::app("a"), Kind::GuestMemory, Bytes(7)).unwrap();
    ledger.reserve(Owner::session("a", 1), Kind::Kv, Bytes(30)).unwrap();

    assert_eq!(ledger.charge(&app("a")), Bytes(37), "a model that it does not use costs nothing");
    for name in ["a", "b", "c", "c"] {
        ledger.attach(&digest("m"), &app(name));
    }
    assert_eq!(ledger.users(&digest("m")), 3);
    let charges = ["a", "b", "c"].map(|name| ledger.charge(&app(name)));
    assert_eq!(charges, [Bytes(37 + 334), Bytes(333), Bytes(333)]);

    ledger.detach(&digest("m"), &app("b"));
    ledger.detach(&digest("m"), &app("c"));
    ledger.detach(&digest("m"), &app("never attached"));
    assert_eq!(ledger.charge(&app("a")), Bytes(1_037), "the last user bears all of it");
    ledger.detach(&digest("m"), &app("a"));
    assert_eq!((ledger.users(&digest("m")), ledger.charge(&app("a"))), (0, Bytes(37)));
}

#[test]
fn reconciling_compares_what_was_committed_with_what_was_measured() {
    let mut ledger = Ledger::new(Bytes(1_000));
    let weights = ledger.reserve(Owner::model("m"), Kind::WeightsMapped, Bytes(500)).unwrap();
    let kv = ledger.reserve(Owner::model("m"), Kind::Kv, Bytes(200)).unwrap();
    ledger.reserve(Owner::app("a"), Kind::GuestMemory, Bytes(64)).unwrap();
    ledger.commit(weights, Bytes(500)).unwrap();
    ledger.commit(kv, Bytes(200)).unwrap();

    let difference = ledger.reconcile(Measured { file_backed: Bytes(480), anonymous: Bytes(230) });
    assert_eq!(difference, Difference { file_backed: -20, anonymous: 30 });
    let absurd = ledger.reconcile(Measured { file_backed: Bytes::MAX, anonymous: Bytes::ZERO });
    assert_eq!(absurd, Difference { file_backed: i64::MAX, anonymous: -200 });
}

#[test]
fn the_account_can_be_written_down() {
    let mut ledger = Ledger::new(Bytes(1_000));
    ledger.reserve(Owner::session("a", 3), Kind::Kv, Bytes(5)).unwrap();
    ledger.attach(&digest("m"), &app("a"));
    let json = serde_json::to_value(&ledger).unwrap();
    assert_eq!(json["entries"]["1"]["owner"]["session"]["app"], "a");
    assert_eq!(json["held"], 5);
}

/// A call, with small numbers so that sequences collide with each other and with the cap.
#[derive(Debug, Clone)]
enum Call {
    Reserve(Owner, Kind, u64),
    ReserveAll(Owner, Vec<(Kind, u64)>),
    Commit(usize, u64),
    Resize(usize, u64),
    Release(usize),
    ReleaseOwner(Owner),
    SetCap(u64),
    Attach(u8),
    Detach(u8),
}

fn owners() -> impl Strategy<Value = Owner> {
    select(vec![
        Owner::Host,
        Owner::model("m"),
        Owner::app("0"),
        Owner::app("1"),
        Owner::session("0", 1),
        Owner::session("0", 2),
    ])
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let kind = || select(Kind::ALL.to_vec());
    let bytes = || prop_oneof![8 => 0u64..60, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2 + 1)];
    let call = prop_oneof![
        4 => (owners(), kind(), bytes()).prop_map(|(owner, kind, bytes)| Call::Reserve(owner, kind, bytes)),
        1 => (owners(), prop::collection::vec((kind(), bytes()), 0..4)).prop_map(|(owner, parts)| Call::ReserveAll(owner, parts)),
        3 => (0usize..12, bytes()).prop_map(|(at, bytes)| Call::Commit(at, bytes)),
        2 => (0usize..12, bytes()).prop_map(|(at, bytes)| Call::Resize(at, bytes)),
        3 => (0usize..12).prop_map(Call::Release),
        1 => owners().prop_map(Call::ReleaseOwner),
        1 => (0u64..200).prop_map(Call::SetCap),
        1 => (0u8..3).prop_map(Call::Attach),
        1 => (0u8..3).prop_map(Call::Detach),
    ];
    prop::collection::vec(call, 1..80)
}

proptest! {
    /// A plain model of the account, a map from id to bytes, is kept beside the ledger; they must agree after every call.
    #[test]
    fn any_sequence_of_calls_keeps_the_account_true(calls in calls()) {
        let mut ledger = Ledger::new(Bytes(150));
        let mut given: Vec<ReservationId> = Vec::new();
        let mut alive: BTreeMap<ReservationId, u64> = BTreeMap::new();
        for call in calls {
            let before = ledger.clone();
            let pick = |at: usize| given.get(at).copied();
            let failed = match call {
                Call::Reserve(owner, kind, bytes) => match ledger.reserve(owner, kind, Bytes(bytes)) {
                    Ok(id) => { given.push(id); prop_assert!(alive.insert(id, bytes).is_none()); false }
                    Err(_) => true,
                },
                Call::ReserveAll(owner, parts) => {
                    let parts: Vec<_> = parts.into_iter().map(|(kind, bytes)| (kind, Bytes(bytes))).collect();
                    match ledger.reserve_all(&owner, &parts) {
                        Ok(ids) => {
                            prop_assert_eq!(ids.len(), parts.len());
                            for (id, (_, bytes)) in ids.into_iter().zip(parts) { given.push(id); alive.insert(id, bytes.get()); }
                            false
                        }
                        Err(_) => true,
                    }
                }
                Call::Commit(at, bytes) => pick(at).is_some_and(|id| match ledger.commit(id, Bytes(bytes)) {
                    Ok(()) => { alive.insert(id, bytes); false }
                    Err(_) => true,
                }),
                Call::Resize(at, bytes) => pick(at).is_some_and(|id| match ledger.resize(id, Bytes(bytes)) {
                    Ok(()) => { alive.insert(id, bytes); false }
                    Err(_) => true,
                }),
                Call::Release(at) => match pick(at) {
                    Some(id) => {
                        let released = ledger.release(id);
                        prop_assert_eq!(released.as_ref().ok().map(|entry| entry.bytes.get()), alive.remove(&id));
                        released.is_err()
                    }
                    None => false,
                },
                Call::ReleaseOwner(owner) => {
                    let freed = ledger.release_owner(&owner);
                    alive.retain(|id, _| ledger.entry(*id).is_some());
                    prop_assert_eq!(before.of_owner(&owner), freed);
                    false
                }
                Call::SetCap(cap) => { ledger.set_cap(Bytes(cap)); false }
                Call::Attach(user) => { ledger.attach(&digest("m"), &app(&user.to_string())); false }
                Call::Detach(user) => { ledger.detach(&digest("m"), &app(&user.to_string())); false }
            };
            if failed {
                prop_assert_eq!(&ledger, &before, "a refusal changed the account");
            }

            let sum: u64 = alive.values().sum();
            prop_assert_eq!(ledger.held().get(), sum);
            prop_assert_eq!(ledger.totals().values().map(|bytes| bytes.get()).sum::<u64>(), sum);
            prop_assert_eq!(Kind::ALL.map(|kind| ledger.of_kind(kind).get()).iter().sum::<u64>(), sum);
            // Growth stops at the cap; only lowering the cap itself may leave more promised than allowed.
            prop_assert!(ledger.held() <= ledger.cap() || ledger.held() <= before.held());
            if ledger.users(&digest("m")) > 0 {
                let charged: u64 = ["0", "1", "2"].map(|user| ledger.charge(&app(user)).get()).iter().sum();
                prop_assert_eq!(charged, sum - ledger.of_owner(&Owner::Host).get());
            }
        }
        for id in given {
            prop_assert_eq!(ledger.release(id).is_ok(), alive.remove(&id).is_some());
            prop_assert!(ledger.release(id).is_err());
        }
        prop_assert_eq!((ledger.held(), ledger.entries().count()), (Bytes::ZERO, 0));
    }
}
