//! Whether systemd will start the unit again, asked from its ExecStopPost: over a restart the rules must stay, or the
//! kernel would answer the packets of the packet modes in the meantime.

use std::process::Command;

/// What to do with the rules, and why (for the journal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClearDecision {
    /// Leave them: the unit comes back.
    Keep(&'static str),
    /// Take them out.
    Clear(&'static str),
}

/// How the unit's main process ended: what systemd tells in the environment of ExecStopPost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// `$SERVICE_RESULT`, such as `success`, `exit-code`, `signal`, `watchdog`.
    pub result: Option<String>,
    /// `$EXIT_STATUS`: a number or the name of a signal such as `KILL`.
    pub status: Option<String>,
}

impl Ending {
    /// From the environment of this process.
    #[must_use]
    pub fn from_environment() -> Self {
        Self {
            result: std::env::var("SERVICE_RESULT").ok(),
            status: std::env::var("EXIT_STATUS").ok(),
        }
    }
}

/// What `systemctl` said about a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Of `systemctl list-jobs --no-legend --plain UNIT`: id, unit, type and state, a line a job.
    pub jobs: String,
    /// Of `systemctl show -p Restart -p RestartPreventExitStatus -p RestartForceExitStatus UNIT`: `Name=value` lines.
    pub properties: String,
}

/// Asks systemd about a unit; `None` when it cannot be asked.
#[must_use]
pub fn ask(unit: &str) -> Option<Answers> {
    let systemctl = |arguments: &[&str]| {
        let output = Command::new("systemctl")
            .arg("--no-pager")
            .args(arguments)
            .arg("--")
            .arg(unit)
            .output()
            .ok()?;
        (output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let properties = "--property=Restart,RestartPreventExitStatus,RestartForceExitStatus";
    Some(Answers {
        jobs: systemctl(&["list-jobs", "--no-legend", "--plain"])?,
        properties: systemctl(&["show", properties])?,
    })
}

/// Whether a unit that has just stopped comes back. A job decides (somebody ordered a stop, restart or start); without one
/// the unit ended by itself, and its `Restart=` settings decide as in systemd.service(5). So they do for a start that is
/// running: it is the one that just failed, be it ordered, automatic, or the second half of a restart.
#[must_use]
pub fn decide(unit: &str, answers: Option<&Answers>, ending: &Ending) -> ClearDecision {
    let Some(answers) = answers else {
        return match ending.result.as_deref() {
            Some(result) if result != "success" => {
                ClearDecision::Keep("systemd does not answer, and the failed unit will restart")
            }
            _ => ClearDecision::Clear("systemd does not answer whether the unit will restart"),
        };
    };
    match job(&answers.jobs, unit) {
        Some(("stop", _)) => ClearDecision::Clear("the unit is being stopped"),
        Some(("restart" | "try-restart", _) | ("start" | "reload-or-start", "waiting")) => {
            ClearDecision::Keep("the unit is being restarted")
        }
        Some(_) | None => by_settings(&answers.properties, ending),
    }
}

/// Type and state of the unit's job.
fn job<'a>(jobs: &'a str, unit: &str) -> Option<(&'a str, &'a str)> {
    jobs.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (_id, name, kind, state) = (words.next()?, words.next()?, words.next()?, words.next()?);
        (name == unit).then_some((kind, state))
    })
}

fn by_settings(properties: &str, ending: &Ending) -> ClearDecision {
    let listed = |name: &str| {
        ending.status.as_deref().is_some_and(|status| {
            let signal = format!("SIG{status}");
            property(properties, name)
                .split_whitespace()
                .any(|word| word == status || word == signal)
        })
    };
    let result = ending.result.as_deref().unwrap_or("success");
    if result == "start-limit-hit" {
        ClearDecision::Clear("the unit failed too often")
    } else if listed("RestartPreventExitStatus") {
        ClearDecision::Clear("the unit will not restart after this exit status")
    } else if listed("RestartForceExitStatus") {
        ClearDecision::Keep("the unit will restart after this exit status")
    } else if restarts(property(properties, "Restart"), result) {
        ClearDecision::Keep("the unit will restart automatically")
    } else {
        ClearDecision::Clear("the unit will not restart")
    }
}

/// The value of a `Name=value` line; empty without one.
fn property<'a>(properties: &'a str, name: &str) -> &'a str {
    let mut lines = properties.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_default()
}

