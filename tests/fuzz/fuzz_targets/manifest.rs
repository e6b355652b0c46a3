//! Any bytes as a manifest.
#![no_main]

use locara_manifest::Manifest;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Ok(manifest) = Manifest::parse("locara.json", text) {
        let again = Manifest::parse("locara.json", manifest.to_json()).expect("what we write, we read");
        assert_eq!(manifest.to_json(), again.to_json());
    }
});
