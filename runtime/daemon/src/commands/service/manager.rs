//! The service managers: `systemd --user` and launchd, through their own commands.
//!
//! Both are compiled everywhere, so that one cannot rot where the other one runs. launchd has only been type-checked so far.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::definition::{LABEL, UNIT, Unit, launch_agent, systemd_unit};
use crate::{
    cli::LogsArgs,
    exit::Exit,
    failure::{Failure, io as io_failed},
};

/// What a manager says of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct State {
    /// In the manager's words: `active`, `failed`, `not loaded`, …
    pub(in crate::commands) word: String,
    /// Whether it runs now.
    pub(in crate::commands) running: bool,
    /// Its process.
    pub(in crate::commands) pid: Option<u32>,
    /// Whether it starts at login; none if the manager does not say.
    pub(in crate::commands) at_login: Option<bool>,
}

/// Who starts services for a user.
pub(super) trait Manager {
    /// What people call it.
    fn name(&self) -> &'static str;
    /// Where it looks for the definition.
    fn file(&self) -> Result<PathBuf, Failure>;
    /// The definition.
    fn text(&self, unit: &Unit) -> String;
    /// Reads the definition, starts it at every login and now.
    fn enable(&self, file: &Path) -> Result<(), Failure>;
    /// Stops it, and starts it no more.
    fn disable(&self) -> Result<(), Failure>;
    /// Takes note that the definition is gone.
    fn forget(&self) -> Result<(), Failure>;
    fn start(&self) -> Result<(), Failure>;
    fn stop(&self) -> Result<(), Failure>;
    /// A failure if the manager is not to be reached.
    fn state(&self) -> Result<State, Failure>;
    /// The command that shows what the service wrote.
    fn logs(&self, args: &LogsArgs) -> Result<Command, Failure>;
}

/// That of this system.
pub(super) fn here() -> &'static dyn Manager {
    if cfg!(target_os = "macos") { &Launchd } else { &Systemd }
}

/// Where a LaunchAgent writes.
pub(super) fn log_file() -> Result<PathBuf, Failure> {
    Ok(home()?.join("Library/Logs/locara.log"))
}

fn home() -> Result<PathBuf, Failure> {
    let base = directories::BaseDirs::new();
    base.map(|base| base.home_dir().to_owned())
        .ok_or_else(|| Failure::new(Exit::Failure, "there is no home folder for a service").help("set HOME"))
}

/// Runs a command of a manager and gives what it printed.
fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let said = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| {
        let failure = Failure::new(Exit::Failure, format!("cannot run `{said}`"));
        if error.kind() == io::ErrorKind::NotFound {
            let help = format!(
                "{program} is not here, so nothing can be started at login with it; let what this system has start `locara serve`"
            );
            return failure.because(error).help(help);
        }
        failure.because(error)
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let failure = Failure::new(Exit::Failure, format!("`{said}` fails: {error}"));
    Err(if error.contains("connect to bus") || error.contains("connect to user scope bus") {
        failure.help(
            "there is no session of systemd for this user here: log in as this user, or let it run without logins: \
             loginctl enable-linger",
        )
    } else {
        failure
    })
}

/// Linux.
struct Systemd;

impl Manager for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }
    fn file(&self) -> Result<PathBuf, Failure> {
        let config = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let config = config.map_or_else(|| home().map(|home| home.join(".config")), Ok)?;
        Ok(config.join("systemd/user").join(UNIT))
    }
    fn text(&self, unit: &Unit) -> String {
        systemd_unit(unit)
    }
    fn enable(&self, _file: &Path) -> Result<(), Failure> {
        run("systemctl", &["--user", "daemon-reload"])?;
        run("systemctl", &["--user", "enable", UNIT])?;
        // Not `--now`: what runs already is to run from the new definition.
        run("systemctl", &["--user", "restart", UNIT]).map(drop)
    }
    fn disable(&self) -> Result<(), Failure> {
        run("systemctl", &["--user", "disable", "--now", UNIT]).map(drop)
    }
    fn forget(&self) -> Result<(), Failure> {
        run("systemctl", &["--user", "daemon-reload"]).map(drop)
    }
    fn start(&self) -> Result<(), Failure> {
        run("systemctl", &["--user", "start", UNIT]).map(drop)
    }
    fn stop(&self) -> Result<(), Failure> {
        run("systemctl", &["--user", "stop", UNIT]).map(drop)
    }
    fn state(&self) -> Result<State, Failure> {
        let properties = "--property=ActiveState,SubState,MainPID,UnitFileState,Result";
        Ok(systemd_state(&run("systemctl", &["--user", "show", UNIT, properties])?))
    }
    fn logs(&self, args: &LogsArgs) -> Result<Command, Failure> {
        let mut command = Command::new("journalctl");
        command.args(["--user", "--unit", UNIT, "--no-pager", "--output", "short-iso", "--lines"]);
        command.arg(args.lines.to_string());
        command.args(args.follow.then_some("--follow"));
        Ok(command)
    }
}

