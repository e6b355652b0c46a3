//! Chores of this repository that are too much for a line of make: `cargo xtask <chore>`.

mod apps;
mod deps;
mod metadata;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask <chore>

  apps [NAME…]   build the apps (plugins/*, tests/guests/*) into dist/apps/<name>/
  check-deps     test that dependencies between our crates point downwards only";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["apps", names @ ..] => apps::build(names),
        ["check-deps"] => deps::check(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
