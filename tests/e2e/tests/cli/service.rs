//! The service, with a systemd that only notes what it is told.

#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt as _;

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::{Outcome, TestContext};

/// A `systemctl` and a `journalctl` that write down their arguments and answer like the real ones.
fn with_systemd(systemctl: &str) -> TestContext {
    let context = TestContext::new();
    fs::create_dir(context.home("bin")).unwrap();
    let scripts = [
        ("systemctl", format!("echo \"systemctl $*\" >> \"$HOME/told\"\n{systemctl}")),
        ("journalctl", "echo \"journalctl $*\" >> \"$HOME/told\"\nprintf 'one\\ntwo\\n'".to_owned()),
    ];
    for (name, script) in scripts {
        let path = context.home("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    context
}

const RUNS: &str = "case \"$2\" in show) printf 'Result=success\\nMainPID=4711\\nActiveState=active\\nSubState=running\\nUnitFileState=enabled\\n';; esac";
const NO_BUS: &str = "echo 'Failed to connect to bus: No medium found' >&2; exit 1";

fn run(context: &TestContext, arguments: &[&str]) -> Outcome {
    let mut command = context.command(arguments);
    let path = format!("{}:{}", context.home("bin").display(), std::env::var("PATH").unwrap());
    // A port that nobody listens on: what is installed here is only noted.
    let child = command.env("PATH", path).env("LOCARA_LISTEN", "127.0.0.1:1").spawn().unwrap();
    context.finish(child, Vec::new())
}

fn told(context: &TestContext) -> String {
    fs::read_to_string(context.home("told")).unwrap_or_default()
}

#[test]
fn it_is_installed_looked_at_and_removed() {
    let context = with_systemd(RUNS);
    run(&context, &["service", "start"]).assert_code(1).assert_says("`locara service install` installs it");
    assert_snapshot!("install", run(&context, &["service", "install"]));
    let unit = context.home(".config/systemd/user/locara.service");
    let text = fs::read_to_string(&unit).unwrap();
    let binary = fs::canonicalize(locara_e2e::binary()).unwrap();
    assert!(text.contains(&format!("ExecStart=\"{}\" serve\n", binary.display())), "{text}");
    assert!(
        text.contains(&format!("Environment=\"LOCARA_HOME={}\"\n", context.state("").display()))
            || text.contains("LOCARA_HOME="),
        "{text}"
    );
    assert!(text.contains("MemoryPressureWatch=on\n") && text.contains("Restart=on-failure\n"), "{text}");

    let status = run(&context, &["service", "status", "--json"]).assert_code(0).json();
    assert_eq!(status["service"]["running"], true);
    assert_eq!(status["service"]["pid"], 4711);
    assert_eq!(status["port_owner"], serde_json::Value::Null);
    assert_snapshot!("logs", run(&context, &["service", "logs", "-n", "5"]));
    run(&context, &["logs", "--json"]).assert_code(0);
    run(&context, &["service", "stop"]).assert_code(0);
    assert_snapshot!("uninstall", run(&context, &["service", "uninstall"]));
    assert!(!unit.exists());
    assert_snapshot!("told", told(&context));
    run(&context, &["logs"]).assert_code(1).assert_says("the service is not installed");
}

#[test]
fn a_user_without_a_session_is_told_what_to_do() {
    let context = with_systemd(NO_BUS);
    run(&context, &["service", "install"])
        .assert_code(1)
        .assert_says("locara.service is written, but systemd does not take it")
        .assert_says("loginctl enable-linger");
    assert!(context.home(".config/systemd/user/locara.service").exists(), "the unit stays for the next login");
    run(&context, &["service", "status"]).assert_code(0);
    run(&context, &["service", "uninstall"]).assert_code(0).assert_says("the file is removed all the same");
}

#[test]
fn only_the_file_if_nothing_is_to_start() {
    let context = with_systemd(RUNS);
    run(&context, &["service", "install", "--no-start"]).assert_code(0);
    assert_eq!(told(&context), "");
    // A configuration that would keep the host from starting is said now and not at the next login.
    fs::create_dir_all(context.state("")).unwrap();
    fs::write(context.state("locara.toml"), "nonsense = 1\n").unwrap();
    run(&context, &["service", "install"]).assert_code(1).assert_says("nonsense");
    assert_eq!(told(&context), "");
}

#[test]
fn a_system_without_systemd_is_no_riddle() {
    let context = TestContext::new();
    let child = context.command(["service", "install"]).env("PATH", "/nowhere").spawn().unwrap();
    context.finish(child, Vec::new()).assert_code(1).assert_says("systemctl is not here").assert_says("locara serve");
}

#[test]
fn the_doctor_sees_a_service_that_does_not_run() {
    let context = with_systemd(
        "case \"$2\" in show) printf 'Result=exit-code\\nMainPID=0\\nActiveState=failed\\nSubState=failed\\nUnitFileState=enabled\\n';; esac",
    );
    run(&context, &["service", "install", "--no-start"]).assert_code(0);
    let json = run(&context, &["doctor", "--json"]).assert_code(0).json();
    let problems = json["problems"].as_array().unwrap();
    let service = problems.iter().find(|problem| problem["what"].as_str().unwrap().starts_with("the service"));
    assert_eq!(service.unwrap()["mend"], "locara service start", "{json}");
    run(&context, &["doctor", "--strict"]).assert_code(1);
}
