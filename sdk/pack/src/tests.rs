use super::*;

const MODULE_WITHOUT_WORLD: &[u8] = &CORE_MODULE;

/// `(module (func (export "answer") (result i32) i32.const 42))`, section by section.
const ANSWER: &[&[u8]] = &[
    &CORE_MODULE,
    &[1, 5, 1, 0x60, 0, 1, 0x7f],
    &[3, 2, 1, 0],
    &[7, 10, 1, 6, b'a', b'n', b's', b'w', b'e', b'r', 0, 0],
    &[10, 6, 1, 4, 0, 0x41, 42, 0x0b],
];

/// A core module that carries its world, as a compiler leaves it.
fn module() -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let wit = "package test:hello@0.1.0;\ninterface unused { f: func(); }
                 world hello { import unused; export answer: func() -> u32; }\n";
    let package = resolve.push_str("hello.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("hello")).unwrap();
    let mut module = ANSWER.concat();
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    module
}

const SOURCE: &str = r#"{ "$schema": "s", "manifestVersion": 1, "id": "org.locara.hello",
    "component": { "path": "target/hello.wasm" }, "class": "batch", "capabilities": {} }"#;

#[test]
fn an_app_folder_pins_its_component() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, wasm, out) =
        (folder.path().join(MANIFEST), folder.path().join("core.wasm"), folder.path().join("out"));
    fs::write(&manifest, SOURCE).unwrap();
    fs::write(&wasm, module()).unwrap();

    let first = pack(&manifest, &wasm, "hello", &out).unwrap();
    assert!(first.changed);
    let component = fs::read(out.join("hello.wasm")).unwrap();
    assert!(component.starts_with(&COMPONENT));
    assert_eq!(first.len, component.len());
    assert_eq!(first.imports, [""; 0], "what a module does not call, its component does not import");

    let sealed: Value = serde_json::from_slice(&fs::read(&first.manifest).unwrap()).unwrap();
    assert_eq!(sealed["component"]["path"], "hello.wasm");
    assert_eq!(sealed["component"]["sha256"], sha256(&component));
    let keys: Vec<_> = sealed.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["$schema", "manifestVersion", "id", "component", "class", "capabilities"]);

    let second = pack(&manifest, &wasm, "hello", &out).unwrap();
    assert_eq!(second, Packed { changed: false, ..first }, "the same input must pack to the same bytes");
    assert!(!out.join("hello.partial").exists());
}

#[test]
fn a_component_is_packed_as_it_is() {
    let component = componentize(Path::new("core.wasm"), module()).unwrap();
    assert_eq!(componentize(Path::new("component.wasm"), component.clone()).unwrap(), component);
}

#[test]
fn what_cannot_be_packed_is_named() {
    let path = Path::new("app.wasm");
    let refusal = |bytes: &[u8]| componentize(path, bytes.to_vec()).unwrap_err();
    assert!(matches!(refusal(b"#!/bin/sh"), PackError::NotWasm { len: 9, .. }));
    assert!(matches!(refusal(b""), PackError::NotWasm { len: 0, .. }));
    let mut broken = module();
    broken.truncate(broken.len() / 2);
    let error = refusal(&broken);
    assert!(matches!(error, PackError::Encode { .. }), "{error}");
    assert!(error.to_string().starts_with("app.wasm cannot become a component: "), "{error}");
    // A module that describes no world imports and exports nothing: legal, and of no use; the host refuses it by name.
    assert!(componentize(path, MODULE_WITHOUT_WORLD.to_vec()).is_ok());
}

#[test]
fn a_manifest_must_be_an_object() {
    for (text, reason) in
        [("[]", "no JSON object"), (r#"{"component": 1}"#, "`component` is no object"), ("{,}", "line 1")]
    {
        let error = seal(Path::new("locara.json"), text, "a.wasm", "00").unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn the_digest_is_sha256() {
    assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
