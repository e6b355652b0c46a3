//! `locara check`: every problem of a manifest at once.

use std::path::Path;

use locara_manifest::{Diagnosis, Grants, Manifest};
use serde_json::json;

use crate::{exit::Exit, failure::Failure, installed, print};

pub(super) fn run(path: &Path, as_json: bool) -> Result<Exit, Failure> {
    let (file, text) = installed::manifest_text(path)?;
    match Manifest::parse(&file.display().to_string(), text) {
        Ok(manifest) if as_json => {
            print::json(&json!({"ok": true, "id": manifest.id.as_str(), "version": manifest.version.to_string()}));
            Ok(Exit::Success)
        }
        Ok(manifest) => {
            print::say!("{} is a valid manifest: {}", file.display(), manifest.title());
            for ask in Grants::asks(&manifest) {
                print::say!("  asks {}  {}", ask.grant, print::dim(&ask.sentence));
            }
            Ok(Exit::Success)
        }
        Err(diagnosis) if as_json => {
            print::json(&as_value(&diagnosis));
            Ok(Exit::Failure)
        }
        Err(diagnosis) => Err(Failure::report(Exit::Failure, diagnosis)),
    }
}

fn as_value(diagnosis: &Diagnosis) -> serde_json::Value {
    let problems: Vec<_> = diagnosis
        .problems()
        .iter()
        .map(|problem| {
            let (line, column) = diagnosis.position(problem.span.start);
            json!({"code": problem.code.to_string(), "message": problem.message, "line": line, "column": column,
                "why": problem.why, "fix": problem.fix})
        })
        .collect();
    json!({"ok": false, "source": diagnosis.source_name(), "problems": problems, "omitted": diagnosis.omitted()})
}
