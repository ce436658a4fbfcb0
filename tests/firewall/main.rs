//! The firewall against the real programs, each test in a network namespace of its own.
//!
//! Namespaces, credentials and the environment belong to a process, so each test runs its [`scenario`] in a fresh copy
//! of this program: with iptables-nft and with iptables-legacy, as root and as the user `nobody` with nothing but
//! CAP_NET_ADMIN and CAP_NET_RAW, as the packaged unit gives them.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod cli;
mod host;
mod monitor;
mod scenario;

use std::{
    env,
    process::{Command, ExitCode},
};

use convey::{firewall::Variant, sys::ids};
use libtest_mimic::{Arguments, Failed, Trial};

/// Names the scenario that a copy of this program runs instead of tests: `variant/user/name`.
const SCENARIO: &str = "CONVEY_TEST_SCENARIO";

/// With which programs and as whom a scenario runs.
#[derive(Debug, Clone, Copy)]
struct Setting {
    variant: Variant,
    nobody: bool,
}

impl Setting {
    const ALL: [Self; 4] = [
        Self::new(Variant::Nft, false),
        Self::new(Variant::Nft, true),
        Self::new(Variant::Legacy, false),
        Self::new(Variant::Legacy, true),
    ];

    const fn new(variant: Variant, nobody: bool) -> Self {
        Self { variant, nobody }
    }

    fn label(self) -> String {
        let user = if self.nobody { "nobody" } else { "root" };
        format!("{}/{user}", host::suffix(self.variant))
    }
}

fn main() -> ExitCode {
    if let Ok(name) = env::var(SCENARIO) {
        let found = Setting::ALL
            .into_iter()
            .find_map(|setting| Some((setting, name.strip_prefix(&setting.label())?.strip_prefix('/')?)));
        let (setting, name) = found.unwrap();
        scenario::run(setting, name);
        return ExitCode::SUCCESS;
    }
    let trials = (Setting::ALL.into_iter())
        .flat_map(|setting| {
            let ignored = why_not(setting.variant);
            if let Some(reason) = &ignored {
                eprintln!("SKIPPED (counted as ignored): {}: {reason}", setting.label());
            }
            (scenario::ALL.iter())
                .filter(move |(_, only, _)| only(setting))
                .map(move |&(name, ..)| trial(setting, name).with_ignored_flag(ignored.is_some()))
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Why a variant cannot be tested here.
fn why_not(variant: Variant) -> Option<String> {
    if !ids::is_root() {
        return Some("needs root".into());
    }
    let program = format!("iptables-{}", host::suffix(variant));
    let output = Command::new("unshare")
        .args(["--net", &program, "-t", "raw", "-S"])
        .output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

fn trial(setting: Setting, name: &'static str) -> Trial {
    let scenario = format!("{}/{name}", setting.label());
    Trial::test(scenario.clone(), move || {
        let output = Command::new(env::current_exe()?)
            .env(SCENARIO, &scenario)
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(Failed::from(format!("{}\n{complaint}", output.status)))
    })
}
