//! `locara run`: output, card, errors.

use fs_err as fs;
use insta::assert_snapshot;
use locara_e2e::{Outcome, TestContext, repository};

/// The document of `make demo`.
const DOCUMENT: &str = "ARCHITECTURE.md";

fn with_neighbour() -> TestContext {
    let context = TestContext::with_apps(&["guest-neighbour"]);
    fs::create_dir(context.home("data")).unwrap();
    context
}

/// The lines of the card below one name: the name stands in the first ten columns, or nothing does.
fn card<'a>(outcome: &'a Outcome, name: &str) -> Vec<&'a str> {
    let lines = outcome.stderr.lines().filter_map(|line| Some((line.get(..10)?.trim(), line.get(10..)?.trim())));
    lines
        .skip_while(|(head, _)| *head != name)
        .enumerate()
        .take_while(|(i, (head, _))| *i == 0 || head.is_empty())
        .map(|(_, (_, rest))| rest)
        .collect()
}

/// The main job of the whole project.
#[test]
fn a_document_longer_than_the_context_is_summarised_the_same_every_time() {
    let context = TestContext::with_apps(&["summarize", "guest-neighbour"]);
    fs::create_dir(context.home("data")).unwrap();
    fs::copy(repository(DOCUMENT), context.path(DOCUMENT)).unwrap();

    let counted = context.run(["run", "neighbour", "--no-card", "--input", DOCUMENT, "--", "count"]);
    counted.assert_code(0);
    let (tokens, length) = counted.stdout.trim().split_once(" of ").unwrap();
    let (tokens, length): (u32, u32) = (tokens.parse().unwrap(), length.parse().unwrap());
    assert!(tokens > length, "the document has {tokens} tokens and fits into a context of {length}");

    let first = context.run(["run", "summarize", "--input", DOCUMENT]);
    first.assert_code(0);
    assert!(!first.stdout.trim().is_empty(), "{first}");

    let made = card(&first, "tokens");
    assert!(made.len() == 1 && made[0].contains(" in ") && made[0].contains(" of prompt"), "{first}");
    let memory = card(&first, "memory");
    for kind in ["weights, mapped", "KV", "compute"] {
        let line = memory.iter().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("no {kind}:\n{first}"));
        assert!(line.ends_with("as predicted"), "{line}");
    }
    assert!(memory.iter().any(|line| line.starts_with("guest memory") && line.ends_with("peak")), "{first}");
    assert!(card(&first, "resident")[0].ends_with("of which anonymous 0 B"), "weights were copied: {first}");
    assert!(card(&first, "swap")[0].contains("bytes used"), "{first}");
    assert!(card(&first, "time")[0].contains("first token after"), "{first}");
    assert!(card(&first, "allowed")[0].starts_with("model:default, memory:"), "{first}");
    assert_eq!(card(&first, "refused"), Vec::<&str>::new());

    let again = context.run(["run", "summarize", "--input", DOCUMENT, "--json"]);
    let json = again.assert_code(0).json();
    assert_eq!(
        json["output"].as_str().map(str::trim_end),
        Some(first.stdout.trim_end()),
        "another summary of the same text"
    );
    assert_eq!(json["error"], serde_json::Value::Null);
    let answers = json["card"]["answers"].as_u64().unwrap();
    assert!(answers > 1, "a document of {tokens} tokens was read in {answers} answers");
}

#[test]
fn the_card_as_json_has_every_figure() {
    let context = with_neighbour();
    let run = context.run_with_input(["run", "neighbour", "--json", "--", "ask", "8"], "Say hello.");
    let json = run.assert_code(0).json();
    let card = &json["card"];
    let numbers = [
        "answers",
        "prompt_tokens",
        "cached_tokens",
        "output_tokens",
        "first_token_ms",
        "wall_ms",
        "load_ms",
        "resident_file",
        "resident_anonymous",
        "weights_resident",
        "weights_anonymous",
        "swap_used_change",
        "swap_written",
    ];
    for name in numbers {
        assert!(card[name].is_number(), "{name}: {card}");
    }
    assert_eq!(card["answers"], 1);
    assert!((1..=8).contains(&card["output_tokens"].as_u64().unwrap()), "{card}");
    assert!(card["prompt_tokens"].as_u64() > Some(0) && card["weights_resident"].as_u64() > Some(0), "{card}");
    assert_eq!(card["weights_anonymous"], 0, "weights are pages of the file and nothing else");
    assert_eq!(card["denied"], serde_json::json!([]));
    assert!(card["model"].as_str().unwrap().starts_with("locara-tiny@"), "{card}");
    for row in card["memory"].as_array().unwrap() {
        match row["predicted"].as_u64() {
            Some(predicted) => assert_eq!(Some(predicted), row["measured"].as_u64(), "{row}"),
            None => assert_eq!(row["kind"], "guest memory"),
        }
    }
    assert_eq!(json["report"]["tokens"]["output"], card["output_tokens"]);
    assert_eq!(run.stderr, "", "with --json nobody is talked to");
}