/// The table of `Restart=` in systemd.service(5).
fn restarts(setting: &str, result: &str) -> bool {
    match setting {
        "always" => true,
        "on-success" => result == "success",
        "on-failure" => result != "success",
        "on-abnormal" => !matches!(result, "success" | "exit-code"),
        "on-abort" => matches!(result, "signal" | "core-dump"),
        "on-watchdog" => result == "watchdog",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "convey.service";
    const PROPERTIES: &str = "Restart=on-failure\nRestartPreventExitStatus=78 64\nRestartForceExitStatus=\n";

    fn answers(jobs: &str, properties: &str) -> Answers {
        Answers {
            jobs: jobs.into(),
            properties: properties.into(),
        }
    }

    fn ending(result: &str, status: &str) -> Ending {
        Ending {
            result: Some(result.into()),
            status: Some(status.into()),
        }
    }

    fn keeps(answers: Option<&Answers>, ending: &Ending) -> bool {
        matches!(decide(UNIT, answers, ending), ClearDecision::Keep(_))
    }

    #[test]
    fn an_ordered_stop_clears_and_an_ordered_restart_keeps() {
        let clean = ending("success", "0");
        for (jobs, kept) in [
            ("1234 convey.service stop running\n", false),
            ("1234 convey.service restart running\n", true),
            ("1234 convey.service try-restart waiting\n", true),
            ("1234 convey.service start waiting\n", true),
            (
                "1233 other.service restart running\n1234 convey.service stop running\n",
                false,
            ),
            ("1233 convey.service.wants restart running\n", false),
        ] {
            assert_eq!(keeps(Some(&answers(jobs, PROPERTIES)), &clean), kept, "{jobs}");
        }
    }

    #[test]
    fn a_start_that_fails_is_no_restart() {
        let jobs = answers("7 convey.service start running\n", PROPERTIES);
        assert!(!keeps(Some(&jobs), &ending("exit-code", "78")));
        // systemd tries again
        assert!(keeps(Some(&jobs), &ending("exit-code", "71")));
        assert!(keeps(Some(&jobs), &ending("signal", "KILL")));
        // somebody else did before
        let jobs = answers("7 convey.service start waiting\n", PROPERTIES);
        assert!(keeps(Some(&jobs), &ending("exit-code", "78")));
    }

    #[test]
    fn a_stop_clears_even_when_the_daemon_had_to_be_killed_for_it() {
        let jobs = answers("7 convey.service stop running\n", PROPERTIES);
        assert!(!keeps(Some(&jobs), &ending("timeout", "KILL")));
    }

    #[test]
    fn a_crash_keeps_what_the_restarted_unit_takes_over() {
        let no_job = answers("", PROPERTIES);
        for ended in [
            ending("signal", "KILL"),
            ending("core-dump", "ABRT"),
            ending("exit-code", "70"),
            ending("watchdog", "ABRT"),
            ending("oom-kill", "KILL"),
        ] {
            assert!(keeps(Some(&no_job), &ended), "{ended:?}");
        }
    }

    #[test]
    fn a_final_failure_or_a_clean_end_clears() {
        let no_job = answers("No jobs running.\n", PROPERTIES);
        for ended in [
            ending("exit-code", "78"),
            ending("start-limit-hit", "1"),
            ending("success", "0"),
            Ending::default(),
        ] {
            assert!(!keeps(Some(&no_job), &ended), "{ended:?}");
        }
    }

    #[test]
    fn exit_statuses_and_signals_that_force_or_prevent_a_restart_count() {
        let force = answers(
            "",
            "Restart=no\nRestartPreventExitStatus=TERM\nRestartForceExitStatus=3 SIGUSR1\n",
        );
        for (ended, kept) in [
            (ending("exit-code", "3"), true),
            (ending("signal", "USR1"), true),
            (ending("signal", "TERM"), false),
            (ending("exit-code", "33"), false),
        ] {
            assert_eq!(keeps(Some(&force), &ended), kept, "{ended:?}");
        }
    }

    #[test]
    fn the_restart_settings_mean_what_systemd_says() {
        let results = [
            "success",
            "exit-code",
            "signal",
            "core-dump",
            "timeout",
            "watchdog",
        ];
        for (setting, restarted) in [
            ("no", "000000"),
            ("always", "111111"),
            ("on-success", "100000"),
            ("on-failure", "011111"),
            ("on-abnormal", "001111"),
            ("on-abort", "001100"),
            ("on-watchdog", "000001"),
        ] {
            let told: String = results
                .iter()
                .map(|result| if restarts(setting, result) { '1' } else { '0' })
                .collect();
            assert_eq!(told, restarted, "{setting}");
        }
    }

    #[test]
    fn without_systemd_only_a_failure_keeps_them() {
        assert!(keeps(None, &ending("signal", "KILL")));
        assert!(!keeps(None, &ending("success", "0")));
        assert!(!keeps(None, &Ending::default()));
    }
}
