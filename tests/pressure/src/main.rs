//! `make pressure`: real memory pressure around the real `locara`.
//!
//! In a control group with a memory limit a host streams an answer to an app while a neighbour takes, step by step, more than
//! what is left. Once with swap and once without; with the governor and, to show what it prevents, with the governor switched
//! off; and with only one of the two. It prints what happened and one line of figures, and fails if a promise was broken.
//!
//! It needs root and a place to make control groups in; elsewhere it says loudly that it was skipped. It changes nothing of
//! anybody else's, and a janitor cleans up however it ends.

#[cfg(target_os = "linux")]
mod enter;
#[cfg(target_os = "linux")]
mod group;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod janitor;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod neighbour;
#[cfg(target_os = "linux")]
mod parse;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
mod swap;
#[cfg(target_os = "linux")]
mod watch;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<std::process::ExitCode> {
    use anyhow::bail;

    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|argument| argument.to_str().unwrap_or("")).collect();
    match words.as_slice() {
        [] => return stage::all(),
        [enter::MODE, ..] => enter::work(&arguments[1..])?,
        [neighbour::MODE, step_mib, steps, pause_ms] => neighbour::work(neighbour::Appetite {
            step_mib: step_mib.parse()?,
            steps: steps.parse()?,
            pause_ms: pause_ms.parse()?,
        })?,
        [janitor::MODE, pid, folder] => janitor::work(pid, folder.as_ref())?,
        _ => bail!("it takes no arguments; see `make pressure`"),
    }
    Ok(std::process::ExitCode::SUCCESS)
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("SKIPPED: only Linux has control groups. Nothing was tested.");
}
