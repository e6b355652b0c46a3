//! Models from a hub.

use std::process::Stdio;

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::{Hub, Outcome, Terminal, TestContext, send};
use locara_zoo::{Arch, Spec};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

/// A hub with a model of some megabytes.
fn hub() -> Hub {
    let mut spec = Spec::tiny(Arch::Llama);
    spec.ff = 16_384;
    let bytes = locara_zoo::draft(&spec).unwrap().to_bytes().unwrap();
    assert!(bytes.len() > 4 << 20, "{} bytes are too few to be interrupted", bytes.len());
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Hub::with("maker/tiny-GGUF", "tiny-Q8_0.gguf", bytes, &digest)
}

fn pull(context: &TestContext, hub: &Hub, arguments: &[&str]) -> Outcome {
    let mut command = context.command(["pull"].iter().chain(arguments));
    let child = command.env("HF_ENDPOINT", &hub.endpoint).stdin(Stdio::null()).spawn().unwrap();
    context.finish(child, Vec::new())
}

#[test]
fn a_model_is_pulled_and_plays_default_because_nobody_does() {
    let (context, hub) = (TestContext::new(), hub());
    let pulled = pull(&context, &hub, &["maker/tiny-GGUF", "--role", "coding"]);
    pulled.assert_code(0).assert_says("nobody played `default`");
    assert!(pulled.stdout.contains("is here: ") && pulled.stdout.contains("FIT on this machine"), "{pulled}");
    let models = context.run(["models", "--json"]).assert_code(0).json();
    let model =
        models["models"].as_array().unwrap().iter().find(|model| model["owned"] == true && model["source"].is_object());
    assert_eq!(model.unwrap()["words"], serde_json::json!(["coding", "default"]), "{models}");

    let again = pull(&context, &hub, &["maker/tiny-GGUF", "--json"]).assert_code(0).json();
    assert_eq!(again["known"], true);
    assert_eq!(hub.asked(), [0], "what is here is not fetched again");

    // What was downloaded is deleted with the model.
    let name = again["name"].as_str().unwrap();
    let removed = context.run(["rm", name, "--force", "--json"]).assert_code(0).json();
    assert_eq!(removed["freed_bytes"], again["bytes"]);
}

#[test]
fn an_interrupted_pull_goes_on_where_it_stopped() {
    let (context, hub) = (TestContext::new(), hub());
    hub.hold_after(3 << 20);
    let mut command = context.command(["pull", "maker/tiny-GGUF"]);
    let child = command.env("HF_ENDPOINT", &hub.endpoint).spawn().unwrap();
    // When something lies in the store, the download has begun.
    while !something_in(&context.state("models/partial")) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    send(&child, Signal::INT);
    assert_snapshot!(context.finish(child, Vec::new()));
    pull(&context, &hub, &["maker/tiny-GGUF"]).assert_code(0);
    let asked = hub.asked();
    assert!(matches!(asked.as_slice(), [0, again] if *again > 0), "it did not go on: {asked:?}");
}

/// Whether a download has brought bytes.
fn something_in(folder: &std::path::Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let parts =
        entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|end| end == "part"));
    parts.filter_map(|entry| entry.metadata().ok()).any(|file| file.len() > 0)
}

#[test]
fn at_a_terminal_a_bar_is_there_at_once() {
    let (context, hub) = (TestContext::new(), hub());
    hub.hold_after(3 << 20);
    let mut command = context.command(["pull", "maker/tiny-GGUF"]);
    command.env("HF_ENDPOINT", &hub.endpoint);
    let mut terminal = Terminal::start(command);
    terminal.expect(" % ");
    send(terminal.child(), Signal::INT);
    terminal.expect("goes on from there");
    assert_eq!(terminal.end().code(), Some(1));
}

#[test]
fn what_cannot_be_pulled_says_why() {
    let (context, hub) = (TestContext::new(), hub());
    assert_snapshot!("spec", pull(&context, &hub, &["qwen2.5:7b"]));
    pull(&context, &hub, &["maker/other"]).assert_code(1).assert_says("has no maker/other");
    pull(&context, &hub, &["maker/tiny-GGUF:Q2_K"]).assert_code(1).assert_says("there are: ");
    pull(&context, &hub, &["maker/tiny-GGUF", "--role", "Koding"]).assert_code(1).assert_says("`Koding` is no role");
    assert_eq!(hub.asked(), Vec::<usize>::new(), "nothing was fetched");
}
