//! `[hooks]`.

use std::time::Duration;

use crate::config::{
    commands::{Command, Hooks},
    findings::Findings,
    raw,
};

/// How long a hook may run.
const TIMEOUT: Duration = Duration::from_secs(10);

pub fn hooks(section: Option<&raw::Hooks>, findings: &mut Findings) -> Hooks {
    let Some(section) = section else {
        return Hooks::default();
    };
    let timeout = section.timeout.as_ref();
    let Some(on_change) = &section.on_change else {
        if let Some(timeout) = timeout {
            let message = "`timeout` has no command to end";
            let help = "write on_change = [\"/usr/local/bin/notify\"] beside it, or leave it out";
            findings.within("hooks", |findings| {
                findings.warn(timeout.key.clone(), message, help.to_owned());
            });
        }
        return Hooks::default();
    };
    Hooks {
        on_change: Some(Command {
            line: on_change.value.0.clone(),
            timeout: timeout.map_or(TIMEOUT, |at| at.value.0),
        }),
    }
}
