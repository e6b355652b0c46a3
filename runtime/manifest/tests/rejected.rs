//! Every file that must be rejected gets exactly the report that stands beside it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeSet;

use locara_manifest::{Config, Diagnosis, Manifest, Registry};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

/// One kind of document: its folder, its ending, how many files there are at least, the first word of its codes.
struct Kind {
    folder: &'static str,
    ending: &'static str,
    at_least: usize,
    code: &'static str,
    parse: fn(&str, &[u8]) -> Option<Diagnosis>,
}

const KINDS: [Kind; 3] = [
    Kind {
        folder: "rejected",
        ending: ".json",
        at_least: 45,
        code: "locara::manifest::",
        parse: |name, bytes| Manifest::parse(name, bytes).err(),
    },
    Kind {
        folder: "registry/rejected",
        ending: ".json",
        at_least: 20,
        code: "locara::registry::",
        parse: |name, bytes| Registry::parse(name, bytes).err(),
    },
    Kind {
        folder: "config/rejected",
        ending: ".toml",
        at_least: 25,
        code: "locara::config::",
        parse: |name, bytes| Config::parse(name, bytes).err(),
    },
];

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
    for Kind { folder, ending, at_least, parse, .. } in KINDS {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(common::folder(folder));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let files = common::files(folder, ending);
        assert!(files.len() >= at_least, "only {} files in {folder}", files.len());
        for (stem, bytes) in files {
            let Some(diagnosis) = parse(&format!("{stem}{ending}"), &bytes) else {
                panic!("{folder}/{stem}{ending} was accepted")
            };
            settings.bind(|| insta::assert_snapshot!(stem.as_str(), render(&diagnosis)));
        }
    }
}

#[test]
fn no_report_is_left_over() {
    for Kind { folder, ending, .. } in KINDS {
        let stems = |ending| common::files(folder, ending).into_iter().map(|(stem, _)| stem).collect::<BTreeSet<_>>();
        assert_eq!(stems(".snap"), stems(ending), "{folder}");
    }
}

#[test]
fn every_problem_has_a_place_a_code_and_a_fix() {
    for Kind { folder, ending, code, parse, .. } in KINDS {
        for (stem, bytes) in common::files(folder, ending) {
            for problem in parse(&stem, &bytes).unwrap().problems() {
                assert!(problem.span.end <= bytes.len(), "{stem}: {problem:?}");
                assert!(!problem.fix.is_empty() && !problem.message.is_empty(), "{stem}: {problem:?}");
                assert!(problem.code().unwrap().to_string().starts_with(code), "{stem}");
            }
        }
    }
}
