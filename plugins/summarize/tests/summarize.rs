//! The plugin against a scripted model: what it asks, what it writes, how it behaves when memory is tight.

use locara::testing::{self, Ended, Question, Run, Script, Turn};
use locara::{Budget, Error, Pressure};
use summarize::summarize;

const QUESTION: &str = "Summarize the following part of a document in one or two sentences.\n\n";

/// Paragraphs that say which they are.
fn document(paragraphs: usize) -> String {
    let paragraph = |n| format!("Paragraph {n} tells what happened in year {n}. ").repeat(4);
    (1..=paragraphs).map(paragraph).collect::<Vec<_>>().join("\n\n")
}

/// A small model: 512 tokens, and a summary that names the first paragraph it was given.
fn small_model() -> Script {
    Script::new().context_tokens(512).answer(|question: &Question| {
        let text = question.prompt().split_once("\n\n").map_or("", |(_, text)| text);
        format!("{} ({} bytes).", text.split('.').next().unwrap_or_default(), text.len())
    })
}

/// All text that the first questions brought to the model, up to the first that was about summaries.
fn first_reading(run: &Run) -> String {
    let parts = run.questions.iter().map(|question| question.prompt().trim_start_matches(QUESTION));
    parts.take_while(|part| !part.contains("bytes)")).collect::<Vec<_>>().join(" ")
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn a_short_document_is_summarised_in_one_go() {
    let run = testing::run(summarize, Script::new().input("The sky is blue.\n").reply("Blue sky."));
    run.expect_output("Blue sky.\n");
    assert_eq!(run.questions.len(), 1);
    assert_eq!(run.questions[0].prompt(), format!("{QUESTION}The sky is blue."));
    assert_eq!(run.questions[0].request.sampling.temperature, Some(0.0), "the same document, the same summary");
}

#[test]
fn a_long_document_is_read_part_by_part_and_whole() {
    let document = document(40);
    let run = testing::run(summarize, small_model().input(document.as_str()));

    run.result.as_ref().expect("it fits, part by part");
    assert!(run.output.starts_with("Paragraph 1 tells"), "{}", run.output);
    assert!(run.questions.len() > 5, "{} questions", run.questions.len());
    assert!(run.questions.iter().all(|question| question.ended == Ended::Answered));
    assert!(run.questions.iter().all(|question| question.history.is_empty()), "each part is read afresh");
    assert_eq!(words(&first_reading(&run)), words(&document), "every word is read, once and in order");
    for question in &run.questions {
        let part = question.prompt().trim_start_matches(QUESTION);
        assert!(part.starts_with("Paragraph "), "parts begin with paragraphs: {part:?}");
    }
}

#[test]
fn the_person_sees_how_far_it_is() {
    let run = testing::run(summarize, small_model().input(document(200)));
    let fractions: Vec<f32> = run.progress.iter().filter_map(|(fraction, _)| *fraction).collect();
    assert!(fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction)), "{fractions:?}");
    let rounds: Vec<_> = run.progress.iter().filter(|(_, message)| message == "reading part 1").collect();
    assert!(rounds.len() >= 2, "the summaries did not fit either, so they were read in parts: {:?}", run.progress);
    assert_eq!(run.progress.last().expect("progress").1, "writing the summary");
}

#[test]
fn parts_are_smaller_while_memory_is_tight() {
    let longest = |run: &Run| run.questions.iter().map(|question| question.prompt_tokens).max().expect("questions");
    let calm = testing::run(summarize, small_model().input(document(40)));
    let tight = Budget::of(1_000_000).asking(Pressure::Tight, 500_000);
    let pressed = testing::run(summarize, small_model().input(document(40)).budget(tight.clone()));
    assert!(longest(&pressed) <= longest(&calm) / 2 + 8, "{} against {}", longest(&pressed), longest(&calm));

    // From the third question on: what was read before stays read, what comes after is smaller.
    let run = testing::run(summarize, small_model().input(document(40)).budget_at(3, tight));
    let tokens: Vec<u32> = run.questions.iter().map(|question| question.prompt_tokens).collect();
    assert!(tokens[..3].iter().max() > tokens[3..].iter().max(), "{tokens:?}");
    assert_eq!(words(&first_reading(&run)), words(&document(40)), "nothing is lost or read twice");
    assert_eq!(run.releases.len(), 1, "the event was answered");
}

#[test]
fn the_wish_reaches_the_model() {
    let script = Script::new().args(["--focus", "money", "--words", "200"]).input("Text.").reply("Rich.");
    let run = testing::run(summarize, script);
    run.expect_output("Rich.\n");
    assert_eq!(
        run.questions[0].prompt(),
        "Summarize the following part of a document in about 200 words. Focus on money.\n\nText."
    );
    assert_eq!(run.questions[0].request.max_tokens, Some(600));
}

#[test]
fn a_summary_is_streamed() {
    let run = testing::run(summarize, Script::new().input("Text.").reply("A summary of several tokens."));
    assert!(run.pieces.len() > 3, "{:?}", run.pieces);
}

#[test]
fn what_goes_wrong_is_said() {
    let failure = |script: Script| testing::run(summarize, script).expect_failure().to_owned();
    assert!(failure(Script::new().input(" \n")).contains("the input is empty"));
    assert!(failure(Script::new().input(b"\xff".as_slice())).contains("not UTF-8 text: byte 0xff at offset 0"));
    assert!(failure(Script::new().args(["--words", "many"])).contains("not `many`"));
    assert!(failure(Script::new().args(["--words"])).contains("--words needs a value"));
    assert!(failure(Script::new().args(["book.txt"])).contains("unknown argument `book.txt`; usage: "));
    assert!(failure(Script::new().context_tokens(24).input(document(2))).contains("24 tokens is too small"));

    let babbling = Script::new().context_tokens(60).input(document(4)).answer(|_| "blah ".repeat(1000));
    assert!(failure(babbling).contains("does not make the text shorter"));
    let mute = Script::new().context_tokens(512).input(document(40)).answer(|_| "");
    assert!(failure(mute).contains("bytes became 0)"));
    assert!(failure(Script::new().input("Text.").reply(" ")).contains("nothing to say"));

    let taken = Turn::text("Half a sum").then_fail(Error::Interrupted("the machine needs its memory".into()));
    let run = testing::run(summarize, Script::new().input("Text.").reply(taken));
    assert_eq!(run.expect_failure(), "interrupted by the host: the machine needs its memory");
    assert_eq!(run.output, "Half a sum", "what was streamed stays");
}
