//! What is learned from measurements: bounded, harmless where nothing is to be learned, and safe to read back.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod common;

use common::llama_1b;
use locara_policy::{
    Bytes, Device, Kind, Plan, PlanRequest,
    correction::{
        CorrectionKey, Corrections, Footprint, MAX_ENTRIES, MAX_FACTOR, MAX_TEXT, MIN_FACTOR, ONE, PredictionError,
        WINDOW,
    },
    plan,
};
use proptest::prelude::*;

fn key(n_ctx: u32) -> CorrectionKey {
    CorrectionKey { model: "ab12".to_owned(), n_ctx, engine: "llama.cpp 0.6.0-dev".to_owned() }
}

fn footprint(file_backed: u64, anonymous: u64) -> Footprint {
    Footprint { file_backed: Bytes(file_backed), anonymous: Bytes(anonymous) }
}

/// A plan of which nothing is certain, so that only the factor speaks.
fn uncertain(predicted: Footprint) -> Plan {
    let mut plan = plan(&llama_1b(), &PlanRequest::new(Device::Cpu)).unwrap();
    plan.items.clear();
    (plan.file_backed, plan.anonymous) = (predicted.file_backed, predicted.anonymous);
    plan
}

#[test]
fn experience_moves_the_prediction_towards_what_is_held() {
    let mut corrections = Corrections::default();
    let plan = uncertain(footprint(1000, 1000));
    let mut last = 1000;
    for _ in 0..20 {
        corrections.observe(&key(8192), footprint(1000, 1000), footprint(1000, 1200)).unwrap();
        let now = corrections.apply(&key(8192), &plan, Footprint::default());
        assert_eq!(now.file_backed, Bytes(1000));
        assert!(now.anonymous.get() >= last && now.anonymous.get() <= 1200, "{last} then {now:?}");
        last = now.anonymous.get();
    }
    assert!(last >= 1199, "{last}");
    // Another context, model or build is another story.
    assert_eq!(corrections.apply(&key(4096), &plan, Footprint::default()), footprint(1000, 1000));
}

#[test]
fn one_outlier_is_remembered_and_moves_little() {
    let mut corrections = Corrections::default();
    for _ in 0..10 {
        corrections.observe(&key(1), footprint(1000, 1000), footprint(1000, 1000)).unwrap();
    }
    corrections.observe(&key(1), footprint(1000, 1000), footprint(0, 1_000_000)).unwrap();
    let learned = corrections.get(&key(1)).unwrap();
    assert_eq!(learned.anonymous.last_error, 999 * i64::from(ONE));
    assert_eq!(learned.anonymous.factor, ONE + (MAX_FACTOR - ONE) / 4);
    assert_eq!(learned.file_backed.last_error, -i64::from(ONE));
    assert_eq!(learned.file_backed.factor, ONE - (ONE - MIN_FACTOR) / 4);
    assert_eq!(learned.anonymous.count, 11);
}

#[test]
fn what_is_known_to_be_allocated_is_never_corrected_away() {
    let plan = plan(&llama_1b(), &PlanRequest::new(Device::Cpu)).unwrap();
    let mut corrections = Corrections::default();
    for _ in 0..50 {
        corrections.observe(&key(8192), Footprint::planned(&plan), footprint(1, 1)).unwrap();
    }
    let certain = Footprint::certain(&plan);
    assert!(!certain.anonymous.is_zero() && certain.anonymous < plan.anonymous);
    assert_eq!(corrections.apply(&key(8192), &plan, Footprint::default()), certain);
    let more = Footprint { file_backed: Bytes::ZERO, anonymous: Bytes(plan.anonymous.get() + 5) };
    assert_eq!(corrections.apply(&key(8192), &plan, more).anonymous, more.anonymous);
}

#[test]
fn the_entry_that_was_not_used_for_longest_goes_first() {
    let mut corrections = Corrections::default();
    let count = u32::try_from(MAX_ENTRIES).unwrap();
    for n_ctx in 0..count {
        corrections.observe(&key(n_ctx), footprint(10, 10), footprint(10, 10)).unwrap();
    }
    corrections.observe(&key(0), footprint(10, 10), footprint(10, 10)).unwrap();
    corrections.observe(&key(count), footprint(10, 10), footprint(10, 10)).unwrap();
    assert_eq!(corrections.iter().count(), MAX_ENTRIES);
    assert!(corrections.get(&key(0)).is_some());
    assert!(corrections.get(&key(1)).is_none());
}

