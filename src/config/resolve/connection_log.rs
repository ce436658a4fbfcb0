//! Where lines about connections go.

use std::{collections::BTreeMap, num::NonZeroU32, ops::Range, path::Path, sync::Arc};

use super::{merged, value};
use crate::{
    base::FrontendName,
    config::{
        connection_log::ConnectionLog,
        findings::Findings,
        model::{AccessLog, Config, LogFormat},
        raw::{self, Located},
    },
};

type Section<'a> = Option<&'a Located<raw::ConnectionLog>>;

/// `connection_log` of a frontend.
pub fn connection_log(own: Section<'_>, defaults: Section<'_>) -> ConnectionLog {
    says(&merged(own, defaults))
}

/// What a section says by itself.
pub fn says(raw: &raw::ConnectionLog) -> ConnectionLog {
    let default = ConnectionLog::default();
    ConnectionLog {
        sample: value(raw.sample.as_ref(), default.sample, |v| v.0),
        journal: value(raw.journal.as_ref(), default.journal, |v| v),
        file: value(raw.file.as_ref(), None, |v| v.0),
        syslog: value(raw.syslog.as_ref(), None, |v| v.0),
        format: value(raw.format.as_ref(), default.format, |v| v),
        facility: value(raw.facility.as_ref(), default.facility, |v| v),
    }
}

/// Refuses a file with lines of two forms, and warns of what has no effect.
pub fn check(file: &raw::File, config: &Config, findings: &mut Findings) {
    let mut forms: BTreeMap<&Path, (LogFormat, &FrontendName)> = BTreeMap::new();
    for (name, at) in file.frontends.iter().flat_map(|at| &at.value.0) {
        let Some(frontend) = config.frontends.get(name.as_str()) else {
            continue;
        };
        let own = at.value.options.connection_log.as_ref();
        if frontend.logs_connections() {
            let log = &frontend.connection_log;
            if let Some(path) = &log.file {
                let (form, first) = *forms.entry(path).or_insert((log.format, &frontend.name));
                if form != log.format {
                    let place = own.map_or(&at.key, |own| &own.key).clone();
                    two_forms(name, place, log, form, first, findings);
                }
            }
        }
        if let Some(own) = own.filter(|_| !frontend.mode.is_packet()) {
            findings.within_all(&["frontends", name, "connection_log"], |findings| {
                without_effect(
                    &own.value,
                    own,
                    frontend.access_log,
                    &frontend.connection_log,
                    findings,
                );
            });
        }
    }
}

/// Puts what has no effect back to its default, so that the configuration says what is in effect.
pub fn clear(config: &mut Config) {
    let default = ConnectionLog::default();
    for frontend in config.frontends.values_mut() {
        let mut log = frontend.connection_log.clone();
        match frontend.access_log {
            AccessLog::Off => log = default.clone(),
            AccessLog::Errors => log.sample = default.sample,
            AccessLog::All => {}
        }
        if log.file.is_none() && log.syslog.is_none() {
            log.format = default.format;
        }
        if log.syslog.is_none() {
            log.facility = default.facility;
        }
        if log != frontend.connection_log {
            Arc::make_mut(frontend).connection_log = log;
        }
    }
}

fn two_forms(
    name: &str,
    place: Range<usize>,
    log: &ConnectionLog,
    form: LogFormat,
    first: &FrontendName,
    findings: &mut Findings,
) {
    let path = log.file.as_deref().unwrap_or(Path::new("")).display();
    findings.within_all(&["frontends", name, "connection_log"], |findings| {
        findings.error(
            place,
            format!(
                "frontend `{name}` writes {} to {path}, and frontend `{first}` writes {}",
                log.format.label(),
                form.label()
            ),
            "a file has lines of one form: write the same `format` in both, or another `file`".to_owned(),
        );
    });
}

fn without_effect(
    raw: &raw::ConnectionLog,
    at: &Located<raw::ConnectionLog>,
    access_log: AccessLog,
    log: &ConnectionLog,
    findings: &mut Findings,
) {
    if access_log == AccessLog::Off {
        if says(raw) != ConnectionLog::default() {
            findings.warn(
                at.key.clone(),
                "`connection_log` has no effect where access_log is false",
                "remove one of the two".to_owned(),
            );
        }
        return;
    }
    let mut warn = |key: &str, place: Option<&Range<usize>>, why: &str, help: &str| {
        if let Some(place) = place {
            findings.within(key, |findings| {
                findings.warn(
                    place.clone(),
                    format!("`{key}` has no effect {why}"),
                    help.to_owned(),
                );
            });
        }
    };
    let sample = raw.sample.as_ref().filter(|at| at.value.0 != NonZeroU32::MIN);
    if access_log == AccessLog::Errors {
        let why = "where access_log is \"errors\": those are always logged";
        warn("sample", sample.map(|at| &at.key), why, "remove one of the two");
    }
    if log.file.is_none() && log.syslog.is_none() {
        let format = raw.format.as_ref().filter(|at| at.value != LogFormat::Text);
        let why = "without `file` and `syslog`";
        warn(
            "format",
            format.map(|at| &at.key),
            why,
            "remove it; log_format of [global] is the form on stderr",
        );
    }
    if log.syslog.is_none() {
        let facility = raw
            .facility
            .as_ref()
            .filter(|at| at.value != ConnectionLog::default().facility);
        warn(
            "facility",
            facility.map(|at| &at.key),
            "without `syslog`",
            "remove it, or add `syslog`",
        );
    }
}
