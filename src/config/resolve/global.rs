//! Section `[global]`.

use std::{num::NonZeroU32, time::Duration};

use super::{defaults, int, raw, time, value};
use crate::config::{
    findings::Findings,
    model::{Global, LogFormat, LogLevel},
};

/// What stands for the whole process.
pub(super) fn global(raw: Option<&raw::Global>, findings: &mut Findings) -> Global {
    let raw = raw.cloned().unwrap_or_default();
    if let Some(user) = raw.user.as_ref().filter(|user| user.value.0 == "root") {
        let help = "name an ordinary user, or leave the key out: then it is convey, or nobody where there is no such user";
        findings.within("global", |findings| {
            findings.error(user.span.clone(), "Convey never runs as root", help.to_owned());
        });
    }
    Global {
        log_level: value(raw.log_level.as_ref(), LogLevel::Info, |v| v),
        log_format: value(raw.log_format.as_ref(), LogFormat::Text, |v| v),
        access_log_per_second: NonZeroU32::new(int(
            raw.access_log_per_second.as_ref(),
            defaults::ACCESS_LOG_PER_SECOND,
        ))
        .unwrap_or(NonZeroU32::MIN),
        watch_config: value(raw.watch_config.as_ref(), true, |v| v),
        user: raw.user.map(|at| at.value.0),
        workers: value(raw.workers.as_ref(), None, |v| v.0),
        shutdown_timeout: time(raw.shutdown_timeout.as_ref(), Duration::from_secs(30)),
        state_dir: raw.state_dir.map(|at| at.value.0),
        ticket_keys_file: raw.ticket_keys_file.map(|at| at.value.0),
        hash_seed: raw.hash_seed.map(|at| at.value),
    }
}
