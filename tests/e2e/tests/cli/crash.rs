//! `kill -9` at any moment leaves a state that the next start accepts.
//!
//! The moments are spread over the time that one undisturbed run takes here. They widen what is covered; no assertion
//! depends on which of them fell where.

use std::time::{Duration, Instant};

use fs_err as fs;
use locara_e2e::{TestContext, send};
use rustix::process::Signal;

/// Moments that are tried.
const KILLS: u32 = 10;

/// Runs the command and kills it after `delay`, if it still runs then.
fn kill_after(context: &TestContext, arguments: &[&str], delay: Duration) {
    let child = context.command(arguments).spawn().unwrap();
    std::thread::sleep(delay);
    // A child that has ended is still there to be waited for, so the signal reaches it or nobody.
    send(&child, Signal::KILL);
    context.finish(child, Vec::new());
}

/// How long the command takes when nobody disturbs it.
fn undisturbed(arguments: &[&str]) -> Duration {
    let context = TestContext::new();
    context.copy_app("summarize");
    let started = Instant::now();
    context.run(arguments).assert_code(0);
    started.elapsed()
}

#[test]
fn a_killed_install_is_no_install_or_a_whole_one() {
    let install = ["install", "summarize", "--yes"];
    let whole = undisturbed(&install);
    let context = TestContext::new();
    context.copy_app("summarize");
    for kill in 0..KILLS {
        kill_after(&context, &install, whole * kill / KILLS);
        let listed = context.run(["list", "--json"]);
        assert_eq!(listed.assert_code(0).stderr, "", "after kill {kill}");
        let apps = listed.json();
        for app in apps.as_array().unwrap() {
            assert_eq!((&app["id"], &app["missing"]), (&"org.locara.summarize".into(), &serde_json::json!([])));
            context.run(["run", "summarize"]).assert_code(1).assert_says("there is nothing to summarise");
        }
    }
    context.run(install).assert_code(0);
    assert_eq!(context.run(["list", "--json"]).json().as_array().unwrap().len(), 1);
}

/// The old app or the new one, never neither.
#[test]
fn a_killed_update_leaves_an_app() {
    let context = TestContext::with_apps(&["summarize"]);
    let install = ["install", "summarize", "--yes"];
    let started = Instant::now();
    context.run(install).assert_code(0);
    let whole = started.elapsed();
    for kill in 0..KILLS {
        kill_after(&context, &install, whole * kill / KILLS);
        let listed = context.run(["list", "--json"]);
        assert_eq!(listed.assert_code(0).stderr, "", "after kill {kill}");
        assert_eq!(listed.json()[0]["id"], "org.locara.summarize", "after kill {kill}");
    }
    context.run(["run", "summarize"]).assert_code(1).assert_says("there is nothing to summarise");
}

#[test]
fn a_killed_first_start_leaves_a_model_or_none() {
    let plan = ["plan", "--json"];
    let whole = undisturbed(&plan);
    let context = TestContext::new();
    for kill in 0..KILLS {
        let _ = fs::remove_dir_all(context.state("models"));
        kill_after(&context, &plan, whole * kill / KILLS);
        context.run(plan).assert_code(0);
        let models: Vec<_> = fs::read_dir(context.state("models"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".gguf"))
            .collect();
        let version = context.run(["version", "--json"]).json();
        assert_eq!(models, [format!("{}.gguf", version["embedded_model"].as_str().unwrap())]);
    }
}