/// Reads `Name=value` lines.
fn systemd_state(text: &str) -> State {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.filter(|value| !value.is_empty())
    };
    let active = field("ActiveState").unwrap_or("unknown");
    let word = match (active, field("SubState"), field("Result")) {
        ("failed", _, Some(result)) => format!("failed: {result}"),
        // Between two tries of a service that fails.
        (active, Some("auto-restart"), Some(result)) => format!("{active}, waits to start again after: {result}"),
        (active, ..) => active.to_owned(),
    };
    State {
        word,
        running: active == "active",
        pid: field("MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0),
        at_login: field("UnitFileState").map(|state| state.starts_with("enabled")),
    }
}

/// macOS.
struct Launchd;

impl Launchd {
    /// The domain of this user's session.
    fn domain() -> String {
        format!("gui/{}", rustix::process::getuid().as_raw())
    }
    fn target() -> String {
        format!("{}/{LABEL}", Self::domain())
    }
}

impl Manager for Launchd {
    fn name(&self) -> &'static str {
        "launchd"
    }
    fn file(&self) -> Result<PathBuf, Failure> {
        Ok(home()?.join("Library/LaunchAgents").join(format!("{LABEL}.plist")))
    }
    fn text(&self, unit: &Unit) -> String {
        launch_agent(unit)
    }
    fn enable(&self, file: &Path) -> Result<(), Failure> {
        // What is loaded keeps its old definition until it is unloaded; that nothing is loaded is no failure.
        let _ = run("launchctl", &["bootout", &Self::target()]);
        run("launchctl", &["enable", &Self::target()])?;
        run("launchctl", &["bootstrap", &Self::domain(), &file.display().to_string()]).map(drop)
    }
    fn disable(&self) -> Result<(), Failure> {
        run("launchctl", &["bootout", &Self::target()]).map(drop)
    }
    fn forget(&self) -> Result<(), Failure> {
        Ok(()) // `bootout` did
    }
    fn start(&self) -> Result<(), Failure> {
        run("launchctl", &["kickstart", &Self::target()]).map(drop)
    }
    fn stop(&self) -> Result<(), Failure> {
        // It ends well then, and is not started again: see `KeepAlive`.
        run("launchctl", &["kill", "SIGTERM", &Self::target()]).map(drop)
    }
    fn state(&self) -> Result<State, Failure> {
        // It fails for what is not loaded, and says so.
        Ok(launchd_state(run("launchctl", &["print", &Self::target()]).ok().as_deref()))
    }
    fn logs(&self, args: &LogsArgs) -> Result<Command, Failure> {
        let file = log_file()?;
        fs_err::metadata(&file).map_err(|error| {
            io_failed("read the log", error).help("the service writes it; `locara service status` says whether it runs")
        })?;
        let mut command = Command::new("tail");
        command.args(["-n", &args.lines.to_string()]).args(args.follow.then_some("-F")).arg(file);
        Ok(command)
    }
}

/// Reads `name = value` lines; none if nothing is loaded.
fn launchd_state(text: Option<&str>) -> State {
    let field = |name: &str| {
        let lines = text?.lines().map(str::trim);
        lines.filter_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('=')).map(str::trim).next()
    };
    let word = field("state").unwrap_or("not loaded");
    State {
        word: word.to_owned(),
        running: word == "running",
        pid: field("pid").and_then(|pid| pid.parse().ok()),
        at_login: Some(text.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says() {
        let state = |text: &str| systemd_state(text);
        let runs = state("Result=success\nMainPID=4711\nActiveState=active\nSubState=running\nUnitFileState=enabled\n");
        assert_eq!(runs, State { word: "active".into(), running: true, pid: Some(4711), at_login: Some(true) });
        let failed =
            state("Result=exit-code\nMainPID=0\nActiveState=failed\nSubState=failed\nUnitFileState=disabled\n");
        assert_eq!(
            failed,
            State { word: "failed: exit-code".into(), running: false, pid: None, at_login: Some(false) }
        );
        let again = state("Result=exit-code\nMainPID=0\nActiveState=activating\nSubState=auto-restart\n");
        assert!(!again.running && again.word.contains("exit-code"), "{again:?}");
        let unknown = state("Result=success\nMainPID=0\nActiveState=inactive\nSubState=dead\nUnitFileState=\n");
        assert_eq!(unknown, State { word: "inactive".into(), running: false, pid: None, at_login: None });
    }

    #[test]
    fn what_launchd_says() {
        let text = "gui/501/org.locara.locara = {\n\tactive count = 1\n\tstate = running\n\n\tpid = 4711\n\tendpoints = {\n\t}\n}\n";
        let runs = launchd_state(Some(text));
        assert_eq!(runs, State { word: "running".into(), running: true, pid: Some(4711), at_login: Some(true) });
        let gone = launchd_state(None);
        assert_eq!(gone, State { word: "not loaded".into(), running: false, pid: None, at_login: Some(false) });
    }
}
