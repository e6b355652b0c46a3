//! `locara pack` and `locara install`: what an author hands over and what an owner lets in.

use std::fmt::Write as _;

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::{TestContext, build_folder};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Replaces the component and makes the manifest name it.
fn replace_component(context: &TestContext, app: &str, bytes: &[u8]) {
    let mut digest = String::new();
    Sha256::digest(bytes).iter().for_each(|byte| write!(digest, "{byte:02x}").unwrap());
    context.edit_manifest(app, |manifest| {
        let path = context.path(app).join(manifest["component"]["path"].as_str().unwrap());
        fs::write(path, bytes).unwrap();
        manifest["component"]["sha256"] = digest.into();
    });
}

#[track_caller]
fn assert_nothing_is_installed(context: &TestContext) {
    assert_eq!(context.run(["list", "--json"]).assert_code(0).json(), serde_json::json!([]));
}

#[test]
fn pack_makes_a_folder_that_installs() {
    let context = TestContext::new();
    context.copy_app("summarize");
    fs::create_dir(context.path("source")).unwrap();
    fs::copy(locara_e2e::repository("plugins/summarize/locara.json"), context.path("source/locara.json")).unwrap();
    let module = build_folder().with_file_name("wasm32-unknown-unknown").join("app/summarize.wasm");
    let module = module.to_str().unwrap();

    assert_snapshot!(context.run(["install", "source", "--yes"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × the manifest of org.locara.summarize has no component.sha256, so the file summarize.wasm
      │ cannot be checked. Run `locara pack` in the app's folder: it writes the digest
    ");
    assert_snapshot!(context.run(["pack", "source", "--wasm", module, "--out", "packed"]), @r"
    exit code: 0
    ----- stdout -----
    Summarize 0.1.0 (org.locara.summarize) is packed in packed ([DIGEST])
    ----- stderr -----
    ");
    let packed = context.run(["pack", "source", "--wasm", module, "--out", "again", "--json"]).assert_code(0).json();
    let manifest: Value = serde_json::from_slice(&fs::read(context.path("packed/locara.json")).unwrap()).unwrap();
    assert_eq!(packed["sha256"], manifest["component"]["sha256"], "packing twice gives the same component");
    context.run(["install", "packed", "--yes"]).assert_code(0);
}

#[test]
fn pack_refuses_what_is_no_app() {
    let context = TestContext::new();
    context.copy_app("summarize");
    context.write("text.wasm", "not WebAssembly");
    assert_snapshot!(context.run(["pack", "summarize", "--wasm", "text.wasm", "--out", "packed"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot pack summarize
      ╰─▶ text.wasm is not WebAssembly: it is 15 bytes and does not begin with `\0asm`. Build the app
          for wasm32-unknown-unknown and pass the .wasm file
    ");
    assert_snapshot!(context.run(["pack", "summarize", "--wasm", "missing.wasm", "--out", "packed"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot pack summarize
      ╰─▶ failed to open file `missing.wasm`: No such file or directory (os error 2)
    ");

    context.edit_manifest("summarize", |manifest| manifest["limits"]["threads"] = 8.into());
    let refused = context.run(["pack", "summarize", "--wasm", "summarize/summarize.wasm", "--out", "packed"]);
    refused.assert_code(1).assert_says("locara::manifest::host_owned");
    assert!(!context.path("packed").exists());
}

#[test]
fn without_a_terminal_nobody_can_be_asked() {
    let context = TestContext::new();
    context.copy_app("summarize");
    assert_snapshot!(context.run(["install", "summarize"]), @r"
    exit code: 3
    ----- stdout -----
    ----- stderr -----
      × Summarize 0.1.0 (org.locara.summarize) asks for grants and nobody is there to answer
      help: grant all of it with --yes, or some of it with --grant; `locara check FOLDER` shows what
            it asks
    ");
    // An answer in a pipe is not an owner at a terminal.
    context.run_with_input(["install", "summarize"], "y\n").assert_code(3);
    assert_nothing_is_installed(&context);
}

#[test]
fn yes_grants_all_that_is_asked() {
    let context = TestContext::new();
    context.copy_app("summarize");
    assert_snapshot!(context.run(["list"]), @r"
    exit code: 0
    ----- stdout -----
    No app is installed. `locara install FOLDER` installs one.
    ----- stderr -----
    ");
    assert_snapshot!(context.run(["install", "summarize", "--yes"]), @r"
    exit code: 0
    ----- stdout -----
    Summarize 0.1.0 (org.locara.summarize) is installed and may use: model:default, memory:1GB
    ----- stderr -----
    ");
    assert_snapshot!(context.run(["list"]), @r"
    exit code: 0
    ----- stdout -----
    Summarize 0.1.0 (org.locara.summarize)
      Summarises a document of any length, part by part, with the default model.
      may use model:default, memory:1GB
    ----- stderr -----
    ");
    assert_snapshot!(context.run(["list", "--json"]), @r#"
    exit code: 0
    ----- stdout -----
    [
      {
        "id": "org.locara.summarize",
        "name": "Summarize",
        "version": "0.1.0",
        "description": "Summarises a document of any length, part by part, with the default model.",
        "granted": [
          "model:default",
          "memory:1GB"
        ],
        "missing": []
      }
    ]
    ----- stderr -----
    "#);
    let again = context.run(["install", "summarize", "--yes", "--json"]).assert_code(0).json();
    assert_eq!(again["granted"][0], "model:default", "{again}");
    assert_eq!(context.run(["list", "--json"]).json().as_array().unwrap().len(), 1, "installing again replaces");
}

#[test]
fn a_part_can_be_granted() {
    let context = TestContext::new();
    context.copy_app("guest-neighbour");
    assert_snapshot!(context.run(["install", "guest-neighbour", "--grant", "model:default", "--grant", "storage"]), @r"
    exit code: 0
    ----- stdout -----
    Neighbour 0.1.0 (org.locara.test.neighbour) is installed and may use: model:default, memory:500MB, storage
    ----- stderr -----
    ");
    assert_snapshot!(context.run(["list"]), @r"
    exit code: 0
    ----- stdout -----
    Neighbour 0.1.0 (org.locara.test.neighbour)
      Behaves well: echoes, asks, stores, reads and writes files, fetches.
      may use model:default, memory:500MB, storage
      not granted http:http://127.0.0.1:1, folder:~/data:write
    ----- stderr -----
    ");
}

#[test]
fn only_what_is_asked_can_be_granted() {
    let context = TestContext::new();
    context.copy_app("summarize");
    assert_snapshot!(context.run(["install", "summarize", "--grant", "storage"]), @r"
    exit code: 3
    ----- stdout -----
    ----- stderr -----
      × Summarize 0.1.0 (org.locara.summarize) does not ask for storage
      help: `locara check FOLDER` shows what it asks for
    ");
    assert_snapshot!(context.run(["install", "summarize", "--grant", "modell:default"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × `modell:default` is not a grant. write `model:ROLE`, `memory:4GB`, `storage`, `http:HOST`,
      │ `folder:PATH:read`, `folder:PATH:write` or `tool:NAME`
    ");
    assert_nothing_is_installed(&context);
}

#[test]
fn another_component_than_the_manifest_names_is_refused() {
    let context = TestContext::new();
    context.copy_app("summarize");
    let path = context.path("summarize/summarize.wasm");
    let mut component = fs::read(&path).unwrap();
    component.push(0);
    fs::write(path, component).unwrap();
    assert_snapshot!(context.run(["install", "summarize", "--yes"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × summarize/summarize.wasm is not the component that its manifest names: its SHA-256 is
      │ [DIGEST], the manifest says
      │ [DIGEST]
      help: pack the app again with `locara pack`, or get it again from where it came from
    ");
    assert_nothing_is_installed(&context);
}

#[test]
fn a_folder_without_an_app_is_refused() {
    let context = TestContext::new();
    context.copy_app("summarize");
    fs::create_dir(context.path("empty")).unwrap();
    assert_snapshot!(context.run(["install", "empty", "--yes"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot read the manifest
      ╰─▶ failed to open file `empty/locara.json`: No such file or directory (os error 2)
      help: name a locara.json or the folder it is in
    ");
    fs::remove_file(context.path("summarize/summarize.wasm")).unwrap();
    assert_snapshot!(context.run(["install", "summarize", "--yes"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot read the component
      ╰─▶ failed to open file `summarize/summarize.wasm`: No such file or directory (os error 2)
      help: pack the app again with `locara pack`
    ");
    context.edit_manifest("summarize", |manifest| manifest["id"] = "../evil".into());
    context.run(["install", "summarize", "--yes"]).assert_code(1).assert_says("has 1 problem");
    assert_nothing_is_installed(&context);
}

#[test]
fn what_is_no_component_is_refused() {
    let context = TestContext::new();
    context.copy_app("summarize");
    let cases: [(&str, &[u8]); 4] = [
        ("text", b"not WebAssembly"),
        ("nothing", b""),
        ("an empty core module", b"\0asm\x01\0\0\0"),
        ("an empty component", b"\0asm\x0d\0\x01\0"),
    ];
    for (what, bytes) in cases {
        replace_component(&context, "summarize", bytes);
        let refused = context.run(["install", "summarize", "--yes"]);
        refused.assert_code(1).assert_says("the component of org.locara.summarize");
        assert!(!refused.stderr.contains("panicked"), "{what}: {refused}");
    }
    assert_nothing_is_installed(&context);
}

/// The import and the manifest key that would ask for it: what an author needs to know.
#[test]
fn an_import_that_the_manifest_does_not_ask_for_is_refused_by_name() {
    let context = TestContext::new();
    context.copy_app("guest-forbidden");
    assert_snapshot!(context.run(["install", "guest-forbidden", "--yes"]), @r"
    exit code: 3
    ----- stdout -----
    ----- stderr -----
      × org.locara.test.forbidden imports `locara:app/http@0.1.0`, which it may not have: the manifest
      │ does not ask for any host. Add the `hosts` to `capabilities.http` in locara.json, then install
      │ the app again
    ");
    assert_nothing_is_installed(&context);
}
