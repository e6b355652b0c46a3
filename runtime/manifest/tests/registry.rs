//! What words mean in a registry, and that a registry survives being written.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use locara_manifest::{Digest, ModelName, ModelPart, RegisteredModel, Registry, Unresolved};

fn digest(start: &str) -> Digest {
    format!("{start:0<64}").parse().unwrap()
}

fn model(name: &str, digest: &Digest) -> RegisteredModel {
    RegisteredModel {
        name: name.parse().unwrap(),
        files: vec![ModelPart { sha256: digest.clone(), bytes: 7, path: None }],
        source: None,
        disabled: false,
        settings: Default::default(),
    }
}

/// `qwen` and `llama`, whose digests begin alike, and a few words.
fn registry() -> Registry {
    let mut registry = Registry::default();
    for (name, start) in [("qwen", "abcdef01a"), ("llama", "abcdef01b"), ("off", "0ff")] {
        let digest = digest(start);
        registry.models.insert(digest.clone(), model(name, &digest));
    }
    registry.models.get_mut(&digest("0ff")).unwrap().disabled = true;
    for (role, target) in [("default", "qwen"), ("coding", "default"), ("quickest", "off")] {
        registry.roles.insert(role.parse().unwrap(), target.parse().unwrap());
    }
    for (alias, target) in [("gpt-4o", "coding"), ("best", "gpt-4o"), ("rank", "rerank")] {
        registry.aliases.insert(alias.parse().unwrap(), target.parse().unwrap());
    }
    Registry::parse("made", registry.to_json()).unwrap()
}

#[test]
fn every_example_survives_being_written() {
    for (stem, bytes) in common::files("registry/examples", ".json") {
        let registry = Registry::parse(&stem, &bytes).unwrap();
        assert_eq!(Registry::parse("again", registry.to_json()).unwrap(), registry, "{stem}");
    }
}

#[test]
fn roles_aliases_names_and_digests_lead_to_the_physical_model() {
    let registry = registry();
    let whole = digest("abcdef01a").to_string();
    for word in ["qwen", "default", "coding", "gpt-4o", "best", "abcdef01a", &whole, &format!("sha256:{whole}")] {
        assert_eq!(registry.resolve(word).unwrap().model.name.as_str(), "qwen", "{word}");
    }
}

#[test]
fn what_leads_nowhere_says_why() {
    let registry = registry();
    let unknown = registry.resolve("quen").unwrap_err();
    assert_eq!(unknown.to_string(), "there is no model, alias or role `quen`; did you mean `qwen`?");
    let far = registry.resolve("mistral-large").unwrap_err().to_string();
    assert!(far.contains("there are: ") && far.contains("llama") && !far.contains("off"), "{far}");
    assert!(matches!(registry.resolve("off"), Err(Unresolved::Disabled { .. })));
    assert!(matches!(registry.resolve("quickest"), Err(Unresolved::Disabled { .. })));
    for word in ["rank", "rerank", "embedding"] {
        assert!(matches!(registry.resolve(word), Err(Unresolved::Unassigned { .. })), "{word}");
    }
    let Err(Unresolved::Ambiguous { matches, .. }) = registry.resolve("abcdef01") else { panic!("two begin so") };
    assert_eq!(matches.len(), 2);
    assert!(matches!(registry.resolve("abcdef0"), Err(Unresolved::Unknown { .. })), "too few digits name nothing");
    assert!(matches!(Registry::default().resolve("\u{1b}[2J"), Err(Unresolved::Unknown { .. })));
    assert!(!Registry::default().resolve("\u{1b}[2J").unwrap_err().to_string().contains('\u{1b}'));
}

#[test]
fn a_circle_in_an_edited_registry_is_an_error_and_no_loop() {
    let mut registry = registry();
    registry.roles.insert("default".parse().unwrap(), "best".parse().unwrap());
    let Err(Unresolved::Circle { through, .. }) = registry.resolve("coding") else { panic!("no circle") };
    assert_eq!(through, ["coding", "default", "best", "gpt-4o", "coding"]);
    assert!(Registry::parse("edited", registry.to_json()).is_err(), "and it cannot be written");
}

#[test]
fn removing_a_model_takes_the_words_that_lead_to_it() {
    let mut registry = registry();
    let qwen = digest("abcdef01a");
    assert_eq!(registry.names_of(&qwen), ["coding", "default", "best", "gpt-4o"]);
    assert_eq!(registry.remove(&qwen).unwrap().name.as_str(), "qwen");
    assert_eq!((registry.roles.len(), registry.aliases.len()), (1, 1));
    Registry::parse("rest", registry.to_json()).unwrap();
}

#[test]
fn a_name_that_is_taken_gets_the_digest_behind_it() {
    let registry = registry();
    let new = digest("123456");
    for taken in ["qwen", "coding", "rerank", "best"] {
        let name = registry.free_name(&taken.parse().unwrap(), &new);
        assert_eq!(name.as_str(), format!("{taken}@123456000000"));
    }
    assert_eq!(registry.free_name(&"new".parse().unwrap(), &new).as_str(), "new");
    assert_eq!(registry.free_name(&"qwen".parse().unwrap(), &digest("abcdef01a")).as_str(), "qwen", "its own");
    let long = ModelName::from_text(&"x".repeat(500));
    assert_eq!(long.as_str().len(), 200);
    assert_eq!(long.with_suffix("@123").as_str().len(), 200);
    assert_eq!(ModelName::from_text("ä ö").as_str(), "model");
}
