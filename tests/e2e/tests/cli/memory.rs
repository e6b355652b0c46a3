//! `locara memory`: what running hosts hold.

use std::os::unix::net::UnixListener;

use fs_err as fs;
use locara_e2e::{TestContext, send};
use rustix::process::Signal;

use super::stop::{context, echoing};

/// Nobody runs: the command says so, and what a host that starts now could hold.
#[test]
fn without_a_host_it_says_what_one_could_hold() {
    let context = TestContext::new();
    let said = context.run(["memory"]);
    said.assert_code(0);
    assert!(said.stdout.starts_with("No host is running\n"), "{said}");
    let json = context.run(["memory", "--json"]);
    json.assert_code(0);
    let json = json.json();
    assert_eq!(json["hosts"], serde_json::json!([]));
    let (room, cap) = (json["machine"]["room"].as_u64().unwrap(), json["machine"]["cap"].as_u64().unwrap());
    assert!(0 < room && room <= cap, "{json}");
}

/// A host that runs shows its apps with their leases; when it has ended, nothing of it is left.
#[test]
fn a_running_host_shows_what_it_holds_and_for_whom() {
    let context = context();
    let (child, stdin) = echoing(&context);

    let json = context.run(["memory", "--json"]).json();
    let [host] = json["hosts"].as_array().unwrap().as_slice() else { panic!("one host: {json}") };
    assert_eq!(host["pid"].as_u64(), Some(child.id().into()));
    assert_eq!(host["command"], "locara run neighbour");
    let memory = &host["memory"];
    let [app] = memory["apps"].as_array().unwrap().as_slice() else { panic!("one app: {memory}") };
    assert_eq!(app["app"], "org.locara.test.neighbour");
    assert!(app["own"].as_u64() > Some(0), "its linear memory is counted: {app}");
    assert!(app["own"].as_u64() <= app["limit"].as_u64(), "{app}");
    let holds: u64 = memory["holds"].as_array().unwrap().iter().map(|hold| hold["bytes"].as_u64().unwrap()).sum();
    assert_eq!(Some(holds), memory["held"].as_u64(), "the account adds up: {memory}");

    let text = context.run(["memory"]);
    text.assert_code(0);
    for words in ["locara run neighbour", "app org.locara.test.neighbour", "guest memory", "Decisions"] {
        assert!(text.stdout.contains(words), "no {words:?} in {text}");
    }

    send(&child, Signal::TERM);
    context.finish(child, Vec::new()).assert_code(1);
    drop(stdin);
    assert_eq!(context.run(["memory", "--json"]).json()["hosts"], serde_json::json!([]));
    let left = fs::read_dir(context.state("hosts")).unwrap().count();
    assert_eq!(left, 0, "the socket goes with its host");
}

/// A host that was killed leaves its socket; the next look removes it.
#[test]
fn the_socket_of_a_host_that_was_killed_is_removed() {
    let context = TestContext::new();
    fs::create_dir_all(context.state("hosts")).unwrap();
    let socket = context.state("hosts/1.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let said = context.run(["memory"]);
    said.assert_code(0);
    assert!(said.stdout.starts_with("No host is running\n"), "{said}");
    assert!(!socket.exists());
}