#[test]
fn the_same_question_has_the_same_answer_in_every_process() {
    let context = with_neighbour();
    let ask = || context.run_with_input(["run", "neighbour", "--no-card", "--", "ask", "24"], "What is a ledger?");
    let (first, second) = (ask(), ask());
    first.assert_code(0);
    assert_eq!((&first.stdout, &first.stderr), (&second.stdout, &second.stderr));
    assert!(!first.stdout.trim().is_empty(), "{first}");
}

/// Standard output is the app's alone: what a pipe gets is what the app wrote, byte for byte.
#[test]
fn output_is_what_the_app_wrote() {
    let context = with_neighbour();
    let text = "one\r\ntwo\n\nthree \u{1f980} without an end of line";
    context.write("input.txt", text);
    for input in [vec!["--input", "input.txt"], vec![]] {
        let arguments = ["run", "neighbour"].into_iter().chain(input).chain(["--no-card", "--", "echo"]);
        let echoed = context.run_with_input(arguments, text);
        echoed.assert_code(0);
        assert_eq!(echoed.stdout, text);
        assert_eq!(echoed.stderr, "");
    }
}

#[test]
fn nothing_to_read() {
    let context = TestContext::with_apps(&["summarize"]);
    assert_snapshot!(context.run(["run", "summarize"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × Summarize 0.1.0 (org.locara.summarize) reports: there is nothing to summarise: the input is
      │ empty; try `locara run summarize --input FILE`
    ");
    context.write("blank.txt", " \n\t\n");
    context
        .run(["run", "summarize", "--input", "blank.txt"])
        .assert_code(1)
        .assert_says("there is nothing to summarise");
    assert_snapshot!(context.run(["run", "summarize", "--input", "missing.txt"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × cannot read the input
      ╰─▶ failed to open file `missing.txt`: No such file or directory (os error 2)
    ");
    context.run(["run", "summarize", "--input", "."]).assert_code(1);
}

#[test]
fn what_cannot_be_run() {
    let context = TestContext::with_apps(&["summarize"]);
    assert_snapshot!(context.run(["run", "summarise"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × no installed app is called `summarise`
      help: installed are: org.locara.summarize
    ");
    assert_snapshot!(TestContext::new().run(["run", "summarize"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
      × no installed app is called `summarize`
      help: no app is installed; `locara install FOLDER` installs one
    ");
    let refused = context.run_with_input(["run", "summarize", "--", "--words", "many"], "Some text.");
    refused.assert_code(1).assert_says("reports: --words takes a whole number");
    fs::write(context.state("apps/org.locara.summarize/app.wasm"), "damaged").unwrap();
    context.run(["run", "summarize"]).assert_code(1).assert_says("is not the component that its manifest names");
}

/// Folders that are granted work; what lies beside them does not exist for the app.
#[test]
fn an_app_reaches_its_folders_and_nothing_else() {
    let context = with_neighbour();
    fs::write(context.home("data/note.txt"), "a note").unwrap();
    fs::write(context.home("secret.txt"), "a secret").unwrap();
    let copy = |from: &str| context.run(["run", "neighbour", "--no-card", "--", "copy", from, "~/data/copy.txt"]);
    copy("~/data/note.txt").assert_code(0);
    assert_eq!(fs::read_to_string(context.home("data/copy.txt")).unwrap(), "a note");
    let refused = copy("~/secret.txt");
    refused.assert_code(1).assert_says("it was refused capabilities.folders");
    assert_ne!(fs::read_to_string(context.home("data/copy.txt")).unwrap(), "a secret");
    copy("~/data/../secret.txt").assert_code(1);
}

/// What an app stores is there in the next run.
#[test]
fn storage_lasts() {
    let context = with_neighbour();
    let store = |value: &str| context.run_with_input(["run", "neighbour", "--no-card", "--", "store", "key"], value);
    assert!(store("first").assert_code(0).stdout.starts_with("None "), "a fresh storage is empty");
    let second = store("second");
    assert!(second.assert_code(0).stdout.starts_with(&format!("Some({:?}) ", b"first")), "{second}");
}
