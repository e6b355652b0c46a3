//! Apps that misbehave, through the command: a typed end, an exit code, and nothing else happens.

use fs_err as fs;
use locara_e2e::TestContext;

/// With the hostile guest, which may take its time: on a busy machine a loop of 200 ms lasts seconds, and the limit that an
/// attack is about must be the one that ends it.
fn context() -> TestContext {
    let context = TestContext::new();
    context.copy_app("guest-hostile");
    context.edit_manifest("guest-hostile", |manifest| manifest["limits"]["wallSeconds"] = 120.into());
    context.run(["install", "guest-hostile", "--yes"]).assert_code(0);
    fs::create_dir(context.home("data")).unwrap();
    context
}

/// What the guest does, the exit code, and words of the message.
const ATTACKS: [(&[&str], i32, &str); 11] = [
    (&["loop"], 5, "without waiting for anything"),
    (&["loop-calling"], 5, "without waiting for anything"),
    (&["bomb"], 5, "out of memory"),
    (&["nest"], 5, "stack overflow"),
    // A Rust guest keeps its arrays on a stack at the bottom of its memory: what overflows there is out of bounds.
    (&["nest-arrays"], 5, "the app crashed: "),
    (&["panic"], 5, "its last log line: "),
    (&["flood"], 5, "times a second"),
    (&["huge-string"], 5, "more than the host takes"),
    (&["gigabytes-stubbornly"], 5, "bytes of output"),
    (&["fail"], 1, "reports: it failed"),
    (&["role", "coding"], 1, "does not ask for the role `coding`"),
];

#[test]
fn each_gets_its_end_and_the_host_is_unharmed() {
    let context = context();
    for (arguments, code, words) in ATTACKS {
        let ended = context.run(["run", "hostile", "--"].iter().chain(arguments));
        ended.assert_code(code).assert_says(words);
        assert!(!ended.stderr.contains("thread '"), "{arguments:?} made the host panic: {ended}");
        assert!(ended.stdout.len() <= 2_000_000, "{arguments:?} printed {} bytes", ended.stdout.len());
        let control = |text: &str| text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
        assert!(!control(&ended.stderr), "{arguments:?} reached the terminal: {:?}", ended.stderr);
    }
    assert_eq!(context.run(["list", "--json"]).assert_code(0).json().as_array().unwrap().len(), 1);
}

#[test]
fn the_report_is_there_as_json_too() {
    let context = context();
    let report = context.run(["run", "hostile", "--json", "--", "loop"]);
    let json = report.assert_code(5).json();
    assert!(json["error"].as_str().unwrap().contains("without waiting for anything"), "{json}");
    assert_eq!(json["output"], "");
    let allowed: Vec<_> =
        json["card"]["allowed"].as_array().unwrap().iter().map(|grant| grant.as_str().unwrap()).collect();
    assert!(allowed.contains(&"model:default"), "{allowed:?}");
}

#[test]
fn a_run_that_never_ends_is_ended() {
    let context = TestContext::with_apps(&["guest-hostile"]);
    fs::create_dir(context.home("data")).unwrap();
    let ended = context.run(["run", "hostile", "--", "wait"]);
    ended.assert_code(5).assert_says("the run was stopped after 2 s, its wall-clock limit");
}