#[test]
fn a_changed_file_is_refused_and_says_why() {
    let mut corrections = Corrections::default();
    corrections.observe(&key(7), footprint(10, 10), footprint(10, 10)).unwrap();
    let good = serde_json::to_string(&corrections).unwrap();
    for (from, to, wanted) in [
        ("\"factor\":1000000", "\"factor\":NaN", "expected value"),
        ("\"factor\":1000000", "\"factor\":-1", "invalid value"),
        ("\"factor\":1000000", "\"factor\":1e400", "out of range"),
        ("\"factor\":1000000", "\"factor\":4000000000", "learned factors are 500000 to 2000000"),
        ("\"factor\":1000000", "\"factor\":0", "delete it to learn anew"),
        ("\"count\":1", "\"count\":99999999999", "invalid value"),
        ("\"n_ctx\":7", "\"n_ctx\":7.5", "invalid type"),
        ("\"model\":\"ab12\"", "\"model\":null", "invalid type"),
        ("\"last_error\":0", "\"last_error\":0,\"trust\":true", "unknown field"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from} is not in {good}");
        let error = serde_json::from_str::<Corrections>(&bad).unwrap_err().to_string();
        assert!(error.contains(wanted), "{to}: {error}");
    }
    let entry = good.trim_start_matches('[').trim_end_matches(']');
    let error = serde_json::from_str::<Corrections>(&format!("[{entry},{entry}]")).unwrap_err().to_string();
    assert!(error.contains("two corrections for model ab12 with 7 tokens"), "{error}");
    let error = corrections.observe(
        &CorrectionKey { engine: "x".repeat(MAX_TEXT + 1), ..key(1) },
        footprint(1, 1),
        footprint(1, 1),
    );
    assert!(error.unwrap_err().to_string().contains("1025 bytes"));
}

#[test]
fn the_metric_counts_the_last_observations_only() {
    let mut errors = PredictionError::default();
    assert_eq!(errors.overall(), None);
    for _ in 0..WINDOW {
        errors.record(Kind::Kv, Bytes(100), Bytes(300));
    }
    for measured in 1..=100 {
        errors.record(Kind::Compute, Bytes(1000), Bytes(1000 + measured));
        errors.record(Kind::Output, Bytes::ZERO, Bytes::ZERO);
    }
    let compute = errors.of_kind(Kind::Compute).unwrap();
    assert_eq!((compute.count, compute.median, compute.p95, compute.worst), (100, 50_000, 95_000, 100_000));
    assert_eq!(errors.of_kind(Kind::Output), None);
    for _ in 0..WINDOW {
        errors.record(Kind::Kv, Bytes(100), Bytes(90));
    }
    assert_eq!(errors.of_kind(Kind::Kv).unwrap().worst, -100_000);
    assert_eq!(errors.iter().map(|(kind, _)| kind).collect::<Vec<_>>(), [Kind::Kv, Kind::Compute]);
    errors.record(Kind::Tables, Bytes::ZERO, Bytes(1));
    assert_eq!(errors.overall().unwrap().worst, 1_000_000);
}

fn arbitrary_footprint() -> impl Strategy<Value = Footprint> {
    (any::<u64>(), any::<u64>()).prop_map(|(file, anonymous)| footprint(file, anonymous))
}

proptest! {
    #[test]
    fn a_prediction_that_was_always_met_is_never_changed(pairs in prop::collection::vec(arbitrary_footprint(), 1..30), next in arbitrary_footprint()) {
        let mut corrections = Corrections::default();
        for exact in pairs {
            corrections.observe(&key(1), exact, exact).unwrap();
        }
        prop_assert_eq!(corrections.apply(&key(1), &uncertain(next), Footprint::default()), next);
    }

    #[test]
    fn whatever_is_measured_the_correction_stays_within_its_bounds(seen in prop::collection::vec((arbitrary_footprint(), arbitrary_footprint()), 0..30), next in arbitrary_footprint()) {
        let mut corrections = Corrections::default();
        for (predicted, measured) in seen {
            corrections.observe(&key(1), predicted, measured).unwrap();
        }
        let corrected = corrections.apply(&key(1), &uncertain(next), Footprint::default());
        for (before, after) in [(next.file_backed, corrected.file_backed), (next.anonymous, corrected.anonymous)] {
            prop_assert!(after.get() >= before.get() / 2);
            prop_assert!(after.get() <= before.get().saturating_mul(2));
        }
    }

    #[test]
    fn observations_of_different_keys_do_not_disturb_each_other(keys in prop::collection::vec(0_u32..4, 0..40)) {
        // The same pair for each key, in any order: only how often counts.
        let pair = |n_ctx: u32| (footprint(1000, 1000), footprint(900 + u64::from(n_ctx), 1300 + u64::from(n_ctx)));
        let learn = |order: &[u32]| {
            let mut corrections = Corrections::default();
            for &n_ctx in order {
                let (predicted, measured) = pair(n_ctx);
                corrections.observe(&key(n_ctx), predicted, measured).unwrap();
            }
            (0..4).map(|n_ctx| corrections.get(&key(n_ctx)).cloned()).collect::<Vec<_>>()
        };
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        prop_assert_eq!(learn(&keys), learn(&sorted));
    }

    #[test]
    fn what_is_written_is_what_is_read(seen in prop::collection::vec((0_u32..300, arbitrary_footprint(), arbitrary_footprint()), 0..20)) {
        let mut corrections = Corrections::default();
        for (n_ctx, predicted, measured) in seen {
            corrections.observe(&key(n_ctx), predicted, measured).unwrap();
        }
        let text = serde_json::to_string(&corrections).unwrap();
        prop_assert_eq!(serde_json::from_str::<Corrections>(&text).unwrap(), corrections);
    }
}
