//! A conversation at a terminal.

use std::os::unix::fs::PermissionsExt as _;

use fs_err as fs;
use locara_e2e::{Serving, Terminal, TestContext, send};
use locara_zoo::{Arch, Spec};
use rustix::process::Signal;

/// What the prompt is drawn as.
const PROMPT: &str = ">>> ";

fn chat(context: &TestContext, host: &Serving) -> Terminal {
    let mut command = context.command(["chat"]);
    command.env("LOCARA_LISTEN", &host.address);
    let mut terminal = Terminal::start(command);
    terminal.expect("/help shows commands");
    terminal.expect(PROMPT);
    terminal
}

#[test]
fn a_conversation_goes_on_and_is_saved() {
    let context = TestContext::new();
    let host = context.serve();
    let mut terminal = chat(&context, &host);
    terminal.types("/help\r");
    terminal.expect("begin a new conversation");
    terminal.expect(PROMPT);
    terminal.types("/system Be brief.\r");
    terminal.expect(PROMPT);
    // Two lines are one message.
    terminal.types("one\\\r");
    terminal.types("two\r");
    terminal.expect("first after ");
    terminal.expect(PROMPT);
    terminal.types("/nonsense\r");
    terminal.expect("there is no command /nonsense");
    terminal.expect(PROMPT);
    // A model that is not there is refused, and the old one stays.
    terminal.types("/model nobody\r");
    terminal.expect("nobody");
    terminal.expect(PROMPT);
    terminal.types("/save talk.md\r");
    terminal.expect("saved in talk.md");
    terminal.expect(PROMPT);
    // What is there is not written over.
    terminal.types("/save talk.md\r");
    terminal.expect("not there yet");
    terminal.expect(PROMPT);
    terminal.types("\u{4}");
    assert!(terminal.end().success());

    let saved = fs::read_to_string(context.path("talk.md")).unwrap();
    assert!(saved.starts_with("## system\n\nBe brief.\n\n## user\n\none\ntwo\n\n## assistant\n\n"), "{saved}");
    assert_eq!(saved.matches("## ").count(), 3, "{saved}");
    let history = context.state("chat_history");
    assert!(fs::read_to_string(&history).unwrap().contains("/system Be brief."));
    assert_eq!(fs::metadata(history).unwrap().permissions().mode() & 0o077, 0, "it is nobody else's business");
}

/// Ctrl-C ends the answer and not the program; what had come is part of the conversation.
#[test]
fn an_answer_is_stopped_and_the_conversation_is_not() {
    let context = TestContext::new();
    // Random weights hardly ever come to an end by themselves.
    let mut spec = Spec::tiny(Arch::Llama);
    (spec.ff, spec.ctx) = (16_384, 32_768);
    locara_zoo::write(&spec, context.path("endless.gguf")).unwrap();
    context.run(["import", "endless.gguf"]).assert_code(0);
    let host = context.serve();
    let mut terminal = chat(&context, &host);
    terminal.types("Hello\r");
    // The line as it was typed, and then the first words of the answer.
    terminal.expect("Hello");
    terminal.expect("\n");
    let ps = || context.run_at(&host, ["ps", "--json"]).assert_code(0).json();
    while ps()["models"][0]["engine"]["running"] != 1 {}
    send(terminal.child(), Signal::INT);
    terminal.expect("stopped");
    terminal.expect(PROMPT);
    // The host has stopped too: the request is gone.
    while ps()["models"][0]["engine"]["running"] != 0 {}
    terminal.types("/clear\r");
    terminal.expect("a new conversation");
    terminal.types("/quit\r");
    assert!(terminal.end().success());
}
