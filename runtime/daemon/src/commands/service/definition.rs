//! What service managers are told: a systemd user unit and a LaunchAgent. Pure text out of paths.

use std::path::PathBuf;

/// The name of the unit.
pub(super) const UNIT: &str = "locara.service";
/// The label of the agent.
pub(super) const LABEL: &str = "org.locara.locara";
/// After SIGTERM, until the process is killed, seconds: `locara serve` lets answers end for 30.
const STOP_S: u32 = 45;

/// What is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// The binary, by its whole path.
    pub(super) program: PathBuf,
    /// Variables that count for the commands of this user, and thus for the service.
    pub(super) environment: Vec<(String, String)>,
    /// Where a LaunchAgent writes; systemd has the journal.
    pub(super) log: PathBuf,
}

/// The unit for `systemd --user`.
///
/// The service manager is asked to watch memory pressure, so that the host hears of its own group and not of the whole
/// machine alone. A host that cannot start, because its port is taken for example, is tried five times in two minutes.
pub(super) fn systemd_unit(unit: &Unit) -> String {
    let environment: String = unit
        .environment
        .iter()
        .map(|(name, value)| format!("Environment={}\n", systemd_quoted(&format!("{name}={value}"))))
        .collect();
    format!(
        "\
# Written by `locara service install`, which writes it anew each time.
# Settings of your own: `systemctl --user edit locara`.

[Unit]
Description=Locara, local models for this user
StartLimitIntervalSec=120
StartLimitBurst=5

[Service]
Type=exec
ExecStart={} serve
{environment}Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
TimeoutStopSec={STOP_S}
MemoryPressureWatch=on

[Install]
WantedBy=default.target
",
        systemd_quoted(&unit.program.display().to_string())
    )
}

/// A word as systemd reads it back: in quotes, with its specifiers (`%`) doubled. It replaces no variables in paths of
/// programs and in assignments.
fn systemd_quoted(word: &str) -> String {
    let mut quoted = String::from('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The property list for launchd.
///
/// `Interactive`, because launchd throttles processors and disk of every other type. Started again only after a failure, so
/// that `locara service stop` holds. No power assertion: a Mac that wants to sleep sleeps.
pub(super) fn launch_agent(unit: &Unit) -> String {
    let string = |text: &str| format!("<string>{}</string>", xml_escaped(text));
    let environment: String = unit
        .environment
        .iter()
        .map(|(name, value)| format!("\t\t<key>{}</key>\n\t\t{}\n", xml_escaped(name), string(value)))
        .collect();
    let environment = if environment.is_empty() {
        environment
    } else {
        format!("\t<key>EnvironmentVariables</key>\n\t<dict>\n{environment}\t</dict>\n")
    };
    let (program, log) = (unit.program.display().to_string(), unit.log.display().to_string());
    format!(
        "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<!-- Written by `locara service install`, which writes it anew each time. -->
<plist version=\"1.0\">
<dict>
\t<key>Label</key>
\t<string>{LABEL}</string>
\t<key>ProgramArguments</key>
\t<array>
\t\t{}
\t\t<string>serve</string>
\t</array>
{environment}\t<key>ProcessType</key>
\t<string>Interactive</string>
\t<key>RunAtLoad</key>
\t<true/>
\t<key>KeepAlive</key>
\t<dict>
\t\t<key>SuccessfulExit</key>
\t\t<false/>
\t</dict>
\t<key>ExitTimeOut</key>
\t<integer>{STOP_S}</integer>
\t<key>StandardOutPath</key>
\t{log}
\t<key>StandardErrorPath</key>
\t{log}
</dict>
</plist>
",
        string(&program),
        log = string(&log)
    )
}

fn xml_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn unit() -> Unit {
        Unit {
            program: "/opt/with space/100%/$HOME/a\"b/locara".into(),
            environment: vec![("LOCARA_HOME".to_owned(), "/data/<models> & 5 %".to_owned())],
            log: "/Users/me/Library/Logs/locara.log".into(),
        }
    }

    #[test]
    fn a_unit_of_systemd() {
        assert_snapshot!("systemd", systemd_unit(&unit()));
    }

    #[test]
    fn an_agent_of_launchd() {
        assert_snapshot!("launchd", launch_agent(&unit()));
        let plain = launch_agent(&Unit { environment: Vec::new(), ..unit() });
        assert!(!plain.contains("EnvironmentVariables"), "{plain}");
        // Anything else than Interactive costs most of the speed.
        assert!(plain.contains("<key>ProcessType</key>\n\t<string>Interactive</string>"), "{plain}");
    }
}
