//! What the command says about itself and about the machine.

use insta::assert_snapshot;
use locara_e2e::TestContext;

#[test]
fn help_of_every_command() {
    let context = TestContext::new();
    assert_snapshot!("help", context.run(["--help"]));
    let commands = [
        "chat",
        "run",
        "models",
        "pull",
        "import",
        "verify",
        "rm",
        "role",
        "alias",
        "enable",
        "disable",
        "plan",
        "serve",
        "service",
        "ps",
        "stop",
        "bench",
        "memory",
        "logs",
        "key",
        "install",
        "list",
        "grants",
        "check",
        "pack",
        "doctor",
        "completions",
        "man",
        "version",
    ];
    for command in commands {
        assert_snapshot!(format!("help-{command}"), context.run([command, "--help"]));
    }
    let help = context.run(["--help"]).stdout;
    let listed = |line: &str| {
        line.strip_prefix("  ").filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())).map(str::to_owned)
    };
    let words: Vec<String> =
        help.lines().filter_map(listed).filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
    let mut known: Vec<&str> = words.iter().map(String::as_str).collect();
    known.sort_unstable();
    let mut tested = commands.to_vec();
    tested.sort_unstable();
    assert_eq!(known, tested, "every command that the help lists is in this test, and no other");
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    let context = TestContext::new();
    assert_snapshot!(context.run(["instal", "summarize"]), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: unrecognized subcommand 'instal'

      tip: some similar subcommands exist: 'disable', 'list', 'install'

    Usage: locara [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    assert_snapshot!(context.run(["grants", "--add", "model:default"]), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: the following required arguments were not provided:
      <APP>

    Usage: locara grants --add <GRANT> <APP>

    For more information, try '--help'.
    ");
    context.run(["install", "summarize", "--yes", "--grant", "model:default"]).assert_code(2);
    context.run::<&str>([]).assert_code(2);
    assert!(!context.state("").exists(), "a wrong command line leaves nothing behind");
}

#[test]
fn version() {
    let context = TestContext::new();
    assert_snapshot!(context.run(["version"]), @r"
    exit code: 0
    ----- stdout -----
    locara              0.1.0
    engine              [ENGINE]
    wasmtime            48.0.8
    app interface       locara:app@0.1.0
    embedded model      locara-tiny@[DIGEST]
    ----- stderr -----
    ");
    let json = context.run(["version", "--json"]).assert_code(0).json();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["locara", "engine", "wasmtime", "wit", "embedded_model"]);
    assert!(
        json.as_object().unwrap().values().all(|value| value.as_str().is_some_and(|text| !text.is_empty())),
        "{json}"
    );
    // What `--version` of any command prints, for scripts that know no better.
    assert_eq!(
        context.run(["--version"]).assert_code(0).stdout.trim(),
        format!("locara {}", json["locara"].as_str().unwrap())
    );
}

#[test]
fn doctor_says_what_the_defaults_come_from() {
    let context = TestContext::with_apps(&["summarize"]);
    let text = context.run(["doctor"]);
    text.assert_code(0);
    // Left of the figures, which are the machine's.
    let names: Vec<&str> = text.stdout.lines().map(|line| line.split("  ").next().unwrap_or_default()).collect();
    for name in [
        "Machine",
        "system",
        "processor",
        "memory",
        "swap",
        "Engine",
        "build",
        "embedded model",
        "context",
        "keys as",
        "values as",
        "FlashAttention",
        "threads",
        "speculative",
        "State",
        "folder",
        "installed apps",
        "configuration",
        "Host",
        "address",
        "port",
        "host",
        "service",
    ] {
        assert!(names.contains(&name), "no line about {name}:\n{text}");
    }
    let settings = text.stdout.split("Defaults on this machine\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for line in settings.lines() {
        assert!(line.contains("  (") && line.ends_with(')'), "a default without its derivation: {line}");
    }

    let json = context.run(["doctor", "--json"]).assert_code(0).json();
    assert_eq!(json["apps"], 1);
    assert_eq!(json["state"].as_str(), context.state("").to_str().map(|path| path.trim_end_matches('/')));
    assert!(json["machine"]["ram_bytes"].as_u64().unwrap() > 0, "{json}");
    assert!(json["memory"]["available_bytes"].as_u64().unwrap() > 0, "{json}");
    assert!(!json["engine"]["build"].as_str().unwrap().is_empty(), "{json}");
    let defaults = json["defaults"].as_object().unwrap().iter().filter(|(_, setting)| setting.is_object());
    let defaults: Vec<_> = defaults.collect();
    assert!(defaults.len() >= 14, "only {defaults:?}");
    for (name, setting) in defaults {
        assert!(setting["why"].as_str().is_some_and(|why| !why.is_empty()), "{name} has no derivation: {setting}");
    }
    assert!(json["problems"].is_array(), "{json}");
}

#[test]
fn completions_and_man_pages_come_from_the_same_definitions() {
    let context = TestContext::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = context.run(["completions", shell]);
        script.assert_code(0);
        assert!(script.stdout.contains("tool-calling") || script.stdout.contains("doctor"), "{script}");
    }
    context.run(["completions", "tcsh"]).assert_code(2);
    let pages = context.run(["man", "pages", "--json"]).assert_code(0).json();
    let pages = pages["pages"].as_array().unwrap();
    for page in ["locara.1", "locara-chat.1", "locara-service-install.1"] {
        assert!(pages.contains(&page.into()), "{pages:?}");
        let text = fs_err::read_to_string(context.path("pages").join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
    }
    assert!(!pages.iter().any(|page| page.as_str().unwrap().contains("probe")), "{pages:?}");
}

#[test]
fn the_doctor_names_a_way_out_for_each_problem() {
    let context = TestContext::new();
    fs_err::create_dir_all(context.state("")).unwrap();
    fs_err::write(context.state("locara.toml"), "nonsense = 1\n").unwrap();
    fs_err::write(context.state("registry.json"), "{").unwrap();
    let json = context.run(["doctor", "--json"]).assert_code(0).json();
    let problems = json["problems"].as_array().unwrap();
    for word in ["locara.toml", "registry.json"] {
        assert!(
            problems.iter().any(|problem| problem["mend"].as_str().unwrap().contains(word)),
            "nothing about {word}: {json}"
        );
    }
    context.run(["doctor", "--strict"]).assert_code(1);
}
