//! Whatever comes in: no panic, a report that can be drawn, and places that lie inside the text.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::sync::LazyLock;

use locara_manifest::{Config, Diagnosis, Grants, MAX_BYTES, Manifest, Registry, registry_schema, schema};
use miette::{GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;

static VALIDATOR: LazyLock<jsonschema::Validator> = LazyLock::new(|| jsonschema::draft202012::new(&schema()).unwrap());

static REGISTRY_VALIDATOR: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&registry_schema()).unwrap());

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folders = ["examples", "rejected", "registry/examples", "registry/rejected"].map(|folder| (folder, ".json"));
    let folders = folders.into_iter().chain([("config/examples", ".toml"), ("config/rejected", ".toml")]);
    folders.flat_map(|(folder, ending)| common::files(folder, ending)).map(|(_, bytes)| bytes).collect()
});

/// What must hold for any bytes at all.
fn check(bytes: &[u8]) {
    match Manifest::parse("any.json", bytes) {
        Ok(manifest) => {
            assert_eq!(Manifest::parse("again", manifest.to_json()).unwrap(), manifest);
            let value = serde_json::from_slice(bytes).expect("what is accepted is strict JSON");
            assert!(VALIDATOR.is_valid(&value), "accepted here and refused by the schema: {value}");
            assert!(Grants::ask(&manifest).missing(&manifest).is_empty());
        }
        Err(diagnosis) => check_report(bytes, &diagnosis),
    }
    match Registry::parse("any.json", bytes) {
        Ok(registry) => {
            assert_eq!(Registry::parse("again", registry.to_json()).unwrap(), registry);
            let value = serde_json::from_slice(bytes).expect("what is accepted is strict JSON");
            assert!(REGISTRY_VALIDATOR.is_valid(&value), "accepted here and refused by the schema: {value}");
        }
        Err(diagnosis) => check_report(bytes, &diagnosis),
    }
    if let Err(diagnosis) = Config::parse("any.toml", bytes) {
        check_report(bytes, &diagnosis);
    }
}

fn check_report(bytes: &[u8], diagnosis: &Diagnosis) {
    assert!(!diagnosis.problems().is_empty());
    for problem in diagnosis.problems() {
        for span in std::iter::once(&problem.span).chain(problem.other.iter().map(|(span, _)| span)) {
            assert!(span.start <= span.end && span.end <= bytes.len(), "{span:?} of {}", bytes.len());
            if let Ok(text) = std::str::from_utf8(bytes) {
                assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end), "{span:?}");
            }
        }
    }
    let mut report = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .with_links(false)
        .render_report(&mut report, diagnosis)
        .expect("every place can be drawn");
    assert!(!report.contains("Failed to read contents"), "{report}");
    let escapes = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    assert!(!report.contains(escapes), "a report that moves the cursor: {report:?}");
}

/// A file of the corpus with a few pieces replaced by others: bytes, punctuation, words of manifests.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "'",
            "\\",
            "null",
            "true",
            "-1",
            "1e999",
            "0.5",
            "NaN",
            "//",
            "/*",
            "\\u0000",
            "\\ud800",
            "\u{feff}",
            "\u{202e}",
            "ä",
            "🏠",
            "\r",
            "\n",
            "\"threads\":1,",
            "\"kv\":{}",
            "[server]\n",
            "= 1\n",
            "\"\"\"",
            "1979-05-27",
            "a.b.c = ",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let edit = (any::<prop::sample::Index>(), 0..6usize, piece);
    (any::<prop::sample::Index>(), proptest::collection::vec(edit, 1..5)).prop_map(|(file, edits)| {
        let mut bytes = file.get(&CORPUS).clone();
        for (at, cut, piece) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + cut).min(bytes.len());
            bytes.splice(start..end, piece);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    #[test]
    fn any_text(text in "[\\PC\\x00-\\x20{}\\[\\]\",:'/*\\\\]{0,120}") {
        check(text.as_bytes());
    }

    #[test]
    fn mutated_manifests(bytes in mutated()) {
        check(&bytes);
    }
}

#[test]
fn too_large_is_refused_before_it_is_read() {
    let bytes = vec![b' '; MAX_BYTES + 1];
    let diagnosis = Manifest::parse("large.json", &bytes).unwrap_err();
    assert_eq!(diagnosis.problems().len(), 1);
    assert!(diagnosis.problems()[0].message.contains("262,145 bytes"), "{:?}", diagnosis.problems());
    check(&bytes[..MAX_BYTES]);
}

#[test]
fn the_largest_nuisances_are_answered() {
    for unit in [
        "[",
        "{\"a\":",
        "//\n",
        "\"k\":0,",
        "/*",
        "\\",
        "{\"a\":{},",
        "[],",
        "'",
        "\u{feff}",
        "1 ",
        "a=[",
        "[a]\n",
        "a.",
    ] {
        check(unit.repeat(MAX_BYTES / unit.len()).as_bytes());
        check(format!("{{{}}}", unit.repeat((MAX_BYTES - 2) / unit.len())).as_bytes());
    }
}
