//! The committed JSON Schema is the one that the types make, and it is true.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use fs_err as fs;
use jsonschema::Validator;
use locara_manifest::{Bound, Manifest, config_schema, registry_schema, schema};
use serde_json::Value;

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema()).unwrap()
}

#[test]
fn the_committed_file_is_up_to_date() {
    for (name, schema) in [
        ("locara.schema.json", schema()),
        ("registry.schema.json", registry_schema()),
        ("config.schema.json", config_schema()),
    ] {
        let path = common::folder("schema").join(name);
        let committed = fs::read_to_string(&path).unwrap();
        let made = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        assert!(committed == made, "{} is out of date: make generate", path.display());
    }
}

#[test]
fn it_is_a_schema_of_2020_12() {
    for schema in [schema(), registry_schema(), config_schema()] {
        jsonschema::draft202012::meta::validate(&schema).unwrap();
    }
}

#[test]
fn it_accepts_every_example() {
    let validator = validator();
    for (stem, bytes) in common::files("examples", ".json") {
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let faults: Vec<String> = validator.iter_errors(&value).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{stem}: {faults:?}");
    }
}

#[test]
fn that_of_the_registry_accepts_the_examples_and_rejects_what_a_schema_can_reject() {
    // Rules between names, digests and the order of keys.
    const ONLY_THE_PARSER: [&str; 12] = [
        "alias-circle",
        "alias-is-a-model",
        "alias-is-a-role",
        "alias-of-itself",
        "alias-twice",
        "digest-of-another-file",
        "name-is-a-role",
        "name-twice",
        "prefix-of-two",
        "role-misspelt",
        "role-of-an-unknown-model",
        "role-of-nothing",
    ];
    let validator = jsonschema::draft202012::new(&registry_schema()).unwrap();
    for (stem, bytes) in common::files("registry/examples", ".json") {
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let faults: Vec<String> = validator.iter_errors(&value).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{stem}: {faults:?}");
    }
    let passes = |(stem, bytes): (String, Vec<u8>)| {
        let value = serde_json::from_slice::<Value>(&bytes).ok()?;
        validator.is_valid(&value).then_some(stem)
    };
    let passed: Vec<_> = common::files("registry/rejected", ".json").into_iter().filter_map(passes).collect();
    assert_eq!(passed, ONLY_THE_PARSER);
}

#[test]
fn that_of_the_configuration_accepts_what_is_written_from_it() {
    let validator = jsonschema::draft202012::new(&config_schema()).unwrap();
    for (stem, bytes) in common::files("config/examples", ".toml") {
        let config = serde_json::to_value(locara_manifest::Config::parse(&stem, &bytes).unwrap()).unwrap();
        let faults: Vec<String> = validator.iter_errors(&config).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{stem}: {faults:?}");
    }
}

/// Editors show the schema's opinion long before `locara check` runs, so it must catch what a schema can catch.
#[test]
fn it_rejects_what_the_parser_rejects_but_for_rules_between_values() {
    // Rules between two values, equality up to spelling, and texts whose form no sane pattern describes.
    const ONLY_THE_PARSER: [&str; 21] = [
        "byte-order-mark",
        "escape-sequence",
        "http-host-twice",
        "http-port-range",
        "http-plain-text",
        "key-duplicate",
        "memory-floor-above-ceiling",
        "memory-limit-above-ceiling",
        "model-answer-fills-context",
        "model-drafts-for-itself",
        "model-embedding-with-draft",
        "model-misspelt-role",
        "model-twice",
        "name-empty",
        "right-to-left-override",
        "syntax-exotic-space",
        "http-look-alike",
        "raw-escape-sequence",
        "component-absolute",
        "id-path",
        "wit-newer",
    ];
    let validator = validator();
    let mut passed = Vec::new();
    for (stem, bytes) in common::files("rejected", ".json") {
        // Without a mark and in strict JSON; what is not JSON is no business of a schema.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let Ok(value) = serde_json::from_slice::<Value>(text) else { continue };
        if validator.is_valid(&value) {
            passed.push(stem);
        }
    }
    let unexpected: Vec<_> = passed.iter().filter(|stem| !ONLY_THE_PARSER.contains(&stem.as_str())).collect();
    assert!(unexpected.is_empty(), "the schema lets pass: {unexpected:?}");
}

#[test]
fn its_bounds_and_texts_are_those_of_the_parser() {
    let schema = schema();
    for bound in Bound::ALL {
        let limit = &schema["$defs"]["LimitsAsk"]["properties"][bound.key];
        assert_eq!(limit["minimum"], bound.min, "{}", bound.key);
        assert_eq!(limit["maximum"], bound.max, "{}", bound.key);
        let text = limit["description"].as_str().unwrap().replace(',', "");
        assert!(text.contains(&format!("{} if absent", bound.default)), "{}: {text}", bound.key);
    }
}

#[test]
fn the_table_of_bounds_in_the_readme_is_true() {
    let readme = fs::read_to_string(common::folder("README.md")).unwrap().replace(',', "");
    for Bound { key, default, min, max, .. } in Bound::ALL {
        let row = format!("| `{key}` | {default} | {min} | {max} |");
        assert!(readme.contains(&row), "manifests/README.md lacks {row}");
    }
}

#[test]
fn an_empty_object_gets_every_required_key_of_the_schema_as_a_problem() {
    let diagnosis = Manifest::parse("x", "{}").unwrap_err();
    let [problem] = diagnosis.problems() else { panic!("{diagnosis}") };
    let required = schema()["required"].as_array().unwrap().clone();
    assert_eq!(problem.message.matches('`').count(), 2 * required.len(), "{}", problem.message);
    for key in required {
        let key = key.as_str().unwrap();
        assert!(problem.message.contains(&format!("`{key}`")), "{key}");
        assert!(problem.fix.contains(&format!("\"{key}\": ")), "{key}");
    }
}

/// The fix of [`an_empty_object_gets_every_required_key_of_the_schema_as_a_problem`] is what it says it is.
#[test]
fn adding_what_the_report_says_makes_a_manifest() {
    let diagnosis = Manifest::parse("x", "{}").unwrap_err();
    let fix = diagnosis.problems()[0].fix.clone();
    let addition = fix.strip_prefix("add `").and_then(|rest| rest.strip_suffix('`')).unwrap();
    Manifest::parse("x", format!("{{{addition}}}")).unwrap();
}
