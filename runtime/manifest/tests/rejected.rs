//! Every file of `manifests/rejected` gets exactly the report that stands beside it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeSet;

use locara_manifest::{Diagnosis, Manifest};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

fn render(diagnosis: &Diagnosis) -> String {
    let handler =
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100).with_links(false);
    let mut report = String::new();
    handler.render_report(&mut report, diagnosis).unwrap();
    // Editors strip white space at the end of lines; the reports must survive that.
    report.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn each_gets_the_report_beside_it() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(common::folder("rejected"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let files = common::files("rejected", ".json");
    assert!(files.len() >= 45, "only {} files", files.len());
    for (stem, bytes) in files {
        let Err(diagnosis) = Manifest::parse(&format!("{stem}.json"), &bytes) else {
            panic!("{stem}.json was accepted")
        };
        settings.bind(|| insta::assert_snapshot!(stem.as_str(), render(&diagnosis)));
    }
}

#[test]
fn no_report_is_left_over() {
    let stems = |ending| common::files("rejected", ending).into_iter().map(|(stem, _)| stem).collect::<BTreeSet<_>>();
    assert_eq!(stems(".snap"), stems(".json"));
}

#[test]
fn every_problem_has_a_place_a_code_and_a_fix() {
    for (stem, bytes) in common::files("rejected", ".json") {
        let diagnosis = Manifest::parse(&stem, &bytes).unwrap_err();
        for problem in diagnosis.problems() {
            assert!(problem.span.end <= bytes.len(), "{stem}: {problem:?}");
            assert!(!problem.fix.is_empty() && !problem.message.is_empty(), "{stem}: {problem:?}");
            assert!(problem.code().unwrap().to_string().starts_with("locara::manifest::"), "{stem}");
        }
    }
}
