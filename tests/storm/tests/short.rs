//! A storm of some seconds.

use std::process::Command;

#[test]
fn nothing_hangs_and_the_figures_of_the_host_are_those_of_the_clients() {
    let storm =
        Command::new(env!("CARGO_BIN_EXE_locara-storm")).args(["--clients", "8", "--seconds", "5"]).output().unwrap();
    let said = String::from_utf8(storm.stdout).unwrap();
    assert!(storm.status.success(), "{said}{}", String::from_utf8_lossy(&storm.stderr));
    let figures = said.lines().last().unwrap();
    assert!(figures.starts_with("figures: hung=0 leaked_slots=0 mismatched=0 requests="), "{said}");
    assert!(!figures.ends_with("requests=0"), "{said}");
}
