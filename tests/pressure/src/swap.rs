//! Swap in memory of our own: zram, for as long as it is needed.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{parse, place::Skip};

const DEVICE: &str = "/dev/zram0";
const CONTROL: &str = "/sys/block/zram0";
/// Written into the header of our swap, so that nobody else's is ever taken away.
const LABEL: &str = "locara-pressure";
/// Where `mkswap` writes the label (`union swap_header` of the kernel), bytes from the start.
const LABEL_AT: u64 = 1024 + 3 * 4 + 16;

/// Whether swap can be switched on and off here.
pub(crate) fn possible() -> Result<(), Skip> {
    let skip = |why: &str| Err(Skip(why.to_owned()));
    if !Path::new(DEVICE).exists() {
        return skip("there is no /dev/zram0 (modprobe zram)");
    }
    if !active().map_err(|error| Skip(error.to_string()))?.is_empty() {
        return skip("this machine swaps already, so the half without swap cannot be staged");
    }
    if fs_err::read_to_string(format!("{CONTROL}/disksize")).is_ok_and(|size| size.trim() != "0") {
        return skip("/dev/zram0 is in use");
    }
    let there = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
    match ["mkswap", "swapon", "swapoff"].iter().find(|tool| !there(tool)) {
        Some(tool) => skip(&format!("{tool} is not installed (util-linux)")),
        None => Ok(()),
    }
}

/// Switches it on. The janitor switches it off if we do not.
pub(crate) fn on(bytes: u64) -> Result<()> {
    fs_err::write(format!("{CONTROL}/disksize"), bytes.to_string())?;
    call("mkswap", &["--label", LABEL, DEVICE])?;
    call("swapon", &[DEVICE])
}

/// Switches our swap off and gives its memory back. Swap that is not ours stays.
pub(crate) fn off() -> Result<()> {
    if active()?.iter().any(|name| name == DEVICE) {
        if !is_ours() {
            return Ok(());
        }
        call("swapoff", &[DEVICE])?;
    } else if !is_ours() {
        return Ok(());
    }
    fs_err::write(format!("{CONTROL}/reset"), "1").context("give the memory of zram back")
}

fn active() -> Result<Vec<String>> {
    let text = fs_err::read_to_string("/proc/swaps")?;
    Ok(parse::swaps(&text).into_iter().map(str::to_owned).collect())
}

fn is_ours() -> bool {
    let mut label = [0; LABEL.len()];
    let read = fs_err::File::open(DEVICE).and_then(|mut device| {
        device.seek(SeekFrom::Start(LABEL_AT))?;
        device.read_exact(&mut label)
    });
    read.is_ok() && label == LABEL.as_bytes()
}

fn call(tool: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(tool).args(arguments).output().with_context(|| format!("start {tool}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
