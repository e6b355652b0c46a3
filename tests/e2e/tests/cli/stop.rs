//! The person, the system or the reader has had enough.

use std::{
    io::{Read as _, Write as _, pipe},
    process::{Child, ChildStdin, Stdio},
};

use fs_err as fs;
use locara_e2e::{TestContext, send};
use rustix::process::Signal;

/// Someone with an app that echoes.
pub(crate) fn context() -> TestContext {
    let context = TestContext::with_apps(&["guest-neighbour"]);
    fs::create_dir(context.home("data")).unwrap();
    context
}

/// An app that has said `h` and waits for more. Its input ends when the second is dropped; until then it waits for ever.
pub(crate) fn echoing(context: &TestContext) -> (Child, ChildStdin) {
    let mut command = context.command(["run", "neighbour", "--", "echo"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello").unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"h");
    (child, stdin)
}

/// An app that has said something and waits for more is stopped at once, with a word about who did it.
#[test]
fn a_signal_stops_a_run_with_a_message() {
    let context = context();
    for (signal, words) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "interrupted")] {
        let (child, stdin) = echoing(&context);
        send(&child, signal);
        let ended = context.finish(child, Vec::new());
        ended.assert_code(1).assert_says("was stopped: cancelled: ").assert_says(words);
        drop(stdin);
    }
}

/// `| head -c 10`: the reader took what it wanted, and the writer of megabytes ends without a word.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let context = context();
    context.write("megabytes", vec![b'x'; 4_000_000]);
    let (mut reader, writer) = pipe().unwrap();
    let input = fs::File::open(context.path("megabytes")).unwrap().into_parts().0;
    let mut command = context.command(["run", "neighbour", "--", "echo"]);
    let child = command.stdin(input).stdout(writer).spawn().unwrap();
    // The command holds the writing end too, and would keep the pipe open.
    drop(command);
    let mut ten = [0; 10];
    reader.read_exact(&mut ten).unwrap();
    drop(reader);
    assert_eq!(&ten, b"xxxxxxxxxx");
    let ended = context.finish(child, Vec::new());
    ended.assert_code(0);
    assert!(!ended.stderr.contains("stopped") && !ended.stderr.contains("panicked"), "{ended}");
}

/// Nor for the commands that only print.
#[test]
fn output_that_nobody_reads_is_no_failure() {
    let context = context();
    context.copy_app("summarize");
    let commands: [&[&str]; 8] = [
        &["version"],
        &["doctor", "--json"],
        &["list"],
        &["list", "--json"],
        &["grants"],
        &["plan", "--machine", "all"],
        &["check", "summarize"],
        &["install", "summarize", "--yes"],
    ];
    for command in commands {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let child = context.command(command).stdout(writer).spawn().unwrap();
        let ended = context.finish(child, Vec::new());
        ended.assert_code(0);
        assert_eq!(ended.stderr, "", "{command:?}");
    }
}

/// A full disk is one: a script must not take half a list for a whole one.
#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_a_failure() {
    let context = TestContext::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = context.command(["version"]).stdout(full.into_parts().0).spawn().unwrap();
    context.finish(child, Vec::new()).assert_code(1).assert_says("cannot write the output: No space left on device");
}
