//! Any bytes as a manifest, a registry and a configuration.
#![no_main]

use locara_manifest::{Config, Manifest, Registry};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Ok(manifest) = Manifest::parse("locara.json", text) {
        let again = Manifest::parse("locara.json", manifest.to_json()).expect("what we write, we read");
        assert_eq!(manifest.to_json(), again.to_json());
    }
    if let Ok(registry) = Registry::parse("registry.json", text) {
        assert_eq!(Registry::parse("registry.json", registry.to_json()).expect("what we write, we read"), registry);
    }
    let _ = Config::parse("locara.toml", text);
});
