//! Every file of `manifests/examples` is a manifest, and means what it says.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::time::Duration;

use locara_manifest::{Class, KvType, Manifest};

fn example(stem: &str) -> Manifest {
    let (_, bytes) = common::files("examples", ".json").into_iter().find(|(name, _)| name == stem).unwrap();
    Manifest::parse(stem, bytes).unwrap_or_else(|diagnosis| panic!("{diagnosis}: {:#?}", diagnosis.problems()))
}

#[test]
fn all_parse_and_survive_being_written() {
    let files = common::files("examples", ".json");
    assert!(files.len() >= 5);
    for (stem, bytes) in files {
        let manifest = Manifest::parse(&stem, bytes)
            .unwrap_or_else(|diagnosis| panic!("{diagnosis}: {:#?}", diagnosis.problems()));
        assert_eq!(Manifest::parse(&stem, manifest.to_json()).unwrap(), manifest, "{stem}");
    }
}

#[test]
fn absent_keys_take_the_defaults() {
    let manifest = example("minimal");
    assert_eq!(manifest.class, Class::Interactive);
    assert!(manifest.capabilities.is_empty());
    assert_eq!(manifest.model("quickest").unwrap().context_tokens(), 1024);
    assert!(manifest.model("default").is_none());
    let limits = manifest.limits();
    assert_eq!(limits.memory_bytes, 64_000_000);
    assert_eq!(limits.cpu_slice, Duration::from_secs(1));
    assert_eq!(limits.wall, Duration::from_secs(600));
    assert_eq!(limits.output_bytes, 16_000_000);
    assert_eq!((limits.host_calls_per_second, limits.table_elements), (10_000, 20_000));
    assert_eq!((limits.sessions, limits.generations), (16, 4));
    assert_eq!(manifest.requires.floor_bytes(), 0);
}

#[test]
fn named_values_are_kept() {
    let manifest = example("code-review");
    assert_eq!(manifest.requires.memory_bytes(), 14_500_000_000);
    assert_eq!(manifest.requires.floor_bytes(), 9_000_000_000);
    let coding = manifest.model("coding").unwrap();
    assert_eq!(coding.kv.as_ref().unwrap().kind, KvType::F16);
    assert_eq!(coding.draft.as_ref().unwrap().as_str(), "quickest");
    assert_eq!(coding.max_tokens, Some(4096));
    assert!(coding.keep_loaded.as_ref().unwrap().reason.starts_with("Reviews"));
    let limits = example("mail-triage").limits();
    assert_eq!((limits.memory_bytes, limits.output_bytes), (512_000_000, 64_000_000));
    assert_eq!(limits.cpu_slice, Duration::from_secs(5));
    assert_eq!(limits.wall, Duration::from_secs(4 * 3600));
    assert_eq!((limits.sessions, limits.generations), (32, 8));
}

#[test]
fn the_default_of_linear_memory_gives_way_to_a_small_ceiling() {
    assert_eq!(example("offline-tool").limits().memory_bytes, 50_000_000);
}

#[test]
fn only_a_packed_manifest_has_a_digest_to_install_by() {
    assert!(example("summarize").require_digest().unwrap().as_str().starts_with("9f86d081"));
    let error = example("minimal").require_digest().unwrap_err();
    assert!(error.to_string().contains("org.example.haiku") && error.to_string().contains("locara pack"), "{error}");
}
