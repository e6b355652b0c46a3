//! Commands that ask a running host.

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::TestContext;

use crate::models::with_file;

#[test]
fn without_a_host_it_is_said_how_to_start_one() {
    let context = TestContext::new();
    // A port that was free a moment ago, and that nobody else is told of.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |arguments: &[&str]| {
        let child = context.command(arguments).env("LOCARA_LISTEN", free.to_string()).spawn().unwrap();
        context.finish(child, Vec::new())
    };
    assert_snapshot!(at(&["ps"]));
    at(&["stop", "default"]).assert_code(1).assert_says("no host listens on");
    let json = at(&["ps", "--json"]).assert_code(1).json();
    assert!(json["error"]["help"].as_str().unwrap().contains("locara serve"), "{json}");

    let child = context.command(["ps"]).env("LOCARA_LISTEN", "here").spawn().unwrap();
    context.finish(child, Vec::new()).assert_code(1).assert_says("LOCARA_LISTEN=here is no address");
}

#[test]
fn another_program_on_the_port_is_told_from_a_host() {
    let context = TestContext::new();
    let other = locara_e2e::Hub::with("a/b", "c.gguf", Vec::new(), "");
    let address = other.endpoint.strip_prefix("http://").unwrap();
    let child = context.command(["ps"]).env("LOCARA_LISTEN", address).spawn().unwrap();
    let said = context.finish(child, Vec::new());
    said.assert_code(1).assert_says("is not Locara but cli").assert_says("[server] listen");
}

#[test]
fn what_is_in_memory_is_shown_and_taken_out() {
    let context = with_file();
    context.run(["import", "llama.gguf"]).assert_code(0);
    let host = context.serve();
    let empty = context.run_at(&host, ["ps"]);
    empty.assert_code(0);
    assert!(empty.stdout.contains("no model is in memory"), "{empty}");
    assert!(empty.stdout.starts_with("locara 0.1.0  http://127.0.0.1:"), "{empty}");

    let answer = context.run_at_with_input(&host, ["chat", "--json"], "Hello");
    assert_eq!(answer.assert_code(0).json()["model"], "llama", "{answer}");
    let ps = context.run_at(&host, ["ps", "--json"]).assert_code(0).json();
    assert_eq!(ps["pid"], host.pid());
    let model = &ps["models"][0];
    assert_eq!((&model["name"], &model["state"]), (&"llama".into(), &"resident".into()), "{ps}");
    assert!(model["kv_bytes"].as_u64() < model["bytes"].as_u64() && model["kv_bytes"].as_u64() > Some(0), "{ps}");
    assert!(model["engine"]["places"].as_u64() > Some(0), "{ps}");
    let text = context.run_at(&host, ["ps"]).assert_code(0).stdout.clone();
    let line = text.lines().find(|line| line.starts_with("llama ")).unwrap();
    assert!(line.contains("resident") && line.contains(" 0 of "), "{text}");

    let doctor = context.run_at(&host, ["doctor", "--json"]).assert_code(0).json();
    assert_eq!(doctor["host"]["version"], "0.1.0", "{doctor}");
    assert!(doctor["host"]["port_owner"].as_str().unwrap().contains("locara"), "{doctor}");

    // The list of models knows it too, and its own memory is not counted against it.
    let listed = context.run(["models", "--json"]).assert_code(0).json();
    assert_eq!(listed["models"][0]["state"], "loaded", "{listed}");

    let stopped = context.run_at(&host, ["stop", "default"]);
    assert!(stopped.assert_code(0).stdout.starts_with("llama is out of memory, "), "{stopped}");
    assert_snapshot!(context.run_at(&host, ["stop", "default"]), @r"
    exit code: 0
    ----- stdout -----
    default was not in memory
    ----- stderr -----
    ");
    context.run_at(&host, ["stop", "lama"]).assert_code(1).assert_says("locara models");
}

#[test]
fn a_host_with_keys_wants_one() {
    let context = TestContext::new();
    let key =
        context.run(["key", "add", "me", "--scope", "inference", "--scope", "admin"]).assert_code(0).stdout.clone();
    let host = context.serve();
    context.run_at(&host, ["ps"]).assert_code(3).assert_says("set LOCARA_API_KEY");
    let mut command = context.command(["ps"]);
    let child = command.env("LOCARA_LISTEN", &host.address).env("LOCARA_API_KEY", key.trim()).spawn().unwrap();
    context.finish(child, Vec::new()).assert_code(0);
}

#[test]
fn figures_come_with_what_they_depend_on() {
    let context = TestContext::new();
    let host = context.serve();
    let json =
        context.run_at(&host, ["bench", "-n", "3", "--words", "20", "--tokens", "8", "--json"]).assert_code(0).json();
    assert_eq!((&json["model"], &json["requests"]), (&"locara-tiny".into(), &3.into()), "{json}");
    for name in ["locara", "engine", "digest", "quantization"] {
        assert!(json[name].as_str().is_some_and(|text| !text.is_empty()), "no {name}: {json}");
    }
    assert!(json["machine"]["ram_bytes"].as_u64() > Some(0), "{json}");
    assert!(json["prompt_tokens"].as_u64() > Some(20) && json["answer_tokens"].as_u64() <= Some(8), "{json}");
    for name in ["first_token_s", "prompt_tokens_per_s", "answer_tokens_per_s"] {
        let spread = &json[name];
        let figure = |of: &str| spread[of].as_f64().unwrap();
        assert!(0.0 < figure("least") && figure("least") <= figure("p50") && figure("p50") <= figure("p95"), "{json}");
    }
    let text = context.run_at(&host, ["bench", "-n", "1", "--tokens", "8"]).assert_code(0).stdout.clone();
    for name in ["model", "host", "machine", "first token", "prompt", "answer"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "no line about {name}:\n{text}");
    }
    context.run_at(&host, ["bench", "nobody"]).assert_code(1).assert_says("nobody");
    context.run_at(&host, ["bench", "--requests", "0"]).assert_code(2);
}

#[test]
fn a_question_from_a_pipe_is_answered_once() {
    let context = TestContext::new();
    let host = context.serve();
    let ask = |arguments: &[&str], question: &str| context.run_at_with_input(&host, arguments, question);
    let answer = ask(&["chat"], "Hello");
    assert!(!answer.assert_code(0).stdout.trim().is_empty(), "{answer}");
    assert!(!answer.stderr.contains('\u{1b}'), "{answer}");
    let json = ask(&["chat", "--json", "--system", "Be brief."], "Hello").assert_code(0).json();
    assert_eq!(json["model"], "locara-tiny");
    assert!(json["usage"]["completion_tokens"].as_u64() > Some(0), "{json}");
    let briefly = ask(&["chat", "--json"], "Hello").assert_code(0).json();
    assert!(json["usage"]["prompt_tokens"].as_u64() > briefly["usage"]["prompt_tokens"].as_u64(), "{json} {briefly}");

    ask(&["chat"], " \n").assert_code(1).assert_says("there is no question on standard input");
    ask(&["chat", "nobody"], "Hello").assert_code(1).assert_says("nobody");
    assert!(!context.state("chat_history").exists(), "what is piped in is not kept");
    drop(host);
    assert!(fs::read_dir(context.state("hosts")).unwrap().next().is_none(), "a host that ended leaves nothing");
}
