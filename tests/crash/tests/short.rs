//! Some kills, at least one in each scene.

use std::process::Command;

#[test]
fn a_killed_process_loses_nothing_and_leaves_nothing_in_part() {
    let crash = Command::new(env!("CARGO_BIN_EXE_locara-crash")).args(["--kills", "14"]).output().unwrap();
    let said = String::from_utf8(crash.stdout).unwrap();
    assert!(crash.status.success(), "{said}{}", String::from_utf8_lossy(&crash.stderr));
    assert_eq!(said.lines().last(), Some("figures: kills=14 lost=0 half_written=0"), "{said}");
}
